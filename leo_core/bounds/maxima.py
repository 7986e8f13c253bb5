"""Maxima: units b + relu(a − b) = max(a, b), or b − relu(b − a) = min(a, b), as poolings are lowered to.

Taken term by term, such a unit seems to reach from min b to max b + max(a − b): in a tree of maxima the width doubles
at each step. It lies between max(min a, min b) and max(max a, max b), without any rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from leo_core.bounds.region import Interval, Region
from leo_core.network import Affine, Network, Relu

Array = NDArray[np.float64]
Units = NDArray[np.int64]


@final
@dataclass(frozen=True, eq=False)
class Maxima:
    """The units of an affine node that are the larger of two values, or the smaller.

    Attributes
    ----------
    units:
        Shape (found,): which of the node's units.
    pairs:
        The two values, each as (name of a node or of the input, its units of shape (found,)).
    largest:
        Whether they are maxima; else minima.
    """

    units: Units
    pairs: tuple[tuple[str, Units], tuple[str, Units]]
    largest: bool

    def within(self, network: Network, region: Region, bounds: Interval) -> Interval:
        """Bounds of the node, (…, units), made as tight as those of the two values say."""
        pick = np.maximum if self.largest else np.minimum
        ends = [[side[..., units] for side in region.value(network, name)] for name, units in self.pairs]
        low, high = (side.copy() for side in bounds)
        low[..., self.units] = np.fmax(low[..., self.units], pick(ends[0][0], ends[1][0]))
        high[..., self.units] = np.fmin(high[..., self.units], pick(ends[0][1], ends[1][1]))
        return low, high


def maxima(network: Network, node: Affine) -> Maxima | None:
    """The maxima, or minima, that a node holds; found once for each node of a network.

    None for a node that is asked about in the place of one of the network's, and has its name.
    """
    if node.name not in network or network[node.name] is not node:
        return None
    key = ("maxima", node.name)
    if key not in network.memo:
        network.memo[key] = _found(network, node)
    known: Maxima | None = network.memo[key]
    return known


def _found(network: Network, node: Affine) -> Maxima | None:
    relus = [source for source in node.sources if source in network and isinstance(network[source], Relu)]
    sums = _Entries.of(node, 2)
    if sums is None or len(node.sources) != 2:
        return None
    return next((found for name in relus if (found := _behind(network, node, name, sums)) is not None), None)


@final
@dataclass(frozen=True, eq=False)
class _Entries:
    """Units that are two values added, each as it is or turned: by unit, which source, which of its units, the sign."""

    units: Units
    source: Units  # (units, 2): the position among the node's sources
    column: Units
    sign: Array

    @staticmethod
    def of(node: Affine, most: int) -> _Entries | None:
        """What of a node is such a sum, without a bias; None where its maps hold more than that."""
        if node.own is not None or any(linear.terms > most for linear in node.maps):
            return None
        parts = [linear.sparse().arrays() for linear in node.maps]
        row = np.concatenate([np.repeat(np.arange(node.size), np.diff(part["indptr"])) for part in parts])
        source = np.repeat(np.arange(len(parts)), [len(part["data"]) for part in parts])
        column, value = (np.concatenate([part[key] for part in parts]) for key in ("indices", "data"))
        kept = value != 0
        order = np.argsort(row[kept], kind="stable")
        row, source, column, value = (array[kept][order] for array in (row, source, column, value))
        count = np.bincount(row, minlength=node.size)
        plain = (count == 2) & (node.bias == 0) & (np.bincount(row, np.abs(value) != 1, node.size) == 0)
        first = (np.cumsum(count) - count)[plain]
        pair = first[:, None] + np.arange(2)
        return _Entries(np.flatnonzero(plain), source[pair], column[pair], value[pair].astype(np.float64))

    def taken(self, kept: NDArray[Any]) -> _Entries:
        return _Entries(self.units[kept], self.source[kept], self.column[kept], self.sign[kept])

    def turned(self, first: NDArray[np.bool_]) -> _Entries:
        """With the two values of each unit in the other order where the one that is to be first is not."""
        order = np.where(first[:, None], [0, 1], [1, 0])
        source, column = (np.take_along_axis(array, order, axis=1) for array in (self.source, self.column))
        return _Entries(self.units, source, column, np.take_along_axis(self.sign, order, axis=1))


def _behind(network: Network, node: Affine, relu: str, sums: _Entries) -> Maxima | None:
    """Units that are another value, and a relu of how far a third lies above it, or below."""
    rectified = network[relu]
    assert isinstance(rectified, Relu)
    differs = network.affine(rectified.source)
    differences = _Entries.of(differs, 2)
    if differences is None:
        return None
    at = node.sources.index(relu)
    sums = sums.taken((sums.source == at).sum(axis=1) == 1)
    sums = sums.turned(sums.source[:, 0] != at)  # the other value first, then the relu
    place = np.full(differs.size, -1)
    place[differences.units] = np.arange(len(differences.units))
    of = place[sums.column[:, 1]]
    kept = (of >= 0) & (sums.sign[:, 0] == 1) & (rectified.slope[sums.column[:, 1]] == 0)
    base, names = node.sources[1 - at], np.array(differs.sources)
    found = []
    for sign in (1, -1):
        signed = kept & (sums.sign[:, 1] == sign)
        found.append(_of_sign(sign, base, names, sums.taken(signed), differences.taken(of[signed])))
    return max((each for each in found if each is not None), key=lambda each: len(each.units), default=None)


def _of_sign(sign: int, base: str, names: NDArray[np.str_], sums: _Entries, differences: _Entries) -> Maxima | None:
    """Those of ``base`` + sign · relu(sign · (a − base)), each beside what its relu reads."""
    beside = sums.column[:, 0]
    ours = (names[differences.source] == base) & (differences.column == beside[:, None]) & (differences.sign == -sign)
    differences = differences.turned(ours[:, 1])  # the third value first, then the base
    fits = ours.any(axis=1) & (differences.sign[:, 0] == sign)
    partners = names[differences.source[:, 0]]
    if not fits.any():
        return None
    partner = str(partners[fits][0])
    fits &= partners == partner
    return Maxima(sums.units[fits], ((partner, differences.column[fits, 0]), (base, beside[fits])), largest=sign > 0)
