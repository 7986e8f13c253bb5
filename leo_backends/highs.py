"""HiGHS through ``highspy``.

A maximisation is passed as the minimisation of −c, so every number HiGHS reports is negated once, here.
Facts measured on 1.16 that shaped this: a second ``threads`` value in one process fails silently, so it is
always 1; ``objective_bound`` does nothing for MIPs, so early stops go through callbacks; a banner is
printed unless output is off before the first callback is enabled; ``run()`` frees the GIL.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leo_core.errors import MissingExtraError, OutputError, SolverError
from leo_core.milp.problem import MilpProblem, NamedProblem
from leo_core.milp.question import Question
from leo_core.milp.result import SolverResult, Stop
from leo_core.milp.solver import Capability, SolverSession
from leo_core.plugins import SolverSpec, hookimpl

Array = NDArray[np.float64]


@hookimpl
def leo_solver() -> SolverSpec:
    """Describe HiGHS."""
    return SolverSpec(
        name="highs",
        summary="HiGHS, open-source MILP and LP solver",
        create=HighsSolver,
        packages=("highspy",),
        extra="highs",
        write_problem=write_problem,
    )


def write_problem(named: NamedProblem, path: Path) -> None:
    """Write a program to a ``.mps`` or ``.lp`` file; HiGHS writes floats with all their digits.

    Raises :class:`OutputError` where it cannot.
    """
    highspy, highs, problem = _highspy(), _quiet_highs(), named.problem
    highs.setOptionValue("small_matrix_value", 1e-12)  # it would drop what is smaller than 1e-9
    model = _model(problem)
    model.col_cost_, model.sense_ = named.objective, highspy.ObjSense.kMaximize
    model.col_names_, model.row_names_ = list(named.columns), list(named.rows)
    if highs.passModel(model) == highspy.HighsStatus.kError:
        raise SolverError("highs: the model was refused; are its numbers too large?")
    if highs.writeModel(str(path)) == highspy.HighsStatus.kError:
        raise OutputError(f"{path}: cannot be written by HiGHS")


class HighsSolver:
    """Loads problems into HiGHS, one thread each."""

    name = "highs"
    capabilities = frozenset(
        {
            Capability.EARLY_STOP,
            Capability.OBJECTIVE_CHANGE,
            Capability.BOUND_CHANGE,
            Capability.ROW_DUALS,
            Capability.WARM_START,
            Capability.INTERRUPT,
            Capability.THREADS,
        }
    )

    def __init__(self) -> None:
        _highspy()

    def load(self, problem: MilpProblem, *, seed: int = 0) -> SolverSession:
        return HighsSession(problem, seed)


class HighsSession:
    """One problem in one HiGHS object; continuous problems restart from the last basis."""

    def __init__(self, problem: MilpProblem, seed: int) -> None:
        self._problem = problem
        self._is_mip = bool(problem.integer.any())
        self._columns = np.arange(problem.columns, dtype=np.int32)
        self._highs = _quiet_highs()
        self._option("threads", 1)
        self._option("random_seed", seed)
        if self._is_mip:
            self._option("mip_rel_gap", 0.0)
            self._option("mip_abs_gap", 1e-9)
            self._option("mip_feasibility_tolerance", 1e-9)
        else:
            self._option("solver", "simplex")
            self._option("presolve", "off")  # presolve would drop the basis and the dual ray
        self._option("primal_feasibility_tolerance", 1e-9)
        self._option("dual_feasibility_tolerance", 1e-9)
        self._pass_model()
        self._watch: _Watch | None = None
        self._highs.setCallback(self._on_event, None)
        for kind in _watched_events(self._is_mip):
            self._highs.startCallback(kind)

    def maximize(self, question: Question) -> SolverResult:
        """See :class:`leo_core.milp.solver.SolverSession`."""
        if self._highs is None:
            raise SolverError("highs: the session is closed")
        highs, problem, limit = self._highs, self._problem, question.time_limit
        begun = time.monotonic()
        if self._is_mip:
            highs.clearSolver()  # a MIP starts afresh: the last answer must not leak into this one
        highs.changeColsCost(len(self._columns), self._columns, -question.objective)
        if question.bounded:
            highs.changeColsBounds(len(self._columns), self._columns, *question.column_bounds(problem))
        if question.start is not None and self._is_mip:
            begin = _highspy().HighsSolution()
            begin.col_value = question.start.tolist()
            highs.setSolution(begin)
        # HiGHS counts its time limit from the object's first run, not from this one.
        self._option("time_limit", float(np.inf if limit is None else highs.getRunTime() + max(0.0, limit)))
        self._watch = _Watch(question, np.inf if limit is None else begun + limit)
        try:
            highs.run()
            if self._watch.raised is not None:
                raise self._watch.raised
            return self._answer(self._watch, time.monotonic() - begun)
        finally:
            self._watch = None
            if question.bounded:
                highs.changeColsBounds(len(self._columns), self._columns, problem.lower, problem.upper)

    def interrupt(self) -> None:
        """End the solve that is going on at its next callback; does nothing when there is none."""
        watch = self._watch
        if watch is not None:
            watch.interrupted = True

    def close(self) -> None:
        """Free the HiGHS object."""
        if self._highs is not None:
            self._highs.setCallback(None, None)
            self._highs.clear()
            self._highs = None

    def _answer(self, watch: _Watch, seconds: float) -> SolverResult:
        status = _highspy().HighsModelStatus
        model_status = self._highs.getModelStatus()
        raw = self._highs.modelStatusToString(model_status)
        info = self._highs.getInfo()
        nodes = max(0, int(info.mip_node_count)) if self._is_mip else 0

        def result(stop: Stop, **numbers: Any) -> SolverResult:
            return SolverResult(stop, **numbers, nodes=nodes, seconds=seconds, raw_status=raw)

        if model_status == status.kUnboundedOrInfeasible:
            return result(Stop.FAILED)
        if model_status == status.kInfeasible:
            ray = None if self._is_mip else self._dual_ray(*watch.question.column_bounds(self._problem))
            return result(Stop.INFEASIBLE, row_duals=ray)
        if model_status == status.kUnbounded:
            return result(Stop.UNBOUNDED)
        known = {
            status.kOptimal: Stop.OPTIMAL,
            status.kTimeLimit: Stop.TIME_LIMIT,
            status.kInterrupt: Stop.INTERRUPTED,
            status.kHighsInterrupt: Stop.INTERRUPTED,
        }
        if model_status not in known:
            return result(Stop.FAILED)
        stop = known[model_status]
        if stop is Stop.INTERRUPTED and time.monotonic() > watch.deadline:
            stop = Stop.TIME_LIMIT
        point = self._point(info, watch, optimal=stop is Stop.OPTIMAL)
        bound = self._bound(info, watch, optimal=stop is Stop.OPTIMAL)
        if stop is Stop.OPTIMAL and (point is None or bound is None):
            return result(Stop.FAILED)
        duals = None
        if not self._is_mip and model_status == status.kOptimal:
            solution = self._highs.getSolution()
            duals = _finite(-np.asarray(solution.row_dual)) if solution.dual_valid else None
        return result(stop, point=point, dual_bound=bound, row_duals=duals).compared(watch.question)

    def _point(self, info: Any, watch: _Watch, *, optimal: bool) -> Array | None:
        feasible = int(info.primal_solution_status) == 2  # kSolutionStatusFeasible
        if optimal or feasible:
            solution = self._highs.getSolution()
            if solution.value_valid and len(solution.col_value) == self._problem.columns:
                return _finite(np.asarray(solution.col_value))
        return watch.point

    def _bound(self, info: Any, watch: _Watch, *, optimal: bool) -> float | None:
        if self._is_mip:
            bound = -float(info.mip_dual_bound)
            bound = min(bound, watch.bound) if np.isfinite(bound) else watch.bound
            return bound if np.isfinite(bound) else None
        return -float(info.objective_function_value) if optimal else None

    def _dual_ray(self, lower: Array, upper: Array) -> Array | None:
        _, exists, ray = self._highs.getDualRay()
        ray = _finite(np.asarray(ray)) if exists else None
        if ray is None:
            return None
        return self._problem.oriented(ray, lower, upper)[0]

    def _on_event(self, kind: Any, _message: str, out: Any, into: Any, _user: Any) -> None:
        watch = self._watch
        if watch is None:
            return
        try:
            names = _highspy().cb.HighsCallbackType
            if kind == names.kCallbackMipImprovingSolution:
                solution = np.array(out.mip_solution, dtype=np.float64)
                if len(solution) == self._problem.columns and np.isfinite(solution).all():
                    watch.point, watch.value = solution, -float(out.objective_function_value)
            elif kind == names.kCallbackMipInterrupt:
                bound = -float(out.mip_dual_bound)
                if np.isfinite(bound):
                    watch.bound = min(watch.bound, bound)
            into.user_interrupt = watch.decided  # HiGHS keeps the flag of an earlier solve unless it is cleared
        except BaseException as error:  # an exception must not travel through HiGHS; it is raised after the run
            watch.raised = error
            into.user_interrupt = True

    def _option(self, name: str, value: Any) -> None:
        if self._highs.setOptionValue(name, value) != _highspy().HighsStatus.kOk:
            raise SolverError(f"highs: the option {name} = {value!r} was refused")

    def _pass_model(self) -> None:
        if self._highs.passModel(_model(self._problem)) == _highspy().HighsStatus.kError:
            raise SolverError("highs: the model was refused")


class _Watch:
    """What the callbacks of one solve have seen; ``deadline`` is on the monotonic clock, in seconds."""

    def __init__(self, question: Question, deadline: float) -> None:
        self.question, self.deadline = question, deadline
        self.point: Array | None = None
        self.value = -np.inf
        self.bound = np.inf
        self.raised: BaseException | None = None
        self.interrupted = False

    @property
    def decided(self) -> bool:
        stop_above, stop_below = self.question.stop_above, self.question.stop_below
        above = stop_above is not None and self.value > stop_above
        below = stop_below is not None and self.bound <= stop_below
        late = time.monotonic() > self.deadline  # HiGHS overruns its own limit by seconds
        return above or below or late or self.interrupted or self.raised is not None


def _model(problem: MilpProblem) -> Any:
    """A problem as HiGHS takes it, without an objective."""
    highspy = _highspy()
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = problem.columns, problem.rows
    model.col_cost_ = np.zeros(problem.columns)
    model.col_lower_, model.col_upper_ = problem.lower, problem.upper
    model.row_lower_, model.row_upper_ = problem.row_lower, problem.row_upper
    model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    model.a_matrix_.start_ = problem.matrix.indptr
    model.a_matrix_.index_ = problem.matrix.indices
    model.a_matrix_.value_ = problem.matrix.data
    if problem.integer.any():
        kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
        model.integrality_ = [kinds[int(whole)] for whole in problem.integer]
    return model


def _finite(values: Array) -> Array | None:
    return values if np.isfinite(values).all() else None


def _watched_events(is_mip: bool) -> tuple[Any, ...]:
    names = _highspy().cb.HighsCallbackType
    if is_mip:
        return names.kCallbackMipImprovingSolution, names.kCallbackMipInterrupt
    return ()


def _quiet_highs() -> Any:
    highspy = _highspy()

    class Quiet(highspy.Highs):  # type: ignore[misc,name-defined]
        def enableCallbacks(self) -> None:  # noqa: N802 - highspy's name; its constructor calls this, and it prints
            self.setOptionValue("output_flag", False)

    return Quiet()


def _highspy() -> Any:
    try:
        import highspy
    except ImportError as error:
        if error.name == "highspy":
            raise MissingExtraError("the solver 'highs'", "highspy", "highs") from None
        raise SolverError(f"highspy is installed but cannot be imported: {error}") from error
    return highspy
