"""Nearly linear units, made lines: the pass alone."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from passes import carried, dense, kept, made, relu, true_view
from truth import largest_difference

from leo_core.bounds.change import carry
from leo_core.domain import Box
from leo_core.network import INPUT, Network
from leo_core.rewrite.climb import Climbed
from leo_core.rewrite.straighten import off_the_line, straighten

BOX = Box.uniform(-1, 1, 2)
BARELY = 2.0**-20


def network(dip, seed=0, units=6, slope=0.0):
    """Units that are active but for a dip below zero."""
    rng = np.random.default_rng(seed)
    weights = rng.integers(-4, 5, (units, 2)) / 4
    bias = np.abs(weights).sum(axis=1) - dip
    return Network(2, (dense("z", INPUT, weights, bias), relu("h", "z", units, slope),
                       dense("out", "h", rng.integers(1, 5, (1, units)) / 4, [0])), "out")  # fmt: skip


@given(st.integers(0, 100), st.sampled_from([BARELY, 0.01, 0.3]), st.integers(1, 3), st.sampled_from([0.0, 0.1]))
def test_what_is_proposed_is_proved(seed, dip, units, slope):
    before = network(dip, seed, units, slope)
    ladder = straighten(true_view(before, BOX), "h")
    for proposal in made(ladder) if ladder is not None else ():
        moved = carried(proposal)
        assert largest_difference(before, proposal.view.network, BOX) <= Fraction(float(moved["out"].max()))


def test_a_sliver_below_zero_is_straightened_where_the_tolerance_allows():
    view = true_view(network(BARELY), BOX)
    assert not isinstance(kept(straighten, view, "h", tolerance=1e-9), Climbed)
    found = kept(straighten, view, "h", tolerance=1e-4)
    assert isinstance(found, Climbed)
    assert found.rewrite.view.network.size("h") < 6
    assert found.rewrite.view.facts.lineage.lines["h"]


def test_what_the_lines_cost_alone_is_never_more_than_what_a_proposal_costs():
    view = true_view(network(0.01), BOX)
    ladder = straighten(view, "h")
    for rung in range(ladder.rungs):
        least = carry(view.network, view.facts.bounds, ladder.least(rung))["out"]
        for proposal in made(ladder.make(rung)):
            assert (least <= carried(proposal)["out"] * (1 + 1e-9)).all()


def test_it_has_nothing_to_do_with_stable_units():
    assert straighten(true_view(network(-1.0), BOX), "h") is None


def test_what_a_line_is_off_by_is_seen_at_the_ends_and_at_zero():
    off = off_the_line(np.array([-1.0]), np.array([3.0]), np.zeros(1), np.array([0.75]), np.array([0.375]))
    assert 0.375 <= off[0] < 0.3751
    assert np.isinf(off_the_line(np.array([-np.inf]), np.array([1.0]), np.zeros(1), np.array([0.5]), np.zeros(1))[0])
