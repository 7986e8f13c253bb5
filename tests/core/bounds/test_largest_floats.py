"""Near the largest float: widths and products that overflow make a bound infinite, never small, and nothing crashes."""

from __future__ import annotations

import contextlib
from fractions import Fraction

import numpy as np
import pytest
from adversaries import adversary, chain, layer
from truth import largest_difference

from leo_core import api
from leo_core.arithmetic import float_up
from leo_core.certificate import evidence
from leo_core.checker.numbers import upwards
from leo_core.domain import Box
from leo_core.errors import EncodingError, OutputError
from leo_core.linear import Dense, Sparse
from leo_core.network import INPUT, Affine, Network, Relu
from leo_core.rewrite.facts import Units
from leo_core.rewrite.form import Form, change
from leo_core.rewrite.straighten import off_the_line
from leo_core.search.prover import Prover
from leo_core.stability import State

BOX = Box([-1.0], [1.0])


@pytest.mark.parametrize("k", range(8, 26))
def test_a_unit_whose_width_overflows_is_no_line(k):
    weight = 2.0**1023 - k * 2.0**970
    network = chain([layer([[weight]], [0]), layer([[2.0**-1022]], [0])])
    for tolerance in (1e-6, "float"):
        result = api.compress(network, BOX, tolerance=tolerance)
        assert largest_difference(network, result.network, BOX) <= Fraction(result.deviation)


@pytest.mark.parametrize("size", [8.9e307, 8.98e307])
def test_a_wide_box_and_ordinary_weights(size):
    network, box = chain([layer([[1.0]], [0]), layer([[1 / size]], [0])]), Box([-size], [size])
    result = api.compress(network, box)
    assert largest_difference(network, result.network, box) <= Fraction(result.deviation)


def test_what_a_line_is_off_by_is_seen_at_the_ends_and_at_zero():
    low, high, slope = (
        np.array([-1.0, -3.0, -1e308, -2.0]),
        np.array([2.0, 1.0, 1.7e308, 0.5]),
        np.array([0, 0.25, 0, 0]),
    )
    gain, offset = np.array([2 / 3, 0.4, 0.0, np.nan]), np.array([1 / 3, 0.2, 0.0, 0.0])
    off = off_the_line(low, high, slope, gain, offset)
    for unit in range(3):
        seen = []
        for z in np.linspace(0, 1, 41):
            at = Fraction(low[unit]) * (1 - Fraction(z)) + Fraction(high[unit]) * Fraction(z)
            relu = at if at >= 0 else at * Fraction(slope[unit])
            seen.append(abs(relu - Fraction(gain[unit]) * at - Fraction(offset[unit])))
        assert max(seen) <= Fraction(off[unit])
    assert off[2] >= 1.7e308
    assert off[3] == np.inf


def test_the_defect_of_a_leaky_unit_is_rounded_up_as_often_as_it_is_rounded():
    rng = np.random.default_rng(0)
    slope, away = rng.random(2000), rng.random(2000)
    units = Units(np.full(2000, State.ACTIVE, np.int8), -away, np.ones(2000), np.arange(2000))
    for s, a, defect in zip(slope, away, units.defect(slope), strict=True):
        assert (1 - Fraction(s)) * Fraction(a) <= Fraction(defect)


def test_a_row_that_changes_nothing_adds_nothing_to_others():
    third = np.array([[1 / 3]])
    old = Form(np.ones((1, 1)), third, np.zeros(1), np.zeros(1))
    new = Form(np.ones((1, 1)), third * 2, np.zeros(1), -third[0] * 3)
    made = change(old, new, np.array([3.0]), np.array([3.0]))
    if made.most[0] == 0:
        assert (made.matrix == 0).all()
        assert (made.offset == 0).all()


@pytest.mark.parametrize("seed", range(6))
def test_what_overflows_is_compared_and_certified_or_refused(seed, tmp_path):
    case = adversary("near the largest float", seed)
    with np.errstate(all="raise"):
        result = api.compress(case.network, case.box, tolerance=1e-6, evidence=True)
        true = largest_difference(case.network, result.network, case.box)
        assert true <= Fraction(result.deviation)
        compared = api.verify(case.network, result.network, case.box, time_limit=1)
        assert Fraction(compared.lower) <= true
        assert compared.upper == np.inf or true <= Fraction(compared.upper)
        with contextlib.suppress(OutputError):
            result.certify(tmp_path / "c")
        if not (tmp_path / "c").exists():
            return  # no bound is finite
        assert true <= Fraction(api.check(tmp_path / "c", case.network, result.network).deviation)


