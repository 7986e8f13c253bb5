"""What a network computes in floats, whatever the order of its sums, is within the proved bound of its exact value."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import networks_and_boxes

from leo_core import Box
from leo_core.bounds.interval import bound_network
from leo_core.bounds.running import as_run, certain_class, running_error, running_error_at
from leo_core.linear import Dense, Diagonal, Select, Sparse
from leo_core.network import INPUT, Affine, Network, Relu, Signature
from leo_core.testing.networks import chain, residual, skip

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # overflow is one of the subjects


class Machine:
    """A float unit: one dtype, denormals kept or flushed, and a way to sum products."""

    def __init__(self, dtype, flushes=False, how="forward", rng=None):
        self.dtype, self.flushes, self.how = np.dtype(dtype).type, flushes, how
        self.rng = rng or np.random.default_rng(0)
        self.least = np.finfo(dtype).smallest_normal

    def number(self, value):
        """A result or an operand as this machine sees it."""
        value = self.dtype(value)
        return self.dtype(0) if self.flushes and abs(value) < self.least else value

    def multiply(self, left, right):
        return self.number(self.number(left) * self.number(right))

    def add(self, left, right):
        return self.number(self.number(left) + self.number(right))

    def sum(self, pairs, bias):
        """Σ w·x + bias in the order that ``how`` says."""
        if self.how == "fused":
            total = self.number(bias)
            for w, x in pairs:
                exact = Fraction(float(self.number(w))) * Fraction(float(self.number(x))) + Fraction(float(total))
                total = self.number(float(exact))
            return total
        if self.how == "wide":
            terms = [Fraction(float(self.number(w))) * Fraction(float(self.number(x))) for w, x in pairs]
            return self.number(float(sum(terms, Fraction(float(self.number(bias))))))
        terms = [self.multiply(w, x) for w, x in pairs] + [self.number(bias)]
        if self.how == "backward":
            terms.reverse()
        if self.how in ("rising", "falling"):
            terms.sort(key=abs, reverse=self.how == "falling")
        if self.how == "shuffled":
            self.rng.shuffle(terms)
        while len(terms) > 1:
            if self.how == "pairwise":
                odd = terms[len(terms) // 2 * 2 :]
                terms = [self.add(a, b) for a, b in zip(terms[::2], terms[1::2], strict=False)] + odd
            elif self.how == "any tree":
                a, b = (terms.pop(self.rng.integers(len(terms))) for _ in range(2))
                terms.append(self.add(a, b))
            else:
                terms[:2] = [self.add(*terms[:2])]
        return terms[0]

    def run(self, network, x):
        values = {INPUT: [self.dtype(v) for v in x]}
        for node in network.nodes:
            if isinstance(node, Relu):
                slopes = [self.dtype(s) for s in node.slope]
                values[node.name] = [
                    z if z >= 0 else self.multiply(s, z) for s, z in zip(slopes, values[node.source], strict=True)
                ]
                continue
            matrices = [(values[s], m.dense().astype(self.dtype)) for s, m in zip(node.sources, node.maps, strict=True)]
            values[node.name] = [
                self.sum([(m[row, j], v[j]) for v, m in matrices for j in range(len(v))], bias)
                for row, bias in enumerate(node.bias.astype(self.dtype))
            ]
        return np.array(values[network.output], dtype=np.float64)


WAYS = ("forward", "backward", "shuffled", "rising", "falling", "pairwise", "any tree", "fused", "wide")


def machines(dtype):
    return [Machine(dtype, flushes, how) for how in WAYS for flushes in (False, True)]


def error(network, x, seen):
    """max |seen − exact| at one input, per output."""
    exact = network.evaluate_exact(np.asarray(x, dtype=np.float64))[network.output].fractions()
    return [abs(Fraction(float(s)) - e) if np.isfinite(s) else np.inf for s, e in zip(seen, exact, strict=True)]


def within(network, x, seen, bound):
    return all(e <= b for e, b in zip(error(network, x, seen), bound, strict=True))


def check(network, points, dtype, runs=None):
    """At each point, every machine stays within the bound there, and that is below the bound of the box around them."""
    points = np.asarray(points).astype(dtype)
    box = Box(points.min(axis=0).astype(float), points.max(axis=0).astype(float))
    over_box = running_error(network, bound_network(network, box), dtype)
    at_points = running_error_at(network, points, dtype)
    lower, upper = as_run(network, points, dtype)
    for x, here, low, high in zip(points, at_points, lower, upper, strict=True):
        for machine in runs or machines(dtype):
            seen = machine.run(network, x)
            assert within(network, x, seen, here), machine.how
            assert within(network, x, seen, over_box), machine.how
            assert ((low <= seen) & (seen <= high)).all() or np.isinf(here).any()
    return at_points


def linear(matrix, bias=None, dtype=np.float32, name=""):
    """One affine node; ``name`` says what it runs in."""
    matrix = np.array(matrix, dtype=dtype)
    bias = np.zeros(len(matrix), dtype) if bias is None else np.array(bias, dtype=dtype)
    node = Affine("out", (INPUT,), (Dense(matrix),), bias)
    return Network(matrix.shape[1], (node,), "out", Signature(dtype=name))


@given(networks_and_boxes(), st.sampled_from([np.float32, np.float64]), st.integers(0, 2**32 - 1))
def test_no_order_of_summation_leaves_the_bound(case, dtype, seed):
    network, box = case  # stored in one dtype and run in the same or the other
    rng = np.random.default_rng(seed)
    points = np.vstack([box.sample(rng, 2), box.corners(2)])
    check(network, points, dtype, [Machine(dtype, bool(seed % 2), how, rng) for how in WAYS])
    seen = network.evaluate(points.astype(dtype), dtype)
    for x, values, bound in zip(points.astype(dtype), seen, running_error_at(network, points, dtype), strict=True):
        assert within(network, x, values, bound)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("make", [residual, skip])
def test_sums_over_several_sources(make, dtype):
    network = make()
    check(network, Box.uniform(-1, 1, network.input_size).sample(np.random.default_rng(0), 3), dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_long_sums_that_cancel(dtype):
    rng = np.random.default_rng(0)
    half = rng.uniform(0.5, 1.5, 300)
    network = linear([[*half, *-half[::-1]], [*half, *half]], dtype=dtype)
    points = [[*x, *x[::-1]] for x in rng.uniform(0.5, 1.5, (2, 300))]
    bound = check(network, points, dtype)
    seen = max(max(error(network, np.asarray(x, dtype), Machine(dtype, how=how).run(network, np.asarray(x, dtype))))
               for x in points for how in WAYS)  # fmt: skip
    assert bound.max() < 1000 * seen


def test_a_sum_in_the_worst_order_comes_near_the_bound():
    """1 + u/2 + u/2 + …: forward, every term is lost."""
    unit = 2.0**-24
    network = linear([[1.0, *np.full(400, 0.99 * unit)]])
    x = np.ones(401, np.float32)
    bound = running_error_at(network, x[None], np.float32).max()
    assert 0.9 * bound < max(error(network, x, Machine(np.float32).run(network, x))) <= bound


@pytest.mark.parametrize(("dtype", "tiny"), [(np.float32, 2.0**-126), (np.float64, 2.0**-1022)])
def test_denormals_kept_or_flushed(dtype, tiny):
    matrix = np.array([[0.75 * tiny, 1.5, 2.0**20], [tiny * 2, -tiny, 0.5], [0.1, 0.1, 0.1]])
    network = linear(matrix, [0.9 * tiny, 0, -0.3 * tiny], dtype)
    check(network, [[0.9 * tiny, 1.3 * tiny, -0.7 * tiny], [2.0**40, 0.9 * tiny, 0.3], [tiny, -tiny, 0]], dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_may_overflow_has_no_bound(dtype):
    large = float(np.finfo(dtype).max) / 8
    network = linear([[large, large, -large], [1, 1, 1]], dtype=dtype)
    assert np.isinf(running_error_at(network, [[3, 3, 6]], dtype)[0]).tolist() == [True, False]
    assert np.isfinite(check(network, [[1, 1, 1]], dtype)).all()


def test_an_overflow_reaches_whatever_it_is_multiplied_with():
    """0 · inf is NaN: even a row of zeros is lost, unless it is run as no product at all."""
    for rows in (Dense(np.array([[0, 0], [0, 1]], np.float32)), Sparse.of(np.array([[0, 0], [0, 1]], np.float32))):
        first = Affine("first", (INPUT,), (Dense(np.array([[3e38], [1]], np.float32)),), np.zeros(2, np.float32))
        last = Affine("last", ("first",), (rows,), np.zeros(2, np.float32))
        network = Network(1, (first, last), "last")
        assert np.isinf(running_error_at(network, [[4]], np.float32)).all()
        assert np.isfinite(running_error_at(network, [[0.25]], np.float32)).all()


def test_weights_are_rounded_where_the_run_is_narrower():
    network = linear([[0.1, 1e-50, 1.0]], [1 / 3], np.float64, "float32")
    bound = check(network, [[3, 1e30, 0.5]], network.dtype)
    assert bound.max() > 3 * abs(0.1 - float(np.float32(0.1)))
    assert np.isinf(running_error_at(linear([[1e39, 0]], dtype=np.float64), [[0, 1]], np.float32)).all()


@pytest.mark.parametrize("slope", [0.1, 0.25, 1e-40, 0.9999999999])
def test_leaky_slopes_are_rounded_once(slope):
    for dtype in (np.float32, np.float64):
        matrix = np.array([[1.1, -0.7], [0.3, 0.9]], dtype)
        nodes = (
            Affine("z", (INPUT,), (Dense(matrix),), np.array([0.1, -0.2], dtype)),
            Relu("h", "z", np.full(2, slope)),
        )
        network = Network(2, nodes, "h")
        check(network, [[-1.3, 0.4], [0.3, -0.8], [1e-38, -1e-38], [0, 0]], dtype)


def test_a_leaky_slope_costs_its_own_rounding_and_a_product():
    node = Affine("z", (INPUT,), (Select.identity(40),), np.zeros(40, np.float32))
    x = -np.random.default_rng(0).uniform(1, 2, (3, 40)).astype(np.float32)
    network = Network(40, (node, Relu("h", "z", np.full(40, 0.1))), "h")
    bound = check(network, x, np.float32)
    seen = [max(error(network, row, Machine(np.float32).run(network, row))) for row in x]
    assert bound.max() < 4 * max(seen)


def test_what_rounds_nothing_has_no_error():
    zero = Affine("z", (INPUT,), (Diagonal(np.zeros(3, np.float32)),), np.zeros(3, np.float32))
    picked = Affine("z", (INPUT,), (Select(np.array([2, 0]), columns=3),), np.zeros(2, np.float32))
    inactive = Affine("z", (INPUT,), (Dense(np.ones((2, 3), np.float32)),), np.full(2, -4, np.float32))
    relu = Relu("h", "z", np.zeros(2))
    assert (running_error_at(Network(3, (zero,), "z"), np.ones((2, 3)), np.float32) == 0).all()
    assert (running_error_at(Network(3, (inactive, relu), "h"), np.ones((2, 3)), np.float32) == 0).all()
    assert running_error_at(Network(3, (picked,), "z"), np.ones((1, 3)), np.float32).max() < 1e-36  # a flush


def test_zeros_are_not_counted():
    """Adding 0 rounds nothing: what counts is how many products of a row are not 0."""
    rng = np.random.default_rng(0)
    matrix = rng.uniform(1, 2, (1, 500))
    x = np.zeros((2, 500))
    x[0], x[1, :5] = 1, 100  # the same sum of terms, about
    full, few = running_error_at(linear(matrix), x, np.float32)
    assert few < full / 50
    thin = np.where(np.arange(500) < 5, 100 * matrix, 0)
    for row in (Dense(thin.astype(np.float32)), Sparse.of(thin.astype(np.float32))):
        node = Affine("out", (INPUT,), (row,), np.zeros(1, np.float32))
        assert running_error_at(Network(500, (node,), "out"), x[:1], np.float32) < full / 50


def test_many_points_come_in_batches(monkeypatch):
    network = chain(3, 7, 2)
    points = Box.uniform(-1, 1, 3).sample(np.random.default_rng(0), 50)
    whole = running_error_at(network, points, np.float32)
    monkeypatch.setattr("leo_core.bounds.running._HELD", 21)
    assert running_error_at(network, points, np.float32) == pytest.approx(whole, rel=1e-12)
    assert running_error_at(network, points[:0], np.float32).shape == (0, 2)
    assert as_run(network, points[:0], np.float32)[0].shape == (0, 2)


@given(networks_and_boxes(), st.integers(0, 2**32 - 1))
def test_a_certain_class_is_that_of_every_run(case, seed):
    network, box = case
    rng = np.random.default_rng(seed)
    points = box.sample(rng, 3).astype(network.dtype)
    for x, found in zip(points, certain_class(network, points, network.dtype), strict=True):
        exact = network.evaluate_exact(x.astype(float))[network.output].fractions()
        runs = [exact, *(machine.run(network, x).tolist() for machine in machines(network.dtype))]
        if found >= 0:
            assert all(run.index(max(run)) == found and run.count(max(run)) == 1 for run in runs)


def test_a_class_is_certain_by_its_margin():
    network = linear([[1.0, 0.0], [1.0, 1.0], [0.0, -2.0]])  # x, x + y, −2y
    points = [[1, 0.5], [1, 0], [1, 1e-7], [1, 1e-6], [1, -1], [3e38, 3e38]]
    assert certain_class(network, points, np.float32).tolist() == [1, -1, -1, 1, 2, -1]
