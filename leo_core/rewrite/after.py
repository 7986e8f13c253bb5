"""What is proved of the units of a rewritten network, as verdicts of its own.

A rewrite that is not exact moves pre-activations, so that nothing is taken over from the network first given but
proved bounds, moved along (:class:`~leo_core.rewrite.facts.Facts`); points that showed both signs there are looked at
again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from leo_core.bounds.upto import upto
from leo_core.execution.budget import Budget
from leo_core.network import Network
from leo_core.rewrite.facts import Facts
from leo_core.rewrite.view import View
from leo_core.search.witness import signs_at
from leo_core.stability.bounds import by_bounds, by_sign
from leo_core.stability.outputs import proved_of_outputs
from leo_core.stability.verdict import LayerStability, Method, StabilityMap

Array = NDArray[np.float64]

#: Points looked at again, at most, and products spent on them at each layer.
_POINTS, _PRODUCTS = 2_000, 4e9


def stability_after(network: Network, facts: Facts, before: StabilityMap) -> StabilityMap:
    """Verdicts on a rewritten network, from what is known of its units and from the verdicts ``before``."""
    region = View(network, facts).region
    seen = before.points
    points = np.array(seen[:: max(1, -(-len(seen) // _POINTS))]).reshape(-1, network.input_size)
    methods = _methods(before)
    layers: dict[str, LayerStability] = {}
    for relu in network.relus:
        lower, upper = region.intervals[relu.source]
        positive, negative = _signs(network, relu.source, (lower < 0) & (upper > 0), points)
        state = by_sign(lower, upper, positive, negative)
        method, units = by_bounds(state), facts.units[relu.source]
        if relu.source in methods:
            was = np.append(methods[relu.source], Method.NONE)[np.where(units.home == "", units.origin, -1)]
            method = np.where((method == Method.BOUND) & (was != Method.NONE) & (was != Method.WITNESS), was, method)
        layers[relu.name] = LayerStability(relu.name, state, method.astype(np.int8), lower, upper)
    outputs = proved_of_outputs(network, region, Budget())
    return replace(before, network=network, layers=layers, outputs=outputs)


def _methods(before: StabilityMap) -> Mapping[str, NDArray[np.int8]]:
    """By affine node of the network first given, what the verdicts on its units rest on."""
    sources = {relu.name: relu.source for relu in before.network.relus}
    return {sources[name]: layer.method for name, layer in before.layers.items()}


def _signs(
    network: Network, target: str, units: NDArray[np.bool_], points: Array
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which of some units one of the points shows above zero, and below, beyond doubt."""
    way = upto(network, target)
    points = points[: max(1, int(_PRODUCTS // max(1, way.products)))]
    positive, negative = np.zeros_like(units), np.zeros_like(units)
    asked = np.flatnonzero(units)
    if not len(asked) or not len(points):
        return positive, negative
    values = np.vstack(
        [network.evaluate_nodes(points[part], only=way.names)[target] for part in way.chunks(len(points))]
    )
    for sign, seen in ((1, positive), (-1, negative)):
        at = (sign * values[:, asked]).argmax(axis=0)
        used, row = np.unique(at, return_inverse=True)
        seen[asked] = sign * signs_at(network, target, asked, points[used], row) > 0
    return positive, negative
