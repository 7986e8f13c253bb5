"""ISA as published: one MILP over the whole network, solved again and again for states not seen yet.

Serra, Yu, Kumar, Ramalingam, "Scaling Up Exact Neural Network Compression by ReLU Stability", NeurIPS 2021.
A unit has two states, on (a > 0) and off (a < 0). One input shows a state of nearly every unit at once, so a
sample shows most states, and the MILP is asked only for an input that shows others. When its bound says that
none does, the states left are claimed impossible, all at once.

In the encoding, z = 1 says that a unit of unknown sign is on. The paper has columns p ≤ z and q ≤ 1 − z for the
states not seen yet, and maximises their sum. At an optimum p = z and q = 1 − z, so the sum is

    Σ (on not seen) z  +  Σ (off not seen) (1 − z),

coefficients of +1 and −1 on z and a constant; where neither state of a unit is seen, the constant 1 whatever z
is. So no columns or rows are added. The first solution leaves each unit one state at most, each further one
takes at least one away: units + 1 solutions are enough. The paper takes each out by a lazy constraint as it comes;
so do we where the solver takes lazy rows, and otherwise change the objective and solve again, each time up to the
first solution that promises a state. As a lazy row, "some state not seen yet is shown" is

    Σ (on not seen) z  +  Σ (off not seen) (1 − z)  ≥  1.

What a solution's z promise is seen only if the real network, evaluated exactly, shows it at the solution's input
or a few steps of ascent from there; a is often just zero at the input itself. A state promised and not seen
is doubtful: neither asked for again nor claimed. Under ``trust="proved"`` whatever is open in the end goes
to :class:`~.prover.Prover`, what was claimed first.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from leo_core.bounds.crown import backward_interval
from leo_core.bounds.interval import bound_affine, bound_network
from leo_core.bounds.region import Region
from leo_core.bounds.upto import SignedUnits, upto
from leo_core.domain import Box
from leo_core.errors import EncodingError
from leo_core.execution.budget import Budget
from leo_core.linear import Sparse
from leo_core.milp.encode import Encoding, encode
from leo_core.milp.question import LazyRow, Question
from leo_core.milp.result import Stop
from leo_core.milp.solver import Capability, SolverSession
from leo_core.network import Affine, Network
from leo_core.search.attack import Climb, ascend, scatter
from leo_core.search.prover import Prover
from leo_core.search.witness import signs_at
from leo_core.stability.recall import Recall
from leo_core.stability.tally import Tally
from leo_core.stability.work import Work

Array = NDArray[np.float64]
#: A state, (affine node, unit, sign): on (+1) or off (−1). That no input shows it is the tally's claim (unit, sign).
UnitState: TypeAlias = tuple[str, int, int]
#: The column of the z that says whether a state is shown.
Columns: TypeAlias = dict[UnitState, int]

#: Points at random, and as many corners, looked at before the MILP.
SAMPLES = 500
#: Steps of gradient ascent from a solution, for each state it promises.
CLIMB = Climb(20)


def decide_by_one_milp(work: Work, tally: Tally) -> None:
    """Decide every ReLU of a network, recording verdicts and bounds in ``tally`` as they are found."""
    try:
        claimed = _Search(work, tally).run()
    except EncodingError as error:
        tally.note(str(error))
        claimed = frozenset()
    if work.trust == "proved":
        _prove(work, claimed, tally)
        return
    for name, unit, sign in sorted(claimed):
        if (unit, sign) in tally.open_claims(name):
            tally.trust(name, unit, sign)


class _Search:
    """Looks for inputs that show states not seen yet; each such state is recorded with its witness."""

    def __init__(self, work: Work, tally: Tally) -> None:
        self._work, self._network, self._box, self._tally = work, work.network, work.box, tally
        self._names = list(dict.fromkeys(relu.source for relu in work.network.relus))
        self._recall = {name: Recall(work, name, tally.note) for name in self._names}

    def run(self) -> frozenset[UnitState]:
        """The states that, so the solver claims, no input shows."""
        solver, budget, seed = self._work.solver, self._work.budget, self._work.seed
        if budget.expired:
            return frozenset()
        self._look(scatter(self._box, SAMPLES, seed))
        for name, unit, sign in self._unseen():
            if (point := self._recall[name].witness((unit, sign))) is not None:
                self._tally.refute(name, unit, sign, point)
        wanted = self._unseen()
        if not wanted:
            return frozenset()
        if (known := self._claimed_before()) is not None:
            return known & wanted
        encoding = _encode_all(self._network, self._box)
        column = {state: _z_column(encoding, *state[:2]) for state in wanted}
        one_solve = Capability.LAZY_ROWS in solver.capabilities
        if not one_solve:
            self._tally.note(f"the solver '{solver.name}' takes no lazy rows: isa solves again for every solution")
        session = solver.load(encoding.problem, seed=seed)
        try:
            search = self._in_one_solve if one_solve else self._again_and_again
            claimed = search(session, encoding, column, wanted, budget)
        finally:
            session.close()
        if claimed:
            self._work.checkpoint.put("claimed", value=sorted(claimed))
        return claimed

    def _claimed_before(self) -> frozenset[UnitState] | None:
        """What the solver claimed in an earlier run; it is a solver's word now as it was then."""
        try:
            kept = self._work.checkpoint.get("claimed")
            return None if kept is None else frozenset((name, unit, sign) for name, unit, sign in kept[0])
        except Exception:  # whoever edits the file can make reading raise anything
            return None

    def _again_and_again(
        self, session: SolverSession, encoding: Encoding, column: Columns, wanted: frozenset[UnitState], budget: Budget
    ) -> frozenset[UnitState]:
        """One solve per solution, each of which asks for some state that is still wanted."""
        while wanted and not budget.expired:
            objective = _shown(encoding, column, wanted)
            half = 0.5 - sum(sign < 0 for _, _, sign in wanted)
            limit = min(budget.remaining, 1e9)
            answer = session.maximize(Question(objective, stop_above=half, stop_below=half, time_limit=limit))
            left = wanted if answer.point is None else self._left(encoding, column, wanted, answer.point)
            if answer.dual_bound is not None and answer.dual_bound < half:
                return left
            if left == wanted:
                break
            wanted = left
        return frozenset()

    def _in_one_solve(
        self, session: SolverSession, encoding: Encoding, column: Columns, wanted: frozenset[UnitState], budget: Budget
    ) -> frozenset[UnitState]:
        """One solve, in which each solution is taken out by a row that asks for some state that is still wanted."""
        left, solutions = wanted, 0

        def exclude(point: Array) -> LazyRow:
            nonlocal left, solutions
            solutions += 1
            left = self._left(encoding, column, left, point)
            return LazyRow(_shown(encoding, column, left), 1.0 - sum(sign < 0 for _, _, sign in left))

        limit = min(budget.remaining, 1e9)
        answer = session.maximize(Question(_shown(encoding, column, wanted), time_limit=limit, lazy=exclude))
        # Any input is a solution: a solver that has met none and says 'infeasible' is wrong.
        return left if answer.stop is Stop.INFEASIBLE and solutions else frozenset()

    def _left(
        self, encoding: Encoding, column: Columns, wanted: frozenset[UnitState], point: Array
    ) -> frozenset[UnitState]:
        """What is wanted, less what a solution promises, after a look at what the network shows there."""
        on = point > 0.5
        promised = {state for state in wanted if on[column[state]] == (state[2] > 0)}
        inputs = np.clip(encoding.inputs_of(point), self._box.lower, self._box.upper)
        for name, unit, sign, point in self._look(self._climbed(inputs, promised)):
            self._recall[name].keep((unit, sign), None, point)
        return (wanted & self._unseen()) - promised

    def _unseen(self) -> frozenset[UnitState]:
        """The states of undecided units that no input has shown."""
        return frozenset((name, unit, sign) for name in self._names for unit, sign in self._tally.open_claims(name))

    def _look(self, points: Array) -> list[tuple[str, int, int, Array]]:
        """Record, and return, the states not seen yet that the network shows beyond doubt, each with its point."""
        shown = []
        values = self._network.evaluate_nodes(points)
        for name in self._names:
            asked = SignedUnits.of(self._tally.open_claims(name))
            units, signs = asked.units, asked.signs
            reached = values[name][:, units] * signs
            best = reached.argmax(axis=0)
            likely = np.flatnonzero(reached.max(axis=0) > 0)
            for chunk in upto(self._network, name).chunks(len(likely)):
                rows = likely[chunk]
                found = signs_at(self._network, name, units[rows], points[best[rows]], expired=self._expired)
                for row in rows[found == signs[rows]].tolist():
                    shown.append((name, int(units[row]), int(signs[row]), points[best[row]]))
        for name, unit, sign, point in shown:
            self._tally.refute(name, unit, sign, point)
        return shown

    def _expired(self) -> bool:
        return self._work.budget.expired

    def _climbed(self, point: Array, promised: set[UnitState]) -> Array:
        """A point, and for each state it promises one climbed from there."""
        points = [point[None]]
        for name in self._names:
            way, mine = upto(self._network, name), [(unit, sign) for at, unit, sign in sorted(promised) if at == name]
            starts = np.repeat(point[None], len(mine), axis=0)
            points.append(ascend(way, way.signed(SignedUnits.of(mine)), starts, self._box, CLIMB, self._expired))
        return np.vstack(points)


