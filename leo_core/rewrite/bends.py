"""How far rows Σ m relu(z) + c are from lines, where pairs of opposite units leave next to no bend.

m relu(z) + n relu(w) = ½ (m z + n w) + ½ (m |z| + n |w|). Where m and n have opposite signs and n w = m z + n r for a
small r(x), the last term is at most ½ |n r|. Where the signs of z and w are known, it is a line itself: −½ n r for
z ≥ 0 ≥ w, and ½ n r for z ≤ 0 ≤ w.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import numpy as np

from leo_core.arithmetic import TINY, UNIT_ROUNDOFF, Array, gamma, minus_multiple, product_error, round_up
from leo_core.bounds.change import Change, Values, affine_error
from leo_core.rewrite.facts import Indices, Mask
from leo_core.rewrite.layer import ReluLayer
from leo_core.rewrite.parallel import Pairs

#: Weights of pairs that are compared row by row at most.
_NUMBERS = 20_000_000


@final
@dataclass(frozen=True, eq=False)
class Bends:
    """What keeps rows that read a layer from being lines.

    Attributes
    ----------
    node:
        The affine node that the layer's ReLU reads.
    constant:
        (rows,): a bound on what no pair below accounts for.
    cost:
        (rows,): a bound on what rows are off by besides, whatever their pairs do.
    row, stays, goes:
        (pairs,): which row it is, and the units z and w of the layer.
    tilt, slack:
        (pairs, inputs + 1): ½ n r, weights and then a constant, and how far each of these numbers may be off.
    most:
        (pairs,): a bound on |½ n r|.
    sided:
        (rows,): those that read one pair alone, m > 0 > n, and are not positive for z ≤ 0: the line m z is right
        wherever they are.
    """

    node: str
    constant: Array
    cost: Array
    row: Indices
    stays: Indices
    goes: Indices
    tilt: Array
    slack: Array
    most: Array
    sided: Mask

    @staticmethod
    def of(layer: ReluLayer, pairs: Pairs, rows: Indices, cost: Array) -> Bends:
        """Of some rows, by their places among the layer's stacked ones, and what each is off by besides."""
        known, units = layer.incoming, layer.units
        outgoing = layer.outgoing[rows]
        goes = outgoing[:, pairs.goes]
        left = np.abs(beside_lines(layer, pairs, rows))
        rounded = np.zeros_like(left)
        for k, (place, factor) in enumerate(zip(pairs.stays, pairs.factor, strict=True)):
            rounded[:, place] += np.where(goes[:, k] != 0, np.abs(outgoing[:, place]) + np.abs(factor * goes[:, k]), 0)
        left = np.where(rounded > 0, round_up(left + 2 * UNIT_ROUNDOFF * (len(pairs.goes) + 4) * rounded + TINY), left)
        with np.errstate(invalid="ignore", over="ignore"):
            apart = np.where((goes != 0) & (pairs.error > 0), round_up(0.5 * np.abs(goes) * pairs.error), 0.0)
        at, pair = _opposite(layer, pairs, outgoing)
        z, w = pairs.stays[pair], pairs.goes[pair]
        # a factor for each that makes the two weights cancel
        full = np.column_stack([known.weights, known.bias])
        one, other = outgoing[at, z], outgoing[at, w]
        with np.errstate(over="ignore"):
            factor = np.maximum(one / other, -np.finfo(np.float64).max)
        rest, slack = minus_multiple(full[w], factor[:, None], full[z])
        tilt, slack = _halved(other, rest, slack)
        most = _most(tilt, slack, known.lower, known.upper)
        apart[at, pair] = 0.0
        beside, off = minus_multiple(one, factor, other)
        left[at, z] = np.where((beside == 0) & (off == 0), 0.0, round_up(np.abs(beside) + off))
        reach = np.maximum(units.upper, 0.0)
        reach[pairs.stays] = 0.5 * np.maximum(np.abs(units.lower), np.abs(units.upper))[pairs.stays]
        with np.errstate(invalid="ignore", over="ignore"):
            size = np.where((left == 0) | (reach == 0), 0.0, round_up(left * reach)).sum(axis=1) + apart.sum(axis=1)
            constant = np.where(size == 0, 0.0, round_up(size + product_error(size, 2 * layer.relu.size + 8)))
        constant = np.where(np.isnan(constant), np.inf, constant)
        single = (np.count_nonzero(outgoing, axis=1) == 2) & (np.bincount(at, minlength=len(rows)) == 1)
        both = np.zeros(len(rows))  # where both z and w are positive, m z is less than this
        with np.errstate(invalid="ignore", over="ignore"):
            np.add.at(both, at, 2.0 * (1 + 2.0**-40) * most + TINY)
            sided = single & (both < -layer.constants[rows])
        found = Bends(layer.node.name, constant, cost, at, z, w, tilt, slack, most, sided)
        return replace(found, sided=sided & np.isfinite(found.bent))

    @property
    def bent(self) -> Array:
        """(rows,): how far each is from its line at most."""
        total = self._with(self.most)
        return self._in_all(np.where(self.sided & (total > 0), 2.0 * total + TINY, total))

    @property
    def felt(self) -> Array:
        """(rows,): how far it is where that moves the ReLU of the row."""
        return self._felt(self.most)

    def rows(self, at: Indices) -> Bends:
        """Of some of the rows."""
        place = np.full(len(self.constant), -1)
        place[at] = np.arange(len(at))
        kept = place[self.row] >= 0
        pairs = {name: getattr(self, name)[kept] for name in ("stays", "goes", "tilt", "slack", "most")}
        of_rows = {name: getattr(self, name)[at] for name in ("constant", "cost", "sided")}
        return replace(self, row=place[self.row[kept]], **of_rows, **pairs)

    def on(self, values: Values, rounded: Change) -> tuple[Change, Array]:
        """On a part of the box, where nodes have values within such bounds: (what of rows is a line there, felt).

        ``rounded`` is what rounding changes of rows, on that part and by the values that the layer reads; what pairs
        whose signs are known there add to it is a line, too.
        """
        low, high = values(self.node)
        above = (low[self.stays] >= 0) & (high[self.goes] <= 0)
        below = (high[self.stays] <= 0) & (low[self.goes] >= 0)
        line = (above | below) & ~self.sided[self.row] & np.isfinite(self.most)
        size = np.where(line, 0.0, np.fmin(self.most, _most(self.tilt, self.slack, rounded.lower, rounded.upper)))
        tilted = self._tilted(rounded, np.flatnonzero(line), np.where(above, 1.0, -1.0)) if line.any() else rounded
        return tilted, self._felt(size)

    def _felt(self, most: Array) -> Array:
        """How far rows are off where that is felt, for such bounds of pairs."""
        return self._in_all(np.where(self.sided, 0.0, self._with(most)))

    def _in_all(self, bent: Array) -> Array:
        return np.where(self.cost > 0, round_up(bent + self.cost), bent)

    def _with(self, most: Array) -> Array:
        """A bound on how far rows are from their lines but for their cost, for such bounds of pairs."""
        total, pairs = np.zeros(len(self.constant)), np.bincount(self.row, minlength=len(self.constant))
        with np.errstate(invalid="ignore", over="ignore"):
            np.add.at(total, self.row, most)
            total = self.constant + np.where(total > 0, total * (1 + gamma(int(pairs.max(initial=0)))), 0.0)
        total = np.where(total > self.constant, round_up(total), self.constant)
        return np.where(np.isnan(total), np.inf, total)

    def _tilted(self, rounded: Change, pairs: Indices, sign: Array) -> Change:
        """The change of rows that become ``rounded`` + sign · ½ n r, for some pairs."""
        rows, at = np.unique(self.row[pairs], return_inverse=True)
        added, slack, size = np.zeros((3, len(rows), self.tilt.shape[1]))
        np.add.at(added, at, sign[pairs, None] * self.tilt[pairs])
        np.add.at(slack, at, self.slack[pairs])
        np.add.at(size, at, np.abs(self.tilt[pairs]))
        was = rounded.rows(rows)
        matrix, offset = was.matrix + added[:, :-1], was.offset + added[:, -1]
        terms = int(np.bincount(at).max()) + 4
        slack = slack * (1 + gamma(terms)) + gamma(terms) * (size + np.abs(np.column_stack([was.matrix, was.offset])))
        reach = np.maximum(np.abs(was.lower), np.abs(was.upper))
        with np.errstate(invalid="ignore", over="ignore"):
            lost = slack[:, :-1] @ reach + slack[:, -1]
            rest = round_up(was.rest + lost + product_error(was.rest + lost, len(reach) + 4))
        rest = np.where(np.isnan(rest), np.inf, rest)
        most = affine_error(matrix, np.zeros_like(matrix), offset, rest, was.lower, was.upper)
        return rounded.with_rows(rows, Change(matrix, offset, rest, was.lower, was.upper, most))


