"""Reading a TensorFlow Lite graph: its operators one by one, each by its lowering."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from leo_core.errors import FormatError, UnsupportedModelError
from leo_core.network import Origin, Output, Signature
from leo_core.plugins import Imported
from leo_frontends.batches import for_any_batch
from leo_frontends.graph import Array, Graph, Refused, Tensor, Value, elements
from leo_frontends.tflite.file import DTYPES, Operator, TensorInfo, TfliteModel
from leo_frontends.tflite.kept import Kept
from leo_frontends.tflite.op import Op
from leo_frontends.tflite.operators import FOLDED, LOWERINGS
from leo_frontends.tflite.reasons import quantised, why_not
from leo_frontends.tflite.run import runner, watched

#: What quantised tensors are made of.
_WHOLE = ("int8", "uint8", "int16", "int4", "int2", "uint4")
#: More values has no input that is read.
_LARGEST = 1 << 28


def read_model(model: TfliteModel, data: bytes, where: str) -> Imported:
    """Lower a model; ``data`` is the file, which is run to compare with.

    Raises :class:`UnsupportedModelError` listing every operator that is not read, and :class:`FormatError` for what is
    not a well-formed model.
    """
    _require_float(model, where)
    given = _input(model, where)
    if given.batch:
        return _lowered(model, data, where, given)
    try:
        return _lowered(model, data, where, given)
    except UnsupportedModelError as error:
        try:  # its shapes may be those of one example, whatever its signature says
            alone = _lowered(model, data, where, replace(given, batch=1))
        except UnsupportedModelError:
            raise error from None
    note = "the model says that it takes batches of any size, and holds the shapes of one example: it is read for one"
    return replace(alone, notes=(note, *alone.notes))


def _lowered(model: TfliteModel, data: bytes, where: str, given: _Input) -> Imported:
    def lower(batch: int) -> Imported:
        try:
            return _Run(model, data, where, given, batch).imported()
        except (KeyError, IndexError, ValueError, TypeError, AttributeError, OverflowError, MemoryError) as error:
            raise FormatError(f"{where}: its graph is malformed ({type(error).__name__}: {error})") from None

    size = max(1, math.prod(given.shape))
    imported = lower(given.batch) if given.batch else for_any_batch(lower, where, size)
    return replace(imported, run=runner(data, given.batch, batched=given.batched))


@final
@dataclass(frozen=True)
class _Input:
    """The input: ``shape`` is that of one example; it takes ``batch`` of them, 0: any number."""

    name: str
    shape: tuple[int, ...]
    batch: int
    batched: bool


def _input(model: TfliteModel, where: str) -> _Input:
    problems = []
    if len(model.inputs) != 1:
        names = ", ".join(model.tensors[number].name for number in model.inputs[:8])
        problems.append(f"{len(model.inputs)} inputs ({names}); LEO reads models with one")
    if not model.outputs:
        problems.append("it has no output")
    if problems:
        raise UnsupportedModelError(where, problems)
    tensor = model.tensors[model.inputs[0]]
    if tensor.type != "float32":
        raise UnsupportedModelError(where, [f"its input '{tensor.name}' is of type {tensor.type}; float32 is read"])
    batched = len(tensor.shape) > 1
    shape = tensor.shape[1:] if batched else tensor.shape
    if not shape or any(tensor.free[1:] if batched else tensor.free):
        raise UnsupportedModelError(
            where, [f"its input '{tensor.name}' has no shape, or a free axis besides the batch"]
        )
    if 0 in tensor.shape or math.prod(tensor.shape) > _LARGEST:
        raise FormatError(f"{where}: an input of shape {tensor.shape} is empty or too large; is the file damaged?")
    free = batched and tensor.free[0]
    name = model.signature[1].get(model.inputs[0]) or tensor.name
    return _Input(name, shape, 0 if free else tensor.shape[0] if batched else 1, batched)


def _require_float(model: TfliteModel, where: str) -> None:
    """Refuse whole numbers in place of real ones, with the one true reason in place of many."""
    used = {number for operator in model.operators for number in (*operator.inputs, *operator.outputs) if number >= 0}
    tensors = [model.tensors[number] for number in sorted(used)]
    whole = [tensor for tensor in tensors if tensor.quantised and tensor.type in _WHOLE]
    for tensor in whole:
        what = "weights" if tensor.numbers is not None else "values"
        raise UnsupportedModelError(where, [quantised(f"its {what} '{tensor.short}' are {tensor.type}")])


class _Run:
    """The graph gone through with a batch of one size."""

    def __init__(self, model: TfliteModel, data: bytes, where: str, given: _Input, batch: int) -> None:
        self._model, self._data, self._where, self._given, self._batch = model, data, where, given, batch
        self._graph = Graph(math.prod(given.shape), batch, dtype="float32")
        self._dims = (batch, *given.shape) if given.batched else given.shape
        self._tensors: dict[int, Any] = {model.inputs[0]: self._graph.given(self._dims)}
        self._lost: set[int] = set()

    def imported(self) -> Imported:
        """The whole lowering."""
        problems = list(self._problems())
        if problems:
            raise UnsupportedModelError(self._where, problems)
        results = [self._result(number) for number in self._model.outputs]
        sizes = [tuple(elements(result).shape) for result in results]
        called = self._model.signature[2]
        names = _different([called.get(number) or self._model.tensors[number].name for number in self._model.outputs])
        outputs = tuple(Output(name, self._shape(name, found)) for name, found in zip(names, sizes, strict=True))
        outside = Signature(self._given.name, self._given.shape, outputs, "float32", self._told(names))
        last = [Origin(f"{name}_values", "RESHAPE") for name in names]
        imported = self._graph.imported(self._where, results, last, outside, self._notes(sizes))
        return replace(imported, inside=partial(self._inside, dict(self._seen())))

    def _told(self, names: Sequence[str]) -> tuple[tuple[str, str], ...]:
        """What the writer of a file of this format says again."""
        model = self._model
        made = [model.tensors[number] for operator in model.operators for number in operator.outputs[:1]]
        tensors = {tensor.short: tensor.name for tensor in made if tensor.short != tensor.name}
        tensors |= {name: model.tensors[number].name for name, number in zip(names, model.outputs, strict=True)}
        tensors[self._given.name] = model.tensors[model.inputs[0]].name
        key = model.signature[0] or Kept().key
        return Kept(tensors, key, model.description, model.metadata).told()

    def _problems(self) -> Iterator[str]:
        for position, operator in enumerate(self._model.operators):
            label = f"operator {position} '{self._name(operator)}' ({operator.kind})"
            if any(number in self._lost for number in operator.inputs):
                self._lost.update(operator.outputs)
                if operator.kind not in LOWERINGS:  # it would be refused whatever it reads
                    yield f"{label}: {why_not(operator.kind)}"
                continue
            try:
                results = self._computed(operator)
            except Refused as reason:
                self._lost.update(operator.outputs)
                yield f"{label}: {reason}{self._tails_of(operator)}"
                continue
            except (KeyError, IndexError, ValueError, TypeError, AttributeError, OverflowError) as error:
                raise FormatError(f"{self._where}: {label} does not fit ({type(error).__name__}: {error})") from None
            self._tensors.update(zip(operator.outputs, results, strict=False))

    def _computed(self, operator: Operator) -> list[Any]:
        inputs = [None if number < 0 else self._tensor(number) for number in operator.inputs]
        if operator.kind not in LOWERINGS:
            raise Refused(why_not(operator.kind))
        if not inputs or inputs[0] is None or not operator.outputs:
            raise Refused("it has no input, or no output")
        known = [tensor for tensor in inputs if tensor is not None]
        if operator.kind in FOLDED and len(known) == 2 and not any(isinstance(tensor, Value) for tensor in known):
            if int(operator.options.get("fusedActivationFunction", 0)):
                raise Refused("it works on constants, with an activation: not read")
            return [np.asarray(FOLDED[operator.kind](*known))]
        op = Op(operator.kind, Origin(self._name(operator), operator.kind), operator.options, len(operator.outputs))
        result = LOWERINGS[operator.kind](self._graph, op, inputs)
        return list(result) if isinstance(result, list) else [result]

    def _tensor(self, number: int) -> Tensor:
        if number in self._tensors:
            return self._tensors[number]  # type: ignore[no-any-return]
        tensor = self._model.tensors[number]
        if tensor.numbers is None:  # a constant of a type that is not read, or of nothing
            if 0 in tensor.shape and tensor.type in DTYPES.values():
                return np.zeros(tensor.shape, tensor.type)
            raise Refused(f"it reads '{tensor.short}' of type {tensor.type}, which nothing computes, or is not read")
        return tensor.numbers

    def _name(self, operator: Operator) -> str:
        return self._model.tensors[operator.outputs[0]].short if operator.outputs else ""

    def _result(self, number: int) -> Tensor:
        result = self._tensor(number)
        tensor: TensorInfo = self._model.tensors[number]
        if tensor.type != "float32":
            raise UnsupportedModelError(
                self._where, [f"its output '{tensor.name}' is of type {tensor.type}; float32 is read"]
            )
        return result

    def _shape(self, name: str, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """Of one example of an output; without an axis for the batch, all of it is one example's."""
        rows = self._given.batched and sizes[:1] == (self._batch,)
        if self._batch > 1 and not rows:
            problem = f"the output '{name}', of shape {sizes}, is not one row for every example of a batch"
            raise UnsupportedModelError(self._where, [problem])
        return sizes[1:] if rows else sizes

    def _tails_of(self, operator: Operator) -> str:
        tensors = [self._tensors.get(number) for number in operator.inputs]
        tails = [self._graph.tail_of(tensor) for tensor in tensors if isinstance(tensor, Value)]
        return "".join(f"; and the {tail} that it reads is kept at the end only" for tail in tails if tail)

    def _notes(self, shapes: Sequence[tuple[int, ...]]) -> tuple[str, ...]:
        notes = []
        if self._given.batch > 1:
            notes.append(f"the model's batch size was fixed at {self._given.batch}; LEO's result takes any")
        if not self._given.batched:
            notes.append("the model's input has no batch axis; LEO's result takes one")
        elif any(sizes[:1] != (self._batch,) for sizes in shapes):
            notes.append("an output of the model has no batch axis; that of LEO's result has one")
        return tuple(notes)

    def _seen(self) -> Iterator[tuple[str, tuple[int, NDArray[np.int64]]]]:
        """By layer, the tensor that is all values of the layer's last node, and where each unit stands in it."""
        last = {node.origin.layer: node.name for node in self._graph.nodes}
        for operator in self._model.operators:
            layer, number = self._name(operator), operator.outputs[0]
            tensor = self._tensors.get(number)
            if not isinstance(tensor, Value) or tensor.node != last.get(layer):
                continue
            at, size = tensor.index.ravel(), self._graph.size(tensor.node)
            places = np.full(size, -1)
            places[at[at < size]] = np.flatnonzero(at < size)
            if (places >= 0).all():
                yield layer, (number, places)

    def _inside(self, places: dict[str, tuple[int, Array]], x: Any) -> dict[str, Any]:
        """What the model itself computes at one input, layer by layer."""
        given = np.broadcast_to(np.asarray(x).reshape(1, *self._given.shape), (self._batch, *self._given.shape))
        return watched(self._data, given.reshape(self._dims), places)


def _different(names: Sequence[str]) -> list[str]:
    """Names, those that come again with a number."""
    made: list[str] = []
    for name in names:
        number, found = 1, name
        while found in made:
            number, found = number + 1, f"{name}_{number + 1}"
        made.append(found)
    return made
