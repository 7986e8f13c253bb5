"""The shipped kit on every solver there is, and on solvers that are wrong on purpose."""

from __future__ import annotations

import os
import signal
import threading
import time
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest

import leo_core
from leo_core.domain import Box
from leo_core.errors import MissingExtraError, ProtocolError
from leo_core.execution.budget import Budget
from leo_core.execution.pool import Pool
from leo_core.milp.checked import CheckedSolver
from leo_core.milp.problem import MilpProblem
from leo_core.milp.question import Question
from leo_core.milp.result import SolverResult, Stop
from leo_core.milp.solver import Capability, outdated
from leo_core.plugins import SolverSpec, registry
from leo_core.stability.cross_check import cross_checked
from leo_core.testing import problems, solver_kit
from leo_core.testing.networks import chain
from leo_core.testing.reference import ReferenceSolver
from leo_core.testing.wrong import FAULTS, WrongSolver, hangs, ignores_lazy_rows
from tests.deciding import decide

#: What a solver that enumerates, and lives in a test module, can be asked.
SMALL = [
    check
    for check in solver_kit.CHECKS
    if check not in (solver_kit.keeps_to_time_limits, solver_kit.works_in_other_processes)
]


def solvers():
    for status in registry.listing():
        if status.kind == "solver":
            missing = pytest.mark.skipif(status.state != "available", reason=status.detail)
            yield pytest.param(status.name, marks=missing)


