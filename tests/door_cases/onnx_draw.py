"""An ONNX graph while it is drawn: its values with their shapes, and every way in which a constant can be written."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

Shape = tuple[Any, ...]

#: ONNX's numbers of the float types that graphs are drawn in.
KINDS = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE, "float16": TensorProto.FLOAT16}


class Draw:
    """Nodes, initialisers, and the values that the next node may read.

    ``batch`` is None for a free batch axis, a number for a fixed one, 0 where the input has no batch axis; in a
    shape, a free axis is None. Axes from ``lead`` on belong to one example.
    """

    def __init__(self, rng: np.random.Generator, opset: int, dtype: str, batch: int | None) -> None:
        self.rng, self.opset, self.dtype, self.batch = rng, opset, np.dtype(dtype), batch
        self.kind = KINDS[dtype]
        self.lead = 0 if batch in (0, 1) and rng.random() < 0.3 else 0 if batch == 0 else 1
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.sparse: list[Any] = []
        self.functions: list[Any] = []
        self.domains: dict[str, int] = {}
        self.values: list[tuple[str, Shape]] = []
        self.uses: list[str] = []
        self.output_kind = self.kind
        self.more_outputs: list[str] = []
        #: How many values of one example a tensor has at most.
        self.largest = 96
        self._count = 0

    # ---- choosing

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def pick(self, items: Any) -> Any:
        items = list(items)
        return items[int(self.rng.integers(len(items)))]

    def int(self, low: int, high: int) -> int:
        """A whole number in [low, high]."""
        return int(self.rng.integers(low, high + 1))

    def some(self, *ranks: int) -> tuple[str, Shape]:
        """A value to read, most often one of the latest."""
        fitting = [value for value in self.values if not ranks or len(value[1]) in ranks]
        if not fitting:
            raise Unfit
        if self.chance(0.65):
            return fitting[-1]
        return fitting[-self.int(1, min(4, len(fitting)))]

    def axis(self, shape: Shape) -> int:
        """An axis of one example."""
        if len(shape) <= self.lead:
            raise Unfit
        return self.int(self.lead, len(shape) - 1)

    def signed(self, axis: int, rank: int, since: int = 11) -> int:
        """The axis, or the same one counted from the end."""
        return axis - rank if self.opset >= since and self.chance(0.4) else axis

    # ---- growing

    def name(self) -> str:
        self._count += 1
        return f"t{self._count}"

    def emit(self, kind: str, inputs: list[str], outputs: int = 1, domain: str = "", **attributes: Any) -> Any:
        """A node; the name of its output, or the names."""
        made = [self.name() for _ in range(outputs)]
        name = made[0] if self.chance(0.3) else ""
        attributes = {key: value for key, value in attributes.items() if value is not None}
        self.nodes.append(helper.make_node(kind, inputs, made, name=name, domain=domain, **attributes))
        self.uses.append(kind)
        return made[0] if outputs == 1 else made

    def push(self, name: str, shape: Shape) -> None:
        if any(d == 0 for d in shape) or np.prod([d or 1 for d in shape]) > self.largest:
            raise Unfit
        self.values.append((name, tuple(shape)))

    def same(self, kind: str, name: str, shape: Shape, *more: str, **attributes: Any) -> None:
        """A node that keeps the shape."""
        self.push(self.emit(kind, [name, *more], **attributes), shape)

    def since(self, version: int, key: str, value: Any, inputs: list[str]) -> dict[str, Any]:
        """A list that is an input from an opset on, and an attribute before: appended there, or returned."""
        if value is None:
            return {}
        if self.opset >= version:
            inputs.append(self.ints(value))
            return {}
        return {key: value}

    # ---- constants

    def stored(self, array: Any) -> str:
        """An initialiser, a sparse one, or a Constant."""
        array, name = np.asarray(array), self.name()
        tensor = numpy_helper.from_array(array, name)
        if self.opset >= 11 and array.ndim and array.dtype == np.float32 and self.chance(0.06):
            at = np.flatnonzero(array)
            if len(at):
                given = np.stack(np.nonzero(array), 1) if self.chance(0.5) else at
                sparse = helper.make_sparse_tensor(
                    numpy_helper.from_array(array.ravel()[at], name),
                    numpy_helper.from_array(given.astype(np.int64), f"{name}_at"),
                    list(array.shape),
                )
                self.sparse.append(sparse)
                return name
        if self.chance(0.7):
            self.initializers.append(tensor)
        elif self.opset >= 12 and array.dtype == np.int64 and array.ndim == 1 and self.chance(0.5):
            self.nodes.append(helper.make_node("Constant", [], [name], value_ints=array.tolist()))
        elif self.opset >= 12 and array.dtype == np.float32 and array.ndim == 0 and self.chance(0.5):
            self.nodes.append(helper.make_node("Constant", [], [name], value_float=float(array)))
        else:
            self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        return name

    def ints(self, numbers: Any) -> str:
        """A list of whole numbers, or one, stored or computed from constants."""
        array = np.asarray(numbers, np.int64)
        way = self.int(0, 13) if array.ndim == 1 and len(array) and self.opset >= 7 else 99
        if way == 0:
            other = self.pick([np.int32, np.float32, np.float64])
            return str(self.emit("Cast", [self.stored(array.astype(other))], to=TensorProto.INT64))
        if way == 1 and len(array) > 1:
            cut = self.int(1, len(array) - 1)
            return str(self.emit("Concat", [self.stored(array[:cut]), self.stored(array[cut:])], axis=0))
        if way == 2 and (array >= 0).all() and np.prod(array) < 200:
            return str(self.emit("Shape", [self.stored(np.zeros(array, np.float32))]))
        if way == 3:
            off = self.int(-3, 3)
            return str(self.emit("Add", [self.stored(array - off), self.stored(np.array([off], np.int64))]))
        if way == 4:
            return str(self.emit("Gather", [self.stored(array[::-1].copy()), self.stored(np.arange(len(array))[::-1])]))
        if way == 5 and self.opset >= 11 and (np.diff(array) == 1).all():
            ends = (array[0], array[-1] + 1, 1)
            return str(self.emit("Range", [self.stored(np.array(end, np.int64)) for end in ends]))
        if way == 6 and self.opset >= 9 and len(set(array.tolist())) == 1:
            value = numpy_helper.from_array(array[:1])
            return str(self.emit("ConstantOfShape", [self.stored(np.array([len(array)]))], value=value))
        return self.stored(array)

    def numbers(self, *shape: int, low: float = -2.0, high: float = 2.0) -> np.ndarray[Any, Any]:
        """Random numbers of the graph's type, short ones half of the time."""
        drawn = self.rng.uniform(low, high, shape)
        if self.chance(0.5):
            drawn = np.round(drawn * 16) / 16
        if self.chance(0.1):
            drawn = drawn * (self.rng.random(shape) < 0.5)
        return drawn.astype(self.dtype)

    def floats(self, *shape: int, low: float = -2.0, high: float = 2.0) -> str:
        """Numbers of a shape, stored or computed from constants."""
        if None in shape:  # as long as a batch
            raise Unfit
        if self.chance(0.7) or self.opset < 7:
            return self.stored(self.numbers(*shape, low=low, high=high))
        return str(self.pick(COMPUTED)(self, shape))

    def plain(self, *shape: int, low: float = -2.0, high: float = 2.0) -> str:
        return self.stored(self.numbers(*shape, low=low, high=high))

    def ir_version(self) -> int:
        low = 5 if self.sparse else 3
        return self.int(max(low, 8 if self.functions else 3), 11)


