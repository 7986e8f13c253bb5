"""Convolutions and poolings, whichever framework has them: tensors are (batch, channels, *positions) here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from leo_core.linear import Conv, ConvTranspose, LinearMap, Spacing
from leo_core.network import Origin
from leo_frontends import lowering
from leo_frontends.graph import Array, Graph, Refused, Split, Value
from leo_frontends.indices import is_identity
from leo_frontends.lowering import computed


@final
@dataclass(frozen=True)
class Windows:
    """Where windows lie, one number for each spatial axis in each field.

    Attributes
    ----------
    low, high:
        Pads before and behind.
    """

    taps: tuple[int, ...]
    strides: tuple[int, ...]
    low: tuple[int, ...]
    high: tuple[int, ...]
    dilations: tuple[int, ...]

    def __post_init__(self) -> None:
        if len({len(part) for part in (self.taps, self.strides, self.low, self.high, self.dilations)}) > 1:
            raise Refused("its strides, pads and dilations are not of as many axes as its kernel")
        if min(self.taps, default=1) < 1 or min(self.strides, default=1) < 1 or min(self.dilations, default=1) < 1:
            raise Refused("its kernel, strides and dilations must be at least 1")

    @staticmethod
    def of(
        taps: Sequence[int],
        strides: Sequence[int] | None = None,
        pads: Sequence[int] | None = None,
        dilations: Sequence[int] | None = None,
    ) -> Windows:
        """``pads`` are all those before, then all those behind, as ONNX has them; what is left out is 1, or no pad."""
        ones, rank = (1,) * len(taps), len(taps)
        around = tuple(pads or (0,) * (2 * rank))
        return Windows(tuple(taps), tuple(strides or ones), around[:rank], around[rank:], tuple(dilations or ones))

    @property
    def spacing(self) -> Spacing:
        """The same for a kernel, which has the taps."""
        return Spacing(self.strides, self.low, self.high, self.dilations)

    @property
    def spans(self) -> tuple[int, ...]:
        """How many positions a window reaches over."""
        return tuple((taps - 1) * dilation + 1 for taps, dilation in zip(self.taps, self.dilations, strict=True))

    def same(self, sizes: Sequence[int], *, lower: bool) -> Windows:
        """With pads for an output of ⌈size / stride⌉; what cannot be halved goes behind, or before if ``lower``."""
        before, behind = [], []
        for size, stride, span in zip(sizes, self.strides, self.spans, strict=True):
            total = max(0, (-(-size // stride) - 1) * stride + span - size)
            half = total // 2
            before.append(total - half if lower else half)
            behind.append(half if lower else total - half)
        return Windows(self.taps, self.strides, tuple(before), tuple(behind), self.dilations)

    def rounded_up(self, sizes: Sequence[int]) -> Windows:
        """With pads behind that make room for a last window that does not quite fit, if it begins before the pads."""
        high = []
        for size, stride, span, low, old in zip(sizes, self.strides, self.spans, self.low, self.high, strict=True):
            count = -(-(size + low + old - span) // stride) + 1
            if (count - 1) * stride >= size + low:
                count -= 1
            high.append(max(old, (count - 1) * stride + span - size - low))
        return Windows(self.taps, self.strides, self.low, tuple(high), self.dilations)

    def positions(self, axis: int, size: int) -> NDArray[np.int64]:
        """(outputs, taps): where each window looks along an axis, below 0 and from ``size`` on in the pads."""
        stride, span, low = self.strides[axis], self.spans[axis], self.low[axis]
        count = (size + low + self.high[axis] - span) // stride + 1
        if count < 1:
            raise Refused(f"its windows, {span} long, do not fit {size} values with pads {low} and {self.high[axis]}")
        starts = np.arange(count)[:, None] * stride - low
        return starts + np.arange(self.taps[axis]) * self.dilations[axis]

    def counts(self, sizes: Sequence[int], low: Sequence[int], high: Sequence[int]) -> NDArray[np.int64]:
        """(*outputs): at how many places each window looks that are no further outside than so many pads."""
        counts = np.ones((), np.int64)
        for axis, size in enumerate(sizes):
            at = self.positions(axis, size)
            inside = (at >= -low[axis]) & (at < size + high[axis])
            counts = np.multiply.outer(counts, inside.sum(axis=1))
        return counts


@final
@dataclass(frozen=True, eq=False)
class Filters:
    """What a convolution multiplies by: a kernel (out, in/groups, *taps), of a transposed one (in, out/groups, *taps).

    The bias has one number for each output channel.
    """

    kernel: Array
    bias: Array | None = None
    groups: int = 1


def convolve(graph: Graph, origin: Origin, value: Value, filters: Filters, windows: Windows) -> Value:
    """A convolution."""
    kernel, groups = filters.kernel, filters.groups
    sizes = _sizes(value, len(windows.taps))
    if kernel.shape[1] * groups != value.index.shape[1] or kernel.shape[0] % groups:
        raise Refused(
            f"its kernel is for {kernel.shape[1] * groups} channels in {groups} group(s), its input has "
            f"{value.index.shape[1]}"
        )
    if min(windows.low + windows.high) < 0:
        raise Refused("negative pads are not read")
    value, windows = _with_zeros_as_pads(graph, value, windows)
    sizes = _sizes(value, len(windows.taps))
    linear = Conv.of(kernel, sizes, windows.spacing, groups)
    return mapped(graph, origin, value, linear, filters.bias, (linear.out_channels, *linear.geometry.output))


def _with_zeros_as_pads(graph: Graph, value: Value, windows: Windows) -> tuple[Value, Windows]:
    """Images in place of those that a node made of them by putting zeros around, and windows with so many pads more."""
    while (read := graph.moved_by(value)) is not None:
        there = read.index >= 0
        cut = _block(np.asarray(there.any(axis=(0, 1))))
        block: tuple[Any, ...] = (..., *cut)
        if not cut or there.sum() != there[block].size:  # zeros elsewhere too
            break
        low = tuple(have + part.start for have, part in zip(windows.low, cut, strict=True))
        ends = zip(windows.high, there.shape[2:], cut, strict=True)
        high = tuple(have + size - part.stop for have, size, part in ends)
        value = Value(read.node, read.index[block])
        windows = Windows(windows.taps, windows.strides, low, high, windows.dilations)
    return value, windows


def _block(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    """The smallest block that holds all of a mask; none where there is nothing."""
    if not mask.any():
        return ()
    ends = [(int(at.min()), int(at.max()) + 1) for at in np.nonzero(mask)]
    return tuple(slice(*pair) for pair in ends)


def has_channels_last(graph: Graph, value: Value) -> bool:
    """Whether a tensor is one of images whose channels, first in their node, are its last axis."""
    last = value.index.ndim - 1
    return last in (2, 3) and graph.stored(value)[1] == last


def pointwise(graph: Graph, origin: Origin, value: Value, weight: Array, bias: Array) -> Value:
    """weight (rows × channels) applied along the last axis of images, plus bias: a convolution of one tap."""
    rank = value.index.ndim - 2
    first = Value(value.node, np.moveaxis(value.index, -1, 1))
    kernel = weight.reshape(*weight.shape, *[1] * rank)
    result = convolve(graph, origin, first, Filters(kernel, bias), Windows.of((1,) * rank))
    return Value(result.node, np.moveaxis(result.index, 1, -1))


def convolve_transposed(
    graph: Graph,
    origin: Origin,
    value: Value,
    filters: Filters,
    windows: Windows,
    output_padding: Sequence[int],
) -> Value:
    """A transposed convolution."""
    kernel = filters.kernel
    sizes = _sizes(value, len(windows.taps))
    if kernel.shape[0] != value.index.shape[1]:
        raise Refused(f"its kernel is for {kernel.shape[0]} channels, its input has {value.index.shape[1]}")
    try:
        linear = ConvTranspose.of(kernel, sizes, windows.spacing, filters.groups, tuple(output_padding))
    except ValueError as error:
        raise Refused(str(error)) from None
    geometry = linear.conv.geometry
    return mapped(graph, origin, value, linear, filters.bias, (linear.conv.in_channels, *geometry.input))


def mapped(
    graph: Graph, origin: Origin, value: Value, linear: LinearMap, bias: Array | None, shape: tuple[int, ...]
) -> Value:
    """A linear map of whole examples, (channels, *positions) each, to others of such a ``shape``."""
    batch = value.index.shape[0]
    columns = value.index.reshape(batch, -1)
    examples = graph.split(value, columns)
    if len(examples.reads) != 1:
        raise Refused("it works on several images of one example at once, which is not read")
    if not is_identity(examples.reads[0], graph.size(value.node)):
        value = graph.pick(origin, Value(value.node, columns))
    spread = np.zeros(linear.rows, linear.dtype)
    if bias is not None:
        spread = np.repeat(bias, linear.rows // shape[0])
    order = examples.order * linear.rows + np.arange(linear.rows)
    split = Split(order, np.arange(linear.rows)[:, None])
    return graph.affine(origin, [value.node], [linear], spread, split, (batch, *shape))


def max_pool(graph: Graph, origin: Origin, value: Value, windows: Windows) -> Value:
    """The largest of each window, one axis after the other: max(a, b) = b + relu(a − b). Pads are never the largest."""
    for axis, size in enumerate(_sizes(value, len(windows.taps))):
        reads = windows.positions(axis, size)
        inside = (reads >= 0) & (reads < size)
        if not inside.any(axis=1).all():
            raise Refused("one of its windows lies in the pads altogether")
        first = np.take_along_axis(reads, inside.argmax(axis=1)[:, None], axis=1)
        reads = np.where(inside, reads, first)  # one more time the same value changes no maximum
        taken = [Value(value.node, np.take(value.index, at, axis + 2)) for at in reads.T]
        value = taken[0]
        for other in taken[1:]:
            value = computed(lowering.maximum(graph, origin, value, other))
    return value


def average_pool(graph: Graph, origin: Origin, value: Value, windows: Windows, within: Windows | None) -> Value:
    """The sum of each window divided by how many values it has; pads count where those of ``within`` are."""
    sizes, rank = _sizes(value, len(windows.taps)), len(windows.taps)
    low, high = ((0,) * rank, (0,) * rank) if within is None else (within.low, within.high)
    counts = windows.counts(sizes, low, high)
    channels = value.index.shape[1]
    ones = np.ones((channels, 1, *windows.taps), np.float32)
    summed = convolve(graph, origin, value, Filters(ones, groups=channels), windows)
    return computed(lowering.divide(graph, origin, summed, counts.astype(graph.dtype)))


def _sizes(value: Value, axes: int) -> tuple[int, ...]:
    if value.index.ndim != axes + 2:
        raise Refused(f"its input has {value.index.ndim} axes, its kernel is for {axes + 2}")
    if axes not in (1, 2):
        raise Refused(f"it has {axes} spatial axes; convolutions and poolings over one or two are read")
    return tuple(value.index.shape[2:])
