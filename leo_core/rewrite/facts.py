"""What rewriting knows of each unit: how it is treated, and where its pre-activation is proved to lie.

A unit treated as active computes relu(z) = z up to ``max(0, −lower)``: nothing while ``lower ≥ 0``, and a
sliver once rounded weights have moved z. Passes pay for that sliver, so states stay usable after
rewrites that are not exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from leo_core.arithmetic import round_down, round_up
from leo_core.bounds.interval import bound_affine
from leo_core.bounds.region import Region
from leo_core.domain import Box
from leo_core.network import Affine, Network
from leo_core.stability.verdict import StabilityMap, State

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@final
@dataclass(frozen=True, eq=False)
class Units:
    """The units of one affine node that a ReLU reads: ``state`` (:class:`State`), proved bounds of z."""

    state: NDArray[np.int8]
    lower: Array
    upper: Array

    def kept(self, keep: Mask | NDArray[np.int64]) -> Units:
        return Units(self.state[keep], self.lower[keep], self.upper[keep])

    def joined(self, other: Units) -> Units:
        """These units, then others."""
        return Units(
            np.concatenate([self.state, other.state]),
            np.concatenate([self.lower, other.lower]),
            np.concatenate([self.upper, other.upper]),
        )

    def moved(self, error: Array) -> Units:
        """After a rewrite that changes z by at most ``error``."""
        lower, upper = round_down(self.lower - error), round_up(self.upper + error)
        return Units(self.state, np.where(error > 0, lower, self.lower), np.where(error > 0, upper, self.upper))

    def linear(self, slope: Array) -> Mask:
        """Units whose ReLU is a line over the box: active, or inactive with a slope."""
        return np.asarray((self.state == State.ACTIVE) | ((self.state == State.INACTIVE) & (slope > 0)))

    def gain(self, slope: Array) -> Array:
        """That line's factor: 1 for active units, the slope for inactive ones."""
        return np.where(self.state == State.ACTIVE, 1.0, slope)

    def defect(self, slope: Array) -> Array:
        """How far relu(z) can be from the unit's line: zero while the state is proved for z itself."""
        away = np.where(self.state == State.ACTIVE, -self.lower, self.upper)
        stable = np.where(away > 0, round_up((1.0 - slope) * away), 0.0)
        return np.where(self.state == State.UNSTABLE, np.inf, stable)


@final
@dataclass(frozen=True, eq=False)
class Facts:
    """By affine node that a ReLU reads, its :class:`Units`; and the box they hold on."""

    box: Box
    units: Mapping[str, Units]

    @staticmethod
    def of(network: Network, stability: StabilityMap) -> Facts:
        """From verdicts; an undecided unit is treated as unstable."""
        units = {}
        for relu in network.relus:
            layer = stability.layers[relu.name]
            state = np.where(layer.state == State.UNDECIDED, State.UNSTABLE, layer.state).astype(np.int8)
            units[relu.source] = Units(state, layer.lower, layer.upper)
        return Facts(stability.box, units)

    def region(self, network: Network) -> Region:
        """Proved intervals for every affine node of a network these facts describe."""
        region = Region.of(self.box)
        for node in network.nodes:
            if isinstance(node, Affine):
                region = region.tightened(node.name, *bound_affine(network, node, region))
                if node.name in self.units:
                    units = self.units[node.name]
                    region = region.tightened(node.name, units.lower, units.upper)
        return region

    def moved(self, errors: Mapping[str, Array]) -> Facts:
        """After a rewrite that changes nodes by at most ``errors``."""
        return Facts(self.box, {name: u.moved(errors[name]) if name in errors else u for name, u in self.units.items()})

    def with_units(self, name: str, units: Units) -> Facts:
        """The same, but for one node."""
        return Facts(self.box, {**self.units, name: units})

    def kept(self, keep: Mapping[str, Mask]) -> Facts:
        """After units were dropped; nodes not named are gone."""
        return Facts(self.box, {name: u.kept(keep[name]) for name, u in self.units.items() if name in keep})
