"""How each ONNX operator becomes affine and ReLU nodes, or why it cannot."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from leo_core.network import Origin
from leo_frontends import lowering
from leo_frontends.graph import Array, Graph, Refused, Tensor, Value
from leo_frontends.lowering import EPS, computed, number_array, weights


def _origin(node: Any) -> Origin:
    return Origin(node.name or (node.output[0] if node.output else ""), node.op_type)


def _attributes(node: Any) -> dict[str, Any]:
    from onnx import helper

    return {item.name: helper.get_attribute_value(item) for item in node.attribute}


def _identity(_graph: Graph, node: Any, inputs: list[Any]) -> Tensor:
    attributes = _attributes(node)
    if node.op_type == "Cast" and isinstance(inputs[0], Value) and attributes.get("to") not in (1, 10, 11):
        raise Refused("it casts to something that is no float")
    if node.op_type == "Dropout" and len(inputs) > 2 and inputs[2] is not None and np.any(inputs[2]):
        raise Refused("it is in training mode")
    return inputs[0]  # type: ignore[no-any-return]


def _constant(_graph: Graph, node: Any, _inputs: list[Any]) -> Tensor:
    from onnx import numpy_helper

    attributes = _attributes(node)
    if "value" in attributes:
        array = number_array(numpy_helper.to_array(attributes["value"]))
    elif "value_float" in attributes:
        array = np.array(attributes["value_float"], np.float32)
    elif "value_floats" in attributes:
        array = np.array(attributes["value_floats"], np.float32)
    elif "value_int" in attributes:
        array = np.array(attributes["value_int"], np.int64)
    elif "value_ints" in attributes:
        array = np.array(attributes["value_ints"], np.int64)
    else:
        raise Refused("it holds no numbers")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise Refused("it holds NaN or infinity")
    return array


def _reshaped(tensor: Tensor, change: Callable[[Array], Array]) -> Tensor:
    return Value(tensor.node, change(tensor.index)) if isinstance(tensor, Value) else change(tensor)


def _flatten(_graph: Graph, node: Any, inputs: list[Any]) -> Tensor:
    axis = _attributes(node).get("axis", 1)

    def change(array: Array) -> Array:
        at = axis + array.ndim if axis < 0 else axis
        return array.reshape(math.prod(array.shape[:at]), -1)

    return _reshaped(inputs[0], change)


def _reshape(_graph: Graph, node: Any, inputs: list[Any]) -> Tensor:
    attributes = _attributes(node)
    shape = attributes.get("shape") if len(inputs) < 2 else inputs[1]
    if isinstance(shape, Value) or shape is None:
        raise Refused("its shape is not a constant")
    target = [int(d) for d in np.ravel(shape)]
    if attributes.get("allowzero"):
        raise Refused("allowzero is not read")

    def change(array: Array) -> Array:
        dims = [array.shape[i] if d == 0 else d for i, d in enumerate(target)]
        try:
            return array.reshape(dims)
        except ValueError:
            raise Refused(f"{array.shape} cannot take the shape {dims}") from None

    return _reshaped(inputs[0], change)


def _transpose(_graph: Graph, node: Any, inputs: list[Any]) -> Tensor:
    order = _attributes(node).get("perm")
    return _reshaped(inputs[0], lambda array: np.transpose(array, order))


def _axes(node: Any, inputs: list[Any]) -> list[int] | None:
    axes = _attributes(node).get("axes") if len(inputs) < 2 or inputs[1] is None else inputs[1]
    if isinstance(axes, Value):
        raise Refused("its axes are not a constant")
    return None if axes is None else [int(a) for a in np.ravel(axes)]


def _squeeze(_graph: Graph, node: Any, inputs: list[Any]) -> Tensor:
    axes = _axes(node, inputs)
    return _reshaped(inputs[0], lambda array: np.squeeze(array, None if axes is None else tuple(axes)))


def _unsqueeze(_graph: Graph, node: Any, inputs: list[Any]) -> Tensor:
    axes = _axes(node, inputs) or []
    return _reshaped(inputs[0], lambda array: np.expand_dims(array, tuple(axes)))


def _gather(_graph: Graph, node: Any, inputs: list[Any]) -> Tensor:
    indices = inputs[1]
    if not isinstance(indices, np.ndarray) or indices.dtype.kind not in "iu":
        raise Refused("its indices are not constant")
    axis = int(_attributes(node).get("axis", 0))
    if isinstance(inputs[0], Value) and axis in (0, -inputs[0].index.ndim):
        raise Refused("it picks examples of the batch")
    return _reshaped(inputs[0], lambda array: np.take(array, indices, axis=axis))


def _slice(_graph: Graph, node: Any, inputs: list[Any]) -> Tensor:
    attributes, tensor = _attributes(node), inputs[0]
    names = ("starts", "ends", "axes", "steps")
    given = [inputs[at] if len(inputs) > at else attributes.get(name) for at, name in enumerate(names, 1)]
    if any(isinstance(item, Value) for item in given):
        raise Refused("its ends are not constant")
    starts, ends = ([int(at) for at in np.ravel(item)] for item in given[:2])
    ndim = tensor.index.ndim if isinstance(tensor, Value) else tensor.ndim
    axes = [int(axis) % ndim for axis in (range(len(starts)) if given[2] is None else np.ravel(given[2]))]
    steps = [1] * len(starts) if given[3] is None else [int(step) for step in np.ravel(given[3])]
    picked = [slice(None)] * ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step == 0:
            raise Refused("its step is 0")
        picked[axis] = slice(start, end, step)
    if isinstance(tensor, Value) and picked[0] not in (slice(None), slice(0, None, 1)):
        start, end, step = picked[0].start, picked[0].stop, picked[0].step
        if (start, step) != (0, 1) or end < 2**30:
            raise Refused("it picks examples of the batch")
    return _reshaped(tensor, lambda array: array[tuple(picked)])


def _shape(_graph: Graph, node: Any, inputs: list[Any]) -> Tensor:
    attributes = _attributes(node)
    tensor = inputs[0]
    dims = tensor.index.shape if isinstance(tensor, Value) else tensor.shape
    return np.array(dims[attributes.get("start", 0) : attributes.get("end")], np.int64)


def _expand(graph: Graph, node: Any, inputs: list[Any]) -> Tensor:
    if isinstance(inputs[1], Value):
        raise Refused("its shape is not a constant")
    target = tuple(int(d) for d in np.ravel(inputs[1]))

    def change(array: Array) -> Array:
        return np.broadcast_to(array, np.broadcast_shapes(array.shape, target))

    spread = _reshaped(inputs[0], change)
    return spread if isinstance(spread, Value) else graph.constant(_origin(node), weights(spread, "its data"))


def _gemm(graph: Graph, node: Any, inputs: list[Any]) -> Tensor:
    attributes = _attributes(node)
    if isinstance(inputs[1], Value):
        raise Refused("its matrix is computed, or on the left")
    value, weight = computed(inputs[0]), weights(inputs[1], "the matrix")
    if attributes.get("transA"):
        raise Refused("transA is not read")
    if value.index.ndim != 2 and value.index.shape[0] == 1:
        value = Value(value.node, value.index.reshape(1, -1))
    if value.index.ndim != 2 or weight.ndim != 2:
        raise Refused(f"its input has shape {value.index.shape}")
    weight = weight if attributes.get("transB") else np.ascontiguousarray(weight.T)
    if weight.shape[1] != value.index.shape[1]:
        raise Refused(f"the matrix takes {weight.shape[1]} values, its input has {value.index.shape[1]}")
    groups, rows = value.index.shape[0], weight.shape[0]
    given = inputs[2] if len(inputs) > 2 and inputs[2] is not None else np.zeros(rows, weight.dtype)
    try:
        bias = np.broadcast_to(weights(given, "the bias"), (groups, rows)).ravel()
    except ValueError:
        raise Refused(f"a bias of shape {np.shape(given)} is not the same for every example") from None
    alpha, beta = float(attributes.get("alpha", 1.0)), float(attributes.get("beta", 1.0))
    scaled = weight if alpha == 1 else alpha * weight.astype(np.float64)
    shifted = bias if beta == 1 else beta * bias.astype(np.float64)
    result = graph.matrix(_origin(node), value, value.index, scaled, shifted, (groups, rows))
    if alpha != 1 or beta != 1:
        graph.rounded(result, EPS if alpha != 1 else 0.0, EPS * np.abs(shifted.astype(np.float64)))
    return result


def _matmul(graph: Graph, node: Any, inputs: list[Any]) -> Tensor:
    if isinstance(inputs[0], Value) and isinstance(inputs[1], Value):
        raise Refused("it multiplies two computed tensors")
    if isinstance(inputs[0], Value):
        value, weight = inputs[0], weights(inputs[1], "the matrix")
        if weight.ndim != 2 or weight.shape[0] != value.index.shape[-1]:
            raise Refused(f"shapes {value.index.shape} and {weight.shape} do not multiply")
        columns = value.index.reshape(-1, weight.shape[0])
        shape: tuple[int, ...] = (*value.index.shape[:-1], weight.shape[1])
        rows = np.ascontiguousarray(weight.T)
    else:
        rows, value = weights(inputs[0], "the matrix"), computed(inputs[1])
        index = value.index[:, None] if value.index.ndim == 1 else value.index
        if rows.ndim != 2 or rows.shape[1] != index.shape[-2] or index.shape[-1] != 1:
            raise Refused(f"shapes {rows.shape} and {value.index.shape} do not multiply as matrix and column")
        columns = index.reshape(-1, rows.shape[1])
        shape = (*index.shape[:-2], rows.shape[0], 1) if value.index.ndim > 1 else (rows.shape[0],)
    bias = np.zeros(columns.shape[0] * rows.shape[0], rows.dtype)
    return graph.matrix(_origin(node), value, columns, rows, bias, shape)


def _add(graph: Graph, node: Any, inputs: list[Any]) -> Tensor:
    return lowering.add(graph, _origin(node), *inputs, (1.0, -1.0 if node.op_type == "Sub" else 1.0))


def _sum(graph: Graph, node: Any, inputs: list[Any]) -> Tensor:
    result = inputs[0]
    for other in inputs[1:]:
        result = lowering.add(graph, _origin(node), result, other)
    return result  # type: ignore[no-any-return]


def _mul(graph: Graph, node: Any, inputs: list[Any]) -> Tensor:
    return lowering.multiply(graph, _origin(node), *inputs)


def _div(graph: Graph, node: Any, inputs: list[Any]) -> Tensor:
    return lowering.divide(graph, _origin(node), *inputs)


def _relu(graph: Graph, node: Any, inputs: list[Any]) -> Tensor:
    if node.op_type == "PRelu":
        return lowering.relu(graph, _origin(node), computed(inputs[0]), weights(inputs[1], "the slope"))
    alpha = 0.0 if node.op_type == "Relu" else float(_attributes(node).get("alpha", np.float32(0.01)))
    return lowering.relu(graph, _origin(node), computed(inputs[0]), alpha)


def _clip(graph: Graph, node: Any, inputs: list[Any]) -> Tensor:
    attributes = _attributes(node)
    ends = []
    for position, name, default in ((1, "min", -math.inf), (2, "max", math.inf)):
        given = inputs[position] if len(inputs) > position else attributes.get(name)
        if isinstance(given, Value):
            raise Refused("its ends are not constant")
        if given is not None and np.size(given) != 1:
            raise Refused("an end of it is not one number")
        ends.append(default if given is None else float(np.ravel(given)[0]))
    return lowering.clip(graph, _origin(node), computed(inputs[0]), *ends)


def _absolute(graph: Graph, node: Any, inputs: list[Any]) -> Tensor:
    return lowering.absolute(graph, _origin(node), computed(inputs[0]))


def _maximum(graph: Graph, node: Any, inputs: list[Any]) -> Tensor:
    result, sign = inputs[0], 1.0 if node.op_type == "Max" else -1.0
    for other in inputs[1:]:
        result = lowering.maximum(graph, _origin(node), result, other, sign)
    return result  # type: ignore[no-any-return]


def _negative(graph: Graph, node: Any, inputs: list[Any]) -> Tensor:
    return lowering.multiply(graph, _origin(node), inputs[0], np.full((), -1.0, np.float32))


def _batch_norm(graph: Graph, node: Any, inputs: list[Any]) -> Tensor:
    attributes = _attributes(node)
    if attributes.get("training_mode"):
        raise Refused("it is in training mode")
    statistics = [weights(tensor, "a statistic") for tensor in inputs[1:5]]
    epsilon = float(attributes.get("epsilon", np.float32(1e-5)))
    return lowering.batch_norm(graph, _origin(node), computed(inputs[0]), statistics, epsilon, 1)


def _concat(graph: Graph, node: Any, inputs: list[Any]) -> Tensor:
    return lowering.concatenate(graph, _origin(node), inputs, int(_attributes(node)["axis"]))


def _tail(graph: Graph, node: Any, inputs: list[Any]) -> Tensor:
    name = next(name for name, operator in TAIL_OPERATORS.items() if operator == node.op_type)
    return graph.cut(name, computed(inputs[0]), _attributes(node).get("axis", -1))


#: ONNX's operator for each function that may stay outside at the end.
TAIL_OPERATORS = {"softmax": "Softmax", "log_softmax": "LogSoftmax", "sigmoid": "Sigmoid", "tanh": "Tanh"}


#: By ONNX operator, what makes nodes of it.
LOWERINGS: dict[str, Callable[[Graph, Any, list[Any]], Tensor]] = {
    "Abs": _absolute,
    "Add": _add,
    "BatchNormalization": _batch_norm,
    "Cast": _identity,
    "Clip": _clip,
    "Concat": _concat,
    "Constant": _constant,
    "Div": _div,
    "Dropout": _identity,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gemm": _gemm,
    "Identity": _identity,
    "LeakyRelu": _relu,
    "LogSoftmax": _tail,
    "MatMul": _matmul,
    "Max": _maximum,
    "Min": _maximum,
    "Mul": _mul,
    "Neg": _negative,
    "PRelu": _relu,
    "Relu": _relu,
    "Reshape": _reshape,
    "Shape": _shape,
    "Sigmoid": _tail,
    "Slice": _slice,
    "Softmax": _tail,
    "Tanh": _tail,
    "Squeeze": _squeeze,
    "Sub": _add,
    "Sum": _sum,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
