"""A network as a ``.tflite`` file: float32, channels last, activations built into the operators before them.

Stored weights keep their bits. Layers of images are put together again (:mod:`leo_frontends.layers`). A batch norm,
which the format does not have, is a product and a sum of its channels: folding it into the weights before would round
those, and that costs more than any tolerance in deep networks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from leo_core.errors import UnsupportedModelError
from leo_core.linear import Conv, ConvTranspose, LinearMap
from leo_core.network import INPUT, Affine, Network, Output, Own, Relu
from leo_frontends import laid, layers
from leo_frontends.channels_last import Writer, ordered, picked
from leo_frontends.graph import Array
from leo_frontends.laid import Laid, channels_last
from leo_frontends.layers import Layout, Pairs, Pool, Term
from leo_frontends.tflite import convolve, kept
from leo_frontends.tflite.build import Builder
from leo_frontends.tflite.convolve import Words

_WHERE = "a TensorFlow Lite file"
_RELU, _RELU6 = 1, 3
TAILS = {"log_softmax": "LOG_SOFTMAX", "sigmoid": "LOGISTIC", "softmax": "SOFTMAX", "tanh": "TANH"}


def built(network: Network) -> bytes:
    """The file's bytes. Raises :class:`UnsupportedModelError` for what the format does not hold."""
    if network.dtype != np.float32:
        problem = f"the network computes in {network.dtype}, and TensorFlow Lite in float32; write .onnx or .leo"
        raise UnsupportedModelError(_WHERE, [problem])
    return _Writer(network).file()


