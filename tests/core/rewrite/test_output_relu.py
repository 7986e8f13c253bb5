"""A ReLU on the output: the pass alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from passes import dense, kept, proposes_only_what_is_proved, relu, true_view
from strategies import networks_and_boxes

from leo_core.domain import Box
from leo_core.network import INPUT, Network
from leo_core.rewrite.climb import Climbed
from leo_core.rewrite.output_relu import settle_output

BOX = Box.uniform(-1, 1, 1)


def network(bias, slope=0.0):
    size = len(bias)
    return Network(1, (dense("z", INPUT, [[1]] * size, bias), relu("h", "z", size, slope)), "h")


@given(networks_and_boxes())
def test_what_is_proposed_is_proved(case):
    proposes_only_what_is_proved(settle_output, *case)


def test_it_leaves_what_is_no_output_and_what_is_unstable():
    inner = Network(1, (dense("z", INPUT, [[1]], [-5]), relu("h", "z", 1), dense("out", "h", [[1]], [0])), "out")
    assert settle_output(true_view(inner, BOX), "h") is None
    assert settle_output(true_view(network([0.5, 0.0]), BOX), "h") is None


@pytest.mark.parametrize("bias", [[5.0, 1.0], [1.0, -1.0], [-5.0, -2.0]])
def test_settled_outputs_need_no_relu(bias):
    found = kept(settle_output, true_view(network(bias), BOX), "h", tolerance=0.0)
    assert isinstance(found, Climbed)
    assert not found.rewrite.view.network.relus


def test_an_inactive_output_among_unstable_ones_becomes_zero():
    found = kept(settle_output, true_view(network([-5.0, 0.0]), BOX), "h", tolerance=0.0)
    assert isinstance(found, Climbed)
    changed = found.rewrite.view.network
    assert changed.affine("z").dense().tolist() == [[0], [1]]
    assert len(changed.relus) == 1


def test_a_leaky_output_stays():
    assert settle_output(true_view(network([-5.0, 0.0], 0.25), BOX), "h") is None
