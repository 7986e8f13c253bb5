"""In what order two networks are compared: how far apart they are, or whether they are within given limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from leo_core.bounds.region import Region
from leo_core.checker.difference import Roles
from leo_core.compare.joint import DIFFERENCE, Arrangement, Side, favoured_corners, joint_region
from leo_core.compare.narrow import Proof, Settled, SideBySide, narrowed, on_boxes, one_by_one
from leo_core.compare.pair import Pair
from leo_core.compare.pairing import DUST, Paired, alike, paired
from leo_core.compare.seen import Seen
from leo_core.execution.budget import Budget
from leo_core.network import Network
from leo_core.rewrite import Rewritten
from leo_core.search.evidence import WHOLE
from leo_core.within import Within

Array = NDArray[np.float64]

#: Where pairing units brings the bound below this share of the joint one, splitting the joint network is hopeless; it
#: is tried all the same where no more than this share of the bound was seen.
_PAIRED = 0.01
#: Shares of the time that is left: to look around, to bound both networks, for boxes before and after pairing, to pair.
_LOOKING, _BOUNDING, _BOXES, _AGAIN, _PAIRING = 0.1, 0.3, 0.4, 0.5, 0.3
#: The same where nothing is asked.
_PAIRED_AT_MOST = 0.5
#: What is asked is proved with so much to spare, relative to the limit: the checker rounds otherwise.
_SPARE = 2.0**-30


@final
@dataclass(frozen=True, eq=False)
class Evidence:
    """What is proved of the question: all of it (``complete``), and |first − second| ≤ ``upper`` at every output.

    ``proofs`` show it together, those with what networks share by ``pairing``; or that does alone. Where there is what
    both were ``rewritten`` to, they are about that.
    """

    upper: float = np.inf
    complete: bool = False
    proofs: tuple[Proof, ...] = ()
    pairing: Paired | None = None
    rewritten: tuple[Rewritten, ...] = ()


#: The networks as they are given, nothing shared.
NOT_PAIRED = Arrangement()


def share_of(budget: Budget, share: float) -> Budget:
    """A part of what is left; all of it where that has no end."""
    return budget.at_most(share * budget.remaining) if np.isfinite(budget.remaining) else budget


def bounded(pair: Pair, budget: Budget, seen: Seen) -> Iterator[float]:
    """Upper bounds on max |first − second|, as they are found; ``seen`` learns of every point looked at."""
    seen.look_around(pair.seed, share_of(budget, _LOOKING))
    seen.climb_on(share_of(budget, _LOOKING))
    pair.note("pairing units that both networks have")
    pairing = alike(pair.first, pair.second, pair.box)
    if pairing is None or pairing.bound > seen.largest:
        if pairing is not None:
            yield pairing.bound
        guess = paired(pair, share_of(budget, _PAIRED_AT_MOST), seen.largest)
        pairing = guess if pairing is None or guess.bound <= pairing.bound else pairing
    yield (upper := pairing.bound)
    if upper <= seen.largest:
        return
    pair.note("bounding both networks side by side")
    work = _work(pair, Arrangement(pairing.old is not pair.first, pairing.shared), share_of(budget, _BOUNDING))
    beside = max(0.0, *work.bounds.values())
    yield (upper := min(upper, beside))
    joint = work.joint
    reach = float(work.region.reach(joint, joint.affine(DIFFERENCE).sources[0]).max(initial=0.0))
    unseen = seen.largest < _PAIRED * upper and upper > DUST * max(1.0, reach)
    if unseen or upper >= _PAIRED * beside:
        yield from narrowed(work, budget, seen, upper)


def decided(pair: Pair, within: Within, budget: Budget, seen: Seen) -> Iterator[Evidence]:
    """What is proved of the question, as it is found; ends once it is decided, or nothing helps.

    First what is quick: points, bounds, parts of the box. Units are paired late, as that can take long; then splits.
    """
    seen.look_around(pair.seed, share_of(budget, _LOOKING))
    if seen.exceeded is not None:
        return
    asked = _Asked(within)
    pairing = alike(pair.first, pair.second, pair.box)
    if pairing is not None and (pairing.bounds <= within.provable).all():
        yield Evidence(pairing.bound, True, pairing=pairing)
        return
    pair.note("bounding both networks side by side")
    work = _work(pair, NOT_PAIRED, share_of(budget, _BOUNDING))
    yield asked.bounded(work)
    if asked.open(seen):
        seen.look_at(favoured_corners(work.joint, work.region))
        seen.climb_on(share_of(budget, _LOOKING))
    if asked.open(seen) and work.few_inputs:
        pair.note("splitting the box")
        yield asked.settled(on_boxes(work, asked.left, share_of(budget, _BOXES), seen))
    if not asked.open(seen) or budget.expired:
        return
    pair.note("pairing units that both networks have")
    pairing = paired(pair, share_of(budget, _PAIRING), seen.largest)
    if (pairing.bounds <= within.provable).all():
        yield Evidence(pairing.bound, True, pairing=pairing)
        return
    if pairing.shared:
        work = _work(pair, Arrangement(pairing.old is not pair.first, pairing.shared), share_of(budget, _BOUNDING))
        asked.halvings = WHOLE
        asked.pairing = pairing
        yield asked.bounded(work)
    yield from _split(pair, asked, work, budget, seen)


def _split(pair: Pair, asked: _Asked, work: SideBySide, budget: Budget, seen: Seen) -> Iterator[Evidence]:
    """What parts of the box show of what is left, and then splits on phases."""
    if asked.open(seen):
        yield asked.settled(on_boxes(work, asked.turned(work), share_of(budget, _AGAIN), seen, asked.halvings))
    if asked.open(seen) and not budget.expired:
        pair.note("splitting on phases")
        yield asked.settled(one_by_one(work, asked.turned(work), budget, seen))


def decided_on(
    region_of: Callable[[Network], Region], pair: Pair, within: Within, evidence: Evidence, budget: Budget
) -> Evidence:
    """What is proved on other bounds of both networks side by side, arranged as some evidence had them in the end."""
    arrangement = evidence.proofs[-1].arrangement if evidence.proofs else NOT_PAIRED
    joint = arrangement.joint(pair.first, pair.second)
    work = SideBySide(joint, arrangement, region_of(joint), pair.solver, pair.seed, pair.executor)
    seen = Seen(pair.first, pair.second, pair.box, pair.listener, within)
    asked = _Asked(within)
    asked.pairing = evidence.pairing
    *_, last = asked.bounded(work), *_split(pair, asked, work, budget, seen)
    return last


def identical(network: Network) -> Evidence:
    """What shows that a network is itself."""
    kept = {relu.name: (relu.name, np.arange(relu.size)) for relu in network.relus}
    pairing = Paired(network, network, np.zeros(network.output_size), {}, Roles(kept))
    return Evidence(0.0, True, pairing=pairing)


def _work(pair: Pair, arrangement: Arrangement, budget: Budget) -> SideBySide:
    joint = arrangement.joint(pair.first, pair.second)
    return SideBySide(joint, arrangement, joint_region(joint, pair.box, budget), pair.solver, pair.seed, pair.executor)


class _Asked:
    """Which sides of first − second are still open (``left``, with what is to be proved of each), and what shows the
    others."""

    def __init__(self, within: Within) -> None:
        self._limits = within.provable
        self._possible = bool((self._limits >= 0).all())
        self.left: dict[Side, float] = {
            (unit, sign): max(0.0, limit * (1.0 - _SPARE))
            for unit, limit in enumerate(self._limits.tolist())
            if limit < np.inf
            for sign in (1.0, -1.0)
        }
        self._bounds: dict[Side, float] = {}
        self._proofs: tuple[Proof, ...] = ()
        self._refuted = False
        self.pairing: Paired | None = None
        self.halvings = WHOLE

    def open(self, seen: Seen) -> bool:
        """Whether there is more to find out."""
        return bool(self.left) and seen.exceeded is None and not self._refuted

    def turned(self, work: SideBySide) -> dict[Side, float]:
        """What is left, as the arrangement at work has it."""
        return {work.arrangement.side(side): threshold for side, threshold in self.left.items()}

    def bounded(self, work: SideBySide) -> Evidence:
        """With what bounds alone show."""
        found = {work.arrangement.side(side): bound for side, bound in work.bounds.items()}
        self._bounds = {side: min(bound, self._bounds.get(side, np.inf)) for side, bound in found.items()}
        shown = {side: threshold for side, threshold in self.left.items() if found[side] <= threshold}
        proofs = (work.proof({work.arrangement.side(side): threshold for side, threshold in shown.items()}),)
        return self._with(shown, proofs if shown else ())

    def settled(self, found: Settled) -> Evidence:
        """With what splits show."""
        self._refuted, self.halvings = self._refuted or found.refuted, found.halvings
        sides = [proof.arrangement.side(side) for proof in found.proofs[:1] for side in found.proved]
        return self._with({side: self.left[side] for side in sides}, found.proofs)

    def _with(self, shown: dict[Side, float], proofs: tuple[Proof, ...]) -> Evidence:
        self._bounds |= {side: min(self._bounds[side], self._limits[side[0]]) for side in shown}
        self._proofs += proofs
        self.left = {side: threshold for side, threshold in self.left.items() if side not in shown}
        upper = max(0.0, *self._bounds.values())
        return Evidence(upper, self._possible and not self.left, self._proofs, self.pairing)
