"""Convolutions with nothing between them, groups that lose unequally, constants that several nodes read."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from images import WHERE, channels, compressed

from leo_core.linear import Conv
from leo_core.network import Affine
from leo_core.testing.sown import Sown, active, constant, dead, parallel, unread

LOOSE = 0.05
SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=3, deadline=None)
@given(seed=SEEDS, where=WHERE, stride=st.sampled_from([1, 2]), lively=st.booleans())
def test_a_kernel_of_one_tap_folds_into_what_is_before_it(seed, where, stride, lively):
    sown = Sown(seed).convolve(6, 3, relu=lively, **where)
    if lively:
        sown.change(active())
    found = compressed(sown.convolve(2, 1, strides=stride).network(), LOOSE)
    assert len(channels(found.network)) <= 1  # none where all units are inactive


@settings(max_examples=3, deadline=None)
@given(seed=SEEDS, where=WHERE, biased=st.booleans())
def test_a_kernel_of_one_tap_folds_into_what_is_behind_it_where_pads_see_no_bias(seed, where, biased):
    def unbiased(kernel, bias):
        bias[:] = 0

    sown = Sown(seed, (2, 8, 8)).convolve(9, 1, relu=False)
    if not biased:
        sown.change(unbiased)
    padded = any(np.max(where[side]) > 0 for side in ("low", "high"))
    found = compressed(sown.convolve(4, 2, **where).network(), LOOSE)
    assert (len(channels(found.network)) == 1) == (not (biased and padded))


def test_nothing_folds_where_that_takes_more_weights_or_others_read_it_too():
    wide = compressed(Sown(2).convolve(2, 3, relu=False).convolve(6, 1).network(), LOOSE)
    assert len(channels(wide.network)) == 2
    sown = Sown(2).convolve(6, 3, relu=False)
    at, shape = sown.at, sown.shape
    sown.convolve(3, 1, relu=False)
    first = sown.at
    sown.at, sown.shape = at, shape
    sown.convolve(3, 1, relu=False).added(first).rectify()
    assert channels(compressed(sown.network(), LOOSE).network)[0] == 6


@settings(max_examples=3, deadline=None)
@given(seed=SEEDS, gone=st.lists(st.integers(0, 7), min_size=1, max_size=5, unique=True), normed=st.booleans())
def test_groups_that_lose_unequally_stay_a_convolution(seed, gone, normed):
    sown = Sown(seed).convolve(8, low=1, high=1)
    for channel in gone:
        sown.change(dead(channel))
    sown.convolve(8, 2, groups=2, relu=not normed)
    if normed:
        sown.normed().rectify()
    sown.convolve(3, 1).change(unread(7)).change(unread(6))
    found = compressed(sown.network(), 0.0)
    most = max(sum(channel // 4 == group for channel in range(8) if channel not in gone) for group in (0, 1))
    least = min(sum(channel // 4 == group for channel in range(8) if channel not in gone) for group in (0, 1))
    assert channels(found.network)[0] <= (2 * most if least else 8)
    assert all(isinstance(node.maps[0], Conv) for node in found.network.nodes if isinstance(node, Affine)
               and node.name.startswith("conv"))  # fmt: skip


@pytest.mark.parametrize("pads", [0, 1])
def test_constants_that_two_nodes_read_go_at_once(pads):
    sown = Sown(5).convolve(5, low=1, high=1).change(constant(3, 0.3)).change(constant(1, 0.7))
    at, shape = sown.at, sown.shape
    sown.convolve(2, 3, low=pads, high=pads, relu=False)
    first = sown.at
    sown.at, sown.shape = at, shape
    sown.convolve(2, 3, low=pads, high=pads, relu=False).added(first).rectify()
    assert channels(compressed(sown.network(), LOOSE).network)[0] == 3 + pads


def test_a_stream_whose_writers_are_all_constant_goes():
    def still(kernel, bias):
        kernel[:], bias[:] = 0, 0.5

    sown = Sown(6).convolve(3, low=1, high=1).change(still)
    skip = sown.at
    sown.convolve(3, 1, relu=False).added(skip).rectify()
    found = compressed(sown.convolve(2, 2).network(), LOOSE)
    assert found.network.units == 0


def test_a_dead_branch_takes_its_sum_with_it():
    sown = Sown(7).convolve(3, low=1, high=1)
    skip = sown.at
    sown.convolve(3, low=1, high=1).change(dead(0)).change(dead(1)).change(dead(2)).added(skip)
    found = compressed(sown.convolve(2, 2).network(), 0.0)
    assert channels(found.network) == [3, 2]
    assert "sum" not in " ".join(node.name for node in found.network.nodes)


def test_a_grouped_writer_loses_parallel_channels():
    sown = Sown(8).convolve(4, low=1, high=1).convolve(6, 2, groups=2)
    sown.change(parallel(1, 0, 0.5)).change(parallel(4, 3, 0.5))
    assert channels(compressed(sown.convolve(2, 2).network(), LOOSE).network)[1] == 4
