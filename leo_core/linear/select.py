"""Values picked."""

from __future__ import annotations

from functools import cached_property
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from leo_core.arithmetic import ExactVector
from leo_core.linear.base import FloatArray, LinearMap, Mask, Units, frozen_array, require_apart
from leo_core.linear.sparse import Sparse


@final
class Select(LinearMap):
    """Picks entries: y_i = x[indices_i]. Flatten, transpose and slicing are this; so is identity."""

    def __init__(self, indices: Any, *, columns: int) -> None:
        self._indices = frozen_array(indices, np.int64)
        self._size = columns
        if self._indices.ndim != 1:
            raise ValueError("a select map's indices must be a list")
        if len(self._indices) and (self._indices.min() < 0 or self._indices.max() >= columns):
            raise ValueError(f"a select map's index lies outside 0..{columns - 1}")
        self.rows, self.columns = len(self._indices), columns
        self.dtype = np.dtype(np.float32)  # its entries are ones, exact in every dtype

    @staticmethod
    def identity(size: int) -> Select:
        return Select(np.arange(size), columns=size)

    @property
    def indices(self) -> NDArray[np.int64]:
        return self._indices

    @cached_property
    def _apart(self) -> bool:
        """Whether no input is read twice."""
        return len(np.unique(self._indices)) == self.rows

    @cached_property
    def is_identity(self) -> bool:
        """Whether it takes everything, in order."""
        return self.rows == self.columns and bool((self._indices == np.arange(self.rows)).all())

    @property
    def nonzeros(self) -> int:
        return self.rows

    @property
    def weights(self) -> int:
        return 0

    @property
    def terms(self) -> int:
        return 1

    @property
    def largest(self) -> float:
        return 1.0 if self.rows else 0.0

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"indices": self._indices}

    def _entries(self) -> FloatArray:
        matrix = np.zeros((self.rows, self.columns), dtype=self.dtype)
        matrix[np.arange(self.rows), self._indices] = 1.0
        return frozen_array(matrix)

    def apply(self, x: FloatArray) -> FloatArray:
        return x.copy() if self.is_identity else x[..., self._indices]

    def apply_transposed(self, y: FloatArray) -> FloatArray:
        if self.is_identity:
            return y.copy()  # a sweep may change what arrives in place
        result = np.zeros((*y.shape[:-1], self.columns), dtype=y.dtype)
        if self._apart:  # nothing is added up
            result[..., self._indices] = y
        else:
            np.add.at(result.T, self._indices, y.T)
        return result

    def absolute(self) -> Select:
        return self

    @property
    def picks(self) -> bool:
        return True

    def row(self, unit: int) -> tuple[Units, FloatArray]:
        return self._indices[unit : unit + 1], np.ones(1, self.dtype)

    def sides(self) -> tuple[Select, LinearMap]:
        return self, Sparse.zero(self.rows, self.columns)

    def support(self) -> Select:
        return self

    def apply_exact(self, x: ExactVector) -> ExactVector:
        return ExactVector(x.numerators[self._indices], x.denominator)

    def apply_transposed_exact(self, y: ExactVector) -> ExactVector:
        sums = np.zeros(self.columns, dtype=object)
        np.add.at(sums, self._indices, y.numerators)
        return ExactVector(sums, y.denominator)

    def sparse(self) -> Sparse:
        ones = np.ones(self.rows, self.dtype)
        return Sparse(ones, self._indices, np.arange(self.rows + 1), columns=self.columns)

    def select_rows(self, units: Units) -> Select:
        return Select(self._indices[units], columns=self.columns)

    def select_columns(self, units: Units) -> LinearMap:
        places = np.full(self.columns, -1)
        places[units] = np.arange(len(units))
        wanted = places[self._indices]
        return Select(wanted, columns=len(units)) if (wanted >= 0).all() else self.sparse().select_columns(units)

    def spread_columns(self, units: Units, columns: int) -> Select:
        require_apart(units)
        return Select(units[self._indices], columns=columns)

    def used_columns(self, rows: Mask) -> Mask:
        used = np.zeros(self.columns, dtype=bool)
        used[self._indices[rows]] = True
        return used
