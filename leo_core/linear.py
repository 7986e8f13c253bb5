"""The linear maps an :class:`~leo_core.network.Affine` is made of: small, final classes.

Each is immutable, keeps its stored dtype, and answers the same few questions (:class:`LinearMap`).
All must equal their own ``matrix()`` exactly; the tests compare them in rational arithmetic.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any, Protocol, TypeAlias, final

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from leo_core.arithmetic import ExactVector, to_integers
from leo_core.environment import own_thread

FloatArray: TypeAlias = NDArray[Any]


class LinearMap(Protocol):
    """y = A x for x of length ``columns`` and y of length ``rows``."""

    @property
    def rows(self) -> int: ...
    @property
    def columns(self) -> int: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def nonzeros(self) -> int:
        """How many entries are not zero."""
        ...

    @property
    def connections(self) -> int:
        """How many weights are stored: all entries of a full matrix, none of a mere selection."""
        ...

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The defining arrays by constructor argument, for saving and hashing."""
        ...

    def matrix(self) -> FloatArray:
        """The dense matrix, rows × columns, read-only, in the stored dtype."""
        ...

    def apply(self, x: FloatArray) -> FloatArray:
        """``x`` (…, columns) → (…, rows), in the dtype of ``x``."""
        ...

    def apply_transposed(self, y: FloatArray) -> FloatArray:
        """``y`` (…, rows) → (…, columns), in the dtype of ``y``."""
        ...

    def absolute(self) -> LinearMap:
        """The map with the absolute value of every entry."""
        ...

    def support(self) -> LinearMap:
        """The map with 1 for every entry that is not zero, in float32: it counts the terms of each row."""
        ...

    def apply_exact(self, x: ExactVector) -> ExactVector:
        """A x without any rounding."""
        ...


def frozen_array(values: Any, dtype: Any = None) -> NDArray[Any]:
    """A read-only copy that owns its memory."""
    array = np.array(values, dtype=dtype, copy=True, order="C")
    array.setflags(write=False)
    return array


def _float_array(values: Any, dimensions: int, what: str) -> NDArray[Any]:
    array = np.asarray(values)
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float64)
    if array.ndim != dimensions:
        raise ValueError(f"{what} must have {dimensions} dimension(s), not shape {array.shape}")
    return frozen_array(array)


