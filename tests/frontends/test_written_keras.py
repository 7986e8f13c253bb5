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
from leo_core.files import live, read, write
from leo_core.linear import Conv, Dense, Select, Sparse
from leo_core.network import INPUT, Affine, Network, Relu, Signature
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
    "grouped, dilated": lambda x, axis: layers.Conv2D(4, 3, groups=2, dilation_rate=2)(layers.Conv2D(4, 1)(x)),
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
    "global average, kept": lambda x, axis: layers.Conv2D(2, 1)(
        layers.GlobalAveragePooling2D(keepdims=True)(layers.Conv2D(3, 2)(x))
    ),
    "global maximum": lambda x, axis: layers.Dense(2)(layers.GlobalMaxPooling2D()(layers.Conv2D(3, 2)(x))),
    "zeros, behind a relu": lambda x, axis: layers.MaxPooling2D(3, 3)(
        layers.ZeroPadding2D(1)(layers.Conv2D(3, 2, activation="relu")(x))
    ),
    "cut, enlarged": lambda x, axis: layers.Conv2D(2, 2)(
        layers.UpSampling2D((2, 3))(layers.ReLU()(layers.Cropping2D(((1, 0), (2, 1)))(layers.Conv2D(2, 1)(x))))
    ),
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
    but = ["Permute", "Reshape"] if order == FIRST else []
    assert kinds(written, but) == kinds(model, but)
    assert isinstance(written, keras.Sequential) == (name not in ("residual", "joined"))
    x = np.random.default_rng(0).standard_normal((3, *given.shape[1:])).astype(np.float32)
    assert np.allclose(computed(written, x), computed(model, x), atol=1e-4, rtol=1e-4)
    assert written.output_shape == model.output_shape


def test_over_one_axis():
    given = keras.Input((9, 2))
    x = layers.Conv1D(3, 3, padding="causal", dilation_rate=2, activation="relu")(given)
    x = layers.MaxPooling1D(2, padding="same")(layers.BatchNormalization()(x))
    x = layers.Conv1DTranspose(2, 3, strides=2)(layers.ZeroPadding1D((0, 2))(layers.DepthwiseConv1D(2)(x)))
    model = seeded(keras.Model(given, layers.GlobalAveragePooling1D()(layers.SeparableConv1D(3, 2)(x))))
    written = back(model)
    assert kinds(written) == kinds(model)


def test_channels_that_come_first_elsewhere_are_permuted_once():
    keras.config.set_image_data_format(FIRST)
    given = keras.Input((2, 7, 6))
    written = back(seeded(keras.Model(given, residual(given, 1))))
    assert kinds(written)["Permute"] == 1
    assert written.layers[1].dims == (2, 3, 1)
    assert {layer.data_format for layer in written.layers if hasattr(layer, "data_format")} == {LAST}


def test_a_norm_keeps_its_numbers_to_the_bit():
    given = keras.Input((7, 6, 2))
    model = seeded(keras.Model(given, normed(given, -1)))
    was, now = ([m for m in net.layers if isinstance(m, layers.BatchNormalization)] for net in (model, back(model)))
    for one, other in zip(was, now, strict=True):
        assert one.epsilon == other.epsilon
        for weight, same in zip(one.get_weights(), other.get_weights(), strict=True):
            assert np.array_equal(weight, same)


def test_channels_go_and_the_model_stays_a_model(tmp_path):
    given = keras.Input((8, 8, 1))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(6, 3, padding="same", use_bias=False)(given)))
    x = layers.MaxPooling2D(2)(x)
    x = layers.ReLU()(layers.BatchNormalization()(layers.DepthwiseConv2D(3, strides=2, padding="same")(x)))
    x = layers.AveragePooling2D(2)(layers.ReLU()(layers.Conv2D(4, 1)(x)))
    model = seeded(keras.Sequential([given, *keras.Model(given, head(x)).layers[1:]]))
    norm = model.layers[1]
    norm.beta.assign(np.where([0, 1, 0, 0, 1, 0], -50.0, norm.beta))
    model.save(tmp_path / "model.keras")
    result = leo_core.compress(tmp_path / "model.keras", (0, 1))
    assert result.deviation <= result.float_noise
    result.export(tmp_path / "small.keras")
    small = keras.saving.load_model(tmp_path / "small.keras", safe_mode=True)
    assert [type(layer) for layer in small.layers] == [type(layer) for layer in model.layers]
    kept = small.layers[0].filters
    assert [kept, small.layers[4].kernel.shape[2]] == [result.network.widths[1]] * 2
    assert kept <= 4
    images = np.random.default_rng(0).random((8, 8, 8, 1))
    small.compile(keras.optimizers.SGD(1e-3), "mse")
    before = small.layers[0].get_weights()[0]
    small.fit(images, np.zeros((8, 3)), epochs=1, verbose=0)
    assert not np.array_equal(before, small.layers[0].get_weights()[0])


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_to_other_formats_and_back(suffix, tmp_path):
    pytest.importorskip("onnx" if suffix == ".onnx" else "torch")
    given = keras.Input((7, 6, 2))
    model = seeded(keras.Model(given, residual(given, -1)))
    write(read_live_model(model).network, tmp_path / f"model{suffix}")
    imported, _ = read(tmp_path / f"model{suffix}")
    written = live(imported.network, registry.frontend("keras"))
    assert kinds(written) == kinds(model)
    x = np.random.default_rng(0).standard_normal((3, 7, 6, 2)).astype(np.float32)
    assert np.allclose(computed(written, x), computed(model, x), atol=1e-4, rtol=1e-4)


