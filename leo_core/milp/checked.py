"""Believing nothing: every solver is used through :class:`CheckedSolver`.

It emulates what a solver lacks (early stops after the fact, a rebuild per objective or per bounds),
turns a plug-in's exceptions and malformed answers into :attr:`Stop.FAILED`, and drops bounds that
contradict the solver's own point. Each solve runs in a thread of its own, so that Ctrl-C is heard whatever compiled
code is doing, and a solver that does not return is left behind. So a wrong plug-in costs time and nothing else.
"""

from __future__ import annotations

import contextlib
import contextvars
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from leo_core.checker.environment import own_thread, settle
from leo_core.errors import ProtocolError, SolverError
from leo_core.milp.problem import MilpProblem
from leo_core.milp.question import Lazy, LazyRow, Question
from leo_core.milp.result import SolverResult, Stop
from leo_core.milp.solver import Capability, Interruptible, Solver, SolverSession, outdated

Array = NDArray[np.float64]

#: Seconds that a solve may be late before it is interrupted, and then before it is given up.
LATE, GIVE_UP = 10.0, 5.0
#: How far a point may lie outside rows and bounds and still count as feasible.
FEASIBILITY = 1e-6


def _unheard(_text: str) -> None:
    """Where nobody listens; a function, so that workers can be sent it."""


class CheckedSolver:
    """A solver that never raises while solving, and always returns; one that hung once is not asked again.

    ``report`` is told of the first failure, and of the first answer that cannot be right.
    """

    def __init__(self, solver: Solver, report: Callable[[str], None] = _unheard) -> None:
        self.solver, self._report = solver, report
        self._told: set[str] = set()
        #: How many solves failed.
        self.failures = 0
        #: Whether a solve was given up; its session is still in use, and must not be closed.
        self.hung = False
        self.name = str(solver.name)
        # Emulated, so every capability but these two is there.
        emulated = {Capability.EARLY_STOP, Capability.OBJECTIVE_CHANGE, Capability.BOUND_CHANGE}
        self.capabilities = frozenset(solver.capabilities) | emulated

    def load(self, problem: MilpProblem, *, seed: int = 0) -> CheckedSession:
        return CheckedSession(self, problem, seed)

    def ask(
        self, solve: Callable[[], SolverResult], stop: Callable[[], None], time_limit: float | None
    ) -> SolverResult:
        """What ``solve`` returns or raises; :class:`SolverError` when it does not return in time.

        ``stop`` is called when it has to end: LATE seconds after its limit, and at Ctrl-C.
        """
        if self.hung:
            raise SolverError("it did not return from an earlier solve")
        call = _Call(solve)
        try:
            call.start()
            if call.done.wait(None if time_limit is None or time_limit > 1e6 else time_limit + LATE):
                return call.outcome()
            self._end(call, stop)
        except KeyboardInterrupt:
            self._end(call, stop)
            raise
        raise SolverError(f"it did not return within its time limit of {time_limit:.3g} s and {LATE:g} s more")

    def _end(self, call: _Call, stop: Callable[[], None]) -> None:
        self.hung = True  # also where a second Ctrl-C ends the waiting
        self.hung = not call.stopped(stop)

    def failed(self, what: str) -> SolverResult:
        self.failures += 1
        self._tell("failed", f"failed: {what}; what it leaves open is undecided")
        return SolverResult(Stop.FAILED, raw_status=what)

    def doubted(self, what: str) -> None:
        """Say, once, that part of an answer is not used because it cannot be right."""
        self._tell("doubted", f"is not to be believed: {what}; no verdict rests on it")

    def _tell(self, kind: str, what: str) -> None:
        if kind not in self._told:
            self._told.add(kind)
            self._report(f"the solver '{self.name}' {what}")


class _Call(threading.Thread):
    """One solve, in a thread that does not keep the process alive.

    ``done`` says that it has ended. ``join`` and ``is_alive`` do not: Ctrl-C during a join makes Python 3.11 take a
    thread that runs on for one that has stopped.
    """

    def __init__(self, solve: Callable[[], SolverResult]) -> None:
        super().__init__(name="leo-solve", daemon=True)
        self._solve, self._context = solve, contextvars.copy_context()  # numpy's error state is part of the context
        self.done = threading.Event()
        self._answer: SolverResult | None = None
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._answer = self._context.run(self._solve)
        except BaseException as error:
            self._error = error
        finally:
            self.done.set()

    def outcome(self) -> SolverResult:
        """The answer, or what was raised."""
        if self._error is not None:
            raise self._error
        return self._answer  # type: ignore[return-value] # what a plug-in returned is looked at later

    def stopped(self, stop: Callable[[], None]) -> bool:
        """Whether it ends when told to: again and again, as a solve that has not begun yet does not hear it."""
        until = time.monotonic() + GIVE_UP
        while time.monotonic() < until:
            with contextlib.suppress(Exception):
                stop()
            settle()
            if self.done.wait(min(0.1, GIVE_UP)):
                return True
        return False


