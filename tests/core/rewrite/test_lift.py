"""Units lifted into the layer before, where their pre-activations are lines: the pass alone, and what it is for."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from passes import dense, kept, proposes_only_what_is_proved, relu, true_view, view_of
from strategies import FREE, GRID, boxes, networks_and_boxes
from truth import largest_difference

from leo_core import api
from leo_core.domain import Box
from leo_core.linear import Dense
from leo_core.network import INPUT, Affine, Network, Relu
from leo_core.rewrite import View, rewrite
from leo_core.rewrite.climb import Climbed
from leo_core.rewrite.lift import lift
from leo_core.rewrite.step import Refusal
from leo_core.stability.verdict import State
from tests.deciding import decide

BOX = Box.uniform(-1, 1, 2)


def split(rows, bias, middle, up, down, passed=(), dtype=np.float64):
    """The nodes of a layer in which each unit is split at ``middle`` but those that are passed on."""
    rows, bias, middle, up, down = (np.array(part, np.float64) for part in (rows, bias, middle, up, down))
    halves = np.setdiff1d(np.arange(len(rows)), passed)
    both = np.vstack([up[halves, None] * rows[halves], -down[halves, None] * rows[halves], rows[list(passed)]])
    offsets = [up * (bias - middle), down * (middle - bias), bias]
    offset = np.concatenate([offsets[0][halves], offsets[1][halves], offsets[2][list(passed)]])
    merge = np.zeros((len(rows), len(both)))
    merge[halves, np.arange(len(halves))] = 1 / up[halves]
    merge[halves, len(halves) + np.arange(len(halves))] = -1 / down[halves]
    merge[list(passed), 2 * len(halves) + np.arange(len(passed))] = 1
    constants = middle.copy()
    constants[list(passed)] = 0
    return (dense("s", INPUT, both, offset, dtype), relu("t", "s", len(both)),
            dense("z", "t", merge, constants, dtype), relu("h", "z", len(rows)))  # fmt: skip


@st.composite
def split_networks(draw):
    """A split layer, one number of which may be a little off."""
    count, dtype = draw(st.integers(1, 3)), draw(st.sampled_from([np.float32, np.float64]))
    entries = draw(st.sampled_from([GRID, FREE]))

    def some(size, values):
        return np.array(draw(st.lists(values, min_size=size, max_size=size)))

    scale = st.sampled_from([1.0, 0.5, 0.3, 3.0])
    passed = tuple(draw(st.sets(st.integers(0, count - 1), max_size=count - 1)))
    nodes = list(split(some(count * 2, entries).reshape(count, 2), some(count, entries), some(count, GRID),
                       some(count, scale), some(count, scale), passed, dtype))  # fmt: skip
    off = draw(st.sampled_from([0.0, 0.0, 1e-12, 1e-6, 1e-3]))
    at = draw(st.sampled_from([0, 2]))
    matrix = nodes[at].dense()
    matrix[draw(st.integers(0, len(matrix) - 1)), draw(st.integers(0, matrix.shape[1] - 1))] += off
    nodes[at] = replace(nodes[at], maps=(Dense(matrix.astype(dtype)),))
    outgoing = some(count * 2, entries).reshape(2, count)
    return Network(2, (*nodes, dense("out", "h", outgoing, [0, 1], dtype)), "out"), draw(boxes(2))


@given(split_networks())
def test_what_is_proposed_is_proved(case):
    proposes_only_what_is_proved(lift, *case)


@given(networks_and_boxes())
def test_what_is_proposed_of_any_network_is_proved(case):
    proposes_only_what_is_proved(lift, *case)


def test_some_split_networks_are_lifted():
    rows, bias = [[1, 2], [2, -1], [1, 1]], [0.25, 0, 0.5]
    nodes = split(rows, bias, [0, -0.5, 1], [1, 2, 1], [4, 0.5, 1])
    network = Network(2, (*nodes, dense("out", "h", [[1, 2, 3]], [0])), "out")
    assert proposes_only_what_is_proved(lift, network, BOX) > 0
    found = kept(lift, true_view(network, BOX), "t", tolerance=0.0)
    assert isinstance(found, Climbed)
    assert found.rewrite.what == "3 unit(s) lifted into the layer before, of which 1 layer(s) fold"
    units = found.rewrite.view.facts.units["s"]
    assert units.home[-3:].tolist() == ["h"] * 3
    assert units.origin[-3:].tolist() == [0, 1, 2]
    assert found.rewrite.view.network.affine("s").dense()[-3:].tolist() == rows


def wide(inputs, width, dtype, layers, radius, seed=0):
    """A chain in which the given layers are split, and one in which they are not."""
    rng = np.random.default_rng(seed)
    plain, blown, at, columns = [], [], INPUT, inputs
    for number in range(3):
        weights, bias = rng.normal(size=(width, columns)), rng.normal(size=width) * 0.3
        weights, bias = (part.astype(dtype).astype(float) for part in (weights, bias))
        plain += [dense(f"z{number}", at, weights, bias, dtype), relu(f"h{number}", f"z{number}", width)]
        if number in layers:
            scales = np.exp(rng.normal(size=(2, width)))
            made = split(weights, bias, rng.normal(size=width) * 0.2, *scales, passed=(0, 1), dtype=dtype)
            names = {"s": f"s{number}", "t": f"t{number}", "z": f"z{number}", "h": f"h{number}", INPUT: at}
            blown += [renamed(node, names) for node in made]
        else:
            blown += plain[-2:]
        at, columns = f"h{number}", width
    out = dense("out", at, rng.normal(size=(2, columns)), [0, 0], dtype)
    box = Box.uniform(-radius, radius, inputs)
    return Network(inputs, (*plain, out), "out"), Network(inputs, (*blown, out), "out"), box


def renamed(node, names):
    if isinstance(node, Relu):
        return Relu(names[node.name], names[node.source], node.slope)
    return Affine(names[node.name], tuple(names[source] for source in node.sources), node.maps, node.bias)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("layers", [(0,), (1,), (0, 2)])
def test_a_split_network_comes_back(dtype, layers):
    plain, blown, box = wide(3, 6, dtype, layers, 0.4)
    was, now = (rewrite(View.of(net, decide(net, box)), tolerance=1e-4) for net in (plain, blown))
    assert now.network.units <= was.network.units
    assert now.network.connections <= was.network.connections
    for x in box.sample(np.random.default_rng(0), 10):
        values = [net.evaluate_exact(x)[net.output].fractions() for net in (blown, now.network)]
        assert max(abs(a - b) for a, b in zip(*values, strict=True)) <= Fraction(now.deviation)


def test_a_layer_that_was_split_twice_comes_back():
    rng = np.random.default_rng(2)
    rows, bias, middle = rng.normal(size=(3, 2)), rng.normal(size=3) * 0.2, np.array([0.1, -0.2, 0.3])
    first, _, merge, relu_behind = split(rows, bias, middle, [1, 2, 1], [0.5, 1, 3], passed=(2,))
    count = first.size
    again = split(first.dense(), first.bias, np.zeros(count), [2] * count, [1] * count)
    names = {"s": "s", "t": "t", "z": "z1", "h": "h1", INPUT: INPUT}
    nodes = (*(renamed(node, names) for node in again), replace(merge, sources=("h1",)), relu_behind,
             dense("out", "h", [[1, 2, 3]], [0]))  # fmt: skip
    network = Network(2, nodes, "out")
    result = rewrite(View.of(network, decide(network, BOX)), tolerance=1e-9)
    assert result.network.units <= 3
    assert largest_difference(network, result.network, BOX) <= Fraction(result.deviation)


def test_what_is_lifted_is_in_the_certificate(tmp_path):
    _, blown, box = wide(3, 5, np.float64, (0, 1), 0.4)
    result = api.compress(blown, box, tolerance=1e-9, evidence=True)
    assert any("lifted" in step.what for step in result.steps)
    claimed = result.certify(tmp_path / "cert")
    assert claimed <= 1e-8
    assert api.check(tmp_path / "cert", blown, result.network).deviation <= claimed


def pair(outgoing, slope=0.0, constants=(0.25,), **others):
    """z = outgoing · (relu(x), relu(−x)) + constants behind one ReLU more."""
    return Network(1, (dense("s", INPUT, [[1], [-1]], [0, 0]), relu("t", "s", 2, slope),
                       dense("z", "t", outgoing, constants), relu("h", "z", len(outgoing), others.get("behind", 0.0)),
                       dense("out", "h", [[1] * len(outgoing)], [0])), "out")  # fmt: skip


@pytest.mark.parametrize("outgoing", [[[1, 1]], [[1, -2]], [[1, 0]], [[1, -1.01]]])
def test_what_is_no_line_stays(outgoing):
    assert lift(true_view(pair(outgoing, constants=(-0.25,)), Box.uniform(-1, 1, 1)), "t") is None


@pytest.mark.parametrize("slopes", [{"slope": 0.25}, {"behind": 0.25}])
def test_leaky_units_are_left(slopes):
    assert lift(true_view(pair([[1, -1]], **slopes), Box.uniform(-1, 1, 1)), "t") is None


def test_a_line_is_lifted_and_one_that_is_not_stays():
    both = pair([[1, -1], [1, 1]], constants=(0.25, -0.5))
    found = kept(lift, true_view(both, Box.uniform(-1, 1, 1)), "t", tolerance=0.0)
    assert isinstance(found, Climbed)
    assert found.rewrite.what == "1 unit(s) lifted into the layer before"
    view = found.rewrite.view
    assert view.facts.units["z"].state.tolist() == [State.ACTIVE, State.UNSTABLE]
    assert largest_difference(both, view.network, Box.uniform(-1, 1, 1)) == 0


def test_a_relu_that_is_the_output_or_read_elsewhere_is_left():
    nodes = pair([[1, -1]]).nodes[:-1]
    assert lift(true_view(Network(1, nodes, "h"), Box.uniform(-1, 1, 1)), "t") is None
    twice = Network(1, (*nodes, Affine("out", ("h", "z"), (Dense([[1.0]]), Dense([[1.0]])), np.zeros(1))), "out")
    assert lift(true_view(twice, Box.uniform(-1, 1, 1)), "t") is None


def test_a_row_that_reads_something_else_is_left():
    nodes = list(pair([[1, -1]]).nodes)
    nodes[2] = Affine("z", ("t", INPUT), (Dense([[1.0, -1.0]]), Dense([[0.5]])), np.array([0.25]))
    assert lift(true_view(Network(1, tuple(nodes), "out"), Box.uniform(-1, 1, 1)), "t") is None


@settings(max_examples=25)
@given(st.integers(1, 99), st.integers(1, 99), st.sampled_from([-0.3, 0.0, 0.3]), st.sampled_from([-1.0, 1.0]))
def test_rounding_alone_is_paid_for_on_either_side(up, down, middle, sign):
    nodes = split([[sign * 0.7]], [0.1], [middle], [up / 7], [down / 9], dtype=np.float32)
    behind = (dense("y", "h", [[1], [0.5]], [2, 2]), relu("k", "y", 2), dense("out", "k", [[1, -1]], [0]))
    proposes_only_what_is_proved(lift, Network(1, (*nodes, *behind), "out"), Box.uniform(-1, 1, 1))


def test_what_would_round_too_much_is_refused():
    network = pair([[1 / 3, -0.3333]])
    found = kept(lift, true_view(network, Box.uniform(-1, 1, 1)), "t", tolerance=1e-9)
    assert isinstance(found, Refusal)
    assert found.what == "1 unit(s) not lifted"


@pytest.mark.parametrize("weight", [5e-324, 2.0**-1040])
def test_what_is_lost_counts_where_its_product_with_a_weight_is_below_all_floats(weight):
    nodes = split([[1 / 3, 0.7]], [0.1], [0.2], [3], [0.7])
    network = Network(2, (*nodes, dense("out", "h", [[weight]], [0])), "out")
    assert proposes_only_what_is_proved(lift, network, BOX) > 0
    found = rewrite(View.of(network, decide(network, BOX)), tolerance=0.0)
    assert largest_difference(network, found.network, BOX) <= Fraction(found.deviation)


def test_denormal_weights_are_halved_only_where_that_is_exact():
    tiny = 5e-324
    network = pair([[tiny, -tiny]], constants=(0.0,))
    assert proposes_only_what_is_proved(lift, network, Box.uniform(-1, 1, 1)) >= 0


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # overflow is meant
def test_nothing_is_done_where_bounds_are_infinite():
    huge = Network(1, (dense("s", INPUT, [[1e300], [-1e300]], [0, 0]), relu("t", "s", 2),
                       dense("z", "t", [[1e300, -1e300]], [0]), relu("h", "z", 1),
                       dense("out", "h", [[1]], [0])), "out")  # fmt: skip
    found = kept(lift, view_of(huge, Box.uniform(-1e10, 1e10, 1)), "t", tolerance=1.0)
    assert not isinstance(found, Climbed)
