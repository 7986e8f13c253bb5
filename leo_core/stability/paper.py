"""LEO as published: layer by layer, two MILPs per unit, each stopped as soon as the sign is known.

Serra, Kumar, Ramalingam, "Lossless Compression of Deep Neural Networks", CPAIOR 2020, section 4. The
MILPs use intervals for the first big-M, bounds found earlier for later ones, and known stable units. The
one departure: under ``trust="proved"`` a solver's 'stable' is re-proved by :class:`~.prover.Prover`, and
every 'unstable' rests on inputs evaluated exactly.

Two regions are kept apart: what is *proved*, and what solvers have *claimed*. A false claim can only
mislead later MILPs, and the proof disposes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from leo_core.bounds.dual import backward_interval
from leo_core.bounds.interval import bound_affine
from leo_core.bounds.region import Region
from leo_core.domain import Box
from leo_core.execution.budget import Budget
from leo_core.milp.encode import Encoding, encode
from leo_core.milp.solver import Solver, SolverSession
from leo_core.network import Affine, Network
from leo_core.stability.prover import Prover
from leo_core.stability.tally import Tally
from leo_core.stability.verdict import Method
from leo_core.stability.witness import sign_at

Array = NDArray[np.float64]

#: What a solver's bound may exceed zero by, scaled, and still be read as 'not positive' (trust="solver" only).
CLAIM_TOLERANCE = 1e-6
#: Values, scaled, that a point must exceed before a solve stops; larger ones when it was no real witness.
_MARGINS = (0.0, 1e-6, 1e-3)


def decide_by_milp(
    network: Network, box: Box, solver: Solver, trust: str, budget: Budget, tally: Tally, seed: int
) -> None:
    """Decide every ReLU of a network, recording verdicts and bounds in ``tally`` as they are found."""
    proved, claimed = Region(box), Region(box)
    for node in network.nodes:
        if not isinstance(node, Affine):
            continue
        claimed = claimed.tightened(node.name, *bound_affine(network, node, claimed))
        proved = proved.tightened(node.name, *bound_affine(network, node, proved))
        if not tally.follows(node.name):
            continue
        tally.begin(node.name, *proved.intervals[node.name])
        layer = _LayerOracle(network, node.name, claimed, proved, solver, seed, trust == "proved", budget)
        try:
            layer.decide(tally)
        finally:
            layer.close()
        claimed = tally.settled(node.name, claimed.tightened(node.name, layer.claimed_lower, layer.claimed_upper))
        proved = tally.settled(node.name, layer.proved)


class _LayerOracle:
    """The MILP, and the prover when it is needed, of one affine node."""

    def __init__(
        self,
        network: Network,
        target: str,
        claimed: Region,
        proved: Region,
        solver: Solver,
        seed: int,
        prove: bool,
        budget: Budget,
    ) -> None:
        self._network, self._target, self._box = network, target, claimed.box
        self.proved = proved
        self._claimed, self._solver, self._seed = claimed, solver, seed
        self._prove, self._budget = prove, budget
        lower, upper = claimed.intervals[target]
        self.claimed_lower, self.claimed_upper = lower.copy(), upper.copy()
        self._encoding: Encoding | None = None
        self._session: SolverSession | None = None
        self._prover: Prover | None = None

    def decide(self, tally: Tally) -> None:
        """Decide each unit whose sign the intervals leave open."""
        for unit in tally.open_units(self._target):
            if self._budget.expired:
                return
            negative = positive = None
            method, positive = self._never(unit, +1, tally)
            if method is not Method.NONE:
                tally.stable(self._target, unit, active=False, method=method)
                continue
            if positive is None or self._budget.expired:
                continue
            method, negative = self._never(unit, -1, tally)
            if method is not Method.NONE:
                tally.stable(self._target, unit, active=True, method=method)
            elif negative is not None:
                tally.unstable(self._target, unit, negative, positive)

    def close(self) -> None:
        """Free the solver's session and the prover's LP."""
        for open_thing in (self._session, self._prover):
            if open_thing is not None:
                open_thing.close()

    def _never(self, unit: int, sign: int, tally: Tally) -> tuple[Method, Array | None]:
        """(what shows that sign·a is never positive, None), (NONE, a witness), or (NONE, None)."""
        claim, witness = self._ask(unit, sign)
        if witness is not None:
            return Method.NONE, witness
        if not self._prove:
            return (Method.SOLVER if claim else Method.NONE), None
        if self._prover is None:
            self._tighten()
            self._prover = Prover(self._network, self._target, self.proved, self._solver, self._seed)
        outcome = self._prover.never_positive(unit, sign, self._budget)
        if outcome.tree is not None:
            tally.prove(self._target, unit, outcome.tree)
            return Method.TREE, None
        return Method.NONE, outcome.witness

    def _ask(self, unit: int, sign: int) -> tuple[bool, Array | None]:
        """What the MILP says: (whether it claims that sign·a is never positive, a real witness or None)."""
        if self._encoding is None or self._session is None:
            self._encoding = encode(self._network, self._target, self._claimed)
            self._session = self._solver.load(self._encoding.problem, seed=self._seed)
        objective, factor, offset = self._encoding.objective(unit, sign)
        zero = -offset * factor
        for margin in _MARGINS:
            if self._budget.expired:
                break
            answer = self._session.maximize(
                objective, stop_above=zero + margin, stop_below=zero, time_limit=min(self._budget.remaining, 1e9)
            )
            if answer.dual_bound is not None:
                self._learn(unit, sign, answer.dual_bound / factor + offset)
            if answer.point is None:
                return answer.dual_bound is not None and answer.dual_bound <= zero + CLAIM_TOLERANCE, None
            point = self._box.clip(self._encoding.inputs_of(answer.point))
            if sign * sign_at(self._network, self._target, unit, point) > 0:
                return False, point
            if answer.dual_bound is not None and answer.dual_bound <= zero + CLAIM_TOLERANCE:
                return True, None
        return False, None

    def _learn(self, unit: int, sign: int, bound: float) -> None:
        if sign > 0:
            self.claimed_upper[unit] = min(self.claimed_upper[unit], max(bound, self.claimed_lower[unit]))
        else:
            self.claimed_lower[unit] = max(self.claimed_lower[unit], min(-bound, self.claimed_upper[unit]))

    def _tighten(self) -> None:
        """Backward bounds for the prover's own region, of this node and those before it: proved, so free to use."""
        interval = backward_interval(self._network, self._target, self.proved)
        self.proved = self.proved.tightened(self._target, *interval)
