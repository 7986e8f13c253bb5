"""The MILP as an oracle: what a solver says of 'this unit is never positive'. A hint, never a proof."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from leo_core.bounds.region import Region
from leo_core.execution.budget import Budget
from leo_core.milp.encode import Encoding, encode
from leo_core.milp.question import Question
from leo_core.milp.solver import Solver, SolverSession
from leo_core.network import Network
from leo_core.search.witness import sign_at

Array = NDArray[np.float64]

#: What a solver's bound may exceed zero by, scaled, and still be read as 'not positive'.
CLAIM_TOLERANCE = 1e-6
#: Values, scaled, that a point must exceed before a solve stops; larger ones when it was no real witness.
_MARGINS = (0.0, 1e-6, 1e-3)


@final
@dataclass(frozen=True, eq=False)
class Hint:
    """The solver claims it (``claimed``), or gave a real ``witness`` against it, or neither.

    ``bound`` is the solver's upper bound on sign·a, or None.
    """

    claimed: bool = False
    witness: Array | None = None
    bound: float | None = None


class Oracle:
    """The MILP of everything up to one affine node, loaded when first asked; ``close`` frees it."""

    def __init__(self, network: Network, target: str, region: Region, solver: Solver, seed: int) -> None:
        self._network, self._target, self._region = network, target, region
        self._solver, self._seed = solver, seed
        self._encoding: Encoding | None = None
        self._session: SolverSession | None = None
        self._last: Array | None = None  # a solution of this MILP, where the next solve may start

    def ask(self, unit: int, sign: int, budget: Budget) -> Hint:
        """What the solver says of 'sign·a_unit ≤ 0 on the region'."""
        if self._encoding is None or self._session is None:
            self._encoding = encode(self._network, self._target, self._region)
            self._session = self._solver.load(self._encoding.problem, seed=self._seed)
        objective, factor, offset = self._encoding.objective(unit, sign)
        zero = -offset * factor
        bound: float | None = None
        for margin in _MARGINS:
            if budget.expired:
                break
            question = Question(
                objective,
                stop_above=zero + margin,
                stop_below=zero,
                time_limit=min(budget.remaining, 1e9),
                start=self._last,
            )
            answer = self._session.maximize(question)
            self._last = self._last if answer.point is None else answer.point
            not_positive = answer.dual_bound is not None and answer.dual_bound <= zero + CLAIM_TOLERANCE
            if answer.dual_bound is not None:
                real = answer.dual_bound / factor + offset
                bound = real if bound is None else min(bound, real)
            if answer.point is None:
                return Hint(not_positive, bound=bound)
            point = np.clip(self._encoding.inputs_of(answer.point), self._region.lower, self._region.upper)
            if sign * sign_at(self._network, self._target, unit, point) > 0:
                return Hint(witness=point, bound=bound)
            if not_positive:
                return Hint(claimed=True, bound=bound)
        return Hint(bound=bound)

    def close(self) -> None:
        """Free the solver's session."""
        if self._session is not None:
            self._session.close()
            self._session = None
