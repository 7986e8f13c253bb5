"""SCIP through PySCIPOpt: mixed-integer programs by SCIP itself, continuous ones by the LP solver inside it.

Facts measured on 10.0 that shaped this: ``limits/primal`` and ``limits/dual`` also stop a little on the wrong side
(within SCIP's epsilon), so they are set a little beyond what is asked; ``freeTransform`` restarts the clock and
keeps solutions, which SCIP checks anew; ``optimizeNogil`` frees the GIL; SCIP's own Ctrl-C handler would replace
that of the host, so it is off. The wheels have no exact mode.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leo_core.errors import MissingExtraError, SolverError
from leo_core.milp.problem import MilpProblem
from leo_core.milp.question import Lazy, Question
from leo_core.milp.result import SolverResult, Stop
from leo_core.milp.solver import Capability, SolverSession
from leo_core.plugins import SolverSpec, hookimpl

Array = NDArray[np.float64]

#: SCIP's 'no limit', and its epsilon with room to spare.
_NEVER, _EPSILON = 1e99, 4e-9
#: After all of SCIP's own constraint handlers: only what they let pass is a candidate.
_LAST = -10_000_000


@hookimpl
def leo_solver() -> SolverSpec:
    """Describe SCIP."""
    return SolverSpec(
        name="scip",
        summary="SCIP, open-source MILP solver, through PySCIPOpt",
        create=ScipSolver,
        packages=("pyscipopt",),
        extra="scip",
    )


class ScipSolver:
    """Loads problems into SCIP, one thread each."""

    name = "scip"

    def __init__(self) -> None:
        self.capabilities = frozenset(
            {
                Capability.EARLY_STOP,
                Capability.OBJECTIVE_CHANGE,
                Capability.BOUND_CHANGE,
                Capability.ROW_DUALS,
                Capability.WARM_START,
                Capability.LAZY_ROWS,
                Capability.INTERRUPT,
                Capability.THREADS,
            }
        ) | ({Capability.EXACT} if _has_exact_mode() else set())

    def load(self, problem: MilpProblem, *, seed: int = 0) -> SolverSession:
        if problem.integer.any():
            return ScipSession(problem, seed)
        return ScipLpSession(problem, seed)


class ScipSession:
    """One program with integers in one SCIP object."""

    def __init__(self, problem: MilpProblem, seed: int) -> None:
        scip = _pyscipopt()
        self._problem = problem
        self._model = scip.Model()
        self._model.hideOutput()
        for name, value in {
            "numerics/feastol": 1e-9,
            "numerics/dualfeastol": 1e-9,
            "parallel/maxnthreads": 1,
            "lp/threads": 1,
            "randomization/randomseedshift": seed % (1 << 31),
            "timing/clocktype": 2,  # wall clock
            "misc/catchctrlc": False,
        }.items():
            self._model.setParam(name, value)
        self._columns = [
            self._model.addVar(vtype="I" if whole else "C", lb=_side(low), ub=_side(high))
            for whole, low, high in zip(problem.integer, problem.lower, problem.upper, strict=True)
        ]
        self._terms = [scip.scip.Term(column) for column in self._columns]
        matrix = problem.matrix
        for row, (low, high) in enumerate(zip(problem.row_lower, problem.row_upper, strict=True)):
            span = slice(matrix.indptr[row], matrix.indptr[row + 1])
            if np.isinf(low) and np.isinf(high):
                continue
            self._add_row(matrix.indices[span], matrix.data[span], low, high)
        self._inner: ScipSession | None = None  # the one that takes lazy rows

    def maximize(self, question: Question) -> SolverResult:
        """See :class:`leo_core.milp.solver.SolverSession`."""
        if self._model is None:
            raise SolverError("scip: the session is closed")
        begun, model, problem = time.monotonic(), self._model, self._problem
        if question.lazy is not None:
            return self._excluding(question.lazy, replace(question, lazy=None))
        model.freeTransform()
        lower, upper = question.column_bounds(problem)
        if (lower > upper).any():
            return SolverResult(Stop.INFEASIBLE, raw_status="a lower bound is above its upper bound")
        self._set_bounds(lower, upper)
        self._set_objective(question.objective)
        stops = (("limits/primal", question.stop_above, 1.0), ("limits/dual", question.stop_below, -1.0))
        for name, limit, beyond in stops:
            step = 0.0 if limit is None else beyond * _EPSILON * max(1.0, abs(limit))
            model.setParam(name, beyond * _NEVER if limit is None else limit + step)
        seconds = question.time_limit
        model.setParam("limits/time", 1e20 if seconds is None else min(max(0.0, seconds), 1e20))
        if question.start is not None:
            self._begin_from(question.start)
        model.optimizeNogil()
        return self._answer(question, time.monotonic() - begun)

    def interrupt(self) -> None:
        """End the solve that is going on at SCIP's next check."""
        for session in (self, self._inner):
            if session is not None and session._model is not None:
                session._model.interruptSolve()

    def close(self) -> None:
        """Free the SCIP object."""
        self._model, self._columns, self._terms = None, [], []

    def _answer(self, question: Question, seconds: float) -> SolverResult:
        model, raw = self._model, str(self._model.getStatus())
        nodes = int(model.getNTotalNodes())
        stops = {
            "optimal": Stop.OPTIMAL,
            "infeasible": Stop.INFEASIBLE,
            "unbounded": Stop.UNBOUNDED,
            "timelimit": Stop.TIME_LIMIT,
            "primallimit": Stop.INTERRUPTED,
            "duallimit": Stop.INTERRUPTED,
            "userinterrupt": Stop.INTERRUPTED,
            "memlimit": Stop.INTERRUPTED,
        }
        stop = stops.get(raw, Stop.FAILED)
        if stop in (Stop.INFEASIBLE, Stop.UNBOUNDED, Stop.FAILED):
            return SolverResult(stop, nodes=nodes, seconds=seconds, raw_status=raw)
        point = self._point()
        bound = float(model.getDualbound())
        known = bound if abs(bound) < model.infinity() else None
        if stop is Stop.OPTIMAL and (point is None or known is None):
            return SolverResult(Stop.FAILED, nodes=nodes, seconds=seconds, raw_status=raw)
        answer = SolverResult(stop, point, known, nodes=nodes, seconds=seconds, raw_status=raw)
        return answer.compared(question)

    def _point(self) -> Array | None:
        if not self._model.getNSols():
            return None
        best = self._model.getBestSol()
        point = np.array([self._model.getSolVal(best, column) for column in self._columns], dtype=np.float64)
        return point if np.isfinite(point).all() else None

    def _begin_from(self, start: Array) -> None:
        solution = self._model.createSol()
        for column, value in zip(self._columns, start.tolist(), strict=True):
            self._model.setSolVal(solution, column, value)
        self._model.addSol(solution)

    def _set_bounds(self, low: Array, high: Array) -> None:
        for column, below, above in zip(self._columns, low, high, strict=True):
            if column.getLbOriginal() != below:
                self._model.chgVarLb(column, _side(below))
            if column.getUbOriginal() != above:
                self._model.chgVarUb(column, _side(above))

    def _set_objective(self, objective: Array) -> None:
        expression = _pyscipopt().Expr({self._terms[at]: float(objective[at]) for at in np.flatnonzero(objective)})
        self._model.setObjective(expression, "maximize")

    def _add_row(self, columns: Any, values: Any, low: float, high: float) -> Any:
        scip = _pyscipopt()
        terms = {self._terms[at]: float(value) for at, value in zip(columns, values, strict=True)}
        return self._model.addCons(scip.scip.ExprCons(scip.Expr(terms), lhs=_side(low), rhs=_side(high)))

    def _excluding(self, lazy: Lazy, question: Question) -> SolverResult:
        """In an object of its own: rows that a callback adds must not be there in the next solve."""
        session = self._inner = ScipSession(self._problem, self._model.getParam("randomization/randomseedshift"))
        try:
            handler = session._exclude(lazy)
            answer = session.maximize(question)
            if handler.raised is not None:
                raise handler.raised
            return answer
        finally:
            self._inner = None
            session.close()

    def _exclude(self, lazy: Lazy) -> Any:
        """Include a constraint handler that asks ``lazy`` about every candidate."""
        handler = _exclusion_handler(lazy, self._columns, self._add_row)
        # It wants to see every candidate, so nothing may be left out because it looks dominated.
        for name, value in {
            "misc/allowstrongdualreds": False,
            "misc/allowweakdualreds": False,
            "misc/usesymmetry": 0,
        }.items():
            self._model.setParam(name, value)
        self._model.includeConshdlr(
            handler,
            "exclusion",
            "rows added by a callback",
            enfopriority=_LAST,
            chckpriority=_LAST,
            needscons=False,
        )
        return handler


