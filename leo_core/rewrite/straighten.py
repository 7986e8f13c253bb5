"""An unstable unit that is nearly a line over the box becomes one, where the tolerance allows.

On L ≤ z ≤ U a ReLU lies between its chord c z + d, c = (U − slope·L) / (U − L), and the chord lowered by its value g at
z = 0; the line half-way is off by at most g / 2. Units with small |M_j| g / 2 are taken for that line, and all
lines of the layer re-factored (:mod:`~leo_core.rewrite.refactor`). Only a tolerance above rounding makes this pay.
What the line as computed is off by is not taken from the formula but seen where it is largest: at L, 0 and U.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from leo_core.arithmetic import TINY, UNIT_ROUNDOFF, Array, product_error, round_up
from leo_core.network import Network
from leo_core.rewrite.block import fewest, linear_block
from leo_core.rewrite.deviation import Change
from leo_core.rewrite.facts import Facts
from leo_core.rewrite.layer import ReluLayer, incoming, layer_of
from leo_core.rewrite.refactor import mix_block
from leo_core.rewrite.step import Fits, Refusal, Rewrite
from leo_core.stability.verdict import State


def straighten(network: Network, facts: Facts, name: str, fits: Fits) -> Rewrite | Refusal | None:
    """Take as many unstable units of the ReLU ``name`` for lines as the tolerance allows."""
    layer = layer_of(network, name)
    if not isinstance(layer, ReluLayer):
        return layer
    units, slope = facts.units[layer.node.name], layer.relu.slope
    weights, bias, lower, upper = incoming(network, facts, layer.node)
    with np.errstate(invalid="ignore", over="ignore"):
        chord = (units.upper - slope * units.lower) / (units.upper - units.lower)
        half = 0.5 * (chord - slope) * -units.lower
        reach = np.maximum(np.abs(lower), np.abs(upper))
        size = np.abs(weights) @ reach + np.abs(bias) + np.maximum(np.abs(units.lower), np.abs(units.upper))
        # what is rounded: the products of the chord with the weights, and half
        off = off_the_line(units.lower, units.upper, slope, chord, half)
        cost = round_up(off + 16 * UNIT_ROUNDOFF * size + TINY * (8 + reach.sum()))
        harm = np.abs(layer.outgoing).max(axis=0, initial=0.0) * cost
    usable = (units.state == State.UNSTABLE) & (units.lower < 0) & (units.upper > 0) & np.isfinite(harm)
    order = np.argsort(np.where(usable, harm, np.inf), kind="stable")[: int(usable.sum())]
    count = _affordable(network, facts, layer, order, cost, fits)
    if not count:
        return None
    block = linear_block(network, facts, layer.node, layer.relu)

    def attempt(left: int) -> Rewrite | None:
        """With all but the worst ``left`` units."""
        chosen = order[: count - left]
        lines = chord[chosen, None] * weights[chosen], chord[chosen] * bias[chosen] + half[chosen]
        straight = block.with_lines(*lines, chosen, cost[chosen])
        told = facts.with_lines(layer.relu, chosen, chord[chosen], half[chosen])
        return mix_block(network, told, layer, straight, len(straight.units), fits)

    return fewest(count, attempt, likely=0)


def off_the_line(lower: Array, upper: Array, slope: Array, gain: Array, offset: Array) -> Array:
    """How far gain · z + offset is from a ReLU of z at most, lower ≤ z ≤ upper, per unit; infinite where unknown.

    Both are lines on either side of zero, so that the ends and zero tell.
    """
    error = np.zeros(len(lower))
    for end in (lower, np.clip(0.0, lower, upper), upper):
        value = np.where(end >= 0, end, slope * end)
        size = np.abs(value) + np.abs(gain * end) + np.abs(offset)
        off = np.abs(value - gain * end - offset) + 8 * UNIT_ROUNDOFF * size + 4 * TINY
        error = np.maximum(error, off)
    return np.where(np.isnan(error), np.inf, error)


def _affordable(network: Network, facts: Facts, layer: ReluLayer, order: NDArray[Any], cost: Array, fits: Fits) -> int:
    """How many units, in that order, may become lines before the tolerance is spent on that alone."""

    def within(count: int) -> bool:
        error = np.abs(layer.outgoing[:, order[:count]]) @ cost[order[:count]]
        error = round_up(error + product_error(error, count))
        return fits(Rewrite(network, facts, "", layer.by_reader(Change.at_most(error))))

    low, high = 0, len(order) + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if within(middle) else (low, middle)
    return low
