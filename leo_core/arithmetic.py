"""The one place that knows floats lie: outward rounding, and exact rational vectors.

Two tools, both rigorous:

* *Error bounds* for float64 sums of products in any order of summation, with or without fused
  multiply-add (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1):
  ``|fl(sum x_i y_i) - sum x_i y_i| <= gamma(n) * sum |x_i y_i| + n * TINY``.
* :class:`ExactVector`: every finite float is a rational number, so an affine map of floats is
  evaluated exactly on integers over one common denominator.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

UNIT_ROUNDOFF = 2.0**-53
#: Absolute error that underflow can add to one product, even on hardware that flushes denormals.
TINY = 2.0**-1021


def gamma(terms: int) -> float:
    """An upper bound on n·u / (1 − n·u), the relative error factor of a sum of ``terms`` products.

    Taken with a factor two to spare, so that the roundings made while *using* the bound
    (a handful of operations on non-negative numbers) are covered as well.
    """
    return 2.0 * (terms + 4) * UNIT_ROUNDOFF


def product_error(magnitude: Array, terms: int) -> Array:
    """Bound the error of float64 sums of ``terms`` products whose absolute sum is ``magnitude``.

    ``magnitude`` may itself be the float64 result of summing absolute products in any order.
    """
    return magnitude * gamma(terms) + (terms + 4) * TINY


def round_up(values: Any) -> Array:
    """The next float64 above: an upper bound on the exact result of one rounded operation."""
    return np.nextafter(np.asarray(values, dtype=np.float64), np.inf)


def round_down(values: Any) -> Array:
    """The next float64 below: a lower bound on the exact result of one rounded operation."""
    return np.nextafter(np.asarray(values, dtype=np.float64), -np.inf)


def sum_up(values: Array, axis: int = -1) -> Array:
    """An upper bound on the exact sum of ``values`` along ``axis``."""
    return round_up(np.sum(values, axis=axis) + product_error(np.sum(np.abs(values), axis=axis), values.shape[axis]))


def weigh_up(weights: Array, off: Array) -> Array:
    """How far Σ weights · v can be off where each v is by ``off`` at most: not at all where none of those is read.

    0 · ∞ is nothing here, and a product that underflows is something.
    """
    read = (weights != 0) & (off != 0)
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        flow = np.where(read, np.abs(weights) * off, 0.0).sum(axis=1)
        return np.where(read.any(axis=1), round_up(flow + product_error(flow, len(off) + 1)), 0.0)


def minus_multiple(values: Array, factor: Array, others: Array) -> tuple[Array, Array]:
    """values − factor · others, and how far each may be off: not at all, where the two are the same number.

    What the product loses by rounding is itself a float64, found and taken away too (Dekker 1971), unless it
    falls out of the range of normal numbers.
    """
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        product = factor * others
        (f_high, f_low), (o_high, o_low) = _halves(factor), _halves(others)
        lost = f_low * o_low - (((product - f_high * o_high) - f_low * o_high) - f_high * o_low)
        sizes = (np.abs(product), np.abs(factor), np.abs(others))
        safe = np.logical_and.reduce([np.broadcast_to(size < 2.0**900, product.shape) for size in sizes])
        safe &= (sizes[0] > 2.0**-900) | (factor == 0) | (others == 0)
        rough = values - product
        result = rough - np.where(safe, lost, 0.0)
        error = 2 * UNIT_ROUNDOFF * (np.abs(rough) + np.abs(result))
        error += np.where(safe, 0.0, 2 * UNIT_ROUNDOFF * sizes[0] + TINY)
    return result, np.where(np.isnan(error), np.inf, error)


def _halves(values: Array) -> tuple[Array, Array]:
    """Floats as the sum of two with 26 bits each (Veltkamp)."""
    shifted = (2.0**27 + 1) * values
    high = shifted - (shifted - values)
    return high, values - high


def to_integers(values: NDArray[Any]) -> tuple[NDArray[np.object_], int]:
    """Finite floats as exact integers: ``values == integers * 2.0**-shift``, with ``shift >= 0``."""
    flat = np.asarray(values, dtype=np.float64)
    mantissa, exponent = np.frexp(flat)
    whole = np.ldexp(mantissa, 53).astype(np.int64)  # exact: a float64 has 53 significant bits
    exponent = exponent.astype(np.int64) - 53
    present = whole != 0
    if not present.any():
        return np.zeros(flat.shape, dtype=object), 0
    # Trailing zero bits (float32 weights have 29 of them) would only make the integers longer.
    low_bit = whole & -whole
    trailing = np.where(present, np.log2(np.where(present, low_bit, 1).astype(np.float64)).astype(np.int64), 0)
    whole = whole >> trailing
    exponent = np.where(present, exponent + trailing, 0)
    shift = max(0, -int(exponent[present].min()))
    longest = np.log2(np.abs(whole[present]).astype(np.float64)) + exponent[present] + shift
    if longest.max() < 62:
        return (whole << np.where(present, exponent + shift, 0)).astype(object), shift
    result = np.empty(flat.shape, dtype=object)
    result_flat = result.reshape(-1)
    for index, (value, power) in enumerate(
        zip(whole.ravel().tolist(), (exponent + shift).ravel().tolist(), strict=True)
    ):
        result_flat[index] = value << power if value else 0
    return result, shift


def integer_product(left: NDArray[np.object_], right: NDArray[np.object_]) -> NDArray[np.object_]:
    """The matrix product of integers of any size; by FLINT where the extra ``exact`` is installed."""
    if left.shape[1] == 0:
        return np.zeros((left.shape[0], right.shape[1]), dtype=object)
    if not fast_integers():
        return np.asarray(left @ right)
    from flint import fmpz_mat

    product = fmpz_mat(left.tolist()) * fmpz_mat(right.tolist())
    result = np.empty(left.shape[0] * right.shape[1], dtype=object)
    result[:] = [int(value) for value in product.entries()]
    return result.reshape(left.shape[0], right.shape[1])


@cache
def fast_integers() -> bool:
    """Whether FLINT is there."""
    try:
        from flint import fmpz_mat  # noqa: F401 - asked for here, used by integer_product
    except ImportError:
        return False
    return True


@dataclass(frozen=True)
class ExactVector:
    """A vector of rationals over one positive denominator: ``numerators / denominator``."""

    numerators: NDArray[np.object_]
    denominator: int

    @staticmethod
    def of(values: Any) -> ExactVector:
        """From finite floats or from :class:`fractions.Fraction` entries."""
        array = np.asarray(values)
        if array.dtype == object:
            fractions = [Fraction(value) for value in array.ravel()]
            denominator = math.lcm(*(value.denominator for value in fractions))
            numerators = np.empty(len(fractions), dtype=object)
            numerators[:] = [int(value * denominator) for value in fractions]
            return ExactVector(numerators, denominator)
        if not np.isfinite(array).all():
            raise ValueError("an exact vector needs finite values")
        numerators, shift = to_integers(array.ravel())
        return ExactVector(numerators, 1 << shift)

    def __len__(self) -> int:
        return int(self.numerators.shape[0])

    def fractions(self) -> list[Fraction]:
        return [Fraction(int(value), self.denominator) for value in self.numerators]

    def signs(self) -> NDArray[np.int8]:
        """−1, 0 or +1 per entry."""
        return np.array([(value > 0) - (value < 0) for value in self.numerators.tolist()], dtype=np.int8)

    def floats(self) -> Array:
        """Each entry rounded to a nearest float64."""
        return np.array([nearest_ratio(int(value), self.denominator) for value in self.numerators.tolist()])

    def scaled(self, denominator: int) -> NDArray[np.object_]:
        """Numerators over a multiple of this vector's denominator."""
        factor, rest = divmod(denominator, self.denominator)
        if rest:
            raise ValueError("not a multiple of the denominator")
        return self.numerators if factor == 1 else self.numerators * factor


def nearest_float(value: Fraction) -> float:
    """The nearest float64, infinite when it overflows."""
    return nearest_ratio(value.numerator, value.denominator)


def nearest_ratio(numerator: int, denominator: int) -> float:
    """The nearest float64 to a ratio of whole numbers, infinite when it overflows."""
    try:
        return numerator / denominator
    except OverflowError:
        return float("inf") if numerator > 0 else float("-inf")


def add_exact(vectors: list[ExactVector]) -> ExactVector:
    """The exact sum of vectors of equal length."""
    denominator = math.lcm(*(vector.denominator for vector in vectors))
    total = vectors[0].scaled(denominator)
    for vector in vectors[1:]:
        total = total + vector.scaled(denominator)
    return ExactVector(total, denominator)


def float_up(value: Fraction) -> float:
    """The least float64 not below ``value`` (infinite when it overflows upwards)."""
    result = nearest_float(value)
    if result == -np.inf:
        return float(np.finfo(np.float64).min)
    if np.isfinite(result) and Fraction(result) < value:
        result = float(np.nextafter(result, np.inf))
    return result


def float_down(value: Fraction) -> float:
    """The greatest float64 not above ``value``."""
    return -float_up(-value)
