"""Bounds on parts of a region: each layer again by intervals and backward bounds, never worse than the whole's.

This is the one recipe by which trees of splits are bounded on the way down, so that whoever re-checks a tree
can follow it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from leo_core.bounds.crown import LinearBound, Memo, bound_linearly
from leo_core.bounds.interval import bound_affine_stack
from leo_core.bounds.region import Region
from leo_core.bounds.upto import upto
from leo_core.network import INPUT, Network

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


def descend(network: Network, target: str, region: Region, since: Indices | None = None) -> tuple[Region, Array]:
    """Tighten a stack of regions, node by node up to ``target``.

    Parameters
    ----------
    region:
        A stack that has intervals, those of the whole, for every node before the target.
    since:
        Per region, the position (among the affine nodes before the target) up to which nothing has changed.

    Returns
    -------
    The tightened stack, and per region the share of each input in the variation of the linear bounds.
    """
    count = len(region.lower)
    variation = np.zeros((count, network.input_size))
    memo = Memo()
    for position, (node, relus) in enumerate(upto(network, target).steps):
        changed = np.ones(count, dtype=bool) if since is None else since < position
        if not changed.any():
            continue
        region = region.tightened(node.name, *bound_affine_stack(network, node, region))
        if not relus or node.sources == (INPUT,):  # of an affine map of the input the interval is exact
            continue
        low, high = (side.copy() for side in region.intervals[node.name])
        rows, units = np.nonzero((low < 0) & (high > 0) & changed[:, None])
        if len(rows) == 0:
            continue
        way = upto(network, node.name)
        for chunk in way.chunks(len(rows)):
            at, unit = rows[chunk], units[chunk]
            for sign, side in ((1.0, high), (-1.0, low)):
                bound = bound_linearly(network, node.name, way.objectives(unit, sign), region, memo, at)
                side[at, unit] = sign * np.minimum(sign * side[at, unit], bound.upper)
                variation += leaning(bound, region, at)
        region = region.tightened(node.name, low, high)
    return region, variation / np.maximum(variation.sum(axis=1, keepdims=True), 1e-300)


def leaning(bound: LinearBound, region: Region, rows: Indices, used: NDArray[np.bool_] | None = None) -> Array:
    """Per region of a stack, the share of each input in the variation of its linear bounds, over (used) rows."""
    variation = np.abs(bound.slope_at_input) * (region.upper - region.lower)[rows]
    if used is not None:
        variation[~used] = 0.0
    variation /= np.maximum(variation.sum(axis=1, keepdims=True), 1e-300)
    lean = np.zeros_like(region.lower)
    np.add.at(lean, rows, variation)
    return np.asarray(lean / np.maximum(lean.sum(axis=1, keepdims=True), 1e-300))


def parts_at_once(network: Network, target: str, most: int) -> int:
    """How many parts, ``most`` at the most, are bounded in well under a second."""
    way = upto(network, target)
    objectives = 2 * sum(node.size for node, relus in way.steps if relus and node.sources != (INPUT,)) + 1
    return int(np.clip(4_000_000_000 // max(1, way.products * objectives), 1, most))
