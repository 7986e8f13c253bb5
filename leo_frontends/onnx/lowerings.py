"""How each ONNX operator becomes affine and ReLU nodes, or why it cannot; by the rules of its opset, 7 or later."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from leo_frontends import lowering
from leo_frontends.graph import Array, Graph, Refused, Tensor, Value, elements, moved
from leo_frontends.lowering import EPS, computed, weights
from leo_frontends.onnx.images import IMAGES
from leo_frontends.onnx.op import Lowering, Op, constant, numbers, require_room


def _identity(_graph: Graph, _op: Op, inputs: list[Any]) -> Tensor:
    return inputs[0]  # type: ignore[no-any-return]


def _cast(_graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    if op.attributes.get("to") not in (1, 10, 11, 16):
        raise Refused("it casts to a type that is no float, which rounds: that has no affine + ReLU form")
    return inputs[0]  # type: ignore[no-any-return]


def _cast_like(graph: Graph, _op: Op, inputs: list[Any]) -> Tensor:
    if not isinstance(inputs[1], Value) and inputs[1].dtype != graph.dtype:
        raise Refused("it casts to the type of a constant, and to another than the input's; use Cast")
    return inputs[0]  # type: ignore[no-any-return]


def _dropout(_graph: Graph, op: Op, inputs: list[Any]) -> Tensor | list[Any]:
    training = constant(inputs[2], "whether it is in training mode is") if len(inputs) > 2 else None
    if op.opset >= 12 and training is not None and np.any(training):
        raise Refused("it is in training mode")
    return [inputs[0], np.ones(elements(inputs[0]).shape, bool)][: op.outputs]


def _flatten(_graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    axis = op.attributes.get("axis", 1)

    def change(array: Array) -> Array:
        at = axis + array.ndim if axis < 0 else axis
        return array.reshape(math.prod(array.shape[:at]), math.prod(array.shape[at:]))

    return moved(inputs[0], change)


def _reshape(_graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    target = numbers(inputs[1], "its shape is")
    assert target is not None
    shape = elements(inputs[0]).shape
    if op.attributes.get("allowzero") and 0 in target:
        raise Refused("its shape holds a 0, which allowzero=1 makes a length of nothing")
    try:
        dims = [shape[i] if d == 0 else d for i, d in enumerate(target)]
        return moved(inputs[0], lambda array: array.reshape(dims))
    except (ValueError, IndexError):
        raise Refused(f"{shape} cannot take the shape {target}") from None


def _transpose(_graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    return moved(inputs[0], lambda array: np.transpose(array, op.attributes.get("perm")))


def _squeeze(_graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    axes = numbers(op.given(inputs, 1, "axes", 13), "its axes are")
    return moved(inputs[0], lambda array: np.squeeze(array, None if axes is None else tuple(axes)))


def _unsqueeze(_graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    axes = numbers(op.given(inputs, 1, "axes", 13), "its axes are") or []
    return moved(inputs[0], lambda array: np.expand_dims(array, tuple(axes)))


def _indices(value: Any) -> Array:
    indices = constant(value, "its indices are")
    if indices.dtype.kind not in "iu":
        raise Refused("its indices are no whole numbers")
    return indices  # type: ignore[no-any-return]


def _gather(_graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    indices, axis = _indices(inputs[1]), int(op.attributes.get("axis", 0))
    return moved(inputs[0], lambda array: np.take(array, indices, axis=axis))


def _gather_elements(_graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    indices = _indices(inputs[1])
    axis = int(op.attributes.get("axis", 0)) % max(1, indices.ndim)
    front = tuple(slice(None) if at == axis else slice(0, d) for at, d in enumerate(indices.shape))
    return moved(inputs[0], lambda array: np.take_along_axis(array[front], indices, axis))


def _gather_nd(_graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    if op.attributes.get("batch_dims"):
        raise Refused("batch_dims is not read")
    indices = _indices(inputs[1])
    return moved(inputs[0], lambda array: array[tuple(np.moveaxis(indices, -1, 0))])


def _slice(graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    tensor = inputs[0]
    names = ("starts", "ends", "axes", "steps")
    given = [numbers(op.given(inputs, at, name, 10), "its ends are") for at, name in enumerate(names, 1)]
    starts, ends = given[0] or [], given[1] or []
    ndim = len(elements(tensor).shape)
    axes = [axis % ndim for axis in (range(len(starts)) if given[2] is None else given[2])]
    steps = given[3] or [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step == 0:
            raise Refused("its step is 0")
        part = _part(start, end, step, elements(tensor).shape[axis])
        if isinstance(tensor, Value):
            tensor = graph.sliced(tensor, axis, part)
        else:
            tensor = np.moveaxis(np.moveaxis(tensor, axis, 0)[part], 0, axis)
    return tensor  # type: ignore[no-any-return]


def _part(start: int, end: int, step: int, length: int) -> slice:
    """ONNX's ends, which say "to the beginning" backwards by a number below minus the length."""
    if step < 0 and end < -length:
        return slice(start if start < 2**31 - 1 else None, None, step)
    return slice(start, end, step)


