"""A full matrix."""

from __future__ import annotations

from functools import cached_property
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from leo_core.arithmetic import ExactVector, to_integers
from leo_core.checker.environment import own_thread
from leo_core.linear.base import FloatArray, LinearMap, Mask, Units, float_array, require_apart
from leo_core.linear.sparse import Sparse


@final
class Dense(LinearMap):
    """A full matrix."""

    def __init__(self, matrix: Any) -> None:
        self._matrix = float_array(matrix, 2, "a dense map's matrix")
        self.rows, self.columns = self._matrix.shape
        self.dtype = self._matrix.dtype

    @cached_property
    def nonzeros(self) -> int:
        return int(np.count_nonzero(self._matrix))

    @property
    def weights(self) -> int:
        return int(self.rows * self.columns)

    @property
    def terms(self) -> int:
        return self.columns

    @cached_property
    def largest(self) -> float:
        return float(np.abs(self._matrix).max(initial=0.0))

    @property
    def is_full(self) -> bool:
        return True

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"matrix": self._matrix}

    def _entries(self) -> FloatArray:
        return self._matrix

    @cached_property
    @own_thread()  # what is kept must not depend on who asked first
    def _double(self) -> NDArray[np.float64]:
        return self._matrix.astype(np.float64, copy=False)

    def _as(self, dtype: np.dtype[Any]) -> FloatArray:
        return self._double if dtype == np.float64 else self._matrix.astype(dtype, copy=False)

    def apply(self, x: FloatArray) -> FloatArray:
        return x @ self._as(x.dtype).T

    def apply_transposed(self, y: FloatArray) -> FloatArray:
        if y.ndim == 2 and np.count_nonzero(y) <= len(y):  # single units asked for: pick rows, do not multiply
            at, units = np.nonzero(y)
            if (np.diff(at) > 0).all():
                result = np.zeros((len(y), self.columns), dtype=y.dtype)
                result[at] = self._matrix[units].astype(y.dtype) * y[at, units, None]
                return result
        return y @ self._as(y.dtype)

    @cached_property
    @own_thread()
    def _absolute(self) -> Dense:
        return Dense(np.abs(self._double))

    def absolute(self) -> Dense:
        return self._absolute

    @cached_property
    @own_thread()
    def _sides(self) -> tuple[Dense, Dense]:
        return Dense(np.maximum(self._double, 0.0)), Dense(np.maximum(-self._double, 0.0))

    def sides(self) -> tuple[Dense, Dense]:
        return self._sides

    def support(self) -> Dense:
        return Dense((self._matrix != 0).astype(np.float32))

    @cached_property
    @own_thread()
    def _integers(self) -> tuple[NDArray[np.object_], int]:
        return to_integers(self._matrix)

    def apply_exact(self, x: ExactVector) -> ExactVector:
        integers, shift = self._integers
        if self.columns == 0:
            return ExactVector(np.zeros(self.rows, dtype=object), 1)
        used = np.flatnonzero(x.numerators != 0)  # inactive units are many; skip their columns
        if len(used) == 0:
            return ExactVector(np.zeros(self.rows, dtype=object), 1)
        return ExactVector(integers[:, used] @ x.numerators[used], x.denominator << shift)

    def apply_transposed_exact(self, y: ExactVector) -> ExactVector:
        used = np.flatnonzero(y.numerators != 0)
        if not len(used):
            return ExactVector(np.zeros(self.columns, dtype=object), 1)
        integers, shift = to_integers(self._matrix[used])
        return ExactVector(y.numerators[used] @ integers, y.denominator << shift)

    def sparse(self) -> Sparse:
        return Sparse.of(self._matrix)

    def row(self, unit: int) -> tuple[Units, FloatArray]:
        at = np.flatnonzero(self._matrix[unit])
        return at, self._matrix[unit, at]

    def column(self, unit: int) -> tuple[Units, FloatArray]:
        at = np.flatnonzero(self._matrix[:, unit])
        return at, self._matrix[at, unit]

    def rows_at(self, units: Units) -> FloatArray:
        return self._matrix[units].astype(np.float64)

    def select_rows(self, units: Units) -> Dense:
        return Dense(self._matrix[units])

    def select_columns(self, units: Units) -> Dense:
        return Dense(self._matrix[:, units])

    def spread_columns(self, units: Units, columns: int) -> Dense:
        require_apart(units)
        matrix = np.zeros((self.rows, columns), self.dtype)
        matrix[:, units] = self._matrix
        return Dense(matrix)

    def without(self, rows: Mask, columns: Mask) -> Dense:
        gone = rows[:, None] | columns
        return Dense(np.where(gone, self.dtype.type(0), self._matrix)) if gone.any() else self

    def used_columns(self, rows: Mask) -> Mask:
        return np.asarray((self._matrix[rows] != 0).any(axis=0))
