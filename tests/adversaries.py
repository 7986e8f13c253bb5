"""Families of networks made to fool solvers, each network with its exact truth.

``adversary(family, seed)`` is one network, always the same one. Its truth comes from :mod:`truth`, by cutting the box
over the rationals, or, with more inputs than two, by construction: over separate inputs the extremes of a sum of
one-input networks are the sums of their extremes, and a sum takes every value between them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import scipy.linalg
from numpy.random import Generator
from numpy.typing import NDArray
from truth import Extremes, extremes, extremes_within

from leo_core.arithmetic import nearest_float
from leo_core.domain import Box
from leo_core.linear import Dense
from leo_core.network import INPUT, Affine, Network, Relu
from leo_core.stability import Method, StabilityMap, State

Layers: TypeAlias = list[
    tuple[NDArray[np.float64], NDArray[np.float64]]
]  # (matrix, bias), a ReLU after each but the last


@dataclass(frozen=True)
class Adversary:
    """A network, its box, and the exact (min, max) of every unit of its affine nodes."""

    network: Network
    box: Box
    extremes: Extremes


@dataclass(frozen=True)
class Judgement:
    """What the truth says of a decision: how many units, how many open, and every mistake, in words.

    ``claims`` are the verdicts that rest on a solver's word alone.
    """

    units: int
    undecided: int
    claims: int
    false_stable: tuple[str, ...]
    false_unstable: tuple[str, ...]
    false_bounds: tuple[str, ...]


def adversary(family: str, seed: int) -> Adversary:
    """The network of this family with this number."""
    return FAMILIES[family](np.random.default_rng([seed, *family.encode()]))


def judge(case: Adversary, found: StabilityMap) -> Judgement:
    """Compare verdicts, bounds and witnesses with the truth.

    A unit that is always 0 may be called active as well as inactive: both statements are true.
    """
    stable, unstable, bounds, claims = [], [], [], 0
    for relu in case.network.relus:
        layer = found.layers[relu.name]
        claims += int(np.count_nonzero(layer.method == Method.SOLVER))
        for unit, (low, high) in enumerate(case.extremes[relu.source]):
            state, what = (
                State(layer.state[unit]),
                f"{relu.name}[{unit}] in [{nearest_float(low):.3g}, {nearest_float(high):.3g}]",
            )
            if (state is State.INACTIVE and high > 0) or (state is State.ACTIVE and low < 0):
                stable.append(f"{what} is called {state.name.lower()}")
            if state is State.UNSTABLE and not (low < 0 < high and _seen(case, relu.source, unit, layer.witnesses)):
                unstable.append(f"{what} is called unstable")
            if not layer.lower[unit] <= low <= high <= layer.upper[unit]:  # also where a bound is NaN
                bounds.append(f"{what} is bounded by [{layer.lower[unit]:.17g}, {layer.upper[unit]:.17g}]")
    return Judgement(
        found.units, found.count(State.UNDECIDED), claims, tuple(stable), tuple(unstable), tuple(bounds)
    )  # fmt: skip


def _seen(case: Adversary, target: str, unit: int, witnesses: dict[int, NDArray[np.float64]]) -> bool:
    negative, positive = witnesses[unit]
    values = [case.network.evaluate_exact(x)[target].fractions()[unit] for x in (negative, positive)]
    return case.box.contains(witnesses[unit]) and values[0] < 0 < values[1]


# Parts that families are made of


def chain(layers: Layers, slope: float = 0.0) -> Network:
    """A chain of dense layers z1, z2, … with ReLUs h1, h2, … between."""
    nodes: list[Affine | Relu] = []
    at = INPUT
    for number, (matrix, bias) in enumerate(layers, 1):
        nodes.append(Affine(f"z{number}", (at,), (Dense(matrix),), bias))
        at = nodes[-1].name
        if number < len(layers):
            nodes.append(Relu(f"h{number}", at, np.full(len(bias), slope)))
            at = nodes[-1].name
    return Network(layers[0][0].shape[1], tuple(nodes), at)


def layer(matrix: object, bias: object) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.array(matrix, dtype=np.float64), np.array(bias, dtype=np.float64)


def reader(units: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The last layer: the sum of the units before it."""
    return np.ones((1, units)), np.zeros(1)


