"""What is known of each ReLU on the domain: its state, proved bounds, and the evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray

from leo_core.checker.trees import Tree
from leo_core.domain import Box
from leo_core.network import Network
from leo_core.text import as_text

if TYPE_CHECKING:
    from leo_core.stability.bounds import Bounds

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


class State(IntEnum):
    """A unit's pre-activation over the box: max ≤ 0, else min ≥ 0, else both signs; or not known."""

    INACTIVE = -1
    UNSTABLE = 0
    ACTIVE = 1
    UNDECIDED = 2


class Method(IntEnum):
    """What a verdict rests on."""

    NONE = 0
    BOUND = 1  # an outward-rounded or exact bound, without any split
    TREE = 2  # a tree of splits, each leaf closed by a safe dual bound
    WITNESS = 3  # inputs of the box, evaluated exactly, at which both signs occur
    SOLVER = 4  # a solver's word, only under trust="solver"


@final
@dataclass(frozen=True, eq=False)
class Channels:
    """What is known of the channels of one ReLU node, each (channels,).

    Attributes
    ----------
    positive, negative, varies:
        Shown by points, beyond doubt: some unit's z is above zero, some unit's z is below, some unit's relu(z) is not
        always the same.
    constant:
        Proved: of no unit does relu(z) vary on the box by more than a rounding of the network's dtype.
    """

    positive: Mask
    negative: Mask
    varies: Mask
    constant: Mask


@final
@dataclass(frozen=True, eq=False)
class LayerStability:
    """The units of one ReLU node.

    Attributes
    ----------
    state, method:
        One :class:`State` and one :class:`Method` per unit, as int8.
    lower, upper:
        Proved bounds on the pre-activation over the box; under trust="solver" they hold only if what the solver said of
        earlier layers does.
    witnesses:
        For an unstable unit i, ``witnesses[i]`` of shape (2, inputs): a point where it is negative
        and one where it is positive.
    trees:
        For a unit proved stable otherwise than by its bounds, the evidence, which other units may share.
    channels:
        What is known of its channels, where it has any and they were asked for.
    least, most:
        Once bounds were narrowed, values that were seen: the smallest is at most ``least``, the largest at least
        ``most``.
    """

    relu: str
    state: NDArray[np.int8]
    method: NDArray[np.int8]
    lower: Array
    upper: Array
    witnesses: Mapping[int, Array] = field(default_factory=dict)
    trees: Mapping[int, Tree] = field(default_factory=dict)
    channels: Channels | None = None
    least: Array | None = None
    most: Array | None = None

    def __post_init__(self) -> None:
        for name, dtype in (("state", np.int8), ("method", np.int8), ("lower", np.float64), ("upper", np.float64)):
            array: NDArray[Any] = np.array(getattr(self, name), dtype=dtype)
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    def __repr__(self) -> str:
        kinds = ", ".join(f"{self.count(state):,} {state.name.lower()}" for state in State if self.count(state))
        return f"<LayerStability '{self.relu}': {self.units:,} units, {kinds or 'none'}>"

    @property
    def units(self) -> int:
        return len(self.state)

    def count(self, state: State) -> int:
        return int(np.count_nonzero(self.state == state))

    def channel_counts(self) -> dict[str, int]:
        """How many channels there are in all and of each kind, each counted once; empty where there are none.

        ``inactive``: all units are; ``active``: all are, and some vary; ``constant``: none varies, and some are not
        zero; ``unstable``: none of these, as points show; ``undecided``: the others.
        """
        masks = self.channel_masks()
        if not masks:
            return {}
        total = len(masks["inactive"])
        return {"total": total, **{name: int(mask.sum()) for name, mask in masks.items()}}

    def channel_masks(self) -> dict[str, Mask]:
        """Which channels are of each kind, each (channels,), as in :meth:`channel_counts`."""
        known = self.channels
        if known is None:
            return {}
        states = self.state.reshape(len(known.constant), -1)
        inactive = (states == State.INACTIVE).all(axis=1)
        constant = known.constant & ~inactive
        active = (states == State.ACTIVE).all(axis=1) & ~constant & ~inactive
        left = ~(inactive | constant | active)
        unstable = left & ((known.positive & known.negative & known.varies) | (states == State.UNSTABLE).any(axis=1))
        return {"inactive": inactive, "active": active, "constant": constant, "unstable": unstable,
                "undecided": left & ~unstable}  # fmt: skip


@final
@dataclass(frozen=True, eq=False)
class StabilityMap:
    """The verdicts for every ReLU node of a network over a box, in topological order.

    ``outputs`` is of the network's value, as if a ReLU followed: ``relu`` names the node that it is the value of.
    ``interrupted`` says the work ended early on Ctrl-C; ``trusted`` that verdicts may rest on a
    solver's word alone.
    """

    network: Network
    box: Box
    layers: Mapping[str, LayerStability]
    outputs: LayerStability
    strategy: str
    solver: str
    seconds: float = 0.0
    trusted: bool = False
    interrupted: bool = False

    def __repr__(self) -> str:
        kinds = ", ".join(f"{self.count(state):,} {state.name.lower()}" for state in State if self.count(state))
        return f"<StabilityMap: {self.units:,} ReLUs in {len(self.layers)} layer(s), {kinds or 'none'}>"

    def summary(self) -> str:
        """A table of the layers, and what is to be said of them, as text."""
        from leo_core.stability.told import verdict_lines, verdicts_table

        return as_text(verdicts_table(self), "", *verdict_lines(self))

    @cached_property
    def bounds(self) -> Bounds:
        """What is proved of every unit and every output, by the model's own names and in its shapes."""
        from leo_core.stability.bounds import Bounds  # it is made of what stands here

        return Bounds.of(self)

    @property
    def by_channels(self) -> bool:
        """Whether channels were asked for, and not each unit."""
        return any(layer.channels is not None for layer in self.layers.values())

    @property
    def points(self) -> list[Array]:
        """The inputs at which a unit was seen on either side of zero, each (inputs,)."""
        return [point for layer in self.layers.values() for pair in layer.witnesses.values() for point in pair]

    def count(self, state: State) -> int:
        return sum(layer.count(state) for layer in self.layers.values())

    @property
    def units(self) -> int:
        return sum(layer.units for layer in self.layers.values())
