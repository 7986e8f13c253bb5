"""Structure planted in random networks is found, and what that changes is never more than δ."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from truth import largest_difference

from leo_backends.highs import HighsSolver
from leo_core.bounds.noise import float_noise
from leo_core.domain import Box
from leo_core.linear import Dense
from leo_core.network import INPUT, Affine, Network, Relu
from leo_core.rewrite import View, rewrite
from tests.deciding import decide

INPUTS, UNITS, OUTPUTS = 2, 4, 3


class Plant:
    """Random units of a layer, some of them planted; at most ``needed`` of them are needed."""

    def __init__(self, seed: int, dtype: type) -> None:
        self.rng, self.dtype, self.needed = np.random.default_rng(seed), dtype, UNITS
        self.weights = self.stored(self.rng.standard_normal((UNITS, INPUTS)))
        self.bias = self.stored(self.rng.uniform(-0.3, 0.3, UNITS))
        self.outgoing = self.rng.standard_normal((OUTPUTS, UNITS))

    def stored(self, values):
        return np.asarray(values).astype(self.dtype).astype(np.float64)

    def add(self, weights, bias, outgoing=None):
        outgoing = self.rng.standard_normal((OUTPUTS, len(weights))) if outgoing is None else outgoing
        self.weights, self.bias = np.vstack([self.weights, weights]), np.concatenate([self.bias, bias])
        self.outgoing = np.hstack([self.outgoing, outgoing])

    def active(self, weights):
        """A bias that keeps rows active on [−1, 1]."""
        return np.abs(weights).sum(axis=1) * 1.001 + self.rng.uniform(0.01, 1, len(weights))

    def network(self, deep: bool, scale: float = 1.0) -> Network:
        order, kind = self.rng.permutation(len(self.bias)), self.dtype
        weights, bias, outgoing = self.weights[order], self.bias[order], scale * self.outgoing[:, order]
        last_bias = scale * self.rng.standard_normal(OUTPUTS)
        nodes = [
            Affine("z", (INPUT,), (Dense(weights.astype(kind)),), bias.astype(kind)),
            Relu("h", "z", np.zeros(len(bias))),
            Affine("y", ("h",), (Dense(outgoing.astype(kind)),), last_bias.astype(kind)),
        ]
        if deep:
            last = self.rng.standard_normal((2, OUTPUTS)).astype(kind)
            nodes += [Relu("g", "y", np.zeros(OUTPUTS)), Affine("out", ("g",), (Dense(last),), np.zeros(2, kind))]
        return Network(INPUTS, tuple(nodes), nodes[-1].name)


def duplicates(plant):
    plant.add(plant.weights[:2], plant.bias[:2])


def multiples(plant):
    factor = plant.rng.choice([0.25, 2.0, 3.3, 0.7], 3)
    plant.add(factor[:, None] * plant.weights[:3], factor * plant.bias[:3])


def opposites(plant):
    factor = plant.rng.choice([1.0, 2.0, 0.7], UNITS)
    plant.add(-factor[:, None] * plant.weights, -factor * plant.bias)
    plant.needed += INPUTS


def dependent_rows(plant):
    basis = plant.rng.standard_normal((2, INPUTS))
    rows = np.vstack([basis, plant.rng.uniform(-1, 1, (4, 2)) @ basis])
    plant.add(rows, plant.active(rows))
    plant.needed += 2


def low_rank_block(plant):
    rows = plant.rng.standard_normal((6, INPUTS))
    plant.add(rows, plant.active(rows), np.outer(plant.rng.standard_normal(OUTPUTS), plant.rng.standard_normal(6)))
    plant.needed += 1


def dead_units(plant):
    rows = plant.rng.standard_normal((3, INPUTS))
    plant.add(rows, -plant.active(rows))


def constant_units(plant):
    plant.add(np.zeros((3, INPUTS)), plant.rng.uniform(-1, 1, 3))


def unread_units(plant):
    plant.add(plant.rng.standard_normal((2, INPUTS)), plant.rng.uniform(-0.3, 0.3, 2), np.zeros((OUTPUTS, 2)))


def everything(plant):
    for each in (duplicates, low_rank_block, dead_units, constant_units, unread_units):
        each(plant)


PLANTS = (duplicates, multiples, opposites, dependent_rows, low_rank_block, dead_units, constant_units, unread_units,
          everything)  # fmt: skip
BOX = Box.uniform(-1, 1, INPUTS)


@pytest.mark.parametrize("deep", [False, True], ids=["shallow", "deep"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sow", PLANTS)
@settings(max_examples=5)
@given(seed=st.integers(0, 2**32 - 1))
def test_what_is_planted_is_found_and_the_deviation_holds(sow, dtype, deep, seed):
    plant = Plant(seed, dtype)
    sow(plant)
    network = plant.network(deep)
    stability = decide(network, BOX)
    noise = float_noise(network, stability.box, stability.points)
    # the seen noise of so small a network is now and then less than the proved rounding of new weights
    found = rewrite(View.of(network, stability), tolerance=64 * noise)
    assert sum(relu.size for relu in found.network.relus if relu.name == "h") <= plant.needed
    assert found.deviation <= 64 * noise
    assert largest_difference(network, found.network, BOX) <= Fraction(found.deviation)
    careful = rewrite(View.of(network, stability), tolerance=noise)
    assert careful.deviation <= noise
    assert largest_difference(network, careful.network, BOX) <= Fraction(careful.deviation)


@pytest.mark.parametrize("sow", PLANTS)
@settings(max_examples=5)
@given(seed=st.integers(0, 2**32 - 1))
def test_both_strategies_lead_to_the_same_network(sow, seed):
    plant = Plant(seed, np.float32)
    sow(plant)
    network = plant.network(deep=True)
    results = [
        rewrite(View.of(network, decide(network, BOX, strategy=strategy, solver=HighsSolver())), tolerance=1e-4)
        for strategy in ("cascade", "paper")
    ]
    assert results[0].network.widths == results[1].network.widths
    difference = largest_difference(results[0].network, results[1].network, BOX)
    assert difference <= sum(Fraction(result.deviation) for result in results)


#: Small whole numbers: everything that is planted can be merged without any rounding.
WHOLE = st.integers(-3, 3)


@settings(max_examples=25)
@given(st.data())
def test_exact_merges_need_no_tolerance(data):
    rows = np.array([[data.draw(WHOLE) for _ in range(INPUTS)] for _ in range(3)], dtype=np.float64)
    rows[0] = [1, 2]
    bias = np.array([data.draw(WHOLE) for _ in range(3)], dtype=np.float64)
    bias[0] = 0.5
    lines = np.column_stack([rows, bias])
    assume(all(np.linalg.matrix_rank(lines[[i, j]]) == 2 for i, j in ((0, 1), (0, 2), (1, 2))))
    outgoing = np.array([[data.draw(WHOLE) for _ in range(6)] for _ in range(2)], dtype=np.float64)
    weights = np.vstack([rows, 2 * rows])  # unit j + 3 is twice unit j
    network = Network(
        INPUTS,
        (Affine("z", (INPUT,), (Dense(weights),), np.concatenate([bias, 2 * bias])), Relu("h", "z", np.zeros(6)),
         Affine("y", ("h",), (Dense(outgoing),), np.zeros(2))),
        "y",
    )  # fmt: skip
    stability = decide(network, BOX)
    found = rewrite(View.of(network, stability), tolerance=0.0)
    assert found.deviation == 0
    assert sum(relu.size for relu in found.network.relus) <= 3
    assert largest_difference(network, found.network, BOX) == 0


def test_where_nothing_can_go_the_weights_are_the_same_bits():
    plant = Plant(7, np.float32)
    plant.bias *= 0.1  # every unit crosses zero
    network = plant.network(deep=False)
    stability = decide(network, BOX)
    for tolerance in (0.0, float_noise(network, stability.box, stability.points)):
        assert rewrite(View.of(network, stability), tolerance=tolerance).network == network


@pytest.mark.parametrize("scale", [2.0**-300, 1e-30, 1e-6, 1e6, 1e30])
@pytest.mark.parametrize("sow", [everything, opposites, multiples])
def test_scales_far_from_one(sow, scale):
    plant = Plant(3, np.float64)
    sow(plant)
    network = plant.network(deep=False, scale=scale)
    stability = decide(network, BOX)
    found = rewrite(View.of(network, stability), tolerance=1e-12 * scale)
    assert largest_difference(network, found.network, BOX) <= Fraction(found.deviation)
    assert found.network.widths[1] <= plant.needed
    assert found.network.largest_weight <= 8 * max(1.0, network.largest_weight)
    assert float_noise(found.network, stability.box, stability.points) <= 4 * float_noise(
        network, stability.box, stability.points
    )