class Unfit(Exception):  # noqa: N818 - an answer, not an error
    """What was drawn does not fit here."""


# ---- constants computed in the graph; each function gives the name of floats of a shape


def _there_and_back(draw: Draw, shape: Shape) -> str:
    kinds = [
        TensorProto.INT64,
        TensorProto.INT32,
        TensorProto.BOOL,
        TensorProto.FLOAT16,
        TensorProto.DOUBLE,
        TensorProto.FLOAT,
        TensorProto.INT8,
    ]
    if draw.opset >= 13:
        kinds.append(TensorProto.BFLOAT16)
    there = draw.emit("Cast", [draw.plain(*shape)], to=draw.pick(kinds))
    return str(draw.emit("Cast", [there], to=draw.kind))


def _operated(draw: Draw, shape: Shape) -> str:
    kind = draw.pick(["Add", "Sub", "Mul", "Div"])
    other = draw.plain(*shape, low=0.5, high=2.0)
    return str(draw.emit(kind, [draw.plain(*shape), other]))


def _function(draw: Draw, shape: Shape) -> str:
    kinds = ["Neg", "Abs", "Exp", "Tanh", "Sigmoid", "Relu", "Floor", "Ceil", "Identity", "Softplus"]
    kinds += ["Erf", "Sign", "Sin", "Cos"] if draw.opset >= 9 else []
    kinds += ["Round"] if draw.opset >= 11 else []
    return str(draw.emit(draw.pick(kinds), [draw.plain(*shape)]))


def _positive(draw: Draw, shape: Shape) -> str:
    return str(draw.emit(draw.pick(["Sqrt", "Log", "Reciprocal"]), [draw.plain(*shape, low=0.5, high=3.0)]))


def _power(draw: Draw, shape: Shape) -> str:
    return str(draw.emit("Pow", [draw.plain(*shape, low=0.5), draw.stored(np.asarray(2.0, draw.dtype))]))


def _where(draw: Draw, shape: Shape) -> str:
    if draw.opset < 9:
        raise Unfit
    if draw.chance(0.5):
        mask = draw.stored(draw.rng.random(shape) < 0.6)
    else:
        mask = draw.emit(draw.pick(["Greater", "Less"]), [draw.plain(*shape), draw.plain(*shape)])
    return str(draw.emit("Where", [mask, draw.plain(*shape), draw.stored(np.zeros((), draw.dtype))]))


