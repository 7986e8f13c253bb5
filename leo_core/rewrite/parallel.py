"""Parallel units merge, unstable ones too: relu(a z) = a relu(z) for a > 0.

If z_j = a z_i, then M_j relu(z_j) = (a M_j) relu(z_i): unit j goes, and M_i becomes M_i + a M_j. A ReLU is
1-Lipschitz, so where z_j is only near a z_i, the reader is off by at most |M_j| max |z_j − a z_i|.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import numpy as np
from numpy.typing import NDArray

from leo_core.arithmetic import Array, minus_multiple, product_error, round_up
from leo_core.bounds.change import Change, affine_error
from leo_core.bounds.region import leak
from leo_core.rewrite.facts import Lineage
from leo_core.rewrite.form import Form, best_constants, change
from leo_core.rewrite.layer import ReluLayer, Rows, layer_of
from leo_core.rewrite.step import Ladder, Refusal, Rewrite
from leo_core.rewrite.view import View
from leo_core.stability.verdict import State

Indices = NDArray[np.int64]

#: Units whose directions differ by more than this (inputs scaled by their ranges, length 1) are not tried.
_NEAR = 1e-3
#: By how many random projections directions are compared before they are compared themselves.
_PROJECTIONS = 8


def merge_parallel(view: View, name: str) -> Ladder | Refusal | None:
    """Merge as many parallel unstable units of the ReLU ``name`` as the tolerance allows."""
    layer = layer_of(view, name)
    if not isinstance(layer, ReluLayer):
        return layer
    pairs = pairs_of(layer, sign=1)
    count = len(pairs.goes)
    if not count:
        return None
    refusal = Refusal("parallel units not merged", "they are not near enough")
    return Ladder(count, lambda left: merged(layer, pairs.first(count - left)), otherwise=refusal)


@final
@dataclass(frozen=True, eq=False)
class Pairs:
    """|z_goes − factor · z_stays| ≤ error on the box, per pair, the least harmful first; no unit goes and stays."""

    goes: Indices
    stays: Indices
    factor: Array
    error: Array

    def first(self, count: int) -> Pairs:
        return Pairs(self.goes[:count], self.stays[:count], self.factor[:count], self.error[:count])

    def told(self, layer: ReluLayer) -> Lineage:
        """The lineage of a layer's units, once those that go were taken for multiples of those that stay."""
        units, lineage = layer.units, layer.view.facts.lineage
        for home, places in units.homes(layer.relu.name, self.goes):
            goes, stays = units.origin[self.goes[places]], units.origin[self.stays[places]]
            lineage = lineage.with_copies(home, goes, stays, self.factor[places])
        return lineage


def pairs_of(layer: ReluLayer, *, sign: int) -> Pairs:
    """Unstable units near a multiple of another one, no longer than that: positive (``sign`` 1) or negative (−1).

    Units that stood behind different ReLUs are left apart: one cannot be told to be a copy of the other.
    """
    known = layer.incoming
    weights, bias, lower, upper = known.weights, known.bias, known.lower, known.upper
    slope = layer.relu.slope
    usable = layer.units.state == State.UNSTABLE
    usable &= slope == 0 if sign < 0 else True
    # what a unit does on the box: its slopes over the ranges, and its value at the centre
    with np.errstate(invalid="ignore", over="ignore"):
        centre, radius = lower + 0.5 * (upper - lower), 0.5 * (upper - lower)
        rows = np.column_stack([weights * radius, weights @ centre + bias])
        length = np.sqrt((rows * rows).sum(axis=1))
        usable &= np.isfinite(length) & (length > 1e-150)
    found = near_multiples(rows, length, usable, kinds_of(layer), sign=sign)
    goes, stays = np.array(list(found), np.int64), np.array(list(found.values()), np.int64)
    full = np.column_stack([weights, bias])
    factor = np.array([multiple_of(full[j], full[i], rows[j], rows[i]) for j, i in found.items()])
    error = apart_by(full[goes], factor, full[stays], lower, upper)
    harm = np.abs(layer.outgoing[:, goes]).max(axis=0, initial=0.0) * error
    order = np.argsort(harm, kind="stable")
    return Pairs(goes[order], stays[order], factor[order], error[order])


def kinds_of(layer: ReluLayer) -> Array:
    """By unit a number: units that leak differently, or stood behind different ReLUs, are of different kinds."""
    homes = np.unique(layer.units.home.astype(str), return_inverse=True)[1]
    both = np.column_stack([layer.relu.slope, homes])
    return np.unique(both, axis=0, return_inverse=True)[1].ravel().astype(np.float64)


