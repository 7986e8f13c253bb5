"""ONNX's operators on images: convolutions, poolings, and what moves values between places."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from leo_frontends import convolutions, lowering
from leo_frontends.convolutions import Filters, Windows
from leo_frontends.graph import Array, Graph, Refused, Tensor, Value, elements, moved
from leo_frontends.lowering import computed, weights
from leo_frontends.onnx.op import Lowering, Op, constant, numbers, require_room
from leo_frontends.onnx.resizing import COORDINATES, ROUNDINGS, nearest


def _blocks(_graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    """DepthToSpace and SpaceToDepth: elements moved between channels and places."""
    block, columns = int(op.attributes["blocksize"]), op.attributes.get("mode", b"DCR") == b"CRD"

    def change(array: Array) -> Array:
        n, c, h, w = array.shape
        if op.kind == "SpaceToDepth":
            parts = array.reshape(n, c, h // block, block, w // block, block)
            return parts.transpose(0, 3, 5, 1, 2, 4).reshape(n, c * block * block, h // block, w // block)
        depth = c // (block * block)
        if columns:
            parts = array.reshape(n, depth, block, block, h, w).transpose(0, 1, 4, 2, 5, 3)
        else:
            parts = array.reshape(n, block, block, depth, h, w).transpose(0, 3, 4, 1, 5, 2)
        return parts.reshape(n, depth, h * block, w * block)

    return moved(inputs[0], change)


def _resize(_graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    """Resize and Upsample, where each new value is one of the old ones."""
    words = {key: value.decode() for key, value in op.attributes.items() if isinstance(value, bytes)}
    if words.get("mode", "nearest") != "nearest":
        raise Refused("it interpolates, which is not read; only the nearest values are")
    policy = words.get("keep_aspect_ratio_policy", "stretch")
    if policy != "stretch":
        raise Refused(f"its policy to keep the aspect ratio, {policy}, is not read; give its sizes")
    old = op.opset < 11  # then its inputs are the tensor and the scales, and places are rounded down
    coordinates = "asymmetric" if old else words.get("coordinate_transformation_mode", "half_pixel")
    rounding = "floor" if old else words.get("nearest_mode", "round_prefer_floor")
    if coordinates not in COORDINATES or rounding not in ROUNDINGS:
        raise Refused(f"its places by {coordinates}, rounded by {rounding}, are not read")
    value, shape = computed(inputs[0]), elements(inputs[0]).shape
    axes = [axis % len(shape) for axis in op.attributes.get("axes") or range(len(shape))]
    for axis, size, scale in zip(axes, *_sizes_and_scales(op, inputs, [shape[axis] for axis in axes]), strict=True):
        if old and scale < 1:
            raise Refused("before opset 11 ONNX does not say which values are left when some are left out")
        if scale != 1:
            index = nearest(shape[axis], size, scale, coordinates, rounding)
            value = Value(value.node, np.take(value.index, index, axis))
    return value


def _sizes_and_scales(op: Op, inputs: Sequence[Any], lengths: Sequence[int]) -> tuple[list[int], list[float]]:
    """Those of the axes that are resized."""
    given = op.given(inputs, 1 if op.opset < 11 else 2, "scales", 9)
    scales = [] if given is None else [float(scale) for scale in np.ravel(constant(given, "its scales are"))]
    sizes = numbers(inputs[3], "its sizes are") if len(inputs) > 3 and inputs[3] is not None else []
    if not scales:
        return sizes or [], [size / length for size, length in zip(sizes or [], lengths, strict=True)]
    if min(scales) <= 0 or len(scales) != len(lengths):
        raise Refused("its scales are not one number above 0 for each axis")
    sizes = [int(np.floor(np.float32(length) * np.float32(s))) for length, s in zip(lengths, scales, strict=True)]
    require_room(math.prod(sizes))
    return sizes, scales


def _conv(graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    kernel = weights(inputs[1], "the kernel")
    bias = weights(inputs[2], "the bias") if len(inputs) > 2 and inputs[2] is not None else None
    value = computed(inputs[0])
    filters = Filters(kernel, bias, int(op.attributes.get("group", 1)))
    windows = _windows(op, value, kernel.shape[2:])
    if op.kind == "Conv":
        return convolutions.convolve(graph, op.origin, value, filters, windows)
    if op.attributes.get("auto_pad", b"NOTSET") != b"NOTSET" or "output_shape" in op.attributes:
        raise Refused("an output shape or automatic pads are not read here; give pads and output_padding")
    beyond = op.attributes.get("output_padding") or [0] * len(windows.taps)
    return convolutions.convolve_transposed(graph, op.origin, value, filters, windows, beyond)


def _windows(op: Op, value: Value, taps: Sequence[int]) -> Windows:
    """Those of a convolution or a pooling, with its automatic pads written out."""
    given = op.attributes
    if given.get("kernel_shape") and tuple(given["kernel_shape"]) != tuple(taps):
        raise Refused(f"its kernel_shape is {given['kernel_shape']}, its kernel {list(taps)}")
    windows = Windows.of(taps, given.get("strides"), given.get("pads"), given.get("dilations"))
    automatic = given.get("auto_pad", b"NOTSET").decode()
    if automatic.startswith("SAME"):
        windows = windows.same(value.index.shape[2:], lower=automatic == "SAME_LOWER")
    elif automatic == "VALID":
        windows = Windows.of(taps, given.get("strides"), None, given.get("dilations"))
    return windows


def _require_sure(windows: Windows, *, same: bool) -> None:
    """Refuse the pads of a pooling that no runtime takes, or that ONNX Runtime takes otherwise than ONNX has them."""
    longer = any(stride > taps for stride, taps in zip(windows.strides, windows.taps, strict=True))
    if same and (longer or max(windows.dilations) > 1):
        raise Refused(
            "it has automatic pads, and dilations or strides longer than its windows: runtimes differ in what they "
            "make of that; give pads"
        )
    pads = [*zip(windows.low, windows.taps, strict=True), *zip(windows.high, windows.taps, strict=True)]
    if any(not 0 <= pad < taps for pad, taps in pads):
        raise Refused("its pads must be from 0 to below the size of its windows")


def _pool(graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    value = computed(inputs[0])
    if op.kind == "MaxPool" and op.outputs > 1:
        raise Refused("its second output, where each maximum lies, is not read")
    exact = _windows(op, value, op.attributes["kernel_shape"])
    _require_sure(exact, same=op.attributes.get("auto_pad", b"").startswith(b"SAME"))
    windows = exact.rounded_up(value.index.shape[2:]) if op.attributes.get("ceil_mode") else exact
    if op.kind == "MaxPool":
        return convolutions.max_pool(graph, op.origin, value, windows)
    within = exact if op.attributes.get("count_include_pad") else None
    return convolutions.average_pool(graph, op.origin, value, windows, within)


def _global_pool(graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    value = computed(inputs[0])
    positions = range(2, value.index.ndim)
    if op.kind == "GlobalMaxPool":
        return lowering.extreme(graph, op.origin, value, positions, keepdims=True)
    return lowering.mean(graph, op.origin, value, positions, keepdims=True)


#: By ONNX operator.
IMAGES: dict[str, Lowering] = {
    "AveragePool": _pool,
    "Conv": _conv,
    "ConvTranspose": _conv,
    "DepthToSpace": _blocks,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "MaxPool": _pool,
    "Resize": _resize,
    "SpaceToDepth": _blocks,
    "Upsample": _resize,
}
