"""Splitting the input box: with few inputs, small boxes settle what no bound on the whole box can.

All boxes of a batch are bounded at once. On each, backward linear bounds go layer by layer (as in
ReluVal and Neurify, Wang et al. 2018, which bisect the input too); a box drops out of a claim as soon as its
bound is not positive there. The input along which the linear bounds vary most is halved. Bounds of a
box hold for its halves, so they only get better on the way down. Work that was cut off goes on from the halvings it
had made: they only say where to look, and every box is bounded again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import final

import numpy as np
from numpy.typing import NDArray

from leo_core.bounds.crown import Memo, bound_linearly
from leo_core.bounds.descend import descend, leaning, parts_at_once
from leo_core.bounds.region import Region
from leo_core.bounds.upto import upto
from leo_core.checker.trees import LEAF, PLAIN, Tree
from leo_core.domain import Box
from leo_core.execution.budget import Budget
from leo_core.execution.executor import LOST, Executor
from leo_core.network import Network
from leo_core.search.attack import Climb, ascend
from leo_core.search.evidence import WHOLE, Claim, parts
from leo_core.search.witness import sign_at

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

#: With more inputs than this that are not fixed, halving the box is not tried.
FEW_INPUTS = 8
#: Boxes bounded at once, at most: enough to keep numpy busy, few enough to stay in the cache.
BATCH = 256
#: So many boxes are worked on breadth first, to see where over the whole box a claim may fail; then depth first, every
#: other time from where a claim came nearest to failing.
BROAD = 8_192
#: With fewer boxes than this the workers are not asked: they would take longer to start.
ALONE = 1_024
#: What is found is handed out whenever there are so many times the boxes of last time, from so many on.
GROWTH, FIRST = 1.25, 1_024
#: Batches that a worker does depth first before it hands back what is left, for others to share.
STEPS = 16
#: Corners of each batch that a climb begins at, per claim, in either part; and its steps.
BROAD_STARTS, STARTS, CLIMB = 64, 8, 12
#: An input is halved at most this often; then a claim that is still open stays so.
HALVINGS = 30
#: After this many boxes a claim must look as if it could end …
TRIAL = 65_536
#: … within this many.
LIMIT = 8_000_000
#: A box whose bound is positive, but by less than this share of the unit's range, hides a maximum of zero if the unit
#: comes as near to zero there.
NEARLY_ZERO = 1e-9


@final
@dataclass(frozen=True, eq=False)
class Cut:
    """What came of the claims since the last cut: some are ``proved``, and there is a witness against others.

    ``tree`` is the evidence for all that is proved so far (None: nothing new); ``halvings`` a tree without claims, of
    what claims proved or open needed so far; ``stuck`` the claims that more would not help.
    """

    proved: frozenset[Claim]
    refuted: dict[Claim, Array]
    tree: Tree | None
    halvings: Tree
    stuck: frozenset[Claim] = frozenset()


@final
@dataclass(frozen=True, eq=False)
class _Boxes:
    """Boxes still to be worked on: a stack of regions, ``open`` (boxes × claims), and each one's node in the tree.

    ``near`` says how near a claim came to failing around a box: the largest value found, as a share of its reach.
    """

    region: Region
    open: NDArray[np.bool_]
    node: Indices
    depth: Indices
    near: Array

    def __len__(self) -> int:
        return len(self.node)

    @staticmethod
    def leaves(tree: Tree, network: Network, target: str, region: Region, claims: int) -> _Boxes:
        """The leaves of a tree, with the intervals that all nodes before the target have on the whole box."""
        intervals = {name: region.intervals[name] for name in upto(network, target).positions}
        node = np.flatnonzero(tree.where == LEAF)
        lower, upper, depth = parts(tree, region.lower, region.upper)
        known = Region(region.lower, region.upper, intervals).take(node).intervals
        start = Region(lower[node], upper[node], known)
        return _Boxes(start, np.ones((len(node), claims), dtype=bool), node, depth[node], np.full(len(node), -np.inf))

    def take(self, rows: NDArray[np.int64]) -> _Boxes:
        return _Boxes(self.region.take(rows), self.open[rows], self.node[rows], self.depth[rows], self.near[rows])

    def rooted(self) -> _Boxes:
        """The same boxes as the roots of a tree of their own."""
        return replace(self, node=np.arange(len(self)))


def split_box(
    network: Network,
    target: str,
    claims: list[Claim],
    region: Region,
    box: Box,
    budget: Budget,
    pool: Executor,
    start: Tree = WHOLE,
) -> Iterator[Cut]:
    """Prove or refute claims about the units of one affine node, whose region holds intervals up to it.

    What is found comes out now and then, and at the end. The pool's workers share the boxes once there are some.
    ``start`` are the halvings of an earlier cut, to go on from.
    """
    leaves = _Boxes.leaves(start, network, target, region, len(claims))
    search = _Search(network, target, claims, box, leaves, _Halvings.of(start), BROAD)
    while search.pending and search.small and not budget.expired:
        search.step()
        if search.grown:
            yield search.cut()
    with closing(pool.map(_Worker, (network, target, claims, box), search.part, budget)) as results:
        for part, result in results:
            if result is LOST:
                search.give_up(part)
            else:
                search.merge(part, result)
            if search.settled:
                break  # what is still being worked on is of no use
            if search.grown:
                yield search.cut()
    yield search.cut()


@final
@dataclass(frozen=True, eq=False)
class _Part:
    """Boxes for a worker, and whether the search goes broad."""

    boxes: _Boxes
    broad: bool


@final
@dataclass(frozen=True, eq=False)
class _Found:
    """What came of some boxes: the tree below them, per claim the nodes that close it, the boxes ``left`` and whether
    it is worth more work; the boxes pending; and what all that took."""

    tree: _Halvings
    closed: list[list[Indices]]
    left: Indices
    alive: NDArray[np.bool_]
    refuted: dict[Claim, Array]
    pending: list[_Boxes]
    work: Array
    share: Array


class _Worker:
    """Bounds some boxes once if the search goes broad, or works on them depth first for a while."""

    def __init__(self, network: Network, target: str, claims: list[Claim], box: Box) -> None:
        self._arguments = (network, target, claims, box)

    def __call__(self, part: _Part, budget: Budget) -> _Found:
        boxes, broad = part.boxes, math.inf if part.broad else 0
        search = _Search(*self._arguments, boxes.rooted(), _Halvings(len(boxes)), broad)
        for _ in range(1 if part.broad else STEPS):
            if not search.pending or budget.expired:
                break
            search.step()
        return search.found()

    def close(self) -> None:
        """Nothing to free."""


class _Search:
    """The frontier and the tree so far, of which the boxes begun with are nodes."""

    def __init__(
        self,
        network: Network,
        target: str,
        claims: list[Claim],
        box: Box,
        start: _Boxes,
        tree: _Halvings,
        broad: float,
    ) -> None:
        self._network, self._target, self._claims, self._box = network, target, claims, box
        self._units = np.array([unit for unit, _ in claims], dtype=np.int64)
        self._signs = np.array([sign for _, sign in claims], dtype=np.float64)
        self._names = upto(network, target).names
        self._broad, self._drawn = broad, 0
        self._at_once = parts_at_once(network, target, BATCH)
        self.pending: list[_Boxes] = [start]
        self._tree = tree
        self._due = GROWTH * tree.count
        self._alive: NDArray[np.bool_] = np.asarray(start.open.any(axis=0))
        self._closed: list[list[Indices]] = [[] for _ in claims]
        self._left = start.open.sum(axis=0)  # boxes on which a claim is open
        lower, upper = start.region.intervals[target]
        self._reach = np.maximum(np.abs(lower), np.abs(upper)).max(axis=0)[self._units]
        self._share = np.zeros(len(claims))  # of the whole, the part on which a claim is closed
        self._refuted: dict[Claim, Array] = {}
        self._told: set[Claim] = set()
        self._lost = np.zeros(len(claims), dtype=bool)
        self._work = np.zeros(len(claims))

    @property
    def broad(self) -> bool:
        """Whether it still goes breadth first."""
        return self._tree.count < self._broad

    @property
    def small(self) -> bool:
        """Whether there are too few boxes to share."""
        return self.broad and self._tree.count < ALONE

    @property
    def settled(self) -> bool:
        """Whether no claim is worth more work."""
        return not self._alive.any()

    @property
    def grown(self) -> bool:
        """Whether there is so much more than at the last cut that the next is due."""
        return self._tree.count >= max(FIRST, self._due)

    def found(self) -> _Found:
        """All that came of the boxes begun with."""
        return _Found(
            self._tree, self._closed, self._left, self._alive, self._refuted, self.pending, self._work, self._share
        )

    def merge(self, part: _Part, found: _Found) -> None:
        """Take in what came of a part."""
        boxes = part.boxes
        known = self._tree.graft(boxes.node, found.tree)
        self._left += found.left - boxes.open.sum(axis=0)
        for column, claim in enumerate(self._claims):
            self._closed[column] += [known[nodes] for nodes in found.closed[column]]
            if claim in found.refuted:
                self._refuted.setdefault(claim, found.refuted[claim])
        self._alive &= ~(boxes.open.any(axis=0) & ~found.alive & (found.left > 0))
        self.pending += [replace(left, node=known[left.node]) for left in found.pending]
        self._work += found.work
        self._share += found.share
        self._judge()

    def give_up(self, part: _Part) -> None:
        """Leave open the claims of a part that was lost."""
        self._lost |= part.boxes.open.any(axis=0)
        self._alive &= ~self._lost

    def step(self) -> None:
        """Bound one batch of boxes, close what closes, and halve the rest."""
        part = self.part()
        if part is None:
            return
        boxes = part.boxes
        self._work += boxes.open.sum(axis=0)
        region, lean = descend(self._network, self._target, boxes.region)
        rows, columns = np.nonzero(boxes.open)
        objectives = upto(self._network, self._target).objectives(self._units[columns], self._signs[columns])
        bound = bound_linearly(self._network, self._target, objectives, region, Memo(), rows)
        low, high = (side[rows, self._units[columns]] for side in region.intervals[self._target])
        upper = np.minimum(bound.upper, np.where(self._signs[columns] > 0, high, -low))
        closed = upper <= 0
        self._close(boxes, rows[closed], columns[closed])
        left = ~closed
        lean = lean + leaning(bound, region, rows, left)
        reached = self._look(bound.slope_at_input[left], region, rows[left], columns[left])
        near = NEARLY_ZERO * self._reach[columns[left]]
        self._alive[columns[left][(upper[left] <= near) & (reached >= -near)]] = False
        still = boxes.open.copy()
        still[rows[closed], columns[closed]] = False
        self._judge()
        still &= self._alive
        came = np.full(len(boxes), -np.inf)
        np.maximum.at(came, rows[left], reached / np.maximum(self._reach[columns[left]], 1e-300))
        self._halve(_Boxes(region, still, boxes.node, boxes.depth, came), lean)

    def cut(self) -> Cut:
        """What was found since the last cut."""
        self._due = GROWTH * self._tree.count
        refuted = {claim: point for claim, point in self._refuted.items() if claim not in self._told}
        proved, stuck, needed = list[int](), set(), []
        for boxes in self.pending:
            needed.append(boxes.node[(boxes.open & self._alive).any(axis=1)])
        for column, claim in enumerate(self._claims):
            if claim in self._refuted:
                continue
            if self._left[column] == 0:
                proved.append(column)
            if self._left[column] and not self._alive[column] and not self._lost[column]:
                stuck.add(claim)
            else:
                needed += self._closed[column]
        claims = [self._claims[column] for column in proved]
        new = frozenset(claims) - self._told
        tree = self._tree.tree([np.concatenate(self._closed[column]) for column in proved], claims) if new else None
        self._told |= refuted.keys() | new
        return Cut(new, refuted, tree, self._tree.tree(needed), frozenset(stuck))

    def part(self) -> _Part | None:
        """A batch of the boxes pending, with the claims that are worth more work; None without any."""
        broad, taken = self.broad, list[_Boxes]()
        count = 0
        self._drawn += 1
        if not broad and self._drawn % 2 and self.pending:  # a claim that fails, fails near where it came near to it
            nearest = max(range(len(self.pending)), key=lambda at: self.pending[at].near.max(initial=-np.inf))
            self.pending.append(self.pending.pop(nearest))
        while self.pending and count < self._at_once:
            boxes = self.pending.pop(0 if broad else -1)
            useful = np.flatnonzero((boxes.open & self._alive).any(axis=1))
            if len(useful) > self._at_once - count:
                self.pending.append(boxes.take(useful[: len(useful) - (self._at_once - count)]))
                useful = useful[len(useful) - (self._at_once - count) :]
            if len(useful):
                boxes = boxes.take(useful)
                taken.append(replace(boxes, open=boxes.open & self._alive))
                count += len(useful)
        return _Part(_joined(taken), broad) if taken else None

    def _close(self, boxes: _Boxes, rows: Indices, columns: Indices) -> None:
        np.add.at(self._left, columns, -1)
        np.add.at(self._share, columns, 0.5 ** boxes.depth[rows])
        for column in np.unique(columns):
            self._closed[column].append(boxes.node[rows[columns == column]])

    def _look(self, slopes: Array, region: Region, rows: Indices, columns: Indices) -> Array:
        """Climb from the best of the corners at which the linear bounds are attained; what the units are at these."""
        if len(rows) == 0:
            return np.zeros(0)
        points = np.where(slopes > 0, region.upper[rows], region.lower[rows])
        reached = self._values(points, columns)
        order = np.lexsort((-reached, columns))
        rank = np.arange(len(order)) - np.searchsorted(columns[order], columns[order])
        best = order[rank < (BROAD_STARTS if self.broad else STARTS)]
        which = columns[best]
        width = ((region.upper - region.lower)[rows[best]] / np.maximum(self._box.upper - self._box.lower, 1e-300)).max(
            axis=1
        )
        way = upto(self._network, self._target)
        objectives = way.objectives(self._units[which], self._signs[which])
        climbed = ascend(way, objectives, points[best], self._box, Climb(CLIMB, width))
        values = self._values(climbed, which)
        for row in np.flatnonzero(values > 0).tolist():
            unit, sign = self._claims[which[row]]
            known = (unit, sign) in self._refuted
            if not known and sign * sign_at(self._network, self._target, unit, climbed[row]) > 0:
                self._refuted[unit, sign] = climbed[row]
                self._alive[which[row]] = False
        return reached

    def _values(self, points: Array, columns: Indices) -> Array:
        values = self._network.evaluate_nodes(points, only=self._names)[self._target]
        return np.asarray(values[np.arange(len(columns)), self._units[columns]] * self._signs[columns])

    def _judge(self) -> None:
        """Stop on claims that are proved or would take too long."""
        hopeless = (self._work > TRIAL) & (self._work > LIMIT * self._share)
        self._alive &= ~(hopeless | (self._left == 0))

    def _halve(self, boxes: _Boxes, lean: Array) -> None:
        boxes_left = np.flatnonzero(boxes.open.any(axis=1))
        if len(boxes_left) == 0:
            return
        boxes, lean = boxes.take(boxes_left), lean[boxes_left]
        lower, upper = boxes.region.lower, boxes.region.upper
        middle = 0.5 * lower + 0.5 * upper
        whole = self._box.upper - self._box.lower
        splittable = (lower < middle) & (middle < upper) & (upper - lower > whole * 2.0**-HALVINGS)
        axis = np.argmax(np.where(splittable, lean + 1e-12 * (upper - lower), -1.0), axis=1)
        each = np.arange(len(boxes))
        stuck = ~splittable.any(axis=1)
        if stuck.any():
            self._alive &= ~boxes.open[stuck].any(axis=0)
            self._halve(replace(boxes, open=boxes.open & self._alive), lean)
            return
        self._left += boxes.open.sum(axis=0)
        at = middle[each, axis]
        children = self._tree.split(boxes.node, axis)
        twice = np.repeat(each, 2)
        region = boxes.region.take(twice)
        lower, upper = region.lower.copy(), region.upper.copy()
        upper[2 * each, axis] = lower[2 * each + 1, axis] = at
        self.pending.append(
            _Boxes(
                Region(lower, upper, region.intervals),
                boxes.open[twice],
                np.stack([children, children + 1], axis=1).ravel(),
                boxes.depth[twice] + 1,
                boxes.near[twice],
            )
        )


class _Halvings:
    """The halvings so far, in flat lists of arrays; node k's halves are ``child[k]`` and ``child[k] + 1``."""

    def __init__(self, roots: int) -> None:
        self.count = self._roots = roots
        self._node: list[Indices] = []
        self._axis: list[Indices] = []
        self._child: list[Indices] = []

    @staticmethod
    def of(tree: Tree) -> _Halvings:
        """Those of a tree, to go on with."""
        halvings, cut = _Halvings(1), np.flatnonzero(tree.where != LEAF)
        halvings.count = len(tree.where)
        halvings._node, halvings._axis, halvings._child = [cut], [tree.unit[cut]], [tree.first[cut]]
        return halvings

    def split(self, node: Indices, axis: Indices) -> Indices:
        """Halve nodes; the first child of each."""
        child = self.count + 2 * np.arange(len(node))
        self.count += 2 * len(node)
        for kept, new in ((self._node, node), (self._axis, axis), (self._child, child)):
            kept.append(new)
        return child

    def graft(self, leaves: Indices, other: _Halvings) -> Indices:
        """Hang another's roots on leaves of this one; the new number of each of its nodes."""
        known = np.concatenate([leaves, self.count + np.arange(other.count - other._roots)])
        self.count += other.count - other._roots
        self._node += [known[node] for node in other._node]
        self._axis += other._axis
        self._child += [known[child] for child in other._child]
        return known

    def tree(self, ends: Sequence[Indices], claims: Sequence[Claim] = ()) -> Tree:
        """The tree of no more than the given nodes and what they and their siblings hang on.

        Each claim is closed at the nodes that ``ends`` has for it; without claims these only say how far it goes.
        """
        axis, child, parent = np.full((3, self.count), -1, dtype=np.int64)
        if self._node:
            node, first = np.concatenate(self._node), np.concatenate(self._child)
            axis[node], child[node] = np.concatenate(self._axis), first
            parent[first] = parent[first + 1] = node
        halved = np.zeros(self.count, dtype=bool)
        nodes = np.concatenate([*ends, np.zeros(0, dtype=np.int64)])
        level = np.unique(nodes)
        while len(level):
            level = np.unique(parent[level])
            level = level[level >= 0]
            level = level[~halved[level]]
            halved[level] = True
        levels = [np.zeros(1, dtype=np.int64)]
        while len(levels[-1]):
            first = child[levels[-1][halved[levels[-1]]]]
            levels.append(np.stack([first, first + 1], axis=1).ravel())
        order = np.concatenate(levels)
        place = np.zeros(self.count, dtype=np.int64)
        place[order] = np.arange(len(order))
        where, unit = np.where(halved[order], 0, LEAF), np.where(halved[order], axis[order], 0)
        if not claims:
            return replace(WHOLE, where=where, unit=unit)
        units, signs = np.array(claims, dtype=np.int64).T
        claim = np.repeat(np.arange(len(claims)), [len(of_claim) for of_claim in ends])
        closed = np.stack([place[nodes], claim, np.full(len(claim), PLAIN)], axis=1)
        return Tree(units, signs, where, unit, closed, np.full(len(closed), -1))


def _joined(stacks: list[_Boxes]) -> _Boxes:
    if len(stacks) == 1:
        return stacks[0]
    return _Boxes(
        Region.joined([boxes.region for boxes in stacks]),
        np.vstack([boxes.open for boxes in stacks]),
        np.concatenate([boxes.node for boxes in stacks]),
        np.concatenate([boxes.depth for boxes in stacks]),
        np.concatenate([boxes.near for boxes in stacks]),
    )
