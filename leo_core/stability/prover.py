"""Branch and bound on ReLU phases that proves or refutes 'this unit is never positive': the disposer of DESIGN §5.

A node of the tree is a region cut out by phases. Many nodes are bounded at once: the layers behind the last
split anew, then the claim with optimised slopes. A node is closed only by the safe dual bound; the LP
relaxation is asked at the root and where no phase is left to split, for multipliers and for points, and its word
is never taken. The unit to split on is the one whose two halves, bounded on trial, come out lowest (filtered
strong branching, as in De Palma et al. 2021).

Sources: safe bounds as in Neumaier and Shcherbina, Math. Program. 99 (2004).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from leo_core.bounds.crown import bound_linearly
from leo_core.bounds.descend import descend
from leo_core.bounds.dual import NO_TILTS, DualBound, Tilt, Tilts, bound_above, bound_above_exact, given, prefix
from leo_core.bounds.region import Interval, Region
from leo_core.bounds.slopes import improved
from leo_core.domain import Box
from leo_core.execution.budget import Budget
from leo_core.milp.relaxation import Relaxation, RelaxedAnswer
from leo_core.milp.solver import Solver
from leo_core.network import Network
from leo_core.stability.attack import ascend
from leo_core.stability.evidence import Leaf, Split, Tree
from leo_core.stability.witness import signs_at

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Multipliers: TypeAlias = dict[str, Array]

#: Nodes bounded at once.
BATCH = 32
#: After this many nodes a claim must look as if it could end …
TRIAL = 512
#: … within this many.
LIMIT = 100_000
#: Steps of descent on slopes per node, and of ascent from the point it hands back.
SLOPES, CLIMB = 16, 4
#: Units tried per node before one is split on.
CANDIDATES = 6
#: Rounds of cuts at the root.
ROUNDS = 20
#: An LP of at most so many columns is solved at every node, a larger one only at the root and where no sign is open.
SMALL = 400
#: Bounds this close to zero, relative to the unit's own range, are tried in exact arithmetic.
NEARLY_ZERO = 1e-6
#: Bits that exact attempts round multipliers to: LP duals are often simple numbers, slightly off.
_SNAP_BITS = (52, 20, 8, 3)


@final
@dataclass(frozen=True, eq=False)
class Outcome:
    """A claim proved (``tree``), refuted (``witness``, an input), or left open (neither)."""

    tree: Tree | None = None
    witness: Array | None = None
    nodes: int = 0


class Prover:
    """Proves claims about the units of one affine node over one region; ``close`` frees its LP."""

    def __init__(self, network: Network, target: str, region: Region, solver: Solver, seed: int = 0) -> None:
        self.network, self.target, self.region = network, target, region
        self._solver, self._seed = solver, seed
        self._relaxation: Relaxation | None = None

    def never_positive(self, unit: int, sign: int, budget: Budget) -> Outcome:
        """Decide whether sign·a_unit ≤ 0 on the whole region.

        Parameters
        ----------
        sign:
            +1 for 'never positive' (inactive), −1 for 'never negative' (active).
        """
        search = _Search(self, unit, sign)
        while search.frontier and search.witness is None and not search.stuck and not budget.expired:
            search.step(budget)
        if search.witness is not None:
            return Outcome(witness=search.witness, nodes=search.nodes)
        return Outcome(tree=None if search.frontier or search.stuck else search.tree(), nodes=search.nodes)

    @property
    def relaxation(self) -> Relaxation:
        """The LP relaxation over the whole region, loaded when first asked for."""
        if self._relaxation is None:
            self._relaxation = Relaxation(self.network, self.target, self.region, self._solver, self._seed)
        return self._relaxation

    def close(self) -> None:
        """Free the LP."""
        if self._relaxation is not None:
            self._relaxation.close()
            self._relaxation = None


@dataclass(frozen=True, eq=False)
class _Nodes:
    """Open nodes: their regions as a stack, number in the tree, depth, and position of the last split."""

    region: Region
    number: Indices
    depth: Indices
    since: Indices

    def take(self, rows: Indices) -> _Nodes:
        return _Nodes(self.region.take(rows), self.number[rows], self.depth[rows], self.since[rows])


class _Search:
    """One claim's tree: what is closed, what was split, what is open."""

    def __init__(self, prover: Prover, unit: int, sign: int) -> None:
        self._prover, self._unit, self._sign = prover, unit, sign
        self._network, self._target = prover.network, prover.target
        region = prover.region
        lower, upper = region.intervals[self._target]
        self._reach = max(abs(float(lower[unit])), abs(float(upper[unit])))
        self._objective = np.zeros((1, self._network.size(self._target)))
        self._objective[0, unit] = sign
        plan = prefix(self._network, self._target)
        self._position = {node.name: position for position, (node, _) in enumerate(plan)}
        self._branching = [node.name for node, relus in plan if relus]
        known = {name: region.intervals[name] for name in self._position if name in region.intervals}
        zero = np.zeros(1, dtype=np.int64)
        start = Region(region.lower, region.upper, known).take(zero)
        self.frontier = [_Nodes(start, zero, zero, zero + len(plan))]
        self.nodes = 0
        self.witness: Array | None = None
        self.stuck = False
        self._share = 0.0
        self._leaves: dict[int, Leaf] = {}
        self._splits: dict[int, tuple[str, int, int]] = {}  # node, unit, number of the 'on' child
        self._count = 1
        self._tilts: Tilts = NO_TILTS

    def step(self, budget: Budget) -> None:
        """Bound a batch of nodes, close what closes, split the rest."""
        batch = self._batch()
        self.nodes += len(batch.number)
        region, _ = descend(self._network, self._target, batch.region, batch.since)
        batch = _Nodes(region, batch.number, batch.depth, batch.since)
        empty = _empty(region)
        rows = np.flatnonzero(~empty)
        for row in np.flatnonzero(empty).tolist():
            self._close(batch, row, Leaf({}, infeasible=True))
        if len(rows) == 0:
            return
        batch = batch.take(rows)
        each = np.arange(len(rows))
        objectives = np.repeat(self._objective, len(rows), axis=0)
        bound = improved(self._network, self._target, objectives, batch.region, SLOPES, each, self._tilts)
        multipliers = [{name: y[row] for name, y in bound.multipliers.items()} for row in each.tolist()]
        left = self._close_all(batch, each, lambda row: self._leaf(batch.region, row, bound, multipliers[row]))
        if len(left):
            self._look(batch.region, bound, left)
        left = self._close_all(batch, left, lambda row: self._leaf_by_lp(batch, row, budget))
        if len(left) and self.witness is None:
            self._split(batch.take(left), bound, left)

    def tree(self) -> Tree:
        """The evidence, once nothing is open."""
        built: dict[int, Tree] = dict(self._leaves)
        for number in sorted(self._splits, reverse=True):  # children have larger numbers
            name, unit, on = self._splits[number]
            built[number] = Split(name, unit, built.pop(on), built.pop(on + 1))
        return built[0]

    def _batch(self) -> _Nodes:
        nodes = self.frontier.pop()
        while len(nodes.number) < BATCH and self.frontier:
            nodes = _joined(self.frontier.pop(), nodes)
        if len(nodes.number) > BATCH:
            count = len(nodes.number) - BATCH
            self.frontier.append(nodes.take(np.arange(count)))
            nodes = nodes.take(np.arange(count, count + BATCH))
        return nodes

    def _close(self, batch: _Nodes, row: int, leaf: Leaf) -> None:
        self._leaves[int(batch.number[row])] = leaf
        self._share += 0.5 ** int(batch.depth[row])

    def _close_all(self, batch: _Nodes, rows: Indices, leaf_of: Callable[[int], Leaf | None]) -> Indices:
        """Close the nodes that a leaf is found for; the rows of the others."""
        left = []
        for row in rows.tolist():
            leaf = None if self.witness is not None else leaf_of(row)
            if leaf is None:
                left.append(row)
            else:
                self._close(batch, row, leaf)
        return np.array(left, dtype=np.int64)

    def _leaf(self, region: Region, row: int, bound: DualBound, multipliers: Multipliers) -> Leaf | None:
        if bound.upper[row] <= 0:
            return Leaf(multipliers, self._tilts)
        if bound.upper[row] - 2 * bound.rounding[row] <= NEARLY_ZERO * self._reach:
            return self._exactly(region.one(row), multipliers, self._tilts)
        return None

    def _exactly(self, region: Region, multipliers: Multipliers, tilts: Tilts) -> Leaf | None:
        """Where rounding may be all that is missing: simple multipliers, in rational arithmetic."""
        for bits in _SNAP_BITS:
            y = {name: _snap(values, bits) for name, values in multipliers.items()}
            t = {n: Tilt(at.units, _snap(at.share, bits), _snap(at.slope, bits)) for n, at in tilts.items()}
            if bound_above_exact(self._network, self._target, self._objective[0], region, y, t) <= 0:
                return Leaf(y, t, exact=True)
        return None

    def _look(self, region: Region, bound: DualBound, rows: Indices) -> None:
        """Climb from the corners at which the nodes' bounds are attained."""
        whole = self._prover.region
        corners = np.where(bound.slope_at_input[rows] > 0, region.upper[rows], region.lower[rows])
        units, signs = np.full(len(rows), self._unit), np.full(len(rows), float(self._sign))
        box = Box(whole.lower, whole.upper)
        self._test(ascend(self._network, self._target, units, signs, corners, box, CLIMB))

    def _test(self, points: Array) -> None:
        values = self._sign * self._network.evaluate_nodes(points)[self._target][:, self._unit]
        best = int(np.argmax(values))
        if values[best] > 0 or abs(values[best]) <= NEARLY_ZERO * self._reach:
            found = signs_at(self._network, self._target, np.array([self._unit]), points[best : best + 1])
            if self._sign * found[0] > 0:
                self.witness = points[best]

    def _split(self, batch: _Nodes, bound: DualBound, rows: Indices) -> None:
        names, units = self._choose(batch.region, bound, rows)
        if (units < 0).any() or (self.nodes > TRIAL and self.nodes > LIMIT * self._share):
            self.stuck = True  # every sign is known somewhere and still no proof; or it would take too long
            return
        halves: tuple[list[Region], list[Region]] = ([], [])
        numbers = self._count + 2 * np.arange(len(units))
        self._count += 2 * len(units)
        for row, (name, unit) in enumerate(zip(names, units.tolist(), strict=True)):
            self._splits[int(batch.number[row])] = (name, unit, int(numbers[row]))
            one = batch.region.one(row)
            for half, active in zip(halves, (True, False), strict=True):
                half.append(one.split(name, unit, active=active))
        since = np.array([self._position[name] for name in names])
        on, off = (
            _Nodes(Region.joined(half), numbers + which, batch.depth + 1, since) for which, half in enumerate(halves)
        )
        self.frontier.append(_joined(on, off))

    def _choose(self, region: Region, bound: DualBound, rows: Indices) -> tuple[list[str], Indices]:
        """Per node, the unit to split on; −1 where every sign is known."""
        scores = []
        for name in self._branching:
            low, high = region.intervals[name]
            crossing = (low < 0) & (high > 0)
            price = bound.prices[name][rows]
            with np.errstate(invalid="ignore", divide="ignore"):
                height = np.where(crossing, -low * high / (high - low), 0.0)
            gap = np.where(price > 0, price * height, -price * np.minimum(-low, high) * 0.5)
            scores.append(np.where(crossing, gap + 1e-12 * height, -1.0))
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
        return [self._branching[k] for k in layer[each, pick]], units

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
            for k, name in enumerate(self._branching):
                mine = np.flatnonzero(layer[nodes, column] == k)
                intervals[name][0 if active else 1][mine, unit[nodes[mine], column[mine]]] = 0.0
            cut = Region(cut.lower, cut.upper, intervals)
            objectives = np.repeat(self._objective, len(nodes), axis=0)
            each = np.arange(len(nodes))
            halves.append(bound_linearly(self._network, self._target, objectives, cut, {}, each).upper)
        worse, better = np.maximum(*halves), np.minimum(*halves)
        gain[nodes, column] = -np.maximum(worse, 0.0) - 0.1 * np.maximum(better, 0.0)
        return gain

    def _leaf_by_lp(self, batch: _Nodes, row: int, budget: Budget) -> Leaf | None:
        """A leaf from the LP relaxation's duals, at the root with cuts; or its point is a witness."""
        region, root = batch.region.one(row), batch.number[row] == 0
        relaxation = self._prover.relaxation
        settled = all(not ((low < 0) & (high > 0)).any() for low, high in self._open_intervals(region))
        if not (root or settled or relaxation.encoding.problem.columns <= SMALL):
            return None
        for _ in range(ROUNDS if root else 1):
            answer = relaxation.maximize(self._unit, self._sign, region, min(budget.remaining, 1e6))
            leaf = self._leaf_of(answer, region)
            if leaf is not None or answer.point is None:
                return leaf
            whole = self._prover.region
            self._test(np.clip(relaxation.inputs_of(answer.point), whole.lower, whole.upper)[None])
            if root:
                self._tilts = answer.tilts
            if self.witness is not None or budget.expired or not (root and relaxation.cut_off(answer.point)):
                return None
        return None

    def _leaf_of(self, answer: RelaxedAnswer, region: Region) -> Leaf | None:
        if answer.multipliers is None:
            return None
        objective = 0.0 * self._objective if answer.infeasible else self._objective
        policy = given(answer.multipliers)
        bound = bound_above(self._network, self._target, objective, region, policy, tilts=answer.tilts)
        if answer.infeasible:
            return Leaf(answer.multipliers, answer.tilts, infeasible=True) if bound.upper[0] < 0 else None
        if bound.upper[0] <= 0:
            return Leaf(answer.multipliers, answer.tilts)
        if bound.upper[0] - 2 * bound.rounding[0] <= NEARLY_ZERO * self._reach:
            return self._exactly(region, answer.multipliers, answer.tilts)
        return None

    def _open_intervals(self, region: Region) -> list[Interval]:
        return [region.intervals[name] for name in self._branching]


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


def _snap(values: Array, bits: int) -> Array:
    mantissa, exponent = np.frexp(values)
    return np.asarray(np.ldexp(np.round(np.ldexp(mantissa, bits)), exponent - bits))
