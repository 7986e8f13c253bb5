"""Proved bounds on what rounding does to a network that is run in its own dtype.

One sweep from the input on. The exact value of a node is at most r in size (its interval), and the value as run is
off from it by at most e, so that one is at most r + e. An affine node sums its bias and N products in some
order. With u the dtype's unit roundoff and γ = N·u / (1 − N·u), Higham (Accuracy and Stability of Numerical
Algorithms, section 3.1) gives

    error ≤ |W| e + γ (|W| (r + e) + |b|) + what underflows,

where N counts only products that are not known to be 0, since adding 0 rounds nothing. A ReLU rounds nothing, or a
leaky one a product: it stops the error of a unit that is inactive by a margin, and passes that of any other.

Covered are all orders of summation and all groupings, fused multiply-add, wider accumulators, denormals kept or
flushed; each operation rounds to nearest. Not covered are products in a narrower type (TF32, bfloat16) and schemes
that do not sum these products (Winograd, FFT, Strassen). Inputs are numbers of the dtype.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from leo_core.arithmetic import TINY, gamma, round_down, round_up
from leo_core.bounds.interval import bound_affine_stack
from leo_core.bounds.region import Region
from leo_core.checker.environment import ieee
from leo_core.network import INPUT, Affine, Network, Relu, Rounding

Array = NDArray[np.float64]

#: So many numbers of the widest layer are held at once when many points are bounded.
_HELD = 2**21


@ieee()
def running_error(network: Network, region: Region, dtype: Any, loose: Mapping[str, Rounding] | None = None) -> Array:
    """How far the outputs of a network run in ``dtype`` (float16, float32, float64) can be from their exact values.

    It holds for every input of the region that is a number of the dtype. ``region`` has an interval for every affine
    node; ``loose`` says, by node, how far its numbers as run may be from the stored ones, in units of roundoff.
    The result has the shape (outputs,), or (regions, outputs) for a stack. Infinite where a sum may overflow.
    """
    return running_errors(network, region, dtype, loose)[network.output]


def running_errors(
    network: Network, region: Region, dtype: Any, loose: Mapping[str, Rounding] | None = None
) -> dict[str, Array]:
    """:func:`running_error` of every node, by name."""
    arithmetic = _Arithmetic(_name(dtype), loose or {})
    errors = {INPUT: np.zeros_like(region.lower)}
    with np.errstate(invalid="ignore", over="ignore"):
        for node in network.nodes:
            if isinstance(node, Affine):
                errors[node.name] = arithmetic.affine(network, node, region, errors)
            else:
                errors[node.name] = arithmetic.relu(node, *region.intervals[node.source], errors[node.source])
    return errors


def running_error_at(network: Network, points: Any, dtype: Any) -> Array:
    """:func:`running_error` at each of ``points`` (count, inputs), rounded to the dtype first: (count, outputs)."""
    errors = [error for _, error in _batches(network, points, dtype)]
    return np.vstack([np.zeros((0, network.output_size)), *errors])


@ieee()
def as_run(network: Network, points: Any, dtype: Any) -> tuple[Array, Array]:
    """Proved (lower, upper) of the outputs that a network run in ``dtype`` has at given points.

    ``points`` (count, inputs) are rounded to the dtype first; both results have the shape (count, outputs).
    """
    lower = upper = np.zeros((0, network.output_size))
    for region, error in _batches(network, points, dtype):
        low, high = region.value(network, network.output)
        lower, upper = np.vstack([lower, round_down(low - error)]), np.vstack([upper, round_up(high + error)])
    return lower, upper


@ieee()
def nodes_as_run(
    network: Network, points: Any, dtype: Any, loose: Mapping[str, Rounding] | None = None
) -> dict[str, tuple[Array, Array]]:
    """:func:`as_run` of every node by name, at a few points; ``loose`` is as in :func:`running_error`."""
    region = _at(network, _in(points, dtype))
    errors = running_errors(network, region, dtype, loose)
    intervals = {node.name: region.value(network, node.name) for node in network.nodes}
    with np.errstate(invalid="ignore", over="ignore"):
        return {
            name: (round_down(low - errors[name]), round_up(high + errors[name]))
            for name, (low, high) in intervals.items()
        }


@ieee()
def certain_class(network: Network, points: Any, dtype: Any) -> NDArray[np.int64]:
    """The output that is sure to be the largest when a network is run in ``dtype`` at each of ``points``, or −1."""
    lower, upper = as_run(network, points, dtype)
    best = lower.argmax(axis=1)
    rows = np.arange(len(best))
    least = lower[rows, best]
    upper[rows, best] = -np.inf
    return np.where(least > upper.max(axis=1), best, -1)


def _batches(network: Network, points: Any, dtype: Any) -> Iterator[tuple[Region, Array]]:
    """Points a batch at a time, as a stack of regions, and the running error there."""
    rounded = _in(points, dtype)
    count = max(1, _HELD // max(network.input_size, *(node.size for node in network.nodes)))
    for begin in range(0, len(rounded), count):
        region = _at(network, rounded[begin : begin + count])
        yield region, running_error(network, region, dtype)


def unit_roundoff(dtype: str) -> float:
    """Half the distance from 1 to the next number of a float type; bfloat16 has eight bits of precision."""
    return 2.0**-8 if dtype == "bfloat16" else float(np.finfo(dtype).eps) / 2


def smallest_normal(dtype: str) -> float:
    """The smallest positive number of a float type that has all its digits."""
    return float(np.finfo(_range_of(dtype)).smallest_normal)


def _in(points: Any, dtype: Any) -> Array:
    with np.errstate(over="ignore"):
        return np.asarray(points).astype(_range_of(_name(dtype))).astype(np.float64)


def _name(dtype: Any) -> str:
    return "bfloat16" if dtype == "bfloat16" else np.dtype(dtype).name


def _range_of(dtype: str) -> str:
    """NumPy's name of a type of that range: it has no bfloat16."""
    return "float32" if dtype == "bfloat16" else dtype


