"""Networks on images: what is decided is the channel, all positions of which a rewrite treats alike.

A channel is inactive or active if all its units are, constant if none of them varies, or none by more than a rounding
of the network's dtype. One position at one point refutes each of these, so that most channels take no work beyond a
few points, each run with its error tracked: hundreds of thousands of units become a few thousand questions. Points at
random come first, then such as climb towards what is missing in all layers at once (:mod:`~leo_core.search.chase`), as
long as that shows more. Backward bounds are for channels that are neither proved nor refuted then: of each the unit
that is furthest from a proof, and the others only where that is proved.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from leo_core.bounds.crown import Memo, backward_above
from leo_core.bounds.interval import bound_affine
from leo_core.bounds.region import Region
from leo_core.bounds.upto import SignedUnits, upto
from leo_core.network import INPUT, Affine, Network, Relu
from leo_core.search.attack import Climb, ascend
from leo_core.search.chase import Quarry, chase
from leo_core.stability.shown import Shown, first_points
from leo_core.stability.tally import Tally
from leo_core.stability.work import Work

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: So many images climb at once, at most, one for so many signs wanted; in so many steps; products spent on that in all.
_IMAGES, _FOR_ONE, _STEPS, _CHASED = 8, 4, 48, 2e11
#: They set out again where the last time showed at least this share of what was wanted.
_WORTH = 0.05
#: Steps of a point that climbs alone, and products spent on all these.
_CLIMB, _ALONE = 32, 4e10
#: Backward bounds of so many channels are worked out before it is asked whether that proves any.
_AT_ONCE = 8
#: Products spent on backward bounds at one node, and what they may take of all units of open channels at once.
_PRODUCTS, _ALL = 4e10, 4e9
#: So many numbers may the points make that are kept as witnesses of one layer's units.
_WITNESSES = 20_000_000


def has_channels(network: Network) -> bool:
    """Whether a ReLU reads values of (channels, positions)."""
    return any(network.affine(relu.source).shape for relu in network.relus)


def decide_channels(work: Work, tally: Tally) -> Region:
    """Decide every channel, and each unit of the layers that have none; what is proved then."""
    network = work.network
    seen = Shown(work)
    # first of all, so that an early end leaves something to say of each layer
    tally.ask_channels({relu.source: network.affine(relu.source).groups for relu in network.relus})
    seen.look(first_points(work))
    _climb_together(work, tally, seen)
    _climb_alone(work, tally, seen)
    region = Region.of(work.box)
    varying: dict[str, Mask] = {INPUT: work.box.lower < work.box.upper}
    for node in network.nodes:
        if isinstance(node, Relu):
            stays = (region.intervals[node.source][1] <= 0) & (node.slope == 0)
            varying[node.name] = varying[node.source] & ~stays
            continue
        region = region.tightened(node.name, *bound_affine(network, node, region))
        varying[node.name] = _reached(node, varying)
        if not tally.follows(node.name):
            continue
        tally.begin(node.name, *region.intervals[node.name])
        if not work.budget.expired and set(node.sources) != {INPUT}:
            region = _bounded(work, tally, seen, node, region)
        region = tally.settled(node.name, region)
        tally.decide_channels(node.name, seen.channels(node, varying[node.name], region.intervals[node.name]))
        if not node.shape and 2 * node.size * network.input_size <= _WITNESSES:
            seen.tell(tally, node)
    return region


def _climb_together(work: Work, tally: Tally, seen: Shown) -> None:
    """Points that climb towards the signs that intervals allow and no point shows."""
    network, rng, affordable, turn = work.network, np.random.default_rng(work.seed), _CHASED, 0
    wanted = seen.wanted(tally.known())
    left = _count(network, wanted)
    while left and not work.budget.expired:
        images = min(_IMAGES, -(-left // _FOR_ONE), len(seen.points))
        cost = 3 * images * max(1, network.operations)
        steps = int(min(_STEPS, affordable // cost))
        if steps < 1:
            return
        affordable -= steps * cost
        tally.say(f"looking for inputs that show {left:,} more signs of channels")
        starts = np.array([seen.points[row] for row in rng.permutation(len(seen.points))[:images]])
        quarry = Quarry(network, wanted, work.seed + turn)
        seen.look(chase(quarry, work.box, starts, steps, lambda: work.budget.expired))
        wanted, before, turn = seen.wanted(tally.known()), left, turn + 1
        left = _count(network, wanted)
        if before - left < _WORTH * before:
            return


def _climb_alone(work: Work, tally: Tally, seen: Shown) -> None:
    """For each sign that is still missing a point that climbs for it alone, at nodes where that is cheap enough."""
    network, affordable, known = work.network, _ALONE, tally.known()
    for node in (*network.nodes, *network.nodes):  # twice: the second time from where the first led, and other claims
        if not isinstance(node, Affine) or node.name not in known:
            continue
        if work.budget.expired or not seen.points:
            return
        claims = seen.claims(node, known[node.name])
        way = upto(network, node.name)
        cost = 3 * _CLIMB * way.products * len(claims)
        if not claims or cost > affordable:
            continue
        affordable -= cost
        tally.say(f"looking for {len(claims):,} signs of channels, one by one")
        units, starts = seen.nearest(node, claims)
        asked = SignedUnits(units, np.array([sign for sign, _ in claims], dtype=np.float64))
        for part in way.chunks(len(claims)):
            if work.budget.expired:
                return
            objectives, climb = way.signed(asked[part]), Climb(_CLIMB, 0.5)
            seen.look(ascend(way, objectives, starts[part], work.box, climb, lambda: work.budget.expired))


def _count(network: Network, wanted: Mapping[str, Mask]) -> int:
    """Of how many channels a sign is wanted, each sign counted."""
    return sum(int(mask.reshape(2, network.affine(name).groups, -1).any(axis=2).sum()) for name, mask in wanted.items())


def _bounded(work: Work, tally: Tally, seen: Shown, node: Affine, region: Region) -> Region:
    """Backward bounds for the channels of a node that are neither proved nor refuted, while they prove any."""
    network, way, memo = work.network, upto(work.network, node.name), Memo()
    affordable = int(_PRODUCTS / max(1, way.products))
    low, high = (side.copy() for side in region.intervals[node.name])

    def proved(asked: SignedUnits) -> Mask:
        above = backward_above(network, node.name, region, asked, memo, lambda: work.budget.expired)
        units, up = asked.units, asked.signs > 0
        high[units[up]] = np.fmin(high[units[up]], above[up])
        low[units[~up]] = np.fmax(low[units[~up]], -above[~up])
        return np.asarray(above <= 0)

    units = np.flatnonzero(seen.open(node, (low, high)))
    if 2 * len(units) * way.products <= _ALL:
        for sign in (1.0, -1.0):
            proved(SignedUnits.alike(units, sign))
    claims = seen.claims(node, (low, high))
    for start in range(0, len(claims), _AT_ONCE):
        some = claims[start : start + _AT_ONCE]
        affordable -= len(some)
        if affordable < 0 or work.budget.expired:
            break
        closed = proved(SignedUnits.of((int(units[0]), sign) for sign, units in some))
        for sign, units in (claim for claim, done in zip(some, closed, strict=True) if done):
            if len(units) - 1 <= affordable:
                affordable -= len(units) - 1
                proved(SignedUnits.alike(units[1:], sign))
        if not closed.any():  # those that are further from a proof are not nearer to one
            break
    region = region.tightened(node.name, low, high)
    tally.bound(node.name, *region.intervals[node.name])
    return region


def _reached(node: Affine, varying: Mapping[str, Mask]) -> Mask:
    """The units of an affine node that read something that varies."""
    counts = [linear.support().apply(varying[source].astype(np.float32)) for source, linear in node.reads]
    return np.asarray(np.sum(counts, axis=0) > 0)
