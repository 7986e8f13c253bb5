"""Networks made to fool solvers: families of them, sampled, and single ones that did."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from adversaries import FAMILIES, adversary, chain, judge, layer, random_layers, reader, summed
from truth import extremes, largest_difference

from leo_backends.highs import HighsSolver
from leo_core.domain import Box
from leo_core.errors import MissingExtraError
from leo_core.execution.budget import Budget
from leo_core.linear import Dense
from leo_core.network import INPUT, Affine, Network, Relu
from leo_core.options import STRATEGIES
from leo_core.plugins import registry
from leo_core.rewrite import View, rewrite
from leo_core.stability import State
from leo_core.testing.wrong import WrongSolver, always_infeasible
from tests.deciding import decide

PAIRS = list(product(STRATEGIES, ("highs", "scip", "scipy")))
#: Four networks of each family, with pairs of a strategy and a solver in turn.
SAMPLE = [
    pytest.param(family, seed, *PAIRS[(place + 2 * seed) % len(PAIRS)], id=f"{family} {seed}")
    for place, family in enumerate(FAMILIES)
    for seed in range(4)
]


def sound(case, found):
    """What is not compared here is compared by judge."""
    seen = judge(case, found)
    assert (*seen.false_stable, *seen.false_unstable, *seen.false_bounds) == ()


@pytest.mark.parametrize(("family", "seed", "strategy", "solver"), SAMPLE)
def test_no_verdict_is_false_and_no_rewrite_strays(family, seed, strategy, solver):
    case = adversary(family, seed)
    try:
        asked = registry.solver(solver)
    except MissingExtraError as error:
        pytest.skip(str(error))
    found = decide(case.network, case.box, strategy=strategy, solver=asked, budget=Budget.of(2))
    sound(case, found)
    if case.box.size > 2:
        return  # there the truth about a difference of two networks is not known
    for tolerance in (0.0, 1e-9, 1e-3):
        result = rewrite(View.of(case.network, found), tolerance=tolerance)
        assert result.deviation <= tolerance
        assert largest_difference(case.network, result.network, case.box) <= Fraction(result.deviation)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("family", FAMILIES)
def test_infeasible_is_no_verdict(family, strategy):
    case = adversary(family, 0)
    solver = WrongSolver(HighsSolver(), always_infeasible)
    sound(case, decide(case.network, case.box, strategy=strategy, solver=solver, budget=Budget.of(1)))


# The truth by construction, and the judge, are themselves tested.


@pytest.mark.parametrize("seed", range(5))
def test_the_extremes_of_a_sum_are_those_found_by_cutting_its_box(seed):
    rng = np.random.default_rng(seed)
    parts = [[*random_layers(rng, 1, 3), layer(rng.standard_normal((1, 3)), [0])] for _ in range(2)]
    case = summed(
        parts, [Box.uniform(-1, 0.5, 1), Box.uniform(-0.25, 2, 1)], np.array([0.3]), random_layers(rng, 1, 3, 1)
    )
    assert case.extremes.items() <= extremes(case.network, case.box).items()
    assert set(case.extremes) >= {relu.source for relu in case.network.relus}


def test_the_judge_finds_each_kind_of_mistake():
    case = adversary("small margins", 0)
    found = decide(case.network, case.box)
    for name, one in found.layers.items():
        for unit, state in enumerate(one.state):
            if state == State.UNDECIDED:
                continue
            for other in set(State) - {state, State.UNDECIDED}:
                lie = one.state.copy()
                lie[unit] = other
                witness = {unit: np.stack([case.box.lower, case.box.upper])}
                lies = replace(one, state=lie, witnesses={**witness, **one.witnesses})
                seen = judge(case, replace(found, layers={**found.layers, name: lies}))
                assert seen.false_unstable if other is State.UNSTABLE else seen.false_stable
        narrow = replace(one, upper=one.lower)
        assert judge(case, replace(found, layers={**found.layers, name: narrow})).false_bounds


# Single networks that gave a false verdict once


def tiny_then_huge():
    """5e-324 x, then 2**1000 times its ReLU: a bound that lost the denormal called the last unit inactive."""
    return chain([layer([[5e-324]], [0]), layer([[2.0**1000]], [-1.5 * 2.0**-75]), reader(1)]), Box.uniform(-1, 1, 1)


def cancelling_tiny_weights():
    """Two rows of weights near 2**-540 on inputs near 2**-540, whose values cancel and are priced at 2**998.

    Then |A|·max|h| underflows to 0, and so did what covered the rounding of Aᵀ·price.
    """
    rng = np.random.default_rng(0)
    fixed, offset = 2.0**-540, Fraction(0)
    while offset >= 0:
        big = [float(v) * 2.0**998 for v in rng.uniform(1, 2, 2)]
        k = rng.integers(1, 2**45, 2)
        first = [int(k[0]), int(k[1]), -int(k[0] + k[1])]
        second = [round(-v * (big[0] / big[1])) for v in first[:2]]
        rows = [[v * 2.0**-585 for v in row] for row in (first, [*second, -sum(second)])]
        rounded = [big[0] * x + big[1] * y for x, y in zip(*rows, strict=True)]
        offset = sum((Fraction(v) for v in rounded), Fraction(0)) * Fraction(fixed)
    d = float(-offset) / 64
    nodes = (
        Affine("z", (INPUT,), (Dense(np.hstack([np.zeros((2, 1)), rows])),), np.zeros(2)),
        Affine("y", (INPUT,), (Dense([[1.0, 0, 0, 0], [-1.0, 0, 0, 0]]),), np.zeros(2)),
        Relu("h", "y", np.zeros(2)),
        Affine("out", ("z", "h"), (Dense([big]), Dense([[d, d]])), np.array([-d / 2])),
        Relu("last", "out", np.zeros(1)),
    )
    return Network(4, nodes, "last"), Box(np.array([-1.0, *[fixed] * 3]), np.array([1.0, *[fixed] * 3]))


@pytest.mark.parametrize("strategy", ["cascade", "isa", "paper"])
@pytest.mark.parametrize("make", [tiny_then_huge, cancelling_tiny_weights], ids=lambda make: make.__name__)
def test_what_underflows_is_not_forgotten_where_it_becomes_large_again(make, strategy):
    made, box = make()
    last = made.relus[-1]
    seen = [made.evaluate_exact(x)[last.source].fractions()[0] for x in (box.upper, 0.5 * box.lower + 0.5 * box.upper)]
    assert max(seen) > 0 > min(seen)
    found = decide(made, box, strategy=strategy, solver=HighsSolver())
    assert found.layers[last.name].state[0] in (State.UNSTABLE, State.UNDECIDED)
    assert found.layers[last.name].upper[0] >= max(seen)
