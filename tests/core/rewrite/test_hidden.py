"""Units that are parallel on the box though their weights do not show it, merged: the pass alone."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from passes import dense, kept, proposes_only_what_is_proved, relu, true_view
from strategies import GRID, boxes, networks_and_boxes
from truth import largest_difference

import leo_core
from leo_core import checker, storage
from leo_core.domain import Box
from leo_core.linear import Dense
from leo_core.network import INPUT, Affine, Network
from leo_core.rewrite.climb import Climbed
from leo_core.rewrite.hidden import hidden_pairs, merge_hidden
from leo_core.rewrite.layer import layer_of
from leo_core.rewrite.parallel import pairs_of
from leo_core.rewrite.step import Refusal

BOX = Box.uniform(-1, 1, 2)


def beside(rows, bias, factor, off=0.0, lift=5.0, bend=((0.0, 1.0),), slope=0.0):
    """Half of the units of a layer read relu(x + lift), the other half x past it, all of them relu(bend x), too."""
    rows, bias, bend = np.array(rows, float), np.array(bias, float), np.array(bend, float)
    count = len(rows)
    first = dense("y", INPUT, np.vstack([np.eye(2), bend]), [lift, lift] + [0.0] * len(bend))
    both = np.ones((count, len(bend)))
    through = np.vstack([np.hstack([rows, both]), np.hstack([0 * rows, factor * both])])
    past = np.vstack([0 * rows, factor * rows + off])
    biases = np.concatenate([bias - lift * rows.sum(axis=1), factor * bias])
    node = Affine("z", ("g", INPUT), (Dense(through), Dense(past)), biases)
    outgoing = np.arange(1.0, 4 * count + 1).reshape(2, 2 * count) * [[1.0], [-0.5]]
    nodes = (first, relu("g", "y", 2 + len(bend)), node, relu("h", "z", 2 * count, slope),
             dense("out", "h", outgoing, [0, 1]))  # fmt: skip
    return Network(2, nodes, "out")


@st.composite
def hidden(draw):
    """Such layers, of which numbers may be a little off, or what is said to be active not quite so."""
    count = draw(st.integers(1, 2))
    rows = np.array(draw(st.lists(GRID, min_size=2 * count, max_size=2 * count))).reshape(count, 2)
    bias = draw(st.lists(GRID, min_size=count, max_size=count))
    off = draw(st.sampled_from([0.0, 0.0, 1e-12, 1e-6, 1e-4]))
    lift = draw(st.sampled_from([5.0, 1.0, 0.999, 0.3]))
    network = beside(rows, bias, draw(st.sampled_from([1.0, 0.5, 0.3, 3.0, -1.0])), off, lift,
                     slope=draw(st.sampled_from([0.0, 0.0, 0.1])))  # fmt: skip
    return network, draw(st.one_of(st.just(BOX), boxes(2)))


@given(hidden())
def test_what_is_proposed_is_proved(case):
    proposes_only_what_is_proved(merge_hidden, *case)


@given(networks_and_boxes())
def test_what_is_proposed_of_any_network_is_proved(case):
    proposes_only_what_is_proved(merge_hidden, *case)


@settings(max_examples=20)
@given(hidden(), st.sampled_from([1e-9, 1e-3]))
def test_all_passes_together(case, tolerance):
    network, box = case
    result = leo_core.compress(network, box, tolerance=tolerance, solver="scipy")
    assert largest_difference(network, result.network, box) <= Fraction(result.deviation) <= Fraction(tolerance)


@pytest.mark.parametrize("factor", [1.0, 0.5, 0.3, 3.0])
def test_what_weights_do_not_show_merges(factor):
    network = beside([[1, 2], [2, -1]], [0.25, -0.5], factor)
    view = true_view(network, BOX)
    layer = layer_of(view, "h")
    assert len(pairs_of(layer, sign=1).goes) == 0
    assert sorted(hidden_pairs(layer).goes.tolist() + hidden_pairs(layer).stays.tolist()) == [0, 1, 2, 3]
    found = kept(merge_hidden, view, "h", tolerance=1e-9)
    assert isinstance(found, Climbed)
    assert found.rewrite.view.network.size("h") == 2
    assert largest_difference(network, found.rewrite.view.network, BOX) <= Fraction(1e-9)


def test_the_whole_is_certified(tmp_path):
    network = beside([[1, 2], [2, -1]], [0.25, -0.5], 0.5)
    result = leo_core.compress(network, BOX, tolerance=1e-9, evidence=True)
    assert result.network.size("h") == 2
    assert "merge_hidden" in {step.rule for step in result.steps}
    paths = [tmp_path / name for name in ("it.cert", "a.leo", "b.leo")]
    storage.save(network, paths[1])
    result.export(paths[2])
    result.certify(paths[0])
    assert checker.check(*paths).deviation <= 1e-9


def spiked(width, height):
    """Units that are the same but for a spike around a place that no sample meets."""
    network = beside([[1, 2]], [0.25], 1.0, bend=[[0.0, 1.0], [1.0, 0.0]])
    y, _, z, *rest = network.nodes
    at = 0.123456789
    # relu(x − at + width) − 2 relu(x − at) + relu(x − at − width), times height / width
    spike = np.array([[1.0, 0.0]] * 3)
    y = replace(y, maps=(Dense(np.vstack([y.dense(), spike])),), bias=np.append(y.bias, [width - at, -at, -at - width]))
    through, past = z.maps
    extra = np.vstack([np.zeros(3), np.array([1.0, -2.0, 1.0]) * height / width])
    z = replace(z, maps=(Dense(np.hstack([through.dense(), extra])), past))
    return Network(2, (y, relu("g", "y", 7), z, *rest), "out")


def test_a_spike_that_no_sample_meets_is_not_overlooked():
    """On all points looked at both are the same; by a proof they are not, and it is as large as the spike."""
    network = spiked(1e-7, 1.0)
    view = true_view(network, BOX)
    pairs = hidden_pairs(layer_of(view, "h"))
    assert len(pairs.goes) == 1
    assert pairs.error[0] >= 1.0
    assert isinstance(kept(merge_hidden, view, "h", tolerance=0.5), Refusal)
    proposes_only_what_is_proved(merge_hidden, network, BOX)


@pytest.mark.parametrize("change", ["opposite", "another slope", "chain"])
def test_what_is_left_alone(change):
    network = beside([[1, 2]], [0.25], -1.0 if change == "opposite" else 1.0)
    if change == "another slope":
        h = network["h"]
        network = network.with_nodes(replace(h, slope=np.array([0.0, 0.1])))
    if change == "chain":
        network = Network(2, (dense("z", INPUT, [[1, 2], [2, 4]], [0, 0]), relu("h", "z", 2),
                              dense("out", "h", [[1, 1]], [0])), "out")  # fmt: skip
    assert kept(merge_hidden, true_view(network, BOX), "h") is None
