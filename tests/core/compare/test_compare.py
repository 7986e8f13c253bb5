"""How far two networks are apart: what is proved holds the exact truth between, and what is planted is found."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import boxes, networks, networks_and_boxes
from truth import largest_difference

import leo_core
from leo_core import Affine, Box, Dense, Network, Relu
from leo_core.compare import side_by_side
from leo_core.compare.seen import Seen
from leo_core.execution.budget import Budget
from leo_core.network import INPUT
from leo_core.rewrite import View, rewrite
from leo_core.testing.networks import chain, residual
from leo_core.testing.reference import ReferenceSolver
from tests.deciding import decide


def holds(first, second, box, **options):
    found = leo_core.verify(first, second, box, **options)
    truth = largest_difference(first, second, box)
    assert Fraction(found.lower) <= truth
    assert not np.isfinite(found.upper) or truth <= Fraction(found.upper)
    assert (found.witness >= box.lower).all()
    assert (found.witness <= box.upper).all()
    values = [net.evaluate_exact(found.witness)[net.output].fractions() for net in (first, second)]
    assert max(abs(a - b) for a, b in zip(*values, strict=True)) >= Fraction(found.lower)
    return found


@settings(max_examples=25)
@given(st.data())
def test_any_two_networks(data):
    first = data.draw(networks(layers=st.integers(1, 2), width=st.integers(1, 3)))
    second = data.draw(
        networks(inputs=st.just(first.input_size), layers=st.integers(1, 2), width=st.integers(1, 3)).filter(
            lambda network: network.output_size == first.output_size
        )
    )
    holds(first, second, data.draw(boxes(first.input_size)), time_limit=1.0, solver="scipy")


@settings(max_examples=40)
@given(networks_and_boxes(), st.sampled_from([0.0, 1e-6, 0.1]))
def test_a_network_and_what_it_was_rewritten_to(network_and_box, tolerance):
    network, box = network_and_box
    stability = decide(network, box, solver=ReferenceSolver())
    result = rewrite(View.of(network, stability), tolerance=tolerance)
    found = holds(network, result.network, box, time_limit=1.0, solver="scipy")
    assert found.lower <= result.deviation  # how near the upper end comes depends on how busy the machine is


@settings(max_examples=40)
@given(networks_and_boxes(), st.integers(0, 1000), st.sampled_from([1e-12, 1e-3, 1.0]))
def test_a_network_and_one_with_a_weight_changed(network_and_box, seed, size):
    network, box = network_and_box
    rng = np.random.default_rng(seed)
    affine = [node for node in network.nodes if isinstance(node, Affine)]
    node = affine[rng.integers(len(affine))]
    matrix = node.maps[0].dense().astype(np.float64)
    matrix.ravel()[rng.integers(matrix.size)] += size
    changed = replace(node, maps=(Dense(matrix), *node.maps[1:]))
    other = replace(network, nodes=tuple(changed if n is node else n for n in network.nodes))
    holds(network, other, box, time_limit=1.0, solver="scipy")


@settings(max_examples=40)
@given(networks_and_boxes())
def test_what_is_shared_is_taken_once_and_changes_nothing(network_and_box):
    network, box = network_and_box
    shared = {
        relu.name: (relu.name, np.where(np.arange(relu.size) % 2 == 0, np.arange(relu.size), -1))
        for relu in network.relus
    }
    joint = side_by_side(network, network, shared)
    for x in (box.lower, box.upper, box.center):
        assert not any(joint.evaluate_exact(x)[joint.output].fractions())


def planted(dimensions, seed, height):
    """Two networks that differ at one corner of a cube only, by ``height``."""
    rng = np.random.default_rng(seed)
    corner = rng.choice([-1.0, 1.0], dimensions)
    weights, out = rng.standard_normal((12, dimensions)), rng.standard_normal((1, 12))

    def network(extra):
        w = np.vstack([weights, corner]) if extra else weights
        b = np.concatenate([np.zeros(12), [0.5 - dimensions]]) if extra else np.zeros(12)
        v = np.hstack([out, [[2 * height]]]) if extra else out
        nodes = (Affine("z", (INPUT,), (Dense(w),), b), Relu("h", "z", np.zeros(len(b))),
                 Affine("o", ("h",), (Dense(v),), np.zeros(1)))  # fmt: skip
        return Network(dimensions, nodes, "o")

    return network(False), network(True), corner


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("height", [0.3, 1e-4])
def test_a_difference_planted_at_one_corner_is_found(seed, height):
    first, second, corner = planted(20, seed, height)
    found = leo_core.verify(first, second, (-1, 1))
    assert (found.witness == corner).all()
    assert found.lower == pytest.approx(height)
    assert found.upper <= 1.01 * height


def test_a_planted_corner_behind_a_second_layer():
    first, second, corner = planted(20, 7, 0.3)

    def deeper(network):
        nodes = (*network.nodes, Relu("h2", "o", np.zeros(1)), Affine("o2", ("h2",), (Dense([[1.0]]),), np.zeros(1)))
        shifted = tuple(
            replace(node, bias=np.array([9.0])) if node.name == "o" else node for node in nodes
        )  # so that the second ReLU does not hide it
        return Network(20, shifted, "o2")

    found = leo_core.verify(deeper(first), deeper(second), (-1, 1))
    assert (np.sign(found.witness) == corner).all()
    assert 0.9 * found.upper <= found.lower <= 0.3


def test_unrelated_networks_are_told_apart_at_once():
    heard = []
    found = leo_core.verify(chain(30, 40, 40, 3, seed=1), chain(30, 20, 3, seed=2), (-1, 1), time_limit=0,
                            listener=heard.append)  # fmt: skip
    assert found.lower > 1
    assert any("differ by at least" in event.text for event in heard)
    assert np.isfinite(found.upper)
    assert "is open" in found.verdict


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_largest_difference_is_climbed_to_from_samples(sign):
    rng = np.random.default_rng(0)
    slopes = rng.standard_normal((1, 60))
    pair = [Network(60, (Affine("o", (INPUT,), (Dense(w),), np.zeros(1)),), "o") for w in (sign * slopes, 0 * slopes)]
    seen = Seen(*pair, Box.uniform(-1, 1, 60), lambda event: None)
    seen.look_around(0, Budget())
    seen.climb_on(Budget())
    assert seen.largest == pytest.approx(np.abs(slopes).sum())  # at one corner of 2**60


def test_both_sides_meet_where_there_is_time():
    found = holds(chain(2, 6, 6, 1, seed=1), chain(2, 5, 1, seed=2), Box.uniform(-1, 1, 2))
    assert found.upper <= 1.02 * found.lower
    assert "is open" not in found.verdict


def test_the_same_function_in_other_words():
    network = residual()
    doubled = tuple(
        replace(node, maps=tuple(Dense(2 * m.dense()) for m in node.maps), bias=2 * node.bias)
        if isinstance(node, Affine) and node.name == network.output
        else node
        for node in network.nodes
    )
    assert leo_core.verify(network, network, (-1, 1)).verdict == "equal over the reals"
    assert leo_core.verify(network, replace(network, nodes=doubled), (-1, 1)).lower > 0
    order = [2, 0, 1, 3]
    first = chain(2, 4, 2, seed=4)
    a, h, out = first.nodes
    permuted = Network(2, (Affine(a.name, a.sources, (Dense(a.maps[0].dense()[order]),), a.bias[order]), h,
                           Affine(out.name, out.sources, (Dense(out.maps[0].dense()[:, order]),), out.bias)),
                       first.output)  # fmt: skip
    assert leo_core.verify(first, permuted, (-1, 1)).verdict == "equal over the reals"
