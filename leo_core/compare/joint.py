"""Two networks side by side as one, whose output is their difference, and the points at which they are far apart.

Bounds run backward through the joint network, so whatever linear parts both share cancels before it is bounded.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from leo_core.arithmetic import float_down
from leo_core.bounds.crown import Memo, backward_interval, bound_linearly
from leo_core.bounds.interval import bound_affine
from leo_core.bounds.region import Region
from leo_core.domain import Box
from leo_core.execution.budget import Budget
from leo_core.execution.events import Listener, Note
from leo_core.linear import Dense, Diagonal, Select, Sparse
from leo_core.network import INPUT, Affine, Network, Node, Relu, free_name, reachable
from leo_core.search.attack import ascend, scatter

Array = NDArray[np.float64]

_SAMPLES = 1024
#: Points that a climb begins at, per output and sign, and its steps; points evaluated exactly.
_STARTS, _CLIMB, _EXACT = 4, 12, 3
#: The names of the joint network's output, and of what it is above a threshold.
DIFFERENCE, EXCESS = "difference", "excess"

#: (output, sign): sign·output.
Side: TypeAlias = tuple[int, float]
#: By ReLU of the second network: a ReLU of the first and, per unit, which of its units computes the same (−1: none).
Shared: TypeAlias = Mapping[str, tuple[str, NDArray[np.int64]]]


def side_by_side(first: Network, second: Network, shared: Shared = MappingProxyType({})) -> Network:
    """One network that computes first − second; the second takes what is shared from the first."""
    nodes: list[Node] = list(_renamed(first, "first", {}))
    taken = {f"second/{node.name}" for node in second.nodes}
    merged = {name: free_name(f"{name}.merged", taken) for name in (f"second/{relu}" for relu in shared)}
    for node in _renamed(second, "second", merged):
        known = shared.get(node.name.removeprefix("second/")) if isinstance(node, Relu) else None
        if known is None:
            nodes.append(node)
        else:
            assert isinstance(node, Relu)
            before = next(n for n in nodes if n.name == node.source)
            own = free_name(f"{node.source}.own", taken | set(merged.values()))
            nodes += _merged(node, before, known, first.size(known[0]), (own, merged[node.name]))
    size = first.output_size
    maps = (Select.identity(size), Diagonal(np.full(size, -1.0)))
    last = f"second/{second.output}"
    sources = (f"first/{first.output}", merged.get(last, last))
    nodes.append(Affine(DIFFERENCE, sources, maps, np.zeros(size)))
    return Network(first.input_size, reachable(nodes, DIFFERENCE), DIFFERENCE)


def _merged(
    relu: Relu, node: Node, known: tuple[str, NDArray[np.int64]], width: int, names: tuple[str, str]
) -> list[Node]:
    """In the place of a ReLU: one of the units that are not shared, and all its units again, some of the first's.

    ``names`` are those of the affine nodes that are new.
    """
    assert isinstance(node, Affine)
    name, origin = known
    own, taken = origin < 0, np.flatnonzero(origin >= 0)
    made: list[Node] = []
    sources, picks = [f"first/{name}"], [_pick(relu.size, taken, origin[taken], width)]
    if own.any():
        linears = tuple(linear.select_rows(np.flatnonzero(own)) for linear in node.maps)
        left = node.own.kept(own) if node.own is not None else None
        made.append(Affine(names[0], node.sources, linears, node.bias[own], node.origin, own=left))
        made.append(Relu(relu.name, names[0], relu.slope[own], relu.origin))
        sources.append(relu.name)
        picks.append(_pick(relu.size, np.flatnonzero(own), np.arange(int(own.sum())), int(own.sum())))
    return [*made, Affine(names[1], tuple(sources), tuple(picks), np.zeros(relu.size), relu.origin)]


def _pick(rows: int, places: NDArray[np.int64], columns: NDArray[np.int64], width: int) -> Sparse:
    """The map that puts the given columns at places among ``rows``."""
    count = np.bincount(places, minlength=rows)
    return Sparse(np.ones(len(places)), columns, np.concatenate([[0], np.cumsum(count)]), columns=width)


def _renamed(network: Network, prefix: str, instead: Mapping[str, str]) -> list[Node]:
    def name(old: str) -> str:
        return old if old == INPUT else f"{prefix}/{old}"

    def source(old: str) -> str:
        return instead.get(name(old), name(old))

    return [
        replace(node, name=name(node.name), sources=tuple(map(source, node.sources)))
        if isinstance(node, Affine)
        else replace(node, name=name(node.name), source=name(node.source))
        for node in network.nodes
    ]


def joint_region(joint: Network, box: Box, budget: Budget) -> Region:
    """Proved bounds for every affine node of a joint network; only intervals once the budget has ended."""
    region = Region.of(box)
    for node in joint.nodes:
        if not isinstance(node, Affine):
            continue
        region = region.tightened(node.name, *bound_affine(joint, node, region))
        if not budget.expired or node.name == DIFFERENCE:
            region = region.tightened(node.name, *backward_interval(joint, node.name, region))
    return region


def favoured_corners(joint: Network, region: Region) -> Array:
    """The corners at which the linear bounds on each output, and on its negative, are largest."""
    size = joint.output_size
    objectives = np.vstack([np.eye(size), -np.eye(size)])
    bound = bound_linearly(joint, DIFFERENCE, objectives, region, Memo())
    return np.where(bound.slope_at_input > 0, region.upper, region.lower)


def sides(joint: Network) -> list[Side]:
    """Every output, with either sign."""
    return [(unit, sign) for unit in range(joint.output_size) for sign in (1.0, -1.0)]


def exceeding(joint: Network, rows: list[Side], threshold: float) -> Network:
    """The joint network with sign·output − threshold, per row, for its output."""
    matrix = np.zeros((len(rows), joint.output_size))
    for row, (unit, sign) in enumerate(rows):
        matrix[row, unit] = sign
    excess = Affine(EXCESS, (DIFFERENCE,), (Dense(matrix),), np.full(len(rows), -threshold))
    return Network(joint.input_size, (*joint.nodes, excess), EXCESS)


class Seen:
    """The largest difference seen so far, exactly evaluated: ``largest`` at ``witness``."""

    def __init__(self, first: Network, second: Network, box: Box, listener: Listener) -> None:
        self._first, self._second, self._box, self._listener = first, second, box, listener
        self._joint = side_by_side(first, second)
        self.largest, self.witness = 0.0, box.center

    def look_around(self, seed: int, budget: Budget) -> None:
        """At the centre, corners and samples, and where a climb from the best of them leads."""
        points = scatter(self._box, _SAMPLES, seed)
        apart = self._apart(points)
        self._look_at(points, apart)
        asked = sides(self._joint)
        best = [np.argsort(-sign * apart[:, unit], kind="stable")[:_STARTS] for unit, sign in asked]
        rows = np.repeat(np.arange(len(asked)), [len(starts) for starts in best])
        # a climb ends at the first positive value: so it climbs the difference less a few times what is seen
        above = min(4.0 * float(np.abs(apart).max(initial=0.0)), sys.float_info.max) or 1.0
        excess = exceeding(self._joint, asked, above)
        starts = points[np.concatenate(best)]
        self.look_at(
            ascend(excess, EXCESS, rows, np.ones(len(rows)), starts, self._box, _CLIMB, expired=lambda: budget.expired)
        )

    def look_at(self, points: Array) -> None:
        """Evaluate points in floats, and the best of them exactly."""
        points = self._box.clip(np.atleast_2d(points))
        self._look_at(points, self._apart(points))

    def _apart(self, points: Array) -> Array:
        apart = self._first.evaluate(points) - self._second.evaluate(points)
        return np.asarray(np.nan_to_num(apart, nan=sys.float_info.max))  # where floats overflow, rationals will tell

    def _look_at(self, points: Array, apart: Array) -> None:
        largest = np.abs(apart).max(axis=1)
        for at in np.argsort(-largest, kind="stable")[:_EXACT]:
            if largest[at] > 0.5 * self.largest:
                self._look_closely(points[at])

    def _look_closely(self, x: Array) -> None:
        values = (net.evaluate_exact(x)[net.output].fractions() for net in (self._first, self._second))
        apart = max(0.0, float_down(max(abs(left - right) for left, right in zip(*values, strict=True))))
        if apart > self.largest:
            if apart > 1.5 * self.largest:
                self._listener(Note(f"they differ by at least {apart:.3g}", passing=True))
            self.largest, self.witness = apart, x
