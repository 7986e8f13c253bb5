"""Keras' layers as affine maps and ReLUs: one entry for each class that is read, with all its options.

What a layer only rearranges (Flatten, Permute, padding …), Keras itself rearranges here: it is called on the array of
indices, so each option means what it means to Keras. Any other option of a layer is obeyed, or without effect on what
it computes once trained, or, if LEO does not know it, refused.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from leo_core.network import Origin
from leo_frontends import convolutions, lowering
from leo_frontends.graph import Array, Graph, Refused, Tensor, Value, elements
from leo_frontends.keras import activations, why_not
from leo_frontends.keras.images import IMAGES
from leo_frontends.keras.layer import Known, Lowering, known, numbers
from leo_frontends.keras.rearrange import padded, rearranged
from leo_frontends.lowering import computed


def lower_layer(graph: Graph, layer: Any, inputs: Sequence[Tensor]) -> Tensor:
    """What a layer computes of the tensors it is called on.

    Raises :class:`Refused` for one that is not read, or not with these options.
    """
    kind = type(layer).__name__
    entry = LAYERS.get(kind)
    if entry is None or not is_keras_own(layer):
        raise Refused(why_not.layer(layer))
    mode = getattr(layer, "quantization_mode", None)
    if mode is not None:
        raise Refused(
            f"it is quantised ({mode}): its input is rounded too, so it is no affine layer; read the model from before "
            "quantize()"
        )
    if not layer.compute_dtype.startswith(("float", "bfloat16")):
        raise Refused(f"it computes in {layer.compute_dtype}, not in floats")
    if not layer.built and entry.holds:
        raise Refused("it has no weights yet; call the model once, on any input")
    _refuse_unknown_options(layer, entry)
    result = entry.lower(graph, Origin(layer.name, kind), layer, inputs)
    return activated(graph, layer, result) if entry.activated else result


def is_keras_own(layer: Any) -> bool:
    """Whether it is Keras' own class: one derived from it may compute anything."""
    return type(layer).__module__.startswith("keras.")


#: Options of any layer without effect on what it computes once trained.
_TRAINING = ("initializer", "regularizer", "constraint")
_ANY = {"self", "kwargs", "name", "trainable", "dtype", "seed", "autocast"}


def _refuse_unknown_options(layer: Any, entry: Known) -> None:
    for name, parameter in inspect.signature(type(layer).__init__).parameters.items():
        if name in entry.options or name in _ANY or name.rpartition("_")[2] in _TRAINING:
            continue
        value = getattr(layer, name, parameter.default)
        if value != parameter.default:
            raise Refused(f"its option {name}={value!r} is not known to LEO")


def activated(graph: Graph, layer: Any, tensor: Tensor) -> Tensor:
    """A layer's activation: none, a function, or a layer."""
    activation = layer.activation
    if activation is None:
        return tensor
    if isinstance(activation, keras.Layer):
        try:
            return lower_layer(graph, activation, [tensor])
        except Refused as reason:
            raise Refused(f"its activation, a {type(activation).__name__}: {reason}") from None
    return activations.named(graph, behind(layer), tensor, activation)


def behind(layer: Any) -> Origin:
    """Where the activation that a layer has within it comes from."""
    name = getattr(layer.activation, "__name__", "")
    return Origin(f"{layer.name}_{name}", name)


def _dense(graph: Graph, origin: Origin, layer: Any, inputs: Sequence[Tensor]) -> Tensor:
    value, kernel = computed(inputs[0]), numbers(layer.kernel)
    bias = numbers(layer.bias) if layer.use_bias else np.zeros(kernel.shape[1], kernel.dtype)
    if convolutions.has_channels_last(graph, value):
        return convolutions.pointwise(graph, origin, value, np.ascontiguousarray(kernel.T), bias)
    return lowering.dense(graph, origin, value, np.ascontiguousarray(kernel.T), bias)


def _activation(graph: Graph, origin: Origin, layer: Any, inputs: Sequence[Tensor]) -> Tensor:
    if isinstance(layer.activation, keras.Layer) or layer.activation is None:
        return activated(graph, layer, inputs[0])
    return activations.named(graph, origin, inputs[0], layer.activation)


