"""Linear maps restricted, cleared and composed. What returns ``exact`` has rounded nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from leo_core.linear import Dense, LinearMap, Select, Sparse
from leo_core.network import Affine

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


def by_source(node: Affine, matrix: Array) -> list[Array]:
    """A matrix over the concatenated sources of a node, cut into one for each."""
    return np.split(matrix, np.cumsum([linear.columns for linear in node.maps])[:-1], axis=1)


def weight_dtype(node: Affine, linear: LinearMap) -> np.dtype[Any]:
    """What new weights in the place of a node's map are stored in; a selection's ones are exact in any."""
    return node.bias.dtype if isinstance(linear, Select) else linear.dtype


def restrict(linear: LinearMap, rows: Mask, columns: Mask) -> LinearMap:
    """The map with only the given rows and columns."""
    if rows.all() and columns.all():
        return linear
    if isinstance(linear, Select):
        places = np.cumsum(columns) - 1
        wanted = linear.indices[rows]
        if columns[wanted].all():
            return Select(places[wanted], columns=int(columns.sum()))
    matrix = linear.matrix()[np.ix_(rows, columns)]
    return _as_stored_in(matrix, linear)


def without_columns(linear: LinearMap, columns: Mask) -> LinearMap:
    """The map with the given columns set to zero."""
    if not columns.any():
        return linear
    matrix = np.where(columns, linear.matrix().dtype.type(0), linear.matrix())
    return _as_stored_in(matrix, linear)


def without_rows(linear: LinearMap, rows: Mask) -> LinearMap:
    """The map with the given rows set to zero."""
    if not rows.any():
        return linear
    matrix = np.where(rows[:, None], linear.matrix().dtype.type(0), linear.matrix())
    return _as_stored_in(matrix, linear)


def stored(matrix: Array, dtype: Any, like: LinearMap) -> LinearMap:
    """A float64 matrix rounded to a dtype, full or by its entries as ``like`` is."""
    with np.errstate(over="ignore"):
        rounded = matrix.astype(dtype)
    if not np.isfinite(rounded).all():
        raise OverflowError(f"a new weight does not fit {np.dtype(dtype).name}")
    thin = not isinstance(like, Dense) and np.count_nonzero(rounded) * 3 < rounded.size
    return Sparse.of(rounded) if thin else Dense(rounded)


def select_columns(linear: LinearMap, select: Select) -> LinearMap:
    """``linear`` ∘ ``select``, exactly where no input is picked twice (else sums are rounded)."""
    if isinstance(linear, Select):
        return Select(select.indices[linear.indices], columns=select.columns)
    matrix = np.zeros((linear.rows, select.columns), linear.matrix().dtype)
    matrix[:, select.indices] = linear.matrix()
    return _as_stored_in(matrix, linear)


def select_rows(select: Select, linear: LinearMap) -> LinearMap:
    """``select`` ∘ ``linear``, exactly."""
    if isinstance(linear, Select):
        return Select(linear.indices[select.indices], columns=linear.columns)
    matrix = linear.matrix()[select.indices]
    return _as_stored_in(matrix, linear)


def _as_stored_in(matrix: NDArray[Any], linear: LinearMap) -> LinearMap:
    """A matrix full where ``linear`` is, else by its entries."""
    return Dense(matrix) if isinstance(linear, Dense) else Sparse.of(matrix)
