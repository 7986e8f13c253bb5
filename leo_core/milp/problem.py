"""A mixed-integer linear program without its objective, as plain arrays."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

Array = NDArray[np.float64]


@final
@dataclass(frozen=True, eq=False)
class MilpProblem:
    """{ x : row_lower ≤ matrix·x ≤ row_upper, lower ≤ x ≤ upper, x_j whole where integer_j }.

    ``matrix`` is a scipy CSR array (rows × columns); infinite sides mean 'no bound'. NaN is refused.
    """

    matrix: Any
    row_lower: Array
    row_upper: Array
    lower: Array
    upper: Array
    integer: NDArray[np.bool_]

    def __post_init__(self) -> None:
        object.__setattr__(self, "matrix", sp.csr_array(self.matrix, dtype=np.float64))
        for name in ("row_lower", "row_upper", "lower", "upper"):
            array = np.array(getattr(self, name), dtype=np.float64)
            array.setflags(write=False)
            object.__setattr__(self, name, array)
            if np.isnan(array).any():
                raise ValueError(f"a MILP's {name} holds NaN")
        object.__setattr__(self, "integer", np.array(self.integer, dtype=bool))
        rows, columns = self.matrix.shape
        if len(self.row_lower) != rows or len(self.row_upper) != rows:
            raise ValueError("a MILP's row bounds do not fit its matrix")
        if not (len(self.lower) == len(self.upper) == len(self.integer) == columns):
            raise ValueError("a MILP's column bounds do not fit its matrix")
        if not np.isfinite(self.matrix.data).all():
            raise ValueError("a MILP's matrix holds a value that is not finite")

    @property
    def columns(self) -> int:
        return int(self.matrix.shape[1])

    @property
    def rows(self) -> int:
        return int(self.matrix.shape[0])

    def oriented(self, ray: Array, lower: Array, upper: Array) -> tuple[Array, float]:
        """A dual ray with the sign that proves more, and the bound it gives on an objective of zero.

        A negative bound proves that there is no point. Rounding dust whose sign points to a side that its row does not
        have is left out.
        """
        turned = ((y, self._supremum(y, lower, upper)) for y in map(self._without_dust, (ray, -ray)))
        return min(turned, key=lambda pair: pair[1])

    def _without_dust(self, y: Array) -> Array:
        return np.where(((y > 0) & np.isinf(self.row_upper)) | ((y < 0) & np.isinf(self.row_lower)), 0.0, y)

    def _supremum(self, y: Array, lower: Array, upper: Array) -> float:
        with np.errstate(invalid="ignore"):
            flow = -(self.matrix.T @ y)
            columns = np.fmax(flow * lower, flow * upper)
            rows = np.fmax(np.where(y == 0, 0.0, y * self.row_lower), np.where(y == 0, 0.0, y * self.row_upper))
            return float(columns.sum() + rows.sum())

    def relaxed(self) -> MilpProblem:
        """The same program with every column continuous."""
        return replace(self, integer=np.zeros(self.columns, dtype=bool))


@final
@dataclass(frozen=True, eq=False)
class NamedProblem:
    """A program with names, to be written to a file.

    Attributes
    ----------
    columns, rows:
        A name for each; letters, digits and underscores.
    objective:
        What is to be maximised, (columns,); zeros for nothing.
    inputs, outputs:
        The columns that are the network's own, in its order.
    """

    problem: MilpProblem
    columns: tuple[str, ...]
    rows: tuple[str, ...]
    objective: Array
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
