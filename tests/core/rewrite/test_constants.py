"""Constant units, folded into biases: the pass alone."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from passes import dense, kept, proposes_only_what_is_proved, relu, true_view
from strategies import networks_and_boxes

from leo_core.domain import Box
from leo_core.network import INPUT, Network
from leo_core.rewrite.climb import Climbed
from leo_core.rewrite.constants import fold_constants
from leo_core.rewrite.step import Refusal


@given(networks_and_boxes())
def test_what_is_proposed_is_proved(case):
    proposes_only_what_is_proved(fold_constants, *case)


def network(value, weight, bias, dtype=np.float64):
    return Network(1, (dense("z", INPUT, [[0], [1]], [value, 0], dtype), relu("h", "z", 2),
                       dense("out", "h", [[weight, 1]], [bias], dtype)), "out")  # fmt: skip


def test_it_has_nothing_to_do_where_all_units_vary():
    varying = Network(1, (dense("z", INPUT, [[1]], [0]), relu("h", "z", 1), dense("out", "h", [[1]], [0])), "out")
    view = true_view(varying, Box.uniform(-1, 1, 1))
    assert fold_constants(view, "out") is None
    assert fold_constants(view, "h") is None


def test_a_constant_moves_into_the_bias_exactly():
    found = kept(fold_constants, true_view(network(3, 2, 1), Box.uniform(-1, 1, 1)), "out", tolerance=0.0)
    assert isinstance(found, Climbed)
    changed = found.rewrite.view.network.affine("out")
    assert changed.dense().tolist() == [[0, 1]]
    assert changed.bias.tolist() == [7.0]
    assert not found.rewrite.changes


def test_a_constant_below_zero_adds_nothing():
    found = kept(fold_constants, true_view(network(-3, 2, 1), Box.uniform(-1, 1, 1)), "out", tolerance=0.0)
    assert isinstance(found, Climbed)
    assert found.rewrite.view.network.affine("out").bias.tolist() == [1.0]


def test_what_a_fixed_input_makes_is_constant_and_the_input_stays():
    view = true_view(network(3, 2, 1), Box(np.array([0.5]), np.array([0.5])))
    assert fold_constants(view, "z") is None
    found = kept(fold_constants, view, "out", tolerance=0.0)
    assert isinstance(found, Climbed)
    assert found.rewrite.view.network.affine("out").bias.tolist() == [7.5]


def test_rounding_is_paid_for():
    view = true_view(network(0.1, 0.3, 1.0, np.float32), Box.uniform(-1, 1, 1))
    assert isinstance(kept(fold_constants, view, "out", tolerance=0.0), Refusal)
    found = kept(fold_constants, view, "out", tolerance=1e-6)
    assert isinstance(found, Climbed)
    assert 0 < found.added.max() < 1e-7


def test_a_bias_that_overflows_is_refused():
    view = true_view(network(3e38, 3e38, 1.0, np.float32), Box.uniform(-1, 1, 1))
    found = fold_constants(view, "out")
    assert isinstance(found, Refusal)
    assert "overflow" in found.reason
