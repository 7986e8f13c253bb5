"""A ``.tflite`` file put together: tensors, constants and operators, packed as a flatbuffer by the schema's classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from leo_core.network import free_name
from leo_frontends.graph import Array
from leo_frontends.tflite.file import OPTIONS, VERSION

#: Bytes: runtimes on small devices read constants where they lie, and so expect them at such places.
_ALIGNED = 16
_TYPES = {"float32": schema.TensorType.FLOAT32, "int32": schema.TensorType.INT32}
#: Operators into which an activation can be built.
FUSES = frozenset(
    ("ADD", "AVERAGE_POOL_2D", "CONV_2D", "DEPTHWISE_CONV_2D", "DIV", "FULLY_CONNECTED", "MAX_POOL_2D", "MUL", "SUB")
)


@final
class _Buffer(schema.BufferT):  # type: ignore[misc]
    """Bytes at a place that the schema asks for; its own class puts them anywhere."""

    def Pack(self, builder: Any) -> Any:  # noqa: N802 - as the schema's package calls it
        if self.data is None:
            return super().Pack(builder)
        held = bytes(self.data)
        builder.StartVector(1, len(held), _ALIGNED)
        builder.head -= len(held)
        builder.Bytes[builder.head : builder.head + len(held)] = held
        data = builder.EndVector()
        schema.BufferStart(builder)
        schema.BufferAddData(builder, data)
        return schema.BufferEnd(builder)


class Builder:
    """A graph as it grows; tensors are known by their numbers."""

    def __init__(self) -> None:
        self._tensors: list[Any] = []
        self._buffers: list[Any] = [_Buffer()]
        self._operators: list[Any] = []
        self._codes: dict[tuple[int, int], int] = {}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], int] = {}
        self._makers: dict[int, tuple[str, Any]] = {}
        self._taken: set[str] = set()
        self._readers: dict[int, int] = {}

    def tensor(self, shape: Sequence[int], name: str) -> int:
        """A computed tensor, ``shape`` that behind the batch."""
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type = self._unique(name), _int32([1, *shape]), schema.TensorType.FLOAT32
        tensor.buffer, tensor.hasRank = self._new_buffer(None), True
        self._tensors.append(tensor)
        return len(self._tensors) - 1

    def constant(self, array: Array, name: str) -> int:
        """One that is known; equal ones are stored once."""
        array = np.ascontiguousarray(array)
        key = str(array.dtype), array.shape, array.tobytes()
        if key not in self._constants:
            tensor = schema.TensorT()
            tensor.name, tensor.shape, tensor.type = self._unique(name), _int32(array.shape), _TYPES[key[0]]
            tensor.buffer, tensor.hasRank = self._new_buffer(key[2]), True
            self._tensors.append(tensor)
            self._constants[key] = len(self._tensors) - 1
        return self._constants[key]

    def operator(
        self, kind: str, inputs: Sequence[int], shape: Sequence[int], name: str, version: int = 1, **options: Any
    ) -> int:
        """What an operator makes of tensors: one of this ``shape`` behind the batch."""
        operator, made = schema.OperatorT(), self.tensor(shape, name)
        number = getattr(schema.BuiltinOperator, kind)
        operator.opcodeIndex = self._codes.setdefault((number, version), len(self._codes))
        operator.inputs, operator.outputs = _int32(inputs), _int32([made])
        table = OPTIONS.get(kind)
        if table is not None:
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, table)
            operator.builtinOptions = getattr(schema, f"{table}T")()
            for key, value in options.items():
                if key not in vars(operator.builtinOptions):
                    raise KeyError(f"{kind} has no option '{key}'")
                setattr(operator.builtinOptions, key, value)
        self._operators.append(operator)
        self._makers[made] = kind, operator
        for tensor in inputs:
            self._readers[tensor] = self._readers.get(tensor, 0) + 1
        return made

    def fused(self, tensor: int, activation: int, name: str) -> bool:
        """Build an activation into the operator that makes a tensor; False where that cannot be, or others read it."""
        kind, operator = self._makers.get(tensor, ("", None))
        if kind not in FUSES or self._readers.get(tensor) or operator.builtinOptions.fusedActivationFunction:
            return False
        operator.builtinOptions.fusedActivationFunction = activation
        self.rename(tensor, name)
        return True

    def is_made(self, tensor: int) -> bool:
        """Whether an operator makes it, and none reads it."""
        return tensor in self._makers and not self._readers.get(tensor)

    def rename(self, tensor: int, name: str) -> None:
        """Give a computed tensor another name."""
        self._taken.discard(self._tensors[tensor].name)
        self._tensors[tensor].name = self._unique(name)

    def packed(
        self,
        given: tuple[int, str],
        outputs: Sequence[tuple[int, str]],
        *,
        free_batch: bool,
        key: str,
        description: str,
        metadata: Mapping[str, bytes],
    ) -> bytes:
        """The file: ``given`` and ``outputs`` are tensors with the names that the signature ``key`` has for them."""
        if free_batch:
            for tensor in self._tensors:
                if tensor.buffer and self._buffers[tensor.buffer].data is None:
                    tensor.shapeSignature = _int32([-1, *tensor.shape[1:]])
        graph, model = schema.SubGraphT(), schema.ModelT()
        graph.name, graph.tensors, graph.operators = "main", self._tensors, self._operators
        graph.inputs, graph.outputs = _int32([given[0]]), _int32([tensor for tensor, _ in outputs])
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = key, 0
        signature.inputs = [_named(*given)]
        signature.outputs = [_named(*output) for output in outputs]
        model.version, model.subgraphs, model.signatureDefs = VERSION, [graph], [signature]
        model.operatorCodes = [_code(number, version) for number, version in self._codes]
        model.description = description
        model.metadata = []
        for name, data in metadata.items():
            item = schema.MetadataT()
            item.name, item.buffer = name, self._new_buffer(data)
            model.metadata.append(item)
        model.buffers = self._buffers
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def _new_buffer(self, data: bytes | None) -> int:
        buffer = _Buffer()
        buffer.data = data or None
        self._buffers.append(buffer)
        return len(self._buffers) - 1

    def _unique(self, name: str) -> str:
        made = free_name(name, self._taken)
        self._taken.add(made)
        return made


def _int32(numbers: Sequence[int]) -> Array:
    return np.array(numbers, np.int32)


def _named(tensor: int, name: str) -> Any:
    item = schema.TensorMapT()
    item.name, item.tensorIndex = name, tensor
    return item


def _code(number: int, version: int) -> Any:
    code = schema.OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode, code.version = number, min(number, 127), version
    return code
