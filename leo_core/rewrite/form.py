"""What a layer's readers make of its linear block, before and after a rewrite, and how far that is apart.

In float64 with bounded rounding; where that leaves rounding dust only, over the rationals.
"""

from __future__ import annotations

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
    integer_product,
    nearest_ratio,
    product_error,
    round_up,
    to_integers,
)
from leo_core.bounds.change import Change, affine_error

#: Exact arithmetic is used where it takes at most this many products of integers.
EXACT_PRODUCTS = 2_000_000
#: A row is computed exactly where bounded rounding is more than this share of what it may change.
_DUST = 1e-3


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