def _relu(graph: Graph, origin: Origin, layer: Any, inputs: Sequence[Tensor]) -> Tensor:
    return activations.relu(graph, origin, computed(inputs[0]), layer)


def _softmax(graph: Graph, _origin: Origin, layer: Any, inputs: Sequence[Tensor]) -> Tensor:
    return activations.tail(graph, "softmax", computed(inputs[0]), layer.axis)


def _leaky_relu(graph: Graph, origin: Origin, layer: Any, inputs: Sequence[Tensor]) -> Tensor:
    return activations.leaky_relu(graph, origin, computed(inputs[0]), layer.negative_slope)


def _prelu(graph: Graph, origin: Origin, layer: Any, inputs: Sequence[Tensor]) -> Tensor:
    return lowering.relu(graph, origin, computed(inputs[0]), numbers(layer.alpha)[None])


def _batch_norm(graph: Graph, origin: Origin, layer: Any, inputs: Sequence[Tensor]) -> Tensor:
    mean, variance = numbers(layer.moving_mean), numbers(layer.moving_variance)
    gamma = numbers(layer.gamma) if layer.scale else np.ones(len(mean))
    beta = numbers(layer.beta) if layer.center else np.zeros(len(mean))
    axis = layer.axis if isinstance(layer.axis, int) else layer.axis[0]
    statistics = (gamma, beta, mean, variance)
    return lowering.batch_norm(graph, origin, computed(inputs[0]), statistics, float(layer.epsilon), axis)


def _rescaling(graph: Graph, origin: Origin, layer: Any, inputs: Sequence[Tensor]) -> Tensor:
    scale, offset = (constant(graph, number) for number in (layer.scale, layer.offset))
    if scale.ndim and keras.config.image_data_format() == "channels_first":  # as Keras does, when it runs
        scale = scale.reshape(scale.shape + (1,) * (3 - scale.ndim))
    return graph.scaled(origin, computed(inputs[0]), scale, offset)


def _normalization(graph: Graph, origin: Origin, layer: Any, inputs: Sequence[Tensor]) -> Tensor:
    value = computed(inputs[0])
    mean, variance = (numbers(part).astype(np.float64) for part in (layer.mean, layer.variance))
    spread = np.maximum(np.sqrt(variance), keras.config.epsilon())
    scale, shift = (spread, mean) if layer.invert else (1.0 / spread, -mean / spread)
    error = 4 * lowering.EPS * np.abs(shift)
    result = graph.scaled(origin, value, scale, shift, (4 * lowering.EPS, error))
    if result.node != value.node:  # as run: √, a difference and a quotient
        graph.loosen(result, 8.0, 8.0 * graph.by_value(result, np.abs(shift)))
    return result


def constant(graph: Graph, value: Any) -> Array:
    """A constant as Keras uses it among tensors of the type that the model runs in."""
    array = value if isinstance(value, np.ndarray) else np.asarray(value)
    return array.astype(graph.dtype)


def _same(_graph: Graph, _origin: Origin, _layer: Any, inputs: Sequence[Tensor]) -> Tensor:
    return inputs[0]


def _moved(_graph: Graph, _origin: Origin, layer: Any, inputs: Sequence[Tensor]) -> Tensor:
    value = computed(inputs[0])
    return rearranged(value, layer.call)


def _up_sampling(graph: Graph, origin: Origin, layer: Any, inputs: Sequence[Tensor]) -> Tensor:
    if layer.interpolation != "nearest":
        raise Refused(f"its interpolation '{layer.interpolation}' is not read; LEO reads 'nearest'")
    return _moved(graph, origin, layer, inputs)


def _zero_padding(graph: Graph, origin: Origin, layer: Any, inputs: Sequence[Tensor]) -> Tensor:
    return padded(graph, origin, computed(inputs[0]), layer.call, np.zeros((), np.float32))


def _fold(step: Callable[[Graph, Origin, Tensor, Tensor], Tensor]) -> Lowering:
    """A layer of one or more inputs, taken one after the other."""

    def apply(graph: Graph, origin: Origin, _layer: Any, inputs: Sequence[Tensor]) -> Tensor:
        result, *others = _of_one_rank(inputs)
        for other in others:
            result = step(graph, origin, result, other)
        return result

    return apply


