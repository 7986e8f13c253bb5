"""From verdicts to evidence that the checker accepts, and to verdicts that stand on nothing else.

The checker's own functions are run on all that will be written, layer by layer, on the checker's own bounds; evidence
that does not hold there is looked for anew, and a verdict without any is given up.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import final

import numpy as np
from numpy.typing import NDArray

from leo_core import checker
from leo_core.bounds.region import Region
from leo_core.bounds.slopes import improved
from leo_core.bounds.upto import upto
from leo_core.checker import bounds, networks
from leo_core.checker.proofs import proved_bounds
from leo_core.checker.trees import EXACT, Tilt, Tree
from leo_core.domain import Box
from leo_core.errors import EncodingError
from leo_core.execution.budget import Budget, Patience
from leo_core.execution.events import Listener, Note
from leo_core.execution.executor import Here
from leo_core.milp.solver import Solver
from leo_core.network import INPUT, Network, sources_of
from leo_core.search.boxes import FEW_INPUTS, split_box
from leo_core.search.evidence import Claim, uncut
from leo_core.search.prover import Prover
from leo_core.stability.verdict import Channels, LayerStability, Method, StabilityMap, State
from leo_core.storage import as_checked

Array = NDArray[np.float64]

NO_PROOF = "no proof that can be written down"
#: Steps of descent on slopes for bounds that later layers rest on, and the share of a unit's range one must gain.
_SLOPES, _GAIN = 30, 0.02
#: Claimed bounds are this much wider than proved, relative to the unit's range: another machine rounds differently.
_SPARE = 2.0**-36
#: Seconds that looking anew for proofs may take in vain, about, and that parts of the box may take at each layer.
_SECONDS, _HALVING = 120.0, 30.0


@final
@dataclass(frozen=True, eq=False)
class LayerEvidence:
    """What is written of one affine node that ReLUs read: trees, and the verdicts with bounds that they support."""

    trees: tuple[Tree, ...]
    stability: LayerStability


@final
@dataclass(frozen=True, eq=False)
class Evidence:
    """By affine node, what is written; the region in which all of it holds; and the verdicts that stand."""

    layers: Mapping[str, LayerEvidence]
    region: bounds.Region
    stability: StabilityMap


def gather(
    network: Network, stability: StabilityMap, solver: Solver, budget: Budget, listener: Listener, seed: int = 0
) -> Evidence:
    """Evidence for as many verdicts as there is any for; what has none becomes undecided.

    ``solver`` solves the LPs of proofs that are looked for anew.
    """
    net = as_checked(network)
    region: bounds.Region = {"input": (stability.box.lower[None], stability.box.upper[None])}
    layers: dict[str, LayerEvidence] = {}
    verdicts: dict[str, LayerStability] = {}
    rectified = [node for node in net.nodes if node.name in net.rectified]
    interrupted, patience = stability.interrupted, Patience(_SECONDS)
    with np.errstate(all="ignore"):
        for node in net.nodes:
            if node.relu:
                continue
            if budget.expired:  # looser than what the checker will find, so that it holds there too
                region = {**region, node.name: bounds.interval(net, node, region)[:2]}
            else:
                region = bounds.bounded(net, node, region)
            if node.name not in net.rectified:
                continue
            relus = [relu.name for relu in net.rectified[node.name]]
            search = _Search(solver, budget, patience, seed)
            work = _Layer(network, net, node.name, region, stability.layers[relus[0]], search)
            try:
                listener(Note(f"evidence for '{relus[0]}'", passing=True))
                if node is not rectified[-1]:
                    work.tighten()
                work.prove()
            except KeyboardInterrupt:
                budget, interrupted = Budget.of(0.0), True
            if lost := work.give_up():
                listener(Note(f"{lost} unit(s) of '{relus[0]}' are left undecided: {NO_PROOF}"))
            found = work.evidence()
            layers[node.name] = found
            layer = found.stability
            believed = checker.believed(layer.lower, layer.upper, layer.state, layer.method)
            region = {**work.region, node.name: believed}
            verdicts |= {relu: replace(found.stability, relu=relu) for relu in relus}
    order = {relu.name: verdicts[relu.name] for relu in network.relus}
    return Evidence(layers, region, replace(stability, layers=order, interrupted=interrupted))


@final
@dataclass(frozen=True, eq=False)
class _Search:
    """What looking anew for proofs works with, and for how long."""

    solver: Solver
    budget: Budget
    patience: Patience
    seed: int


class _Layer:
    """One affine node that ReLUs read, on the checker's bounds (``region``)."""

    def __init__(
        self,
        network: Network,
        net: networks.Net,
        target: str,
        region: bounds.Region,
        known: LayerStability,
        search: _Search,
    ) -> None:
        self._network, self._net, self._target, self._known = network, net, target, known
        self._search, self._budget = search, search.budget
        self.region = region
        self._state = known.state.copy()
        self._method = known.method.copy()
        self._trees: list[Tree] = []

    def tighten(self) -> None:
        """Bounds by optimised slopes, where they gain enough: later layers rest on them."""
        low, high = self.region[self._target]
        if self._known.channels is not None:  # of so many, a few that backward bounds told the engine more of
            gain = _GAIN * (high[0] - low[0])
            above, below = high[0] > self._known.upper + gain, low[0] < self._known.lower - gain
            claims = [(int(unit), sign) for sign, far in ((1, above), (-1, below)) for unit in np.flatnonzero(far)]
            if self._net.affords(len(claims)):
                self._adapt(claims)
            return
        units = np.flatnonzero((low[0] < 0) & (high[0] > 0))
        if not len(units) or set(sources_of(self._network[self._target])) == {INPUT}:
            return
        claims = [(int(unit), sign) for unit in units for sign in (1, -1)]
        engine = self._engine_region()
        for chunk in upto(self._network, self._target).chunks(len(claims)):
            if self._budget.expired:
                return
            part = claims[chunk]
            price = np.zeros((len(part), low.shape[1]))
            for row, (unit, sign) in enumerate(part):
                price[row, unit] = sign
            found = improved(self._network, self._target, price, engine, _SLOPES, expired=lambda: self._budget.expired)
            now = np.array([high[0, unit] if sign > 0 else -low[0, unit] for unit, sign in part])
            width = np.array([high[0, unit] - low[0, unit] for unit, _ in part])
            better = np.flatnonzero(found.upper < now - _GAIN * width)
            if len(better):
                y = {name: values[better].astype(np.float32) for name, values in found.multipliers.items()}
                tree = uncut([part[row] for row in better], y)
                self._add(tree, proved_bounds(self._net, self._target, self.region, tree))

    def prove(self) -> None:
        """Evidence for every stable verdict: what was found when deciding, or what is found on these bounds."""
        tried = set[Tree]()
        for unit, _ in self._open():
            tree = self._known.trees.get(unit)
            if tree is not None and tree not in tried and not self._budget.expired:
                tried.add(tree)
                self._take(tree)
        if self._known.channels is not None:
            self._adapt(self._open())
            return
        missing = self._open()
        if not missing or self._budget.expired:
            return
        prover = Prover(self._network, self._target, self._engine_region(), self._search.solver, self._search.seed)
        try:
            for claim in missing:
                begun = time.monotonic()
                tree = prover.never_positive(*claim, self._budget.at_most(self._search.patience.each)).tree
                if tree is not None:
                    self._take(tree)
                else:
                    self._search.patience.lose(time.monotonic() - begun)
        except EncodingError:  # its LP cannot be written: without evidence, what is missing is undecided
            return
        finally:
            prover.close()
        if left := self._open():
            self._halve_the_box(left)

    def _halve_the_box(self, claims: list[Claim]) -> None:
        """Proofs by parts of the box, where inputs are few."""
        region = self._engine_region()
        if int(np.count_nonzero(region.lower < region.upper)) > FEW_INPUTS:
            return
        box, budget = Box(region.lower, region.upper), self._budget.at_most(_HALVING)
        for cut in split_box(self._network, self._target, claims, region, box, budget, Here()):
            if cut.tree is not None:
                self._take(cut.tree)

    def _adapt(self, claims: list[Claim]) -> None:
        """Bounds by adaptive slopes, which need no multipliers: all that is written is for which units."""
        for chunk in upto(self._network, self._target).chunks(len(claims)):
            if self._budget.expired:
                return
            tree = uncut(claims[chunk], {})
            self._add(tree, proved_bounds(self._net, self._target, self.region, tree))

    def give_up(self) -> int:
        """Stable verdicts without evidence become undecided; how many there were."""
        lost = self._open()
        for unit, _ in lost:
            self._state[unit], self._method[unit] = State.UNDECIDED, Method.NONE
        return len(lost)

    def evidence(self) -> LayerEvidence:
        """What is written."""
        low, high = (side[0] for side in self.region[self._target])
        spare = _SPARE * (high - low)
        lower = np.where(low >= 0, np.maximum(low - spare, 0.0), low - spare)
        upper = np.where(high <= 0, np.minimum(high + spare, 0.0), high + spare)
        seen = {unit: pair for unit, pair in self._known.witnesses.items() if self._state[unit] == State.UNSTABLE}
        channels = self._channels(lower, upper)
        stability = LayerStability(self._known.relu, self._state, self._method, lower, upper, seen, channels=channels)
        return LayerEvidence(tuple(self._trees), stability)

    def _channels(self, lower: Array, upper: Array) -> Channels | None:
        """Of the channels that were constant, those that are so between these bounds."""
        known = self._known.channels
        if known is None:
            return None
        constant, region = known.constant.copy(), {self._target: (lower[None], upper[None])}
        for relu in self._net.rectified[self._target]:
            least, most = (side[0] for side in bounds.values_of(self._net, region, relu.name))
            roundoff = 0.5 * float(np.finfo(self._network.dtype).eps)
            alike = most - least <= roundoff * np.minimum(np.abs(least), np.abs(most))
            constant &= alike.reshape(len(constant), -1).all(axis=1)
        return replace(known, constant=constant)

    def _open(self) -> list[Claim]:
        """The claims of stable verdicts, other than trusted ones, that no bound shows."""
        low, high = (side[0] for side in self.region[self._target])
        proved = self._method != Method.SOLVER
        off = np.flatnonzero(proved & (self._state == State.INACTIVE) & ~(high <= 0)).tolist()
        on = np.flatnonzero(proved & (self._state == State.ACTIVE) & ~(low >= 0)).tolist()
        return [(unit, 1) for unit in off] + [(unit, -1) for unit in on]

    def _take(self, tree: Tree) -> None:
        """Keep a tree if it proves one of its claims, with short multipliers if they prove all."""
        for form in dict.fromkeys([_short(tree), tree] if tree.y else [tree]):
            found = proved_bounds(self._net, self._target, self.region, form)
            if (found <= 0).any():
                self._add(form, found)
            if (found <= 0).all():
                return

    def _add(self, tree: Tree, found: Array) -> None:
        self._trees.append(tree)
        self.region = {**self.region, self._target: checker.sharpened(self.region[self._target], tree, found)}

    def _engine_region(self) -> Region:
        """The checker's bounds as the engine takes them."""
        way = upto(self._network, self._target).positions
        intervals = {name: (self.region[name][0][0], self.region[name][1][0]) for name in way}
        return Region(self.region["input"][0][0], self.region["input"][1][0], intervals)


def _short(tree: Tree) -> Tree:
    """With multipliers in float32, but for exact arithmetic."""
    if (tree.closed[:, 2] == EXACT).any():
        return tree
    return replace(
        tree,
        y={name: values.astype(np.float32) for name, values in tree.y.items()},
        tilts={
            leaf: {
                name: Tilt(units, *(part.astype(np.float32) for part in prices))
                for name, (units, *prices) in tilts.items()
            }
            for leaf, tilts in tree.tilts.items()
        },
    )
