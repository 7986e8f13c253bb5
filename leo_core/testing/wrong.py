"""Solvers that are wrong on purpose: the kit must catch each, and no verdict of LEO's may suffer from any."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from leo_core.milp.problem import MilpProblem
from leo_core.milp.question import Question
from leo_core.milp.result import SolverResult, Stop
from leo_core.milp.solver import Capability, Interruptible, Solver, SolverSession

Array = NDArray[np.float64]
#: From a session and the question it is asked to an answer.
Fault: TypeAlias = Callable[["WrongSession", Question], SolverResult]


_leaked: list[Array] = []


class WrongSolver:
    """A right solver whose answers pass through a fault."""

    def __init__(self, inner: Solver, fault: Fault) -> None:
        self._inner, self._fault = inner, fault
        self.name = f"wrong: {fault.__name__}"
        self.capabilities = frozenset(inner.capabilities | {Capability.EARLY_STOP})

    def load(self, problem: MilpProblem, *, seed: int = 0) -> SolverSession:
        return WrongSession(self._inner.load(problem, seed=seed), problem, self._fault)


class WrongSession:
    """One session of a :class:`WrongSolver`; ``first`` is the first question."""

    def __init__(self, inner: SolverSession, problem: MilpProblem, fault: Fault) -> None:
        self._inner, self.problem, self._fault = inner, problem, fault
        self.first: Question | None = None

    def maximize(self, question: Question) -> SolverResult:
        """The fault's answer."""
        if self.first is None:
            self.first = question
        return self._fault(self, question)

    def right(self, question: Question) -> SolverResult:
        """What the inner solver says."""
        return self._inner.maximize(question)

    def interrupt(self) -> None:
        """End a solve that is going on, where the inner solver can."""
        if isinstance(self._inner, Interruptible):
            self._inner.interrupt()

    def close(self) -> None:
        self._inner.close()


def limit_reported_as_optimal(session: WrongSession, question: Question) -> SolverResult:
    """Whatever is known when the time is up is called optimal."""
    answer = session.right(question if question.time_limit is None else replace(question, time_limit=0.0))
    point = answer.point if answer.point is not None else np.clip(0.0, session.problem.lower, session.problem.upper)
    if answer.stop is Stop.TIME_LIMIT:
        return SolverResult(Stop.OPTIMAL, point=point, dual_bound=float(question.objective @ point) - 1.0)
    return answer


def stale_objective(session: WrongSession, question: Question) -> SolverResult:
    """Every objective is answered as if it were the first."""
    assert session.first is not None
    return session.right(replace(question, objective=session.first.objective))


def primal_as_bound(session: WrongSession, question: Question) -> SolverResult:
    """The first feasible point's value is passed off as a bound."""
    answer = session.right(replace(question, objective=np.zeros_like(question.objective)))
    if answer.point is None:
        return answer
    return replace(answer, stop=Stop.OPTIMAL, dual_bound=float(question.objective @ answer.point))


def wrong_sense(session: WrongSession, question: Question) -> SolverResult:
    """It minimises."""
    answer = session.right(replace(question, objective=-question.objective, stop_above=None, stop_below=None))
    return answer if answer.dual_bound is None else replace(answer, dual_bound=-answer.dual_bound)


def zeros(session: WrongSession, question: Question) -> SolverResult:
    """A bound of 0 and a point of zeros, always optimal."""
    del session
    return SolverResult(Stop.OPTIMAL, point=np.zeros_like(question.objective), dual_bound=0.0)


def always_infeasible(session: WrongSession, question: Question) -> SolverResult:
    """Everything is infeasible, with a made-up ray."""
    del question
    return SolverResult(Stop.INFEASIBLE, row_duals=np.ones(session.problem.rows))


def bound_far_too_low(session: WrongSession, question: Question) -> SolverResult:
    """Right but for the bound, which is too low by one."""
    answer = session.right(question)
    return answer if answer.dual_bound is None else replace(answer, dual_bound=answer.dual_bound - 1.0)


def random_duals(session: WrongSession, question: Question) -> SolverResult:
    """Right but for the row duals, which are noise."""
    answer = session.right(question)
    noise = np.random.default_rng(len(question.objective)).standard_normal(session.problem.rows)
    return replace(answer, row_duals=noise, point=answer.point)


def unbounded_is_infeasible(session: WrongSession, question: Question) -> SolverResult:
    """What has no largest value is called infeasible."""
    answer = session.right(question)
    return SolverResult(Stop.INFEASIBLE) if answer.stop in (Stop.UNBOUNDED, Stop.FAILED) else answer


def ignores_bounds(session: WrongSession, question: Question) -> SolverResult:
    """Column bounds given to one solve are not looked at."""
    return session.right(replace(question, lower=None, upper=None))


def ignores_lazy_rows(session: WrongSession, question: Question) -> SolverResult:
    """The callback is never asked."""
    return session.right(replace(question, lazy=None))


def overwrites_its_question(session: WrongSession, question: Question) -> SolverResult:
    """Right, but the objective is gone afterwards, as where compiled code writes to it."""
    answer = session.right(question)
    question.objective.setflags(write=True)
    question.objective.fill(0.0)
    return answer


def leaks(session: WrongSession, question: Question) -> SolverResult:
    """Every solve leaves memory behind."""
    _leaked.append(np.ones(1 << 14))
    return session.right(question)


def crashes(session: WrongSession, question: Question) -> SolverResult:
    """It raises."""
    del session, question
    raise RuntimeError("licence expired")


def no_answer(session: WrongSession, question: Question) -> SolverResult:
    """It returns nothing."""
    del session, question
    return None  # type: ignore[return-value]


def kills_its_process(session: WrongSession, question: Question) -> SolverResult:
    """It takes the whole process with it: only for workers, and not among the faults below."""
    del session, question
    os._exit(9)


def hangs(session: WrongSession, question: Question) -> SolverResult:
    """It minds no limit: only for workers, and not among the faults below."""
    time.sleep(3600)
    return session.right(question)


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
    overwrites_its_question,
    leaks,
    crashes,
    no_answer,
)
