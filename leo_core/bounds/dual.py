"""The safe dual bound: for *any* multipliers, a proved upper bound on a linear form of a node.

Write every affine node as the equality a = Σ A h + b and price it with ν. Let p = max(a, 0), so that a
ReLU of slope s is s·a + (1 − s)·p. With Λ_a and Λ_p the coefficients that a and p collect from the nodes
after them, put ν = Λ_a + y for a free y. Then (weak duality, DESIGN §5; Neumaier and Shcherbina 2004)

    max c·a_target ≤ Σ ν·b + Σ_units max over u in {L, 0, U} ∩ [L, U] of (Λ_p max(u, 0) − y u)
                     + Σ_inputs max(λ lo, λ hi).

The maximum over {L, 0, U} is exact, since the term is linear on both sides of 0. Backward linear bounds
(:mod:`leo_core.bounds.crown`) are one choice of y, the duals of the LP relaxation the best one; both are
bounded here, by the same few lines, so a wrong y costs tightness and never truth.

A *tilt* prices the values h that enter a unit instead of their sum a = w·h + b. For any share s ≥ 0 of Λ_p and
any vector t, s·max(a, 0) = (s·max(a, 0) − t·h) + t·h, and the bracket is convex in h, so over the box of h it is
at most

    max(Σ_j max((s w − t)_j h_j) + s b,  Σ_j max(−t_j h_j)),      each h_j at one of its two ends.

This reaches the hull of a unit over the box that it reads, which no line over [L, U] does (Anderson et al. 2020,
Tjandraatmadja et al. 2020); what is left, Λ_p − s, is priced by y as before.

Rounding: the float64 Λ are sums of products; all that their error can do is bounded through |A|·max|h|, once
per node (`one_rounding`), and added at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from leo_core.arithmetic import TINY, ExactVector, gamma, round_up
from leo_core.bounds.interval import rounded_off
from leo_core.bounds.region import Region
from leo_core.bounds.upto import upto
from leo_core.checker.trees import Tilt
from leo_core.network import INPUT, Affine, Network, Relu

Array = NDArray[np.float64]

#: Multipliers y by affine node, each of shape (objectives, units) or (units,).
Multipliers: TypeAlias = Mapping[str, Array]
#: From a node's name, Λ_p (objectives × units) and its interval, the y to use.
Choice: TypeAlias = Callable[[str, Array, Array, Array], Array]

Tilts: TypeAlias = Mapping[str, Tilt]
NO_TILTS: Tilts = {}


@final
@dataclass(frozen=True, eq=False)
class Policy:
    """How units are priced, going backwards: the choice of y, and tilts that are used for every objective."""

    choice: Choice
    tilts: Tilts = field(default_factory=dict)


@final
@dataclass(frozen=True, eq=False)
class Summed:
    """What a sweep has added up, per objective: the ``total``, and what its rounding is bounded by.

    ``magnitude`` is the sum of the absolute values of all ``terms`` products, ``scale`` of all values they are of.
    """

    total: Array
    magnitude: Array
    terms: int
    scale: float


@final
@dataclass(frozen=True, eq=False)
class DualBound:
    """``upper[k]`` proves c_k·a ≤ upper[k] on the region.

    ``rounding[k]`` is the part of it that only covers rounding; ``slope_at_input`` is λ, the linear part;
    ``prices`` is Λ_p and ``multipliers`` y, by node, each of shape (objectives, units).
    """

    upper: Array
    rounding: Array
    multipliers: dict[str, Array]
    prices: dict[str, Array]
    slope_at_input: Array


def given(multipliers: Multipliers, tilts: Tilts = NO_TILTS) -> Policy:
    """Use known y; where it is NaN or absent, the y that makes a settled unit's term exact (else 0)."""

    def choose(name: str, ahead: Array, lower: Array, _upper: Array) -> Array:
        natural = np.where(lower >= 0, ahead, 0.0)
        y = multipliers.get(name)
        return natural if y is None else np.where(np.isnan(y), natural, y)

    return Policy(choose, tilts)


