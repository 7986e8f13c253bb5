"""Numbers: float64 with every rounding bounded (Higham 2002, section 3.1), or rationals, which round nothing.

An array of rationals is an array of :class:`fractions.Fraction`, so the same lines serve both.
"""

from __future__ import annotations

import math
import sys
from fractions import Fraction
from typing import Any

import numpy as np

Array = Any  # of float64, or of Fractions

TINY = 2.0**-1021  # what underflow can take from one product


def gamma(terms: int) -> float:
    """Bounds the relative error of a sum of so many products, with as much to spare for using it."""
    return 2.0 * (terms + 8) * 2.0**-53


def rational(values: Array) -> Array:
    """Finite floats as Fractions."""
    result = np.empty(np.shape(values), dtype=object)
    result.ravel()[:] = [Fraction(value) for value in np.asarray(values, dtype=np.float64).ravel().tolist()]
    return result


def like(values: Array, other: Array) -> Array:
    """Floats as the kind of number that ``other`` holds."""
    return rational(values) if other.dtype == object else np.asarray(values, dtype=np.float64)


def times(price: Array, matrix: Array) -> Array:
    """price @ matrix, the matrix of floats; for rationals over whole numbers, which is faster."""
    if price.dtype != object:
        return price @ matrix
    used = np.flatnonzero((price != 0).any(axis=0))
    if len(used) == 0:
        return rational(np.zeros((len(price), matrix.shape[1])))
    (left, below), (right, below_right) = whole(price[:, used]), whole(rational(matrix[used]))
    return quotients(left @ right, below * below_right)


def quotients(values: Array, below: int) -> Array:
    """Whole numbers over one denominator as rationals."""
    return np.array([Fraction(int(value), below) for value in values.ravel()], dtype=object).reshape(values.shape)


def whole(values: Array) -> tuple[Array, int]:
    """Rationals as whole numbers over one denominator."""
    below = math.lcm(*(value.denominator for value in values.ravel()))
    result = np.empty(values.shape, dtype=object)
    result.ravel()[:] = [value.numerator * (below // value.denominator) for value in values.ravel()]
    return result, below


def upwards(values: Array) -> Array:
    """Floats not below the values; what is not a number, or fell out of their range, counts as infinite."""
    if values.dtype != object:
        return np.where(values > -np.inf, np.nextafter(values, np.inf), np.inf)
    return np.array([upwards_of(value) for value in values], dtype=np.float64)


def upwards_of(value: Fraction) -> float:
    """The same for one rational."""
    try:
        near = float(value)
    except OverflowError:
        return math.inf if value > 0 else -sys.float_info.max
    return math.nextafter(near, math.inf) if Fraction(near) < value else near


def put(flows: dict[str, Array], name: str, flow: Array) -> None:
    """Add to what a node collects."""
    flows[name] = flows[name] + flow if name in flows else flow


def two_sum(left: Array, right: Array) -> tuple[Array, Array]:
    """The sum, and how far its rounding takes it (Knuth; exact)."""
    total = left + right
    part = total - left
    return total, np.abs(left - (total - part)) + np.abs(right - part)