def _exclusion_handler(lazy: Lazy, columns: list[Any], add_row: Any) -> Any:
    scip = _pyscipopt()
    result = scip.SCIP_RESULT

    class Exclusion(scip.Conshdlr):  # type: ignore[misc,name-defined]
        """Rows are added where SCIP allows it: what a check finds waits for the next enforcement."""

        raised: BaseException | None = None

        def __init__(self) -> None:
            self.waiting: list[Any] = []

        def violated(self, solution: Any) -> bool:
            if self.raised is not None:
                return False
            try:
                row = lazy(np.array([self.model.getSolVal(solution, column) for column in columns]))
            except BaseException as error:  # must not travel through SCIP; it is raised after the solve
                self.raised = error
                self.model.interruptSolve()
                return False
            if row is not None:
                self.waiting.append(row)
            return row is not None

        def enforce(self) -> dict[str, Any]:
            if not self.waiting and not self.violated(None):
                return {"result": result.FEASIBLE}
            rows, self.waiting = self.waiting, []
            for row in rows:
                used = np.flatnonzero(row.coefficients)
                if not len(used):
                    if row.lower > 0:
                        return {"result": result.CUTOFF}
                    continue
                add_row(used, row.coefficients[used], row.lower, np.inf)
            return {"result": result.CONSADDED}

        def conscheck(self, constraints, solution, *_ignored):  # type: ignore[no-untyped-def]  # noqa: ARG002
            return {"result": result.INFEASIBLE if self.violated(solution) else result.FEASIBLE}

        def consenfolp(self, *_ignored):  # type: ignore[no-untyped-def]
            return self.enforce()

        def consenfops(self, *_ignored):  # type: ignore[no-untyped-def]
            return self.enforce()

        def conslock(self, constraint, locktype, up, down):  # type: ignore[no-untyped-def]  # noqa: ARG002
            for column in columns:
                self.model.addVarLocks(column, up + down, up + down)

    return Exclusion()


