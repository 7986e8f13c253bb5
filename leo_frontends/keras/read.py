"""A Keras model layer by layer: its configuration says what is wired to what, its layers hold the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from leo_core.errors import FormatError, UnsupportedModelError
from leo_core.network import INPUT, TAILS, Origin, Signature
from leo_core.plugins import Imported
from leo_frontends import lowering
from leo_frontends.graph import Array, Graph, Refused, Tensor, Value
from leo_frontends.lowering import computed

_HINT = "build it with the Sequential or Functional API, or export it to ONNX"


def read_model(model: Any, where: str) -> Imported:
    """Lower a built Sequential or Functional model.

    Raises :class:`UnsupportedModelError` with every layer that has no affine + ReLU form.
    """
    import keras

    if not _is_wired(model):
        raise UnsupportedModelError(
            where, [f"a {type(model).__name__} says nothing of how its layers are wired; {_HINT}"]
        )
    if isinstance(model, keras.Sequential) and not model.built:
        raise UnsupportedModelError(where, ["it is not built; give it an Input layer, or call it once"])
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        counts = f"{len(model.inputs)} inputs and {len(model.outputs)} outputs"
        raise UnsupportedModelError(where, [f"it has {counts}; LEO reads models with one of each"])
    shape, dtype = tuple(model.inputs[0].shape[1:]), str(model.inputs[0].dtype)
    if not shape or any(d is None for d in shape):
        raise UnsupportedModelError(where, [f"the shape of its input is not fixed: {model.inputs[0].shape}"])
    if dtype not in ("float32", "float64"):
        raise UnsupportedModelError(where, [f"its input is of type {dtype}; LEO reads float32 and float64"])
    reader = _Reader(Graph(math.prod(shape), dtype=dtype))
    try:
        result = reader.model(model, Value(INPUT, np.arange(math.prod(shape)).reshape(1, *shape)))
    except (KeyError, IndexError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise FormatError(f"{where}: the model is malformed ({type(error).__name__}: {error})") from None
    if reader.problems:
        raise UnsupportedModelError(where, reader.problems)
    value = computed(result)
    name = model.inputs[0].name
    given = "input" if name.startswith("keras_tensor") else name  # Keras numbers an input without a name
    signature = Signature(given, shape, "output", tuple(value.index.shape[1:]), dtype)
    half = "layers compute in half precision; LEO works with them, and its result runs, in "
    notes = (f"{half}{dtype}",) if reader.half else ()
    return reader.graph.imported(where, value, Origin("output", "Identity"), signature, notes)


def _is_wired(model: Any) -> bool:
    """Whether it is Keras' own Sequential or Functional: a class derived from them may compute anything."""
    return type(model).__module__.startswith("keras.") and type(model).__name__ in ("Sequential", "Functional")


class _Reader:
    """The graph so far, and what could not be lowered."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.problems: list[str] = []
        self.half = False  # whether some layer computes in half precision

    def model(self, model: Any, given: Tensor) -> Any:
        """The output of a model for one input."""
        import keras

        if isinstance(model, keras.Sequential):
            for layer in model.layers:
                given = self._layer(layer, [given])
            return given
        config = model.get_config()
        ends = config["input_layers"], config["output_layers"]
        if any(isinstance(listed, Mapping) or len(_places(listed)) != 1 for listed in ends):
            self.problems.append(f"model '{model.name}': its input and output are not one tensor each")
            return None
        operations = {operation.name: operation for operation in model.operations}
        inbound = {entry["name"]: entry["inbound_nodes"] for entry in config["layers"]}
        (start,), (end,) = map(_places, ends)
        known: dict[tuple[str, int], Tensor] = {start[:2]: given}
        if type(operations[end[0]]).__name__ == "Functional":
            end = (end[0], end[1] - 1, end[2])  # here Keras counts a node that it does not list
        waiting = [end[:2]]
        while waiting:  # a layer once all that it reads is known
            place = waiting[-1]
            name, number = place
            reads = [found[:2] for found in _tensors(inbound[name][number])] if inbound[name] else []
            missing = [read for read in reads if read not in known]
            if place not in known and missing:
                if len(waiting) > 100_000:
                    raise ValueError("its layers read each other in a circle")
                waiting.extend(missing)
                continue
            waiting.pop()
            if place in known:
                continue
            if isinstance(operations[name], keras.Layer):
                known[place] = self._layer(operations[name], [known[read] for read in reads])
            else:
                known[place] = self._operation(operations[name], inbound[name][number], known)
        return known[end[:2]]

    def _layer(self, layer: Any, inputs: list[Any]) -> Any:
        kind = type(layer).__name__
        self.half |= layer.compute_dtype in ("float16", "bfloat16")
        if any(tensor is None for tensor in inputs):
            return None
        if hasattr(layer, "layers") and _is_wired(layer):
            return self.model(layer, inputs[0])
        try:
            apply = LAYERS.get(kind)
            if apply is None or not type(layer).__module__.startswith("keras."):
                raise Refused("there is no affine + ReLU form for it")
            return apply(self.graph, Origin(layer.name, kind), layer, inputs)
        except Refused as reason:
            self.problems.append(f"layer '{layer.name}' ({kind}): {reason}")
            return None

    def _operation(self, operation: Any, node: Any, known: Mapping[tuple[str, int], Any]) -> Any:
        """What h + 0.5 or keras.ops.relu(h) becomes: a call of a function, with tensors and numbers."""
        kind = type(operation).__name__
        found = [known[read[:2]] for read in _tensors(node)]
        if any(tensor is None for tensor in found):
            return None
        try:
            apply = OPERATIONS.get(kind)
            if apply is None or not type(operation).__module__.startswith("keras.src.ops."):
                raise Refused("it is not read; use a layer instead")
            if node["kwargs"] or len({tensor.index.ndim for tensor in found}) > 1:
                raise Refused("its arguments are named, or of several ranks; use a layer instead")
            given = [self._argument(argument, known) for argument in node["args"]]
            return apply(self.graph, Origin(operation.name, kind), *given)
        except Refused as reason:
            self.problems.append(f"layer '{operation.name}' ({kind} operation): {reason}")
            return None

    def _argument(self, argument: Any, known: Mapping[tuple[str, int], Any]) -> Tensor:
        if isinstance(argument, int | float):
            return np.asarray(argument, self.graph.dtype)
        if isinstance(argument, Mapping) and argument.get("class_name") == "__keras_tensor__":
            return known[_tensors(argument)[0][:2]]
        raise Refused("an argument is neither a tensor of the model nor a number; use a layer instead")


def _places(listed: Any) -> list[tuple[str, int, int]]:
    return [tuple(listed)] if isinstance(listed[0], str) else [tuple(item) for item in listed]


def _tensors(node: Any) -> list[tuple[str, int, int]]:
    """The Keras tensors among a call's arguments, in order."""
    if isinstance(node, Mapping):
        if node.get("class_name") == "__keras_tensor__":
            return [tuple(node["config"]["keras_history"])]
        return [found for item in node.values() for found in _tensors(item)]
    return [found for item in node for found in _tensors(item)] if isinstance(node, list | tuple) else []


