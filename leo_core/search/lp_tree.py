"""Branch and bound with an LP at every node: for networks whose relaxation is small.

At the root, rounds of cuts (:mod:`leo_core.milp.cuts`) often close the claim. Else the unit to split on is found by
strong branching: of those that violate p = max(a, 0) at the LP's point, the few that promise most are tried, and
what splits gained before (pseudo-costs) says which promise (Achterberg, Koch, Martin 2005). A half that its trial
closes needs no node. Nothing the LP says is believed: its duals go through the safe bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from leo_core.bounds.descend import descend
from leo_core.bounds.dual import NO_TILTS
from leo_core.bounds.region import Region
from leo_core.bounds.slopes import improved
from leo_core.checker.trees import Tree
from leo_core.execution.budget import Budget
from leo_core.milp.relaxation import Relaxation
from leo_core.search.goal import Goal, crossing
from leo_core.search.growth import Growth

Array = NDArray[np.float64]
Unit: TypeAlias = tuple[str, int]

#: Rounds of cuts at the root and at other nodes, and the share of the bound that a further round must gain.
ROOT_ROUNDS, ROUNDS, GAIN = 20, 2, 0.01
#: Steps of descent on slopes before the LP.
SLOPES = 4
#: Units tried per node at most, and how many in a row may fail to be better.
CANDIDATES, PATIENCE = 8, 3
#: After so many nodes a claim must look as if the nodes it is given were enough.
TRIAL = 200


@final
@dataclass(frozen=True, eq=False)
class _Node:
    number: int
    region: Region
    since: int
    depth: int


@final
@dataclass(frozen=True, eq=False)
class _Relaxed:
    """An LP, and what it last said: the safe bound of its duals, its point, and the prices Λ_p by node."""

    relaxation: Relaxation
    upper: float = np.inf
    point: Array | None = None
    prices: dict[str, Array] | None = None


@final
@dataclass(frozen=True)
class _Promise:
    """What splitting a unit may gain, and how far the LP's point is from max(a, 0)."""

    value: float
    gap: float
    unit: Unit


@final
@dataclass(frozen=True, eq=False)
class _Half:
    """What trying one half of a split came to."""

    leaf: Tree | None
    gain: float


