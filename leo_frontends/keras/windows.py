"""Where windows lie in Keras' words: a padding by name, zeros around before it, a transposed convolution cut after it.

Keras has no strides together with dilations, and pads of a transposed convolution only as a part of what is cut off.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np

from leo_core.linear import Conv, ConvTranspose
from leo_core.linear.geometry import Geometry
from leo_frontends.graph import Array
from leo_frontends.layers import Pairs, Pool


@final
@dataclass(frozen=True)
class Words:
    """A kernel as Keras stores it, (*taps, …), and what Keras is told of where it is applied.

    Attributes
    ----------
    around:
        Zeros before and behind along each axis; none where ``padding`` says it all.
    cut:
        What is cut off before and behind a transposed convolution.
    """

    kernel: Array
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    padding: str
    around: Pairs = ()
    cut: Pairs = ()

    @property
    def rank(self) -> int:
        """Over how many axes."""
        return len(self.strides)

    @property
    def taps(self) -> tuple[int, ...]:
        """How many there are along each axis."""
        return self.kernel.shape[: self.rank]

    def by_channel(self, channels: int) -> Array:
        """The kernel of a depthwise convolution: (*taps, channels, multiplier)."""
        return self.kernel.reshape(*self.taps, channels, -1)


def of_convolution(conv: Conv) -> Words:
    """A convolution; its kernel as (*taps, in/groups, out)."""
    geometry = conv.geometry
    padding = padding_of(geometry) or _causal(geometry)
    around = () if padding else zeros_around(geometry)
    kernel, dilations = _spread(conv.kernel, geometry)
    return Words(_keras(kernel), geometry.strides, dilations, padding or "valid", around)


def of_transposed(linear: ConvTranspose) -> Words:
    """A transposed convolution; its kernel as (*taps, out, in).

    Keras' 'valid' is all that the kernel reaches. What it lacks at the end, an output padding, a kernel that is longer
    by zeros reaches.
    """
    geometry = linear.geometry
    sizes, spans = geometry.output, _spans(geometry)
    kernel, dilations = _spread(linear.conv.kernel, geometry)
    axes = list(zip(geometry.input, sizes, geometry.strides, spans, geometry.low, strict=True))
    if all(out == size * stride and low == max(0, span - stride) // 2 for out, size, stride, span, low in axes):
        return Words(_keras(kernel), geometry.strides, dilations, "same")
    more, cut = [], []
    for (out, size, stride, span, low), dilation in zip(axes, dilations, strict=True):
        reached = (size - 1) * stride + max(span, stride)
        taps = 0 if low + out <= reached else -(-((low + out) - (size - 1) * stride - span) // dilation)
        reached = (size - 1) * stride + max(span + taps * dilation, stride)
        more.append((0, taps))
        cut.append((low, reached - low - out))
    kernel = np.pad(kernel, [(0, 0), (0, 0), *more])
    return Words(_keras(kernel), geometry.strides, dilations, "valid", cut=tuple(cut) if np.any(cut) else ())


def of_pool(pool: Pool) -> Geometry:
    """The windows of a pooling."""
    return Geometry(pool.layout[1:], pool.strides, pool.low, pool.high, pool.dilations, 1, pool.taps)


def is_of_points(geometry: Geometry) -> bool:
    """Whether each window is the point that it stands for."""
    return {*geometry.taps, *geometry.strides} == {1} and not any((*geometry.low, *geometry.high))


def padding_of(geometry: Geometry) -> str:
    """Keras' word for the pads, or an empty text."""
    axes = list(zip(geometry.input, geometry.output, geometry.strides, _spans(geometry), geometry.low, strict=True))
    if all(low == 0 and out == (size - span) // stride + 1 for size, out, stride, span, low in axes):
        return "valid"
    if all(
        out == -(-size // stride) and low == max(0, (out - 1) * stride + span - size) // 2
        for size, out, stride, span, low in axes
    ):
        return "same"
    return ""


def _causal(geometry: Geometry) -> str:
    (size, *more), (out, *_), (span, *_) = geometry.input, geometry.output, _spans(geometry)
    alike = not more and geometry.low == (span - 1,) and out == (size - 1) // geometry.strides[0] + 1
    return "causal" if alike else ""


def zeros_around(geometry: Geometry) -> Pairs:
    """The pads as zeros before and behind along each axis."""
    return tuple(zip(geometry.low, geometry.high, strict=True))


def _spans(geometry: Geometry) -> tuple[int, ...]:
    """How many positions a window reaches over."""
    return tuple((taps - 1) * step + 1 for taps, step in zip(geometry.taps, geometry.dilations, strict=True))


def _spread(kernel: Array, geometry: Geometry) -> tuple[Array, tuple[int, ...]]:
    """A kernel and its dilations, which are zeros in it where the windows have strides too."""
    if max(geometry.strides) == 1 or max(geometry.dilations) == 1:
        return kernel, geometry.dilations
    spread = np.zeros((*kernel.shape[:2], *_spans(geometry)), kernel.dtype)
    steps: tuple[Any, ...] = (..., *(slice(None, None, step) for step in geometry.dilations))
    spread[steps] = kernel
    return spread, (1,) * len(geometry.dilations)


def _keras(kernel: Array) -> Array:
    return np.ascontiguousarray(np.moveaxis(kernel, (0, 1), (-1, -2)))