def _prove(work: Work, claimed: frozenset[UnitState], tally: Tally) -> None:
    """Prove or refute what is open, layer by layer: what one layer proves makes the bounds of the next tighter."""
    network, budget = work.network, work.budget
    region = Region.of(work.box)
    for node in network.nodes:
        if not isinstance(node, Affine):
            continue
        name = node.name
        region = region.tightened(name, *bound_affine(network, node, region))
        if not tally.follows(name):
            continue
        tally.begin(name, *region.intervals[name])
        if tally.open_claims(name) and not budget.expired:
            region = region.tightened(name, *backward_interval(network, name, region))
            tally.bound(name, *region.intervals[name])
        prover = Prover(network, name, region, work.solver, work.seed)
        recall = Recall(work, name, tally.note)
        try:
            for unit, sign in sorted(tally.open_claims(name), key=lambda claim: (name, *claim) not in claimed):
                if budget.expired:
                    break
                if (unit, sign) not in tally.open_claims(name):  # the unit's other claim has settled it
                    continue
                try:
                    own = budget.at_most(work.limits.unit_seconds)
                    outcome = recall.never_positive(prover, region, (unit, sign), own)
                except EncodingError as error:
                    tally.note(str(error))
                    break
                if outcome.tree is not None:
                    tally.prove(name, outcome.tree)
                elif outcome.witness is not None:
                    tally.refute(name, unit, sign, outcome.witness)
        finally:
            prover.close()
        region = tally.settled(name, region)


def _encode_all(network: Network, box: Box) -> Encoding:
    """The MILP of all layers: of everything up to a node that reads every ReLU, and makes nothing of it."""
    name = "all " + max((node.name for node in network.nodes), key=len)  # longer, hence unlike any other
    relus = network.relus
    node = Affine(name, tuple(r.name for r in relus), tuple(Sparse.zero(1, r.size) for r in relus), np.zeros(1))
    extended = Network(network.input_size, (*network.nodes, node), name)
    return encode(extended, name, bound_network(network, box))


def _shown(encoding: Encoding, column: Columns, states: frozenset[UnitState]) -> Array:
    """Coefficients of the columns that count how many of some states are shown, but for a constant."""
    coefficients = np.zeros(encoding.problem.columns)
    for state in states:
        coefficients[column[state]] += state[2]
    return coefficients


def _z_column(encoding: Encoding, name: str, unit: int) -> int:
    group = encoding.open_units[name]
    return group.z_column + int(np.searchsorted(group.units, unit))
