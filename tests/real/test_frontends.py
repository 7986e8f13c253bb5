"""Real files from one framework to another."""

from __future__ import annotations

import numpy as np
import pytest

import leo_core
from leo_core.files import read

pytestmark = [pytest.mark.real, pytest.mark.filterwarnings("ignore")]


def test_state_dicts_hold_the_networks_of_the_onnx_files(nets, index):
    pytest.importorskip("torch")
    files = [file for file in index if file.endswith(".pt")]
    for file in files:
        (mine, _), (theirs, _) = read(nets / file), read((nets / file).with_suffix(".onnx"))
        assert mine.network.widths == theirs.network.widths == tuple(index[file]["widths"])
        points = np.random.default_rng(0).random((5, mine.network.input_size))
        assert np.array_equal(mine.network.evaluate(points), theirs.network.evaluate(points)), file


def test_a_keras_network_leaves_for_pytorch(nets, index, tmp_path):
    torch = pytest.importorskip("torch")
    file = "mnist_l1/mnist_400-400_0.0002.keras"
    if file not in index:
        pytest.skip(f"{file} is not in INDEX.json")
    network = read(nets / file)[0].network
    result = leo_core.compress(network, nets / index[file]["domain"])
    path = result.export(tmp_path / "smaller.pt2")
    module = torch.export.load(path).module()
    data = nets.parent / "data" / "mnist.npz"
    images = np.random.default_rng(0).random((100, 784), np.float32)
    if data.exists():
        images = np.load(data)["test_images"].reshape(-1, 784).astype(np.float32) / np.float32(255)
    with torch.no_grad():
        now = module(torch.from_numpy(images)).numpy().argmax(axis=1)
    assert (network.evaluate(images, np.float32).argmax(axis=1) == now).all()


@pytest.mark.parametrize("source", [".onnx", ".pt"])
@pytest.mark.parametrize("framework", ["keras", "torch"])
def test_onnx_and_pytorch_leave_for_both(source, framework, nets, index, tmp_path):
    pytest.importorskip(framework)
    file = f"mnist_l1/mnist_100-100_0.0005{source}"
    if file not in index:
        pytest.skip(f"{file} is not in INDEX.json")
    result = leo_core.compress(nets / file, nets / index[file]["domain"], passes="leo")
    assert result.network.connections < result.original.connections
    path = result.export(tmp_path / ("smaller.keras" if framework == "keras" else "smaller.pt2"))
    images = np.random.default_rng(0).random((200, 784), np.float32)
    if framework == "keras":
        from leo_frontends.keras import import_keras

        ran = np.asarray(import_keras().models.load_model(path).predict(images, verbose=0))
    else:
        import torch

        with torch.no_grad():
            ran = torch.export.load(path).module()(torch.from_numpy(images)).numpy()
    wanted = result.original.evaluate(images, np.float32)
    assert np.abs(ran - wanted).max() <= result.deviation + 1e-3
    assert (ran.argmax(axis=1) == wanted.argmax(axis=1)).all()


@pytest.mark.parametrize("target", ["copy.pt2", "copy.pt", "copy.onnx", "copy.leo"])
def test_conversion_keeps_every_bit(target, nets, index, tmp_path):
    pytest.importorskip("torch")
    file = "mnist_l1/mnist_100-100_0.0005.pt"
    if file not in index:
        pytest.skip(f"{file} is not in INDEX.json")
    original = read(nets / file)[0].network
    copied = read(leo_core.convert(nets / file, tmp_path / target))[0].network
    for was, now in zip(original.layers(), copied.layers(), strict=True):
        assert was.affine.maps[0].dense().tobytes() == now.affine.maps[0].dense().tobytes()
        assert was.affine.bias.tobytes() == now.affine.bias.tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["keras", "torch"])
@pytest.mark.parametrize("file", ["mlperf_tiny/vww_96_mobilenet025.onnx", "mipverify/WK17a_linf0.1.onnx"])
def test_a_convolutional_network_is_itself_in_another_format(file, framework, nets, index, tmp_path):
    """The layers have other names there, and in a deep network with norms a bound by names alone proves nothing."""
    pytest.importorskip(framework)
    if file not in index:
        pytest.skip(f"{file} is not in INDEX.json")
    path = leo_core.convert(nets / file, tmp_path / ("copy.keras" if framework == "keras" else "copy.pt2"))
    found = leo_core.verify(nets / file, path, nets / index[file]["domain"], within=0)
    assert found.within is True
