"""Networks made to fool solvers: the families that did, each with its truth known exactly."""

from __future__ import annotations

from fractions import Fraction
from importlib.util import find_spec

import numpy as np
import pytest
from truth import largest_difference, states

from leo_backends.highs import HighsSolver
from leo_backends.scip import ScipSolver
from leo_backends.scipy_milp import ScipySolver
from leo_core.domain import Box
from leo_core.linear import Dense
from leo_core.network import INPUT, Affine, Network, Relu
from leo_core.rewrite import rewrite
from leo_core.stability import State, decide

SOLVERS = {"highs": HighsSolver, "scipy": ScipySolver}
if find_spec("pyscipopt") is not None:
    SOLVERS["scip"] = ScipSolver


def network(*layers):
    """A ReLU chain from (matrix, bias) pairs, a ReLU after each but the last."""
    nodes, at = [], INPUT
    for number, (matrix, bias) in enumerate(layers, 1):
        nodes.append(
            Affine(f"z{number}", (at,), (Dense(np.atleast_2d(np.array(matrix, float))),), np.array(bias, float))
        )
        at = nodes[-1].name
        if number < len(layers):
            nodes.append(Relu(f"h{number}", at, np.zeros(nodes[-1].size)))
            at = nodes[-1].name
    return Network(nodes[0].maps[0].columns, tuple(nodes), at)


def bump(width, height, below, first=1.0):
    """A tent of the given width and height at 1/3 on [0, 1], ``below`` under zero elsewhere, then one more ReLU."""
    rise = height / (width / 2) / first
    centre = 1 / 3
    rows = [[first]] * 3
    biases = [-(centre - width / 2) * first, -centre * first, -(centre + width / 2) * first]
    return network((rows, biases), ([[rise, -2 * rise, rise]], [-below]), ([[1.0]], [0.0]))


def rescaled(seed, decades):
    """A random network whose units are scaled over many decades, outgoing weights the other way."""
    rng = np.random.default_rng(seed)
    w1, b1 = rng.standard_normal((6, 2)), rng.standard_normal(6)
    w2, b2 = rng.standard_normal((5, 6)), rng.standard_normal(5) * 0.3
    w3 = rng.standard_normal((1, 5))
    s1, s2 = 10.0 ** rng.uniform(-decades / 2, decades / 2, 6), 10.0 ** rng.uniform(-decades / 2, decades / 2, 5)
    return network((s1[:, None] * w1, s1 * b1), (s2[:, None] * w2 / s1, s2 * b2), (w3 / s2, [0.0]))


def near_zero(seed, margin):
    """The second layer's first unit has a maximum within rounding of ``margin``, positive or negative or 0."""
    rng = np.random.default_rng(seed)
    w1, b1 = rng.integers(-8, 9, (5, 1)) / 4, rng.integers(-8, 9, 5) / 8
    w2 = rng.integers(-8, 9, (2, 5)) / 4
    base = network((w1, b1), (w2, [0.0, 0.0]), ([[1.0, 1.0]], [0.0]))
    from truth import extremes

    highest = extremes(base, Box.uniform(-1, 1, 1))["z2"][0][1]
    return network((w1, b1), (w2, [float(-highest) + margin, 0.0]), ([[1.0, 1.0]], [0.0]))


CASES = {
    **{f"bump {w:g} under {d:g}": (lambda w=w, d=d: bump(w, 1.0, d), Box.uniform(0, 1, 1))
       for w in (1e-1, 1e-3, 1e-5, 1e-7, 1e-9) for d in (0.5, 0.0)},
    **{f"bump with first weights {f:g}": (lambda f=f: bump(1e-3, 1.0, 0.5, f), Box.uniform(0, 1, 1))
       for f in (1e-6, 1e-8, 1e-10)},
    **{f"flat bump {h:g} under {d:g}": (lambda h=h, d=d: bump(1e-3, h, d), Box.uniform(0, 1, 1))
       for h, d in ((1.0, 1.0 + 1e-9), (1.0, 1.0 - 1e-9), (1e-6, 1e-7))},
    **{f"rescaled over {k} decades, {seed}": (lambda seed=seed, k=k: rescaled(seed, k), Box.uniform(-1, 1, 2))
       for k in (6, 12) for seed in range(4)},
    **{f"margin {m:g}, {seed}": (lambda seed=seed, m=m: near_zero(seed, m), Box.uniform(-1, 1, 1))
       for m in (0.0, 1e-4, -1e-4, 1e-8, -1e-8, 1e-12, -1e-12) for seed in range(3)},
    "inputs of 1e8": (lambda: network(([[1e-8, -1e-8], [1e-8, 1e-8]], [0.5, -0.25]), ([[1, -1]], [0.1]), ([[1]], [0])),
                      Box.uniform(-1e8, 1e8, 2)),
    "inputs of 1e-8": (lambda: network(([[1e8, -1e8], [1e8, 1e8]], [0.5, -0.25]), ([[1, -1]], [0.1]), ([[1]], [0])),
                       Box.uniform(-1e-8, 1e-8, 2)),
    "denormal weights": (lambda: network(([[5e-324], [1e-310]], [0.0, 0.0]), ([[1, -1]], [0.0]), ([[1]], [0])),
                         Box.uniform(-1, 1, 1)),
    "cancellation": (lambda: network(([[1], [1]], [0.0, 2.0**-52]), ([[2.0**52, -(2.0**52)]], [0.75]), ([[1]], [0])),
                     Box.uniform(0, 1, 1)),
    "big-M of 1e6": (lambda: network(([[1e6], [-1e6]], [0.0, 1.0]), ([[1e-6, 1e-6]], [-0.5]), ([[1]], [0])),
                     Box.uniform(-1, 1, 1)),
    "a dead layer behind a tiny leak": (lambda: network(([[1e-9]], [0.0]), ([[1e9]], [-2.0]), ([[1e9]], [0.0]),
                                                        ([[1]], [0])), Box.uniform(-1, 1, 1)),
}  # fmt: skip


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("case", CASES)
def test_no_verdict_is_false_and_no_rewrite_strays(case, solver):
    make, box = CASES[case]
    net = make()
    truth = states(net, box)
    found = decide(net, box, strategy="paper", solver=SOLVERS[solver]())
    for name, layer in found.layers.items():
        for unit, state in enumerate(layer.state):
            assert state in (State.UNDECIDED, truth[name][unit]), (name, unit)
    for tolerance in (0.0, 1e-9, 1e-3):
        result = rewrite(net, found, tolerance=tolerance)
        assert result.deviation <= tolerance
        assert largest_difference(net, result.network, box) <= Fraction(result.deviation)


def tiny_then_huge():
    """5e-324 x, then 2**1000 times its ReLU: a bound that lost the denormal called the last unit inactive."""
    return network(([[5e-324]], [0.0]), ([[2.0**1000]], [-1.5 * 2.0**-75]), ([[1.0]], [0.0])), Box.uniform(-1, 1, 1)


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