def cut(layers: Layers, box: Box, slope: float = 0.0) -> Adversary:
    """A network with one or two inputs, its truth by cutting the box."""
    network = chain(layers, slope)
    return Adversary(network, box, extremes(network, box))


def random_layers(rng: Generator, *widths: int) -> Layers:
    return [
        (rng.standard_normal((rows, columns)), rng.standard_normal(rows) * 0.3) for columns, rows in pairwise(widths)
    ]


def log_uniform(rng: Generator, low: float, high: float) -> float:
    return float(10.0 ** rng.uniform(np.log10(low), np.log10(high)))


def margin(rng: Generator) -> float:
    """Zero, or 1e-4 to 1e-12 on either side of it."""
    return 0.0 if rng.random() < 0.2 else float(rng.choice([-1, 1])) * log_uniform(rng, 1e-12, 1e-4)


def to_the_edge(rng: Generator, layers: Layers, box: Box, slope: float = 0.0) -> Layers:
    """Shift the last hidden layer so that each unit's largest or smallest value is within a margin of zero."""
    *before, (matrix, bias), last = layers
    values = extremes(chain(layers, slope), box)[f"z{len(layers) - 1}"]
    return [*before, (matrix, bias + shifts(rng, values)), last]


def shifts(rng: Generator, values: list[tuple[Fraction, Fraction]]) -> NDArray[np.float64]:
    """What brings each unit's largest, or smallest, value to within a margin of zero, as a part of the unit's range."""
    ends = [float(-high if rng.random() < 0.7 else -low) for low, high in values]
    return np.array(ends) + [margin(rng) * float(high - low) for low, high in values]


def tent(centre: float, width: float, height: float, first: float = 1.0) -> Layers:
    """0 but for a tent of this width and height; two layers, of which the first has weights ``first``."""
    rise = height / (width / 2) / first
    starts = np.array([centre - width / 2, centre, centre + width / 2])
    return [layer(np.full((3, 1), first), -first * starts), layer([[rise, -2 * rise, rise]], [0.0])]


def below(layers: Layers, depth: float) -> Layers:
    """The same, ``depth`` lower, and one more ReLU behind it."""
    return [*layers[:-1], (layers[-1][0], layers[-1][1] - depth), reader(len(layers[-1][1]))]


def summed(parts: list[Layers], boxes: list[Box], bias: NDArray[np.float64], tail: Layers) -> Adversary:
    """The sum of one-input networks over separate inputs, then a ReLU and ``tail``, which reads the sums.

    The parts have as many layers each, and no bias in the last. A tail of more than one layer needs one sum.
    """
    depth = len(parts[0])
    layers = [
        (scipy.linalg.block_diag(*(part[k][0] for part in parts)), np.concatenate([part[k][1] for part in parts]))
        for k in range(depth - 1)
    ]
    network = chain([*layers, (np.hstack([part[-1][0] for part in parts]), bias), *tail])
    known = [extremes(chain(part), box) for part, box in zip(parts, boxes, strict=True)]
    exact: Extremes = {f"z{k}": [pair for one in known for pair in one[f"z{k}"]] for k in range(1, depth)}
    exact[f"z{depth}"] = [
        (sum((low for low, _ in pairs), Fraction(float(b))), sum((high for _, high in pairs), Fraction(float(b))))
        for b, pairs in zip(bias, zip(*(one[f"z{depth}"] for one in known), strict=True), strict=True)
    ]
    if len(tail) > 1:
        ((low, high),) = exact[f"z{depth}"]
        behind = extremes_within(chain([(np.ones((1, 1)), np.zeros(1)), *tail]), [(low,), (high,)])
        exact |= {f"z{depth + k}": behind[f"z{1 + k}"] for k in range(1, len(tail))}
    box = Box(np.concatenate([one.lower for one in boxes]), np.concatenate([one.upper for one in boxes]))
    return Adversary(network, box, exact)


# The families


def bump(rng: Generator) -> Adversary:
    """A tent of height 1 and width 1e-1 to 1e-9 on [0, 1], and a unit that only the tent makes positive."""
    layers = tent(rng.uniform(0.1, 0.9), log_uniform(rng, 1e-9, 1e-1), 1.0)
    return cut(below(layers, float(rng.choice([0.0, 0.5, 0.9]))), Box.uniform(0, 1, 1))


