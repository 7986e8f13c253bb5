"""A ``.tflite`` file as plain values: the flatbuffer gone through once, everything that is read of it checked.

The accessors that the schema's package has trust the file. Here every index is looked at before it is followed, and
together no more is read than a few times what the file has bytes: tables that share parts, or lie in a circle, end.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from leo_core.errors import FormatError, UnsupportedModelError
from leo_frontends.graph import Array

_IDENTIFIER = b"TFL3"
#: The schema's version that all files have.
VERSION = 3
#: An empty file of a format that starts otherwise, by how it begins.
_OTHERS = {b"\x89HDF": "an HDF5 file (.h5)", b"PK\x03\x04": "a ZIP archive (.keras, .pt2)", b"\x08": "an ONNX file"}
#: By the schema's number of a type, NumPy's name; others are not read.
DTYPES = {0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 6: "bool", 7: "int16", 9: "int8"}
TYPES = {number: name.lower() for name, number in vars(schema.TensorType).items() if not name.startswith("_")}
_KINDS = {number: name for name, number in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
#: So many axes has no tensor.
_AXES = 16
#: How many times the bytes of a file may be read, parts that tables share counted each time.
_TIMES = 8


@final
@dataclass(frozen=True, eq=False)
class TensorInfo:
    """A tensor: its name, and what is known of it before anything is run.

    Attributes
    ----------
    free:
        Which axes have no fixed length; their length in ``shape`` is that of one example.
    type:
        The schema's name of it, in lower case.
    numbers:
        What it holds where it is a constant.
    quantised:
        Whether it says how whole numbers stand for real ones.
    """

    name: str
    shape: tuple[int, ...]
    free: tuple[bool, ...]
    type: str
    numbers: Array | None
    quantised: bool

    @property
    def short(self) -> str:
        """The first of the names that a converter has put together."""
        return self.name.split(";")[0] or self.name


@final
@dataclass(frozen=True, eq=False)
class Operator:
    """An operator: ``inputs`` and ``outputs`` are numbers of tensors, −1 is an input that is left out."""

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, Any]


@final
@dataclass(frozen=True, eq=False)
class TfliteModel:
    """All that a file says.

    Attributes
    ----------
    signature:
        The name under which the graph is called, with the tensors' names there: by number of a tensor. Empty where the
        file has none.
    metadata:
        What else is stored, by name.
    """

    tensors: tuple[TensorInfo, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    description: str
    signature: tuple[str, Mapping[int, str], Mapping[int, str]] = ("", {}, {})
    metadata: Mapping[str, bytes] = field(default_factory=dict)


def parsed(data: bytes, where: str) -> TfliteModel:
    """The model in a file. Raises :class:`FormatError` for what is no well-formed one, and
    :class:`UnsupportedModelError` for one that says more than LEO reads."""
    if len(data) < 8 or data[4:8] != _IDENTIFIER:
        raise FormatError(f"{where}: {_not_tflite(data)}")
    try:
        return _File(data, where).model()
    except (struct.error, IndexError, ValueError, TypeError, AttributeError, OverflowError, MemoryError) as error:
        raise _damaged(where, f"{type(error).__name__}: {error}") from None


def _not_tflite(data: bytes) -> str:
    if not data:
        return "is empty"
    known = next((what for begins, what in _OTHERS.items() if data.startswith(begins)), "")
    if known:
        return f"is {known}, not a TensorFlow Lite file; give it the suffix it had"
    return f"is not a TensorFlow Lite file (bytes 4 to 8 are not {_IDENTIFIER.decode()}); is it damaged?"


def _damaged(where: str, what: str) -> FormatError:
    return FormatError(f"{where}: the TensorFlow Lite file is damaged or truncated ({what}); convert it again")


class _File:
    """The bytes, and how many more of them may be read."""

    def __init__(self, data: bytes, where: str) -> None:
        self._where, self._left = where, _TIMES * len(data)
        self._data = data
        self._model = schema.Model.GetRootAs(data, 0)
        self._signatures: tuple[str, Mapping[int, str], Mapping[int, str]] = ("", {}, {})

    def model(self) -> TfliteModel:
        if self._model.Version() != VERSION:
            raise self._bad(f"its version is {self._model.Version()}, not {VERSION}")
        graph = self._graph()
        tensors = tuple(self._tensor(graph.Tensors(i), i) for i in self._each(graph.TensorsLength(), 4))
        inputs, outputs = (self._numbers(graph, side, len(tensors), "of the graph") for side in ("Inputs", "Outputs"))
        codes = [self._kind(self._model.OperatorCodes(i)) for i in self._each(self._model.OperatorCodesLength(), 4)]
        operators = tuple(
            self._operator(graph.Operators(i), i, codes, len(tensors)) for i in self._each(graph.OperatorsLength(), 4)
        )
        self._require_order(tensors, operators, inputs, outputs)
        return TfliteModel(
            tensors, operators, inputs, outputs, self._text(self._model.Description()),
            self._signature(len(tensors)), self._metadata(),
        )  # fmt: skip

    def _graph(self) -> Any:
        count = self._model.SubgraphsLength()
        if not count:
            raise self._bad("there is no graph in it")
        if count > 1:
            raise UnsupportedModelError(
                self._where,
                [
                    f"it has {min(count, len(self._data))} graphs, for branches, loops or several signatures; one is "
                    "read: convert the model with one signature, and without control flow"
                ],
            )
        return self._model.Subgraphs(0)

    def _tensor(self, tensor: Any, number: int) -> TensorInfo:
        self._spend(32)
        name = self._text(tensor.Name()) or f"tensor_{number}"
        shape = self._shape(tensor.ShapeAsNumpy() if tensor.ShapeLength() else (), name)
        signature = tensor.ShapeSignatureAsNumpy() if tensor.ShapeSignatureLength() else ()
        free = tuple(int(length) < 0 for length in signature)
        free = free if len(free) == len(shape) else (False,) * len(shape)
        if tensor.Type() not in TYPES:
            raise self._bad(f"the tensor '{name}' is of type {tensor.Type()}, which there is not")
        kind = TYPES[tensor.Type()]
        scales = tensor.Quantization()
        quantised = scales is not None and scales.ScaleLength() > 0
        sparse = tensor.Sparsity() is not None
        numbers = self._constant(tensor, name, shape, sparse=sparse)
        if numbers is not None and numbers.dtype.kind == "f" and not np.isfinite(numbers).all():
            raise FormatError(f"{self._where}: the weights '{name}' hold NaN or infinity; LEO needs finite weights")
        return TensorInfo(name, shape, free, kind, numbers, quantised)

    def _shape(self, lengths: Sequence[int], name: str) -> tuple[int, ...]:
        shape = tuple(int(length) for length in lengths)
        if len(shape) > _AXES or min(shape, default=1) < 0 or math.prod(max(length, 1) for length in shape) > 1 << 40:
            raise self._bad(f"the tensor '{name}' has the shape {shape[:_AXES]}")
        return shape

    def _constant(self, tensor: Any, name: str, shape: tuple[int, ...], *, sparse: bool) -> Array | None:
        """The numbers of a tensor; None where it is computed, or of a type that is not read."""
        number = tensor.Buffer()
        if number >= self._model.BuffersLength():
            raise self._bad(f"the tensor '{name}' lies in buffer {number}, of {self._model.BuffersLength()}")
        buffer = self._model.Buffers(number)
        if buffer.Offset() > 1 or buffer.Size() > 1:
            raise UnsupportedModelError(
                self._where, [f"the numbers of '{name}' lie behind the model, as in files of over 2 GB: not read"]
            )
        if not number or not buffer.DataLength():
            return None
        if sparse:
            raise UnsupportedModelError(
                self._where, [f"the weights '{name}' are stored sparse, which is not read; convert without sparsity"]
            )
        self._spend(buffer.DataLength())
        dtype = DTYPES.get(tensor.Type())
        if dtype is None:
            return None
        stored: Array = buffer.DataAsNumpy()
        if stored.size != math.prod(shape) * np.dtype(dtype).itemsize:
            raise self._bad(f"the tensor '{name}' of shape {shape} has {stored.size} bytes")
        return stored.view(np.dtype(dtype).newbyteorder("<")).astype(dtype).reshape(shape)

    def _kind(self, code: Any) -> str:
        self._spend(16)
        number = max(int(code.DeprecatedBuiltinCode()), int(code.BuiltinCode()))
        if number not in _KINDS:
            raise UnsupportedModelError(
                self._where, [f"an operator has the number {number}, which the installed schema does not know; "
                              "update it: pip install --upgrade ai-edge-litert"]
            )  # fmt: skip
        kind = _KINDS[number]
        return f"CUSTOM {self._text(code.CustomCode())}" if kind == "CUSTOM" else kind

    def _operator(self, operator: Any, number: int, codes: Sequence[str], tensors: int) -> Operator:
        self._spend(32)
        at = operator.OpcodeIndex()
        if at >= len(codes):
            raise self._bad(f"operator {number} is of kind {at}, of {len(codes)}")
        kind = codes[at]
        inputs, outputs = (
            self._numbers(operator, side, tensors, f"of operator {number} ({kind})", optional=side == "Inputs")
            for side in ("Inputs", "Outputs")
        )
        return Operator(kind, inputs, outputs, self._options(operator, number, kind))

    def _options(self, operator: Any, number: int, kind: str) -> Mapping[str, Any]:
        """What it says besides its inputs; defaults where it says nothing, empty for kinds that say nothing."""
        wanted = OPTIONS.get(kind)
        if wanted is None:
            return {}
        given = operator.BuiltinOptionsType()
        if not given:
            return dict(vars(getattr(schema, f"{wanted}T")()))
        if given != getattr(schema.BuiltinOptions, wanted):
            raise self._bad(f"operator {number} ({kind}) has the options of another kind")
        table = operator.BuiltinOptions()
        if table is None:
            raise self._bad(f"operator {number} ({kind}) has lost its options")
        found: dict[str, Any] = dict(vars(schema.BuiltinOptionsCreator(given, table)))
        self._spend(64 + sum(array.size for array in found.values() if isinstance(array, np.ndarray)))
        return found

    def _numbers(self, table: Any, side: str, tensors: int, what: str, *, optional: bool = False) -> tuple[int, ...]:
        """Those of tensors that something reads or makes."""
        count = getattr(table, f"{side}Length")()
        self._spend(4 * count)
        numbers = tuple(int(number) for number in getattr(table, f"{side}AsNumpy")()) if count else ()
        least = -1 if optional else 0
        if any(not least <= number < tensors for number in numbers):
            raise self._bad(f"the {side.lower()} {what} are tensors that there are not")
        return numbers

    def _require_order(
        self,
        tensors: Sequence[TensorInfo],
        operators: Sequence[Operator],
        inputs: Sequence[int],
        outputs: Sequence[int],
    ) -> None:
        """Each operator reads what is there, and makes what was not."""
        known = {number for number, tensor in enumerate(tensors) if tensor.numbers is not None}
        if len(set(inputs)) < len(inputs) or known & set(inputs):
            raise self._bad("an input is given twice, or is a constant")
        known |= {*inputs, -1}
        for number, operator in enumerate(operators):
            made = operator.outputs
            if known & set(made) or len(set(made)) < len(made):
                raise self._bad(f"operator {number} ({operator.kind}) makes a tensor that is there already")
            known |= set(made)
        for number in outputs:
            if number not in known:
                raise self._bad(f"no operator computes the output '{tensors[number].name}'")

    def _signature(self, tensors: int) -> tuple[str, Mapping[int, str], Mapping[int, str]]:
        count = self._model.SignatureDefsLength()
        if not count:
            return "", {}, {}
        if count > 1:
            raise UnsupportedModelError(self._where, ["it has several signatures; one is read: convert it with one"])
        definition = self._model.SignatureDefs(0)
        sides = []
        for side in ("Inputs", "Outputs"):
            names: dict[int, str] = {}
            for i in self._each(getattr(definition, f"{side}Length")(), 4):
                item = getattr(definition, side)(i)
                if item.TensorIndex() >= tensors:
                    raise self._bad("its signature names tensors that there are not")
                names[int(item.TensorIndex())] = self._text(item.Name())
            sides.append(names)
        return self._text(definition.SignatureKey()), sides[0], sides[1]

    def _metadata(self) -> Mapping[str, bytes]:
        found: dict[str, bytes] = {}
        for i in self._each(self._model.MetadataLength(), 4):
            item = self._model.Metadata(i)
            if item.Buffer() >= self._model.BuffersLength():
                raise self._bad("its metadata lie in a buffer that there is not")
            buffer = self._model.Buffers(item.Buffer())
            self._spend(buffer.DataLength())
            found[self._text(item.Name())] = bytes(buffer.DataAsNumpy()) if buffer.DataLength() else b""
        return found

    def _text(self, raw: bytes | None) -> str:
        self._spend(len(raw or b""))
        return (raw or b"").decode("utf-8", "replace")

    def _each(self, count: int, size: int) -> Iterator[int]:
        """The numbers from 0 on, of so many things of so many bytes each."""
        self._spend(count * size)
        return iter(range(count))

    def _spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise self._bad("it says that it holds more than it has bytes")

    def _bad(self, what: str) -> FormatError:
        return _damaged(self._where, what)


#: By kind of operator, the table of options that it has.
OPTIONS: dict[str, str] = {
    "ADD": "AddOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "BATCH_MATMUL": "BatchMatMulOptions",
    "CAST": "CastOptions",
    "CONCATENATION": "ConcatenationOptions",
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "DEPTH_TO_SPACE": "DepthToSpaceOptions",
    "DIV": "DivOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "GATHER": "GatherOptions",
    "LEAKY_RELU": "LeakyReluOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "MEAN": "ReducerOptions",
    "MIRROR_PAD": "MirrorPadOptions",
    "MUL": "MulOptions",
    "PACK": "PackOptions",
    "REDUCE_MAX": "ReducerOptions",
    "REDUCE_MIN": "ReducerOptions",
    "REDUCE_PROD": "ReducerOptions",
    "RESHAPE": "ReshapeOptions",
    "RESIZE_NEAREST_NEIGHBOR": "ResizeNearestNeighborOptions",
    "SHAPE": "ShapeOptions",
    "SOFTMAX": "SoftmaxOptions",
    "SPACE_TO_DEPTH": "SpaceToDepthOptions",
    "SPLIT": "SplitOptions",
    "SPLIT_V": "SplitVOptions",
    "SQUEEZE": "SqueezeOptions",
    "STRIDED_SLICE": "StridedSliceOptions",
    "SUB": "SubOptions",
    "SUM": "ReducerOptions",
    "TRANSPOSE_CONV": "TransposeConvOptions",
    "UNPACK": "UnpackOptions",
}
