"""Points that climb for many signs at once: they stay in the box, and show what is easily shown."""

from __future__ import annotations

import numpy as np

from leo_core.domain import Box
from leo_core.search.attack import forward
from leo_core.search.chase import Quarry, chase, cover
from leo_core.testing.sown import Sown


def deep(seed, sizes=(6, 6)):
    """Two convolutions, each with a ReLU, over one image."""
    rng = np.random.default_rng(seed)
    sown = Sown(seed, (1, *sizes)).convolve(6, 3, low=1, high=1).convolve(6, 3, low=1, high=1)
    return sown.network(3), rng


def signs(network, points):
    """By node that a ReLU reads, (2, groups): which signs some of these points have."""
    values = network.evaluate_nodes(points)
    found = {}
    for relu in network.relus:
        node = network.affine(relu.source)
        z = values[node.name].reshape(len(points), node.groups, -1)
        found[node.name] = np.array([(z > 0).any(axis=(0, 2)), (z < 0).any(axis=(0, 2))])
    return found


def wanted(network, shown):
    return {name: np.repeat(~mask, network.size(name) // mask.shape[1], axis=1) for name, mask in shown.items()}


def test_a_few_points_show_more_than_many_at_random():
    shown_more = 0
    for seed in range(4):
        network, rng = deep(seed)
        box = Box.uniform(0, 1, network.input_size)
        before = signs(network, box.sample(rng, 2))
        found = chase(Quarry(network, wanted(network, before), seed), box, box.sample(rng, 4), 40)
        assert box.contains(found[0]) if len(found) else True
        assert ((found >= box.lower) & (found <= box.upper)).all()
        if len(found):
            after = signs(network, found)
            new = [int((after[name] & ~before[name]).sum()) for name in before]
            assert sum(new) >= len(found)  # each point adds something
            shown_more += sum(new)
    assert shown_more > 0


def test_what_is_fixed_stays_and_what_is_shown_is_left_alone():
    network, rng = deep(7)
    fixed = np.full(network.input_size, 0.1)
    box = Box(fixed, fixed)
    shown = signs(network, fixed[None])
    assert len(chase(Quarry(network, wanted(network, shown)), box, fixed[None], 5)) == 0
    everything = {name: np.ones_like(mask) for name, mask in shown.items()}
    starts = rng.random((3, network.input_size))
    quarry = Quarry(network, wanted(network, everything))
    assert len(chase(quarry, Box.uniform(0, 1, network.input_size), starts, 5)) == 0


def test_the_first_rows_that_add_most_cover_a_table():
    table = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 1, 1, 0]], dtype=bool)
    assert cover(table) == [1, 2]
    assert cover(np.zeros((3, 2), dtype=bool)) == []


def test_an_end_before_the_first_step_finds_nothing():
    network, rng = deep(1)
    shown = {name: np.zeros_like(mask) for name, mask in signs(network, rng.random((1, network.input_size))).items()}
    box = Box.uniform(0, 1, network.input_size)
    assert len(chase(Quarry(network, wanted(network, shown)), box, box.sample(rng, 2), 5, lambda: True)) == 0
    assert forward((), box.sample(rng, 1))["input"].shape == (1, network.input_size)
