"""A solver too simple to be wrong: every assignment of the integer columns, one LP each. For tiny programs."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from leo_core.milp.problem import MilpProblem
from leo_core.milp.question import Question
from leo_core.milp.result import SolverResult, Stop
from leo_core.milp.solver import Capability, Solver, SolverSession

Array = NDArray[np.float64]


class ReferenceSolver:
    """Enumerates; takes any objective and bounds, and stops for nothing but the end."""

    name = "reference"
    capabilities = frozenset({Capability.OBJECTIVE_CHANGE, Capability.BOUND_CHANGE})

    def load(self, problem: MilpProblem, *, seed: int = 0) -> SolverSession:  # noqa: ARG002 - nothing is random
        return ReferenceSession(problem)


class ReferenceSession:
    """See :class:`leo_core.milp.solver.SolverSession`."""

    def __init__(self, problem: MilpProblem) -> None:
        self._problem = problem

    def maximize(self, question: Question) -> SolverResult:
        """See :class:`leo_core.milp.solver.SolverSession`; for tiny programs, so it minds no time limit."""
        problem = self._problem
        low, high = question.column_bounds(problem)
        whole = np.flatnonzero(problem.integer)
        ranges = [range(int(np.ceil(low[j])), int(np.floor(high[j])) + 1) for j in whole]
        best: tuple[float, Array] | None = None
        for values in product(*ranges):
            fixed_low, fixed_high = low.copy(), high.copy()
            fixed_low[whole] = fixed_high[whole] = values
            try:
                found = _linear(problem, question.objective, fixed_low, fixed_high)
            except OverflowError:
                return SolverResult(Stop.UNBOUNDED)
            if found is not None and (best is None or found[0] > best[0]):
                best = found
        if best is None:
            return SolverResult(Stop.INFEASIBLE)
        return SolverResult(Stop.OPTIMAL, point=best[1], dual_bound=best[0])

    def close(self) -> None:
        """Nothing to free."""


def _linear(problem: MilpProblem, objective: Array, low: Array, high: Array) -> tuple[float, Array] | None:
    """The maximum and its point, None where nothing is feasible, OverflowError where nothing is largest."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    rows = [LinearConstraint(problem.matrix, problem.row_lower, problem.row_upper)] if problem.rows else []
    answer = milp(-objective, bounds=Bounds(low, high), constraints=rows)
    if answer.status == 3:
        raise OverflowError
    return (-float(answer.fun), np.asarray(answer.x)) if answer.status == 0 else None


if TYPE_CHECKING:  # nothing else in the packages holds it to the protocol
    _: Solver = ReferenceSolver()
