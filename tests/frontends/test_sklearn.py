"""scikit-learn's perceptrons against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn")
from sklearn.linear_model import LinearRegression
from sklearn.neural_network import MLPClassifier, MLPRegressor

import leo_core
from leo_core import door
from leo_core.errors import DoorError, PluginError, UnsupportedModelError
from leo_core.files import as_read, read
from leo_frontends.sklearn import read_live_model

pytestmark = pytest.mark.filterwarnings("ignore")
X = np.random.default_rng(0).uniform(-1, 1, (80, 4))
OPTIONS = {"hidden_layer_sizes": (8, 6), "max_iter": 30, "random_state": 0}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_regressor(dtype):
    model = MLPRegressor(**OPTIONS).fit(X.astype(dtype), (X[:, :2] * [1, 2]).astype(dtype))
    network = read_live_model(model).network
    assert network.dtype == dtype
    assert np.allclose(network.evaluate(X), model.predict(X.astype(dtype)), atol=1e-5)


@pytest.mark.parametrize(("classes", "tail"), [(2, "sigmoid"), (3, "softmax")])
def test_a_classifier_compressed_and_exported(classes, tail, tmp_path):
    labels = np.digitize(X[:, 0], np.linspace(-1, 1, classes + 1)[1:-1])
    model = MLPClassifier(**OPTIONS).fit(X, labels)
    result = leo_core.compress(model, (-1, 1))
    assert result.network.signature.ending == tail
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(str(result.export(tmp_path / "m.onnx")), providers=["CPUExecutionProvider"])
    ran = session.run(None, {session.get_inputs()[0].name: X})[0]
    want = model.predict_proba(X)
    assert np.allclose(ran, want[:, 1:] if classes == 2 else want, atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "fitted",
    [
        lambda x: MLPRegressor(**OPTIONS).fit(x, x[:, 0]),
        lambda x: MLPRegressor(**OPTIONS).fit(x, x[:, :2]),
        lambda x: MLPClassifier(**OPTIONS).fit(x, x[:, 0] > 0),
        lambda x: MLPClassifier(**OPTIONS).fit(x, np.digitize(x[:, 0], [-0.3, 0.3])),
        lambda x: MLPClassifier(**OPTIONS).fit(x, x[:, :3] > 0),
    ],
)
def test_the_door_asks_the_estimator_itself(fitted, dtype, monkeypatch):
    model = fitted(X.astype(dtype))
    assert read(model, domain=(-1, 1))[0].door == "agrees"
    monkeypatch.setattr(model, "intercepts_", [bias + 0.1 for bias in model.intercepts_])
    imported = read_live_model(model)
    model.intercepts_ = [bias - 0.2 for bias in model.intercepts_]
    with pytest.raises(DoorError, match="itself computes"):
        door.agrees(as_read(imported), door.inputs_at(imported.network, None))


def test_a_result_is_no_estimator_but_becomes_a_module():
    result = leo_core.compress(MLPRegressor(**OPTIONS).fit(X, X[:, 0]), (-1, 1))
    with pytest.raises(PluginError, match=r"reads models of 'sklearn' but cannot write them; use \.to\(\"torch\"\)"):
        _ = result.model
    pytest.importorskip("torch")
    assert result.to("torch")


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (LinearRegression(), "MLPClassifier"),
        (MLPRegressor(), "not fitted"),
        (MLPRegressor(activation="tanh", max_iter=2).fit(X, X[:, 0]), "tanh"),
    ],
)
def test_other_estimators_are_refused(model, says):
    with pytest.raises(UnsupportedModelError, match=says):
        leo_core.compress(model, (-1, 1))
