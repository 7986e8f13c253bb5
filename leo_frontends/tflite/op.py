"""One operator as lowerings get it, and its inputs as they read them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import numpy as np

from leo_core.network import Origin
from leo_frontends import lowering
from leo_frontends.graph import Array, Graph, Refused, Tensor, Value, moved
from leo_frontends.lowering import computed

#: The most numbers that a tensor of indices may come to.
LARGEST = 1 << 27


@final
@dataclass(frozen=True, eq=False)
class Op:
    """An operator: what it is, where its nodes come from, and what it says besides its inputs."""

    kind: str
    origin: Origin
    options: Mapping[str, Any]
    outputs: int = 1


Lowering: TypeAlias = Callable[[Graph, Op, "list[Any]"], "Tensor | list[Any]"]


def constant(value: Any, what: str) -> Array:
    """An input that must not be computed; ``what`` begins the sentence that says so."""
    if value is None:
        raise Refused(f"{what} missing")
    if isinstance(value, Value):
        raise Refused(f"{what} computed, which is not read")
    return np.asarray(value)


def numbers(value: Any, what: str) -> list[int]:
    """Whole numbers in a constant input."""
    array = constant(value, what)
    if array.dtype.kind not in "iub":
        raise Refused(f"{what} no whole numbers")
    return [int(item) for item in array.ravel()]


def require_room(count: int) -> None:
    """Refuse to make so many numbers, if they are too many."""
    if count > LARGEST:
        raise Refused("it makes more than a hundred million numbers")


def channels_first(value: Value) -> Value:
    """Images with their channels behind the batch, which is how nodes hold them. It costs nothing."""
    if value.index.ndim != 4:
        raise Refused(f"its input has {value.index.ndim} axes, where images have four")
    return Value(value.node, np.moveaxis(value.index, -1, 1))


def channels_last(tensor: Tensor) -> Tensor:
    """The way back."""
    return moved(tensor, lambda array: np.moveaxis(array, 1, -1))


def activated(lower: Lowering) -> Lowering:
    """A lowering with the activation that its operator has built in."""

    def apply(graph: Graph, op: Op, inputs: list[Any]) -> Tensor:
        number = int(op.options.get("fusedActivationFunction", 0))
        if not number:
            return lower(graph, op, inputs)  # type: ignore[return-value]
        if number not in _FUSED:
            what = {4: "tanh", 5: "sign"}.get(number, str(number))
            raise Refused(f"the activation built into it, {what}, is not one that TensorFlow Lite runs there")
        first = Op(op.kind, Origin(f"{op.origin.layer}_linear", op.kind), op.options, op.outputs)
        result = lower(graph, first, inputs)
        assert not isinstance(result, list)
        return clip(graph, Origin(op.origin.layer, _FUSED[number]), result, _FUSED[number])

    return apply


_FUSED = {1: "RELU", 2: "RELU_N1_TO_1", 3: "RELU6"}
#: What each of these keeps between.
ENDS = {
    "RELU": (0.0, np.inf),
    "RELU6": (0.0, 6.0),
    "RELU_N1_TO_1": (-1.0, 1.0),
    "RELU_0_TO_1": (0.0, 1.0),
}


def clip(graph: Graph, origin: Origin, tensor: Tensor, kind: str) -> Tensor:
    """An activation that only cuts off."""
    low, high = ENDS[kind]
    if isinstance(tensor, np.ndarray):
        return np.clip(tensor, np.float32(low), np.float32(high))
    if kind == "RELU":
        return lowering.relu(graph, origin, computed(tensor))
    return lowering.clip(graph, origin, computed(tensor), low, high)
