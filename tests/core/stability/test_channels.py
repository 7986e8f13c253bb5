"""Channels of networks on images: what is said of them against the exact truth."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import FREE, GRID, boxes
from truth import extremes, state_of

from leo_backends.highs import HighsSolver
from leo_core.bounds.interval import bound_affine, bound_network
from leo_core.bounds.region import Region
from leo_core.domain import Box
from leo_core.execution.budget import Budget
from leo_core.linear import Conv, Dense, Select, Spacing
from leo_core.network import INPUT, Affine, Network, Relu
from leo_core.stability import State
from leo_core.stability.told import channels_table, outlook
from leo_core.text import as_text
from tests.deciding import decide


@st.composite
def images(draw, residual=st.booleans()):
    """A network of convolutions over two inputs, as an image of one channel, and a box."""
    entries, dtype = draw(st.sampled_from([GRID, FREE])), draw(st.sampled_from([np.float32, np.float64]))
    numbers = draw(st.lists(entries, min_size=64, max_size=64))
    taken = iter(numbers)

    def filled(*shape):
        return np.array([next(taken) for _ in range(int(np.prod(shape)))], dtype).reshape(shape)

    channels, taps = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    pad = draw(st.integers(0, 1))
    first = Conv.of(filled(channels, 1, taps), (2,), Spacing(low=pad, high=pad))
    length = first.geometry.output[0]
    nodes = [affine("z", INPUT, first, filled(channels), (channels, length)), relu("h", "z", first.rows)]
    at, groups = "h", draw(st.sampled_from([1, channels]))
    second = Conv.of(filled(channels, channels // groups, 1), (length,), groups=groups)
    nodes += [affine("y", at, second, filled(channels), (channels, length))]
    if draw(residual):
        both = (Select.identity(second.rows),) * 2
        nodes.append(Affine("sum", ("y", "h"), both, np.zeros(second.rows, dtype), shape=(channels, length)))
    nodes.append(relu("g", nodes[-1].name, second.rows, draw(st.sampled_from([0.0, 0.0, 0.25]))))
    nodes.append(Affine("out", ("g",), (Dense(np.ones((1, second.rows), dtype)),), np.zeros(1, dtype)))
    return Network(2, tuple(nodes), "out"), draw(boxes(2))


def affine(name, source, linear, bias, shape):
    return Affine(name, (source,), (linear,), np.repeat(bias, shape[1]), shape=shape)


def relu(name, source, size, slope=0.0):
    return Relu(name, source, np.full(size, slope))


def decided(network, box, **options):
    return decide(network, box, **options)


@given(images())
def test_channels_are_what_they_are_said_to_be(case):
    network, box = case
    found, truth = decided(network, box), extremes(network, box)
    roundoff = Fraction(float(np.finfo(network.dtype).eps)) / 2
    for node in network.relus:
        layer, ends = found.layers[node.name], truth[node.source]
        values = truth[node.name]
        channels = len(layer.channels.constant)
        states = np.array([state_of(*pair) for pair in ends]).reshape(channels, -1)
        moves = np.array([high - low > roundoff * min(abs(low), abs(high)) for low, high in values]).reshape(
            channels, -1
        )
        assert not (layer.channels.constant & moves.any(axis=1)).any()
        assert not (layer.channels.varies & ~moves.any(axis=1)).any()
        above, below = (np.array([side(*pair) for pair in ends]).reshape(channels, -1).any(axis=1)
                        for side in (lambda low, high: high > 0, lambda low, high: low < 0))  # fmt: skip
        assert not (layer.channels.positive & ~above).any()
        assert not (layer.channels.negative & ~below).any()
        known = layer.state.reshape(channels, -1)
        assert ((known == State.UNDECIDED) | (known == states)).all()
        counts = layer.channel_counts()
        assert counts.pop("total") == channels == sum(counts.values())


@given(images())
def test_every_unit_is_decided_where_that_is_asked_for(case):
    network, box = case
    found, truth = decided(network, box, every_unit=True), extremes(network, box)
    for node in network.relus:
        layer = found.layers[node.name]
        assert layer.channels is None
        assert layer.state.tolist() == [state_of(*pair) for pair in truth[node.source]]


@given(images(residual=st.just(False)))
def test_kinds_of_channels_that_must_be_found_at_the_first_layer(case):
    network, box = case
    layer, ends = decided(network, box).layers["h"], extremes(network, box)["z"]
    channels = len(layer.channels.constant)
    states = np.array([state_of(*pair) for pair in ends]).reshape(channels, -1)
    counts = layer.channel_counts()  # one affine layer over a box: intervals are exact but for rounding
    assert counts["inactive"] == (states == State.INACTIVE).all(axis=1).sum()


def test_an_end_before_anything_leaves_everything_undecided_and_valid():
    rng = np.random.default_rng(0)
    conv = Conv.of(rng.standard_normal((4, 1, 3, 3)).astype(np.float32), (5, 5), Spacing(low=1, high=1))
    network = Network(25, (affine("z", INPUT, conv, np.zeros(4, np.float32), (4, 25)), relu("h", "z", 100),
                           Affine("out", ("h",), (Dense(np.ones((1, 100))),), np.zeros(1))), "out")  # fmt: skip
    found = decided(network, Box.uniform(-1, 1, 25), budget=Budget.of(0.0))
    counts = found.layers["h"].channel_counts()
    assert counts["undecided"] == counts["total"] == 4


@pytest.mark.parametrize("stage", ["first_points", "_climb_together", "_bounded"])
def test_ctrl_c_leaves_a_valid_map_of_every_layer(stage, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"leo_core.stability.channels.{stage}", stop)
    kernels = np.random.default_rng(0).standard_normal((2, 4, 4, 3, 3)).astype(np.float32)
    first, second = (Conv.of(kernel, (5, 5), Spacing(low=1, high=1)) for kernel in (kernels[0, :, :1], kernels[1]))
    bias = np.array([100, 0, 0, -100], np.float32)
    network = Network(25, (affine("z", INPUT, first, bias, (4, 25)), relu("h", "z", 100),
                           affine("y", "h", second, bias, (4, 25)), relu("g", "y", 100),
                           Affine("out", ("g",), (Dense(np.ones((1, 100))),), np.zeros(1))), "out")  # fmt: skip
    found = decided(network, Box.uniform(-1, 1, 25))
    assert found.interrupted
    assert [layer.channel_counts()["total"] for layer in found.layers.values()] == [4, 4]
    assert found.layers["h"].channel_counts()["inactive"] == 1
    assert "undecided" in as_text(channels_table(found))
    assert "channels are undecided" in outlook(found)


def test_channels_that_only_rounding_moves_are_constant():
    kernel = np.array([1e-30, 1.0], np.float32).reshape(2, 1, 1)
    network = Network(3, (affine("z", INPUT, Conv.of(kernel, (3,)), np.array([2, 2], np.float32), (2, 3)),
                          relu("h", "z", 6),
                          Affine("out", ("h",), (Dense(np.ones((1, 6), np.float32)),), np.zeros(1, np.float32))),
                      "out")  # fmt: skip
    counts = decided(network, Box.uniform(-1, 1, 3)).layers["h"].channel_counts()
    assert counts == {"total": 2, "inactive": 0, "active": 1, "constant": 1, "unstable": 0, "undecided": 0}


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 12))
def test_huge_inputs_that_only_push_down_leave_a_unit_inactive(seed, width):
    """Centre and radius lose the sign where widths reach 1e15, as they do in deep networks with batch norms."""
    rng = np.random.default_rng(seed)
    low = np.zeros(width)
    high = 10.0 ** rng.uniform(0, 18, width)
    weights = -np.abs(rng.standard_normal((3, width)))
    weights[1] = np.abs(weights[1])
    weights[2] = rng.standard_normal(width)
    node = Affine("z", (INPUT,), (Dense(weights),), np.array([-1e-3, 1e-3, 0.0]))
    network = Network(width, (node,), "z")
    lower, upper = bound_affine(network, node, Region(low, high))
    assert upper[0] <= 0 <= lower[1]
    for unit in range(3):
        exact = [sum((Fraction(w) * Fraction(h if (w > 0) == top else 0.0) for w, h in
                      zip(weights[unit].tolist(), high.tolist(), strict=True)), Fraction(float(node.bias[unit])))
                 for top in (False, True)]  # fmt: skip
        assert Fraction(float(lower[unit])) <= exact[0]
        assert exact[1] <= Fraction(float(upper[unit]))


def test_where_everything_before_is_dead_the_bias_is_what_is_left():
    conv = Conv.of(np.ones((2, 1, 3, 3)), (40, 40), Spacing(low=1, high=1))
    node = affine("z", INPUT, conv, np.array([0.0, 1.5]), (2, 1600))
    dead = np.zeros(1600)
    high = dead.copy()
    high[-1] = 1.0
    lower, upper = bound_affine(Network(1600, (node,), "z"), node, Region(dead, high))
    assert (lower == np.repeat([0.0, 1.5], 1600)).all()
    assert (upper[:1500] == 0).all()
    assert 1.0 <= upper[1599] < 1.0 + 1e-12 < 2.5 <= upper[-1] < 2.5 + 1e-12


def test_what_only_picks_inputs_has_their_bounds():
    pick = Affine("z", (INPUT,), (Select(np.array([2, 0]), columns=3),), np.zeros(2))
    box = Box(np.array([0.0, -1.0, 0.1]), np.array([0.0, 2.0, 0.3]))
    lower, upper = bound_network(Network(3, (pick,), "z"), box).intervals["z"]
    assert lower.tolist() == [0.1, 0.0]
    assert upper.tolist() == [0.3, 0.0]


@pytest.mark.parametrize("strategy", ["paper", "isa"])
def test_the_published_strategies_decide_small_images_too(strategy):
    rng = np.random.default_rng(1)
    conv = Conv.of(rng.standard_normal((2, 1, 2)).astype(np.float32), (3,))
    network = Network(3, (affine("z", INPUT, conv, np.array([5, -5], np.float32), (2, 2)), relu("h", "z", 4),
                          Affine("out", ("h",), (Dense(np.ones((1, 4))),), np.zeros(1))), "out")  # fmt: skip
    found = decide(network, Box.uniform(-1, 1, 3), strategy=strategy, solver=HighsSolver())
    assert found.layers["h"].state.tolist() == [1, 1, -1, -1]
