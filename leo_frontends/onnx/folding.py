"""Constants computed in a graph: by whatever runs ONNX models here, as a model of one node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from leo_frontends.graph import Refused
from leo_frontends.onnx.run import session

#: They give something else each time.
RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial")
_LARGEST = 1 << 27


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
    try:
        found = iter(session(model)(given))
    except Exception as error:  # runtimes raise what they like
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise Refused(f"the constant that it computes cannot be computed here: {first}") from None
    results = [np.asarray(next(found)) if name else None for name in node.output]
    if any(result is not None and result.size > _LARGEST for result in results):
        raise Refused("it makes a constant of more than a hundred million numbers")
    return results