def tiny_first_weights(rng: Generator) -> Adversary:
    """A tent whose first weights are 1e-6 to 1e-10, blown up behind them."""
    layers = tent(rng.uniform(0.1, 0.9), log_uniform(rng, 1e-5, 1e-1), 1.0, first=log_uniform(rng, 1e-10, 1e-6))
    return cut(below(layers, float(rng.choice([0.0, 0.5, 0.9]))), Box.uniform(0, 1, 1))


def almost_as_high(rng: Generator) -> Adversary:
    """A tent and a threshold that differ by 1e-4 to 1e-12, or not at all."""
    height = float(rng.choice([1.0, 1e-6, 1e6]))
    layers = tent(rng.uniform(0.1, 0.9), log_uniform(rng, 1e-6, 1e-1), height)
    return cut(below(layers, height * (1 + margin(rng))), Box.uniform(0, 1, 1))


def rescaled(rng: Generator, decades: float) -> Adversary:
    """A random network whose units are scaled over many decades, outgoing weights the other way."""
    layers, before = random_layers(rng, 2, 5, 4, 1), np.ones(2)
    scaled = []
    for matrix, bias in layers[:-1]:
        scale = 10.0 ** rng.uniform(-decades / 2, decades / 2, len(bias))
        scaled.append((scale[:, None] * matrix / before, scale * bias))
        before = scale
    box = Box.uniform(-1, 1, 2)
    return cut(to_the_edge(rng, [*scaled, (layers[-1][0] / before, layers[-1][1])], box), box)


def small_margins(rng: Generator) -> Adversary:
    """Each unit of the second hidden layer is largest, or smallest, within 1e-4 to 1e-12 of zero."""
    inputs = int(rng.integers(1, 3))
    grid: Layers = [
        layer(rng.integers(-8, 9, (5, inputs)) / 4, rng.integers(-8, 9, 5) / 8),
        layer(rng.integers(-8, 9, (3, 5)) / 4, np.zeros(3)),
        reader(3),
    ]
    box = Box.uniform(-1, 1, inputs)
    return cut(to_the_edge(rng, grid if rng.random() < 0.5 else random_layers(rng, inputs, 5, 3, 1), box), box)


def exactly_zero(rng: Generator) -> Adversary:
    """The largest or smallest value of a unit is 0 exactly, at a corner or a kink: weights are powers of two."""
    first = layer(2.0 ** rng.integers(-2, 3, (5, 1)) * rng.choice([-1, 1], (5, 1)), rng.integers(-8, 9, 5) / 8)
    second = layer(rng.integers(-8, 9, (3, 5)) / 4, np.zeros(3))
    box = Box.uniform(-1, 1, 1)
    values = extremes(chain([first, second]), box)["z2"]
    touching = np.array([float(-high if rng.random() < 0.7 else -low) for low, high in values])
    return cut([first, (second[0], touching), reader(3)], box)


def loose_big_m(rng: Generator, size: float) -> Adversary:
    """Values of ``size`` that cancel to about 1 in the next layer, so that intervals are as loose as ``size``."""
    inputs, half = int(rng.integers(1, 3)), 3
    w, b = rng.standard_normal((half, inputs)), rng.standard_normal(half)
    near = (size * w + rng.standard_normal((half, inputs)), size * b + rng.standard_normal(half))
    mixed = rng.standard_normal((3, half))
    layers = [
        layer(np.vstack([size * w, near[0]]), np.concatenate([size * b, near[1]])),
        layer(np.hstack([mixed, -mixed]), np.zeros(3)),
        reader(3),
    ]
    box = Box.uniform(-1, 1, inputs)
    return cut(to_the_edge(rng, layers, box), box)


