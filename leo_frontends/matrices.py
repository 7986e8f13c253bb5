"""Linear maps as the full matrices that most formats hold."""

from __future__ import annotations

from leo_core.errors import UnsupportedModelError
from leo_core.linear import Dense, Diagonal, FloatArray, LinearMap, Select, Sparse


def matrix(linear: LinearMap, name: str, where: str) -> FloatArray:
    """The matrix (rows, columns) that a map of the node ``name`` is, read-only, in its stored dtype.

    Raises :class:`UnsupportedModelError` for a kind of map that was not meant to be a full matrix in any file.
    """
    if not isinstance(linear, Dense | Diagonal | Select | Sparse):
        kind = type(linear).__name__
        problem = f"'{name}' is made of a {kind}, which LEO does not write there; write .leo"
        raise UnsupportedModelError(where, [problem])
    return linear.dense()