def bound_above(
    network: Network,
    target: str,
    objectives: Array,
    region: Region,
    policy: Policy,
    rows: NDArray[np.int64] | None = None,
) -> DualBound:
    """Bound objectives·a_target from above on a region, or each on its own region of a stack.

    Parameters
    ----------
    target:
        An affine node. Every affine node before it that a ReLU reads needs an interval in ``region``.
    objectives:
        Shape (objectives, units of the target), float64.
    rows:
        For a stack: the region of each objective.
    """
    objectives = np.asarray(objectives, dtype=np.float64)
    count = objectives.shape[0]
    collected: dict[str, Array] = {target: objectives}
    used: dict[str, Array] = {}
    prices: dict[str, Array] = {}
    total = np.zeros(count)
    magnitude = np.zeros(count)
    terms = network.input_size
    scale = 1.0

    def own(array: Array) -> Array:
        return array if rows is None else array[rows]

    with np.errstate(invalid="ignore", over="ignore"):
        for affine, relus in reversed(upto(network, target).steps):
            direct = collected.pop(affine.name, None)
            ahead, leaked = collect(relus, collected, count, affine.size)
            node_price = before = add(direct, leaked)
            if relus:
                low, high = (own(side) for side in region.intervals[affine.name])
                prices[affine.name] = ahead
                if affine.name in policy.tilts:
                    tilt = _Tilted(network, affine, policy.tilts[affine.name], region, rows)
                    ahead = tilt.rest(ahead)
                    total, magnitude = total + tilt.total, magnitude + tilt.magnitude
                    for source, flow in zip(affine.sources, tilt.flows, strict=True):
                        collected[source] = flow + collected.get(source, np.zeros((count, 1)))
                    terms += 2 * tilt.columns + affine.size
                y = policy.choice(affine.name, ahead, low, high)
                used[affine.name] = y
                total = total + _corner_terms(ahead, y, low, high).sum(axis=1)
                reach = region.reach(network, affine.name)
                size = np.abs(ahead) + np.abs(y)
                if before is not None:
                    size += np.abs(before)
                magnitude = magnitude + size @ reach
                scale += float(reach.sum())
                node_price = y if before is None else before + y
            assert node_price is not None
            total = total + node_price @ affine.bias.astype(np.float64)
            weight, reach_sum, columns = one_rounding(network, affine, region)
            magnitude = magnitude + np.abs(node_price) @ weight
            terms += columns + 2 * affine.size
            scale += reach_sum
            affine.push(node_price, collected)
        slope = collected.get(INPUT)
        slope = np.zeros((count, network.input_size)) if slope is None else slope
        upper, rounding = outermost(network, region, rows, slope, Summed(total, magnitude, terms, scale))
    return DualBound(upper, rounding, used, prices, slope)


def outermost(
    network: Network, region: Region, rows: NDArray[np.int64] | None, slope: Array, summed: Summed
) -> tuple[Array, Array]:
    """(bounds, what of them only covers rounding), from the slope at the input and what the nodes have added up."""
    lower, upper = (side if rows is None else side[rows] for side in (region.lower, region.upper))
    reach = region.reach(network, INPUT)
    total = summed.total + np.maximum(slope * lower, slope * upper).sum(axis=1)
    magnitude, terms = summed.magnitude + np.abs(slope) @ reach, summed.terms
    rounding = magnitude * gamma(terms + 24) + terms * TINY * (summed.scale + float(reach.sum()) + magnitude)
    bound = round_up(total + rounding)
    return np.where(np.isnan(bound), np.inf, bound), rounding


class _Tilted:
    """What a tilt adds to a bound: its terms, what their rounding can cost, and the flow t to each source."""

    def __init__(
        self, network: Network, affine: Affine, tilt: Tilt, region: Region, rows: NDArray[np.int64] | None
    ) -> None:
        used = tilt.share > 0
        self._units, self._share = tilt.units[used], tilt.share[used]
        share, slope = self._share[:, None], tilt.slope[used]
        weights = one_rounding(network, affine, region)[0] if affine.own is not None else np.zeros(affine.size)
        on = share * affine.bias[self._units, None].astype(np.float64)
        off = np.zeros((1, 1))
        cost = np.abs(on[:, 0]) + self._share * weights[self._units]
        self.flows = []
        self.columns = 0
        for source, linear in affine.reads:
            t = slope[:, self.columns : self.columns + linear.columns]
            self.columns += linear.columns
            weight = linear.rows_at(self._units)
            lower, upper = (side if rows is None else side[rows] for side in region.value(network, source))
            on = on + _largest(share * weight - t, lower, upper)
            off = off + _largest(-t, lower, upper)
            cost = cost + (share * np.abs(weight) + 2 * np.abs(t)) @ region.reach(network, source)
            self.flows.append(t.sum(axis=0))
        self.total = np.maximum(on, off).sum(axis=0)
        self.magnitude = 2.0 * cost.sum()

    def rest(self, ahead: Array) -> Array:
        """Λ_p without the shares."""
        rest = ahead.copy()
        rest[:, self._units] -= self._share
        return rest


def _largest(coefficients: Array, lower: Array, upper: Array) -> Array:
    """max Σ_j c_j h_j over each box, shape (coefficients, boxes or 1)."""
    lower, upper = np.atleast_2d(lower), np.atleast_2d(upper)
    return np.asarray(np.maximum(coefficients, 0.0) @ upper.T + np.minimum(coefficients, 0.0) @ lower.T)


