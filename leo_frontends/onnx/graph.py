"""The network that grows while an ONNX graph is lowered, and the tensors seen so far.

A computed tensor is a node of the network and, for each of its elements, the index of that node's value: so
Flatten, Reshape and Transpose only permute indices, and end up in the columns of the next matrix. The batch
axis, where there is one, is carried with size one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from leo_core.linear import Dense, Diagonal, LinearMap, Select, Sparse
from leo_core.network import INPUT, Affine, Node, Origin, Relu
from leo_core.plugins import Rounding

Array = NDArray[Any]


@final
@dataclass(frozen=True, eq=False)
class Value:
    """A computed tensor: element e is value ``index[e]`` of node ``node``."""

    node: str
    index: NDArray[np.int64]


Tensor: TypeAlias = "Value | Array"


class Refused(Exception):  # noqa: N818 - it is an answer, not an error
    """A node cannot be lowered; the text says why."""


class Graph:
    """Nodes made so far, and what rounding some of them took; ``batch`` is the batch size the file fixed."""

    def __init__(self, input_size: int, batch: int, uses: dict[str, int]) -> None:
        self.input_size, self.batch, self._uses = input_size, batch, uses
        self.nodes: list[Node] = []
        self.rounding: dict[str, Rounding] = {}

    def affine(self, onnx_node: Any, sources: list[Value], maps: list[LinearMap], bias: Array, shape: Any) -> Value:
        """Add an affine node whose output has ``shape``."""
        name = self._name(onnx_node)
        self.nodes.append(
            Affine(name, tuple(s.node for s in sources), tuple(maps), bias, Origin(onnx_node.name, onnx_node.op_type))
        )
        return Value(name, np.arange(len(bias)).reshape(shape))

    def relu(self, onnx_node: Any, value: Value, slope: Array) -> Value:
        """Add a ReLU with one slope per element; an affine identity comes first where one is needed."""
        source = self._node(value.node)
        if not (isinstance(source, Affine) and is_identity(value.index, source.size)):
            value = self.pick(onnx_node, value)
        name = self._name(onnx_node)
        size = value.index.size
        self.nodes.append(Relu(name, value.node, slope, Origin(onnx_node.name, onnx_node.op_type)))
        return Value(name, np.arange(size).reshape(value.index.shape))

    def pick(self, onnx_node: Any, value: Value) -> Value:
        """An affine node that holds just the elements of ``value``, in order."""
        select = Select(value.index.ravel(), columns=self.size(value.node))
        return self.affine(onnx_node, [value], [select], np.zeros(value.index.size, np.float32), value.index.shape)

    def scaled(
        self, onnx_node: Any, value: Value, scale: Array, shift: Array, rounding: tuple[float, Array] | None = None
    ) -> Value:
        """scale · value + shift, element by element, broadcast."""
        shape = np.broadcast_shapes(value.index.shape, scale.shape, shift.shape)
        index = np.broadcast_to(value.index, shape).ravel()
        scale, shift = np.broadcast_to(scale, shape).ravel(), np.broadcast_to(shift, shape).ravel()
        if (scale == 1).all() and (shift == 0).all():
            return Value(value.node, index.reshape(shape))
        linear = scaling(index, scale, self.size(value.node))
        result = self.affine(onnx_node, [value], [linear], shift, shape)
        if rounding is not None:
            relative, absolute = rounding
            bias = np.broadcast_to(absolute, shape).ravel().astype(np.float64)
            self.rounding[result.node] = Rounding(relative, bias)
        return result

    def rounded(self, value: Value, relative: float, absolute: Array) -> None:
        """Say how far a node's stored numbers may be from the model's."""
        self.rounding[value.node] = Rounding(relative, absolute)

    def matrix(self, onnx_node: Any, value: Value, columns: Array, weight: Array, bias: Array, shape: Any) -> Value:
        """weight (rows × k) applied to each row of ``columns`` (groups × k), results one after the other."""
        size = self.size(value.node)
        groups, _ = columns.shape
        rows = weight.shape[0]
        if (np.diff(np.sort(columns, axis=1), axis=1) == 0).any():
            raise Refused("one value is used twice by one matrix")
        if groups == 1:
            linear: LinearMap = Dense(_scatter(weight, columns[0], size))
        else:
            index = np.repeat(columns, rows, axis=0).ravel()
            pointers = np.arange(0, groups * rows * weight.shape[1] + 1, max(1, weight.shape[1]))
            linear = Sparse(np.tile(weight, (groups, 1)).ravel(), index, pointers, columns=size)
        return self.affine(onnx_node, [value], [linear], bias, shape)

    def add_bias(self, name: str, value: Value, bias: Array) -> Value | None:
        """Put a constant into the bias of the affine node just made, if no other reads it and its bias is zero."""
        last = self.nodes[-1] if self.nodes else None
        if (
            not isinstance(last, Affine)
            or last.name != value.node
            or last.bias.any()
            or last.name in self.rounding
            or self._uses.get(name, 0) != 1
            or not is_identity(value.index, last.size)
        ):
            return None
        try:
            spread = np.broadcast_to(bias, value.index.shape)
        except ValueError:
            return None
        self.nodes[-1] = Affine(last.name, last.sources, last.maps, spread.ravel(), last.origin)
        return value

    def constant(self, onnx_node: Any, array: Array) -> Value:
        """A node that is the same for every input."""
        nothing = Sparse.zero(array.size, self.input_size)
        return self.affine(onnx_node, [Value(INPUT, np.zeros(0))], [nothing], array.ravel(), array.shape)

    def whole(self, onnx_node: Any, value: Value) -> str:
        """The name of a node that holds just the elements of ``value``, in order."""
        if value.node != INPUT and is_identity(value.index, self.size(value.node)):
            return value.node
        return self.pick(onnx_node, value).node

    def size(self, name: str) -> int:
        """How many values the input or a node has."""
        node = self._node(name)
        return self.input_size if node is None else node.size

    def _node(self, name: str) -> Node | None:
        return next((node for node in reversed(self.nodes) if node.name == name), None)

    def _name(self, onnx_node: Any) -> str:
        base = onnx_node.name or (onnx_node.output[0] if onnx_node.output else "") or onnx_node.op_type
        taken = {node.name for node in self.nodes} | {INPUT}
        name, count = base, 1
        while name in taken:
            count += 1
            name = f"{base}_{count}"
        return name


def is_identity(index: NDArray[np.int64], size: int) -> bool:
    """Whether an index takes everything in order."""
    return index.size == size and bool((index.ravel() == np.arange(size)).all())


def _scatter(weight: Array, index: NDArray[np.int64], size: int) -> Array:
    if is_identity(index, size):
        return weight
    matrix = np.zeros((weight.shape[0], size), weight.dtype)
    matrix[:, index] = weight
    return matrix


def scaling(index: NDArray[np.int64], scale: Array, size: int) -> LinearMap:
    """y_i = scale_i · x[index_i], as the simplest map."""
    if (scale == 1).all():
        return Select(index, columns=size)
    if is_identity(index, size):
        return Diagonal(scale)
    return Sparse(scale, index, np.arange(len(index) + 1), columns=size)
