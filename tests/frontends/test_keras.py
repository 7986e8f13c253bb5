"""Keras: live models and files, against Keras itself, and what must be refused."""

from __future__ import annotations

import json
import zipfile
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given, settings
from strategies import networks

if find_spec("keras") is None:
    pytest.skip("keras is not installed", allow_module_level=True)

import leo_core
from leo_core.errors import LeoError, UnsupportedModelError
from leo_core.files import read
from leo_core.testing.networks import NETWORKS, two_heads
from leo_frontends.keras import (
    import_keras,
    read_file,
    read_live_model,
    write_live_model,
)

keras = import_keras()
layers = keras.layers

pytestmark = pytest.mark.filterwarnings("ignore")


def seeded(model):
    """A model with weights on a grid; variances and slopes are positive."""
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if hasattr(layer, "layers"):
            seeded(layer)
            continue
        grid = [rng.integers(-16, 17, weight.shape) / 16 for weight in layer.weights]
        paths = [weight.path for weight in layer.weights]
        layer.set_weights([np.abs(w) + 0.5 if "variance" in p else w for w, p in zip(grid, paths, strict=True)])
    return model


def residual():
    given = keras.Input((6,))
    h = layers.ReLU()(layers.BatchNormalization()(layers.Dense(6)(given)))
    h = layers.Add()([h, given])
    g = layers.Dense(6, activation="relu")(h)
    h = layers.Subtract()([layers.Concatenate()([g, h]), layers.Concatenate()([h, h])])
    h = layers.Maximum()([h, layers.Minimum()([layers.Rescaling(0.5, 0.25)(h), layers.LeakyReLU(0.3)(h)])])
    return keras.Model(given, layers.Dense(2)(h))


def operators():
    given = keras.Input((6,))
    h, d = layers.Dense(5)(given), layers.Dense(5)(given)
    h = keras.ops.relu(h + d * 0.5) / 4 - 0.3 * d
    h = keras.ops.maximum(1.0 - h, keras.ops.minimum(d, 0.75) / 3)
    return keras.Model(given, layers.Dense(2)(h))


def nested():
    inner = keras.Sequential([keras.Input((5,)), layers.Dense(4, activation="relu"), layers.Dropout(0.5)])
    return keras.Sequential([keras.Input((6,)), layers.Dense(5, activation="relu"), inner, layers.Dense(2)])


def shared():
    """A Functional model is called twice, and comes last."""
    inner = functional(lambda x: layers.Dense(3, activation="relu")(x))
    return functional(lambda x: inner(inner(layers.Dense(3)(x))))


def functional(build):
    given = keras.Input((3,), name="given")
    return keras.Model(given, build(given))


def normalised():
    norm = layers.Normalization(mean=[0.5, 1, 2], variance=[1.0, 4.0, 2.0])
    return keras.Sequential([keras.Input((2, 3)), norm, layers.Permute((2, 1)), layers.Flatten(),
                             layers.Dense(5), layers.Activation("relu"), layers.Reshape((5, 1)),
                             layers.Flatten(), layers.Dense(2)])  # fmt: skip


MODELS = {
    "sequential": lambda: keras.Sequential([keras.Input((6,)), layers.Dense(5, activation="relu"), layers.Dense(2)]),
    "relus": lambda: keras.Sequential([keras.Input((6,)), layers.Dense(5), layers.ReLU(6.0), layers.Dense(4, "relu6"),
                                       layers.ReLU(negative_slope=0.25), layers.Dense(4), layers.ReLU(2.0, 0.5),
                                       layers.Dense(2, use_bias=False)]),
    "double": lambda: keras.Sequential([keras.Input((6,), dtype="float64"),
                                        layers.Dense(5, activation="relu", dtype="float64"),
                                        layers.Dense(2, dtype="float64")]),
    "residual": residual,
    "nested": nested,
    "operators": operators,
    "normalised": normalised,
    "shared": shared,
}  # fmt: skip


def agrees(model, network, seed=1):
    shape = model.inputs[0].shape[1:]
    points = np.random.default_rng(seed).uniform(-2, 2, (20, *shape)).astype(network.dtype)
    want = np.asarray(model.predict(points, verbose=0)).reshape(20, -1)
    got = network.evaluate(points.reshape(20, -1).astype(np.float64))
    assert np.allclose(got, want, rtol=1e-5, atol=1e-5 * max(1.0, float(np.abs(want).max())))


