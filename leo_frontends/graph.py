"""The network that grows while a model is lowered, and the tensors seen so far; what all frontends share.

A computed tensor is a node of the network and, for each of its elements, which value of that node it is, *of which
example of the batch*. So Flatten, Reshape, Transpose, Slice and the like do to an array of indices, batch axis
included, what NumPy does; and no lowering needs to know where the batch is: a node is made only if what it reads treats
all examples alike and keeps them apart (:meth:`Graph.split`). A model that takes any batch is lowered with three sizes
and must give one network (:func:`for_any_batch`): then the size was not used as a number either.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from leo_core.errors import UnsupportedModelError
from leo_core.linear import Conv, ConvTranspose, Dense, LinearMap, Select, Sparse
from leo_core.network import (
    INPUT,
    TAILS,
    Affine,
    Network,
    Node,
    Origin,
    Output,
    Own,
    Relu,
    Signature,
    free_name,
    reachable,
    sources_of,
)
from leo_core.plugins import Imported, Rounding
from leo_frontends.indices import is_identity, scaling, scattered

Array = NDArray[Any]

MIXES = "it does not do the same for every example of a batch"
ALONE = "with one example alone it computes something else"
_NOT_ROWS = "the output is not one row for every example of a batch"
#: The tails that look at one value at a time; the others need all values of an example along one axis.
_ELEMENTWISE = ("sigmoid", "tanh")


@final
@dataclass(frozen=True, eq=False)
class Value:
    """A computed tensor: element e is value ``index[e] % size`` of ``node``, of example ``index[e] // size``."""

    node: str
    index: NDArray[np.int64]


Tensor: TypeAlias = "Value | Array"


def elements(tensor: Tensor) -> Array:
    """An array with the tensor's shape: the index of a computed one, the numbers of a constant."""
    return tensor.index if isinstance(tensor, Value) else np.asarray(tensor)


def moved(tensor: Tensor, change: Callable[[Array], Array]) -> Tensor:
    """What an operator that only moves, repeats and drops elements makes of a tensor."""
    return Value(tensor.node, change(tensor.index)) if isinstance(tensor, Value) else change(tensor)


def turned(value: Value, axes: Sequence[int]) -> Value:
    """A tensor with its axes in another order."""
    return Value(value.node, value.index.transpose(axes))


def turned_back(value: Value, axes: Sequence[int]) -> Value:
    """A tensor whose axes were brought into that order as it was before."""
    return turned(value, [*np.argsort(axes)])


class Refused(Exception):  # noqa: N818 - it is an answer, not an error
    """A node cannot be lowered; the text says why."""


@final
@dataclass(frozen=True, eq=False)
class Split:
    """How the outputs of a node fall into examples.

    ``order`` (batch, units): for each example its outputs, in order. ``reads`` (units, …): what each reads, the
    same for every example.
    """

    order: NDArray[np.int64]
    reads: NDArray[np.int64]

    def same(self, array: Array) -> Array:
        """What is given for every output, cut to one example; raises :class:`Refused` where examples differ."""
        rows = np.asarray(array)[self.order]
        if (rows != rows[:1]).any():
            raise Refused(MIXES)
        first: Array = rows[0]
        return first

    def index(self, shape: Any) -> NDArray[np.int64]:
        """The index of a tensor of that shape that holds all outputs."""
        place = np.empty(self.order.size, np.int64)
        place[self.order.ravel()] = np.arange(self.order.size)
        return place.reshape(shape)


