"""LEO's convolutions against PyTorch's, which are written independently; and who does not write them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import FREE, convolutions

torch = pytest.importorskip("torch")
from torch.nn import functional  # noqa: E402

from leo_core.errors import UnsupportedModelError  # noqa: E402
from leo_core.linear import Conv, ConvTranspose, Spacing  # noqa: E402
from leo_core.testing.networks import convolutional  # noqa: E402
from leo_frontends.matrices import matrix  # noqa: E402


def normal(*shape):
    return np.random.default_rng(shape).standard_normal(shape)


@given(linear=convolutions(FREE, np.float64, st.integers(0, 9)))
def test_convolutions(linear):
    geometry = linear.geometry
    images = torch.from_numpy(normal(2, linear.in_channels, *geometry.input))
    pads = [pad for low, high in zip(geometry.low[::-1], geometry.high[::-1], strict=True) for pad in (low, high)]
    convolve = functional.conv1d if len(geometry.input) == 1 else functional.conv2d
    wanted = convolve(
        functional.pad(images, pads), torch.from_numpy(linear.kernel.copy()), stride=geometry.strides,
        dilation=geometry.dilations, groups=geometry.groups,
    )  # fmt: skip
    assert tuple(wanted.shape[1:]) == (linear.out_channels, *geometry.output)
    assert np.allclose(linear.apply(images.reshape(2, -1).numpy()), wanted.reshape(2, -1).numpy())


@given(data=st.data())
def test_transposed_convolutions(data):
    axes, groups = data.draw(st.integers(1, 2)), data.draw(st.integers(1, 2))
    each = lambda low, high: data.draw(st.tuples(*[st.integers(low, high)] * axes))  # noqa: E731
    taps, strides, dilations, sizes, spare = each(1, 3), each(1, 3), each(1, 2), each(1, 5), each(0, 2)
    reach = [(tap - 1) * dilation for tap, dilation in zip(taps, dilations, strict=True)]
    pads = tuple(np.minimum(each(0, 2), np.array(reach) // 2).tolist())  # so that something is left
    kernel = normal(2 * groups, data.draw(st.integers(1, 2)), *taps)
    padding = tuple(min(extra, stride - 1) for extra, stride in zip(spare, strides, strict=True))
    linear = ConvTranspose.of(kernel, sizes, Spacing(strides, pads, pads, dilations), groups, padding)
    images = torch.from_numpy(normal(2, 2 * groups, *sizes))
    convolve = functional.conv_transpose1d if axes == 1 else functional.conv_transpose2d
    wanted = convolve(
        images, torch.from_numpy(kernel), stride=strides, padding=pads, output_padding=padding, groups=groups,
        dilation=dilations,
    )  # fmt: skip
    assert tuple(wanted.shape[2:]) == linear.conv.geometry.input
    assert linear.output_padding == padding
    assert np.allclose(linear.apply(images.reshape(2, -1).numpy()), wanted.reshape(2, -1).numpy())


def test_average_pooling():
    images = torch.from_numpy(normal(2, 3, 5, 7))
    wanted = functional.avg_pool2d(images, (2, 3), stride=(1, 2), padding=(1, 1))
    linear = Conv.of(np.full((3, 1, 2, 3), 1 / 6), (5, 7), Spacing(strides=(1, 2), low=1, high=1), groups=3)
    assert np.allclose(linear.apply(images.reshape(2, -1).numpy()), wanted.reshape(2, -1).numpy())


def test_a_writer_that_does_not_know_convolutions_refuses_them():
    with pytest.raises(UnsupportedModelError, match="'conv' is made of a Conv, which LEO does not write there"):
        matrix(convolutional().affine("conv").maps[0], "conv", "a file")
