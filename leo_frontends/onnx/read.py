"""Reading an ONNX graph: its tensors one by one, each node by its lowering, or computed where all is constant."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, final

import numpy as np

from leo_core.errors import FormatError, UnsupportedModelError
from leo_core.network import Origin, Output, Signature
from leo_core.plugins import Imported
from leo_frontends.batches import for_any_batch
from leo_frontends.graph import Graph, Refused, Tensor, Value, elements
from leo_frontends.onnx.folding import folded
from leo_frontends.onnx.lowerings import LOWERINGS
from leo_frontends.onnx.op import Op
from leo_frontends.onnx.reasons import why_not
from leo_frontends.onnx.run import Seen, inlined, runner, watched

#: The oldest opset that is read: before, operators broadcast and normalise by other rules.
OLDEST = 7
#: ONNX's numbers of float types.
_FLOATS = {1: "float32", 10: "float16", 11: "float64", 16: "bfloat16"}
_HALVES = (10, 16)
#: The names of ONNX's own operators' domain.
_OWN = ("", "ai.onnx")


def read_model(model: Any, where: str, source: Any = None) -> Imported:
    """Lower a loaded ``onnx.ModelProto``; ``source`` is what is run to compare with, the model or its path.

    Raises :class:`UnsupportedModelError` listing every node that is not read, and :class:`FormatError` for what is not
    a well-formed model.
    """
    try:
        return _Model(_inlined(model, where), where, model if source is None else source).imported()
    except (KeyError, IndexError, ValueError, TypeError, AttributeError, OverflowError, MemoryError) as error:
        raise FormatError(f"{where}: the ONNX graph is malformed ({type(error).__name__}: {error})") from None


def _inlined(model: Any, where: str) -> Any:
    try:
        return inlined(model)
    except Exception as error:  # of the C++ library
        raise UnsupportedModelError(where, [f"its own functions cannot be written out ({error})"]) from None


@final
@dataclass(frozen=True)
class _Input:
    """The input: ``dims`` as it is read, with a batch axis first where it is ``batched``; ``batch`` 0: any."""

    name: str
    dims: tuple[int, ...]
    batch: int
    batched: bool
    kind: int

    @property
    def shape(self) -> tuple[int, ...]:
        """That of one example."""
        return self.dims[1:] if self.batched else self.dims

    @property
    def dtype(self) -> str:
        """What LEO's network runs in: half precision is widened."""
        return "float64" if self.kind == 11 else "float32"