Lowering = Callable[[Graph, Origin, Any, Sequence[Tensor]], Tensor]


def _numbers(tensor: Any) -> Array:
    """A variable's values; half floats become float32, which is exact."""
    import keras

    array = np.asarray(keras.ops.convert_to_numpy(tensor))
    return lowering.number_array(array.astype(np.float32) if array.dtype.name == "bfloat16" else array)


def _activated(graph: Graph, origin: Origin, value: Tensor, activation: Any) -> Tensor:
    name = getattr(activation, "__name__", type(activation).__name__)
    if not str(getattr(activation, "__module__", "")).startswith("keras.") and activation is not None:
        raise Refused(f"its activation '{name}' is not one of Keras' own")
    if activation is None or name == "linear":
        return value
    behind = Origin(f"{origin.layer}_{name}", name)
    if name == "relu":
        return lowering.relu(graph, behind, computed(value))
    if name == "relu6":
        return lowering.clip(graph, behind, computed(value), 0.0, 6.0)
    if name == "leaky_relu":
        return lowering.relu(graph, behind, computed(value), float(np.array(0.2, graph.dtype)))
    if name in TAILS:
        return graph.cut(name, computed(value))
    raise Refused(f"its activation '{name}' has no affine + ReLU form")


def _dense(graph: Graph, origin: Origin, layer: Any, inputs: Sequence[Tensor]) -> Tensor:
    kernel = _numbers(layer.kernel)
    bias = _numbers(layer.bias) if layer.use_bias else np.zeros(kernel.shape[1], kernel.dtype)
    dense = lowering.dense(graph, origin, computed(inputs[0]), np.ascontiguousarray(kernel.T), bias)
    return _activated(graph, origin, dense, layer.activation)


def _activation(graph: Graph, origin: Origin, layer: Any, inputs: Sequence[Tensor]) -> Tensor:
    return _activated(graph, origin, inputs[0], layer.activation)


def _relu(graph: Graph, origin: Origin, layer: Any, inputs: Sequence[Tensor]) -> Tensor:
    value, slope = computed(inputs[0]), float(np.array(layer.negative_slope or 0.0, graph.dtype))
    if layer.threshold:
        raise Refused(f"its threshold is {layer.threshold}; LEO reads 0 only")
    if layer.max_value is None:
        return lowering.relu(graph, origin, value, slope)
    if slope == 0:
        return lowering.clip(graph, origin, value, 0.0, float(np.array(layer.max_value, graph.dtype)))
    below = lowering.clip(graph, origin, value, -math.inf, float(np.array(layer.max_value, graph.dtype)))
    return lowering.relu(graph, origin, computed(below), slope)


def _softmax(graph: Graph, _origin: Origin, layer: Any, inputs: Sequence[Tensor]) -> Tensor:
    if layer.axis not in (-1, 1):
        raise Refused(f"its axis is {layer.axis}")
    return graph.cut("softmax", computed(inputs[0]))


