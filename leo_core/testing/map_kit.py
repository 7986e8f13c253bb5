"""What LEO relies on in a linear map; see :mod:`leo_core.testing` for how to run it.

Each check takes a map and a generator of random numbers. All answers are compared with those of the matrix that the
map says it is, over the rationals where the answer is exact; :func:`is_the_matrix` compares that with one of yours.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leo_core.arithmetic import ExactVector
from leo_core.linear import KINDS, LinearMap, kind_of

Array = NDArray[Any]
Generator = np.random.Generator


def is_the_matrix(linear: LinearMap, matrix: Array) -> None:
    """The map is the matrix, entry by entry."""
    _equal(linear.dense(), matrix, "dense()")


def counts(linear: LinearMap, rng: Generator) -> None:  # noqa: ARG001 - every check takes it
    """Sizes and counts are those of the matrix."""
    matrix = linear.dense()
    assert matrix.shape == (linear.rows, linear.columns), f"dense() is {matrix.shape}"
    assert matrix.dtype == linear.dtype, f"dense() is of {matrix.dtype}, the map of {linear.dtype}"
    assert not matrix.flags.writeable, "dense() can be written to"
    assert linear.nonzeros == np.count_nonzero(matrix), f"nonzeros is {linear.nonzeros}"
    assert linear.largest == np.abs(matrix).max(initial=0.0), f"largest is {linear.largest}"
    most = int(np.count_nonzero(matrix, axis=1).max(initial=0))
    assert most <= linear.terms, f"terms is {linear.terms}, a row has {most} entries"
    assert linear.weights >= 0, f"weights is {linear.weights}"
    assert linear.products >= 0, f"products is {linear.products}"


def applies(linear: LinearMap, rng: Generator) -> None:
    """Forward and transposed, in both float types and with axes in front, within γ of the exact result."""
    matrix = linear.dense()
    for dtype in (np.float64, np.float32):
        for front in ((), (3,), (2, 0), (2, 2)):
            _applied(linear.apply, matrix, rng.standard_normal((*front, linear.columns)).astype(dtype))
            _applied(linear.apply_transposed, matrix.T, rng.standard_normal((*front, linear.rows)).astype(dtype))


def _applied(apply: Callable[[Array], Array], matrix: Array, x: Array) -> None:
    got = apply(x)
    assert not np.shares_memory(got, x), "what it makes shares memory with what it was given"
    assert got.dtype == x.dtype, f"of {x.dtype} it makes {got.dtype}"
    assert got.shape == (*x.shape[:-1], len(matrix)), f"of {x.shape} it makes {got.shape}"
    exact, wide = x.astype(np.float64), matrix.astype(np.float64)
    slack = 4 * (matrix.shape[1] + 2) * float(np.finfo(x.dtype).eps)
    near = np.abs(got - exact @ wide.T) <= slack * (np.abs(exact) @ np.abs(wide).T) + np.finfo(x.dtype).tiny
    assert near.all(), f"it makes {got} of {x}"


def applies_to_one(linear: LinearMap, rng: Generator) -> None:  # noqa: ARG001
    """Units asked for one by one give the rows and columns of the matrix, without rounding."""
    matrix = linear.dense().astype(np.float64)
    _equal(linear.apply(np.eye(linear.columns)).T, matrix, "apply(1)")
    _equal(linear.apply_transposed(np.eye(linear.rows)), matrix, "apply_transposed(1)")


def applies_exactly(linear: LinearMap, rng: Generator) -> None:
    """A x and Aᵀ y over the rationals."""
    rows = [[Fraction(float(entry)) for entry in row] for row in linear.dense()]
    x = [Fraction(int(a), int(b)) for a, b in rng.integers(1, 50, (linear.columns, 2)) * [[1, 3]] - [[25, 0]]]
    y = [Fraction(int(a), int(b)) for a, b in rng.integers(1, 50, (linear.rows, 2)) * [[1, 3]] - [[25, 0]]]
    zero = Fraction(0)
    forward = [sum((a * b for a, b in zip(row, x, strict=True)), zero) for row in rows]
    back = [sum((row[j] * b for row, b in zip(rows, y, strict=True)), zero) for j in range(linear.columns)]
    assert linear.apply_exact(_vector(x)).fractions() == forward, "apply_exact"
    assert linear.apply_transposed_exact(_vector(y)).fractions() == back, "apply_transposed_exact"


def _vector(values: list[Fraction]) -> ExactVector:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return ExactVector.of(array)


def signs_and_places(linear: LinearMap, rng: Generator) -> None:  # noqa: ARG001
    """The absolute value, where entries are, and the map by its entries."""
    matrix = linear.dense()
    is_the_matrix(linear.absolute(), np.abs(matrix))
    is_the_matrix(linear.support(), matrix != 0)
    assert linear.support().dtype == np.float32, "support() is not in float32"
    is_the_matrix(linear.sparse(), matrix)
    scaling = linear.scaling()
    scales = linear.rows == linear.columns and not (matrix - np.diag(np.diag(matrix))).any()
    assert (scaling is not None) == scales, f"scaling() is {scaling}"
    if scaling is not None:
        _equal(np.diag(scaling), matrix, "scaling()")


def rows_and_columns(linear: LinearMap, rng: Generator) -> None:
    """Single ones, and those that are read."""
    matrix = linear.dense()
    for unit in range(linear.rows):
        _entries(linear.row(unit), matrix[unit], f"row({unit})")
    for unit in range(linear.columns):
        _entries(linear.column(unit), matrix[:, unit], f"column({unit})")
    units = rng.integers(0, linear.rows, 4) if linear.rows else np.zeros(0, np.int64)
    written = linear.rows_at(units)
    assert written.dtype == np.float64, f"rows_at() is of {written.dtype}"
    _equal(written, matrix[units], "rows_at()")
    some = rng.random(linear.rows) < 0.5
    for rows in (some, ~some):
        _equal(linear.used_columns(rows), (matrix[rows] != 0).any(axis=0), "used_columns()")


def _entries(found: tuple[Array, Array], row: Array, what: str) -> None:
    at, values = found
    _equal(at, np.flatnonzero(row), what)
    _equal(values, row[at], what)


def selections(linear: LinearMap, rng: Generator) -> None:
    """Rows and columns taken, spread and set to zero: exactly."""
    matrix = linear.dense()
    units = rng.integers(0, linear.rows, 5) if linear.rows else np.zeros(0, np.int64)
    is_the_matrix(linear.select_rows(units), matrix[units])
    some = rng.permutation(linear.columns)[: (linear.columns + 1) // 2]
    is_the_matrix(linear.select_columns(some), matrix[:, some])
    is_the_matrix(linear.select(units, some), matrix[units][:, some])
    places = rng.permutation(linear.columns + 2)[: linear.columns]
    spread = np.zeros((linear.rows, linear.columns + 2))
    spread[:, places] = matrix
    is_the_matrix(linear.spread_columns(places, linear.columns + 2), spread)
    if linear.columns > 1:
        try:
            linear.spread_columns(np.zeros(linear.columns, np.int64), linear.columns)
        except ValueError:
            pass
        else:
            raise AssertionError("spread_columns() takes an input twice")
    rows, columns = rng.random(linear.rows) < 0.4, rng.random(linear.columns) < 0.4
    is_the_matrix(linear.without(rows, columns), np.where(rows[:, None] | columns, 0.0, matrix))
    none = np.zeros(linear.rows, dtype=bool), np.zeros(linear.columns, dtype=bool)
    is_the_matrix(linear.without(*none), matrix)


def survives_a_file_and_another_process(linear: LinearMap, rng: Generator) -> None:  # noqa: ARG001
    """Its arrays make it again, and a copy, which pickle makes in the same way, is read-only too."""
    arrays = dict(linear.arrays())
    sizes = {"columns": linear.columns} if kind_of(linear) in ("sparse", "select") else {}
    is_the_matrix(KINDS[kind_of(linear)](**arrays, **sizes), linear.dense())
    again = copy.deepcopy(linear)
    is_the_matrix(again, linear.dense())
    for name, array in again.arrays().items():
        assert not array.flags.writeable, f"'{name}' can be written to"


def _equal(found: Any, wanted: Any, what: str) -> None:
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert found.shape == wanted.shape, f"{what} is of shape {found.shape}, not {wanted.shape}"
    assert (found == wanted).all(), f"{what} is {found}, not {wanted}"


CHECKS: tuple[Callable[[LinearMap, Generator], None], ...] = (
    counts,
    applies,
    applies_to_one,
    applies_exactly,
    signs_and_places,
    rows_and_columns,
    selections,
    survives_a_file_and_another_process,
)