def rounded_rows(rng: Generator) -> Adversary:
    """A layer that is always active holds values of 1e6 to 1e15, which cancel in the next one.

    The rows of a MILP go through both, and are sums in floats: digits are lost.
    """
    size, gain = log_uniform(rng, 1e6, 1e15), log_uniform(rng, 1.0, 1e3)
    inputs, half = int(rng.integers(1, 3)), 3
    w, b = rng.uniform(-0.3, 0.3, (half, inputs)), rng.uniform(1, 2, half)
    mixed = gain * rng.standard_normal((3, half))
    layers = [
        layer(np.vstack([size * w, size * w + rng.standard_normal((half, inputs))]), np.tile(size * b, 2)),
        layer(np.hstack([mixed, -mixed]), rng.standard_normal(3)),
        layer(rng.standard_normal((3, 3)), np.zeros(3)),
        reader(3),
    ]
    centre = rng.uniform(-0.5, 0.5, inputs)
    width = float(rng.choice([1.0, 1e-3, 1e-6]))
    box = Box(centre, centre + width)
    return cut(to_the_edge(rng, layers, box), box)


def weights_of_all_sizes(rng: Generator) -> Adversary:
    """Every weight is 1e-6 to 1e6 by itself."""
    inputs = int(rng.integers(1, 3))
    layers = [
        (
            10.0 ** rng.uniform(-6, 6, matrix.shape) * np.sign(matrix),
            10.0 ** rng.uniform(-6, 6, bias.shape) * np.sign(bias),
        )
        for matrix, bias in random_layers(rng, inputs, 4, 3, 1)
    ]
    box = Box.uniform(-1, 1, inputs)
    return cut(to_the_edge(rng, layers, box) if rng.random() < 0.5 else layers, box)


def dead_behind_a_leak(rng: Generator) -> Adversary:
    """A layer that is dead but for a leak of 1e-6 to 1e-12 (a unit's tip, or a leaky slope), blown up behind it."""
    leak = log_uniform(rng, 1e-12, 1e-6)
    w = rng.standard_normal((3, 1))
    if rng.random() < 0.5:  # |w x| reaches |w|, and the bias leaves the leak of it, or a little less than nothing
        bias, slope = -np.abs(w[:, 0]) + leak * rng.choice([-1.0, 0.0, 1.0], 3), 0.0
    else:
        bias, slope = -np.abs(w[:, 0]) - rng.random(3), leak
    layers = [layer(w, bias), layer(rng.standard_normal((3, 3)) / leak, np.zeros(3)), reader(3)]
    box = Box.uniform(-1, 1, 1)
    return cut(to_the_edge(rng, layers, box, slope), box, slope)


def cancellation(rng: Generator) -> Adversary:
    """Two units that differ in their last bits, and weights of 2^20 to 2^60 that make a value of the difference."""
    power = 2.0 ** rng.integers(20, 61)
    w, b = rng.uniform(0.5, 2), rng.uniform(-0.5, 0.5)
    first = layer([[w], [w], [np.nextafter(w, 9)]], [b, b + 1 / power, b])
    second = layer(power * rng.choice([-1.0, 0.0, 1.0], (3, 3)), rng.choice([-1, -0.75, -0.5, 0.0, 0.5], 3))
    return cut([first, second, reader(3)], Box.uniform(*sorted(rng.uniform(-1, 1, 2)), 1))


def denormals(rng: Generator) -> Adversary:
    """First weights near the smallest floats there are, blown up by as much behind them or left there."""
    tiny = 2.0 ** rng.integers(-1074, -1000, (3, 1)).astype(float) * rng.choice([-1.0, 1.0], (3, 1))
    bias = rng.choice([0.0, 5e-324, -5e-324, 1e-310], 3)
    gain = 2.0 ** float(rng.choice([0, 500, 900, 1000]))
    second = layer(gain * rng.standard_normal((2, 3)), rng.choice([0.0, -1.0, 1.0], 2) * 2.0**-1040 * gain)
    return cut([layer(tiny, bias), second, reader(2)], Box.uniform(-1, 1, 1))


def scaled_inputs(rng: Generator) -> Adversary:
    """Inputs of 1e8 or 1e-8, and first weights the other way."""
    inputs, size = int(rng.integers(1, 3)), float(rng.choice([1e8, 1e-8]))
    (matrix, bias), *rest = random_layers(rng, inputs, 5, 3, 1)
    box = Box.uniform(-size, size, inputs)
    return cut(to_the_edge(rng, [(matrix / size, bias), *rest], box), box)


