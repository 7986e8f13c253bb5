"""What a session is asked: one objective, with everything that one solve is to keep to, as one value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from leo_core.milp.problem import MilpProblem

Array = NDArray[np.float64]


@final
@dataclass(frozen=True, eq=False)
class LazyRow:
    """coefficients · x ≥ lower, which a candidate violates; coefficients has one entry per column."""

    coefficients: Array
    lower: float


#: Told of each candidate that satisfies everything known so far: a row that it violates, or None to accept it.
Lazy: TypeAlias = Callable[[Array], LazyRow | None]


@final
@dataclass(frozen=True, eq=False)
class Question:
    """Maximise ``objective`` · x over a loaded problem, for this solve and no other.

    A part that needs a capability is None where the solver does not declare that capability: see
    :class:`~leo_core.milp.checked.CheckedSolver`, which asks the rest otherwise. Arrays are float64, copies of what
    was given, and cannot be written to.

    Attributes
    ----------
    objective:
        (columns,): the coefficient of each column.
    stop_above:
        End with :attr:`~leo_core.milp.result.Stop.ABOVE` as soon as a feasible point with a larger value is known.
        Needs EARLY_STOP; without it the solve goes on to its end, and its answer is compared then.
    stop_below:
        End with :attr:`~leo_core.milp.result.Stop.BELOW` as soon as the dual bound is not larger than this. Needs
        EARLY_STOP, as above.
    time_limit:
        Seconds that the solve may take, None for any number. Every solver keeps to it.
    lower, upper:
        (columns,): column bounds in place of the problem's own, None for those. Need BOUND_CHANGE; without it a
        problem with these bounds is loaded.
    start:
        (columns,): a point to begin with, which may be feasible; one that is not is no error. Needs WARM_START; without
        it the solve begins anywhere.
    lazy:
        Asked about candidates, in programs with integers; what it raises ends the solve and is raised from
        ``maximize``. Needs LAZY_ROWS; without it :class:`~leo_core.errors.SolverError` is raised.
    """

    objective: Array
    _: KW_ONLY
    stop_above: float | None = None
    stop_below: float | None = None
    time_limit: float | None = None
    lower: Array | None = None
    upper: Array | None = None
    start: Array | None = None
    lazy: Lazy | None = None

    def __post_init__(self) -> None:
        for name in ("objective", "lower", "upper", "start"):
            value = getattr(self, name)
            if value is not None:
                array = np.array(value, dtype=np.float64)
                array.setflags(write=False)
                object.__setattr__(self, name, array)

    @property
    def bounded(self) -> bool:
        """Whether it has column bounds of its own."""
        return self.lower is not None or self.upper is not None

    def column_bounds(self, problem: MilpProblem) -> tuple[Array, Array]:
        """(lower, upper), each (columns,): its own column bounds where it has them, else the problem's."""
        lower = problem.lower if self.lower is None else self.lower
        upper = problem.upper if self.upper is None else self.upper
        return lower, upper
