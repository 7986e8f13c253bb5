"""Units b + relu(a − b), which are max(a, b), and b − relu(b − a), which are min(a, b): what poolings are made of.

Such a unit lies between the maxima (minima) of the two values' bounds; term by term it would seem to reach further.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .maps import Entries

if TYPE_CHECKING:
    from .networks import Node

Array = Any

MOST = 2**21  # entries of one map that are looked through one by one


@dataclass(frozen=True, eq=False)
class Larger:
    """Units of a node, each the larger of two values (``sign`` 1) or the smaller (−1)."""

    units: Array
    first: tuple[str, Array]
    second: tuple[str, Array]
    sign: int


def larger(by_name: Mapping[str, Node], node: Node) -> Larger | None:
    """What of an affine node is the larger, or the smaller, of two values."""
    relus = [name for name in node.sources if name in by_name and by_name[name].relu]
    table = two_of_each(node)
    if table is None or len(relus) != 1 or len(node.sources) != 2:
        return None
    relu = by_name[relus[0]]
    other = next(name for name in node.sources if name != relu.name)
    behind = by_name[relu.sources[0]]
    differences = two_of_each(behind)
    if differences is None:
        return None
    for sign in (1, -1):
        found: list[tuple[int, int, int]] = []
        partner = ""
        for unit, terms in table.items():
            split = {name: (column, number) for name, column, number in terms}
            if set(split) != {relu.name, other} or split[other][1] != 1 or split[relu.name][1] != sign:
                continue
            place = split[relu.name][0]
            rest = [(n, c) for n, c, number in differences.get(place, ()) if number == sign]
            if relu.slope[place] or len(rest) != 1 or (other, split[other][0], -sign) not in differences[place]:
                continue
            if partner in ("", rest[0][0]):
                partner = rest[0][0]
                found.append((unit, rest[0][1], split[other][0]))
        if found:
            units, ours, theirs = (np.array(part) for part in zip(*found))
            return Larger(units, (partner, ours), (other, theirs), sign)
    return None


def two_of_each(node: Node) -> dict[int, list[tuple[str, int, float]]] | None:
    """By unit without a bias, its two terms (source, column, ±1); None where the maps hold more than single numbers."""
    if any(not isinstance(linear, Entries) or linear.terms > 2 or linear.products > MOST for linear in node.maps):
        return None
    found: dict[int, list[tuple[str, int, float]]] = {}
    for source, linear in node.reads:
        for row, column, number in zip(*(part.tolist() for part in linear.entries())):
            if number:
                found.setdefault(row, []).append((source, column, number))
    return {
        unit: terms
        for unit, terms in found.items()
        if len(terms) == 2 and node.bias[unit] == 0 and all(abs(number) == 1 for _, _, number in terms)
    }


def within(found: Larger, values: tuple[tuple[Array, Array], tuple[Array, Array]], low: Array, high: Array) -> None:
    """Tighten bounds of the node, (regions, units), in place; ``values`` are those of the two sources."""
    pick = np.maximum if found.sign > 0 else np.minimum
    for side, end, tighter in ((low, 0, np.fmax), (high, 1, np.fmin)):
        two = [source[end][:, units] for source, (_, units) in zip(values, (found.first, found.second))]
        side[:, found.units] = tighter(side[:, found.units], pick(*two))
