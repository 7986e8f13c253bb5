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
from leo_core.linear import Conv, ConvTranspose, LinearMap, Select
from leo_core.network import INPUT, Affine, Network, Output, Own, Relu
from leo_frontends import laid, layers
from leo_frontends.graph import Array
from leo_frontends.heads import apart
from leo_frontends.laid import Laid, channels_last, kept_order, straight, wanted_layout
from leo_frontends.layers import Layout, Pairs, Pool, Term
from leo_frontends.matrices import matrix
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


class _Writer:
    """``_tensor`` holds the values of each node, as far as it is there."""

    def __init__(self, network: Network) -> None:
        self._network, self._builder = network, Builder()
        self._tensor: dict[str, Laid] = {}
        self._moved: dict[tuple[int, str, tuple[int, ...]], int] = {}
        self._kept = kept.of(network.signature)
        self._bare = layers.bare_averages(network)
        found = {**layers.pools(network), **self._bare, **layers.global_pools(network)}
        self._pools = {name: pool for name, pool in found.items() if self._is_an_operator(pool)}
        self._clips = layers.clips(network, 6.0)
        self._inside = {name for pool in self._pools.values() for name in pool.inside}
        self._inside |= {name for clip in self._clips.values() for name in clip.inside}
        self._free_batch = True
        self._ends: set[int] = set()

    def file(self) -> bytes:
        """All of it."""
        network, signature = self._network, self._network.signature
        shape = signature.input_shape or (network.input_size,)
        given = self._builder.tensor(shape, self._kept.tensors.get(signature.input_name, signature.input_name))
        self._tensor[INPUT] = Laid(given, shape, straight(shape))
        nodes, heads = apart(network)
        for node in nodes:
            if node.name not in self._inside:
                self._tensor[node.name] = self._affine(node) if isinstance(node, Affine) else self._relu(node)
        outputs = [
            (self._finished(self._tensor[head], output), output.name)
            for output, head in zip(signature.outputs, heads, strict=True)
        ]
        return self._builder.packed(
            (given, signature.input_name), outputs, free_batch=self._free_batch, key=self._kept.key,
            description=self._kept.description, metadata=self._kept.metadata,
        )  # fmt: skip

    def _finished(self, result: Laid, output: Output) -> int:
        """An output with its tail and its shape, under its own name."""
        shape = output.shape or (math.prod(result.layout),)
        if not output.tail:
            at: int = self._laid(result, shape).at
        elif output.axis is None:  # of the flat vector, so before it gets a shape
            flat = self._laid(result, (math.prod(shape),))
            at = self._reshaped(self._tail(output.tail, flat), flat.shape, shape)
        else:  # along the last axis
            last = (*(axis for axis in range(len(shape)) if axis != output.axis), output.axis)
            turned = self._laid(result, shape, last)
            at = self._laid(Laid(self._tail(output.tail, turned), shape, last), shape).at
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

    def _affine(self, node: Affine) -> Laid:
        """A pooling, a layer with numbers of its own, parts side by side, or Σ maps · sources + bias."""
        norm, divisor, joined = layers.norm_of(node), layers.divisor_of(node), layers.joined(node)
        if node.name in self._pools:
            return self._pool(node, self._pools[node.name])
        if node.name in self._clips:
            return self._clipped(node, self._clips[node.name])
        if norm is not None:
            return self._norm(node, norm)
        if divisor is not None:
            return self._divided(node, divisor)
        if joined is not None:
            return self._shifted(node.name, self._joined(node, *joined), node.bias)
        return self._sum(node)

    def _relu(self, node: Relu) -> Laid:
        given, name = self._tensor[node.source], self._called(node.name)
        slopes = np.unique(node.slope)
        alone = len(self._network.readers[node.source]) == 1 and self._network.output != node.source
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
        given, whole = self._tensor[clip.source], bool(clip.capped.all())
        alone = {*self._network.readers[clip.source]} <= clip.inside and self._network.output != clip.source
        name, kind, number = (node.name, "RELU6", _RELU6) if whole else (f"{node.name}_relu", "RELU", _RELU)
        at = given.at
        if not (alone and self._builder.fused(at, number, self._called(name))):
            at = self._emit(kind, [at], given.shape, name)
        if not whole:
            ends = np.where(clip.capped, np.float32(6), np.finfo(np.float32).max)
            by = self._constant(given.spread(ends), f"{node.name}/ends", node.name)
            at = self._emit("MINIMUM", [at, by], given.shape, node.name)
        return Laid(at, given.layout, given.order)

    def _sum(self, node: Affine) -> Laid:
        reads = [(source, linear) for source, linear in node.reads if linear.nonzeros and linear.columns]
        if not reads:
            return self._spread(node)
        kind, wanted = "ADD", wanted_layout(self._network, node)
        if len(reads) == 2 and any(layers.negated(linear) is not None for _, linear in reads):
            minus, other = reads if layers.negated(reads[0][1]) is not None else reads[::-1]
            kind, reads = "SUB", [other, (minus[0], layers.negated(minus[1]) or minus[1])]
        bias: Array | None = node.bias
        terms = []
        for source, linear in reads:
            term, bias = self._term(node, self._tensor[source], linear, bias, wanted)
            terms.append(term)
        layout = wanted or terms[0].layout
        order = next((term.order for term in terms if term.layout == layout), channels_last(layout))
        terms = [self._laid(term, layout, order) for term in terms]
        total = terms[0]
        for term in terms[1:]:
            total = Laid(self._emit(kind, [total.at, term.at], total.shape, node.name), layout, order)
        return self._shifted(node.name, total, bias)

    def _joined(self, node: Affine, axis: int, parts: Sequence[tuple[str, Select]]) -> Laid:
        layout = node.shape or (node.size,)
        others = node.size // layout[axis]
        terms: list[Laid] = []
        for source, select in parts:
            part = (*layout[:axis], select.rows // others, *layout[axis + 1 :])
            term, _ = self._term(node, self._tensor[source], select, None, part)
            terms.append(self._laid(term, part, terms[0].order if terms else kept_order(term, part)))
        order = terms[0].order
        shape = laid.shape(layout, order)
        at = self._emit("CONCATENATION", [term.at for term in terms], shape, node.name, axis=terms[0].axis(axis))
        return Laid(at, layout, order)

    def _term(
        self, node: Affine, given: Laid, linear: LinearMap, bias: Array | None, layout: Layout
    ) -> tuple[Laid, Array | None]:
        """A map applied to a tensor, and the bias that is left; laid out as told, where it can be had in any layout."""
        name, term = node.name, layers.term(linear, given.layout)
        match term.kind:
            case "same":
                return given, bias
            case "scale":
                return self._scaled(name, given, term), bias
            case "transpose":
                order = tuple([*term.numbers].index(axis) for axis in given.order)
                return Laid(given.at, term.behind, order), bias
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
        image = self._laid(given, term.layout, channels_last(term.layout))
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
        order, none = channels_last(layout), len(given.places)
        place = np.append(np.argsort(given.places), none)
        wanted = place[index][laid.places(layout, order)]
        shape = laid.shape(layout, order)
        if np.array_equal(wanted, np.arange(none)):
            return Laid(self._reshaped(given.at, given.shape, shape), layout, order)
        frame, times = layers.framed(index, given.layout, layout), layers.repeated(index, given.layout, layout)
        if frame is not None and len(layout) > 1:
            image = self._laid(given, given.layout, channels_last(given.layout))
            cut, around = frame
            return self._padded(name, self._cut(name, image, cut), around)
        if times is not None and len(layout) == 3:
            image = self._laid(given, given.layout, channels_last(given.layout))
            sizes = self._builder.constant(_int32(shape[:2]), "sizes")
            at = self._emit("RESIZE_NEAREST_NEIGHBOR", [image.at, sizes], shape, name)
            return Laid(at, layout, order)
        flat = self._laid(given, given.layout, given.order)
        at = self._reshaped(flat.at, flat.shape, (none,))
        if (wanted == none).any():
            pads = self._builder.constant(np.array([[0, 0], [0, 1]], np.int32), "pads")
            at = self._emit("PAD", [at, pads], (none + 1,), f"{name}_zero")
        at = self._emit(
            "GATHER", [at, self._builder.constant(_int32(wanted), f"{name}/index")], (len(wanted),), name, axis=1
        )
        return Laid(self._reshaped(at, (len(wanted),), shape), layout, order)

    def _dense(self, name: str, given: Laid, linear: LinearMap, bias: Array | None, layout: Layout) -> Laid:
        """A matrix with rows and columns in the order in which tensors have their values."""
        layout = layout or (linear.rows,)
        order = channels_last(layout)
        rows, columns = laid.places(layout, order), given.places
        weights = matrix(linear, name, _WHERE)
        if not np.array_equal(rows, np.arange(len(rows))):
            weights = weights[rows]
        if not np.array_equal(columns, np.arange(len(columns))):
            weights = weights[:, columns]
        shift = np.zeros(len(rows), np.float32) if bias is None else bias[rows]
        flat = self._reshaped(given.at, given.shape, (len(columns),))
        inputs = [flat, self._constant(weights, f"{name}/weight", name), self._constant(shift, f"{name}/bias", name)]
        at = self._emit("FULLY_CONNECTED", inputs, (len(rows),), name)
        return Laid(self._reshaped(at, (len(rows),), laid.shape(layout, order)), layout, order)

    def _repeated(self, name: str, given: Laid, times: int, block: Array) -> Laid:
        """One matrix applied to so many runs of values."""
        height, width = block.shape
        flat = self._laid(given, (times * width,))
        runs = self._reshaped(flat.at, flat.shape, (times, width))
        weights = self._constant(block, f"{name}/weight", name), self._constant(np.zeros(height), f"{name}/bias", name)
        at = self._emit("FULLY_CONNECTED", [runs, *weights], (times, height), name, 2, keepNumDims=True)
        return Laid(self._reshaped(at, (times, height), (times * height,)), (times * height,), (0,))

    def _convolved(self, name: str, given: Laid, linear: Conv | ConvTranspose, bias: Array | None) -> int:
        """A tensor with its channels last, convolved; over one axis as over two, the first of length 1."""
        result = linear.geometry.input if isinstance(linear, ConvTranspose) else linear.geometry.output
        count = linear.conv.in_channels if isinstance(linear, ConvTranspose) else linear.out_channels
        shift = self._constant(np.zeros(count, np.float32) if bias is None else bias, f"{name}/bias", name)
        shape = (*result, count)
        if isinstance(linear, ConvTranspose):
            made = self._transposed(name, given, linear, shift)
            return self._reshaped(made.at, made.shape, shape)
        words = convolve.of_windows(convolve.conv_windows(linear), linear.geometry.input)
        image = self._padded(f"{name}_pad", given, words.around)
        at = self._reshaped(image.at, image.shape, convolve.image(image.shape))
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
        return self._reshaped(made_at, behind, shape)

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
        at = self._reshaped(given.at, given.shape, convolve.image(given.shape))
        whole = self._builder.constant(_int32([1, *shape]), f"{name}/shape")
        made = self._emit("TRANSPOSE_CONV", [whole, kernel, at, shift], shape, name, 3, **words.options)
        layout = (channels, *sizes)
        order = channels_last(layout)
        return self._cut(name, Laid(self._reshaped(made, shape, laid.shape(layout, order)), layout, order), cut)

    def _norm(self, node: Affine, own: Own) -> Laid:
        """γ (x − μ) / √(σ² + ε) + β as a product and a sum, its factors rounded as a framework rounds them."""
        given = self._tensor[node.sources[0]]
        if node.shape:
            given = self._laid(given, node.shape, kept_order(given, node.shape))
        elif len(own.numbers["gamma"]) == node.size:
            given = self._laid(given, (node.size,), (0,))
        scale = node.maps[0].scaling()
        assert scale is not None
        factor, shift = (given.spread(array).astype(np.float32) for array in (scale, node.bias))
        at = self._emit(
            "MUL", [given.at, self._builder.constant(factor, f"{node.name}/scale")], given.shape, f"{node.name}_scaled"
        )
        at = self._emit("ADD", [at, self._builder.constant(shift, f"{node.name}/shift")], given.shape, node.name)
        return Laid(at, given.layout, given.order)

    def _divided(self, node: Affine, divisor: Array) -> Laid:
        given = self._tensor[node.sources[0]]
        if node.shape:
            given = self._laid(given, node.shape, kept_order(given, node.shape))
        by = self._constant(given.spread(divisor), f"{node.name}/divisor", node.name)
        return Laid(self._emit("DIV", [given.at, by], given.shape, node.name), given.layout, given.order)

    def _shifted(self, name: str, given: Laid, bias: Array | None) -> Laid:
        if bias is None or not bias.any():
            return given
        shift = self._constant(given.spread(bias), f"{name}/shift", name)
        return Laid(self._emit("ADD", [given.at, shift], given.shape, name), given.layout, given.order)

    def _spread(self, node: Affine) -> Laid:
        """A constant, once per example: one value of the input, times nothing, plus that."""
        layout = node.shape or (node.size,)
        order = channels_last(layout)
        given = self._tensor[INPUT]
        flat = self._reshaped(given.at, given.shape, (self._network.input_size,))
        first = self._builder.constant(_int32([0]), "first")
        one = self._emit("GATHER", [flat, first], (1,), f"{node.name}_one", axis=1)
        zero = self._builder.constant(np.zeros((1,), np.float32), "zero")
        none = self._emit("MUL", [one, zero], (1,), f"{node.name}_zero")
        shift = self._constant(node.bias[laid.places(layout, order)], f"{node.name}/value", node.name)
        at = self._emit("ADD", [none, shift], (node.size,), node.name)
        return Laid(self._reshaped(at, (node.size,), laid.shape(layout, order)), layout, order)

    def _is_an_operator(self, pool: Pool) -> bool:
        """Whether the format has it: without dilations, with pads by name, or with zeros that change no maximum."""
        source = self._network[pool.source] if pool.source != INPUT else None
        positive = isinstance(source, Relu) and not source.slope.any()
        named = not convolve.of_windows(convolve.pool_windows(pool), pool.layout[1:]).around
        counted = pool.kind == "average" and pool not in self._bare.values()
        return max(pool.dilations) == 1 and (counted or named or (positive and pool.kind == "max"))

    def _pool(self, node: Affine, pool: Pool) -> Laid:
        given = self._laid(self._tensor[pool.source], pool.layout, channels_last(pool.layout))
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
        at = self._reshaped(given.at, given.shape, convolve.image(given.shape))
        kind = "MAX_POOL_2D" if pool.kind == "max" else "AVERAGE_POOL_2D"
        at = self._emit(kind, [at], convolve.image(shape), node.name, **taps, **words.options)
        return Laid(self._reshaped(at, convolve.image(shape), shape), layout, order)

    def _pooled_over_all(self, node: Affine, pool: Pool, given: Laid) -> Laid:
        rank = len(pool.layout) - 1
        layout = node.shape if len(node.shape) == rank + 1 else (node.size,)
        order = channels_last(layout)
        axes = self._builder.constant(_int32(range(1, rank + 1)), "axes")
        kind = "REDUCE_MAX" if pool.kind == "max" else "MEAN"
        shape = laid.shape(layout, order)
        return Laid(self._emit(kind, [given.at, axes], shape, node.name, keepDims=len(layout) > 1), layout, order)

    def _laid(self, given: Laid, layout: Layout, order: Layout | None = None) -> Laid:
        """The same values in another layout and order of axes, by default its own; transposed only where needed."""
        order = order or straight(layout)
        if np.array_equal(given.places, laid.places(layout, order)):
            return Laid(self._reshaped(given.at, given.shape, laid.shape(layout, order)), layout, order)
        if given.layout == layout:
            axes = (0, *(given.axis(axis) for axis in order))
            key = given.at, "TRANSPOSE", axes
            if key not in self._moved:
                by = self._builder.constant(_int32(axes), "order")
                self._moved[key] = self._emit("TRANSPOSE", [given.at, by], laid.shape(layout, order), "transposed")
            return Laid(self._moved[key], layout, order)
        return self._laid(self._laid(self._laid(given, given.layout), layout), layout, order)

    def _reshaped(self, at: int, before: Layout, shape: Layout) -> int:
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