class _Model:
    """What of a model does not depend on the size of a batch."""

    def __init__(self, model: Any, where: str, source: Any) -> None:
        self._graph, self._where, self.source = model.graph, where, source
        if not self._graph.input and not self._graph.output:
            raise FormatError(f"{where}: there is no graph in it; is the file empty or truncated? Export it again")
        self.opset = self._opset_of(model)
        self.constants = {tensor.name: tensor for tensor in self._graph.initializer}
        self._sparse = {tensor.values.name: tensor for tensor in self._graph.sparse_initializer}
        self.outputs = tuple(item.name for item in self._graph.output)
        self._require_valid()
        self.order = self._ordered()
        self._read: dict[str, Any] = {}

    def imported(self) -> Imported:
        """The network, with how the model is run."""
        given = self._input()
        try:
            imported, given = self._lowered(given), given
        except UnsupportedModelError as error:
            alone = replace(given, batched=False, batch=1)
            if given.batch < 2 or set(given.shape) != {1}:
                raise
            try:  # a column, not so many examples of one value
                imported, given = self._lowered(alone), alone
            except UnsupportedModelError:
                raise error from None
        run = runner(self.source, given.name, given.shape, _numpy(given.kind), given.batch, batched=given.batched)
        return replace(imported, run=run, runs_in=self._narrowest(given.dtype))

    def _lowered(self, given: _Input) -> Imported:
        if given.batch:
            return _Run(self, self._where, given, given.batch).imported()
        size = max(1, math.prod(given.shape))
        return for_any_batch(lambda batch: _Run(self, self._where, given, batch).imported(), self._where, size)

    def _opset_of(self, model: Any) -> int:
        from onnx import defs

        opsets = [item.version for item in model.opset_import if item.domain in ("", "ai.onnx")]
        if not opsets:
            raise UnsupportedModelError(self._where, ["it names no opset of ONNX's own operators"])
        if opsets[0] < OLDEST:
            hint = "convert it with onnx.version_converter, or export it again"
            raise UnsupportedModelError(
                self._where, [f"opset {opsets[0]} is older than what is read ({OLDEST}); {hint}"]
            )
        if opsets[0] > defs.onnx_opset_version():
            hint = "update it: pip install --upgrade onnx"
            raise UnsupportedModelError(
                self._where, [f"opset {opsets[0]} is newer than the package onnx knows; {hint}"]
            )
        return int(opsets[0])

    def _input(self) -> _Input:
        inputs = [item for item in self._graph.input if item.name not in {*self.constants, *self._sparse}]
        problems = []
        if len(inputs) != 1:
            problems.append(f"{len(inputs)} inputs ({', '.join(i.name for i in inputs)}); LEO reads models with one")
        if not self.outputs:
            problems.append("it has no output")
        if problems:
            raise UnsupportedModelError(self._where, problems)
        (item,) = inputs
        tensor = item.type.tensor_type
        if tensor.elem_type not in (1, 10, 11):
            raise UnsupportedModelError(self._where, [f"the input '{item.name}' is not of a float type"])
        dims = [d.dim_value if d.HasField("dim_value") else 0 for d in tensor.shape.dim]
        if not dims:
            raise UnsupportedModelError(self._where, [f"the input '{item.name}' has no shape"])
        batched = len(dims) > 1
        if any(d <= 0 for d in (dims[1:] if batched else dims)):
            raise UnsupportedModelError(self._where, [f"the input '{item.name}' has a free axis besides the batch"])
        if math.prod(d or 1 for d in dims) > 1 << 28:
            raise FormatError(f"{self._where}: an input of {math.prod(d or 1 for d in dims)} values is too large")
        return _Input(item.name, tuple(dims), dims[0] if batched else 1, batched, tensor.elem_type)

    def _require_valid(self) -> None:
        """Refuse what is no ONNX graph: runtimes differ in what they make of it, or crash."""
        from onnx import checker

        held = [
            *(item.name for item in self._graph.input),
            *(name for n in self._graph.node for name in n.output if name),
        ]
        held += [name for name in (*self.constants, *self._sparse) if name not in {i.name for i in self._graph.input}]
        twice = next((name for name, count in Counter(held).items() if count > 1), None)
        twice = twice or next((name for name, count in Counter(self.outputs).items() if count > 1), None)
        if twice is not None:
            raise FormatError(f"{self._where}: two tensors are named '{twice}'")
        context = type(checker.DEFAULT_CONTEXT)()
        context.ir_version, context.opset_imports = 8, {"": self.opset}
        for position, node in enumerate(self._graph.node):
            if node.domain not in _OWN or node.op_type not in LOWERINGS:
                continue
            try:
                checker.check_node(node, context)
            except checker.ValidationError as error:
                said = next(iter(str(error).splitlines()), "")
                raise FormatError(
                    f"{self._where}: node {position} '{node.name}' ({node.op_type}) is not valid: {said}"
                ) from None

    def _ordered(self) -> list[tuple[int, Any]]:
        """The nodes that the outputs need, each behind what it reads."""
        makers = {
            name: (position, node) for position, node in enumerate(self._graph.node) for name in node.output if name
        }
        done: set[int] = set()
        begun: set[int] = set()
        order: list[tuple[int, Any]] = []
        stack = [makers[name] for name in reversed(self.outputs) if name in makers]
        while stack:
            position, node = stack[-1]
            waiting = [makers[name] for name in _reads(node) if name in makers and makers[name][0] not in done]
            if position in done or not waiting:
                stack.pop()
                if position not in done:
                    done.add(position)
                    order.append((position, node))
                continue
            if position in begun and any(other[0] in begun for other in waiting):
                raise FormatError(f"{self._where}: its nodes read each other in a circle, at node {position}")
            begun.add(position)
            stack.extend(waiting)
        return order

    def constant(self, name: str) -> Any:
        """An initialiser's numbers, None where there is none of that name."""
        if name not in self._read:
            self._read[name] = self._numbers(name)
        return self._read[name]

    def _numbers(self, name: str) -> Any:
        from onnx import numpy_helper

        try:
            if name in self._sparse:
                return _dense_of(self._sparse[name])
            if name not in self.constants:
                return None
            array = numpy_helper.to_array(self.constants[name])
        except Exception as error:
            outside = name in self.constants and self.constants[name].external_data
            hint = (
                "they lie in a file of their own; load them, or give LEO the path"
                if outside
                else "is the file damaged?"
            )
            raise FormatError(f"{self._where}: the weights '{name}' cannot be read ({error}); {hint}") from None
        if array.dtype.kind == "f" and np.isnan(array).any():
            raise FormatError(f"{self._where}: the weights '{name}' hold NaN or infinity; LEO needs finite weights")
        if array.dtype.kind == "f" and not np.isfinite(array).all() and not self._ends(name):
            raise FormatError(f"{self._where}: the weights '{name}' hold NaN or infinity; LEO needs finite weights")
        return array

    def _ends(self, name: str) -> bool:
        """Whether a tensor is nothing but the end of a Clip, or one side of a maximum."""
        readers = [node for _, node in self.order if name in node.input]
        return all(node.op_type in ("Clip", "Max", "Min") for node in readers)

    @cached_property
    def _kinds(self) -> set[int]:
        """ONNX's numbers of all types that something of it is computed in."""
        tensors = [*self._graph.input, *self._graph.output]
        casts = (node for _, node in self.order if node.op_type == "Cast")
        return {
            *(tensor.data_type for tensor in self._graph.initializer),
            *(item.type.tensor_type.elem_type for item in tensors),
            *(item.i for node in casts for item in node.attribute if item.name == "to"),
        }

    @property
    def half(self) -> bool:
        """Whether something of it is computed in half precision."""
        return bool(self._kinds.intersection(_HALVES))

    def _narrowest(self, dtype: str) -> str:
        """The narrowest type that something of it is computed in; empty where that is the network's."""
        for kind in (16, 10, 1):
            if kind in self._kinds and _FLOATS[kind] != dtype:
                return _FLOATS[kind] if kind != 1 or dtype == "float64" else ""
        return ""

    def output_kind(self, name: str) -> int:
        """ONNX's number of an output's type."""
        return next(int(item.type.tensor_type.elem_type) for item in self._graph.output if item.name == name)


