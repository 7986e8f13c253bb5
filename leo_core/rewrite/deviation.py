"""Proved bounds on what a rewrite changes: at the nodes it touches, and from there to the outputs.

Behind a touched node both networks are the same, so only the change of its value travels: an affine node
multiplies it by W; a ReLU stops it where the unit is inactive, passes it where it is active, and passes
t·change, slope ≤ t ≤ 1, where it is unstable. With t = middle ± radius, what is passed by the middle stays
linear, so that it can cancel on the way to the outputs; only the radius is summed by absolute values.
Everything is rounded up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from leo_core.arithmetic import (
    TINY,
    UNIT_ROUNDOFF,
    Array,
    fast_integers,
    float_up,
    gamma,
    integer_product,
    nearest_ratio,
    product_error,
    round_down,
    round_up,
    to_integers,
)
from leo_core.network import Affine, Relu, Rounding
from leo_core.rewrite.facts import Facts
from leo_core.rewrite.view import View

#: Exact arithmetic is used where it takes at most this many products of integers.
EXACT_PRODUCTS = 2_000_000
#: A row is computed exactly where bounded rounding is more than this share of what it may change.
_DUST = 1e-3
#: A node's change is traced back linearly where that takes at most this many products; the outputs' always.
_TRACED_PRODUCTS = 20_000_000


@final
@dataclass(frozen=True, eq=False)
class Change:
    """What a rewrite does to the values of an affine node: |change − (matrix x + offset)| ≤ rest, lower ≤ x ≤ upper.

    Attributes
    ----------
    most:
        Per unit, a bound on |change| alone.
    """

    matrix: Array
    offset: Array
    rest: Array
    lower: Array
    upper: Array
    most: Array

    @staticmethod
    def at_most(error: Array) -> Change:
        """One of which only the size is known."""
        nothing = np.zeros(0)
        return Change(np.zeros((len(error), 0)), np.zeros(len(error)), error, nothing, nothing, error)

    def plus(self, other: Change) -> Change:
        """Both, one after the other; their x may be different things."""
        return Change(
            np.hstack([self.matrix, other.matrix]),
            self.offset + other.offset,
            round_up(round_up(self.rest + other.rest) + 4 * UNIT_ROUNDOFF * np.abs(self.offset + other.offset)),
            np.concatenate([self.lower, other.lower]),
            np.concatenate([self.upper, other.upper]),
            round_up(self.most + other.most),
        )

    def rows(self, rows: slice) -> Change:
        """Of some units only."""
        of = self.matrix[rows], self.offset[rows], self.rest[rows]
        return Change(*of, self.lower, self.upper, self.most[rows])

    def with_rows(self, rows: NDArray[np.int64], other: Change) -> Change:
        """This, with what another says of some rows; both over the same x."""
        pairs = [(getattr(self, name).copy(), getattr(other, name)) for name in ("matrix", "offset", "rest", "most")]
        for mine, others in pairs:
            mine[rows] = others
        matrix, offset, rest, most = (mine for mine, _ in pairs)
        return Change(matrix, offset, rest, self.lower, self.upper, most)

    def through(self, price: Array) -> Array:
        """A bound on |price · change|, for prices (targets × units)."""
        with np.errstate(invalid="ignore", over="ignore"):
            absolute, terms = np.abs(price), price.shape[1] + 2
            size = absolute @ self.most
            plain = size + product_error(size, terms)
            if not self.matrix.shape[1]:
                return round_up(plain)
            slack = product_error(absolute @ np.abs(self.matrix), terms)
            rest = absolute @ self.rest
            rest = rest + product_error(rest + absolute @ np.abs(self.offset), terms)
            linear = affine_error(price @ self.matrix, slack, price @ self.offset, rest, self.lower, self.upper)
            return round_up(np.fmin(plain, linear))


def carry(view: View, changes: Mapping[str, Change]) -> dict[str, Array]:
    """How far every node may move when a rewrite changes some affine nodes, all else before them being equal.

    The view is the one before or after the change; entries have the nodes' shapes.
    """
    network, facts = view.network, view.facts
    moved: dict[str, Array] = {}
    spread: dict[str, Array] = {}  # the same by absolute values alone
    work = 0
    for node in network.nodes:
        if not isinstance(node, Affine):
            if node.source in moved:
                moved[node.name] = _passed(node, facts, moved[node.source]).most(moved[node.source])
                spread[node.name] = spread[node.source]
            continue
        if node.name not in changes and not any(source in moved for source in node.sources):
            continue
        own = changes[node.name].most if node.name in changes else np.zeros(node.size)
        moved[node.name], spread[node.name] = _flow(node, moved, own), _flow(node, spread, own)
        work += sum(m.rows * m.columns for source, m in node.reads if source in moved)
        last = node.name == network.output or network.output in network.readers[node.name]
        if work and moved[node.name].any() and (last or node.size * work <= _TRACED_PRODUCTS):
            moved[node.name] = np.minimum(moved[node.name], _traced(view, changes, moved, spread, node))
    return moved


def _flow(node: Affine, entering: Mapping[str, Array], own: Array) -> Array:
    total = own
    for source, linear in node.reads:
        if source in entering and entering[source].any():
            flow = linear.absolute().apply(entering[source])
            total = round_up(total + round_up(flow + product_error(flow, linear.terms)))
    return total


@final
@dataclass(frozen=True, eq=False)
class _Passed:
    """A ReLU passes t·change with ``middle`` − ``radius`` ≤ t ≤ ``middle`` + ``radius`` ≤ ``largest``, per unit."""

    middle: Array
    radius: Array
    largest: Array

    def most(self, moved: Array) -> Array:
        """How much of a change comes through at most."""
        return np.where(self.largest == 1, moved, _times(self.largest, moved))

    def uncertain(self, moved: Array) -> Array:
        """How far what comes through may be from ``middle`` · change."""
        return _times(self.radius, moved)


def _times(share: Array, moved: Array) -> Array:
    """The product, rounded up: a price may be multiplied with it that makes an underflow matter."""
    return np.where((share == 0) | (moved == 0), 0.0, round_up(share * moved))


def _passed(relu: Relu, facts: Facts, moved: Array) -> _Passed:
    units, slope = facts.units[relu.source], relu.slope
    with np.errstate(invalid="ignore"):
        active = units.lower - moved >= 0  # before the change and after it
        inactive = units.upper + moved <= 0
    least, largest = np.where(active, 1.0, slope), np.where(inactive & ~active, slope, 1.0)
    middle = 0.5 * (least + largest)
    away = np.maximum(largest - middle, middle - least)
    return _Passed(middle, np.where(away > 0, round_up(away), 0.0), largest)


def _traced(
    view: View,
    changes: Mapping[str, Change],
    moved: Mapping[str, Array],
    spread: Mapping[str, Array],
    target: Affine,
) -> Array:
    """The change of ``target``, its linear part multiplied out from there back to where it begins.

    A price is a sum of products along paths, and the absolute sum of those, times what enters there, is at
    most ``spread``: that scales each rounding. What underflows in a price counts times the node's change.
    """
    prices: dict[str, Array] = {target.name: np.eye(target.size)}
    total, summands, terms, lost = np.zeros(target.size), 1, 8, 0.0
    with np.errstate(invalid="ignore", over="ignore"):
        for node in reversed(view.network.nodes):
            price = prices.pop(node.name, None)
            if price is None:
                continue
            flows: list[tuple[str, Array]]
            if isinstance(node, Relu):
                passed = _passed(node, view.facts, moved[node.source])
                total += np.abs(price) @ passed.uncertain(moved[node.source])
                flows = [(node.source, price * passed.middle)]
            else:
                if node.name in changes:
                    total += changes[node.name].through(price)
                maps = node.reads
                flows = [(source, linear.apply_transposed(price)) for source, linear in maps if source in moved]
            summands += 1
            terms += 2 * node.size + 8
            lost += (2 * node.size + 8) * (1.0 + float(moved[node.name].sum()))
            for source, flow in flows:
                prices[source] = prices[source] + flow if source in prices else flow
        bound = round_up(total + (summands + 1) * gamma(terms) * spread[target.name] + 4 * lost * TINY)
    return np.where(np.isnan(bound), np.inf, bound)


def import_deviation(view: View, rounding: Mapping[str, Rounding]) -> float:
    """How far the network as read may be from what its model means, at any output, over the view's box.

    That is a change like a rewrite's: what the stored numbers are known to be off by is a linear function of what a
    node reads, and is carried to the outputs as such.
    """
    if not rounding:
        return 0.0
    network, region = view.network, view.region
    moved: dict[str, Array] = {}  # by absolute values alone, which tells how far sources may be elsewhere
    changes: dict[str, Change] = {}
    with np.errstate(invalid="ignore", over="ignore"):
        for node in network.nodes:
            if not isinstance(node, Affine):
                moved[node.name] = moved[node.source]
                continue
            if node.name in rounding:
                ends = {name: _around(region.value(network, name), moved.get(name)) for name in node.sources}
                changes[node.name] = _meant(node, rounding[node.name], ends)
            entering = {name: moved[name] for name in node.sources if name in moved}
            own = changes[node.name].most if node.name in changes else np.zeros(node.size)
            total = _flow(node, entering, own)
            moved[node.name] = np.where(np.isnan(total), np.inf, total)
        off = carry(view, changes).get(network.output, np.zeros(1))
    off = np.fmin(np.where(np.isnan(off), np.inf, off), moved[network.output])
    return float(off.max(initial=0.0))


def _around(ends: tuple[Array, Array], moved: Array | None) -> tuple[Array, Array]:
    """The interval of a value that may be elsewhere by ``moved``."""
    low, high = ends
    return (low, high) if moved is None else (round_down(low - moved), round_up(high + moved))


def _meant(node: Affine, rounding: Rounding, ends: Mapping[str, tuple[Array, Array]]) -> Change:
    """What the model means less what is stored, of a node that reads values in the given intervals."""
    weights = np.broadcast_to(np.asarray(rounding.weights, dtype=np.float64), node.size)
    rest = np.broadcast_to(np.asarray(rounding.bias, dtype=np.float64), node.size).copy()
    for source, linear in node.reads:
        low, high = ends[source]
        reach = np.where(weights.any(), np.maximum(np.abs(low), np.abs(high)), 0.0)
        flow = linear.absolute().apply(reach)
        flow = np.where(weights == 0, 0.0, weights * round_up(flow + product_error(flow, linear.terms + 8)))
        rest = np.where(flow == 0, rest, round_up(rest + round_up(flow)))
    if rounding.known is None:
        return Change.at_most(rest)
    maps, offset = rounding.known
    matrix = np.hstack([linear.rows_at(np.arange(linear.rows)) for linear in maps])
    lower = np.concatenate([ends[source][0] for source in node.sources])
    upper = np.concatenate([ends[source][1] for source in node.sources])
    off = np.asarray(offset, dtype=np.float64)
    most = affine_error(matrix, np.zeros_like(matrix), off, np.zeros(node.size), lower, upper)
    return Change(matrix, off, rest, lower, upper, round_up(most + rest))


def affine_error(matrix: Array, slack: Array, offset: Array, offset_slack: Array, lower: Array, upper: Array) -> Array:
    """max |(matrix + Δ) x + offset + d| per row over lower ≤ x ≤ upper, for |Δ| ≤ slack, |d| ≤ offset_slack."""
    with np.errstate(invalid="ignore", over="ignore"):
        centre = lower + 0.5 * (upper - lower)
        radius = round_up(np.maximum(upper - centre, centre - lower))
        absolute = np.abs(matrix)
        spread = absolute @ radius + slack @ (radius + np.abs(centre))
        middle = np.abs(matrix @ centre + offset)
        magnitude = absolute @ (np.abs(centre) + radius) + np.abs(offset) + slack @ (radius + np.abs(centre))
        total = round_up(spread + middle + offset_slack + product_error(magnitude, 2 * matrix.shape[1] + 8))
    return np.where(np.isnan(total), np.inf, total)


@final
@dataclass(frozen=True, eq=False)
class Form:
    """x → M (W x + b) + c, as float64 with bounded rounding and, where that is affordable, over the rationals.

    Shapes: M (rows, units), W (units, inputs), b (units,), c (rows,).
    """

    outgoing: Array
    weights: Array
    bias: Array
    constants: Array

    @cached_property
    def product(self) -> tuple[Array, Array]:
        """M W, and how far its entries may be off."""
        with np.errstate(invalid="ignore", over="ignore"):
            size = np.abs(self.outgoing) @ np.abs(self.weights)
            return self.outgoing @ self.weights, product_error(size, _terms(self.weights))

    @cached_property
    def offset(self) -> tuple[Array, Array]:
        """M b + c, and how far its entries may be off."""
        with np.errstate(invalid="ignore", over="ignore"):
            size = np.abs(self.outgoing) @ np.abs(self.bias) + np.abs(self.constants)
            return self.outgoing @ self.bias + self.constants, product_error(size, self.outgoing.shape[1] + 3)

    @property
    def work(self) -> int:
        """How many products of integers the exact form takes."""
        rows, units = self.outgoing.shape
        return int((rows + 1) * (units + 1) * (self.weights.shape[1] + 1))

    @cached_property
    def exact(self) -> tuple[NDArray[np.object_], int]:
        """[M W | M b + c] as integers over 2**shift."""
        left, left_shift = to_integers(self.outgoing)
        right, right_shift = to_integers(np.column_stack([self.weights, self.bias]))
        constant, constant_shift = to_integers(self.constants)
        shift = max(left_shift + right_shift, constant_shift)
        total = integer_product(left, right) * (1 << (shift - left_shift - right_shift))
        total[:, -1] += constant * (1 << (shift - constant_shift))
        return total, shift

    def rounded(self, dtype: Any) -> Array:
        """M W, near enough to be rounded to ``dtype``; nothing is left where it cancels."""
        product, slack = self.product
        if _precise(product, slack, dtype) or self.work > _affordable(dtype):
            return np.where(np.abs(product) <= slack, 0.0, product)
        total, shift = self.exact
        return _nearest(total[:, :-1], 1 << shift)

    def rows(self, rows: NDArray[np.int64]) -> Form:
        """Some rows of it."""
        return Form(self.outgoing[rows], self.weights, self.bias, self.constants[rows])

    def with_constants(self, constants: Array) -> Form:
        return Form(self.outgoing, self.weights, self.bias, constants)


def change(old: Form, new: Form, lower: Array, upper: Array) -> Change:
    """What taking new for old changes, row by row, on a box of x.

    Float64 with bounded rounding first; where that leaves rounding dust only, and the sizes allow,
    over the rationals.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        matrix, slack = new.product[0] - old.product[0], new.product[1] + old.product[1]
        offset, offset_slack = new.offset[0] - old.offset[0], new.offset[1] + old.offset[1]
        slack = round_up(slack + 2 * UNIT_ROUNDOFF * np.abs(matrix))
        offset_slack = round_up(offset_slack + 2 * UNIT_ROUNDOFF * np.abs(offset))
        rough = affine_error(matrix, slack, offset, offset_slack, lower, upper)
        likely = affine_error(matrix, np.zeros_like(slack), offset, np.zeros_like(offset), lower, upper)
        rest = slack @ np.maximum(np.abs(lower), np.abs(upper))
        rest = round_up(offset_slack + rest + product_error(rest, len(lower)))
    found = Change(matrix, offset, np.where(np.isnan(rest), np.inf, rest), lower, upper, rough)
    finite = np.isfinite(lower).all() and np.isfinite(upper).all()
    dusty = np.flatnonzero(likely < (1 - _DUST) * rough)
    if not finite or not len(dusty) or old.work + new.work > _affordable(np.float64):
        return found
    if len(dusty) == len(rough):
        return _exact_change(old, new, lower, upper)
    return found.with_rows(dusty, _exact_change(old.rows(dusty), new.rows(dusty), lower, upper))


