"""Networks on images written as Keras models: the same layers, channels last, with the numbers that they had."""

from __future__ import annotations

from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

if find_spec("keras") is None:
    pytest.skip("keras is not installed", allow_module_level=True)

import leo_core
from leo_core.errors import LeoError, UnsupportedModelError
from leo_core.files import live, write
from leo_core.plugins import registry
from leo_frontends.keras import import_keras, read_file, read_live_model

keras = import_keras()
layers = keras.layers

pytestmark = pytest.mark.filterwarnings("ignore")

FIRST, LAST = "channels_first", "channels_last"
NETS = Path(__file__).parents[3] / "shared" / "nets" / "mlperf_tiny"


@pytest.fixture(autouse=True)
def settings():
    """As they were afterwards."""
    before = keras.config.image_data_format()
    yield
    keras.config.set_image_data_format(before)


def seeded(model, seed=0):
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        numbers = rng.normal(size=weight.shape)
        weight.assign(np.abs(numbers) + 0.3 if "variance" in weight.path else numbers)
    return model


def kinds(model, but=()):
    """How many layers there are of each class, activations by their own."""
    found = Counter(type(layer).__name__ for layer in model.layers)
    for layer in model.layers:
        activation = getattr(getattr(layer, "activation", None), "__name__", "linear")
        if isinstance(layer, layers.Activation):
            found["Activation"] -= 1
        if activation == "relu":
            found["ReLU"] += 1
    for kind in ("InputLayer", *but):
        found.pop(kind, None)
    return +found


def back(model):
    """A model as LEO writes it when it has read it, through the door."""
    return live(read_live_model(model).network, registry.frontend("keras"))


def computed(model, x):
    return np.asarray(keras.ops.convert_to_numpy(model(x, training=False)))


def head(x):
    return layers.Dense(3)(layers.Flatten()(x))


def normed(x, axis):
    x = layers.BatchNormalization(axis=axis, epsilon=0.01)(layers.Conv2D(4, 3, use_bias=False)(x))
    x = layers.ReLU()(x)
    return head(layers.BatchNormalization(axis=axis)(layers.DepthwiseConv2D(3, strides=2, padding="same")(x)))


def residual(x, axis):
    x = layers.Conv2D(4, 3, strides=2, padding="same", activation="relu")(x)
    y = layers.BatchNormalization(axis=axis)(layers.Conv2D(4, 3, padding="same")(x))
    x = layers.Activation("relu")(layers.Add()([x, y]))
    return head(layers.AveragePooling2D(2)(x))


def joined(x, axis):
    x = layers.Conv2D(3, 3, activation="relu")(x)
    x = layers.Concatenate(axis=axis)([x, layers.Conv2D(2, 3, padding="same")(x)])
    return head(layers.MaxPooling2D(3, strides=2, padding="same")(layers.Subtract()([x, layers.Conv2D(5, 1)(x)])))


def decoder(x, axis):
    x = layers.Dense(24, activation="relu")(layers.Flatten()(x))
    x = layers.Reshape((2, 3, 4) if axis == -1 else (4, 2, 3))(x)
    x = layers.Conv2DTranspose(3, 3, strides=2, padding="same", activation="relu")(x)
    return layers.Conv2DTranspose(2, 2, strides=3)(x)


MODELS = {
    "same": lambda x, axis: head(layers.Conv2D(4, (2, 3), padding="same", activation="relu")(x)),
    "valid, strided": lambda x, axis: layers.ReLU()(layers.Conv2D(4, 3, strides=(2, 1))(x)),
    "same, strided": lambda x, axis: layers.LeakyReLU(0.25)(layers.Conv2D(4, 3, strides=2, padding="same")(x)),
    "grouped, dilated": lambda x, axis: layers.Conv2D(4, 3, groups=2, dilation_rate=2)(layers.Conv2D(2, 1)(x)),
    "depthwise": lambda x, axis: head(layers.DepthwiseConv2D(3, depth_multiplier=2, activation="relu")(x)),
    "separable": lambda x, axis: head(layers.SeparableConv2D(4, 3, padding="same", depth_multiplier=2)(x)),
    "norms": normed,
    "norm first": lambda x, axis: layers.Conv2D(2, 2)(layers.BatchNormalization(axis=axis)(layers.Conv2D(3, 1)(x))),
    "slopes": lambda x, axis: layers.PReLU(
        shared_axes=[1, 2] if axis == -1 else [2, 3], alpha_initializer=keras.initializers.RandomUniform(0.1, 0.9, 1)
    )(layers.Conv2D(3, 3)(x)),
    "zeros": lambda x, axis: layers.Conv2D(4, 3, strides=2)(layers.ZeroPadding2D(((1, 1), (2, 0)))(x)),
    "max": lambda x, axis: head(layers.MaxPooling2D(2)(layers.Conv2D(3, 2)(x))),
    "average": lambda x, axis: head(layers.AveragePooling2D((3, 2))(layers.Conv2D(3, 2)(x))),
    "global average": lambda x, axis: layers.Dense(2)(
        layers.GlobalAveragePooling2D()(layers.Conv2D(3, 2, activation="relu")(x))
    ),
    "global maximum": lambda x, axis: head(layers.GlobalMaxPooling2D(keepdims=True)(layers.Conv2D(3, 2)(x))),
    "global maximum, flat": lambda x, axis: layers.Dense(2)(layers.GlobalMaxPooling2D()(layers.Conv2D(3, 2)(x))),
    "residual": residual,
    "joined": joined,
    "rescaled": lambda x, axis: layers.Conv2D(3, 2)(layers.Rescaling(0.5, -0.25)(x)),
    "decoder": decoder,
}


@pytest.mark.parametrize("order", [FIRST, LAST])
@pytest.mark.parametrize("name", MODELS)
def test_it_comes_back_as_it_was(name, order):
    keras.config.set_image_data_format(order)
    given = keras.Input((2, 7, 6) if order == FIRST else (7, 6, 2))
    model = keras.Model(given, MODELS[name](given, 1 if order == FIRST else -1))
    if name != "slopes":
        seeded(model)
    written = back(model)
    moved = ["Permute"] if order == FIRST else []
    print(kinds(model), kinds(written))
    assert kinds(written, moved) == kinds(model)
    x = np.random.default_rng(0).standard_normal((3, *given.shape[1:])).astype(np.float32)
    assert np.allclose(computed(written, x), computed(model, x), atol=1e-4, rtol=1e-4)
    assert written.output_shape == model.output_shape
