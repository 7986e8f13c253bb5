"""Networks that fooled the rewriting engine, or the proof of what it changes, once."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from passes import proposes_only_what_is_proved
from truth import largest_difference

from leo_core.domain import Box
from leo_core.linear import Dense, Select
from leo_core.network import INPUT, Affine, Network, Relu
from leo_core.rewrite import View, rewrite
from leo_core.rewrite.lift import lift
from tests.deciding import decide

DENORMAL = 5e-324


def dense(name, source, matrix, bias):
    return Affine(name, (source,), (Dense(np.array(matrix, dtype=np.float64)),), np.array(bias, dtype=np.float64))


def relu(name, source, size, slope=0.0):
    return Relu(name, source, np.full(size, slope))


def check(network, box, tolerance, **options):
    stability = decide(network, box)
    result = rewrite(View.of(network, stability), tolerance=tolerance, **options)
    assert largest_difference(network, result.network, box) <= Fraction(result.deviation)
    assert result.deviation <= tolerance
    return result


@pytest.mark.parametrize("slope", [0.0, 0.1, 0.5, 0.9])
def test_what_underflows_in_a_relu_is_blown_up_behind_it(slope):
    nodes = (dense("y", INPUT, [[1.5]], [0]), dense("z", "y", [[DENORMAL]], [0]), relu("h", "z", 1, slope),
             dense("out", "h", [[1e300]], [0]))  # fmt: skip
    check(Network(1, nodes, "out"), Box.uniform(-4, 4, 1), 1e-10)


def test_pivots_among_denormals_need_not_fall():
    rows = np.array([[6, -2, 1, 0, -2], [-2, 1, 0, 0, 0], [-1, 1, -2, 0, 2], [0, -1, 1, 0, -1]]) * DENORMAL
    nodes = (dense("z", INPUT, rows, np.ones(4)), relu("h", "z", 4),
             dense("out", "h", np.arange(1.0, 21).reshape(5, 4), np.zeros(5)))  # fmt: skip
    network, box = Network(5, nodes, "out"), Box.uniform(-1, 1, 5)
    stability = decide(network, box)
    assert rewrite(View.of(network, stability), tolerance=1e-9).network.units == 0


TWICE = {
    "the folded node reads a ReLU twice": (
        Affine("sum", ("h", "h"), (Dense([[1.0, 2.0]]), Dense([[1.0, 2.0]])), np.array([0.5])),
        dense("out", "sum", [[3]], [1]),
    ),
    "the reader reads the input twice": (
        Affine("out", ("h", INPUT, INPUT), (Dense([[1.0, 2.0]]), Dense([[1.0]]), Dense([[7.0]])), np.array([0.5])),
    ),
    "a sum of a ReLU with itself": (
        Affine("sum", ("h", "h"), (Select.identity(2), Select.identity(2)), np.zeros(2)),
        dense("out", "sum", [[3, 1]], [1]),
    ),
}


@pytest.mark.parametrize("bias", [(0.1, 0.3), (5, 5)], ids=["unstable", "active"])
@pytest.mark.parametrize("tail", TWICE.values(), ids=TWICE)
@pytest.mark.parametrize("tolerance", [0.0, 1e-9])
def test_a_node_that_is_read_twice(tail, bias, tolerance):
    network = Network(1, (dense("z", INPUT, [[1], [-1]], bias), relu("h", "z", 2), *tail), "out")
    check(network, Box.uniform(-1, 1, 1), tolerance)


@pytest.mark.parametrize("objective", ["connections", "units", "parameters"])
def test_a_result_is_never_larger_by_its_objective(objective):
    # two ReLUs read one node, and nothing reads the first unit of one of them
    nodes = (
        dense("z", INPUT, [[1], [1]], [0.1, -0.2]),
        relu("h", "z", 2),
        relu("k", "z", 2, 0.5),
        Affine("out", ("h", "k"), (Select(np.array([1]), columns=2), Dense([[1.0, 1.0]])), np.zeros(1)),
    )
    network = Network(1, nodes, "out")
    found = check(network, Box.uniform(-1, 1, 1), 0.0, objective=objective).network
    assert getattr(found, objective) <= getattr(network, objective)


def test_a_wide_network_stays_wide_when_its_wide_layer_folds():
    nodes = (
        dense("z", INPUT, [[1.1], [2.3]], [5, 5]),
        relu("h", "z", 2),
        Affine("out", ("h",), (Dense(np.array([[1, 2.5]], np.float32)),), np.zeros(1, np.float32)),
    )
    network = Network(1, nodes, "out")
    found = check(network, Box.uniform(-1, 1, 1), 1e-3).network
    assert found.units == 0
    assert found.dtype == network.dtype == np.float64


def test_a_layer_that_a_lifted_one_changes_does_not_fold_with_it():
    """``a3`` reads what is lifted out of ``a2``: were it folded at once, what lifting changes there would be lost."""

    def single(name, sources, matrices, bias):
        maps = tuple(Dense(np.array(matrix, np.float32)) for matrix in matrices)
        return Affine(name, sources, maps, np.array(bias, np.float32))

    third = np.float32(1 / 3)
    nodes = (
        single("a1", (INPUT,), [[[-0.7], [0.48973188], [-0.48973188]]], [-0.5, 0.35031268, -0.35031268]),
        relu("r1", "a1", 3),
        single("a2", ("r1",), [[[-0.2098851, -third, third], [-0.34980848, -0.3, 0.3]]], [0.111, 0.185]),
        relu("r2", "a2", 2),
        single("a3", ("r2", "r1"), [[[0, -1.1], [0.33, 0.36666667]], [[0.3, 0.3, third], [0.5, 0, 2]]], [1, 1]),
        relu("r3", "a3", 2),
        single("out", ("r3",), [[[1.1, 0.36666667], [0, 0]]], [0, 0]),
    )
    assert proposes_only_what_is_proved(lift, Network(1, nodes, "out"), Box.uniform(-0.5, 2, 1))