def _leaky_relu(graph: Graph, origin: Origin, layer: Any, inputs: Sequence[Tensor]) -> Tensor:
    return lowering.relu(graph, origin, computed(inputs[0]), float(np.array(layer.negative_slope, graph.dtype)))


def _prelu(graph: Graph, origin: Origin, layer: Any, inputs: Sequence[Tensor]) -> Tensor:
    return lowering.relu(graph, origin, computed(inputs[0]), _numbers(layer.alpha)[None])


def _batch_norm(graph: Graph, origin: Origin, layer: Any, inputs: Sequence[Tensor]) -> Tensor:
    mean, variance = _numbers(layer.moving_mean), _numbers(layer.moving_variance)
    gamma = _numbers(layer.gamma) if layer.scale else np.ones(len(mean))
    beta = _numbers(layer.beta) if layer.center else np.zeros(len(mean))
    axis = layer.axis if isinstance(layer.axis, int) else layer.axis[0]
    statistics = (gamma, beta, mean, variance)
    return lowering.batch_norm(graph, origin, computed(inputs[0]), statistics, float(layer.epsilon), axis)


def _rescaling(graph: Graph, origin: Origin, layer: Any, inputs: Sequence[Tensor]) -> Tensor:
    scale, offset = (np.asarray(number, graph.dtype) for number in (layer.scale, layer.offset))
    return graph.scaled(origin, computed(inputs[0]), scale, offset)


def _normalization(graph: Graph, origin: Origin, layer: Any, inputs: Sequence[Tensor]) -> Tensor:
    if layer.invert:
        raise Refused("it is inverted")
    mean, variance = (np.asarray(_numbers(part), np.float64) for part in (layer.mean, layer.variance))
    spread = np.maximum(np.sqrt(variance), 1e-7)  # Keras' own epsilon
    scale = 1.0 / spread
    error = 4 * lowering.EPS * np.abs(mean * scale)
    return graph.scaled(origin, computed(inputs[0]), scale, -mean * scale, (4 * lowering.EPS, error))


def _same(_graph: Graph, _origin: Origin, _layer: Any, inputs: Sequence[Tensor]) -> Tensor:
    return inputs[0]


def _shaped(change: Callable[[Array, Any], Array]) -> Lowering:
    def apply(_graph: Graph, _origin: Origin, layer: Any, inputs: Sequence[Tensor]) -> Tensor:
        value = computed(inputs[0])
        return Value(value.node, change(value.index, layer))

    return apply


def _fold(step: Callable[[Graph, Origin, Tensor, Tensor], Tensor]) -> Lowering:
    """A layer of two or more inputs, taken one after the other."""

    def apply(graph: Graph, origin: Origin, _layer: Any, inputs: Sequence[Tensor]) -> Tensor:
        result = inputs[0]
        for other in inputs[1:]:
            result = step(graph, origin, result, other)
        return result

    return apply


def _concatenate(graph: Graph, origin: Origin, layer: Any, inputs: Sequence[Tensor]) -> Tensor:
    return lowering.concatenate(graph, origin, inputs, layer.axis)


def _minimum(graph: Graph, origin: Origin, left: Tensor, right: Tensor) -> Tensor:
    return lowering.maximum(graph, origin, left, right, -1.0)


def _subtract(graph: Graph, origin: Origin, left: Tensor, right: Tensor) -> Tensor:
    return lowering.add(graph, origin, left, right, (1.0, -1.0))


#: By the name of Keras' class.
LAYERS: dict[str, Lowering] = {
    "Activation": _activation,
    "ActivityRegularization": _same,
    "Add": _fold(lowering.add),
    "AlphaDropout": _same,
    "BatchNormalization": _batch_norm,
    "Concatenate": _concatenate,
    "Dense": _dense,
    "Dropout": _same,
    "Flatten": _shaped(lambda array, _layer: array.reshape(array.shape[0], -1)),
    "GaussianDropout": _same,
    "GaussianNoise": _same,
    "Identity": _same,
    "InputLayer": _same,
    "LeakyReLU": _leaky_relu,
    "Maximum": _fold(lowering.maximum),
    "Minimum": _fold(_minimum),
    "Normalization": _normalization,
    "PReLU": _prelu,
    "Permute": _shaped(lambda array, layer: np.transpose(array, (0, *layer.dims))),
    "ReLU": _relu,
    "Rescaling": _rescaling,
    "Reshape": _shaped(lambda array, layer: array.reshape(array.shape[0], *layer.target_shape)),
    "Softmax": _softmax,
    "SpatialDropout1D": _same,
    "Subtract": _fold(_subtract),
}

#: Functions called on tensors, by the name of the class that Keras keeps of such a call.
OPERATIONS: dict[str, Callable[..., Tensor]] = {
    "Add": lowering.add,
    "Divide": lowering.divide,
    "Maximum": lowering.maximum,
    "Minimum": _minimum,
    "Multiply": lowering.multiply,
    "Relu": lambda graph, origin, value: lowering.relu(graph, origin, computed(value)),
    "Subtract": _subtract,
    "TrueDivide": lowering.divide,
}
