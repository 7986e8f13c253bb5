"""The sign of a pre-activation at a point, beyond doubt."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from leo_core.bounds.dual import prefix
from leo_core.bounds.interval import bound_affine
from leo_core.bounds.region import Region
from leo_core.domain import Box
from leo_core.network import Network

Array = NDArray[np.float64]


def sign_at(network: Network, target: str, unit: int, x: Array) -> int:
    """The sign (−1, 0, +1) of one unit of an affine node at the float64 point ``x``, as real numbers.

    An outward-rounded evaluation answers when it excludes zero, rational arithmetic otherwise.
    """
    region = Region(Box(x, x))
    for node, _ in prefix(network, target):
        region = region.tightened(node.name, *bound_affine(network, node, region))
    lower, upper = region.intervals[target]
    if lower[unit] > 0:
        return 1
    if upper[unit] < 0:
        return -1
    return int(_exact_signs(network, target, x)[unit])


def _exact_signs(network: Network, target: str, x: Array) -> NDArray[np.int8]:
    needed = {node.name for node, _ in prefix(network, target)}
    needed |= {relu.name for _, relus in prefix(network, target) for relu in relus}
    return network.evaluate_exact(x, only=needed)[target].signs()
