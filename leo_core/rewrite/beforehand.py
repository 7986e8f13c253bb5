"""What folds without any verdict folds before units are decided: equal, parallel, opposite and constant units.

Rewriting under no tolerance, with nothing known but intervals, changes no value of what is left: z of a unit that is
left is the same function of the input, and z of one that went into another is a multiple of the other's. So what is
proved of the smaller network's units, and shown by points, is proved and shown of these. Bounds of the smaller one are
tighter, too: a relaxation of relu(z) − relu(−z) does not see that it is z. Two-level lattice networks (Ferlez and
Shoukry 2020), which write each minimum with two such pairs, lose four fifths of their units by it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from leo_core.arithmetic import round_down, round_up
from leo_core.execution.budget import Budget, Limits
from leo_core.execution.events import Listener, Note, silent
from leo_core.network import Affine, Network
from leo_core.rewrite.layer import ReluLayer, layer_of
from leo_core.rewrite.parallel import pairs_of
from leo_core.rewrite.pipeline import Rewritten, rewrite
from leo_core.rewrite.view import View
from leo_core.stability import decide
from leo_core.stability.verdict import LayerStability, Method, StabilityMap, State
from leo_core.stability.work import Work

Array = NDArray[np.float64]

#: The share of units that must be exact multiples of others, and of those that must go, for it to be worth it.
_PAIRED, _FEWER = 0.05, 0.1
#: What rounding can leave between the numbers of two multiples, with much to spare.
_SAME = 1e-9


def decide_folded(work: Work, listener: Listener = silent, *, gone_too: bool = True) -> StabilityMap:
    """As :func:`~leo_core.stability.decide`, by way of the network that is left once all that folds exactly is folded.

    Units that are gone there are asked of the network itself: what is cheap, and all else only if they are to be
    decided ``gone_too``, which no rewriting needs.
    """
    begun = time.monotonic()
    try:
        folded = folded_beforehand(work) if work.strategy == "cascade" and work.trust == "proved" else None
    except KeyboardInterrupt:
        ended = decide(replace(work, limits=replace(work.limits, budget=Budget.of(0.0))), listener)
        return replace(ended, seconds=time.monotonic() - begun, interrupted=True)
    if folded is None:
        return decide(work, listener)
    before, after = (sum(relu.size for relu in network.relus) for network in (work.network, folded.network))
    listener(Note(f"{before - after:,} of {before:,} ReLUs fold into others, whatever their signs", passing=True))
    found = decide(replace(work, network=folded.network), listener)
    limits = replace(work.limits, budget=Budget.of(0.0)) if found.interrupted else work.limits
    known = carried_back(work.network, folded, found)
    stability = decide(replace(work, known=known, cheaply=not gone_too, limits=limits), listener)
    interrupted = stability.interrupted or found.interrupted
    return replace(stability, seconds=time.monotonic() - begun, interrupted=interrupted)


def folded_beforehand(work: Work) -> Rewritten | None:
    """The network without what folds exactly; None where that is too little, or some layer has numbers of its own.

    Raises KeyboardInterrupt for one that came meanwhile.
    """
    network = work.network
    if any(node.own is not None or node.shape for node in network.nodes if isinstance(node, Affine)):
        return None
    total = sum(relu.size for relu in network.relus)
    if not sum(_at_most_paired(network.affine(relu.source)) for relu in network.relus) > _PAIRED * total:
        return None
    limits = Limits(Budget.of(0.0))
    intervals = decide(replace(work, limits=limits))
    if intervals.interrupted:
        raise KeyboardInterrupt
    view = View.of(network, intervals)
    if not _paired(view) > _PAIRED * total:
        return None
    found = rewrite(view, tolerance=0.0, budget=work.budget)
    if found.interrupted:
        raise KeyboardInterrupt
    left = sum(relu.size for relu in found.network.relus)
    return found if found.unmoved and left <= (1 - _FEWER) * total else None


def carried_back(network: Network, folded: Rewritten, found: StabilityMap) -> Mapping[str, LayerStability]:
    """By ReLU of the network first given, bounds and witnesses that verdicts on the folded one's units mean for it."""
    sizes = {relu.name: relu.size for relu in network.relus}
    lower = {name: np.full(size, -np.inf) for name, size in sizes.items()}
    upper = {name: np.full(size, np.inf) for name, size in sizes.items()}
    points: dict[str, dict[int, Array]] = {name: {} for name in sizes}
    for relu in folded.network.relus:
        layer, units = found.layers[relu.name], folded.facts.units[relu.source]
        for home, places in units.homes(relu.name, np.arange(relu.size)):
            at = places[units.origin[places] >= 0]
            origin = units.origin[at]
            lower[home][origin], upper[home][origin] = layer.lower[at], layer.upper[at]
            points[home] |= {
                int(unit): layer.witnesses[int(k)]
                for k, unit in zip(at, origin, strict=True)
                if int(k) in layer.witnesses
            }
    for name, copies in folded.facts.lineage.copies.items():
        low, high, seen = lower[name], upper[name], points[name]
        for unit, of, factor in reversed(copies):  # what it went into may have gone into another later
            ends = (low[of], high[of]) if factor > 0 else (high[of], low[of])
            low[unit], high[unit] = _times(factor, ends[0], -1), _times(factor, ends[1], 1)
            if of in seen:
                seen[unit] = seen[of] if factor > 0 else seen[of][::-1]
    open_, none = State.UNDECIDED, Method.NONE
    return {
        name: LayerStability(
            name, np.full(size, open_), np.full(size, none), lower[name], upper[name], witnesses=points[name]
        )
        for name, size in sizes.items()
    }


def _times(factor: float, end: float, side: int) -> float:
    """The product, rounded to one side, but never past zero: whoever has that sign keeps it."""
    product = factor * end
    if end == 0 or abs(factor) == 1 or np.isinf(end):
        return float(product)
    with np.errstate(over="ignore"):
        rounded = float(round_up(product) if side > 0 else round_down(product))
    positive = (factor > 0) == (end > 0)
    return max(rounded, 0.0) if positive else min(rounded, 0.0)


def _at_most_paired(node: Affine) -> int:
    """How many units may be exact multiples of others, by one number each that is the same for all multiples."""
    rows = np.column_stack([node.rows_at(np.arange(node.size)), node.bias.astype(np.float64)])
    largest = np.take_along_axis(rows, np.abs(rows).argmax(axis=1)[:, None], axis=1)
    with np.errstate(all="ignore"):
        numbers = np.sort((rows / largest) @ np.random.default_rng(0).standard_normal(rows.shape[1]))
    return int(np.count_nonzero(~(np.diff(numbers) > _SAME)))


def _paired(view: View) -> int:
    """How many units are exact multiples of others."""
    count = 0
    for relu in view.network.relus:
        layer = layer_of(view, relu.name)
        if isinstance(layer, ReluLayer):
            for sign in (1, -1):
                count += int(np.count_nonzero(pairs_of(layer, sign=sign).error == 0))
    return count
