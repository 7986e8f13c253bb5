"""Where a pre-activation may have the sign not seen yet: points to look at, none of them a proof.

Ascent by sign gradients (as in Goodfellow et al. 2015, Madry et al. 2018): each input moves by a share
of its range towards the side the gradient points to. Unless told otherwise the share begins at one, so that the first
step is to the corner which the linear piece around the start favours; it halves whenever a step gains nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from leo_core.bounds.upto import Step, Upto
from leo_core.domain import Box
from leo_core.linear import FloatArray
from leo_core.network import INPUT

Array = NDArray[np.float64]


def scatter(box: Box, count: int, seed: int) -> Array:
    """Points all over a box: its centre, corners, and ``count`` at random, shape (points, inputs)."""
    rng = np.random.default_rng(seed)
    inside = box.sample(rng, count)
    edges = np.where(rng.random((count, box.size)) < 0.5, box.lower, box.upper)
    return box.clip(np.vstack([0.5 * box.lower + 0.5 * box.upper, box.corners(64), inside, edges]))


@final
@dataclass(frozen=True, eq=False)
class Climb:
    """How far: so many steps, the first of them a ``share`` (one number, or one per start) of the box's width."""

    steps: int
    share: float | Array = 1.0


def ascend(
    way: Upto,
    objectives: Array,
    starts: Array,
    box: Box,
    climb: Climb,
    expired: Callable[[], bool] = lambda: False,
) -> Array:
    """From ``starts[k]``, points at which objectives[k]·a of the node at the way's end is larger; shape as ``starts``.

    Each climb ends early once its float64 value is positive, and all once ``expired``.
    """
    plan = way.steps
    width = box.upper - box.lower
    best = starts.copy()
    values, gradients = _value_and_gradient(plan, objectives, best)
    share = np.broadcast_to(climb.share, len(starts)).copy()
    for _ in range(climb.steps):
        rows = np.flatnonzero(~(values > 0))
        if len(rows) == 0 or expired():
            break
        step = share[rows, None] * width * np.sign(gradients[rows])
        tried = np.clip(best[rows] + step, box.lower, box.upper)
        value, gradient = _value_and_gradient(plan, objectives[rows], tried)
        better = value > values[rows]
        kept = rows[better]
        best[kept], values[kept], gradients[kept] = tried[better], value[better], gradient[better]
        share[rows[~better]] *= 0.5
    return best


def _value_and_gradient(plan: Sequence[Step], objectives: Array, points: Array) -> tuple[Array, Array]:
    """objectives·a_target at each point, and its gradient there."""
    values, target = forward(plan, points), plan[-1][0].name
    return (objectives * values[target]).sum(axis=1), gradient(plan, values, {target: objectives})


def forward(plan: Sequence[Step], points: FloatArray) -> dict[str, FloatArray]:
    """The values of all nodes of a plan at points (count, inputs), by name, in their dtype."""
    values: dict[str, FloatArray] = {INPUT: points}
    for node, relus in plan:
        a = values[node.name] = node.apply(values)
        for relu in relus:
            slope = relu.slope.astype(a.dtype, copy=False)
            values[relu.name] = np.where(a >= 0, a, slope * a) if slope.any() else np.maximum(a, 0)
    return values


def gradient(plan: Sequence[Step], values: Mapping[str, FloatArray], prices: Mapping[str, FloatArray]) -> FloatArray:
    """Of Σ prices·a over the affine nodes that have prices, each (count, units), at points with these values."""
    flows = dict(prices)
    for node, relus in reversed(plan):
        price = flows.pop(node.name, None)
        for relu in relus:
            flow = flows.pop(relu.name, None)
            if flow is not None:
                slope = relu.slope.astype(flow.dtype, copy=False)
                on = values[node.name] >= 0
                passed = flow * (np.where(on, 1, slope).astype(flow.dtype, copy=False) if slope.any() else on)
                price = passed if price is None else price + passed
        if price is None:
            continue
        node.push(price, flows)
    return flows.get(INPUT, np.zeros_like(values[INPUT]))
