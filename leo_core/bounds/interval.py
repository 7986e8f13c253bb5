"""Outward-rounded interval bounds of one affine node, with an exact answer where the sign is close.

Of one region, entries are taken by their sign: A⁺ u − A⁻ l + b is the largest value for sources in [l, u]. Nothing
cancels there that need not, so that a unit is seen to be inactive whose inputs may be huge, but only push it down. Of a
stack of regions, centre c and radius r give A c + b ± |A| r, which takes fewer products. Rounding: ``arithmetic``. A
bound that rounding alone keeps from settling a unit's sign is recomputed over the rationals, so that a unit whose
maximum is exactly 0 is seen to be inactive. Of a layer with numbers of its own (:class:`~leo_core.network.Own`) the
bounds hold for all that its node may stand for.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from leo_core.arithmetic import float_down, float_up, product_error, round_down, round_up
from leo_core.bounds.maxima import maxima
from leo_core.bounds.region import Interval, Region
from leo_core.domain import Box
from leo_core.network import Affine, Network

Array = NDArray[np.float64]


def bound_affine(network: Network, node: Affine, region: Region) -> Interval:
    """(lower, upper) of a node, each of shape (units,), from one region's bounds of its sources."""
    if len(node.maps) == 1 and node.maps[0].picks and not node.bias.any() and node.own is None:
        low, high = (node.maps[0].apply(side) for side in region.value(network, node.sources[0]))
        return low, high
    extremes = maxima(network, node)
    if extremes is not None and len(extremes.units) == node.size:
        nothing = np.full(node.size, -np.inf), np.full(node.size, np.inf)
        return extremes.within(network, region, nothing)
    (lower, error_below), (upper, error_above) = _by_sign(network, node, region)
    close_below, close_above = (
        (lower < 0) & (lower + 4 * error_below >= 0),
        (upper > 0) & (upper - 4 * error_above <= 0),
    )
    if node.own is not None:  # what is meant is not exactly what is stored
        return lower, upper
    if extremes is not None:
        lower, upper = extremes.within(network, region, (lower, upper))
    if close_below.any() or close_above.any():
        # where every product is one with zero, the value is the bias: many, where much before a layer is dead
        bias, moving = node.bias.astype(np.float64), _moving(network, node, region)
        lower, upper = np.where(moving[0], lower, bias), np.where(moving[1], upper, bias)
    for unit in np.flatnonzero(close_below & (lower < 0)):
        lower[unit] = max(lower[unit], float_down(_exact_extreme(network, node, region, int(unit), -1)))
    for unit in np.flatnonzero(close_above & (upper > 0)):
        upper[unit] = min(upper[unit], float_up(_exact_extreme(network, node, region, int(unit), +1)))
    return lower, upper


def bound_affine_stack(network: Network, node: Affine, region: Region) -> Interval:
    """The same for a stack of regions, each of shape (regions, units), without the exact answers."""
    bounds = _by_centre(network, node, region)
    extremes = maxima(network, node)
    return bounds if extremes is None else extremes.within(network, region, bounds)


def _by_sign(network: Network, node: Affine, region: Region) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """(lower, the rounding that is in it), (upper, …), by the signs of entries."""
    bias = node.bias.astype(np.float64)
    low_sum, high_sum, low_size, high_size, terms = bias, bias, np.abs(bias), np.abs(bias), 2
    with np.errstate(invalid="ignore", over="ignore"):
        for source, linear in node.reads:
            above, below = linear.sides()
            low, high = region.value(network, source)
            of_low, of_high = (above.apply(low), below.apply(low)), (above.apply(high), below.apply(high))
            low_sum, high_sum = low_sum + (of_low[0] - of_high[1]), high_sum + (of_high[0] - of_low[1])
            if (low < 0).any():
                of_low = above.apply(np.abs(low)), below.apply(np.abs(low))
            if (high < 0).any():
                of_high = above.apply(np.abs(high)), below.apply(np.abs(high))
            low_size, high_size = low_size + of_low[0] + of_high[1], high_size + of_high[0] + of_low[1]
            terms += linear.terms + 2
        errors = (
            product_error(low_size, terms) + rounded_off(node, low_size),
            product_error(high_size, terms) + rounded_off(node, high_size),
        )
        lower, upper = round_down(low_sum - errors[0]), round_up(high_sum + errors[1])
    lower, upper = np.where(np.isnan(lower), -np.inf, lower), np.where(np.isnan(upper), np.inf, upper)
    return (lower, errors[0]), (upper, errors[1])


def rounded_off(node: Affine, size: Array) -> Array | float:
    """How far a node's value may be from what its layer means, where its products and bias add up to ``size``."""
    if node.own is None:
        return 0.0
    rounding = node.own.rounding
    return round_up(round_up(2.0 * rounding.weights * size) + 2.0 * rounding.bias)


def _moving(network: Network, node: Affine, region: Region) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The units whose smallest, and whose largest, value has a product in it that is not one with zero."""
    counts = [np.zeros(node.size, np.float32), np.zeros(node.size, np.float32)]
    for source, linear in node.reads:
        above, below = (side.support() for side in linear.sides())
        low, high = ((end != 0).astype(np.float32) for end in region.value(network, source))
        counts[0] += above.apply(low) + below.apply(high)
        counts[1] += above.apply(high) + below.apply(low)
    return counts[0] > 0, counts[1] > 0


def _by_centre(network: Network, node: Affine, region: Region) -> Interval:
    """Outward-rounded (lower, upper), by centres and radii."""
    centre_sum = node.bias.astype(np.float64)
    radius_sum = np.zeros(node.size)
    magnitude = np.abs(centre_sum)
    terms = 2
    for source, linear in node.reads:
        low, high = region.value(network, source)
        with np.errstate(invalid="ignore", over="ignore"):
            centre = low + 0.5 * (high - low)
            radius = round_up(np.maximum(high - centre, centre - low))
            absolute = linear.absolute()
            spread = absolute.apply(radius)
            centre_sum = centre_sum + linear.apply(centre)
            radius_sum = radius_sum + spread
            magnitude = magnitude + absolute.apply(np.abs(centre)) + spread
        terms += linear.terms + 2
    with np.errstate(invalid="ignore", over="ignore"):
        error = product_error(magnitude, terms) + rounded_off(node, magnitude)
        lower = round_down(centre_sum - radius_sum - error)
        upper = round_up(centre_sum + radius_sum + error)
    lower = np.where(np.isnan(lower), -np.inf, lower)
    upper = np.where(np.isnan(upper), np.inf, upper)
    return lower, upper


def bound_network(network: Network, box: Box) -> Region:
    """Intervals for every affine node of a network on a box."""
    region = Region.of(box)
    for node in network.nodes:
        if isinstance(node, Affine):
            region = region.tightened(node.name, *bound_affine(network, node, region))
    return region


def _exact_extreme(network: Network, node: Affine, region: Region, unit: int, side: int) -> Fraction:
    """The exact largest (side +1) or smallest value of one unit over its sources' intervals."""
    total = Fraction(float(node.bias[unit]))
    for source, linear in node.reads:
        low, high = region.value(network, source)
        for j, weight in zip(*linear.row(unit), strict=True):
            end = high[j] if (weight > 0) == (side > 0) else low[j]
            total += Fraction(float(weight)) * Fraction(float(end))
    return total
