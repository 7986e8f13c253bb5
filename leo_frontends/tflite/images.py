"""TensorFlow Lite's operators on images: convolutions, poolings, and what moves values between places.

Tensors have their channels last; they are brought behind the batch for what is said of channels, and back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from leo_frontends import convolutions
from leo_frontends.convolutions import Filters, Windows
from leo_frontends.graph import Array, Graph, Refused, Tensor, Value, elements, moved
from leo_frontends.lowering import computed, weights
from leo_frontends.tflite.op import Lowering, Op, activated, channels_first, channels_last, numbers, require_room

_SAME, _VALID = 0, 1


def _windows(op: Op, taps: Sequence[int], sizes: Sequence[int]) -> Windows:
    """Those of a convolution or a pooling; its two words for pads written out."""
    given = op.options
    strides = [int(given["strideH"]), int(given["strideW"])]
    dilations = [int(given.get("dilationHFactor", 1)), int(given.get("dilationWFactor", 1))]
    windows = Windows.of(taps, strides, None, dilations)
    if given["padding"] not in (_SAME, _VALID):
        raise Refused(f"its padding {given['padding']} is neither SAME nor VALID")
    return windows.same(sizes, lower=False) if given["padding"] == _SAME else windows


def _bias(inputs: Sequence[Any], at: int, size: int) -> Array | None:
    if len(inputs) <= at or inputs[at] is None:
        return None
    bias = weights(inputs[at], "the bias")
    if bias.shape != (size,):
        raise Refused(f"its bias is of shape {bias.shape}, for {size} channels")
    return bias


def _kernel(inputs: Sequence[Any], at: int = 1) -> Array:
    kernel = weights(inputs[at], "the kernel")
    if kernel.ndim != 4:
        raise Refused(f"its kernel has {kernel.ndim} axes, not four")
    if not kernel.size:
        raise Refused("its kernel is empty")
    return kernel


def _conv(graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    """A kernel (out, height, width, in/groups)."""
    value = channels_first(computed(inputs[0]))
    kernel = np.ascontiguousarray(np.moveaxis(_kernel(inputs), -1, 1))
    groups, rest = divmod(value.index.shape[1], kernel.shape[1])
    if rest or not groups:
        raise Refused(f"its kernel is for {kernel.shape[1]} channels, its input has {value.index.shape[1]}")
    windows = _windows(op, kernel.shape[2:], value.index.shape[2:])
    bias = _bias(inputs, 2, len(kernel))
    return channels_last(convolutions.convolve(graph, op.origin, value, Filters(kernel, bias, groups), windows))


def _depthwise(graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    """A kernel (1, height, width, channels · multiplier)."""
    value, stored = channels_first(computed(inputs[0])), _kernel(inputs)
    channels = value.index.shape[1]
    if len(stored) != 1 or not channels or stored.shape[-1] % channels:
        raise Refused(f"its kernel is of shape {stored.shape}, its input has {channels} channels")
    kernel = np.ascontiguousarray(np.moveaxis(stored, -1, 0))
    windows = _windows(op, kernel.shape[2:], value.index.shape[2:])
    bias = _bias(inputs, 2, len(kernel))
    return channels_last(convolutions.convolve(graph, op.origin, value, Filters(kernel, bias, channels), windows))


def _transposed(graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    """A kernel (out, height, width, in) whose result has the shape that is given first.

    What is too much is cut off as the pads of a convolution of the result would lie.
    """
    shape, value = numbers(inputs[0], "its output shape is"), channels_first(computed(inputs[2]))
    stored = _kernel(inputs)
    if len(shape) != 4 or min(shape) < 1 or shape[-1] != len(stored) or shape[0] != len(value.index):
        raise Refused(f"its output shape {shape} does not fit its kernel {stored.shape} and input")
    require_room(math.prod(shape))
    kernel = np.ascontiguousarray(stored.transpose(3, 0, 1, 2))
    sizes = shape[1:3]
    ahead = _windows(op, kernel.shape[2:], sizes)
    last = [(size - 1) * stride for size, stride in zip(value.index.shape[2:], ahead.strides, strict=True)]
    much = np.add(last, ahead.spans) - sizes
    low = np.array(ahead.low)
    if (low > np.maximum(much, 0)).any():
        raise Refused(f"its output shape {shape} is not one that its strides and padding lead to")
    windows = Windows.of(ahead.taps, ahead.strides, [*low.tolist(), *np.maximum(much - low, 0).tolist()])
    beyond = np.maximum(-much, 0).tolist()
    bias = _bias(inputs, 3, len(stored))
    result = convolutions.convolve_transposed(graph, op.origin, value, Filters(kernel, bias), windows, beyond)
    return channels_last(result)


def _pool(graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    """Pads are never the largest, and are not counted."""
    value = channels_first(computed(inputs[0]))
    windows = _windows(op, [int(op.options["filterHeight"]), int(op.options["filterWidth"])], value.index.shape[2:])
    require_room(math.prod(windows.taps))
    if op.kind == "MAX_POOL_2D":
        return channels_last(convolutions.max_pool(graph, op.origin, value, windows))
    return channels_last(convolutions.average_pool(graph, op.origin, value, windows, None))


def _blocks(_graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    """DEPTH_TO_SPACE and SPACE_TO_DEPTH: elements moved between channels and places."""
    block = int(op.options["blockSize"])
    if block < 1 or len(elements(inputs[0]).shape) != 4:
        raise Refused("its block size or its input's shape does not fit")

    def change(array: Array) -> Array:
        n, h, w, c = array.shape
        if op.kind == "SPACE_TO_DEPTH":
            parts = array.reshape(n, h // block, block, w // block, block, c)
            return parts.transpose(0, 1, 3, 2, 4, 5).reshape(n, h // block, w // block, block * block * c)
        parts = array.reshape(n, h, w, block, block, c // (block * block))
        return parts.transpose(0, 1, 3, 2, 4, 5).reshape(n, h * block, w * block, c // (block * block))

    return moved(inputs[0], change)


def _nearest(_graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    """RESIZE_NEAREST_NEIGHBOR: which old place each new one takes, in the interpreter's own float32."""
    sizes, value = numbers(inputs[1], "its sizes are"), computed(inputs[0])
    if value.index.ndim != 4 or len(sizes) != 2 or min(sizes) < 1:
        raise Refused("its sizes do not fit its input")
    require_room(math.prod(sizes) * value.index.shape[0] * value.index.shape[-1])
    aligned, halves = bool(op.options["alignCorners"]), bool(op.options["halfPixelCenters"])
    for axis, size in enumerate(sizes, 1):
        value = Value(value.node, np.take(value.index, _places(value.index.shape[axis], size, aligned, halves), axis))
    return value


def _places(length: int, size: int, aligned: bool, halves: bool) -> Array:
    scale = (
        np.float32(length - 1) / np.float32(size - 1) if aligned and size > 1 else np.float32(length) / np.float32(size)
    )
    offset = np.float32(0.5 if halves else 0.0)
    places = (np.arange(size, dtype=np.float32) + offset) * scale
    at = np.floor(places)
    if aligned:  # a half goes up; what is a little less does not, where adding a half would round it
        at += places - at >= np.float32(0.5)
    found: Array = np.clip(at.astype(np.int64), 0, length - 1)
    return found


#: By kind, what makes nodes of it.
IMAGES: dict[str, Lowering] = {
    "AVERAGE_POOL_2D": activated(_pool),
    "CONV_2D": activated(_conv),
    "DEPTHWISE_CONV_2D": activated(_depthwise),
    "DEPTH_TO_SPACE": _blocks,
    "MAX_POOL_2D": activated(_pool),
    "RESIZE_NEAREST_NEIGHBOR": _nearest,
    "SPACE_TO_DEPTH": _blocks,
    "TRANSPOSE_CONV": activated(_transposed),
}
