"""Networks on images: what is decided is the channel, all positions of which a rewrite treats alike.

A channel is inactive or active if all its units are, constant if none of them varies, or none by more than a rounding
of the network's dtype. One position at one point refutes each of these, so that most channels take no work beyond a
few points, each run with outward-rounded bounds: hundreds of thousands of units become a few thousand questions.
Gradient ascent and backward bounds are for channels that are neither proved nor refuted then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from leo_core.bounds.crown import backward_interval
from leo_core.bounds.interval import bound_affine, bound_affine_stack
from leo_core.bounds.region import Interval, Region, leak
from leo_core.bounds.upto import upto
from leo_core.network import INPUT, Affine, Network, Relu
from leo_core.search.attack import ascend, scatter
from leo_core.stability.tally import Tally
from leo_core.stability.verdict import Channels
from leo_core.stability.work import Work

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: Points tried in plain floats, at most and at least, and products spent on that.
_MOST, _FEWEST, _TRIED = 256, 32, 4e9
#: Images are the same over blocks of so many positions, and differ by so many times the width of the box, cut off.
_BLOCKS, _CONTRASTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 96), (0.3, 1.0, 2.0, 5.0, 50.0)
#: Steps of gradient ascent for a channel that no point refutes; then, from where that led, so many more.
_CLIMBS = (8, 24)
#: Backward bounds of so many units are worked out before it is asked whether that decides any.
_AT_ONCE = 16
#: So many numbers may the points make that are kept as witnesses of one layer's units.
_WITNESSES = 20_000_000
#: Numbers held at once while points are run, and products spent on backward bounds or ascent at one node.
_HELD, _PRODUCTS = 20_000_000, 4e10


def has_channels(network: Network) -> bool:
    """Whether a ReLU reads values of (channels, positions)."""
    return any(network.affine(relu.source).shape for relu in network.relus)


def decide_channels(work: Work, tally: Tally) -> Region:
    """Decide every channel, and each unit of the layers that have none; what is proved then."""
    network = work.network
    seen = _Seen(network, work)
    # first of all, so that an early end leaves something to say of each layer
    tally.ask_channels({relu.source: network.affine(relu.source).groups for relu in network.relus})
    seen.look(_points(work))
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
        if not work.budget.expired:
            region = _pursued(work, tally, seen, node, region)
        region = tally.settled(node.name, region)
        tally.decide_channels(node.name, seen.channels(node, varying[node.name], region.intervals[node.name]))
        if not node.shape and 2 * node.size * network.input_size <= _WITNESSES:
            seen.tell(tally, node)
    return region


def _pursued(work: Work, tally: Tally, seen: _Seen, node: Affine, region: Region) -> Region:
    """Ascent, then backward bounds, for the channels of a node that are neither proved nor refuted."""
    network, way = work.network, upto(work.network, node.name)
    affordable = int(_PRODUCTS / (2 * max(1, way.products)))
    for steps in _CLIMBS:
        claims = seen.claims(node, _open(seen, node, region))[: affordable // (2 * steps)]
        for chunk in way.chunks(len(claims)):
            if work.budget.expired:
                return region
            units, signs, starts = (np.array(part) for part in zip(*claims[chunk], strict=True))
            seen.look(
                ascend(network, node.name, units, signs, starts, work.box, steps, 0.5, lambda: work.budget.expired)
            )
    units = np.flatnonzero(_open(seen, node, region))
    if len(units) and len(units) <= affordable and set(node.sources) != {INPUT}:
        low, high = (side.copy() for side in region.intervals[node.name])
        near = units[np.argsort(np.minimum(high[units], -low[units]), kind="stable")]
        for start in range(0, len(near), _AT_ONCE):
            part = near[start : start + _AT_ONCE]
            low[part], high[part] = backward_interval(network, node.name, region, part, lambda: work.budget.expired)
            if not ((high[part] <= 0) | (low[part] >= 0)).any():  # those further from zero are not nearer to a proof
                break
        region = region.tightened(node.name, low, high)
        tally.bound(node.name, *region.intervals[node.name])
    return region


def _open(seen: _Seen, node: Affine, region: Region) -> Mask:
    """The units that cross zero of channels that may still be inactive, or active."""
    low, high = region.intervals[node.name]
    positive, negative, _ = seen.shown(node)
    left = np.repeat(~(positive & negative), node.size // len(positive))
    return np.asarray((low < 0) & (high > 0) & left)


def _reached(node: Affine, varying: Mapping[str, Mask]) -> Mask:
    """The units of an affine node that read something that varies."""
    counts = [linear.support().apply(varying[source].astype(np.float32)) for source, linear in node.reads]
    return np.asarray(np.sum(counts, axis=0) > 0)


@final
@dataclass
class _Extremes:
    """Per unit, over the points seen: proved bounds of z, and of relu(z), where they are furthest apart."""

    most: Array
    least: Array
    most_value: Array
    least_value: Array
    #: The points at which z was largest and smallest.
    top: NDArray[np.int64]
    bottom: NDArray[np.int64]


class _Seen:
    """What points show of every node that a ReLU reads."""

    def __init__(self, network: Network, work: Work) -> None:
        self._network, self._work = network, work
        # where several ReLUs read one node, what is said must hold for each of them
        slopes: dict[str, list[Array]] = {}
        for relu in network.relus:
            slopes.setdefault(relu.source, []).append(relu.slope)
        self._slopes = {name: np.min(found, axis=0) for name, found in slopes.items()}
        self._steepest = {name: np.max(found, axis=0) for name, found in slopes.items()}
        self._roundoff = 0.5 * float(np.finfo(network.dtype).eps)
        self._points: list[Array] = []
        self._extremes = {
            name: _Extremes(
                *(np.full(len(slope), end) for end in (-np.inf, np.inf, -np.inf, np.inf)),
                *(np.zeros(len(slope), np.int64) for _ in range(2)),
            )
            for name, slope in self._slopes.items()
        }
        self._chunk = max(1, _HELD // sum(node.size for node in network.nodes))

    def look(self, points: Array) -> None:
        """Run points, with bounds that hold for real numbers; what is beyond the time is left out."""
        for start in range(0, len(points), self._chunk):
            if self._work.budget.expired:
                return
            part = points[start : start + self._chunk]
            first = len(self._points)
            self._points.extend(part)
            for name, low, high in self._run(part):
                self._take(self._extremes[name], low, high, self._slopes[name], first)

    def _run(self, points: Array) -> Iterator[tuple[str, Array, Array]]:
        region = Region(points, points)
        for node in self._network.nodes:
            if isinstance(node, Affine):
                low, high = bound_affine_stack(self._network, node, region)
                region = region.tightened(node.name, low, high)
                if node.name in self._slopes:
                    yield node.name, low, high

    @staticmethod
    def _take(known: _Extremes, low: Array, high: Array, slope: Array, first: int) -> None:
        at, unit = low.argmax(axis=0), np.arange(low.shape[1])
        better = low[at, unit] > known.most
        known.most[better], known.top[better] = low[at, unit][better], first + at[better]
        at = high.argmin(axis=0)
        better = high[at, unit] < known.least
        known.least[better], known.bottom[better] = high[at, unit][better], first + at[better]
        values = leak(low, slope, upwards=False), leak(high, slope, upwards=True)
        known.most_value[:] = np.maximum(known.most_value, values[0].max(axis=0))
        known.least_value[:] = np.minimum(known.least_value, values[1].min(axis=0))

    def shown(self, node: Affine) -> tuple[Mask, Mask, Mask]:
        """Per channel, or per unit where there are none: (some z > 0, some z < 0, some relu(z) varies)."""
        known = self._extremes[node.name]
        channels = node.groups
        varies = ~self._alike(known.least_value, known.most_value)
        units = known.most > 0, known.least < 0, varies
        positive, negative, varies = (np.asarray(mask.reshape(channels, -1).any(axis=1)) for mask in units)
        return positive, negative, varies

    def _alike(self, low: Array, high: Array) -> Mask:
        """Whether values between two bounds are one number to the network's dtype, but for its rounding."""
        return np.asarray(high - low <= self._roundoff * np.minimum(np.abs(low), np.abs(high)))

    def channels(self, node: Affine, varying: Mask, bounds: Interval) -> Channels:
        """What is shown and proved of a node's channels, once its bounds are final."""
        positive, negative, varies = self.shown(node)
        low, high = bounds
        off = (high <= 0) & (self._steepest[node.name] == 0)
        stays = ~varying | off | ((low > 0) & self._alike(low, high))
        return Channels(positive, negative, varies, np.asarray(stays.reshape(len(positive), -1).all(axis=1)))

    def tell(self, tally: Tally, node: Affine) -> None:
        """Record the points at which single units have the one sign, or the other."""
        known = self._extremes[node.name]
        for unit in np.flatnonzero(known.most > 0).tolist():
            tally.refute(node.name, unit, 1, self._points[known.top[unit]])
        for unit in np.flatnonzero(known.least < 0).tolist():
            tally.refute(node.name, unit, -1, self._points[known.bottom[unit]])

    def claims(self, node: Affine, units: Mask) -> list[tuple[int, float, Array]]:
        """(unit, sign, a point to start from) for each sign that no point shows of a channel with such units."""
        known, (positive, negative, _) = self._extremes[node.name], self.shown(node)
        positions = node.size // len(positive)
        found = []
        for sign, missing, best, at in ((1.0, ~positive, known.most, known.top),
                                        (-1.0, ~negative, -known.least, known.bottom)):  # fmt: skip
            reached = np.where(units, best, -np.inf).reshape(-1, positions)
            unit = reached.argmax(axis=1) + positions * np.arange(len(reached))
            for channel in np.flatnonzero(missing & (reached.max(axis=1) > -np.inf)).tolist():
                found.append((int(unit[channel]), sign, self._points[at[unit[channel]]]))
        return found


