"""Running TensorFlow Lite models in the LiteRT interpreter, each operator by the kernel built in for it.

Delegates, XNNPACK among them, put operators together and so round otherwise; a microcontroller has none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from leo_frontends.batches import in_batches
from leo_frontends.graph import Array


def interpreter(data: bytes, *, keep_all: bool = False) -> Any:
    """An interpreter for a model, not yet given memory; with ``keep_all`` inner tensors can be looked at."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    return Interpreter(
        model_content=data,
        num_threads=1,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=keep_all,
    )


def runner(data: bytes, batch: int, *, batched: bool = True) -> Callable[[Array], Any]:
    """(count, *shape of one example) → outputs, a list where there are several; opened when it is first asked.

    ``batch`` is how many examples the model takes at once, any number for 0; its input has an axis for them where it is
    ``batched``.
    """
    held: list[Any] = []

    def outputs(inputs: Array) -> Any:
        if not held:
            held.append(interpreter(data))
        ran = held[0]
        _given(ran, inputs if batched else inputs[0])
        ran.invoke()
        found = [
            ran.get_tensor(output["index"]).astype(np.float64).reshape(len(inputs), -1)
            for output in ran.get_output_details()
        ]
        return found if len(found) > 1 else found[0]

    return in_batches(outputs, batch)


def watched(data: bytes, inputs: Array, places: Mapping[str, tuple[int, Array]]) -> dict[str, Array]:
    """What a model computes inside: by layer, element ``places[layer][1]`` of its tensor, unit by unit."""
    ran = interpreter(data, keep_all=True)
    _given(ran, inputs)
    ran.invoke()
    return {layer: np.ravel(ran.get_tensor(number))[at] for layer, (number, at) in places.items()}


def _given(ran: Any, inputs: Array) -> None:
    (details,) = ran.get_input_details()
    if tuple(details["shape"]) != inputs.shape:
        ran.resize_tensor_input(details["index"], inputs.shape)
    ran.allocate_tensors()
    ran.set_tensor(details["index"], np.ascontiguousarray(inputs, np.float32))
