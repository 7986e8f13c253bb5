"""Functions called on tensors (h + 0.5, h[:, :3], keras.ops.mean(h, axis=1)), by the class Keras keeps of such a call.

Each gets the call as Keras keeps it: the operation with its options, and its arguments, constants as arrays. What only
rearranges elements is left to Keras, as in :mod:`leo_frontends.keras.layers`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from leo_core.network import Origin
from leo_frontends import lowering
from leo_frontends.graph import Graph, Refused, Tensor, Value, elements
from leo_frontends.keras import activations
from leo_frontends.keras.layers import minimum, subtract
from leo_frontends.keras.rearrange import one_example, padded, parted, rearranged
from leo_frontends.lowering import computed

Operation = Callable[..., "Tensor | list[Tensor]"]


def lower_operation(
    graph: Graph, operation: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Tensor | list[Tensor]:
    """What a call of a function computes. Raises :class:`Refused` for one that is not read."""
    kind = type(operation).__name__
    apply = OPERATIONS.get(kind)
    if not type(operation).__module__.startswith(("keras.src.ops.", "keras.src.activations.")):
        raise Refused(f"it is a class of '{type(operation).__module__}', so LEO cannot know what it computes")
    if apply is None:
        curved = kind.lower() in activations.CURVED or kind in _NO_FORM
        raise Refused("there is no affine + ReLU form for it" if curved else "it is not read")
    bound = inspect.signature(operation.call).bind(*args, **kwargs)
    return apply(graph, Origin(operation.name, kind), operation, *bound.args, **bound.kwargs)


def tensor(graph: Graph, argument: Any) -> Tensor:
    """A tensor among the arguments of a call; a constant in the type that Keras would use it in."""
    if isinstance(argument, Value):
        return argument
    if isinstance(argument, list | tuple) and any(isinstance(item, Value) for item in argument):
        raise Refused("it is given a list that holds tensors")
    if keras.ops.is_tensor(argument) or isinstance(argument, keras.Variable):
        argument = keras.ops.convert_to_numpy(argument)
    known = np.asarray(argument)
    if known.dtype.kind not in "fiub" and known.dtype.name != "bfloat16":
        raise Refused(f"an argument is of type {type(argument).__name__}, no number")
    if isinstance(argument, np.ndarray):  # a number has the type of what it meets, an array its own
        kept = keras.backend.standardize_dtype(keras.ops.convert_to_tensor(argument).dtype)
        if kept == "float64" and (known.astype(np.float32) != known).any():
            return known
    return known.astype(graph.dtype)


def _pair(step: Callable[[Graph, Origin, Tensor, Tensor], Tensor]) -> Operation:
    def apply(graph: Graph, origin: Origin, _operation: Any, x1: Any, x2: Any) -> Tensor:
        return step(graph, origin, tensor(graph, x1), tensor(graph, x2))

    return apply


def _matmul(graph: Graph, origin: Origin, _operation: Any, x1: Any, x2: Any) -> Tensor:
    left, right = tensor(graph, x1), tensor(graph, x2)
    if isinstance(left, Value) and isinstance(right, Value):
        raise Refused("it multiplies two computed tensors")
    if isinstance(right, Value):  # A x = (xᵀ Aᵀ)ᵀ
        matrix, value = lowering.weights(left, "the matrix"), right
        if matrix.ndim != 2 or value.index.ndim < 2:
            raise Refused("it is read for a matrix, with tensors of two or more axes")
        turned = Value(value.node, value.index.swapaxes(-1, -2))
        product = lowering.dense(graph, origin, turned, matrix, np.zeros(len(matrix), matrix.dtype))
        return Value(product.node, product.index.swapaxes(-1, -2))
    value, matrix = computed(left), lowering.weights(right, "the matrix")
    if matrix.ndim not in (1, 2) or value.index.ndim < 1:
        raise Refused("it is read for a matrix, with tensors of one or more axes")
    columns = matrix.reshape(len(matrix), -1)
    bias = np.zeros(columns.shape[1], matrix.dtype)
    product = lowering.dense(graph, origin, value, np.ascontiguousarray(columns.T), bias)
    return Value(product.node, product.index[..., 0]) if matrix.ndim == 1 else product


def _dot(graph: Graph, origin: Origin, operation: Any, x1: Any, x2: Any) -> Tensor:
    if isinstance(x2, Value) and x2.index.ndim > 2:
        raise Refused("it is read as a product with a matrix from the right only")
    return _matmul(graph, origin, operation, x1, x2)


def _negative(graph: Graph, origin: Origin, _operation: Any, x: Any) -> Tensor:
    return graph.scaled(origin, computed(x), np.full((), -1.0, np.float32), np.zeros((), np.float32))


def _function(graph: Graph, origin: Origin, operation: Any, x: Any) -> Tensor:
    name = {"Absolute": "abs", "Abs": "abs"}.get(type(operation).__name__, keras_name(operation))
    return activations.FUNCTIONS[name](graph, origin, computed(x))


def keras_name(operation: Any) -> str:
    """HardSigmoid as hard_sigmoid."""
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in type(operation).__name__).lstrip("_")


def _clip(graph: Graph, origin: Origin, operation: Any, x: Any) -> Tensor:
    ends = []
    for end in (operation.x_min, operation.x_max):
        array = None if end is None else tensor(graph, end)
        if isinstance(array, Value) or (array is not None and array.size != 1):
            raise Refused("an end of it is not one number")
        ends.append(None if array is None else float(array.reshape(())))
    low, high = (None if end is None or math.isinf(end) else end for end in ends)
    return activations.clip(graph, origin, computed(x), low, high)


def _tail(name: str) -> Operation:
    def apply(graph: Graph, _origin: Origin, operation: Any, x: Any) -> Tensor:
        axis = getattr(operation, "axis", -1)
        if axis is None:
            axis = tuple(range(computed(x).index.ndim))
        return activations.tail(graph, name, computed(x), axis)

    return apply


def _same(_graph: Graph, _origin: Origin, _operation: Any, x: Any) -> Tensor:
    return computed(x)


def _cast(graph: Graph, _origin: Origin, operation: Any, x: Any) -> Tensor:
    if operation.dtype not in ("float32", "float64") or str(graph.dtype) == "float64" != operation.dtype:
        raise Refused(f"it casts {graph.dtype} to {operation.dtype}, which rounds")
    return computed(x)


def _moved(_graph: Graph, _origin: Origin, operation: Any, x: Any, *more: Any) -> Tensor:
    return rearranged(computed(x), lambda marked: operation.call(marked, *more))


def _along(graph: Graph, origin: Origin, operation: Any, x: Any, *more: Any) -> Tensor:
    """What is cut or turned along one axis, or several: not along that of the batch."""
    for axis in operation.axis if isinstance(operation.axis, list | tuple) else [operation.axis]:
        one_example(graph, computed(x), axis)
    return _moved(graph, origin, operation, x, *more)


def _parts(graph: Graph, _origin: Origin, operation: Any, x: Any) -> list[Tensor]:
    one_example(graph, computed(x), operation.axis)
    return [*parted(computed(x), operation.call)]


def _get_item(graph: Graph, origin: Origin, operation: Any, x: Any, key: Any) -> Tensor:
    value = computed(x)
    parts = tuple(key) if isinstance(key, tuple | list) else (key,)
    if any(isinstance(part, Value) for part in parts):
        raise Refused("its index is computed")
    axes = [part for part in parts if part is not None]
    if Ellipsis in [part for part in axes if not isinstance(part, np.ndarray)]:
        at = next(i for i, part in enumerate(axes) if part is Ellipsis)
        axes[at : at + 1] = [slice(None)] * (value.index.ndim - len(axes) + 1)
    for axis, part in enumerate(axes):
        if isinstance(part, slice):
            graph.sliced(value, axis, part)  # refuses the first hundred of a batch
        elif part is not Ellipsis:
            one_example(graph, value, axis)
    return _moved(graph, origin, operation, x, key)


def _slice(graph: Graph, origin: Origin, operation: Any, x: Any, start_indices: Any) -> Tensor:
    value = computed(x)
    for axis, (start, size) in enumerate(zip(start_indices, operation.shape, strict=True)):
        if start != 0 or size not in (value.index.shape[axis], -1):
            one_example(graph, value, axis)
    return _moved(graph, origin, operation, x, start_indices)


def _pad(graph: Graph, origin: Origin, operation: Any, x: Any, constant_values: Any = None) -> Tensor:
    if operation.mode != "constant":
        return _moved(graph, origin, operation, x, constant_values)
    fill = tensor(graph, 0 if constant_values is None else constant_values)
    if isinstance(fill, Value) or fill.size != 1:
        raise Refused("what it pads with is not one number")
    return padded(graph, origin, computed(x), lambda marked: operation.call(marked, None), fill.reshape(()))


def _total(graph: Graph, origin: Origin, operation: Any, x: Any) -> Tensor:
    return lowering.total(graph, origin, computed(x), operation.axis, keepdims=operation.keepdims)


def _mean(graph: Graph, origin: Origin, operation: Any, x: Any, weights: Any = None) -> Tensor:
    if weights is not None:
        raise Refused("an average with weights is not read")
    axes = [operation.axis] if isinstance(operation.axis, int) else operation.axis
    return lowering.mean(graph, origin, computed(x), axes, keepdims=getattr(operation, "keepdims", False))


def _concatenate(graph: Graph, origin: Origin, operation: Any, xs: Any) -> Tensor:
    return lowering.concatenate(graph, origin, _all(graph, xs), operation.axis)


def _stack(graph: Graph, origin: Origin, operation: Any, x: Any) -> Tensor:
    found: list[Tensor] = []
    for part in _all(graph, x):
        if isinstance(part, Value):
            found.append(Value(part.node, np.expand_dims(part.index, operation.axis)))
        else:
            found.append(np.expand_dims(part, operation.axis))
    return lowering.concatenate(graph, origin, found, operation.axis)


def _hstack(graph: Graph, origin: Origin, _operation: Any, xs: Any) -> Tensor:
    tensors = _all(graph, xs)
    axis = 0 if rank(tensors[0]) == 1 else 1
    return lowering.concatenate(graph, origin, tensors, axis)


def _vstack(graph: Graph, origin: Origin, _operation: Any, xs: Any) -> Tensor:
    tensors = _all(graph, xs)
    if min(map(rank, tensors)) < 2:
        raise Refused("it is read for tensors of two or more axes")
    return lowering.concatenate(graph, origin, tensors, 0)


def _append(graph: Graph, origin: Origin, operation: Any, x1: Any, x2: Any) -> Tensor:
    if operation.axis is None:
        raise Refused("it is not read without an axis")
    return lowering.concatenate(graph, origin, _all(graph, [x1, x2]), operation.axis)


def _all(graph: Graph, tensors: Any) -> list[Tensor]:
    if not isinstance(tensors, list | tuple):
        raise Refused("it is not given a list of tensors")
    return [tensor(graph, part) for part in tensors]


def rank(found: Tensor) -> int:
    """How many axes a tensor has."""
    return int(elements(found).ndim)


def _leaky_relu(graph: Graph, origin: Origin, operation: Any, x: Any) -> Tensor:
    return activations.leaky_relu(graph, origin, computed(x), operation.negative_slope)


def _relu(graph: Graph, origin: Origin, operation: Any, x: Any) -> Tensor:
    """keras.activations.relu, called on a tensor with options."""
    return activations.relu(graph, origin, computed(x), operation)


def _soft_shrink(graph: Graph, origin: Origin, operation: Any, x: Any) -> Tensor:
    return activations.soft_shrink(graph, origin, computed(x), operation.threshold)


#: Curved, products of computed values, or jumps.
_NO_FORM = frozenset((
    "Arccos", "Arcsin", "Arctan", "Argmax", "Argmin", "Ceil", "Cos", "Cosh", "Cumprod", "DivideNoNan", "Equal", "Exp",
    "Exp2", "Expm1", "Floor", "FloorDivide", "Greater", "GreaterEqual", "HardShrink", "HardSilu", "LayerNorm", "Less",
    "LessEqual", "Log", "Log10", "Log1p", "Log2", "LogSigmoid", "LogSumExp", "Logsumexp", "Mod", "Norm", "NotEqual",
    "Normalize", "Power", "Prod", "Reciprocal", "RMSNormalization", "Round", "Rsqrt", "Sign", "Sin", "Sinh", "Sqrt",
    "Square", "Std", "Tan", "Threshold", "Var",
))  # fmt: skip

#: By the name of the class that Keras keeps of a call.
OPERATIONS: dict[str, Operation] = {
    "Abs": _function,
    "Absolute": _function,
    "Add": _pair(lowering.add),
    "Append": _append,
    "ArraySplit": _parts,
    "Average": _mean,
    "BroadcastTo": _moved,
    "Cast": _cast,
    "Clip": _clip,
    "Concatenate": _concatenate,
    "Copy": _same,
    "Diagonal": _moved,
    "Divide": _pair(lowering.divide),
    "Dot": _dot,
    "ExpandDims": _moved,
    "Flip": _along,
    "GetItem": _get_item,
    "HardSigmoid": _function,
    "HardTanh": _function,
    "Hstack": _hstack,
    "LeakyRelu": _leaky_relu,
    "LogSoftmax": _tail("log_softmax"),
    "Matmul": _matmul,
    "Maximum": _pair(lowering.maximum),
    "Mean": _mean,
    "Minimum": _pair(minimum),
    "Moveaxis": _moved,
    "Multiply": _pair(lowering.multiply),
    "Negative": _negative,
    "Pad": _pad,
    "Ravel": _moved,
    "ReLU": _relu,
    "Relu": _function,
    "Relu6": _function,
    "Repeat": _along,
    "Reshape": _moved,
    "Roll": _along,
    "Rot90": _moved,
    "Sigmoid": _tail("sigmoid"),
    "Slice": _slice,
    "SoftShrink": _soft_shrink,
    "Softmax": _tail("softmax"),
    "SparseSigmoid": _function,
    "Split": _parts,
    "Squeeze": _moved,
    "Stack": _stack,
    "StopGradient": _same,
    "Subtract": _pair(subtract),
    "Sum": _total,
    "Swapaxes": _moved,
    "Take": _along,
    "Tanh": _tail("tanh"),
    "Tile": _moved,
    "Transpose": _moved,
    "TrueDivide": _pair(lowering.divide),
    "Unstack": _parts,
    "Vstack": _vstack,
}
