"""Keras runs a model: what the door compares with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from leo_core.network import Network
from leo_frontends.batches import in_batches
from leo_frontends.graph import Array
from leo_frontends.keras.layers import behind

#: Significant bits, and so what is narrower.
_BITS = {"bfloat16": 8, "float16": 11, "float32": 24, "float64": 53}


def running(model: Any) -> Callable[[Array], Any]:
    """(count, *input shape) → outputs, by name where it gives a dict of several; in batches of the size that the model
    is made for, if of any."""
    return in_batches(lambda inputs: _computed(model, inputs), model.inputs[0].shape[0])


def inside(model: Any, order: Mapping[str, NDArray[np.int64]]) -> Callable[[Array], Mapping[str, Array]]:
    """Values of the layers that are called once, under the names that the nodes they become have.

    ``order`` names, for a layer whose node holds its values otherwise than its output, the output's element for each.
    """

    def values(inputs: Array) -> dict[str, Array]:
        known = {}
        for layer in model.layers:
            if len(layer._inbound_nodes) == 1 and isinstance(layer.output, keras.KerasTensor):
                has = getattr(layer, "activation", None) is not None and type(layer).__name__ != "Activation"
                known[layer.name] = behind(layer).layer if has else layer.name, layer.output
        outputs = keras.Model(model.inputs, [output for _, output in known.values()])(inputs, training=False)
        found = {}
        for (name, (node, _)), output in zip(known.items(), outputs, strict=True):
            values = number(output)
            found[node] = values.reshape(len(values), -1)[:, order[name]] if name in order else values
        return found

    return values


def computes_in(model: Any, dtype: str) -> str:
    """The narrowest type that the layers of a model compute in, as Keras runs it; ``dtype`` is that of its input."""
    used = {layer.compute_dtype for layer in _layers(model)} & _BITS.keys()
    narrowest = min([dtype, *used], key=_BITS.__getitem__)
    return _as_run(narrowest)


def written_runs_in(network: Network) -> str:
    """What a model that LEO wrote is computed in, where that is narrower than the network's type."""
    narrow = _as_run(str(network.dtype))
    return "" if narrow == str(network.dtype) else narrow


def _as_run(dtype: str) -> str:
    """Keras multiplies float64 as float32, except on TensorFlow."""
    return "float32" if dtype == "float64" and keras.backend.backend() != "tensorflow" else dtype


def _layers(model: Any) -> Iterator[Any]:
    for layer in model.layers:
        yield layer
        if hasattr(layer, "layers"):
            yield from _layers(layer)
        if isinstance(getattr(layer, "activation", None), keras.Layer):
            yield layer.activation


def _computed(model: Any, inputs: Array) -> Any:
    outputs = model(inputs, training=False)
    arrays = [number(output) for output in keras.tree.flatten(outputs)]
    if len(arrays) == 1:
        return arrays[0]
    if isinstance(outputs, dict) and len(outputs) == len(arrays):
        return {str(name): number(output) for name, output in outputs.items()}
    return arrays


def number(output: Any) -> Array:
    """A tensor of Keras as an array."""
    array = np.asarray(keras.ops.convert_to_numpy(output))
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array