def two(*rows: object) -> Network:
    return chain([layer(matrix, np.zeros(len(matrix))) for matrix in rows])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (([[1e300], [1]], [[1e300, 0], [0, 1]], [[0, 1]]), ([[1e300], [1]], [[1e300, 0], [0, 1]], [[0, 1 + 2**-52]])),
        (([[1.7e308]],), ([[-1.7e308]],)),
        (([[1.7e308], [1.7e308]], [[1.0, 1.0]]), ([[1.0], [2.0]], [[1.0, 1.0]])),
        (([[1e154], [1e-154]], [[1e154, 0], [0, 1.0]], [[1.0, 1.0]]), ([[1.0], [2.0]], [[1.0, 1.0]])),
    ],
)  # fmt: skip
def test_differences_that_overflow_are_infinite_and_no_crash(first, second):
    one, other = two(*first), two(*second)
    found = api.verify(one, other, BOX, time_limit=1)
    true = largest_difference(one, other, BOX)
    assert 0 < Fraction(found.lower) <= true
    assert found.upper == np.inf or true <= Fraction(found.upper)


def empty() -> Network:
    nodes = (
        Affine("z1", (INPUT,), (Dense(np.zeros((0, 1))),), np.zeros(0)),
        Relu("h1", "z1", np.zeros(0)),
        Affine("z2", ("h1", INPUT, "z1"), (Dense(np.zeros((1, 0))), Dense([[1.0]]), Sparse.zero(1, 0)), np.zeros(1)),
    )
    return Network(1, nodes, "z2")


def test_layers_without_units(tmp_path):
    network, other = empty(), two([[1.0], [2.0]], [[1.0, 1.0]])
    assert network.evaluate([[0.5], [1.0]]).tolist() == [[0.5], [1.0]]
    assert network.evaluate(np.zeros((0, 1))).shape == (0, 1)
    assert Sparse.zero(0, 3).apply(np.ones((2, 3))).shape == (2, 0)
    assert Sparse.zero(0, 3).apply_transposed(np.ones((2, 0))).tolist() == [[0, 0, 0]] * 2
    assert Sparse.zero(2, 0).apply(np.zeros(0)).tolist() == [0, 0]
    api.analyze(network, BOX)
    result = api.compress(network, BOX, evidence=True)
    result.certify(tmp_path / "c")
    api.check(tmp_path / "c", network, result.network)
    assert api.verify(network, other, BOX, time_limit=1).lower == 2.0
    assert api.verify(other, network, BOX, time_limit=1).lower == 2.0


def named(names: tuple[str, ...], second: float, third: float) -> Network:
    z1, h1, z2, h2, out = names
    nodes = (
        Affine(z1, (INPUT,), (Dense([[1.0], [second]]),), np.array([0.25, 0.5])),
        Relu(h1, z1, np.zeros(2)),
        Affine(z2, (h1,), (Dense([[1.0, -1.0], [0.5, 1.0]]),), np.zeros(2)),
        Relu(h2, z2, np.zeros(2)),
        Affine(out, (h2,), (Dense([[1.0, third]]),), np.zeros(1)),
    )
    return Network(1, nodes, out)


@pytest.mark.parametrize(
    "names",
    [
        ("z1", "h1", "z1.own", "h2", "h1.merged"),
        ("z1", "h1", "z1.own", "h1.merged", "z1.own_2"),
        ("difference", "excess", "first/difference", "second/excess", "all"),
        ("z1", "h1", "h1.merged", "h1.merged_2", "z1.own"),
        ("normalised", "all difference", "z", "z.h", "output"),
    ],
)
def test_nodes_that_are_called_like_ours(names, tmp_path):
    one, other = named(names, 1.5, 1.0), named(names, 1.5001, 1.1)
    true = largest_difference(one, other, BOX)
    found = api.verify(one, other, BOX, time_limit=2)
    assert Fraction(found.lower) <= true <= Fraction(found.upper)
    for strategy in ("cascade", "isa", "paper"):
        result = api.compress(one, BOX, strategy=strategy, evidence=True, tolerance=1e-3)
        assert largest_difference(one, result.network, BOX) <= Fraction(result.deviation)
        result.certify(tmp_path / "c")
        api.check(tmp_path / "c", one, result.network)


def test_a_certificate_where_no_lp_can_be_written(monkeypatch, tmp_path):
    network = chain([layer([[1.0], [-1.0]], [2.0, 2.0]), layer([[1.0, 1.0]], [-1.0]), layer([[1.0]], [0.0])])

    def refuses(*_given: object) -> None:
        raise EncodingError("too large")

    with monkeypatch.context() as patched:
        patched.setattr(Prover, "never_positive", refuses)
        patched.setattr(evidence._Layer, "_open", lambda self: [(0, 1)])
        result = api.compress(network, BOX, evidence=True)
    result.certify(tmp_path / "c")
    assert largest_difference(network, result.network, BOX) <= Fraction(result.deviation)


def test_rationals_beyond_all_floats_are_rounded_up():
    beyond = Fraction(2) ** 1030
    values = np.array([beyond, -beyond, Fraction(1, 3)], dtype=object)
    assert upwards(values).tolist() == [np.inf, -np.finfo(np.float64).max, float_up(Fraction(1, 3))]
