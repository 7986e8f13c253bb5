"""A Keras model call by call, in the order in which Keras itself runs them, with what each call was given filled in."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from leo_core.errors import FormatError, UnsupportedModelError
from leo_core.network import Origin, Output, Signature
from leo_core.plugins import Imported
from leo_frontends.batches import for_any_batch
from leo_frontends.graph import Graph, Refused, Tensor, Value, elements
from leo_frontends.heads import numbered
from leo_frontends.keras.layers import is_keras_own, lower_layer
from leo_frontends.keras.operations import lower_operation, tensor
from leo_frontends.keras.run import computes_in, inside, running

_HINT = "build it with the Sequential or Functional API, or export it to ONNX"


def read_model(model: Any, where: str) -> Imported:
    """Lower a built Sequential or Functional model.

    Raises :class:`UnsupportedModelError` with every layer that has no affine + ReLU form.
    """
    if not _is_wired(model):
        raise UnsupportedModelError(
            where, [f"a {type(model).__name__} says nothing of how its layers are wired; {_HINT}"]
        )
    if isinstance(model, keras.Sequential) and not model.built:
        raise UnsupportedModelError(where, ["it is not built; give it an Input layer, or call it once"])
    if len(model.inputs) != 1 or not model.outputs:
        counts = f"{len(model.inputs)} inputs and {len(model.outputs)} outputs"
        raise UnsupportedModelError(where, [f"it has {counts}; LEO reads models with one input"])
    batch, *shape = model.inputs[0].shape
    dtype = str(model.inputs[0].dtype)
    if not shape or any(d is None for d in shape):
        raise UnsupportedModelError(where, [f"the shape of its input is not fixed: {model.inputs[0].shape}"])
    if dtype not in ("float32", "float64"):
        raise UnsupportedModelError(where, [f"its input is of type {dtype}; LEO reads float32 and float64"])
    imported = _for_its_batches(model, where, math.prod(shape), batch)
    narrow = computes_in(model, dtype)
    notes = imported.notes
    if narrow in ("float16", "bfloat16"):
        half = f"layers compute in half precision ({narrow}); LEO works with them, and its result runs, in {dtype}"
        notes = (*notes, half)
    elif narrow != dtype:
        notes = (*notes, f"Keras computes this model in {narrow}, although its input is of type {dtype}")
    return replace(imported, notes=notes, run=running(model), runs_in=narrow if narrow != dtype else "")


def _for_its_batches(model: Any, where: str, size: int, batch: int | None) -> Imported:
    """Lowered for batches of any size, which Keras runs even where the model fixes one; else for that one."""
    try:
        return for_any_batch(lambda count: _lowered(model, where, count), where, size)
    except UnsupportedModelError:
        if batch is None:
            raise
    imported = _lowered(model, where, batch)
    note = f"the model is made for batches of {batch}, and what was read holds for such batches only"
    return replace(imported, notes=(note, *imported.notes))


def _lowered(model: Any, where: str, batch: int) -> Imported:
    _, *shape = model.inputs[0].shape
    graph = Graph(math.prod(shape), batch, str(model.inputs[0].dtype))
    reader = _Reader(graph)
    try:
        results = reader.model(model, [graph.given((batch, *shape))])
    except (KeyError, IndexError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise FormatError(f"{where}: the model is malformed ({type(error).__name__}: {error})") from None
    if reader.problems:
        raise UnsupportedModelError(where, list(dict.fromkeys(reader.problems)))
    tensors, outputs = [], []
    for output, place in _outputs(model):
        result = results[place]
        assert result is not None  # what it needs would be a problem
        rows, *rest = elements(result).shape or (0,)
        if rows != batch:
            raise UnsupportedModelError(where, [f"for {batch} examples it gives {rows} rows, not one for each"])
        tensors.append(result)
        outputs.append(Output(output, tuple(rest)))
    name = model.inputs[0].name
    given = "input" if name.startswith("keras_tensor") else name  # Keras numbers an input without a name
    signature = Signature(given, tuple(shape), tuple(outputs), str(graph.dtype))
    origins = [Origin(output.name, "Identity") for output in outputs]
    return replace(graph.imported(where, tensors, origins, signature), inside=inside(model, reader.order))


def _outputs(model: Any) -> list[tuple[str, int]]:
    """Names of a model's outputs, the keys of a dict or numbers, and each one's place in ``model.outputs``."""
    struct = getattr(model, "_outputs_struct", None)  # a Sequential has none
    if len(model.outputs) > 1 and isinstance(struct, dict) and len(struct) == len(model.outputs):
        flat = keras.tree.flatten({key: str(key) for key in struct})  # not in the order of the dict
        return [(str(key), flat.index(str(key))) for key in struct]
    return [(name, place) for place, name in enumerate(numbered(len(model.outputs)))]


def _is_wired(model: Any) -> bool:
    """Whether it is Keras' own Sequential or Functional: a class derived from them may compute anything."""
    return is_keras_own(model) and type(model).__name__ in ("Sequential", "Functional")