def _at(network: Network, points: Array) -> Region:
    """Points as a stack of regions, with the intervals of all affine nodes there."""
    region = Region(points, points)
    for node in network.nodes:
        if isinstance(node, Affine):
            region = region.tightened(node.name, *bound_affine_stack(network, node, region))
    return region


@final
class _Arithmetic:
    """How far each kind of node is off, run in one float type.

    Only numbers from 0 are added and multiplied here, so a relative surcharge covers the float64 roundings of that.
    """

    def __init__(self, dtype: str, loose: Mapping[str, Rounding]) -> None:
        about = np.finfo(_range_of(dtype))
        self._dtype = None if dtype == "bfloat16" else np.dtype(dtype)
        self._loose = loose
        self._unit = unit_roundoff(dtype) * (1 + 2.0**-10)  # a little more, for a rounding to a wider type before
        self._largest = float(about.max) / 2  # half of it, to be safe
        #: What one number can lose by being, or becoming, a denormal that is rounded or flushed to zero.
        self._flush = 2 * smallest_normal(dtype)

    def affine(self, network: Network, node: Affine, region: Region, errors: dict[str, Array]) -> Array:
        """The error of an affine node's values, given those of its sources."""
        passed: Any = 0.0
        reach: Any = 0.0
        size: Any = np.abs(node.bias.astype(np.float64))
        terms: Any = (node.bias != 0).astype(np.float64)
        products, columns = 0, 0
        for source, linear in node.reads:
            lower, upper = region.value(network, source)
            at_most = np.maximum(np.abs(lower), np.abs(upper)) + errors[source]  # in size, as run
            live = ~(at_most == 0)  # NaN counts
            absolute = linear.absolute()
            passed = passed + absolute.apply(errors[source] + self._flush * live)
            size = size + absolute.apply(at_most)
            reach = reach + at_most.sum(axis=-1, keepdims=True)
            terms = terms + linear.support().apply(live.astype(np.float32))
            products = max(products, int(linear.products > 0))
            columns += linear.columns
        rounded: Any = max(self._rounding(array) for array in node.weights)
        # what else its numbers, as run, are off by
        own = self._loose.get(node.name, node.own.loose if node.own is not None else None)
        if own is not None:
            rounded = rounded + own.weights * self._unit
            terms = terms + (own.bias != 0)  # a bias of 0 may be another number as run
        share = (np.maximum(terms - 1, 0) + products) * self._unit  # a product's own rounding and all additions
        share = np.where(share < 0.5, share / (1 - share), np.inf)
        lost = self._flush * (reach + 1 + 2 * terms)
        data = rounded * size + lost  # the weights as run are not quite the stored ones
        if own is not None:
            data = data + own.bias * self._unit
        total = passed + data + share * (size + data)
        total = np.where(size + total < self._largest, total, np.inf)
        total = total + total * gamma(columns + 16) + (columns + 16) * TINY
        total = np.where(np.isnan(total), np.inf, total)
        # a row of zeros is exact, unless 0 is multiplied with what has overflowed
        return np.where((terms == 0) & np.isfinite(reach) & np.isfinite(rounded), 0.0, total)

    def relu(self, node: Relu, lower: Array, upper: Array, error: Array) -> Array:
        """The error behind a ReLU of a pre-activation in [lower, upper] that is itself off by ``error``."""
        above = np.clip(round_up(upper + error), 0, error)  # as far as an error reaches where the slope is 1
        passed = above + np.where(above > 0, self._flush, 0.0)
        if node.slope.any():
            below = np.where(node.slope > 0, np.maximum(error - lower, 0.0), 0.0)
            rounded = self._rounding(node.slope)
            own = (rounded + self._unit * (1 + rounded)) * node.slope * below
            own = np.where(below > 0, own + self._flush * (2 * below + 3), 0.0)
            passed = np.minimum(error, above + node.slope * error) + own + self._flush
        passed = passed + passed * gamma(16)
        return np.where(np.isnan(passed), np.inf, passed)

    def _rounding(self, array: NDArray[Any]) -> float:
        """How far a stored number can be from the one that is run, relative to it; denormals apart."""
        if self._dtype is None:
            return self._unit
        if np.can_cast(array.dtype, self._dtype):
            return 0.0
        with np.errstate(over="ignore", under="ignore"):
            as_run = array.astype(self._dtype)
        if not np.isfinite(as_run).all():
            return np.inf
        return 0.0 if (as_run == array).all() else self._unit
