"""The points at which two networks are far apart: samples, what climbs from the best of them, and what is exact."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from leo_core.arithmetic import float_down
from leo_core.bounds.interval import bound_network
from leo_core.bounds.upto import upto
from leo_core.compare.joint import EXCESS, exceeding, side_by_side, sides
from leo_core.domain import Box
from leo_core.execution.budget import Budget
from leo_core.execution.events import Listener, Note
from leo_core.network import Network
from leo_core.search.attack import Climb, ascend, scatter
from leo_core.within import Within

Array = NDArray[np.float64]

#: Points scattered: so many in any case, and so many where that takes no longer than one batch; multiplications of one.
_SAMPLES, _PRODUCTS = (1024, 16_384), 500_000_000
#: Climbs: per round, points that begin one for each output and sign, and how far they go.
_ROUNDS = ((8, Climb(12)), (16, Climb(24, 0.25)), (16, Climb(24, 0.05)), (16, Climb(24)))
#: Points evaluated closely, of each batch; and the multiplications up to which that is done over the rationals.
_CLOSELY, _EXACT = 3, 2_000_000


class Seen:
    """The largest difference seen so far: at ``witness``, at least ``largest``.

    ``exceeded`` is the output at which the witness shows that the networks are not within what is asked, None while
    none is known; from then on nothing else is looked at.
    """

    def __init__(
        self, first: Network, second: Network, box: Box, listener: Listener, within: Within | None = None
    ) -> None:
        self._pair, self._box, self._listener, self._within = (first, second), box, listener, within
        self._joint = side_by_side(first, second)
        self.largest, self.witness = 0.0, box.center
        self.exceeded: int | None = None
        self._points, self._values = np.zeros((0, box.size)), np.zeros((0, first.output_size))
        self._limits = np.zeros(first.output_size) if within is None else within.provable

    def look_around(self, seed: int, budget: Budget) -> None:
        """At the centre, corners and samples, and where a first climb from the best of them leads."""
        few = max(1, _PRODUCTS // max(1, self._joint.operations))
        points = scatter(self._box, min(_SAMPLES[1], max(_SAMPLES[0], few)), seed)
        for start in range(0, len(points), few):
            part = points[start : start + few]
            self._keep(part, self._apart(part))
            if budget.expired:
                break
        self._look_at(self._points, self._values)
        self._climb_on(_ROUNDS[:1], budget)

    def climb_on(self, budget: Budget) -> None:
        """Climb from more of the points seen, by shorter steps too."""
        self._climb_on(_ROUNDS[1:], budget)

    def _climb_on(self, rounds: Sequence[tuple[int, Climb]], budget: Budget) -> None:
        for count, climb in rounds:
            if budget.expired or self.exceeded is not None:
                return
            climbed = self._climb(count, climb, budget)
            apart = self._apart(climbed)
            self._keep(climbed, apart)
            self._look_at(climbed, apart)

    def _keep(self, points: Array, apart: Array) -> None:
        self._points, self._values = np.vstack([self._points, points]), np.vstack([self._values, apart])

    def look_at(self, points: Array) -> None:
        """Evaluate points in floats, and the best of them closely."""
        points = self._box.clip(np.atleast_2d(points))
        self._look_at(points, self._apart(points))

    def _climb(self, count: int, climb: Climb, budget: Budget) -> Array:
        """From the points at which each output is furthest apart, either way, to where it is further."""
        points, apart = self._points, self._values
        asked = [side for side in sides(self._joint) if self._limits[side[0]] < np.inf]
        best = [np.argsort(-sign * apart[:, unit], kind="stable")[:count] for unit, sign in asked]
        rows = np.repeat(np.arange(len(asked)), [len(starts) for starts in best])
        # a climb ends at the first positive value: so it climbs the difference less a few times what is seen
        above = min(4.0 * float(np.abs(apart).max(initial=0.0)), sys.float_info.max) or 1.0
        excess = exceeding(self._joint, asked, np.full(len(asked), above))
        way, few = upto(excess, EXCESS), max(1, _PRODUCTS // max(1, 3 * self._joint.operations))
        starts, found = points[np.concatenate(best)], []
        for first in range(0, len(rows), few):
            part = slice(first, first + few)
            if budget.expired:
                break
            objectives = way.objectives(rows[part])
            found.append(ascend(way, objectives, starts[part], self._box, climb, lambda: budget.expired))
        return np.vstack(found) if found else points[:0]

    def _apart(self, points: Array) -> Array:
        first, second = (network.evaluate(points) for network in self._pair)
        return np.asarray(np.nan_to_num(first - second, nan=sys.float_info.max))  # rationals will tell

    def _look_at(self, points: Array, apart: Array) -> None:
        if not len(points):
            return
        far = np.abs(apart)
        largest, beyond = far.max(axis=1), (far - self._limits).max(axis=1)
        best = [*np.argsort(-largest, kind="stable")[:_CLOSELY], *np.argsort(-beyond, kind="stable")[:_CLOSELY]]
        scale = 1e-9 * largest.max(initial=0.0)
        for at in dict.fromkeys(best):
            likely = self._within is not None and beyond[at] > -scale
            if self.exceeded is None and (likely or largest[at] > max(self.largest, 0.5 * largest[best[0]])):
                self._look_closely(points[at])

    def _look_closely(self, x: Array) -> None:
        apart = self._differences(x)
        largest = max(0.0, float_down(max(apart)))
        output = None if self._within is None else self._within.exceeded(apart)
        if output is not None:
            self.exceeded, self.largest, self.witness = output, largest, x
        elif largest > self.largest:
            if largest > 1.5 * self.largest:
                self._listener(Note(f"they differ by at least {largest:.3g}", passing=True))
            self.largest, self.witness = largest, x

    def _differences(self, x: Array) -> list[Fraction]:
        """Per output, what |first − second| is at a point at least: exactly that, unless that took long."""
        if max(network.operations for network in self._pair) <= _EXACT:
            first, second = (network.evaluate_exact(x)[network.output].fractions() for network in self._pair)
            return [abs(left - right) for left, right in zip(first, second, strict=True)]
        ends = []
        for network in self._pair:
            ends.append(bound_network(network, Box(x, x)).value(network, network.output))
        (low, high), (other_low, other_high) = ends
        most = np.fmax(low - other_high, other_low - high)
        return [Fraction(float(max(0.0, np.nextafter(value, -np.inf)))) if np.isfinite(value) else Fraction(0)
                for value in most]  # fmt: skip


def values_at(network: Network, x: Array) -> Array:
    """The network's value at a point, to the nearest float where that does not take long."""
    if network.operations <= _EXACT:
        values = network.evaluate_exact(x)[network.output].fractions()
        return np.array([_nearest(value) for value in values])
    return np.asarray(network.evaluate(x), dtype=np.float64)


def _nearest(value: Fraction) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
