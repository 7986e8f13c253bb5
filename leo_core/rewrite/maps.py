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


def restricted(linear: LinearMap, rows: Mask, columns: Mask) -> LinearMap:
    """The map with only the given rows and columns."""
    if rows.all() and columns.all():
        return linear
    return linear.select(np.flatnonzero(rows), np.flatnonzero(columns))


def stored(matrix: Array, dtype: Any, like: LinearMap) -> LinearMap:
    """A float64 matrix rounded to a dtype, full or by its entries as ``like`` is."""
    with np.errstate(over="ignore"):
        rounded = matrix.astype(dtype)
    if not np.isfinite(rounded).all():
        raise OverflowError(f"a new weight does not fit {np.dtype(dtype).name}")
    thin = not like.is_full and np.count_nonzero(rounded) * 3 < rounded.size
    return Sparse.of(rounded) if thin else Dense(rounded)
