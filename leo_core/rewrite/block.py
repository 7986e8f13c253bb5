"""The linear block of a layer: its units whose ReLU is a line over the box, and what that line costs.

Only the product M W of the block's outgoing and incoming weights matters, so any units that realise it will do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import numpy as np
from numpy.typing import NDArray

from leo_core.arithmetic import TINY, UNIT_ROUNDOFF, Array, product_error, round_up
from leo_core.bounds.change import Change
from leo_core.rewrite.facts import Units
from leo_core.rewrite.form import Form, best_constants, change
from leo_core.rewrite.layer import Incoming, ReluLayer, Rows
from leo_core.rewrite.view import View

#: Larger coefficients would amplify the noise of running the network.
LARGEST_COEFFICIENT = 4.0


@final
@dataclass(frozen=True, eq=False)
class Block:
    """h = W x + b for the units ``units`` of a layer, over the concatenated sources x of its affine node.

    Attributes
    ----------
    lower, upper:
        Bounds of x.
    cost:
        Per unit, how far its value can be from W x + b: the ReLU's defect, and what scaling a leaky unit's
        weights by its slope rounds.
    called:
        What its units are, in words.
    """

    units: NDArray[np.int64]
    weights: Array
    bias: Array
    lower: Array
    upper: Array
    cost: Array
    called: str = "active"

    @property
    def radius(self) -> Array:
        return 0.5 * (self.upper - self.lower)

    def with_lines(self, weights: Array, bias: Array, units: NDArray[np.int64], cost: Array) -> Block:
        """This block and further units, each taken for the line weights · x + bias."""
        return replace(
            self,
            units=np.concatenate([self.units, units]),
            weights=np.vstack([self.weights, weights]),
            bias=np.concatenate([self.bias, bias]),
            cost=np.concatenate([self.cost, cost]),
            called="active or nearly linear",
        )

    def form(self, outgoing: Array, constants: Array) -> Form:
        """outgoing · h + constants."""
        return Form(outgoing, self.weights, self.bias, constants)

    def charge(self, outgoing: Array) -> Array:
        """Per row of outgoing weights (rows × these units), what the cost comes to."""
        if not self.cost.any():
            return np.zeros(len(outgoing))
        with np.errstate(invalid="ignore"):
            total = np.abs(outgoing) @ self.cost
        return np.asarray(round_up(total + product_error(total, len(self.cost))))


def block_of(layer: ReluLayer) -> Block:
    """The block of a layer."""
    name = layer.relu.name
    return layer.view.once(("block", name), lambda: linear_block(layer.incoming, layer.units, layer.relu.slope))


def old_form(layer: ReluLayer, block: Block) -> Form:
    """What the readers of a layer make of a block."""
    return block.form(layer.outgoing[:, block.units], layer.constants)


def linear_block(incoming: Incoming, units: Units, slope: Array) -> Block:
    """The block of an affine node behind a ReLU: those of its units that are lines over the box."""
    chosen = np.flatnonzero(units.linear(slope))
    gain, cost = units.gain(slope)[chosen], units.defect(slope)[chosen]
    weights, bias = incoming.weights[chosen], incoming.bias[chosen]
    scaled = gain != 1.0
    if scaled.any():
        reach = incoming.reach
        size = np.abs(weights) @ reach + np.abs(bias)
        cost = np.where(scaled, round_up(cost + 8 * UNIT_ROUNDOFF * gain * size + TINY * (8 + reach.sum())), cost)
        weights, bias = gain[:, None] * weights, gain * bias
    return Block(chosen, weights, bias, incoming.lower, incoming.upper, cost)


def whole(incoming: Incoming) -> Block:
    """All units of an affine node without a ReLU."""
    count = len(incoming.bias)
    return Block(np.arange(count), incoming.weights, incoming.bias, incoming.lower, incoming.upper, np.zeros(count))


def realised(
    layer: ReluLayer, block: Block, old: Form, kept: NDArray[np.int64], rows: Rows, new: Array
) -> tuple[View, Change]:
    """The block replaced by its units ``kept`` (places in the block) and the new ``rows``.

    ``new`` are the outgoing weights (stacked rows × (kept, rows)), rounded here; ``old`` is the block's form.
    Returns the view and the change of the stacked rows. Raises OverflowError.
    """
    new = layer.stored(new)
    count = len(kept)
    weights, bias = np.vstack([block.weights[kept], rows.weights]), np.concatenate([block.bias[kept], rows.bias])
    form = Form(new, weights, bias, layer.constants)
    constants = layer.stored_constants(best_constants(old, form, block.lower, block.upper, layer.dtype))
    made = change(old, form.with_constants(constants), block.lower, block.upper).reading(layer.node.sources)
    if block.cost.any():
        changed = old.outgoing.copy()
        changed[:, kept] = round_up(np.abs(changed[:, kept] - new[:, :count]))
        made = made.plus(Change.at_most(block.charge(changed)))
    stays = np.ones(layer.node.size, dtype=bool)
    stays[block.units] = False
    stays[block.units[kept]] = True
    outgoing = layer.outgoing.copy()
    outgoing[:, block.units[kept]] = new[:, :count]
    keep = np.flatnonzero(stays)
    outgoing = np.hstack([outgoing[:, keep], new[:, count:]])
    return layer.replaced(keep, rows, outgoing, constants), made
