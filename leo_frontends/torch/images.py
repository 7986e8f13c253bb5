"""ATen's convolutions and poolings: arguments as in :mod:`~leo_frontends.torch.operators`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leo_core.network import Origin
from leo_frontends import convolutions, lowering
from leo_frontends.convolutions import Filters, Windows
from leo_frontends.graph import Graph, Refused, Tensor, Value
from leo_frontends.lowering import computed, weights

Arguments = dict[str, Any]
Lowering = Callable[[Graph, Origin, Arguments], Tensor]


def _each(numbers: Any, axes: int, default: Sequence[int] = ()) -> tuple[int, ...]:
    """One number for each axis: a list of them, one for all, or ``default`` where there are none."""
    given = [numbers] if isinstance(numbers, int) else list(numbers or default)
    return tuple(given * axes if len(given) == 1 else given)


def _bias(given: Arguments) -> Any:
    return None if given.get("bias") is None else weights(given["bias"], "the bias")


def _conv(axes: int) -> Lowering:
    def apply(graph: Graph, origin: Origin, given: Arguments) -> Tensor:
        value, kernel = computed(given["input"]), weights(given["weight"], "the kernel")
        strides, dilations = (_each(given.get(name, 1), axes) for name in ("stride", "dilation"))
        padding = given.get("padding", 0)
        if isinstance(padding, str):
            windows = Windows.of(kernel.shape[2:], strides, None, dilations)
            if padding == "same":
                windows = windows.same(value.index.shape[2:], lower=False)
        else:
            windows = Windows.of(kernel.shape[2:], strides, 2 * _each(padding, axes), dilations)
        filters = Filters(kernel, _bias(given), given.get("groups", 1))
        return convolutions.convolve(graph, origin, value, filters, windows)

    return apply


def _conv_transpose(axes: int) -> Lowering:
    def apply(graph: Graph, origin: Origin, given: Arguments) -> Tensor:
        value, kernel = computed(given["input"]), weights(given["weight"], "the kernel")
        strides, dilations = (_each(given.get(name, 1), axes) for name in ("stride", "dilation"))
        windows = Windows.of(kernel.shape[2:], strides, 2 * _each(given.get("padding", 0), axes), dilations)
        beyond = _each(given.get("output_padding", 0), axes)
        filters = Filters(kernel, _bias(given), given.get("groups", 1))
        return convolutions.convolve_transposed(graph, origin, value, filters, windows, beyond)

    return apply


def _pool(axes: int, *, average: bool) -> Lowering:
    def apply(graph: Graph, origin: Origin, given: Arguments) -> Tensor:
        value, taps = computed(given["self"]), _each(given["kernel_size"], axes)
        if given.get("divisor_override") is not None:
            raise Refused("it divides by a number of its own, which is not read; multiply by a constant behind it")
        strides, dilations = _each(given.get("stride"), axes, taps), _each(given.get("dilation", 1), axes)
        exact = Windows.of(taps, strides, 2 * _each(given.get("padding", 0), axes), dilations)
        windows = exact.rounded_up(value.index.shape[2:]) if given.get("ceil_mode") else exact
        if not average:
            return convolutions.max_pool(graph, origin, value, windows)
        within = exact if given.get("count_include_pad", True) else None
        return convolutions.average_pool(graph, origin, value, windows, within)

    return apply


def _adaptive(axes: int, *, average: bool) -> Lowering:
    """To a given number of windows, where they are all of one size and do not overlap."""

    def apply(graph: Graph, origin: Origin, given: Arguments) -> Tensor:
        value = computed(given["self"])
        if value.index.ndim != axes + 2:
            raise Refused(f"its input has {value.index.ndim} axes; {axes + 2} are read")
        sizes = value.index.shape[2:]
        asked = _each(given["output_size"], axes)
        wanted = [size if new is None else new for size, new in zip(sizes, asked, strict=True)]
        if all(new == 1 for new in wanted):
            positions = range(2, axes + 2)
            if average:
                return lowering.mean(graph, origin, value, positions, keepdims=True)
            return lowering.extreme(graph, origin, value, positions, keepdims=True)
        if any(not new or size % new for size, new in zip(sizes, wanted, strict=True)):
            raise Refused(f"it makes {wanted} of {list(sizes)} positions, in windows that differ, which is not read")
        taps = [size // new for size, new in zip(sizes, wanted, strict=True)]
        windows = Windows.of(taps, taps)
        if average:
            return convolutions.average_pool(graph, origin, value, windows, None)
        return convolutions.max_pool(graph, origin, value, windows)

    return apply


def _enlarged(axes: int, *, exact: bool) -> Lowering:
    """Each new value is the nearest old one: its place in float32, rounded down, as PyTorch computes it.

    ``exact``: the nearest to the middle of a new value, not to its beginning.
    """

    def apply(_graph: Graph, _origin: Origin, given: Arguments) -> Tensor:
        value = computed(given["self"] if "self" in given else given["input"])
        factors: Sequence[float | None] = given.get("scale_factors") or [
            given.get(name) for name in (["scales"] if axes == 1 else ["scales_h", "scales_w"])
        ]
        sizes = value.index.shape[2:]
        if len(sizes) != axes:
            raise Refused(f"its input has {value.index.ndim} axes; {axes + 2} are read")
        wanted = given.get("output_size")
        index = value.index
        for axis, (size, factor) in enumerate(zip(sizes, factors, strict=True)):
            new = int(size * factor) if wanted is None else int(wanted[axis])
            step = np.float32(1 / factor) if factor else np.float32(size) / np.float32(new)
            place = np.arange(new, dtype=np.float32) + np.float32(0.5 if exact else 0.0)
            old = np.minimum(np.floor(place * step).astype(np.int64), size - 1)
            if not exact and new in (size, 2 * size) and (old != np.arange(new) * size // new).any():
                # on the CPU PyTorch forgets the factor where a size stays the same or doubles
                raise Refused(
                    f"it makes {new} of {size} values by the factor {factor}: devices differ in which; give its size"
                )
            index = np.take(index, old, axis + 2)
        return Value(value.node, index)

    return apply


def shuffled(index: NDArray[Any], given: Arguments) -> NDArray[Any]:
    """Channels (1 of the axes) of each group dealt out in turn."""
    groups = given["groups"]
    parted = index.reshape(index.shape[0], groups, index.shape[1] // groups, *index.shape[2:])
    return parted.swapaxes(1, 2).reshape(index.shape)


def blocks_to_places(index: NDArray[Any], given: Arguments) -> NDArray[Any]:
    """``pixel_shuffle``: (…, channels · r², height, width) → (…, channels, height · r, width · r)."""
    r, (*before, channels, height, width) = given["upscale_factor"], index.shape
    parted = index.reshape(*before, channels // (r * r), r, r, height, width)
    moved = np.moveaxis(parted, (-4, -3), (-3, -1))
    return moved.reshape(*before, channels // (r * r), height * r, width * r)


def places_to_blocks(index: NDArray[Any], given: Arguments) -> NDArray[Any]:
    """``pixel_unshuffle``: the way back."""
    r, (*before, channels, height, width) = given["downscale_factor"], index.shape
    parted = index.reshape(*before, channels, height // r, r, width // r, r)
    moved = np.moveaxis(parted, (-3, -1), (-4, -3))
    return moved.reshape(*before, channels * r * r, height // r, width // r)


#: By name without the overload.
IMAGES: dict[str, Lowering] = {
    "_upsample_nearest_exact1d": _enlarged(1, exact=True),
    "_upsample_nearest_exact2d": _enlarged(2, exact=True),
    "adaptive_avg_pool1d": _adaptive(1, average=True),
    "adaptive_avg_pool2d": _adaptive(2, average=True),
    "_adaptive_avg_pool2d": _adaptive(2, average=True),
    "adaptive_max_pool1d": _adaptive(1, average=False),
    "adaptive_max_pool2d": _adaptive(2, average=False),
    "avg_pool1d": _pool(1, average=True),
    "avg_pool2d": _pool(2, average=True),
    "conv1d": _conv(1),
    "conv2d": _conv(2),
    "conv_transpose1d": _conv_transpose(1),
    "conv_transpose2d": _conv_transpose(2),
    "max_pool1d": _pool(1, average=False),
    "max_pool2d": _pool(2, average=False),
    "max_pool2d_with_indices": _pool(2, average=False),
    "upsample_nearest1d": _enlarged(1, exact=False),
    "upsample_nearest2d": _enlarged(2, exact=False),
}
