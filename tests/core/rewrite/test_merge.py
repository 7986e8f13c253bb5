"""Dependent active units, merged: the pass alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from passes import dense, kept, proposes_only_what_is_proved, relu, true_view
from strategies import networks_and_boxes

from leo_core.domain import Box
from leo_core.network import INPUT, Network
from leo_core.rewrite.climb import Climbed
from leo_core.rewrite.merge import Pivoted, merge_dependent
from leo_core.rewrite.step import Ladder, Refusal

BOX = Box.uniform(-1, 1, 2)
ROWS = [[1, 2], [2, -1], [3, 1], [1, -3]]  # the third is the sum of the first two, the fourth second − first


def network(rows, bias, outgoing=None):
    outgoing = [list(range(1, len(rows) + 1))] if outgoing is None else outgoing
    return Network(2, (dense("z", INPUT, rows, bias), relu("h", "z", len(rows)),
                       dense("out", "h", outgoing, [0] * len(outgoing))), "out")  # fmt: skip


@given(networks_and_boxes())
def test_what_is_proposed_is_proved(case):
    proposes_only_what_is_proved(merge_dependent, *case)


def test_two_of_four_dependent_units_do_for_all_exactly():
    found = kept(merge_dependent, true_view(network(ROWS, [9, 9, 18, 9]), BOX), "h", tolerance=0.0)
    assert isinstance(found, Climbed)
    assert found.rewrite.view.network.size("h") == 2
    kept_rows = found.rewrite.view.network.affine("z").dense().tolist()
    assert all(row in ROWS for row in kept_rows)  # the basis keeps its own rows


@pytest.mark.parametrize(("rows", "bias"), [([[1, 0], [0, 1]], [9, 9]), ([[1, 2], [1, 2]], [0, 0])],
                         ids=["independent", "unstable"])  # fmt: skip
def test_it_has_nothing_to_do(rows, bias):
    assert merge_dependent(true_view(network(rows, bias), BOX), "h") is None


def test_coefficients_that_do_not_fit_are_refused_at_tolerance_zero():
    rows = [[1 / 3, 0.7], [0.1, 1 / 3], [0.9, 0.3]]
    view = true_view(network(rows, [9, 9, 9], [[0.3, 0.7, 1]]), BOX)
    assert isinstance(merge_dependent(view, "h"), Ladder)
    found = kept(merge_dependent, view, "h", tolerance=0.0)
    assert isinstance(found, Refusal)
    assert isinstance(kept(merge_dependent, view, "h", tolerance=1e-12), Climbed)


def test_a_pre_activation_read_elsewhere_is_refused():
    skipping = network(ROWS, [9, 9, 18, 9])
    twice = Network(2, (*skipping.nodes[:-1], dense("y", "z", [[1, 1, 1, 1]], [0]),
                        dense("w", "h", [[1, 1, 1, 1]], [0]),
                        dense_sum("out", "w", "y")), "out")  # fmt: skip
    found = merge_dependent(true_view(twice, BOX), "h")
    assert isinstance(found, Refusal)
    assert "elsewhere" in found.reason


def dense_sum(name, first, second):
    from leo_core.linear import Dense
    from leo_core.network import Affine

    return Affine(name, (first, second), (Dense([[1.0]]), Dense([[1.0]])), np.zeros(1))


@given(st.integers(0, 2**32), st.integers(1, 8), st.integers(1, 6), st.integers(1, 6))
def test_pivoting_finds_the_rank_and_small_coefficients(seed, rows, columns, rank):
    rng = np.random.default_rng(seed)
    rank = min(rank, rows, columns)
    matrix = rng.standard_normal((rows, rank)) @ rng.standard_normal((rank, columns))
    pivoted = Pivoted.of(matrix)
    assert pivoted.rank == rank
    basis, dependent, coefficients = pivoted.expressed(rank)
    assert sorted([*basis.tolist(), *dependent.tolist()]) == list(range(rows))
    assert np.allclose(matrix[dependent], coefficients @ matrix[basis], atol=1e-8)
    assert np.abs(coefficients).max(initial=0.0) <= 4.0
    assert pivoted.expressed(rank + 1) is None