class _Rebuilt:
    """numpy loses the read-only flag in pickle and deepcopy, so both go through the constructor."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.arrays(), getattr(self, "_size", None))  # type: ignore[attr-defined]


def _rebuild(kind: Any, arrays: dict[str, NDArray[Any]], size: int | None) -> Any:
    return kind(**arrays) if size is None else kind(**arrays, columns=size)


@final
class Dense(_Rebuilt):
    """A full matrix."""

    def __init__(self, matrix: Any) -> None:
        self._matrix = _float_array(matrix, 2, "a dense map's matrix")
        self.rows, self.columns = self._matrix.shape
        self.dtype = self._matrix.dtype

    @cached_property
    def nonzeros(self) -> int:
        return int(np.count_nonzero(self._matrix))

    @property
    def connections(self) -> int:
        return int(self.rows * self.columns)

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"matrix": self._matrix}

    def matrix(self) -> FloatArray:
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


@final
class Sparse(_Rebuilt):
    """A matrix stored by its non-zero entries, in compressed rows."""

    def __init__(self, data: Any, indices: Any, indptr: Any, *, columns: int) -> None:
        self._data = _float_array(data, 1, "a sparse map's data")
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
        places = np.repeat(np.arange(self.rows), np.diff(self._indptr)) * max(columns, 1) + self._indices
        if len(np.unique(places)) < len(places):
            raise ValueError("a sparse map has two entries in one place; their sum would have to be rounded")

    @staticmethod
    def zero(rows: int, columns: int, dtype: Any = np.float32) -> Sparse:
        """The map that is 0 everywhere and stores nothing."""
        return Sparse(np.zeros(0, dtype), np.zeros(0, np.int64), np.zeros(rows + 1, np.int64), columns=columns)

    @staticmethod
    def of(matrix: Any) -> Sparse:
        """From a dense or scipy sparse matrix."""
        compressed = sp.csr_array(matrix)
        compressed.sum_duplicates()
        compressed.eliminate_zeros()
        return Sparse(compressed.data, compressed.indices, compressed.indptr, columns=compressed.shape[1])

    @cached_property
    def _csr(self) -> Any:
        return sp.csr_array((self._data, self._indices, self._indptr), shape=(self.rows, self.columns))

    @cached_property
    def nonzeros(self) -> int:
        return int(np.count_nonzero(self._data))

    @property
    def connections(self) -> int:
        return len(self._data)

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"data": self._data, "indices": self._indices, "indptr": self._indptr}

    @cached_property
    @own_thread()
    def _dense(self) -> FloatArray:
        return frozen_array(self._csr.toarray())

    def matrix(self) -> FloatArray:
        return self._dense

    def apply(self, x: FloatArray) -> FloatArray:
        flat = x.reshape(math.prod(x.shape[:-1]), self.columns)
        result = (self._csr.astype(x.dtype) @ flat.T).T
        return np.asarray(result, dtype=x.dtype).reshape(*x.shape[:-1], self.rows)

    def apply_transposed(self, y: FloatArray) -> FloatArray:
        flat = y.reshape(math.prod(y.shape[:-1]), self.rows)
        result = (self._csr.astype(y.dtype).T @ flat.T).T
        return np.asarray(result, dtype=y.dtype).reshape(*y.shape[:-1], self.columns)

    def absolute(self) -> Sparse:
        return Sparse(np.abs(self._data), self._indices, self._indptr, columns=self.columns)

    def support(self) -> Sparse:
        return Sparse((self._data != 0).astype(np.float32), self._indices, self._indptr, columns=self.columns)

    def apply_exact(self, x: ExactVector) -> ExactVector:
        integers, shift = to_integers(self._data)
        products = integers * x.numerators[self._indices]
        sums = np.zeros(self.rows, dtype=object)
        for row in range(self.rows):
            for product in products[self._indptr[row] : self._indptr[row + 1]]:
                sums[row] += product
        return ExactVector(sums, x.denominator << shift)


@final
class Diagonal(_Rebuilt):
    """A square map that scales each entry."""

    def __init__(self, diagonal: Any) -> None:
        self._diagonal = _float_array(diagonal, 1, "a diagonal map's diagonal")
        self.rows = self.columns = len(self._diagonal)
        self.dtype = self._diagonal.dtype

    @property
    def nonzeros(self) -> int:
        return int(np.count_nonzero(self._diagonal))

    @property
    def connections(self) -> int:
        return self.rows

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"diagonal": self._diagonal}

    def matrix(self) -> FloatArray:
        return frozen_array(np.diag(self._diagonal))

    def apply(self, x: FloatArray) -> FloatArray:
        return np.asarray(x * self._diagonal.astype(x.dtype, copy=False))

    def apply_transposed(self, y: FloatArray) -> FloatArray:
        return self.apply(y)

    def absolute(self) -> Diagonal:
        return Diagonal(np.abs(self._diagonal))

    def support(self) -> Diagonal:
        return Diagonal((self._diagonal != 0).astype(np.float32))

    def apply_exact(self, x: ExactVector) -> ExactVector:
        integers, shift = to_integers(self._diagonal)
        return ExactVector(integers * x.numerators, x.denominator << shift)


@final
class Select(_Rebuilt):
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

    @property
    def is_identity(self) -> bool:
        """Whether it takes everything, in order."""
        return self.rows == self.columns and bool((self._indices == np.arange(self.rows)).all())

    @property
    def nonzeros(self) -> int:
        return self.rows

    @property
    def connections(self) -> int:
        return 0

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"indices": self._indices}

    def matrix(self) -> FloatArray:
        matrix = np.zeros((self.rows, self.columns), dtype=self.dtype)
        matrix[np.arange(self.rows), self._indices] = 1.0
        return frozen_array(matrix)

    def apply(self, x: FloatArray) -> FloatArray:
        return x[..., self._indices]

    def apply_transposed(self, y: FloatArray) -> FloatArray:
        result = np.zeros((*y.shape[:-1], self.columns), dtype=y.dtype)
        np.add.at(result.T, self._indices, y.T)
        return result

    def absolute(self) -> Select:
        return self

    def support(self) -> Select:
        return self

    def apply_exact(self, x: ExactVector) -> ExactVector:
        return ExactVector(x.numerators[self._indices], x.denominator)


#: By the name used in LEO's own file.
KINDS: dict[str, Any] = {"dense": Dense, "sparse": Sparse, "diagonal": Diagonal, "select": Select}


def kind_of(linear: LinearMap) -> str:
    """The name of a map's class in :data:`KINDS`."""
    for name, kind in KINDS.items():
        if type(linear) is kind:
            return name
    raise TypeError(f"{type(linear).__name__} is not one of LEO's linear maps: {', '.join(KINDS)}")
