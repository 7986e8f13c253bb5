"""An unstable unit that is nearly a line over the box becomes one, where the tolerance allows.

On L ≤ z ≤ U a ReLU lies between its chord c z + d, c = (U − slope·L) / (U − L), and the chord lowered by its value g at
z = 0; the line half-way is off by at most g / 2. Units with small |M_j| g / 2 are taken for that line, and all
lines of the layer re-factored (:mod:`~leo_core.rewrite.refactor`). Only a tolerance above rounding makes this pay.
What the line as computed is off by is not taken from the formula but seen where it is largest: at L, 0 and U.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from leo_core.arithmetic import TINY, UNIT_ROUNDOFF, Array, product_error, round_up
from leo_core.bounds.change import Change
from leo_core.rewrite.block import block_of, old_form
from leo_core.rewrite.layer import ReluLayer, layer_of
from leo_core.rewrite.refactor import Mixing
from leo_core.rewrite.step import Ladder, Refusal
from leo_core.rewrite.view import View
from leo_core.stability.verdict import State


def straighten(view: View, name: str) -> Ladder | Refusal | None:
    """Take as many unstable units of the ReLU ``name`` for lines as the tolerance allows."""
    layer = layer_of(view, name)
    if not isinstance(layer, ReluLayer):
        return layer
    units, slope, known = layer.units, layer.relu.slope, layer.incoming
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        chord = (units.upper - slope * units.lower) / (units.upper - units.lower)
        half = 0.5 * (chord - slope) * -units.lower
        reach = known.reach
        size = np.abs(known.weights) @ reach + np.abs(known.bias)
        size += np.maximum(np.abs(units.lower), np.abs(units.upper))
        # what is rounded: the products of the chord with the weights, and half
        off = off_the_line(units.lower, units.upper, slope, chord, half)
        cost = round_up(off + 16 * UNIT_ROUNDOFF * size + TINY * (8 + reach.sum()))
        harm = np.abs(layer.outgoing).max(axis=0, initial=0.0) * cost
    usable = (units.state == State.UNSTABLE) & (units.lower < 0) & (units.upper > 0) & np.isfinite(harm)
    order = np.argsort(np.where(usable, harm, np.inf), kind="stable")[: int(usable.sum())]
    if not len(order):
        return None
    block = block_of(layer)

    def least(left: int) -> dict[str, Change]:
        """What the lines alone cost."""
        chosen = order[: len(order) - left]
        error = np.abs(layer.outgoing[:, chosen]) @ cost[chosen]
        return layer.by_reader(Change.at_most(round_up(error + product_error(error, len(chosen)))))

    def without(left: int) -> Ladder:
        """All but the worst ``left`` units."""
        chosen = order[: len(order) - left]
        lines = chord[chosen, None] * known.weights[chosen], chord[chosen] * known.bias[chosen] + half[chosen]
        straight = block.with_lines(*lines, chosen, cost[chosen])
        told = view.facts.lineage
        for home, places in units.homes(layer.relu.name, chosen):
            here = chosen[places]
            told = told.with_lines(home, units.origin[here], chord[here], half[here])
        mixed = Mixing.of(layer, straight, old_form(layer, straight)).ladder(len(straight.units))
        return mixed.then(lambda found: replace(found, view=found.view.with_lineage(told)))

    return Ladder(len(order), without, least=least)


def off_the_line(lower: Array, upper: Array, slope: Array, gain: Array, offset: Array) -> Array:
    """How far gain · z + offset is from a ReLU of z at most, lower ≤ z ≤ upper, per unit; infinite where unknown.

    Both are lines on either side of zero, so that the ends and zero tell.
    """
    error = np.zeros(len(lower))
    for end in (lower, np.clip(0.0, lower, upper), upper):
        with np.errstate(invalid="ignore", over="ignore"):
            value = np.where(end >= 0, end, slope * end)
        size = np.abs(value) + np.abs(gain * end) + np.abs(offset)
        off = np.abs(value - gain * end - offset) + 8 * UNIT_ROUNDOFF * size + 4 * TINY
        error = np.maximum(error, off)
    return np.where(np.isnan(error), np.inf, error)
