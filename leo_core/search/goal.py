"""One claim, 'sign·a_unit is never positive on a region', and what ends it: leaves that close it, or a witness."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from leo_core.bounds.dual import DualBound, Multipliers, Tilts, bound_above, bound_above_exact, given
from leo_core.bounds.region import Region
from leo_core.bounds.upto import upto
from leo_core.checker.trees import EMPTY, EXACT, PLAIN, Tilt, Tree
from leo_core.domain import Box
from leo_core.milp.relaxation import RelaxedAnswer
from leo_core.network import Network
from leo_core.search.attack import Climb, ascend
from leo_core.search.evidence import uncut
from leo_core.search.witness import sign_at

Array = NDArray[np.float64]

#: Bounds this close to zero, relative to the unit's own range, are tried in exact arithmetic.
NEARLY_ZERO = 1e-6
#: Bits that exact attempts round multipliers to: LP duals are often simple numbers, slightly off.
_SNAP_BITS = (52, 20, 8, 3)
#: Steps of ascent from a point that a relaxation hands back.
_CLIMB = Climb(4)


class Goal:
    """The claim; ``witness`` is an input that refutes it, once one is found."""

    def __init__(self, network: Network, target: str, region: Region, unit: int, sign: int) -> None:
        self.network, self.target, self.unit, self.sign = network, target, unit, sign
        way = upto(network, target)
        known = {name: region.intervals[name] for name in way.positions if name in region.intervals}
        self.region = Region(region.lower, region.upper, known)
        #: Affine nodes that a ReLU reads on the way to the target, and every node's place on that way.
        self.branching, self.position = way.branching, way.positions
        self.objective = way.objectives([unit], sign)
        self.witness: Array | None = None
        lower, upper = region.intervals[target]
        self._reach = max(abs(float(lower[unit])), abs(float(upper[unit])))
        self._box = Box(region.lower, region.upper)

    def empty(self) -> Tree:
        """A leaf whose bounds show that its part of the region is empty."""
        return uncut([(self.unit, self.sign)], {}, how=EMPTY)

    def leaf(
        self, region: Region, multipliers: Multipliers, tilts: Tilts, upper: float, rounding: float
    ) -> Tree | None:
        """A leaf, if these multipliers (units,), whose bound is ``upper``, close a part of the region."""
        if upper <= 0:
            return self._closed(multipliers, tilts, PLAIN)
        exact = upto(self.network, self.target).exact
        if not exact or not upper - 2 * rounding <= NEARLY_ZERO * self._reach:
            return None
        for bits in _SNAP_BITS:  # rounding may be all that is missing: simple multipliers, in rational arithmetic
            y = {name: _snap(values, bits) for name, values in multipliers.items()}
            t = {name: Tilt(at.units, _snap(at.share, bits), _snap(at.slope, bits)) for name, at in tilts.items()}
            if bound_above_exact(self.network, self.target, self.objective[0], region, y, t) <= 0:
                return self._closed(y, t, EXACT)
        return None

    def leaf_by_lp(self, answer: RelaxedAnswer, region: Region) -> tuple[Tree | None, DualBound | None]:
        """(a leaf if the duals of an LP close a part of the region, the safe bound that they give)."""
        if answer.multipliers is None:
            return None, None
        objective = 0.0 * self.objective if answer.infeasible else self.objective
        y, tilts = answer.multipliers, answer.tilts
        bound = bound_above(self.network, self.target, objective, region, given(y, tilts))
        upper = float(bound.upper[0])
        used = {name: values[0] for name, values in bound.multipliers.items()}
        if answer.infeasible:
            return (self._closed(used, tilts, EMPTY) if upper < 0 else None), None
        if upper <= 0:
            return self._closed(used, tilts, PLAIN), bound
        return self.leaf(region, y, tilts, upper, float(bound.rounding[0])), bound

    def look_at(self, points: Array) -> None:
        """Climb from points; the best may be the witness."""
        points = np.clip(points, self._box.lower, self._box.upper)
        objectives = np.repeat(self.objective, len(points), axis=0)
        reached = ascend(upto(self.network, self.target), objectives, points, self._box, _CLIMB)
        values = self.sign * self.network.evaluate_nodes(reached)[self.target][:, self.unit]
        best = int(np.argmax(values))
        likely = values[best] > -NEARLY_ZERO * self._reach
        if likely and self.sign * sign_at(self.network, self.target, self.unit, reached[best]) > 0:
            self.witness = reached[best]

    def _closed(self, multipliers: Multipliers, tilts: Tilts, how: int) -> Tree:
        return uncut([(self.unit, self.sign)], {name: y[None] for name, y in multipliers.items()}, tilts, how)


def crossing(region: Region, name: str) -> NDArray[np.bool_]:
    """Which units of a node a region leaves open."""
    low, high = region.intervals[name]
    return (low < 0) & (high > 0)


def _snap(values: Array, bits: int) -> Array:
    mantissa, exponent = np.frexp(values)
    snapped = np.ldexp(np.round(np.ldexp(mantissa, bits)), exponent - bits)
    return np.where(np.isinf(snapped), values, snapped)
