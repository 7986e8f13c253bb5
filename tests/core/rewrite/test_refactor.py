"""The linear block of a layer, re-factored: the pass alone."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from passes import dense, kept, made, proposes_only_what_is_proved, relu, true_view, view_of
from strategies import networks_and_boxes

from leo_core.domain import Box
from leo_core.network import INPUT, Network
from leo_core.rewrite.climb import Climbed
from leo_core.rewrite.facts import State
from leo_core.rewrite.refactor import pass_through, refactor_block
from leo_core.rewrite.step import Ladder, Refusal

BOX = Box.uniform(-1, 1, 3)


def network(units, outputs, seed=0):
    rng = np.random.default_rng(seed)
    weights = rng.integers(-4, 5, (units, 3)) / 4
    return Network(3, (dense("z", INPUT, weights, np.full(units, 9)), relu("h", "z", units),
                       dense("out", "h", rng.integers(-4, 5, (outputs, units)) / 4, np.zeros(outputs))),
                   "out")  # fmt: skip


@given(networks_and_boxes())
def test_what_is_proposed_is_proved(case):
    proposes_only_what_is_proved(refactor_block, *case)


@given(networks_and_boxes())
def test_what_the_nearest_published_rule_proposes_is_proved(case):
    proposes_only_what_is_proved(pass_through, *case)


def test_no_more_units_than_the_rank_of_what_is_read_of_them():
    view = view_of(network(8, 1), BOX)
    found = kept(refactor_block, view, "h", tolerance=1e-12)
    assert isinstance(found, Climbed)
    assert found.rewrite.view.network.size("h") == 1  # one output: one direction is read


def test_new_units_are_proved_to_be_active():
    found = kept(refactor_block, view_of(network(8, 2), BOX), "h", tolerance=1e-12)
    view = found.rewrite.view
    units = view.facts.units["z"]
    assert (units.state == State.ACTIVE).all()
    assert (units.lower >= 0).all()
    node = view.network.affine("z")
    values = BOX.sample(np.random.default_rng(0), 200) @ node.dense().T + node.bias
    assert (values >= units.lower - 1e-12).all()
    assert (values <= units.upper + 1e-12).all()


def test_it_merges_where_that_does_as_well():
    rows = [[1, 2], [2, -1], [3, 1], [1, -3]]
    wide = Network(2, (dense("z", INPUT, rows, [9, 9, 18, 9]), relu("h", "z", 4),
                       dense("out", "h", [[1, 2, 3, 4], [4, 3, 2, 1], [1, -1, 1, -1]], [0, 0, 0])), "out")  # fmt: skip
    found = kept(refactor_block, true_view(wide, Box.uniform(-1, 1, 2)), "h", tolerance=0.0)
    assert isinstance(found, Climbed)
    assert "merged" in found.rewrite.what
    assert all(row in rows for row in found.rewrite.view.network.affine("z").dense().tolist())


def test_it_has_nothing_to_do_without_active_units():
    unstable = Network(1, (dense("z", INPUT, [[1], [2]], [0, 0]), relu("h", "z", 2),
                           dense("out", "h", [[1, 1]], [0])), "out")  # fmt: skip
    assert refactor_block(true_view(unstable, Box.uniform(-1, 1, 1)), "h") is None


def test_full_rank_is_refused_with_a_reason():
    full = Network(2, (dense("z", INPUT, [[1, 0], [0, 1]], [9, 9]), relu("h", "z", 2),
                       dense("out", "h", [[1, 0], [0, 1]], [0, 0])), "out")  # fmt: skip
    found = kept(refactor_block, true_view(full, Box.uniform(-1, 1, 2)), "h", tolerance=1e-9)
    assert isinstance(found, Refusal)
    assert found.what == "2 active unit(s) left"


def test_passing_through_takes_as_many_units_as_the_narrower_side_has():
    ladder = pass_through(view_of(network(8, 2), BOX), "h")
    assert isinstance(ladder, Ladder)
    assert [proposal.view.network.size("h") for proposal in made(ladder)] == [2]
    assert pass_through(view_of(network(2, 4), BOX), "h") is None
