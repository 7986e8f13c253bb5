"""The protocol a MILP solver speaks: load a problem once, then maximise many objectives."""

from __future__ import annotations

from enum import Enum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from leo_core.milp.problem import MilpProblem
from leo_core.milp.result import SolverResult

Array = NDArray[np.float64]


class Capability(Enum):
    """What a solver can do itself. The core emulates what is missing; the adapter never does."""

    EARLY_STOP = "stops during a solve on either side"
    OBJECTIVE_CHANGE = "takes a new objective without a rebuild"
    BOUND_CHANGE = "takes new column bounds without a rebuild"
    ROW_DUALS = "returns row duals, or a dual ray, of programs without integers"
    EXACT = "solves over the rationals"


class SolverSession(Protocol):
    """One loaded problem. Not thread-safe; ``close`` frees it and may be called twice."""

    def maximize(
        self,
        objective: Array,
        *,
        stop_above: float | None = None,
        stop_below: float | None = None,
        time_limit: float | None = None,
        lower: Array | None = None,
        upper: Array | None = None,
    ) -> SolverResult:
        """Maximise ``objective`` · x.

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