@pytest.mark.parametrize("name", MODELS)
def test_live_models(name):
    model = seeded(MODELS[name]())
    agrees(model, read_live_model(model).network)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_files(name, suffix, tmp_path):
    if (name, suffix) == ("operators", ".h5"):
        pytest.skip("Keras itself reads no operators back from .h5")
    model = seeded(MODELS[name]())
    model.save(tmp_path / f"model{suffix}")
    found, live = read_file(tmp_path / f"model{suffix}").network, read_live_model(model).network
    points = np.random.default_rng(0).uniform(-1, 1, (5, live.input_size))
    assert np.array_equal(found.evaluate(points), live.evaluate(points))


@pytest.mark.parametrize("name", ["sequential", "relus", "residual", "normalised"])
def test_keras_in_pytorch_and_keras_out(name, tmp_path):
    torch = pytest.importorskip("torch")
    model = seeded(MODELS[name]())
    result = leo_core.compress(model, (-1, 1))
    agrees(result.model, result.network)
    module = torch.export.load(result.export(tmp_path / "smaller.pt2")).module()
    shape = result.network.signature.input_shape
    points = np.random.default_rng(0).uniform(-1, 1, (20, *shape)).astype(np.float32)
    with torch.no_grad():
        ran = module(torch.from_numpy(points)).numpy()
    assert np.allclose(ran, np.asarray(model.predict(points, verbose=0)), rtol=1e-4, atol=1e-4)
    again = read_file(result.export(tmp_path / "smaller.keras")).network
    flat = points.reshape(20, -1).astype(np.float64)  # the order of sums may differ
    assert np.allclose(again.evaluate(flat), result.network.evaluate(flat), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("make", [make for make in NETWORKS if make is not two_heads])
def test_any_network_becomes_a_model(make):
    network = make()
    agrees(write_live_model(network), network)


@settings(max_examples=10)
@given(networks())
def test_any_network_written_runs_the_same(network):
    agrees(write_live_model(network), network)


@pytest.mark.parametrize("tail", ["softmax", "log_softmax", "sigmoid"])
def test_a_tail_is_kept_outside_and_put_back(tail, tmp_path):
    given = keras.Input((6,))
    hidden = layers.Dense(4, activation="relu")(given)
    last = layers.Softmax()(layers.Dense(3)(hidden)) if tail == "softmax" else layers.Dense(3, activation=tail)(hidden)
    model = seeded(keras.Model(given, last))
    result = leo_core.compress(model, (-1, 1))
    assert result.network.signature.ending == tail
    assert any(tail in note for note in result.notes)
    points = np.random.default_rng(0).uniform(-1, 1, (20, 6)).astype(np.float32)
    want = np.asarray(model.predict(points, verbose=0))
    assert np.allclose(np.asarray(result.model.predict(points, verbose=0)), want, atol=1e-5)
    for name in ("t.onnx", "t.pt2", "t.keras", "t.leo"):
        again = read(result.export(tmp_path / name))[0].network
        assert again.signature.ending == tail
        assert np.array_equal(again.evaluate(points), result.network.evaluate(points))
    torch, ort = pytest.importorskip("torch"), pytest.importorskip("onnxruntime")
    with torch.no_grad():
        ran = torch.export.load(tmp_path / "t.pt2").module()(torch.from_numpy(points)).numpy()
    assert np.allclose(ran, want, atol=1e-5)
    session = ort.InferenceSession(str(tmp_path / "t.onnx"), providers=["CPUExecutionProvider"])
    assert np.allclose(session.run(None, {session.get_inputs()[0].name: points})[0], want, atol=1e-5)
    with pytest.raises(LeoError, match=tail):
        result.export(tmp_path / "t.nnet")


def test_chains_become_sequential_with_the_same_bits():
    model = seeded(MODELS["sequential"]())
    back = write_live_model(read_live_model(model).network)
    assert isinstance(back, keras.Sequential)
    for was, now in zip(model.get_weights(), back.get_weights(), strict=True):
        assert was.tobytes() == now.tobytes()


@pytest.mark.parametrize("policy", ["mixed_float16", "bfloat16", "float32"])
def test_half_precision_is_said(policy):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2, activation="relu", dtype=policy), layers.Dense(2)])
    assert any("half precision" in note for note in read_live_model(model).notes) == (policy != "float32")


@pytest.mark.parametrize("shape", [(6,), (2, 3)])
def test_a_model_that_changes_nothing_still_runs(shape, tmp_path):
    model = keras.Sequential([keras.Input(shape), layers.Activation("linear")])
    result = leo_core.compress(model, (-1, 1))
    agrees(result.model, result.network)
    agrees(keras.models.load_model(result.export(tmp_path / "m.keras")), result.network)


