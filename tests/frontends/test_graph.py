"""Tensors that hold every example of a batch: what is made of them is what each example gets, or is refused."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leo_core.errors import UnsupportedModelError
from leo_core.network import Origin, Output, Signature
from leo_frontends import lowering
from leo_frontends.batches import for_any_batch
from leo_frontends.graph import Graph, Refused, Value

SHAPE = (2, 3)
SIZE = 6
ORIGIN = Origin("x", "test")


class Traced:
    """A model being lowered, and beside it the numbers that NumPy computes of a batch: a second, independent way."""

    def __init__(self, batch: int, numbers: np.ndarray) -> None:
        self.graph = Graph(SIZE, batch, dtype="float64")
        self.value = self.graph.given((batch, *SHAPE))
        self.numbers = numbers

    def rearrange(self, change) -> None:
        self.value, self.numbers = Value(self.value.node, change(self.value.index)), change(self.numbers)


@st.composite
def steps(draw):
    """A list of things to do, each a function of a Traced."""
    return [draw(st.sampled_from(STEPS))(draw) for _ in range(draw(st.integers(0, 6)))]


def permuted(draw):
    seed = draw(st.integers(0, 1000))
    return lambda t: t.rearrange(lambda a: np.transpose(a, np.random.default_rng(seed).permutation(a.ndim)))


def reshaped(draw):
    keep = draw(st.sampled_from([0, 1]))

    def apply(t):
        t.rearrange(lambda a: a.reshape(*a.shape[:keep], -1, *a.shape[keep + 1 + keep :]) if a.ndim > 1 else a)

    return apply


def flipped(draw):
    axis = draw(st.integers(-3, 2))
    return lambda t: t.rearrange(lambda a: np.flip(a, axis % a.ndim))


def rolled(draw):
    return lambda t: t.rearrange(lambda a: np.roll(a, 1))


def cut(draw):
    axis, part = draw(st.integers(-3, 2)), draw(st.sampled_from([slice(0, 1), slice(1, None), slice(None, None, -1)]))

    def apply(t):
        at = axis % t.numbers.ndim
        t.value = t.graph.sliced(t.value, at, part)
        t.numbers = np.moveaxis(np.moveaxis(t.numbers, at, 0)[part], 0, at)

    return apply


def relu(draw):
    def apply(t):
        t.value, t.numbers = lowering.relu(t.graph, ORIGIN, t.value), np.maximum(t.numbers, 0)

    return apply


def scaled(draw):
    factors = np.array(draw(st.lists(st.sampled_from([-2.0, -1.0, 0.5, 1.0, 3.0]), min_size=3, max_size=3)))
    along = draw(st.booleans())

    def apply(t):
        factor = factors[np.arange(t.numbers.shape[-1]) % 3] if t.numbers.ndim and along else factors[:1]
        t.value, t.numbers = lowering.multiply(t.graph, ORIGIN, t.value, factor), t.numbers * factor

    return apply


def dense(draw):
    seed, rows = draw(st.integers(0, 1000)), draw(st.integers(1, 3))

    def apply(t):
        rng = np.random.default_rng(seed)
        if not t.numbers.ndim or not t.numbers.shape[-1]:
            return
        weight, bias = rng.integers(-2, 3, (rows, t.numbers.shape[-1])), rng.integers(-2, 3, rows)
        t.value = lowering.dense(t.graph, ORIGIN, t.value, weight.astype(np.float64), bias.astype(np.float64))
        t.numbers = t.numbers @ weight.T + bias

    return apply


def residual(draw):
    axis = draw(st.integers(-3, 2))

    def apply(t):
        other = Value(t.value.node, np.flip(t.value.index, axis % t.value.index.ndim))
        t.value = lowering.add(t.graph, ORIGIN, lowering.relu(t.graph, ORIGIN, t.value), other)
        t.numbers = np.maximum(t.numbers, 0) + np.flip(t.numbers, axis % t.numbers.ndim)

    return apply


def joined(draw):
    axis, constant = draw(st.integers(-3, 2)), draw(st.booleans())

    def apply(t):
        at = axis % t.numbers.ndim
        more = np.ones_like(t.numbers)
        parts = [t.value, lowering.relu(t.graph, ORIGIN, t.value), *([more] if constant else [])]
        t.value = lowering.concatenate(t.graph, ORIGIN, parts, at)
        t.numbers = np.concatenate([t.numbers, np.maximum(t.numbers, 0), *([more] if constant else [])], at)

    return apply


def summed(draw):
    axis, keep = draw(st.integers(-3, 2)), draw(st.booleans())

    def apply(t):
        at = axis % t.numbers.ndim
        t.value = lowering.total(t.graph, ORIGIN, t.value, [at], keepdims=keep)
        t.numbers = t.numbers.sum(at, keepdims=keep)

    return apply


STEPS = [permuted, reshaped, flipped, rolled, cut, relu, scaled, dense, residual, joined, summed]


@given(done=steps(), seed=st.integers(0, 2**32))
def test_what_is_read_is_what_each_example_gets(done, seed):
    """For batches of any size: either the network computes every row of what NumPy does, or the model is refused."""
    sample = np.random.default_rng(seed).integers(-4, 5, (7, *SHAPE)).astype(np.float64)

    def run(batch):
        traced = Traced(batch, sample[:batch])
        for step in done:
            step(traced)
        return traced

    def lower(batch):
        try:
            traced = run(batch)
            return traced.graph.imported("model", [traced.value], [ORIGIN], Signature(dtype="float64"))
        except Refused as reason:
            raise UnsupportedModelError("model", [str(reason)]) from None

    try:
        imported = for_any_batch(lower, "model", SIZE)
    except UnsupportedModelError:
        return
    except (ValueError, IndexError):
        return  # NumPy itself refuses these shapes
    for batch in (1, 2, 7):
        wanted = run(batch).numbers.reshape(batch, -1)
        for row, x in zip(wanted, sample, strict=False):
            exact = imported.network.evaluate_exact(x.ravel())[imported.network.output].fractions()
            assert exact == [Fraction(value) for value in row]


def lowered(step):
    def lower(batch):
        graph = Graph(SIZE, batch)
        try:
            value = step(graph, graph.given((batch, SIZE)))
        except (Refused, ValueError) as reason:  # as the frontends do
            raise UnsupportedModelError("model", [str(reason)]) from None
        outputs = (Output("output", value.index.shape[1:]),)
        return graph.imported("model", [value], [ORIGIN], Signature(outputs=outputs))

    return for_any_batch(lower, "model", SIZE)


MIXING = {
    "the first example": lambda graph, x: graph.sliced(x, 0, slice(0, 1)),
    "the first hundred": lambda graph, x: graph.sliced(x, 0, slice(0, 100)),
    "the last hundred": lambda graph, x: graph.sliced(x, 0, slice(-100, None)),
    "all but the last": lambda graph, x: graph.sliced(x, 0, slice(0, -1)),
    "turned round": lambda graph, x: Value(x.node, x.index[::-1]),
    "twice": lambda graph, x: lowering.concatenate(graph, ORIGIN, [x, x], 0),
    "their sum": lambda graph, x: lowering.total(graph, ORIGIN, x, [0], keepdims=True),
    "their mean": lambda graph, x: lowering.mean(graph, ORIGIN, x, [0], keepdims=True),
    "times their number": lambda graph, x: lowering.multiply(graph, ORIGIN, x, np.array(float(x.index.shape[0]))),
    "plus their number": lambda graph, x: lowering.add(graph, ORIGIN, x, np.array(float(graph.batch))),
    "a constant for each": lambda graph, x: lowering.add(graph, ORIGIN, x, np.arange(graph.batch)[:, None] * 1.0),
    "a constant for two": lambda graph, x: lowering.add(graph, ORIGIN, x, np.ones((2, 1))),
    "the one before": lambda graph, x: lowering.add(graph, ORIGIN, x, Value(x.node, np.roll(x.index, 1, 0))),
    "flipped behind a transpose": lambda graph, x: Value(x.node, np.flip(x.index.T, 1).T),
    "a relu for each": lambda graph, x: lowering.relu(graph, ORIGIN, x, np.linspace(0, 0.5, graph.batch)[:, None]),
    "as columns": lambda graph, x: Value(x.node, x.index.T),
    "all in one row": lambda graph, x: Value(x.node, x.index.reshape(1, -1)),
    "a matrix over them": lambda graph, x: lowering.dense(
        graph, ORIGIN, Value(x.node, x.index.T), np.ones((2, graph.batch)), np.zeros(2)
    ),
    "a constant on top": lambda graph, x: lowering.concatenate(graph, ORIGIN, [x, np.ones((1, SIZE))], 0),
}


@pytest.mark.parametrize("step", MIXING.values(), ids=MIXING.keys())
def test_what_mixes_or_counts_examples_is_refused(step):
    with pytest.raises(UnsupportedModelError, match=r"every example|one row"):
        lowered(step)


APART = {
    "a reshape over the batch and back": lambda graph, x: Value(
        x.node, Value(x.node, x.index.reshape(-1, 3)).index.reshape(graph.batch, -1)
    ),
    "to the end": lambda graph, x: graph.sliced(x, 0, slice(0, 2**31 - 1)),
    "there and back": lambda graph, x: Value(x.node, x.index.T.T),
    "a constant row for all": lambda graph, x: lowering.add(graph, ORIGIN, x, np.ones((graph.batch, SIZE))),
    "a cut beyond the features": lambda graph, x: graph.sliced(x, 1, slice(2, 100)),
}


@pytest.mark.parametrize("step", APART.values(), ids=APART.keys())
def test_what_keeps_examples_apart_is_read(step):
    assert lowered(step).network.input_size == SIZE


class TestTails:
    def test_a_tail_and_what_changes_nothing(self):
        def step(graph, x):
            z = lowering.dense(graph, ORIGIN, x, np.ones((3, SIZE)), np.zeros(3))
            tail = graph.cut("softmax", z)
            return Value(tail.node, tail.index.reshape(graph.batch, 1, 3))

        assert lowered(step).network.signature.ending == "softmax"

    def test_a_tail_whose_values_are_moved_together_is_that_of_moved_values(self):
        def step(graph, x):
            tail = graph.cut("softmax", Value(x.node, x.index.reshape(-1, 2, 3)), 1)
            return Value(tail.node, tail.index.transpose(0, 2, 1)[:, 1:, ::-1])

        network = lowered(step).network
        (output,) = network.signature.outputs
        assert (output.shape, output.tail, output.axis) == ((2, 2), "softmax", 1)
        assert network.evaluate(np.arange(6.0)).tolist() == [4, 1, 5, 2]
        moved = lowered(lambda graph, x: Value(graph.cut("tanh", x).node, x.index[:, [2, 0]])).network
        assert (moved.signature.ending, moved.evaluate(np.arange(6.0)).tolist()) == ("tanh", [2, 0])

    @pytest.mark.parametrize(
        "shuffle", [lambda i: i[:, [0, 0, 1, 2, 3, 4]], lambda i: i[:, :2]], ids=["one twice", "cut"]
    )
    def test_a_tail_that_is_changed_is_refused(self, shuffle):
        def step(graph, x):
            tail = graph.cut("softmax", x)
            return Value(tail.node, shuffle(tail.index))

        with pytest.raises(UnsupportedModelError, match="softmax"):
            lowered(step)

    def test_what_goes_into_a_tail_nobody_reads_is_no_tail(self):
        def step(graph, x):
            graph.cut("softmax", x)
            return x

        assert lowered(step).network.signature.ending == ""

    def test_a_softmax_over_the_batch_is_refused(self):
        with pytest.raises(UnsupportedModelError, match="every example"):
            lowered(lambda graph, x: graph.cut("softmax", x, 0))

    @pytest.mark.parametrize(("axis", "kept"), [(-1, 1), (1, 0)])
    def test_a_softmax_along_an_axis(self, axis, kept):
        found = lowered(lambda graph, x: graph.cut("softmax", Value(x.node, x.index.reshape(-1, 2, 3)), axis))
        (output,) = found.network.signature.outputs
        assert (output.shape, output.tail, output.axis) == ((2, 3), "softmax", kept)

    def test_a_softmax_along_an_axis_that_is_no_axis_of_the_output(self):
        def step(graph, x):
            tail = graph.cut("softmax", Value(x.node, x.index.reshape(-1, 2, 3)), -1)
            return Value(tail.node, tail.index.reshape(-1, SIZE))

        with pytest.raises(UnsupportedModelError, match=r"along one axis of an output, which is of shape \(6,\)"):
            lowered(step)
