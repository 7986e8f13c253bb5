"""Keras' convolutions and poolings, with all their options.

They work on tensors (batch, channels, *positions) here: channels that come last are brought to the front, and the
result's back behind. That costs no node, and nodes hold images with their channels first either way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from leo_core.network import Origin
from leo_frontends import convolutions, lowering
from leo_frontends.convolutions import Filters, Windows
from leo_frontends.graph import Array, Graph, Refused, Tensor, Value, moved
from leo_frontends.keras.layer import Known, Lowering, known, numbers
from leo_frontends.lowering import computed


def _channels_first(lower: Callable[[Graph, Origin, Any, Value], Tensor]) -> Lowering:
    """A layer that is lowered for channels first, in the format that it has."""

    def apply(graph: Graph, origin: Origin, layer: Any, inputs: Sequence[Tensor]) -> Tensor:
        value = computed(inputs[0])
        if layer.data_format == "channels_first":
            return lower(graph, origin, layer, value)
        result = lower(graph, origin, layer, computed(moved(value, lambda array: np.moveaxis(array, -1, 1))))
        return moved(result, lambda array: np.moveaxis(array, 1, -1))

    return apply


def _kernel(tensor: Any) -> Array:
    """(*taps, in, out) as (out, in, *taps), or (*taps, out, in) as (in, out, *taps)."""
    return np.ascontiguousarray(np.moveaxis(numbers(tensor), (-1, -2), (0, 1)))


def _depthwise_kernel(tensor: Any) -> Array:
    """(*taps, channels, multiplier) as (channels · multiplier, 1, *taps)."""
    kernel = numbers(tensor)
    return _kernel(kernel.reshape(*kernel.shape[:-2], 1, -1))


def _bias(layer: Any) -> Array | None:
    return numbers(layer.bias) if layer.use_bias else None


def _windows(layer: Any, value: Value, taps: Sequence[int], dilations: Sequence[int] | None = None) -> Windows:
    """Where they lie with the pads that the layer's word for them means."""
    windows = Windows.of(taps, layer.strides, None, dilations)
    if layer.padding == "valid":
        return windows
    if layer.padding == "same":
        return windows.same(value.index.shape[2:], lower=False)
    if layer.padding == "causal" and len(taps) == 1:
        return Windows.of(taps, layer.strides, (windows.spans[0] - 1, 0), dilations)
    raise Refused(f"its padding '{layer.padding}' is not read; 'valid' and 'same' are")


def _conv(graph: Graph, origin: Origin, layer: Any, value: Value) -> Tensor:
    windows = _windows(layer, value, layer.kernel_size, layer.dilation_rate)
    return convolutions.convolve(
        graph, origin, value, Filters(_kernel(layer.kernel), _bias(layer), layer.groups), windows
    )


def _depthwise_conv(graph: Graph, origin: Origin, layer: Any, value: Value) -> Tensor:
    windows = _windows(layer, value, layer.kernel_size, layer.dilation_rate)
    kernel, channels = _depthwise_kernel(layer.kernel), value.index.shape[1]
    return convolutions.convolve(graph, origin, value, Filters(kernel, _bias(layer), channels), windows)


def _separable_conv(graph: Graph, origin: Origin, layer: Any, value: Value) -> Tensor:
    windows = _windows(layer, value, layer.kernel_size, layer.dilation_rate)
    kernel, channels = _depthwise_kernel(layer.depthwise_kernel), value.index.shape[1]
    first = Origin(f"{origin.layer}_depthwise", origin.kind)
    each = convolutions.convolve(graph, first, value, Filters(kernel, groups=channels), windows)
    points = Windows.of((1,) * len(windows.taps))
    return convolutions.convolve(graph, origin, each, Filters(_kernel(layer.pointwise_kernel), _bias(layer)), points)