class ScipLpSession:
    """One continuous program in SCIP's LP solver, which goes on from its last basis."""

    def __init__(self, problem: MilpProblem, seed: int) -> None:
        scip = _pyscipopt()
        self._problem, self._parameters = problem, scip.SCIP_LPPARAM
        self._lp = scip.LP("leo", sense="maximize")
        for parameter in (self._parameters.FEASTOL, self._parameters.DUALFEASTOL):
            self._lp.setRealParam(parameter, 1e-9)
        with contextlib.suppress(Exception):  # not every LP solver that SCIP may be built with has one
            self._lp.setIntParam(self._parameters.RANDOMSEED, seed % (1 << 31))
        infinity = self._lp.infinity()
        clipped = [np.clip(side, -infinity, infinity) for side in (problem.lower, problem.upper)]
        self._lp.addCols([[] for _ in range(problem.columns)], objs=[0.0] * problem.columns, lbs=clipped[0].tolist(),
                         ubs=clipped[1].tolist())  # fmt: skip
        matrix = problem.matrix
        entries = [
            list(zip(matrix.indices[a:b].tolist(), matrix.data[a:b].tolist(), strict=True))
            for a, b in zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True)
        ]
        sides = [np.clip(side, -infinity, infinity).tolist() for side in (problem.row_lower, problem.row_upper)]
        if entries:
            self._lp.addRows(entries, lhss=sides[0], rhss=sides[1])
        self._objective = np.zeros(problem.columns)
        self._lower, self._upper = problem.lower, problem.upper

    def maximize(self, question: Question) -> SolverResult:
        """See :class:`leo_core.milp.solver.SolverSession`; a start is of no use to the simplex method."""
        if self._lp is None:
            raise SolverError("scip: the session is closed")
        if question.lazy is not None:
            raise SolverError("scip: lazy rows are for programs with integers")
        begun, lp, problem = time.monotonic(), self._lp, self._problem
        lower, upper = question.column_bounds(problem)
        if (lower > upper).any():
            return SolverResult(Stop.INFEASIBLE, raw_status="a lower bound is above its upper bound")
        self._change(question.objective, lower, upper)
        limit = 1e20 if question.time_limit is None else min(max(1e-6, question.time_limit), 1e20)
        lp.setRealParam(self._parameters.LPTILIM, limit)
        lp.solve()
        seconds = time.monotonic() - begun
        if lp.isOptimal():
            point = np.array(lp.getPrimal())
            duals = np.array(lp.getDual()) if problem.rows else np.zeros(0)
            known = duals if np.isfinite(duals).all() else None
            value = float(question.objective @ point)
            answer = SolverResult(Stop.OPTIMAL, point, value, known, seconds=seconds, raw_status="optimal")
            return answer.compared(question)
        ray = self._dual_ray(lower, upper)
        if ray is not None:
            return SolverResult(Stop.INFEASIBLE, row_duals=ray, seconds=seconds, raw_status="infeasible")
        if lp.isPrimalFeasible() and lp.getPrimalRay() is not None:
            return SolverResult(Stop.UNBOUNDED, seconds=seconds, raw_status="unbounded")
        late = seconds >= limit
        return SolverResult(Stop.TIME_LIMIT if late else Stop.FAILED, seconds=seconds, raw_status="not solved")

    def interrupt(self) -> None:
        """SCIP's LP solver cannot be interrupted; an LP ends soon, or at its time limit."""

    def close(self) -> None:
        """Free the LP."""
        self._lp = None

    def _change(self, objective: Array, low: Array, high: Array) -> None:
        infinity = self._lp.infinity()
        for column in np.flatnonzero(objective != self._objective).tolist():
            self._lp.chgObj(column, float(objective[column]))
        for column in np.flatnonzero((low != self._lower) | (high != self._upper)).tolist():
            ends = (float(np.clip(side[column], -infinity, infinity)) for side in (low, high))
            self._lp.chgBound(column, *ends)
        self._objective, self._lower, self._upper = objective, low, high

    def _dual_ray(self, low: Array, high: Array) -> Array | None:
        """Row multipliers that prove that there is no point; None when the LP solver has none that do."""
        found = self._lp.getDualRay() if self._problem.rows else None
        if found is None or not np.isfinite(found).all():
            return None
        ray, value = self._problem.oriented(np.array(found), low, high)
        return ray if value < 0 else None


def _side(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


@cache
def _has_exact_mode() -> bool:
    """Whether this SCIP can be switched to exact arithmetic: found by trying, quietly."""
    model = _pyscipopt().Model()
    spoken, silence = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(silence, 2)  # SCIP says on stderr that it cannot
        model.enableExactSolving(True)
    except Exception:
        return False
    finally:
        os.dup2(spoken, 2)
        os.close(spoken)
        os.close(silence)
    return True


def _pyscipopt() -> Any:
    try:
        import pyscipopt
    except ImportError as error:
        if error.name == "pyscipopt":
            raise MissingExtraError("the solver 'scip'", "pyscipopt", "scip") from None
        raise SolverError(f"pyscipopt is installed but cannot be imported: {error}") from error
    return pyscipopt
