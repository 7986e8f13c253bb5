"""Evidence as searches find it, files hold it and the checker reads it: trees of cuts whose leaves hold multipliers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from .maps import integers
from .networks import keep

Array = Any

LEAF = -1  # a node that is not cut
PLAIN, EXACT, EMPTY = 0, 1, 2  # how a leaf is closed


class Tilt(NamedTuple):
    """Prices on the values that enter some units of an affine node: share s ≥ 0 (units,), slope t (units × columns)."""

    units: Array
    share: Array
    slope: Array


@dataclass(frozen=True, eq=False)
class Tree:
    """Bounds on sign·unit of one affine node, for some claims (units, signs) at a time.

    Node k in level order is left whole (``where[k]`` = −1), or cut at the middle of input ``unit[k]`` (0), or by the
    sign of unit ``unit[k]`` of the ``where[k]``-th of the affine nodes up to the target. The m-th node that is cut has
    the nodes 2m + 1 (below, or on) and 2m + 2. ``closed`` (closings × 3): node, claim, and how: in float64 (0), in
    exact arithmetic (1), or as an empty region (2). ``y``: multipliers by affine node, (rows × units), NaN for the
    natural choice; ``row`` has the row of each closing, −1 for none, ``tilts`` the tilts by closing and affine node.
    """

    units: Array
    signs: Array
    where: Array = field(default_factory=lambda: np.array([LEAF]))
    unit: Array = field(default_factory=lambda: np.array([0]))
    closed: Array = field(default_factory=lambda: np.zeros((0, 3), np.int64))
    row: Array = field(default_factory=lambda: np.zeros(0, np.int64))
    y: Mapping[str, Array] = field(default_factory=dict)
    tilts: Mapping[int, Mapping[str, Tilt]] = field(default_factory=dict)

    @cached_property
    def claims(self) -> list[tuple[int, int]]:
        """(unit, sign): 'sign·unit is never positive'."""
        return [(int(unit), int(sign)) for unit, sign in zip(self.units, self.signs, strict=True)]

    @cached_property
    def first(self) -> Array:
        """Per node that is cut, the first of its halves; the other is the next."""
        return 2 * np.cumsum(self.where != LEAF) - 1


def describe(tree: Tree, arrays: dict[str, Array]) -> dict[str, Any]:
    """A tree in JSON, its arrays added to those of a file."""
    return {
        "claims": keep(np.stack([tree.units, tree.signs], axis=1), arrays),
        "where": keep(tree.where.astype(np.int16), arrays),
        "unit": keep(tree.unit.astype(np.int32), arrays),
        "closed": keep(tree.closed.astype(np.int32), arrays),
        "row": keep(tree.row.astype(np.int32), arrays),
        "y": {node: keep(values, arrays) for node, values in tree.y.items()},
        "tilts": [
            [closing, node, *(keep(part, arrays) for part in tilt)]
            for closing, of_node in tree.tilts.items()
            for node, tilt in of_node.items()
        ],
    }


def tree_of(described: Mapping[str, Any], arrays: Mapping[str, Array]) -> Tree:
    """The tree that :func:`describe` described; what does not fit together raises what it raises, here or later."""
    tilts: dict[int, dict[str, Tilt]] = {}
    for closing, node, units, share, slope in described["tilts"]:
        tilt = Tilt(integers(arrays[units]), arrays[share].astype(np.float64), arrays[slope].astype(np.float64))
        tilts.setdefault(closing, {})[node] = tilt
    claims, where, unit, closed, row = (
        arrays[described[what]] for what in ("claims", "where", "unit", "closed", "row")
    )
    y = {node: arrays[name] for node, name in described["y"].items()}
    return Tree(claims[:, 0], claims[:, 1], where, unit, closed, row, y, tilts)
