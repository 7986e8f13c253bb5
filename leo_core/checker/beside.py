"""Two affine nodes side by side: how far units of one can be from those of the other, by what both read.

Where the one reads x' = P x + d, with P saying which value of the other's x each is (none for a new one), and d small,

    A' x' + b' − (A x + b) = (A' P − A) x + R x' + A' d + b' − b.

A' P − A is taken number by number (of a convolution, in its kernel), R is what else of A' there is: what reads new
values. So equal numbers leave exactly zero, however wide the bounds are, and so does a value that is always zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .bounds import Region, spanned, values_of
from .maps import Entries, Map, Matrix, Taps
from .networks import Net, Node
from .numbers import two_sum

Array = Any


@dataclass(frozen=True, eq=False)
class Match:
    """Which node of the original one is, which unit of that each unit is (−1: none), and how far it is from it."""

    of: str
    origin: Array
    apart: Array


def distance(
    f: Net, g: Net, old: Node, new: Node, origin: Array, region: Region, own: Region, known: Mapping[str, Match]
) -> Array:
    """How far each unit of an affine node of g is from unit ``origin`` of one of f, 0 where there is none.

    ``region`` and ``own`` bound what they read, ``known`` says how far apart that is.
    """
    if any(source in known and known[source].of == old.name for source in new.sources):  # it reads what it is
        each, nothing = np.arange(old.size), np.zeros(old.size)
        same = Entries(nothing + 1, (each, each), old.size, old.size)
        old = Node(old.name, (old.name,), (same,), nothing, nothing, False)
    kept = np.flatnonzero(origin >= 0)
    by_old: list[tuple[Map, Array, Array]] = []
    by_new: list[tuple[Map, Array, Array]] = []
    unread = list(zip(old.sources, old.maps, strict=True))
    for source, linear in zip(new.sources, new.maps, strict=True):
        match, mine = known.get(source), values_of(g, own, source)
        at = next((k for k, (name, _) in enumerate(unread) if match is not None and name == match.of), None)
        if match is None or at is None:
            by_new.append((linear, *mine))
            continue
        name, other = unread.pop(at)
        moved, rest = laid_beside(linear, other, origin, match.origin)
        far = np.where(match.origin >= 0, match.apart, 0.0)[None]
        by_old.append((moved, *values_of(f, region, name)))
        by_new += [(rest, *mine), (linear, -far, far)]
    by_old += [(linear.holding(-linear.values), *values_of(f, region, name)) for name, linear in unread]
    shift, lost = np.zeros(new.size), np.zeros(new.size)
    shift[kept], lost[kept] = two_sum(new.bias[kept], -old.bias[origin[kept]])
    (low, high), (old_low, old_high) = (
        spanned([(linear, *ends) for linear, *ends in parts if linear.values.any() and np.any(ends)], bias)[:2]
        for parts, bias in ((by_new, shift), (by_old, np.zeros(old.size)))
    )
    found = np.zeros(new.size)
    for side, end, sign in ((low, old_low, -1), (high, old_high, 1)):
        side, end = side[0, kept], end[0, origin[kept]]
        total, error = two_sum(side, end)
        error = error + lost[kept]
        total = np.where(error == 0, total, np.nextafter(total + sign * np.nextafter(error, np.inf), sign * np.inf))
        found[kept] = np.maximum(found[kept], np.where(np.isnan(total), np.inf, np.abs(total)))
    return found


def laid_beside(new: Map, old: Map, rows: Array, columns: Array) -> tuple[Map, Map]:
    """(new − old in the layout of old, what of new has no place there), for the old row and column of each new one.

    Rows of old that no new one is are zero. Each number is rounded once, zero only where it is zero.
    """
    if isinstance(new, Matrix) and isinstance(old, Matrix):
        kept, read = np.flatnonzero(rows >= 0), np.flatnonzero(columns >= 0)
        moved, rest = np.zeros_like(old.values), new.values.copy()
        moved[np.ix_(rows[kept], columns[read])] = new.values[np.ix_(kept, read)]
        moved[rows[kept]] -= old.values[rows[kept]]
        rest[:, read] = 0
        return Matrix(moved), Matrix(rest)
    if isinstance(new, Taps) and isinstance(old, Taps) and (new.sizes, new.joins) == (old.sizes, old.joins):
        channels = [whole_channels(*pair) for pair in zip((rows, columns), old.sizes, strict=True)]
        if not any(found is None for found in channels):
            return kernels_beside(new, old, *channels)
    return entries_beside(new, old, rows, columns)


def kernels_beside(new: Taps, old: Taps, made: Array, read: Array) -> tuple[Map, Map]:
    """The same of two convolutions of one geometry, for the old channel that each new one is."""
    (groups, makes, reads), (_, old_makes, old_reads) = new.values.shape[:3], old.values.shape[:3]
    group, number = (part.reshape(groups, makes, 1) for part in np.divmod(made, old_makes))
    read_group, place = (part.reshape(groups, 1, reads) for part in np.divmod(read, old_reads))
    both = (group >= 0) & (group == read_group)  # divmod leaves −1 where there is none
    at = tuple(np.broadcast_to(part, both.shape)[both] for part in (group, number, place))
    moved, rest = np.zeros_like(old.values), new.values.copy()
    moved[at], rest[both] = new.values[both], 0
    kept = np.divmod(made[made >= 0], old_makes)
    moved[kept] -= old.values[kept]
    return old.holding(moved), new.holding(rest)


def entries_beside(new: Map, old: Map, rows: Array, columns: Array) -> tuple[Map, Map]:
    """The same of any two maps, by their entries."""
    (row, column, numbers), (old_row, old_column, old_numbers) = new.entries(), old.entries()
    both = (rows[row] >= 0) & (columns[column] >= 0)
    kept = np.isin(old_row, rows[rows >= 0])
    mine = rows[row[both]] * old.columns + columns[column[both]]
    theirs = old_row[kept] * old.columns + old_column[kept]
    places = np.union1d(mine, theirs)
    moved = np.zeros(len(places))
    moved[np.searchsorted(places, mine)] = numbers[both]
    moved[np.searchsorted(places, theirs)] -= old_numbers[kept]
    at = places // max(old.columns, 1), places % max(old.columns, 1)
    rest = Entries(numbers[~both], (row[~both], column[~both]), new.rows, new.columns)
    return Entries(moved, at, old.rows, old.columns), rest


def whole_channels(origin: Array, sizes: tuple[int, ...]) -> Array | None:
    """The channel that each channel is (−1: none), None where one is not all of another, or none of it, in order."""
    each = origin.reshape(-1, int(np.prod(sizes)))
    channel, first = np.divmod(each[:, 0], each.shape[1])
    none = (each == -1).all(axis=1)
    whole = (first == 0) & (each == each[:, :1] + np.arange(each.shape[1])).all(axis=1)
    return np.where(none, -1, channel) if (none | whole).all() else None