class LpTree:
    """The search for one claim; ``close`` frees its LP."""

    def __init__(self, goal: Goal, relaxation: Relaxation, limit: int) -> None:
        self._goal, self._plain = goal, relaxation
        self.growth = Growth(limit, TRIAL)
        self.relaxation = relaxation  # after the root: with its cuts
        self.open = [_Node(0, goal.region, len(goal.position), 0)]
        self._gained: dict[tuple[Unit, bool], tuple[float, int]] = {}

    def step(self, budget: Budget) -> None:
        """Close one node, or split it."""
        node = self.open.pop()
        self.growth.looked_at += 1
        stack, _ = descend(
            self._goal.network, self._goal.target, node.region.take(np.zeros(1, np.int64)), np.array([node.since])
        )
        region = stack.one(0)
        if region.empty:
            self.growth.close(node.number, node.depth, self._goal.empty())
            return
        leaf = self._leaf_by_slopes(stack)
        last = _Relaxed(self.relaxation)
        if leaf is None:
            leaf, last = self._bound(region, ROOT_ROUNDS if node.number == 0 else ROUNDS, budget)
        if leaf is not None:
            self.growth.close(node.number, node.depth, leaf)
        else:
            self._split(node, region, last, budget)
        if node.number == 0:
            self.relaxation = last.relaxation
        elif last.relaxation is not self.relaxation:
            last.relaxation.close()

    def close(self) -> None:
        """Free the LP with the root's cuts."""
        if self.relaxation is not self._plain:
            self.relaxation.close()

    def _leaf_by_slopes(self, stack: Region) -> Tree | None:
        """Cheaper than the LP, and simpler numbers: what is exactly zero is seen to be."""
        goal = self._goal
        found = improved(goal.network, goal.target, goal.objective, stack, SLOPES)
        multipliers = {name: y[0] for name, y in found.multipliers.items()}
        return goal.leaf(stack.one(0), multipliers, NO_TILTS, float(found.upper[0]), float(found.rounding[0]))

    def _bound(self, region: Region, rounds: int, budget: Budget) -> tuple[Tree | None, _Relaxed]:
        """A leaf, if the LP closes a node, with cuts as long as they gain; and the LP as it was last."""
        goal, relaxation, best = self._goal, self.relaxation, np.inf
        last = _Relaxed(relaxation)
        for left in reversed(range(rounds)):
            answer = relaxation.maximize(goal.unit, goal.sign, region, min(budget.remaining, 1e6))
            leaf, bound = goal.leaf_by_lp(answer, region)
            if leaf is not None or answer.point is None or bound is None:
                if relaxation not in (self.relaxation, last.relaxation):
                    relaxation.close()
                return leaf, last
            upper = float(bound.upper[0])
            gained, best = best - upper, min(best, upper)
            last = _Relaxed(relaxation, upper, answer.point, bound.prices)
            goal.look_at(relaxation.inputs_of(answer.point)[None])
            if not left or goal.witness is not None or budget.expired or gained < GAIN * abs(best):
                break
            tighter = relaxation.tighter(answer, region)
            if tighter is None:
                break
            if relaxation is not self.relaxation:
                relaxation.close()
            relaxation = tighter
        return None, last

    def _split(self, node: _Node, region: Region, last: _Relaxed, budget: Budget) -> None:
        scored = self._scored(region, last)
        if not scored or self.growth.hopeless or self._goal.witness is not None:
            self.growth.stuck = True  # every sign is known and still no proof; or it takes too long; or there is none
            return
        best, chosen, failed = -np.inf, scored[0], 0
        found: tuple[_Half, ...] = ()
        for promise in scored[:CANDIDATES]:
            halves = tuple(self._try(region, promise, active, last, budget) for active in (True, False))
            if budget.expired:
                self.growth.stuck = True
                return
            value = float(np.prod([max(half.gain, 1e-9) for half in halves]))
            failed = 0 if value > best else failed + 1
            if value > best:
                best, chosen, found = value, promise, halves
            if failed >= PATIENCE or all(half.leaf is not None for half in halves):
                break
        name, unit = chosen.unit
        since = self._goal.position[name]
        first = self.growth.cut(node.number, since, unit)
        for k in sorted((0, 1), key=lambda k: -found[k].gain):  # the harder half is looked at next
            half = found[k]
            if half.leaf is not None:
                self.growth.close(first + k, node.depth + 1, half.leaf)
            else:
                part = region.split(name, unit, active=k == 0)
                self.open.append(_Node(first + k, part, since, node.depth + 1))

    def _try(self, region: Region, promise: _Promise, active: bool, last: _Relaxed, budget: Budget) -> _Half:
        half = region.split(*promise.unit, active=active)
        answer = last.relaxation.maximize(self._goal.unit, self._goal.sign, half, min(budget.remaining, 1e6))
        leaf, bound = self._goal.leaf_by_lp(answer, half)
        gain = last.upper if leaf is not None or bound is None else max(last.upper - float(bound.upper[0]), 0.0)
        gain = gain if np.isfinite(gain) else 0.0
        total, count = self._gained.get((promise.unit, active), (0.0, 0))
        self._gained[promise.unit, active] = total + gain / max(promise.gap, 1e-12), count + 1
        return _Half(leaf, gain)

    def _scored(self, region: Region, last: _Relaxed) -> list[_Promise]:
        """The open units, those whose split promises most first."""
        found = []
        for name in self._goal.branching:
            units = np.flatnonzero(crossing(region, name))
            gaps = np.ones(len(units)) if last.point is None else last.relaxation.gaps(name, units, last.point)
            price = np.ones(len(units)) if last.prices is None else np.abs(last.prices[name][0, units])
            for unit, gap, first in zip(units.tolist(), np.maximum(gaps, 0.0).tolist(), price.tolist(), strict=True):
                per_gap = 1.0
                for active in (True, False):
                    total, count = self._gained.get(((name, unit), active), (0.0, 0))
                    per_gap *= np.sqrt(total / count if count else first)
                found.append(_Promise(gap * per_gap, gap, (name, unit)))
        return sorted(found, key=lambda promise: -promise.value)