class _Reader:
    """The graph so far, and what could not be lowered."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.problems: list[str] = []
        #: By layer, for each value of the node it became, which element of its output that is.
        self.order: dict[str, NDArray[np.int64]] = {}

    def model(self, model: Any, inputs: Sequence[Tensor]) -> list[Tensor | None]:
        """The outputs of a model for its inputs; None for what depends on a layer that is not read."""
        if isinstance(model, keras.Sequential):
            found: list[Tensor | None] = list(inputs)
            for layer in model.layers:
                found = self._call(layer, found, {}, 1) if found[0] is not None else [None]
            return found
        known: dict[int, Tensor | None] = {id(symbol): t for symbol, t in zip(model.inputs, inputs, strict=True)}
        for depth in sorted(model._nodes_by_depth, reverse=True):
            for node in model._nodes_by_depth[depth]:
                if node.is_input:
                    continue
                if any(known.get(id(symbol)) is None for symbol in node.input_tensors):
                    results: list[Tensor | None] = [None] * len(node.outputs)
                else:
                    args, kwargs = node.arguments.fill_in(known)
                    results = self._call(node.operation, args, kwargs, len(node.outputs))
                known.update((id(symbol), t) for symbol, t in zip(node.outputs, results, strict=True))
        return [known[id(symbol)] for symbol in model.outputs]

    def _call(self, operation: Any, args: Any, kwargs: Mapping[str, Any], count: int) -> list[Tensor | None]:
        layer = isinstance(operation, keras.Layer)
        try:
            if layer:
                return self._layer(operation, args, kwargs)
            found = lower_operation(self.graph, operation, args, kwargs)
            return [*found] if isinstance(found, list) else [found]
        except Refused as reason:
            kind = type(operation).__name__ + ("" if layer else " operation")
            self.problems.append(f"layer '{operation.name}' ({kind}): {reason}")
            return [None] * count

    def _layer(self, layer: Any, args: Any, kwargs: Mapping[str, Any]) -> list[Tensor | None]:
        inputs = [tensor(self.graph, argument) for argument in _inputs(layer, args, kwargs)]
        # a layer casts what it is given
        inputs = [given if isinstance(given, Value) else given.astype(self.graph.dtype) for given in inputs]
        if _is_wired(layer):
            return self.model(layer, inputs)
        result = lower_layer(self.graph, layer, inputs)
        if isinstance(result, Value) and result.index.size:
            self.order[layer.name] = np.argsort(result.index[0].ravel())
        return [result]


def _inputs(layer: Any, args: Any, kwargs: Mapping[str, Any]) -> list[Any]:
    """The tensors that a layer is called on. Raises :class:`Refused` where it is told anything else."""
    signature = inspect.signature(layer.call)
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.parameters.values())
    # Keras passes 'training' on to those layers only that have it
    taken = {name: value for name, value in kwargs.items() if open_ended or name in signature.parameters}
    bound = signature.bind(*args, **taken).arguments
    (_, given), *others = bound.items()
    for name, value in others:
        if name == "training" and value:
            raise Refused(
                "it is called with training=True, so that it does as in training even when the model is used; build "
                "the model without that"
            )
        if any(part is not None and part is not False for part in keras.tree.flatten(value)):
            raise Refused(f"it is called with {name}; LEO reads calls on tensors alone")
    if isinstance(given, Mapping):
        raise Refused("it is called on a dict; LEO reads calls on tensors and lists of them")
    return [*given] if isinstance(given, list | tuple) else [given]
