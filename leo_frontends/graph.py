"""The network that grows while a model is lowered, and the tensors seen so far; what all frontends share.

A computed tensor is a node of the network and, for each of its elements, the index of that node's value: so
Flatten, Reshape and Transpose only permute indices, and end up in the columns of the next matrix. The batch
axis, where there is one, is carried with size one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from leo_core.errors import UnsupportedModelError
from leo_core.linear import Dense, Diagonal, LinearMap, Select, Sparse
from leo_core.network import INPUT, Affine, Network, Node, Origin, Relu, Signature, free_name, reachable, sources_of
from leo_core.plugins import Imported, Rounding

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
    """Nodes made so far, and what rounding some of them took.

    ``batch`` is the batch size the model fixed; ``dtype`` is what it runs in, ``output`` the tensor that is its output.
    """

    def __init__(self, input_size: int, batch: int = 1, dtype: str = "float32", output: str = "") -> None:
        self.input_size, self.batch, self.dtype, self.output = input_size, batch, np.dtype(dtype), output
        self.nodes: list[Node] = []
        self.rounding: dict[str, Rounding] = {}
        #: How many ReLUs stand for layers that are none: clips, absolute values, maxima.
        self.added = 0
        #: One of :data:`leo_core.network.TAILS` that was met, and the tensor it was to be applied to.
        self.tail: tuple[str, Value] | None = None

    def affine(self, origin: Origin, sources: list[Value], maps: list[LinearMap], bias: Array, shape: Any) -> Value:
        """Add an affine node whose output has ``shape``."""
        name = self._name(origin)
        self.nodes.append(Affine(name, tuple(s.node for s in sources), tuple(maps), bias, origin))
        return Value(name, np.arange(len(bias)).reshape(shape))

    def relu(self, origin: Origin, value: Value, slope: Array) -> Value:
        """Add a ReLU with one slope per element; an affine identity comes first where one is needed."""
        source = self._node(value.node)
        if not (isinstance(source, Affine) and is_identity(value.index, source.size)):
            value = self.pick(origin, value)
        name = self._name(origin)
        size = value.index.size
        self.nodes.append(Relu(name, value.node, slope, origin))
        return Value(name, np.arange(size).reshape(value.index.shape))

    def pick(self, origin: Origin, value: Value) -> Value:
        """An affine node that holds just the elements of ``value``, in order."""
        select = Select(value.index.ravel(), columns=self.size(value.node))
        return self.affine(origin, [value], [select], np.zeros(value.index.size, np.float32), value.index.shape)

    def scaled(
        self, origin: Origin, value: Value, scale: Array, shift: Array, rounding: tuple[float, Array] | None = None
    ) -> Value:
        """scale · value + shift, element by element, broadcast."""
        shape = np.broadcast_shapes(value.index.shape, scale.shape, shift.shape)
        index = np.broadcast_to(value.index, shape).ravel()
        scale, shift = np.broadcast_to(scale, shape).ravel(), np.broadcast_to(shift, shape).ravel()
        if (scale == 1).all() and (shift == 0).all():
            return Value(value.node, index.reshape(shape))
        linear = scaling(index, scale, self.size(value.node))
        result = self.affine(origin, [value], [linear], shift, shape)
        if rounding is not None:
            relative, absolute = rounding
            bias = np.broadcast_to(absolute, shape).ravel().astype(np.float64)
            self.rounding[result.node] = Rounding(relative, bias)
        return result

    def rounded(self, value: Value, relative: float, absolute: Array) -> None:
        """Say how far a node's stored numbers may be from the model's."""
        self.rounding[value.node] = Rounding(relative, absolute)

    def matrix(self, origin: Origin, value: Value, columns: Array, weight: Array, bias: Array, shape: Any) -> Value:
        """weight (rows × k) applied to each row of ``columns`` (groups × k), results one after the other."""
        if (np.diff(np.sort(columns, axis=1), axis=1) == 0).any():  # one value is used twice
            value = self.pick(origin, Value(value.node, columns))
            columns = value.index
        size = self.size(value.node)
        groups, _ = columns.shape
        rows = weight.shape[0]
        if groups == 1:
            linear: LinearMap = Dense(_scatter(weight, columns[0], size))
        else:
            index = np.repeat(columns, rows, axis=0).ravel()
            pointers = np.arange(0, groups * rows * weight.shape[1] + 1, max(1, weight.shape[1]))
            linear = Sparse(np.tile(weight, (groups, 1)).ravel(), index, pointers, columns=size)
        return self.affine(origin, [value], [linear], bias, shape)

    def constant(self, origin: Origin, array: Array) -> Value:
        """A node that is the same for every input."""
        nothing = Sparse.zero(array.size, self.input_size)
        return self.affine(origin, [Value(INPUT, np.zeros(0))], [nothing], array.ravel(), array.shape)

    def whole(self, origin: Origin, value: Value) -> str:
        """The name of a node that holds just the elements of ``value``, in order."""
        if value.node != INPUT and is_identity(value.index, self.size(value.node)):
            return value.node
        return self.pick(origin, value).node

    def cut(self, name: str, value: Value, *, last: bool = True) -> Value:
        """Note a function that stays outside the network, of a vector, if it may be the last thing done."""
        if self.tail is not None or value.index.ndim != 2 or not last:
            raise Refused(_only_at_the_end(name))
        self.tail = name, value
        return value

    def imported(
        self, where: str, result: Value, origin: Origin, signature: Signature, notes: tuple[str, ...] = ()
    ) -> Imported:
        """The network that computes ``result``, with everything a user should be told.

        Raises :class:`UnsupportedModelError` where a softmax or sigmoid, say, is not the last thing done.
        """
        tail = ""
        if self.tail is not None:
            tail, value = self.tail
            if value is not result:
                raise UnsupportedModelError(where, [_only_at_the_end(tail)])
        name = self.whole(origin, result)
        nodes, name = biased(reachable(self.nodes, name), name, self.rounding)
        network = Network(self.input_size, nodes, name, replace(signature, tail=tail))
        rounding = {node.name: self.rounding[node.name] for node in nodes if node.name in self.rounding}
        return Imported(network, (*notes, *self._notes()), rounding)

    def _notes(self) -> tuple[str, ...]:
        notes = []
        if self.added:
            notes.append(f"{self.added} ReLUs stand for layers that are none (clips, absolute values, maxima), exactly")
        if self.tail is not None:
            notes.append(f"the {self.tail[0]} at the end is kept outside and put back; the change is of what enters it")
        return tuple(notes)

    def size(self, name: str) -> int:
        """How many values the input or a node has."""
        node = self._node(name)
        return self.input_size if node is None else node.size

    def _node(self, name: str) -> Node | None:
        return next((node for node in reversed(self.nodes) if node.name == name), None)

    def _name(self, origin: Origin) -> str:
        base = origin.layer or origin.kind
        return free_name(base, {node.name for node in self.nodes} | {INPUT})


def biased(nodes: Sequence[Node], output: str, rounding: Container[str]) -> tuple[tuple[Node, ...], str]:
    """Nodes and the output's name, with A x and a constant added to it (MatMul and Add) as one node.

    Only where nothing else reads A x, and neither was rounded.
    """
    readers = Counter([output, *(source for node in nodes for source in sources_of(node))])
    made: dict[str, Node] = {}
    renamed: dict[str, str] = {}
    for node in nodes:
        if renamed.keys() & set(sources_of(node)):
            node = reading(node, renamed)
        first = made.get(sources_of(node)[0])
        if (
            isinstance(node, Affine)
            and isinstance(first, Affine)
            and len(node.sources) == 1
            and isinstance(node.maps[0], Select)
            and node.maps[0].is_identity
            and not first.bias.any()
            and readers[first.name] == 1
            and first.name not in rounding
            and node.name not in rounding
        ):
            made[first.name] = Affine(first.name, first.sources, first.maps, node.bias, first.origin)
            readers[first.name] = readers[node.name]
            renamed[node.name] = first.name
        else:
            made[node.name] = node
    return tuple(made.values()), renamed.get(output, output)


def reading(node: Node, renamed: Mapping[str, str]) -> Node:
    """The node with other names for what it reads."""
    if isinstance(node, Relu):
        return replace(node, source=renamed.get(node.source, node.source))
    return replace(node, sources=tuple(renamed.get(source, source) for source in node.sources))


def _only_at_the_end(name: str) -> str:
    return f"a {name} has no affine + ReLU form; only one at the end, of a vector, is kept outside"


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
