"""Bounds: intervals, and weak duality, which makes a bound of any multipliers.

Price every affine node a = W h + b with ν, going backwards from c·a. With Λ what a unit's ReLU p = max(a, 0) collects
from behind and ν = y for any y (plus what a collects itself),

    c·a ≤ Σ ν·b + Σ_units max over u in {L, 0, U} of (Λ max(u, 0) − y u) + Σ_inputs max(λ lo, λ hi).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from .errors import Refused
from .maps import Map
from .maxima import within
from .networks import Net, Node
from .numbers import TINY, gamma, like, put, times, upwards

Array = Any
Region = dict[str, tuple[Array, Array]]  # by affine node and "input": bounds, (regions × units)


@dataclass(frozen=True, eq=False)
class Bounded:
    """A network, and bounds of what is in it."""

    net: Net
    region: Region


@dataclass(frozen=True, eq=False)
class Duals:
    """By affine node, multipliers y, NaN being the natural choice, and tilts (units, share, slope)."""

    y: Mapping[str, Array]
    tilts: Mapping[str, tuple[Array, Array, Array]] = field(default_factory=dict)


def limited(region: Region) -> bool:
    """Whether no bound is infinite, so that all are rationals."""
    return all(bool(np.isfinite(side).all()) for ends in region.values() for side in ends)


def values_of(net: Net, region: Region, name: str) -> tuple[Array, Array]:
    """Bounds on the values of the input, an affine node or a ReLU."""
    if name == "input" or not net.by_name[name].relu:
        return region[name]
    node = net.by_name[name]
    low, high = region[node.sources[0]]
    with np.errstate(invalid="ignore"):
        leak = [np.where(node.slope == 0, 0.0, node.slope * np.minimum(side, 0.0)) for side in (low, high)]
    leak = [np.where(node.slope == 0, 0.0, np.nextafter(part, end)) for part, end in zip(leak, (-np.inf, np.inf))]
    return np.where(low >= 0, low, leak[0]), np.where(high >= 0, high, np.minimum(leak[1], 0.0))


def reach(net: Net, region: Region, name: str) -> Array:
    """The largest absolute value of each unit, over all regions."""
    low, high = values_of(net, region, name)
    return np.maximum(np.abs(low), np.abs(high)).max(axis=0)


def rounding_weight(net: Net, node: Node, region: Region) -> tuple[Array, float]:
    """|W| max|h| + |b| per unit: what a product with it may round, per unit of price; and the sum of max|h|."""
    ends = [reach(net, region, source) for source in node.sources]
    total = np.abs(node.bias) + sum(
        linear.absolute.apply(end[None])[0] for linear, end in zip(node.maps, ends, strict=True)
    )
    return total + (sum(len(end) for end in ends) + 4) * TINY, float(sum(end.sum() for end in ends))


def interval(net: Net, node: Node, region: Region) -> tuple[Array, Array, Array]:
    """(lower, upper, rounding in them) of an affine node from the bounds of what it reads."""
    parts = [(m, *values_of(net, region, s)) for s, m in node.reads]
    low, high, errors = spanned(parts, node.bias)
    if (found := net.maxima.get(node.name)) is not None:
        ends = values_of(net, region, found.first[0]), values_of(net, region, found.second[0])
        within(found, ends, low, high)
    return low, high, errors


def spanned(parts: Sequence[tuple[Map, Array, Array]], bias: Array) -> tuple[Array, Array, Array]:
    """(lower, upper, rounding in either) of Σ A h + b on each of some boxes l ≤ h ≤ u, by the signs of entries.

    The largest is A⁺ u − A⁻ l + b: what only pushes down is not in it, nor in its rounding, however far it reaches.
    """
    count = len(parts[0][1]) if parts else 1
    sums = np.stack([np.broadcast_to(bias, (count, len(bias)))] * 2)
    sizes, terms = np.abs(sums), 8 + sum(linear.terms for linear, _, _ in parts)
    with np.errstate(invalid="ignore", over="ignore"):
        for linear, low, high in parts:
            ends = np.stack([low, high])
            above, below = (side.apply(ends) for side in linear.sides())
            sums = sums + (above - below[::-1])
            if (ends < 0).any():
                above, below = (side.apply(np.abs(ends)) for side in linear.sides())
            sizes = sizes + (above + below[::-1])
        errors = sizes * gamma(terms) + (terms + 8) * TINY
        low, high = np.nextafter(sums[0] - errors[0], -np.inf), np.nextafter(sums[1] + errors[1], np.inf)
    low, high = np.where(low < np.inf, low, -np.inf), np.where(high > -np.inf, high, np.inf)
    if (still := sizes == np.abs(bias)).any():  # perhaps all its products are with zeros: then it is the bias itself
        for linear, *box in parts:
            above, below = (side.support().apply((np.stack(box) != 0) * 1.0) for side in linear.sides())
            still &= above + below[::-1] == 0
        low, high, errors = np.where(still[0], bias, low), np.where(still[1], bias, high), np.where(still, 0.0, errors)
    return low, high, errors


def upper_bound(net: Net, target: str, price: Array, region: Region, of: Array, duals: Duals | None = None) -> Array:
    """Per row k, price[k]·target is at most this on region ``of[k]``; rational if the prices are.

    Without multipliers, by adaptive slopes. Tilts price the values h that enter a unit instead of their sum a: with a
    share s ≥ 0 of Λ, s max(a, 0) ≤ t·h + max(max over the box of (s w − t)·h + s b, max over the box of −t·h).
    """
    nodes, tilts = net.before([target]), duals.tilts if duals else {}
    total, slack, rounded = price[:, 0] * 0, np.zeros(len(price)), price.dtype != object
    flows, ahead = {target: price}, dict[str, Array]()
    sums = len(nodes) + sum(len(units) for units, _, _ in tilts.values())
    for node in reversed(nodes):
        if node.relu:
            if node.name in flows:
                flow, slope = flows.pop(node.name), like(node.slope, price)
                put(ahead, node.sources[0], (1 - slope) * flow)
                if node.slope.any():
                    put(flows, node.sources[0], slope * flow)
            continue
        nu, passed = flows.pop(node.name, None), ahead.pop(node.name, None)
        if nu is None and passed is None:
            continue
        terms = sums + node.size + (sum(node.columns) if node.name in tilts else node.terms)
        weight, entering = rounding_weight(net, node, region) if rounded else (np.zeros(node.size), 0.0)
        if passed is not None:
            low, high = (like(side[of], price) for side in region[node.name])
            size = np.abs(passed) + (0 if nu is None else np.abs(nu))
            boxes = boxes_of(net, node, region, of, price) if node.name in tilts else []
            for unit, share, slope in zip(*tilts.get(node.name, ((), (), ())), strict=True):
                total = total + tilted(node, unit, like(share, price), like(slope, price), boxes, flows)
                passed[:, unit] -= like(share, price)
                if rounded:
                    ends = np.concatenate([reach(net, region, source) for source in node.sources])
                    size[:, unit] += share
                    slack += (
                        gamma(terms) * (share * weight[unit] + 2 * np.abs(like(slope, price)) @ ends) + terms * TINY
                    )
            if duals is None:
                own = adaptive(passed, *region[node.name], of)
            else:
                own = multipliers(passed, low, duals.y.get(node.name, np.full((1, node.size), np.nan)))
            ends = np.maximum(passed * np.maximum(low, 0) - own * low, passed * np.maximum(high, 0) - own * high)
            total = total + np.where((low < 0) & (high > 0), np.maximum(ends, 0), ends).sum(axis=1)
            nu = own if nu is None else nu + own
            if rounded:
                limit = reach(net, region, node.name)
                slack += gamma(terms) * ((size + np.abs(own)) @ limit) + terms * TINY * (1 + limit.sum())
        total = total + times(nu, node.bias[:, None])[:, 0]
        for source, linear in node.reads:
            put(flows, source, linear.back(nu))
        if rounded:
            slack += gamma(terms) * (np.abs(nu) @ weight) + terms * TINY * (1 + entering)
    total = total + most(flows.get("input"), region, of, total)
    return total + slack if rounded else total


def most(slope: Array | None, region: Region, of: Array, total: Array) -> Array:
    """The most that slope·x is on the box, and what adding it to the total may round."""
    if slope is None:
        return total * 0
    low, high = (like(side[of], total) for side in region["input"])
    highest = np.maximum(slope * low, slope * high).sum(axis=1)
    if total.dtype == object:
        return highest
    limit = np.maximum(np.abs(low), np.abs(high))
    terms = low.shape[1] + 16
    return highest + gamma(terms) * ((np.abs(slope) * limit).sum(axis=1) + np.abs(total)) + terms * TINY


def multipliers(passed: Array, low: Array, y: Array) -> Array:
    """The given y, where it is NaN the one that makes a unit of known sign exact."""
    known = ~np.isnan(y)
    natural = np.where(low >= 0, passed, passed * 0)
    return np.where(known, like(np.where(known, y, 0.0).astype(np.float64), passed), natural)


def adaptive(passed: Array, low: Array, high: Array, of: Array) -> Array:
    """y of adaptive slopes: the chord where a line from above is asked for, else the nearer of the two branches."""
    crossing = (low < 0) & (high > 0) & (high - low < np.inf)
    settled = (low >= 0).astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        chord = np.where(crossing, high / np.where(crossing, high - low, 1), settled)
    branch = np.where(crossing, high > -low, settled)
    return passed * np.where(passed > 0, like(chord[of], passed), like(branch[of], passed))


def boxes_of(net: Net, node: Node, region: Region, of: Array, price: Array) -> list[tuple[Array, Array]]:
    """What each source of a node is between on the region of each row, as numbers of the kind that the prices are."""
    ends = [values_of(net, region, source) for source in node.sources]
    return [(like(low[of], price), like(high[of], price)) for low, high in ends]


def tilted(
    node: Node, unit: int, share: Array, slope: Array, boxes: Sequence[tuple[Array, Array]], flows: dict[str, Array]
) -> Array:
    """The terms of one tilted unit, where each source is in its box; its slopes are added to the flows."""
    if not share >= 0:
        raise Refused("a tilt with a negative share")
    on, off = share * like(node.bias, slope)[unit], slope[0] * 0
    for (source, linear), part, (low, high) in zip(node.reads, by_source(node, slope), boxes, strict=True):
        rest = share * like(linear.row_alone(unit), slope) - part
        on = on + np.maximum(rest * low, rest * high).sum(axis=1)
        off = off + np.maximum(-part * low, -part * high).sum(axis=1)
        put(flows, source, np.broadcast_to(part, low.shape))
    return np.maximum(on, off)


def by_source(node: Node, row: Array) -> list[Array]:
    """A row over all that a node reads, cut into one for each source."""
    return np.split(row, np.cumsum(node.columns)[:-1])


def tightened(net: Net, node: Node, region: Region, changed: Array | None = None) -> Region:
    """The regions with a node bounded by intervals and, behind a ReLU layer, by adaptive slopes where it is cut."""
    low, high, _ = interval(net, node, region)
    if node.name in region:
        low, high = np.fmax(low, region[node.name][0]), np.fmin(high, region[node.name][1])
    region = {**region, node.name: (low, high)}
    if node.name not in net.rectified or set(node.sources) == {"input"} or not net.affords(2 * node.size):
        return region
    crossing = (low < 0) & (high > 0)
    rows, units = np.nonzero(crossing if changed is None else crossing & changed[:, None])
    low, high = low.copy(), high.copy()
    for start in range(0, len(rows), step := chunk(net)):
        at, unit = rows[start : start + step], units[start : start + step]
        for sign, side in ((1.0, high), (-1.0, low)):
            bound = upwards(upper_bound(net, node.name, one_hot(unit, node.size, sign), region, at))
            side[at, unit] = sign * np.fmin(sign * side[at, unit], bound)
    return {**region, node.name: (low, high)}


def chunk(net: Net) -> int:
    """So many rows of prices stay near 16 MB."""
    return max(1, 2_000_000 // max(net.inputs, *(node.size for node in net.nodes)))


def one_hot(units: Array, size: int, sign: Any = 1.0) -> Array:
    """Rows with one entry each."""
    rows = np.zeros((len(units), size))
    rows[np.arange(len(units)), units] = sign
    return rows


def all_bounded(net: Net, box: tuple[Array, Array]) -> Region:
    """The region of a box, (1, inputs) each, with every affine node bounded in turn."""
    region: Region = {"input": box}
    for node in net.nodes:
        if not node.relu:
            region = bounded(net, node, region)
    return region


def exact_extreme(net: Net, node: Node, region: Region, unit: int, sign: int) -> Fraction:
    """The exact largest value of sign·unit over the bounds of what the node reads."""
    total = sign * Fraction(float(node.bias[unit]))
    for source, linear in node.reads:
        low, high = (side[0] for side in values_of(net, region, source))
        for j, number in zip(*linear.row(unit), strict=True):
            weight = sign * Fraction(float(number))
            total += weight * Fraction(float(high[j] if weight > 0 else low[j])) if weight else 0
    return total


def bounded(net: Net, node: Node, region: Region) -> Region:
    """The one region with a node bounded; where rounding alone leaves a sign open, over the rationals."""
    low, high, errors = interval(net, node, region)
    low, high = low[0], high[0]
    for sign, side, error in ((1, high, errors[1, 0]), (-1, low, errors[0, 0])):
        for unit in np.flatnonzero((sign * side > 0) & (sign * side <= 4 * error) & (error < np.inf)).tolist():
            exact = upwards(np.array([exact_extreme(net, node, region, unit, sign)], dtype=object))[0]
            side[unit] = sign * min(sign * side[unit], exact)
    return tightened(net, node, {**region, node.name: (low[None], high[None])})
