"""Where windows lie in TensorFlow Lite's words: SAME or VALID, behind zeros put around where neither says it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from leo_core.linear import Conv, ConvTranspose
from leo_frontends.convolutions import Windows
from leo_frontends.graph import Array
from leo_frontends.layers import Layout, Pairs, Pool

SAME, VALID = 0, 1


@final
@dataclass(frozen=True)
class Words:
    """Windows over two axes, the first of length 1 where the network has one.

    Attributes
    ----------
    around:
        Zeros before and behind along each axis; none where ``options`` say it all.
    options:
        Padding, strides and dilations, as operators have them.
    """

    around: Pairs
    options: dict[str, Any]


def of_windows(windows: Windows, sizes: Sequence[int], *, dilated: bool = True) -> Words:
    """Those of a convolution or a pooling of images of such sizes."""
    fits = windows.same(sizes, lower=False) == windows
    around = tuple(zip(windows.low, windows.high, strict=True))
    same = fits and bool(np.any(around))
    options = _options(windows, SAME if same else VALID, dilated=dilated)
    return Words(() if same or not np.any(around) else around, options)


def of_transposed(linear: ConvTranspose) -> tuple[Words, Layout, Pairs]:
    """(a transposed convolution, the sizes of its result, what is cut off that).

    With VALID, all that the kernel reaches, where no padding by name is what it has.
    """
    geometry = linear.geometry
    windows = Windows.of(linear.conv.kernel.shape[2:], geometry.strides)
    for padding, ahead in ((VALID, windows), (SAME, windows.same(geometry.input, lower=False))):
        if ahead.low == geometry.low and _count(ahead, geometry.input) == geometry.output:
            return Words((), _options(windows, padding, dilated=False)), geometry.input, ()
    steps = zip(geometry.output, windows.strides, windows.spans, strict=True)
    reach = [(size - 1) * stride + span for size, stride, span in steps]
    ends = [low + size for low, size in zip(geometry.low, geometry.input, strict=True)]
    sizes = tuple(max(pair) for pair in zip(reach, ends, strict=True))
    cut = tuple((low, size - end) for low, size, end in zip(geometry.low, sizes, ends, strict=True))
    return Words((), _options(windows, VALID, dilated=False)), sizes, cut


def _count(windows: Windows, sizes: Sequence[int]) -> Layout:
    """How many windows there are along each axis."""
    each = zip(sizes, windows.low, windows.high, windows.spans, windows.strides, strict=True)
    return tuple((size + low + high - span) // stride + 1 for size, low, high, span, stride in each)


def conv_windows(conv: Conv) -> Windows:
    """Those of a convolution."""
    geometry = conv.geometry
    return Windows(conv.kernel.shape[2:], geometry.strides, geometry.low, geometry.high, geometry.dilations)


def without_pads(windows: Windows) -> Windows:
    """The same with zeros put around before."""
    return Windows.of(windows.taps, windows.strides, None, windows.dilations)


def pool_windows(pool: Pool) -> Windows:
    """Those of a pooling."""
    return Windows(pool.taps, pool.strides, pool.low, pool.high, pool.dilations)


def kernel_of(conv: Conv) -> Array:
    """A kernel as CONV_2D has it: (out, height, width, in/groups)."""
    return _flat(np.moveaxis(conv.kernel, 1, -1))


def depthwise_kernel_of(conv: Conv) -> Array:
    """As DEPTHWISE_CONV_2D has it: (1, height, width, channels · multiplier)."""
    return _flat(np.moveaxis(conv.kernel, 0, -1))


def transposed_kernel_of(linear: ConvTranspose) -> Array:
    """As TRANSPOSE_CONV has it, (out, height, width, in), of the convolution that it is the transpose of."""
    return _flat(np.moveaxis(linear.conv.kernel, 0, -1))


def image(shape: Layout) -> Layout:
    """(height, width, channels) of (length, channels), or of what has three axes."""
    return (1, *shape) if len(shape) == 2 else shape


def _flat(kernel: Array) -> Array:
    """A kernel over one axis as one over two."""
    return np.ascontiguousarray(kernel[:, None] if kernel.ndim == 3 else kernel)


def _options(windows: Windows, padding: int, *, dilated: bool) -> dict[str, Any]:
    ones = (1,) * (2 - len(windows.taps))
    options: dict[str, Any] = {"padding": padding}
    options |= dict(zip(("strideH", "strideW"), (*ones, *windows.strides), strict=True))
    if dilated:
        options |= dict(zip(("dilationHFactor", "dilationWFactor"), (*ones, *windows.dilations), strict=True))
    return options
