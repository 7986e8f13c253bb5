"""Bounds narrowed until they are near the true extremes, of every unit and every output.

Of each *side*, sign·a_unit, two numbers are kept: what it is proved to be at most, and the most that it was seen to
be. Points come from samples, gradient ascent and the MILP, whose word is no proof; a bound comes from slopes, and from
the same searches that decide signs (:mod:`leo_core.search`), asked whether sign·a − t is ever positive for a threshold
t that is ``gap`` above what was seen. A side that resists is asked again with a threshold further up. What is proved of
one layer makes the bounds of the next tighter. Whatever ends the work, both numbers hold.
"""

from __future__ import annotations

from dataclasses import replace
from typing import final

import numpy as np
from numpy.typing import NDArray

from leo_core.arithmetic import round_down, round_up
from leo_core.bounds.interval import bound_affine, bound_affine_stack
from leo_core.bounds.region import Interval, Region, leak
from leo_core.bounds.slopes import improved
from leo_core.bounds.upto import upto
from leo_core.checker.environment import ieee
from leo_core.errors import EncodingError
from leo_core.execution.budget import Budget
from leo_core.execution.events import Listener, Note, Progress, silent
from leo_core.execution.executor import LOST
from leo_core.linear import Sparse
from leo_core.milp.checked import CheckedSolver
from leo_core.milp.encode import encode
from leo_core.milp.question import Question
from leo_core.milp.solver import Solver, SolverSession
from leo_core.network import Affine, Network, Relu, free_name
from leo_core.search.attack import Climb, ascend, scatter
from leo_core.search.boxes import FEW_INPUTS, split_box
from leo_core.search.prover import NODES
from leo_core.search.settle import Attempt, Settler
from leo_core.stability.bounds import by_bounds, by_sign
from leo_core.stability.verdict import LayerStability, Method, StabilityMap, State
from leo_core.stability.work import Work

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

#: Points looked at before anything else, steps of ascent, and steps of descent on slopes.
_SAMPLES, _CLIMB, _SLOPES = 500, Climb(20), 60
#: How often the sides of one node are asked; how often one of them may resist.
_ROUNDS, _RESISTS = 40, 4
#: Numbers in the points that are kept of one node, one for each side (400 MB).
_HELD = 50_000_000


@ieee()
def narrow(work: Work, stability: StabilityMap, gap: float, listener: Listener = silent) -> StabilityMap:
    """Verdicts whose bounds, where there was time enough, are at most ``gap`` (above 0) from the true extremes.

    ``stability`` is what deciding that ``work`` gave. The solver is asked for points and for LPs, and not believed; no
    MILP and no proof takes longer than one unit may.
    """
    network = stability.network
    narrowing = _Narrowing(work, stability, gap, listener)
    interrupted = stability.interrupted
    try:
        with np.errstate(all="ignore"):  # an overflow makes a bound infinite
            narrowing.run()
    except KeyboardInterrupt:
        interrupted = True
    except MemoryError:
        interrupted = True
        listener(Note("the memory was not enough; bounds that were not narrowed by then are as they were"))
    layers = {relu.name: narrowing.layer(stability.layers[relu.name], relu.source) for relu in network.relus}
    outputs = narrowing.outputs(stability.outputs)
    return replace(stability, layers=layers, outputs=outputs, interrupted=interrupted)


