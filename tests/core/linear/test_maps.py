"""Every linear map against the shipped kit, on generated ones."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import convolutions

from leo_core.linear import KINDS, LARGEST_DENSE, ConvTranspose, Dense, Diagonal, Select, Sparse, kind_of
from leo_core.testing import map_kit

NUMBERS = [0.0, 0.0, -0.0, 1.0, -2.5, 0.1, 1e-300, -1e30]


def unfolded(kernel, geometry):
    """The matrix of a convolution, entry by entry as its definition has it."""
    *lists, groups = geometry
    sizes, strides, low, high, dilations = np.reshape(lists, (5, -1)).tolist()
    channels, reads, *taps = kernel.shape
    counts = [
        (size + before + after - dilation * (count - 1) - 1) // stride + 1
        for size, before, after, dilation, count, stride in zip(sizes, low, high, dilations, taps, strides, strict=True)
    ]
    matrix = np.zeros((channels, *counts, reads * groups, *sizes), kernel.dtype)
    for out, read, *rest in itertools.product(*map(range, (channels, reads, *taps, *counts))):
        tap, position = rest[: len(taps)], rest[len(taps) :]
        axes = zip(tap, position, strides, dilations, low, strict=True)
        at = [p * stride + t * dilation - before for t, p, stride, dilation, before in axes]
        if all(0 <= place < size for place, size in zip(at, sizes, strict=True)):
            matrix[(out, *position, out // (channels // groups) * reads + read, *at)] = kernel[(out, read, *tap)]
    return matrix.reshape(channels * np.prod(counts), -1)


@st.composite
def maps(draw, kinds=tuple(KINDS)):
    """A map, and the matrix that it is."""
    kind, dtype = draw(st.sampled_from(kinds)), draw(st.sampled_from([np.float32, np.float64]))
    rows, columns = draw(st.integers(0, 5)), draw(st.integers(0, 5))
    numbers = st.sampled_from([np.float32(value) for value in NUMBERS] if dtype == np.float32 else NUMBERS)
    if kind in ("conv", "conv_transpose"):
        conv = draw(convolutions(numbers, dtype))
        matrix = unfolded(**conv.arrays())
        return (conv, matrix) if kind == "conv" else (ConvTranspose(**conv.arrays()), matrix.T)
    if kind == "diagonal":
        diagonal = np.array(draw(st.lists(numbers, min_size=rows, max_size=rows)), dtype)
        return Diagonal(diagonal), np.diag(diagonal)
    if kind == "select":
        columns = max(1, columns)
        indices = np.array(draw(st.lists(st.integers(0, columns - 1), min_size=rows, max_size=rows)), np.int64)
        return Select(indices, columns=columns), np.eye(columns)[indices]
    flat = draw(st.lists(numbers, min_size=rows * columns, max_size=rows * columns))
    matrix = np.array(flat, dtype).reshape(rows, columns)
    if kind == "dense":
        return Dense(matrix), matrix
    stored = matrix != 0
    if draw(st.booleans()):  # zeros that are stored, and columns in any order
        stored[:, ::2] = True
    at = [draw(st.permutations(np.flatnonzero(row).tolist())) for row in stored]
    data = [matrix[row, column] for row, columns_of in enumerate(at) for column in columns_of]
    indices = [column for columns_of in at for column in columns_of]
    ends = np.cumsum([0, *(len(columns_of) for columns_of in at)])
    return Sparse(np.array(data, dtype), np.array(indices, np.int64), ends, columns=columns), matrix


@pytest.mark.parametrize("check", map_kit.CHECKS, ids=lambda check: check.__name__)
@given(made=maps(), seed=st.integers(0, 99))
def test_the_kit(check, made, seed):
    linear, matrix = made
    map_kit.is_the_matrix(linear, matrix)
    check(linear, np.random.default_rng(seed))


@pytest.mark.parametrize(
    "wrong",
    [
        {"nonzeros": 99}, {"terms": 1}, {"largest": 0.5}, {"apply": lambda x: x[..., :2] * 0},
        {"apply_exact": lambda x: x}, {"absolute": lambda: Dense(np.ones((2, 3)))},
        {"row": lambda unit: (np.array([0]), np.array([7.0]))}, {"select_rows": lambda units: Dense(np.ones((5, 3)))},
        {"scaling": lambda: np.ones(2)}, {"used_columns": lambda rows: np.zeros(3, dtype=bool)},
    ],
    ids=lambda wrong: next(iter(wrong)),
)  # fmt: skip
def test_the_kit_finds_wrong_answers(wrong):
    """The kit can fail: one answer of a map is another's."""

    class Wrong(Sparse.__mro__[1]):  # the protocol's own defaults, around a right map
        def __init__(self):
            self.right = Dense([[1.5, -2.0, 0.0], [0.0, 4.0, 3.0]])
            self.rows, self.columns, self.dtype = 2, 3, self.right.dtype

    for name in Wrong.__abstractmethods__ | {"row", "select_rows", "scaling", "used_columns", "rows_at", "column"}:
        setattr(Wrong, name, property(lambda self, name=name: wrong.get(name, getattr(self.right, name))))
    Wrong.__abstractmethods__ = frozenset()
    linear, rng = Wrong(), np.random.default_rng(0)
    assert any(_fails(check, linear, rng) for check in map_kit.CHECKS[:-1])


def _fails(check, linear, rng):
    try:
        check(linear, rng)
    except AssertionError:
        return True
    return False


def test_what_is_too_large_is_not_written_out():
    wide = Sparse.zero(1 << 15, 1 << 15)
    assert wide.rows * wide.columns > LARGEST_DENSE
    with pytest.raises(MemoryError, match="a Sparse map of 32768 × 32768 is too large to write out"):
        wide.dense()


def test_what_is_no_kind_of_map_is_named():
    with pytest.raises(
        TypeError, match="str is not one of LEO's linear maps: dense, sparse, diagonal, select, conv, conv_transpose"
    ):
        kind_of("dense")
