"""What folds before units are decided: nothing that is left moves, and what is carried back is true."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from truth import extremes, state_of

import leo_core
from leo_core import Box, State, storage
from leo_core.execution.budget import Budget
from leo_core.network import Affine, Network, Relu
from leo_core.rewrite.beforehand import _times, carried_back, decide_folded, folded_beforehand
from leo_core.stability.verdict import StabilityMap
from leo_core.testing.networks import chain, lattice
from tests.deciding import decide, work

BOX = Box.uniform(-2, 2, 2)


def mirrored(rows, bias) -> Network:
    """Units, and their multiples by −2, 0.5 and −0.25, before a layer that reads them all."""
    rows, bias = np.array(rows, np.float64), np.array(bias, np.float64)
    factors = (1.0, -2.0, 0.5, -0.25)
    weights, shift = np.vstack([f * rows for f in factors]), np.concatenate([f * bias for f in factors])
    nodes = (
        Affine("z", ("input",), (leo_core.Dense(weights),), shift),
        Relu("h", "z", np.zeros(len(weights))),
        Affine("out", ("h",), (leo_core.Dense(np.ones((1, len(weights)))),), np.zeros(1)),
    )
    return Network(2, nodes, "out")


def true_of(stability: StabilityMap, network: Network, box: Box) -> None:
    """No verdict but the true one, no bound that does not hold."""
    truth = extremes(network, box)
    for relu in network.relus:
        layer = stability.layers[relu.name]
        for unit, (low, high) in enumerate(truth[relu.source]):
            assert layer.state[unit] in (State.UNDECIDED, state_of(low, high))
            assert layer.lower[unit] <= low <= high <= layer.upper[unit]


@pytest.mark.parametrize("functions", [3, 4])
def test_values_of_units_that_are_left_are_the_same_over_the_rationals(functions):
    network = lattice(2, functions, 3)
    folded = folded_beforehand(work(network, BOX))
    assert folded is not None
    assert folded.deviation == 0
    assert sum(relu.size for relu in folded.network.relus) < sum(relu.size for relu in network.relus) / 2
    for x in BOX.sample(np.random.default_rng(0), 5):
        values = [
            {name: vector.fractions() for name, vector in net.evaluate_exact(x).items()}
            for net in (network, folded.network)
        ]
        for relu in folded.network.relus:
            units = folded.facts.units[relu.source]
            for home, places in units.homes(relu.name, np.arange(relu.size)):
                z = values[0][network[home].source]
                for k in places[units.origin[places] >= 0]:
                    assert values[1][relu.source][k] == z[units.origin[k]]
        for name, copies in folded.facts.lineage.copies.items():
            z = values[0][network[name].source]
            assert all(z[unit] == Fraction(factor) * z[of] for unit, of, factor in copies)


@pytest.mark.parametrize("seed", range(3))
def test_verdicts_are_of_the_network_given_and_true(seed):
    network = lattice(2, 3, 2, seed)
    found = decide_folded(work(network, BOX))
    assert found.network is network
    true_of(found, network, BOX)
    nothing = decide(network, BOX, budget=Budget.of(0.0))
    assert found.count(State.UNDECIDED) < nothing.count(State.UNDECIDED)


def test_a_negative_multiple_has_the_other_verdict():
    network = mirrored([[1, 1], [1, -1], [0.5, 0.25]], [5, -4.5, 0])
    whole = decide(network, BOX)
    folded = folded_beforehand(work(network, BOX))
    assert folded is not None
    known = carried_back(network, folded, decide(folded.network, BOX))
    truth = extremes(network, BOX)["z"]
    for low, high, exact in zip(known["h"].lower, known["h"].upper, truth, strict=True):
        assert low <= exact[0] <= exact[1] <= high
    assert np.isfinite(known["h"].lower).any()
    found = decide_folded(work(network, BOX))
    assert found.layers["h"].state.tolist() == whole.layers["h"].state.tolist()
    true_of(found, network, BOX)


@given(st.floats(-1e300, 1e300).filter(bool), st.floats(-1e300, 1e300))
def test_bounds_of_multiples_are_rounded_outward_and_keep_their_sign(factor, end):
    exact, (low, high) = Fraction(factor) * Fraction(end), (_times(factor, end, side) for side in (-1, 1))
    assert low <= exact <= high
    assert low >= 0 if exact >= 0 else high <= 0


def test_it_leaves_others_alone():
    network = chain(3, 8, 8, 1)
    assert folded_beforehand(work(network, Box.uniform(-1, 1, 3))) is None
    found = decide_folded(work(network, Box.uniform(-1, 1, 3)))
    assert [layer.state.tolist() for layer in found.layers.values()] == [
        layer.state.tolist() for layer in decide(network, Box.uniform(-1, 1, 3)).layers.values()
    ]


def test_a_lattice_is_compressed_exactly_and_its_certificate_is_accepted(tmp_path):
    given, made, proof = (tmp_path / name for name in ("given.leo", "made.leo", "proof.cert"))
    network = lattice(2, 3, 3)
    storage.save(network, given)
    result = leo_core.compress(given, (-2, 2), tolerance="exact", evidence=True)
    assert result.deviation == 0
    assert sum(relu.size for relu in result.network.relus) < sum(relu.size for relu in network.relus) / 3
    result.export(made)
    result.certify(proof, made)
    assert np.isfinite(leo_core.check(proof, given, made).deviation)
    for x in BOX.sample(np.random.default_rng(1), 5):
        values = [net.evaluate_exact(x)[net.output].fractions() for net in (network, result.network)]
        assert values[0] == values[1]
