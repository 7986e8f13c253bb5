"""What a solve says: why it stopped, a point if there is one, a bound if there is one.

Three separate answers. 'Not known' is None, never a number; NaN, and numbers on a failure,
cannot be constructed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import final

import numpy as np
from numpy.typing import NDArray

from leo_core.milp.question import Question

Array = NDArray[np.float64]


class Stop(Enum):
    """Why a solve ended."""

    OPTIMAL = "optimal"
    ABOVE = "a point above stop_above was found"
    BELOW = "the bound fell to stop_below or lower"
    INFEASIBLE = "infeasible"
    UNBOUNDED = "unbounded"
    TIME_LIMIT = "time limit"
    INTERRUPTED = "interrupted"
    FAILED = "failed"


_WITHOUT_NUMBERS = (Stop.INFEASIBLE, Stop.UNBOUNDED, Stop.FAILED)


@final
@dataclass(frozen=True, eq=False)
class SolverResult:
    """One answer to ``maximize``.

    Attributes
    ----------
    point:
        The best point found, one value per column, or None.
    dual_bound:
        An upper bound on the maximum, as the solver claims it, or None.
    row_duals:
        For a program without integers, optimal row multipliers y such that ``c − Aᵀy`` are the
        reduced costs of *maximising* c·x; or, when infeasible, a dual ray; None when not known.
    """

    stop: Stop
    point: Array | None = None
    dual_bound: float | None = None
    row_duals: Array | None = None
    nodes: int = 0
    seconds: float = 0.0
    raw_status: str = ""

    def __post_init__(self) -> None:
        for name in ("point", "row_duals"):
            value = getattr(self, name)
            if value is not None:
                array = np.array(value, dtype=np.float64)
                if not np.isfinite(array).all():
                    raise ValueError(f"a solver result's {name} must be finite")
                array.setflags(write=False)
                object.__setattr__(self, name, array)
        if self.dual_bound is not None and np.isnan(self.dual_bound):
            raise ValueError("a solver result's dual_bound is NaN; say None when it is not known")
        if self.stop in _WITHOUT_NUMBERS and (self.point is not None or self.dual_bound is not None):
            raise ValueError(f"a solve that ended '{self.stop.value}' has neither point nor bound")
        if self.stop in (Stop.OPTIMAL, Stop.ABOVE) and self.point is None:
            raise ValueError(f"a solve that ended '{self.stop.value}' needs its point")

    def compared(self, question: Question) -> SolverResult:
        """The same answer, ABOVE or BELOW where its point or its bound says so of the question's stops."""
        above, below = question.stop_above, question.stop_below
        if above is not None and self.point is not None and float(question.objective @ self.point) > above:
            return replace(self, stop=Stop.ABOVE)
        if below is not None and self.dual_bound is not None and self.dual_bound <= below:
            return replace(self, stop=Stop.BELOW)
        return self
