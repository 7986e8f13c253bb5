"""A scale for each value."""

from __future__ import annotations

from typing import Any, final

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from leo_core.arithmetic import ExactVector, to_integers
from leo_core.linear.base import FloatArray, LinearMap, Units, float_array, frozen_array
from leo_core.linear.sparse import Sparse


@final
class Diagonal(LinearMap):
    """A square map that scales each entry."""

    def __init__(self, diagonal: Any) -> None:
        self._diagonal = float_array(diagonal, 1, "a diagonal map's diagonal")
        self.rows = self.columns = len(self._diagonal)
        self.dtype = self._diagonal.dtype

    @property
    def nonzeros(self) -> int:
        return int(np.count_nonzero(self._diagonal))

    @property
    def weights(self) -> int:
        return self.rows

    @property
    def terms(self) -> int:
        return 1

    @property
    def largest(self) -> float:
        return float(np.abs(self._diagonal).max(initial=0.0))

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"diagonal": self._diagonal}

    def _entries(self) -> FloatArray:
        return frozen_array(np.diag(self._diagonal))

    def apply(self, x: FloatArray) -> FloatArray:
        return np.asarray(x * self._diagonal.astype(x.dtype, copy=False))

    def apply_transposed(self, y: FloatArray) -> FloatArray:
        return self.apply(y)

    def absolute(self) -> Diagonal:
        return Diagonal(np.abs(self._diagonal))

    def sides(self) -> tuple[Diagonal, Diagonal]:
        factors = self._diagonal.astype(np.float64)
        return Diagonal(np.maximum(factors, 0.0)), Diagonal(np.maximum(-factors, 0.0))

    def support(self) -> Diagonal:
        return Diagonal((self._diagonal != 0).astype(np.float32))

    def apply_exact(self, x: ExactVector) -> ExactVector:
        integers, shift = to_integers(self._diagonal)
        return ExactVector(integers * x.numerators, x.denominator << shift)

    def apply_transposed_exact(self, y: ExactVector) -> ExactVector:
        return self.apply_exact(y)

    def sparse(self) -> Sparse:
        at = np.arange(self.rows)
        return Sparse.of(sp.csr_array((self._diagonal, at, np.arange(self.rows + 1)), shape=(self.rows, self.rows)))

    def select(self, rows: Units, columns: Units) -> LinearMap:
        if np.array_equal(rows, columns):
            return Diagonal(self._diagonal[rows])
        return self.sparse().select(rows, columns)

    def scaling(self) -> FloatArray:
        return self._diagonal
