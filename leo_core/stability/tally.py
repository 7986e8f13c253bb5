"""The running record of a strategy: verdicts as they are found, so that stopping early loses nothing."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from leo_core.bounds.region import Interval, Region
from leo_core.checker.trees import Tree
from leo_core.execution.events import Listener, Note, Progress
from leo_core.network import Affine, Network, Relu
from leo_core.search.evidence import Claim
from leo_core.stability.verdict import Channels, LayerStability, Method, State

Array = NDArray[np.float64]


class Tally:
    """Verdicts for every affine node that a ReLU reads; all undecided at first."""

    def __init__(self, network: Network, listener: Listener) -> None:
        self._listener = listener
        self._relus: dict[str, list[Relu]] = {}
        for relu in network.relus:
            self._relus.setdefault(relu.source, []).append(relu)
        self._order = [node.name for node in network.nodes if isinstance(node, Affine) and node.name in self._relus]
        sizes = {name: network.size(name) for name in self._order}
        self._state = {name: np.full(size, State.UNDECIDED, np.int8) for name, size in sizes.items()}
        self._method = {name: np.full(size, Method.NONE, np.int8) for name, size in sizes.items()}
        self._lower = {name: np.full(size, -np.inf) for name, size in sizes.items()}
        self._upper = {name: np.full(size, np.inf) for name, size in sizes.items()}
        self._seen: dict[str, dict[tuple[int, int], Array]] = {name: {} for name in sizes}
        self._trees: dict[str, dict[int, Tree]] = {name: {} for name in sizes}
        #: What is known of channels, by affine node.
        self.channels: dict[str, Channels] = {}
        self._number = {name: number for number, name in enumerate(self._order, 1)}
        self._decided, self._total, self._what = 0, sum(sizes.values()), "units"
        self._at = ""
        self._told: set[str] = set()

    def ask_channels(self, counts: Mapping[str, int]) -> None:
        """From now on count channels, by affine node; of none anything is known yet."""
        unknown = {name: (np.zeros(count, dtype=bool) for _ in range(4)) for name, count in counts.items()}
        self.channels = {name: Channels(*masks) for name, masks in unknown.items()}
        self._decided, self._total, self._what = 0, sum(counts.values()), "channels"

    def decide_channels(self, name: str, channels: Channels) -> None:
        """Record what is known of a node's channels, its bounds being final."""
        self.channels[name] = channels
        layer = LayerStability(
            relu=self._relus[name][0].name,
            state=self._state[name],
            method=self._method[name],
            lower=self._lower[name],
            upper=self._upper[name],
            channels=channels,
        )
        counts = layer.channel_counts()
        self._decided += counts["total"] - counts["undecided"]
        self._tell()

    def note(self, text: str) -> None:
        """Tell the user, once."""
        if text not in self._told:
            self._told.add(text)
            self._listener(Note(text))

    def say(self, text: str) -> None:
        """Tell the user what is being done."""
        self._listener(Note(text, passing=True))

    def follows(self, name: str) -> bool:
        """Whether a ReLU reads this affine node."""
        return name in self._state

    def begin(self, name: str, lower: Array, upper: Array) -> None:
        """Take in proved bounds of a node; they settle what they can."""
        self._at = name
        self.bound(name, lower, upper)

    def bound(self, name: str, lower: Array, upper: Array) -> None:
        """Take in proved bounds of a node."""
        self._lower[name] = np.fmax(self._lower[name], lower)
        self._upper[name] = np.fmin(self._upper[name], upper)
        state = self._state[name]
        off = ((state == State.UNDECIDED) | (state == State.ACTIVE)) & (self._upper[name] <= 0)  # ≡ 0 is inactive
        on = (state == State.UNDECIDED) & ~off & (self._lower[name] >= 0)
        for unit in np.flatnonzero(off):
            self._trees[name].pop(int(unit), None)  # it was of the other claim
        self._count(int(np.count_nonzero((state == State.UNDECIDED) & (off | on))))
        self._state[name][off], self._state[name][on] = State.INACTIVE, State.ACTIVE
        self._method[name][off | on] = Method.BOUND
        self._tell()

    def open_claims(self, name: str) -> list[Claim]:
        """The claims (unit, sign) that would settle an undecided unit and that no point refutes yet.

        The claim (u, +1), 'u is never positive', comes before (u, −1), 'u is never negative'.
        """
        undecided = np.flatnonzero(self._state[name] == State.UNDECIDED).tolist()
        return [(unit, sign) for unit in undecided for sign in (1, -1) if (unit, sign) not in self._seen[name]]

    def prove(self, name: str, tree: Tree) -> None:
        """Record evidence, and all that it claims; that sharpens the bounds too."""
        for unit, sign in tree.claims:
            if sign < 0:
                self._lower[name][unit] = max(self._lower[name][unit], 0.0)
            else:
                self._upper[name][unit] = min(self._upper[name][unit], 0.0)
            if self._state[name][unit] == State.UNDECIDED:  # else it may be always 0, and the other claim came first
                self._settle(name, unit, sign, Method.BOUND if len(tree.where) == 1 else Method.TREE)
            if self._state[name][unit] == (State.INACTIVE if sign > 0 else State.ACTIVE):
                self._trees[name][unit] = tree

    def trust(self, name: str, unit: int, sign: int) -> None:
        """Record a solver's word that sign·a is never positive: no proof, so no bound."""
        self._settle(name, unit, sign, Method.SOLVER)

    def _settle(self, name: str, unit: int, sign: int, method: Method) -> None:
        self._count(int(self._state[name][unit] == State.UNDECIDED))
        self._state[name][unit] = State.INACTIVE if sign > 0 else State.ACTIVE
        self._method[name][unit] = method
        self._tell()

    def refute(self, name: str, unit: int, sign: int, point: Array) -> None:
        """Record an input at which sign·a is positive, evaluated exactly; two signs make a unit unstable."""
        seen = self._seen[name]
        seen.setdefault((unit, sign), point)
        if (unit, -sign) in seen and self._state[name][unit] == State.UNDECIDED:
            self._count(1)
            self._state[name][unit] = State.UNSTABLE
            self._method[name][unit] = Method.WITNESS
            self._tell()

    def settled(self, name: str, region: Region) -> Region:
        """The region with the node's intervals cut by what is known of it."""
        return region.tightened(name, *self._cut(name))

    def known(self) -> dict[str, Interval]:
        """By node, its bounds, cut by its verdicts."""
        return {name: self._cut(name) for name in self._state}

    def _cut(self, name: str) -> Interval:
        state = self._state[name]
        lower = np.where(state == State.ACTIVE, np.maximum(self._lower[name], 0.0), self._lower[name])
        upper = np.where(state == State.INACTIVE, np.minimum(self._upper[name], 0.0), self._upper[name])
        return lower, upper

    def layers(self) -> dict[str, LayerStability]:
        """The verdicts so far, by ReLU node, in topological order."""
        return {
            relu.name: LayerStability(
                relu=relu.name,
                state=self._state[name],
                method=self._method[name],
                lower=self._lower[name],
                upper=self._upper[name],
                witnesses={
                    unit: np.stack([self._seen[name][unit, -1], self._seen[name][unit, 1]])
                    for unit in np.flatnonzero(self._state[name] == State.UNSTABLE).tolist()
                },
                trees=dict(self._trees[name]),
                channels=self.channels.get(name),
            )
            for name in self._order
            for relu in self._relus[name]
        }

    def _count(self, units: int) -> None:
        self._decided += units if self._what == "units" else 0

    def _tell(self) -> None:
        label = self._relus[self._at][0].name if self._at else ""
        where = label, self._number.get(self._at, 0), len(self._order)
        self._listener(Progress(*where, self._decided, self._total, self._what))
