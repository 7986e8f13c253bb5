"""The default strategy: for all units of a layer at once, the cheapest proof or witness first.

Interval → backward linear bounds → points from a sample of the box, corners and gradient ascent → bounds with
optimised slopes, whose corners are tried too → splitting the input box, where inputs are few → the prover →
the MILP, which says where to look. What one layer proves makes the bounds of the next tighter.
"""

from __future__ import annotations

import math
import time
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from leo_core.bounds.crown import backward_interval
from leo_core.bounds.interval import bound_affine
from leo_core.bounds.region import Region
from leo_core.bounds.slopes import improved
from leo_core.bounds.upto import SignedUnits, upto
from leo_core.execution.budget import Patience
from leo_core.execution.executor import LOST
from leo_core.network import Affine
from leo_core.search.attack import Climb, ascend, scatter
from leo_core.search.boxes import FEW_INPUTS, split_box
from leo_core.search.evidence import Claim, uncut
from leo_core.search.prover import NODES
from leo_core.search.settle import Attempt, Finding, Settler
from leo_core.search.witness import signs_at
from leo_core.stability.channels import decide_channels, has_channels
from leo_core.stability.recall import Recall
from leo_core.stability.tally import Tally
from leo_core.stability.work import Work

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

#: Points, and for each unit of an affine node the number of the one where it is smallest, and largest.
Sample: TypeAlias = tuple[Array, Indices, Indices]

#: Points at random, and as many corners, looked at before anything else.
SAMPLES = 500
#: Steps of gradient ascent per claim, and of descent on slopes.
CLIMB, SLOPES = Climb(20), 30
#: Nodes that the prover gets for a claim before the MILP is asked.
QUICK_NODES = 1_000


#: Products that bounds with better slopes may take for a layer behind convolutions.
BEHIND_IMAGES = 1e11


def decide_by_cascade(work: Work, tally: Tally) -> None:
    """Decide every ReLU of a network, recording verdicts and bounds in ``tally`` as they are found.

    Twice through the layers, so that a hard claim keeps no easy one behind it waiting: first what is cheap, then,
    where claims are open, all there is; what that proves makes the bounds of later layers tighter.
    """
    patience = Patience(work.limits.open_seconds)
    try:
        if has_channels(work.network) and not work.every_unit:
            _behind_images(work, tally, patience, decide_channels(work, tally))
        else:
            _all_units(work, tally, patience)
    finally:
        if patience.given_up:
            each, together = work.limits.unit_seconds, work.limits.open_seconds
            also = f", those that stay open about {together:g} s in all" if together < math.inf else ""
            tally.note(
                f"{len(patience.given_up)} ReLU(s) were given up: any one may take {each:g} s{also}; "
                "--unit-time-limit sets another limit for each (0: none)"
            )


def _all_units(work: Work, tally: Tally, patience: Patience) -> None:
    network, starts = work.network, _Starts(work)
    region = Region.of(work.box)
    for thorough in (False,) if work.cheaply else (False, True):
        changed = not thorough
        for node in network.nodes:
            if work.budget.expired:
                return  # every layer has its intervals already
            if not isinstance(node, Affine):
                continue
            if changed:
                region = region.tightened(node.name, *bound_affine(network, node, region))
            if not tally.follows(node.name):
                continue
            layer = _Layer(work, node.name, region, tally, patience)
            if changed:
                layer.glance(starts.of(node.name))
            if thorough and tally.open_claims(node.name):
                layer.dig()
                changed = True
            region = tally.settled(node.name, layer.region)


def _behind_images(work: Work, tally: Tally, patience: Patience, region: Region) -> None:
    """What is left of the layers without channels, where bounds with better slopes are cheap enough."""
    network = work.network
    changed = False
    for node in network.nodes:
        if not isinstance(node, Affine) or node.shape:
            continue
        if changed:
            region = region.tightened(node.name, *bound_affine(network, node, region))
        claims = tally.open_claims(node.name) if tally.follows(node.name) else []
        products = 2 * SLOPES * len(claims) * upto(network, node.name).products
        if claims and products <= BEHIND_IMAGES and not work.budget.expired:
            layer = _Layer(work, node.name, region, tally, patience)
            layer.press()
            region, changed = tally.settled(node.name, layer.region), True


