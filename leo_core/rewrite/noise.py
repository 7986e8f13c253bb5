"""The error that running a network in its own dtype was seen to make: what 'float' tolerance allows."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from leo_core.arithmetic import Array, ExactVector
from leo_core.bounds.interval import bound_network
from leo_core.domain import Box
from leo_core.network import Network
from leo_core.stability.verdict import StabilityMap

#: Points run, at most and at least, and how many products of floats that may take (float64: in long double).
_POINTS, _FEWEST = 8192, 64
_PRODUCTS = {np.dtype(np.float32): 4e9, np.dtype(np.float64): 3e7}
#: The points at which the error looks largest are checked; products of integers allowed for that.
_CHECKED = 16
_EXACT_PRODUCTS = 5_000_000


def float_noise(network: Network, stability: StabilityMap, seed: int = 0) -> float:
    """The largest |computed − exact| at any output, over witnesses, corners, samples and the box's centre.

    Inputs are rounded to the dtype first, so that this is the noise of the arithmetic alone. Never more
    than what was really seen: points are picked by a wider float, but a float32 run is then compared with
    an outward-rounded float64 enclosure, which errs towards less, and a float64 run with the exact value.
    """
    rounded = _points(network, stability, seed).astype(network.dtype)
    wide = np.float64 if network.dtype == np.float32 else np.longdouble
    measure = _exact_error if network.dtype == np.float64 else _enclosed_error
    with np.errstate(over="ignore", invalid="ignore"):
        computed = network.evaluate(rounded, network.dtype)
        off = np.abs(computed - network.evaluate(rounded.astype(wide), wide)).max(axis=1)
    off = np.where(np.isfinite(computed).all(axis=1), off, -1.0)
    checked = _CHECKED
    if network.dtype == np.float64:
        checked = max(2, min(checked, int(_EXACT_PRODUCTS // max(1, network.connections))))
    worst = 0.0
    for at in np.argsort(off)[::-1][:checked]:
        if off[at] >= 0:
            worst = max(worst, measure(network, rounded[at].astype(np.float64), computed[at].astype(np.float64)))
    return worst


def _points(network: Network, stability: StabilityMap, seed: int) -> Array:
    box = stability.box
    count = _PRODUCTS.get(network.dtype, 0.0) / max(1, network.connections)
    count = int(min(max(count, _FEWEST), _POINTS))
    witnesses = [point for layer in stability.layers.values() for pair in layer.witnesses.values() for point in pair]
    parts = [box.center[None], *(w[None] for w in witnesses[: count // 4]), box.corners(count // 4)]
    points = np.vstack(parts)
    return np.vstack([points, box.sample(np.random.default_rng(seed), max(0, count - len(points)))])


def _exact_error(network: Network, x: Array, seen: Array) -> float:
    exact = network.evaluate_exact(ExactVector.of(x))[network.output].fractions()
    return float(max(abs(Fraction(float(value)) - true) for value, true in zip(seen, exact, strict=True)))


def _enclosed_error(network: Network, x: Array, seen: Array) -> float:
    region = bound_network(network, Box(x, x))
    lower, upper = region.value(network, network.output)
    return float(np.maximum(np.maximum(lower - seen, seen - upper), 0.0).max(initial=0.0))