def _filled(draw: Draw, shape: Shape) -> str:
    if draw.opset < 9:
        raise Unfit
    value = numpy_helper.from_array(np.array([0.75], draw.dtype)) if draw.chance(0.7) else None
    if value is None and draw.dtype != np.float32:
        raise Unfit
    made = draw.emit("ConstantOfShape", [draw.ints(list(shape))], value=value) if shape else draw.plain()
    return str(draw.emit("Add", [made, draw.plain(*shape)]))


def _normed(draw: Draw, shape: Shape) -> str:
    if not shape:
        raise Unfit
    kind = draw.pick(["ReduceL2", "ReduceSum", "ReduceMean", "ReduceMax", "ReduceL1", "ReduceProd"])
    if draw.dtype == np.float16:
        raise Unfit
    inputs = [draw.plain(*shape, 3)]
    attributes = draw.since(13 if kind == "ReduceSum" else 18, "axes", [len(shape)], inputs)
    made = draw.emit(kind, inputs, keepdims=0, **attributes)
    if draw.chance(0.5):
        return str(made)
    return str(
        draw.emit(
            "Div",
            [
                draw.plain(*shape),
                draw.emit(
                    "Add", [draw.emit("Abs", [made]), draw.emit("Abs", [draw.stored(np.full(shape, 0.5, draw.dtype))])]
                ),
            ],
        )
    )


def _turned(draw: Draw, shape: Shape) -> str:
    order = draw.rng.permutation(len(shape))
    stored = draw.plain(*(shape[i] for i in np.argsort(order)))
    return str(draw.emit("Transpose", [stored], perm=[int(i) for i in order] or None))


def _reshaped(draw: Draw, shape: Shape) -> str:
    return str(draw.emit("Reshape", [draw.plain(int(np.prod(shape))), draw.ints([*shape])])) if shape else draw.plain()


def _sliced(draw: Draw, shape: Shape) -> str:
    if not shape:
        raise Unfit
    axis = draw.int(0, len(shape) - 1)
    longer = list(shape)
    longer[axis] += 2
    inputs = [draw.plain(*longer)]
    attributes: dict[str, Any] = {}
    for key, value in (("starts", [1]), ("ends", [longer[axis] - 1]), ("axes", [axis])):
        attributes |= draw.since(10, key, value, inputs)
    return str(draw.emit("Slice", inputs, **attributes))


def _gathered(draw: Draw, shape: Shape) -> str:
    if not shape:
        return str(draw.emit("Gather", [draw.plain(3), draw.stored(np.array(1))], axis=0))
    rows = draw.rng.integers(0, 4, shape[0])
    return str(draw.emit("Gather", [draw.plain(4, *shape[1:]), draw.ints(rows)], axis=0))


def _joined(draw: Draw, shape: Shape) -> str:
    if not shape or shape[-1] < 2:
        raise Unfit
    parts = [draw.plain(*shape[:-1], 1), draw.plain(*shape[:-1], shape[-1] - 1)]
    return str(draw.emit("Concat", parts, axis=len(shape) - 1))


def _spread(draw: Draw, shape: Shape) -> str:
    if draw.opset < 8 or not shape:
        raise Unfit
    return str(draw.emit("Expand", [draw.plain(1), draw.ints(list(shape))]))


def _product(draw: Draw, shape: Shape) -> str:
    if len(shape) != 2 or draw.dtype == np.float16:
        raise Unfit
    return str(draw.emit("MatMul", [draw.plain(shape[0], 2), draw.plain(2, shape[1])]))


def _dequantized(draw: Draw, shape: Shape) -> str:
    if draw.opset < 10 or draw.dtype != np.float32:
        raise Unfit
    whole = draw.rng.integers(-100, 100, shape).astype(np.int8)
    more = [draw.stored(np.array(3, np.int8))] if draw.chance(0.5) else []
    return str(draw.emit("DequantizeLinear", [draw.stored(whole), draw.stored(np.float32(0.0123)), *more]))


def _raised(draw: Draw, shape: Shape) -> str:
    inputs = [draw.plain(*shape)]
    attributes = draw.since(13, "axes", [0], inputs)
    made = [draw.emit("Unsqueeze", inputs, **attributes)]
    attributes = draw.since(13, "axes", [0], made) if draw.chance(0.5) or 1 in shape else {}
    return str(draw.emit("Squeeze", made, **attributes))


def _clipped(draw: Draw, shape: Shape) -> str:
    if draw.opset >= 11:
        return str(draw.emit("Clip", [draw.plain(*shape), draw.stored(np.array(-0.5, draw.dtype))]))
    return str(draw.emit("Clip", [draw.plain(*shape)], min=-0.5))


COMPUTED = [
    _there_and_back,
    _there_and_back,
    _operated,
    _function,
    _positive,
    _power,
    _where,
    _filled,
    _normed,
    _turned,
    _reshaped,
    _sliced,
    _gathered,
    _joined,
    _spread,
    _product,
    _dequantized,
    _raised,
    _clipped,
]
