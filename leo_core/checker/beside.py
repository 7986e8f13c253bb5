"""Two affine nodes side by side: how far units of one can be from those of the other, by what both read.

Where the one reads x' = P x + d, with P saying which value of the other's x each is (none for a new one), and d small,

    A' x' + b' − (A x + b) = (A' P − A) x + R x' + A' d + b' − b.

A' P − A is taken number by number (of a convolution, in its kernel), R is what else of A' there is: what reads new
values. So equal numbers leave exactly zero, however wide the bounds are, and so does a value that is always zero; what
values that cannot vary add up to is computed over the rationals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .bounds import Bounded, reach, spanned, values_of
from .maps import Entries, Map, Matrix, Taps
from .networks import Node
from .numbers import rational, two_sum, upwards

Array = Any
Part = tuple[Map, Array, Array]  # a map, and the bounds (1, columns) of what it reads


@dataclass(frozen=True, eq=False)
class Match:
    """Which node of the original one is, which unit of that each unit is (−1: none), and how far it is from it."""

    of: str
    origin: Array
    apart: Array


def distance(f: Bounded, g: Bounded, old: Node, new: Node, origin: Array, known: Mapping[str, Match]) -> Array:
    """How far each unit of an affine node of g is from unit ``origin`` of one of f, 0 where there is none.

    ``known`` says how far apart what they read is.
    """
    if any(source in known and known[source].of == old.name for source in new.sources):  # it reads what it is
        each, nothing = np.arange(old.size), np.zeros(old.size)
        same = Entries(nothing + 1, (each, each), old.size, old.size)
        old = Node(old.name, (old.name,), (same,), nothing, nothing, False)
    kept = np.flatnonzero(origin >= 0)
    by_old: list[Part] = []
    by_new: list[Part] = []
    unread = [*old.reads]
    for source, linear in new.reads:
        match, mine = known.get(source), values_of(g.net, g.region, source)
        at = next((k for k, (name, _) in enumerate(unread) if match is not None and name == match.of), None)
        if match is None or at is None:
            by_new.append((linear, *mine))
            continue
        name, other = unread.pop(at)
        moved, lost, rest = laid_beside(linear, other, origin, match.origin)
        far, largest = np.where(match.origin >= 0, match.apart, 0.0)[None], reach(f.net, f.region, name)[None]
        by_old += [(moved, *values_of(f.net, f.region, name)), (lost, -largest, largest)]
        by_new += [(rest, *mine), (linear, -far, far)]
    by_old += [(linear.holding(-linear.values), *values_of(f.net, f.region, name)) for name, linear in unread]
    (by_new, fixed_new), (by_old, fixed_old) = (
        apart_from_fixed([part for part in parts if part[0].values.any()]) for parts in (by_new, by_old)
    )
    shift, error = two_sum(new.bias[kept], -old.bias[origin[kept]])
    ends = [np.where(error == 0, shift, np.nextafter(shift, end)) for end in (-np.inf, np.inf)]
    if fixed_new or fixed_old:
        exact = rational(new.bias[kept]) - rational(old.bias[origin[kept]])
        for linear, values in fixed_new:
            exact = exact + linear.apply(values)[0, kept]
        for linear, values in fixed_old:
            exact = exact + linear.apply(values)[0, origin[kept]]
        ends = [-upwards(-exact), upwards(exact)]
    most = np.zeros(len(kept))
    moved_new, moved_old = spanned(by_new, np.zeros(new.size)), spanned(by_old, np.zeros(old.size))
    for total, mine, its, sign in zip(ends, moved_new[:2], moved_old[:2], (-1, 1), strict=True):
        for part in (mine[0, kept], its[0, origin[kept]]):
            total, error = two_sum(total, part)
            total = np.where(error == 0, total, np.nextafter(total, sign * np.inf))
        most = np.maximum(most, np.where(np.isnan(total), np.inf, np.abs(total)))
    found = np.zeros(new.size)
    found[kept] = most
    return found


def apart_from_fixed(parts: Sequence[Part]) -> tuple[list[Part], list[tuple[Map, Array]]]:
    """Parts without the values that cannot vary, and maps of these values, as rationals: they may all but cancel."""
    moving, fixed = [], []
    for linear, low, high in parts:
        same = (low == high) & (low != 0) & np.isfinite(low)
        if same.any():
            fixed.append((linear, rational(np.where(same, low, 0.0))))
            low, high = np.where(same, 0.0, low), np.where(same, 0.0, high)
        if low.any() or high.any():
            moving.append((linear, low, high))
    return moving, fixed


def laid_beside(new: Map, old: Map, rows: Array, columns: Array) -> tuple[Map, Map, Map]:
    """(new − old in the layout of old, what that rounds, what of new has no place there).

    ``rows`` and ``columns`` say which of old each of new is (−1: none); rows of old that none is are zero.
    """
    if isinstance(new, Matrix) and isinstance(old, Matrix):
        kept, read = np.flatnonzero(rows >= 0), np.flatnonzero(columns >= 0)
        moved, lost, rest = np.zeros_like(old.values), np.zeros_like(old.values), new.values.copy()
        moved[np.ix_(rows[kept], columns[read])], rest[:, read] = new.values[np.ix_(kept, read)], 0
        moved[rows[kept]], lost[rows[kept]] = two_sum(moved[rows[kept]], -old.values[rows[kept]])
        return Matrix(moved), Matrix(lost), Matrix(rest)
    if isinstance(new, Taps) and isinstance(old, Taps) and (new.sizes, new.joins) == (old.sizes, old.joins):
        channels = [whole_channels(*pair) for pair in zip((rows, columns), old.sizes, strict=True)]
        if not any(found is None for found in channels):
            return kernels_beside(new, old, *channels)
    return entries_beside(new, old, rows, columns)


def kernels_beside(new: Taps, old: Taps, made: Array, read: Array) -> tuple[Map, Map, Map]:
    """The same of two convolutions of one geometry, for the old channel that each new one is."""
    (groups, makes, reads), (_, old_makes, old_reads) = new.values.shape[:3], old.values.shape[:3]
    group, number = (part.reshape(groups, makes, 1) for part in np.divmod(made, old_makes))
    read_group, place = (part.reshape(groups, 1, reads) for part in np.divmod(read, old_reads))
    both = (group >= 0) & (group == read_group)  # divmod leaves −1 where there is none
    at = tuple(np.broadcast_to(part, both.shape)[both] for part in (group, number, place))
    moved, lost, rest = np.zeros_like(old.values), np.zeros_like(old.values), new.values.copy()
    moved[at], rest[both] = new.values[both], 0
    kept = np.divmod(made[made >= 0], old_makes)
    moved[kept], lost[kept] = two_sum(moved[kept], -old.values[kept])
    return old.holding(moved), old.holding(lost), new.holding(rest)


def entries_beside(new: Map, old: Map, rows: Array, columns: Array) -> tuple[Map, Map, Map]:
    """The same of any two maps, by their entries."""
    (row, column, numbers), (old_row, old_column, old_numbers) = new.entries(), old.entries()
    both = (rows[row] >= 0) & (columns[column] >= 0)
    kept = np.isin(old_row, rows[rows >= 0])
    mine = rows[row[both]] * old.columns + columns[column[both]]
    theirs = old_row[kept] * old.columns + old_column[kept]
    places = np.union1d(mine, theirs)
    values = np.zeros((2, len(places)))
    values[0, np.searchsorted(places, mine)] = numbers[both]
    values[1, np.searchsorted(places, theirs)] = -old_numbers[kept]
    moved, lost = two_sum(*values)
    beside = Entries(moved, np.divmod(places, max(old.columns, 1)), old.rows, old.columns)
    rest = Entries(numbers[~both], (row[~both], column[~both]), new.rows, new.columns)
    return beside, beside.holding(lost), rest


def whole_channels(origin: Array, sizes: tuple[int, ...]) -> Array | None:
    """The channel that each channel is (−1: none), None where one is not all of another, or none of it, in order."""
    each = origin.reshape(-1, int(np.prod(sizes)))
    channel, first = np.divmod(each[:, 0], each.shape[1])
    none = (each == -1).all(axis=1)
    whole = (first == 0) & (each == each[:, :1] + np.arange(each.shape[1])).all(axis=1)
    return np.where(none, -1, channel) if (none | whole).all() else None
