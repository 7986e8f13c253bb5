"""Branch and bound over many nodes at once, with bounds and no LP: for networks whose relaxation is large.

At every node of a batch the layers behind the last split are bounded anew, then the claim with optimised slopes.
The unit to split on is the one whose two halves, bounded on trial, come out lowest (filtered strong branching, as in
De Palma et al. 2021). Only where every sign is known and the bound is still positive is the LP asked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from leo_core.bounds.crown import Memo, bound_linearly
from leo_core.bounds.descend import descend, parts_at_once
from leo_core.bounds.dual import NO_TILTS, DualBound
from leo_core.bounds.region import Region
from leo_core.bounds.slopes import improved
from leo_core.checker.trees import Tree
from leo_core.execution.budget import Budget
from leo_core.milp.relaxation import Relaxation
from leo_core.search.goal import Goal, crossing
from leo_core.search.growth import Growth

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

#: Nodes bounded at once, at most.
BATCH = 32
#: After so many nodes a claim must look as if the nodes it is given were enough.
TRIAL = 512
#: Steps of descent on slopes per node.
SLOPES = 16
#: Units tried per node before one is split on.
CANDIDATES = 6


@final
@dataclass(frozen=True, eq=False)
class _Nodes:
    """Open nodes: their regions as a stack, number in the tree, depth, and position of the last split."""

    region: Region
    number: Indices
    depth: Indices
    since: Indices

    def take(self, rows: Indices) -> _Nodes:
        return _Nodes(self.region.take(rows), self.number[rows], self.depth[rows], self.since[rows])


class BatchTree:
    """The search for one claim; ``lp`` gives the relaxation when it is needed."""

    def __init__(self, goal: Goal, lp: Callable[[], Relaxation], limit: int) -> None:
        self._goal, self._lp = goal, lp
        self.growth = Growth(limit, TRIAL)
        self._at_once = parts_at_once(goal.network, goal.target, BATCH)
        zero = np.zeros(1, dtype=np.int64)
        self.open = [_Nodes(goal.region.take(zero), zero, zero, zero + len(goal.position))]

    def step(self, budget: Budget) -> None:
        """Bound a batch of nodes, close what closes, split the rest."""
        batch = self._batch()
        self.growth.looked_at += len(batch.number)
        region, _ = descend(self._goal.network, self._goal.target, batch.region, batch.since)
        batch = _Nodes(region, batch.number, batch.depth, batch.since)
        empty = _empty(region)
        rows = np.flatnonzero(~empty)
        for row in np.flatnonzero(empty).tolist():
            self._close(batch, row, self._goal.empty())
        if len(rows) == 0:
            return
        batch = batch.take(rows)
        each = np.arange(len(rows))
        objectives = np.repeat(self._goal.objective, len(rows), axis=0)
        bound = improved(self._goal.network, self._goal.target, objectives, batch.region, SLOPES)
        left = []
        for row in each.tolist():
            multipliers = {name: y[row] for name, y in bound.multipliers.items()}
            region = batch.region.one(row)
            leaf = self._goal.leaf(region, multipliers, NO_TILTS, float(bound.upper[row]), float(bound.rounding[row]))
            if leaf is None:
                left.append(row)
            else:
                self._close(batch, row, leaf)
        if left:
            corners = np.where(bound.slope_at_input > 0, batch.region.upper, batch.region.lower)[left]
            self._goal.look_at(corners)
        if left and self._goal.witness is None:
            self._split(batch, bound, np.array(left), budget)

    def close(self) -> None:
        """Nothing to free."""

    def _batch(self) -> _Nodes:
        nodes = self.open.pop()
        while len(nodes.number) < self._at_once and self.open:
            nodes = _joined(self.open.pop(), nodes)
        if len(nodes.number) > self._at_once:
            count = len(nodes.number) - self._at_once
            self.open.append(nodes.take(np.arange(count)))
            nodes = nodes.take(np.arange(count, count + self._at_once))
        return nodes

    def _close(self, batch: _Nodes, row: int, leaf: Tree) -> None:
        self.growth.close(int(batch.number[row]), int(batch.depth[row]), leaf)

    def _split(self, batch: _Nodes, bound: DualBound, rows: Indices, budget: Budget) -> None:
        batch = batch.take(rows)
        names, units = self._choose(batch.region, bound, rows)
        for row in np.flatnonzero(units < 0).tolist():  # every sign is known
            region = batch.region.one(row)
            answer = self._lp().maximize(self._goal.unit, self._goal.sign, region, min(budget.remaining, 1e6))
            leaf, _ = self._goal.leaf_by_lp(answer, region)
            if leaf is None:
                self.growth.stuck = True
                return
            self._close(batch, row, leaf)
        if self.growth.hopeless:
            self.growth.stuck = True
            return
        kept = np.flatnonzero(units >= 0)
        if len(kept):
            self._halve(batch.take(kept), [names[row] for row in kept], units[kept])

    def _halve(self, batch: _Nodes, names: list[str], units: Indices) -> None:
        halves: tuple[list[Region], list[Region]] = ([], [])
        since = np.array([self._goal.position[name] for name in names])
        numbers = np.zeros(len(units), np.int64)
        for row, (name, unit) in enumerate(zip(names, units.tolist(), strict=True)):
            numbers[row] = self.growth.cut(int(batch.number[row]), int(since[row]), unit)
            one = batch.region.one(row)
            for half, active in zip(halves, (True, False), strict=True):
                half.append(one.split(name, unit, active=active))
        on, off = (
            _Nodes(Region.joined(half), numbers + which, batch.depth + 1, since) for which, half in enumerate(halves)
        )
        self.open.append(_joined(on, off))

    def _choose(self, region: Region, bound: DualBound, rows: Indices) -> tuple[list[str], Indices]:
        """Per node, the unit to split on; −1 where every sign is known."""
        if not self._goal.branching:
            return [""] * len(rows), np.full(len(rows), -1)
        scores = []
        for name in self._goal.branching:
            low, high = region.intervals[name]
            is_open = crossing(region, name)
            price = bound.prices[name][rows]
            with np.errstate(invalid="ignore", divide="ignore"):
                height = np.where(is_open, -low * high / (high - low), 0.0)
            gap = np.where(price > 0, price * height, -price * np.minimum(-low, high) * 0.5)
            scores.append(np.where(is_open, gap + 1e-12 * height, -1.0))
        flat = np.concatenate(scores, axis=1)
        count = min(CANDIDATES, flat.shape[1])
        best = np.argsort(-flat, axis=1)[:, :count]
        starts = np.cumsum([0, *(score.shape[1] for score in scores)])
        layer = np.searchsorted(starts, best, side="right") - 1
        unit = best - starts[layer]
        valid = np.take_along_axis(flat, best, axis=1) >= 0
        gain = self._trial(region, layer, unit, valid)
        pick = np.argmax(np.where(valid, gain, -np.inf), axis=1)
        each = np.arange(len(rows))
        units = np.where(valid[each, pick], unit[each, pick], -1)
        return [self._goal.branching[k] for k in layer[each, pick]], units

    def _trial(self, region: Region, layer: Indices, unit: Indices, valid: NDArray[np.bool_]) -> Array:
        """How much each candidate split lowers the worse of its two halves (and a little, the better)."""
        nodes, column = np.nonzero(valid)
        gain = np.full(layer.shape, -np.inf)
        if len(nodes) == 0:
            return gain
        halves = []
        for active in (True, False):
            cut = region.take(nodes)
            intervals = {name: (low.copy(), high.copy()) for name, (low, high) in cut.intervals.items()}
            for k, name in enumerate(self._goal.branching):
                mine = np.flatnonzero(layer[nodes, column] == k)
                intervals[name][0 if active else 1][mine, unit[nodes[mine], column[mine]]] = 0.0
            cut = Region(cut.lower, cut.upper, intervals)
            objectives = np.repeat(self._goal.objective, len(nodes), axis=0)
            each = np.arange(len(nodes))
            halves.append(bound_linearly(self._goal.network, self._goal.target, objectives, cut, Memo(), each).upper)
        worse, better = np.maximum(*halves), np.minimum(*halves)
        gain[nodes, column] = -np.maximum(worse, 0.0) - 0.1 * np.maximum(better, 0.0)
        return gain


def _empty(region: Region) -> NDArray[np.bool_]:
    empty = np.zeros(len(region.lower), dtype=bool)
    for low, high in region.intervals.values():
        empty |= (low > high).any(axis=1)
    return empty


def _joined(first: _Nodes, second: _Nodes) -> _Nodes:
    return _Nodes(
        Region.joined([first.region, second.region]),
        np.concatenate([first.number, second.number]),
        np.concatenate([first.depth, second.depth]),
        np.concatenate([first.since, second.since]),
    )
