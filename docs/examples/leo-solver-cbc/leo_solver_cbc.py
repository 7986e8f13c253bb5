"""COIN-OR CBC as a solver for LEO, through Python-MIP: a whole plug-in, to be read from top to bottom.

It declares that it changes objectives and bounds, and nothing else: LEO compares stops after the fact, takes LP duals
from SciPy, and never asks for what was not declared.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from leo_core.milp.problem import MilpProblem
from leo_core.milp.question import Question
from leo_core.milp.result import SolverResult, Stop
from leo_core.milp.solver import Capability
from leo_core.plugins import SolverSpec, hookimpl


@hookimpl
def leo_solver() -> SolverSpec:
    """What LEO is told. ``mip`` is not imported before ``create`` is called."""
    return SolverSpec(
        name="cbc",
        summary="COIN-OR CBC, through Python-MIP",
        create=CbcSolver,
        packages=("mip",),
    )


class CbcSolver:
    """Loads problems. Workers get a pickled copy, so it holds nothing that cannot be pickled."""

    name = "cbc"
    capabilities = frozenset({Capability.OBJECTIVE_CHANGE, Capability.BOUND_CHANGE})

    def load(self, problem: MilpProblem, *, seed: int = 0) -> CbcSession:
        return CbcSession(problem, seed)


class CbcSession:
    """One problem in one CBC model."""

    def __init__(self, problem: MilpProblem, seed: int) -> None:
        import mip

        self._problem = problem
        self._model = mip.Model(sense=mip.MAXIMIZE, solver_name=mip.CBC)
        self._model.verbose = 0
        self._model.threads = 1
        self._model.seed = seed
        self._model.max_mip_gap = self._model.max_mip_gap_abs = 0.0
        self._model.infeas_tol = self._model.opt_tol = 1e-9
        self._columns = [
            self._model.add_var(lb=low, ub=high, var_type=mip.INTEGER if whole else mip.CONTINUOUS)
            for low, high, whole in zip(problem.lower, problem.upper, problem.integer, strict=True)
        ]
        matrix = problem.matrix
        for row in range(problem.rows):
            span = slice(matrix.indptr[row], matrix.indptr[row + 1])
            used = [self._columns[column] for column in matrix.indices[span]]
            total = mip.xsum(value * column for value, column in zip(matrix.data[span].tolist(), used, strict=True))
            low, high = problem.row_lower[row], problem.row_upper[row]
            if low == high:
                self._model.add_constr(total == low)
                continue
            if np.isfinite(low):
                self._model.add_constr(total >= low)
            if np.isfinite(high):
                self._model.add_constr(total <= high)

    def maximize(self, question: Question) -> SolverResult:
        """Why CBC stopped, its point or None, its bound or None: what is not known is never a number."""
        import mip

        begun = time.monotonic()
        for column, low, high in zip(self._columns, *question.column_bounds(self._problem), strict=True):
            column.lb, column.ub = low, high
        self._model.objective = mip.xsum(
            value * column for value, column in zip(question.objective.tolist(), self._columns, strict=True) if value
        )
        limit = question.time_limit
        status = self._model.optimize(max_seconds=1e9 if limit is None else max(1e-3, limit))
        stop = _stops().get(status, Stop.FAILED)
        numbers: dict[str, Any] = {}
        if stop in (Stop.OPTIMAL, Stop.TIME_LIMIT):
            if self._model.num_solutions or stop is Stop.OPTIMAL:
                numbers["point"] = np.array([column.x for column in self._columns], dtype=np.float64)
            bound = self._model.objective_bound
            if bound is not None and abs(bound) < 1e30:
                numbers["dual_bound"] = float(bound)
        return SolverResult(stop, seconds=time.monotonic() - begun, raw_status=status.name, **numbers)

    def close(self) -> None:
        """Let go of the model; may be called twice."""
        self._model, self._columns = None, []


def _stops() -> dict[Any, Stop]:
    from mip import OptimizationStatus as Status

    return {
        Status.OPTIMAL: Stop.OPTIMAL,
        Status.FEASIBLE: Stop.TIME_LIMIT,  # a point, and the time is up
        Status.NO_SOLUTION_FOUND: Stop.TIME_LIMIT,
        Status.INFEASIBLE: Stop.INFEASIBLE,
        Status.INT_INFEASIBLE: Stop.INFEASIBLE,
        Status.UNBOUNDED: Stop.UNBOUNDED,
    }
