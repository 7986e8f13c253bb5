"""Ladders, climbed: which proposal is taken, and that no other is made than need be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from passes import dense, relu, view_of

from leo_core.bounds.change import Change
from leo_core.domain import Box
from leo_core.execution.budget import Budget
from leo_core.network import INPUT, Network
from leo_core.rewrite.climb import Climbed, Tolerance, climb, lowest
from leo_core.rewrite.step import Ladder, Rewrite

NETWORK = Network(1, (dense("z", INPUT, [[1]], [0]), relu("h", "z", 1), dense("out", "h", [[1]], [0])), "out")
VIEW = view_of(NETWORK, Box.uniform(-1, 1, 1))


def costing(cost, what="") -> Rewrite:
    return Rewrite(VIEW, what, {"out": Change.at_most(np.array([cost]))})


def tolerance(most, at_once=np.inf, spent=0.0):
    return Tolerance(np.array([spent]), most, min(at_once, most))


@given(st.integers(1, 40), st.integers(0, 40), st.integers(0, 50))
def test_the_lowest_that_holds_is_found_wherever_one_begins(count, likely, first):
    asked = []

    def holds(number):
        asked.append(number)
        return str(number) if number >= first else None

    number, found = lowest(count, likely, holds)
    assert (number, found) == ((first, str(first)) if first < count else (count, None))
    assert len(set(asked)) == len(asked) <= 2 + np.ceil(np.log2(count + 1)) * 2


def test_the_boldest_within_the_tolerance_is_taken():
    ladder = Ladder(8, lambda rung: costing(2.0**-rung))
    found = climb(VIEW, ladder, tolerance(0.3), Budget())
    assert isinstance(found, Climbed)
    assert found.added.tolist() == [0.25]
    assert climb(VIEW, ladder, tolerance(1e-9), Budget()) is None


def test_what_is_spent_and_what_one_rewrite_may_add_both_count():
    ladder = Ladder(8, lambda rung: costing(2.0**-rung))
    assert climb(VIEW, ladder, tolerance(0.3, spent=0.2), Budget()).added.tolist() == [0.0625]
    assert climb(VIEW, ladder, tolerance(0.3, at_once=0.02), Budget()).added.tolist() == [0.015625]


def test_what_rewrites_add_up_to_is_rounded_up():
    spent = tolerance(1.0, spent=0.1).after(np.array([0.2]))
    assert spent[0] > 0.30000000000000004
    assert tolerance(1.0, spent=0.1).after(np.zeros(1))[0] == 0.1


def test_rungs_that_cannot_be_made_are_passed_over():
    ladder = Ladder(4, lambda rung: None if rung < 3 else costing(0.0))
    assert climb(VIEW, ladder, tolerance(0.0), Budget()).added.tolist() == [0.0]


def test_a_rung_may_be_a_ladder():
    inner = Ladder(2, lambda rung: costing((0.5, 0.1)[rung], str(rung)))
    found = climb(VIEW, Ladder(1, lambda _: inner), tolerance(0.2), Budget())
    assert found.rewrite.what == "1"
    edited = inner.then(lambda made: Rewrite(made.view, made.what + "!", made.changes))
    assert climb(VIEW, Ladder(1, lambda _: edited), tolerance(0.2), Budget()).rewrite.what == "1!"


def test_rungs_that_cost_too_much_at_least_are_not_made():
    asked = []

    def make(rung):
        asked.append(rung)
        return costing(2.0**-rung)

    ladder = Ladder(8, make, least=lambda rung: {"out": Change.at_most(np.array([2.0**-rung]))})
    assert climb(VIEW, ladder, tolerance(0.3), Budget()).added.tolist() == [0.25]
    assert asked == [2]


def test_nothing_is_made_once_time_is_up():
    def make(rung):
        pytest.fail("made")

    assert climb(VIEW, Ladder(3, make), tolerance(1.0), Budget.of(0.0)) is None
