"""The linear block of a layer: its units whose ReLU is a line over the box, and what that line costs.

Only the product M W of the block's outgoing and incoming weights matters, so any units that realise it will do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import final

import numpy as np
from numpy.typing import NDArray

from leo_core.arithmetic import TINY, UNIT_ROUNDOFF, Array, product_error, round_up
from leo_core.network import Affine, Network, Relu
from leo_core.rewrite.deviation import Change, Form, best_constants, change
from leo_core.rewrite.facts import Facts
from leo_core.rewrite.layer import ReluLayer, Rows, incoming
from leo_core.rewrite.step import Rewrite

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


def linear_block(network: Network, facts: Facts, node: Affine, relu: Relu | None) -> Block:
    """The block of an affine node behind ``relu``, or of all its units where there is none."""
    weights, bias, lower, upper = incoming(network, facts, node)
    if relu is None:
        return Block(np.arange(node.size), weights, bias, lower, upper, np.zeros(node.size))
    known = facts.units[node.name]
    chosen = np.flatnonzero(known.linear(relu.slope))
    gain, cost = known.gain(relu.slope)[chosen], known.defect(relu.slope)[chosen]
    weights, bias = weights[chosen], bias[chosen]
    scaled = gain != 1.0
    if scaled.any():
        reach = np.maximum(np.abs(lower), np.abs(upper))
        size = np.abs(weights) @ reach + np.abs(bias)
        cost = np.where(scaled, round_up(cost + 8 * UNIT_ROUNDOFF * gain * size + TINY * (8 + reach.sum())), cost)
        weights, bias = gain[:, None] * weights, gain * bias
    return Block(chosen, weights, bias, lower, upper, cost)


def realised(
    network: Network,
    facts: Facts,
    layer: ReluLayer,
    block: Block,
    old: Form,
    kept: NDArray[np.int64],
    rows: Rows,
    new: Array,
) -> tuple[Network, Facts, Change]:
    """The block replaced by its units ``kept`` (places in the block) and the new ``rows``.

    ``new`` are the outgoing weights (stacked rows × (kept, rows)), rounded here; ``old`` is the block's form.
    Returns the network, its facts and the change of the stacked rows. Raises OverflowError.
    """
    new = layer.stored(new)
    count = len(kept)
    weights, bias = np.vstack([block.weights[kept], rows.weights]), np.concatenate([block.bias[kept], rows.bias])
    form = Form(new, weights, bias, layer.constants)
    constants = layer.stored_constants(best_constants(old, form, block.lower, block.upper, layer.dtype))
    made = change(old, form.with_constants(constants), block.lower, block.upper)
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
    return *layer.replaced(network, facts, keep, rows, outgoing, constants), made


def fewest(count: int, attempt: Callable[[int], Rewrite | None], *, likely: int) -> Rewrite | None:
    """What ``attempt`` makes of the smallest number of units, fewer than ``count``, for which it makes anything.

    ``likely`` is asked first; that fewer units are harder is taken for granted.
    """
    best: Rewrite | None = None
    low, high, middle = -1, count, min(likely, count - 1)
    while high - low > 1:
        found = attempt(middle)
        if found is None:
            low = middle
        else:
            best, high = found, middle
        middle = (low + high) // 2
    return best
