"""What every linear map answers (:class:`LinearMap`), and what all answer in the same way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from leo_core.arithmetic import ExactVector

if TYPE_CHECKING:
    from leo_core.linear.sparse import Sparse

FloatArray: TypeAlias = NDArray[Any]
Mask: TypeAlias = NDArray[np.bool_]
Units: TypeAlias = NDArray[np.int64]

#: More entries than this are not written out: two gigabytes in double precision.
LARGEST_DENSE = 1 << 28


class LinearMap(ABC):
    """y = A x for x of length ``columns`` and y of length ``rows``; immutable, in the dtype of its numbers.

    A kind that leaves a question open cannot be made: :class:`TypeError` names both. All answers must be those of the
    matrix that :meth:`dense` writes out: :mod:`leo_core.testing.map_kit` compares them in rational arithmetic.
    """

    rows: int
    columns: int
    dtype: np.dtype[Any]

    @abstractmethod
    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """The defining arrays by constructor argument, for saving and hashing."""

    @property
    @abstractmethod
    def nonzeros(self) -> int:
        """How many entries of the matrix are not zero."""

    @property
    @abstractmethod
    def weights(self) -> int:
        """How many numbers are stored: all entries of a full matrix, none of a mere selection."""

    @property
    def products(self) -> int:
        """How many multiplications one input takes; as many as weights, where each is used once."""
        return self.weights

    @property
    @abstractmethod
    def terms(self) -> int:
        """The most products that are summed in one row: what rounding errors grow with (Higham 2002, γ)."""

    @property
    @abstractmethod
    def largest(self) -> float:
        """The largest absolute value of an entry, 0 where there is none."""

    @abstractmethod
    def apply(self, x: FloatArray) -> FloatArray:
        """``x`` (…, columns) → (…, rows), in the dtype of ``x``."""

    @abstractmethod
    def apply_transposed(self, y: FloatArray) -> FloatArray:
        """``y`` (…, rows) → (…, columns), in the dtype of ``y``."""

    @abstractmethod
    def absolute(self) -> LinearMap:
        """The map with the absolute value of every entry."""

    @abstractmethod
    def sides(self) -> tuple[LinearMap, LinearMap]:
        """(above, below): the map with only its positive entries, and with only its negative ones, their sign turned.

        In float64. What is multiplied by bounds of its own sign loses nothing by cancelling.
        """

    @abstractmethod
    def support(self) -> LinearMap:
        """The map with 1 for every entry that is not zero, in float32: it counts the terms of each row."""

    @abstractmethod
    def apply_exact(self, x: ExactVector) -> ExactVector:
        """A x without any rounding."""

    @abstractmethod
    def sparse(self) -> Sparse:
        """The same map by its entries, exactly; what is asked of single rows and columns is asked of that."""

    def apply_transposed_exact(self, y: ExactVector) -> ExactVector:
        """Aᵀ y without any rounding."""
        return self.sparse().apply_transposed_exact(y)

    def row(self, unit: int) -> tuple[Units, FloatArray]:
        """(columns, entries) of the entries of one row that are not zero, by column."""
        return self.sparse().row(unit)

    def column(self, unit: int) -> tuple[Units, FloatArray]:
        """(rows, entries) of the entries of one column that are not zero, by row."""
        return self.sparse().column(unit)

    def rows_at(self, units: Units) -> FloatArray:
        """The rows of some units written out, (units, columns), in float64."""
        return self.sparse().rows_at(units)

    def select_rows(self, units: Units) -> LinearMap:
        """The map with only these rows, in this order; a row may be taken twice."""
        return self.sparse().select_rows(units)

    def select_columns(self, units: Units) -> LinearMap:
        """The map with only these columns, in this order, each at most once."""
        return self.sparse().select_columns(units)

    def select(self, rows: Units, columns: Units) -> LinearMap:
        """The map with only these rows and columns; grouped convolutions stay what they are where both go at once."""
        return self.select_rows(rows).select_columns(columns)

    def spread_columns(self, units: Units, columns: int) -> LinearMap:
        """The map of ``columns`` inputs that reads input ``units[j]`` where this one reads its j-th: after a selection.

        Exactly where no input is named twice; else entries would have to be added, and :class:`ValueError` is raised.
        """
        return self.sparse().spread_columns(units, columns)

    def without(self, rows: Mask, columns: Mask) -> LinearMap:
        """The map with the given rows and the given columns set to zero."""
        return self if not (rows.any() or columns.any()) else self.sparse().without(rows, columns)

    @abstractmethod
    def _entries(self) -> FloatArray:
        """The matrix written out, read-only, in the stored dtype."""

    @property
    def picks(self) -> bool:
        """Whether each output is an input as it is, so that nothing is rounded."""
        return False

    @property
    def places(self) -> bool:
        """Whether each output is an input as it is, or 0: values are put side by side."""
        return self.picks

    @property
    def adds(self) -> bool:
        """Whether inputs are only added, subtracted and put in places: no number of it is one that a model stores."""
        return self.places

    @property
    def is_full(self) -> bool:
        """Whether all entries are stored, zeros too: what replaces it is stored so again."""
        return False

    def scaling(self) -> FloatArray | None:
        """(rows,) numbers s where it is y_i = s_i x_i, else None."""
        return None if self.rows != self.columns or self.nonzeros > self.rows else self.sparse().scaling()

    def used_columns(self, rows: Mask) -> Mask:
        """The columns in which one of the given rows has an entry that is not zero."""
        return np.asarray(self.support().apply_transposed(rows.astype(np.float32)) > 0)

    def dense(self) -> FloatArray:
        """The matrix written out, rows × columns, read-only, in the stored dtype.

        Raises :class:`MemoryError` above :data:`LARGEST_DENSE` entries.
        """
        if self.rows * self.columns > LARGEST_DENSE:
            raise MemoryError(f"a {type(self).__name__} map of {self.rows} × {self.columns} is too large to write out")
        return self._entries()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.rows} × {self.columns})"

    def __reduce__(self) -> tuple[Any, ...]:
        """numpy loses the read-only flag in pickle and deepcopy, so both go through the constructor."""
        return _rebuild, (type(self), self.arrays(), getattr(self, "_size", None))


def _rebuild(kind: Any, arrays: dict[str, NDArray[Any]], size: int | None) -> Any:
    return kind(**arrays) if size is None else kind(**arrays, columns=size)


def frozen_array(values: Any, dtype: Any = None) -> NDArray[Any]:
    """A read-only copy that owns its memory."""
    array = np.array(values, dtype=dtype, copy=True, order="C")
    array.setflags(write=False)
    return array


def float_array(values: Any, dimensions: int, what: str) -> NDArray[Any]:
    """A read-only copy in a float type, float64 unless it is float32."""
    array = np.asarray(values)
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float64)
    if array.ndim != dimensions:
        raise ValueError(f"{what} must have {dimensions} dimension(s), not shape {array.shape}")
    return frozen_array(array)


def require_apart(units: Units) -> None:
    """Raise :class:`ValueError` where an input is named twice."""
    if len(np.unique(units)) < len(units):
        raise ValueError("an input is named twice; its entries would have to be added")
