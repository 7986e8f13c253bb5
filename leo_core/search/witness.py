"""The sign of a pre-activation at a point, beyond doubt."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from leo_core.bounds.interval import bound_affine_stack
from leo_core.bounds.region import Region
from leo_core.bounds.upto import upto
from leo_core.network import Network

Array = NDArray[np.float64]


def sign_at(network: Network, target: str, unit: int, x: Array) -> int:
    """The sign (−1, 0, +1) of one unit of an affine node at the float64 point ``x``, as real numbers."""
    return int(signs_at(network, target, np.array([unit]), x[None])[0])


def signs_at(
    network: Network,
    target: str,
    units: NDArray[np.int64],
    points: Array,
    at: NDArray[np.int64] | None = None,
    expired: Callable[[], bool] = lambda: False,
) -> NDArray[np.int8]:
    """The sign of unit ``units[k]`` at ``points[at[k]]`` (without ``at``, ``points[k]``), for each k, as real numbers.

    An outward-rounded evaluation answers where it excludes zero, rational arithmetic otherwise; where ``expired`` comes
    before that, 0, which shows nothing.
    """
    at = np.arange(len(units)) if at is None else at
    region = Region(points, points)
    way = upto(network, target)
    for node, _ in way.steps:
        region = region.tightened(node.name, *bound_affine_stack(network, node, region))
    lower, upper = (side[at, units] for side in region.intervals[target])
    signs = (lower > 0).astype(np.int8) - (upper < 0).astype(np.int8)
    for k in np.flatnonzero(signs == 0) if way.exact else ():
        if expired():
            break
        signs[k] = network.evaluate_exact(points[at[k]], only=way.names)[target].signs()[units[k]]
    return signs
