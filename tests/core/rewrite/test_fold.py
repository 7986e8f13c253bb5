"""Lines, folded into what reads them: the pass alone."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from passes import dense, kept, proposes_only_what_is_proved, relu, true_view, view_of
from strategies import networks_and_boxes

from leo_core.domain import Box
from leo_core.linear import Dense, Select
from leo_core.network import INPUT, Affine, Network
from leo_core.rewrite.climb import Climbed
from leo_core.rewrite.fold import fold_linear
from leo_core.rewrite.step import Refusal

BOX = Box.uniform(-1, 1, 2)


def chain(bias, slope=0.0, dtype=np.float64):
    return Network(2, (dense("z", INPUT, [[1, 2], [3, 4]], bias, dtype), relu("h", "z", 2, slope),
                       dense("out", "h", [[0.5, 1]], [1], dtype)), "out")  # fmt: skip


@given(networks_and_boxes())
def test_what_is_proposed_is_proved(case):
    proposes_only_what_is_proved(fold_linear, *case)


def test_a_stable_layer_folds():
    found = kept(fold_linear, true_view(chain([9, 9]), BOX), "h", tolerance=0.0)
    assert isinstance(found, Climbed)
    folded = found.rewrite.view.network.affine("out")
    assert folded.sources == (INPUT,)
    assert folded.dense().tolist() == [[3.5, 5.0]]
    assert folded.bias.tolist() == [14.5]


def test_a_leaky_inactive_layer_folds_by_its_slope():
    found = kept(fold_linear, true_view(chain([-9, -9], 0.5), BOX), "h", tolerance=1e-9)
    assert isinstance(found, Climbed)
    assert found.rewrite.view.network.affine("out").dense().tolist() == [[1.75, 2.5]]


def test_it_has_nothing_to_do_where_a_unit_changes_state_and_at_the_output():
    view = true_view(chain([9, 0]), BOX)
    assert fold_linear(view, "h") is None
    assert fold_linear(view, "out") is None
    assert fold_linear(view, "z") is None  # a ReLU reads it


def test_rounding_is_paid_for():
    view = view_of(Network(2, (dense("y", INPUT, [[1 / 3, 0.7]], [0.1]), dense("out", "y", [[0.3]], [0])), "out"), BOX)
    refused = kept(fold_linear, view, "y", tolerance=0.0)
    assert isinstance(refused, Refusal)
    assert refused.what == "affine layer not folded"
    assert isinstance(kept(fold_linear, view, "y", tolerance=1e-12), Climbed)


def test_selections_fold_without_rounding():
    picks = Affine("y", (INPUT,), (Select(np.array([1, 0]), columns=2),), np.zeros(2))
    view = view_of(Network(2, (picks, dense("out", "y", [[1 / 3, 0.7]], [0.1])), "out"), BOX)
    found = kept(fold_linear, view, "y", tolerance=0.0)
    assert isinstance(found, Climbed)
    assert found.rewrite.view.network.affine("out").dense().tolist() == [[0.7, 1 / 3]]


def test_a_node_that_reads_another_twice_is_refused():
    twice = Affine("out", ("y", "y"), (Dense([[1.0]]), Dense([[2.0]])), np.zeros(1))
    view = view_of(Network(2, (dense("y", INPUT, [[1, 2]], [0]), twice), "out"), BOX)
    found = fold_linear(view, "y")
    assert isinstance(found, Refusal)
    assert "twice" in found.reason


def test_a_bias_that_overflows_is_refused():
    big = Network(1, (dense("y", INPUT, [[1]], [3e38], np.float32), dense("out", "y", [[4]], [0], np.float32)), "out")
    found = fold_linear(view_of(big, Box.uniform(-1, 1, 1)), "y")
    assert isinstance(found, Refusal)
    assert "overflow" in found.reason
