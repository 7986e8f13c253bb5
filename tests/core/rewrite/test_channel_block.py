"""Active channels are done by as few as their readers tell apart, opposite ones by one and a line."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from images import WHERE, compressed

import leo_core
from leo_core.domain import Box
from leo_core.storage import save
from leo_core.testing.sown import Sown, active, constant, parallel

LOOSE = 0.05
SEEDS = st.integers(0, 2**32 - 1)


def low_rank(rank):
    """All that a convolution makes of what it reads comes to so many numbers."""

    def edit(kernel, _bias):
        outs, reads = kernel.shape[:2]
        rng = np.random.default_rng(1)
        left = rng.integers(-4, 5, (outs * kernel[0, 0].size, rank))
        right = rng.integers(-4, 5, (rank, reads)) / 4
        kernel[:] = np.moveaxis((left @ right).reshape(outs, *kernel.shape[2:], reads), -1, 1)

    return edit


def bent(kernel, bias):
    """All channels change state where what is read lies in [0, 1]."""
    bias[:] = -0.5 * kernel.reshape(len(kernel), -1).sum(axis=1)


def left(found):
    """How many channels the first convolution has left; 0 where it is folded."""
    return found.network.affine("conv0").groups if "conv0" in found.network else 0


def opposite(channel, other, factor):
    """A filter that is a negative multiple of another."""
    return parallel(channel, other, -factor)


@settings(max_examples=6, deadline=None)
@given(seed=SEEDS, where=WHERE)
def test_active_channels_are_done_by_as_many_as_their_reader_tells_apart(seed, where):
    sown = Sown(seed, (2, 6, 5)).convolve(7, low=1, high=1).change(active()).convolve(4, 2, **where).change(low_rank(2))
    padded = any(np.max(where[side]) > 0 for side in ("low", "high"))
    found = compressed(sown.network(), LOOSE)
    assert left(found) <= 2 + padded


@settings(max_examples=4, deadline=None)
@given(seed=SEEDS)
def test_behind_an_average_too(seed):
    sown = Sown(seed, (2, 8, 8)).convolve(7, low=1, high=1).change(active()).averaged().convolve(4, 2)
    found = compressed(sown.change(low_rank(2)).network(), LOOSE)
    assert left(found) <= 2


@settings(max_examples=4, deadline=None)
@given(seed=SEEDS, where=WHERE, factor=st.sampled_from([1.0, 0.5, 0.7]))
def test_opposite_channels_are_one_and_a_line(seed, where, factor):
    found = compressed(mirrored(seed, factor).convolve(3, 2, **where).network(), LOOSE)
    padded = any(np.max(where[side]) > 0 for side in ("low", "high"))
    assert left(found) <= 4 + 2 + padded  # four ReLUs; all lines are of two numbers


def mirrored(seed, factor):
    """Eight filters of two numbers, every other one the opposite of the one before it, that all change state."""
    sown = Sown(seed, (2, 6, 5)).convolve(8, 1).change(bent)
    for channel in (1, 3, 5, 7):
        sown.change(opposite(channel, channel - 1, factor))
    return sown


@settings(max_examples=4, deadline=None)
@given(seed=SEEDS, where=WHERE, factor=st.sampled_from([1.0, 0.5, 0.7]))
def test_where_the_weights_of_opposite_channels_cancel_only_lines_are_left(seed, where, factor):
    def cancelled(kernel, _bias):
        kernel[:, ::2] = -np.float32(factor) * kernel[:, 1::2]

    found = compressed(mirrored(seed, factor).convolve(3, 2, **where).change(cancelled).network(), LOOSE)
    padded = any(np.max(where[side]) > 0 for side in ("low", "high"))
    assert left(found) <= 2 + padded


@pytest.mark.parametrize("pooled", [False, True])
def test_the_line_of_an_opposite_channel_passes_an_average_but_no_maximum(pooled):
    sown = mirrored(2, 0.5)
    sown = sown.pooled() if pooled else sown.averaged()
    found = compressed(sown.convolve(3, 2).network(), LOOSE)
    assert left(found) == (8 if pooled else 6)
    assert ("merge_opposite_channels" in rules(found)) is not pooled


def rules(found):
    return [step.rule for step in found.steps]


def test_a_carrier_that_is_there_is_used():
    sown = Sown(3).convolve(7, low=1, high=1).change(active()).change(constant(4, 3.0))
    found = compressed(sown.convolve(4, 2, high=1).change(low_rank(2)).network(), LOOSE)
    assert left(found) == 3
    assert not any("carry" in step.what for step in found.steps)


SPOILED = {
    "a norm of its own": lambda sown: sown.normed().convolve(4, 2),
    "averages of different weights": lambda sown: sown.convolve(7, 2, groups=7, relu=False).convolve(4, 2),
    "a maximum": lambda sown: sown.pooled().convolve(4, 2),
}


@pytest.mark.parametrize("spoiled", SPOILED)
def test_what_does_not_treat_channels_alike_keeps_them(spoiled):
    sown = Sown(3, (2, 8, 8)).convolve(7, low=1, high=1).change(active())
    found = compressed(SPOILED[spoiled](sown).change(low_rank(2)).network(), LOOSE)
    assert "refactor_channels" not in rules(found)


def test_grouped_readers_keep_them():
    sown = Sown(3, (2, 8, 8)).convolve(8, low=1, high=1).change(active()).convolve(4, 2, groups=2)
    assert "refactor_channels" not in rules(compressed(sown.change(low_rank(1)).network(), LOOSE))


def test_two_readers_of_which_one_sees_all_keep_them():
    """The second tells all channels apart, whatever the first does."""
    sown = Sown(3).convolve(7, low=1, high=1).change(active())
    at, shape = sown.at, sown.shape
    sown.convolve(2, 3, low=1, high=1, relu=False).change(low_rank(1))
    first = sown.at
    sown.at, sown.shape = at, shape
    sown.convolve(2, 3, low=1, high=1, relu=False).added(first).rectify()
    assert left(compressed(sown.network(), 1e-3)) == 7


def test_channels_that_are_outputs_stay():
    network = Sown(3).convolve(7, low=1, high=1).change(active()).convolve(4, 2).change(low_rank(2)).network()
    shown = replace(network, nodes=network.nodes[:2], output="relu1", signature=type(network.signature)())
    assert compressed(shown, LOOSE).network == shown


@pytest.mark.parametrize("scale", [1e15, 1e-38])
@pytest.mark.parametrize("where", [{}, {"low": 1, "high": (0, 2)}])
def test_sizes_that_leave_no_digits_cost_what_they_cost(scale, where):
    """With weights as large, or so small that they are subnormal, |f − g| is still at most δ."""

    def scaled(kernel, bias):
        kernel *= np.float32(scale)
        bias *= np.float32(scale)

    sown = Sown(3).convolve(7, low=1, high=1).change(active()).change(scaled)
    sown = sown.convolve(4, 2, **where).change(low_rank(2))
    for tolerance in (0.0, LOOSE, LOOSE * scale):
        compressed(sown.network(), tolerance)
    sown = mirrored(2, 0.7).change(scaled).convolve(3, 2, **where)
    for tolerance in (0.0, LOOSE, LOOSE * scale):
        compressed(sown.network(), tolerance)


def test_certificates_of_opposite_and_of_re_factored_channels_are_accepted(tmp_path):
    active_ones = Sown(3, (2, 6, 5)).convolve(7, low=1, high=1).change(active()).convolve(4, 2, low=1)
    for number, sown in enumerate((active_ones.change(low_rank(2)), mirrored(2, 0.7).convolve(3, 2, high=1))):
        network, model, certificate = sown.network(), tmp_path / f"{number}.leo", tmp_path / f"{number}.cert"
        save(network, model)
        found = leo_core.compress(model, (0, 1), tolerance=LOOSE, evidence=True)
        assert rules(found)[-1] == ("refactor_channels", "merge_opposite_channels")[number]
        small = tmp_path / f"{number}.small.leo"
        found.export(small)
        found.certify(certificate, small)
        claimed = leo_core.check(certificate, model, small, Box.uniform(0, 1, network.input_size))
        assert claimed.deviation <= LOOSE