class Graph:
    """Nodes made so far, and what rounding some of them took.

    ``batch`` is the batch size it is lowered with, ``dtype`` what the model runs in.
    """

    def __init__(self, input_size: int, batch: int = 1, dtype: str = "float32") -> None:
        self.input_size, self.batch, self.dtype = input_size, batch, np.dtype(dtype)
        self.nodes: list[Node] = []
        self.rounding: dict[str, Rounding] = {}
        #: How far the numbers of a node may be off as the framework runs it, in units of roundoff of what it runs in.
        self.loose: dict[str, Rounding] = {}
        self._numbers: dict[str, tuple[Mapping[str, Array], float]] = {}
        #: How many ReLUs stand for layers that are none: clips, absolute values, maxima.
        self.added = 0
        self._tails: dict[str, tuple[str, Value, int | None]] = {}
        self._convolves = False

    def given(self, shape: Sequence[int]) -> Value:
        """The input as a tensor; ``shape`` has the batch axis, where the model has one."""
        return Value(INPUT, np.arange(self.batch * self.input_size).reshape(tuple(shape)))

    def split(self, value: Value, columns: Array) -> Split:
        """Outputs that read these elements of a tensor's node, (outputs, k), by example.

        Raises :class:`Refused` unless each reads one example only, and all examples are read alike.
        """
        example, reads = np.divmod(columns, self.size(value.node))
        return self._split(example, reads)

    def joined(self, values: Sequence[Value], columns: Array) -> Split:
        """Outputs that read one element of each of several tensors' nodes: ``columns`` (outputs, tensors)."""
        sizes = np.array([self.size(value.node) for value in values])
        example, reads = np.divmod(columns, np.maximum(sizes, 1))
        return self._split(example, reads)

    def gathered(self, values: Mapping[int, Value], which: Array, index: Array) -> Split:
        """Outputs that read element ``index`` of the tensor ``which`` of ``values``, or nothing where there is none.

        ``which`` has the outputs' shape. What reads nothing belongs to the example whose row it is in; ``reads`` are
        (which, unit) pairs. Raises :class:`Refused` as :meth:`split` does.
        """
        sizes = {i: max(1, self.size(value.node)) for i, value in values.items()}
        size = np.ones(which.size, np.int64)
        for i, found in sizes.items():
            size[which.ravel() == i] = found
        example, units = np.divmod(index, size)
        nothing = ~np.isin(which.ravel(), list(values))
        if nothing.any() and self.batch > 1:
            if which.shape[:1] != (self.batch,):
                raise Refused(MIXES)
            row = np.repeat(np.arange(self.batch), which.size // self.batch)
            if (example[~nothing] != row[~nothing]).any():
                raise Refused(MIXES)
            example = row
        return self._split(example[:, None], np.stack([which.ravel(), units], axis=1))

    def _split(self, example: Array, reads: Array) -> Split:
        """``example`` (outputs, k) that each output reads from, ``reads`` (outputs, …) what it reads there."""
        if not example.size:
            return Split(np.zeros((self.batch, 0), np.int64), reads[:0])
        if (example != example[:, :1]).any():
            raise Refused(MIXES)
        counts = np.bincount(example[:, 0], minlength=self.batch)
        if (counts != counts[0]).any():
            raise Refused(MIXES)
        order = np.argsort(example[:, 0], kind="stable").reshape(self.batch, -1)
        if (reads[order] != reads[order[:1]]).any():
            raise Refused(MIXES)
        return Split(order, reads[order[0]])

    def affine(
        self, origin: Origin, sources: Sequence[str], maps: Sequence[LinearMap], bias: Array, split: Split, shape: Any
    ) -> Value:
        """Add an affine node, and its values as a tensor of ``shape``; maps and bias are those of one example.

        From the first convolution on, a tensor of (batch, channels, *positions) makes a node of that layout.
        """
        name, index = self._name(origin), split.index(shape)
        self._convolves = self._convolves or any(isinstance(linear, Conv | ConvTranspose) for linear in maps)
        images = self._convolves and index.ndim in (3, 4) and len(index) == self.batch
        images = images and is_identity(index, index.size)
        self.nodes.append(Affine(name, tuple(sources), tuple(maps), bias, origin, index.shape[1:] if images else ()))
        return Value(name, index)

    def stored(self, *values: Value) -> tuple[int, ...]:
        """The axes of tensors of one rank in the order in which the first node of images among theirs has them.

        What is made of tensors element by element is made in that order: so channels that come last in a tensor come
        first in each node. Any order would be right.
        """
        for value in values:
            axes = self._axes(value)
            if axes:
                return axes
        return tuple(range(values[0].index.ndim)) if values else ()

    def _axes(self, value: Value) -> tuple[int, ...]:
        """Those of a tensor of images, the batch first; else none."""
        node, index = self._node(value.node), value.index
        if isinstance(node, Relu):
            node = self._node(node.source)
        shape = node.shape if isinstance(node, Affine) else ()
        if not shape or not index.size or len(index) != self.batch:
            return ()
        steps = np.cumprod((1, *shape[:0:-1]))[::-1]
        first = index[(0,) * index.ndim]
        ends = [index[tuple(-1 if axis == other else 0 for other in range(index.ndim))] for axis in range(index.ndim)]
        # an axis that goes far enough for a step along an axis of the node's, but not along the one before
        at = {a: int((steps > abs(end - first)).sum()) for a, end in enumerate(ends) if a and end != first}
        free = [place for place in range(len(shape)) if place not in at.values()]
        still = [a for a in range(1, index.ndim) if a not in at]
        at.update((a, free[i] if i < len(free) else len(shape)) for i, a in enumerate(still))
        return (0, *sorted(range(1, index.ndim), key=at.__getitem__))

    def moved_by(self, value: Value) -> Value | None:
        """A tensor by what its node reads, -1 where it is zero; None where the node does more than move values."""
        node = self._node(value.node)
        if not isinstance(node, Affine) or len(node.maps) > 1 or node.bias.any():
            return None
        (linear,) = node.maps
        if not isinstance(linear, Sparse) or linear.terms > 1:
            return None
        entries = linear.arrays()
        if (entries["data"] != 1).any():
            return None
        reads = np.full(linear.rows, -1)
        reads[np.flatnonzero(np.diff(entries["indptr"]))] = entries["indices"]
        example, unit = np.divmod(value.index, linear.rows)
        index = np.where(reads[unit] < 0, -1, example * linear.columns + reads[unit])
        return Value(node.sources[0], index)

    def by_value(self, tensor: Value, array: Array) -> Array:
        """What is given for each element of a tensor that holds all of a node, broadcast, for each of its values."""
        order = np.argsort(tensor.index.ravel()).reshape(self.batch, -1)
        return Split(order, order).same(np.broadcast_to(array, tensor.index.shape).ravel())

    def relu(self, origin: Origin, value: Value, slope: Array) -> Value:
        """Add a ReLU with one slope per element; an affine identity comes first where one is needed."""
        axes = self.stored(value)
        slope = slope.reshape(value.index.shape).transpose(axes).ravel()
        return turned_back(self._relu(self._laid(origin, value, axes), turned(value, axes), slope), axes)

    def _laid(self, origin: Origin, value: Value, axes: Sequence[int]) -> Origin:
        """With the shape of one example of a tensor whose axes, so turned, are those of its node."""
        shape = value.index.shape
        if len(shape) < 3 or shape[0] != self.batch or axes[0] != 0:
            return origin
        return replace(origin, shape=shape[1:], axes=tuple(int(axis) - 1 for axis in np.argsort(axes)[1:]))

    def _relu(self, origin: Origin, value: Value, slope: Array) -> Value:
        split = self.split(value, value.index.reshape(-1, 1))
        source = self._node(value.node)
        if not (isinstance(source, Affine) and is_identity(split.reads, source.size)):
            value = self.pick(origin, value)
        name = self._name(origin)
        self.nodes.append(Relu(name, value.node, split.same(slope), origin))
        return Value(name, split.index(value.index.shape))

    def pick(self, origin: Origin, value: Value) -> Value:
        """An affine node that holds just the elements of ``value``, in order."""
        split = self.split(value, value.index.reshape(-1, 1))
        select = Select(split.reads.ravel(), columns=self.size(value.node))
        bias = np.zeros(select.rows, np.float32)
        return self.affine(origin, [value.node], [select], bias, split, value.index.shape)

    def scaled(
        self, origin: Origin, value: Value, scale: Array, shift: Array, rounding: tuple[float, Array] | None = None
    ) -> Value:
        """scale · value + shift, element by element, broadcast."""
        shape = np.broadcast_shapes(value.index.shape, scale.shape, shift.shape)
        value = Value(value.node, np.broadcast_to(value.index, shape))
        if (scale == 1).all() and (shift == 0).all():
            return value
        axes = self.stored(value)
        value = turned(value, axes)
        scale, shift = (np.broadcast_to(given, shape).transpose(axes).ravel() for given in (scale, shift))
        split = self.split(value, value.index.reshape(-1, 1))
        if rounding is not None and not is_identity(split.reads, self.size(value.node)):
            value = self.pick(origin, value)  # a layer with numbers of its own works value by value
            split = self.split(value, value.index.reshape(-1, 1))
        factors = split.same(scale)
        linear: LinearMap | None = None
        if self._convolves:
            linear = _by_channel(split, factors, value.index.shape, self.size(value.node))
        if linear is None:
            linear = scaling(split.reads.ravel(), factors, self.size(value.node))
        bias = split.same(shift)
        result = turned_back(self.affine(origin, [value.node], [linear], bias, split, value.index.shape), axes)
        if rounding is not None:
            relative, absolute = rounding
            self.rounding[result.node] = Rounding(relative, self.by_value(result, absolute).astype(np.float64))
        return result

    def matrix(self, origin: Origin, value: Value, columns: Array, weight: Array, bias: Array, shape: Any) -> Value:
        """weight (rows × k) applied to each row of ``columns`` (groups × k), results one after the other.

        ``bias`` has one entry per result.
        """
        rows, k = weight.shape
        if not k:
            raise Refused("its matrix takes no values")
        if (np.diff(np.sort(columns, axis=1), axis=1) == 0).any():  # one value is used twice
            value = self.pick(origin, Value(value.node, columns))
            columns = value.index
        size = self.size(value.node)
        groups = self.split(value, columns)
        order = (groups.order[:, :, None] * rows + np.arange(rows)).reshape(self.batch, -1)
        split = Split(order, groups.reads)
        if len(groups.reads) == 1:
            linear: LinearMap = Dense(scattered(weight, groups.reads[0], size))
        else:
            index = np.repeat(groups.reads, rows, axis=0).ravel()
            pointers = np.arange(0, len(groups.reads) * rows * k + 1, k)
            linear = Sparse(np.tile(weight, (len(groups.reads), 1)).ravel(), index, pointers, columns=size)
        return self.affine(origin, [value.node], [linear], split.same(np.ravel(bias)), split, shape)

    def rounded(self, value: Value, relative: float, absolute: Array) -> None:
        """Say how far a node's stored numbers may be from the model's; ``absolute`` has one entry per unit."""
        self.rounding[value.node] = Rounding(relative, absolute)

    def loosen(self, value: Value, weights: float, bias: Array | float = 0.0) -> None:
        """Say how far a node's numbers may be from the stored ones as the framework runs it, in units of roundoff."""
        spread = np.broadcast_to(np.asarray(bias, np.float64), (self.size(value.node),))
        self.loose[value.node] = Rounding(weights, spread)

    def remember(self, result: Value, numbers: Mapping[str, Array], epsilon: float = 0.0) -> None:
        """Keep what a layer that is rounded stores itself, by name, each broadcast to the result's shape."""
        self._numbers[result.node] = {name: self.by_value(result, array) for name, array in numbers.items()}, epsilon

    def sliced(self, value: Value, axis: int, part: slice) -> Value:
        """The elements along an axis that a slice takes, which may end beyond them.

        Raises :class:`Refused` for the first hundred examples of a batch, say: they are all of them in a small one.
        """
        length = value.index.shape[axis]
        far = 2**31 - 1  # "to the end", as exporters write it
        ends = [end for end in (part.start, part.stop) if end is not None and -far <= end < far]
        beyond = any(not -length <= end <= length for end in ends)
        if beyond and length and self.batch > 1:
            example = np.moveaxis(value.index // self.size(value.node), axis, 0)
            if (example != example[:1]).any():
                raise Refused(MIXES)
        index = np.moveaxis(np.moveaxis(value.index, axis, 0)[part], 0, axis)
        return Value(value.node, index)

    def constant(self, origin: Origin, array: Array) -> Value:
        """A node that is the same for every input; the first axis of ``array`` is the batch, if there is one.

        Raises :class:`Refused` where its rows are not alike.
        """
        if self.batch > 1 and array.shape[:1] != (self.batch,):
            raise Refused(_NOT_ROWS)
        example = np.repeat(np.arange(self.batch), array.size // self.batch)
        split = self._split(example[:, None], np.tile(np.arange(array.size // self.batch), self.batch)[:, None])
        bias = split.same(array.ravel())
        return self.affine(origin, [INPUT], [Sparse.zero(len(bias), self.input_size)], bias, split, array.shape)

    def cut(self, name: str, value: Value, axis: int = -1) -> Value:
        """Note one of :data:`leo_core.network.TAILS`, which stays outside the network; its result may only be output.

        ``axis`` is that of a softmax.
        """
        self.split(value, value.index.reshape(-1, 1))
        ndim = value.index.ndim
        if name not in TAILS or (name not in _ELEMENTWISE and not ndim):
            raise Refused(_only_at_the_end(name))
        if name not in _ELEMENTWISE:
            length = value.index.shape[axis % ndim]
            self.split(value, np.moveaxis(value.index, axis, -1).reshape(-1, length))  # no two examples together
        marker = f"\0{name}{len(self._tails)}"  # no node's name
        self._tails[marker] = name, value, None if name in _ELEMENTWISE else axis % ndim
        return Value(marker, np.arange(value.index.size).reshape(value.index.shape))

    def imported(
        self,
        where: str,
        results: Sequence[Tensor],
        origins: Sequence[Origin],
        signature: Signature,
        notes: tuple[str, ...] = (),
    ) -> Imported:
        """The network that computes ``results``, the outputs of ``signature``, with everything a user should be told.

        The shape of an output is that of its result without the batch axis, where it has one; what it ends in is filled
        in here. ``origins`` are those of nodes that only put an output together.
        Raises :class:`UnsupportedModelError` where a tail is not the last thing done, or where a result is not one row
        for every example.
        """
        outputs, values = [], []
        try:
            for result, output, origin in zip(results, signature.outputs, origins, strict=True):
                finished, value = self._last(result, output)
                outputs.append(finished)
                values.append(value if isinstance(value, Value) else self.constant(origin, value))
            name = self._whole(origins[0], values[0] if len(values) == 1 else self._beside(origins[0], values))
        except Refused as reason:
            raise UnsupportedModelError(where, [str(reason)]) from None
        signature = replace(signature, outputs=tuple(outputs))
        nodes, name = biased(reachable(self.nodes, name), name, {*self.rounding, *self.loose})
        network = Network(self.input_size, nodes, name, signature)
        kept = {node.name for node in nodes}
        rounding, loose = ({name: found[name] for name in found.keys() & kept} for found in (self.rounding, self.loose))
        if self._convolves:  # in deep networks on images a rounding would come to more than any tolerance
            network, rounding = network.with_nodes(*map(self._with_own, network.nodes)), {}
        return Imported(network, (*notes, *self._notes(network.signature.ending)), rounding, loose=loose)

    def _with_own(self, node: Node) -> Node:
        """A node that was rounded, with the numbers of its layer."""
        if not isinstance(node, Affine) or node.name not in self.rounding:
            return node
        nothing = Rounding(0.0, np.zeros(node.size))
        numbers, epsilon = self._numbers.get(node.name, ({}, 0.0))
        if node.shape:
            channels = {name: array.reshape(node.shape[0], -1) for name, array in numbers.items()}
            if all((array == array[:, :1]).all() for array in channels.values()):
                numbers = {name: array[:, 0] for name, array in channels.items()}
        own = Own(self.rounding[node.name], self.loose.get(node.name, nothing), numbers, epsilon)
        return replace(node, own=own)

    def _last(self, result: Tensor, output: Output) -> tuple[Output, Tensor]:
        """(an output with the tail that ``result`` is of, if any; the tensor that goes into it)."""
        if not isinstance(result, Value) or result.node not in self._tails:
            return output, result
        name, value, axis = self._tails[result.node]
        before = Value(value.node, value.index.ravel()[result.index])
        if axis is None:
            return replace(output, tail=name), before
        along = _along(name, output.shape, result.index, np.moveaxis(_counted(value.index), axis, -1))
        return replace(output, tail=name, axis=along), before

    def _beside(self, origin: Origin, values: Sequence[Value]) -> Value:
        """Several outputs as one tensor: of each example all values, one output after the other."""
        if self.batch > 1 and any(value.index.shape[:1] != (self.batch,) for value in values):
            raise Refused(_NOT_ROWS)
        nodes = list(dict.fromkeys(value.node for value in values))
        rows = [value.index.reshape(self.batch, -1) for value in values]
        index = np.concatenate(rows, axis=1)
        if len(nodes) == 1:
            return Value(nodes[0], index)
        places = [np.full(row.shape, nodes.index(value.node)) for row, value in zip(rows, values, strict=True)]
        which = np.concatenate(places, axis=1)
        split = self.gathered({i: Value(name, index) for i, name in enumerate(nodes)}, which, index.ravel())
        of, units = split.reads.T
        maps = [
            Sparse(
                np.ones(np.count_nonzero(of == i), np.float32),
                units[of == i],
                np.concatenate([[0], np.cumsum(of == i)]),
                columns=self.size(name),
            )
            for i, name in enumerate(nodes)
        ]
        return self.affine(origin, nodes, maps, np.zeros(len(of), np.float32), split, which.shape)

    def _whole(self, origin: Origin, value: Value) -> str:
        """The name of a node that holds just the elements of ``value``, row by row an example."""
        split = self.split(value, value.index.reshape(-1, 1))
        rows = self.batch == 1 or value.index.shape[:1] == (self.batch,)
        if not (rows and is_identity(split.order, value.index.size)):
            raise Refused(_NOT_ROWS)
        if value.node != INPUT and is_identity(split.reads, self.size(value.node)):
            return value.node
        return self.pick(origin, value).node

    def _notes(self, ending: str) -> tuple[str, ...]:
        notes = []
        if self.added:
            notes.append(f"{self.added} ReLUs stand for layers that are none (clips, absolute values, maxima), exactly")
        if ending:
            notes.append(f"the {ending} at the end is kept outside and put back; the change is of what enters it")
        return tuple(notes)

    def size(self, name: str) -> int:
        """How many values the input or a node has. Raises :class:`Refused` for what a tail computed."""
        if name in self._tails:
            raise Refused(f"it reads the result of a {self._tails[name][0]}; {_only_at_the_end(self._tails[name][0])}")
        node = self._node(name)
        return self.input_size if node is None else node.size

    def tail_of(self, tensor: Tensor) -> str:
        """The tail whose result a tensor is of, or an empty text."""
        return self._tails[tensor.node][0] if isinstance(tensor, Value) and tensor.node in self._tails else ""

    def _node(self, name: str) -> Node | None:
        return next((node for node in reversed(self.nodes) if node.name == name), None)

    def _name(self, origin: Origin) -> str:
        base = origin.layer or origin.kind
        return free_name(base, {node.name for node in self.nodes} | {INPUT})


def biased(nodes: Sequence[Node], output: str, apart: Container[str]) -> tuple[tuple[Node, ...], str]:
    """Nodes and the output's name, with A x and a constant added to it (MatMul and Add) as one node.

    Only where nothing else reads A x, and neither is in ``apart`` (those that were rounded).
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
            and first.name not in apart
            and node.name not in apart
        ):
            shape = first.shape or node.shape
            made[first.name] = Affine(first.name, first.sources, first.maps, node.bias, first.origin, shape)
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
    return f"a {name} has no affine + ReLU form; only one at the end, along an axis of an output, is kept outside"


def _along(name: str, shape: tuple[int, ...], index: Array, groups: Array) -> int | None:
    """The axis of an output's shape that a softmax was taken along, None for all of it.

    ``index`` are the softmax's values that the output holds, ``groups`` (…, length) those that it takes together. They
    may have been moved since, group by group.
    """
    length, group = groups.shape[-1], np.empty(groups.size, np.int64)
    group[groups.reshape(-1, length)] = np.arange(groups.size // max(1, length))[:, None]
    rows = index.reshape(-1, *shape)
    axes: list[int | None] = [None, *range(len(shape))]
    for axis in axes:
        together = rows.reshape(len(rows), -1) if axis is None else np.moveaxis(rows, axis + 1, -1)
        if together.shape[-1] == length:
            together = np.sort(together.reshape(-1, length), axis=1)
            of = group[together]
            if (of == of[:, :1]).all() and (np.diff(together, axis=1) > 0).all():
                return axis
    raise Refused(f"a {name} is kept outside where it is taken along one axis of an output, which is of shape {shape}")


def _counted(array: Array) -> Array:
    """The places of an array's elements, in its shape."""
    return np.arange(array.size).reshape(array.shape)


def _by_channel(split: Split, factors: Array, shape: tuple[int, ...], size: int) -> Conv | None:
    """One factor for each value of an example as a depthwise convolution, where each channel has one.

    None also where the tensor, of this ``shape``, is not the node's values as (batch, channels, *positions).
    """
    batch, units = split.order.shape
    whole = is_identity(split.order, batch * units) and is_identity(split.reads, size)
    if not whole or len(shape) not in (3, 4) or shape[0] != batch or math.prod(shape[2:]) == 1:
        return None
    channels = factors.reshape(shape[1], -1)
    if (channels != channels[:, :1]).any() or (channels[:, 0] == 1).all():
        return None
    return Conv.of(channels[:, :1].reshape(-1, 1, *([1] * (len(shape) - 2))), shape[2:], groups=shape[1])