class _Writer(Writer):
    """``_tensor`` holds the values of each node, as far as it is there."""

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self._builder = Builder()
        self._moved: dict[tuple[int, str, tuple[int, ...]], int] = {}
        self._kept = kept.of(network.signature)
        self._bare = layers.bare_averages(network)
        found = {**layers.pools(network), **self._bare, **layers.global_pools(network)}
        self.pools = {name: pool for name, pool in found.items() if self._is_an_operator(pool)}
        self._clips = layers.clips(network, 6.0)
        self.inside = {name for pool in self.pools.values() for name in pool.inside}
        self.inside |= {name for clip in self._clips.values() for name in clip.inside}
        self._free_batch = True
        self._ends: set[int] = set()

    def file(self) -> bytes:
        """All of it."""
        network, signature = self.network, self.network.signature
        shape = signature.input_shape or (network.input_size,)
        given = self._builder.tensor(shape, self._kept.tensors.get(signature.input_name, signature.input_name))
        heads = self.heads(given, shape)
        outputs = [
            (self._finished(head, output), output.name) for output, head in zip(signature.outputs, heads, strict=True)
        ]
        return self._builder.packed(
            (given, signature.input_name), outputs, free_batch=self._free_batch, key=self._kept.key,
            description=self._kept.description, metadata=self._kept.metadata,
        )  # fmt: skip

    def _finished(self, result: Laid, output: Output) -> int:
        """An output with its tail and its shape, under its own name."""
        shape = output.shape or (math.prod(result.layout),)
        if not output.tail:
            at: int = self.laid(result, shape).at
        elif output.axis is None:  # of the flat vector, so before it gets a shape
            flat = self.laid(result, (math.prod(shape),))
            at = self._shaped(self._tail(output.tail, flat), flat.shape, shape)
        else:  # along the last axis
            last = (*(axis for axis in range(len(shape)) if axis != output.axis), output.axis)
            turned = self.laid(result, shape, last)
            at = self.laid(Laid(self._tail(output.tail, turned), shape, last), shape).at
        if not self._builder.is_made(at) or at in self._ends:  # the input itself, what others read, another output
            at = self._emit("RESHAPE", [at, self._shape(shape)], shape, output.name)
        self._builder.rename(at, self._kept.tensors.get(output.name, output.name))
        self._ends.add(at)
        return at

    def _tail(self, name: str, given: Laid) -> int:
        """Along the last axis."""
        if name == "softmax":
            return self._emit(TAILS[name], [given.at], given.shape, name, beta=1.0)
        return self._emit(TAILS[name], [given.at], given.shape, name)

    def affine(self, node: Affine) -> Laid:
        return self._clipped(node, self._clips[node.name]) if node.name in self._clips else super().affine(node)

    def relu(self, node: Relu) -> Laid:
        given, name = self.tensor[node.source], self._called(node.name)
        slopes = np.unique(node.slope)
        alone = len(self.network.readers[node.source]) == 1 and self.network.output != node.source
        if len(slopes) <= 1 and not slopes.any():
            if alone and self._builder.fused(given.at, _RELU, name):
                return given
            at = self._emit("RELU", [given.at], given.shape, node.name)
        elif len(slopes) == 1 and float(np.float32(slopes[0])) == slopes[0]:
            at = self._emit("LEAKY_RELU", [given.at], given.shape, node.name, alpha=float(slopes[0]))
        else:
            alpha = self._constant(given.spread(node.slope), f"{node.name}/alpha", node.name)
            at = self._emit("PRELU", [given.at, alpha], given.shape, node.name)
        return Laid(at, given.layout, given.order)

    def _clipped(self, node: Affine, clip: layers.Clip) -> Laid:
        """What is cut off below zero, and above six in all channels or some of them."""
        given, whole = self.tensor[clip.source], bool(clip.capped.all())
        alone = {*self.network.readers[clip.source]} <= clip.inside and self.network.output != clip.source
        name, kind, number = (node.name, "RELU6", _RELU6) if whole else (f"{node.name}_relu", "RELU", _RELU)
        at = given.at
        if not (alone and self._builder.fused(at, number, self._called(name))):
            at = self._emit(kind, [at], given.shape, name)
        if not whole:
            ends = np.where(clip.capped, np.float32(6), np.finfo(np.float32).max)
            by = self._constant(given.spread(ends), f"{node.name}/ends", node.name)
            at = self._emit("MINIMUM", [at, by], given.shape, node.name)
        return Laid(at, given.layout, given.order)

    def added(self, name: str, terms: Sequence[Laid], *, less: bool) -> Laid:
        total = terms[0]
        for term in terms[1:]:
            at = self._emit("SUB" if less else "ADD", [total.at, term.at], total.shape, name)
            total = Laid(at, total.layout, total.order)
        return total

    def concatenated(self, name: str, terms: Sequence[Laid], axis: int) -> int:
        at = terms[0].axis(axis)
        shape = (*terms[0].shape[: at - 1], sum(term.shape[at - 1] for term in terms), *terms[0].shape[at:])
        return self._emit("CONCATENATION", [term.at for term in terms], shape, name, axis=at)

    def applied(
        self, node: Affine, given: Laid, linear: LinearMap, term: Term, bias: Array | None, layout: Layout
    ) -> tuple[Laid, Array | None]:
        name = node.name
        match term.kind:
            case "scale":
                return self._scaled(name, given, term), bias
            case "channels":
                return self._channels(name, given, term.numbers), bias
            case "sum":
                axes = self._builder.constant(_int32([given.axis(axis) for axis in range(1, len(term.layout))]), "axes")
                at = self._emit("SUM", [given.at, axes], term.behind, name, keepDims=False)
                return Laid(at, term.behind, (0,)), bias
            case "pick":
                return self._picked(name, given, term.numbers, layout), bias
            case "matrix":
                blocks = layers.block_of(linear)
                if blocks is not None:
                    return self._repeated(name, given, *blocks), bias
                return self._dense(name, given, linear, bias, layout), None
        assert isinstance(linear, Conv | ConvTranspose)
        channels = layers.by_channel(bias, term.behind) if bias is not None else None
        image = self.image(given, term.layout)
        result = Laid(self._convolved(name, image, linear, channels), term.behind, channels_last(term.behind))
        return result, bias if channels is None else None

    def _scaled(self, name: str, given: Laid, term: Term) -> Laid:
        """A product; a quotient where the factor is one over a number, and so not one of float32."""
        numbers = term.numbers
        with np.errstate(divide="ignore"):
            divisor = (1.0 / numbers.astype(np.float64)).astype(np.float32)
        exact = numbers.astype(np.float32) == numbers
        if not exact.all() and np.isfinite(divisor).all() and (1.0 / divisor.astype(np.float64) == numbers).all():
            by = self._constant(given.spread(divisor), f"{name}/divisor", name)
            return Laid(self._emit("DIV", [given.at, by], given.shape, name), given.layout, given.order)
        factor = self._constant(given.spread(numbers), f"{name}/scale", name)
        return Laid(self._emit("MUL", [given.at, factor], given.shape, name), given.layout, given.order)

    def _channels(self, name: str, given: Laid, channels: NDArray[np.int64]) -> Laid:
        layout = (len(channels), *given.layout[1:])
        index = self._builder.constant(_int32(channels), f"{name}/channels")
        shape = laid.shape(layout, given.order)
        return Laid(self._emit("GATHER", [given.at, index], shape, name, axis=given.axis(0)), layout, given.order)

    def _picked(self, name: str, given: Laid, index: NDArray[np.int64], layout: Layout) -> Laid:
        """Values by their number, or a zero where there is none of that number."""
        layout = layout or (len(index),)
        order, none, wanted = channels_last(layout), len(given.places), picked(index, given, layout)
        shape = laid.shape(layout, order)
        if np.array_equal(wanted, np.arange(none)):
            return Laid(self._shaped(given.at, given.shape, shape), layout, order)
        frame, times = layers.framed(index, given.layout, layout), layers.repeated(index, given.layout, layout)
        if frame is not None and len(layout) > 1:
            image = self.image(given, given.layout)
            cut, around = frame
            return self._padded(name, self._cut(name, image, cut), around)
        if times is not None and len(layout) == 3:
            image = self.image(given, given.layout)
            sizes = self._builder.constant(_int32(shape[:2]), "sizes")
            at = self._emit("RESIZE_NEAREST_NEIGHBOR", [image.at, sizes], shape, name)
            return Laid(at, layout, order)
        flat = self.laid(given, given.layout, given.order)
        at = self._shaped(flat.at, flat.shape, (none,))
        if (wanted == none).any():
            pads = self._builder.constant(np.array([[0, 0], [0, 1]], np.int32), "pads")
            at = self._emit("PAD", [at, pads], (none + 1,), f"{name}_zero")
        at = self._emit(
            "GATHER", [at, self._builder.constant(_int32(wanted), f"{name}/index")], (len(wanted),), name, axis=1
        )
        return Laid(self._shaped(at, (len(wanted),), shape), layout, order)

    def _dense(self, name: str, given: Laid, linear: LinearMap, bias: Array | None, layout: Layout) -> Laid:
        """A matrix with rows and columns in the order in which tensors have their values."""
        layout = layout or (linear.rows,)
        order = channels_last(layout)
        weights, rows = ordered(linear, name, _WHERE, given, layout)
        shift = np.zeros(len(rows), np.float32) if bias is None else bias[rows]
        flat = self._shaped(given.at, given.shape, (weights.shape[1],))
        inputs = [flat, self._constant(weights, f"{name}/weight", name), self._constant(shift, f"{name}/bias", name)]
        at = self._emit("FULLY_CONNECTED", inputs, (len(rows),), name)
        return Laid(self._shaped(at, (len(rows),), laid.shape(layout, order)), layout, order)

    def _repeated(self, name: str, given: Laid, times: int, block: Array) -> Laid:
        """One matrix applied to so many runs of values."""
        height, width = block.shape
        flat = self.laid(given, (times * width,))
        runs = self._shaped(flat.at, flat.shape, (times, width))
        weights = self._constant(block, f"{name}/weight", name), self._constant(np.zeros(height), f"{name}/bias", name)
        at = self._emit("FULLY_CONNECTED", [runs, *weights], (times, height), name, 2, keepNumDims=True)
        return Laid(self._shaped(at, (times, height), (times * height,)), (times * height,), (0,))

    def _convolved(self, name: str, given: Laid, linear: Conv | ConvTranspose, bias: Array | None) -> int:
        """A tensor with its channels last, convolved; over one axis as over two, the first of length 1."""
        result = linear.geometry.input if isinstance(linear, ConvTranspose) else linear.geometry.output
        count = linear.conv.in_channels if isinstance(linear, ConvTranspose) else linear.out_channels
        shift = self._constant(np.zeros(count, np.float32) if bias is None else bias, f"{name}/bias", name)
        shape = (*result, count)
        if isinstance(linear, ConvTranspose):
            made = self._transposed(name, given, linear, shift)
            return self._shaped(made.at, made.shape, shape)
        words = convolve.of_windows(convolve.conv_windows(linear), linear.geometry.input)
        image = self._padded(f"{name}_pad", given, words.around)
        at = self._shaped(image.at, image.shape, convolve.image(image.shape))
        groups, each = linear.geometry.groups, linear.kernel.shape[1] == 1
        behind = convolve.image(shape)
        if each and groups > 1:
            kernel = self._constant(convolve.depthwise_kernel_of(linear), f"{name}/weight", name)
            options = {**words.options, "depthMultiplier": linear.out_channels // groups}
            version = 2 if max(linear.geometry.dilations) > 1 else 1
            made_at = self._emit("DEPTHWISE_CONV_2D", [at, kernel, shift], behind, name, version, **options)
        else:
            kernel = self._constant(convolve.kernel_of(linear), f"{name}/weight", name)
            version = 6 if groups > 1 else 1
            made_at = self._emit("CONV_2D", [at, kernel, shift], behind, name, version, **words.options)
        return self._shaped(made_at, behind, shape)

    def _transposed(self, name: str, given: Laid, linear: ConvTranspose, shift: int) -> Laid:
        """Its operator says how large its result is, the batch included: so the file is for one example at a time."""
        geometry = linear.geometry
        if geometry.groups > 1 or max(geometry.dilations) > 1:
            problem = (
                f"'{name}' is a transposed convolution in groups or with dilations, which the format does not have"
            )
            raise UnsupportedModelError(_WHERE, [f"{problem}; write .onnx or .pt2"])
        self._free_batch = False
        words, sizes, cut = convolve.of_transposed(linear)
        channels = linear.conv.in_channels
        shape = convolve.image((*sizes, channels))
        kernel = self._constant(convolve.transposed_kernel_of(linear), f"{name}/weight", name)
        at = self._shaped(given.at, given.shape, convolve.image(given.shape))
        whole = self._builder.constant(_int32([1, *shape]), f"{name}/shape")
        made = self._emit("TRANSPOSE_CONV", [whole, kernel, at, shift], shape, name, 3, **words.options)
        layout = (channels, *sizes)
        order = channels_last(layout)
        return self._cut(name, Laid(self._shaped(made, shape, laid.shape(layout, order)), layout, order), cut)

    def norm(self, node: Affine, own: Own) -> Laid:
        """γ (x − μ) / √(σ² + ε) + β as a product and a sum, its factors rounded as a framework rounds them."""
        given = self.own_layout(node)
        if not node.shape and len(own.numbers["gamma"]) == node.size:
            given = self.laid(given, (node.size,), (0,))
        scale = node.maps[0].scaling()
        assert scale is not None
        factor, shift = (given.spread(array).astype(np.float32) for array in (scale, node.bias))
        at = self._emit(
            "MUL", [given.at, self._builder.constant(factor, f"{node.name}/scale")], given.shape, f"{node.name}_scaled"
        )
        at = self._emit("ADD", [at, self._builder.constant(shift, f"{node.name}/shift")], given.shape, node.name)
        return Laid(at, given.layout, given.order)

    def divided(self, node: Affine, divisor: Array) -> Laid:
        given = self.own_layout(node)
        by = self._constant(given.spread(divisor), f"{node.name}/divisor", node.name)
        return Laid(self._emit("DIV", [given.at, by], given.shape, node.name), given.layout, given.order)

    def shifted(self, name: str, given: Laid, bias: Array | None) -> Laid:
        if bias is None or not bias.any():
            return given
        shift = self._constant(given.spread(bias), f"{name}/shift", name)
        return Laid(self._emit("ADD", [given.at, shift], given.shape, name), given.layout, given.order)

    def constant(self, node: Affine) -> Laid:
        """Once per example: one value of the input, times nothing, plus that."""
        layout = node.shape or (node.size,)
        order = channels_last(layout)
        given = self.tensor[INPUT]
        flat = self._shaped(given.at, given.shape, (self.network.input_size,))
        first = self._builder.constant(_int32([0]), "first")
        one = self._emit("GATHER", [flat, first], (1,), f"{node.name}_one", axis=1)
        zero = self._builder.constant(np.zeros((1,), np.float32), "zero")
        none = self._emit("MUL", [one, zero], (1,), f"{node.name}_zero")
        shift = self._constant(node.bias[laid.places(layout, order)], f"{node.name}/value", node.name)
        at = self._emit("ADD", [none, shift], (node.size,), node.name)
        return Laid(self._shaped(at, (node.size,), laid.shape(layout, order)), layout, order)

    def _is_an_operator(self, pool: Pool) -> bool:
        """Whether the format has it: without dilations, with pads by name, or with zeros that change no maximum."""
        source = self.network[pool.source] if pool.source != INPUT else None
        positive = isinstance(source, Relu) and not source.slope.any()
        named = not convolve.of_windows(convolve.pool_windows(pool), pool.layout[1:]).around
        counted = pool.kind == "average" and pool not in self._bare.values()
        return max(pool.dilations) == 1 and (counted or named or (positive and pool.kind == "max"))

    def pool(self, node: Affine, pool: Pool) -> Laid:
        given = self.image(self.tensor[pool.source], pool.layout)
        if not np.array_equal(pool.channels, np.arange(pool.layout[0])):
            given = self._channels(f"{node.name}_channels", given, pool.channels)
        if pool.over_all:
            return self._pooled_over_all(node, pool, given)
        windows = convolve.pool_windows(pool)
        words = convolve.of_windows(windows, pool.layout[1:], dilated=False)
        counted = pool.kind == "average" and node.name not in self._bare
        if counted and any(windows.low + windows.high):  # which its operator does not
            bare = convolve.of_windows(convolve.without_pads(windows), pool.layout[1:], dilated=False)
            words = Words(tuple(zip(windows.low, windows.high, strict=True)), bare.options)
        given = self._padded(f"{node.name}_pad", given, words.around)
        layout = (len(pool.channels), *node.shape[1:])
        order = channels_last(layout)
        shape = laid.shape(layout, order)
        taps = dict(zip(("filterHeight", "filterWidth"), (*(1,) * (2 - len(pool.taps)), *pool.taps), strict=True))
        at = self._shaped(given.at, given.shape, convolve.image(given.shape))
        kind = "MAX_POOL_2D" if pool.kind == "max" else "AVERAGE_POOL_2D"
        at = self._emit(kind, [at], convolve.image(shape), node.name, **taps, **words.options)
        return Laid(self._shaped(at, convolve.image(shape), shape), layout, order)

    def _pooled_over_all(self, node: Affine, pool: Pool, given: Laid) -> Laid:
        rank = len(pool.layout) - 1
        layout = node.shape if len(node.shape) == rank + 1 else (node.size,)
        order = channels_last(layout)
        axes = self._builder.constant(_int32(range(1, rank + 1)), "axes")
        kind = "REDUCE_MAX" if pool.kind == "max" else "MEAN"
        shape = laid.shape(layout, order)
        return Laid(self._emit(kind, [given.at, axes], shape, node.name, keepDims=len(layout) > 1), layout, order)

    def permuted(self, given: Laid, order: Layout) -> Laid:
        axes = tuple(given.axis(axis) for axis in order)
        key = given.at, "TRANSPOSE", axes
        if key not in self._moved:
            by = self._builder.constant(_int32((0, *axes)), "order")
            shape = laid.shape(given.layout, order)
            self._moved[key] = self._emit("TRANSPOSE", [given.at, by], shape, "transposed")
        return Laid(self._moved[key], given.layout, order)

    def reshaped(self, given: Laid, layout: Layout, order: Layout) -> Laid:
        return Laid(self._shaped(given.at, given.shape, laid.shape(layout, order)), layout, order)

    def _shaped(self, at: int, before: Layout, shape: Layout) -> int:
        if before == shape:
            return at
        key = at, "RESHAPE", shape
        if key not in self._moved:
            self._moved[key] = self._emit("RESHAPE", [at, self._shape(shape)], shape, "reshaped")
        return self._moved[key]

    def _shape(self, shape: Layout) -> int:
        return self._builder.constant(_int32([-1, *shape]), "shape")

    def _padded(self, name: str, given: Laid, around: Pairs) -> Laid:
        """Zeros around images with their channels last."""
        if not np.any(around):
            return given
        pads = self._builder.constant(np.array([(0, 0), *around, (0, 0)], np.int32), "pads")
        sizes = [size + low + high for size, (low, high) in zip(given.layout[1:], around, strict=True)]
        layout = (given.layout[0], *sizes)
        return Laid(self._emit("PAD", [given.at, pads], laid.shape(layout, given.order), name), layout, given.order)

    def _cut(self, name: str, given: Laid, pairs: Pairs) -> Laid:
        """Images with their channels last, without so much of each edge."""
        if not np.any(pairs):
            return given
        sizes = [size - low - high for size, (low, high) in zip(given.layout[1:], pairs, strict=True)]
        layout = (given.layout[0], *sizes)
        shape = laid.shape(layout, given.order)
        begin = self._builder.constant(_int32([0, *(low for low, _ in pairs), 0]), "begin")
        size = self._builder.constant(_int32([-1, *shape]), "size")
        return Laid(self._emit("SLICE", [given.at, begin, size], shape, f"{name}_cut"), layout, given.order)

    def _emit(
        self, kind: str, inputs: Sequence[int], shape: Layout, name: str, version: int = 1, **options: object
    ) -> int:
        return self._builder.operator(kind, inputs, shape, self._called(name), version, **options)

    def _called(self, name: str) -> str:
        """The whole name of a tensor, where the file that was read had more to it."""
        return self._kept.tensors.get(name, name)

    def _constant(self, array: Array, what: str, name: str) -> int:
        """Numbers of the node ``name``. Raises :class:`UnsupportedModelError` where float32 does not hold them."""
        narrow = array.astype(np.float32)
        if (narrow != array).any():
            problem = (
                f"'{name}' holds numbers in float64 that float32 does not have, and TensorFlow Lite computes in that"
            )
            raise UnsupportedModelError(_WHERE, [f"{problem}; write .onnx or .leo"])
        return self._builder.constant(narrow, what)


def _int32(numbers: Sequence[int] | NDArray[np.int64] | range) -> Array:
    return np.array(numbers, np.int32)