def _points(work: Work) -> Array:
    """A few points that together show what many do: each adds a channel above zero, or below, in a plain float run."""
    network = work.network
    tried = _candidates(work)
    names = dict.fromkeys(relu.source for relu in network.relus)
    shown: list[Mask] = []
    step = max(1, _HELD // sum(node.size for node in network.nodes))
    for start in range(0, len(tried), step):
        if work.budget.expired and shown:
            break
        values = network.evaluate_nodes(tried[start : start + step].astype(network.dtype), network.dtype)
        ends = []
        for name in names:
            z = values[name].reshape(len(values[name]), network.affine(name).groups, -1)
            ends += [z.max(axis=2, initial=-np.inf) > 0, z.min(axis=2, initial=np.inf) < 0]
        shown.append(np.hstack(ends))
    left = np.vstack(shown)
    chosen = [0, len(tried) - 1]  # two, at least, to see what varies
    while left.any():
        best = int(left.sum(axis=1).argmax())
        chosen.append(best)
        left = left & ~left[best]
    return tried[list(dict.fromkeys(chosen))]


def _candidates(work: Work) -> Array:
    """Points all over the box; those of images the same over blocks of positions, flat ones and glaring ones."""
    box, rng = work.box, np.random.default_rng(work.seed)
    shape = work.network.signature.input_shape or (box.size,)
    axes = sorted(np.argsort(shape)[-2:].tolist())
    most = max(shape[axis] for axis in axes)
    blocks = [size for size in _BLOCKS if size <= most]
    count = int(np.clip(_TRIED / max(1, work.network.operations), _FEWEST, _MOST))
    points = [scatter(box, _FEWEST, work.seed)[:count]]
    for _ in range(count):
        block = int(rng.choice(blocks))
        coarse = [-(-size // block) if axis in axes else size for axis, size in enumerate(shape)]
        image = np.clip((rng.random(coarse) - 0.5) * rng.choice(_CONTRASTS) + rng.random(), 0.0, 1.0)
        for axis in axes:
            image = np.repeat(image, block, axis).take(range(shape[axis]), axis)
        points.append((box.lower + image.ravel() * (box.upper - box.lower))[None])
    return box.clip(np.vstack(points))
