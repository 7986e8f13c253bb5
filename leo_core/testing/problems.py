"""Mixed-integer programs that know their answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from leo_core.milp.problem import MilpProblem

Array = NDArray[np.float64]
INF = np.inf


@final
@dataclass(frozen=True, eq=False)
class Known:
    """A program, an objective, and its maximum; None when there is no feasible point."""

    name: str
    problem: MilpProblem
    objective: Array
    maximum: float | None


def program(
    matrix: ArrayLike,
    row_lower: ArrayLike,
    row_upper: ArrayLike,
    lower: ArrayLike,
    upper: ArrayLike,
    integer: ArrayLike,
) -> MilpProblem:
    """A program from plain lists."""
    low, high = np.asarray(lower, dtype=np.float64), np.asarray(upper, dtype=np.float64)
    return MilpProblem(
        matrix=np.asarray(matrix, dtype=np.float64).reshape(-1, len(low)),
        row_lower=np.asarray(row_lower, dtype=np.float64),
        row_upper=np.asarray(row_upper, dtype=np.float64),
        lower=low,
        upper=high,
        integer=np.asarray(integer, dtype=bool),
    )


def box_only() -> Known:
    """No rows at all: each column sits at the end its coefficient favours."""
    problem = program(np.zeros((0, 3)), [], [], [-1, 0, 2], [1, 5, 2], [False] * 3)
    return Known("box only", problem, np.array([1.0, -1.0, 3.0]), 7.0)


def knapsack() -> Known:
    """Whole items of weight 3, 4, 5 and worth 4, 5, 6 into 7: the first two."""
    problem = program([[3, 4, 5]], [-INF], [7], [0, 0, 0], [1, 1, 1], [True] * 3)
    return Known("knapsack", problem, np.array([4.0, 5.0, 6.0]), 9.0)


def continuous() -> Known:
    """A plain LP: x + y ≤ 4, x + 3y ≤ 6, x ≤ 3; 3x + 5y is largest, 14, at (3, 1)."""
    problem = program([[1, 1], [1, 3]], [-INF, -INF], [4, 6], [0, 0], [3, 10], [False] * 2)
    return Known("continuous", problem, np.array([3.0, 5.0]), 14.0)


def equality() -> Known:
    """Rows may be equalities, and values negative: x + y = −1 with x ≤ −2 whole, y ≤ 5."""
    problem = program([[1, 1]], [-1], [-1], [-6, -5], [-2, 5], [True, False])
    return Known("equality", problem, np.array([1.0, -1.0]), -3.0)


def infeasible() -> Known:
    """0.2 ≤ x ≤ 0.8 whole."""
    problem = program([[1]], [-INF], [10], [0.2], [0.8], [True])
    return Known("infeasible", problem, np.array([1.0]), None)


def infeasible_rows() -> Known:
    """x + y ≥ 3 and x + y ≤ 2, continuous."""
    problem = program([[1, 1], [1, 1]], [3, -INF], [INF, 2], [0, 0], [5, 5], [False] * 2)
    return Known("infeasible rows", problem, np.array([1.0, 0.0]), None)


def relu_gap() -> Known:
    """relu(x) − x/2 on [−1, 1] by big-M: 1/2 at both ends."""
    # columns x, y, z: y ≥ x, y ≤ x + 1 − z, y ≤ z
    matrix = [[1, -1, 0], [-1, 1, 1], [0, 1, -1]]
    problem = program(matrix, [-INF] * 3, [0, 1, 0], [-1, 0, 0], [1, 1, 1], [False, False, True])
    return Known("relu gap", problem, np.array([-0.5, 1.0, 0.0]), 0.5)


def unbounded() -> Known:
    """x ≥ 0 and nothing above it; y whole. Its maximum is not finite."""
    problem = program([[1, -1]], [-1], [INF], [0, 0], [INF, 5], [False, True])
    return Known("unbounded", problem, np.array([1.0, 0.0]), INF)


def big_m(reach: float, margin: float) -> Known:
    """relu(x) − relu(x − margin) on [−reach, reach], with a big-M of ``reach`` and twice that: margin."""
    # columns x, p, z, q, w: p = relu(x) by z, q = relu(x − margin) by w
    matrix = np.array(
        [
            [-1, 1, 0, 0, 0],
            [-1, 1, reach, 0, 0],
            [0, 1, -reach, 0, 0],
            [-1, 0, 0, 1, 0],
            [-1, 0, 0, 1, 2 * reach],
            [0, 0, 0, 1, -reach],
        ]
    )
    low = [0, -INF, -INF, -margin, -INF, -INF]
    high = [INF, reach, 0, INF, 2 * reach - margin, 0]
    whole = [False, False, True, False, True]
    problem = program(matrix, low, high, [-reach, 0, 0, 0, 0], [reach, reach, 1, reach, 1], whole)
    return Known(f"big-M {reach:g}, margin {margin:g}", problem, np.array([0.0, 1.0, 0.0, -1.0, 0.0]), margin)


def three_of_five() -> Known:
    """Five whole columns, four of which fit; a callback will forbid every four of them: 3."""
    problem = program(np.ones((1, 5)), [-INF], [4], [0] * 5, [1] * 5, [True] * 5)
    return Known("three of five", problem, np.ones(5), 3.0)


def hard() -> Known:
    """A market split without a solution in sight: nothing is proved in a millisecond. Its maximum is not known."""
    rng = np.random.default_rng(7)
    rows = rng.integers(0, 100, (5, 40)).astype(np.float64)
    half = np.floor(rows.sum(axis=1) / 2)
    problem = program(
        np.column_stack([rows, np.eye(5), -np.eye(5)]),
        half,
        half,
        np.zeros(50),
        np.concatenate([np.ones(40), np.full(10, 1e4)]),
        [True] * 40 + [False] * 10,
    )
    return Known("hard", problem, np.concatenate([np.zeros(40), -np.ones(10)]), None)


KNOWN = (box_only, knapsack, continuous, equality, infeasible, infeasible_rows, relu_gap)
