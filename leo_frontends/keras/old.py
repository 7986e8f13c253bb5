"""``.h5`` files as Keras 2 wrote them, brought into the form that Keras 3 reads rightly."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, final

import keras

from leo_frontends.keras import why_not
from leo_frontends.keras.layers import LAYERS

_MODELS = ("Functional", "Model", "Sequential")
#: Layers that are put back by :func:`attach` where they were activations; Keras loads one with weights by itself.
_WITHOUT_WEIGHTS = ("Activation", "ELU", "LeakyReLU", "ReLU", "Softmax")
_SHAPES = ("batch_input_shape", "batch_shape")
#: What matters in training only; Keras 3 has not all of it under the same names, and some may be code.
_TRAINING = ("constraint", "initializer", "regularizer")
#: Options that some classes have lost since, each with the values that change nothing.
_LOST: Mapping[str, tuple[Any, ...]] = {
    "adjustment": (None,),
    "fused": (None, True, False),
    "groups": (1,),
    "virtual_batch_size": (None,),
}


@final
@dataclass(frozen=True)
class Modernised:
    """A configuration for Keras 3; layers that were activations, by the name of the layer they were in; and notes.

    ``shapeless`` is a model that nothing tells the shape of its input.
    """

    config: dict[str, Any]
    activations: Mapping[str, Any]
    notes: tuple[str, ...]
    shapeless: bool


def modernised(config: Mapping[str, Any], kernel_rows: Callable[[str], int | None]) -> Modernised:
    """The configuration of a model; ``kernel_rows`` tells by a layer's name how many rows its kernel has, if any.

    A Sequential model that does not say the shape of its input gets it from its first Dense layer.
    """
    activations: dict[str, Any] = {}
    model = _model(config, activations)
    notes: tuple[str, ...] = ()
    shapeless = False
    layers = model["config"]["layers"] if model["class_name"] == "Sequential" else []
    if (
        layers
        and layers[0]["class_name"] not in ("InputLayer", *_MODELS)
        and "build_input_shape" not in model["config"]
    ):
        rows = next((rows for rows in map(kernel_rows, _before_shapes_change(layers)) if rows), None)
        shapeless = rows is None
        if rows is not None:
            layers.insert(0, _input([None, rows], layers[0]))
            notes = (f"the file does not say the shape of its input; it was taken for vectors of {rows}",)
    return Modernised(model, activations, notes, shapeless)


def attach(model: Any, activations: Mapping[str, Any]) -> None:
    """Put layers back where they were activations."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            attach(layer, activations)
        elif layer.name in activations:
            kind = activations[layer.name]
            layer._tracker.unlock()  # a built layer takes no new parts otherwise
            layer.activation = getattr(keras.layers, kind["class_name"]).from_config(dict(kind["config"]))


def unread(config: Any) -> Iterator[str]:
    """Layers in a configuration that are not read, each with the reason."""
    for layer in _layers(config):
        kind, name = layer["class_name"], layer.get("config", {}).get("name")
        if kind in _MODELS:
            yield from unread(layer)
        elif kind not in LAYERS:
            own = hasattr(keras.layers, kind)
            yield f"layer '{name}' ({kind}): {why_not.named(kind, 'keras.layers' if own else str(layer.get('module')))}"


def misread(config: Any) -> Iterator[str]:
    """Layers of Keras 2 that Keras 3 would take for something else."""
    for layer in _layers(config):
        if layer["class_name"] in _MODELS:
            yield from misread(layer)
        elif _names(layer["config"].get("activation")) == "hard_sigmoid":
            name = layer["config"].get("name")
            yield (
                f"layer '{name}' ({layer['class_name']}): its hard_sigmoid is 0.2 x + 0.5 between 0 and 1, as Keras 2 "
                "has it, and Keras 3 would take it for its own, which is (x + 3) / 6; export the model to ONNX"
            )


