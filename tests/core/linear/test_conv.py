"""Convolutions: what they are refused for, and where they stay what they are. The kit tests what they compute."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
from hypothesis import given
from hypothesis import strategies as st
from strategies import FREE, convolutions

from leo_core.linear import Conv, ConvTranspose, Spacing, Sparse
from leo_core.linear import conv as conv_module
from leo_core.linear import geometry as geometry_module
from leo_core.testing import map_kit

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def numbers_that_do_not_depend_on_other_tests():
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state


def channels(*chosen, positions):
    """The units of some channels."""
    return (np.array(chosen)[:, None] * positions + np.arange(positions)).ravel()


def test_two_axes_against_scipy():
    kernel, image = RNG.standard_normal((2, 3, 3, 2)), RNG.standard_normal((3, 5, 6))
    linear = Conv.of(kernel, (5, 6), Spacing(low=(1, 0), high=(2, 1)))
    padded = np.pad(image, ((0, 0), (1, 2), (0, 1)))
    wanted = [sum(scipy.signal.correlate2d(padded[c], filter_[c], "valid") for c in range(3)) for filter_ in kernel]
    assert linear.geometry.output == (6, 6)
    assert np.allclose(linear.apply(image.ravel()), np.ravel(wanted))


def test_one_axis_against_scipy():
    kernel, signal = RNG.standard_normal((2, 1, 3)), RNG.standard_normal((2, 7))
    linear = Conv.of(kernel, (7,), Spacing(strides=2), groups=2)
    wanted = [np.correlate(signal[c], kernel[c, 0], "valid")[::2] for c in range(2)]
    assert np.allclose(linear.apply(signal.ravel()), np.ravel(wanted))


def test_average_pooling_is_a_depthwise_convolution():
    image = RNG.integers(-8, 8, (3, 4, 6)).astype(np.float64)
    linear = Conv.of(np.full((3, 1, 2, 2), 0.25), (4, 6), Spacing(strides=2), groups=3)
    wanted = image.reshape(3, 2, 2, 3, 2).mean(axis=(2, 4))
    assert np.array_equal(linear.apply(image.ravel()), wanted.ravel())


@given(linear=convolutions(FREE, np.float32, st.integers(0, 9)), seed=st.integers(0, 9), order=st.sampled_from("CF"))
def test_all_ways_to_cut_the_work_give_the_same(linear, seed, order, monkeypatch_windows):
    """However many windows are written out at once, and however the values lie in memory."""
    rng = np.random.default_rng(seed)
    x = np.asarray(rng.standard_normal((5, linear.columns)), order=order)
    y = np.asarray(rng.standard_normal((5, linear.rows)), order=order)
    matrix = linear.dense().astype(np.float64)
    for windows in (1, 100, 1 << 18):
        monkeypatch_windows(windows)
        assert np.allclose(linear.apply(x), x @ matrix.T)
        assert np.allclose(linear.apply_transposed(y), y @ matrix)


@pytest.fixture(scope="module")
def monkeypatch_windows():
    with pytest.MonkeyPatch.context() as patch:
        yield lambda windows: patch.setattr(geometry_module, "_WINDOWS", windows)


def test_counts_of_a_layer():
    linear = Conv.of(RNG.standard_normal((8, 4, 3, 3)), (6, 6), Spacing(low=1, high=1))
    assert (linear.rows, linear.columns) == (8 * 36, 4 * 36)
    assert linear.weights == 8 * 4 * 9
    assert linear.products == linear.weights * 36
    assert linear.terms == 4 * 9
    assert ConvTranspose(**linear.arrays()).terms == 8 * 9
    assert linear.nonzeros == np.count_nonzero(linear.dense()) < linear.products


def test_whole_channels_of_one_group_leave_a_convolution():
    linear = Conv.of(RNG.standard_normal((4, 3, 3, 3)), (5, 5), Spacing(low=1, high=1))
    narrow = linear.select(channels(3, 0, positions=25), channels(2, positions=25))
    assert isinstance(narrow, Conv)
    assert np.array_equal(narrow.kernel, linear.kernel[[3, 0]][:, [2]])
    assert isinstance(linear.select_rows(channels(1, positions=25)), Conv)
    assert isinstance(linear.select_columns(channels(1, 0, positions=25)), Conv)
    for units in (np.arange(25) + 1, channels(1, positions=25)[::-1], np.arange(24), np.zeros(0, np.int64)):
        assert isinstance(linear.select_rows(units), Sparse)


def test_depthwise_keeps_the_channels_that_match():
    linear = Conv.of(RNG.standard_normal((6, 1, 3)), (4,), Spacing(low=1, high=1), groups=3)
    outs, ins = channels(4, 5, 0, 1, positions=4), channels(2, 0, positions=4)
    narrow = linear.select(outs, ins)
    assert isinstance(narrow, Conv)
    assert narrow.geometry.groups == 2
    map_kit.is_the_matrix(narrow, linear.dense()[outs][:, ins])
    one_each = linear.select(channels(0, 3, 4, positions=4), np.arange(12))
    assert isinstance(one_each, Conv)
    assert one_each.weights == 9
    unfit = (channels(4, 5, positions=4), channels(0, positions=4)), (channels(0, 2, 3, positions=4), ins)
    for outs, ins in unfit:
        fallen_back = linear.select(outs, ins)
        assert isinstance(fallen_back, Sparse)
        map_kit.is_the_matrix(fallen_back, linear.dense()[outs][:, ins])


def test_groups_of_unequal_size_do_not_make_a_convolution():
    linear = Conv.of(RNG.standard_normal((4, 2, 1)), (2,), groups=2)
    assert isinstance(linear.select(channels(0, 1, 2, positions=2), np.arange(8)), Sparse)
    kept = linear.select(channels(1, 2, positions=2), channels(0, 3, positions=2))
    assert isinstance(kept, Conv)
    map_kit.is_the_matrix(kept, linear.dense()[2:6][:, [0, 1, 6, 7]])


def test_the_transpose_narrows_as_its_convolution_does():
    linear = ConvTranspose.of(RNG.standard_normal((3, 4, 2, 2)), (3, 3), Spacing(strides=2))
    narrow = linear.select(channels(3, 1, positions=36), channels(0, 2, positions=9))
    assert isinstance(narrow, ConvTranspose)
    map_kit.is_the_matrix(narrow, linear.dense()[channels(3, 1, positions=36)][:, channels(0, 2, positions=9)])


@pytest.mark.parametrize("groups", [1, 2])
def test_whole_channels_are_cleared_in_the_kernel(groups):
    linear = Conv.of(RNG.standard_normal((4, 4 // groups, 3, 3)), (3, 3), Spacing(low=1, high=1), groups=groups)
    for map_, turn in ((linear, False), (ConvTranspose(**linear.arrays()), True)):
        rows, columns = np.isin(np.arange(36) // 9, [1]), np.isin(np.arange(36) // 9, [0, 2])
        cleared = map_.without(rows, columns)
        assert type(cleared) is type(map_)
        map_kit.is_the_matrix(cleared, np.where(rows[:, None] | columns, 0, map_.dense()))
        assert map_.without(rows & False, columns & False) is map_
        rows[0] = True
        assert isinstance(map_.without(rows, columns), Sparse), turn


def test_channels_are_spread_in_the_kernel():
    linear = Conv.of(RNG.standard_normal((2, 2, 3)), (4,), Spacing(low=1, high=1))
    spread = linear.spread_columns(channels(2, 0, positions=4), 12)
    assert isinstance(spread, Conv)
    assert np.array_equal(spread.kernel[:, [2, 0]], linear.kernel)
    depthwise = Conv.of(RNG.standard_normal((2, 1, 3)), (4,), Spacing(low=1, high=1), groups=2)
    assert depthwise.spread_columns(np.arange(8), 8) is depthwise


def test_output_padding():
    kernel = RNG.standard_normal((2, 1, 3))
    linear = ConvTranspose.of(kernel, (4,), Spacing(strides=2, low=1, high=1), output_padding=1)
    assert linear.rows == 8
    assert linear.output_padding == (1,)
    assert ConvTranspose.of(kernel, (4,), Spacing(strides=2, low=1, high=1)).output_padding == (0,)
    with pytest.raises(ValueError, match="output padding 2 must be from 0 to below the stride 2"):
        ConvTranspose.of(kernel, (4,), Spacing(strides=2), output_padding=2)


def test_single_rows_are_had_without_the_others():
    linear = Conv.of(np.ones((64, 64, 3, 3), np.float32), (96, 96), Spacing(low=1, high=1))
    columns, values = linear.row(95)
    assert len(columns) == 64 * 4
    assert columns[:4].tolist() == [94, 95, 190, 191]
    assert (values == 1).all()
    rows, _ = linear.column(0)
    assert rows[:4].tolist() == [0, 1, 96, 97]
    with pytest.raises(MemoryError, match="589824 rows of a convolution, 576 entries each, are too many to write out"):
        linear.sparse()
    assert linear.rows * 576 > conv_module.LARGEST_SPARSE


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: Conv.of(np.ones((1, 1)), (3,)), r"a kernel is \(out, in/groups, taps\).*not \(1, 1\)"),
        (lambda: Conv.of(np.ones((1, 0, 1)), (3,)), r"a kernel is .*not \(1, 0, 1\)"),
        (lambda: Conv.of(np.ones((3, 1, 1)), (3,), groups=2), "3 output channels are not 2 groups of one size"),
        (lambda: Conv.of(np.ones((1, 1, 1, 1)), (3,)), "over 2 axes has 11 numbers.*not shape"),
        (lambda: Conv(np.ones((1, 1, 1)), np.ones((2, 3))), "over 1 axes has 6 numbers"),
        (lambda: Conv.of(np.ones((1, 1, 1)), (0,)), "input sizes must be at least 1, not 0"),
        (lambda: Conv.of(np.ones((1, 1, 1)), (3,), Spacing(strides=0)), "strides must be at least 1, not 0"),
        (lambda: Conv.of(np.ones((1, 1, 1)), (3,), Spacing(dilations=-1)), "dilations must be at least 1, not -1"),
        (lambda: Conv.of(np.ones((1, 1, 1)), (3,), groups=0), "groups must be at least 1, not 0"),
        (lambda: Conv.of(np.ones((1, 1, 2)), (3,), Spacing(high=-1)), "pads must be at least 0, not -1"),
        (
            lambda: Conv.of(np.ones((1, 1, 1)), (3,), Spacing(high=1 << 40)),
            "pads must be at most 1073741824, not 1099511627776",
        ),
        (
            lambda: Conv.of(np.ones((1, 1, 3, 2)), (3, 1), Spacing(dilations=2)),
            "3 × 2 taps, 2 × 2 apart.*input of 3 × 1",
        ),
    ],
)
def test_what_is_no_convolution_is_refused(build, said):
    with pytest.raises(ValueError, match=said):
        build()


def test_kernels_keep_their_type():
    assert repr(Conv.of(np.ones((2, 1, 2)), (3,))) == "Conv(4 × 3)"
    assert Conv.of(np.ones((1, 1, 1), np.float32), (2,)).dtype == np.float32
    assert Conv.of(np.ones((1, 1, 1), np.float16), (2,)).dtype == np.float64
