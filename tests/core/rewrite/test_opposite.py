"""Opposite units, turned into lines: the pass alone."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from passes import dense, kept, proposes_only_what_is_proved, relu, true_view, view_of
from strategies import GRID, boxes

from leo_core.domain import Box
from leo_core.network import INPUT, Network
from leo_core.rewrite.climb import Climbed
from leo_core.rewrite.opposite import merge_opposite
from leo_core.rewrite.step import Refusal
from leo_core.stability.verdict import State

BOX = Box.uniform(-1, 1, 2)


def network(rows, bias, outgoing, slope=0.0):
    return Network(2, (dense("z", INPUT, rows, bias), relu("h", "z", len(rows), slope),
                       dense("out", "h", outgoing, [0] * len(outgoing))), "out")  # fmt: skip


@st.composite
def opposite_layers(draw):
    count = draw(st.integers(1, 3))
    rows = np.array([draw(st.lists(GRID, min_size=3, max_size=3)) for _ in range(count)])
    factor = np.array(draw(st.lists(st.sampled_from([1.0, 0.5, 0.3]), min_size=count, max_size=count)))
    rows = np.vstack([rows, -factor[:, None] * rows + draw(st.sampled_from([0.0, 1e-9]))])
    outgoing = np.array([draw(st.lists(GRID, min_size=len(rows), max_size=len(rows)))])
    return network(rows[:, :2], rows[:, 2], outgoing), draw(boxes(2))


@given(opposite_layers())
def test_what_is_proposed_is_proved(case):
    proposes_only_what_is_proved(merge_opposite, *case)


def test_three_opposite_pairs_of_one_output_become_three_units_and_a_line():
    rows = np.array([[1, 2], [2, -1], [0.5, 1.5]])
    before = network(np.vstack([rows, -rows]), np.zeros(6), [[1, 2, 3, 4, 5, 6]])
    found = kept(merge_opposite, true_view(before, BOX), "h", tolerance=1e-12)
    assert isinstance(found, Climbed)
    after = found.rewrite.view
    assert after.network.size("h") == 4
    assert len(after.facts.lineage.copies["h"]) == 3
    assert found.rewrite.what == "3 opposite unit(s) and 0 active one(s) re-factored"


def test_one_pair_is_left_since_its_line_would_take_a_unit_too():
    found = kept(merge_opposite, true_view(network([[1, 2], [-1, -2]], [0, 0], [[1, 1]]), BOX), "h", tolerance=1e-9)
    assert isinstance(found, Refusal)
    assert found.what == "1 opposite unit(s) left"


def test_it_has_nothing_to_do():
    assert merge_opposite(true_view(network([[1, 2], [2, 4]], [0, 0], [[1, 1]]), BOX), "h") is None
    leaky = network([[1, 2], [-1, -2]], [0, 0], [[1, 1]], slope=0.25)
    assert merge_opposite(view_of(leaky, BOX), "h") is None


def test_a_pair_whose_outgoing_weights_cancel_goes_as_a_whole():
    before = network([[1, 2], [-0.5, -1]], [0.25, -0.125], [[1, -2]])
    found = kept(merge_opposite, true_view(before, BOX), "h", tolerance=1e-12)
    assert isinstance(found, Climbed)
    view = found.rewrite.view
    assert (view.facts.units["z"].state == State.ACTIVE).sum() == 1
    assert not view.network.affine("out").dense()[:, :1].any()  # the one that stays is read no more


def test_what_rounding_leaves_of_a_pair_is_paid_for():
    before = network([[1, 2], [-1, -2]], [0.25, -0.25], [[1, -1 - 1e-8]])
    found = kept(merge_opposite, true_view(before, BOX), "h", tolerance=1e-6)
    assert isinstance(found, Climbed)
    assert 1e-8 <= float(found.added.max()) <= 1e-6
    assert isinstance(kept(merge_opposite, true_view(before, BOX), "h", tolerance=1e-9), Refusal)


def test_what_cancels_over_the_reals_costs_nothing():
    """relu(s) − relu(−s) = s and |d| = 2 relu(d) − d: min(a, b), of two units fewer than it was written with."""
    rows = [[1, 1], [-1, -1], [1, -1], [-1, 1]]
    before = network(rows, np.zeros(4), [[0.5, -0.5, -0.5, -0.5]])
    found = kept(merge_opposite, true_view(before, BOX), "h", tolerance=0.0)
    assert isinstance(found, Climbed)
    assert not any(far.any() for far in found.moved.values())
    assert int(np.count_nonzero(found.rewrite.view.network.affine("out").dense())) == 2
    at = Box.uniform(-1, 1, 2).sample(np.random.default_rng(0), 20)
    for x in at:
        both = [net.evaluate_exact(x)["out"].fractions()[0] for net in (before, found.rewrite.view.network)]
        assert both[0] == both[1] == min(Fraction(x[0]), Fraction(x[1]))
