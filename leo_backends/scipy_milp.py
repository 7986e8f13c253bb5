"""``scipy.optimize.milp``: no extra needed, so that a bare install can already compress.

It has neither early stops nor row duals, and solves every question from scratch; the core makes up for that.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from leo_core.milp.problem import MilpProblem
from leo_core.milp.question import Question
from leo_core.milp.result import SolverResult, Stop
from leo_core.milp.solver import Capability, SolverSession
from leo_core.plugins import SolverSpec, hookimpl


@hookimpl
def leo_solver() -> SolverSpec:
    """Describe SciPy's MILP solver."""
    return SolverSpec(
        name="scipy",
        summary="scipy.optimize.milp, always there; slower, without early stops",
        create=ScipySolver,
        packages=("scipy",),
    )


class ScipySolver:
    """Every question is a new call, so objectives and bounds change freely."""

    name = "scipy"
    capabilities = frozenset({Capability.OBJECTIVE_CHANGE, Capability.BOUND_CHANGE})

    def load(self, problem: MilpProblem, *, seed: int = 0) -> SolverSession:  # noqa: ARG002 - it takes no seed
        return ScipySession(problem)


class ScipySession:
    """Holds the problem; there is nothing to free."""

    def __init__(self, problem: MilpProblem) -> None:
        self._problem = problem

    def maximize(self, question: Question) -> SolverResult:
        """See :class:`leo_core.milp.solver.SolverSession`."""
        from scipy.optimize import Bounds, LinearConstraint, milp

        problem, begun = self._problem, time.monotonic()
        options: Any = {"mip_rel_gap": 0.0}  # the stubs know it as a typed dictionary
        if question.time_limit is not None and np.isfinite(question.time_limit):
            options["time_limit"] = max(0.0, question.time_limit)
        rows = [LinearConstraint(problem.matrix, problem.row_lower, problem.row_upper)] if problem.rows else []
        answer = milp(
            -question.objective,
            integrality=problem.integer.astype(int),
            bounds=Bounds(*question.column_bounds(problem)),
            constraints=rows,
            options=options,
        )
        return _result(answer, time.monotonic() - begun, bool(problem.integer.any()))

    def close(self) -> None:
        """Nothing to free."""


def _result(answer: Any, seconds: float, is_mip: bool) -> SolverResult:
    raw = str(answer.message)
    stops = {0: Stop.OPTIMAL, 1: Stop.TIME_LIMIT, 2: Stop.INFEASIBLE, 3: Stop.UNBOUNDED}
    stop = stops.get(int(answer.status), Stop.FAILED)
    if stop not in (Stop.OPTIMAL, Stop.TIME_LIMIT):
        return SolverResult(stop, seconds=seconds, raw_status=raw)
    point = None if answer.x is None else np.asarray(answer.x)
    bound = None
    if is_mip:
        found = getattr(answer, "mip_dual_bound", None)
        bound = -float(found) if found is not None and np.isfinite(found) else None
    elif stop is Stop.OPTIMAL:
        bound = -float(answer.fun)
    if stop is Stop.OPTIMAL and (point is None or bound is None):
        return SolverResult(Stop.FAILED, seconds=seconds, raw_status=raw)
    return SolverResult(stop, point=point, dual_bound=bound, seconds=seconds, raw_status=raw)
