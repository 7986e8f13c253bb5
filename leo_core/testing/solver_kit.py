"""What LEO relies on in a MILP solver; see :mod:`leo_core.testing` for how to run it.

Numbers are compared to 1e-6: a solver works in floats. No verdict of LEO's rests on them.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leo_core.milp.problem import MilpProblem
from leo_core.milp.question import LazyRow, Question
from leo_core.milp.result import SolverResult, Stop
from leo_core.milp.solver import Capability, Interruptible, Solver, outdated
from leo_core.testing import problems
from leo_core.testing.problems import Known

Array = NDArray[np.float64]
TOLERANCE = 1e-6


def takes_a_question(solver: Solver) -> None:
    """``maximize`` takes one :class:`~leo_core.milp.question.Question`, not its parts one by one."""
    session = solver.load(problems.knapsack().problem)
    try:
        what = outdated(session)
    finally:
        session.close()
    assert not what, f"the solver '{solver.name}' cannot be asked: {what}"


def finds_known_maxima(solver: Solver) -> None:
    """OPTIMAL with a feasible point, its value, and a bound that is no lower; INFEASIBLE without numbers."""
    for make in problems.KNOWN:
        known = make()
        _check_answer(known, _solve(solver, known))


def answers_each_objective_afresh(solver: Solver) -> None:
    """A second and a third objective on one session are not answered with the first."""
    known = problems.continuous()
    session = solver.load(known.problem)
    try:
        for objective, maximum in (([3.0, 5.0], 14.0), ([-1.0, 0.0], 0.0), ([0.0, 1.0], 2.0), ([3.0, 5.0], 14.0)):
            again = Known(known.name, known.problem, np.array(objective), maximum)
            if Capability.OBJECTIVE_CHANGE not in solver.capabilities:
                session.close()
                session = solver.load(known.problem)
            _check_answer(again, session.maximize(Question(again.objective)))
    finally:
        session.close()


def takes_bounds_for_one_solve_only(solver: Solver) -> None:
    """Column bounds given to one solve hold there, and are gone in the next."""
    if Capability.BOUND_CHANGE not in solver.capabilities:
        return
    known = problems.continuous()
    session = solver.load(known.problem)
    try:
        tight = session.maximize(Question(known.objective, lower=np.array([0.0, 0.0]), upper=np.array([1.0, 1.0])))
        assert tight.point is not None, "no point with bounds given for one solve"
        _close(float(known.objective @ tight.point), 8.0, "the maximum with bounds given for one solve")
        _check_answer(known, session.maximize(Question(known.objective)))
    finally:
        session.close()


def stops_above(solver: Solver) -> None:
    """With ``stop_above`` it ends with a point above, or solves on to the optimum."""
    if Capability.EARLY_STOP not in solver.capabilities:
        return
    known = problems.knapsack()
    session = solver.load(known.problem)
    try:
        answer = session.maximize(Question(known.objective, stop_above=3.0))
        assert answer.stop in (Stop.ABOVE, Stop.OPTIMAL), f"stop_above=3 of 9 ended {answer.stop}"
        assert answer.point is not None
        assert float(known.objective @ answer.point) > 3.0, "ABOVE, but its point is not above"
        assert answer.dual_bound is None or answer.dual_bound >= 9.0 - TOLERANCE, "a bound below the maximum"
        never = session.maximize(Question(known.objective, stop_above=100.0))
        _check_answer(known, never)
    finally:
        session.close()


def stops_below(solver: Solver) -> None:
    """With ``stop_below`` it ends as soon as the bound is low enough, and the bound it gives is that low."""
    if Capability.EARLY_STOP not in solver.capabilities:
        return
    known = problems.knapsack()
    session = solver.load(known.problem)
    try:
        answer = session.maximize(Question(known.objective, stop_below=20.0))
        assert answer.stop in (Stop.BELOW, Stop.OPTIMAL), f"stop_below=20 of 9 ended {answer.stop}"
        assert answer.dual_bound is not None, "BELOW without a bound"
        assert 9.0 - TOLERANCE <= answer.dual_bound <= 20.0 + TOLERANCE, f"the bound {answer.dual_bound} is not in 9…20"
        never = session.maximize(Question(known.objective, stop_below=1.0))
        _check_answer(known, never)
    finally:
        session.close()


def keeps_to_time_limits(solver: Solver) -> None:
    """A limit of 0.2 s on a hard program ends within seconds, not as OPTIMAL unless bound and point meet."""
    known = problems.hard()
    session = solver.load(known.problem)
    begun = time.monotonic()
    try:
        answer = session.maximize(Question(known.objective, time_limit=0.2))
    finally:
        session.close()
    assert time.monotonic() - begun < 20, "a time limit of 0.2 s was not kept"
    assert answer.stop in (Stop.TIME_LIMIT, Stop.OPTIMAL), f"a time limit ended {answer.stop}"
    if answer.point is not None:
        _check_feasible(known.problem, answer.point)
    if answer.stop is Stop.OPTIMAL:
        assert answer.point is not None
        assert answer.dual_bound is not None
        value = float(known.objective @ answer.point)
        _close(answer.dual_bound, value, "the bound of an answer called OPTIMAL")


def gives_row_duals(solver: Solver) -> None:
    """Row duals y of a plain LP bound it: max c·x ≤ Σ y·rhs + max over the box of (c − Aᵀy)·x."""
    if Capability.ROW_DUALS not in solver.capabilities:
        return
    known = problems.continuous()
    answer = _solve(solver, known)
    assert answer.row_duals is not None, "ROW_DUALS is declared, but an optimal LP has none"
    assert known.maximum is not None
    _close(_dual_value(known.problem, known.objective, answer.row_duals), known.maximum, "the row duals' own bound")
    empty = problems.infeasible_rows()
    ray = _solve(solver, empty).row_duals
    if ray is not None:
        value = _dual_value(empty.problem, np.zeros(2), ray)
        assert value < 0, f"a dual ray that proves nothing: {value}"


def tells_unbounded_from_infeasible(solver: Solver) -> None:
    """No finite answer where there is none: UNBOUNDED, or FAILED, but neither OPTIMAL nor INFEASIBLE."""
    for known in (problems.unbounded(), replace(problems.unbounded(), problem=problems.unbounded().problem.relaxed())):
        answer = _solve(solver, known)
        assert answer.stop in (Stop.UNBOUNDED, Stop.FAILED), f"an unbounded program ended {answer.stop}"


def bounds_are_on_the_right_side(solver: Solver) -> None:
    """Big-M and tiny margins cost tightness, not truth: no bound is below the maximum."""
    for reach in (1.0, 1e2, 1e4):
        for margin in (1e-1, 1e-2, 1e-3):
            known = problems.big_m(reach, margin)
            answer = _solve(solver, known)
            assert answer.stop is not Stop.INFEASIBLE, f"{known.name}: {answer.stop}, but there are feasible points"
            assert known.maximum is not None
            if answer.dual_bound is not None:
                short = known.maximum - answer.dual_bound
                assert short <= TOLERANCE * reach, f"{known.name}: the bound {answer.dual_bound} is too low by {short}"


def begins_from_a_point(solver: Solver) -> None:
    """A start that is feasible does not hurt, nor does one that is not."""
    if Capability.WARM_START not in solver.capabilities:
        return
    known = problems.knapsack()
    for start in ([1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.5, -3.0, 9.0]):
        session = solver.load(known.problem)
        try:
            _check_answer(known, session.maximize(Question(known.objective, start=np.array(start))))
        finally:
            session.close()
    known = problems.hard()
    session = solver.load(known.problem)
    nothing = np.zeros(known.problem.columns)
    nothing[40:45] = known.problem.row_lower  # nothing taken: every row is as far off as it can be
    try:
        answer = session.maximize(Question(known.objective, start=nothing, time_limit=0.05))
    finally:
        session.close()
    assert answer.point is not None, "a feasible start was given, and there is no point after a time limit"
    assert known.objective @ answer.point >= known.objective @ nothing - TOLERANCE


def adds_lazy_rows(solver: Solver) -> None:
    """Rows that a callback returns hold for the rest of the solve, and are gone in the next."""
    if Capability.LAZY_ROWS not in solver.capabilities:
        return
    known = problems.three_of_five()
    seen: list[Array] = []

    def no_four(point: Array) -> LazyRow | None:
        seen.append(point)
        _check_feasible(known.problem, point)  # only what satisfies everything else is a candidate
        taken = np.flatnonzero(point > 0.5)
        if len(taken) < 4:
            return None
        row = np.zeros(5)
        row[taken[:4]] = -1.0
        return LazyRow(row, -3.0)

    session = solver.load(known.problem)
    try:
        _check_answer(known, session.maximize(Question(known.objective, lazy=no_four)))
        assert seen, "the callback was never asked"
        _check_answer(replace(known, maximum=4.0), session.maximize(Question(known.objective)))
        refused = session.maximize(Question(known.objective, lazy=lambda _point: LazyRow(np.zeros(5), 1.0)))
        assert refused.stop is Stop.INFEASIBLE, f"every candidate was refused, and the solve ended {refused.stop}"
        raised = None
        try:
            session.maximize(Question(known.objective, lazy=_raising))
        except ArithmeticError as error:
            raised = error
        assert raised is not None, "what the callback raises was swallowed"
    finally:
        session.close()


def ends_when_interrupted(solver: Solver) -> None:
    """Where INTERRUPT is declared, ``interrupt()`` from another thread ends a solve soon, and the next one works."""
    if Capability.INTERRUPT not in solver.capabilities:
        return
    known = problems.hard()
    session = solver.load(known.problem)
    assert isinstance(session, Interruptible), "INTERRUPT is declared, but the session has no interrupt()"
    timer = threading.Timer(0.3, session.interrupt)
    begun = time.monotonic()
    try:
        timer.start()
        answer = session.maximize(Question(known.objective, time_limit=60.0))
        assert time.monotonic() - begun < 30, "an interrupted solve went on"
        assert answer.stop in (Stop.INTERRUPTED, Stop.TIME_LIMIT), f"an interrupted solve ended {answer.stop}"
        again = session.maximize(Question(known.objective, time_limit=0.5))
        assert again.stop is not Stop.INTERRUPTED, "the solve after an interrupted one was interrupted too"
    finally:
        timer.cancel()
        session.close()


def two_sessions_do_not_mix(solver: Solver) -> None:
    """Sessions that are open at the same time, asked in turns, keep their own problems and objectives."""
    first, second = problems.knapsack(), problems.continuous()
    sessions = [solver.load(known.problem) for known in (first, second)]
    changes = Capability.OBJECTIVE_CHANGE in solver.capabilities
    try:
        for _ in range(3 if changes else 1):
            for known, session in zip((first, second), sessions, strict=True):
                _check_answer(known, session.maximize(Question(known.objective)))
    finally:
        for session in sessions:
            session.close()


def works_in_threads(solver: Solver) -> None:
    """Where THREADS is declared, sessions in several threads at once give the known answers."""
    if Capability.THREADS not in solver.capabilities:
        return
    makes = (problems.knapsack, problems.relu_gap, problems.continuous, problems.infeasible) * 4
    with ThreadPoolExecutor(4) as pool:
        for known, answer in pool.map(_answered, [solver] * len(makes), makes):
            _check_answer(known, answer)


def works_in_other_processes(solver: Solver) -> None:
    """A solver that is pickled into a fresh process solves there (``--jobs``)."""
    if type(solver).__module__ == "__main__":
        return
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        for make in (problems.knapsack, problems.continuous):
            _check_answer(*pool.submit(_answered, solver, make).result(timeout=120))


def does_not_leak(solver: Solver) -> None:
    """500 solves, in sessions that are closed, take no more memory than the first few."""
    known = problems.relu_gap()

    def solve(times: int) -> None:
        for _ in range(times):
            _check_answer(known, _solve(solver, known))

    solve(50)
    before = _resident()
    solve(500)
    grown = _resident() - before
    assert grown < 50e6, f"500 solves of a program with three columns took {grown / 1e6:.0f} MB"


def can_be_closed_twice(solver: Solver) -> None:
    """``close`` is safe at any time, any number of times, and other sessions go on."""
    known = problems.knapsack()
    first, second = solver.load(known.problem), solver.load(known.problem)
    first.close()
    first.close()
    try:
        _check_answer(known, second.maximize(Question(known.objective)))
    finally:
        second.close()


def repeats_itself(solver: Solver) -> None:
    """The same seed gives the same answer."""
    known = problems.relu_gap()
    answers = []
    for _ in range(2):
        session = solver.load(known.problem, seed=3)
        try:
            answers.append(session.maximize(Question(known.objective)))
        finally:
            session.close()
    assert answers[0].stop is answers[1].stop
    assert np.array_equal(answers[0].point, answers[1].point), "two runs with one seed differ"  # type: ignore[arg-type]


def leaves_its_arguments_alone(solver: Solver) -> None:
    """Neither the problem nor the question is written to, though compiled code could."""
    known, question = problems.relu_gap(), Question(problems.relu_gap().objective)
    data = known.problem.matrix.data.copy()
    session = solver.load(known.problem)
    try:
        session.maximize(question)
    finally:
        session.close()
    assert np.array_equal(question.objective, known.objective), "the objective was changed"
    assert np.array_equal(data, known.problem.matrix.data), "the matrix was changed"


def _answered(solver: Solver, make: Callable[[], Known]) -> tuple[Known, SolverResult]:
    known = make()
    return known, _solve(solver, known)


def _raising(_point: Array) -> LazyRow | None:
    raise ArithmeticError("from the callback")


def _resident() -> int:
    """Bytes of memory this process holds, what it has freed given back before; 0 where there is no /proc to ask."""
    with contextlib.suppress(OSError, AttributeError):  # where the C library is not glibc
        ctypes.CDLL(None).malloc_trim(0)
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


CHECKS: tuple[Callable[[Solver], None], ...] = (
    takes_a_question,
    finds_known_maxima,
    answers_each_objective_afresh,
    takes_bounds_for_one_solve_only,
    stops_above,
    stops_below,
    keeps_to_time_limits,
    gives_row_duals,
    tells_unbounded_from_infeasible,
    bounds_are_on_the_right_side,
    begins_from_a_point,
    adds_lazy_rows,
    ends_when_interrupted,
    two_sessions_do_not_mix,
    works_in_threads,
    works_in_other_processes,
    does_not_leak,
    can_be_closed_twice,
    repeats_itself,
    leaves_its_arguments_alone,
)


def _solve(solver: Solver, known: Known) -> SolverResult:
    session = solver.load(known.problem)
    try:
        return session.maximize(Question(known.objective))
    finally:
        session.close()


def _check_answer(known: Known, answer: SolverResult) -> None:
    assert isinstance(answer, SolverResult), f"{known.name}: the answer is a {type(answer).__name__}"
    if known.maximum is None:
        assert answer.stop is Stop.INFEASIBLE, f"{known.name}: {answer.stop}, but no point is feasible"
        return
    assert answer.stop is Stop.OPTIMAL, f"{known.name}: ended {answer.stop} ({answer.raw_status})"
    assert answer.point is not None
    _check_feasible(known.problem, answer.point)
    _close(float(known.objective @ answer.point), known.maximum, f"{known.name}: the maximum")
    assert answer.dual_bound is not None, f"{known.name}: OPTIMAL without a bound"
    _close(answer.dual_bound, known.maximum, f"{known.name}: the bound")


def _check_feasible(problem: MilpProblem, point: Array) -> None:
    activity = problem.matrix @ point
    assert (activity >= problem.row_lower - TOLERANCE).all(), "the point violates a row"
    assert (activity <= problem.row_upper + TOLERANCE).all(), "the point violates a row"
    assert (point >= problem.lower - TOLERANCE).all(), "the point violates a bound"
    assert (point <= problem.upper + TOLERANCE).all(), "the point violates a bound"
    whole = point[problem.integer]
    assert (np.abs(whole - np.round(whole)) <= 1e-5).all(), "an integer column is not whole"


def _dual_value(problem: MilpProblem, objective: Array, y: Array) -> float:
    reduced = objective - problem.matrix.T @ y
    with np.errstate(invalid="ignore"):
        rows = np.where(y > TOLERANCE, y * problem.row_upper, np.where(y < -TOLERANCE, y * problem.row_lower, 0.0))
        columns = np.maximum(reduced * problem.lower, reduced * problem.upper)
    return float(rows.sum() + columns.sum())


def _close(value: float, wanted: float, what: str) -> None:
    assert abs(value - wanted) <= TOLERANCE * (1 + abs(wanted)), f"{what} is {value}, not {wanted}"