def near_multiples(rows: Array, length: Array, usable: NDArray[np.bool_], kinds: Array, *, sign: int) -> dict[int, int]:
    """{row: another, no shorter, of its kind that it is near a multiple of}, of one sign; none of those goes itself."""
    at = np.flatnonzero(usable)
    near = _Near(rows[usable] / length[usable, None])
    free = np.ones(len(at), dtype=bool)
    found: dict[int, int] = {}
    for k in np.argsort(-length[at], kind="stable"):
        if free[k] and len(others := near(k, sign, free & (kinds[at] == kinds[at[k]]))):
            free[k] = free[others] = False
            found.update(dict.fromkeys(at[others].tolist(), int(at[k])))
    return found


class _Near:
    """Finds the rows (of length 1) that are within ``_NEAR`` of one of them, or of its opposite."""

    def __init__(self, directions: Array) -> None:
        random = np.random.default_rng(0).standard_normal((directions.shape[1], _PROJECTIONS))
        self._directions = directions
        self._shadows = directions @ (random / np.sqrt((random * random).sum(axis=0)))  # these are no further apart
        self._order = np.argsort(self._shadows[:, 0], kind="stable")
        self._sorted = self._shadows[self._order, 0]

    def __call__(self, row: int, sign: int, among: NDArray[np.bool_]) -> Indices:
        """Other rows among some with |other − sign · row| ≤ _NEAR."""
        shadow = sign * self._shadows[row]
        first, end = np.searchsorted(self._sorted, shadow[0] + np.array([-_NEAR, _NEAR]), side="right")
        others = np.sort(self._order[first:end])
        others = others[among[others] & (others != row)]
        others = others[(np.abs(self._shadows[others] - shadow) <= _NEAR).all(axis=1)]
        apart = np.linalg.norm(self._directions[others] - sign * self._directions[row], axis=1)
        return np.asarray(others[apart <= _NEAR])


def apart_by(goes: Array, factor: Array, stays: Array, lower: Array, upper: Array) -> Array:
    """Per pair of rows (weights and a bias), the most that goes − factor · stays can be on a box."""
    rest, slack = minus_multiple(goes, factor[:, None], stays)
    error = affine_error(rest[:, :-1], slack[:, :-1], rest[:, -1], slack[:, -1], lower, upper)
    return np.where((rest == 0).all(axis=1) & (slack == 0).all(axis=1), 0.0, error)


def multiple_of(goes: Array, stays: Array, goes_scaled: Array, stays_scaled: Array) -> float:
    """goes ≈ factor · stays: their exact ratio where they have one, else the best fit over the box."""
    largest = int(np.argmax(np.abs(stays)))
    ratio = float(goes[largest] / stays[largest])
    if np.array_equal(ratio * stays, goes):
        return ratio
    return float(goes_scaled @ stays_scaled / (stays_scaled @ stays_scaled))


def merged(layer: ReluLayer, pairs: Pairs) -> Rewrite | None:
    """The layer without the units that go; None where a new weight would overflow."""
    try:
        into, made = absorbed(layer, pairs)
    except OverflowError:
        return None
    keep = np.setdiff1d(np.arange(layer.relu.size), pairs.goes)
    view = layer.replaced(keep, Rows.none(layer.columns), into.outgoing[:, keep], into.constants)
    what = f"{len(pairs.goes)} parallel unit(s) merged into others"
    return Rewrite(view.with_lineage(pairs.told(layer)), what, layer.by_reader(made))


def absorbed(layer: ReluLayer, pairs: Pairs) -> tuple[ReluLayer, Change]:
    """(the layer with M_stays + |factor| M_goes, rounded, for M_stays; what that changes). M_goes is left.

    The error is that of the pairs, |M_goes| · error, and that of rounding. Raises OverflowError.
    """
    stays = np.unique(pairs.stays)
    involved = np.concatenate([stays, pairs.goes])
    one_hot = np.eye(len(stays))
    factors = np.vstack([one_hot, one_hot[np.searchsorted(stays, pairs.stays)] * np.abs(pairs.factor)[:, None]])
    old = Form(layer.outgoing[:, involved], factors, np.zeros(len(involved)), layer.constants)
    outgoing = layer.outgoing.copy()
    outgoing[:, stays] = layer.stored(old.rounded(layer.dtype))
    new = Form(outgoing[:, stays], one_hot, np.zeros(len(stays)), layer.constants)
    units = layer.units.kept(stays)
    slope = layer.relu.slope[stays]
    ends = leak(units.lower, slope, upwards=False), leak(units.upper, slope, upwards=True)
    made, constants = change(old, new, *ends), layer.constants
    if made.most.any():  # part of what is rounded can go into the constants
        centred = layer.stored_constants(best_constants(old, new, *ends, layer.dtype))
        better = change(old, new.with_constants(centred), *ends).most < made.most
        constants = np.where(better, centred, constants)
        made = change(old, new.with_constants(constants), *ends)
    if pairs.error.any():
        with np.errstate(invalid="ignore"):
            apart = np.abs(layer.outgoing[:, pairs.goes]) @ pairs.error
        made = made.plus(Change.at_most(round_up(apart + product_error(apart, len(pairs.goes)))))
    return replace(layer, outgoing=outgoing, constants=constants), made
