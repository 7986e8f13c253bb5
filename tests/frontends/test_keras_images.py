"""Keras' convolutions and poolings, live and from files, against Keras itself; the door is left out."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

if find_spec("keras") is None:
    pytest.skip("keras is not installed", allow_module_level=True)

from leo_frontends.keras import import_keras, read_live_model

keras = import_keras()
layers = keras.layers

pytestmark = pytest.mark.filterwarnings("ignore")

FIRST, LAST = "channels_first", "channels_last"
NETS = Path(__file__).parents[3] / "shared" / "nets" / "mlperf_tiny"


def seeded(model, seed=0):
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        numbers = rng.normal(size=weight.shape)
        weight.assign(np.abs(numbers) + 0.3 if "variance" in weight.path else numbers)
    return model


def agrees(model):
    """Whether the network read is what Keras computes; Keras takes some means and norms in float32. The network."""
    network = read_live_model(model).network
    rng = np.random.default_rng(1)
    for batch in (1, 3):
        x = rng.normal(size=(batch, *model.inputs[0].shape[1:]))
        wanted = np.asarray(keras.ops.convert_to_numpy(model(x, training=False))).reshape(batch, -1)
        found = network.evaluate(x.reshape(batch, -1), np.float64)
        assert np.abs(found - wanted).max() <= 1e-6 * max(1.0, np.abs(wanted).max())
    return network


def image(order, *sizes, channels=4):
    shape = (channels, *sizes) if order == FIRST else (*sizes, channels)
    return keras.Input(shape, dtype="float64")


@pytest.fixture(autouse=True)
def double():
    """Layers in float64, and settings as they were afterwards."""
    before = keras.config.dtype_policy(), keras.config.image_data_format()
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy(before[0])
    keras.config.set_image_data_format(before[1])


LAYERS = {
    "Conv1D": [{"filters": 3, "kernel_size": 3, "padding": "causal", "dilation_rate": 2, "activation": "relu"},
               {"filters": 4, "kernel_size": 2, "strides": 3, "groups": 2, "padding": "same"}],
    "Conv2D": [{"filters": 3, "kernel_size": (2, 3), "strides": (2, 1), "padding": "same", "activation": "relu6"},
               {"filters": 6, "kernel_size": 3, "groups": 2, "dilation_rate": (1, 2), "use_bias": False},
               {"filters": 2, "kernel_size": 1, "activation": "leaky_relu"}],
    "Conv1DTranspose": [{"filters": 3, "kernel_size": 4, "strides": 3, "padding": "same"}],
    "Conv2DTranspose": [{"filters": 3, "kernel_size": 3, "strides": 2, "padding": "same", "activation": "relu"},
                        {"filters": 2, "kernel_size": (1, 2), "strides": (2, 3)},
                        {"filters": 2, "kernel_size": 3, "strides": 3, "padding": "same", "output_padding": 1}],
    "DepthwiseConv1D": [{"kernel_size": 3, "depth_multiplier": 2, "activation": "relu"}],
    "DepthwiseConv2D": [{"kernel_size": 3, "strides": 2, "padding": "same", "depth_multiplier": 3}],
    "SeparableConv1D": [{"filters": 3, "kernel_size": 2, "strides": 2, "padding": "same"}],
    "SeparableConv2D": [{"filters": 3, "kernel_size": 3, "depth_multiplier": 2, "activation": "relu"}],
    "MaxPooling1D": [{"pool_size": 3, "strides": 2, "padding": "same"}],
    "MaxPooling2D": [{"pool_size": 2}, {"pool_size": 3, "strides": 2, "padding": "same"}],
    "AveragePooling1D": [{"pool_size": 3, "strides": 1, "padding": "same"}],
    "AveragePooling2D": [{"pool_size": (3, 2)}, {"pool_size": 3, "strides": 1, "padding": "same"}],
    "GlobalAveragePooling1D": [{}],
    "GlobalAveragePooling2D": [{"keepdims": True}],
    "GlobalMaxPooling1D": [{"keepdims": True}],
    "GlobalMaxPooling2D": [{}],
    "ZeroPadding1D": [{"padding": (2, 1)}],
    "ZeroPadding2D": [{"padding": ((0, 1), (2, 0))}],
    "Cropping1D": [{"cropping": (1, 2)}],
    "Cropping2D": [{"cropping": ((1, 0), (0, 2))}],
    "UpSampling2D": [{"size": (2, 3)}],
    "SpatialDropout2D": [{"rate": 0.5}],
}  # fmt: skip


@pytest.mark.parametrize("order", [FIRST, LAST])
@pytest.mark.parametrize("kind", LAYERS)
def test_layers(kind, order):
    for options in LAYERS[kind]:
        given = image(order, *([7, 6] if "2D" in kind else [9]))
        agrees(seeded(keras.Model(given, getattr(layers, kind)(**options, data_format=order)(given))))


def network_of_images(order, dtype=None):
    """Most of what image models are made of; the same function in both orders, with the same weights."""
    axis = 1 if order == FIRST else -1
    keras.config.set_image_data_format(order)
    given = image(order, 8, 8, channels=2)
    x = layers.ZeroPadding2D(1)(layers.Rescaling(0.5, 0.25)(given))
    x = layers.Conv2D(4, 3, strides=2)(x)
    skip = x = layers.ReLU()(layers.BatchNormalization(axis=axis)(x))
    x = layers.PReLU(shared_axes=[2, 3] if order == FIRST else [1, 2])(layers.DepthwiseConv2D(3, padding="same")(x))
    x = layers.Add()([layers.Conv2D(4, 1, activation="relu6")(layers.GaussianNoise(0.1)(x)), skip])
    down = layers.MaxPooling2D(2, padding="same")(layers.Activation("relu")(x))
    up = layers.UpSampling2D(2)(layers.Conv2D(3, 2, padding="same", activation="relu")(down))
    x = layers.Concatenate(axis=axis)([x, layers.Cropping2D(((0, 0), (0, 0)))(up)])
    x = layers.LeakyReLU(0.25)(layers.BatchNormalization(axis=axis)(x))
    x = layers.Maximum()([x, layers.Conv2DTranspose(7, 3, padding="same")(x)])
    x = layers.Multiply()([layers.Permute((1, 2, 3))(x), np.float64(0.5)]) if False else x
    x = layers.Activation("relu")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    return seeded(keras.Model(given, layers.Dense(3)(layers.Flatten()(x))))


def test_both_orders_give_the_same_nodes():
    first, last = (agrees(network_of_images(order)) for order in (FIRST, LAST))
    picked, *nodes = [node for node in last.nodes if node.name not in ("rescaling", "zero_padding2d")]
    wanted = [node.shape for node in first.nodes if hasattr(node, "maps")]
    assert [node.shape for node in last.nodes if hasattr(node, "maps")][-len(wanted) :] == wanted or (picked, nodes)


@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_any_options(data):
    order, rank = data.draw(st.sampled_from([FIRST, LAST])), data.draw(st.integers(1, 2))
    each = lambda low, high: data.draw(st.tuples(*[st.integers(low, high)] * rank))  # noqa: E731
    padding = data.draw(st.sampled_from(["valid", "same"]))
    moves = data.draw(st.sampled_from([{}, {"strides": each(1, 3)}, {"dilation_rate": each(1, 2)}]))
    groups = data.draw(st.sampled_from([1, 2, 4]))
    options = {"kernel_size": each(1, 3), "padding": padding, "data_format": order, **moves}
    given = image(order, *each(6, 9))
    x = getattr(layers, f"Conv{rank}D")(4, groups=groups, activation="relu", **options)(given)
    x = getattr(layers, f"MaxPooling{rank}D")(2, 1, "same", data_format=order)(x)
    x = getattr(layers, f"Conv{rank}DTranspose")(2, **options)(x)
    agrees(seeded(keras.Model(given, x), data.draw(st.integers(0, 99))))
