"""Keras' convolutions and poolings, live and from files, against Keras itself; the door is left out."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

if find_spec("keras") is None:
    pytest.skip("keras is not installed", allow_module_level=True)

import leo_core
from leo_core.errors import LeoError, UnsupportedModelError
from leo_core.files import write
from leo_core.linear import Conv, ConvTranspose, Select
from leo_frontends.keras import import_keras, read_file, read_live_model

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
        if kind != "Cropping1D":  # which has no order
            options = {**options, "data_format": order}
        agrees(seeded(keras.Model(given, getattr(layers, kind)(**options)(given))))


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
    x = layers.Activation("relu")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    return seeded(keras.Model(given, layers.Dense(3)(layers.Flatten()(x))))


def test_channels_that_come_last_come_first_in_each_node():
    first, last = (agrees(network_of_images(order)).nodes[1:] for order in (FIRST, LAST))
    picked, *rest = last  # in between are only the values of the input, in the other order
    assert isinstance(picked.maps[0], Select)
    for one, other in zip(first, rest, strict=True):
        assert getattr(one, "shape", None) == getattr(other, "shape", None)
        for linear, same in zip(getattr(one, "maps", ()), getattr(other, "maps", ()), strict=True):
            assert type(linear) is type(same)
            assert all(np.array_equal(array, same.arrays()[name]) for name, array in linear.arrays().items())
    convolutions = [linear for node in rest for linear in getattr(node, "maps", ()) if isinstance(linear, Conv)]
    assert len(convolutions) == 8  # the others are norms
    assert convolutions[0].geometry.low == convolutions[0].geometry.high == (1, 1)  # the zeros around the input
    assert sum(isinstance(linear, ConvTranspose) for node in rest for linear in getattr(node, "maps", ())) == 1


def test_what_stands_alone_keeps_its_layout():
    """Permuted, repeated, cut, joined along positions, and mapped along its channels."""
    given = image(LAST, 5, 6, channels=3)
    x = layers.Conv2D(4, 3, padding="same", activation="relu", data_format=LAST)(given)
    x = layers.ReLU()(layers.Concatenate(axis=1)([x, layers.Cropping2D(((1, 0), (0, 0)), data_format=LAST)(x)]))
    network = agrees(seeded(keras.Model(given, layers.Dense(2, activation="relu")(x))))
    assert [network.affine(relu.source).shape for relu in network.relus] == [(4, 5, 6), (4, 9, 6), (2, 9, 6)]
    x = layers.Permute((3, 1, 2))(layers.Conv2D(4, 3, data_format=LAST)(given))
    x = layers.ReLU()(layers.Reshape((4, 12))(x))
    network = agrees(seeded(keras.Model(given, layers.ReLU()(layers.Reshape((48,))(x)))))
    assert network.affine(network.relus[0].source).shape == (4, 3, 4)


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


REFUSED = {
    "three axes": (lambda x: layers.Conv3D(1, 1)(layers.Reshape((6, 6, 2, 2))(x)), r"\(Conv3D\): it is not read; conv"),
    "interpolated": (lambda x: layers.UpSampling2D(2, interpolation="bilinear")(x), "interpolation 'bilinear'"),
    "repeated edges": (lambda x: layers.AveragePooling2D(2, 1, "same")(x), "repeats the edges on PyTorch"),
    "curved": (lambda x: layers.Conv2D(1, 1, activation="elu")(x), r"'conv2d.*activation 'elu' has no affine"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name):
    make, said = REFUSED[name]
    if name == "repeated edges" and keras.backend.backend() != "torch":
        pytest.skip("on other backends it means what it says")
    given = keras.Input((6, 6, 4))
    with pytest.raises(UnsupportedModelError, match=said):
        read_live_model(keras.Model(given, make(given)))


def test_pads_left_out_of_averages(monkeypatch):
    """As all backends but PyTorch have it where pads are not as many before as behind."""
    given = image(LAST, 3, channels=1)
    model = keras.Model(given, layers.AveragePooling1D(2, 2, "same", data_format=LAST)(given))
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    found = read_live_model(model).network.evaluate(np.array([[1.0, 3.0, 5.0]]), np.float64)
    assert found.tolist() == [[2.0, 5.0]]


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_files(suffix, tmp_path):
    keras.config.set_dtype_policy("float32")
    model = network_of_images(LAST)
    model.save(tmp_path / f"m{suffix}")
    assert read_file(tmp_path / f"m{suffix}").network == read_live_model(model).network


def test_where_layers_part_is_said_in_the_order_of_the_nodes():
    imported = read_live_model(network_of_images(LAST))
    x = np.random.default_rng(0).normal(size=(1, 8, 8, 2))
    seen, known = imported.inside(x), imported.network.evaluate_nodes(x.reshape(1, -1))
    last = {node.origin.layer: node.name for node in imported.network.nodes}
    compared = [name for name in seen if name in last]
    assert len(compared) > 10
    for name in compared:
        assert np.allclose(np.ravel(seen[name]), known[last[name]].ravel(), rtol=1e-5, atol=1e-5)


# Files as Keras 2 wrote them.


def old_layer(kind, name, inputs, **options):
    """With what Keras 2 wrote of every layer."""
    config = {"name": name, "trainable": True, "dtype": "float32", **options}
    return {"class_name": kind, "name": name, "config": config, "inbound_nodes": [[[i, 0, 0, {}] for i in inputs]]}


CONVOLUTION = {
    "padding": "same", "data_format": LAST, "groups": 1, "activation": "linear", "use_bias": True,
    "kernel_initializer": {"class_name": "OfSomebody", "config": {}}, "activity_regularizer": None,
}  # fmt: skip


def old_model():
    """A residual block, by name and in the order in which Keras 2 listed it; and its weights."""
    given = {"batch_input_shape": [None, 6, 6, 2], "dtype": "float32", "sparse": False, "ragged": False, "name": "in"}
    policy = {"class_name": "Policy", "config": {"name": "float32"}}
    layers = [
        {"class_name": "InputLayer", "name": "in", "config": given, "inbound_nodes": []},
        old_layer("Conv2D", "a", ["in"], filters=3, kernel_size=[3, 3], strides=[2, 2], **CONVOLUTION),
        old_layer("BatchNormalization", "b", ["a"], axis=[3], epsilon=1e-3, momentum=0.99, fused=True, dtype=policy),
        old_layer("ReLU", "c", ["b"], max_value={"type": "ndarray", "value": 6.0}, negative_slope=0.0, threshold=0.0),
        old_layer("DepthwiseConv2D", "d", ["c"], kernel_size=[3, 3], strides=[1, 1], depth_multiplier=1,
                  depthwise_regularizer={"class_name": "L2", "config": {"l2": 1e-4}}, **CONVOLUTION),
        old_layer("Add", "e", ["c", "d"]),
        old_layer("ZeroPadding1D", "z", ["r"], padding=[0, 1]),
        old_layer("Flatten", "f", ["z"], data_format=LAST),
        old_layer("Dense", "g", ["f"], units=2, activation="relu", use_bias=True),
    ]  # fmt: skip
    layers.insert(6, old_layer("Reshape", "r", ["e"], target_shape=[9, 3]))
    config = {"name": "m", "layers": layers, "input_layers": [["in", 0, 0]], "output_layers": [["g", 0, 0]]}
    rng = np.random.default_rng(0)
    shapes = {"a": {"kernel": (3, 3, 2, 3), "bias": 3}, "d": {"depthwise_kernel": (3, 3, 3, 1), "bias": 3},
              "b": {"gamma": 3, "beta": 3, "moving_mean": 3, "moving_variance": 3},
              "g": {"kernel": (30, 2), "bias": 2}}  # fmt: skip
    held = {name: {f"{name}/{key}:0": rng.random(shape) for key, shape in shapes.get(name, {}).items()}
            for name in (layer["name"] for layer in layers)}  # fmt: skip
    return {"class_name": "Functional", "config": config}, held


def written(path, model, held, version="2.4.0"):
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"], file.attrs["backend"] = version, "tensorflow"
        file.attrs["model_config"] = json.dumps(model)
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [name.encode() for name in held]
        for name, arrays in held.items():
            own = group.create_group(name)
            own.attrs["weight_names"] = [key.encode() for key in arrays]
            for key, array in arrays.items():
                own.create_dataset(key, data=array.astype(np.float32))
    return path


@pytest.mark.parametrize("kind", ["Functional", "Model"])
def test_old_files(kind, tmp_path):
    keras.config.set_image_data_format(FIRST)  # which says nothing of a file
    model, held = old_model()
    imported = read_file(written(tmp_path / "m.h5", {**model, "class_name": kind}, held))
    x = np.random.default_rng(1).random((3, 6, 6, 2)).astype(np.float32)
    wanted = by_hand(x.astype(np.float64), {key: array for arrays in held.values() for key, array in arrays.items()})
    assert np.allclose(imported.network.evaluate(x.reshape(3, -1), np.float64), wanted, rtol=1e-5, atol=1e-5)
    assert np.allclose(imported.run(x), wanted, rtol=1e-4, atol=1e-4)


def by_hand(x, held):
    """What :func:`old_model` computes."""
    x = np.pad(x, [(0, 0), (0, 1), (0, 1), (0, 0)])  # 'same', two apart: one zero, behind
    taps = [(i, j, x[:, i : i + 5 : 2, j : j + 5 : 2]) for i in range(3) for j in range(3)]
    x = sum(part @ held["a/kernel:0"].astype(np.float32)[i, j] for i, j, part in taps) + held["a/bias:0"]
    x = (x - held["b/moving_mean:0"]) / np.sqrt(held["b/moving_variance:0"] + 1e-3)
    x = np.clip(x * held["b/gamma:0"] + held["b/beta:0"], 0, 6)
    around = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    kernel = held["d/depthwise_kernel:0"][..., 0]
    x = x + held["d/bias:0"]
    x = x + sum(around[:, i : i + 3, j : j + 3] * kernel[i, j] for i in range(3) for j in range(3))
    flat = np.pad(x.reshape(len(x), 9, 3), [(0, 0), (0, 1), (0, 0)]).reshape(len(x), -1)
    return np.maximum(flat @ held["g/kernel:0"] + held["g/bias:0"], 0)


def test_old_files_that_keras_3_would_misread(tmp_path):
    model, held = old_model()
    model["config"]["layers"][1]["config"]["activation"] = "hard_sigmoid"
    with pytest.raises(UnsupportedModelError, match=r"layer 'a' \(Conv2D\): its hard_sigmoid is 0.2 x"):
        read_file(written(tmp_path / "m.h5", model, held))
    read_file(written(tmp_path / "new.h5", model, held, "3.0.0"))
    model, held = old_model()
    model["config"]["layers"].insert(-1, old_layer("Softmax", "s", ["f"], axis=[1, 2]))
    with pytest.raises(UnsupportedModelError, match=r"'s' \(Softmax\): Keras 3 loses its axes \[1, 2\]"):
        read_file(written(tmp_path / "m.h5", model, held))
    model, held = old_model()
    held["a"], held["a2"] = {}, held["a"]
    with pytest.raises(UnsupportedModelError, match="in another order than its layers"):
        read_file(written(tmp_path / "m.h5", model, {"a2": held.pop("a2"), **held}))


def test_old_options_that_mean_something_are_not_dropped(tmp_path):
    model, held = old_model()
    model["config"]["layers"][4]["config"]["groups"] = 3
    with pytest.raises(LeoError, match="groups"):
        read_file(written(tmp_path / "m.h5", model, held))


@pytest.mark.parametrize(
    ("old", "other"),
    [("vww_96.h5", "vww_96_mobilenet025.onnx"), ("pretrainedResnet.h5", "resnet8_cifar10.onnx")],
)
def test_real_files_have_the_channels_of_their_exports(old, other):
    if not (NETS / old).exists():
        pytest.skip("the real networks are not there")
    pytest.importorskip("onnx")
    from leo_frontends.onnx import read_file as read_onnx

    ours, theirs = read_file(NETS / old).network, read_onnx(NETS / other).network
    channels = [[net.affine(relu.source).shape for relu in net.relus] for net in (ours, theirs)]
    assert channels[0] == channels[1]
    assert all(channels[0])
    x = np.random.default_rng(0).random((2, ours.input_size))
    assert np.allclose(ours.evaluate(x, np.float64), theirs.evaluate(x, np.float64), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("order", [FIRST, LAST])
def test_bounds_lie_as_the_layers_do(order, tmp_path):
    given_ = image(order, 5, 4, channels=2)
    kernel = {"data_format": order, "kernel_size": (2, 3)}
    first = layers.Conv2D(3, name="edges", **kernel)
    x = layers.ReLU(name="first")(first(given_))
    x = layers.ReLU(name="second")(layers.BatchNormalization(axis=1 if order == FIRST else -1, name="norm")(x))
    rows = layers.Dense(5, name="rows")
    model = seeded(keras.Model(given_, layers.Flatten()(layers.ReLU(name="third")(rows(x)))))
    if order == FIRST and keras.backend.backend() == "tensorflow":
        pytest.skip("TensorFlow has no convolution with channels first on a CPU")
    network = read_live_model(model).network
    write(network, tmp_path / "net.leo")
    points = np.random.default_rng(0).uniform(-1, 1, (200, *model.inputs[0].shape[1:]))
    for net in (network, leo_core.files.read(tmp_path / "net.leo")[0].network):
        bounds = leo_core.analyze(net, (-1, 1), solver="scipy", time_limit=5).bounds
        for values, layer in zip(bounds.layers.values(), (first, model.get_layer("norm"), rows), strict=True):
            inner = keras.ops.convert_to_numpy(keras.Model(given_, layer.output)(points, training=False))
            assert values.shape == inner.shape[1:]
            assert values.layer == layer.name
            slack = 1e-9 * np.abs(inner).max()
            assert (values.lower - slack <= inner).all()
            assert (inner <= values.upper + slack).all()
    small = leo_core.compress(network, (-1, 1), solver="scipy", time_limit=5)
    shapes = [values.shape for values in small.bounds_after.layers.values()]
    channels = [small.network.affine(relu.source).shape[0] for relu in small.network.relus][:2]
    places = (4, 2)
    assert shapes[:2] == [(c, *places) if order == FIRST else (*places, c) for c in channels]