def _split(_graph: Graph, op: Op, inputs: list[Any]) -> list[Tensor]:
    tensor = inputs[0]
    axis = int(op.attributes.get("axis", 0)) % max(1, len(elements(tensor).shape))
    length = elements(tensor).shape[axis]
    sizes = numbers(op.given(inputs, 1, "split", 13), "its sizes are")
    if sizes is None:
        count = int(op.attributes.get("num_outputs", op.outputs))
        each = -(-length // count)
        sizes = [max(0, min(each, length - each * at)) for at in range(count)]
    ends = np.cumsum([0, *sizes]).tolist()
    if ends[-1] != length:
        raise Refused(f"it splits {length} into parts of {sizes}")
    parts = [slice(begin, end) for begin, end in itertools.pairwise(ends)]
    return [
        moved(tensor, lambda array, part=part: np.moveaxis(np.moveaxis(array, axis, 0)[part], 0, axis))  # type: ignore[misc]
        for part in parts
    ]


def _measured(_graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    """Shape and Size: numbers, the batch size among them as it is in this reading."""
    dims = elements(inputs[0]).shape
    if op.kind == "Size":
        return np.array(math.prod(dims), np.int64)
    return np.array(dims[op.attributes.get("start", 0) : op.attributes.get("end")], np.int64)


def _expand(_graph: Graph, _op: Op, inputs: list[Any]) -> Tensor:
    target = tuple(numbers(inputs[1], "its shape is") or ())
    require_room(math.prod(target))
    return moved(inputs[0], lambda array: np.broadcast_to(array, np.broadcast_shapes(array.shape, target)))


def _tile(_graph: Graph, _op: Op, inputs: list[Any]) -> Tensor:
    repeats = numbers(inputs[1], "its repeats are") or []
    require_room(math.prod(repeats) * elements(inputs[0]).size)
    return moved(inputs[0], lambda array: np.tile(array, repeats))


def _pad(graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    """Around each axis: constants, or elements of the tensor itself."""
    tensor = inputs[0]
    widths = numbers(op.given(inputs, 1, "pads", 11), "its widths are") or []
    value = op.attributes.get("value", 0.0) if op.opset < 11 else inputs[2] if len(inputs) > 2 else None
    fill = float(np.ravel(constant(0.0 if value is None else value, "its value is"))[0])
    axes = numbers(inputs[3], "its axes are") if len(inputs) > 3 and inputs[3] is not None else None
    ndim = len(elements(tensor).shape)
    mode = op.attributes.get("mode", b"constant").decode()
    pairs = list(zip(widths[: len(widths) // 2], widths[len(widths) // 2 :], strict=True))
    for axis, pair in zip([axis % ndim for axis in (range(ndim) if axes is None else axes)], pairs, strict=True):
        tensor = _cut(tensor, axis, pair)
        around = max(0, pair[0]), max(0, pair[1])
        if mode != "constant":
            tensor = _repeated(tensor, axis, around, mode)
        elif any(around):
            tensor = lowering.padded(graph, op.origin, tensor, axis, around, fill)
    return tensor  # type: ignore[no-any-return]


def _cut(tensor: Any, axis: int, pair: tuple[int, int]) -> Any:
    """Without what negative widths take away."""
    cut = [slice(None)] * len(elements(tensor).shape)
    cut[axis] = slice(max(0, -pair[0]), elements(tensor).shape[axis] - max(0, -pair[1]))
    return moved(tensor, lambda array: array[tuple(cut)])


def _repeated(tensor: Any, axis: int, around: tuple[int, int], mode: str) -> Any:
    """With its own elements around."""
    if not any(around):
        return tensor
    widths = [(0, 0)] * len(elements(tensor).shape)
    widths[axis] = around
    how: Any = {"reflect": "reflect", "edge": "edge"}.get(mode, "wrap")
    return moved(tensor, lambda array: np.pad(array, widths, how))


def _gemm(graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    """alpha · A B + beta · C, either of A and B transposed."""
    left, right = (
        moved(tensor, np.transpose) if op.attributes.get(flag) else tensor
        for tensor, flag in ((inputs[0], "transA"), (inputs[1], "transB"))
    )
    if any(len(elements(tensor).shape) != 2 for tensor in (left, right)):
        left = moved(left, lambda array: array.reshape(array.shape[0] if graph.batch > 1 else 1, -1))
    alpha, beta = float(op.attributes.get("alpha", 1.0)), float(op.attributes.get("beta", 1.0))
    bias = inputs[2] if len(inputs) > 2 else None
    if isinstance(left, Value) and not isinstance(right, Value) and not isinstance(bias, Value):
        return _dense(graph, op, left, weights(right, "the matrix").T, bias, (alpha, beta))
    product = lowering.matmul(graph, op.origin, left, right)
    if alpha != 1:
        product = lowering.multiply(graph, op.origin, product, np.array(alpha, graph.dtype))
    if bias is None:
        return product
    scaled = bias if beta == 1 else lowering.multiply(graph, op.origin, bias, np.array(beta, graph.dtype))
    return lowering.add(graph, op.origin, product, scaled)


def _dense(graph: Graph, op: Op, value: Value, weight: Array, bias: Any, factors: tuple[float, float]) -> Tensor:
    """One node for the matrix and its bias, as layers have it."""
    groups, rows = value.index.shape[0], weight.shape[0]
    if weight.shape[1] != value.index.shape[1]:
        raise Refused(f"the matrix takes {weight.shape[1]} values, its input has {value.index.shape[1]}")
    alpha, beta = factors
    given = np.zeros(rows, weight.dtype) if bias is None else weights(bias, "the bias")
    spread = np.broadcast_to(given, (groups, rows)).ravel()
    scaled = np.ascontiguousarray(weight) if alpha == 1 else alpha * weight.astype(np.float64)
    shifted = spread if beta == 1 else beta * spread.astype(np.float64)
    result = graph.matrix(op.origin, value, value.index, scaled, shifted, (groups, rows))
    if alpha != 1 or beta != 1:
        split = graph.split(result, result.index.reshape(-1, 1))
        error = EPS * np.abs(shifted.astype(np.float64))
        graph.rounded(result, EPS if alpha != 1 else 0.0, split.same(error))
        graph.loosen(result, 2.0, 2.0 * split.same(np.abs(shifted.astype(np.float64))))
    return result


def _matmul(graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    return lowering.matmul(graph, op.origin, *inputs)


def _add(graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    left, right = inputs
    return lowering.add(graph, op.origin, left, right, (1.0, -1.0 if op.kind == "Sub" else 1.0))


def _sum(graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    result = inputs[0]
    for other in inputs[1:]:
        result = lowering.add(graph, op.origin, result, other)
    if op.kind == "Mean" and len(inputs) > 1:
        result = lowering.divide(graph, op.origin, result, np.array(len(inputs), graph.dtype))
    return result  # type: ignore[no-any-return]


def _mul(graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    return lowering.multiply(graph, op.origin, *inputs)


def _div(graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    return lowering.divide(graph, op.origin, *inputs)


def _relu(graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    if op.kind == "PRelu":
        return lowering.relu(graph, op.origin, computed(inputs[0]), weights(inputs[1], "the slope"))
    if op.kind == "ThresholdedRelu":
        if op.attributes.get("alpha", 1.0) != 0:
            raise Refused("it jumps at its threshold, so it has no affine + ReLU form")
        return lowering.relu(graph, op.origin, computed(inputs[0]))
    alpha = 0.0 if op.kind == "Relu" else float(op.attributes.get("alpha", np.float32(0.01)))
    return lowering.relu(graph, op.origin, computed(inputs[0]), alpha)


def _clip(graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    ends = []
    for position, name, default in ((1, "min", -math.inf), (2, "max", math.inf)):
        given = constant(op.given(inputs, position, name, 11), "its ends are")
        if given is not None and np.size(given) != 1:
            raise Refused("an end of it is not one number")
        end = default if given is None else float(np.ravel(given)[0])
        ends.append(default if abs(end) >= np.finfo(np.float32).max and math.copysign(1, end * default) > 0 else end)
    return lowering.clip(graph, op.origin, computed(inputs[0]), *ends)


def _hard_sigmoid(graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    """min(max(alpha x + beta, 0), 1)."""
    alpha, beta = (float(op.attributes.get(name, np.float32(d))) for name, d in (("alpha", 0.2), ("beta", 0.5)))
    scale, shift = (np.array(number, np.float32) for number in (alpha, beta))
    line = graph.scaled(op.origin, computed(inputs[0]), scale, shift)
    return lowering.clip(graph, op.origin, line, 0.0, 1.0)


def _absolute(graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    return lowering.absolute(graph, op.origin, computed(inputs[0]))


def _maximum(graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    result, sign = inputs[0], 1.0 if op.kind == "Max" else -1.0
    for other in inputs[1:]:
        result = lowering.maximum(graph, op.origin, result, other, sign)
    return result  # type: ignore[no-any-return]


def _shrink(graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    width, bias = (float(op.attributes.get(name, default)) for name, default in (("lambd", 0.5), ("bias", 0.0)))
    return lowering.shrink(graph, op.origin, computed(inputs[0]), width, bias)


def _power(_graph: Graph, _op: Op, inputs: list[Any]) -> Tensor:
    exponent = constant(inputs[1], "its exponent is")
    if (exponent != 1).any():
        raise Refused("a power has no affine + ReLU form")
    return moved(inputs[0], lambda array: np.broadcast_to(array, np.broadcast_shapes(array.shape, exponent.shape)))


def _negative(graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    return lowering.multiply(graph, op.origin, inputs[0], np.full((), -1.0, np.float32))


def _reduce(graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    """Sums, of absolute values too, means and extremes over axes."""
    axes = numbers(op.given(inputs, 1, "axes", 13 if op.kind == "ReduceSum" else 18), "its axes are")
    tensor: Tensor = lowering.absolute(graph, op.origin, computed(inputs[0])) if op.kind == "ReduceL1" else inputs[0]
    if not axes:
        if op.attributes.get("noop_with_empty_axes"):
            return tensor
        axes = None
    keepdims = bool(op.attributes.get("keepdims", 1))
    if op.kind in ("ReduceMax", "ReduceMin"):
        sign = 1.0 if op.kind == "ReduceMax" else -1.0
        return lowering.extreme(graph, op.origin, tensor, axes, sign=sign, keepdims=keepdims)
    step = lowering.mean if op.kind == "ReduceMean" else lowering.total
    return step(graph, op.origin, tensor, axes, keepdims=keepdims)


def _where(graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    return lowering.where(graph, op.origin, np.asarray(constant(inputs[0], "its condition is")), *inputs[1:])


def _batch_norm(graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    if op.attributes.get("training_mode") or (op.opset < 14 and op.outputs > 1):
        raise Refused("it is in training mode: it normalises by the statistics of the batch")
    if op.opset < 9 and op.attributes.get("spatial", 1) != 1:
        raise Refused("spatial=0 is not read")
    value = computed(inputs[0])
    if value.index.ndim < 2:
        raise Refused("its input has no axis of channels")
    statistics = [weights(tensor, "a statistic") for tensor in inputs[1:5]]
    epsilon = float(op.attributes.get("epsilon", np.float32(1e-5)))
    return lowering.batch_norm(graph, op.origin, value, statistics, epsilon, 1)


def _concat(graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    return lowering.concatenate(graph, op.origin, inputs, int(op.attributes["axis"]))


def _tail(graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
    """A function that may stay outside at the end. Before opset 13, a softmax is over all axes from one on."""
    value = computed(inputs[0])
    name = next(name for name, operator in TAIL_OPERATORS.items() if operator == op.kind)
    if "Softmax" not in op.kind or op.opset >= 13:
        return graph.cut(name, value, op.attributes.get("axis", -1))
    axis = op.attributes.get("axis", 1) % max(1, value.index.ndim)
    rows = value.index.reshape(math.prod(value.index.shape[:axis]), -1)
    result = graph.cut(name, Value(value.node, rows), -1)
    return Value(result.node, result.index.reshape(value.index.shape))


#: ONNX's operator for each function that may stay outside at the end.
TAIL_OPERATORS = {"softmax": "Softmax", "log_softmax": "LogSoftmax", "sigmoid": "Sigmoid", "tanh": "Tanh"}


#: By ONNX operator, what makes nodes of it.
LOWERINGS: dict[str, Lowering] = {
    **IMAGES,
    "Abs": _absolute,
    "Add": _add,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "CastLike": _cast_like,
    "Clip": _clip,
    "Concat": _concat,
    "Div": _div,
    "Dropout": _dropout,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Gemm": _gemm,
    "HardSigmoid": _hard_sigmoid,
    "Identity": _identity,
    "LeakyRelu": _relu,
    "LogSoftmax": _tail,
    "MatMul": _matmul,
    "Max": _maximum,
    "Mean": _sum,
    "Min": _maximum,
    "Mul": _mul,
    "Neg": _negative,
    "PRelu": _relu,
    "Pad": _pad,
    "Pow": _power,
    "ReduceL1": _reduce,
    "ReduceMax": _reduce,
    "ReduceMean": _reduce,
    "ReduceMin": _reduce,
    "ReduceSum": _reduce,
    "Relu": _relu,
    "Reshape": _reshape,
    "Shape": _measured,
    "Shrink": _shrink,
    "Sigmoid": _tail,
    "Size": _measured,
    "Slice": _slice,
    "Softmax": _tail,
    "Split": _split,
    "Squeeze": _squeeze,
    "Sub": _add,
    "Sum": _sum,
    "Tanh": _tail,
    "ThresholdedRelu": _relu,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _where,
}
