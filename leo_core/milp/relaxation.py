"""The LP relaxation of an encoding, asked for many units and many splits, restarted from its last basis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from leo_core.milp.encode import Encoding
from leo_core.milp.linprog import LinprogSolver
from leo_core.milp.result import Stop
from leo_core.milp.solver import Capability, Solver

Array = NDArray[np.float64]
Phases = Mapping[tuple[str, int], bool]


@final
@dataclass(frozen=True, eq=False)
class RelaxedAnswer:
    """A hint: nothing in it is proved.

    Attributes
    ----------
    infeasible:
        The solver found no point; ``multipliers`` then price the empty objective.
    multipliers:
        y by affine node for :mod:`leo_core.bounds.dual`, or None.
    inputs:
        The input part of the optimal point, or None.
    gaps:
        |p − max(a, 0)| at that point, for the open units of each node.
    """

    infeasible: bool
    multipliers: dict[str, Array] | None
    inputs: Array | None
    gaps: dict[str, Array]


class Relaxation:
    """One loaded LP. ``close`` frees it."""

    def __init__(self, encoding: Encoding, solver: Solver, seed: int = 0) -> None:
        able = solver if Capability.ROW_DUALS in solver.capabilities else LinprogSolver()
        self.encoding = encoding
        self._session = able.load(encoding.problem.relaxed(), seed=seed)

    def maximize(self, unit: int, sign: int, phases: Phases, time_limit: float | None) -> RelaxedAnswer:
        """The relaxed maximum of sign·a_unit with the given units' phases fixed."""
        objective, factor, _ = self.encoding.objective(unit, sign)
        lower, upper = self.encoding.phase_bounds(phases)
        answer = self._session.maximize(objective, time_limit=time_limit, lower=lower, upper=upper)
        infeasible = answer.stop is Stop.INFEASIBLE
        multipliers = None
        if answer.row_duals is not None:
            multipliers = self.encoding.multipliers(answer.row_duals, factor)
        if answer.point is None:
            return RelaxedAnswer(infeasible, multipliers, None, {})
        return RelaxedAnswer(
            False, multipliers, self.encoding.inputs_of(answer.point), self.encoding.gaps(answer.point)
        )

    def close(self) -> None:
        """Free the LP."""
        self._session.close()
