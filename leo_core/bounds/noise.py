"""The error that running a network in its own dtype was seen to make: what 'float' tolerance allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np

from leo_core.arithmetic import Array, ExactVector, add_exact, float_down
from leo_core.bounds.interval import bound_network
from leo_core.checker.environment import ieee
from leo_core.domain import Box
from leo_core.network import INPUT, Network, Relu, relu_exact

#: Points run, at most and at least, then again around the worst of them in so many rounds; and how many products of
#: floats all that may take (float64: in long double).
_POINTS, _FEWEST, _ROUNDS = 8192, 64, 4
_PRODUCTS = {np.dtype(np.float32): 4e9, np.dtype(np.float64): 6e7}
#: The points at which the error looks largest are checked; products of integers allowed for that.
_CHECKED = 16
_EXACT_PRODUCTS = 5_000_000
_ENCLOSED_PRODUCTS = 200_000_000
_BITS = 256
#: Numbers held at once while points are run.
_HELD = 20_000_000


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
    an outward-rounded float64 enclosure, which errs towards less (deep networks: with fixed point), and a float64 run
    with the exact value.
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
    ranked = [at for at in np.argsort(off)[::-1][:_CHECKED] if off[at] >= 0]
    measures: list[tuple[Callable[[Network, Array, Array], float], int]]
    if network.dtype == np.float64:
        measures = [(_exact_error, max(2, int(_EXACT_PRODUCTS // _work(network))))]
    else:
        measures = [(_enclosed_error, max(2, int(_ENCLOSED_PRODUCTS // _work(network)))), (_fixed_error, 2)]
    worst = 0.0
    for measure, count in measures:
        for at in ranked[:count]:
            if not expired():
                worst = max(worst, measure(network, rounded[at].astype(np.float64), computed[at].astype(np.float64)))
        if worst > 0:
            break
    return worst


def _work(network: Network) -> int:
    """Products of one run, those of images counted more: they take longer."""
    return max(1, network.connections, 4 * network.operations - 3 * network.connections)


def _run(network: Network, points: Array) -> tuple[Array, Array, Array]:
    """(points in the network's dtype, about how far it is off there, or −1 where it overflows, what it computes)."""
    wide = np.float64 if network.dtype == np.float32 else np.longdouble
    rounded = points.astype(network.dtype)
    computed, off = np.empty((len(points), network.output_size), network.dtype), np.empty(len(points))
    step = max(1, _HELD // sum(node.size for node in network.nodes))
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, len(points), step):
            part = slice(start, start + step)
            computed[part] = network.evaluate(rounded[part], network.dtype)
            away = np.abs(computed[part] - network.evaluate(rounded[part].astype(wide), wide))
            off[part] = away.max(axis=1).astype(np.float64)
    return rounded, np.where(np.isfinite(computed).all(axis=1) & np.isfinite(off), off, -1.0), computed


def _points(network: Network, box: Box, given: Sequence[Array], rng: np.random.Generator) -> Array:
    count = _PRODUCTS.get(network.dtype, 0.0) / _work(network) / 2
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


def _fixed_error(network: Network, x: Array, seen: Array) -> float:
    """The same with values in units of 2^-256, where an enclosure in float64 is wider than what is to be seen."""
    values = {INPUT: _fixed(ExactVector.of(x))}
    lost = {INPUT: np.ones(network.input_size)}  # in such units
    for node in network.nodes:
        if isinstance(node, Relu):
            values[node.name] = _fixed(relu_exact(values[node.source], node.slope))
            lost[node.name] = lost[node.source] + 1.0
            continue
        terms = [linear.apply_exact(values[source]) for source, linear in node.reads]
        values[node.name] = _fixed(add_exact([*terms, ExactVector.of(node.bias)]))
        lost[node.name] = np.ones(node.size)
        for source, linear in node.reads:
            lost[node.name] = lost[node.name] + 2.0 * linear.absolute().apply(lost[source])
    output = values[network.output].fractions()
    off = [
        abs(Fraction(float(value)) - true) - Fraction(float(units)) / (1 << _BITS)
        for value, true, units in zip(seen, output, lost[network.output], strict=True)
    ]
    return float_down(max(off, default=Fraction(0)))


def _fixed(exact: ExactVector) -> ExactVector:
    """Rounded down to units of 2^-256; denominators are powers of two."""
    shift = exact.denominator.bit_length() - 1 - _BITS
    moved = exact.numerators >> shift if shift >= 0 else exact.numerators << -shift
    return ExactVector(moved, 1 << _BITS)
