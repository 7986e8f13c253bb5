"""Values at points, and their errors, against rational arithmetic."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from strategies import networks_and_boxes

from leo_core.bounds.pointwise import values_at
from leo_core.linear import Dense, Diagonal
from leo_core.network import INPUT, Affine, Network, Own, Relu, Rounding


def assert_holds(network, points, exact=None):
    """Every exact value is within the error of the one that is given."""
    truths = [(exact or network).evaluate_exact(x) for x in points]
    seen = set()
    for node, values, errors in values_at(network, points):
        seen.add(node.name)
        assert np.isfinite(values).all()
        for truth, row, off in zip(truths, values, errors, strict=True):
            for t, value, error in zip(truth[node.name].fractions(), row.tolist(), off.tolist(), strict=True):
                assert error == np.inf or abs(t - Fraction(value)) <= Fraction(error)
    assert seen == {node.name for node in network.nodes if isinstance(node, Affine)}


@settings(max_examples=60)
@given(networks_and_boxes())
def test_exact_values_are_within_the_error(case):
    network, box = case
    assert_holds(network, np.vstack([box.sample(np.random.default_rng(0), 3), box.corners(4)]))


def test_what_cancels_overflows_or_is_denormal():
    big = Affine("a", (INPUT,), (Dense([[1e200, -1e200], [3.0, 1e-3], [1e-320, 1e-310]]),), np.array([1.0, 0, 0]))
    leaks = Relu("h", "a", np.array([0.0, 0.3, 0.999]))
    out = Affine("o", ("h",), (Dense([[1e200, 1e150, 1e300], [1, -1, 1e308]]),), np.array([0.0, -1e-300]))
    network = Network(2, (big, leaks, out), "o")
    points = np.array([[1.0, 1.0], [1.0, np.nextafter(1.0, 2)], [-1.0, 2.0], [1e-300, 5e-324], [1e150, -1e150]])
    assert_holds(network, points)
    errors = {node.name: error for node, _, error in values_at(network, points)}
    assert errors["o"][4, 0] == np.inf


def test_an_error_ends_at_a_unit_that_is_off():
    layer = Affine("a", (INPUT,), (Dense([[1 / 3], [-1 / 3]]),), np.array([-1e3, 1.0]))
    out = Affine("o", ("h",), (Dense([[1e9, 0.0]]),), np.zeros(1))
    found = {node.name: (value, error) for node, value, error in
             values_at(Network(1, (layer, Relu("h", "a", np.zeros(2)), out), "o"), np.array([[0.1]]))}  # fmt: skip
    assert found["a"][1][0, 0] > 0
    assert found["o"][0][0, 0] == 0
    assert found["o"][1][0, 0] < 1e-290


def test_a_layer_with_numbers_of_its_own_stands_for_all_within_their_rounding():
    rounding = Rounding(np.array([1e-3, 1e-3]), np.array([1e-2, 1e-2]))
    norm = Affine("n", (INPUT,), (Diagonal(np.array([2.0, -3.0])),), np.array([1.0, 0.5]),
                  own=Own(rounding, rounding))  # fmt: skip
    network = Network(2, (norm, Relu("h", "n", np.zeros(2)), Affine("o", ("h",), (Dense([[1.0, 5.0]]),), [0.0])), "o")
    points = np.random.default_rng(0).uniform(-2, 2, (20, 2))
    for signs in ((1, 1), (-1, 1), (1, -1), (-1, -1)):
        meant = replace(norm, maps=(Diagonal(np.array([2.0, -3.0]) * (1 + signs[0] * 1e-3)),),
                        bias=norm.bias + signs[1] * 1e-2, own=None)  # fmt: skip
        assert_holds(network, points, network.with_nodes(meant))