def backdoor(rng: Generator) -> Adversary:
    """A switch that rounding hides: a small number beside ω(b − 1), with ω up to 1e18 and b = 1 on part of the box.

    Zombori, Bánhelyi, Csendes, Megyeri, Jelasity, "Fooling a Complete Neural Network Verifier", ICLR 2021; in what
    they published ω is 1e17, and 1e-3 stands beside it.
    """
    omega, small, edge = log_uniform(rng, 1e8, 1e18), log_uniform(rng, 1e-6, 1e-1), rng.uniform(0.02, 0.98)
    layers = [
        layer([[-1 / edge]], [1.0]),  # positive left of the edge
        layer([[-2.0], [0.0]], [1.0, 1.0]),
        layer([[omega, -omega]], [small]),
        layer([[1 / small], [-2 / small]], [-0.5, 1.0]),
        reader(2),
    ]
    if rng.random() < 0.3:  # its opposite: a door that seems to be there and is not
        layers[2] = layer([[omega, -omega]], [-small])
    return cut(layers, Box.uniform(0, 1, 1))


def sawtooth(rng: Generator) -> Adversary:
    """Tents of tents, up to 16 teeth, and thresholds within a margin of their height."""
    depth = int(rng.integers(1, 5))
    left, right = rng.uniform(1.5, 2, depth), rng.uniform(1.5, 2, depth)
    layers: Layers = [layer([[1.0], [1.0]], [0.0, -0.5])]
    for up, down in zip(left, right, strict=True):
        layers.append(layer(np.tile([[up, -up - down]], (2, 1)), [0.0, -0.5]))
    layers.append(layer([[1.0, -2.0], [-1.0, 2.0], [0.5, 1.0]], np.zeros(3)))
    box = Box.uniform(0, 1, 1)
    return cut(to_the_edge(rng, [*layers, reader(3)], box), box)


def sliver(rng: Generator) -> Adversary:
    """A box of no width, or of 1e-6 to 1e-15: narrower than what solvers allow a row to be off."""
    inputs, size = int(rng.integers(1, 3)), float(rng.choice([1.0, 1e3, 1e6]))
    lower = size * rng.uniform(-1, 1, inputs)
    width = np.where(rng.random(inputs) < 0.2, 0.0, size * 10.0 ** rng.uniform(-15, -6, inputs))
    (matrix, _), *rest = random_layers(rng, inputs, 4, 3, 3, 1)
    kinks = lower + rng.random((4, inputs)) * width
    box = Box(lower, lower + width)
    return cut(to_the_edge(rng, [(matrix, -(matrix * kinks).sum(axis=1)), *rest], box), box)


def bumps_at_once(rng: Generator) -> Adversary:
    """2 to 12 inputs, a tent over each; a unit is positive only where (nearly) all tents are high at once."""
    count = int(rng.integers(2, 13))
    parts = [tent(rng.uniform(0.1, 0.9), log_uniform(rng, 1e-5, 1e-1), 1.0) for _ in range(count)]
    depth = count - float(rng.choice([0.5, 0.1, 1e-3, 1e-6, 0.0, -1e-6]))
    return summed(parts, [Box.uniform(0, 1, 1)] * count, np.array([-depth]), [reader(1)])


def sum_at_the_edge(rng: Generator) -> Adversary:
    """2 to 30 inputs, a random network over each; the largest or smallest sum is within a margin of zero."""
    count, units = int(rng.integers(2, 31)), 3
    parts = [[*random_layers(rng, 1, 3), layer(rng.standard_normal((units, 3)), np.zeros(units))] for _ in range(count)]
    boxes = [Box.uniform(*sorted(rng.uniform(-1, 1, 2)), 1) for _ in range(count)]
    values = summed(parts, boxes, np.zeros(units), [reader(units)]).extremes["z2"]
    return summed(parts, boxes, shifts(rng, values), [reader(units)])


