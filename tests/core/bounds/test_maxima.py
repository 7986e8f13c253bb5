"""Larger and smaller values: bounds of poolings are those of what they pool, and no wider set is taken for one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from truth import extremes

from leo_core.bounds.interval import bound_affine, bound_affine_stack, bound_network
from leo_core.bounds.maxima import maxima
from leo_core.bounds.region import Region
from leo_core.checker.bounds import interval
from leo_core.domain import Box
from leo_core.linear import Dense, Select, Sparse
from leo_core.network import INPUT, Affine, Network, Relu
from leo_core.storage import as_checked

#: What makes a unit something else than the larger, or the smaller, of two values.
FAULTS = ("bias", "bias of the difference", "slope", "twice", "another base", "turned", "added", "half")


def lowered(weights, bias, pairs, sign, fault=None, merged=True):
    """Units of a layer, and for each pair the larger (sign 1) or the smaller; with a fault in the first pair."""
    a, b = (np.array(side) for side in zip(*pairs, strict=True))
    count, size = len(pairs), len(bias)
    plus, minus = np.zeros((count, size)), np.zeros((count, size))
    plus[np.arange(count), a] += sign
    minus[np.arange(count), b] -= sign
    over, base, slope = np.zeros(count), np.zeros(count), np.zeros(count)
    relu, other = sign * np.eye(count), np.zeros((count, size))
    other[np.arange(count), b] = 1
    match fault:
        case "bias":
            base[0] = 0.25
        case "bias of the difference":
            over[0] = -0.25
        case "slope":
            slope[0] = 0.5
        case "twice":
            relu[0] *= 2
        case "another base":
            other[0] = np.roll(other[0], 1)
        case "turned":
            relu[0] *= -1
        case "added":
            minus[0] *= -1
        case "half":
            plus[0] *= 0.5
    if merged:
        sources, maps = ("z",), (Sparse.of(plus + minus),)
    else:
        sources, maps = ("z", "z"), (Sparse.of(plus), Sparse.of(minus))
    nodes = (
        Affine("z", (INPUT,), (Dense(weights),), bias),
        Affine("d", sources, maps, over),
        Relu("r", "d", slope),
        Affine("y", ("z", "r"), (Sparse.of(other), Sparse.of(relu)), base),
    )
    return Network(weights.shape[1], nodes, "y")


@st.composite
def layers(draw):
    inputs, size = draw(st.integers(1, 2)), draw(st.integers(2, 4))
    entries = st.integers(-8, 8).map(lambda k: k / 4)
    weights = np.array(draw(st.lists(entries, min_size=inputs * size, max_size=inputs * size))).reshape(size, inputs)
    bias = np.array(draw(st.lists(entries, min_size=size, max_size=size)))
    pair = st.tuples(st.integers(0, size - 1), st.integers(0, size - 1)).filter(lambda two: two[0] != two[1])
    return weights, bias, draw(st.lists(pair, min_size=1, max_size=3))


@given(
    layers(), st.sampled_from([1, -1]), st.sampled_from([None, *FAULTS]), st.booleans(), st.sampled_from([0.5, 1.0, 3])
)
def test_bounds_hold_whatever_the_units_are(layer, sign, fault, merged, reach):
    network = lowered(*layer, sign, fault, merged)
    box = Box(np.full(network.input_size, -reach), np.full(network.input_size, reach / 2))
    region, truth = bound_network(network, box), extremes(network, box)["y"]
    low, high = region.intervals["y"]
    assert all(a <= lowest and highest <= b for a, b, (lowest, highest) in zip(low, high, truth, strict=True))
    stacked = bound_affine_stack(network, network.affine("y"), Region.joined([region, region]))
    for a, b in zip(*stacked, strict=True):
        assert all(x <= lowest and highest <= y for x, y, (lowest, highest) in zip(a, b, truth, strict=True))
    net = as_checked(network)
    checked = {"input": (box.lower[None], box.upper[None])}
    for node in (node for node in net.nodes if not node.relu):
        checked[node.name] = interval(net, node, checked)[:2]
    assert all(
        a <= lowest and highest <= b
        for a, b, (lowest, highest) in zip(*(side[0] for side in checked["y"]), truth, strict=True)
    )


@given(layers(), st.sampled_from([1, -1]), st.booleans())
def test_what_is_pooled_reaches_no_further_than_its_parts(layer, sign, merged):
    network, pick = lowered(*layer, sign, None, merged), np.maximum if sign > 0 else np.minimum
    box = Box(np.full(network.input_size, -1.0), np.full(network.input_size, 1.0))
    region = bound_network(network, box)
    a, b = (np.array(side) for side in zip(*layer[2], strict=True))
    for side, of in zip(region.intervals["y"], region.intervals["z"], strict=True):
        assert (side == pick(of[a], of[b])).all()
    net = as_checked(network)
    ends = {"input": (box.lower[None], box.upper[None])}
    for node in (node for node in net.nodes if not node.relu):
        ends[node.name] = interval(net, node, ends)[:2]
    for side, of in zip(ends["y"], ends["z"], strict=True):
        assert (side[0] == pick(of[0][a], of[0][b])).all()


@pytest.mark.parametrize("fault", FAULTS)
def test_no_other_unit_is_taken_for_one(fault):
    weights, bias = np.array([[1.0], [-1.0], [0.5]]), np.array([0.0, 0.25, 0.5])
    network = lowered(weights, bias, [(0, 1), (1, 2)], 1, fault)
    found = maxima(network, network.affine("y"))
    assert found is not None
    assert found.units.tolist() == [1]
    assert as_checked(network).maxima["y"].units.tolist() == [1]


def test_a_tree_of_maxima_is_no_wider_than_its_leaves():
    nodes = [Affine("z", (INPUT,), (Dense(np.eye(8)),), np.zeros(8))]
    at, size = "z", 8
    while size > 1:
        size //= 2
        even, odd = Select(2 * np.arange(size), columns=2 * size), Select(2 * np.arange(size) + 1, columns=2 * size)
        less = Sparse.of(-odd.dense())
        nodes += [
            Affine(f"d{size}", (at, at), (even, less), np.zeros(size)),
            Relu(f"r{size}", f"d{size}", np.zeros(size)),
            Affine(f"y{size}", (at, f"r{size}"), (odd, Select.identity(size)), np.zeros(size)),
        ]
        at = f"y{size}"
    network = Network(8, tuple(nodes), at)
    region = bound_network(network, Box(np.full(8, -1.0), np.full(8, 2.0)))
    low, high = bound_affine(network, network.affine(at), region)
    assert (low.item(), high.item()) == (region.intervals["z"][0].max(), region.intervals["z"][1].max())


def test_another_node_of_the_same_name_is_not_taken_for_it():
    """Passes ask for bounds of other forms over what a node reads."""
    network = lowered(np.array([[1.0], [-1.0]]), np.zeros(2), [(0, 1)], 1)
    region = bound_network(network, Box(np.array([-1.0]), np.array([1.0])))
    assert maxima(network, network.affine("y")) is not None
    other = Affine("y", ("z", "r"), (Dense(np.array([[0.0, 0.0]])), Dense(np.array([[-1.0]]))), np.zeros(1))
    low, high = bound_affine(network, other, region)
    assert low.item() <= -2.0  # at x = 1: −relu(2)
    assert high.item() >= 0.0