def bound_above_exact(
    network: Network, target: str, objective: Array, region: Region, multipliers: Multipliers, tilts: Tilts = NO_TILTS
) -> Fraction:
    """The same bound for one objective (units,) with no rounding at all, for given y (units,) per node."""
    collected: dict[str, list[Fraction]] = {target: [Fraction(float(c)) for c in objective]}
    total = Fraction(0)
    zero = Fraction(0)
    for affine, relus in reversed(upto(network, target).steps):
        price = list(collected.pop(affine.name, [zero] * affine.size))
        if relus:
            ahead = [zero] * affine.size
            for relu in relus:
                got = collected.pop(relu.name, None)
                if got is None:
                    continue
                for i, coefficient in enumerate(got):
                    slope = Fraction(float(relu.slope[i]))
                    ahead[i] += (1 - slope) * coefficient
                    price[i] += slope * coefficient
            low, high = region.intervals[affine.name]
            if affine.name in tilts:
                total += _tilt_exactly(network, affine, tilts[affine.name], region, ahead, collected)
            known = multipliers.get(affine.name)
            for i in range(affine.size):
                if known is not None and not np.isnan(known[i]):
                    y = Fraction(float(known[i]))
                else:
                    y = ahead[i] if low[i] >= 0 else zero
                price[i] += y
                ends = [Fraction(float(low[i])), Fraction(float(high[i]))]
                values = [ahead[i] * max(u, zero) - y * u for u in ends]
                if low[i] < 0 < high[i]:
                    values.append(zero)
                total += max(values)
        for i, coefficient in enumerate(price):
            if coefficient:
                total += coefficient * Fraction(float(affine.bias[i]))
        for source, linear in affine.reads:
            flow = linear.apply_transposed_exact(ExactVector.of(np.array(price, dtype=object))).fractions()
            if source in collected:  # a tilt's, or another reader's
                flow = [left + right for left, right in zip(collected[source], flow, strict=True)]
            collected[source] = flow
    for j, coefficient in enumerate(collected.get(INPUT, [])):
        if coefficient:
            end = region.upper[j] if coefficient > 0 else region.lower[j]
            total += coefficient * Fraction(float(end))
    return total


def _tilt_exactly(
    network: Network,
    affine: Affine,
    tilt: Tilt,
    region: Region,
    ahead: list[Fraction],
    collected: dict[str, list[Fraction]],
) -> Fraction:
    """The terms of a tilt; takes its shares from ``ahead`` and adds its flow to ``collected``."""
    total = zero = Fraction(0)
    for k, unit in enumerate(tilt.units.tolist()):
        share = Fraction(float(tilt.share[k]))
        if share <= 0:
            continue
        ahead[unit] -= share
        on, off, first = share * Fraction(float(affine.bias[unit])), zero, 0
        for source, linear in affine.reads:
            ends = [[Fraction(float(v)) for v in side] for side in region.value(network, source)]
            flow = collected.setdefault(source, [zero] * linear.columns)
            for j, weight in enumerate(linear.rows_at(np.array([unit]))[0]):
                t = Fraction(float(tilt.slope[k, first + j]))
                c = share * Fraction(float(weight)) - t
                on += c * (ends[1][j] if c > 0 else ends[0][j])
                off -= t * (ends[0][j] if t > 0 else ends[1][j])
                flow[j] += t
            first += linear.columns
        total += max(on, off)
    return total


def collect(relus: tuple[Relu, ...], collected: dict[str, Array], count: int, size: int) -> tuple[Array, Array | None]:
    """Λ_p and the part of Λ_a that leaky slopes pass on (None: nothing)."""
    ahead: Array | None = None
    leaked: Array | None = None
    for relu in relus:
        flow = collected.pop(relu.name, None)
        if flow is None:
            continue
        if relu.slope.any():
            leaked = add(leaked, relu.slope * flow)
            flow = (1.0 - relu.slope) * flow
        ahead = add(ahead, flow)
    return np.zeros((count, size)) if ahead is None else ahead, leaked


def add(left: Array | None, right: Array | None) -> Array | None:
    """The sum of two flows, None being none."""
    if left is None or right is None:
        return right if left is None else left
    return left + right


def _corner_terms(ahead: Array, y: Array, low: Array, high: Array) -> Array:
    """The largest Λ_p max(u, 0) − y u over u in {L, 0, U} ∩ [L, U], per unit."""
    at_low = ahead * np.maximum(low, 0.0) - y * low
    at_high = ahead * np.maximum(high, 0.0) - y * high
    corner = np.maximum(at_low, at_high)
    return np.where((low < 0) & (high > 0), np.maximum(corner, 0.0), corner)


def one_rounding(network: Network, affine: Affine, region: Region) -> tuple[Array, float, int]:
    """(|A|·max|h| + |b| per unit, the sum of max|h|, their count): what one rounding can cost, per unit of price.

    That the layer's own numbers are rounded in the node is covered with it.
    """
    weight = np.abs(affine.bias.astype(np.float64))
    reach_sum, columns = 0.0, 0
    for source, linear in affine.reads:
        reach = region.reach(network, source)
        weight = weight + linear.absolute().apply(reach)
        reach_sum += float(reach.sum())
        columns += linear.columns
    weight = weight + rounded_off(affine, weight) / gamma(0)  # it is multiplied by at least that
    # |A|·|h| may underflow where a price makes it large again
    return weight + (columns + 4) * TINY, reach_sum, columns
