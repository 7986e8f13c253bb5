"""Where a convolution reads: windows of taps that slide over one or two spatial axes.

Along each axis the output at position p reads, through tap t, the input at p · stride + t · dilation − low; outside the
input there are zeros. Turned round, the input at q is read through tap t by the output at (q + low − t · dilation) /
stride, where that is a whole number. So for the positions q of one remainder modulo the stride, a *phase*, it is always
the same taps that read, and what arrives there is a convolution of stride 1 (Dumoulin and Visin 2016, section 4).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias, final

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from leo_core.linear.base import Units

#: What picks parts of an array by slices, one for each axis.
Index: TypeAlias = tuple[Any, ...]

#: Sizes of this much can be added and multiplied in int64.
_MOST = 1 << 30
#: Numbers in the windows that are written out at once, as far as one line of outputs allows: they stay in the cache.
_WINDOWS = 1 << 18


@final
@dataclass(frozen=True, eq=False)
class Slide:
    """Along one axis, ``count`` windows, the first from ``start`` on and each ``step`` further than the one before.

    A window reads positions ``spacing`` apart, each through one of ``taps``, which are numbers of the kernel's.
    """

    taps: Units
    start: int
    step: int
    spacing: int
    count: int

    @property
    def reach(self) -> int:
        """How many positions one window spans."""
        return (len(self.taps) - 1) * self.spacing + 1

    @property
    def span(self) -> int:
        """How many positions all windows span."""
        return (self.count - 1) * self.step + self.reach


@final
@dataclass(frozen=True)
class Spacing:
    """How windows lie over an input, along each spatial axis; a single number holds for every axis.

    Attributes
    ----------
    low, high:
        Pads before and behind.
    """

    strides: int | Sequence[int] = 1
    low: int | Sequence[int] = 0
    high: int | Sequence[int] = 0
    dilations: int | Sequence[int] = 1


#: A window at every position, taps side by side, no pads.
CLOSE = Spacing()


@final
@dataclass(frozen=True)
class Geometry:
    """How many positions there are, and which are read, along each spatial axis; ``taps`` are the kernel's."""

    input: tuple[int, ...]
    strides: tuple[int, ...]
    low: tuple[int, ...]
    high: tuple[int, ...]
    dilations: tuple[int, ...]
    groups: int
    taps: tuple[int, ...]

    def __post_init__(self) -> None:
        for what, values, least in (
            ("input sizes", self.input, 1),
            ("strides", self.strides, 1),
            ("pads", self.low + self.high, 0),
            ("dilations", self.dilations, 1),
            ("groups", (self.groups,), 1),
        ):
            if min(values) < least:
                raise ValueError(f"a convolution's {what} must be at least {least}, not {min(values)}")
            if max(values) > _MOST:
                raise ValueError(f"a convolution's {what} must be at most {_MOST}, not {max(values)}")
        if min(self.output) < 1:
            raise ValueError(
                f"a kernel of {_times(self.taps)} taps, {_times(self.dilations)} apart, does not fit an input of "
                f"{_times(self.input)} with pads {self.low} and {self.high}"
            )

    @staticmethod
    def of(array: NDArray[np.int64], taps: tuple[int, ...]) -> Geometry:
        """From an array as :class:`~leo_core.linear.conv.Conv` has it, for a kernel of so many taps."""
        rank = len(taps)
        if array.shape != (5 * rank + 1,):
            raise ValueError(
                f"the geometry of a convolution over {rank} axes has {5 * rank + 1} numbers (input sizes, strides, low "
                f"pads, high pads, dilations, groups), not shape {array.shape}"
            )
        lists: list[list[int]] = array[:-1].reshape(5, rank).tolist()
        sizes, strides, low, high, dilations = map(tuple, lists)
        return Geometry(sizes, strides, low, high, dilations, int(array[-1]), taps)

    @cached_property
    def output(self) -> tuple[int, ...]:
        """How many positions there are in the output."""
        return tuple(
            (size + low + high - dilation * (taps - 1) - 1) // stride + 1
            for size, stride, low, high, dilation, taps in self._axes
        )

    @cached_property
    def reads(self) -> tuple[Units, ...]:
        """For each axis, (output positions, taps): the input position that is read, −1 outside."""
        tables = []
        for (size, stride, low, _, dilation, taps), count in zip(self._axes, self.output, strict=True):
            table = np.arange(count)[:, None] * stride + np.arange(taps) * dilation - low
            tables.append(np.where((table >= 0) & (table < size), table, -1))
        return tuple(tables)

    @cached_property
    def read_by(self) -> tuple[Units, ...]:
        """For each axis, (input positions, taps): the output position that reads there, −1 where none does."""
        tables = []
        for size, reads in zip(self.input, self.reads, strict=True):
            table = np.full((size, reads.shape[1]), -1)
            position, tap = np.nonzero(reads >= 0)
            table[reads[position, tap], tap] = position
            tables.append(table)
        return tuple(tables)

    @property
    def windows(self) -> tuple[Slide, ...]:
        """What the outputs read."""
        return tuple(
            Slide(np.arange(taps), -low, stride, dilation, count)
            for (_, stride, low, _, dilation, taps), count in zip(self._axes, self.output, strict=True)
        )

    def phases(self) -> Iterator[tuple[Index, tuple[Slide, ...]]]:
        """Input positions, and the windows of the outputs that read there; each position at most once."""
        for phase in itertools.product(*(_phases(*axis) for axis in self._axes)):
            yield (..., *(positions for positions, _ in phase)), tuple(slide for _, slide in phase)

    @property
    def _axes(self) -> list[tuple[int, ...]]:
        """(input size, stride, low pad, high pad, dilation, taps) of each axis."""
        return list(zip(self.input, self.strides, self.low, self.high, self.dilations, self.taps, strict=True))


