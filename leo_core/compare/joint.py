"""Two networks side by side as one, whose output is their difference.

Bounds run backward through the joint network, so whatever linear parts both share cancels before it is bounded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from leo_core.bounds.crown import Memo, backward_interval, bound_linearly
from leo_core.bounds.interval import bound_affine
from leo_core.bounds.region import Region
from leo_core.bounds.upto import upto
from leo_core.domain import Box
from leo_core.execution.budget import Budget
from leo_core.linear import Dense, Diagonal, Select, Sparse
from leo_core.network import INPUT, Affine, Network, Node, Relu, reachable

Array = NDArray[np.float64]

#: Multiplications of bounds on the outputs that are made however little time is left: a second or two.
_AFFORDED = 2_000_000_000
#: The names of the joint network's output, and of what it is above a threshold.
DIFFERENCE, EXCESS = "difference", "excess"

#: (output, sign): sign·output.
Side: TypeAlias = tuple[int, float]
#: By ReLU of the second network: a ReLU of the first and, per unit, which of its units computes the same (−1: none).
Shared: TypeAlias = Mapping[str, tuple[str, NDArray[np.int64]]]


@final
@dataclass(frozen=True, eq=False)
class Arrangement:
    """Which network comes first (the second one where ``swapped``), and what the other takes from it."""

    swapped: bool = False
    shared: Shared = field(default_factory=dict)

    def joint(self, first: Network, second: Network) -> Network:
        """Both side by side."""
        old, new = (second, first) if self.swapped else (first, second)
        return side_by_side(old, new, self.shared)

    def side(self, side: Side) -> Side:
        """A side of first − second as one of the joint network, or the other way."""
        return (side[0], -side[1]) if self.swapped else side


def side_by_side(first: Network, second: Network, shared: Shared = MappingProxyType({})) -> Network:
    """One network that computes first − second; the second takes what is shared from the first."""
    nodes: list[Node] = list(_renamed(first, "first", {}))
    merged = {f"second/{relu}": f"merged/{relu}" for relu in shared}
    for node in _renamed(second, "second", merged):
        known = shared.get(node.name.removeprefix("second/")) if isinstance(node, Relu) else None
        if known is None:
            nodes.append(node)
        else:
            assert isinstance(node, Relu)
            before = next(n for n in nodes if n.name == node.source)
            own = node.name.replace("second/", "own/", 1)
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
        if node.name == DIFFERENCE and upto(joint, node.name).products * node.size <= _AFFORDED:
            region = region.tightened(node.name, *backward_interval(joint, node.name, region))
        elif not budget.expired:
            found = backward_interval(joint, node.name, region, expired=lambda: budget.expired)
            region = region.tightened(node.name, *found)
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


def exceeding(joint: Network, rows: Sequence[Side], thresholds: Array) -> Network:
    """The joint network with sign·output − threshold, per row, for its output."""
    matrix = np.zeros((len(rows), joint.output_size))
    for row, (unit, sign) in enumerate(rows):
        matrix[row, unit] = sign
    excess = Affine(EXCESS, (DIFFERENCE,), (Dense(matrix),), -np.broadcast_to(thresholds, len(rows)))
    return Network(joint.input_size, (*joint.nodes, excess), EXCESS)
