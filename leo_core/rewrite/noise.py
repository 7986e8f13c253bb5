"""The error that running a network in its own dtype was seen to make: what 'float' tolerance allows."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from leo_core.arithmetic import Array, ExactVector
from leo_core.bounds.interval import bound_network
from leo_core.domain import Box
from leo_core.network import Network
from leo_core.stability.verdict import StabilityMap

#: Points evaluated, and the products of integers allowed for exact evaluation of all of them.
_POINTS = 256
_PRODUCTS = 20_000_000


def float_noise(network: Network, stability: StabilityMap, seed: int = 0) -> float:
    """The largest |computed − exact| at any output, over witnesses, samples and the box's centre.

    Inputs are rounded to the dtype first, so that this is the noise of the arithmetic alone. Never more
    than what was really seen: a float32 run is compared with an outward-rounded float64 enclosure, which
    errs towards less.
    """
    box = stability.box
    witnesses = [point for layer in stability.layers.values() for pair in layer.witnesses.values() for point in pair]
    points = np.vstack([box.center[None], *(w[None] for w in witnesses[: _POINTS // 2])])
    points = np.vstack([points, box.sample(np.random.default_rng(seed), _POINTS - len(points))])
    if network.dtype == np.float64:
        cost = max(1, network.connections)
        points = points[: max(4, min(len(points), _PRODUCTS // cost))]
    rounded = points.astype(network.dtype).astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        computed = network.evaluate(points.astype(network.dtype), network.dtype).astype(np.float64)
    worst = 0.0
    for x, seen in zip(rounded, computed, strict=True):
        if np.isfinite(seen).all():
            off = _exact_error(network, x, seen) if network.dtype == np.float64 else _enclosed_error(network, x, seen)
            worst = max(worst, off)
    return worst


def _exact_error(network: Network, x: Array, seen: Array) -> float:
    exact = network.evaluate_exact(ExactVector.of(x))[network.output].fractions()
    return float(max(abs(Fraction(float(value)) - true) for value, true in zip(seen, exact, strict=True)))


def _enclosed_error(network: Network, x: Array, seen: Array) -> float:
    region = bound_network(network, Box(x, x))
    lower, upper = region.value(network, network.output)
    return float(np.maximum(np.maximum(lower - seen, seen - upper), 0.0).max(initial=0.0))
