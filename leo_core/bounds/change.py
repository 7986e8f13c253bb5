"""Proved bounds on what a rewrite changes: at the nodes it touches, and from there to the outputs.

Behind a touched node both networks are the same, so only the change of its value travels: an affine node
multiplies it by W; a ReLU stops it where the unit is inactive, passes it where it is active, and passes
t·change, slope ≤ t ≤ 1, where it is unstable. With t = middle ± radius, what is passed by the middle stays
linear, so that it can cancel on the way to the outputs; only the radius is summed by absolute values.
Everything is rounded up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from leo_core.arithmetic import TINY, UNIT_ROUNDOFF, Array, gamma, product_error, round_up
from leo_core.bounds.region import Interval
from leo_core.network import Affine, Network, Relu

#: Bounds of the values that a node, or the input, takes.
Values: TypeAlias = Callable[[str], Interval]

#: A node's change is traced back linearly where that takes at most this many products; the outputs' always.
_TRACED_PRODUCTS = 20_000_000


@final
@dataclass(frozen=True, eq=False)
class Change:
    """What a rewrite does to the values of an affine node: |change − (matrix x + offset)| ≤ rest, lower ≤ x ≤ upper.

    Attributes
    ----------
    most:
        Per unit, a bound on |change| alone.
    within:
        The same on a part of the box, given bounds of the values that nodes have there; None where nothing more is
        known of it.
    """

    matrix: Array
    offset: Array
    rest: Array
    lower: Array
    upper: Array
    most: Array
    within: Callable[[Values], Change] | None = None

    @staticmethod
    def at_most(error: Array) -> Change:
        """One of which only the size is known, if that."""
        error = np.where(np.isnan(error), np.inf, error)
        nothing = np.zeros(0)
        return Change(np.zeros((len(error), 0)), np.zeros(len(error)), error, nothing, nothing, error)

    def on(self, values: Values) -> Change:
        """On a part of the box, where nodes have values within such bounds."""
        return self if self.within is None else self.within(values)

    def reading(self, names: Sequence[str]) -> Change:
        """The same, told that x are the values of some nodes, one after the other."""

        def within(values: Values) -> Change:
            ends = [values(name) for name in names]
            lower = np.maximum(self.lower, np.concatenate([low for low, _ in ends]))
            upper = np.minimum(self.upper, np.concatenate([high for _, high in ends]))
            upper = np.maximum(lower, upper)  # of an empty part, anything holds
            nothing = np.zeros_like(self.matrix)
            here = affine_error(self.matrix, nothing, self.offset, self.rest, lower, upper)
            return Change(self.matrix, self.offset, self.rest, lower, upper, np.fmin(self.most, here))

        return replace(self, within=within)

    def plus(self, other: Change) -> Change:
        """Both, one after the other; their x may be different things."""
        offset = self.offset + other.offset
        rounded = np.where((self.offset == 0) | (other.offset == 0), 0.0, 4 * UNIT_ROUNDOFF * np.abs(offset))
        return Change(
            np.hstack([self.matrix, other.matrix]),
            offset,
            _sum_up(_sum_up(self.rest, other.rest), rounded),
            np.concatenate([self.lower, other.lower]),
            np.concatenate([self.upper, other.upper]),
            _sum_up(self.most, other.most),
            None if self.within is other.within is None else lambda values: self.on(values).plus(other.on(values)),
        )

    def rows(self, rows: slice | NDArray[np.int64]) -> Change:
        """Of some units only."""
        of = self.matrix[rows], self.offset[rows], self.rest[rows]
        within = None if self.within is None else lambda values: self.on(values).rows(rows)
        return Change(*of, self.lower, self.upper, self.most[rows], within)

    def with_rows(self, rows: NDArray[np.int64], other: Change) -> Change:
        """This, with what another says of some rows; both over the same x."""
        pairs = [(getattr(self, name).copy(), getattr(other, name)) for name in ("matrix", "offset", "rest", "most")]
        for mine, others in pairs:
            mine[rows] = others
        matrix, offset, rest, most = (mine for mine, _ in pairs)
        return Change(matrix, offset, rest, self.lower, self.upper, most)

    def through(self, price: Array) -> Array:
        """A bound on |price · change|, for prices (targets × units)."""
        with np.errstate(invalid="ignore", over="ignore"):
            absolute, terms = np.abs(price), price.shape[1] + 2
            size = absolute @ self.most
            plain = size + product_error(size, terms)
            if not self.matrix.shape[1]:
                return round_up(plain)
            slack = product_error(absolute @ np.abs(self.matrix), terms)
            rest = absolute @ self.rest
            rest = rest + product_error(rest + absolute @ np.abs(self.offset), terms)
            linear = affine_error(price @ self.matrix, slack, price @ self.offset, rest, self.lower, self.upper)
            return round_up(np.fmin(plain, linear))


def _sum_up(left: Array, right: Array) -> Array:
    """The sum of what is not negative, rounded up; nothing added leaves nothing to round: no change stays none."""
    return np.where((left == 0) | (right == 0), left + right, round_up(left + right))


def carry(network: Network, bounds: Mapping[str, Interval], changes: Mapping[str, Change]) -> dict[str, Array]:
    """How far every node may move when a rewrite changes some affine nodes, all else before them being equal.

    ``bounds`` holds proved bounds of each affine node that a ReLU reads, before the change or after it; the result's
    entries have the nodes' shapes.
    """
    moved: dict[str, Array] = {}
    spread: dict[str, Array] = {}  # the same by absolute values alone
    work = 0
    for node in network.nodes:
        if not isinstance(node, Affine):
            if node.source in moved:
                moved[node.name] = _passed(node, bounds[node.source], moved[node.source]).most(moved[node.source])
                spread[node.name] = spread[node.source]
            continue
        if node.name not in changes and not any(source in moved for source in node.sources):
            continue
        own = changes[node.name].most if node.name in changes else np.zeros(node.size)
        moved[node.name], spread[node.name] = flow(node, moved, own), flow(node, spread, own)
        work += sum(m.rows * m.columns for source, m in node.reads if source in moved)
        last = node.name == network.output or network.output in network.readers[node.name]
        if work and moved[node.name].any() and (last or node.size * work <= _TRACED_PRODUCTS):
            moved[node.name] = np.minimum(moved[node.name], _traced(network, bounds, changes, moved, spread, node))
    return moved


def flow(node: Affine, entering: Mapping[str, Array], own: Array) -> Array:
    """How far an affine node moves where its sources move by ``entering`` at most, and itself by ``own``."""
    total = own
    for source, linear in node.reads:
        if source in entering and entering[source].any():
            flow = linear.absolute().apply(entering[source])
            total = round_up(total + round_up(flow + product_error(flow, linear.terms)))
    if node.own is not None:  # its factors may be a little larger than what is stored
        more = round_up(node.own.rounding.weights * total)
        total = np.where(total > 0, round_up(total + more), total)
    return total


@final
@dataclass(frozen=True, eq=False)
class _Passed:
    """A ReLU passes t·change with ``middle`` − ``radius`` ≤ t ≤ ``middle`` + ``radius`` ≤ ``largest``, per unit."""

    middle: Array
    radius: Array
    largest: Array

    def most(self, moved: Array) -> Array:
        """How much of a change comes through at most."""
        return np.where(self.largest == 1, moved, _times(self.largest, moved))

    def uncertain(self, moved: Array) -> Array:
        """How far what comes through may be from ``middle`` · change."""
        return _times(self.radius, moved)


def _times(share: Array, moved: Array) -> Array:
    """The product, rounded up: a price may be multiplied with it that makes an underflow matter."""
    return np.where((share == 0) | (moved == 0), 0.0, round_up(share * moved))


def _passed(relu: Relu, bounds: Interval, moved: Array) -> _Passed:
    (lower, upper), slope = bounds, relu.slope
    with np.errstate(invalid="ignore"):
        active = lower - moved >= 0  # before the change and after it
        inactive = upper + moved <= 0
    least, largest = np.where(active, 1.0, slope), np.where(inactive & ~active, slope, 1.0)
    middle = 0.5 * (least + largest)
    away = np.maximum(largest - middle, middle - least)
    return _Passed(middle, np.where(away > 0, round_up(away), 0.0), largest)


def _traced(
    network: Network,
    bounds: Mapping[str, Interval],
    changes: Mapping[str, Change],
    moved: Mapping[str, Array],
    spread: Mapping[str, Array],
    target: Affine,
) -> Array:
    """The change of ``target``, its linear part multiplied out from there back to where it begins.

    A price is a sum of products along paths, and the absolute sum of those, times what enters there, is at
    most ``spread``: that scales each rounding. What underflows in a price counts times the node's change.
    """
    prices: dict[str, Array] = {target.name: np.eye(target.size)}
    total, summands, terms, lost = np.zeros(target.size), 1, 8, 0.0
    with np.errstate(invalid="ignore", over="ignore"):
        for node in reversed(network.nodes):
            price = prices.pop(node.name, None)
            if price is None:
                continue
            flows: list[tuple[str, Array]]
            if isinstance(node, Relu):
                passed = _passed(node, bounds[node.source], moved[node.source])
                total += np.abs(price) @ passed.uncertain(moved[node.source])
                flows = [(node.source, price * passed.middle)]
            else:
                if node.name in changes:
                    total += changes[node.name].through(price)
                maps = node.reads
                flows = [(source, linear.apply_transposed(price)) for source, linear in maps if source in moved]
            summands += 1
            terms += 2 * node.size + 64  # so many roundings cover a layer's own numbers, too
            lost += (2 * node.size + 8) * (1.0 + float(moved[node.name].sum()))
            for source, flow in flows:
                prices[source] = prices[source] + flow if source in prices else flow
        bound = round_up(total + (summands + 1) * gamma(terms) * spread[target.name] + 4 * lost * TINY)
    return np.where(np.isnan(bound), np.inf, bound)


def affine_error(matrix: Array, slack: Array, offset: Array, offset_slack: Array, lower: Array, upper: Array) -> Array:
    """max |(matrix + Δ) x + offset + d| per row over lower ≤ x ≤ upper, for |Δ| ≤ slack, |d| ≤ offset_slack."""
    with np.errstate(invalid="ignore", over="ignore"):
        centre = lower + 0.5 * (upper - lower)
        radius = round_up(np.maximum(upper - centre, centre - lower))
        absolute = np.abs(matrix)
        spread = absolute @ radius + slack @ (radius + np.abs(centre))
        middle = np.abs(matrix @ centre + offset)
        magnitude = absolute @ (np.abs(centre) + radius) + np.abs(offset) + slack @ (radius + np.abs(centre))
        total = round_up(spread + middle + offset_slack + product_error(magnitude, 2 * matrix.shape[1] + 8))
    return np.where(np.isnan(total), np.inf, total)
