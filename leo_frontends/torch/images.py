"""ATen's convolutions and poolings: arguments as in :mod:`~leo_frontends.torch.operators`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from leo_core.network import Origin
from leo_frontends import convolutions, lowering
from leo_frontends.convolutions import Filters, Windows
from leo_frontends.graph import Graph, Refused, Tensor
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


#: By name without the overload.
IMAGES: dict[str, Lowering] = {
    "adaptive_avg_pool1d": _adaptive(1, average=True),
    "adaptive_avg_pool2d": _adaptive(2, average=True),
    "_adaptive_avg_pool2d": _adaptive(2, average=True),
    "avg_pool1d": _pool(1, average=True),
    "avg_pool2d": _pool(2, average=True),
    "conv1d": _conv(1),
    "conv2d": _conv(2),
    "conv_transpose1d": _conv_transpose(1),
    "conv_transpose2d": _conv_transpose(2),
    "max_pool1d": _pool(1, average=False),
    "max_pool2d": _pool(2, average=False),
}
