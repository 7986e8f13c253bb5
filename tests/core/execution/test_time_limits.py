"""Limits hold between the nodes of deep networks too: no clock is read here, the budget itself is."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
from adversaries import chain, random_layers

from leo_backends.highs import HighsSolver
from leo_core.bounds.interval import bound_network
from leo_core.bounds.noise import float_noise
from leo_core.bounds.slopes import improved
from leo_core.bounds.upto import upto
from leo_core.compare import Pair, compare
from leo_core.domain import Box
from leo_core.milp.checked import CheckedSolver
from leo_core.rewrite import View, rewrite
from leo_core.search.attack import Climb, ascend
from leo_core.search.witness import signs_at
from leo_core.stability import State
from tests.deciding import decide

BOX = Box.uniform(-1, 1, 2)


def deep(depth: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    return chain([(matrix * 0.8, bias) for matrix, bias in random_layers(rng, 2, *[4] * depth, 1)])


@dataclass(frozen=True)
class Asked:
    """A budget that ends when it has been asked so often."""

    times: int
    count: list[int]

    @property
    def remaining(self) -> float:
        self.count.append(1)
        return 1e3 if len(self.count) <= self.times else 0.0

    @property
    def expired(self) -> bool:
        return self.remaining <= 0

    def at_most(self, _seconds: float) -> Asked:
        return self


@pytest.mark.parametrize("times", [0, 1, 5, 50, 200])
def test_whenever_a_budget_ends_verdicts_and_deviation_are_true(times):
    network = deep(30)
    found = decide(network, BOX, budget=Asked(times, []))
    points = BOX.sample(np.random.default_rng(1), 50)
    values = network.evaluate_nodes(points)
    for relu in network.relus:
        layer = found.layers[relu.name]
        z = values[relu.source]
        assert (layer.lower <= z.min(axis=0) + 1e-9).all()
        assert (layer.upper >= z.max(axis=0) - 1e-9).all()
        assert not ((layer.state == State.INACTIVE) & (z.max(axis=0) > 1e-9)).any()
        assert not ((layer.state == State.ACTIVE) & (z.min(axis=0) < -1e-9)).any()
    result = rewrite(View.of(network, found), tolerance=1e-6, budget=Asked(times, []))
    for x in points[:3]:
        was, now = (net.evaluate_exact(x)[net.output].fractions()[0] for net in (network, result.network))
        assert abs(was - now) <= Fraction(result.deviation)


@pytest.mark.parametrize("times", [0, 3, 30, 300])
def test_whenever_a_budget_ends_a_comparison_is_true(times):
    first, second = deep(20), deep(20, 1)
    found = compare(Pair(first, second, BOX, CheckedSolver(HighsSolver())), budget=Asked(times, []))
    apart = np.abs(first.evaluate(found.witness) - second.evaluate(found.witness)).max()
    assert found.lower == pytest.approx(apart, abs=1e-9)
    assert found.lower <= found.upper


def test_what_loops_over_steps_ends_with_the_budget():
    network = deep(6)
    region, target = bound_network(network, BOX), network.relus[-1].source
    one = np.eye(network.size(target))
    none = improved(network, target, one, region, 0)
    assert (improved(network, target, one, region, 30, expired=lambda: True).upper == none.upper).all()
    starts = BOX.sample(np.random.default_rng(0), 4)
    way = upto(network, target)
    assert (ascend(way, way.objectives(np.arange(4)), starts, BOX, Climb(20), lambda: True) == starts).all()
    at_centre = np.zeros((1, 2))
    exact = signs_at(network, target, np.array([0]), at_centre)
    assert signs_at(network, target, np.array([0]), at_centre, expired=lambda: True)[0] in (0, exact[0])
    found = decide(network, BOX)
    assert float_noise(network, found.box, found.points, expired=lambda: True) == 0.0
