"""How each operator of TensorFlow Lite becomes affine and ReLU nodes, or why it cannot."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from leo_core.network import Origin
from leo_frontends import lowering
from leo_frontends.graph import Array, Graph, Refused, Tensor, Value, elements, moved
from leo_frontends.lowering import computed, weights
from leo_frontends.tflite.images import IMAGES
from leo_frontends.tflite.op import ENDS, Lowering, Op, activated, clip, constant, numbers, require_room


def _fully_connected(graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    """A matrix (out, in) applied to values in rows of ``in``, whatever axes they had."""
    matrix = weights(inputs[1], "the matrix")
    if int(op.options.get("weightsFormat", 0)):
        raise Refused("its matrix is stored shuffled, which is not read")
    value, size = computed(inputs[0]), matrix.shape[-1]
    if matrix.ndim != 2 or not size or value.index.size % size:
        raise Refused(f"its matrix is of shape {matrix.shape}, its input {value.index.shape}")
    shape = value.index.shape
    if op.options.get("keepNumDims"):
        if not shape or shape[-1] != size:
            raise Refused(f"its matrix takes {size} values, its input's last axis has {shape[-1:]}")
        kept = (*shape[:-1], len(matrix))
    else:
        kept = (value.index.size // size, len(matrix))
    bias = np.zeros(len(matrix), matrix.dtype)
    if len(inputs) > 2 and inputs[2] is not None:
        bias = weights(inputs[2], "the bias")
        if bias.size != len(matrix):
            raise Refused(f"its bias has {bias.size} numbers, its matrix {len(matrix)} rows")
    flat = Value(value.node, value.index.reshape(-1, size))
    result = lowering.dense(graph, op.origin, flat, matrix, bias.ravel())
    return Value(result.node, result.index.reshape(kept))


def _batch_matmul(graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    sides = [
        moved(tensor, lambda array: array.swapaxes(-1, -2)) if op.options.get(flag) else tensor
        for tensor, flag in zip(inputs, ("adjX", "adjY"), strict=True)
    ]
    return lowering.matmul(graph, op.origin, *sides)


def _add(graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    left, right = inputs
    return lowering.add(graph, op.origin, left, right, (1.0, -1.0 if op.kind == "SUB" else 1.0))


def _add_all(graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    result = inputs[0]
    for other in inputs[1:]:
        result = lowering.add(graph, op.origin, result, other)
    return result  # type: ignore[no-any-return]


def _multiply(graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    return lowering.multiply(graph, op.origin, *inputs)


def _divide(graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    return lowering.divide(graph, op.origin, *inputs)


def _larger(graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    left, right = inputs
    sign = 1.0 if op.kind == "MAXIMUM" else -1.0
    value, ends = (left, right) if isinstance(left, Value) else (right, left)
    if isinstance(value, Value) and isinstance(ends, np.ndarray) and (sign * ends <= -_LARGEST).any():
        partly = _partly(graph, op.origin, value, ends, sign)
        if partly is not None:
            return partly
    return lowering.maximum(graph, op.origin, left, right, sign)


#: No number of float32 is above.
_LARGEST = float(np.finfo(np.float32).max)


def _partly(graph: Graph, origin: Origin, value: Value, ends: Array, sign: float) -> Tensor | None:
    """The larger of computed values and ends that are none for some channels, the last axis: ReLUs for the others only.

    max(x, c) = x + relu(c − x); with ``sign`` −1, min(x, c) = x − relu(x − c). None where channels are not alike.
    """
    shape = value.index.shape
    if np.broadcast_shapes(shape, ends.shape) != shape:
        return None
    spread = np.broadcast_to(ends, shape)
    rows = (sign * spread <= -_LARGEST).reshape(-1, shape[-1])
    if (rows != rows[:1]).any():
        return None
    chosen = np.flatnonzero(~rows[0])
    if not len(chosen):
        return value
    part = Value(value.node, value.index[..., chosen])
    above = graph.scaled(origin, part, np.full((), -sign, np.float32), np.float32(sign) * spread[..., chosen])
    lifted = lowering.relu(graph, origin, above)
    graph.added += part.index.size
    places = np.arange(value.index.size).reshape(shape)[..., chosen]
    whole = lowering.replaced(graph, origin, np.zeros(shape, np.float32), places, lifted)
    return lowering.add(graph, origin, value, whole, (1.0, sign))


def _negative(graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    return lowering.multiply(graph, op.origin, inputs[0], np.full((), -1.0, np.float32))


def _absolute(graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    return lowering.absolute(graph, op.origin, computed(inputs[0]))


def _clip(graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    return clip(graph, op.origin, inputs[0], op.kind)


def _leaky(graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    if op.kind == "PRELU":
        return lowering.relu(graph, op.origin, computed(inputs[0]), weights(inputs[1], "the slope"))
    return lowering.relu(graph, op.origin, computed(inputs[0]), float(op.options["alpha"]))


def _tail(graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    """A function that may stay outside at the end; a softmax is along the last axis."""
    if op.kind == "SOFTMAX" and op.options["beta"] != 1:
        raise Refused(f"its beta is {op.options['beta']:g}; a softmax with a beta of 1 is read")
    return graph.cut(TAILS[op.kind], computed(inputs[0]), -1)


def _reduce(graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    axes, keepdims = numbers(inputs[1], "its axes are"), bool(op.options["keepDims"])
    ndim = len(elements(inputs[0]).shape)
    if any(not -ndim <= axis < ndim for axis in axes):
        raise Refused(f"its axes {axes} are not all among {ndim}")
    if not axes:
        return inputs[0]  # type: ignore[no-any-return]
    if op.kind == "REDUCE_PROD":
        if isinstance(inputs[0], Value):
            raise Refused("it multiplies computed values")
        return np.asarray(np.prod(inputs[0], tuple({axis % ndim for axis in axes}), keepdims=keepdims))
    if op.kind in ("REDUCE_MAX", "REDUCE_MIN"):
        sign = 1.0 if op.kind == "REDUCE_MAX" else -1.0
        origin = op.origin
        if sign > 0 and ndim in (3, 4) and {axis % ndim for axis in axes} == {*range(1, ndim - 1)}:
            origin = Origin(origin.layer, "GLOBAL_MAX_POOL")  # by which writers know it
        return lowering.extreme(graph, origin, inputs[0], axes, sign=sign, keepdims=keepdims)
    step = lowering.mean if op.kind == "MEAN" else lowering.total
    return step(graph, op.origin, inputs[0], axes, keepdims=keepdims)


def _concatenate(graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    return lowering.concatenate(graph, op.origin, inputs, int(op.options["axis"]))


def _pack(graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    axis = int(op.options["axis"])
    parts = [moved(tensor, lambda array: np.expand_dims(array, axis)) for tensor in inputs]
    return lowering.concatenate(graph, op.origin, parts, axis)


def _unpack(_graph: Graph, op: Op, inputs: list[Any]) -> list[Tensor]:
    tensor, axis = inputs[0], int(op.options["axis"])
    count = elements(tensor).shape[axis]
    if count != op.outputs:
        raise Refused(f"it has {op.outputs} outputs for {count} parts")
    return [moved(tensor, lambda array, part=part: np.take(array, part, axis)) for part in range(count)]  # type: ignore[misc]


def _split(_graph: Graph, op: Op, inputs: list[Any]) -> list[Tensor]:
    if op.kind == "SPLIT":
        (axis,), tensor = numbers(inputs[0], "its axis is"), inputs[1]
        length = elements(tensor).shape[axis]
        sizes = [length // op.outputs] * op.outputs
    else:
        tensor, (axis,) = inputs[0], numbers(inputs[2], "its axis is")
        length, sizes = elements(tensor).shape[axis], numbers(inputs[1], "its sizes are")
        if sizes.count(-1) == 1:
            sizes[sizes.index(-1)] = length - sum(size for size in sizes if size != -1)
    if sum(sizes) != length or min(sizes) < 0 or len(sizes) != op.outputs:
        raise Refused(f"it splits {length} into {op.outputs} parts of {sizes}")
    ends = np.cumsum(sizes)[:-1]
    return [
        moved(tensor, lambda array, part=part: np.split(array, ends, axis)[part])  # type: ignore[misc]
        for part in range(op.outputs)
    ]


def _reshape(_graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    given = inputs[1] if len(inputs) > 1 and inputs[1] is not None else op.options.get("newShape")
    target = [] if given is None else numbers(np.asarray(given, np.int32) if isinstance(given, int | list) else given,
                                              "its shape is")  # fmt: skip
    return _shaped(inputs[0], target)


def _shaped(tensor: Tensor, target: Sequence[int]) -> Tensor:
    shape = elements(tensor).shape
    try:
        return moved(tensor, lambda array: array.reshape(target))
    except ValueError:
        raise Refused(f"{shape} cannot take the shape {tuple(target)}") from None


def _squeeze(_graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    given = op.options.get("squeezeDims")
    axes = tuple(int(axis) for axis in given) if given is not None and len(given) else None
    return moved(inputs[0], lambda array: np.squeeze(array, axes))


def _expand(_graph: Graph, _op: Op, inputs: list[Any]) -> Tensor:
    (axis,) = numbers(inputs[1], "its axis is")
    return moved(inputs[0], lambda array: np.expand_dims(array, axis))


def _transpose(_graph: Graph, _op: Op, inputs: list[Any]) -> Tensor:
    order = numbers(inputs[1], "its order of axes is")
    return moved(inputs[0], lambda array: array.transpose(order))


def _pad(graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    """Around each axis: a constant, or elements of the tensor itself."""
    tensor, widths = inputs[0], constant(inputs[1], "its widths are")
    ndim = len(elements(tensor).shape)
    if widths.shape != (ndim, 2) or widths.dtype.kind not in "iu" or (widths < 0).any():
        raise Refused(f"its widths, of shape {widths.shape}, do not fit")
    lengths = [int(length + low + high) for length, (low, high) in zip(elements(tensor).shape, widths, strict=True)]
    require_room(math.prod(lengths))
    if op.kind == "MIRROR_PAD":
        how: Any = "symmetric" if int(op.options["mode"]) else "reflect"
        around = [(int(low), int(high)) for low, high in widths]
        return moved(tensor, lambda array: np.pad(array, around, how))
    value = float(constant(inputs[2], "its value is").reshape(())) if op.kind == "PADV2" else 0.0
    for axis, (low, high) in enumerate(widths):
        if low or high:
            tensor = lowering.padded(graph, op.origin, tensor, axis, (int(low), int(high)), value)
    return tensor  # type: ignore[no-any-return]


def _slice(graph: Graph, _op: Op, inputs: list[Any]) -> Tensor:
    begins, sizes = numbers(inputs[1], "its begin is"), numbers(inputs[2], "its size is")
    lengths = elements(inputs[0]).shape
    if not len(begins) == len(sizes) == len(lengths):
        raise Refused("its begin and size are not one number for each axis")
    tensor = inputs[0]
    for axis, (begin, size, length) in enumerate(zip(begins, sizes, lengths, strict=True)):
        end = length if size == -1 else begin + size
        if not 0 <= begin <= end <= length:
            raise Refused(f"it takes {begin} to {end} of {length}")
        tensor = _cut(graph, tensor, axis, slice(begin, None if size == -1 else end))
    return tensor  # type: ignore[no-any-return]


def _cut(graph: Graph, tensor: Any, axis: int, part: slice) -> Any:
    if isinstance(tensor, Value):
        return graph.sliced(tensor, axis, part)
    return np.moveaxis(np.moveaxis(tensor, axis, 0)[part], 0, axis)


def _strided(graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    begins, ends, strides = (numbers(tensor, "its ends are") for tensor in inputs[1:4])
    if op.options["ellipsisMask"] or op.options["newAxisMask"] or op.options.get("offset"):
        raise Refused("its slice with an ellipsis, a new axis or an offset is not read")
    tensor = inputs[0]
    if not len(begins) == len(ends) == len(strides) <= len(elements(tensor).shape):
        raise Refused("its ends are not as many for each axis")
    dropped = []
    for axis, (begin, end, stride) in enumerate(zip(begins, ends, strides, strict=True)):
        length = elements(tensor).shape[axis]
        if op.options["shrinkAxisMask"] >> axis & 1:
            if stride != 1:
                raise Refused(f"it takes one of an axis by steps of {stride}")
            begin = 0 if op.options["beginMask"] >> axis & 1 else begin
            at = begin + length if begin < 0 else begin
            if not 0 <= at < length:
                raise Refused(f"it takes {begin} of {length}")
            tensor = _cut(graph, tensor, axis, slice(at, at + 1))
            dropped.append(axis)
            continue
        if not stride:
            raise Refused("its step is 0")
        first = None if op.options["beginMask"] >> axis & 1 else begin
        last = None if op.options["endMask"] >> axis & 1 else end
        tensor = _cut(graph, tensor, axis, _part(first, last, stride, length))
    return moved(tensor, lambda array: array.reshape([d for a, d in enumerate(array.shape) if a not in dropped]))


def _part(begin: int | None, end: int | None, stride: int, length: int) -> slice:
    """Ends below minus the length, going backwards, are the beginning; Python would count them from the end again."""
    if stride < 0 and end is not None and end < -length:
        end = None
    if stride < 0 and begin is not None and begin < -length:
        return slice(0, 0)
    return slice(begin, end, stride)


def _gather(_graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    if int(op.options.get("batchDims", 0)):
        raise Refused("batch_dims is not read")
    indices, axis = constant(inputs[1], "its indices are"), int(op.options["axis"])
    shape = elements(inputs[0]).shape
    if indices.dtype.kind not in "iu" or (indices < 0).any() or (indices >= shape[axis]).any():
        raise Refused("its indices are not all places along its axis")
    require_room(indices.size * math.prod(shape) // max(1, shape[axis]))
    return moved(inputs[0], lambda array: np.take(array, indices, axis))


def _tile(_graph: Graph, _op: Op, inputs: list[Any]) -> Tensor:
    times = numbers(inputs[1], "its multiples are")
    if min(times, default=1) < 1 or len(times) != len(elements(inputs[0]).shape):
        raise Refused(f"its multiples {times} do not fit")
    require_room(math.prod(times) * elements(inputs[0]).size)
    return moved(inputs[0], lambda array: np.tile(array, times))


def _broadcast(_graph: Graph, _op: Op, inputs: list[Any]) -> Tensor:
    target = tuple(numbers(inputs[1], "its shape is"))
    require_room(math.prod(target))
    return moved(inputs[0], lambda array: np.broadcast_to(array, target))


def _reverse(_graph: Graph, _op: Op, inputs: list[Any]) -> Tensor:
    axes = tuple(numbers(inputs[1], "its axes are"))
    return moved(inputs[0], lambda array: np.flip(array, axes))


def _shape(_graph: Graph, _op: Op, inputs: list[Any]) -> Tensor:
    """Numbers, the batch size among them as it is in this reading."""
    return np.array(elements(inputs[0]).shape, np.int32)


def _cast(_graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    to = {0: "float32", 2: "int32", 4: "int64"}.get(int(op.options.get("outDataType", 0)))
    if isinstance(inputs[0], Value):
        if to != "float32":
            raise Refused("it casts to a type that is no float, which rounds: that has no affine + ReLU form")
        return inputs[0]
    if to is None:
        raise Refused("it casts a constant to a type that is not read")
    return np.asarray(inputs[0]).astype(to)


def _dequantise(_graph: Graph, _op: Op, inputs: list[Any]) -> Tensor:
    """Weights stored in float16 are the numbers that they are."""
    array = constant(inputs[0], "what it widens is")
    if array.dtype != np.float16:
        raise Refused("what it widens is not of type float16")
    return array.astype(np.float32)


def _fill(_graph: Graph, _op: Op, inputs: list[Any]) -> Tensor:
    shape, value = numbers(inputs[0], "its shape is"), constant(inputs[1], "its value is")
    require_room(math.prod(shape))
    return np.full(shape, value.reshape(()))


#: The name of each function that may stay outside at the end.
TAILS = {"LOGISTIC": "sigmoid", "LOG_SOFTMAX": "log_softmax", "SOFTMAX": "softmax", "TANH": "tanh"}

#: By kind, what makes nodes of it.
LOWERINGS: dict[str, Lowering] = {
    **IMAGES,
    **dict.fromkeys(ENDS, _clip),
    "ABS": _absolute,
    "ADD": activated(_add),
    "ADD_N": _add_all,
    "BATCH_MATMUL": _batch_matmul,
    "BROADCAST_TO": _broadcast,
    "CAST": _cast,
    "CONCATENATION": activated(_concatenate),
    "DEQUANTIZE": _dequantise,
    "DIV": activated(_divide),
    "EXPAND_DIMS": _expand,
    "FILL": _fill,
    "FULLY_CONNECTED": activated(_fully_connected),
    "GATHER": _gather,
    "LEAKY_RELU": _leaky,
    "LOGISTIC": _tail,
    "LOG_SOFTMAX": _tail,
    "MAXIMUM": _larger,
    "MEAN": _reduce,
    "MINIMUM": _larger,
    "MIRROR_PAD": _pad,
    "MUL": activated(_multiply),
    "NEG": _negative,
    "PACK": _pack,
    "PAD": _pad,
    "PADV2": _pad,
    "PRELU": _leaky,
    "REDUCE_MAX": _reduce,
    "REDUCE_MIN": _reduce,
    "REDUCE_PROD": _reduce,
    "RESHAPE": _reshape,
    "REVERSE_V2": _reverse,
    "SHAPE": _shape,
    "SLICE": _slice,
    "SOFTMAX": _tail,
    "SPLIT": _split,
    "SPLIT_V": _split,
    "SQUEEZE": _squeeze,
    "STRIDED_SLICE": _strided,
    "SUB": activated(_add),
    "SUM": _reduce,
    "TANH": _tail,
    "TILE": _tile,
    "TRANSPOSE": _transpose,
    "UNPACK": _unpack,
}

#: What is computed of constants as NumPy computes it: shapes, mostly.
FOLDED: dict[str, Callable[..., Any]] = {
    "ADD": np.add,
    "MUL": np.multiply,
    "SUB": np.subtract,
    "MAXIMUM": np.maximum,
    "MINIMUM": np.minimum,
}