def bump_of_a_sum(rng: Generator) -> Adversary:
    """2 to 12 inputs, a random network over each; a tent of width 1e-1 to 1e-7 over their sum, far from its middle."""
    count = int(rng.integers(2, 13))
    parts = [[*random_layers(rng, 1, 2), layer(rng.standard_normal((1, 2)), [0.0])] for _ in range(count)]
    boxes = [Box.uniform(-1, 1, 1)] * count
    ((low, high),) = summed(parts, boxes, np.zeros(1), [reader(1)]).extremes["z2"]
    reach = float(high - low)
    centre = float(rng.choice([0.05, 0.3, 0.95])) * reach
    steep = below(tent(centre, log_uniform(rng, 1e-7, 1e-1) * reach, 1.0), float(rng.choice([0.5, 0.0, 1 + 1e-6])))
    return summed(parts, boxes, np.array([float(-low)]), steep)


def near_the_largest(rng: Generator) -> Adversary:
    """Values up to the largest float there is, or beyond, brought back by weights as small; widths overflow."""
    inputs = int(rng.choice([1, 1, 2]))
    largest = 2.0**1023 - int(rng.integers(10, 25)) * 2.0**970  # a width overflows that a sum of sizes does not
    top = largest if rng.random() < 0.6 else float(rng.choice([1.79e308, 2.0**1022, 1e300, 1e150]))
    units = int(rng.choice([1, 1, 2, 3]))
    share = np.where(rng.random((units, inputs)) < 0.7, 1.0, rng.choice([-1.0, 0.5, 0.999])) / inputs
    bias = top * np.where(rng.random(units) < 0.7, 0.0, rng.choice([0.5, -0.5, 1 - 1e-9, -1e-9]))
    back = rng.choice([1.0, -1.0, 0.5, 2.0], (2, units)) / top
    layers = [layer(top * share, bias), layer(back, rng.choice([0.0, 0.25, -1.0], 2))]
    if rng.random() < 0.3:
        layers.append(reader(2))
    if rng.random() < 0.2:  # two large layers: products of bounds overflow too
        layers.insert(1, layer(log_uniform(rng, 1.0, 1e10) * rng.choice([1.0, -1.0], (units, units)), bias))
    if rng.random() < 0.1:  # nothing brings it back
        layers = [layers[0], reader(units)]
    return cut(layers, Box.uniform(-1, 1, inputs), float(rng.choice([0.0, 0.0, 0.01])))


def widest_box(rng: Generator) -> Adversary:
    """Inputs of 1e150 to 8.9e307, ordinary first weights, and a last layer that brings them back or does not."""
    inputs = int(rng.integers(1, 3))
    size = float(rng.choice([8.98e307, 8.9e307, 2.0**1022, 1e300, 1e150]))
    lower = np.where(rng.random(inputs) < 0.3, 0.0, -size)
    (matrix, _), (second, shift), last = random_layers(rng, inputs, 3, 2, 1)
    matrix = np.where(rng.random(matrix.shape) < 0.3, 1.0, matrix)
    bias = size * rng.choice([0.0, 0.5, -1.0, 1e-9], 3)
    back = float(rng.choice([1 / size, 2 / size, 1.0]))
    return cut([layer(matrix, bias), layer(second * back, shift), last], Box(lower, np.full(inputs, size)))


FAMILIES: dict[str, Callable[[Generator], Adversary]] = {
    "bump": bump,
    "tiny first weights": tiny_first_weights,
    "almost as high": almost_as_high,
    "rescaled over 6 decades": lambda rng: rescaled(rng, 6),
    "rescaled over 12 decades": lambda rng: rescaled(rng, 12),
    "small margins": small_margins,
    "exactly zero": exactly_zero,
    "big-M of 1e4": lambda rng: loose_big_m(rng, 1e4),
    "big-M of 1e6": lambda rng: loose_big_m(rng, 1e6),
    "rounded rows": rounded_rows,
    "weights of all sizes": weights_of_all_sizes,
    "dead behind a leak": dead_behind_a_leak,
    "cancellation": cancellation,
    "denormals": denormals,
    "scaled inputs": scaled_inputs,
    "backdoor": backdoor,
    "sawtooth": sawtooth,
    "sliver": sliver,
    "bumps at once": bumps_at_once,
    "sum at the edge": sum_at_the_edge,
    "bump of a sum": bump_of_a_sum,
    "near the largest float": near_the_largest,
    "widest box": widest_box,
}