def _conv_transpose(graph: Graph, origin: Origin, layer: Any, value: Value) -> Tensor:
    """Of a result longer than Keras says that it is, half of what is too much is cut off before, the rest behind."""
    windows = Windows.of(layer.kernel_size, layer.strides, None, layer.dilation_rate)
    sizes = value.index.shape[2:]
    last = [(size - 1) * stride for size, stride in zip(sizes, windows.strides, strict=True)]
    wanted = _result_sizes(layer, value)
    much = np.add(last, windows.spans) - wanted
    cut = np.maximum(much, 0)
    low = cut // 2 if layer.padding == "same" else np.zeros_like(cut)
    pads = Windows.of(windows.taps, windows.strides, [*low.tolist(), *(cut - low).tolist()], windows.dilations)
    beyond = np.maximum(-much, 0).tolist()
    return convolutions.convolve_transposed(
        graph, origin, value, Filters(_kernel(layer.kernel), _bias(layer)), pads, beyond
    )


def _result_sizes(layer: Any, value: Value) -> tuple[int, ...]:
    batch, channels, *sizes = value.index.shape
    if layer.data_format == "channels_first":
        return tuple(layer.compute_output_shape((batch, channels, *sizes))[2:])
    return tuple(layer.compute_output_shape((batch, *sizes, channels))[1:-1])


def _max_pool(graph: Graph, origin: Origin, layer: Any, value: Value) -> Tensor:
    return convolutions.max_pool(graph, origin, value, _windows(layer, value, layer.pool_size))


def _average_pool(graph: Graph, origin: Origin, layer: Any, value: Value) -> Tensor:
    windows = _windows(layer, value, layer.pool_size)
    if windows.low != windows.high and keras.backend.backend() == "torch":
        raise Refused(
            "its 'same' pads are not as many before as behind: there Keras repeats the edges on PyTorch, and leaves "
            "the pads out on other backends; pad to whole windows, or run Keras on another backend"
        )
    return convolutions.average_pool(graph, origin, value, windows, None)


def _global_average(graph: Graph, origin: Origin, layer: Any, value: Value) -> Tensor:
    return lowering.mean(graph, origin, value, range(2, value.index.ndim), keepdims=layer.keepdims)


def _global_max(graph: Graph, origin: Origin, layer: Any, value: Value) -> Tensor:
    return lowering.extreme(graph, origin, value, range(2, value.index.ndim), keepdims=layer.keepdims)


def _convolution(lower: Callable[[Graph, Origin, Any, Value], Tensor], options: str) -> Known:
    every = "kernel_size strides padding data_format dilation_rate activation use_bias"
    return known(_channels_first(lower), f"{every} {options}", activated=True, holds=True)


_CONV = _convolution(_conv, "filters groups lora_rank lora_alpha quantization_config")
_TRANSPOSED = _convolution(_conv_transpose, "filters output_padding")
_DEPTHWISE = _convolution(_depthwise_conv, "depth_multiplier")
_SEPARABLE = _convolution(_separable_conv, "filters depth_multiplier")
_MAX, _AVERAGE = (
    known(_channels_first(lower), "pool_size strides padding data_format") for lower in (_max_pool, _average_pool)
)
_GLOBAL_MAX, _GLOBAL_AVERAGE = (
    known(_channels_first(lower), "data_format keepdims") for lower in (_global_max, _global_average)
)

#: By the name of Keras' class.
IMAGES: dict[str, Known] = {
    "AveragePooling1D": _AVERAGE,
    "AveragePooling2D": _AVERAGE,
    "Conv1D": _CONV,
    "Conv1DTranspose": _TRANSPOSED,
    "Conv2D": _CONV,
    "Conv2DTranspose": _TRANSPOSED,
    "DepthwiseConv1D": _DEPTHWISE,
    "DepthwiseConv2D": _DEPTHWISE,
    "GlobalAveragePooling1D": _GLOBAL_AVERAGE,
    "GlobalAveragePooling2D": _GLOBAL_AVERAGE,
    "GlobalAveragePooling3D": _GLOBAL_AVERAGE,
    "GlobalMaxPooling1D": _GLOBAL_MAX,
    "GlobalMaxPooling2D": _GLOBAL_MAX,
    "GlobalMaxPooling3D": _GLOBAL_MAX,
    "MaxPooling1D": _MAX,
    "MaxPooling2D": _MAX,
    "SeparableConv1D": _SEPARABLE,
    "SeparableConv2D": _SEPARABLE,
}
