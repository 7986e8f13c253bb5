"""The linear block of a layer: its units whose ReLU is a line over the box, and what that line costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from leo_core.arithmetic import UNIT_ROUNDOFF, Array, product_error, round_up
from leo_core.network import Affine, Network, Relu
from leo_core.rewrite.facts import Facts


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
    """

    units: NDArray[np.int64]
    weights: Array
    bias: Array
    lower: Array
    upper: Array
    cost: Array

    def charge(self, outgoing: Array) -> Array:
        """Per row of outgoing weights (rows × these units), what the cost comes to."""
        with np.errstate(invalid="ignore"):
            total = np.abs(outgoing) @ self.cost
        return np.asarray(round_up(total + product_error(total, len(self.cost)))) if total.any() else total


def linear_block(network: Network, facts: Facts, node: Affine, relu: Relu | None) -> Block:
    """The block of an affine node behind ``relu``, or of all its units where there is none."""
    weights = np.hstack([linear.matrix().astype(np.float64) for linear in node.maps])
    bias = node.bias.astype(np.float64)
    region = facts.region(network)
    ends = [region.value(network, source) for source in node.sources]
    lower, upper = np.concatenate([low for low, _ in ends]), np.concatenate([high for _, high in ends])
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
        cost = np.where(scaled, round_up(cost + 4 * UNIT_ROUNDOFF * gain * size * (1 + 1e-9)), cost)
        weights, bias = gain[:, None] * weights, gain * bias
    return Block(chosen, weights, bias, lower, upper, cost)
