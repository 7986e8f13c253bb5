"""The error that running a network in its own dtype was seen to make: what 'float' tolerance allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np

from leo_core.arithmetic import Array, ExactVector, float_down
from leo_core.bounds.interval import bound_network
from leo_core.checker.environment import ieee
from leo_core.domain import Box
from leo_core.network import Network

#: Points run, at most and at least, then again around the worst of them in so many rounds; and how many products of
#: floats all that may take (float64: in long double).
_POINTS, _FEWEST, _ROUNDS = 8192, 64, 4
_PRODUCTS = {np.dtype(np.float32): 4e9, np.dtype(np.float64): 6e7}
#: The points at which the error looks largest are checked; products of integers allowed for that.
_CHECKED = 16
_EXACT_PRODUCTS = 5_000_000


@ieee()
def float_noise(
    network: Network,
    box: Box,
    points: Sequence[Array] = (),
    seed: int = 0,
    expired: Callable[[], bool] = lambda: False,
) -> float:
    """The largest |computed − exact| at any output, over ``points``, corners, samples and points near the worst.

    Inputs are rounded to the dtype first, so that this is the noise of the arithmetic alone. Never more
    than what was really seen: points are picked by a wider float, but a float32 run is then compared with
    an outward-rounded float64 enclosure, which errs towards less, and a float64 run with the exact value.
    From where ``expired`` on, no further point is looked at.
    """
    rng = np.random.default_rng(seed)
    tried = _points(network, box, points, rng)
    rounded, off, computed = _run(network, tried)
    for _ in range(_ROUNDS):  # where the error is large, more of it may be near
        if expired():
            break
        best = np.argsort(off)[::-1][:_CHECKED]
        near = _around(box, rounded[best].astype(np.float64), len(tried) // _ROUNDS, rng)
        more = _run(network, near)
        rounded, off, computed = (np.concatenate(pair) for pair in zip((rounded, off, computed), more, strict=True))
    measure, checked = _enclosed_error, _CHECKED
    if network.dtype == np.float64:
        measure, checked = _exact_error, max(2, min(checked, int(_EXACT_PRODUCTS // max(1, network.connections))))
    worst = 0.0
    for at in np.argsort(off)[::-1][:checked]:
        if expired():
            break
        if off[at] >= 0:
            worst = max(worst, measure(network, rounded[at].astype(np.float64), computed[at].astype(np.float64)))
    return worst


def _run(network: Network, points: Array) -> tuple[Array, Array, Array]:
    """(points in the network's dtype, about how far it is off there, or −1 where it overflows, what it computes)."""
    wide = np.float64 if network.dtype == np.float32 else np.longdouble
    rounded = points.astype(network.dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        computed = network.evaluate(rounded, network.dtype)
        off = np.abs(computed - network.evaluate(rounded.astype(wide), wide)).max(axis=1).astype(np.float64)
    return rounded, np.where(np.isfinite(computed).all(axis=1) & np.isfinite(off), off, -1.0), computed


def _points(network: Network, box: Box, given: Sequence[Array], rng: np.random.Generator) -> Array:
    count = _PRODUCTS.get(network.dtype, 0.0) / max(1, network.connections) / 2
    count = int(min(max(count, _FEWEST), _POINTS))
    parts = [box.center[None], *(point[None] for point in given[: count // 4]), box.corners(count // 4)]
    points = np.vstack(parts)
    return np.vstack([points, box.sample(rng, max(0, count - len(points)))])


def _around(box: Box, points: Array, count: int, rng: np.random.Generator) -> Array:
    """Points of the box within a tenth of its width from some of the given ones."""
    chosen = points[rng.integers(len(points), size=count)]
    step = 0.1 * (box.upper - box.lower) * rng.uniform(-1, 1, chosen.shape)
    return np.clip(chosen + step, box.lower, box.upper)


def _exact_error(network: Network, x: Array, seen: Array) -> float:
    exact = network.evaluate_exact(ExactVector.of(x))[network.output].fractions()
    return float_down(max(abs(Fraction(float(value)) - true) for value, true in zip(seen, exact, strict=True)))


def _enclosed_error(network: Network, x: Array, seen: Array) -> float:
    region = bound_network(network, Box(x, x))
    lower, upper = region.value(network, network.output)
    return float(np.maximum(np.maximum(lower - seen, seen - upper), 0.0).max(initial=0.0))