@final
class _Sides:
    """Both sides of every unit of one affine node: rows 2u and 2u + 1 are a_u and −a_u."""

    def __init__(self, network: Network, target: str, interval: Interval, points: Array) -> None:
        self._network, self.target = network, target
        size = network.size(target)
        self.units, self.signs = np.repeat(np.arange(size), 2), np.tile([1.0, -1.0], size)
        self.upper = np.stack([interval[1], -interval[0]], axis=1).ravel()
        self.seen = np.full(2 * size, -np.inf)
        self.at = np.zeros((2 * size, network.input_size))
        self.resisted = np.zeros(2 * size, dtype=np.int64)
        #: No threshold below this could be settled.
        self.floor = np.full(2 * size, -np.inf)
        values = self._values(points)
        best = (self.signs[:, None] * values[:, self.units].T).argmax(axis=1)
        self.look_at(np.arange(2 * size), points[best])

    def open(self, gap: float) -> Indices:
        """The sides that are not near enough, and whose bound is finite."""
        with np.errstate(invalid="ignore"):
            return np.flatnonzero((self.upper - self.seen > gap) & np.isfinite(self.upper) & np.isfinite(self.seen))

    def prove(self, rows: Indices, bounds: Array) -> None:
        """Take in proved bounds on some sides."""
        self.upper[rows] = np.fmin(self.upper[rows], bounds)

    def look_at(self, rows: Indices, points: Array) -> None:
        """Take in a point for each of some sides: the value there, rounded down, is one that occurs."""
        way = upto(self._network, self.target)
        for chunk in way.chunks(len(rows)):
            at, units, signs = points[chunk], self.units[rows[chunk]], self.signs[rows[chunk]]
            region = Region(at, at)
            for node, _ in way.steps:
                region = region.tightened(node.name, *bound_affine_stack(self._network, node, region))
            each = np.arange(len(at))
            low, high = (side[each, units] for side in region.intervals[self.target])
            value = np.where(signs > 0, low, -high)
            better = value > self.seen[rows[chunk]]
            kept = rows[chunk][better]
            self.seen[kept], self.at[kept] = value[better], at[better]

    def interval(self) -> Interval:
        """(lower, upper) of the units."""
        return -self.upper[1::2], self.upper[::2].copy()

    def extremes(self) -> Interval:
        """(least, most) that was seen of the units."""
        return -self.seen[1::2], self.seen[::2].copy()

    def above(self, rows: Indices, thresholds: Array) -> tuple[Network, str]:
        """A network whose value is sign·a − t for each of some sides, and the name of its output."""
        node = self._network.affine(self.target)
        linear = Sparse(self.signs[rows], self.units[rows], np.arange(len(rows) + 1), columns=node.size)
        name = free_name("above", {node.name for node in self._network.nodes})
        excess = Affine(name, (self.target,), (linear,), -thresholds)
        names = upto(self._network, self.target).names
        nodes = [n for n in self._network.nodes if n.name in names]
        return Network(self._network.input_size, (*nodes, excess), name), name

    def _values(self, points: Array) -> Array:
        way = upto(self._network, self.target)
        parts = [
            self._network.evaluate_nodes(points[part], only=way.names)[self.target] for part in way.chunks(len(points))
        ]
        return np.asarray(np.nan_to_num(np.vstack(parts), nan=-np.inf))


