"""Channels of convolutional networks: each kind that can go is planted, found, and costs no more than is said."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from images import WHERE, channels, compressed

from leo_core.bounds.noise import float_noise
from leo_core.domain import Box
from leo_core.errors import NetworkError
from leo_core.linear import Conv, Dense, Select
from leo_core.network import Affine
from leo_core.testing.sown import Sown, constant, dead, unread


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), where=WHERE, value=st.sampled_from([0.3, 1.7, 1e-3]), fewer=st.booleans())
def test_dead_constant_and_unread_channels_go_whatever_the_reader_is(seed, where, value, fewer):
    sown = (
        Sown(seed).convolve(6, low=1, high=1).change(dead(1)).change(constant(3, value)).change(constant(4, 2 * value))
    )
    sown.convolve(4, 2, **where).change(unread(5))
    network = sown.network()
    assume(float_noise(network, Box.uniform(0, 1, network.input_size)) > 0)  # else no rounding is allowed
    found = compressed(network)
    padded = any(np.max(where[side]) > 0 for side in ("low", "high"))
    carriers = 1 if padded else 0  # one of the two constants carries both
    assert channels(found.network)[0] <= 3 - 1 + carriers + (1 if padded else 0)
    if fewer:
        exactly = compressed(network, tolerance=0.0)
        assert channels(exactly.network)[0] <= 4


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), padded=st.booleans())
def test_a_dead_channel_goes_through_a_depthwise_layer_and_its_norm(seed, padded):
    sown = Sown(seed).convolve(5, 1, relu=False).normed()
    sown.rectify()
    sown.change(dead(2))
    sown.convolve(5, 3, groups=5, low=int(padded), high=int(padded), relu=False).normed()
    sown.rectify()
    sown.convolve(3, 1)
    found = compressed(sown.network())
    assert max(channels(found.network)[:4], default=0) <= 4
    for node in found.network.nodes:
        if isinstance(node, Affine) and node.own is not None:
            assert {len(array) for array in node.own.numbers.values()} == {node.shape[0]}
            assert len(node.own.rounding.bias) == node.size


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_dead_stream_goes_from_all_that_write_it(seed):
    sown = Sown(seed).convolve(4, 3, low=1, high=1).change(dead(2))
    skip = sown.at
    sown.convolve(3, 3, low=1, high=1).convolve(4, 3, low=1, high=1, relu=False).change(dead(2))
    size = int(np.prod(sown.shape))
    maps = (Select.identity(size), Select.identity(size))
    sown.nodes.append(Affine("sum", (skip, sown.at), maps, np.zeros(size, np.float32), shape=sown.shape))
    sown.at = "sum"
    sown.rectify()
    sown.convolve(2, 2)
    found = compressed(sown.network(), tolerance=0.0)
    assert channels(found.network) == [3, 3, 3, 3, 2]
    assert isinstance(found.network.affine("sum").maps[0], Select)


def test_what_keeps_channels_apart_picks_those_it_needs():
    sown = Sown(3).convolve(4, 1)
    first = sown.at
    sown.convolve(4, 3, groups=4, low=1, high=1, relu=False)
    depthwise = sown.at
    sown.convolve(4, 1, relu=False).change(unread(1))
    size = int(np.prod(sown.shape))
    maps = (Select.identity(size), Select.identity(size))
    sown.nodes.append(Affine("sum", (first, sown.at), maps, np.zeros(size, np.float32), shape=sown.shape))
    sown.at = "sum"
    found = compressed(sown.network(), tolerance=0.0).network
    assert found.affine(depthwise).shape[0] == 3
    assert isinstance(found.affine(depthwise).maps[0], Conv)


@pytest.mark.parametrize("taps", [1, 3])
def test_a_layer_that_is_dead_altogether_leaves_a_constant(taps):
    def all_dead(kernel, bias):
        bias[:] = -1e4

    sown = Sown(1).convolve(3, taps).change(all_dead).convolve(2, 2)
    found = compressed(sown.network(), tolerance=None)
    assert found.network.units == 0 or found.network.connections == 0


def test_where_nothing_goes_all_stays_as_it_is():
    with_norm = Sown(8).convolve(3, 3, low=1, high=1, relu=False).normed().network()
    for network in (with_norm, Sown(8).convolve(3, 3, low=1, high=1).network()):
        assert compressed(network, tolerance=0.0).network == network


def test_a_norm_of_other_channels_takes_the_constants_of_those():
    """It was taken to read the channel of its own number: the constant of another was folded."""
    sown = Sown(2).convolve(4, 1, relu=False).change(constant(0, 3.0)).change(constant(2, -1.5))
    picked = Select(np.arange(1, 4).repeat(30) * 30 + np.tile(np.arange(30), 3), columns=120)
    shape = (3, 6, 5)
    sown.nodes.append(Affine("some", (sown.at,), (picked,), np.zeros(90, np.float32), shape=shape))
    sown.at, sown.shape = "some", shape
    sown.normed()
    sown.rectify()
    found = compressed(sown.convolve(2, 3, low=1, high=1).network())
    assert channels(found.network)[0] < 4


def test_a_norm_with_a_factor_of_zero_goes_as_a_constant():
    sown = Sown(4).convolve(4, 3, relu=False).normed()
    at = len(sown.nodes) - 1
    node = sown.nodes[at]
    numbers = {name: array.copy() for name, array in node.own.numbers.items()}
    numbers["gamma"][2], numbers["beta"][2] = 0.0, 0.75
    scale, bias = node.maps[0].kernel.copy(), node.bias.reshape(4, -1).copy()
    scale[2], bias[2] = 0.0, 0.75
    conv = Conv(scale, node.maps[0].arrays()["geometry"])
    sown.nodes[at] = replace(node, maps=(conv,), bias=bias.ravel(), own=replace(node.own, numbers=numbers))
    sown.rectify()
    network = sown.convolve(2, 2).network()
    found = compressed(network)
    assert channels(found.network)[:2] == [3, 3]
    kept = compressed(network, tolerance=0.0).network  # nothing may be rounded: the channel stays whole
    assert channels(kept)[0] == channels(kept)[1]


def test_a_layer_with_own_numbers_works_value_by_value():
    node = next(node for node in Sown(1).convolve(3, 1, relu=False).normed().nodes if node.own is not None)
    mixing = Dense(np.ones((node.size, node.size)))
    with pytest.raises(NetworkError, match="value by value"):
        replace(node, maps=(mixing,))