class CheckedSession:
    """One problem, loaded anew whenever the solver cannot change what has to change."""

    def __init__(self, checked: CheckedSolver, problem: MilpProblem, seed: int) -> None:
        self._checked_solver, self._solver, self._failed = checked, checked.solver, checked.failed
        self._problem, self._seed = problem, seed
        self._session: SolverSession | None = None
        self._loaded: MilpProblem | None = None
        #: The last answer as the solver gave it, before anyone doubted it; None where it gave none.
        self.given: SolverResult | None = None

    def maximize(self, question: Question) -> SolverResult:
        """See :class:`leo_core.milp.solver.SolverSession`; raises :class:`ProtocolError` where that is not spoken."""
        heard = None if question.lazy is None else _Heard(question.lazy)
        problem, asked = self._within_capabilities(replace(question, lazy=heard))  # a copy: a plug-in may spoil it

        def solve() -> SolverResult:
            return self._ready(problem).maximize(asked)

        self.given = None
        try:
            answer = self._checked_solver.ask(solve, self.interrupt, question.time_limit)
        except Exception as error:  # a plug-in may raise anything
            self.close()
            if isinstance(error, ProtocolError) or (heard is not None and error is heard.raised):
                raise
            return self._failed(f"{type(error).__name__}: {error}")
        return self._checked(answer, question)

    def close(self) -> None:
        """Free the solver's session."""
        session, self._session, self._loaded = self._session, None, None
        if session is not None and not self._checked_solver.hung:
            try:
                session.close()
            except Exception as error:
                self._failed(f"{type(error).__name__} while closing: {error}")
            finally:
                settle()

    def interrupt(self) -> None:
        """End a solve that is going on, where the solver can."""
        if Capability.INTERRUPT in self._solver.capabilities and isinstance(self._session, Interruptible):
            self._session.interrupt()

    def _within_capabilities(self, question: Question) -> tuple[MilpProblem, Question]:
        """The problem and the question that say the same to a solver which lacks what the question needs."""
        able, problem = self._solver.capabilities, self._problem
        if question.lazy is not None and Capability.LAZY_ROWS not in able:
            raise SolverError(f"the solver '{self._solver.name}' takes no lazy rows")
        if question.bounded and Capability.BOUND_CHANGE not in able:
            lower, upper = question.column_bounds(problem)
            problem, question = replace(problem, lower=lower, upper=upper), replace(question, lower=None, upper=None)
        if Capability.EARLY_STOP not in able:  # the answer is compared instead
            question = replace(question, stop_above=None, stop_below=None)
        if Capability.WARM_START not in able:
            question = replace(question, start=None)
        return problem, question

    def _ready(self, problem: MilpProblem) -> SolverSession:
        stale = Capability.OBJECTIVE_CHANGE not in self._solver.capabilities
        if self._session is None or self._loaded is not problem or stale:
            self.close()
            self._session, self._loaded = self._solver.load(problem, seed=self._seed), problem
            if what := outdated(self._session):
                raise ProtocolError(f"the solver '{self._solver.name}' cannot be asked: {what}")
        return self._session

    def _checked(self, answer: SolverResult, question: Question) -> SolverResult:
        if not isinstance(answer, SolverResult):
            return self._failed(f"maximize returned a {type(answer).__name__}, not a SolverResult")
        self.given = answer
        point, bound, duals = answer.point, answer.dual_bound, answer.row_duals
        if point is not None and point.shape != (self._problem.columns,):
            return self._failed(f"its point has shape {point.shape}, the problem {self._problem.columns} columns")
        if duals is not None and duals.shape != (self._problem.rows,):
            self._checked_solver.doubted(f"it gave {duals.size} row duals for {self._problem.rows} rows")
            duals = None
        value = None if point is None else float(question.objective @ point)
        if (
            point is not None
            and value is not None
            and bound is not None
            and bound < value - FEASIBILITY * (1 + abs(value))
            and _feasible(self._problem, point)
        ):
            self._checked_solver.doubted(f"it gave an upper bound of {bound:.9g} and a point with {value:.9g}")
            bound = None
        stop = Stop.INTERRUPTED if answer.stop in (Stop.ABOVE, Stop.BELOW) else answer.stop  # its word is compared anew
        return replace(answer, stop=stop, dual_bound=bound, row_duals=duals).compared(question)


class _Heard:
    """A callback that remembers what it raised: that is the caller's, not the plug-in's."""

    def __init__(self, lazy: Lazy) -> None:
        self._lazy = lazy
        self.raised: BaseException | None = None

    def __call__(self, point: Array) -> LazyRow | None:
        try:
            with own_thread():  # it is a solver's
                return self._lazy(point)
        except BaseException as error:
            self.raised = error
            raise


def _feasible(problem: MilpProblem, point: Array) -> bool:
    activity = problem.matrix @ point
    slack = FEASIBILITY * (1 + np.abs(activity))
    rows = (activity >= problem.row_lower - slack) & (activity <= problem.row_upper + slack)
    columns = (point >= problem.lower - FEASIBILITY) & (point <= problem.upper + FEASIBILITY)
    return bool(rows.all() and columns.all())
