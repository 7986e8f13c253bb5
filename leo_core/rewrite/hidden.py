"""Units that are parallel on the box though their weights do not show it: z_j ≈ a z_i by what both read.

Where a layer reads nodes of several depths, one unit may read x past a layer, and another the active unit relu(x + 5)
of it: the same, and no row of weights is a multiple of the other. Which units may be parallel is guessed from a sample;
how far z_j − a z_i can be is bounded backward through all that both read (:mod:`leo_core.bounds.crown`), active units
being lines there. Then they merge as parallel units do (:mod:`.parallel`).
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from leo_core.arithmetic import Array
from leo_core.bounds.crown import Memo, bound_linearly
from leo_core.bounds.upto import upto
from leo_core.network import INPUT, Affine
from leo_core.rewrite.layer import ReluLayer, layer_of
from leo_core.rewrite.parallel import Pairs, kinds_of, merged, near_multiples
from leo_core.rewrite.step import Ladder, Refusal
from leo_core.rewrite.view import View
from leo_core.search.attack import scatter
from leo_core.stability.verdict import State

Indices = NDArray[np.int64]

_SAMPLES = 128
#: Two units are looked at where, on the sample, they differ by at most this share of what the one varies by.
_SAME = 1e-4
#: A factor this near to one of few digits is taken for it.
_SHORT = 1e-9


def merge_hidden(view: View, name: str) -> Ladder | Refusal | None:
    """Merge as many unstable units of the ReLU ``name`` that are parallel on a sample as the tolerance allows."""
    layer = layer_of(view, name)
    if not isinstance(layer, ReluLayer):
        return layer
    if len(layer.node.sources) == 1 and not _is_affine(view, layer.node.sources[0]):
        return None  # weights show it, or will once active units are re-factored, which rounds less
    pairs = hidden_pairs(layer)
    count = len(pairs.goes)
    if not count:
        return None
    refusal = Refusal("units that seem to compute the same not merged", "they are not proved to be near enough")
    return Ladder(count, lambda left: merged(layer, pairs.first(count - left)), otherwise=refusal)


def _is_affine(view: View, source: str) -> bool:
    return source != INPUT and isinstance(view.network[source], Affine)


def hidden_pairs(layer: ReluLayer) -> Pairs:
    """Unstable units that are a positive multiple of another one on a sample, and how far they are from it at most."""
    values = _sampled(layer)
    with np.errstate(invalid="ignore", over="ignore"):
        length = np.sqrt((values * values).sum(axis=1))
        spread = np.ptp(values, axis=1)
    usable = (layer.units.state == State.UNSTABLE) & np.isfinite(length) & (length > 1e-150)
    found = near_multiples(values, length, usable, kinds_of(layer), sign=1)
    pairs = [(goes, stays, _factor(values[goes], values[stays])) for goes, stays in found.items()]
    pairs = [
        (goes, stays, factor)
        for goes, stays, factor in pairs
        if factor > 0 and np.abs(values[goes] - factor * values[stays]).max() <= _SAME * spread[goes]
    ]
    goes, stays = (np.array([pair[k] for pair in pairs], np.int64) for k in (0, 1))
    factor = np.array([factor for _, _, factor in pairs])
    error = _apart(layer, goes, stays, factor)
    harm = np.abs(layer.outgoing[:, goes]).max(axis=0, initial=0.0) * error
    order = np.argsort(harm, kind="stable")[: int(np.isfinite(harm).sum())]
    return Pairs(goes[order], stays[order], factor[order], error[order])


def _sampled(layer: ReluLayer) -> Array:
    """(units, points): z on a sample of the box."""
    view = layer.view
    with np.errstate(invalid="ignore", over="ignore"):
        sample = view.network.evaluate_nodes(scatter(view.facts.box, _SAMPLES, 0))[layer.node.name]
    return np.ascontiguousarray(sample.T)


def _factor(goes: Array, stays: Array) -> float:
    """goes ≈ factor · stays; of few digits where there is such a one."""
    ratio = float(goes @ stays / (stays @ stays))
    near = float(Fraction(ratio).limit_denominator(1 << 10)) if np.isfinite(ratio) else 0.0
    return near if abs(near - ratio) <= _SHORT * abs(ratio) else ratio


def _apart(layer: ReluLayer, goes: Indices, stays: Indices, factor: Array) -> Array:
    """Per pair, the most that |z_goes − factor · z_stays| is on the box; infinite where no bound is known."""
    network, target = layer.view.network, layer.node.name
    way, memo, each = upto(network, target), Memo(), np.arange(len(goes))
    most = np.zeros(len(goes))
    objectives = np.zeros((len(goes), layer.node.size))
    objectives[each, goes] = 1.0
    objectives[each, stays] = -factor
    for part in way.chunks(len(goes)):
        for sign in (1.0, -1.0):
            found = bound_linearly(network, target, sign * objectives[part], layer.view.region, memo).upper
            most[part] = np.maximum(most[part], found)
    return np.where(np.isnan(most), np.inf, most)
