"""A network as a Keras model: Sequential where it is a chain of layers, Functional otherwise.

Stored weights keep their bits. A model runs in one dtype, the widest that a weight is stored in.
"""

from __future__ import annotations

import re
from typing import Any

import keras
import numpy as np

from leo_core.linear import LinearMap, Select
from leo_core.network import INPUT, Affine, Network, Output, Relu, free_name
from leo_frontends.graph import Array
from leo_frontends.heads import apart, returned
from leo_frontends.matrices import matrix


def build_model(network: Network) -> Any:
    """The model of a network; inputs have the network's input shape behind a batch axis."""
    return _Writer(network).model()


class _Writer:
    """``_held`` are the weights each layer gets once the model is built."""

    def __init__(self, network: Network) -> None:
        self._network, self._dtype = network, str(network.exact_dtype)
        self._held: list[tuple[Any, list[Array]]] = []
        self._taken: set[str] = set()

    def model(self) -> Any:
        signature = self._network.signature
        shape = signature.input_shape or (self._network.input_size,)
        given = keras.Input(shape, dtype=str(self._network.dtype), name=self._name(signature.input_name))
        at = given
        if len(shape) > 1:
            # said, as the settings of the machine would decide otherwise
            order = {"data_format": "channels_last", "dtype": self._dtype}
            at = keras.layers.Flatten(name=self._name("flatten"), **order)(given)
        values: dict[str, Any] = {INPUT: at}
        nodes, heads = apart(self._network)
        for node in nodes:
            values[node.name] = self._affine(node, values) if isinstance(node, Affine) else self._relu(node, values)
        results = [self._finished(values[head], output) for output, head in zip(signature.outputs, heads, strict=True)]
        # a Sequential of an Input alone does not run
        results = [
            keras.layers.Identity(name=self._name("identity"), dtype=self._dtype)(given) if result is given else result
            for result in results
        ]
        result = returned(signature.outputs, results)
        model = keras.Model(given, [*result] if isinstance(result, tuple) else result, name="leo")
        if self._network.is_chain and len(results) == 1:
            model = keras.Sequential([given, *(layer for layer in model.layers[1:])], name="leo")
        for layer, arrays in self._held:
            layer.set_weights(arrays)
        return model

    def _finished(self, result: Any, output: Output) -> Any:
        """An output with its tail and its shape."""
        if output.tail and output.axis is None:  # of the flat vector, so before it gets a shape
            result = keras.layers.Activation(output.tail, name=self._name(output.tail), dtype=self._dtype)(result)
        if len(output.shape) > 1:
            result = keras.layers.Reshape(output.shape, name=self._name("reshape"), dtype=self._dtype)(result)
        if output.axis is None:
            return result
        if output.tail == "softmax":
            return keras.layers.Softmax(output.axis + 1, name=self._name("softmax"), dtype=self._dtype)(result)
        # there is no such layer for others, and the activation is along the last axis
        last = [*(axis for axis in range(len(output.shape)) if axis != output.axis), output.axis]
        for layer in (
            keras.layers.Permute([axis + 1 for axis in last], name=self._name("turned"), dtype=self._dtype),
            keras.layers.Activation(output.tail, name=self._name(output.tail), dtype=self._dtype),
            keras.layers.Permute([last.index(axis) + 1 for axis in range(len(last))], name=self._name("back"),
                                 dtype=self._dtype),
        ):  # fmt: skip
            result = layer(result)
        return result

    def _affine(self, node: Affine, values: dict[str, Any]) -> Any:
        terms = [(source, linear) for source, linear in node.reads if linear.nonzeros]
        if not terms:
            terms = [(node.sources[0], node.maps[0])]
        bias: Array | None = node.bias
        parts = []
        for source, linear in terms:
            if isinstance(linear, Select) and linear.is_identity and not (len(terms) == 1 and node.bias.any()):
                parts.append(values[source])
                continue
            parts.append(self._dense(node.name, values[source], linear, bias))
            bias = None
        if bias is not None and bias.any():  # all terms were identities
            identity = Select.identity(node.size)
            parts[0] = self._dense(node.name, parts[0], identity, bias)
        return (
            parts[0]
            if len(parts) == 1
            else keras.layers.Add(name=self._name(f"{node.name}_sum"), dtype=self._dtype)(parts)
        )

    def _dense(self, name: str, at: Any, linear: LinearMap, bias: Array | None) -> Any:
        weights = matrix(linear, name, "a Keras model")
        layer = keras.layers.Dense(linear.rows, use_bias=bias is not None, name=self._name(name), dtype=self._dtype)
        arrays = [np.ascontiguousarray(weights.T.astype(self._dtype))]
        self._held.append((layer, arrays if bias is None else [*arrays, bias.astype(self._dtype)]))
        return layer(at)

    def _relu(self, node: Relu, values: dict[str, Any]) -> Any:
        slopes, name = np.unique(node.slope), self._name(node.name)
        if not node.slope.any():
            return keras.layers.ReLU(name=name, dtype=self._dtype)(values[node.source])
        if len(slopes) == 1:
            return keras.layers.LeakyReLU(float(slopes[0]), name=name, dtype=self._dtype)(values[node.source])
        layer = keras.layers.PReLU(name=name, dtype=self._dtype)
        self._held.append((layer, [node.slope.astype(self._dtype)]))
        return layer(values[node.source])

    def _name(self, name: str) -> str:
        base = re.sub(r"\W", "_", name) or "layer"
        made = free_name(base, self._taken)
        self._taken.add(made)
        return made
