"""What LEO relies on in a MILP solver; see :mod:`leo_core.testing` for how to run it.

Numbers are compared to 1e-6: a solver works in floats. No verdict of LEO's rests on them.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from leo_core.milp.problem import MilpProblem
from leo_core.milp.result import SolverResult, Stop
from leo_core.milp.solver import Capability, Solver
from leo_core.testing import problems
from leo_core.testing.problems import Known

Array = NDArray[np.float64]
TOLERANCE = 1e-6


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
            _check_answer(again, session.maximize(again.objective))
    finally:
        session.close()


def takes_bounds_for_one_solve_only(solver: Solver) -> None:
    """Column bounds given to one solve hold there, and are gone in the next."""
    if Capability.BOUND_CHANGE not in solver.capabilities:
        return
    known = problems.continuous()
    session = solver.load(known.problem)
    try:
        tight = session.maximize(known.objective, lower=np.array([0.0, 0.0]), upper=np.array([1.0, 1.0]))
        assert tight.point is not None, "no point with bounds given for one solve"
        _close(float(known.objective @ tight.point), 8.0, "the maximum with bounds given for one solve")
        _check_answer(known, session.maximize(known.objective))
    finally:
        session.close()


def stops_above(solver: Solver) -> None:
    """With ``stop_above`` it ends with a point above, or solves on to the optimum."""
    if Capability.EARLY_STOP not in solver.capabilities:
        return
    known = problems.knapsack()
    session = solver.load(known.problem)
    try:
        answer = session.maximize(known.objective, stop_above=3.0)
        assert answer.stop in (Stop.ABOVE, Stop.OPTIMAL), f"stop_above=3 of 9 ended {answer.stop}"
        assert answer.point is not None
        assert float(known.objective @ answer.point) > 3.0, "ABOVE, but its point is not above"
        assert answer.dual_bound is None or answer.dual_bound >= 9.0 - TOLERANCE, "a bound below the maximum"
        never = session.maximize(known.objective, stop_above=100.0)
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
        answer = session.maximize(known.objective, stop_below=20.0)
        assert answer.stop in (Stop.BELOW, Stop.OPTIMAL), f"stop_below=20 of 9 ended {answer.stop}"
        assert answer.dual_bound is not None, "BELOW without a bound"
        assert 9.0 - TOLERANCE <= answer.dual_bound <= 20.0 + TOLERANCE, f"the bound {answer.dual_bound} is not in 9…20"
        never = session.maximize(known.objective, stop_below=1.0)
        _check_answer(known, never)
    finally:
        session.close()


def keeps_to_time_limits(solver: Solver) -> None:
    """A limit of 0.2 s on a hard program ends within seconds, not as OPTIMAL unless bound and point meet."""
    known = problems.hard()
    session = solver.load(known.problem)
    begun = time.monotonic()
    try:
        answer = session.maximize(known.objective, time_limit=0.2)
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


def can_be_closed_twice(solver: Solver) -> None:
    """``close`` is safe at any time, any number of times, and other sessions go on."""
    known = problems.knapsack()
    first, second = solver.load(known.problem), solver.load(known.problem)
    first.close()
    first.close()
    try:
        _check_answer(known, second.maximize(known.objective))
    finally:
        second.close()


def repeats_itself(solver: Solver) -> None:
    """The same seed gives the same answer."""
    known = problems.relu_gap()
    answers = []
    for _ in range(2):
        session = solver.load(known.problem, seed=3)
        try:
            answers.append(session.maximize(known.objective))
        finally:
            session.close()
    assert answers[0].stop is answers[1].stop
    assert np.array_equal(answers[0].point, answers[1].point), "two runs with one seed differ"  # type: ignore[arg-type]


def leaves_its_arguments_alone(solver: Solver) -> None:
    """Neither the problem nor the objective is written to."""
    known = problems.relu_gap()
    objective = known.objective.copy()
    data = known.problem.matrix.data.copy()
    _solve(solver, Known(known.name, known.problem, objective, known.maximum))
    assert np.array_equal(objective, known.objective), "the objective was changed"
    assert np.array_equal(data, known.problem.matrix.data), "the matrix was changed"


CHECKS: tuple[Callable[[Solver], None], ...] = (
    finds_known_maxima,
    answers_each_objective_afresh,
    takes_bounds_for_one_solve_only,
    stops_above,
    stops_below,
    keeps_to_time_limits,
    gives_row_duals,
    can_be_closed_twice,
    repeats_itself,
    leaves_its_arguments_alone,
)


def _solve(solver: Solver, known: Known) -> SolverResult:
    session = solver.load(known.problem)
    try:
        return session.maximize(known.objective)
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
