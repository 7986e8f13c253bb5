"""Real networks made by others: known counts, compressed models that agree, readers that cope."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

import leo_core
from leo_core import Box, State
from leo_core.files import read
from leo_core.network import Output

pytestmark = pytest.mark.real

#: Complete counts, at most 150 ReLUs: (active, inactive).
COUNTED = {
    "hello_world/hello_world.onnx": (8, 13),
    "gurobi_ml/diabetes.keras": (5, 9),
    "gurobi_ml/diabetes_v2.keras": (8, 10),
    "pyscipopt_ml/sk_3_42_0_0_relu.onnx": (9, 4),
    "sb3/sac_MountainCarContinuous.onnx": (33, 49),
}


@pytest.fixture
def onnx_of(nets, tmp_path):
    """The path of a network as ONNX; Keras files become copies, by their weights."""

    def get(file):
        if not file.endswith(".keras"):
            return nets / file
        return leo_core.convert(read(nets / file)[0].network, tmp_path / "copy.onnx")

    return get


def find(index, file):
    entry = index.get(file)
    if entry is None:
        pytest.skip(f"{file} is not in INDEX.json")
    return entry


@pytest.mark.parametrize("trust", ["proved", "solver"])
@pytest.mark.parametrize("file", COUNTED)
def test_known_counts(file, trust, onnx_of, nets, index):
    entry = find(index, file)
    done = subprocess.run(
        [sys.executable, "-m", "leo_core", "inspect", str(onnx_of(file)), "--domain", str(nets / entry["domain"]),
         "--strategy", "paper", "--trust", trust, "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    layers = json.loads(done.stdout)["layers"]
    total = {key: sum(layer[key] for layer in layers) for key in ("active", "inactive", "undecided")}
    assert (total["active"], total["inactive"], total["undecided"]) == (*COUNTED[file], 0)
    assert (entry["expect"]["active"], entry["expect"]["inactive"]) == COUNTED[file]


@pytest.mark.parametrize("file", COUNTED)
def test_compressed_models_agree(file, onnx_of, nets, index, tmp_path):
    domain = nets / find(index, file)["domain"]
    result = leo_core.compress(onnx_of(file), domain)
    path = result.export(tmp_path / "smaller.onnx")
    box = Box.of(str(domain), result.original.input_size)
    points = np.vstack([box.sample(np.random.default_rng(0), 10_000), box.corners(2**12)])
    smaller = leo_core.compress(path, domain, time_limit=0).original
    was, now = result.original.evaluate(points), smaller.evaluate(points)
    scale = max(1.0, float(np.abs(was).max()))
    worst = float(np.abs(was - now).max())
    assert worst <= 1e-6 * scale
    assert worst <= result.deviation + 1e-13 * scale
    assert result.deviation <= result.tolerance
    assert result.network.connections < result.original.connections
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    kind = np.float64 if "double" in session.get_inputs()[0].type else np.float32
    ran = session.run(None, {session.get_inputs()[0].name: points[:50].astype(kind)})[0]
    assert np.allclose(ran.reshape(50, -1), was[:50], rtol=1e-4, atol=1e-4 * scale)


def readable(index):
    return [file for file in index if file.endswith((".onnx", ".nnet", ".keras", ".h5", ".pt"))]


def test_every_dense_file_is_read_with_the_widths_it_has(nets, index):
    for file in readable(index):
        entry = index[file]
        if not entry["widths"]:
            continue
        found = leo_core.compress(nets / file, nets / entry["domain"], time_limit=0)
        assert list(found.original.widths) == entry["widths"], file
        box = Box.of(str(nets / entry["domain"]), found.original.input_size)
        points = box.sample(np.random.default_rng(0), 20)
        was, now = found.original.evaluate(points), found.network.evaluate(points)
        assert np.abs(was - now).max() <= found.deviation + 1e-12 * max(1.0, np.abs(was).max()), file


@pytest.mark.slow
def test_every_convolutional_file_is_read_with_the_units_it_has(nets, index):
    for file in readable(index):
        entry = index[file]
        if entry["widths"]:
            continue
        network = read(nets / file)[0].network
        kinds = entry.get("ops", {})
        if entry["relus"] and "MaxPool" not in kinds:  # max pools are written with ReLUs, too
            assert sum(len(relu.slope) for relu in network.relus) == entry["relus"], file
        if entry["relus"]:
            assert network.input_size == int(np.prod(entry["input_shape"][1:])), file


@pytest.mark.slow
def test_an_l1_trained_mnist_classifier(nets, index):
    file = "mnist_l1/mnist_100-100_0.0005.onnx"
    entry = find(index, file)
    result = leo_core.compress(nets / file, nets / entry["domain"], time_limit=120)
    assert result.stability.count(State.ACTIVE) <= entry["expect"]["active"]
    assert result.network.connections < 0.4 * result.original.connections
    data = nets.parent / "data" / "mnist.npz"
    if data.exists():
        arrays = np.load(data)
        name = next(key for key in arrays.files if "test" in key and arrays[key].ndim >= 2)
        images = arrays[name].reshape(len(arrays[name]), -1)[:2000].astype(np.float64)
        images = images / 255.0 if float(Box.of(str(nets / entry["domain"]), 784).upper.max()) <= 1.5 else images
        before, after = result.original.evaluate(images), result.network.evaluate(images)
        assert np.abs(before - after).max() <= result.deviation + 1e-10
        assert (before.argmax(axis=1) == after.argmax(axis=1)).all()


@pytest.mark.parametrize(
    ("file", "outputs"),
    [
        ("dronet/dronet.onnx", [("output", (1,), "", None), ("output_2", (1,), "sigmoid", None)]),
        pytest.param(
            "ultraface/version-slim-320.onnx",
            [("scores", (4420, 2), "softmax", 1), ("boxes", (4420, 4), "", None)],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_networks_with_two_heads_go_through_the_door(file, outputs, nets, index):
    pytest.importorskip("onnxruntime")
    imported, _ = read(nets / file, domain=nets / find(index, file)["domain"])
    assert imported.door == "agrees"
    assert imported.network.signature.outputs == tuple(Output(*output) for output in outputs)


#: How long it may take to decide: what is not by then must still be valid.
LIMIT = "8"


@pytest.mark.slow
def test_channels_of_convolutional_networks(nets, index):
    asked = 0
    for file, entry in index.items():
        if entry.get("kind") != "convolutional" or not file.endswith(".onnx"):
            continue
        done = subprocess.run(
            [sys.executable, "-m", "leo_core", "inspect", str(nets / file), "--domain", str(nets / entry["domain"]),
             "--time-limit", LIMIT, "--json"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (file, done.stderr)
        found = json.loads(done.stdout)
        channels = [layer["channels"] for layer in found["layers"]]
        total = {kind: sum(counts[kind] for counts in channels) for kind in channels[0]}
        assert found["asked"] == "groups"
        assert sum(layer["units"] for layer in found["layers"]) >= entry["relus"], file  # max pools have ReLUs, too
        assert total["inactive"] + total["constant"] <= entry["expect"]["channels_constant_at_most"], file
        states = ("active", "inactive")
        for state, most in zip(states, entry["expect"]["at_most"], strict=True):
            if sum(layer["units"] for layer in found["layers"]) == entry["relus"]:
                assert sum(layer[state] for layer in found["layers"]) <= most, (file, state)
        asked += 1
    assert asked


@pytest.mark.slow
def test_what_intervals_prove_of_the_visual_wake_words_network(nets, index):
    """1,528 dead channels and 180 that only rounding moves, of 2,736."""
    entry = find(index, "mlperf_tiny/vww_96_mobilenet025.onnx")
    found = leo_core.analyze(nets / entry["file"], nets / entry["domain"], time_limit=15)
    counts = [layer.channel_counts() for layer in found.layers.values()]
    total = {kind: sum(layer[kind] for layer in counts) for kind in counts[0]}
    assert total["total"] == entry["channels"]
    assert total["inactive"] + total["constant"] >= entry["expect"]["channels_constant_at_least"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "weights", "products"),
    [
        ("mlperf_tiny/vww_96_mobilenet025.onnx", 0.15, 0.51),
        ("eran_mnist_conv/convSmallRELU__DiffAI.onnx", 0.30, 0.35),
        ("mipverify/WK17a_linf0.1.onnx", 0.97, 0.72),
    ],
)
def test_convolutional_networks_get_smaller_and_their_certificates_hold(nets, index, tmp_path, file, weights, products):
    entry = find(index, file)
    result = leo_core.compress(nets / file, nets / entry["domain"], evidence=True)
    assert result.network.connections <= weights * result.original.connections
    assert result.network.operations <= products * result.original.operations
    assert result.deviation <= result.float_noise
    small, certificate = tmp_path / "small.onnx", tmp_path / "small.cert"
    result.export(small)  # through the door, which compares it with the original, too
    result.certify(certificate, small)
    leo_core.check(certificate, nets / file, small)
