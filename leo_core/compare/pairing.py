"""Units that both networks have, found by what they compute on a sample, and what that proves.

A guess at who is whose: the bound is the certificate checker's (:mod:`leo_core.checker.difference`), which
holds whatever is guessed. Tried with either network as the one whose units are known best.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import final

import numpy as np
from numpy.typing import NDArray

from leo_core.checker.bounds import all_bounded, limited
from leo_core.checker.difference import Difference, Roles
from leo_core.checker.errors import Refused
from leo_core.compare.joint import Shared
from leo_core.compare.pair import Pair
from leo_core.domain import Box
from leo_core.execution.budget import Budget, Limits
from leo_core.network import INPUT, Affine, Network, Node, Relu, sources_of
from leo_core.rewrite.view import View
from leo_core.search.attack import scatter
from leo_core.stability import StabilityMap, Work, decide
from leo_core.storage import as_checked

Array = NDArray[np.float64]

#: Points looked at: to find units, and to see whether they stand in another order.
_SAMPLES, _FEW = 256, 64
#: Two units are taken for the same where, on the sample, they differ by at most this share of their length.
_SAME = 0.02
#: Two units are taken for multiples of each other where the angle between them on the sample is at most about this.
_PARALLEL = 1e-3
#: What may be nothing but rounding, relative to the outputs.
DUST = 1e-9
#: Exact arithmetic is tried where the networks have at most so many connections.
_EXACT = 200_000


@final
@dataclass(frozen=True, eq=False)
class Paired:
    """Proved bounds on |old − new| at each output, by these ``roles``, and the units of ``new`` proved to compute what
    those of ``old`` do."""

    old: Network
    new: Network
    bounds: Array
    shared: Shared
    roles: Roles

    @property
    def bound(self) -> float:
        """At any output."""
        return float(self.bounds.max(initial=0.0))


def paired(pair: Pair, budget: Budget, seen: float) -> Paired:
    """The better of both ways to pair two networks; its bound is infinite where units tell nothing.

    Where only rounding may be between it and ``seen``, the largest difference known, rationals are tried.
    """
    first, second, box = pair.first, pair.second, pair.box
    points = scatter(box, _SAMPLES, pair.seed)

    def on_time() -> None:
        if budget.expired:
            raise _OutOfTimeError

    best: Paired | None = None
    for old, new in sorted(((first, second), (second, first)), key=lambda both: -both[0].units):
        half = budget.at_most(0.4 * budget.remaining) if np.isfinite(budget.remaining) else budget
        stability = decide(Work(old, box, pair.solver, limits=Limits(half), seed=pair.seed))
        roles = guessed(old, new, stability, points, budget)
        nets = as_checked(old), as_checked(new)
        known = View.of(old, stability).region
        region = {name: (low[None], high[None]) for name, (low, high) in known.intervals.items()}
        region["input"] = (box.lower[None], box.upper[None])
        try:
            found = Difference(*nets, region, roles, step=on_time)
            bounds = found.deviations()
        except _OutOfTimeError:
            break
        dust = DUST * max(1.0, float(known.reach(old, old.output).max()))
        if seen < bounds.max(initial=0.0) <= dust and limited(region) and old.connections + new.connections <= _EXACT:
            with contextlib.suppress(_OutOfTimeError):
                exact = Difference(*nets, region, roles, exact=True, step=on_time)
                bounds, found = np.minimum(bounds, exact.deviations()), exact
        if best is None or bounds.max(initial=0.0) < best.bound:
            best = Paired(old, new, bounds, _same(found), roles)
        if best.bound <= seen or budget.expired:
            break
    return Paired(first, second, np.full(first.output_size, np.inf), {}, Roles()) if best is None else best


def alike(first: Network, second: Network, box: Box) -> Paired | None:
    """Two networks of one architecture paired unit by unit, node by node, on quick bounds; None for others.

    What is the same in both is so for certain, however large they are: a layer that was trained on, or rounded anew.
    Units of dense layers may stand in another order.
    """
    if len(first.relus) != len(second.relus):
        return None
    partner = counterparts(first, second)
    slopes = [(relu, first[partner[relu.name]]) for relu in second.relus if relu.name in partner]
    if len(slopes) < len(second.relus) or any((new.slope != old.slope).any() for new, old in slopes):  # type: ignore[union-attr]
        return None
    named = {node.name for node in second.nodes if isinstance(node, Relu) or not _rectified(second, node)}
    order = _order(first, second, partner, box)
    each = {new: order.get(new, np.arange(first.size(old))) for new, old in partner.items() if new in named}
    roles = Roles({new: (partner[new], origin) for new, origin in each.items()})
    old, new = as_checked(first), as_checked(second)
    region = all_bounded(old, (box.lower[None], box.upper[None]))
    try:
        found = Difference(old, new, region, roles)
        return Paired(first, second, found.deviations(), _same(found), roles)
    except Refused:  # other layers in between, or units of one layer in several
        return None


def _order(first: Network, second: Network, partner: Mapping[str, str], box: Box) -> dict[str, NDArray[np.int64]]:
    """By ReLU of ``second`` whose units stand in another order than those of its partner, which one each is."""
    if any(isinstance(node, Affine) and node.shape for network in (first, second) for node in network.nodes):
        return {}
    points = scatter(box, _FEW, 0)
    were, are = first.evaluate_nodes(points), second.evaluate_nodes(points)
    found = {}
    for relu in second.relus:
        old = first[partner[relu.name]]
        assert isinstance(old, Relu)
        values, known = are[relu.source], were[old.source]
        apart, length = (np.sqrt((part * part).sum(axis=0)) for part in (values - known, known))
        moved = np.flatnonzero(~(apart <= _SAME * length))
        if len(moved) and np.isfinite(apart).all() and np.isfinite(length).all():
            origin = np.arange(relu.size)
            origin[moved] = moved[_assigned(_distance(values[:, moved], known[:, moved]))]
            if (old.slope[origin] == relu.slope).all():
                found[relu.name] = origin
    return found


def _assigned(distance: Array) -> NDArray[np.int64]:
    """For each row a column of its own, so that they are near together."""
    from scipy.optimize import linear_sum_assignment

    return np.asarray(linear_sum_assignment(np.nan_to_num(np.minimum(distance, 1.0), nan=1.0))[1], dtype=np.int64)


def counterparts(first: Network, second: Network) -> dict[str, str]:
    """By node of ``second`` the one of ``first`` at the same place: of its kind and size, reading the same in order.

    Among several the one that stores the same numbers, else the earliest. Where that does not reach all ReLUs, as other
    layers stand in between, each ReLU is taken for the one of its number and size, if there are as many.
    """
    partner = _placed(first, second, {})
    pairs = list(zip(first.relus, second.relus, strict=False))
    in_order = len(first.relus) == len(second.relus) and all(old.size == new.size for old, new in pairs)
    if in_order and any(relu.name not in partner for relu in second.relus):
        return _placed(first, second, {new.name: old.name for old, new in pairs})
    return partner


def _placed(first: Network, second: Network, known: Mapping[str, str]) -> dict[str, str]:
    partner, free = {INPUT: INPUT}, {node.name: node for node in first.nodes}
    for name in known.values():
        free.pop(name)
    for node in second.nodes:
        if node.name in known:
            partner[node.name] = known[node.name]
            continue
        read = [partner.get(source) for source in sources_of(node)]
        fitting = [
            other
            for other in free.values()
            if type(other) is type(node) and other.size == node.size and list(sources_of(other)) == read
        ]
        if fitting:
            found = next((other for other in fitting if _equal(other, node)), fitting[0])
            partner[node.name] = found.name
            free.pop(found.name)
    partner.pop(INPUT)
    return partner


def _equal(node: Node, other: Node) -> bool:
    """Whether two nodes store the same numbers."""
    if isinstance(node, Relu) or isinstance(other, Relu):
        return isinstance(node, Relu) and isinstance(other, Relu) and np.array_equal(node.slope, other.slope)
    arrays = [
        [array for linear in each.maps for _, array in sorted(linear.arrays().items())] + [each.bias]
        for each in (node, other)
    ]
    return len(arrays[0]) == len(arrays[1]) and all(map(np.array_equal, *arrays))


def _rectified(network: Network, node: Node) -> bool:
    return any(isinstance(network[reader], Relu) for reader in network.readers[node.name])


def _same(found: Difference) -> Shared:
    """The units that are proved to compute the same."""
    kept = {
        relu: (name, origin, found.moved[relu] == 0)
        for relu, (name, origin) in found.roles.kept.items()
        if relu in found.moved
    }
    return {
        relu: (name, np.where(same, origin, -1))
        for relu, (name, origin, same) in kept.items()
        if (same & (origin >= 0)).any()
    }


class _OutOfTimeError(Exception):
    """The budget ended in the middle of a proof."""


def guessed(old: Network, new: Network, stability: StabilityMap, points: Array, budget: Budget) -> Roles:
    """Which unit of ``old`` each unit of ``new`` is, and what the others of ``old`` may be taken for."""
    were, are = old.evaluate_nodes(points), new.evaluate_nodes(points)
    kept: dict[str, tuple[str, NDArray[np.int64]]] = {}
    taken: dict[str, set[int]] = {relu.name: set() for relu in old.relus}
    for relu in new.relus:
        if budget.expired:
            break
        name, origin = _partner(old, were, are[relu.source], taken)
        if name and (old[name].slope[origin[origin >= 0]] == relu.slope[origin >= 0]).all():  # type: ignore[union-attr]
            kept[relu.name] = (name, origin)
            taken[name] |= set(origin[origin >= 0].tolist())
    copies: dict[str, list[tuple[int, int, float]]] = {}
    lines: dict[str, tuple[NDArray[np.int64], Array, Array]] = {}
    for relu in old.relus:
        layer = stability.layers[relu.name]
        changes = (layer.lower < 0) & (layer.upper > 0)
        gone = [unit for unit in np.flatnonzero(changes).tolist() if unit not in taken[relu.name]]
        stays = [unit for unit in np.flatnonzero(changes).tolist() if unit in taken[relu.name]]
        found = _multiples(were[relu.source], gone, stays, relu.slope)
        copies[relu.name] = found
        rest = np.array(sorted(set(gone) - {unit for unit, _, _ in found}), dtype=np.int64)
        if len(rest) and np.isfinite(layer.upper[rest] - layer.lower[rest]).all():
            low, high, slope = layer.lower[rest], layer.upper[rest], relu.slope[rest]
            chord = (high - slope * low) / (high - low)
            lines[relu.name] = (rest, chord, 0.5 * (chord - slope) * -low)
    return Roles(kept, copies, lines)


def _partner(
    old: Network, were: Mapping[str, Array], values: Array, taken: Mapping[str, set[int]]
) -> tuple[str, NDArray[np.int64]]:
    """The ReLU of ``old`` that most of these units are in, and which of its units each is (−1: none)."""
    best: tuple[str, NDArray[np.int64]] = ("", np.full(values.shape[1], -1))
    for relu in old.relus:
        if taken[relu.name] or not relu.size or not values.shape[1]:
            continue
        distance = _distance(values, were[relu.source])
        nearest = distance.argmin(axis=1)
        same = distance[np.arange(len(nearest)), nearest] <= _SAME
        count = Counter(nearest[same].tolist())
        origin = np.where(same & np.array([count[n] <= 1 for n in nearest.tolist()], dtype=bool), nearest, -1)
        for twin, number in count.items():  # the nearest of several
            if number > 1:
                rows = np.flatnonzero(same & (nearest == twin))
                origin[rows[distance[rows, twin].argmin()]] = twin
        if (origin >= 0).sum() > (best[1] >= 0).sum():
            best = (relu.name, origin)
    return best


def _distance(values: Array, known: Array) -> Array:
    """How far columns are apart, relative to the first's length; by one product, so to a few digits only."""
    length = (values * values).sum(axis=0)[:, None]
    square = length + (known * known).sum(axis=0) - 2.0 * values.T @ known
    return np.asarray(np.sqrt(np.maximum(square, 0.0) / np.maximum(length, 1e-300)))


def _multiples(values: Array, gone: list[int], stays: list[int], slope: Array) -> list[tuple[int, int, float]]:
    """(unit, of, factor) for units that are multiples of one that stays."""
    found: list[tuple[int, int, float]] = []
    if not gone or not stays:
        return found
    length = np.sqrt((values * values).sum(axis=0))
    for unit in gone:
        cosine = values[:, stays].T @ values[:, unit] / np.maximum(length[stays] * length[unit], 1e-300)
        at = int(np.argmax(np.abs(cosine)))
        of = stays[at]
        opposite = cosine[at] < 0
        if not np.isfinite(length[[unit, of]] ** 2).all():
            continue
        if 1.0 - abs(cosine[at]) <= 0.5 * _PARALLEL**2 and slope[unit] == slope[of] and not (opposite and slope[of]):
            ratio = Fraction(float(values[:, unit] @ values[:, of])) / Fraction(float(length[of] ** 2) or 1.0)
            near = ratio.limit_denominator(1 << 10)
            found.append((unit, of, float(near if abs(near - ratio) < Fraction(1, 10**9) else ratio)))
    return found