def test_the_name_of_the_input_is_kept(tmp_path):
    model = keras.Sequential([keras.Input((3,), name="given"), layers.Dense(2, activation="relu"), layers.Dense(2)])
    result = leo_core.compress(model, (-1, 1))
    points = {"given": np.ones((1, 3), np.float32)}
    for smaller in (result.model, keras.models.load_model(result.export(tmp_path / "m.keras"))):
        assert np.asarray(smaller.predict(points, verbose=0)).shape == (1, 2)
    assert read_live_model(MODELS["sequential"]()).network.signature.input_name == "input"


def test_every_unsupported_layer_is_named():
    given = keras.Input((8, 2))
    both = layers.Add()([layers.LSTM(2)(given), layers.Dense(2)(layers.ELU()(layers.Flatten()(given)))])
    with pytest.raises(UnsupportedModelError, match=r"(?s)\(ELU\).*\(LSTM\)"):
        read_live_model(keras.Model(given, both))


class Subclassed(keras.Model):
    def call(self, x):
        return x


class Derived(keras.Sequential):
    def call(self, x):
        return 2 * super().call(x)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: functional(lambda x: keras.ops.sin(x) + 1), r"layer 'sin.*' \(Sin operation\): .*no affine"),
        (lambda: functional(lambda x: keras.ops.cumsum(x, axis=1)), r"\(Cumsum operation\): it is not read"),
        (lambda: functional(lambda x: x * x), r"\(Multiply operation\): it multiplies two computed"),
        (Subclassed, "wired"),
        (lambda: Derived([keras.Input((3,)), layers.Dense(2)]), "wired"),
        (lambda: keras.Sequential([keras.Input((3,)), Derived([keras.Input((3,)), layers.Dense(2)])]), "Derived"),
        (lambda: keras.Sequential([layers.Dense(2)]), "built"),
        (lambda: keras.Sequential([keras.Input((None,)), layers.ReLU()]), "not fixed"),
        (lambda: keras.Sequential([keras.Input((3,)), layers.Dense(2, "softmax"), layers.Dense(2)]), "softmax"),
        (lambda: keras.Sequential([keras.Input((3,)), layers.Dense(2, activation="tanh"), layers.Dense(2)]), "tanh"),
        (lambda: keras.Sequential([keras.Input((3,)), layers.ReLU(threshold=1.0)]), "threshold"),
    ],
)
def test_other_models_are_refused(make, says):
    with pytest.raises(UnsupportedModelError, match=says):
        read_live_model(make())


def test_code_in_a_file_is_refused_before_keras_opens_it(tmp_path):
    model = keras.Sequential([keras.Input((3,)), layers.Lambda(lambda x: x * 2), layers.Dense(2)])
    for suffix in (".keras", ".h5"):
        model.save(tmp_path / f"lambda{suffix}")
        with pytest.raises(UnsupportedModelError, match="code"):
            read_file(tmp_path / f"lambda{suffix}")
    seeded(MODELS["sequential"]()).save(tmp_path / "good.keras")
    with zipfile.ZipFile(tmp_path / "good.keras") as good, zipfile.ZipFile(tmp_path / "bad.keras", "w") as bad:
        for item in good.namelist():
            data = good.read(item)
            if item == "config.json":
                config = json.loads(data)
                config["config"]["layers"][1] |= {"module": "os", "class_name": "system"}
                data = json.dumps(config).encode()
            bad.writestr(item, data)
    with pytest.raises(UnsupportedModelError, match=r"os\.system"):
        read_file(tmp_path / "bad.keras")
    (tmp_path / "saved").mkdir()
    with pytest.raises(LeoError, match="folder"):
        leo_core.compress(tmp_path / "saved", "0,1")


@pytest.mark.parametrize("suffix", [".h5", ".hdf5", ".keras"])
@pytest.mark.parametrize("activation", [layers.LeakyReLU, layers.PReLU, layers.ReLU])
def test_layers_as_activations_in_files(activation, suffix, tmp_path):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4, activation=activation()), layers.Dense(2)])
    model(np.zeros((1, 3), np.float32))
    seeded(model)
    path = tmp_path / f"model{suffix}"
    model.save(path.with_suffix(".h5") if suffix == ".hdf5" else path)
    if suffix == ".hdf5":
        path.with_suffix(".h5").rename(path)
    agrees(model, read(path)[0].network)


def test_a_file_that_does_not_say_the_shape_of_its_input(tmp_path):
    model = keras.Sequential([layers.Flatten(), layers.Dense(2)])
    model.save(tmp_path / "m.h5")
    with pytest.raises(UnsupportedModelError, match="does not say the shape of its input"):
        read_file(tmp_path / "m.h5")
