"""Solvers that are wrong on purpose: the kit must catch each, and no verdict of LEO's may suffer from any."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leo_core.milp.problem import MilpProblem
from leo_core.milp.result import SolverResult, Stop
from leo_core.milp.solver import Capability, Solver, SolverSession

Array = NDArray[np.float64]
#: From (the inner session, the problem, the objective, the limits) to an answer.
Fault = Callable[["WrongSession", Array, dict[str, float | None]], SolverResult]


_leaked: list[Array] = []


class WrongSolver:
    """A right solver whose answers pass through a fault."""

    def __init__(self, inner: Solver, fault: Fault) -> None:
        self._inner, self._fault = inner, fault
        self.name = f"wrong: {fault.__name__}"
        self.capabilities = frozenset(inner.capabilities | {Capability.EARLY_STOP})

    def load(self, problem: MilpProblem, *, seed: int = 0) -> WrongSession:
        return WrongSession(self._inner.load(problem, seed=seed), problem, self._fault)


class WrongSession:
    """One session of a :class:`WrongSolver`; ``first`` is its first objective."""

    def __init__(self, inner: SolverSession, problem: MilpProblem, fault: Fault) -> None:
        self.inner, self.problem, self._fault = inner, problem, fault
        self.first: Array | None = None
        self.bounds: dict[str, Any] = {}

    def maximize(
        self,
        objective: Array,
        *,
        stop_above: float | None = None,
        stop_below: float | None = None,
        time_limit: float | None = None,
        lower: Array | None = None,
        upper: Array | None = None,
        **others: Any,
    ) -> SolverResult:
        """The fault's answer."""
        self.first = objective if self.first is None else self.first
        self.bounds = {"lower": lower, "upper": upper, **others}
        limits = {"stop_above": stop_above, "stop_below": stop_below, "time_limit": time_limit}
        return self._fault(self, objective, limits)

    def right(self, objective: Array, limits: dict[str, float | None]) -> SolverResult:
        """What the inner solver says."""
        given: dict[str, Any] = {**limits, **self.bounds}
        return self.inner.maximize(objective, **given)

    def close(self) -> None:
        self.inner.close()


def limit_reported_as_optimal(session: WrongSession, objective: Array, limits: dict[str, float | None]) -> SolverResult:
    """Whatever is known when the time is up is called optimal."""
    answer = session.right(objective, {**limits, "time_limit": 0.0 if limits["time_limit"] is not None else None})
    point = answer.point if answer.point is not None else np.clip(0.0, session.problem.lower, session.problem.upper)
    if answer.stop is Stop.TIME_LIMIT:
        return SolverResult(Stop.OPTIMAL, point=point, dual_bound=float(objective @ point) - 1.0)
    return answer


def stale_objective(session: WrongSession, objective: Array, limits: dict[str, float | None]) -> SolverResult:
    """Every objective is answered as if it were the first."""
    del objective
    assert session.first is not None
    return session.right(session.first, limits)


def primal_as_bound(session: WrongSession, objective: Array, limits: dict[str, float | None]) -> SolverResult:
    """The first feasible point's value is passed off as a bound."""
    answer = session.right(np.zeros_like(objective), limits)
    if answer.point is None:
        return answer
    return replace(answer, stop=Stop.OPTIMAL, dual_bound=float(objective @ answer.point))


def wrong_sense(session: WrongSession, objective: Array, limits: dict[str, float | None]) -> SolverResult:
    """It minimises."""
    answer = session.right(-objective, {**limits, "stop_above": None, "stop_below": None})
    return answer if answer.dual_bound is None else replace(answer, dual_bound=-answer.dual_bound)


def zeros(session: WrongSession, objective: Array, limits: dict[str, float | None]) -> SolverResult:
    """A bound of 0 and a point of zeros, always optimal."""
    del session, limits
    return SolverResult(Stop.OPTIMAL, point=np.zeros_like(objective), dual_bound=0.0)


def always_infeasible(session: WrongSession, objective: Array, limits: dict[str, float | None]) -> SolverResult:
    """Everything is infeasible, with a made-up ray."""
    del objective, limits
    return SolverResult(Stop.INFEASIBLE, row_duals=np.ones(session.problem.rows))


def bound_far_too_low(session: WrongSession, objective: Array, limits: dict[str, float | None]) -> SolverResult:
    """Right but for the bound, which is too low by one."""
    answer = session.right(objective, limits)
    return answer if answer.dual_bound is None else replace(answer, dual_bound=answer.dual_bound - 1.0)


def random_duals(session: WrongSession, objective: Array, limits: dict[str, float | None]) -> SolverResult:
    """Right but for the row duals, which are noise."""
    answer = session.right(objective, limits)
    noise = np.random.default_rng(len(objective)).standard_normal(session.problem.rows)
    return replace(answer, row_duals=noise, point=answer.point)


def unbounded_is_infeasible(session: WrongSession, objective: Array, limits: dict[str, float | None]) -> SolverResult:
    """What has no largest value is called infeasible."""
    answer = session.right(objective, limits)
    return SolverResult(Stop.INFEASIBLE) if answer.stop in (Stop.UNBOUNDED, Stop.FAILED) else answer


def ignores_bounds(session: WrongSession, objective: Array, limits: dict[str, float | None]) -> SolverResult:
    """Column bounds given to one solve are not looked at."""
    session.bounds |= {"lower": None, "upper": None}
    return session.right(objective, limits)


def ignores_lazy_rows(session: WrongSession, objective: Array, limits: dict[str, float | None]) -> SolverResult:
    """The callback is never asked."""
    session.bounds["lazy"] = None
    return session.right(objective, limits)


def leaks(session: WrongSession, objective: Array, limits: dict[str, float | None]) -> SolverResult:
    """Every solve leaves memory behind."""
    _leaked.append(np.ones(1 << 14))
    return session.right(objective, limits)


def crashes(session: WrongSession, objective: Array, limits: dict[str, float | None]) -> SolverResult:
    """It raises."""
    del session, objective, limits
    raise RuntimeError("licence expired")


def no_answer(session: WrongSession, objective: Array, limits: dict[str, float | None]) -> SolverResult:
    """It returns nothing."""
    del session, objective, limits
    return None  # type: ignore[return-value]


def kills_its_process(session: WrongSession, objective: Array, limits: dict[str, float | None]) -> SolverResult:
    """It takes the whole process with it: only for workers, and not among the faults below."""
    del session, objective, limits
    os._exit(9)


def hangs(session: WrongSession, objective: Array, limits: dict[str, float | None]) -> SolverResult:
    """It minds no limit: only for workers, and not among the faults below."""
    del limits
    time.sleep(3600)
    return session.right(objective, {})


FAULTS: tuple[Fault, ...] = (
    limit_reported_as_optimal,
    stale_objective,
    primal_as_bound,
    wrong_sense,
    zeros,
    always_infeasible,
    bound_far_too_low,
    random_duals,
    unbounded_is_infeasible,
    ignores_bounds,
    ignores_lazy_rows,
    leaks,
    crashes,
    no_answer,
)
