"""From verdicts to evidence that the checker accepts, and to verdicts that stand on nothing else.

The checker's own functions are run on all that will be written, layer by layer, on the checker's own bounds; evidence
that does not hold there is looked for anew, and a verdict without any is given up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from leo_core import checker
from leo_core.bounds.region import Region
from leo_core.bounds.slopes import improved
from leo_core.bounds.upto import upto
from leo_core.checker import bounds, networks, trees
from leo_core.errors import EncodingError
from leo_core.execution.budget import Budget
from leo_core.execution.events import Listener, Note
from leo_core.milp.solver import Solver
from leo_core.network import INPUT, Network, sources_of
from leo_core.stability.evidence import Bisection, Flat, Tree
from leo_core.stability.prover import Prover
from leo_core.stability.verdict import Claim, LayerStability, Method, StabilityMap, State
from leo_core.storage import as_checked

Array = NDArray[np.float64]

NO_PROOF = "no proof that can be written down"
#: Steps of descent on slopes for bounds that later layers rest on, and the share of a unit's range one must gain.
_SLOPES, _GAIN = 30, 0.02
#: Claimed bounds are this much wider than proved, relative to the unit's range: another machine rounds differently.
_SPARE = 2.0**-36


@final
@dataclass(frozen=True, eq=False)
class LayerEvidence:
    """What is written of one affine node that ReLUs read: trees, and the verdicts with bounds that they support."""

    trees: tuple[trees.Tree, ...]
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
    interrupted = stability.interrupted
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
            work = _Layer(network, net, node.name, region, stability.layers[relus[0]], solver, budget, seed)
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


class _Layer:
    """One affine node that ReLUs read, on the checker's bounds (``region``)."""

    def __init__(
        self, network: Network, net: networks.Net, target: str, region: bounds.Region, known: LayerStability,
        solver: Solver, budget: Budget, seed: int
    ) -> None:  # fmt: skip
        self._network, self._net, self._target, self._known = network, net, target, known
        self._solver, self._budget, self._seed = solver, budget, seed
        self.region = region
        self._state = known.state.copy()
        self._method = known.method.copy()
        self._trees: list[trees.Tree] = []
        self._affine = [node.name for node in net.before([target]) if not node.relu]

    def tighten(self) -> None:
        """Bounds by optimised slopes, where they gain enough: later layers rest on them."""
        low, high = self.region[self._target]
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
                tree = _root([part[row] for row in better], y)
                self._add(tree, trees.proved_bounds(self._net, self._target, self.region, tree))

    def prove(self) -> None:
        """Evidence for every stable verdict: what was found when deciding, or what is found on these bounds."""
        bisections: list[tuple[Claim, Bisection]] = []
        for claim in self._open():
            tree = self._known.trees.get(claim[0])
            if isinstance(tree, Bisection):
                bisections.append((claim, tree))
            elif tree is not None and not self._budget.expired:
                self._take_splits(claim, tree)
        for group in _together(bisections):
            if not self._budget.expired:
                self._take(_joint(group))
        missing = self._open()
        if not missing or self._budget.expired:
            return
        prover = Prover(self._network, self._target, self._engine_region(), self._solver, self._seed)
        try:
            for claim in missing:
                tree = prover.never_positive(*claim, self._budget).tree
                if tree is not None:
                    self._take_splits(claim, tree)
        except EncodingError:  # its LP cannot be written: without evidence, what is missing is undecided
            return
        finally:
            prover.close()

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
        return LayerEvidence(
            tuple(self._trees), LayerStability(self._known.relu, self._state, self._method, lower, upper, seen)
        )

    def _open(self) -> list[Claim]:
        """The claims of stable verdicts, other than trusted ones, that no bound shows."""
        low, high = (side[0] for side in self.region[self._target])
        proved = self._method != Method.SOLVER
        off = np.flatnonzero(proved & (self._state == State.INACTIVE) & ~(high <= 0)).tolist()
        on = np.flatnonzero(proved & (self._state == State.ACTIVE) & ~(low >= 0)).tolist()
        return [(unit, 1) for unit in off] + [(unit, -1) for unit in on]

    def _take_splits(self, claim: Claim, tree: Tree) -> None:
        """With short multipliers where they do, else with long ones."""
        for dtype in (np.float32, np.float64):
            if self._take(_split_tree(claim, tree, self._affine, dtype)):
                return

    def _take(self, tree: trees.Tree) -> bool:
        """Keep a tree if it proves one of its claims; whether it proves all."""
        found = trees.proved_bounds(self._net, self._target, self.region, tree)
        if (found <= 0).any():
            self._add(tree, found)
        return bool((found <= 0).all())

    def _add(self, tree: trees.Tree, found: Array) -> None:
        self._trees.append(tree)
        self.region = {**self.region, self._target: checker.sharpened(self.region[self._target], tree, found)}

    def _engine_region(self) -> Region:
        """The checker's bounds as the engine takes them."""
        intervals = {name: (self.region[name][0][0], self.region[name][1][0]) for name in self._affine}
        return Region(self.region["input"][0][0], self.region["input"][1][0], intervals)


