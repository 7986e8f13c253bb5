"""Inactive units, dropped: the pass alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from passes import dense, kept, proposes_only_what_is_proved, relu, true_view
from strategies import networks_and_boxes

from leo_core.domain import Box
from leo_core.network import INPUT, Network
from leo_core.rewrite.climb import Climbed
from leo_core.rewrite.inactive import drop_inactive
from leo_core.rewrite.step import Refusal
from leo_core.rewrite.view import View

BOX = Box.uniform(-1, 1, 1)


def network(bias, slope=0.0):
    return Network(1, (dense("z", INPUT, [[1], [1]], bias), relu("h", "z", 2, slope),
                       dense("out", "h", [[1, 2]], [0])), "out")  # fmt: skip


@given(networks_and_boxes())
def test_what_is_proposed_is_proved(case):
    proposes_only_what_is_proved(drop_inactive, *case)


@pytest.mark.parametrize(("bias", "slope"), [([1, 0.5], 0.0), ([-2, 0], 0.25)], ids=["none inactive", "a leak"])
def test_it_has_nothing_to_do(bias, slope):
    assert drop_inactive(true_view(network(bias, slope), BOX), "h") is None


def test_a_unit_that_touches_zero_from_below_is_cleared():
    found = kept(drop_inactive, true_view(network([-1, 0]), BOX), "h", tolerance=0.0)
    assert isinstance(found, Climbed)
    assert found.rewrite.view.network.affine("out").dense().tolist() == [[0.0, 2.0]]
    assert not found.rewrite.changes


def test_the_output_itself_is_left_to_another_pass():
    ends_in_relu = Network(1, (dense("z", INPUT, [[1]], [-3]), relu("h", "z", 1)), "h")
    assert drop_inactive(true_view(ends_in_relu, BOX), "h") is None


def test_a_sliver_above_zero_is_paid_for():
    view = true_view(network([-1, 0]), BOX)
    facts = view.facts.moved({"z": np.array([1e-6, 0.0])})
    moved = View(view.network, facts)
    assert isinstance(kept(drop_inactive, moved, "h", tolerance=1e-9), Refusal)
    found = kept(drop_inactive, moved, "h", tolerance=1e-3)
    assert isinstance(found, Climbed)
    assert 1e-6 <= found.added.max() < 1.1e-6
