"""Proved bounds against the exact truth: backward bounds, tilts, and the cuts that tilts come from."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from strategies import networks_and_boxes
from truth import extremes

from leo_core.bounds.crown import Memo, backward_interval, bound_linearly
from leo_core.bounds.descend import descend
from leo_core.bounds.dual import Tilt, bound_above, bound_above_exact
from leo_core.bounds.dual import given as given_multipliers
from leo_core.bounds.interval import bound_network
from leo_core.bounds.region import Region
from leo_core.bounds.upto import upto
from leo_core.domain import Box
from leo_core.linear import Dense
from leo_core.milp.cuts import hull_lines
from leo_core.network import INPUT, Affine, Network, Relu


def affine(network):
    return [node for node in network.nodes if isinstance(node, Affine)]


def halves(box):
    """The box, and its halves along each input."""
    parts = [(box.lower, box.upper)]
    for j in range(box.size):
        low, high = box.lower.copy(), box.upper.copy()
        low[j] = high[j] = 0.5 * box.lower[j] + 0.5 * box.upper[j]
        parts += [(box.lower, high), (low, box.upper)]
    return parts


def stack(network, box):
    """Regions of the box and its halves, with the intervals of the whole."""
    whole = bound_network(network, box)
    parts = halves(box)
    lower, upper = (np.array([part[side] for part in parts]) for side in (0, 1))
    return Region(lower, upper, whole.take(np.zeros(len(parts), np.int64)).intervals)


@given(networks_and_boxes())
def test_backward_bounds_hold_and_are_no_looser_than_needed(case):
    network, box = case
    truth, region = extremes(network, box), bound_network(network, box)
    for node in affine(network):
        low, high = backward_interval(network, node.name, region)
        for unit, (least, most) in enumerate(truth[node.name]):
            assert low[unit] <= least <= most <= high[unit]
        if node.sources == (INPUT,):  # nothing is relaxed there
            wide = np.array([float(most - least) for least, most in truth[node.name]])
            assert np.allclose(high - low, wide, rtol=1e-9, atol=1e-9)


@given(networks_and_boxes())
def test_parts_of_a_box_are_bounded_each_by_itself(case):
    network, box = case
    regions = stack(network, box)
    target = affine(network)[-1].name
    size = network.size(target)
    tightened, _ = descend(network, target, regions)
    rows = np.repeat(np.arange(len(regions.lower)), size)
    bound = bound_linearly(network, target, np.tile(np.eye(size), (len(regions.lower), 1)), tightened, Memo(), rows)
    for row, ends in enumerate(halves(box)):
        truth = extremes(network, Box(*ends))
        for node, _ in upto(network, target).steps:
            low, high = (side[row] for side in tightened.intervals[node.name])
            for unit, (least, most) in enumerate(truth[node.name]):
                assert low[unit] <= least
                assert most <= high[unit]
        for unit, (_, most) in enumerate(truth[target]):
            assert most <= bound.upper[row * size + unit]


@given(networks_and_boxes(), st.integers(0, 1000), st.sampled_from([0.1, 1.0, 30.0]))
def test_any_tilts_bound_the_truth(case, seed, scale):
    network, box = case
    rng = np.random.default_rng(seed)
    regions = stack(network, box)
    target = affine(network)[-1].name
    y, tilts = {}, {}
    for node in affine(network)[:-1]:
        y[node.name] = scale * rng.standard_normal(node.size)
        units = np.flatnonzero(rng.random(node.size) < 0.7)
        share = scale * rng.standard_normal(len(units))  # a negative share counts as none
        columns = sum(linear.columns for linear in node.maps)
        tilts[node.name] = Tilt(units, share, scale * rng.standard_normal((len(units), columns)))
    objective = np.round(4 * rng.standard_normal((1, network.size(target)))) / 4
    rows = np.arange(len(regions.lower))
    objectives = np.repeat(objective, len(rows), axis=0)
    bound = bound_above(network, target, objectives, regions, given_multipliers(y, tilts), rows).upper
    for row, ends in enumerate(halves(box)):
        exact = bound_above_exact(network, target, objective[0], regions.one(row), y, tilts)
        assert exact <= bound[row]
        combined = combine(network, target, objective[0])
        assert extremes(combined, Box(*ends))["sum"][0][1] <= exact


def combine(network, target, objective):
    """The network with the objective as a node of its own."""
    return Network(
        network.input_size, (*network.nodes, Affine("sum", (target,), (Dense(objective[None]),), [0.0])), "sum"
    )


@given(st.integers(0, 10_000), st.integers(1, 6))
def test_hull_lines_lie_above_the_unit_and_below_its_chord(seed, columns):
    rng = np.random.default_rng(seed)
    lower = rng.integers(-8, 8, columns) / 4
    upper = lower + rng.integers(0, 8, columns) / 4
    node = Affine("z", (INPUT,), (Dense(rng.integers(-8, 9, (4, columns)) / 4),), rng.integers(-8, 9, 4) / 4)
    network = Network(columns, (node, Relu("h", "z", np.zeros(4))), "h")
    region = bound_network(network, Box(lower, upper))
    at = lower + rng.random(columns) * (upper - lower)
    slopes, constants = hull_lines(node, network, region, np.arange(4), at)
    corners = Box(lower, upper).corners(64)
    values = network.evaluate_nodes(np.vstack([corners, at]))["z"]
    lines = np.vstack([corners, at]) @ slopes.T + constants
    assert (lines >= np.maximum(values, 0.0) - 1e-9).all()
    low, high = region.intervals["z"]
    for unit in np.flatnonzero(np.isfinite(constants)):
        chord = high[unit] / (high[unit] - low[unit]) * (values[-1, unit] - low[unit])
        assert lines[-1, unit] <= chord + 1e-9
