"""Reading an ONNX graph of dense layers: its tensors one by one, each node by its lowering."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from leo_core.errors import FormatError, UnsupportedModelError
from leo_core.network import INPUT, Origin, Signature
from leo_core.plugins import Imported
from leo_frontends.graph import Graph, Refused, Tensor, Value
from leo_frontends.lowering import number_array
from leo_frontends.onnx.lowerings import LOWERINGS

#: ONNX's number for float16.
HALF = 10
#: Operators that may take the batch axis to another place, or join it with others for a while.
MOVING = ("Flatten", "Gather", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")


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
    """The state of one reading: tensors by ONNX name."""

    def __init__(self, model: Any, where: str) -> None:
        from onnx import numpy_helper

        self._graph, self._where = model.graph, where
        self._tensors: dict[str, Tensor] = {}
        for initializer in self._graph.initializer:
            try:
                self._tensors[initializer.name] = number_array(numpy_helper.to_array(initializer))
            except Exception as error:
                raise FormatError(
                    f"{where}: the weights '{initializer.name}' cannot be read ({error}); is the file damaged?"
                ) from None
        for name, array in self._tensors.items():
            if isinstance(array, np.ndarray) and array.dtype.kind == "f" and not np.isfinite(array).all():
                raise FormatError(f"{where}: the weights '{name}' hold NaN or infinity; LEO needs finite weights")
        self._lost: set[str] = set()
        #: The batch size that is fixed, else 1; and whether there may be more examples than one.
        self._batch, self._many = 1, False
        self._half = any(initializer.data_type == HALF for initializer in self._graph.initializer)
        # what no output needs may be anything
        needed = {item.name for item in self._graph.output}
        used = []
        for position, node in reversed(list(enumerate(self._graph.node))):
            if needed.intersection(node.output):
                needed.update(node.input)
                used.append((position, node))
        self._nodes = used[::-1]

    def read(self) -> Imported:
        """The whole lowering."""
        if not self._graph.input and not self._graph.output:
            raise FormatError(
                f"{self._where}: there is no graph in it; is the file empty or truncated? Export it again"
            )
        problems = [
            f"node {position} '{node.name or node.output[0]}': "
            + (node.op_type if node.domain in ("", "ai.onnx") else f"{node.op_type} of the domain '{node.domain}'")
            for position, node in self._nodes
            if node.op_type not in LOWERINGS or node.domain not in ("", "ai.onnx")
        ]
        inputs = [item for item in self._graph.input if item.name not in self._tensors]
        if len(inputs) != 1:
            problems.append(f"{len(inputs)} inputs ({', '.join(i.name for i in inputs)}); LEO reads models with one")
        if len(self._graph.output) != 1:
            problems.append(f"{len(self._graph.output)} outputs; LEO reads models with one")
        if problems:
            raise UnsupportedModelError(self._where, problems)
        signature = self._begin(inputs[0])
        graph = Graph(signature.size, self._batch, dtype=signature.dtype)
        for position, node in self._nodes:
            problem = self._lower(graph, position, node)
            if problem:
                problems.append(problem)
        if problems:
            raise UnsupportedModelError(self._where, problems)
        output = self._graph.output[0].name
        if output not in self._tensors:
            raise FormatError(f"{self._where}: no node computes the output '{output}'")
        result = self._tensors[output]
        last = Origin(f"{output}_values", "Identity")
        if not isinstance(result, Value) and result.dtype.kind != "f":
            result = result.astype(np.float64)
        sizes = result.index.shape if isinstance(result, Value) else result.shape
        if self._many and sizes[:1] != (self._batch,):
            problem = f"the output, of shape {sizes} for one, is not one row for every example of a batch"
            raise UnsupportedModelError(self._where, [problem])
        # without an axis for the batch, all of the shape is one example's
        shape = sizes[1:] if signature.batched and sizes[:1] == (self._batch,) else sizes
        outside = Signature(inputs[0].name, signature.shape, output, tuple(shape), signature.dtype)
        return graph.imported(self._where, result, last, outside, self._notes(signature, sizes))

    def _notes(self, signature: _InputShape, sizes: tuple[int, ...]) -> tuple[str, ...]:
        notes = []
        if self._batch != 1:
            notes.append(f"the model's batch size was fixed at {self._batch}; LEO's result takes any")
        if not signature.batched:
            notes.append("the model's input has no batch axis; LEO's result takes one")
        elif len(sizes) == 1:
            notes.append("the model's output has one axis; that of LEO's result has two, batch × values")
        elif sizes[0] != self._batch:
            notes.append("the model's output has no batch axis; that of LEO's result has one")
        if self._half:
            notes.append(
                "the model computes in half precision; LEO takes its numbers as they are, and its result runs in "
                "float32: the noise shown is that of float32"
            )
        return tuple(notes)

    def _begin(self, item: Any) -> _InputShape:
        tensor = item.type.tensor_type
        dtypes = {1: "float32", 11: "float64", HALF: "float32"}
        self._half |= tensor.elem_type == HALF
        if tensor.elem_type not in dtypes:
            raise UnsupportedModelError(self._where, [f"the input '{item.name}' is not of a float type"])
        dims = [d.dim_value if d.HasField("dim_value") else 0 for d in tensor.shape.dim]
        if not dims:
            raise UnsupportedModelError(self._where, [f"the input '{item.name}' has no shape"])
        batched = len(dims) > 1
        if batched:
            self._batch, self._many = dims[0] or 1, dims[0] != 1
            dims[0] = self._batch
            # [784, 1]: a column, not 784 examples of one value
            if len(dims) == 2 and dims[1] == 1 and self._batch > 1 and self._is_column(item.name):
                self._batch, self._many, batched = 1, False, False
        if any(d <= 0 for d in dims):
            raise UnsupportedModelError(self._where, [f"the input '{item.name}' has a free axis besides the batch"])
        size = math.prod(dims) // self._batch
        if size * self._batch > 1 << 28:
            raise FormatError(f"{self._where}: an input of {size} values is too large")
        self._tensors[item.name] = Value(INPUT, np.arange(size * self._batch).reshape(dims))
        shape = tuple(dims[1:]) if batched else tuple(dims)
        return _InputShape(size, shape, batched, dtypes[tensor.elem_type])

    def _is_column(self, name: str) -> bool:
        return any(
            node.op_type == "MatMul" and len(node.input) == 2 and node.input[1] == name for node in self._graph.node
        )

    def _lower(self, graph: Graph, position: int, node: Any) -> str | None:
        label = f"node {position} '{node.name or node.output[0]}' ({node.op_type})"
        if any(name in self._lost for name in node.input):
            self._lost.update(node.output)
            return None
        missing = [name for name in node.input if name and name not in self._tensors]
        if missing:
            raise FormatError(f"{self._where}: {label} reads '{missing[0]}', which nothing computes")
        inputs = [self._tensors[name] if name else None for name in node.input]
        try:
            result = LOWERINGS[node.op_type](graph, node, inputs)
            self._half |= casts_to_half(node)
            if self._many and self._batch == 1 and mixes_examples(node, inputs, result):
                raise Refused("it does not do the same for every example of a batch")
        except Refused as reason:
            self._lost.update(node.output)
            return f"{label}: {reason}"
        self._tensors[node.output[0]] = result
        return None


def mixes_examples(node: Any, inputs: list[Any], result: Tensor) -> bool:
    """Whether an operator makes more, or less, than one row of each example of a batch of any size.

    The batch axis has size one here; an operator that moves axes takes it elsewhere, and only the output tells whether
    it came back.
    """
    if node.op_type in MOVING or not isinstance(result, Value):
        return False
    rows = {value.index.shape[:1] for value in inputs if isinstance(value, Value)}
    return rows == {(1,)} and result.index.shape[:1] != (1,)


def casts_to_half(node: Any) -> bool:
    """Whether a node rounds to half precision."""
    return node.op_type == "Cast" and any(item.name == "to" and item.i == HALF for item in node.attribute)


@final
@dataclass(frozen=True)
class _InputShape:
    size: int
    shape: tuple[int, ...]
    batched: bool
    dtype: str
