"""How far two networks can be apart on a box: a proved upper bound, and an input that shows a lower one.

The two are put side by side as one network whose output is their difference; bounds run backward through
it, so whatever linear parts both share cancels before it is bounded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import numpy as np
from numpy.typing import NDArray

from leo_core.arithmetic import float_down
from leo_core.bounds.crown import backward_interval
from leo_core.bounds.interval import bound_affine
from leo_core.bounds.region import Region
from leo_core.domain import Box
from leo_core.errors import NetworkError
from leo_core.execution.budget import Budget
from leo_core.linear import Diagonal, Select
from leo_core.network import INPUT, Affine, Network, Node

Array = NDArray[np.float64]

_SAMPLES = 2048
_DIFFERENCE = "difference"


@final
@dataclass(frozen=True, eq=False)
class Comparison:
    """max |A − B| over the box and all outputs lies in [lower, upper], both proved.

    ``witness`` is the input at which ``lower`` was evaluated exactly.
    """

    lower: float
    upper: float
    witness: Array

    @property
    def verdict(self) -> str:
        """In words, for people."""
        if self.upper == 0:
            return "equal over the reals"
        if self.lower == 0:
            return f"within {self.upper:.3g}; no difference was found"
        return f"within {self.upper:.3g}; they differ by at least {self.lower:.3g}"


def compare(first: Network, second: Network, box: Box, *, budget: Budget | None = None, seed: int = 0) -> Comparison:
    """Bound max |first − second| on a box.

    Raises :class:`NetworkError` when inputs or outputs do not match. When the budget ends, bounds not
    yet tightened stay as wide as intervals make them.
    """
    for what in ("input_size", "output_size"):
        sizes = getattr(first, what), getattr(second, what)
        if sizes[0] != sizes[1]:
            raise NetworkError(f"the networks cannot be compared: {what.replace('_', ' ')} {sizes[0]} and {sizes[1]}")
    lower, witness = _largest_seen(first, second, box, seed)
    if first == second:
        return Comparison(0.0, 0.0, box.center)
    joint = side_by_side(first, second)
    with np.errstate(all="ignore"):  # an overflow makes the bound infinite
        low, high = _bounds(joint, box, budget or Budget())
    return Comparison(lower, float(np.maximum(np.abs(low), np.abs(high)).max()), witness)


def side_by_side(first: Network, second: Network) -> Network:
    """One network that computes first − second."""
    nodes: list[Node] = [*_renamed(first, "first"), *_renamed(second, "second")]
    size = first.output_size
    maps = (Select.identity(size), Diagonal(np.full(size, -1.0)))
    sources = (f"first/{first.output}", f"second/{second.output}")
    return Network(first.input_size, (*nodes, Affine(_DIFFERENCE, sources, maps, np.zeros(size))), _DIFFERENCE)


def _renamed(network: Network, prefix: str) -> list[Node]:
    def name(old: str) -> str:
        return old if old == INPUT else f"{prefix}/{old}"

    return [
        replace(node, name=name(node.name), sources=tuple(map(name, node.sources)))
        if isinstance(node, Affine)
        else replace(node, name=name(node.name), source=name(node.source))
        for node in network.nodes
    ]


def _bounds(joint: Network, box: Box, budget: Budget) -> tuple[Array, Array]:
    region = Region.of(box)
    for node in joint.nodes:
        if not isinstance(node, Affine):
            continue
        region = region.tightened(node.name, *bound_affine(joint, node, region))
        if not budget.expired or node.name == _DIFFERENCE:
            region = region.tightened(node.name, *backward_interval(joint, node.name, region))
    return region.intervals[_DIFFERENCE]


def _largest_seen(first: Network, second: Network, box: Box, seed: int) -> tuple[float, Array]:
    points = np.vstack([box.center[None], box.corners(64), box.sample(np.random.default_rng(seed), _SAMPLES)])
    with np.errstate(over="ignore", invalid="ignore"):
        apart = np.nan_to_num(np.abs(first.evaluate(points) - second.evaluate(points)).max(axis=1))
    best, witness = 0.0, box.center
    for at in np.argsort(apart)[-3:]:
        x = points[at]
        pairs = zip(
            first.evaluate_exact(x)[first.output].fractions(),
            second.evaluate_exact(x)[second.output].fractions(),
            strict=True,
        )
        value = max(0.0, float_down(max(abs(left - right) for left, right in pairs)))
        if value > best:
            best, witness = value, x
    return best, witness
