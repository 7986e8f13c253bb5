"""A convolution by its kernel."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from leo_core.arithmetic import ExactVector, to_integers
from leo_core.checker.environment import own_thread
from leo_core.linear.base import FloatArray, LinearMap, Mask, Units, float_array, frozen_array, require_apart
from leo_core.linear.geometry import CLOSE, Geometry, Spacing, correlate
from leo_core.linear.sparse import Sparse

#: More entries than this are not written out one by one: with their places that would be over two gigabytes.
LARGEST_SPARSE = 1 << 25


@final
class Conv(LinearMap):
    """A convolution over one or two spatial axes, as neural networks have it: the kernel is not turned round.

    Vectors hold one channel after the other, each line by line. Output channel o at position p sums, over the input
    channels c of its group and the taps t, kernel[o, c, t] times channel c at p · stride + t · dilation − low, which is
    0 outside the input. With as many groups as channels it is depthwise; average pooling is that, with equal taps.

    Parameters
    ----------
    kernel:
        Shape (out, in/groups, *taps).
    geometry:
        Whole numbers: input sizes, strides, low pads, high pads, dilations, each for every spatial axis, and the number
        of groups: 6 for one axis, 11 for two. :meth:`of` puts them together.
    """

    def __init__(self, kernel: Any, geometry: Any) -> None:
        array = np.asarray(kernel)
        if array.ndim not in (3, 4) or 0 in array.shape:
            raise ValueError(f"a kernel is (out, in/groups, taps) or (out, in/groups, taps, taps), not {array.shape}")
        self._kernel = float_array(array, array.ndim, "a kernel")
        self._array = frozen_array(geometry, np.int64)
        self.geometry = Geometry.of(self._array, self._kernel.shape[2:])
        self.out_channels, self.in_channels = len(array), array.shape[1] * self.geometry.groups
        if self.out_channels % self.geometry.groups:
            raise ValueError(f"{self.out_channels} output channels are not {self.geometry.groups} groups of one size")
        self.rows = self.out_channels * math.prod(self.geometry.output)
        self.columns = self.in_channels * math.prod(self.geometry.input)
        self.dtype = self._kernel.dtype

    @staticmethod
    def of(kernel: Any, input: tuple[int, ...], spacing: Spacing = CLOSE, groups: int = 1) -> Conv:
        """Over an input of the given spatial sizes."""
        each = spacing.strides, spacing.low, spacing.high, spacing.dilations
        lists = (np.broadcast_to(value, len(input)) for value in each)
        return Conv(kernel, np.concatenate([input, *lists, [groups]]))

    @property
    def kernel(self) -> FloatArray:
        """(out, in/groups, *taps)."""
        return self._kernel

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"kernel": self._kernel, "geometry": self._array}

    @cached_property
    def _uses(self) -> NDArray[np.int64]:
        """(taps): at how many positions each tap reads an input, and not the padding."""
        uses = np.ones((), np.int64)
        for table in self.geometry.reads:
            uses = np.multiply.outer(uses, (table >= 0).sum(axis=0))
        return uses

    @cached_property
    def nonzeros(self) -> int:
        return int((np.count_nonzero(self._kernel, axis=(0, 1)) * self._uses).sum())

    @property
    def weights(self) -> int:
        """Entries of the kernel."""
        return int(self._kernel.size)

    @property
    def products(self) -> int:
        """Each weight once at each output position, with those in the padding, as is usual."""
        return self.weights * math.prod(self.geometry.output)

    @cached_property
    def adds(self) -> bool:
        """Whether it sums windows of each channel, as an average pooling does before it divides."""
        alone = len(self._kernel) == self.geometry.groups and self._kernel.shape[1] == 1
        return alone and self._kernel[0].size > 1 and bool((self._kernel == 1).all())

    @cached_property
    def terms(self) -> int:
        """Without those in the padding, which are not summed or are zeros."""
        return int(self._kernel.shape[1]) * _most(self.geometry.reads)

    @cached_property
    def terms_transposed(self) -> int:
        """The most products in one column."""
        return self.out_channels // self.geometry.groups * _most(self.geometry.read_by)

    @cached_property
    def largest(self) -> float:
        return float(np.where(self._uses > 0, np.abs(self._kernel), 0.0).max())

    @cached_property
    @own_thread()  # what is kept must not depend on who asked first
    def _double(self) -> NDArray[np.float64]:
        return self._kernel.astype(np.float64, copy=False)

    def _as(self, dtype: np.dtype[Any]) -> FloatArray:
        return self._double if dtype == np.float64 else self._kernel.astype(dtype, copy=False)

    def apply(self, x: FloatArray) -> FloatArray:
        return self._forward(self._as(x.dtype), x)

    def apply_transposed(self, y: FloatArray) -> FloatArray:
        return self._backward(self._as(y.dtype), y)

    def _forward(self, kernel: NDArray[Any], x: NDArray[Any]) -> NDArray[Any]:
        geometry, count = self.geometry, math.prod(x.shape[:-1])
        result = np.empty((count, self.out_channels, *geometry.output), x.dtype)
        images = x.reshape(count, self.in_channels, *geometry.input)
        correlate(images, kernel, geometry.groups, geometry.windows, result)
        return result.reshape(*x.shape[:-1], self.rows)

    def _backward(self, kernel: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
        geometry, count = self.geometry, math.prod(y.shape[:-1])
        result = np.zeros((count, self.in_channels, *geometry.input), y.dtype)
        images, turned = y.reshape(count, self.out_channels, *geometry.output), self._turned(kernel)
        for positions, slides in geometry.phases():
            correlate(images, turned, geometry.groups, slides, result[positions])
        return result.reshape(*y.shape[:-1], self.columns)

    def _turned(self, kernel: NDArray[Any]) -> NDArray[Any]:
        """(in, out/groups, *taps)."""
        grouped = kernel.reshape(self.geometry.groups, -1, *kernel.shape[1:])
        return grouped.swapaxes(1, 2).reshape(self.in_channels, -1, *kernel.shape[2:])

    @cached_property
    @own_thread()
    def _absolute(self) -> Conv:
        return Conv(np.abs(self._double), self._array)

    def absolute(self) -> Conv:
        return self._absolute

    @cached_property
    @own_thread()
    def _sides(self) -> tuple[Conv, Conv]:
        kernel = self._double
        return Conv(np.maximum(kernel, 0.0), self._array), Conv(np.maximum(-kernel, 0.0), self._array)

    def sides(self) -> tuple[Conv, Conv]:
        return self._sides

    def support(self) -> Conv:
        return Conv((self._kernel != 0).astype(np.float32), self._array)

    @cached_property
    @own_thread()
    def _integers(self) -> tuple[NDArray[np.object_], int]:
        return to_integers(self._kernel)

    def apply_exact(self, x: ExactVector) -> ExactVector:
        integers, shift = self._integers
        return ExactVector(self._forward(integers, x.numerators), x.denominator << shift)

    def apply_transposed_exact(self, y: ExactVector) -> ExactVector:
        integers, shift = self._integers
        return ExactVector(self._backward(integers, y.numerators), y.denominator << shift)

    def sparse(self) -> Sparse:
        """Raises :class:`MemoryError` above :data:`LARGEST_SPARSE` entries, and so does what is asked of it."""
        return self.rows_alone(np.arange(self.rows))

    def rows_alone(self, units: Units) -> Sparse:
        """Some rows by their entries; one may be taken twice."""
        geometry = self.geometry
        return self._written_out(self._kernel, geometry.output, units, geometry.reads, geometry.input)

    def columns_alone(self, units: Units) -> Sparse:
        """Some columns by their entries, transposed: (units, rows of this map)."""
        geometry = self.geometry
        return self._written_out(self._turned(self._kernel), geometry.input, units, geometry.read_by, geometry.output)

    def _written_out(
        self, kernel: FloatArray, sizes: tuple[int, ...], units: Units, tables: tuple[Units, ...], read: tuple[int, ...]
    ) -> Sparse:
        """What some units, places in (len(kernel), *sizes), read of channels of sizes ``read``."""
        channels, reads, *_ = kernel.shape
        if len(units) * kernel[0].size > LARGEST_SPARSE:
            raise MemoryError(
                f"{len(units)} rows of a convolution, {kernel[0].size} entries each, are too many to write out"
            )
        channel, *position = np.unravel_index(units, (channels, *sizes))
        group = channel // (channels // self.geometry.groups)
        columns = (group * reads)[:, None] + np.arange(reads)
        inside = np.ones_like(columns, dtype=bool)
        for table, places, size in zip(tables, position, read, strict=True):
            at = np.expand_dims(table[places], tuple(range(1, columns.ndim)))
            columns, inside = columns[..., None] * size + at, inside[..., None] & (at >= 0)
        data = kernel[channel]
        kept = inside & (data != 0)
        ends = np.concatenate([[0], np.cumsum(kept.sum(axis=tuple(range(1, kept.ndim))))])
        return Sparse(data[kept], columns[kept], ends, columns=self.geometry.groups * reads * math.prod(read))

    def _entries(self) -> FloatArray:
        return self.sparse().dense()

    def scaling(self) -> FloatArray | None:
        kernel, geometry = self._kernel, self.geometry
        alone = kernel[0].size == 1 and len(kernel) == geometry.groups and geometry.input == geometry.output
        if alone and not any((*geometry.low, *geometry.high)):
            return np.repeat(kernel.ravel(), math.prod(geometry.output))
        return super().scaling()

    def row(self, unit: int) -> tuple[Units, FloatArray]:
        return self.rows_alone(np.array([unit])).row(0)

    def column(self, unit: int) -> tuple[Units, FloatArray]:
        return self.columns_alone(np.array([unit])).row(0)

    def rows_at(self, units: Units) -> FloatArray:
        return self.rows_alone(units).rows_at(np.arange(len(units)))

    def select(self, rows: Units, columns: Units) -> LinearMap:
        """A convolution again, where whole channels are taken and as many of each group that is left."""
        return self.narrowed(rows, columns) or self.rows_alone(rows).select_columns(columns)

    def select_rows(self, units: Units) -> LinearMap:
        return self.narrowed(units, np.arange(self.columns)) or self.rows_alone(units)

    def select_columns(self, units: Units) -> LinearMap:
        return self.narrowed(np.arange(self.rows), units) or self.sparse().select_columns(units)

    def narrowed(self, rows: Units, columns: Units) -> Conv | None:
        """The map with only these rows and columns, where that is a convolution without more weights."""
        outs, ins = _whole_channels(rows, self.geometry.output), _whole_channels(columns, self.geometry.input)
        if outs is None or ins is None:
            return None
        channels, reads, *_ = self._kernel.shape
        group_out, group_in = outs // (channels // self.geometry.groups), ins // reads
        left = list(dict.fromkeys(group_out.tolist()))
        makes, takes = len(outs) // len(left), len(ins) // len(left)
        if not (np.array_equal(np.repeat(left, makes), group_out) and np.array_equal(np.repeat(left, takes), group_in)):
            return None
        taken = np.repeat((ins % reads).reshape(len(left), takes), makes, axis=0)
        return Conv(self._kernel[outs[:, None], taken], [*self._array[:-1], len(left)])

    def spread_columns(self, units: Units, columns: int) -> LinearMap:
        require_apart(units)
        if columns == self.columns and np.array_equal(units, np.arange(columns)):
            return self
        ins, positions = _whole_channels(units, self.geometry.input), math.prod(self.geometry.input)
        if self.geometry.groups > 1 or ins is None or columns % positions:
            return self.sparse().spread_columns(units, columns)
        kernel = np.zeros((self.out_channels, columns // positions, *self._kernel.shape[2:]), self.dtype)
        kernel[:, ins] = self._kernel
        return Conv(kernel, self._array)

    def without(self, rows: Mask, columns: Mask) -> LinearMap:
        return self.cleared(rows, columns) or super().without(rows, columns)

    def cleared(self, rows: Mask, columns: Mask) -> Conv | None:
        """The map with the given rows and columns set to zero, where they are whole channels."""
        outs, ins = rows.reshape(self.out_channels, -1), columns.reshape(self.in_channels, -1)
        if (outs != outs[:, :1]).any() or (ins != ins[:, :1]).any():
            return None
        groups = self.geometry.groups
        gone = outs[:, 0].reshape(groups, -1, 1) | ins[:, 0].reshape(groups, 1, -1)
        if not gone.any():
            return self
        kernel = self._kernel.copy()
        kernel[gone.reshape(kernel.shape[:2])] = 0
        return Conv(kernel, self._array)


def _most(tables: tuple[Units, ...]) -> int:
    """How many taps are inside at the position where most are."""
    return math.prod(int((table >= 0).sum(axis=1).max()) for table in tables)


def _whole_channels(units: Units, sizes: tuple[int, ...]) -> Units | None:
    """The channels of which the units are all positions, one channel after the other; None where they are not."""
    positions = math.prod(sizes)
    channels = units[::positions] // positions
    whole = channels[:, None] * positions + np.arange(positions)
    return channels if len(units) and np.array_equal(whole.ravel(), units) else None
