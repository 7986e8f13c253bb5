"""What only rearranges elements is left to Keras itself: it is called on the array of indices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from leo_core.errors import first_line
from leo_core.network import Origin
from leo_frontends.graph import MIXES, Array, Graph, Refused, Value
from leo_frontends.lowering import put_together

#: Some backends count in 32 bits.
_LARGEST = 2**31 - 2


def rearranged(value: Value, apply: Callable[[Any], Any]) -> Value:
    """The tensor that a function of Keras makes of a tensor, if it only moves, repeats and drops elements."""
    return Value(value.node, _indices(value, apply, 0))


def parted(value: Value, apply: Callable[[Any], Any]) -> list[Value]:
    """The tensors that a function of Keras makes of one."""
    return [Value(value.node, _whole_numbers(part)) for part in _applied(value, apply, 0)]


def padded(graph: Graph, origin: Origin, value: Value, apply: Callable[[Any], Any], fill: Array) -> Value:
    """As :func:`rearranged`, for a function that puts zeros somewhere too; ``fill`` is what stands there."""
    index = _indices(value, apply, 1) - 1
    missing = index < 0
    which, constants = np.where(missing, -1, 0), np.where(missing, fill, np.zeros((), fill.dtype))
    return put_together(graph, origin, [value], which, np.where(missing, 0, index), constants)


def one_example(graph: Graph, value: Value, axis: int | None) -> None:
    """Raise :class:`Refused` where an axis (None: all) runs through several examples.

    What is cut or turned along it would depend on how many there are.
    """
    example = value.index // max(1, graph.size(value.node))
    along = example.reshape(-1) if axis is None else np.moveaxis(example, axis, 0)
    if len(along) and (along != along[:1]).any():
        raise Refused(MIXES)


def _indices(value: Value, apply: Callable[[Any], Any], start: int) -> NDArray[np.int64]:
    return _whole_numbers(_applied(value, apply, start))


def _applied(value: Value, apply: Callable[[Any], Any], start: int) -> Any:
    if value.index.size and value.index.max() >= _LARGEST:
        raise Refused("its tensor has too many elements")
    marked = keras.ops.convert_to_tensor(value.index + start)
    try:
        return apply(marked)
    except Exception as error:  # each backend has its own for shapes that do not fit
        shape = "×".join(map(str, value.index.shape))
        raise Refused(f"Keras itself cannot do it for a tensor of {shape} ({first_line(error)})") from None


def _whole_numbers(tensor: Any) -> NDArray[np.int64]:
    array = np.asarray(keras.ops.convert_to_numpy(tensor))
    if array.dtype.kind not in "iu":
        raise Refused("it does more than rearrange elements")
    return array.astype(np.int64)