@final
class _Narrowing:
    """All affine nodes whose bounds are asked for, and what is proved so far (``region``)."""

    def __init__(self, work: Work, stability: StabilityMap, gap: float, listener: Listener) -> None:
        self._network, self._box, self._solver, self._budget = work.network, work.box, work.solver, work.budget
        self._seconds, self._seed, self._pool = min(work.limits.unit_seconds, 1e9), work.seed, work.executor
        self._gap, self._listener = gap, listener
        self._known = {relu.source: stability.layers[relu.name] for relu in self._network.relus}
        last = self._network[self._network.output]
        if isinstance(last, Affine):
            self._known.setdefault(last.name, stability.outputs)
        self._halve = int(np.count_nonzero(self._box.lower < self._box.upper)) <= FEW_INPUTS
        self.sides: dict[str, _Sides] = {}
        self._told: set[str] = set()

    def run(self) -> None:
        """Twice through the nodes: what is cheap first, so that time is left where it is needed."""
        names = [node.name for node in self._network.nodes if node.name in self._known]
        points = scatter(self._box, _SAMPLES, self._seed)
        for thorough in (False, True):
            region = Region.of(self._box)
            for node in self._network.nodes:
                if not isinstance(node, Affine):
                    continue
                region = region.tightened(node.name, *bound_affine(self._network, node, region))
                if node.name not in self._known:
                    continue
                known = self._known[node.name]
                region = region.tightened(node.name, known.lower, known.upper)
                if node.name not in self.sides and not self._budget.expired and self._fits(node):
                    self.sides[node.name] = _Sides(self._network, node.name, region.intervals[node.name], points)
                if node.name in self.sides:
                    sides = self.sides[node.name]
                    self._take(sides, region)
                    self._tell(names, node.name)
                    if not self._budget.expired:
                        self._glance(sides, region)
                    if thorough and not self._budget.expired:
                        left = len(names) - names.index(node.name)
                        share = self._budget
                        if np.isfinite(share.remaining):  # later nodes get theirs
                            share = share.at_most(share.remaining / left)
                        self._dig(sides, region, share)
                    region = region.tightened(node.name, *sides.interval())
        self._tell(names, names[-1])

    def layer(self, known: LayerStability, name: str) -> LayerStability:
        """The units of an affine node, with what was proved and seen of them."""
        if name not in self.sides:
            return known
        sides = self.sides[name]
        (lower, upper), (least, most) = sides.interval(), sides.extremes()
        lower, upper = np.fmax(lower, known.lower), np.fmin(upper, known.upper)
        undecided = known.state == State.UNDECIDED
        found = by_sign(lower, upper, most > 0, least < 0)
        state = np.where(undecided, found, known.state).astype(np.int8)
        method = np.where(undecided, _found(found), known.method).astype(np.int8)
        new = np.flatnonzero(undecided & (found == State.UNSTABLE)).tolist()
        witnesses = {unit: np.stack([sides.at[2 * unit + 1], sides.at[2 * unit]]) for unit in new}
        return replace(known, state=state, method=method, lower=lower, upper=upper, least=least, most=most,
                       witnesses={**known.witnesses, **witnesses})  # fmt: skip

    def outputs(self, known: LayerStability) -> LayerStability:
        """The network's value likewise."""
        last = self._network[self._network.output]
        if isinstance(last, Affine):
            return self.layer(known, last.name)
        return _behind(last, known, self.sides[last.source]) if last.source in self.sides else known

    def _fits(self, node: Affine) -> bool:
        fits = 2 * node.size * self._network.input_size <= _HELD
        if not fits:
            what = f"the bounds of '{node.name}' are as they were: it has too many units and inputs to be narrowed"
            if node.name not in self._told:
                self._listener(Note(what))
            self._told.add(node.name)
        return fits

    def _take(self, sides: _Sides, region: Region) -> None:
        low, high = region.intervals[sides.target]
        sides.prove(np.arange(len(sides.upper)), np.stack([high, -low], axis=1).ravel())

    def _glance(self, sides: _Sides, region: Region) -> None:
        """All sides at once: a climb, bounds with better slopes, and a climb from where they lead."""
        self._climb(sides, sides.open(self._gap), None)
        rows = sides.open(self._gap)
        for chunk in upto(self._network, sides.target).chunks(len(rows)):
            if self._budget.expired:
                return
            mine = rows[chunk]
            thresholds = round_down(sides.seen[mine] + self._gap)
            network, name = sides.above(mine, thresholds)
            found = improved(network, name, np.eye(len(mine)), region, _SLOPES, expired=lambda: self._budget.expired)
            sides.prove(mine, np.where(found.upper <= 0, thresholds, round_up(thresholds + found.upper)))
            corners = np.where(found.slope_at_input > 0, self._box.upper, self._box.lower)
            self._climb(sides, mine, corners)

    def _climb(self, sides: _Sides, rows: Indices, starts: Array | None) -> None:
        """From given points, or from the best seen; a climb ends above 0, so it climbs what is below the bound."""
        for chunk in upto(self._network, sides.target).chunks(len(rows)):
            if self._budget.expired:
                return
            mine = rows[chunk]
            network, name = sides.above(mine, np.maximum(sides.upper[mine], sides.seen[mine] + self._gap))
            begin = sides.at[mine] if starts is None else starts[chunk]
            way, each = upto(network, name), np.eye(len(mine))
            sides.look_at(mine, ascend(way, each, begin, self._box, _CLIMB, lambda: self._budget.expired))

    def _dig(self, sides: _Sides, region: Region, budget: Budget) -> None:
        """What takes longer, for the sides that are not near enough."""
        if not self._halve:
            self._peaks(
                sides, region, budget.at_most(0.5 * budget.remaining) if np.isfinite(budget.remaining) else budget
            )
        for _ in range(_ROUNDS):
            rows = sides.open(self._gap)
            rows = rows[sides.resisted[rows] < _RESISTS]
            if budget.expired or not len(rows):
                return
            low = np.maximum(sides.seen[rows] + self._gap, sides.floor[rows])
            raised = np.minimum(0.5 * low + 0.5 * sides.upper[rows], sides.upper[rows])
            thresholds = round_down(np.where(sides.resisted[rows] > 0, raised, low))
            self._ask(sides, rows, thresholds, region, budget)

    def _ask(self, sides: _Sides, rows: Indices, thresholds: Array, region: Region, budget: Budget) -> None:
        """Whether some sides are ever above a threshold; a side of which that is not settled has resisted."""
        network, name = sides.above(rows, thresholds)
        known = region.tightened(name, *bound_affine(network, network.affine(name), region))
        left = set(range(len(rows)))

        def refute(row: int, point: Array) -> None:
            left.discard(row)
            sides.look_at(rows[[row]], point[None])
            self._climb(sides, rows[[row]], None)

        if self._halve:
            share = budget.at_most(0.5 * budget.remaining) if np.isfinite(budget.remaining) else budget
            for cut in split_box(
                network, name, [(row, 1) for row in sorted(left)], known, self._box, share, self._pool
            ):
                for row, _ in cut.proved:
                    left.discard(row)
                    sides.prove(rows[[row]], thresholds[[row]])
                for (row, _), point in cut.refuted.items():
                    refute(row, point)
        waiting = sorted(left, reverse=True)

        def draw() -> Attempt | None:
            return Attempt(waiting.pop(), 1, NODES, False, self._seconds) if waiting else None

        setup = (network, name, known, self._solver.solver, "proved", self._seed)
        for attempt, finding in self._pool.map(Settler, setup, draw, budget):
            if finding is LOST:
                continue
            for note in finding.notes:
                self._listener(Note(note))
            if finding.tree is not None:
                left.discard(attempt.unit)
                sides.prove(rows[[attempt.unit]], thresholds[[attempt.unit]])
            elif finding.witness is not None:
                refute(attempt.unit, finding.witness)
        for row in left:
            sides.resisted[rows[row]] += 1
            sides.floor[rows[row]] = max(sides.floor[rows[row]], thresholds[row])

    def _peaks(self, sides: _Sides, region: Region, budget: Budget) -> None:
        """Where the MILP says that sides are largest: points to begin with."""
        waiting = sides.open(self._gap).tolist()[::-1]
        count = len(waiting)

        def draw() -> tuple[int, int, float] | None:
            if not waiting:
                return None
            row = waiting.pop()
            share = budget.remaining / (len(waiting) + 1) * min(4, count)  # most take less than their share
            return row, int(sides.signs[row]), min(self._seconds, share)

        setup = (self._network, sides.target, region, self._solver.solver, self._seed)
        for (row, _, _), point in self._pool.map(_Peak, setup, draw, budget):
            if point is not LOST and point is not None:
                sides.look_at(np.array([row]), self._box.clip(point)[None])

    def _tell(self, names: list[str], at: str) -> None:
        near = sum(len(sides.upper) - len(sides.open(self._gap)) for sides in self.sides.values())
        total = sum(2 * self._network.size(name) for name in names)
        self._listener(Progress(at, names.index(at) + 1, len(names), near // 2, total // 2))


class _Peak:
    """Asks the MILP where sign·a is largest: what workers do."""

    def __init__(self, network: Network, target: str, region: Region, solver: Solver, seed: int) -> None:
        self._network, self._target, self._region, self._seed = network, target, region, seed
        self._solver = CheckedSolver(solver, lambda _: None)
        self._session: SolverSession | None = None

    def __call__(self, asked: tuple[int, int, float], budget: Budget) -> Array | None:
        row, sign, seconds = asked
        try:
            if self._session is None:
                self._encoding = encode(self._network, self._target, self._region)
                self._session = self._solver.load(self._encoding.problem, seed=self._seed)
        except EncodingError:
            return None
        objective, _, _ = self._encoding.objective(row // 2, sign)
        answer = self._session.maximize(Question(objective, time_limit=min(seconds, budget.remaining, 1e9)))
        return None if answer.point is None else self._encoding.inputs_of(answer.point)

    def close(self) -> None:
        """Free the solver's session."""
        if self._session is not None:
            self._session.close()
            self._session = None


def _behind(relu: Relu, known: LayerStability, before: _Sides) -> LayerStability:
    """What a ReLU makes of the values before it, beside what is known of those behind it."""
    (lower, upper), (least, most) = before.interval(), before.extremes()
    lower = np.fmax(leak(lower, relu.slope, upwards=False), known.lower)
    upper = np.fmin(leak(upper, relu.slope, upwards=True), known.upper)
    least, most = leak(least, relu.slope, upwards=True), leak(most, relu.slope, upwards=False)
    state = by_sign(lower, upper, most > 0, least < 0)
    return replace(known, state=state, method=_found(state), lower=lower, upper=upper, least=least, most=most)


def _found(state: NDArray[np.int8]) -> NDArray[np.int8]:
    """What states that narrowing found rest on."""
    method = by_bounds(state)
    return np.where(method == Method.BOUND, Method.TREE, method).astype(np.int8)
