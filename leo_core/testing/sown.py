"""Networks on images that grow layer by layer, with channels made what a test wants of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leo_core.linear import Conv, Dense, Select, Spacing, Sparse
from leo_core.network import INPUT, Affine, Network, Node, Origin, Output, Own, Relu, Rounding, Signature

Array = NDArray[Any]


class Sown:
    """A network on images as it grows from a seed; each method adds a layer behind ``at`` and returns the network.

    ``shape`` is (channels, height, width) of what ``at`` holds.
    """

    def __init__(self, seed: int, shape: tuple[int, ...] = (2, 6, 5)) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[Node] = []
        self.at, self.shape, self.input_shape = INPUT, shape, shape

    def convolve(self, channels: int, taps: int = 3, *, groups: int = 1, relu: bool = True, **where: Any) -> Sown:
        """A convolution of random weights, and a ReLU unless told otherwise."""
        kernel = self.rng.uniform(-1, 1, (channels, self.shape[0] // groups, taps, taps)).astype(np.float32)
        bias = self.rng.uniform(-1, 1, channels).astype(np.float32)
        return self.put(kernel, bias, groups=groups, relu=relu, **where)

    def put(self, kernel: Array, bias: Array, *, groups: int = 1, relu: bool = True, **where: Any) -> Sown:
        """A convolution of these weights."""
        conv = Conv.of(kernel, self.shape[1:], Spacing(**where), groups)
        shape = (len(kernel), *conv.geometry.output)
        spread = np.repeat(bias, shape[1] * shape[2])
        self._add(Affine(self._name("conv"), (self.at,), (conv,), spread, shape=shape))
        return self.rectify() if relu else self

    def rectify(self) -> Sown:
        """A ReLU."""
        self.nodes.append(Relu(self._name("relu"), self.at, np.zeros(int(np.prod(self.shape)))))
        self.at = self.nodes[-1].name
        return self

    def normed(self) -> Sown:
        """A batch norm, whose own numbers have no exact floats."""
        ends = {"gamma": (0.5, 2), "beta": (-1, 1), "mean": (-1, 1), "variance": (0.1, 2)}
        numbers = {key: self.rng.uniform(*end, self.shape[0]).astype(np.float32) for key, end in ends.items()}
        return self.with_norm(numbers)

    def with_norm(self, numbers: dict[str, Array], epsilon: float = 1e-3) -> Sown:
        """A batch norm of these numbers: gamma, beta, mean and variance of each channel."""
        channels, positions = self.shape[0], self.shape[1] * self.shape[2]
        scale = numbers["gamma"] / np.sqrt(numbers["variance"].astype(float) + epsilon)
        shift = numbers["beta"] - numbers["mean"] * scale
        size = np.repeat(np.abs(numbers["beta"]) + np.abs(numbers["mean"] * scale), positions)
        own = Own(Rounding(2.0**-48, 2.0**-48 * size), Rounding(16.0, 16.0 * size), numbers, epsilon)
        conv = Conv.of(scale.reshape(-1, 1, 1, 1), self.shape[1:], groups=channels)
        spread = np.repeat(shift, positions)
        name = self._name("norm")
        return self._add(Affine(name, (self.at,), (conv,), spread, Origin(name, "batchnorm"), self.shape, own))

    def averaged(self, taps: int = 2) -> Sown:
        """The mean of each window of a power of two values, which has an exact float."""
        kernel = np.full((self.shape[0], 1, taps, taps), 1.0 / taps**2, np.float32)
        return self.put(kernel, np.zeros(self.shape[0], np.float32), relu=False, groups=self.shape[0], strides=taps)

    def pooled(self, taps: int = 2) -> Sown:
        """The largest of each window, as max(a, b) = b + relu(a − b)."""
        channels, height, width = self.shape
        origin = Origin(self._name("pool"), "maxpool")
        where = np.arange(channels * height * width).reshape(self.shape)
        for axis in (1, 2):
            count = where.shape[axis] // taps
            parts = [where.take(np.arange(count) * taps + tap, axis) for tap in range(taps)]
            source, largest = self.at, parts[0].ravel()
            for part in parts[1:]:
                shape, columns = part.shape, self._size(source)
                ends = [Select(index, columns=columns) for index in (largest, part.ravel())]
                if source == self.at:
                    apart = Sparse.of(_sparse(ends[0]) - _sparse(ends[1]))
                    sources: tuple[str, ...] = (source,)
                    maps: tuple[Any, ...] = (apart,)
                    later = (self.at, ends[1])
                else:
                    taken = Select(part.ravel(), columns=self._size(self.at))
                    below = Sparse.of(-_sparse(taken))
                    sources, maps, later = (source, self.at), (Select.identity(columns), below), (self.at, taken)
                nothing = np.zeros(part.size, np.float32)
                above = self._name("above")
                self.nodes.append(Affine(above, sources, maps, nothing, origin, shape))
                self.nodes.append(Relu(self._name("relu"), above, np.zeros(part.size), origin))
                both = (self.nodes[-1].name, later[0]), (Select.identity(part.size), later[1])
                self.nodes.append(Affine(self._name("max"), *both, nothing, origin, shape))
                source, largest = self.nodes[-1].name, np.arange(part.size)
            self.at, self.shape = source, parts[0].shape
            where = np.arange(int(np.prod(self.shape))).reshape(self.shape)
        return self

    def added(self, other: str) -> Sown:
        """The sum with another node of the same shape."""
        size = int(np.prod(self.shape))
        maps = (Select.identity(size), Select.identity(size))
        nothing = np.zeros(size, np.float32)
        return self._add(Affine(self._name("sum"), (other, self.at), maps, nothing, shape=self.shape))

    def change(self, edit: Callable[[Array, Array], None], name: str = "") -> Sown:
        """The kernel, and the bias per channel, of a convolution, else of the last one, edited in place."""
        at = max(i for i, node in enumerate(self.nodes) if node.name == (name or self.last))
        node = self.nodes[at]
        assert isinstance(node, Affine)
        conv = node.maps[0]
        assert isinstance(conv, Conv)
        kernel, bias = conv.kernel.copy(), node.bias.reshape(len(conv.kernel), -1)[:, 0].copy()
        edit(kernel, bias)
        changed = Conv(kernel, conv.arrays()["geometry"])
        self.nodes[at] = replace(node, maps=(changed,), bias=np.repeat(bias, node.size // len(bias)))
        return self

    @property
    def last(self) -> str:
        """The last convolution."""
        return [node.name for node in self.nodes if node.name.startswith("conv")][-1]

    def network(self, outputs: int = 3) -> Network:
        """What has grown, with a matrix behind it."""
        weights = self.rng.uniform(-1, 1, (outputs, int(np.prod(self.shape)))).astype(np.float32)
        out = Affine("out", (self.at,), (Dense(weights),), np.zeros(outputs, np.float32))
        signature = Signature("image", self.input_shape, (Output("scores", (outputs,)),))
        return Network(int(np.prod(self.input_shape)), (*self.nodes, out), "out", signature)

    def _name(self, kind: str) -> str:
        return f"{kind}{len(self.nodes)}"

    def _size(self, name: str) -> int:
        sizes = {node.name: node.size for node in self.nodes}
        return sizes.get(name, int(np.prod(self.input_shape)))

    def _add(self, node: Affine) -> Sown:
        self.nodes.append(node)
        self.at, self.shape = node.name, node.shape
        return self


def _sparse(linear: Select) -> Any:
    import scipy.sparse as sp

    arrays = linear.sparse().arrays()
    shape = linear.rows, linear.columns
    return sp.csr_array((arrays["data"], arrays["indices"], arrays["indptr"]), shape=shape)


def dead(channel: int) -> Callable[[Array, Array], None]:
    """A channel that is never above zero."""

    def edit(_kernel: Array, bias: Array) -> None:
        bias[channel] = -1e4

    return edit


def constant(channel: int, value: float) -> Callable[[Array, Array], None]:
    """A channel of one value."""

    def edit(kernel: Array, bias: Array) -> None:
        kernel[channel], bias[channel] = 0, value

    return edit


def unread(channel: int) -> Callable[[Array, Array], None]:
    """A channel of what a convolution reads that it does not look at."""

    def edit(kernel: Array, _bias: Array) -> None:
        kernel[:, channel] = 0

    return edit


def parallel(channel: int, other: int, factor: float) -> Callable[[Array, Array], None]:
    """A filter that is a multiple of another."""

    def edit(kernel: Array, bias: Array) -> None:
        kernel[channel], bias[channel] = factor * kernel[other], factor * bias[other]

    return edit


def active(least: float = 0.1) -> Callable[[Array, Array], None]:
    """All channels above zero where what is read lies in [0, 1]."""

    def edit(kernel: Array, bias: Array) -> None:
        below = np.minimum(kernel, 0).reshape(len(kernel), -1).sum(axis=1)
        bias[:] = least - below + 0.25 * np.arange(len(bias))

    return edit


def dependent(channel: int, factors: dict[int, float]) -> Callable[[Array, Array], None]:
    """A filter, but for its bias, that is a sum of multiples of others."""

    def edit(kernel: Array, _bias: Array) -> None:
        kernel[channel] = sum(np.float32(factor) * kernel[other] for other, factor in factors.items())

    return edit
