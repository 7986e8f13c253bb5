from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leo_core import arithmetic as ar

FLOATS = st.floats(-1e100, 1e100)
LISTS = st.lists(st.floats(-1e60, 1e60) | st.floats(-1e-300, 1e-300), min_size=1, max_size=30)


@given(LISTS, st.integers(0, 1000))
def test_the_error_bound_of_a_sum_of_products_holds(xs, seed):
    x, rng = np.array(xs), np.random.default_rng(seed)
    y = rng.choice([1.0, 1e-200, -1e30], len(x)) * rng.standard_normal(len(x))
    exact = sum((Fraction(a) * Fraction(b) for a, b in zip(x.tolist(), y.tolist(), strict=True)), Fraction(0))
    computed = float(x @ y)
    magnitude = float(np.abs(x) @ np.abs(y))
    assert abs(Fraction(computed) - exact) <= Fraction(float(ar.product_error(np.array(magnitude), len(x))))


@given(st.fractions(-(10**12), 10**12))
def test_rounding_fractions_to_a_side(value):
    assert Fraction(ar.float_down(value)) <= value <= Fraction(ar.float_up(value))
    assert ar.float_up(value) - ar.float_down(value) <= abs(float(value)) * 2.0**-51 + 5e-324
    assert abs(Fraction(ar.nearest_float(value)) - value) <= abs(Fraction(float(value)) - value)


@given(st.lists(FLOATS | st.floats(-1e-310, 1e-310), min_size=1, max_size=8))
def test_floats_as_integers_over_a_power_of_two(values):
    integers, shift = ar.to_integers(np.array(values))
    assert [Fraction(int(k), 1 << shift) for k in integers] == [Fraction(v) for v in values]


@given(LISTS)
def test_exact_vectors_keep_values_and_signs(values):
    vector = ar.ExactVector.of(np.array(values))
    assert list(vector.fractions()) == [Fraction(v) for v in values]
    assert vector.signs().tolist() == [int(np.sign(v)) for v in values]


@given(LISTS)
def test_sum_up_is_above_the_sum(values):
    assert sum(map(Fraction, values)) <= Fraction(float(ar.sum_up(np.array(values))))


ANY = st.floats(allow_nan=False, allow_infinity=False)


@given(ANY, ANY, ANY, st.booleans())
def test_what_is_left_of_a_multiple_is_known_to_its_last_bits(value, factor, other, near):
    ordinary = near and all(1e-200 < abs(number) < 1e200 for number in (factor, other, factor * other))
    if ordinary:
        value = factor * other
    left, error = (float(x[0]) for x in ar.minus_multiple(*(np.array([x]) for x in (value, factor, other))))
    exact = Fraction(value) - Fraction(factor) * Fraction(other)
    if error < np.inf:
        assert abs(Fraction(left) - exact) <= Fraction(error)
    if ordinary:
        assert error <= abs(value) * 2.0**-100
        assert (error == 0) == (exact == 0)


@pytest.mark.parametrize("flint", [False, True])
def test_integer_products_with_and_without_flint(flint, monkeypatch):
    if flint:
        pytest.importorskip("flint")
    monkeypatch.setattr(ar, "fast_integers", lambda: flint)
    rng = np.random.default_rng(0)
    left, right = (rng.integers(-9, 10, shape).astype(object) * 10**30 + 7 for shape in ((3, 4), (4, 2)))
    product = ar.integer_product(left, right)
    for i in range(3):
        for j in range(2):
            assert product[i, j] == sum(int(left[i, k]) * int(right[k, j]) for k in range(4))
    assert ar.integer_product(left[:, :0], right[:0]).tolist() == [[0, 0]] * 3
