"""Running ONNX models by onnx's own reference implementation, mended where it obeys a later opset than the model's.

It normalises batches by their own statistics before opset 14, as in training, and takes softmax
over one axis before opset 13, where it is over all axes from that one on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


def reference(model: Any, outputs: Sequence[str] | None = None) -> Callable[[Mapping[str, Array]], list[Array]]:
    """What runs a ``ModelProto``, or the path of a file: inputs by name → outputs."""
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(model)
    if mended := _mended(evaluator.opsets.get("", 1)):
        evaluator = ReferenceEvaluator(model, new_ops=mended)
    return lambda feeds: [np.asarray(value) for value in evaluator.run(outputs, dict(feeds))]


def _mended(opset: int) -> list[Any]:
    from onnx.reference.op_run import OpRun

    def given(run: Any, name: str, kind: str, default: Any) -> Any:
        """The node's own attribute: the evaluator fills in the default of the newest opset."""
        return next((getattr(item, kind) for item in run.onnx_node.attribute if item.name == name), default)

    class BatchNormalization(OpRun):  # type: ignore[misc]
        op_domain = ""

        def _run(self, x: Array, *statistics: Array, **_options: Any) -> tuple[Array]:
            shape = (-1, *[1] * (x.ndim - 2))
            scale, bias, mean, variance = (array.reshape(shape) for array in statistics)
            epsilon = given(self, "epsilon", "f", np.float32(1e-5))
            return ((scale * (x - mean) / np.sqrt(variance + epsilon) + bias).astype(x.dtype),)

    class LogSoftmax(OpRun):  # type: ignore[misc]
        op_domain = ""

        def _run(self, x: Array, **_options: Any) -> tuple[Array]:
            axis = given(self, "axis", "i", 1) % max(1, x.ndim)
            rows = x.reshape(math.prod(x.shape[:axis]), -1)
            rows = rows - rows.max(axis=1, keepdims=True, initial=-np.inf)
            return ((rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))).reshape(x.shape).astype(x.dtype),)

    class Softmax(LogSoftmax):
        def _run(self, x: Array, **options: Any) -> tuple[Array]:
            return (np.exp(super()._run(x, **options)[0]).astype(x.dtype),)

    return [*([BatchNormalization] if opset < 14 else []), *([LogSoftmax, Softmax] if opset < 13 else [])]
