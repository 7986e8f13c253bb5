"""Continuous programs by ``scipy.optimize.linprog``: what a solver without row duals is complemented by."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from leo_core.milp.problem import MilpProblem
from leo_core.milp.question import Question
from leo_core.milp.result import SolverResult, Stop
from leo_core.milp.solver import Capability, SolverSession

Array = NDArray[np.float64]


class LinprogSolver:
    """Solves programs without integers, cold every time, with row duals and certificates of infeasibility."""

    name = "linprog"
    capabilities = frozenset({Capability.ROW_DUALS, Capability.OBJECTIVE_CHANGE, Capability.BOUND_CHANGE})

    def load(self, problem: MilpProblem, *, seed: int = 0) -> SolverSession:  # noqa: ARG002 - nothing random here
        if problem.integer.any():
            raise ValueError("linprog solves continuous programs only")
        return LinprogSession(problem)


class LinprogSession:
    """Every two-sided row becomes one or two one-sided ones; their duals are put together again."""

    def __init__(self, problem: MilpProblem) -> None:
        self._problem = problem
        self._above = np.flatnonzero(np.isfinite(problem.row_upper))
        self._below = np.flatnonzero(np.isfinite(problem.row_lower))
        self._matrix = sp.csr_array(sp.vstack([problem.matrix[self._above], -problem.matrix[self._below]]))
        self._side = np.concatenate([problem.row_upper[self._above], -problem.row_lower[self._below]])

    def maximize(self, question: Question) -> SolverResult:
        """See :class:`leo_core.milp.solver.SolverSession`."""
        begun, time_limit = time.monotonic(), question.time_limit
        low, high = question.column_bounds(self._problem)
        answer = self._solve(-question.objective, self._matrix, low, high, time_limit)
        raw = str(answer.message)

        def result(stop: Stop, **numbers: Any) -> SolverResult:
            return SolverResult(stop, **numbers, seconds=time.monotonic() - begun, raw_status=raw)

        if answer.status == 2:
            return result(Stop.INFEASIBLE, row_duals=self._certificate(low, high, time_limit))
        if answer.status == 3:
            return result(Stop.UNBOUNDED)
        if answer.status == 1:
            return result(Stop.TIME_LIMIT)
        if answer.status != 0:
            return result(Stop.FAILED)
        value = -float(answer.fun)
        duals = self._row_duals(answer) if len(self._side) else np.zeros(self._problem.rows)
        return result(Stop.OPTIMAL, point=answer.x, dual_bound=value, row_duals=duals)

    def close(self) -> None:
        """Nothing to free."""

    def _row_duals(self, answer: Any) -> Array:
        marginals = np.asarray(answer.ineqlin.marginals)  # of the minimisation of −c: never positive
        y = np.zeros(self._problem.rows)
        y[self._above] -= marginals[: len(self._above)]
        y[self._below] += marginals[len(self._above) :]
        return y

    def _certificate(self, low: Array, high: Array, time_limit: float | None) -> Array | None:
        """Row duals of the least total violation: positive exactly when the program is infeasible."""
        rows = len(self._side)
        widened = sp.hstack([self._matrix, -sp.eye_array(rows)], format="csr")
        cost = np.concatenate([np.zeros(self._problem.columns), np.ones(rows)])
        low, high = np.concatenate([low, np.zeros(rows)]), np.concatenate([high, np.full(rows, np.inf)])
        answer = self._solve(cost, widened, low, high, time_limit)
        return self._row_duals(answer) if answer.status == 0 else None

    def _solve(self, cost: Array, matrix: Any, low: Array, high: Array, time_limit: float | None) -> Any:
        import scipy.optimize  # heavy: imported when used

        options: Any = {} if time_limit is None else {"time_limit": max(0.0, time_limit)}
        linprog: Any = scipy.optimize.linprog  # its stubs know no sparse matrices
        return linprog(
            cost,
            A_ub=matrix if len(self._side) else None,
            b_ub=self._side if len(self._side) else None,
            bounds=np.column_stack([low, high]),
            method="highs-ds",
            options=options,
        )
