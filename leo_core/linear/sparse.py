"""A matrix by its entries that are not zero."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any, final

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from leo_core.arithmetic import ExactVector, to_integers
from leo_core.checker.environment import own_thread
from leo_core.linear.base import FloatArray, LinearMap, Mask, Units, float_array, frozen_array, require_apart


@final
class Sparse(LinearMap):
    """A matrix stored by its non-zero entries, in compressed rows."""

    def __init__(self, data: Any, indices: Any, indptr: Any, *, columns: int) -> None:
        self._data = float_array(data, 1, "a sparse map's data")
        self._indices = frozen_array(indices, np.int64)
        self._indptr = frozen_array(indptr, np.int64)
        self._size = columns
        self.rows, self.columns = len(self._indptr) - 1, columns
        self.dtype = self._data.dtype
        if (
            self.rows < 0
            or self._indptr[0] != 0
            or self._indptr[-1] != len(self._data)
            or len(self._indices) != len(self._data)
            or (np.diff(self._indptr) < 0).any()
        ):
            raise ValueError("a sparse map's row pointers do not fit its data")
        if len(self._indices) and (self._indices.min() < 0 or self._indices.max() >= columns):
            raise ValueError(f"a sparse map's column index lies outside 0..{columns - 1}")
        places = self._places * max(columns, 1) + self._indices
        if len(np.unique(places)) < len(places):
            raise ValueError("a sparse map has two entries in one place; their sum would have to be rounded")

    @staticmethod
    def zero(rows: int, columns: int, dtype: Any = np.float32) -> Sparse:
        """The map that is 0 everywhere and stores nothing."""
        return Sparse(np.zeros(0, dtype), np.zeros(0, np.int64), np.zeros(rows + 1, np.int64), columns=columns)

    @staticmethod
    def of(matrix: Any) -> Sparse:
        """From a dense or scipy sparse matrix."""
        compressed = sp.csr_array(matrix, copy=True)  # what follows changes it in place
        compressed.sum_duplicates()
        compressed.eliminate_zeros()
        return Sparse(compressed.data, compressed.indices, compressed.indptr, columns=compressed.shape[1])

    @cached_property
    def _csr(self) -> Any:
        return sp.csr_array((self._data, self._indices, self._indptr), shape=(self.rows, self.columns))

    @cached_property
    def nonzeros(self) -> int:
        return int(np.count_nonzero(self._data))

    @cached_property
    def places(self) -> bool:
        return bool((self._data == 1).all()) and bool((np.diff(self._indptr) <= 1).all())

    @cached_property
    def adds(self) -> bool:
        return bool((np.abs(self._data) == 1).all())

    @property
    def weights(self) -> int:
        return len(self._data)

    @cached_property
    def terms(self) -> int:
        return int(np.diff(self._indptr).max(initial=0))

    @property
    def largest(self) -> float:
        return float(np.abs(self._data).max(initial=0.0))

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"data": self._data, "indices": self._indices, "indptr": self._indptr}

    @cached_property
    @own_thread()
    def _dense(self) -> FloatArray:
        return frozen_array(self._csr.toarray())

    def _entries(self) -> FloatArray:
        return self._dense

    def apply(self, x: FloatArray) -> FloatArray:
        flat = x.reshape(math.prod(x.shape[:-1]), self.columns)
        result = (self._csr.astype(x.dtype) @ flat.T).T
        return np.asarray(result, dtype=x.dtype).reshape(*x.shape[:-1], self.rows)

    def apply_transposed(self, y: FloatArray) -> FloatArray:
        flat = y.reshape(math.prod(y.shape[:-1]), self.rows)
        result = (self._csr.astype(y.dtype).T @ flat.T).T
        return np.asarray(result, dtype=y.dtype).reshape(*y.shape[:-1], self.columns)

    @cached_property
    @own_thread()
    def _absolute(self) -> Sparse:
        return Sparse(np.abs(self._data), self._indices, self._indptr, columns=self.columns)

    def absolute(self) -> Sparse:
        return self._absolute

    @cached_property
    @own_thread()
    def _sides(self) -> tuple[Sparse, Sparse]:
        data = self._data.astype(np.float64)
        above, below = (
            Sparse(np.maximum(side, 0.0), self._indices, self._indptr, columns=self.columns) for side in (data, -data)
        )
        return above, below

    def sides(self) -> tuple[Sparse, Sparse]:
        return self._sides

    def support(self) -> Sparse:
        return Sparse((self._data != 0).astype(np.float32), self._indices, self._indptr, columns=self.columns)

    @cached_property
    def _places(self) -> NDArray[np.int64]:
        """The row of each entry."""
        return np.repeat(np.arange(self.rows), np.diff(self._indptr))

    def apply_exact(self, x: ExactVector) -> ExactVector:
        return self._summed(x, self._indices, self._places, self.rows)

    def apply_transposed_exact(self, y: ExactVector) -> ExactVector:
        return self._summed(y, self._places, self._indices, self.columns)

    def _summed(self, x: ExactVector, read: Units, made: Units, size: int) -> ExactVector:
        integers, shift = to_integers(self._data)
        sums = np.zeros(size, dtype=object)
        np.add.at(sums, made, integers * x.numerators[read])
        return ExactVector(sums, x.denominator << shift)

    def sparse(self) -> Sparse:
        return self

    def row(self, unit: int) -> tuple[Units, FloatArray]:
        part = slice(self._indptr[unit], self._indptr[unit + 1])
        return _nonzero(self._indices[part], self._data[part])

    def column(self, unit: int) -> tuple[Units, FloatArray]:
        part = self._indices == unit
        return _nonzero(self._places[part], self._data[part])

    def rows_at(self, units: Units) -> FloatArray:
        return np.asarray(self._csr[units].toarray(), dtype=np.float64)

    def select_rows(self, units: Units) -> Sparse:
        return Sparse.of(self._csr[units])

    def select_columns(self, units: Units) -> Sparse:
        return Sparse.of(self._csr[:, units])

    def spread_columns(self, units: Units, columns: int) -> Sparse:
        require_apart(units)
        return Sparse.of(sp.csr_array((self._data, units[self._indices], self._indptr), shape=(self.rows, columns)))

    def without(self, rows: Mask, columns: Mask) -> Sparse:
        if not (rows.any() or columns.any()):
            return self
        kept = np.where(rows[self._places] | columns[self._indices], self.dtype.type(0), self._data)
        return Sparse.of(sp.csr_array((kept, self._indices, self._indptr), shape=(self.rows, self.columns)))

    def scaling(self) -> FloatArray | None:
        if self.rows != self.columns or (self._places != self._indices)[self._data != 0].any():
            return None
        return np.bincount(self._places, self._data, self.rows).astype(self.dtype)


def _nonzero(at: Units, values: FloatArray) -> tuple[Units, FloatArray]:
    order = np.argsort(at, kind="stable")
    order = order[values[order] != 0]
    return at[order], values[order]