#: By PyTorch's classes, what Keras has.
SAME = {"Conv1d": "Conv1D", "Conv2d": "Conv2D", "BatchNorm2d": "BatchNormalization", "MaxPool1d": "MaxPooling1D",
        "AvgPool2d": "AveragePooling2D", "ConvTranspose1d": "Conv1DTranspose", "Linear": "Dense"}  # fmt: skip


def torch_modules():
    if find_spec("torch") is None:
        return []
    from door_cases.torch_images import MODULES

    return list(MODULES)


@pytest.mark.parametrize("name", torch_modules())
def test_modules_of_pytorch(name):
    import torch
    from door_cases.torch_images import MODULES
    from torch import nn

    from leo_frontends.torch import read_live_model as read_module

    torch.manual_seed(0)
    make, shape = MODULES[name]
    first = (nn.Conv1d if len(shape) == 2 else nn.Conv2d)(shape[0], shape[0], 1)  # from there on, tensors are images
    module = nn.Sequential(first, make()).eval()
    network = read_module(module, input_shape=shape).network
    if name == "transposed":
        with pytest.raises(UnsupportedModelError, match="in groups, which Keras does not have"):
            live(network, registry.frontend("keras"))
        return
    written = live(network, registry.frontend("keras"))
    x = np.random.default_rng(0).standard_normal((3, *shape)).astype(np.float32)
    with torch.no_grad():
        assert np.allclose(computed(written, x), module(torch.from_numpy(x)).numpy(), atol=1e-4, rtol=1e-4)
    wanted = Counter(SAME[type(layer).__name__] for layer in module.modules() if type(layer).__name__ in SAME)
    found = kinds(written)
    for one in ("DepthwiseConv2D", "DepthwiseConv1D"):
        found[one.replace("Depthwise", "")] += found.pop(one, 0)
    more = ("joined", "without pads", "one size")  # sums of what is not all of a window
    assert wanted <= found or "without pads" in name
    assert found["Conv2D"] == wanted["Conv2D"] or any(word in name for word in more)
    assert found["Permute"] <= 2


def less_what_is_picked(turned: bool) -> Network:
    """h1 − P h2 + b without images, where a pick is a matrix with a bias of its own."""
    rng = np.random.default_rng(0)

    def layer(number: int) -> list[Affine | Relu]:
        weights = Dense(rng.uniform(-1, 1, (3, 2)).astype(np.float32))
        node = Affine(f"z{number}", (INPUT,), (weights,), np.full(3, 0.5, np.float32))
        return [node, Relu(f"h{number}", node.name, np.zeros(3))]

    minus = Sparse(
        data=np.full(3, -1, np.float32), indices=np.array([2, 0, 1]), indptr=np.arange(4), columns=3
    )  # fmt: skip
    reads = [("h1", Select.identity(3)), ("h2", minus)]
    sources, maps = zip(*(reads[::-1] if turned else reads), strict=True)
    last = Affine("out", sources, maps, np.array([5, 6, 7], np.float32))
    return Network(2, (*layer(1), *layer(2), last), "out")


@pytest.mark.parametrize("turned", [False, True])
def test_what_is_taken_off_takes_no_bias_along(turned):
    network = less_what_is_picked(turned)
    written = live(network, registry.frontend("keras"))
    assert "Subtract" in kinds(written)
    x = np.random.default_rng(1).uniform(-1, 1, (5, 2)).astype(np.float32)
    assert np.allclose(computed(written, x), network.evaluate(x), atol=1e-5)


def test_an_image_with_a_hole_in_its_corner_is_written():
    """Zeros in the place of some values, which are no frame of zeros."""
    conv = Conv.of(np.ones((1, 1, 1, 1), np.float32), (2, 2))
    holes = Sparse(data=np.ones(3, np.float32), indices=np.arange(1, 4), indptr=np.array([0, 0, 1, 2, 3]), columns=4)
    nodes = (
        Affine("conv", (INPUT,), (conv,), np.zeros(4, np.float32), shape=(1, 2, 2)),
        Affine("out", ("conv",), (holes,), np.zeros(4, np.float32), shape=(1, 2, 2)),
    )
    network = Network(4, nodes, "out", Signature("image", (1, 2, 2)))
    x = np.random.default_rng(1).uniform(-1, 1, (5, 1, 2, 2)).astype(np.float32)
    found = computed(live(network, registry.frontend("keras")), x)
    assert np.allclose(found.reshape(5, 4), network.evaluate(x.reshape(5, 4)), atol=1e-5)


def test_functions_need_the_new_format(tmp_path):
    given = keras.Input((7, 6, 2))
    model = seeded(keras.Model(given, layers.ReLU()(layers.Conv2D(2, 2)(given)[:, ::2])))
    network = read_live_model(model).network
    write(network, tmp_path / "model.keras")
    with pytest.raises(LeoError, match=r"Take.*write \.keras"):
        write(network, tmp_path / "model.h5")
    write(read_live_model(seeded(keras.Model(given, residual(given, -1)))).network, tmp_path / "model.h5")


@pytest.mark.parametrize("name", ["vww_96.h5", "pretrainedResnet.h5"])
def test_real_files(name, tmp_path):
    if not (NETS / name).exists():
        pytest.skip("the real networks are not there")
    import json

    import h5py

    with h5py.File(NETS / name) as file:
        config = json.loads(file.attrs["model_config"])
    network = read_file(NETS / name).network
    write(network, tmp_path / "model.keras")
    written = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    was = Counter(layer["class_name"] for layer in config["config"]["layers"])
    found = Counter(type(layer).__name__ for layer in written.layers)
    for kind in ("Conv2D", "DepthwiseConv2D", "BatchNormalization", "Add", "AveragePooling2D", "Flatten", "Dense"):
        assert found[kind] == was[kind], kind
    assert found.keys() <= {*was, "ReLU", "Activation"}