def _root(claims: Sequence[Claim], y: Mapping[str, NDArray[Any]]) -> trees.Tree:
    """A tree without any cut, with a row of multipliers for each claim."""
    units, signs = np.array(claims, dtype=np.int64).T
    each = np.arange(len(claims))
    closed = np.stack([0 * each, each, np.full(len(claims), trees.PLAIN)], axis=1)
    return trees.Tree(units, signs, closed=closed, row=each, y=y)


def _split_tree(claim: Claim, tree: Tree, affine: Sequence[str], dtype: Any) -> trees.Tree:
    """A tree of splits on ReLU phases, for one claim."""
    flat = Flat.of(tree)
    index = np.array([trees.LEAF] + [affine.index(name) + 1 for name in flat.nodes])
    number = np.flatnonzero(flat.where < 0)
    how = np.where(flat.infeasible, trees.EMPTY, np.where(flat.exact, trees.EXACT, trees.PLAIN))
    priced = np.zeros(len(number), dtype=bool)
    for values in flat.multipliers.values():
        priced |= ~np.isnan(values).all(axis=1)
    kind = np.float64 if flat.exact.any() else dtype
    return trees.Tree(
        np.array([claim[0]]),
        np.array([claim[1]]),
        index[flat.where + 1],
        flat.unit,
        np.stack([number, 0 * number, how], axis=1),
        np.where(priced, np.cumsum(priced) - 1, -1),
        {name: values[priced].astype(kind) for name, values in flat.multipliers.items()},
        {
            leaf: {name: (tilt.units, tilt.share.astype(kind), tilt.slope.astype(kind)) for name, tilt in tilts.items()}
            for leaf, tilts in flat.tilts.items()
        },
    )


def _together(bisections: Sequence[tuple[Claim, Bisection]]) -> list[list[tuple[Claim, Bisection]]]:
    """Claims whose bisections of the box agree wherever they cut the same part, so that one tree serves them all."""
    groups: list[tuple[dict[int, int], list[tuple[Claim, Bisection]]]] = []
    for claim, bisection in bisections:
        cuts = _cuts(bisection)
        for known, group in groups:
            if all(known.get(path, axis) == axis for path, axis in cuts.items()):
                known |= cuts
                group.append((claim, bisection))
                break
        else:
            groups.append((cuts, [(claim, bisection)]))
    return [group for _, group in groups]


def _cuts(bisection: Bisection) -> dict[int, int]:
    """The input cut at each part of the box, by the number of the part in the tree that has all parts (root 1)."""
    number = {0: 1}
    found = {}
    for k in np.flatnonzero(bisection.axis >= 0).tolist():
        found[number[k]] = int(bisection.axis[k])
        first = int(bisection.child[k])
        number[first], number[first + 1] = 2 * number[k], 2 * number[k] + 1
    return found


def _joint(group: Sequence[tuple[Claim, Bisection]]) -> trees.Tree:
    """One tree for several claims, each closed where its own bisection ends."""
    where, unit, closed = [], [], list[tuple[int, int, int]]()
    level = [dict.fromkeys(range(len(group)), 0)]
    for number, at in enumerate(level):  # it grows on the way
        cut = {k: node for k, node in at.items() if group[k][1].axis[node] >= 0}
        closed += [(number, k, trees.PLAIN) for k in at if k not in cut]
        where.append(0 if cut else trees.LEAF)
        first = next(iter(cut), None)
        unit.append(0 if first is None else int(group[first][1].axis[cut[first]]))
        for half in (0, 1) if cut else ():
            level.append({k: int(group[k][1].child[node]) + half for k, node in cut.items()})
    units, signs = np.array([claim for claim, _ in group], dtype=np.int64).T
    return trees.Tree(units, signs, np.array(where), np.array(unit), np.array(closed), np.full(len(closed), -1))
