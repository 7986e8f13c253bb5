"""What is proved of a network's value, once its ReLUs are decided: the same questions, asked of its outputs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from leo_core.bounds.crown import backward_interval
from leo_core.bounds.interval import bound_affine
from leo_core.bounds.region import Interval, Region
from leo_core.bounds.slopes import improved
from leo_core.bounds.upto import upto
from leo_core.domain import Box
from leo_core.execution.budget import Budget
from leo_core.execution.events import Listener, Note, silent
from leo_core.network import Affine, Network, Relu
from leo_core.search.attack import scatter
from leo_core.search.witness import signs_at
from leo_core.stability.bounds import by_bounds, by_sign
from leo_core.stability.verdict import LayerStability, StabilityMap
from leo_core.stability.work import Work

Array = NDArray[np.float64]

#: Products that backward bounds of all outputs may take, and those with better slopes.
_BACKWARD, _IMPROVED = 2e10, 2e9
#: Points tried for the signs of outputs, at most; products spent on that, and the least number that is worth it.
_MOST, _TRIED, _FEWEST = 500, 4e8, 16
_SLOPES = 20


def with_outputs(work: Work, stability: StabilityMap, listener: Listener = silent) -> StabilityMap:
    """A map of that work with bounds and signs of the network's value, by all that is proved of its units."""
    if stability.interrupted:
        return stability
    try:
        with np.errstate(all="ignore"):  # an overflow makes a bound infinite
            outputs = proved_of_outputs(stability.network, known_region(stability), work.budget, work.seed)
            return replace(stability, outputs=outputs)
    except KeyboardInterrupt:
        return replace(stability, interrupted=True)
    except MemoryError:
        listener(Note("the memory was not enough; bounds of the outputs are those of intervals"))
        return stability


def known_region(stability: StabilityMap) -> Region:
    """Intervals of all affine nodes, by what is known of those that a ReLU reads."""
    network, region = stability.network, Region.of(stability.box)
    known = {relu.source: stability.layers[relu.name] for relu in network.relus}
    for node in network.nodes:
        if isinstance(node, Affine):
            region = region.tightened(node.name, *bound_affine(network, node, region))
            if node.name in known:
                region = region.tightened(node.name, known[node.name].lower, known[node.name].upper)
    return region


def proved_of_outputs(network: Network, region: Region, budget: Budget, seed: int = 0) -> LayerStability:
    """Bounds and signs of the network's value; ``region`` has intervals for all affine nodes.

    Only what the intervals say, once the budget has ended.
    """
    target = _before(network)
    positive, negative = (np.zeros(network.output_size, dtype=bool) for _ in range(2))
    if not budget.expired:
        region = region.tightened(target.name, *_backward(network, target.name, region, budget))
        positive, negative = _seen(network, target.name, region, seed)
    lower, upper = region.value(network, network.output)
    last = network[network.output]
    if isinstance(last, Relu):
        negative = negative & (last.slope > 0)
    state = by_sign(lower, upper, positive, negative)
    return LayerStability(network.output, state, by_bounds(state), lower, upper)


def _before(network: Network) -> Affine:
    """The output, or what it reads where it is a ReLU."""
    node = network[network.output]
    return node if isinstance(node, Affine) else network.affine(node.source)


def _backward(network: Network, target: str, region: Region, budget: Budget) -> Interval:
    way, size = upto(network, target), network.size(target)
    low, high = region.intervals[target]
    if 2 * size * way.products > _BACKWARD:
        return low, high

    def expired() -> bool:
        return budget.expired

    low, high = region.tightened(target, *backward_interval(network, target, region, expired=expired)).intervals[target]
    if 4 * _SLOPES * size * way.products > _IMPROVED:
        return low, high
    low, high, units = low.copy(), high.copy(), np.arange(size)
    for chunk in way.chunks(size):
        for sign, side in ((-1.0, low), (1.0, high)):
            objectives = way.objectives(units[chunk], sign)
            found = improved(network, target, objectives, region, _SLOPES, expired=expired)
            side[chunk] = sign * np.fmin(sign * side[chunk], found.upper)
    return low, high


def _seen(network: Network, target: str, region: Region, seed: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Of which units of an affine node a point shows that they can be above zero, and below, beyond doubt."""
    way = upto(network, target)
    count = int(min(_TRIED // max(1, way.products), _MOST))
    if count < _FEWEST:
        return np.zeros(network.size(target), dtype=bool), np.zeros(network.size(target), dtype=bool)
    points = scatter(Box(region.lower, region.upper), count, seed)[-count:]
    seen = []
    for sign in (1, -1):
        best, at = np.full(network.size(target), -np.inf), np.zeros(network.size(target), dtype=np.int64)
        for chunk in way.chunks(len(points)):
            values = sign * network.evaluate_nodes(points[chunk], only=way.names)[target]
            first = values.argmax(axis=0)
            most = values[first, np.arange(len(first))]
            at, best = np.where(most > best, first + chunk.start, at), np.fmax(best, most)
        shown = np.zeros(len(best), dtype=bool)
        units = np.flatnonzero(best > 0)
        used, row = np.unique(at[units], return_inverse=True)
        if len(units):
            shown[units] = sign * signs_at(network, target, units, points[used], row) > 0
        seen.append(shown)
    return seen[0], seen[1]
