"""Nodes of convolutional graphs: each function adds one layer to a :class:`~door_cases.onnx_draw.Draw`.

The sizes that they make are worked out by ONNX's own formulas, one size at a time, and not by LEO's windows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from door_cases import onnx_ops as ops
from door_cases.onnx_draw import Draw, Shape, Unfit

#: One example of the input: channels and positions.
SHAPES = [(1, 5, 5), (2, 4, 4), (3, 3, 4), (1, 4, 6), (4, 3, 3), (2, 7), (1, 9), (4, 4), (2, 1, 5), (1, 2, 3, 3)]


def images(draw: Draw) -> tuple[str, Shape]:
    """A tensor that may have channels and positions."""
    name, shape = draw.some(3, 4, 5) if draw.chance(0.03) else draw.some(3, 4)
    if shape[1] is None:
        raise Unfit
    return name, shape


def _windows(draw: Draw, sizes: Sequence[int], kind: str) -> tuple[dict[str, Any], list[int], list[int]]:
    """(attributes, the kernel's taps, the sizes that are left) for a convolution or a pooling."""
    pool = kind != "Conv"
    taps = [draw.int(1, 3) for _ in sizes]
    strides = [draw.pick([1, 1, 1, 2, 3]) for _ in sizes]
    dilated = draw.opset >= {"Conv": 7, "MaxPool": 10, "AveragePool": 19}[kind]
    dilations = [draw.pick([1, 1, 1, 2]) if dilated else 1 for _ in sizes]
    spans = [(tap - 1) * dilation + 1 for tap, dilation in zip(taps, dilations, strict=True)]
    most = [tap - 1 if pool else 2 for tap in taps]
    low, high = ([draw.int(0, m) if draw.chance(0.6) else 0 for m in most] for _ in range(2))
    auto = draw.pick([None, None, None, None, "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"])
    ceil = int(pool and draw.opset >= 10 and draw.chance(0.3))
    if auto not in (None, "NOTSET"):
        low = high = [0] * len(sizes)
    left = []
    for size, span, stride, before, behind in zip(sizes, spans, strides, low, high, strict=True):
        room = size + before + behind - span
        count = (
            -(-size // stride) if str(auto).startswith("SAME") else (-(-room // stride) if ceil else room // stride) + 1
        )
        if ceil and auto in (None, "NOTSET") and (count - 1) * stride >= size + before:
            count -= 1  # a window that would begin in the pads behind
        if count < 1:
            raise Unfit
        left.append(count)
    attributes: dict[str, Any] = {"auto_pad": auto}
    for name, numbers, default in (
        ("strides", strides, 1),
        ("pads", low + high, 0),
        ("dilations", dilations, 1),
    ):
        if any(number != default for number in numbers) or (
            draw.chance(0.2) and not (name == "dilations" and not dilated)
        ):
            attributes[name] = numbers
    if auto not in (None, "NOTSET"):
        attributes.pop("pads", None)
    if ceil or (pool and draw.opset >= 10 and draw.chance(0.2)):
        attributes["ceil_mode"] = ceil
    return attributes, taps, left


def conv(draw: Draw) -> None:
    name, (batch, channels, *sizes) = images(draw)
    attributes, taps, left = _windows(draw, sizes, "Conv")
    groups = draw.pick([1, 1, *(group for group in (2, 3, 4, channels) if channels % group == 0)])
    out = groups * draw.int(1, max(1, 4 // groups))
    inputs = [name, draw.floats(out, channels // groups, *taps, low=-1.0, high=1.0)]
    inputs += draw.pick([[], [""], [draw.floats(out)], [draw.floats(out)]])
    attributes["group"] = groups if groups > 1 or draw.chance(0.2) else None
    attributes["kernel_shape"] = taps if draw.chance(0.6) else None
    draw.push(draw.emit("Conv", inputs, **attributes), (batch, out, *left))


def conv_transpose(draw: Draw) -> None:
    name, (batch, channels, *sizes) = images(draw)
    each = lambda *items: [draw.pick(items) for _ in sizes]  # noqa: E731
    taps, strides, dilations = each(1, 2, 3), each(1, 1, 2, 3), each(1, 1, 1, 2)
    spans = [(tap - 1) * dilation + 1 for tap, dilation in zip(taps, dilations, strict=True)]
    low, high = each(0, 0, 1), each(0, 0, 1)
    beyond = [draw.int(0, stride - 1) if draw.chance(0.4) else 0 for stride in strides]
    groups = draw.pick([1, 1, channels, *([2] if channels % 2 == 0 else [])])
    out = draw.int(1, 2)
    attributes: dict[str, Any] = {"group": groups} if groups > 1 or draw.chance(0.2) else {}
    kinds = (
        ("strides", strides, 1),
        ("pads", low + high, 0),
        ("dilations", dilations, 1),
        ("output_padding", beyond, 0),
    )
    for key, numbers, default in kinds:
        if any(number != default for number in numbers) or draw.chance(0.2):
            attributes[key] = numbers
    left = [
        stride * (size - 1) + extra + span - before - behind
        for size, stride, extra, span, before, behind in zip(sizes, strides, beyond, spans, low, high, strict=True)
    ]
    if draw.chance(0.15):
        attributes.pop("pads", None)
        way = draw.pick(["VALID", "SAME_UPPER", "SAME_LOWER", "output_shape"])
        if way == "output_shape":
            attributes["output_shape"] = left
        else:
            attributes["auto_pad"] = way
            left = (
                [size * stride for size, stride in zip(sizes, strides, strict=True)]
                if way != "VALID"
                else [size + before + behind for size, before, behind in zip(left, low, high, strict=True)]
            )
    if min(left) < 1:
        raise Unfit
    inputs = [name, draw.floats(channels, out, *taps, low=-1.0, high=1.0)]
    inputs += draw.pick([[], [draw.floats(out * groups)]])
    attributes["kernel_shape"] = taps if draw.chance(0.6) else None
    draw.push(draw.emit("ConvTranspose", inputs, **attributes), (batch, out * groups, *left))


def pool(draw: Draw) -> None:
    name, (batch, channels, *sizes) = images(draw)
    kind = draw.pick(["MaxPool", "AveragePool"])
    attributes, taps, left = _windows(draw, sizes, kind)
    if kind == "AveragePool":
        attributes["count_include_pad"] = draw.pick([None, 0, 1])
    elif draw.opset >= 8:
        attributes["storage_order"] = draw.pick([None, None, 0, 1])
    outputs = 2 if kind == "MaxPool" and draw.opset >= 8 and draw.chance(0.05) else 1
    made = draw.emit(kind, [name], outputs, kernel_shape=taps, **attributes)
    draw.push(made if outputs == 1 else made[0], (batch, channels, *left))


def global_pool(draw: Draw) -> None:
    name, (batch, channels, *sizes) = images(draw)
    made = draw.emit(draw.pick(["GlobalAveragePool", "GlobalMaxPool"]), [name])
    draw.push(made, (batch, channels, *(1 for _ in sizes)))


def _same(draw: Draw, name: str, shape: Shape, out: int) -> str:
    """A convolution that keeps the positions."""
    pads = [1] * (2 * (len(shape) - 2))
    kernel = draw.floats(out, shape[1], *(3 for _ in shape[2:]), low=-0.5, high=0.5)
    return str(draw.emit("Conv", [name, kernel, *([draw.floats(out)] if draw.chance(0.5) else [])], pads=pads))


def _normed(draw: Draw, name: str, channels: int) -> str:
    given = [draw.floats(channels) for _ in range(3)] + [draw.stored(draw.numbers(channels, low=0.3, high=2.0))]
    return str(draw.emit("BatchNormalization", [name, *given], epsilon=draw.pick([None, 1e-3])))


def residual(draw: Draw) -> None:
    """Convolution, batch norm, ReLU, convolution, batch norm, and what went in added."""
    name, shape = images(draw)
    width = draw.int(1, 3)
    at = _same(draw, name, shape, width)
    at = draw.emit("Relu", [_normed(draw, at, width) if draw.chance(0.6) else at])
    at = _same(draw, at, (shape[0], width, *shape[2:]), shape[1])
    at = _normed(draw, at, shape[1]) if draw.chance(0.6) else at
    pair = draw.pick([[at, name], [name, at]])
    draw.push(draw.emit("Relu", [draw.emit(draw.pick(["Add", "Sum", "Sub"]), pair)]), shape)


def pooled_and_added(draw: Draw) -> None:
    """One number of each channel added to all its positions."""
    name, shape = images(draw)
    pooled = draw.emit(draw.pick(["GlobalAveragePool", "GlobalMaxPool"]), [name])
    draw.same(draw.pick(["Add", "Sub"]), name, shape, pooled)


def several_readers(draw: Draw) -> None:
    """Branches of one tensor, side by side along the channels."""
    name, shape = images(draw)
    widths = [draw.int(1, 2) for _ in range(draw.int(2, 3))]
    joined = draw.emit("Concat", [_same(draw, name, shape, width) for width in widths], axis=1)
    draw.push(joined, (shape[0], sum(widths), *shape[2:]))


def shared_kernel(draw: Draw) -> None:
    """One kernel used by two convolutions, one after the other."""
    name, shape = images(draw)
    kernel = draw.floats(shape[1], shape[1], *(3 for _ in shape[2:]), low=-0.5, high=0.5)
    for _ in range(2):
        name = draw.emit("Conv", [name, kernel], auto_pad="SAME_UPPER")
    draw.push(name, shape)


def concatenated_relu(draw: Draw) -> None:
    name, shape = images(draw)
    joined = draw.emit("Concat", [name, draw.emit("Neg", [name])], axis=1)
    draw.push(draw.emit("Relu", [joined]), (shape[0], 2 * shape[1], *shape[2:]))


def shuffle(draw: Draw) -> None:
    name, (batch, channels, *sizes) = images(draw)
    groups = draw.pick([group for group in range(1, channels + 1) if channels % group == 0])
    free = 0 if batch is None else batch
    apart = draw.emit("Reshape", [name, draw.ints([free, groups, channels // groups, *sizes])])
    turned = draw.emit("Transpose", [apart], perm=[0, 2, 1, *range(3, 3 + len(sizes))])
    draw.push(draw.emit("Reshape", [turned, draw.ints([free, channels, *sizes])]), (batch, channels, *sizes))


def by_channel(draw: Draw) -> None:
    """A constant, or a slope, for each channel; rarely one for each example too."""
    name, shape = images(draw)
    rows = [shape[0]] if shape[0] not in (None, 1) and draw.chance(0.3) else draw.pick([[], [1]])
    constant = draw.floats(*rows, shape[1], *(1 for _ in shape[2:]), low=0.0, high=0.9)
    draw.same(draw.pick(["Mul", "Mul", "Add", "PRelu"]), name, shape, constant)


def axes_turned(draw: Draw) -> None:
    """Channels last, or the batch among the channels, with a factor for some axis, and back."""
    name, shape = images(draw)
    order = [int(axis) for axis in draw.rng.permutation(len(shape))]
    if draw.chance(0.6):
        order = [0, *range(2, len(shape)), 1]
    sizes = [shape[axis] for axis in order]
    at = int(draw.rng.integers(len(sizes)))
    factor = draw.stored(draw.numbers(*(size if i == at and size else 1 for i, size in enumerate(sizes))))
    scaled = draw.emit("Mul", [draw.emit("Transpose", [name], perm=order), factor])
    back = draw.emit("Transpose", [scaled], perm=[int(axis) for axis in np.argsort(order)])
    draw.push(back, shape)


def pads_around(draw: Draw) -> None:
    name, shape = images(draw)
    around = [[draw.int(-1, 2) for _ in shape[2:]] for _ in range(2)]
    pads = [0, 0, *around[0], 0, 0, *around[1]]
    left = [size + low + high for size, low, high in zip(shape[2:], *around, strict=True)]
    if min(left) < 1 or any(low < 0 and -low >= size for size, low in zip(shape[2:], around[0], strict=True)):
        raise Unfit
    inputs = [name]
    made = draw.emit("Pad", inputs, **draw.since(11, "pads", pads, inputs))
    draw.push(made, (*shape[:2], *left))


def resize(draw: Draw) -> None:
    """Positions taken again or left out; some ways of interpolation that must be refused."""
    name, (batch, channels, *sizes) = images(draw)
    if draw.opset < 7:
        raise Unfit
    scales = [draw.pick([2.0, 2.0, 1.0, 3.0, 1.5, 0.5, 0.7, 1.3]) for _ in sizes]
    left = [math.floor(np.float32(size) * np.float32(scale)) for size, scale in zip(sizes, scales, strict=True)]
    whole = [1.0, 1.0, *scales]
    mode = draw.pick(["nearest", "nearest", "nearest", "nearest", "linear"])
    if min(left) < 1:
        raise Unfit
    if draw.opset <= 9:
        if min(scales) < 1:
            raise Unfit
        attributes: dict[str, Any] = {} if mode == "nearest" and draw.chance(0.5) else {"mode": mode}
        if draw.opset < 9:
            made = draw.emit("Upsample", [name], scales=whole, **attributes)
        else:
            made = draw.emit("Upsample", [name, draw.stored(np.float32(whole))], **attributes)
        draw.push(made, (batch, channels, *left))
        return
    if draw.opset == 10:
        made = draw.emit("Resize", [name, draw.stored(np.float32(whole))], mode=mode)
        draw.push(made, (batch, channels, *left))
        return
    ways = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "asymmetric", None]
    ways += ["half_pixel_symmetric"] if draw.opset >= 19 else ["tf_half_pixel_for_nn"] if draw.opset < 13 else []
    attributes = {
        "mode": None if mode == "nearest" and draw.chance(0.3) else mode,
        "coordinate_transformation_mode": draw.pick(ways),
        "nearest_mode": draw.pick([None, "round_prefer_floor", "round_prefer_ceil", "floor", "floor", "ceil"]),
    }
    roi = draw.stored(np.float32([])) if draw.opset < 13 else ""
    if draw.opset >= 18 and draw.chance(0.4):
        attributes["axes"] = [2 + at - draw.pick([0, len(sizes) + 2]) for at in range(len(sizes))]
        whole = scales
    if draw.chance(0.5):
        inputs = [name, roi, draw.stored(np.float32(whole))]
    elif "axes" in attributes or batch is not None:
        left = [size if scale == 1 else draw.int(1, 2 * size) for size, scale in zip(sizes, scales, strict=True)]
        given = left if "axes" in attributes else [batch, channels, *left]
        nothing = draw.stored(np.float32([])) if draw.opset < 13 else ""
        inputs = [name, roi, nothing, draw.ints(given)]
        if draw.opset >= 18 and draw.chance(0.1):
            attributes["keep_aspect_ratio_policy"] = "stretch"
    else:
        raise Unfit
    draw.push(draw.emit("Resize", inputs, **attributes), (batch, channels, *left))


def head(draw: Draw) -> None:
    """One vector of the images, and a matrix behind it."""
    name, shape = images(draw)
    way = draw.pick(["Flatten", "Reshape", "GlobalAveragePool", "ReduceMean", "ReduceMax"])
    width = math.prod(shape[1:])
    if way == "Flatten":
        at = draw.emit(way, [name])
    elif way == "Reshape":
        at = draw.emit(way, [name, draw.ints([-1, width] if shape[0] is None or draw.chance(0.5) else [shape[0], -1])])
    else:
        width = shape[1]
        if way == "GlobalAveragePool":
            inputs = [draw.emit(way, [name])]
            attributes = draw.since(13, "axes", list(range(2, len(shape))), inputs)
            at = draw.emit("Squeeze", inputs, **attributes)
        else:
            inputs = [name]
            axes = list(range(2, len(shape)))
            at = draw.emit(way, inputs, keepdims=0, **draw.since(18, "axes", axes, inputs))
    out = draw.int(1, 5)
    draw.push(draw.emit("Gemm", [at, draw.floats(width, out), draw.floats(out)]), (shape[0], out))


#: With how often each is drawn; ``head`` ends most graphs besides.
IMAGES = {
    conv: 10,
    conv_transpose: 3,
    pool: 6,
    global_pool: 0.5,
    residual: 2,
    pooled_and_added: 1,
    several_readers: 1,
    shared_kernel: 0.7,
    concatenated_relu: 1,
    shuffle: 1,
    by_channel: 2,
    axes_turned: 1,
    pads_around: 1.5,
    resize: 4,
    ops.activation: 5,
    ops.clip: 1,
    ops.batch_norm: 3,
    ops.two_values: 1,
    ops.arithmetic: 1,
    ops.slice_: 1,
    ops.split: 1,
    ops.concat: 1,
    ops.transpose: 0.7,
    ops.reduce: 0.7,
    ops.nothing: 0.7,
    ops.blocks: 0.7,
    ops.gather: 0.7,
    ops.reshape: 0.3,
}
