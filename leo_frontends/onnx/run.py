"""Running ONNX models: by ONNX Runtime where it is installed, else by onnx's own reference implementation.

ONNX Runtime runs each operator as it is written: what its optimiser puts together would be rounded otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from leo_frontends.batches import below, in_batches
from leo_frontends.onnx.reference import reference

Array = np.ndarray[Any, np.dtype[Any]]


def session(model: Any, outputs: Sequence[str] | None = None) -> Callable[[Mapping[str, Array]], list[Array]]:
    """What runs a ``ModelProto``, or the path of a file: inputs by name → outputs."""
    given = str(model) if not hasattr(model, "SerializeToString") else model
    if find_spec("onnxruntime") is not None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        try:
            source = given if isinstance(given, str) else given.SerializeToString()
            run = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
            return lambda feeds: list(run.run(outputs, dict(feeds)))
        except Exception:  # a model of another type or version than it knows; its errors have no common type
            pass
    return reference(given, outputs)


def optimised(path: Path) -> Callable[[Array], Any]:
    """A file of one input in ONNX Runtime with its optimisations, on the CPU and one thread: how models are used."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    run = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = run.get_inputs()[0].name
    return lambda x: run.run(None, {name: x})


def inlined(model: Any) -> Any:
    """The model with the functions of its own written out where they are called."""
    if not model.functions:
        return model
    from onnx import inliner

    return inliner.inline_local_functions(model)


@final
@dataclass(frozen=True, eq=False)
class Seen:
    """A tensor to look at: ``places`` says where in it each unit of the layer stands."""

    layer: str
    tensor: str
    places: NDArray[np.int64]


def watched(source: Any, feeds: Mapping[str, Array], dtype: str, seen: Sequence[Seen]) -> dict[str, Array]:
    """The values that a model, or the file of one, computes inside: by layer, in the order of its units."""
    from onnx import ModelProto, load

    model = ModelProto()
    model.CopyFrom(inlined(source if hasattr(source, "SerializeToString") else load(str(source))))
    del model.graph.output[:]
    for tensor in seen:
        model.graph.output.add().name = tensor.tensor
    ran = session(model)({name: np.ascontiguousarray(array, dtype) for name, array in feeds.items()})
    return {tensor.layer: np.ravel(values)[tensor.places] for tensor, values in zip(seen, ran, strict=True)}


def runner(
    model: Any, name: str, shape: Sequence[int], dtype: str, batch: int, *, batched: bool
) -> Callable[[Any], Any]:
    """(count, *shape of one example) → outputs (count, …), however many the model takes at once (``batch``, or any: 0).

    ``shape`` is what the model's input has, but for the batch axis where there is one (``batched``).
    """
    held: list[Any] = []

    def once(inputs: Array, count: int) -> Any:
        if not held:
            held.append(session(model))
        ran = held[0]({name: inputs.astype(dtype)})
        outputs = [np.asarray(output).astype(np.float64).reshape(count, -1) for output in ran]
        return outputs if len(outputs) > 1 else outputs[0]

    def rows(inputs: Array) -> Any:
        return once(inputs.reshape(len(inputs), *shape), len(inputs))

    def alone(inputs: Array) -> Any:
        return below([once(row.reshape(tuple(shape)), 1) for row in inputs], len(inputs))

    def single(inputs: Array) -> Any:
        return once(inputs.reshape(1, *shape), 1)

    if not batched:
        return alone
    return in_batches(single if batch == 1 else rows, batch)
