"""Random ONNX graphs: every operator that is read at every opset it exists in, and traps."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from door_cases import Case, onnx_images
from door_cases.onnx_draw import KINDS, Draw, Unfit
from door_cases.onnx_ops import OPS
from door_cases.onnx_traps import OLD, TRAPS
from leo_frontends import convolutions
from leo_frontends.onnx import lowerings, read
from leo_frontends.onnx.folding import folded
from leo_frontends.onnx.reference import reference

NEWEST = onnx.defs.onnx_opset_version()


def make(seed: int, folder: Path, image_share: float = 0.35) -> Case:
    """The graph of a seed, with whatever runs it: ONNX Runtime, or onnx's own reference where that does not.

    ``image_share`` of the graphs are convolutional.
    """
    for attempt in range(1000):
        rng = np.random.default_rng((seed, attempt))
        try:
            draw, shape = _drawn(rng, image_share)
            model = _model(draw, shape)
        except Unfit:
            continue
        run = _runner(model, draw, shape)
        if run is not None:
            return Case(tuple(draw.uses), model, shape[1:] if draw.batch != 0 else shape, run)
    raise AssertionError(f"no graph for seed {seed}")


def _drawn(rng: np.random.Generator, image_share: float) -> tuple[Draw, Any]:
    old = rng.random() < 0.04
    opset = int(rng.integers(2, 7)) if old else int(rng.integers(7, NEWEST + 1))
    dtype = str(rng.choice(["float32"] * 16 + ["float64"] * 3 + ["float16"]))
    batch = [None, None, None, None, 1, 1, 3, 0][int(rng.integers(8))]
    draw = Draw(rng, opset, dtype, batch)
    own = draw.pick([(3,), (4,), (6,), (1,), (2, 3), (1, 4), (3, 2), (2, 2, 2), (1, 2, 3), (4, 2, 2), (1, 1, 4), (8,)])
    if batch == 0:
        own = draw.pick([own, (own[0], 1), (1, *own)])
    images = not old and rng.random() < image_share
    if images:
        own, batch = draw.pick(onnx_images.SHAPES), batch or draw.pick([None, 2])
        draw.batch, draw.lead, draw.largest = batch, 1, 256
    shape = own if batch == 0 else (batch, *own)
    draw.values.append(("x", shape))
    traps = TRAPS if rng.random() < (0.1 if images else 0.25) else {}
    ops = OLD if old else onnx_images.IMAGES if images else OPS
    trap_at = draw.int(0, 8) if traps else -1
    for step in range(draw.int(1, 5) if images else draw.int(2, 12)):
        table = traps if step == trap_at else ops
        _grow(draw, table)
    if images and rng.random() < 0.6:
        _grow(draw, {onnx_images.head: 1})
    elif rng.random() < 0.6:
        _grow(draw, {kind: 1 for kind in ops if kind.__name__ in ("gemm", "matmul", "flatten")} or ops)
    return draw, shape


def _grow(draw: Draw, table: dict[Any, float]) -> None:
    kinds = list(table)
    share = np.array([table[kind] for kind in kinds], float)
    for _ in range(30):
        kind = kinds[int(draw.rng.choice(len(kinds), p=share / share.sum()))]
        before = len(draw.values), len(draw.uses)
        try:
            kind(draw)
        except Unfit:
            del draw.values[before[0] :], draw.uses[before[1] :]
            continue
        return


def _tail(draw: Draw, name: str, shape: Any) -> str:
    """Softmax and the like at the end, with what changes nothing behind it."""
    if draw.chance(0.65):
        return name
    kind = draw.pick(["Softmax", "LogSoftmax", "Sigmoid", "Tanh"])
    attributes = {}
    if kind in ("Softmax", "LogSoftmax"):
        attributes["axis"] = draw.pick([None, 1, len(shape) - 1, -1 if draw.opset >= 11 else None])
    name = draw.emit(kind, [name], **attributes)
    while draw.chance(0.35):
        after = draw.pick(["Identity", "Dropout", "Cast", "Reshape", "Flatten", "Unsqueeze"])
        if after == "Reshape" and draw.opset >= 5:
            name = draw.emit(after, [name, draw.ints([-1 if d is None else d for d in shape])])
        elif after == "Cast":
            name = draw.emit(after, [name], to=draw.kind)
        elif after == "Flatten" and len(shape) == 2:
            name = draw.emit(after, [name])
        elif after == "Unsqueeze":
            inputs = [name]
            name = draw.emit(after, inputs, **draw.since(13, "axes", [1], inputs))
            shape = (*shape[:1], 1, *shape[1:])
        elif after in ("Identity", "Dropout"):
            name = draw.emit(after, [name])
    return name


def _model(draw: Draw, shape: Any) -> Any:
    name, last = draw.values[-1]
    if name == "x":
        raise Unfit
    if draw.opset >= 7:
        name = _tail(draw, name, last)
    if draw.chance(0.06) and draw.opset >= 7:
        draw.output_kind = draw.pick([TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.FLOAT])
        name = draw.emit("Cast", [name], to=draw.output_kind)
    draw.nodes.append(helper.make_node("Identity", [name], ["y"]))
    if draw.chance(0.6) and draw.nodes[-2].output[:1] == [name] and not any(name in n.input for n in draw.nodes[:-1]):
        draw.nodes.pop()
        draw.nodes[-1].output[0] = "y"
    nodes = [draw.nodes[i] for i in draw.rng.permutation(len(draw.nodes))] if draw.chance(0.3) else draw.nodes
    initializers = [*draw.initializers, *(_harmless(draw) if draw.chance(0.15) else [])]
    inputs = [
        helper.make_tensor_value_info("x", draw.kind, [d if d is not None else draw.pick(["N", None]) for d in shape])
    ]
    ir_version = draw.ir_version()
    if ir_version < 4 or draw.chance(0.1):
        given = [helper.make_tensor_value_info(i.name, i.data_type, list(i.dims)) for i in initializers]
        inputs = [*inputs, *given] if draw.chance(0.7) else [*given, *inputs]
    outputs = [helper.make_tensor_value_info("y", draw.output_kind, None)]
    outputs += [helper.make_tensor_value_info(n, draw.kind, None) for n in draw.more_outputs if n != "x"]
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializers)
    graph.sparse_initializer.extend(draw.sparse)
    imports = [helper.make_opsetid("", draw.opset), *(helper.make_opsetid(d, v) for d, v in draw.domains.items())]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir_version, functions=draw.functions)


def _harmless(draw: Draw) -> list[Any]:
    """Initialisers that nothing reads."""
    odd = helper.make_tensor("odd", TensorProto.BFLOAT16, [2], [1.0, 2.0])
    strings = helper.make_tensor("odd", TensorProto.STRING, [2], [b"a", b"b"])
    infinite = numpy_helper.from_array(np.float32([np.inf, np.nan]), "odd")
    return [draw.pick([odd, strings, infinite])]


def _runner(model: Any, draw: Draw, shape: Any) -> Any:
    """What runs a graph on so many examples, or None where nothing does."""
    once = _by_runtime(model) or _by_reference(model)
    if once is None:
        return None
    dtype = draw.dtype
    batch = draw.batch

    def run(inputs: Any) -> Any:
        given = np.asarray(inputs).astype(dtype)
        if batch is None:
            return once(given)
        count = shape[0] if batch == 0 and given[0].size == 1 else batch
        if count in (0, 1) or given[0].size == math.prod(shape):  # a column may be read as one example, or as many
            return np.stack([once(row.reshape(shape)) for row in given])
        missing = -len(given) % count
        padded = np.concatenate([given, np.repeat(given[-1:], missing, 0)])
        parts = (padded[i : i + count].reshape(shape) for i in range(0, len(padded), count))
        return np.concatenate([once(part) for part in parts])[: len(given)]

    probe = 2 if batch is None else batch or 1
    try:
        out = run(np.zeros((probe, *(shape if batch == 0 else shape[1:]))))
    except Exception:
        return None
    return run if math.prod(np.shape(out)) else None


def _by_runtime(model: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception:
        return None
    return lambda x: session.run(["y"], {"x": x})[0]


def _by_reference(model: Any) -> Any:
    try:
        run = reference(model, ["y"])
    except Exception:
        return None
    return lambda x: run({"x": x})[0]


def _attribute(kind: str, name: str, value: Any) -> Any:
    """The reader takes another value of an attribute, whatever the node says."""
    right = lowerings.LOWERINGS[kind]

    def wrong(graph: Any, op: Any, inputs: Any) -> Any:
        return right(graph, dataclasses.replace(op, attributes={**op.attributes, name: value}), inputs)

    return lambda: mock.patch.dict(lowerings.LOWERINGS, {kind: wrong})


def _pads(kind: str, change: Any) -> Any:
    """The reader takes other pads than the node has."""
    right = lowerings.LOWERINGS[kind]

    def wrong(graph: Any, op: Any, inputs: Any) -> Any:
        pads = op.attributes.get("pads")
        changed = {} if pads is None else {"pads": change(list(pads))}
        return right(graph, dataclasses.replace(op, attributes={**op.attributes, **changed}), inputs)

    return lambda: mock.patch.dict(lowerings.LOWERINGS, {kind: wrong})


def _inputs(kind: str, change: Any) -> Any:
    """The reader takes other inputs."""
    right = lowerings.LOWERINGS[kind]
    wrong = lambda graph, op, inputs: right(graph, op, change(list(inputs)))  # noqa: E731
    return lambda: mock.patch.dict(lowerings.LOWERINGS, {kind: wrong})


def _as(kind: str, other: str) -> Any:
    """The reader takes an operator for another."""
    right = lowerings.LOWERINGS[other]
    wrong = lambda graph, op, inputs: right(graph, dataclasses.replace(op, kind=other), inputs)  # noqa: E731
    return lambda: mock.patch.dict(lowerings.LOWERINGS, {kind: wrong})


def _lower_is_upper() -> Any:
    """What automatic pads cannot halve goes behind, always."""
    right = convolutions.Windows.same
    wrong = lambda windows, sizes, *, lower: right(windows, sizes, lower=False)  # noqa: E731
    return lambda: mock.patch.object(convolutions.Windows, "same", wrong)


def _casts_nothing(node: Any, inputs: Any, opset: int) -> Any:
    return [inputs[0]] if node.op_type == "Cast" else folded(node, inputs, opset)


def _without_bias(inputs: list[Any]) -> list[Any]:
    return inputs[:2]


#: Ways to misread, for :mod:`door_cases.faults`.
FAULTS: list[tuple[str, Any]] = [
    ("Gemm without its bias", _inputs("Gemm", _without_bias)),
    ("alpha of Gemm ignored", _attribute("Gemm", "alpha", 1.0)),
    ("beta of Gemm ignored", _attribute("Gemm", "beta", 1.0)),
    ("Sub adds", _as("Sub", "Add")),
    ("Min is Max", _as("Min", "Max")),
    ("LeakyRelu is Relu", _as("LeakyRelu", "Relu")),
    ("the slope of a LeakyRelu is its default", _attribute("LeakyRelu", "alpha", 0.01)),
    ("epsilon of batch norm ignored", _attribute("BatchNormalization", "epsilon", 0.3)),
    ("mean of batch norm ignored", _inputs("BatchNormalization", lambda x: [*x[:3], np.zeros_like(x[3]), x[4]])),
    ("Transpose turns all axes round", _attribute("Transpose", "perm", None)),
    ("ReduceMean sums", _as("ReduceMean", "ReduceSum")),
    ("a constant is not cast", lambda: mock.patch.object(read, "folded", _casts_nothing)),
    ("Where turned round", _inputs("Where", lambda x: [x[0], x[2], x[1]])),
    ("Concat the other way round", _inputs("Concat", lambda x: x[::-1])),
    ("Conv without its bias", _inputs("Conv", _without_bias)),
    ("pads of Conv axis by axis", _pads("Conv", lambda pads: [*pads[::2], *pads[1::2]])),
    (
        "pads of Conv behind taken before",
        _pads("Conv", lambda pads: [*pads[len(pads) // 2 :], *pads[: len(pads) // 2]]),
    ),
    ("pads of MaxPool behind ignored", _pads("MaxPool", lambda pads: pads[: len(pads) // 2] + [0] * (len(pads) // 2))),
    ("count_include_pad ignored", _attribute("AveragePool", "count_include_pad", 0)),
    ("AveragePool is MaxPool", _as("AveragePool", "MaxPool")),
    ("SAME_LOWER is SAME_UPPER", _lower_is_upper()),
    ("nearest values of Resize taken from above", _attribute("Resize", "nearest_mode", b"ceil")),
]

__all__ = ["FAULTS", "KINDS", "make"]
