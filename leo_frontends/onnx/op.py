"""One ONNX node as lowerings get it, and its inputs as they read them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import numpy as np

from leo_core.network import Origin
from leo_frontends.graph import Graph, Refused, Tensor, Value
from leo_frontends.onnx.folding import LARGEST


@final
@dataclass(frozen=True, eq=False)
class Op:
    """A node: what it is, by which opset, and of how many outputs."""

    kind: str
    origin: Origin
    attributes: Mapping[str, Any]
    opset: int
    outputs: int = 1

    def given(self, inputs: Sequence[Any], position: int, name: str, since: int) -> Any:
        """What is an attribute before an opset, an input from then on; None where it is left out."""
        if self.opset < since:
            return self.attributes.get(name)
        return inputs[position] if len(inputs) > position else None


Lowering: TypeAlias = Callable[[Graph, Op, list[Any]], "Tensor | list[Any]"]


def constant(value: Any, what: str) -> Any:
    """An input that must not be computed; ``what`` begins the sentence that says so."""
    if isinstance(value, Value):
        raise Refused(f"{what} computed, which is not read")
    return value


def numbers(value: Any, what: str) -> list[int] | None:
    """Whole numbers in a constant input; None where it is left out."""
    value = constant(value, what)
    return None if value is None else [int(item) for item in np.ravel(value)]


def require_room(count: int) -> None:
    """Refuse to make so many numbers, if they are too many."""
    if count > LARGEST:
        raise Refused("it makes more than a hundred million numbers")
