"""Random TensorFlow Lite graphs: every operator that is read, with whatever it can say, and traps."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from door_cases import Case
from leo_frontends import convolutions, lowering
from leo_frontends.tflite import images, op, operators
from leo_frontends.tflite.build import Builder

#: What runs the graphs, in turn: the reference kernels, the faster ones, and those that a phone has.
RESOLVERS = (OpResolverType.BUILTIN_REF, OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES, OpResolverType.AUTO)
LARGEST = 400


class Unfit(Exception):  # noqa: N818 - it asks for another draw
    """What was drawn does not go here."""


class Draw:
    """A graph as it grows; ``values`` are (tensor, its shape behind the batch)."""

    def __init__(self, rng: np.random.Generator, shape: tuple[int, ...]) -> None:
        self.rng, self.builder, self.uses = rng, Builder(), []
        self.given = self.builder.tensor(shape, "x")
        self.values: list[tuple[int, tuple[int, ...]]] = [(self.given, shape)]
        self.free = bool(rng.random() < 0.5)

    def pick(self, items: Any) -> Any:
        return items[int(self.rng.integers(len(items)))]

    def int(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def value(self, ranks: Any = (1, 2, 3)) -> tuple[int, tuple[int, ...]]:
        fitting = [value for value in self.values if len(value[1]) in ranks]
        if not fitting:
            raise Unfit
        return fitting[-1] if self.chance(0.7) else self.pick(fitting)

    def floats(self, *shape: int, scale: float = 1.0) -> int:
        array = (self.rng.normal(size=shape) * scale).astype(np.float32)
        return self.builder.constant(np.round(array * 16) / 16 if self.chance(0.3) else array, "c")

    def ints(self, numbers: Any) -> int:
        return self.builder.constant(np.array(numbers, np.int32), "i")

    def emit(self, kind: str, inputs: list[int], count: int = 1, version: int = 1, **options: Any) -> list[int]:
        """The tensors that an operator makes; their shapes are what the interpreter finds."""
        made = [self.builder.operator(kind, inputs, (), kind.lower(), version, **options)]
        for _ in range(count - 1):
            made.append(self.builder.tensor((), kind.lower()))
        if count > 1:
            self.builder._operators[-1].outputs = np.array(made, np.int32)
        ran = interpreter(self.packed(made), OpResolverType.BUILTIN_REF)
        for at, tensor in enumerate(made):
            shape = tuple(int(n) for n in ran.get_output_details()[at]["shape"])
            if not shape or shape[0] != 1 or math.prod(shape) > LARGEST or len(shape) > 4 or 0 in shape:
                raise Unfit
            self.builder._tensors[tensor].shape = np.array(shape, np.int32)
            self.values.append((tensor, shape[1:]))
        self.uses.append(kind)
        return made

    def packed(self, outputs: list[int]) -> bytes:
        builder = copy.deepcopy(self.builder)
        return builder.packed(
            (self.given, "x"), [(tensor, f"y{at}") for at, tensor in enumerate(outputs)],
            free_batch=self.free, key="serving_default", description="", metadata={},
        )  # fmt: skip


def interpreter(data: bytes, resolver: Any) -> Any:
    """One that is ready, or :class:`Unfit`."""
    try:
        ran = Interpreter(model_content=data, experimental_op_resolver_type=resolver, num_threads=1)
        ran.allocate_tensors()
    except (ValueError, RuntimeError):
        raise Unfit from None
    return ran


def _act(draw: Draw) -> dict[str, int]:
    return {"fusedActivationFunction": draw.pick([0, 0, 1, 1, 2, 3])}


def _strides(draw: Draw, *, dilated: bool) -> dict[str, Any]:
    found = {"padding": draw.int(0, 1), "strideH": draw.int(1, 3), "strideW": draw.int(1, 2)}
    if dilated:
        much = {"dilationHFactor": draw.int(1, 2), "dilationWFactor": draw.int(1, 3)} if draw.chance(0.3) else {}
        found |= {"dilationHFactor": 1, "dilationWFactor": 1, **much}
        if much:
            found |= {"strideH": 1, "strideW": 1}
    return found


def conv(draw: Draw) -> None:
    at, (_, _, channels) = draw.value((3,))
    groups = draw.pick([g for g in (1, 1, 2, 3) if channels % g == 0])
    out = groups * draw.int(1, 3)
    kernel = draw.floats(out, draw.int(1, 3), draw.int(1, 3), channels // groups)
    inputs = [at, kernel, draw.floats(out)] if draw.chance(0.8) else [at, kernel]
    draw.emit("CONV_2D", inputs, version=6 if groups > 1 else 1, **_strides(draw, dilated=True), **_act(draw))


def depthwise(draw: Draw) -> None:
    at, (_, _, channels) = draw.value((3,))
    times = draw.int(1, 2)
    inputs = [at, draw.floats(1, draw.int(1, 3), draw.int(1, 3), channels * times), draw.floats(channels * times)]
    draw.emit(
        "DEPTHWISE_CONV_2D", inputs, version=2, depthMultiplier=times, **_strides(draw, dilated=True), **_act(draw)
    )


def transposed(draw: Draw) -> None:
    at, (height, width, channels) = draw.value((3,))
    options, out = _strides(draw, dilated=False), draw.int(1, 2)
    kernel = draw.floats(out, draw.int(1, 3), draw.int(1, 3), channels)
    sizes = [n * options[s] + draw.int(-1, 2) for n, s in ((height, "strideH"), (width, "strideW"))]
    inputs = [draw.ints([1, *sizes, out]), kernel, at, *([draw.floats(out)] if draw.chance(0.6) else [])]
    if min(sizes) < 1:
        raise Unfit
    draw.free = False
    draw.emit("TRANSPOSE_CONV", inputs, version=4, **options, **_act(draw))


def pool(draw: Draw) -> None:
    at, _ = draw.value((3,))
    taps = {"filterHeight": draw.int(1, 3), "filterWidth": draw.int(1, 3)}
    draw.emit(
        draw.pick(["MAX_POOL_2D", "AVERAGE_POOL_2D"]), [at], **taps, **_strides(draw, dilated=False), **_act(draw)
    )


def fully_connected(draw: Draw) -> None:
    at, shape = draw.value()
    size, out = draw.pick([shape[-1], math.prod(shape)]), draw.int(1, 5)
    keep = size == shape[-1] and draw.chance(0.5)
    if size != math.prod(shape) and not keep:
        raise Unfit  # it would make rows of one example's values
    bias = [draw.floats(out)] if draw.chance(0.8) else [-1]
    draw.emit("FULLY_CONNECTED", [at, draw.floats(out, size), *bias], version=6, keepNumDims=keep, **_act(draw))


def batch_matmul(draw: Draw) -> None:
    at, shape = draw.value((2, 3))
    out, turned = draw.int(1, 4), draw.chance(0.5)
    matrix = draw.floats(out, shape[-1]) if turned else draw.floats(shape[-1], out)
    draw.emit("BATCH_MATMUL", [at, matrix], adjY=turned)


def with_constant(draw: Draw) -> None:
    at, shape = draw.value()
    spread = draw.pick([shape, shape[-1:], (1,), tuple(1 if draw.chance(0.5) else n for n in shape)])
    inputs = [at, draw.floats(*spread)]
    kind = draw.pick(["ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM"])
    if kind != "DIV" and draw.chance(0.4):
        inputs.reverse()
    draw.emit(kind, inputs, **(_act(draw) if kind in ("ADD", "SUB", "MUL", "DIV") else {}))


def two(draw: Draw) -> None:
    at, shape = draw.value()
    others = [value for value in draw.values if value[1] == shape]
    other = draw.pick(others)[0]
    kind = draw.pick(["ADD", "SUB", "MAXIMUM", "MINIMUM", "ADD_N"])
    draw.emit(kind, [at, other], **(_act(draw) if kind in ("ADD", "SUB") else {}))


def pointwise(draw: Draw) -> None:
    at, _ = draw.value()
    draw.emit(draw.pick(["RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1", "ABS", "NEG"]), [at])


def leaky(draw: Draw) -> None:
    at, shape = draw.value()
    if draw.chance(0.5):
        draw.emit("LEAKY_RELU", [at], alpha=float(np.float32(draw.pick([0.1, 0.01, 0.5, -0.3, 1.5]))))
    else:
        alpha = draw.pick([shape, (*(1,) * (len(shape) - 1), shape[-1])])
        draw.emit("PRELU", [at, draw.floats(*alpha, scale=0.3)])


def reduce(draw: Draw) -> None:
    at, shape = draw.value((2, 3))
    axes = sorted({draw.int(1, len(shape)) for _ in range(draw.int(1, len(shape)))})
    axes = [a - len(shape) - 1 if draw.chance(0.3) else a for a in axes]
    kind = draw.pick(["MEAN", "MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"])
    draw.emit(kind, [at, draw.ints(axes)], keepDims=draw.chance(0.5))


def pad(draw: Draw) -> None:
    at, shape = draw.value()
    widths = [[0, 0], *([draw.int(0, 2), draw.int(0, 2)] for _ in shape)]
    kind = draw.pick(["PAD", "PAD", "PADV2", "MIRROR_PAD"])
    if kind == "MIRROR_PAD":
        mode = draw.int(0, 1)
        widths = [[0, 0], *([min(n - 1 + mode, w) for w in pair] for n, pair in zip(shape, widths[1:], strict=True))]
        draw.emit(kind, [at, draw.ints(widths)], mode=mode)
    else:
        draw.emit(kind, [at, draw.ints(widths), *([draw.floats()] if kind == "PADV2" else [])])


def reshape(draw: Draw) -> None:
    at, shape = draw.value()
    size = math.prod(shape)
    target = draw.pick(
        [(size,), (1, size), (*shape[::-1],), (1, 1, size), *([(2, size // 2)] if size % 2 == 0 else [])]
    )
    if draw.chance(0.3):  # as converters write it for batches of any size
        whole = draw.builder.operator("SHAPE", [at], (), "shape")
        draw.builder._tensors[whole].type, draw.builder._tensors[whole].shape = 2, np.array([len(shape) + 1], np.int32)
        first = draw.builder.operator(
            "STRIDED_SLICE", [whole, draw.ints([0]), draw.ints([1]), draw.ints([1])], (), "slice", shrinkAxisMask=1
        )
        parts = [first, *(draw.builder.constant(np.array(n, np.int32), "n") for n in target)]
        packed = draw.builder.operator("PACK", parts, (), "pack", valuesCount=len(parts), axis=0)
        for tensor, lengths in ((first, []), (packed, [len(parts)])):
            draw.builder._tensors[tensor].type = 2
            draw.builder._tensors[tensor].shape = np.array(lengths, np.int32)
        draw.emit("RESHAPE", [at, packed])
    else:
        draw.emit("RESHAPE", [at, draw.ints([-1, *target])])


def move(draw: Draw) -> None:
    at, shape = draw.value()
    kind = draw.pick(["TRANSPOSE", "EXPAND_DIMS", "SQUEEZE", "REVERSE_V2", "TILE", "GATHER", "BROADCAST_TO"])
    axis = draw.int(1, len(shape))
    if kind == "TRANSPOSE":
        draw.emit(kind, [at, draw.ints([0, *(draw.rng.permutation(len(shape)) + 1)])])
    elif kind == "EXPAND_DIMS":
        draw.emit(kind, [at, draw.ints(axis)])
    elif kind == "SQUEEZE":
        draw.emit(kind, [at], squeezeDims=np.array([a + 1 for a, n in enumerate(shape) if n == 1], np.int32))
    elif kind == "REVERSE_V2":
        draw.emit(kind, [at, draw.ints([axis])])
    elif kind == "TILE":
        draw.emit(kind, [at, draw.ints([1, *(draw.int(1, 2) for _ in shape)])])
    elif kind == "GATHER":
        indices = draw.rng.integers(0, shape[axis - 1], size=draw.int(1, 4))
        draw.emit(kind, [at, draw.ints(indices)], axis=axis)
    else:
        draw.free = False
        draw.emit(kind, [at, draw.ints([1, *(draw.int(2, 3) if n == 1 else n for n in shape)])])


def cut(draw: Draw) -> None:
    at, shape = draw.value()
    begins = [draw.int(0, n - 1) for n in shape]
    if draw.chance(0.5):
        sizes = [draw.pick([-1, draw.int(1, n - b)]) for n, b in zip(shape, begins, strict=True)]
        draw.emit("SLICE", [at, draw.ints([0, *begins]), draw.ints([-1, *sizes])])
        return
    steps = [draw.pick([1, 1, 2, -1]) for _ in shape]
    ends = [draw.int(-n - 1, n + 1) for n in shape]
    bits = 2 ** len(shape)
    masks = {"beginMask": 1 + 2 * draw.int(0, bits - 1), "endMask": 1 + 2 * draw.int(0, bits - 1)}
    shrink = 2 * draw.int(0, bits - 1) if draw.chance(0.3) else 0
    steps = [1 if shrink >> (a + 1) & 1 else step for a, step in enumerate(steps)]
    inputs = [at, draw.ints([0, *begins]), draw.ints([0, *ends]), draw.ints([1, *steps])]
    draw.emit("STRIDED_SLICE", inputs, **masks, shrinkAxisMask=shrink)


def parts(draw: Draw) -> None:
    at, shape = draw.value()
    axis = draw.int(1, len(shape))
    length = shape[axis - 1]
    kind = draw.pick(["SPLIT", "SPLIT_V", "UNPACK"])
    if kind == "SPLIT":
        count = draw.pick([n for n in (1, 2, 3) if length % n == 0])
        draw.emit(kind, [draw.ints(axis), at], count, numSplits=count)
    elif kind == "UNPACK":
        draw.emit(kind, [at], length, axis=axis, num=length)
    else:
        first = draw.int(1, length) if length > 1 else 1
        sizes = [first, length - first] if first < length else [length]
        draw.emit(kind, [at, draw.ints(sizes), draw.ints(axis)], len(sizes), numSplits=len(sizes))


def together(draw: Draw) -> None:
    at, shape = draw.value()
    same = [value for value, found in draw.values if found == shape]
    if draw.chance(0.3):
        inputs = [at, draw.pick(same)]
        draw.emit("PACK", inputs, valuesCount=2, axis=draw.int(1, len(shape)))
        return
    others = [at, draw.pick(same)]
    if not draw.free and draw.chance(0.3):
        others.append(draw.floats(1, *shape))
    draw.rng.shuffle(others)
    draw.emit("CONCATENATION", others, axis=draw.int(1, len(shape)))


def places(draw: Draw) -> None:
    at, (height, width, _) = draw.value((3,))
    kind = draw.pick(["RESIZE_NEAREST_NEIGHBOR", "DEPTH_TO_SPACE", "SPACE_TO_DEPTH"])
    if kind == "RESIZE_NEAREST_NEIGHBOR":
        how = draw.pick([{}, {"alignCorners": True}, {"halfPixelCenters": True}])
        sizes = [draw.int(1, 2 * height + 1), draw.int(1, 2 * width + 1)]
        draw.emit(kind, [at, draw.ints(sizes)], version=3, **how)
    else:
        draw.emit(kind, [at], blockSize=2)


def trap(draw: Draw) -> None:
    at, shape = draw.value()
    other = draw.pick([value for value, found in draw.values if found == shape])
    kind = draw.pick(["MUL", "SOFTMAX", "ELU", "HARD_SWISH", "LOGISTIC", "SQUARE", "EXP", "DIV", "SIN", "FLOOR"])
    options = {"beta": draw.pick([1.0, 1.0, 2.0])} if kind == "SOFTMAX" else {}
    draw.emit(kind, [at, other] if kind in ("MUL", "DIV") else [at], **options)


OPS: dict[Callable[[Draw], None], float] = {
    conv: 3, depthwise: 2, transposed: 0.7, pool: 2, fully_connected: 2, batch_matmul: 1, with_constant: 2, two: 1.5,
    pointwise: 1.5, leaky: 1, reduce: 1, pad: 1, reshape: 1, move: 1.5, cut: 1, parts: 0.7, together: 1, places: 0.7,
    trap: 0.15,
}  # fmt: skip
SHAPES = [(4,), (6,), (1,), (3, 4), (5, 2), (4, 4, 2), (5, 4, 3), (6, 5, 1), (3, 3, 2), (1, 7, 2)]


def make(seed: int, folder: Path) -> Case:
    """The graph of a seed in a file, and an interpreter for it."""
    for attempt in range(1000):
        rng = np.random.default_rng((seed, attempt))
        try:
            draw = _drawn(rng)
            outputs = [draw.values[-1][0]]
            if draw.chance(0.15):
                outputs.append(draw.values[-2][0])
            if draw.given in outputs or len(set(outputs)) < len(outputs):
                raise Unfit
            data = draw.packed(outputs)
            ran = interpreter(data, RESOLVERS[seed % len(RESOLVERS)])
        except Unfit:
            continue
        path = folder / "graph.tflite"
        path.write_bytes(data)
        shape = draw.values[0][1]
        return Case(
            tuple(draw.uses), str(path), shape, functools.partial(_run, ran, free=draw.free, count=len(outputs))
        )
    raise AssertionError(f"no graph for seed {seed}")


def _drawn(rng: np.random.Generator) -> Draw:
    draw = Draw(rng, SHAPES[int(rng.integers(len(SHAPES)))])
    kinds, share = list(OPS), np.array(list(OPS.values()))
    for _ in range(draw.int(1, 7)):
        for _ in range(20):
            kind = kinds[int(rng.choice(len(kinds), p=share / share.sum()))]
            before = copy.deepcopy(draw.builder), list(draw.values), list(draw.uses), draw.free
            try:
                kind(draw)
            except (Unfit, ZeroDivisionError):
                draw.builder, draw.values, draw.uses, draw.free = before
                continue
            break
    if draw.chance(0.3):
        kind = draw.pick(["SOFTMAX", "LOGISTIC", "TANH", "LOG_SOFTMAX"])
        draw.emit(kind, [draw.values[-1][0]], **({"beta": 1.0} if kind == "SOFTMAX" else {}))
    return draw


def _run(ran: Any, inputs: Any, *, free: bool, count: int) -> Any:
    given = np.ascontiguousarray(inputs, np.float32)
    batches = [given] if free else [row[None] for row in given]
    found = []
    for batch in batches:
        ran.resize_tensor_input(ran.get_input_details()[0]["index"], batch.shape)
        ran.allocate_tensors()
        ran.set_tensor(ran.get_input_details()[0]["index"], batch)
        ran.invoke()
        found.append([ran.get_tensor(item["index"]).reshape(len(batch), -1) for item in ran.get_output_details()])
    outputs = [np.concatenate(parts) for parts in zip(*found, strict=True)]
    return outputs if count > 1 else outputs[0]


def _kind(name: str, wrong: Callable[..., Any]) -> Callable[[], Any]:
    """An operator lowered by ``wrong(the right lowering, graph, op, inputs)``."""
    right = operators.LOWERINGS[name]
    changed = {name: functools.partial(wrong, right)}
    return lambda: mock.patch.dict(operators.LOWERINGS, changed)


def _kinds(names: str, wrong: Callable[..., Any]) -> Callable[[], Any]:
    changed = {name: functools.partial(wrong, operators.LOWERINGS[name]) for name in names.split()}
    return lambda: mock.patch.dict(operators.LOWERINGS, changed)


def _said(**changes: Any) -> Callable[..., Any]:
    """With other options."""

    def wrong(right: Any, graph: Any, given: op.Op, inputs: Any) -> Any:
        options = dict(given.options)
        for name, change in changes.items():
            options[name] = change(options) if callable(change) else change
        return right(graph, op.Op(given.kind, given.origin, options, given.outputs), inputs)

    return wrong


def _kernel(change: Callable[[Any], Any]) -> Callable[..., Any]:
    """With another array as its second input."""
    return lambda right, graph, given, inputs: right(graph, given, [inputs[0], change(inputs[1]), *inputs[2:]])


def _before() -> Any:
    right = convolutions.Windows.same
    wrong = lambda self, sizes, *, lower: right(self, sizes, lower=not lower)  # noqa: E731
    return mock.patch.object(convolutions.Windows, "same", wrong)


def _counted() -> Any:
    right = convolutions.average_pool
    wrong = lambda graph, origin, value, windows, within: right(graph, origin, value, windows, windows)  # noqa: E731
    return mock.patch.object(images.convolutions, "average_pool", wrong)


def _turned_depthwise(kernel: Any) -> Any:
    half = kernel.shape[-1] // 2
    return kernel.reshape(*kernel.shape[:-1], 2, half).swapaxes(-1, -2).reshape(kernel.shape) if half else kernel


def _without_bias(right: Any, graph: Any, given: Any, inputs: Any) -> Any:
    return right(graph, given, inputs[:2])


def _reversed(right: Any, graph: Any, given: Any, inputs: Any) -> Any:
    return right(graph, given, inputs[::-1])


def _added(_right: Any, graph: Any, given: Any, inputs: Any) -> Any:
    return lowering.add(graph, given.origin, *inputs)


def _larger(_right: Any, graph: Any, given: Any, inputs: Any) -> Any:
    return lowering.maximum(graph, given.origin, *inputs)


#: Ways to misread, for :mod:`door_cases.faults`.
FAULTS: list[tuple[str, Callable[[], Any]]] = [
    ("what pads cannot halve goes before", _before),
    ("pads of averages are counted", _counted),
    ("built-in activations are left out", _kinds("CONV_2D FULLY_CONNECTED ADD MUL", _said(fusedActivationFunction=0))),
    ("RELU6 is a RELU", lambda: mock.patch.dict(op.ENDS, {"RELU6": (0.0, np.inf)})),
    ("strides are turned round", _kinds("CONV_2D MAX_POOL_2D", _said(strideH=lambda o: o["strideW"]))),
    ("dilations are left out", _kinds("CONV_2D DEPTHWISE_CONV_2D", _said(dilationHFactor=1, dilationWFactor=1))),
    ("SAME is VALID", _kinds("CONV_2D DEPTHWISE_CONV_2D", _said(padding=1))),
    ("kernels are turned round", _kinds("CONV_2D TRANSPOSE_CONV", _kernel(lambda k: k[:, ::-1]))),
    ("multipliers of depthwise kernels change places", _kind("DEPTHWISE_CONV_2D", _kernel(_turned_depthwise))),
    ("biases are dropped", _kind("FULLY_CONNECTED", _without_bias)),
    ("SUB adds", _kind("SUB", _added)),
    ("MINIMUM is MAXIMUM", _kind("MINIMUM", _larger)),
    ("leaky slopes are 0.01", _kind("LEAKY_RELU", _said(alpha=0.01))),
    ("concatenation the other way round", _kind("CONCATENATION", _reversed)),
    ("mirrors show the edge", _kind("MIRROR_PAD", _said(mode=lambda o: 1 - o["mode"]))),
    ("corners are not aligned", _kind("RESIZE_NEAREST_NEIGHBOR", _said(alignCorners=False, halfPixelCenters=False))),
]  # fmt: skip
