"""Branch and bound on the difference of two networks: a proof that it is nowhere above t, or a point where it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from leo_core.bounds.interval import bound_affine
from leo_core.bounds.region import Region
from leo_core.checker.trees import Tree
from leo_core.compare.joint import DIFFERENCE, EXCESS, Arrangement, Side, exceeding, favoured_corners, sides
from leo_core.compare.seen import Seen
from leo_core.domain import Box
from leo_core.execution.budget import Budget
from leo_core.execution.executor import Executor
from leo_core.milp.checked import CheckedSolver
from leo_core.network import Network
from leo_core.search.boxes import FEW_INPUTS, split_box
from leo_core.search.evidence import WHOLE, uncut
from leo_core.search.settle import Attempt, Settler

Array = NDArray[np.float64]

#: Both sides are near enough at this ratio.
_NEAR = 1.01
#: Thresholds tried, at most; and the nodes that the prover gets for one output.
_TRIES, _NODES = 40, 20_000
#: Seconds that the prover gets for one side before the others have had their turn; four times that in the next round.
_TURN = 2.0


def few_inputs(box: Box) -> bool:
    """Whether so few inputs vary that a box can be split."""
    return int(np.count_nonzero(box.lower < box.upper)) <= FEW_INPUTS


@final
@dataclass(frozen=True, eq=False)
class Proof:
    """A tree whose claims are of the node EXCESS of :func:`.joint.exceeding`, for these rows and thresholds."""

    arrangement: Arrangement
    rows: tuple[Side, ...]
    thresholds: Array
    tree: Tree


@final
@dataclass(frozen=True, eq=False)
class SideBySide:
    """Two networks side by side, what is known of them on a box, and the means to find out more."""

    joint: Network
    arrangement: Arrangement
    region: Region
    solver: CheckedSolver
    seed: int
    executor: Executor

    @property
    def bounds(self) -> dict[Side, float]:
        """What is proved of each sign·output."""
        low, high = self.region.intervals[DIFFERENCE]
        return {(unit, sign): float(high[unit] if sign > 0 else -low[unit]) for unit, sign in sides(self.joint)}

    def proof(self, asked: Mapping[Side, float]) -> Proof:
        """For claims that bounds alone show."""
        tree = uncut([(row, 1) for row in range(len(asked))], {}) if asked else WHOLE
        return Proof(self.arrangement, tuple(asked), np.array(list(asked.values())), tree)

    @property
    def box(self) -> Box:
        """Where all of it holds."""
        return Box(self.region.lower, self.region.upper)

    @property
    def few_inputs(self) -> bool:
        """Whether so few inputs vary that the box can be split."""
        return few_inputs(self.box)


@final
@dataclass(frozen=True, eq=False)
class Settled:
    """The sides that are proved never to be above their thresholds, and the proofs; or that one is (``refuted``)."""

    proved: tuple[Side, ...]
    proofs: tuple[Proof, ...]
    refuted: bool = False
    halvings: Tree = WHOLE


def narrowed(work: SideBySide, budget: Budget, seen: Seen, upper: float) -> Iterator[float]:
    """Ever lower upper bounds on |output| of a joint network, as near to what is ``seen`` as time allows.

    ``seen`` learns of every point found. Thresholds that resist proof and witness are passed over upwards.
    """
    seen.look_at(favoured_corners(work.joint, work.region))
    bounds = {row: min(upper, bound) for row, bound in work.bounds.items()}
    stuck = 0.0  # no threshold below this can be settled
    yield max(0.0, *bounds.values())
    for _ in range(_TRIES):
        top, bottom = max(bounds.values()), max(seen.largest, stuck)
        if budget.expired or top <= _NEAR * bottom or top <= 0 or not np.isfinite(top):
            break  # an infinite bound has no middle
        threshold = 0.5 * top + 0.5 * bottom if bottom > 0 else 0.25 * top
        asked = {row: threshold for row, bound in bounds.items() if bound > threshold}
        before = seen.largest
        for row in settled(work, asked, budget, seen).proved:
            bounds[row] = threshold
        if seen.largest <= max(before, threshold) and any(bounds[row] > threshold for row in asked):
            stuck = threshold
        yield max(0.0, *bounds.values())


def settled(work: SideBySide, asked: Mapping[Side, float], budget: Budget, seen: Seen) -> Settled:
    """Prove for each side that it is nowhere above its threshold; stops at a point where one is.

    Sides are proved together on parts of the box where inputs are few; then one by one.
    """
    share = budget.at_most(0.6 * budget.remaining) if np.isfinite(budget.remaining) else budget
    found = on_boxes(work, asked, share, seen)
    if found.refuted:
        return found
    left = {side: threshold for side, threshold in asked.items() if side not in found.proved}
    more = one_by_one(work, left, budget, seen)
    return Settled((*found.proved, *more.proved), (*found.proofs, *more.proofs), more.refuted)


def on_boxes(work: SideBySide, asked: Mapping[Side, float], budget: Budget, seen: Seen, start: Tree = WHOLE) -> Settled:
    """All sides at once on parts of the box, where inputs are few; ``start`` are halvings to go on from."""
    if not work.few_inputs or not asked:
        return Settled((), ())
    question = _Question.of(work, asked)
    claims = [(row, 1) for row in range(len(question.rows))]
    proved: list[Side] = []
    tree: Tree | None = None
    for cut in split_box(question.network, EXCESS, claims, question.region, work.box, budget, work.executor, start):
        proved += [question.rows[row] for row, _ in cut.proved]
        tree = cut.tree or tree  # it is the evidence for all so far
        start = cut.halvings
        for point in cut.refuted.values():
            seen.look_at(point)
        if cut.refuted:
            return Settled(tuple(proved), question.proofs(tree), True, start)
    return Settled(tuple(proved), question.proofs(tree), halvings=start)


def one_by_one(work: SideBySide, asked: Mapping[Side, float], budget: Budget, seen: Seen) -> Settled:
    """Each side by itself, by splits on phases and, as a hint, by the MILP; the others have their turn before long."""
    proved: list[Side] = []
    proofs: list[Proof] = []
    if not asked:
        return Settled((), ())
    question = _Question.of(work, asked)
    settler = Settler(question.network, EXCESS, question.region, work.solver.solver, "proved", work.seed)
    left, turn = list(range(len(question.rows))), _TURN
    try:
        while left and not budget.expired:
            going: list[int] = []
            for row in left:
                if budget.expired:
                    break
                last = turn > _TURN
                found = settler(Attempt(row, 1, _NODES, last, min(turn, budget.remaining)), budget)
                if found.tree is not None:
                    proved.append(question.rows[row])
                    proofs += question.proofs(found.tree)
                elif found.witness is not None:
                    seen.look_at(found.witness)
                    return Settled(tuple(proved), tuple(proofs), True)
                elif not (found.ended and last):
                    going.append(row)
            left, turn = going, 4 * turn
    finally:
        settler.close()
    return Settled(tuple(proved), tuple(proofs))


@final
@dataclass(frozen=True, eq=False)
class _Question:
    """Claims about sides of a joint network, as a network whose units are never positive where they hold."""

    network: Network
    region: Region
    arrangement: Arrangement
    rows: tuple[Side, ...]
    thresholds: Array

    @staticmethod
    def of(work: SideBySide, asked: Mapping[Side, float]) -> _Question:
        rows, thresholds = tuple(asked), np.array(list(asked.values()))
        network = exceeding(work.joint, rows, thresholds)
        region = work.region.tightened(EXCESS, *bound_affine(network, network.affine(EXCESS), work.region))
        return _Question(network, region, work.arrangement, rows, thresholds)

    def proofs(self, tree: Tree | None) -> tuple[Proof, ...]:
        """What a tree about these claims shows."""
        return () if tree is None else (Proof(self.arrangement, self.rows, self.thresholds, tree),)
