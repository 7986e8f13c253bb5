"""Channels that others express merge, whatever stands between them and their readers; nothing else does."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from images import WHERE, channels, compressed

from leo_core.domain import Box
from leo_core.linear import Conv, Dense, Spacing
from leo_core.network import INPUT, Affine, Network, Relu
from leo_core.rewrite import View, rewrite
from leo_core.testing.sown import Sown, active, constant, dead, dependent, parallel, unread
from tests.deciding import decide

LOOSE = 0.05
SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=6, deadline=None)
@given(seed=SEEDS, where=WHERE, factor=st.sampled_from([1.0, 0.5, 0.7, 3.0]))
def test_parallel_filters_merge_whatever_the_reader_is(seed, where, factor):
    sown = Sown(seed).convolve(5, low=1, high=1).change(parallel(1, 3, factor)).change(parallel(4, 3, 1.5 * factor))
    sown.convolve(3, 2, **where)
    assert channels(compressed(sown.network(), LOOSE).network)[0] <= 3


@settings(max_examples=6, deadline=None)
@given(seed=SEEDS, where=WHERE)
def test_active_channels_that_depend_on_others_merge(seed, where):
    sown = Sown(seed).convolve(6).change(dependent(1, {0: 1, 2: -0.5})).change(dependent(4, {3: 0.3, 0: 1}))
    sown.change(active()).convolve(3, 2, **where)
    padded = any(np.max(where[side]) > 0 for side in ("low", "high"))
    assert channels(compressed(sown.network(), LOOSE).network)[0] <= 4 + padded


def test_a_constant_channel_carries_the_shift_where_there_is_one():
    sown = Sown(1).convolve(5).change(dependent(1, {0: 1, 2: -0.5})).change(active()).change(constant(4, 2.0))
    found = compressed(sown.convolve(3, 2, low=1).network(), LOOSE)
    assert channels(found.network)[0] == 4
    assert any(step.what == "1 dependent active channel(s) merged into 3" for step in found.steps)


@settings(max_examples=3, deadline=None)
@given(seed=SEEDS, kind=st.sampled_from(["max", "average", "both"]))
def test_parallel_filters_merge_behind_poolings(seed, kind):
    sown = Sown(seed, (2, 8, 8)).convolve(4, low=1, high=1).change(parallel(2, 1, 0.5))
    if kind != "average":
        sown.pooled()
    if kind != "max":
        sown.averaged()
    found = compressed(sown.convolve(3, 2, low=1).network(), LOOSE)
    assert all(node.shape[0] == 3 for node in found.network.nodes if isinstance(node, Affine) and node.shape)


def test_active_channels_merge_behind_an_average_but_not_behind_a_maximum():
    def built(pool):
        sown = Sown(4, (1, 6, 6)).convolve(5, low=1, high=1)
        sown.change(dependent(1, {0: 1, 2: 0.5})).change(dependent(4, {3: 1, 2: 1})).change(active())
        return compressed(getattr(sown, pool)().convolve(2, 2).network(), LOOSE).network

    assert channels(built("averaged"))[0] == 3
    assert channels(built("pooled"))[0] == 5


@settings(max_examples=3, deadline=None)
@given(seed=SEEDS, same=st.booleans())
def test_parallel_filters_merge_through_norms_and_depthwise_layers_that_treat_them_alike(seed, same):
    sown = Sown(seed).convolve(5, 1, relu=False).change(parallel(2, 0, 1.0))
    numbers = {key: sown.rng.uniform(0.5, 1.5, 5).astype(np.float32) for key in ("gamma", "beta", "mean", "variance")}
    for array in numbers.values():
        array[2] = array[0]
    sown.with_norm(numbers).rectify().convolve(5, 3, groups=5, low=1, high=1, relu=False)
    if same:
        sown.change(parallel(2, 0, 0.5))
    sown.rectify().convolve(3, 2)
    found = compressed(sown.network(), LOOSE)
    merged = any("parallel" in step.what for step in found.steps)
    assert same or not merged
    assert max(channels(found.network)[:3]) <= (4 if same else 5)  # fewer, and none merged, where one is dead


@settings(max_examples=3, deadline=None)
@given(seed=SEEDS, both=st.booleans())
def test_a_residual_stream_merges_channels_that_all_its_writers_have_twice(seed, both):
    sown = Sown(seed).convolve(4, low=1, high=1).change(parallel(2, 0, 0.5))
    skip = sown.at
    sown.convolve(3, low=1, high=1).convolve(4, low=1, high=1, relu=False)
    if both:
        sown.change(parallel(2, 0, 0.5))
    sown.added(skip).rectify().convolve(2, 2)
    found = channels(compressed(sown.network(), LOOSE).network)
    assert (found[0], found[2], found[3]) == ((3, 3, 3) if both else (4, 4, 4))


def residual(seed, *, branch=lambda kernel, bias: None, **where):
    """A sum of two convolutions of six channels, 3 a multiple of 1 in both; what reads it sees all of them but 4."""
    sown = Sown(seed).convolve(6, low=1, high=1).change(parallel(3, 1, 0.5))
    skip = sown.at
    sown.convolve(3, low=1, high=1).convolve(6, 1, relu=False).change(parallel(3, 1, 0.5)).change(branch)
    return sown.added(skip).rectify().convolve(2, 2, **where).change(unread(4))


@settings(max_examples=3, deadline=None)
@given(seed=SEEDS, where=WHERE)
def test_sums_that_hold_fewer_channels_than_what_they_add_merge_theirs(seed, where):
    found = channels(compressed(residual(seed, **where).network(), LOOSE).network)
    assert (found[0], found[2], found[3]) == (5, 4, 4)


def test_a_channel_that_a_sum_does_not_hold_stands_for_none_that_it_does():
    """The branch reads 4 and 5, which are alike; the reader of the sum only 5, which there is nothing else for."""
    alike = parallel(5, 4, 1.0)
    sown = residual(3, branch=alike).change(alike, name="conv0")
    found = channels(compressed(sown.network(), LOOSE).network)
    assert (found[0], found[2]) == (5, 4)
    assert found[3] == 4


@pytest.mark.parametrize("value", [0.7, 1e15, 1e-42])
def test_constants_of_a_sum_that_only_one_side_still_has_fold_at_each_reader(value):
    """Channel 2 is constant before the branch and gone from the sum, where 0 and 4 are what they were."""
    sown = Sown(11).convolve(5, low=1, high=1).change(constant(2, value)).change(constant(1, value))
    skip = sown.at
    sown.convolve(3, low=1, high=1).convolve(5, 1, relu=False).change(dead(2)).change(constant(1, value))
    found = compressed(sown.added(skip).rectify().convolve(2, 2).network(), LOOSE)
    assert channels(found.network)[2] <= (5 if value == 1e15 else 3)


def test_two_readers_take_a_channel_over_at_once():
    sown = Sown(5).convolve(4, low=1, high=1).change(parallel(3, 1, 0.7))
    at, shape = sown.at, sown.shape
    sown.convolve(2, 3, low=1, high=1, relu=False)
    first = sown.at
    sown.at, sown.shape = at, shape
    sown.convolve(2, 1, relu=False).added(first).rectify()
    assert channels(compressed(sown.network(), LOOSE).network)[0] == 3


@pytest.mark.parametrize(
    "spoiled",
    [
        lambda kernel, bias: bias.__setitem__(2, bias[2] + 0.3),  # another share of the bias
        lambda kernel, bias: kernel.__setitem__(2, -kernel[2]),  # opposite
        lambda kernel, bias: kernel[2].__imul__(1.0 + 0.2 * np.eye(3, dtype=np.float32)),  # one tap more
    ],
)
def test_what_is_not_parallel_stays(spoiled):
    sown = Sown(6).convolve(4, low=1, high=1).change(parallel(2, 1, 1.0)).change(spoiled)
    found = compressed(sown.convolve(3, 2).network(), 1e-3)
    assert channels(found.network)[0] == 4


def test_a_grouped_reader_takes_over_what_lies_in_one_group():
    sown = Sown(7).convolve(6, low=1, high=1).change(parallel(1, 0, 0.5)).change(parallel(4, 3, 0.5))
    found = compressed(sown.convolve(4, 2, groups=2).network(), LOOSE)
    assert channels(found.network)[0] == 4
    across = Sown(7).convolve(6, low=1, high=1).change(parallel(3, 0, 0.5)).change(parallel(4, 1, 0.5))
    found = compressed(across.convolve(4, 2, groups=2).network(), LOOSE)
    assert channels(found.network)[0] == 6


def test_a_channel_that_is_an_output_stays():
    sown = Sown(8).convolve(4, low=1, high=1).change(parallel(2, 1, 0.5))
    network = sown.network()
    shown = replace(network, nodes=network.nodes[:-1], output=sown.at, signature=type(network.signature)())
    assert compressed(shown, LOOSE).network == shown


def test_shifts_that_nothing_carries_are_not_forgotten():
    """Behind an average, a padded reader would see less of the shift at the border."""
    sown = Sown(9, (1, 6, 6)).convolve(4).change(dependent(1, {0: 1})).change(active()).averaged()
    found = compressed(sown.convolve(2, 2, low=1).network(), 1e-3)
    assert channels(found.network)[0] == 4


def test_unread_channels_and_merged_ones_go_together():
    sown = Sown(10).convolve(6, low=1, high=1).change(parallel(1, 0, 0.5)).convolve(3, 2).change(unread(4))
    assert channels(compressed(sown.network(), LOOSE).network)[0] == 4


def test_a_shift_that_no_float_holds_is_not_lost_where_it_is_not_read():
    """The second channel is 1.25 · 1.7e308 − a quarter of the first; the reader with pads reads the third alone."""
    kernel = np.zeros((3, 2, 1, 1))
    kernel[:, 0, 0, 0], kernel[2, 1] = (4, -1, 1), 1e-3
    bias = np.repeat([1.7e308, 1.7e308, 10.0], 4)
    padded, plain = np.zeros((1, 3, 2, 2)), np.zeros((1, 3, 1, 1))
    padded[0, 2], plain[0, :2, 0, 0] = 1.0, (2.0**-1001, 2.0**-1000)
    nodes = (
        Affine("conv", (INPUT,), (Conv.of(kernel, (2, 2)),), bias, shape=(3, 2, 2)),
        Relu("relu", "conv", np.zeros(12)),
        Affine("padded", ("relu",), (Conv.of(padded, (2, 2), Spacing(low=1, high=1)),), np.zeros(9), shape=(1, 3, 3)),
        Affine("plain", ("relu",), (Conv.of(plain, (2, 2)),), np.zeros(4), shape=(1, 2, 2)),
        Affine("out", ("padded", "plain"), (Dense(np.ones((1, 9))), Dense(np.ones((1, 4)))), np.zeros(1)),
    )
    network, box = Network(8, nodes, "out"), Box.uniform(-1, 1, 8)
    found = rewrite(View.of(network, decide(network, box)), tolerance=1e-3)
    for x in box.corners(2):
        was, now = (net.evaluate_exact(x)[net.output].fractions() for net in (network, found.network))
        assert abs(was[0] - now[0]) <= Fraction(found.deviation)
