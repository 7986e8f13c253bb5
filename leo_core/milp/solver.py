"""The protocol a MILP solver speaks: load a problem once, then maximise many objectives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from leo_core.milp.problem import MilpProblem
from leo_core.milp.result import SolverResult

Array = NDArray[np.float64]


class Capability(Enum):
    """What a solver can do itself.

    The core makes up for what is missing, the adapter never does: it compares stops after the fact, rebuilds, takes
    duals from SciPy, and leaves out an argument that needs a capability the solver lacks.
    """

    EARLY_STOP = "stops during a solve on either side"
    OBJECTIVE_CHANGE = "takes a new objective without a rebuild"
    BOUND_CHANGE = "takes new column bounds without a rebuild"
    ROW_DUALS = "returns row duals, or a dual ray, of programs without integers"
    WARM_START = "starts from a given point"
    LAZY_ROWS = "takes rows that are added, by a callback, when a candidate violates them"
    INTERRUPT = "ends a solve when another thread calls interrupt()"
    THREADS = "sessions of their own may solve in several threads at once"
    EXACT = "solves over the rationals"


@final
@dataclass(frozen=True, eq=False)
class LazyRow:
    """coefficients · x ≥ lower, which a candidate violates; coefficients has one entry per column."""

    coefficients: Array
    lower: float


#: Told of each candidate that satisfies everything known so far: a row that it violates, or None to accept it.
Lazy: TypeAlias = Callable[[Array], LazyRow | None]


class SolverSession(Protocol):
    """One loaded problem, used by one thread at a time; ``close`` frees it and may be called twice.

    Solves run in a thread of their own, so that LEO keeps to time limits and hears Ctrl-C whatever a solver does. With
    INTERRUPT a session also has ``interrupt()``, which another thread calls to end a solve early.
    """

    def maximize(
        self,
        objective: Array,
        *,
        stop_above: float | None = None,
        stop_below: float | None = None,
        time_limit: float | None = None,
        lower: Array | None = None,
        upper: Array | None = None,
        start: Array | None = None,
        lazy: Lazy | None = None,
    ) -> SolverResult:
        """Maximise ``objective`` · x.

        Only what the solver's capabilities name is passed; a solver without WARM_START needs no ``start``, say.

        Parameters
        ----------
        objective:
            One coefficient per column.
        stop_above:
            End with :attr:`Stop.ABOVE` as soon as a feasible point with a larger value is known.
        stop_below:
            End with :attr:`Stop.BELOW` as soon as the dual bound is not larger than this.
        time_limit:
            Seconds for this solve.
        lower, upper:
            Column bounds for this solve and no other, in place of the problem's own.
        start:
            A point that may be feasible, to begin with. One that is not is no error.
        lazy:
            For programs with integers. What it raises ends the solve and is raised from here.
        """
        ...

    def close(self) -> None: ...


class Solver(Protocol):
    """A factory of sessions, with what it can do."""

    @property
    def name(self) -> str: ...
    @property
    def capabilities(self) -> frozenset[Capability]: ...
    def load(self, problem: MilpProblem, *, seed: int = 0) -> SolverSession: ...