class _Run:
    """The graph gone through with a batch of one size: tensors by ONNX name."""

    def __init__(self, model: _Model, where: str, given: _Input, batch: int) -> None:
        self._model, self._where, self._given, self._batch = model, where, given, batch
        self._graph = Graph(max(1, math.prod(given.shape)), batch, dtype=given.dtype)
        dims = (batch, *given.dims[1:]) if given.batched else given.dims
        self._tensors: dict[str, Any] = {given.name: self._graph.given(dims)}
        self._lost: set[str] = set()

    def imported(self) -> Imported:
        """The whole lowering."""
        problems = list(self._problems())
        if problems:
            raise UnsupportedModelError(self._where, problems)
        names = self._model.outputs
        results = [self._result(name) for name in names]
        sizes = [tuple(elements(result).shape) for result in results]
        outputs = tuple(Output(name, self._shape(name, found)) for name, found in zip(names, sizes, strict=True))
        outside = Signature(self._given.name, self._given.shape, outputs, self._given.dtype)
        last = [Origin(f"{name}_values", "Identity") for name in names]
        imported = self._graph.imported(self._where, results, last, outside, self._notes(sizes))
        return replace(imported, inside=partial(self._inside, tuple(self._seen())))

    def _result(self, name: str) -> Tensor:
        result = self._tensor(name)
        if result is None:
            raise FormatError(f"{self._where}: no node computes the output '{name}'")
        if not isinstance(result, Value):
            result = _stored(result)
            result = result.astype(np.float64) if result.dtype.kind != "f" else result
        return result

    def _shape(self, name: str, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """Of one example of an output; without an axis for the batch, all of it is one example's."""
        rows = self._given.batched and sizes[:1] == (self._batch,)
        if self._batch > 1 and not rows:
            what = "the output" if len(self._model.outputs) == 1 else f"the output '{name}'"
            problem = f"{what}, of shape {sizes}, is not one row for every example of a batch"
            raise UnsupportedModelError(self._where, [problem])
        return sizes[1:] if rows else sizes

    def _seen(self) -> Iterator[Seen]:
        """The tensors that are all values of one layer's last node."""
        last = {node.origin.layer: node.name for node in self._graph.nodes}
        for _, node in self._model.order:
            layer, name = _origin(node).layer, node.output[0]
            tensor = self._tensors.get(name)
            if not isinstance(tensor, Value) or tensor.node != last.get(layer):
                continue
            size = self._graph.size(tensor.node)
            at = tensor.index.ravel()
            places = np.full(size, -1)
            places[at[at < size]] = np.flatnonzero(at < size)
            if (places >= 0).all():
                yield Seen(layer, name, places)

    def _inside(self, seen: Sequence[Seen], x: Any) -> dict[str, Any]:
        """What the model itself computes at one input, layer by layer."""
        dims = (self._batch, *self._given.dims[1:]) if self._given.batched else self._given.dims
        given = np.broadcast_to(np.asarray(x).reshape(1, *self._given.shape), (self._batch, *self._given.shape))
        return watched(self._model.source, {self._given.name: given.reshape(dims)}, _numpy(self._given.kind), seen)

    def _problems(self) -> Iterator[str]:
        for position, node in self._model.order:
            label = f"node {position} '{node.name or next(iter(node.output), '')}' ({node.op_type})"
            if any(name in self._lost for name in _reads(node)):
                self._lost.update(node.output)
                if reason := _foreign(node):  # it would be refused whatever it reads
                    yield f"{label}: {reason}"
                continue
            inputs = [self._tensor(name) if name else None for name in node.input]
            missing = [name for name, found in zip(node.input, inputs, strict=True) if name and found is None]
            if missing:
                raise FormatError(f"{self._where}: {label} reads '{missing[0]}', which nothing computes")
            try:
                results = self._computed(node, inputs)
            except Refused as reason:
                self._lost.update(node.output)
                yield f"{label}: {reason}{self._tails_of(inputs)}"
                continue
            except (KeyError, IndexError, ValueError, TypeError, AttributeError, OverflowError) as error:
                raise FormatError(f"{self._where}: {label} does not fit ({type(error).__name__}: {error})") from None
            self._tensors.update(zip(node.output, results, strict=False))

    def _computed(self, node: Any, inputs: list[Any]) -> list[Any]:
        if node.domain in _OWN and not any(isinstance(tensor, Value) for tensor in inputs) and not _has_graph(node):
            return folded(node, inputs, self._model.opset)
        if reason := _foreign(node):
            raise Refused(reason)
        kind = node.op_type
        if any(
            not isinstance(tensor, Value) and tensor is not None and tensor.dtype.kind in "OSU" for tensor in inputs
        ):
            raise Refused("it reads text, which is not numbers")
        lowering = LOWERINGS[kind]
        op = Op(kind, _origin(node), _attributes(node), self._model.opset, len(node.output))
        given = [tensor if isinstance(tensor, Value) or tensor is None else _stored(tensor) for tensor in inputs]
        result = lowering(self._graph, op, given)
        return list(result) if isinstance(result, list) else [result]

    def _tails_of(self, inputs: list[Any]) -> str:
        tails = [self._graph.tail_of(tensor) for tensor in inputs if isinstance(tensor, Value)]
        return "".join(f"; and the {tail} that it reads is kept at the end only" for tail in tails if tail)

    def _tensor(self, name: str) -> Tensor | None:
        found = self._tensors.get(name)
        return self._model.constant(name) if found is None else found  # type: ignore[no-any-return]

    def _notes(self, shapes: Sequence[tuple[int, ...]]) -> tuple[str, ...]:
        notes = []
        given, fixed = self._given, self._given.batch
        if fixed > 1:
            notes.append(f"the model's batch size was fixed at {fixed}; LEO's result takes any")
        if not given.batched:
            notes.append("the model's input has no batch axis; LEO's result takes one")
        if self._model.half:
            notes.append(
                "the model computes in half precision; LEO takes its numbers as they are, and its result runs in "
                "float32: the noise shown is that of float32"
            )
        for name, sizes in zip(self._model.outputs, shapes, strict=True):
            output = "output" if len(shapes) == 1 else f"output '{name}'"
            if given.batched and len(sizes) == 1:
                notes.append(f"the model's {output} has one axis; that of LEO's result has two, batch × values")
            elif given.batched and sizes[:1] != (self._batch,):
                notes.append(f"the model's {output} has no batch axis; that of LEO's result has one")
            kind = _FLOATS.get(self._model.output_kind(name), "")
            if kind and kind != given.dtype and not self._model.half:
                notes.append(f"the model's {output} is of type {kind}; that of LEO's result is {given.dtype}")
        return tuple(notes)


def _foreign(node: Any) -> str:
    """Why a node is refused whatever it reads, as long as that is computed; else empty."""
    if node.domain not in _OWN:
        return f"operators of the domain '{node.domain}' are not read"
    return "" if node.op_type in LOWERINGS else why_not(node.op_type)


def _origin(node: Any) -> Origin:
    return Origin(node.name or (node.output[0] if node.output else ""), node.op_type)


def _attributes(node: Any) -> dict[str, Any]:
    from onnx import helper

    return {item.name: helper.get_attribute_value(item) for item in node.attribute}


def _has_graph(node: Any) -> bool:
    return any(item.HasField("g") or item.graphs for item in node.attribute)


def _reads(node: Any) -> list[str]:
    """What a node reads, graphs of its own left out: those are refused."""
    return [name for name in node.input if name]


def _stored(array: Any) -> Any:
    """A constant in a type that LEO stores: halves become float32, which is exact."""
    if array.dtype.name in ("float16", "bfloat16"):
        return array.astype(np.float32)
    return array


def _dense_of(tensor: Any) -> Any:
    """A sparse initialiser written out."""
    from onnx import numpy_helper

    values, indices = (numpy_helper.to_array(part) for part in (tensor.values, tensor.indices))
    array = np.zeros(math.prod(tensor.dims), values.dtype)
    places = indices if indices.ndim == 1 else np.ravel_multi_index(tuple(indices.T), tuple(tensor.dims))
    array[places] = values
    return array.reshape(tuple(tensor.dims))


def _numpy(kind: int) -> str:
    return _FLOATS[kind]
