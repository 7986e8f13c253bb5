"""Nodes of ordinary graphs: each function adds one layer to a :class:`~door_cases.onnx_draw.Draw`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from door_cases.onnx_draw import Draw, Unfit


def gemm(draw: Draw) -> None:
    name, (rows, width) = draw.some(2)
    out, turned = draw.int(1, 6), draw.chance(0.5)
    inputs = [name, draw.floats(*((out, width) if turned else (width, out)))]
    if draw.opset >= 11 and draw.chance(0.2):
        pass
    elif draw.chance(0.15) and draw.opset >= 7 and any(v[1] == (rows, out) for v in draw.values):
        inputs.append(draw.pick([v for v in draw.values if v[1] == (rows, out)])[0])
    else:
        inputs.append(draw.floats(*draw.pick([(out,), (1, out), (), (1,)])))
    attributes: dict[str, Any] = {"transB": int(turned)} if turned or draw.chance(0.5) else {}
    if draw.chance(0.2):
        attributes |= {"alpha": draw.pick([0.5, 0.3, -1.0]), "beta": draw.pick([2.0, 0.7, 1.0])}
    if rows == 1 and draw.chance(0.3) and draw.lead == 0:
        inputs[0] = draw.emit("Transpose", [name])
        attributes["transA"] = 1
    draw.push(draw.emit("Gemm", inputs, **attributes), (rows, out))


def gemm_on_the_left(draw: Draw) -> None:
    name, (rows, width) = draw.some(2)
    out = draw.int(1, 5)
    made = draw.emit("Gemm", [draw.floats(out, width), name, draw.floats(out, 1)], transB=1)
    draw.push(draw.emit("Transpose", [made], perm=[1, 0]), (rows, out))


def matmul(draw: Draw) -> None:
    name, shape = draw.some()
    if not shape:
        raise Unfit
    out = draw.int(1, 6)
    if len(shape) > draw.lead + 1 and draw.chance(0.15):  # a matrix for each
        draw.push(draw.emit("MatMul", [name, draw.floats(*shape[1:-2], shape[-1], out)]), (*shape[:-1], out))
    elif draw.chance(0.12):
        draw.push(draw.emit("MatMul", [name, draw.floats(shape[-1])]), shape[:-1])
    else:
        draw.push(draw.emit("MatMul", [name, draw.floats(shape[-1], out)]), (*shape[:-1], out))


def matmul_on_the_left(draw: Draw) -> None:
    name, shape = draw.some()
    out = draw.int(1, 5)
    if len(shape) >= draw.lead + 2:
        draw.push(draw.emit("MatMul", [draw.floats(out, shape[-2]), name]), (*shape[:-2], out, shape[-1]))
    elif len(shape) == 1 and draw.lead == 0:
        draw.push(draw.emit("MatMul", [draw.floats(out, shape[0]), name]), (out,))
    elif len(shape) == 2:
        turned = draw.emit("Transpose", [name], perm=[1, 0])
        made = draw.emit("MatMul", [draw.floats(out, shape[1]), turned])
        draw.push(draw.emit("Transpose", [made]), (shape[0], out))
    else:
        raise Unfit


def _constant_for(draw: Draw, shape: Any, low: float = -2.0, high: float = 2.0) -> str:
    own = list(shape[draw.lead :])
    ways = [(), tuple(own), (1,), tuple(d if draw.chance(0.5) else 1 for d in own), tuple(own[-1:]), (1, *own)]
    way = draw.pick(ways)
    if len(way) > len(shape):
        way = tuple(own)
    return draw.floats(*way, low=low, high=high)


def arithmetic(draw: Draw) -> None:
    name, shape = draw.some()
    kind = draw.pick(["Add", "Sub", "Mul", "Div", "Add", "Mul"])
    if kind == "Div":
        other = draw.stored(draw.numbers(*([shape[-1]] if shape and shape[-1] else []), low=0.5, high=3.0))
    else:
        other = _constant_for(draw, shape)
    turn = kind != "Div" and draw.chance(0.3)
    draw.same(kind, other if turn else name, shape, name if turn else other)


def two_values(draw: Draw) -> None:
    (name, shape), (other, second) = draw.some(), draw.some()
    kind = draw.pick(["Add", "Sub", "Sum", "Mean", "Max", "Min"])
    if draw.opset < 8 and kind in ("Sum", "Mean", "Max", "Min") and shape != second:
        raise Unfit
    inputs = [name, other]
    if kind in ("Sum", "Mean", "Max", "Min"):
        if draw.chance(0.3) and draw.opset >= 8:
            inputs.insert(draw.int(0, 2), _constant_for(draw, shape))
        if draw.chance(0.1):
            inputs = [name]
            second = shape
    whole = tuple(1 if d is None else d for d in shape), tuple(1 if d is None else d for d in second)
    try:
        met = np.broadcast_shapes(*whole)
    except ValueError:
        raise Unfit from None
    if shape[:1] == (None,) or second[:1] == (None,):
        if len(shape) != len(second) and None in (*shape[:1], *second[:1]):
            raise Unfit
        met = (None, *met[1:])
    draw.push(draw.emit(kind, inputs), met)


def activation(draw: Draw) -> None:
    name, shape = draw.some()
    kind = draw.pick(["Relu", "Relu", "Relu", "LeakyRelu", "PRelu", "Abs", "Neg", "HardSigmoid", "ThresholdedRelu"])
    if kind == "LeakyRelu":
        draw.same(kind, name, shape, alpha=draw.pick([None, 0.1, 0.25, 0.0, 1.0, 1.5, -0.5]))
    elif kind == "PRelu":
        low, high = draw.pick([(0.0, 0.9), (0.0, 0.9), (-1.0, 2.0)])
        own = shape[draw.lead :]
        way = draw.pick([tuple(own), tuple(own[-1:]), (1,), (own[0],) + (1,) * (len(own) - 1) if own else (1,)])
        draw.same(kind, name, shape, draw.floats(*way, low=low, high=high))
    elif kind == "HardSigmoid":
        if draw.chance(0.5):
            draw.same(kind, name, shape)
        else:
            draw.same(kind, name, shape, alpha=draw.pick([1 / 6, 0.25]), beta=draw.pick([0.5, 0.0, 0.3]))
    elif kind == "ThresholdedRelu":
        if draw.opset < 10:
            raise Unfit
        draw.same(kind, name, shape, alpha=draw.pick([0.0, 0.0, 0.0, 0.5]))
    else:
        draw.same(kind, name, shape)


def clip(draw: Draw) -> None:
    name, shape = draw.some()
    low, high = draw.pick(
        [
            (0.0, 6.0),
            (-0.5, 0.75),
            (None, 0.5),
            (-1.0, None),
            (0.3, 1.1),
            (1.0, 1.0),
            (2.0, -1.0),
            (0.0, 3.4028234663852886e38),
            (-3.4028234663852886e38, 1.0),
        ]
    )
    if draw.dtype == np.float16 and 1e38 in (high or 0, -(low or 0)):
        raise Unfit
    if draw.opset < 11:
        draw.same("Clip", name, shape, min=low, max=high)
    else:
        given = ["" if end is None else draw.stored(np.array(end, draw.dtype)) for end in (low, high)]
        while given and not given[-1]:
            given.pop()
        draw.same("Clip", name, shape, *given)


def batch_norm(draw: Draw) -> None:
    name, shape = draw.some()
    if len(shape) < 2 or shape[1] is None:
        raise Unfit
    width = shape[1]
    statistics = [draw.floats(width), draw.floats(width), draw.floats(width)]
    statistics.append(draw.stored(draw.numbers(width, low=0.1, high=3.0)))
    attributes: dict[str, Any] = {"epsilon": draw.pick([None, 1e-3, 0.5]), "momentum": draw.pick([None, 0.5])}
    if draw.opset < 9 and draw.chance(0.3):
        attributes["spatial"] = 1
    if draw.opset >= 14 and draw.chance(0.3):
        attributes["training_mode"] = 0
    draw.same("BatchNormalization", name, shape, *statistics, **attributes)


def flatten(draw: Draw) -> None:
    name, shape = draw.some()
    if not shape:
        raise Unfit
    axis = 1 if draw.lead else draw.int(0, len(shape))
    given = None if axis == 1 and draw.chance(0.5) else axis
    if given is not None and draw.opset >= 11 and axis < len(shape) and draw.chance(0.3):
        given = axis - len(shape)
    rows = shape[0] if axis == 1 else int(math.prod(shape[:axis]))
    draw.push(draw.emit("Flatten", [name], axis=given), (rows, math.prod(shape[axis:])))


def reshape(draw: Draw) -> None:
    name, shape = draw.some()
    own = shape[draw.lead :]
    size = math.prod(own)
    if draw.lead == 0 and draw.chance(0.3):
        target = draw.pick([(size,), (1, size), (size, 1)])
    else:
        cuts = [d for d in range(1, size + 1) if size % d == 0]
        first = draw.pick(cuts)
        target = draw.pick([(size,), (first, size // first), (first, 1, size // first)])
        target = (*shape[: draw.lead], *target)
    free = [d is None for d in target]
    if draw.chance(0.25) and draw.opset >= 10 and shape[:1] == (None,):  # from the shape itself, as exporters write it
        first_dim = draw.emit("Shape", [name])
        if draw.chance(0.5):
            part = [first_dim, draw.stored(np.array([0])), draw.stored(np.array([1]))]
            number = draw.emit("Slice", part)
        else:
            scalar = draw.emit("Gather", [first_dim, draw.stored(np.array(0))], axis=0)
            inputs = [scalar]
            number = draw.emit("Unsqueeze", inputs, **draw.since(13, "axes", [0], inputs))
        rest = list(target[1:])
        if draw.chance(0.5) and len(rest) > 0:
            rest[draw.int(0, len(rest) - 1)] = -1
        wanted = draw.emit("Concat", [number, draw.ints(rest)], axis=0)
        draw.push(draw.emit("Reshape", [name, wanted]), target)
        return
    given = [0 if d is None else d for d in target]
    attributes: dict[str, Any] = {}
    if any(free):
        if draw.chance(0.5):
            given[0] = -1
    elif draw.chance(0.5):
        given[draw.int(0, len(given) - 1)] = -1
    if draw.opset >= 14 and draw.chance(0.4):
        if 0 in given:
            given = [-1 if d == 0 else d for d in given]
        if given.count(-1) <= 1:
            attributes["allowzero"] = 1
    if draw.opset < 5:
        draw.push(draw.emit("Reshape", [name], shape=given), target)
    else:
        draw.push(draw.emit("Reshape", [name, draw.ints(given)], **attributes), target)


def transpose(draw: Draw) -> None:
    name, shape = draw.some()
    if len(shape) < draw.lead + 2:
        raise Unfit
    order = [*range(draw.lead), *(draw.lead + int(i) for i in draw.rng.permutation(len(shape) - draw.lead))]
    draw.push(draw.emit("Transpose", [name], perm=order), tuple(shape[i] for i in order))


def the_batch_moved_and_back(draw: Draw) -> None:
    name, shape = draw.some(2, 3)
    order = [int(i) for i in draw.rng.permutation(len(shape))]
    moved = draw.emit(draw.pick(["Relu", "Identity", "Neg"]), [draw.emit("Transpose", [name], perm=order)])
    draw.push(draw.emit("Transpose", [moved], perm=[int(i) for i in np.argsort(order)]), shape)


def the_batch_joined_and_back(draw: Draw) -> None:
    name, shape = draw.some(3)
    rows = draw.emit("Reshape", [name, draw.ints([-1, shape[2]])])
    out = draw.int(1, 4)
    made = draw.emit("Relu", [draw.emit("MatMul", [rows, draw.floats(shape[2], out)])])
    draw.push(draw.emit("Reshape", [made, draw.ints([-1, shape[1], out])]), (shape[0], shape[1], out))


def squeeze(draw: Draw) -> None:
    name, shape = draw.some()
    ones = [axis for axis in range(draw.lead, len(shape)) if shape[axis] == 1]
    if not ones:
        raise Unfit
    if draw.chance(0.25):  # without axes: all that are 1
        gone = [axis for axis, d in enumerate(shape) if d == 1]
        made, left = draw.emit("Squeeze", [name]), tuple(d for i, d in enumerate(shape) if i not in gone)
    else:
        gone = [axis for axis in ones if draw.chance(0.7)] or ones[:1]
        inputs = [name]
        attributes = draw.since(13, "axes", [draw.signed(a, len(shape)) for a in gone], inputs)
        made, left = draw.emit("Squeeze", inputs, **attributes), tuple(d for i, d in enumerate(shape) if i not in gone)
    draw.push(made, left)


def unsqueeze(draw: Draw) -> None:
    name, shape = draw.some()
    if len(shape) > 3:
        raise Unfit
    rank = len(shape) + 1 + draw.chance(0.2)
    where = sorted({int(a) for a in draw.rng.choice(range(draw.lead, rank), rank - len(shape), replace=False)})
    inputs = [name]
    attributes = draw.since(13, "axes", [draw.signed(a, rank) for a in where], inputs)
    left = list(shape)
    for axis in where:
        left.insert(axis, 1)
    draw.push(draw.emit("Unsqueeze", inputs, **attributes), tuple(left))


def gather(draw: Draw) -> None:
    name, shape = draw.some()
    axis = draw.axis(shape)
    indices = draw.rng.integers(
        -shape[axis] if draw.opset >= 11 else 0, shape[axis], draw.pick([(), (1,), (3,), (2, 2)])
    )
    given = draw.ints(indices.astype(np.int64))
    attributes = {"axis": draw.signed(axis, len(shape))} if axis or draw.chance(0.5) else {}
    draw.push(draw.emit("Gather", [name, given], **attributes), (*shape[:axis], *indices.shape, *shape[axis + 1 :]))


def slice_(draw: Draw) -> None:
    name, shape = draw.some()
    axis = draw.axis(shape)
    width = shape[axis]
    step = draw.pick([1, 1, 1, 2, -1, -2]) if draw.opset >= 10 else 1
    start, end = (
        draw.int(-width - 1, width),
        draw.pick([draw.int(-width - 1, width + 2), 2**31 - 1, -(2**31) + 1, 2**62]),
    )
    count = len(range(width)[start:end:step])
    if count == 0:
        raise Unfit
    inputs = [name]
    attributes: dict[str, Any] = {}
    items: list[tuple[str, Any]] = [("starts", [start]), ("ends", [end])]
    if axis or draw.chance(0.5) or step != 1:
        items.append(("axes", [draw.signed(axis, len(shape), 10)]))
    if step != 1 or (draw.opset >= 10 and len(items) == 3 and draw.chance(0.3)):
        items.append(("steps", [step]))
    for key, value in items:
        attributes |= draw.since(10, key, value, inputs)
    draw.push(draw.emit("Slice", inputs, **attributes), (*shape[:axis], count, *shape[axis + 1 :]))


def concat(draw: Draw) -> None:
    name, shape = draw.some()
    axis = draw.axis(shape)
    others = [
        v
        for v in draw.values
        if len(v[1]) == len(shape) and v[1][:axis] == shape[:axis] and v[1][axis + 1 :] == shape[axis + 1 :]
    ]
    chosen = [draw.pick(others) for _ in range(draw.int(1, 2))]
    names, width = [name, *(o[0] for o in chosen)], shape[axis] + sum(o[1][axis] for o in chosen)
    if draw.chance(0.2) and None not in shape:
        names.insert(draw.int(0, len(names)), draw.floats(*shape[:axis], 2, *shape[axis + 1 :]))
        width += 2
    made = draw.emit("Concat", names, axis=draw.signed(axis, len(shape)))
    draw.push(made, (*shape[:axis], width, *shape[axis + 1 :]))


def split(draw: Draw) -> None:
    name, shape = draw.some()
    axis = draw.axis(shape)
    width = shape[axis]
    if width < 2:
        raise Unfit
    inputs, attributes = [name], {"axis": draw.signed(axis, len(shape)) if axis or draw.chance(0.5) else None}
    if draw.opset >= 18 and draw.chance(0.5):
        parts = draw.int(2, width)
        size = -(-width // parts)
        sizes = [size] * (parts - 1) + [width - size * (parts - 1)]
        if min(sizes) < 1:
            raise Unfit
        attributes["num_outputs"] = parts
    elif width % 2 == 0 and draw.chance(0.4) and draw.opset < 18:
        sizes = [width // 2] * 2
    else:
        first = draw.int(1, width - 1)
        sizes = [first, width - first]
        attributes |= draw.since(13, "split", sizes, inputs)
    for part, size in zip(draw.emit("Split", inputs, len(sizes), **attributes), sizes, strict=True):
        draw.push(part, (*shape[:axis], size, *shape[axis + 1 :]))


def expand(draw: Draw) -> None:
    name, shape = draw.some()
    if draw.opset < 8:
        raise Unfit
    target = [1 if d is None else draw.int(1, 3) if d == 1 and i >= draw.lead else d for i, d in enumerate(shape)]
    if draw.chance(0.3):
        target = [1 if d == e else e for d, e in zip(shape, target, strict=True)]
    if draw.chance(0.2) and draw.lead == 0:
        target = [2, *target]
    whole = np.broadcast_shapes(tuple(target), tuple(1 if d is None else d for d in shape))
    if shape[:1] == (None,):
        whole = (None, *whole[1:])
    draw.push(draw.emit("Expand", [name, draw.ints(target)]), whole)


def tile(draw: Draw) -> None:
    name, shape = draw.some()
    if draw.opset < 6 or not shape:
        raise Unfit
    repeats = [1 if i < draw.lead else draw.int(1, 2) for i in range(len(shape))]
    whole = tuple(d if r == 1 else d * r for d, r in zip(shape, repeats, strict=True))
    draw.push(draw.emit("Tile", [name, draw.ints(repeats)]), whole)


def pad(draw: Draw) -> None:
    name, shape = draw.some()
    axis = draw.axis(shape)
    low, high = draw.int(-1, 2), draw.int(0, 2)
    mode = draw.pick(["constant", "constant", "constant", "edge", "reflect"])
    width = shape[axis] + low + high
    if width < 1 or (mode != "constant" and (low < 0 or (mode == "reflect" and max(low, high) >= shape[axis]))):
        raise Unfit
    pads = [0] * (2 * len(shape))
    pads[axis], pads[axis + len(shape)] = low, high
    value = draw.pick([None, 0.0, 1.5])
    attributes: dict[str, Any] = {"mode": None if mode == "constant" and draw.chance(0.5) else mode}
    inputs = [name]
    if draw.opset < 11:
        attributes |= {"pads": pads, "value": value}
    else:
        inputs.append(draw.ints(pads))
        if draw.opset >= 18 and draw.chance(0.3):
            inputs[1] = draw.ints([low, high])
            inputs += ["" if value is None else draw.stored(np.array(value, draw.dtype)), draw.ints([axis])]
        elif value is not None:
            inputs.append(draw.stored(np.array(value, draw.dtype)))
    draw.push(draw.emit("Pad", inputs, **attributes), (*shape[:axis], width, *shape[axis + 1 :]))


def reduce(draw: Draw) -> None:
    name, shape = draw.some()
    kind = draw.pick(["ReduceMean", "ReduceSum", "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1"])
    free = list(range(draw.lead, len(shape)))
    if not free:
        raise Unfit
    axes = [axis for axis in free if draw.chance(0.5)] or [draw.pick(free)]
    keep = draw.chance(0.5)
    inputs = [name]
    attributes: dict[str, Any] = {"keepdims": int(keep)} if not keep or draw.chance(0.5) else {}
    since = 13 if kind == "ReduceSum" else {"ReduceMax": 18, "ReduceMin": 18}.get(kind, 18)
    attributes |= draw.since(since, "axes", [draw.signed(a, len(shape)) for a in axes], inputs)
    if draw.opset >= since and draw.chance(0.2):
        attributes["noop_with_empty_axes"] = 1
        if draw.chance(0.4):
            draw.same(kind, name, shape, noop_with_empty_axes=1)
            return
    left = (
        [1 if i in axes else d for i, d in enumerate(shape)]
        if keep
        else [d for i, d in enumerate(shape) if i not in axes]
    )
    draw.push(draw.emit(kind, inputs, **attributes), tuple(left))


def where(draw: Draw) -> None:
    if draw.opset < 9:
        raise Unfit
    name, shape = draw.some()
    own = tuple(shape[draw.lead :])
    mask = draw.stored(draw.rng.random(own) < 0.5)
    fitting = [v[0] for v in draw.values if v[1] == shape]
    other = draw.pick(fitting) if draw.chance(0.5) else _constant_for(draw, shape)
    pair = [name, other] if draw.chance(0.5) else [other, name]
    draw.same("Where", mask, shape, *pair)


def nothing(draw: Draw) -> None:
    name, shape = draw.some()
    kind = draw.pick(["Identity", "Dropout", "Cast", "Pow", "twice", "CastLike"])
    if kind == "Dropout":
        if draw.opset >= 12:
            more = draw.pick([[], [draw.stored(np.float32(0.5))]])
            if draw.opset >= 12 and draw.chance(0.2):
                more = ["", draw.stored(np.array(False))]
            made = draw.emit("Dropout", [name, *more], outputs=draw.pick([1, 2]))
        else:
            made = draw.emit("Dropout", [name], outputs=draw.pick([1, 2]), ratio=draw.pick([None, 0.5]))
        draw.push(made if isinstance(made, str) else made[0], shape)
    elif kind == "Cast":
        draw.same(kind, name, shape, to=draw.kind)
    elif kind == "CastLike":
        if draw.opset < 15:
            raise Unfit
        draw.same(kind, name, shape, draw.plain(2))
    elif kind == "Pow":
        draw.same(kind, name, shape, draw.stored(np.array(1.0, draw.dtype)))
    elif kind == "twice":
        there = draw.pick([11, 11, 1, 10] + ([16] if draw.opset >= 13 else []))
        draw.push(draw.emit("Cast", [draw.emit("Cast", [name], to=there)], to=draw.kind), shape)
    else:
        draw.same(kind, name, shape)


def blocks(draw: Draw) -> None:
    name, shape = draw.some(4)
    if draw.lead == 0 or draw.opset < 1:
        raise Unfit
    n, c, h, w = shape
    if c % 4 == 0:
        mode = draw.pick([None, "CRD"]) if draw.opset >= 11 else None
        draw.push(draw.emit("DepthToSpace", [name], blocksize=2, mode=mode), (n, c // 4, h * 2, w * 2))
    elif h % 2 == 0 and w % 2 == 0:
        draw.push(draw.emit("SpaceToDepth", [name], blocksize=2), (n, c * 4, h // 2, w // 2))
    else:
        raise Unfit


def chosen_elements(draw: Draw) -> None:
    name, shape = draw.some(2, 3)
    if draw.opset < 11 or None not in shape:
        raise Unfit
    if draw.chance(0.5):
        axis = draw.axis(shape)
        mask = np.arange(shape[axis]) % 2 == 0
        made = draw.emit("Compress", [name, draw.stored(mask)], axis=axis)
        draw.push(made, (*shape[:axis], int(mask.sum()), *shape[axis + 1 :]))
    else:
        if len(shape) != 3 or shape[1] != shape[2]:
            raise Unfit
        if draw.opset < 14:
            raise Unfit
        draw.same("Trilu", name, shape, upper=draw.int(0, 1))


def scaler(draw: Draw) -> None:
    name, (rows, width) = draw.some(2)
    if draw.dtype != np.float32:
        raise Unfit
    draw.domains["ai.onnx.ml"] = draw.pick([1, 3])
    numbers = [[float(np.float32(v)) for v in draw.numbers(draw.pick([1, width]))] for _ in range(2)]
    draw.push(draw.emit("Scaler", [name], domain="ai.onnx.ml", offset=numbers[0], scale=numbers[1]), (rows, width))


#: With how often each is drawn.
OPS = {
    gemm: 5,
    gemm_on_the_left: 1,
    matmul: 4,
    matmul_on_the_left: 2,
    arithmetic: 5,
    two_values: 3,
    activation: 6,
    clip: 2,
    batch_norm: 2,
    flatten: 2,
    reshape: 3,
    transpose: 2,
    the_batch_moved_and_back: 1,
    the_batch_joined_and_back: 1,
    squeeze: 1,
    unsqueeze: 1,
    gather: 2,
    slice_: 2,
    concat: 2,
    split: 2,
    expand: 1,
    tile: 1,
    pad: 1,
    reduce: 2,
    where: 1,
    nothing: 3,
    blocks: 1,
    chosen_elements: 0.7,
    scaler: 0.5,
}
