"""Points that show many signs at once: a few images climb, each towards all that is not shown yet, in every layer.

One run forward and back costs an image the same for one unit as for all units of the network. So the prices of all
groups whose sign is wanted are sown together, each at the position that is nearest to having it, and the image moves by
the sign of what arrives at the input, with momentum (Dong et al. 2018); positions far apart hardly disturb each other.
What is done here is done in the network's own dtype and proves nothing: the points do, run with their errors tracked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from leo_core.bounds.upto import Step, upto
from leo_core.domain import Box
from leo_core.linear import FloatArray
from leo_core.network import Affine, Network
from leo_core.search.attack import forward, gradient

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: By affine node, (2, units): where a positive value, and where a negative one, would show something.
Wanted: TypeAlias = Mapping[str, Mask]

#: The first step, as a share of the box's width, what it shrinks by at each step, and what is kept of the direction.
_SHARE, _SHRINK, _MOMENTUM = 0.5, 0.95, 0.7
#: Each image takes so much of what is wanted at each step, so that not all go the same way.
_TAKEN = 0.5
#: After so many steps that show nothing new it ends.
_PATIENCE = 12
#: Numbers held at once.
_HELD = 20_000_000


@final
@dataclass(frozen=True, eq=False)
class Quarry:
    """What is wanted of which network; ``seed`` decides which image takes what of it at a step."""

    network: Network
    wanted: Wanted
    seed: int = 0


def chase(
    quarry: Quarry,
    box: Box,
    starts: Array,
    steps: int,
    expired: Callable[[], bool] = lambda: False,
) -> Array:
    """A few points (count, inputs) that together seem to show all that was seen on the way from ``starts``.

    One unit of a group (:attr:`~leo_core.network.Affine.groups`) shows its sign for all of the group.
    """
    network, wanted = quarry.network, quarry.wanted
    plan = upto(network, _last(network).name).steps
    hunt = _Hunt({node: wanted[node.name] for node, _ in plan if node.name in wanted}, quarry.seed)
    low, high = (side.astype(network.dtype) for side in (box.lower, box.upper))
    images = starts.astype(network.dtype)
    heading = np.zeros_like(images)
    at_once = max(1, _HELD // sum(node.size for node in network.nodes))
    for step in range(steps):
        if not hunt.on or step - hunt.last > _PATIENCE:
            break
        hunt.step = step
        move = (_SHARE * _SHRINK**step * (box.upper - box.lower)).astype(network.dtype)
        for start in range(0, len(images), at_once):
            if expired():
                return hunt.points(box)
            part = slice(start, start + at_once)
            flow = _flow(plan, images[part], hunt)
            flow /= np.abs(flow).mean(axis=1, keepdims=True) + np.finfo(network.dtype).tiny
            heading[part] = _MOMENTUM * heading[part] + np.nan_to_num(flow)
            images[part] = np.clip(images[part] + move * np.sign(heading[part]), low, high)
    return hunt.points(box)


def _flow(plan: tuple[Step, ...], images: FloatArray, hunt: _Hunt) -> FloatArray:
    with np.errstate(invalid="ignore", over="ignore"):
        values = forward(plan, images)
        return gradient(plan, values, hunt.sown(images, values))


class _Hunt:
    """What is still wanted, by affine node, and the points that showed what is not any more."""

    def __init__(self, wanted: Mapping[Affine, Mask], seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._units = {node: mask.reshape(2, node.groups, -1) for node, mask in wanted.items()}
        self._left = {node: np.asarray(mask.any(axis=2)) for node, mask in self._units.items()}
        #: The step at work, and the last one that showed something new.
        self.step = self.last = 0
        self._points: list[FloatArray] = []
        #: For each point, which of all that was wanted at first it shows.
        self._shown: list[Mask] = []

    @property
    def on(self) -> bool:
        return any(left.any() for left in self._left.values())

    def sown(self, images: FloatArray, values: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """Prices by node, for values at some images; what they show is taken note of."""
        shown: list[Mask] = []
        prices = {}
        new = np.zeros(len(images), dtype=bool)
        for node, units in self._units.items():
            z = values[node.name].reshape(len(images), node.groups, -1)
            price = np.zeros_like(z)
            for row, sign in enumerate((1, -1)):
                groups = np.flatnonzero(units[row].any(axis=1))
                reached = np.where(units[row, groups], sign * z[:, groups], -np.inf)
                at = reached.argmax(axis=2)
                best = np.take_along_axis(reached, at[..., None], axis=2)[..., 0]
                shown.append(best > 0)
                left = self._left[node][row][groups]
                new |= ((best > 0) & left).any(axis=1)
                self._left[node][row][groups] = left & ~np.any(best > 0, axis=0)
                image, column = np.nonzero(left & (best <= 0) & (self._rng.random(best.shape) < _TAKEN))
                group = groups[column]
                size = np.abs(z[image, group]).mean(axis=1) + np.finfo(z.dtype).tiny
                price[image, group, at[image, column]] += sign / size
            if price.any():
                prices[node.name] = price.reshape(len(images), -1)
        self.last = self.step if new.any() else self.last
        for position in np.flatnonzero(new).tolist():
            self._points.append(images[position].copy())
            self._shown.append(np.concatenate([each[position] for each in shown]))
        return prices

    def points(self, box: Box) -> Array:
        """As few as show together what all do."""
        if not self._points:
            return np.zeros((0, box.size))
        kept = cover(np.array(self._shown))
        return box.clip(np.array([self._points[row] for row in kept]).astype(np.float64))


def cover(shown: Mask) -> list[int]:
    """Rows of a table that together have all that any row has, each the one that adds most."""
    left, chosen = shown.copy(), []
    while left.any():
        best = int(left.sum(axis=1).argmax())
        chosen.append(best)
        left &= ~left[best]
    return chosen


def _last(network: Network) -> Affine:
    """The output, or what it reads where it is a ReLU."""
    node = network[network.output]
    return node if isinstance(node, Affine) else network.affine(node.source)