def _phases(size: int, stride: int, low: int, _high: int, dilation: int, taps: int) -> Iterator[tuple[slice, Slide]]:
    for first in range(min(stride, size)):
        distance = first + low - np.arange(taps) * dilation  # times stride, from an output to the input
        reading = np.flatnonzero(distance % stride == 0)[::-1]
        if len(reading):
            start, spacing = int(distance[reading[0]]) // stride, dilation // math.gcd(dilation, stride)
            yield slice(first, None, stride), Slide(reading, start, 1, spacing, len(range(first, size, stride)))


def correlate(x: NDArray[Any], kernel: NDArray[Any], groups: int, slides: Sequence[Slide], out: NDArray[Any]) -> None:
    """Write Σ kernel · window to ``out`` (examples, channels, *counts), from ``x`` (examples, groups · reads, *sizes).

    ``kernel`` is (channels, reads, *taps), of which the slides name those taken. The windows of a few examples, or of a
    few lines of one, are written out side by side, so that there is one matrix product for each group; the numbers may
    be of any type.
    """
    taken: Index = (slice(None), slice(None), *np.ix_(*(slide.taps for slide in slides)))
    kernel = kernel[taken]
    channels, terms = len(kernel), math.prod(kernel.shape[1:])
    matrix = kernel.reshape(groups, channels // groups, terms)
    count, *width = [slide.count for slide in slides]
    if runs_on := _runs_on(slides):
        width = [slides[-1].span]
    line = groups * terms * math.prod(width)
    examples, lines = max(1, _WINDOWS // (line * count)), max(1, _WINDOWS // line)
    for start in range(0, len(x), examples):
        some = np.ascontiguousarray(x[start : start + examples])
        windows = _windows(_framed(some, slides, int(runs_on)), slides, (count, *width))
        made = out[start : start + examples]
        for at in range(0, count, lines):
            part: Index = (..., slice(at, at + lines), *(slice(None) for _ in width))
            block = windows[part]
            sums = matrix @ block.reshape(len(some), groups, terms, -1)
            sums = sums.reshape(len(some), channels, -1, *width)
            made[part] = sums[..., : slides[-1].count] if runs_on else sums


def _runs_on(slides: Sequence[Slide]) -> bool:
    """Whether windows also run across the ends of lines, so that a tap's numbers are copied as one piece.

    What such windows give is dropped: not worth it where they are many.
    """
    *others, last = slides
    return bool(others) and all(slide.step == 1 for slide in slides) and last.count < last.span <= 2 * last.count


def _framed(x: NDArray[Any], slides: Sequence[Slide], spare: int) -> NDArray[Any]:
    """What the windows span, zeros outside, and some lines more."""
    spans = [range(slide.start, slide.start + slide.span) for slide in slides]
    spans[0] = range(spans[0].start, spans[0].stop + spare)
    inside = [
        (max(span.start, 0), max(span.start, 0, min(span.stop, size)))
        for span, size in zip(spans, x.shape[2:], strict=True)
    ]
    read: Index = (..., *(slice(low, high) for low, high in inside))
    there = x[read]
    if there.shape[2:] == tuple(map(len, spans)):
        return there
    frame = np.zeros((*x.shape[:2], *map(len, spans)), x.dtype)
    places = (slice(low - span.start, high - span.start) for (low, high), span in zip(inside, spans, strict=True))
    filled: Index = (..., *places)
    frame[filled] = there
    return frame


def _windows(frame: NDArray[Any], slides: Sequence[Slide], counts: tuple[int, ...]) -> NDArray[Any]:
    """A view (examples, channels, *taps, *counts) of what the windows read."""
    shape = (*frame.shape[:2], *(len(slide.taps) for slide in slides), *counts)
    strides = [(slide.spacing * stride, slide.step * stride) for slide, stride in zip(slides, frame.strides[2:])]
    within, onward = zip(*strides, strict=True)
    return as_strided(frame, shape, (*frame.strides[:2], *within, *onward), writeable=False)


def _times(sizes: tuple[int, ...]) -> str:
    return " × ".join(map(str, sizes))
