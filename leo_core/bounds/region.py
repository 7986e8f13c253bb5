"""What is proved of a set of inputs: bounds on them, and an interval for every affine node on it.

A split on a ReLU's phase is a region too: the pre-activation's interval is cut at zero. A region
whose interval is reversed anywhere is empty. Many regions are bounded at once as a *stack*: the same
class, its arrays with one row per region.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from leo_core.domain import Box
from leo_core.network import INPUT, Affine, Network

Array = NDArray[np.float64]
Interval = tuple[Array, Array]


@final
@dataclass(frozen=True, eq=False)
class Region:
    """``intervals[name]`` holds (lower, upper), proved for every input of the region, or is absent.

    ``lower`` and ``upper`` bound the inputs: shape (inputs,), or (regions, inputs) for a stack; the
    intervals' arrays likewise.
    """

    lower: Array
    upper: Array
    intervals: Mapping[str, Interval] = field(default_factory=dict)

    @staticmethod
    def of(box: Box) -> Region:
        """A box of which nothing more is known."""
        return Region(box.lower, box.upper)

    def tightened(self, name: str, lower: Array, upper: Array) -> Region:
        """This region with the better of the old and the given bounds of a node."""
        if name in self.intervals:
            old_lower, old_upper = self.intervals[name]
            lower, upper = np.fmax(lower, old_lower), np.fmin(upper, old_upper)
        return Region(self.lower, self.upper, {**self.intervals, name: (lower, upper)})

    def split(self, name: str, unit: int, *, active: bool) -> Region:
        """The part of one region in which a unit's pre-activation is ≥ 0 (active) or ≤ 0."""
        lower, upper = (array.copy() for array in self.intervals[name])
        if active:
            lower[unit] = max(lower[unit], 0.0)
        else:
            upper[unit] = min(upper[unit], 0.0)
        return Region(self.lower, self.upper, {**self.intervals, name: (lower, upper)})

    def take(self, rows: NDArray[Any]) -> Region:
        """The given regions of a stack, or as many copies of a single one."""

        def pick(array: Array) -> Array:
            return array[rows] if array.ndim == 2 else np.broadcast_to(array, (len(rows), len(array)))

        intervals = {name: (pick(low), pick(high)) for name, (low, high) in self.intervals.items()}
        return Region(pick(self.lower), pick(self.upper), intervals)

    def one(self, row: int) -> Region:
        """A single region of a stack."""
        intervals = {name: (low[row], high[row]) for name, (low, high) in self.intervals.items()}
        return Region(self.lower[row], self.upper[row], intervals)

    @staticmethod
    def joined(stacks: list[Region]) -> Region:
        """Stacks with intervals for the same nodes, one after the other; single regions count as stacks of one."""
        intervals = {
            name: (np.vstack([s.intervals[name][0] for s in stacks]), np.vstack([s.intervals[name][1] for s in stacks]))
            for name in stacks[0].intervals
        }
        return Region(np.vstack([s.lower for s in stacks]), np.vstack([s.upper for s in stacks]), intervals)

    @property
    def empty(self) -> bool:
        """Whether an interval of a single region is reversed, which proves that no input is in it."""
        return any(bool((lower > upper).any()) for lower, upper in self.intervals.values())

    def value(self, network: Network, name: str) -> Interval:
        """Proved bounds on the value of the input, an affine node, or a ReLU node."""
        if name == INPUT:
            return self.lower, self.upper
        node = network[name]
        if isinstance(node, Affine):
            return self.intervals[name]
        lower, upper = self.intervals[node.source]
        return leak(lower, node.slope, upwards=False), leak(upper, node.slope, upwards=True)

    def reach(self, network: Network, name: str) -> Array:
        """The largest absolute value of each unit of a node, over all regions of a stack: shape (units,)."""
        lower, upper = self.value(network, name)
        reach = np.maximum(np.abs(lower), np.abs(upper))
        return np.asarray(reach.max(axis=0, initial=0.0)) if reach.ndim == 2 else reach


def leak(z: Array, slope: Array, *, upwards: bool) -> Array:
    """relu(z), ``slope`` below zero, rounded to one side; z may be infinite; NaN counts as that."""
    z = np.where(np.isnan(z), np.inf if upwards else -np.inf, z)
    if not slope.any():
        return np.maximum(z, 0.0)
    with np.errstate(invalid="ignore"):
        below = np.nan_to_num(slope * z, nan=0.0, posinf=np.inf, neginf=-np.inf)
    below = np.nextafter(below, np.inf if upwards else -np.inf)
    return np.where(z >= 0, z, np.where(slope == 0, 0.0, np.minimum(below, 0.0)))