def beside_lines(layer: ReluLayer, pairs: Pairs, rows: Indices) -> Array:
    """What rows make of |z| of units that are not lines, in each pair of the one that stays."""
    left = layer.outgoing[rows].copy()
    left[:, layer.units.linear(layer.relu.slope)] = 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        for goes, stays, factor in zip(pairs.goes, pairs.stays, pairs.factor, strict=True):
            left[:, stays] += abs(factor) * layer.outgoing[rows, goes]
    left[:, pairs.goes] = 0.0
    return left


def _opposite(layer: ReluLayer, pairs: Pairs, outgoing: Array) -> tuple[Indices, Indices]:
    """(row, pair) wherever rows read both units of a pair, whose first is in no other, with opposite signs."""
    alone = np.bincount(pairs.stays, minlength=layer.relu.size)[pairs.stays] == 1
    at, pair = np.nonzero(alone & (np.sign(outgoing[:, pairs.stays]) * np.sign(outgoing[:, pairs.goes]) < 0))
    few = len(at) * (layer.columns + 1) <= _NUMBERS
    return (at, pair) if few else (at[:0], pair[:0])


def _halved(weights: Array, rest: Array, slack: Array) -> tuple[Array, Array]:
    """½ n r for r off by at most some slack: the numbers, and how far they may be off."""
    half = 0.5 * weights[:, None]
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        tilt = half * rest
        off = np.abs(half) * slack + 2 * UNIT_ROUNDOFF * np.abs(tilt)
        off = np.where(
            (rest == 0) & (slack == 0), 0.0, round_up(off * (1 + 4 * UNIT_ROUNDOFF) + TINY * (1 + np.abs(rest)))
        )
    return tilt, np.where(np.isnan(off), np.inf, off)


def _most(tilt: Array, slack: Array, lower: Array, upper: Array) -> Array:
    """The most that each of some lines can be on a box; none where all numbers are 0."""
    found = affine_error(tilt[:, :-1], slack[:, :-1], tilt[:, -1], slack[:, -1], lower, upper)
    return np.where((tilt == 0).all(axis=1) & (slack == 0).all(axis=1), 0.0, found)
