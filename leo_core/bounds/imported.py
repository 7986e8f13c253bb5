"""How far a network as read may be from what its model means, where that has no exact floats."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from leo_core.arithmetic import Array, product_error, round_down, round_up
from leo_core.bounds.change import Change, affine_error, carry, flow
from leo_core.bounds.region import Interval, Region
from leo_core.network import Affine, Network, Rounding


def import_deviation(network: Network, region: Region, rounding: Mapping[str, Rounding]) -> float:
    """How far the network as read may be from what its model means, at any output, over the region.

    That is a change like a rewrite's: what the stored numbers are known to be off by is a linear function of what a
    node reads, and is carried to the outputs as such.
    """
    if not rounding:
        return 0.0
    moved: dict[str, Array] = {}  # by absolute values alone, which tells how far sources may be elsewhere
    changes: dict[str, Change] = {}
    with np.errstate(invalid="ignore", over="ignore"):
        for node in network.nodes:
            if not isinstance(node, Affine):
                moved[node.name] = moved[node.source]
                continue
            if node.name in rounding:
                ends = {name: _around(region.value(network, name), moved.get(name)) for name in node.sources}
                changes[node.name] = _meant(node, rounding[node.name], ends)
            entering = {name: moved[name] for name in node.sources if name in moved}
            own = changes[node.name].most if node.name in changes else np.zeros(node.size)
            total = flow(node, entering, own)
            moved[node.name] = np.where(np.isnan(total), np.inf, total)
        off = carry(network, region.intervals, changes).get(network.output, np.zeros(1))
    off = np.fmin(np.where(np.isnan(off), np.inf, off), moved[network.output])
    return float(off.max(initial=0.0))


def _around(ends: Interval, moved: Array | None) -> Interval:
    """The interval of a value that may be elsewhere by ``moved``."""
    low, high = ends
    return (low, high) if moved is None else (round_down(low - moved), round_up(high + moved))


def _meant(node: Affine, rounding: Rounding, ends: Mapping[str, Interval]) -> Change:
    """What the model means less what is stored, of a node that reads values in the given intervals."""
    weights = np.broadcast_to(np.asarray(rounding.weights, dtype=np.float64), node.size)
    rest = np.broadcast_to(np.asarray(rounding.bias, dtype=np.float64), node.size).copy()
    for source, linear in node.reads:
        low, high = ends[source]
        reach = np.where(weights.any(), np.maximum(np.abs(low), np.abs(high)), 0.0)
        flow = linear.absolute().apply(reach)
        flow = np.where(weights == 0, 0.0, weights * round_up(flow + product_error(flow, linear.terms + 8)))
        rest = np.where(flow == 0, rest, round_up(rest + round_up(flow)))
    if rounding.known is None:
        return Change.at_most(rest)
    maps, offset = rounding.known
    matrix = np.hstack([linear.rows_at(np.arange(linear.rows)) for linear in maps])
    lower = np.concatenate([ends[source][0] for source in node.sources])
    upper = np.concatenate([ends[source][1] for source in node.sources])
    off = np.asarray(offset, dtype=np.float64)
    most = affine_error(matrix, np.zeros_like(matrix), off, np.zeros(node.size), lower, upper)
    return Change(matrix, off, rest, lower, upper, round_up(most + rest))
