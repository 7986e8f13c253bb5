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

from leo_core.bounds.crown import backward_interval
from leo_core.bounds.interval import bound_affine
from leo_core.bounds.region import Region
from leo_core.errors import EncodingError
from leo_core.execution.budget import Budget
from leo_core.network import Affine
from leo_core.search.oracle import Oracle
from leo_core.search.prover import Prover
from leo_core.stability.recall import Recall
from leo_core.stability.tally import Tally
from leo_core.stability.work import Work

Array = NDArray[np.float64]


def decide_by_milp(work: Work, tally: Tally) -> None:
    """Decide every ReLU of a network, recording verdicts and bounds in ``tally`` as they are found."""
    network = work.network
    proved, claimed = Region.of(work.box), Region.of(work.box)
    for node in network.nodes:
        if not isinstance(node, Affine):
            continue
        claimed = claimed.tightened(node.name, *bound_affine(network, node, claimed))
        proved = proved.tightened(node.name, *bound_affine(network, node, proved))
        if not tally.follows(node.name):
            continue
        tally.begin(node.name, *proved.intervals[node.name])
        layer = _Layer(work, node.name, claimed, proved)
        try:
            layer.decide(tally)
        except EncodingError as error:
            tally.note(str(error))
        finally:
            layer.close()
        claimed = tally.settled(node.name, claimed.tightened(node.name, layer.claimed_lower, layer.claimed_upper))
        proved = tally.settled(node.name, layer.proved)


class _Layer:
    """The MILP, and the prover when it is needed, of one affine node."""

    def __init__(self, work: Work, target: str, claimed: Region, proved: Region) -> None:
        self._work, self._target = work, target
        self.proved = proved
        lower, upper = claimed.intervals[target]
        self.claimed_lower, self.claimed_upper = lower.copy(), upper.copy()
        self._claimed = claimed
        self._oracle = Oracle(work.network, target, claimed, work.solver, work.seed)
        self._prover: Prover | None = None

    def decide(self, tally: Tally) -> None:
        """Decide each unit whose sign the intervals leave open; one that may be inactive is not asked further."""
        recall = Recall(self._work, self._target, tally.note)
        units = dict.fromkeys(unit for unit, _ in tally.open_claims(self._target))
        for unit in units:
            budget = self._work.budget.at_most(self._work.limits.unit_seconds)
            for sign in (1, -1):
                if self._work.budget.expired:
                    return
                witness = self._witness_against(unit, sign, tally, recall, budget)
                if witness is None:
                    break
                tally.refute(self._target, unit, sign, witness)

    def _witness_against(self, unit: int, sign: int, tally: Tally, recall: Recall, budget: Budget) -> Array | None:
        """An input at which sign·a is positive; without one, the claim is recorded if it is shown."""
        hint = recall.ask(self._oracle, self._claimed, (unit, sign), budget)
        if hint.bound is not None:
            self._learn(unit, sign, hint.bound)
        if hint.witness is not None:
            return hint.witness
        if self._work.trust == "solver":
            if hint.claimed:
                tally.trust(self._target, unit, sign)
            return None
        if self._prover is None:
            self._tighten()
            self._prover = Prover(self._work.network, self._target, self.proved, self._work.solver, self._work.seed)
        outcome = recall.never_positive(self._prover, self.proved, (unit, sign), budget)
        if outcome.tree is not None:
            tally.prove(self._target, outcome.tree)
        return outcome.witness

    def _learn(self, unit: int, sign: int, bound: float) -> None:
        if sign > 0:
            self.claimed_upper[unit] = min(self.claimed_upper[unit], max(bound, self.claimed_lower[unit]))
        else:
            self.claimed_lower[unit] = max(self.claimed_lower[unit], min(-bound, self.claimed_upper[unit]))

    def close(self) -> None:
        """Free the solver's session and the prover's LP."""
        self._oracle.close()
        if self._prover is not None:
            self._prover.close()

    def _tighten(self) -> None:
        """Backward bounds for the prover's own region, of this node and those before it: proved, so free to use."""
        interval = backward_interval(self._work.network, self._target, self.proved)
        self.proved = self.proved.tightened(self._target, *interval)
