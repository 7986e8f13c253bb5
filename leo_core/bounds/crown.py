"""Backward linear bounds with adaptive slopes (CROWN, Zhang et al. 2018; DeepPoly, Singh et al. 2019), quickly.

They are the safe dual bound of :mod:`leo_core.bounds.dual` for one choice of multipliers: y = Λ_p·chord where
Λ_p > 0 and y = Λ_p·below elsewhere, with chord = U/(U − L) and below the one of 0 and 1 that is nearer, for
a unit that crosses zero; 0 or 1 for a settled one. The corner terms then need no maximum: they are
max(Λ_p, 0)·lift with lift = −chord·L, rounded up, and 0 for settled units. That chord is rounded is one more error
of a few units in the last place of Λ_p·max|a|, and covered with the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from leo_core.arithmetic import round_up
from leo_core.bounds.dual import Summed, add, collect, one_rounding, outermost
from leo_core.bounds.region import Interval, Region
from leo_core.bounds.upto import SignedUnits, upto
from leo_core.network import INPUT, Affine, Network

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


@final
@dataclass(frozen=True, eq=False)
class LinearBound:
    """``upper[k]`` proves c_k·a ≤ upper[k] on its region; ``slope_at_input`` is the linear bound's slope."""

    upper: Array
    slope_at_input: Array


@final
@dataclass(frozen=True, eq=False)
class Lines:
    """The lines above and below each unit of one affine node, on one region or a stack of them.

    ``chord``, ``below``, ``lift``: shape (units,) or (regions, units). ``reach`` (units,) is the largest |a|.
    """

    chord: Array
    below: Array
    lift: Array
    reach: Array

    @staticmethod
    def of(network: Network, node: Affine, region: Region) -> Lines:
        """Between the node's bounds in the region."""
        low, high = region.intervals[node.name]
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            width = high - low
            bounded = np.isfinite(width)
            crossing = (low < 0) & (high > 0)
            settled = (low >= 0).astype(np.float64)
            chord = np.where(crossing, np.where(bounded, high / width, 0.0), settled)
            below = np.where(crossing, (high > -low).astype(np.float64), settled)
            # without a finite width the chord is taken as 0: the corner at U is then the largest
            # (rounded up: what a denormal loses would be multiplied by a large price)
            lift = np.where(crossing, np.where(bounded, round_up(-chord * low), high), 0.0)
        return Lines(chord, below, lift, region.reach(network, node.name))


class Memo:
    """What calls on the same intervals share: each node's lines, and what one rounding there can cost."""

    def __init__(self) -> None:
        self._lines: dict[str, Lines] = {}
        self._costs: dict[str, tuple[Array, float]] = {}

    def lines(self, network: Network, node: Affine, region: Region) -> Lines:
        if node.name not in self._lines:
            self._lines[node.name] = Lines.of(network, node, region)
        return self._lines[node.name]

    def cost(self, network: Network, node: Affine, region: Region) -> tuple[Array, float]:
        """(per unit of price, the sum of the largest |h| that enter the node)."""
        if node.name not in self._costs:
            weight, scale, _ = one_rounding(network, node, region)
            self._costs[node.name] = weight, scale
        return self._costs[node.name]


def bound_linearly(
    network: Network,
    target: str,
    objectives: Array,
    region: Region,
    memo: Memo,
    rows: Indices | None = None,
) -> LinearBound:
    """Bound objectives·a_target from above; arguments as in :func:`leo_core.bounds.dual.bound_above`.

    ``memo`` serves further calls on the same intervals of the nodes before the target.
    """
    count = len(objectives)
    collected: dict[str, Array] = {target: objectives}
    total, magnitude = np.zeros(count), np.zeros(count)
    terms, scale = network.input_size, 1.0
    with np.errstate(invalid="ignore", over="ignore"):
        for affine, relus in reversed(upto(network, target).steps):
            ahead, leaked = collect(relus, collected, count, affine.size)
            price = add(collected.pop(affine.name, None), leaked)
            weight, entering = memo.cost(network, affine, region)
            scale += entering
            if relus:
                at = memo.lines(network, affine, region)
                chord, below, lift = at.chord, at.below, at.lift
                if rows is not None:
                    chord, below, lift = chord[rows], below[rows], lift[rows]
                size = np.abs(ahead) if price is None else np.abs(ahead) + np.abs(price)
                magnitude += size @ (2.0 * at.reach + weight)
                scale += float(at.reach.sum())
                rising = np.maximum(ahead, 0.0)
                total += np.einsum("ku,ku->k", rising, lift) if lift.ndim == 2 else rising @ lift
                ahead -= rising
                ahead *= below
                rising *= chord
                ahead += rising
                price = ahead if price is None else price + ahead
            else:
                assert price is not None
                magnitude += np.abs(price) @ weight
            total += price @ affine.bias.astype(np.float64)
            terms += sum(linear.columns for linear in affine.maps) + 2 * affine.size
            affine.push(price, collected)
        slope = collected.get(INPUT)
        slope = np.zeros((count, network.input_size)) if slope is None else slope
        upper, _ = outermost(network, region, rows, slope, Summed(total, magnitude, terms, scale))
    return LinearBound(upper, slope)


def backward_interval(
    network: Network,
    target: str,
    region: Region,
    units: Indices | None = None,
    expired: Callable[[], bool] = lambda: False,
) -> Interval:
    """(lower, upper) of an affine node's units, or of some, on one region; infinite from where ``expired`` on."""
    units = np.arange(network.size(target)) if units is None else units
    memo = Memo()
    below, above = (
        backward_above(network, target, region, SignedUnits.alike(units, sign), memo, expired) for sign in (-1.0, 1.0)
    )
    return -below, above


def backward_above(
    network: Network,
    target: str,
    region: Region,
    asked: SignedUnits,
    memo: Memo,
    expired: Callable[[], bool] = lambda: False,
) -> Array:
    """Upper bounds on sign·a of some units of an affine node; infinite from where ``expired`` on."""
    way = upto(network, target)
    found = np.full(len(asked), np.inf)
    for chunk in way.chunks(len(asked)):
        if expired():
            break
        found[chunk] = bound_linearly(network, target, way.signed(asked[chunk]), region, memo).upper
    return found
