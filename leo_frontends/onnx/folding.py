"""Constants computed in a graph: by whatever runs ONNX models here, as a model of one node."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from leo_frontends.graph import Refused
from leo_frontends.onnx.reference import reference
from leo_frontends.onnx.run import session

#: They give something else each time.
RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial")
LARGEST = 1 << 27
#: The most numbers that a shape, or the ends of a range, are.
_SHAPE = 16


def folded(node: Any, inputs: Sequence[Any], opset: int) -> list[Any]:
    """The outputs of a node whose inputs are constants (None where one is left out).

    Raises :class:`Refused` where it is random, has a graph of its own, or cannot be computed.
    """
    from onnx import helper

    training = node.op_type == "Dropout" and len(inputs) > 2 and inputs[2] is not None and bool(np.any(inputs[2]))
    if node.op_type in RANDOM or training:
        raise Refused("it is random: that has no affine + ReLU form")
    if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
        raise Refused("it has a graph of its own, which is not read; run onnxsim, or export without branches")
    given = {name: array for name, array in zip(node.input, inputs, strict=True) if name}
    infos = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), list(array.shape))
        for name, array in given.items()
    ]
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
    graph = helper.make_graph([node], "constant", infos, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    if _count(model, given) > LARGEST:
        raise Refused("it makes a constant of more than a hundred million numbers")
    ours = any(array.dtype.name == "bfloat16" for array in given.values())
    try:
        found = iter((reference if ours else session)(model)(given))
    except Exception as error:  # runtimes raise what they like
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise Refused(f"the constant that it computes cannot be computed here: {first}") from None
    return [np.asarray(next(found)) if name else None for name in node.output]


def _count(model: Any, given: Mapping[str, Any]) -> int:
    """How many numbers a model of one node makes, as far as its shapes tell before it runs."""
    from onnx import ModelProto, numpy_helper, shape_inference

    known = ModelProto()
    known.CopyFrom(model)
    known.graph.initializer.extend(
        numpy_helper.from_array(array, name) for name, array in given.items() if array.size <= _SHAPE and array.ndim < 2
    )
    try:
        outputs = shape_inference.infer_shapes(known, data_prop=True).graph.output
    except Exception:  # the runtime says what is wrong
        return 0
    return max((math.prod(dim.dim_value for dim in output.type.tensor_type.shape.dim) for output in outputs), default=0)
