"""What points of a box show of the channels of a network on images, beyond doubt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from leo_core.bounds.pointwise import values_at
from leo_core.bounds.region import Interval, leak
from leo_core.network import Affine
from leo_core.search.attack import scatter
from leo_core.search.chase import Wanted, cover
from leo_core.stability.tally import Tally
from leo_core.stability.verdict import Channels
from leo_core.stability.work import Work

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Units = NDArray[np.int64]

#: Points tried in plain floats, at most and at least, and products spent on that.
_MOST, _FEWEST, _TRIED = 256, 32, 4e9
#: Images are the same over blocks of so many positions, and differ by so many times the width of the box, cut off.
_BLOCKS, _CONTRASTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 96), (0.3, 1.0, 2.0, 5.0, 50.0)
#: Numbers held at once while points are run.
_HELD = 20_000_000


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


class Shown:
    """What points show of every node that a ReLU reads."""

    def __init__(self, work: Work) -> None:
        self._work, self._network = work, work.network
        # where several ReLUs read one node, what is said must hold for each of them
        slopes: dict[str, list[Array]] = {}
        for relu in self._network.relus:
            slopes.setdefault(relu.source, []).append(relu.slope)
        self._slopes = {name: np.min(found, axis=0) for name, found in slopes.items()}
        self._steepest = {name: np.max(found, axis=0) for name, found in slopes.items()}
        self._roundoff = 0.5 * float(np.finfo(self._network.dtype).eps)
        self.points: list[Array] = []
        self._extremes = {
            name: _Extremes(
                *(np.full(len(slope), end) for end in (-np.inf, np.inf, -np.inf, np.inf)),
                *(np.zeros(len(slope), np.int64) for _ in range(2)),
            )
            for name, slope in self._slopes.items()
        }
        self._chunk = max(1, _HELD // sum(node.size for node in self._network.nodes))

    def look(self, points: Array) -> None:
        """Run points, with errors that hold for real numbers; what is beyond the time is left out."""
        for start in range(0, len(points), self._chunk):
            if self._work.budget.expired:
                return
            part = points[start : start + self._chunk]
            first = len(self.points)
            self.points.extend(part)
            for node, values, errors in values_at(self._network, part):
                if node.name in self._slopes:
                    self._take(self._extremes[node.name], values, errors, self._slopes[node.name], first)

    @staticmethod
    def _take(known: _Extremes, values: Array, errors: Array, slope: Array, first: int) -> None:
        spare = errors + 2.0**-51 * (np.abs(values) + errors)  # for the rounding of what follows
        low, high = values - spare, values + spare
        at, unit = low.argmax(axis=0), np.arange(low.shape[1])
        better = low[at, unit] > known.most
        known.most[better], known.top[better] = low[at, unit][better], first + at[better]
        at = high.argmin(axis=0)
        better = high[at, unit] < known.least
        known.least[better], known.bottom[better] = high[at, unit][better], first + at[better]
        ends = leak(low, slope, upwards=False), leak(high, slope, upwards=True)
        known.most_value[:] = np.maximum(known.most_value, ends[0].max(axis=0))
        known.least_value[:] = np.minimum(known.least_value, ends[1].min(axis=0))

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
            tally.refute(node.name, unit, 1, self.points[known.top[unit]])
        for unit in np.flatnonzero(known.least < 0).tolist():
            tally.refute(node.name, unit, -1, self.points[known.bottom[unit]])

    def wanted(self, bounds: Mapping[str, Interval]) -> Wanted:
        """The units that may still be above zero, or below, where that is not shown of their channel yet."""
        return {name: self._missing(self._network.affine(name), *bounds[name]) for name in self._slopes}

    def open(self, node: Affine, bounds: Interval) -> Mask:
        """The units that cross zero of channels that may still be inactive, or active."""
        low, high = bounds
        return (low < 0) & (high > 0) & self._missing(node, low, high).any(axis=0)

    def claims(self, node: Affine, bounds: Interval) -> list[tuple[int, Units]]:
        """(sign, units that may have it) for each channel and sign that no point shows, nearest to a proof first."""
        low, high = bounds
        found = []
        for sign, mask, above in zip((1, -1), self._missing(node, low, high), (high, -low), strict=True):
            share = np.where(mask, above / np.maximum(high - low, np.finfo(np.float64).tiny), 0.0)
            for channel in np.flatnonzero(mask.reshape(node.groups, -1).any(axis=1)).tolist():
                own = np.arange(node.size // node.groups) + channel * (node.size // node.groups)
                units = own[mask[own]]
                found.append((float(share[units].max()), sign, units[np.argsort(-share[units], kind="stable")]))
        return [(sign, units) for _, sign, units in sorted(found, key=lambda claim: claim[0])]

    def nearest(self, node: Affine, claims: Sequence[tuple[int, Units]]) -> tuple[Units, Array]:
        """For each claim the unit that came nearest to the sign, and the point where it did."""
        known = self._extremes[node.name]
        found, starts = [], []
        for sign, units in claims:
            reached, at = (known.most, known.top) if sign > 0 else (-known.least, known.bottom)
            unit = units[reached[units].argmax()]
            found.append(unit)
            starts.append(self.points[at[unit]])
        return np.array(found), np.array(starts)

    def _missing(self, node: Affine, low: Array, high: Array) -> Mask:
        positive, negative, _ = self.shown(node)
        repeat = node.size // node.groups
        return np.array([(high > 0) & np.repeat(~positive, repeat), (low < 0) & np.repeat(~negative, repeat)])


def first_points(work: Work) -> Array:
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
    chosen = [0, len(tried) - 1, *cover(np.vstack(shown))]  # two, at least, to see what varies
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