def _of_one_rank(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Keras' merging layers put the axes that a tensor lacks behind the batch, not before it as NumPy does."""
    ranks = [elements(tensor).ndim for tensor in tensors]
    found: list[Tensor] = []
    for tensor, rank in zip(tensors, ranks, strict=True):
        axes = tuple(range(1, 1 + max(ranks) - rank))
        if isinstance(tensor, Value):
            found.append(Value(tensor.node, np.expand_dims(tensor.index, axes)))
        else:
            found.append(np.expand_dims(tensor, axes))
    return found


def _average(graph: Graph, origin: Origin, layer: Any, inputs: Sequence[Tensor]) -> Tensor:
    total = _fold(lowering.add)(graph, origin, layer, inputs)
    return lowering.divide(graph, origin, total, np.array(len(inputs), graph.dtype))


def _concatenate(graph: Graph, origin: Origin, layer: Any, inputs: Sequence[Tensor]) -> Tensor:
    return lowering.concatenate(graph, origin, inputs, layer.axis)


def minimum(graph: Graph, origin: Origin, left: Tensor, right: Tensor) -> Tensor:
    """min(left, right)."""
    return lowering.maximum(graph, origin, left, right, -1.0)


def subtract(graph: Graph, origin: Origin, left: Tensor, right: Tensor) -> Tensor:
    """left − right."""
    return lowering.add(graph, origin, left, right, (1.0, -1.0))


_DROPOUT = known(_same, "rate noise_shape stddev data_format")
_PADDING = known(_zero_padding, "padding data_format")
_CROPPING = known(_moved, "cropping data_format")

#: By the name of Keras' class.
LAYERS: dict[str, Known] = {
    **IMAGES,
    "Activation": known(_activation, "activation"),
    "ActivityRegularization": known(_same, "l1 l2"),
    "Add": known(_fold(lowering.add)),
    "AlphaDropout": _DROPOUT,
    "Average": known(_average),
    "BatchNormalization": known(
        _batch_norm,
        "axis momentum epsilon center scale renorm renorm_clipping renorm_momentum synchronized",
        holds=True,
    ),
    "Concatenate": known(_concatenate, "axis"),
    "Cropping1D": _CROPPING,
    "Cropping2D": _CROPPING,
    "Cropping3D": _CROPPING,
    "Dense": known(
        _dense, "units activation use_bias lora_rank lora_alpha quantization_config", activated=True, holds=True
    ),
    "Dropout": _DROPOUT,
    "Flatten": known(_moved, "data_format"),
    "GaussianDropout": _DROPOUT,
    "GaussianNoise": _DROPOUT,
    "Identity": known(_same),
    "InputLayer": known(_same, "shape batch_size batch_shape input_tensor sparse ragged optional"),
    "LeakyReLU": known(_leaky_relu, "negative_slope"),
    "Maximum": known(_fold(lowering.maximum)),
    "Minimum": known(_fold(minimum)),
    "Multiply": known(_fold(lowering.multiply)),
    "Normalization": known(_normalization, "axis mean variance invert", holds=True),
    "PReLU": known(_prelu, "shared_axes", holds=True),
    "Permute": known(_moved, "dims"),
    "ReLU": known(_relu, "max_value negative_slope threshold"),
    "RepeatVector": known(_moved, "n"),
    "Rescaling": known(_rescaling, "scale offset"),
    "Reshape": known(_moved, "target_shape"),
    "Softmax": known(_softmax, "axis"),
    "SpatialDropout1D": _DROPOUT,
    "SpatialDropout2D": _DROPOUT,
    "SpatialDropout3D": _DROPOUT,
    "Subtract": known(_fold(subtract)),
    "UpSampling1D": known(_moved, "size"),
    "UpSampling2D": known(_up_sampling, "size data_format interpolation"),
    "UpSampling3D": known(_moved, "size data_format"),
    "ZeroPadding1D": _PADDING,
    "ZeroPadding2D": _PADDING,
    "ZeroPadding3D": _PADDING,
}
