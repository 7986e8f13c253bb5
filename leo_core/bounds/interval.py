"""Outward-rounded interval bounds of one affine node, with an exact answer where the sign is close.

Centre c and radius r of each source give A c + b ± |A| r (rounding: ``arithmetic``). A bound that
rounding alone keeps from settling a unit's sign is recomputed over the rationals, so that a unit
whose maximum is exactly 0 is seen to be inactive.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from leo_core.arithmetic import float_down, float_up, product_error, round_down, round_up
from leo_core.bounds.region import Interval, Region
from leo_core.domain import Box
from leo_core.network import Affine, Network

Array = NDArray[np.float64]


def bound_affine(network: Network, node: Affine, region: Region) -> Interval:
    """(lower, upper) of a node, each of shape (units,), from one region's bounds of its sources."""
    lower, upper, error = _rounded(network, node, region)
    for unit in np.flatnonzero((lower < 0) & (lower + 4 * error >= 0)):
        lower[unit] = max(lower[unit], float_down(_exact_extreme(network, node, region, int(unit), -1)))
    for unit in np.flatnonzero((upper > 0) & (upper - 4 * error <= 0)):
        upper[unit] = min(upper[unit], float_up(_exact_extreme(network, node, region, int(unit), +1)))
    return lower, upper


def bound_affine_stack(network: Network, node: Affine, region: Region) -> Interval:
    """The same for a stack of regions, each of shape (regions, units), without the exact answers."""
    lower, upper, _ = _rounded(network, node, region)
    return lower, upper


def _rounded(network: Network, node: Affine, region: Region) -> tuple[Array, Array, Array]:
    """Outward-rounded (lower, upper), and the rounding that is in them."""
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
        error = product_error(magnitude, terms)
        lower = round_down(centre_sum - radius_sum - error)
        upper = round_up(centre_sum + radius_sum + error)
    lower = np.where(np.isnan(lower), -np.inf, lower)
    upper = np.where(np.isnan(upper), np.inf, upper)
    return lower, upper, error


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