@pytest.mark.parametrize("name", list(solvers()))
@pytest.mark.parametrize("check", solver_kit.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("checked", [False, True], ids=["raw", "checked"])
def test_conformance(name, check, checked):
    solver = registry.solver(name)
    check(CheckedSolver(solver) if checked else solver)


@pytest.mark.parametrize("check", SMALL, ids=lambda check: check.__name__)
def test_the_reference_solver_conforms(check):
    check(ReferenceSolver())
    check(CheckedSolver(ReferenceSolver()))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_the_kit_catches_every_wrong_solver(fault):
    inner = registry.solver("scip" if fault is ignores_lazy_rows and find_spec("pyscipopt") else "highs")
    if fault is ignores_lazy_rows and Capability.LAZY_ROWS not in inner.capabilities:
        pytest.skip("no solver that takes lazy rows is installed")
    solver = WrongSolver(inner, fault)
    caught = []
    for check in solver_kit.CHECKS:
        try:
            check(solver)
        except (AssertionError, RuntimeError) as error:
            caught.append((check.__name__, error))
        except AttributeError:  # the kit's own accident over what is no answer: it does not count as caught
            continue
    assert caught, f"{fault.__name__} passed the whole kit"


class Raising:
    name = "raising"
    capabilities = frozenset()

    def load(self, problem, *, seed=0):
        raise OSError("no licence")


def test_the_checked_solver_turns_exceptions_into_failures_and_says_so_once():
    told = []
    solver = CheckedSolver(Raising(), told.append)
    for _ in range(3):
        session = solver.load(problems.knapsack().problem)
        assert session.maximize(Question(problems.knapsack().objective)).stop is Stop.FAILED
        session.close()
    assert len(told) == 1
    assert "no licence" in told[0]


class Fixed:
    """Answers everything with one result."""

    name = "fixed"
    capabilities = frozenset(Capability)

    def __init__(self, answer):
        self.answer = answer

    def load(self, problem, *, seed=0):
        return self

    def maximize(self, question):
        return self.answer

    def close(self):
        pass


def test_a_bound_below_the_solvers_own_point_is_dropped_and_named_once():
    known, told = problems.knapsack(), []
    lie = SolverResult(Stop.OPTIMAL, point=np.array([1.0, 1.0, 0.0]), dual_bound=3.0)
    session = CheckedSolver(Fixed(lie), told.append).load(known.problem)
    for _ in range(2):
        answer = session.maximize(Question(known.objective))
        assert answer.dual_bound is None
        assert answer.point is not None
    assert len(told) == 1
    assert "'fixed' is not to be believed" in told[0]


def test_row_duals_of_the_wrong_length_are_dropped_and_named():
    known, told = problems.continuous(), []
    lie = SolverResult(Stop.OPTIMAL, np.array([3.0, 1.0]), 14.0, row_duals=np.ones(7))
    answer = CheckedSolver(Fixed(lie), told.append).load(known.problem).maximize(Question(known.objective))
    assert answer.row_duals is None
    assert "7 row duals" in told[0]


class NotANumber(Fixed):
    def maximize(self, question):
        return SolverResult(Stop.TIME_LIMIT, dual_bound=float("nan"))


def test_nan_is_a_failure_and_named():
    known, told = problems.knapsack(), []
    solver = CheckedSolver(NotANumber(None), told.append)
    assert solver.load(known.problem).maximize(Question(known.objective)).stop is Stop.FAILED
    assert "'fixed' failed" in told[0]
    assert "NaN" in told[0]


@pytest.mark.parametrize("point", [np.zeros(2), np.zeros(4)])
def test_a_point_of_the_wrong_size_is_a_failure(point):
    known = problems.knapsack()
    lie = SolverResult(Stop.OPTIMAL, point=point, dual_bound=9.0)
    assert CheckedSolver(Fixed(lie)).load(known.problem).maximize(Question(known.objective)).stop is Stop.FAILED


def test_stops_are_emulated_after_the_fact():
    known = problems.knapsack()
    session = CheckedSolver(ReferenceSolver()).load(known.problem)
    assert session.maximize(Question(known.objective, stop_above=3.0)).stop is Stop.ABOVE
    assert session.maximize(Question(known.objective, stop_below=20.0)).stop is Stop.BELOW
    assert session.maximize(Question(known.objective, stop_above=20.0, stop_below=1.0)).stop is Stop.OPTIMAL


class Stateless(ReferenceSolver):
    """Cannot change anything: every question needs a new session."""

    capabilities = frozenset()

    def load(self, problem, *, seed=0):
        inner = super().load(problem)
        asked = []

        class Session:
            def maximize(self, question):
                assert not asked, "asked twice in one session"
                assert question.lower is None
                assert question.upper is None
                assert question.stop_above is None
                assert question.stop_below is None
                assert question.start is None
                assert question.lazy is None
                asked.append(1)
                return inner.maximize(question)

            def close(self):
                pass

        return Session()


@pytest.mark.parametrize("check", SMALL, ids=lambda check: check.__name__)
def test_what_a_solver_lacks_is_emulated(check):
    check(CheckedSolver(Stateless()))


class OldStyle(ReferenceSolver):
    """Its sessions are asked as they were before there was a question."""

    name = "old"
    capabilities = ReferenceSolver.capabilities | {Capability.ROW_DUALS}

    def load(self, problem, *, seed=0):
        inner = super().load(problem)

        class Session:
            def maximize(self, objective, *, time_limit=None, lower=None, upper=None):
                return inner.maximize(Question(objective, lower=lower, upper=upper))

            def close(self):
                inner.close()

        return Session()


class TestSessionsThatTakeNoQuestion:
    """They are named, with what to change."""

    SAID = r"'old' cannot be asked.*maximize\(objective, time_limit, lower, upper\).*def maximize\(self, question\)"

    def test_by_the_kit(self):
        with pytest.raises(AssertionError, match=self.SAID):
            solver_kit.takes_a_question(OldStyle())

    def test_when_asked(self):
        known, told = problems.knapsack(), []
        session = CheckedSolver(OldStyle(), told.append).load(known.problem)
        for _ in range(2):
            with pytest.raises(ProtocolError, match=self.SAID):
                session.maximize(Question(known.objective))
        session.close()
        assert not told

    @pytest.mark.parametrize("strategy", ["paper", "isa", "cascade"])
    @pytest.mark.parametrize("jobs", [1, 2])
    def test_in_a_run(self, strategy, jobs):
        network, box = chain(10, 20, 20, 1, seed=2), Box.uniform(-0.25, 0.25, 10)  # the cascade asks a solver, too
        with pytest.raises(ProtocolError, match=self.SAID):
            decide(network, box, strategy=strategy, solver=OldStyle(), executor=Pool(jobs))

    def test_in_a_cross_check(self, monkeypatch):
        monkeypatch.setattr(registry, "_registered", {})
        registry.register_solver(SolverSpec("old", "of before", OldStyle))
        with pytest.raises(ProtocolError, match=self.SAID):
            leo_core.cross_check(chain(2, 6, 6, 1, seed=4), (-1, 1), ("scipy", "old"))

    @pytest.mark.parametrize("maximize", [lambda _question: None, lambda *_given: None, np.add])
    def test_others_are_not_named(self, maximize):
        assert not outdated(SimpleNamespace(maximize=maximize))


class TestQuestions:
    def test_arrays_are_copies_that_nobody_writes_to(self):
        objective, lower = np.ones(3), [0, 1, 2]
        question = Question(objective, lower=lower)
        objective[0] = 7.0
        assert question.objective.tolist() == [1.0, 1.0, 1.0]
        assert question.lower.dtype == np.float64
        with pytest.raises(ValueError, match="read-only"):
            question.objective[0] = 7.0
        assert question.upper is None

    def test_column_bounds_are_its_own_or_the_problems(self):
        problem = problems.knapsack().problem
        question = Question(np.zeros(3), upper=np.full(3, 0.5))
        assert not Question(np.zeros(3)).bounded
        assert question.bounded
        lower, upper = question.column_bounds(problem)
        assert lower is problem.lower
        assert upper.tolist() == [0.5, 0.5, 0.5]

    def test_only_the_objective_is_given_without_its_name(self):
        with pytest.raises(TypeError, match="positional"):
            Question(np.zeros(3), 1.0)


class TestResultsThatCannotBe:
    def test_nan(self):
        with pytest.raises(ValueError, match="NaN"):
            SolverResult(Stop.TIME_LIMIT, dual_bound=float("nan"))
        with pytest.raises(ValueError, match="finite"):
            SolverResult(Stop.OPTIMAL, point=np.array([np.nan]))

    @pytest.mark.parametrize("stop", [Stop.FAILED, Stop.INFEASIBLE, Stop.UNBOUNDED])
    def test_numbers_without_a_solution(self, stop):
        with pytest.raises(ValueError, match="neither"):
            SolverResult(stop, dual_bound=1.0)

    def test_optimal_without_a_point(self):
        with pytest.raises(ValueError, match="point"):
            SolverResult(Stop.OPTIMAL, dual_bound=1.0)

    @pytest.mark.parametrize("field", ["row_lower", "row_upper", "lower", "upper"])
    def test_problems_with_nan(self, field):
        arrays = {"row_lower": [0.0], "row_upper": [1.0], "lower": [0.0], "upper": [1.0], field: [np.nan]}
        with pytest.raises(ValueError, match=field):
            MilpProblem(matrix=np.ones((1, 1)), integer=np.array([False]), **arrays)


def test_a_missing_package_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("leo_core.plugins.registry.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r'pip install --editable ".*\[highs\]"'):
        registry.solver("highs")


class TestSolversThatDoNotReturn:
    """They are named, left behind, and not asked again; nothing waits for them."""

    @pytest.fixture(autouse=True)
    def _impatient(self, monkeypatch):
        monkeypatch.setattr("leo_core.milp.checked.LATE", 0.2)
        monkeypatch.setattr("leo_core.milp.checked.GIVE_UP", 0.2)

    def test_one_that_minds_no_limit_is_given_up(self):
        told = []
        known = problems.knapsack()
        solver = CheckedSolver(WrongSolver(ReferenceSolver(), hangs), told.append)
        session = solver.load(known.problem)
        assert session.maximize(Question(known.objective, time_limit=0.1)).stop is Stop.FAILED
        session.close()
        assert "wrong: hangs" in told[0]
        assert "did not return" in told[0]
        threads = threading.active_count()
        assert solver.load(known.problem).maximize(Question(known.objective)).stop is Stop.FAILED
        assert threading.active_count() == threads  # it was not asked again
        assert len(told) == 1

    @pytest.mark.parametrize("strategy", ["paper", "isa", "cascade"])
    def test_no_verdict_rests_on_it(self, strategy):
        notes = []
        network = chain(2, 6, 6, 1, seed=4)
        solver = WrongSolver(ReferenceSolver(), hangs)
        found = decide(network, Box.uniform(-1, 1, 2), strategy=strategy, solver=solver, budget=Budget.of(1.0),
                       listener=lambda event: notes.append(getattr(event, "text", "")))  # fmt: skip
        truth = decide(network, Box.uniform(-1, 1, 2), solver=ReferenceSolver())
        assert not cross_checked(found, truth).disagreements
        if strategy != "cascade":  # which may need no solver
            assert any("did not return" in note for note in notes)

    @pytest.mark.parametrize("name", list(solvers()))
    def test_ctrl_c_is_heard_while_compiled_code_runs(self, name, monkeypatch):
        monkeypatch.setattr("leo_core.milp.checked.GIVE_UP", 2.0)  # a busy machine may take a while to interrupt
        known = problems.hard()
        session = CheckedSolver(registry.solver(name)).load(known.problem)
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
        begun = time.monotonic()
        try:
            timer.start()
            with pytest.raises(KeyboardInterrupt):
                session.maximize(Question(known.objective, time_limit=300.0))
        finally:
            timer.cancel()
            signal.signal(signal.SIGINT, before)
        assert time.monotonic() - begun < 150  # not by its own limit
        if Capability.INTERRUPT in session._solver.capabilities:  # it has really ended, so that the next can begin
            assert session.maximize(Question(known.objective, time_limit=0.3)).stop is Stop.TIME_LIMIT
        session.close()
