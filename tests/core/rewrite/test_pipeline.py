"""Every rewrite against the exact truth: |before − after| ≤ δ, over the rationals, for every point."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import networks_and_boxes
from truth import largest_difference

from leo_backends.highs import HighsSolver
from leo_core.bounds.change import Change
from leo_core.domain import Box
from leo_core.execution.budget import Budget
from leo_core.linear import Dense, Diagonal, Select
from leo_core.network import INPUT, Affine, Network, Relu
from leo_core.rewrite import View, pipeline, rewrite
from leo_core.rewrite.step import Refusal, Rewrite, only
from leo_core.testing.networks import chain, leaky, residual, skip
from tests.deciding import decide

TOLERANCES = (0.0, 1e-12, 1e-6, 0.1)


def compressed(network, box, tolerance=0.0, **options):
    stability = decide(network, box, strategy="paper", solver=HighsSolver(), **options)
    return rewrite(View.of(network, stability), tolerance=tolerance)


def dense(name, source, matrix, bias, dtype=np.float64):
    return Affine(name, (source,), (Dense(np.array(matrix, dtype)),), np.array(bias, dtype))


def relu(name, source, size, slope=0.0):
    return Relu(name, source, np.full(size, slope))


@pytest.mark.parametrize("tolerance", TOLERANCES)
@given(case=networks_and_boxes())
def test_the_deviation_is_never_less_than_the_truth(tolerance, case):
    network, box = case
    result = compressed(network, box, tolerance)
    assert result.deviation <= tolerance
    assert largest_difference(network, result.network, box) <= Fraction(result.deviation)
    assert result.network.connections <= network.connections
    assert sum(r.size for r in result.network.relus) <= sum(r.size for r in network.relus)


@given(networks_and_boxes())
def test_undecided_units_are_kept_and_the_result_is_valid(case):
    network, box = case
    stability = decide(network, box, strategy="paper", solver=HighsSolver(), budget=Budget.of(0))
    result = rewrite(View.of(network, stability), tolerance=1e-6, budget=Budget.of(0))
    assert largest_difference(network, result.network, box) <= Fraction(result.deviation)


@given(networks_and_boxes(inputs=st.integers(3, 6), width=st.integers(2, 6)))
def test_wider_networks_agree_on_exactly_evaluated_points(case):
    network, box = case
    result = compressed(network, box, 1e-6)
    points = np.vstack([box.sample(np.random.default_rng(0), 20), box.corners(16)])
    for x in points:
        was = network.evaluate_exact(x)[network.output].fractions()
        now = result.network.evaluate_exact(x)[result.network.output].fractions()
        assert max(abs(a - b) for a, b in zip(was, now, strict=True)) <= Fraction(result.deviation)


@given(networks_and_boxes())
def test_a_second_run_finds_nothing_more_in_exact_mode(case):
    network, box = case
    once = compressed(network, box)
    twice = compressed(once.network, box)
    assert twice.network.connections <= once.network.connections
    assert largest_difference(network, twice.network, box) == 0


def test_inactive_units_go():
    network = Network(1, (dense("z", INPUT, [[1], [1], [-1]], [1, -5, -5]), relu("h", "z", 3),
                          dense("out", "h", [[1, 1, 1]], [0.5])), "out")  # fmt: skip
    result = compressed(network, Box.uniform(-2, 2, 1))
    assert result.network.widths == (1, 1, 1)
    assert result.deviation == 0


def test_the_last_unit_of_an_all_inactive_layer_leaves_a_constant():
    network = Network(2, (dense("z", INPUT, [[1, 1], [2, 0]], [-9, -9]), relu("h", "z", 2),
                          dense("z2", "h", [[1, 2], [3, 4]], [1.5, -1]), relu("h2", "z2", 2),
                          dense("out", "h2", [[2, 7]], [1])), "out")  # fmt: skip
    result = compressed(network, Box.uniform(-1, 1, 2))
    assert result.network.connections == 0
    assert not result.network.relus
    assert result.network.evaluate(np.zeros((3, 2))).tolist() == [[4.0]] * 3


def test_a_zero_row_with_a_positive_bias_becomes_part_of_the_next_bias():
    network = Network(1, (dense("z", INPUT, [[0], [1]], [3, 0]), relu("h", "z", 2),
                          dense("out", "h", [[2, 1]], [1])), "out")  # fmt: skip
    result = compressed(network, Box.uniform(-1, 1, 1))
    assert result.network.widths == (1, 1, 1)
    assert result.network.evaluate([[0.0], [1.0]]).tolist() == [[7.0], [8.0]]


def test_a_stable_relu_on_the_output_is_settled_and_an_unstable_one_stays():
    active = Network(1, (dense("z", INPUT, [[1]], [5]), relu("h", "z", 1)), "h")
    unstable = Network(1, (dense("z", INPUT, [[1]], [0.5]), relu("h", "z", 1)), "h")
    inactive = Network(1, (dense("z", INPUT, [[1]], [-5]), relu("h", "z", 1)), "h")
    box = Box.uniform(-1, 1, 1)
    assert not compressed(active, box).network.relus
    assert compressed(unstable, box).network == unstable
    assert compressed(inactive, box).network.evaluate([[1.0]]).tolist() == [[0.0]]
    assert compressed(inactive, box).network.connections == 0


def test_dependent_active_units_merge():
    rows = [[1, 2], [2, -1], [3, 1], [1, -3]]  # the third is the sum of the first two, the fourth second − first
    network = Network(2, (dense("z", INPUT, [*rows, [1, 0]], [9, 9, 18, 9, 0]), relu("h", "z", 5),
                          dense("out", "h", [[1, 2, 3, 4, 5], [5, 4, 3, 2, 1], [1, -1, 1, -1, 1]], [0, 0, 0])),
                      "out")  # fmt: skip
    result = compressed(network, Box.uniform(-1, 1, 2), 1e-12)
    assert result.network.widths == (2, 3, 3)


def test_nearly_dependent_units_merge_only_within_the_tolerance():
    network = Network(2, (dense("z", INPUT, [[1, 2], [1, 2 + 2.0**-20], [1, 0]], [9, 9, 0]), relu("h", "z", 3),
                          dense("out", "h", [[1, 1, 1], [1, -1, 2], [0, 3, 1]], [0, 0, 0])), "out")  # fmt: skip
    box = Box.uniform(-1, 1, 2)
    assert compressed(network, box, 1e-9).network.widths == network.widths
    loose = compressed(network, box, 1e-3)
    assert loose.network.widths == (2, 2, 3)
    assert 0 < loose.deviation <= 1e-3


def test_unstable_multiples_merge_exactly_and_opposites_stay():
    rng = np.random.default_rng(0)
    rows = np.array([[1, -2, 0.7, 0.1], [0.3, 1, -1, 0.0]])[rng.integers(0, 2, 300)]  # the last column is the bias
    rows *= rng.choice([0.5, 1.0, 2.0], (300, 1)) * np.where(np.arange(300) < 2, -1, 1)[:, None]
    network = Network(3, (dense("z", INPUT, rows[:, :3], rows[:, 3]), relu("h", "z", 300),
                          dense("out", "h", rng.integers(-8, 9, (2, 300)), [0, 0])), "out")  # fmt: skip
    box = Box.uniform(-1, 1, 3)
    result = compressed(network, box)
    assert result.deviation == 0
    kinds = len(np.unique(np.round(rows / np.linalg.norm(rows, axis=1)[:, None], 9), axis=0))
    assert result.network["h"].size == kinds in (3, 4)
    for x in box.sample(np.random.default_rng(1), 10):
        was = network.evaluate_exact(x)[network.output].fractions()
        assert result.network.evaluate_exact(x)[result.network.output].fractions() == was


def test_a_fully_active_layer_folds():
    network = Network(2, (dense("z", INPUT, [[1, 2], [2, -1], [0.5, 1], [1, 1]], [9] * 4), relu("h", "z", 4),
                          dense("z2", "h", [[1, -1, 0, 2], [1, 0, 0, -1]], [0, 0.25]), relu("h2", "z2", 2),
                          dense("out", "h2", [[1, 1]], [0])), "out")  # fmt: skip
    result = compressed(network, Box.uniform(-1, 1, 2), 1e-9)
    assert len(result.network.relus) <= 1


def test_consecutive_affine_layers_fold():
    network = Network(3, (Affine("scaled", (INPUT,), (Diagonal(np.array([0.5, 2.0, 4.0])),), np.ones(3)),
                          dense("z", "scaled", [[1, 0, 1], [0, 1, 1]], [0, 0]), relu("h", "z", 2),
                          dense("z2", "h", [[1, 2], [3, 4], [5, 6]], [0, 0, 0]),
                          dense("out", "z2", [[1, 1, 1]], [0])), "out")  # fmt: skip
    result = compressed(network, Box.uniform(-1, 1, 3), 1e-9)
    assert [type(node).__name__ for node in result.network.nodes] == ["Affine", "Relu", "Affine"]


def test_width_one_layers_survive():
    network = chain(1, 1, 1, 1, 1, seed=12, dtype=np.float64)
    for bounds in ((-1, 1), (-3, -1), (0, 0)):
        result = compressed(network, Box.uniform(*bounds, 1), 1e-9)
        assert largest_difference(network, result.network, Box.uniform(*bounds, 1)) <= Fraction(result.deviation)


def test_a_constant_network_collapses():
    network = Network(1, (dense("z", INPUT, [[1], [-1]], [-3, -3]), relu("h", "z", 2),
                          dense("out", "h", [[1, 1], [1, 2]], [4, 5])), "out")  # fmt: skip
    result = compressed(network, Box.uniform(-1, 1, 1))
    assert result.network.connections == 0
    assert result.network.evaluate([[0.3]]).tolist() == [[4.0, 5.0]]


def test_fixed_inputs_make_a_point_of_the_box():
    network = chain(3, 6, 6, 2, seed=3, dtype=np.float64)
    result = compressed(network, Box(np.array([0.5, -1, 2]), np.array([0.5, -1, 2])), 1e-9)
    assert result.network.connections == 0


@pytest.mark.parametrize("make", [residual, skip, leaky])
def test_branching_and_leaky_networks(make):
    network = make()
    box = Box.uniform(-0.25, 0.25, network.input_size)
    result = compressed(network, box, 1e-5)
    for x in np.vstack([box.sample(np.random.default_rng(0), 30), box.corners()]):
        was = network.evaluate_exact(x)[network.output].fractions()
        now = result.network.evaluate_exact(x)[result.network.output].fractions()
        assert max(abs(a - b) for a, b in zip(was, now, strict=True)) <= Fraction(result.deviation)


def test_leaky_inactive_units_are_kept_as_a_line_not_dropped():
    network = Network(1, (dense("z", INPUT, [[1], [1]], [-5, 0]), relu("h", "z", 2, 0.25),
                          dense("out", "h", [[1, 1]], [0])), "out")  # fmt: skip
    result = compressed(network, Box.uniform(-1, 1, 1), 1e-9)
    difference = largest_difference(network, result.network, Box.uniform(-1, 1, 1))
    assert difference <= Fraction(result.deviation) < 1
    assert result.network.evaluate([[-1.0]]).tolist() == [[-1.5 - 0.25]]


def test_a_unit_read_by_two_nodes_is_not_dropped_by_one():
    network = Network(1, (dense("z", INPUT, [[1], [1]], [2, 0]), relu("h", "z", 2),
                          Affine("out", ("h", "z"), (Dense([[1.0, 0.0]]), Select(np.array([1]), columns=2)),
                                 np.zeros(1))), "out")  # fmt: skip
    box = Box.uniform(-1, 1, 1)
    result = compressed(network, box, 1e-9)
    assert largest_difference(network, result.network, box) <= Fraction(result.deviation)


def test_stored_dtype_and_signature_stay():
    network = chain(3, 8, 8, 2, dtype=np.float32)
    result = compressed(network, Box.uniform(0, 0.1, 3), 1e-3)
    assert result.network.dtype == np.float32
    assert result.network.signature == network.signature


def test_refusals_say_why():
    third = 1 / 3  # merging these rows has no exact float64 coefficients
    network = Network(2, (dense("z", INPUT, [[third, 0.7], [0.1, third], [0.9, 0.3]], [9, 9, 9]), relu("h", "z", 3),
                          dense("out", "h", [[0.3, 0.7, 1], [1, -1, 0.2], [0, 0.3, 1]], [0, 0, 0])), "out")  # fmt: skip
    result = compressed(network, Box.uniform(-1, 1, 2), 0.0)
    assert result.refusals
    assert all(refusal.what and refusal.reason for refusal in result.refusals)


@pytest.mark.parametrize("cost", [0.0, 1e-9])
def test_a_step_that_only_makes_entries_zero_is_worth_no_deviation(cost, monkeypatch):
    network = chain(2, 3, 1)
    box, last = Box.uniform(-1, 1, network.input_size), network.affine(network.output)
    kept = np.arange(last.maps[0].columns) != 1
    cleared = replace(last, maps=(Dense(last.maps[0].dense() * kept),))

    def clear(view, name):
        if name != last.name or view.network.affine(name) is cleared:
            return None
        changes = {name: Change.at_most(np.array([cost]))} if cost else {}
        return only(Rewrite(view.with_nodes(cleared), "an entry set to zero", changes), Refusal("left", "too much"))

    monkeypatch.setattr(pipeline, "PASSES", {"all": (clear,)})
    monkeypatch.setattr(pipeline, "_CHEAP", ())
    monkeypatch.setattr(pipeline, "drop_unread", lambda view: view)
    done = compressed(network, box, tolerance=1e-3)
    assert (done.network == network) == bool(cost)
    assert done.deviation == 0


@pytest.mark.parametrize(("objective", "units"), [("connections", 1), ("units", 0)])
def test_what_takes_no_connection_away_is_worth_no_deviation(objective, units):
    nodes = (dense("z", INPUT, [[0.1, 0.3]], [5], np.float32), relu("h", "z", 1),
             dense("out", "h", [[0.7], [0.9]], [0, 0], np.float32))  # fmt: skip
    network, box = Network(2, nodes, "out"), Box.uniform(-1, 1, 2)
    stability = decide(network, box, strategy="paper", solver=HighsSolver())
    result = rewrite(View.of(network, stability), tolerance=1e-3, objective=objective)
    assert result.network.units == units
    assert (result.deviation > 0) == (units == 0)
