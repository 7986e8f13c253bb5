"""Several solvers asked the same: the first one's answers are used, and all are compared with each other.

Of two answers to one question one is wrong where a point satisfies the program and the other solver says that there is
none, or claims an upper bound below the point's value; an answer is wrong by itself where its own point does not
satisfy the program. A point is taken at its whole-numbered integers, so that what is left is no matter of tolerances.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import final

import numpy as np
from numpy.typing import NDArray

from leo_core.milp.checked import CheckedSession, CheckedSolver
from leo_core.milp.problem import MilpProblem
from leo_core.milp.question import Question
from leo_core.milp.result import SolverResult, Stop
from leo_core.milp.solver import Capability, Solver, SolverSession

Array = NDArray[np.float64]

#: How far outside a point may lie, relatively, and still count as feasible; and how far it must, to be called wrong.
_INSIDE, _OUTSIDE = 1e-6, 1e-3
#: How far a point's value must lie above a bound, relatively, to contradict it.
_ABOVE = 1e-5


@final
@dataclass(frozen=True)
class Contradiction:
    """What is wrong with the answers to a question, by its number from 1; one of the solvers named is wrong."""

    question: int
    solvers: tuple[str, ...]
    what: str


@final
class Ledger:
    """How often each solver was asked, and failed; how many answers were compared; what is wrong with them."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.compared = 0
        self.contradictions: list[Contradiction] = []
        self._questions = 0

    def enter(self, problem: MilpProblem, objective: Array, answers: Mapping[str, SolverResult | None]) -> None:
        """One question and everyone's answer to it; None where there was none."""
        self._questions += 1
        self.asked.update(answers.keys())
        given = {name: answer for name, answer in answers.items() if answer is not None and answer.stop != Stop.FAILED}
        self.failed.update(answers.keys() - given.keys())
        says = [a.point is not None or a.dual_bound is not None or a.stop == Stop.INFEASIBLE for a in given.values()]
        self.compared += sum(says) > 1
        for solvers, what in contradictions(problem, objective, given):
            self.contradictions.append(Contradiction(self._questions, solvers, what))


def contradictions(
    problem: MilpProblem, objective: Array, answers: Mapping[str, SolverResult]
) -> list[tuple[tuple[str, ...], str]]:
    """(the solvers concerned, what is wrong) for answers to 'maximise objective · x'."""
    found: list[tuple[tuple[str, ...], str]] = []
    for name, answer in answers.items():
        if answer.point is None:
            continue
        if answer.point.shape != (problem.columns,):
            found.append(((name,), f"{name} gave a point of {answer.point.size} values for {problem.columns} columns"))
            continue
        if (off := _violation(problem, answer.point)) > _OUTSIDE:
            found.append(((name,), f"{name} gave a point that does not satisfy the program, by {off:.3g}"))
        point = np.where(problem.integer, np.round(answer.point), answer.point)
        if _violation(problem, point) > _INSIDE:
            continue
        value = float(objective @ point)
        for other, claim in answers.items():
            who = (name,) if other == name else (name, other)
            if claim.stop == Stop.INFEASIBLE:
                found.append((who, f"{other} says that there is no point, {name} gave one"))
            elif claim.dual_bound is not None and claim.dual_bound < value - _ABOVE * (1 + abs(value)):
                bound = f"{other} gave an upper bound of {claim.dual_bound:.6g}"
                found.append((who, f"{bound}, {name} a point with {value:.6g}"))
    for name, answer in answers.items():
        for other, claim in answers.items():
            if answer.stop == Stop.UNBOUNDED and claim.dual_bound is not None and np.isfinite(claim.dual_bound):
                what = f"{name} says that there is no bound, {other} gave {claim.dual_bound:.6g}"
                found.append(((name, other), what))
    return found


def _violation(problem: MilpProblem, point: Array) -> float:
    """How far a point lies outside rows, columns and integers, relative to the sizes at hand."""
    activity, most = problem.matrix @ point, abs(problem.matrix) @ np.abs(point)
    with np.errstate(invalid="ignore"):
        rows = np.maximum(problem.row_lower - activity, activity - problem.row_upper) / (1 + most)
        columns = np.maximum(problem.lower - point, point - problem.upper) / (1 + np.abs(point))
    whole = np.where(problem.integer, np.abs(point - np.round(point)), 0.0)
    return float(max(part.max(initial=0.0) for part in (rows, columns, whole)))


@final
class Panel:
    """Solvers by name as one, the first of which answers; ``ledger`` learns of every question and answer.

    They share the time of a solve.
    """

    def __init__(self, solvers: Mapping[str, Solver], ledger: Ledger) -> None:
        self._ledger = ledger
        self.name = next(iter(solvers))
        # what each member lacks is made up for; lazy rows would be asked of one only
        first = frozenset(next(iter(solvers.values())).capabilities) & {Capability.ROW_DUALS, Capability.WARM_START}
        emulated = {Capability.EARLY_STOP, Capability.OBJECTIVE_CHANGE, Capability.BOUND_CHANGE, Capability.INTERRUPT}
        self.capabilities = first | emulated
        self._members = {name: CheckedSolver(solver) for name, solver in solvers.items()}

    def load(self, problem: MilpProblem, *, seed: int = 0) -> SolverSession:
        sessions = {name: member.load(problem, seed=seed) for name, member in self._members.items()}
        return _PanelSession(problem, sessions, self._ledger)


class _PanelSession:
    def __init__(self, problem: MilpProblem, sessions: Mapping[str, CheckedSession], ledger: Ledger) -> None:
        self._problem, self._sessions, self._ledger = problem, sessions, ledger

    def maximize(self, question: Question) -> SolverResult:
        """The first solver's answer; see :class:`leo_core.milp.solver.SolverSession`."""
        limit = question.time_limit
        asked = replace(question, time_limit=None if limit is None else limit / len(self._sessions))
        first, *_ = [session.maximize(asked) for session in self._sessions.values()]
        answers = {name: session.given for name, session in self._sessions.items()}
        lower, upper = question.column_bounds(self._problem)
        self._ledger.enter(replace(self._problem, lower=lower, upper=upper), question.objective, answers)
        return first

    def interrupt(self) -> None:
        for session in self._sessions.values():
            session.interrupt()

    def close(self) -> None:
        for session in self._sessions.values():
            session.close()