class _Starts:
    """For every unit, the sampled point at which it is smallest and the one at which it is largest."""

    def __init__(self, work: Work) -> None:
        network = work.network
        self._points = scatter(work.box, SAMPLES, work.seed)
        names = [node.name for node in network.nodes if isinstance(node, Affine)]
        #: Per node and sign, the largest sign·a seen and the point where.
        self._seen = {
            (name, sign): (np.full(network.size(name), -np.inf), np.zeros(network.size(name), dtype=np.int64))
            for name in names
            for sign in (-1, 1)
        }
        for chunk in upto(network, names[-1]).chunks(len(self._points)):
            if work.budget.expired:
                break
            values = network.evaluate_nodes(self._points[chunk])
            for (name, sign), (best, at) in self._seen.items():
                reached = sign * values[name]
                first = reached.argmax(axis=0)
                most = reached[first, np.arange(len(first))]
                better = most > best
                best[better], at[better] = most[better], first[better] + chunk.start

    def of(self, name: str) -> Sample:
        return self._points, self._seen[name, -1][1], self._seen[name, 1][1]


class _Layer:
    """One affine node that a ReLU reads, and what is proved of it so far (``region``)."""

    def __init__(self, work: Work, target: str, region: Region, tally: Tally, patience: Patience) -> None:
        self._work, self._network, self._box, self._budget = work, work.network, work.box, work.budget
        self._target, self._tally, self._patience = target, tally, patience
        self._unit_seconds = work.limits.unit_seconds
        self._recall = Recall(work, target, tally.note)
        self.region = region

    def glance(self, sample: Sample) -> None:
        """All claims at once: bounds, the sampled points, climbing, slopes."""
        self._tally.begin(self._target, *self.region.intervals[self._target])
        self._bound_backward()
        self._look_at(sample)
        self._climb(sample)
        self._improve_slopes()

    def press(self) -> None:
        """Better slopes, and points where they lead."""
        self._tally.begin(self._target, *self.region.intervals[self._target])
        self._improve_slopes()

    def dig(self) -> None:
        """What takes longer, for the claims that are still open."""
        self._tally.begin(self._target, *self.region.intervals[self._target])
        self._remember()
        if int(np.count_nonzero(self._box.lower < self._box.upper)) <= FEW_INPUTS:
            self._halve_the_box()
        spent: dict[int, float] = {}
        if self._work.trust == "proved":
            self._attempt(QUICK_NODES, spent, ask=False)
        self._attempt(NODES, spent, ask=True)

    def _expired(self) -> bool:
        return self._budget.expired

    def _claims(self) -> list[Claim]:
        return [] if self._budget.expired else self._tally.open_claims(self._target)

    def _bound_backward(self) -> None:
        low, high = self.region.intervals[self._target]
        units = np.flatnonzero((low < 0) & (high > 0))
        if len(units):
            low, high = low.copy(), high.copy()
            low[units], high[units] = backward_interval(self._network, self._target, self.region, units, self._expired)
            self._tighten(low, high)

    def _look_at(self, sample: Sample) -> None:
        points, smallest, largest = sample
        asked = SignedUnits.of(self._claims())
        used, at = np.unique(_extreme(asked, smallest, largest), return_inverse=True)
        for chunk in upto(self._network, self._target).chunks(len(used)):
            if self._budget.expired:
                return
            mine = np.flatnonzero((at >= chunk.start) & (at < chunk.stop))
            self._refute(asked[mine], points[used[chunk]], at[mine] - chunk.start)

    def _climb(self, sample: Sample) -> None:
        points, smallest, largest = sample
        asked = SignedUnits.of(self._claims())
        self._attack(asked, points[_extreme(asked, smallest, largest)])

    def _improve_slopes(self) -> None:
        claims = self._claims()
        low, high = (side.copy() for side in self.region.intervals[self._target])
        corners = np.zeros((len(claims), self._box.size))
        way = upto(self._network, self._target)
        for chunk in way.chunks(len(claims)):
            if self._budget.expired:
                return
            asked = SignedUnits.of(claims[chunk])
            units, signs, up = asked.units, asked.signs, asked.signs > 0
            bound = improved(self._network, self._target, way.signed(asked), self.region, SLOPES, self._expired)
            high[units[up]] = np.minimum(high[units[up]], bound.upper[up])
            low[units[~up]] = np.maximum(low[units[~up]], -bound.upper[~up])
            corners[chunk] = np.where(bound.slope_at_input > 0, self._box.upper, self._box.lower)
            for row in np.flatnonzero(bound.upper <= 0):
                claim, y = (int(units[row]), int(signs[row])), bound.multipliers
                self._tally.prove(self._target, uncut([claim], {name: rows[row, None] for name, rows in y.items()}))
        self._tighten(low, high)
        still = self._claims()
        rows = np.array([row for row, claim in enumerate(claims) if claim in set(still)], dtype=np.int64)
        self._attack(SignedUnits.of(claims[row] for row in rows), corners[rows])

    def _remember(self) -> None:
        """What an earlier run found by what follows, where it still holds."""
        for unit, sign in self._claims():
            if (point := self._recall.witness((unit, sign))) is not None:
                self._tally.refute(self._target, unit, sign, point)
            elif (tree := self._recall.proof((unit, sign), self.region)) is not None:
                self._tally.prove(self._target, tree)
            elif self._recall.claimed((unit, sign)):
                self._tally.trust(self._target, unit, sign)

    def _halve_the_box(self) -> None:
        claims = [claim for claim in self._claims() if not self._recall.tried(self.region, "boxes", *claim)]
        if not claims:
            return
        units = len({unit for unit, _ in claims})
        budget = self._budget.at_most(min(self._unit_seconds * units, self._patience.seconds / 2))
        begun = time.monotonic()
        work, start = self._work, self._recall.halvings()
        for cut in split_box(self._network, self._target, claims, self.region, self._box, budget, work.executor, start):
            for claim, point in cut.refuted.items():
                self._tally.refute(self._target, *claim, point)
                self._recall.keep(claim, None, point)
            if cut.tree is not None:
                self._tally.prove(self._target, cut.tree)
            for claim in cut.stuck:
                self._recall.keep_tried(self.region, "boxes", *claim)
            self._recall.keep_halvings(cut.halvings)
        if self._claims():
            self._patience.lose(time.monotonic() - begun)

    def _attempt(self, nodes: int, spent: dict[int, float], *, ask: bool) -> None:
        """Each claim by itself; ``spent`` holds the seconds that a unit took so far."""
        waiting = self._claims()[::-1]
        if not waiting:
            return

        def draw() -> Attempt | None:
            while waiting:
                unit, sign = waiting.pop()
                if (unit, sign) not in self._tally.open_claims(self._target):  # its other claim settled it
                    continue
                left = min(self._unit_seconds, self._patience.each) - spent.get(unit, 0.0)
                if left <= 0:
                    self._give_up(unit, spent.get(unit, 0.0) if ask else 0.0)
                    continue
                if not self._recall.tried(self.region, nodes, ask, unit, sign):
                    return Attempt(unit, sign, nodes, ask, left)
            return None

        work = self._work
        arguments = (self._network, self._target, self.region, work.solver.solver, work.trust, work.seed)
        for attempt, finding in work.executor.map(Settler, arguments, draw, self._budget):
            if finding is LOST:
                self._tally.note(
                    f"unit {attempt.unit} of '{self._target}' is undecided: "
                    "its workers died, ran out of memory, or overran the time limit"
                )
                continue
            spent[attempt.unit] = spent.get(attempt.unit, 0.0) + finding.seconds
            if finding.witness is None and finding.tree is None and attempt.ask:
                self._give_up(attempt.unit, finding.seconds, told=finding.seconds >= attempt.seconds)
            self._take(attempt, finding)

    def _give_up(self, unit: int, seconds: float, *, told: bool = True) -> None:
        """A claim took so many seconds in vain; ``told``: and might have taken more."""
        self._patience.lose(seconds)
        if told and not self._budget.expired:
            self._patience.given_up.add((self._target, unit))

    def _take(self, attempt: Attempt, finding: Finding) -> None:
        claim = (attempt.unit, attempt.sign)
        for note in finding.notes:
            self._tally.note(note)
        if finding.witness is not None:
            self._tally.refute(self._target, *claim, finding.witness)
        elif finding.tree is not None:
            self._tally.prove(self._target, finding.tree)
        elif finding.claimed:
            self._tally.trust(self._target, *claim)
            self._recall.keep_claimed(claim)
        elif finding.ended:
            self._recall.keep_tried(self.region, attempt.nodes, attempt.ask, *claim)
        self._recall.keep(claim, finding.tree, finding.witness)

    def _attack(self, asked: SignedUnits, starts: Array) -> None:
        way = upto(self._network, self._target)
        for chunk in way.chunks(len(asked)):
            if self._budget.expired:
                return
            mine = asked[chunk]
            reached = ascend(way, way.signed(mine), starts[chunk], self._box, CLIMB, self._expired)
            self._refute(mine, reached, np.arange(len(reached)))

    def _refute(self, asked: SignedUnits, points: Array, at: Indices) -> None:
        """Record the claims whose point, ``points[at[k]]``, is a witness beyond doubt."""
        found = signs_at(self._network, self._target, asked.units, points, at, self._expired)
        for k in np.flatnonzero(found * asked.signs > 0):
            self._tally.refute(self._target, int(asked.units[k]), int(asked.signs[k]), points[at[k]])

    def _tighten(self, low: Array, high: Array) -> None:
        self.region = self.region.tightened(self._target, low, high)
        self._tally.bound(self._target, *self.region.intervals[self._target])


def _extreme(asked: SignedUnits, smallest: Indices, largest: Indices) -> Indices:
    """For each, the point at which it is largest."""
    return np.where(asked.signs > 0, largest[asked.units], smallest[asked.units])
