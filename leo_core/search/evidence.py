"""Trees of evidence (:class:`leo_core.checker.trees.Tree`): what closes a part, and how they are re-proved.

On the way down, whatever is cut, the layers behind the cut are bounded again by intervals and backward linear bounds
with adaptive slopes, and what the part around it had is kept where that is better
(:func:`leo_core.bounds.descend.descend`). A leaf below cuts by sign holds multipliers: in the safe dual bound
(:mod:`leo_core.bounds.dual`) they give one there that is not positive; without any, the bounds themselves show the part
empty. Below halvings of the box it holds none: its own bound is not positive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from leo_core.bounds.descend import descend, parts_at_once
from leo_core.bounds.dual import NO_TILTS, Multipliers, Tilts, bound_above, bound_above_exact, given
from leo_core.bounds.region import Region
from leo_core.bounds.upto import upto
from leo_core.checker.trees import EMPTY, LEAF, PLAIN, Tree
from leo_core.execution.budget import Budget
from leo_core.network import Network

Array = NDArray[np.float64]
#: (unit, sign): 'sign·a_unit is never positive'.
Claim: TypeAlias = tuple[int, int]

#: Parts bounded at once, at most.
BATCH = 32
#: The box as it is, nothing claimed of it.
WHOLE = Tree(np.zeros(0, np.int64), np.zeros(0, np.int64))


def uncut(
    claims: Sequence[Claim], y: Mapping[str, NDArray[np.floating]], tilts: Tilts = NO_TILTS, how: int = PLAIN
) -> Tree:
    """A tree without cuts: a row of y, (claims × units) by affine node, closes each claim; tilts are of the first."""
    units, signs = np.array(claims, dtype=np.int64).T
    each = np.arange(len(claims))
    closed = np.stack([0 * each, each, np.full(len(claims), how)], axis=1)
    return Tree(units, signs, closed=closed, row=each if y else each - 1, y=y, tilts={0: tilts} if tilts else {})


def parts(tree: Tree, lower: Array, upper: Array) -> tuple[Array, Array, NDArray[np.int64]]:
    """Of every node of a tree that halves a box: (lower, upper), each (nodes × inputs), and how often it was cut.

    Raises ValueError where its leaves do not make up the box, IndexError where an input is none: a file may hold it.
    """
    cuts = np.flatnonzero(tree.where != LEAF)
    count = len(tree.where)
    if tree.where.any(where=tree.where != LEAF) or count != 2 * len(cuts) + 1 or (tree.unit < 0).any():
        raise ValueError("a tree with halves missing, or cut otherwise than at the middle of inputs")
    low, high, depth = np.tile(lower, (count, 1)), np.tile(upper, (count, 1)), np.zeros(count, np.int64)
    for k, axis, first in zip(cuts.tolist(), tree.unit[cuts].tolist(), tree.first[cuts].tolist(), strict=True):
        middle = 0.5 * low[k, axis] + 0.5 * high[k, axis]
        if not (k < first and low[k, axis] < middle < high[k, axis]):
            raise ValueError("halvings that leave a part of the box out")
        halves = slice(first, first + 2)
        low[halves], high[halves], depth[halves] = low[k], high[k], depth[k] + 1
        high[first, axis] = low[first + 1, axis] = middle
    return low, high, depth


def proves(tree: Tree, network: Network, target: str, claim: Claim, region: Region, budget: Budget) -> bool:
    """Whether a tree of cuts by sign claims sign·a_unit ≤ 0 of an affine node and nothing else, and proves it.

    What it says is used, and nothing believed. The region has intervals for the nodes up to that one. Not proved in
    time is not proved. A tree that does not fit the network makes numpy raise: who read it from a file expects that.
    """
    if tree.claims != [claim] or tree.closed[:, 1].any():
        return False
    way = upto(network, target)
    whole = Region(region.lower, region.upper, {name: region.intervals[name] for name in way.positions})
    at_once, root = parts_at_once(network, target, BATCH), np.zeros(1, dtype=np.int64)
    closing = {node: k for k, node in enumerate(tree.closed[:, 0].tolist())}
    pending = [(0, whole, len(way.steps))]  # of the whole nothing has changed
    while pending:
        if budget.expired:
            return False
        batch, pending = pending[-at_once:], pending[:-at_once]
        stack = Region.joined([part.take(root) for _, part, _ in batch])
        stack, _ = descend(network, target, stack, np.array([since for _, _, since in batch]))
        for row, (node, _, _) in enumerate(batch):
            part, where = stack.one(row), int(tree.where[node]) - 1
            if where >= 0:
                cut, first = (way.steps[where][0].name, int(tree.unit[node])), int(tree.first[node])
                pending.append((first, part.split(*cut, active=True), where))
                pending.append((first + 1, part.split(*cut, active=False), where))
            elif not part.empty and (node not in closing or not _closes(tree, closing[node], network, target, part)):
                return False
    return True


def _closes(tree: Tree, k: int, network: Network, target: str, region: Region) -> bool:
    """Whether a closing of a tree for one claim holds on a region."""
    (unit, sign), how, row, tilts = tree.claims[0], tree.closed[k, 2], tree.row[k], tree.tilts.get(k, NO_TILTS)
    y: Multipliers = {name: values[row] for name, values in tree.y.items()} if row >= 0 else {}
    objective = upto(network, target).objectives([unit], 0.0 if how == EMPTY else sign)
    bound = bound_above(network, target, objective, region, given(y, tilts))
    upper, rounding = float(bound.upper[0]), float(bound.rounding[0])
    if how == EMPTY:
        return upper < 0
    if upper <= 0:
        return True
    near = upto(network, target).exact and upper <= 2 * rounding  # all that is missing may be rounding
    return near and bound_above_exact(network, target, objective[0], region, y, tilts) <= 0
