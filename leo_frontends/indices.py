"""Maps of what an index takes out of a node's values."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from leo_core.linear import Diagonal, LinearMap, Select, Sparse

Array = NDArray[Any]


def is_identity(index: NDArray[np.int64], size: int) -> bool:
    """Whether an index takes everything in order."""
    return index.size == size and bool((index.ravel() == np.arange(size)).all())


def scattered(weight: Array, index: NDArray[np.int64], size: int) -> Array:
    """A matrix whose columns are those of a wider one by an index, as that wider one."""
    if is_identity(index, size):
        return weight
    matrix = np.zeros((weight.shape[0], size), weight.dtype)
    matrix[:, index] = weight
    return matrix


def scaling(index: NDArray[np.int64], scale: Array, size: int) -> LinearMap:
    """y_i = scale_i · x[index_i], as the simplest map."""
    if (scale == 1).all():
        return Select(index, columns=size)
    if is_identity(index, size):
        return Diagonal(scale)
    return Sparse(scale, index, np.arange(len(index) + 1), columns=size)
