"""Parallel units, merged: the pass alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from passes import dense, kept, proposes_only_what_is_proved, relu, true_view
from strategies import GRID, boxes
from truth import largest_difference

from leo_core.domain import Box
from leo_core.network import INPUT, Network
from leo_core.rewrite.climb import Climbed
from leo_core.rewrite.layer import layer_of
from leo_core.rewrite.parallel import merge_parallel, pairs_of

BOX = Box.uniform(-1, 1, 2)


def network(rows, bias, slope=0.0, outgoing=None):
    outgoing = np.arange(1, len(rows) + 1)[None] if outgoing is None else outgoing
    return Network(2, (dense("z", INPUT, rows, bias), relu("h", "z", len(rows), slope),
                       dense("out", "h", outgoing, [0] * len(outgoing))), "out")  # fmt: skip


@st.composite
def parallel_layers(draw):
    """A layer some of whose rows are multiples of one of them, or nearly."""
    row = draw(st.lists(GRID, min_size=3, max_size=3))
    factors = draw(st.lists(st.sampled_from([0.5, 1.0, 1.5, -1.0, 0.3]), min_size=1, max_size=3))
    off = draw(st.sampled_from([0.0, 0.0, 1e-9, 1e-4]))
    rows = np.array([row, *(np.array(row) * factor + off for factor in factors)])
    outgoing = np.array([draw(st.lists(GRID, min_size=len(rows), max_size=len(rows)))])
    return network(rows[:, :2], rows[:, 2], draw(st.sampled_from([0.0, 0.1])), outgoing), draw(boxes(2))


@given(parallel_layers())
def test_what_is_proposed_is_proved(case):
    proposes_only_what_is_proved(merge_parallel, *case)


def test_unstable_multiples_merge_exactly():
    before = network([[1, 2], [2, 4], [0.5, 1]], [0.25, 0.5, 0.125])
    found = kept(merge_parallel, true_view(before, BOX), "h", tolerance=0.0)
    assert isinstance(found, Climbed)
    after = found.rewrite.view
    assert after.network.size("h") == 1
    assert largest_difference(before, after.network, BOX) == 0
    copies = after.facts.lineage.copies["h"]
    assert sorted(unit for unit, _, _ in copies) == [0, 2]
    assert {of for _, of, _ in copies} == {1}


@pytest.mark.parametrize(
    ("rows", "bias", "slope"),
    [([[1, 2], [-1, -2]], [0, 0], 0.0), ([[1, 2], [2, 1]], [0, 0], 0.0), ([[1, 2], [2, 4]], [9, 18], 0.0)],
    ids=["opposite", "other directions", "active"],
)
def test_it_has_nothing_to_do(rows, bias, slope):
    assert merge_parallel(true_view(network(rows, bias, slope), BOX), "h") is None


def test_units_with_other_leaks_do_not_merge():
    from leo_core.network import Relu

    before = network([[1, 2], [2, 4]], [0, 0])
    leaky = Network(2, (before.nodes[0], Relu("h", "z", np.array([0.0, 0.25])), before.nodes[2]), "out")
    assert merge_parallel(true_view(leaky, BOX), "h") is None


def test_near_ones_merge_where_the_tolerance_pays_for_it():
    view = true_view(network([[1, 2], [1, 2.0001]], [0, 0]), BOX)
    assert not isinstance(kept(merge_parallel, view, "h", tolerance=1e-6), Climbed)
    assert isinstance(kept(merge_parallel, view, "h", tolerance=1e-3), Climbed)


def test_no_unit_both_goes_and_stays():
    rows = np.array([[1, 2]]) * np.array([[1.0], [2.0], [0.5], [3.0], [0.25]])
    pairs = pairs_of(layer_of(true_view(network(rows, np.zeros(5)), BOX), "h"), sign=1)
    assert not set(pairs.goes.tolist()) & set(pairs.stays.tolist())
    assert len(set(pairs.goes.tolist())) == len(pairs.goes) == 4
