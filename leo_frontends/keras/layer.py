"""One layer of Keras: how its class is lowered, and its variables as arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import keras
import numpy as np

from leo_core.network import Origin
from leo_frontends import lowering
from leo_frontends.graph import Array, Graph, Tensor

Lowering = Callable[[Graph, Origin, Any, Sequence[Tensor]], Tensor]


@final
@dataclass(frozen=True)
class Known:
    """How a class of layers is lowered, and the options that are obeyed or have no effect on a trained model.

    ``activated`` where the layer's activation comes after that, ``holds`` where the layer has weights.
    """

    lower: Lowering
    options: frozenset[str]
    activated: bool = False
    holds: bool = False


def known(lower: Lowering, options: str = "", *, activated: bool = False, holds: bool = False) -> Known:
    """As :class:`Known` has it, with the options in one text."""
    return Known(lower, frozenset(options.split()), activated, holds)


def numbers(tensor: Any) -> Array:
    """A variable's values; half floats become float32, which is exact."""
    array = np.asarray(keras.ops.convert_to_numpy(tensor))
    return lowering.number_array(array.astype(np.float32) if array.dtype.name == "bfloat16" else array)