def best_constants(old: Form, new: Form, lower: Array, upper: Array, dtype: Any) -> Array:
    """The constants for which ``new`` is right at the centre of the box, near enough to be rounded to ``dtype``."""
    centre = lower + 0.5 * (upper - lower)
    centre = np.where(np.isfinite(centre), centre, 0.0)
    new = new.with_constants(np.zeros(len(old.constants)))
    with np.errstate(invalid="ignore", over="ignore"):
        matrix, offset = old.product[0] - new.product[0], old.offset[0] - new.offset[0]
        wanted = offset + matrix @ centre
        size = np.abs(matrix) @ np.abs(centre) + np.abs(old.offset[0]) + np.abs(new.offset[0])
        slack = old.offset[1] + new.offset[1] + (old.product[1] + new.product[1]) @ np.abs(centre)
        slack = slack + product_error(size, len(centre) + 4)
    if _precise(wanted, slack, dtype) or old.work + new.work > _affordable(dtype):
        return np.where(np.abs(wanted) <= slack, 0.0, wanted)
    difference, constant, shift = _exact_difference(old, new)
    whole, centre_shift = to_integers(centre)
    middle = difference @ whole + constant * (1 << centre_shift) if len(centre) else constant
    return -_nearest(middle, 1 << (shift + (centre_shift if len(centre) else 0)))


