"""Two networks of different depth, brought to one: layers that only split units, or pass them on, are taken away.

Units are paired across layers that have the same units. A layer before another one that computes what that does,
z = τ + relu(z − τ) − relu(τ − z), has none that the other network has, and the bounds behind it do not see that both
halves are one. Lifting and folding (:mod:`leo_core.rewrite.lift`) undo that, in float64, so that next to nothing is
rounded; how far each network is moved by it is proved, and counts against what is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import final

import numpy as np

from leo_core.arithmetic import round_up
from leo_core.checker.bounds import all_bounded
from leo_core.compare.pair import Pair
from leo_core.domain import Box
from leo_core.execution.budget import Budget, Limits
from leo_core.linear import Dense
from leo_core.network import Affine, Network
from leo_core.rewrite import Rewritten, rewrite
from leo_core.rewrite.layer import ReluLayer, layer_of
from leo_core.rewrite.parallel import pairs_of
from leo_core.rewrite.view import View
from leo_core.search.attack import scatter
from leo_core.stability import Work, decide
from leo_core.stability.verdict import LayerStability, Method, State
from leo_core.storage import as_checked
from leo_core.within import Within

_SAMPLES = 64
#: How far a network may be moved: relative to how far its outputs range on a sample, and to what is asked.
_MOVED, _SHARE = 1e-5, 0.125
#: So many times what is proved of that is set aside: the checker's own bound of it may be larger.
_SPARE = 2.0


@final
@dataclass(frozen=True, eq=False)
class Levelled:
    """Two networks as they were ``given``, and what both were ``rewritten`` to; nothing where that takes no layer."""

    given: Pair
    rewritten: tuple[Rewritten, ...] = ()

    @property
    def pair(self) -> Pair:
        """The networks to compare."""
        if not self.rewritten:
            return self.given
        first, second = (found.network for found in self.rewritten)
        return replace(self.given, first=first, second=second)

    @property
    def apart(self) -> float:
        """How far these are, together, from those given: proved."""
        return _sum(*(found.deviation for found in self.rewritten))

    def within(self, asked: Within) -> Within:
        """What is to be proved of the pair, for what is asked of the networks given."""
        return replace(asked, slack=_sum(asked.slack, _SPARE * self.apart))

    def farther(self, bound: float) -> float:
        """A bound on the networks given, by one on the pair."""
        return _sum(bound, self.apart)


def levelled(pair: Pair, asked: Within | None, budget: Budget) -> Levelled:
    """Both rewritten, where that takes a layer from one. Raises KeyboardInterrupt for one that came meanwhile."""
    networks = pair.first, pair.second
    nodes = [node for network in networks for node in network.nodes if isinstance(node, Affine)]
    if any(node.own is not None or node.shape for node in nodes):
        return Levelled(pair)
    if len(pair.first.relus) == len(pair.second.relus) and not any(_halves(pair, network) for network in networks):
        return Levelled(pair)
    pair.note("taking away layers that change nothing")
    # by intervals the same units are stable in both, mostly; what better bounds drop in one may stay in the other
    found: list[Rewritten] = []
    for bounds in (_nothing, _bounds):
        found = [_rewritten(pair, network, asked, bounds(network, pair.box), budget) for network in networks]
        if budget.expired or len({len(new.network.relus) for new in found}) == 1:
            break
    if all(len(new.network.relus) == len(old.relus) for old, new in zip(networks, found, strict=True)):
        return Levelled(pair)
    return Levelled(pair, tuple(found))


def _halves(pair: Pair, network: Network) -> bool:
    """Whether some units are opposite to others, as a split leaves them."""
    intervals = decide(Work(network, pair.box, pair.solver, limits=Limits(Budget.of(0.0)), seed=pair.seed))
    view = View.of(network, intervals)
    layers = [layer_of(view, relu.name) for relu in network.relus]
    return any(len(pairs_of(layer, sign=-1).goes) for layer in layers if isinstance(layer, ReluLayer))


def _rewritten(
    pair: Pair, network: Network, asked: Within | None, known: Mapping[str, LayerStability], budget: Budget
) -> Rewritten:
    wide = _in_float64(network)
    with np.errstate(all="ignore"):
        values = network.evaluate(scatter(pair.box, _SAMPLES, pair.seed))
        most = _MOVED * float(np.ptp(values, axis=0).max(initial=0.0))
    if asked is not None:
        most = min(most, max(0.0, _SHARE * float(asked.provable.min())))
    work = Work(wide, pair.box, pair.solver, limits=Limits(Budget.of(0.0)), seed=pair.seed, known=known)
    stability = decide(work)
    if stability.interrupted:
        raise KeyboardInterrupt
    tolerance = most if np.isfinite(most) else 0.0
    found = rewrite(View.of(wide, stability), tolerance=tolerance, passes="depth", budget=budget)
    if found.interrupted:
        raise KeyboardInterrupt
    return found


def _nothing(_network: Network, _box: Box) -> dict[str, LayerStability]:
    """Intervals alone, which all work begins with."""
    return {}


def _bounds(network: Network, box: Box) -> dict[str, LayerStability]:
    """The checker's bounds: what is rewritten by them, a certificate can show."""
    region = all_bounded(as_checked(network), (box.lower[None], box.upper[None]))
    found = {}
    for relu in network.relus:
        low, high = (side[0] for side in region[relu.source])
        nothing = np.full(relu.size, State.UNDECIDED), np.full(relu.size, Method.NONE)
        found[relu.name] = LayerStability(relu.name, *nothing, low, high)
    return found


def _in_float64(network: Network) -> Network:
    """The same with its matrices in float64."""
    return network.with_nodes(*(
        replace(
            node,
            maps=tuple(Dense(m.dense().astype(np.float64)) if isinstance(m, Dense) else m for m in node.maps),
            bias=node.bias.astype(np.float64),
        )
        for node in network.nodes if isinstance(node, Affine)))  # fmt: skip


def _sum(*values: float) -> float:
    total = 0.0
    for value in values:
        total = float(round_up(total + value)) if total and value else total + value
    return total