def several_axes(config: Any) -> Iterator[str]:
    """Layers whose several axes Keras 3 drops when it reads this format."""
    for layer in _layers(config):
        if layer["class_name"] in _MODELS:
            yield from several_axes(layer)
        elif isinstance(axis := layer["config"].get("axis"), list) and len(axis) != 1:
            name = layer["config"].get("name")
            yield f"layer '{name}' ({layer['class_name']}): Keras 3 loses its axes {axis} in .h5; save it as .keras"


def _names(activation: Any) -> Any:
    """The name of an activation, written as one or as what Keras makes of a function."""
    return activation.get("config") if isinstance(activation, Mapping) else activation


def _layers(model: Any) -> list[Any]:
    config = model.get("config")
    return config if isinstance(config, list) else (config or {}).get("layers", [])


def _model(model: Mapping[str, Any], activations: dict[str, Any]) -> dict[str, Any]:
    layers = [
        _model(layer, activations) if _is_model(layer) else _layer(layer, activations) for layer in _layers(model)
    ]
    config = model["config"]
    if isinstance(config, list):  # a Sequential model from before Keras 2.2.3
        config = {"name": "sequential"}
    if model["class_name"] == "Sequential" and layers and not _is_model(layers[0]):
        shape = next((layers[0]["config"][key] for key in _SHAPES if key in layers[0]["config"]), None)
        if shape is not None and layers[0]["class_name"] != "InputLayer":
            layers.insert(0, _input(shape, layers[0]))
    for layer in layers:
        if layer["class_name"] not in ("InputLayer", *_MODELS):
            layer["config"] = {key: value for key, value in layer["config"].items() if key not in _SHAPES}
    return {**model, "config": {**config, "layers": layers}}


def _is_model(layer: Mapping[str, Any]) -> bool:
    return layer["class_name"] in _MODELS


def _layer(layer: Mapping[str, Any], activations: dict[str, Any]) -> dict[str, Any]:
    config = {
        name: _plain(value)
        for name, value in layer["config"].items()
        if name.rpartition("_")[2] not in _TRAINING and not _lost(layer["class_name"], name, value)
    }
    if isinstance(config.get("dtype"), dict) and config["dtype"].get("class_name") in ("Policy", "PolicyV1"):
        config["dtype"] = config["dtype"]["config"]["name"]
    if "data_format" in _options(layer["class_name"]):  # else the settings of the machine would decide
        config.setdefault("data_format", "channels_last")
    activation = config.get("activation")
    if isinstance(activation, dict) and activation.get("class_name") in _WITHOUT_WEIGHTS:
        activations[config["name"]] = activation
        config["activation"] = "linear"
    return {**layer, "config": config}


def _lost(kind: str, option: str, value: Any) -> bool:
    """Whether Keras 3 has no such option in this class, and it is nothing to miss."""
    return option in _LOST and option not in _options(kind) and value in _LOST[option]


def _options(kind: str) -> Mapping[str, Any]:
    """Those of a class of Keras 3's own."""
    known = LAYERS.get(kind) and getattr(keras.layers, kind)
    return inspect.signature(known.__init__).parameters if known else {}


def _plain(value: Any) -> Any:
    """A number that was written as an array."""
    return value["value"] if isinstance(value, Mapping) and value.keys() == {"type", "value"} else value


def _input(shape: list[int | None], layer: Mapping[str, Any]) -> dict[str, Any]:
    config = {"batch_shape": list(shape), "dtype": "float32", "name": f"{layer['config']['name']}_input"}
    return {"class_name": "InputLayer", "config": config}


def _before_shapes_change(layers: list[Any]) -> Iterator[str]:
    """The names of the first layers of a model, up to the first Dense: those before it keep the shape."""
    for layer in layers:
        yield layer["config"]["name"]
        if layer["class_name"] not in ("Activation", "Dropout", "GaussianNoise", "LeakyReLU", "ReLU"):
            return