def _precise(values: Array, slack: Array, dtype: Any) -> bool:
    """Whether float64 values that are off by at most ``slack`` may be rounded to a dtype as if they were exact."""
    size = np.abs(values)
    return bool(((slack <= 0.01 * np.finfo(dtype).eps * size) | (size <= slack)).all())


def _nearest(numerators: NDArray[np.object_], denominator: int) -> Array:
    flat = [nearest_ratio(int(value), denominator) for value in numerators.ravel()]
    return np.array(flat, dtype=np.float64).reshape(numerators.shape)


def _exact_change(old: Form, new: Form, lower: Array, upper: Array) -> Change:
    matrix, offset, shift = _exact_difference(old, new)
    # max and min over the box, each sum over one denominator
    low, low_shift = to_integers(lower)
    high, high_shift = to_integers(upper)
    bits = max(low_shift, high_shift)
    low, high = low * (1 << (bits - low_shift)), high * (1 << (bits - high_shift))
    at_low, at_high = matrix * low, matrix * high
    base = offset * (1 << bits)
    top = np.where(at_low > at_high, at_low, at_high).sum(axis=1) + base
    bottom = np.where(at_low > at_high, at_high, at_low).sum(axis=1) + base
    denominator = 1 << (shift + bits)
    most = np.array(
        [float_up(Fraction(max(abs(int(t)), abs(int(u))), denominator)) for t, u in zip(top, bottom, strict=True)]
    )
    moves = most > 0  # a row that is 0 on the whole box must not be anything else as floats
    rounded, constant = _nearest(matrix, 1 << shift) * moves[:, None], _nearest(offset, 1 << shift) * moves
    reach = np.maximum(np.abs(lower), np.abs(upper))
    with np.errstate(invalid="ignore", over="ignore"):
        size = np.abs(rounded) @ reach + np.abs(constant)
        rest = np.where(moves, size * 4 * UNIT_ROUNDOFF + product_error(size, len(reach)) + reach.sum() * TINY, 0.0)
    return Change(rounded, constant, np.where(np.isnan(rest), np.inf, rest), lower, upper, most)


def _exact_difference(old: Form, new: Form) -> tuple[NDArray[np.object_], NDArray[np.object_], int]:
    """(matrix, offset, shift): new − old as integers over 2**shift."""
    (was, was_shift), (now, now_shift) = old.exact, new.exact
    shift = max(was_shift, now_shift)
    total = now * (1 << (shift - now_shift)) - was * (1 << (shift - was_shift))
    return total[:, :-1], total[:, -1], shift


def _affordable(dtype: Any) -> int:
    """How many products of integers may be spent on numbers of this dtype."""
    return EXACT_PRODUCTS * (20 if fast_integers() and dtype == np.float64 else 1)


def _terms(*matrices: Array) -> int:
    """The most products that one entry of (·)·matrix sums: adding zeros rounds nothing."""
    return 2 + sum(int(np.count_nonzero(m, axis=0).max(initial=0)) for m in matrices)
