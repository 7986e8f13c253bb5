"""Linear maps as ``.leo`` files hold them: matrices, single entries, and convolutions by their taps.

They work on vectors of float64, where a sum has at most ``terms`` products, or of rationals, without any rounding. None
of this is shared with the engine: what a file says of a map is read here for the second time.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np

from .errors import Refused
from .numbers import quotients, rational, times, whole

Array = Any
Joins = tuple[tuple[tuple[range, range], ...], ...]

LARGEST = 2**30  # of the numbers in a convolution's geometry
ENTRIES = 2**25  # that are written out at most


class Map(ABC):
    """y = A x; ``values`` are the numbers it is made of, ``terms`` is the most products in one row."""

    values: Array
    rows: int
    columns: int
    terms: int
    products: int  # multiplications that one vector takes

    @abstractmethod
    def holding(self, values: Array) -> Map:
        """The same with other numbers in the same places."""

    @abstractmethod
    def row(self, unit: int) -> tuple[Array, Array]:
        """(columns, numbers) of one row, each column once."""

    @abstractmethod
    def entries(self) -> tuple[Array, Array, Array]:
        """(rows, columns, numbers) of what is in it, each place once; :class:`Refused` where that is too much."""

    @abstractmethod
    def push(self, x: Array) -> Array:
        """A x for each of some vectors (count, columns), of floats or whole numbers as ``values`` are."""

    @abstractmethod
    def pull(self, y: Array) -> Array:
        """Aᵀ y for each of some vectors (count, rows)."""

    def apply(self, x: Array) -> Array:
        """A x for vectors (…, columns)."""
        stack = x.reshape(math.prod(x.shape[:-1]), self.columns)
        made = self.push(stack) if x.dtype != object else self._exactly(stack, lambda by, left: by.push(left))
        return made.reshape(*x.shape[:-1], self.rows)

    def back(self, y: Array) -> Array:
        """Aᵀ y for vectors (count, rows)."""
        return self.pull(y) if y.dtype != object else self._exactly(y, lambda by, left: by.pull(left))

    def _exactly(self, vectors: Array, apply: Callable[[Map, Array], Array]) -> Array:
        """Over whole numbers, which is faster than over rationals."""
        (left, below), (right, below_right) = whole(vectors), whole(rational(self.values))
        return quotients(apply(self.holding(right), left), below * below_right)

    def row_alone(self, unit: int) -> Array:
        """One row, (columns,)."""
        row, (columns, found) = np.zeros(self.columns), self.row(unit)
        row[columns] = found
        return row

    @cached_property
    def absolute(self) -> Map:
        """With the absolute value of every number."""
        return self.holding(np.abs(self.values))

    def sides(self) -> tuple[Map, Map]:
        """With only the numbers above zero, and with only those below, their sign turned."""
        return self.holding(np.maximum(self.values, 0.0)), self.holding(np.maximum(-self.values, 0.0))

    def support(self) -> Map:
        """With 1 for every number that is not zero."""
        return self.holding((self.values != 0).astype(np.float64))


class Matrix(Map):
    """All numbers, (rows, columns)."""

    def __init__(self, values: Array) -> None:
        self.values, (self.rows, self.columns) = values, values.shape
        self.terms, self.products = self.columns, values.size

    def holding(self, values: Array) -> Matrix:
        return Matrix(values)

    def row(self, unit: int) -> tuple[Array, Array]:
        columns = np.flatnonzero(self.values[unit])
        return columns, self.values[unit, columns]

    def entries(self) -> tuple[Array, Array, Array]:
        require_few(self.values.size)
        row, column = np.nonzero(self.values)
        return row, column, self.values[row, column]

    def push(self, x: Array) -> Array:
        return times(x, self.values.T)

    def pull(self, y: Array) -> Array:
        return times(y, self.values)

    def _exactly(self, vectors: Array, apply: Callable[[Map, Array], Array]) -> Array:
        return apply(self, vectors)  # of large ones only what is used


class Entries(Map):
    """Single numbers, each at a place of its own: rows and columns ``at``."""

    def __init__(self, values: Array, at: tuple[Array, Array], rows: int, columns: int) -> None:
        self.values, self.at, self.rows, self.columns = values, at, rows, columns
        self.terms, self.products = int(np.bincount(at[0], minlength=1).max()), len(values)

    @cached_property
    def _sorted(self) -> list[tuple[Array, Array]]:
        """(order, the first of each place in it) of the entries by row, and by column."""
        orders = [np.argsort(places, kind="stable") for places in self.at]
        return [(order, np.flatnonzero(np.diff(at[order], prepend=-1))) for order, at in zip(orders, self.at)]

    def holding(self, values: Array) -> Entries:
        return Entries(values, self.at, self.rows, self.columns)

    def row(self, unit: int) -> tuple[Array, Array]:
        order, _ = self._sorted[0]
        first, last = np.searchsorted(self.at[0], [unit, unit + 1], sorter=order)
        return self.at[1][order[first:last]], self.values[order[first:last]]

    def entries(self) -> tuple[Array, Array, Array]:
        require_few(len(self.values))
        return (*self.at, self.values)

    def push(self, x: Array) -> Array:
        return self._sums(x, 0, self.rows)

    def pull(self, y: Array) -> Array:
        return self._sums(y, 1, self.columns)

    def _sums(self, vectors: Array, made: int, size: int) -> Array:
        result = np.zeros((len(vectors), size), vectors.dtype)
        order, first = self._sorted[made]
        if len(order):
            parts = vectors[:, self.at[1 - made][order]] * self.values[order]
            result[:, self.at[made][order[first]]] = np.add.reduceat(parts, first, axis=1)
        return result


class Taps(Map):
    """A convolution, or the transpose of one: tap by tap, places of what is made are joined to places of what is read.

    ``values``: (groups, channels made, channels read, *taps). ``sizes``: places along each axis, made and read.
    ``joins``: for each axis and tap the places made, and as many read; outside are zeros.
    """

    def __init__(self, values: Array, sizes: tuple[tuple[int, ...], ...], joins: Joins) -> None:
        self.values, self.sizes, self.joins = values, sizes, joins
        groups, makes, reads, *taps = values.shape
        self.rows, self.columns = groups * makes * math.prod(sizes[0]), groups * reads * math.prod(sizes[1])
        self.terms = reads * math.prod(taps)
        places = math.prod(sum(len(made) for made, _ in axis) for axis in joins)
        self.products = groups * makes * reads * places

    def holding(self, values: Array) -> Taps:
        return Taps(values, self.sizes, self.joins)

    def taps(self) -> Iterator[tuple[tuple[int, ...], list[tuple[range, range]]]]:
        """Each tap with what it joins along each axis."""
        for tap in np.ndindex(*self.values.shape[3:]):
            yield tap, [axis[t] for axis, t in zip(self.joins, tap)]

    def push(self, x: Array) -> Array:
        return self._sums(x, self.values, 0)

    def pull(self, y: Array) -> Array:
        return self._sums(y, self.values.swapaxes(1, 2), 1)

    def _sums(self, vectors: Array, values: Array, made: int) -> Array:
        count, (groups, makes, reads) = len(vectors), values.shape[:3]
        images = vectors.reshape(count, groups, reads, *self.sizes[1 - made])
        result = np.zeros((count, groups, makes, *self.sizes[made]), vectors.dtype)
        for tap, joined in self.taps():
            weights, counts = values[(..., *tap)], [len(pair[0]) for pair in joined]
            if weights.any():
                to, source = (picked(joined, side) for side in (made, 1 - made))
                flat = images[source].reshape(count, groups, reads, math.prod(counts))
                sums = weights * flat if reads == 1 else weights @ flat
                result[to] += sums.reshape(count, groups, makes, *counts)
        return result.reshape(count, groups * makes * math.prod(self.sizes[made]))

    def row(self, unit: int) -> tuple[Array, Array]:
        groups, makes, reads = self.values.shape[:3]
        channel, *places = (int(at) for at in np.unravel_index(unit, (groups * makes, *self.sizes[0])))
        group, number = divmod(channel, makes)
        channels = (group * reads + np.arange(reads)) * math.prod(self.sizes[1])
        columns, found = [np.zeros(0, np.int64)], [np.zeros(0)]
        for tap, joined in self.taps():
            if all(place in made for place, (made, _) in zip(places, joined)):
                at = [read[made.index(place)] for place, (made, read) in zip(places, joined)]
                columns.append(channels + np.ravel_multi_index(at, self.sizes[1]))
                found.append(self.values[(group, number, slice(None), *tap)])
        return np.concatenate(columns), np.concatenate(found)

    def entries(self) -> tuple[Array, Array, Array]:
        require_few(self.products)
        channels = [np.arange(self.values.shape[0])[:, None] * n + np.arange(n) for n in self.values.shape[1:3]]
        parts = []
        for tap, joined in self.taps():
            row, column = (
                np.ravel_multi_index(
                    np.meshgrid(*(listed(pair[side]) for pair in joined), indexing="ij"), sizes
                ).ravel()
                for side, sizes in enumerate(self.sizes)
            )
            row = channels[0][:, :, None, None] * math.prod(self.sizes[0]) + row
            column = channels[1][:, None, :, None] * math.prod(self.sizes[1]) + column
            parts.append(
                [part.ravel() for part in np.broadcast_arrays(row, column, self.values[(..., *tap)][..., None])]
            )
        row, column, found = (np.concatenate(part) for part in zip(*parts))
        return row, column, found


def picked(joined: list[tuple[range, range]], side: int) -> tuple[Any, ...]:
    """What picks the places of one side from an array whose last axes they are on."""
    return (..., *(slice(pair[side].start, pair[side].stop, pair[side].step) for pair in joined))


def listed(places: range) -> Array:
    """Places one by one, whole numbers even where there is none."""
    return np.array(places, dtype=np.int64)


def require_few(count: int) -> None:
    """Raises :class:`Refused` where so many entries are too many to be written out."""
    if count > ENTRIES:
        raise Refused(
            f"maps of two kinds, one of {count} entries, would have to be written out to be compared; {ENTRIES} are "
            "the most"
        )


def read_map(kind: str, parts: Mapping[str, Array], rows: int, columns: int) -> Map:
    """A stored linear map; raises :class:`Refused` where it is none, or none of this size."""
    if kind == "dense":
        found: Map = Matrix(numbers(parts["matrix"], (2,)))
    elif kind in ("conv", "conv_transpose"):
        found = read_taps(numbers(parts["kernel"], (3, 4)), integers(parts["geometry"]), kind == "conv_transpose")
    elif kind in ("diagonal", "select", "sparse"):
        found = read_entries(kind, parts, rows, columns)
    else:
        raise Refused(f"a linear map of the unknown kind '{kind}'")
    if (found.rows, found.columns) != (rows, columns):
        raise Refused(f"a {kind} map of shape {(found.rows, found.columns)} where {(rows, columns)} belongs")
    return found


def read_entries(kind: str, parts: Mapping[str, Array], rows: int, columns: int) -> Entries:
    """A map that is stored by its entries."""
    row = column = np.arange(rows)
    if kind == "diagonal":
        data = numbers(parts["diagonal"], (1,))
    else:
        column = integers(parts["indices"])
        data = np.ones(rows) if kind == "select" else numbers(parts["data"], (1,))
    if kind == "sparse":
        ends = integers(parts["indptr"])
        if len(ends) != rows + 1 or ends[0] != 0 or ends[-1] != len(data) or (np.diff(ends) < 0).any():
            raise Refused("a sparse map with entries out of place")
        row = np.repeat(row, np.diff(ends))
    if not row.shape == column.shape == data.shape or (column < 0).any() or (column >= columns).any():
        raise Refused(f"a {kind} map with entries out of place")
    if len(np.unique(row * columns + column)) < len(column):
        raise Refused(f"a {kind} map with two entries in one place")
    return Entries(data, (row, column), rows, columns)


def read_taps(kernel: Array, geometry: Array, transposed: bool) -> Taps:
    """A convolution by its kernel (out, in/groups, *taps) and, for each axis, sizes, strides, pads, dilations; groups.

    The output at p reads, through tap t, the input at p · stride + t · dilation − low pad.
    """
    channels, reads, *taps = kernel.shape
    if 0 in kernel.shape or len(geometry) != 5 * len(taps) + 1:
        raise Refused(f"a convolution of {kernel.shape} numbers whose geometry has {len(geometry)}")
    groups, lists = int(geometry[-1]), geometry[:-1].reshape(5, len(taps)).tolist()
    inputs, strides, low, high, dilations = lists
    if min(*inputs, *strides, *dilations, groups) < 1 or min(*low, *high) < 0 or geometry.max() > LARGEST:
        raise Refused("a convolution with sizes, strides, pads, dilations or groups out of range")
    if channels % groups:
        raise Refused(f"a convolution of {channels} output channels in {groups} groups")
    axes = list(zip(inputs, strides, low, high, dilations, taps, strict=True))
    made = tuple((size + pad + after - d * (t - 1) - 1) // stride + 1 for size, stride, pad, after, d, t in axes)
    if min(made) < 1:
        raise Refused("a convolution whose kernel does not fit its input")
    joins = tuple(
        tuple(places_joined(count, size, stride, tap * d - pad) for tap in range(t))
        for count, (size, stride, pad, _, d, t) in zip(made, axes, strict=True)
    )
    values, sizes = kernel.reshape(groups, channels // groups, reads, *taps), (made, tuple(inputs))
    if transposed:
        joins = tuple(tuple((read, made) for made, read in axis) for axis in joins)
        values, sizes = values.swapaxes(1, 2), sizes[::-1]
    return Taps(values, sizes, joins)


def places_joined(count: int, size: int, stride: int, offset: int) -> tuple[range, range]:
    """The p in [0, count) for which p · stride + offset is in [0, size), and these."""
    first, last = max(0, -(offset // stride)), min(count, (size - 1 - offset) // stride + 1)
    made = range(first, max(first, last))
    return made, range(first * stride + offset, first * stride + offset + len(made) * stride, stride)


def numbers(array: Array, dimensions: tuple[int, ...]) -> Array:
    """As float64, where there are so many dimensions and all is finite."""
    values = array.astype(np.float64)
    if values.ndim not in dimensions or not np.isfinite(values).all():
        raise Refused(f"a linear map with numbers of {values.ndim} dimensions, or not finite")
    return values


def integers(array: Array) -> Array:
    """A list of whole numbers, as int64."""
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise Refused("no list of whole numbers where one belongs")
    return array.astype(np.int64)
