"""What rewriting knows of each unit: how it is treated, and where its pre-activation is proved to lie.

A unit treated as active computes relu(z) = z up to ``max(0, −lower)``: nothing while ``lower ≥ 0``, and a
sliver once rounded weights have moved z. Passes pay for that sliver, so states stay usable after
rewrites that are not exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import final

import numpy as np
from numpy.typing import NDArray

from leo_core.arithmetic import round_down, round_up
from leo_core.bounds.region import Interval
from leo_core.domain import Box
from leo_core.network import Network
from leo_core.stability.verdict import StabilityMap, State

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Indices = NDArray[np.int64]


@final
@dataclass(frozen=True, eq=False)
class Units:
    """The units of one affine node that a ReLU reads: ``state`` (:class:`State`), proved bounds of z.

    ``origin`` says which unit of the network first given each one is; −1 for a new one. ``home`` names the ReLU
    that it stood behind there, where that is another one; empty elsewhere.
    """

    state: NDArray[np.int8]
    lower: Array
    upper: Array
    origin: Indices
    home: NDArray[np.object_] = field(default_factory=lambda: np.zeros(0, object))

    def __post_init__(self) -> None:
        if len(self.home) != len(self.state):
            object.__setattr__(self, "home", np.full(len(self.state), "", object))

    @staticmethod
    def new(lower: Array, upper: Array) -> Units:
        """Active units that the network did not have."""
        return Units(np.full(len(lower), State.ACTIVE, np.int8), lower, upper, np.full(len(lower), -1))

    def kept(self, keep: Mask | Indices) -> Units:
        return Units(self.state[keep], self.lower[keep], self.upper[keep], self.origin[keep], self.home[keep])

    def joined(self, other: Units) -> Units:
        """These units, then others."""
        return Units(
            np.concatenate([self.state, other.state]),
            np.concatenate([self.lower, other.lower]),
            np.concatenate([self.upper, other.upper]),
            np.concatenate([self.origin, other.origin]),
            np.concatenate([self.home, other.home]),
        )

    def homes(self, relu: str, units: Indices) -> Iterator[tuple[str, Indices]]:
        """By ReLU of the network first given that some units behind the ReLU ``relu`` stood behind: their places."""
        named = np.where(self.home[units] == "", relu, self.home[units])
        for home in dict.fromkeys(named.tolist()):
            yield home, np.flatnonzero(named == home)

    def moved(self, error: Array) -> Units:
        """After a rewrite that changes z by at most ``error``."""
        lower, upper = round_down(self.lower - error), round_up(self.upper + error)
        lower, upper = np.where(error > 0, lower, self.lower), np.where(error > 0, upper, self.upper)
        return replace(self, lower=lower, upper=upper)

    def linear(self, slope: Array) -> Mask:
        """Units whose ReLU is a line over the box: active, or inactive with a slope."""
        return np.asarray((self.state == State.ACTIVE) | ((self.state == State.INACTIVE) & (slope > 0)))

    def gain(self, slope: Array) -> Array:
        """That line's factor: 1 for active units, the slope for inactive ones."""
        return np.where(self.state == State.ACTIVE, 1.0, slope)

    def defect(self, slope: Array) -> Array:
        """How far relu(z) can be from the unit's line: zero while the state is proved for z itself."""
        away = np.where(self.state == State.ACTIVE, -self.lower, self.upper)
        share = np.where(slope == 0, 1.0, round_up(1.0 - slope))
        stable = np.where(away > 0, np.where(slope == 0, away, round_up(share * away)), 0.0)
        return np.where(self.state == State.UNSTABLE, np.inf, stable)


@final
@dataclass(frozen=True, eq=False)
class Lineage:
    """What units of the network first given were taken for, by its ReLUs; in the order in which it was done.

    Attributes
    ----------
    copies:
        (unit, of, factor): z_unit ≈ factor · z_of.
    lines:
        (unit, gain, offset): relu(z) ≈ gain · z + offset, though the unit changes state.
    """

    copies: Mapping[str, tuple[tuple[int, int, float], ...]] = field(default_factory=dict)
    lines: Mapping[str, tuple[tuple[int, float, float], ...]] = field(default_factory=dict)

    def with_copies(self, relu: str, goes: Indices, stays: Indices, factor: Array) -> Lineage:
        """The same, now that units (by their origin) of a ReLU were taken for multiples of others."""
        added = tuple(zip(goes.tolist(), stays.tolist(), factor.tolist(), strict=True))
        return replace(self, copies={**self.copies, relu: self.copies.get(relu, ()) + added})

    def with_lines(self, relu: str, units: Indices, gain: Array, offset: Array) -> Lineage:
        """The same, now that units (by their origin) of a ReLU that change state were taken for lines."""
        added = tuple(zip(units.tolist(), gain.tolist(), offset.tolist(), strict=True))
        return replace(self, lines={**self.lines, relu: self.lines.get(relu, ()) + added})


@final
@dataclass(frozen=True, eq=False)
class Facts:
    """By affine node that a ReLU reads, its :class:`Units`; the box they hold on; and how they came about."""

    box: Box
    units: Mapping[str, Units]
    lineage: Lineage = Lineage()

    @staticmethod
    def of(network: Network, stability: StabilityMap) -> Facts:
        """From verdicts; an undecided unit is treated as unstable."""
        units = {}
        for relu in network.relus:
            layer = stability.layers[relu.name]
            state = np.where(layer.state == State.UNDECIDED, State.UNSTABLE, layer.state).astype(np.int8)
            units[relu.source] = Units(state, layer.lower, layer.upper, np.arange(relu.size))
        return Facts(stability.box, units)

    @property
    def bounds(self) -> Mapping[str, Interval]:
        """By affine node that a ReLU reads, proved bounds of z."""
        return {name: (units.lower, units.upper) for name, units in self.units.items()}

    def moved(self, errors: Mapping[str, Array]) -> Facts:
        """After a rewrite that changes nodes by at most ``errors``."""
        units = {name: u.moved(errors[name]) if name in errors else u for name, u in self.units.items()}
        return replace(self, units=units)

    def kept(self, keep: Mapping[str, Mask]) -> Facts:
        """After units were dropped; nodes not named are gone."""
        return replace(self, units={name: u.kept(keep[name]) for name, u in self.units.items() if name in keep})
