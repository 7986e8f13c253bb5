"""An ONNX graph of dense layers lowered to affine and ReLU nodes.

A computed tensor is a node of the network and, for each of its elements, the index of that node's value: so
Flatten, Reshape and Transpose only permute indices, and end up in the columns of the next matrix. The batch
axis, where there is one, is carried with size one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from leo_core.errors import FormatError, UnsupportedModelError
from leo_core.linear import Dense, Diagonal, LinearMap, Select, Sparse
from leo_core.network import INPUT, Affine, Network, Node, Origin, Relu, Signature
from leo_core.plugins import Imported, Rounding

Array = NDArray[Any]

#: Relative error allowed for one rounded float64 operation and the next: generous on purpose.
_EPS = 2.0**-50


@final
@dataclass(frozen=True, eq=False)
class _Value:
    """A computed tensor: element e is value ``index[e]`` of node ``node``."""

    node: str
    index: NDArray[np.int64]


_Tensor: TypeAlias = "_Value | Array"


class _Refused(Exception):  # noqa: N818 - it is an answer, not an error
    """A node cannot be lowered; the text says why."""


def read_model(model: Any, where: str) -> Imported:
    """Lower a loaded ``onnx.ModelProto``.

    Raises :class:`UnsupportedModelError` listing every node without an affine + ReLU form, and
    :class:`FormatError` for what is not a well-formed model.
    """
    try:
        return _Reader(model, where).read()
    except (KeyError, IndexError, ValueError, TypeError, AttributeError, OverflowError, MemoryError) as error:
        raise FormatError(f"{where}: the ONNX graph is malformed ({type(error).__name__}: {error})") from None


class _Reader:
    """The state of one lowering: tensors by ONNX name, and the nodes made so far."""

    def __init__(self, model: Any, where: str) -> None:
        from onnx import numpy_helper

        self._graph, self._where = model.graph, where
        self._tensors: dict[str, _Tensor] = {}
        for initializer in self._graph.initializer:
            try:
                self._tensors[initializer.name] = _number_array(numpy_helper.to_array(initializer))
            except Exception as error:
                raise FormatError(
                    f"{where}: the weights '{initializer.name}' cannot be read ({error}); is the file damaged?"
                ) from None
        for name, array in self._tensors.items():
            if isinstance(array, np.ndarray) and array.dtype.kind == "f" and not np.isfinite(array).all():
                raise FormatError(f"{where}: the weights '{name}' hold NaN or infinity; LEO needs finite weights")
        self._nodes: list[Node] = []
        self._rounding: dict[str, Rounding] = {}
        self._lost: set[str] = set()
        self._uses: dict[str, int] = {}
        for node in self._graph.node:
            for name in node.input:
                self._uses[name] = self._uses.get(name, 0) + 1
        for output in self._graph.output:
            self._uses[output.name] = self._uses.get(output.name, 0) + 1
        self._batch = 1

    def read(self) -> Imported:
        """The whole lowering."""
        problems = [
            f"node {position} '{node.name or node.output[0]}': {node.op_type}"
            for position, node in enumerate(self._graph.node)
            if node.op_type not in _LOWERINGS or node.domain not in ("", "ai.onnx")
        ]
        inputs = [item for item in self._graph.input if item.name not in self._tensors]
        if len(inputs) != 1:
            problems.append(f"{len(inputs)} inputs ({', '.join(i.name for i in inputs)}); LEO reads models with one")
        if len(self._graph.output) != 1:
            problems.append(f"{len(self._graph.output)} outputs; LEO reads models with one")
        if problems:
            raise UnsupportedModelError(self._where, problems)
        signature = self._begin(inputs[0])
        for position, node in enumerate(self._graph.node):
            problem = self._lower(position, node)
            if problem:
                problems.append(problem)
        if problems:
            raise UnsupportedModelError(self._where, problems)
        output = self._graph.output[0].name
        if output not in self._tensors:
            raise FormatError(f"{self._where}: no node computes the output '{output}'")
        result = self._tensors[output]
        if not isinstance(result, _Value):
            raise UnsupportedModelError(self._where, [f"the output '{output}' does not depend on the input"])
        name = self._as_affine_or_relu(result)
        shape = tuple(result.index.shape[1:]) if signature.batched else tuple(result.index.shape)
        network = Network(
            signature.size,
            self._reachable(name),
            name,
            Signature(inputs[0].name, signature.shape, output, shape, signature.dtype),
        )
        rounding = {node.name: self._rounding[node.name] for node in network.nodes if node.name in self._rounding}
        return Imported(network, self._notes(signature), rounding)

    def _notes(self, signature: _InputShape) -> tuple[str, ...]:
        if self._batch != 1:
            return (f"the model's batch size was fixed at {self._batch}; LEO's result takes any",)
        return () if signature.batched else ("the model's input has no batch axis; LEO's result takes one",)

    def _begin(self, item: Any) -> _InputShape:
        tensor = item.type.tensor_type
        dtypes = {1: "float32", 11: "float64", 10: "float32"}
        if tensor.elem_type not in dtypes:
            raise UnsupportedModelError(self._where, [f"the input '{item.name}' is not of a float type"])
        dims = [d.dim_value if d.HasField("dim_value") else 0 for d in tensor.shape.dim]
        if not dims:
            raise UnsupportedModelError(self._where, [f"the input '{item.name}' has no shape"])
        batched = len(dims) > 1
        if batched:
            self._batch = dims[0] or 1
            dims[0] = 1
            # [784, 1]: a column, not 784 examples of one value
            if len(dims) == 2 and dims[1] == 1 and self._batch > 1 and self._is_column(item.name):
                dims, self._batch, batched = [self._batch, 1], 1, False
        if any(d <= 0 for d in dims):
            raise UnsupportedModelError(self._where, [f"the input '{item.name}' has a free axis besides the batch"])
        size = math.prod(dims)
        if size > 1 << 28:
            raise FormatError(f"{self._where}: an input of {size} values is too large")
        self._tensors[item.name] = _Value(INPUT, np.arange(size).reshape(dims))
        shape = tuple(dims[1:]) if batched else tuple(dims)
        return _InputShape(size, shape, batched, dtypes[tensor.elem_type])

    def _is_column(self, name: str) -> bool:
        return any(
            node.op_type == "MatMul" and len(node.input) == 2 and node.input[1] == name for node in self._graph.node
        )

    def _lower(self, position: int, node: Any) -> str | None:
        label = f"node {position} '{node.name or node.output[0]}' ({node.op_type})"
        if any(name in self._lost for name in node.input):
            self._lost.update(node.output)
            return None
        missing = [name for name in node.input if name and name not in self._tensors]
        if missing:
            raise FormatError(f"{self._where}: {label} reads '{missing[0]}', which nothing computes")
        inputs = [self._tensors[name] if name else None for name in node.input]
        try:
            result = _LOWERINGS[node.op_type](self, node, inputs)
        except _Refused as reason:
            self._lost.update(node.output)
            return f"{label}: {reason}"
        self._tensors[node.output[0]] = result
        return None

    def _reachable(self, output: str) -> tuple[Node, ...]:
        needed = {output}
        for node in reversed(self._nodes):
            if node.name in needed:
                needed.update(node.sources if isinstance(node, Affine) else (node.source,))
        return tuple(node for node in self._nodes if node.name in needed)

    # What lowerings call.

    def affine(self, onnx_node: Any, sources: list[_Value], maps: list[LinearMap], bias: Array, shape: Any) -> _Value:
        """Add an affine node whose output has ``shape``."""
        name = self._name(onnx_node)
        self._nodes.append(
            Affine(name, tuple(s.node for s in sources), tuple(maps), bias, Origin(onnx_node.name, onnx_node.op_type))
        )
        return _Value(name, np.arange(len(bias)).reshape(shape))

    def relu(self, onnx_node: Any, value: _Value, slope: float) -> _Value:
        """Add a ReLU, after an affine identity where it does not read an affine node as it is."""
        source = self._node(value.node)
        if not (isinstance(source, Affine) and _is_identity(value.index, source.size)):
            value = self.pick(onnx_node, value)
        name = self._name(onnx_node)
        size = value.index.size
        self._nodes.append(Relu(name, value.node, np.full(size, slope), Origin(onnx_node.name, onnx_node.op_type)))
        return _Value(name, np.arange(size).reshape(value.index.shape))

    def pick(self, onnx_node: Any, value: _Value) -> _Value:
        """An affine node that holds just the elements of ``value``, in order."""
        select = Select(value.index.ravel(), columns=self._size(value.node))
        return self.affine(onnx_node, [value], [select], np.zeros(value.index.size, np.float32), value.index.shape)

    def scaled(
        self, onnx_node: Any, value: _Value, scale: Array, shift: Array, rounding: tuple[float, Array] | None = None
    ) -> _Value:
        """scale · value + shift, element by element, broadcast."""
        shape = np.broadcast_shapes(value.index.shape, scale.shape, shift.shape)
        index = np.broadcast_to(value.index, shape).ravel()
        scale, shift = np.broadcast_to(scale, shape).ravel(), np.broadcast_to(shift, shape).ravel()
        if (scale == 1).all() and (shift == 0).all():
            return _Value(value.node, index.reshape(shape))
        linear = _scaling(index, scale, self._size(value.node))
        result = self.affine(onnx_node, [value], [linear], shift, shape)
        if rounding is not None:
            relative, absolute = rounding
            bias = np.broadcast_to(absolute, shape).ravel().astype(np.float64)
            self._rounding[result.node] = Rounding(relative, bias)
        return result

    def rounded(self, value: _Value, relative: float, absolute: Array) -> None:
        """Say how far a node's stored numbers may be from the model's."""
        self._rounding[value.node] = Rounding(relative, absolute)

    def matrix(self, onnx_node: Any, value: _Value, columns: Array, weight: Array, bias: Array, shape: Any) -> _Value:
        """weight (rows × k) applied to each row of ``columns`` (groups × k), results one after the other."""
        size = self._size(value.node)
        groups, _ = columns.shape
        rows = weight.shape[0]
        if groups == 1:
            linear: LinearMap = Dense(_scatter(weight, columns[0], size))
        else:
            index = np.repeat(columns, rows, axis=0).ravel()
            pointers = np.arange(0, groups * rows * weight.shape[1] + 1, max(1, weight.shape[1]))
            linear = Sparse(np.tile(weight, (groups, 1)).ravel(), index, pointers, columns=size)
        return self.affine(onnx_node, [value], [linear], bias, shape)

    def add_bias(self, name: str, value: _Value, bias: Array) -> _Value | None:
        """Put a constant into the bias of the affine node just made, if no other reads it and its bias is zero."""
        last = self._nodes[-1] if self._nodes else None
        if (
            not isinstance(last, Affine)
            or last.name != value.node
            or last.bias.any()
            or last.name in self._rounding
            or self._uses.get(name, 0) != 1
            or not _is_identity(value.index, last.size)
        ):
            return None
        try:
            spread = np.broadcast_to(bias, value.index.shape)
        except ValueError:
            return None
        self._nodes[-1] = Affine(last.name, last.sources, last.maps, spread.ravel(), last.origin)
        return value

    def tensor_batch(self) -> int:
        """The batch size the file fixed."""
        return self._batch

    def _as_affine_or_relu(self, value: _Value) -> str:
        if value.node != INPUT and _is_identity(value.index, self._size(value.node)):
            return value.node
        last = self._graph.node[-1] if len(self._graph.node) else self._graph.output[0]
        return self.pick(_Named(last.name + "_output", "Identity"), value).node

    def _node(self, name: str) -> Node | None:
        return next((node for node in reversed(self._nodes) if node.name == name), None)

    def _size(self, name: str) -> int:
        if name == INPUT:
            return next(v.index.size for v in self._tensors.values() if isinstance(v, _Value) and v.node == INPUT)
        node = self._node(name)
        assert node is not None
        return node.size

    def _name(self, onnx_node: Any) -> str:
        base = onnx_node.name or (onnx_node.output[0] if onnx_node.output else "") or onnx_node.op_type
        taken = {node.name for node in self._nodes} | {INPUT}
        name, count = base, 1
        while name in taken:
            count += 1
            name = f"{base}_{count}"
        return name


@final
@dataclass(frozen=True)
class _InputShape:
    size: int
    shape: tuple[int, ...]
    batched: bool
    dtype: str


@final
@dataclass(frozen=True)
class _Named:
    """Stands in for an ONNX node where LEO adds one of its own."""

    name: str
    op_type: str
    output: tuple[str, ...] = ()


def _number_array(array: Array) -> Array:
    if array.dtype == np.float16:
        return array.astype(np.float32)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"numbers of type {array.dtype} are not read")
    return array


def _is_identity(index: NDArray[np.int64], size: int) -> bool:
    return index.size == size and bool((index.ravel() == np.arange(size)).all())


def _scatter(weight: Array, index: NDArray[np.int64], size: int) -> Array:
    if _is_identity(index, size):
        return weight
    matrix = np.zeros((weight.shape[0], size), weight.dtype)
    if len(np.unique(index)) != len(index):
        raise _Refused("one value is used twice by one matrix")
    matrix[:, index] = weight
    return matrix


def _scaling(index: NDArray[np.int64], scale: Array, size: int) -> LinearMap:
    if (scale == 1).all():
        return Select(index, columns=size)
    if _is_identity(index, size):
        return Diagonal(scale)
    return Sparse(scale, index, np.arange(len(index) + 1), columns=size)


def _attributes(node: Any) -> dict[str, Any]:
    from onnx import helper

    return {item.name: helper.get_attribute_value(item) for item in node.attribute}


def _weights(tensor: Any, what: str) -> Array:
    if not isinstance(tensor, np.ndarray):
        raise _Refused(f"{what} is not a constant")
    return tensor if tensor.dtype in (np.float32, np.float64) else tensor.astype(np.float64)


def _computed(tensor: Any) -> _Value:
    if not isinstance(tensor, _Value):
        raise _Refused("it works on constants only")
    return tensor


def _identity(_reader: _Reader, node: Any, inputs: list[Any]) -> _Tensor:
    attributes = _attributes(node)
    if node.op_type == "Cast" and isinstance(inputs[0], _Value) and attributes.get("to") not in (1, 10, 11):
        raise _Refused("it casts to something that is no float")
    if node.op_type == "Dropout" and len(inputs) > 2 and inputs[2] is not None and np.any(inputs[2]):
        raise _Refused("it is in training mode")
    return inputs[0]  # type: ignore[no-any-return]


def _constant(_reader: _Reader, node: Any, _inputs: list[Any]) -> _Tensor:
    from onnx import numpy_helper

    attributes = _attributes(node)
    if "value" in attributes:
        array = _number_array(numpy_helper.to_array(attributes["value"]))
    elif "value_float" in attributes:
        array = np.array(attributes["value_float"], np.float32)
    elif "value_floats" in attributes:
        array = np.array(attributes["value_floats"], np.float32)
    elif "value_int" in attributes:
        array = np.array(attributes["value_int"], np.int64)
    elif "value_ints" in attributes:
        array = np.array(attributes["value_ints"], np.int64)
    else:
        raise _Refused("it holds no numbers")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise _Refused("it holds NaN or infinity")
    return array


def _reshaped(tensor: _Tensor, change: Callable[[Array], Array]) -> _Tensor:
    return _Value(tensor.node, change(tensor.index)) if isinstance(tensor, _Value) else change(tensor)


def _flatten(_reader: _Reader, node: Any, inputs: list[Any]) -> _Tensor:
    axis = _attributes(node).get("axis", 1)

    def change(array: Array) -> Array:
        at = axis + array.ndim if axis < 0 else axis
        return array.reshape(math.prod(array.shape[:at]), -1)

    return _reshaped(inputs[0], change)


def _reshape(reader: _Reader, node: Any, inputs: list[Any]) -> _Tensor:
    attributes = _attributes(node)
    shape = attributes.get("shape") if len(inputs) < 2 else inputs[1]
    if isinstance(shape, _Value) or shape is None:
        raise _Refused("its shape is not a constant")
    target = [int(d) for d in np.ravel(shape)]
    if attributes.get("allowzero"):
        raise _Refused("allowzero is not read")

    def change(array: Array) -> Array:
        dims = [array.shape[i] if d == 0 else d for i, d in enumerate(target)]
        if dims and dims[0] == reader.tensor_batch() and isinstance(inputs[0], _Value) and reader.tensor_batch() > 1:
            dims[0] = 1
        try:
            return array.reshape(dims)
        except ValueError:
            raise _Refused(f"{array.shape} cannot take the shape {dims}") from None

    return _reshaped(inputs[0], change)


def _transpose(_reader: _Reader, node: Any, inputs: list[Any]) -> _Tensor:
    order = _attributes(node).get("perm")
    return _reshaped(inputs[0], lambda array: np.transpose(array, order))


def _axes(node: Any, inputs: list[Any]) -> list[int] | None:
    axes = _attributes(node).get("axes") if len(inputs) < 2 or inputs[1] is None else inputs[1]
    if isinstance(axes, _Value):
        raise _Refused("its axes are not a constant")
    return None if axes is None else [int(a) for a in np.ravel(axes)]


def _squeeze(_reader: _Reader, node: Any, inputs: list[Any]) -> _Tensor:
    axes = _axes(node, inputs)
    return _reshaped(inputs[0], lambda array: np.squeeze(array, None if axes is None else tuple(axes)))


def _unsqueeze(_reader: _Reader, node: Any, inputs: list[Any]) -> _Tensor:
    axes = _axes(node, inputs) or []
    return _reshaped(inputs[0], lambda array: np.expand_dims(array, tuple(axes)))


def _gemm(reader: _Reader, node: Any, inputs: list[Any]) -> _Tensor:
    attributes = _attributes(node)
    value, weight = _computed(inputs[0]), _weights(inputs[1], "the matrix")
    if attributes.get("transA"):
        raise _Refused("transA is not read")
    if value.index.ndim != 2 and value.index.shape[0] == 1:
        value = _Value(value.node, value.index.reshape(1, -1))
    if value.index.ndim != 2 or weight.ndim != 2:
        raise _Refused(f"its input has shape {value.index.shape}")
    weight = weight if attributes.get("transB") else np.ascontiguousarray(weight.T)
    if weight.shape[1] != value.index.shape[1]:
        raise _Refused(f"the matrix takes {weight.shape[1]} values, its input has {value.index.shape[1]}")
    groups, rows = value.index.shape[0], weight.shape[0]
    given = inputs[2] if len(inputs) > 2 and inputs[2] is not None else np.zeros(rows, weight.dtype)
    bias = np.broadcast_to(_weights(given, "the bias"), (groups, rows)).ravel()
    alpha, beta = float(attributes.get("alpha", 1.0)), float(attributes.get("beta", 1.0))
    scaled = weight if alpha == 1 else alpha * weight.astype(np.float64)
    shifted = bias if beta == 1 else beta * bias.astype(np.float64)
    result = reader.matrix(node, value, value.index, scaled, shifted, (groups, rows))
    if alpha != 1 or beta != 1:
        reader.rounded(result, _EPS if alpha != 1 else 0.0, _EPS * np.abs(shifted.astype(np.float64)))
    return result


def _matmul(reader: _Reader, node: Any, inputs: list[Any]) -> _Tensor:
    if isinstance(inputs[0], _Value) and isinstance(inputs[1], _Value):
        raise _Refused("it multiplies two computed tensors")
    if isinstance(inputs[0], _Value):
        value, weight = inputs[0], _weights(inputs[1], "the matrix")
        if weight.ndim != 2 or weight.shape[0] != value.index.shape[-1]:
            raise _Refused(f"shapes {value.index.shape} and {weight.shape} do not multiply")
        columns = value.index.reshape(-1, weight.shape[0])
        shape: tuple[int, ...] = (*value.index.shape[:-1], weight.shape[1])
        rows = np.ascontiguousarray(weight.T)
    else:
        rows, value = _weights(inputs[0], "the matrix"), _computed(inputs[1])
        index = value.index[:, None] if value.index.ndim == 1 else value.index
        if rows.ndim != 2 or rows.shape[1] != index.shape[-2] or index.shape[-1] != 1:
            raise _Refused(f"shapes {rows.shape} and {value.index.shape} do not multiply as matrix and column")
        columns = index.reshape(-1, rows.shape[1])
        shape = (*index.shape[:-2], rows.shape[0], 1) if value.index.ndim > 1 else (rows.shape[0],)
    bias = np.zeros(columns.shape[0] * rows.shape[0], rows.dtype)
    return reader.matrix(node, value, columns, rows, bias, shape)


def _add(reader: _Reader, node: Any, inputs: list[Any]) -> _Tensor:
    subtract = node.op_type == "Sub"
    left, right = inputs
    if isinstance(left, np.ndarray) and isinstance(right, np.ndarray):
        return left - right if subtract else left + right
    if isinstance(left, _Value) and isinstance(right, _Value):
        shape = np.broadcast_shapes(left.index.shape, right.index.shape)
        spread = [_Value(v.node, np.broadcast_to(v.index, shape).ravel()) for v in (left, right)]
        signs = (1.0, -1.0 if subtract else 1.0)
        maps = [
            _scaling(v.index, np.full(v.index.size, sign, np.float32), reader._size(v.node))
            for v, sign in zip(spread, signs, strict=True)
        ]
        return reader.affine(node, spread, maps, np.zeros(math.prod(shape), np.float32), shape)
    if isinstance(left, _Value):
        shift = _weights(right, "the constant")
        shift = -shift if subtract else shift
        fused = reader.add_bias(node.input[0], left, shift)
        return fused if fused is not None else reader.scaled(node, left, np.ones((), np.float32), shift)
    value, shift = _computed(right), _weights(left, "the constant")
    if subtract:
        return reader.scaled(node, value, np.full((), -1.0, np.float32), shift)
    fused = reader.add_bias(node.input[1], value, shift)
    return fused if fused is not None else reader.scaled(node, value, np.ones((), np.float32), shift)


def _mul(reader: _Reader, node: Any, inputs: list[Any]) -> _Tensor:
    left, right = inputs
    if isinstance(left, np.ndarray) and isinstance(right, np.ndarray):
        return left * right
    value, factor = (left, right) if isinstance(left, _Value) else (right, left)
    if isinstance(factor, _Value):
        raise _Refused("it multiplies two computed tensors")
    return reader.scaled(node, _computed(value), _weights(factor, "the factor"), np.zeros((), np.float32))


def _div(reader: _Reader, node: Any, inputs: list[Any]) -> _Tensor:
    if not isinstance(inputs[0], _Value):
        raise _Refused(
            "it divides by a computed tensor" if isinstance(inputs[1], _Value) else "it works on constants only"
        )
    divisor = _weights(inputs[1], "the divisor").astype(np.float64)
    if (divisor == 0).any():
        raise _Refused("it divides by zero")
    if (np.frexp(np.abs(divisor))[0] == 0.5).all():  # powers of two: 1/c is exact
        return reader.scaled(node, inputs[0], 1.0 / divisor, np.zeros((), np.float32))
    return reader.scaled(node, inputs[0], 1.0 / divisor, np.zeros(()), (_EPS, np.zeros(())))


def _relu(reader: _Reader, node: Any, inputs: list[Any]) -> _Tensor:
    slope = 0.0 if node.op_type == "Relu" else float(_attributes(node).get("alpha", np.float32(0.01)))
    if not 0 <= slope < 1:
        raise _Refused(f"its slope {slope} is not in [0, 1)")
    return reader.relu(node, _computed(inputs[0]), slope)


def _batch_norm(reader: _Reader, node: Any, inputs: list[Any]) -> _Tensor:
    attributes = _attributes(node)
    if attributes.get("training_mode"):
        raise _Refused("it is in training mode")
    value = _computed(inputs[0])
    gamma, beta, mean, variance = (_weights(t, "a statistic").astype(np.float64) for t in inputs[1:5])
    spread = variance + float(attributes.get("epsilon", np.float32(1e-5)))
    if (spread <= 0).any():
        raise _Refused("its variance is not positive")
    scale = gamma / np.sqrt(spread)
    shift = beta - mean * scale
    error = 4 * _EPS * (np.abs(beta) + np.abs(mean * scale))
    axes = (1, -1) + (1,) * (value.index.ndim - 2)
    return reader.scaled(node, value, scale.reshape(axes), shift.reshape(axes), (4 * _EPS, error.reshape(axes)))


def _concat(reader: _Reader, node: Any, inputs: list[Any]) -> _Tensor:
    axis = int(_attributes(node)["axis"])
    if all(isinstance(tensor, np.ndarray) for tensor in inputs):
        return np.concatenate(inputs, axis)
    if not all(isinstance(tensor, _Value) for tensor in inputs):
        raise _Refused("it joins constants and computed tensors")
    order = np.concatenate([np.full(v.index.shape, i) for i, v in enumerate(inputs)], axis)
    index = np.concatenate([v.index for v in inputs], axis).ravel()
    maps: list[LinearMap] = []
    for i, value in enumerate(inputs):
        mine = order.ravel() == i
        pointers = np.concatenate([[0], np.cumsum(mine)])
        maps.append(Sparse(np.ones(mine.sum(), np.float32), index[mine], pointers, columns=reader._size(value.node)))
    return reader.affine(node, list(inputs), maps, np.zeros(order.size, np.float32), order.shape)


_LOWERINGS: dict[str, Callable[[_Reader, Any, list[Any]], _Tensor]] = {
    "Add": _add,
    "BatchNormalization": _batch_norm,
    "Cast": _identity,
    "Concat": _concat,
    "Constant": _constant,
    "Div": _div,
    "Dropout": _identity,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "Identity": _identity,
    "LeakyRelu": _relu,
    "MatMul": _matmul,
    "Mul": _mul,
    "Relu": _relu,
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "Sub": _add,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
