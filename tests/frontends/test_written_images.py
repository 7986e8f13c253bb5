"""Networks on images written as ONNX and PyTorch models: the same layers, with the numbers that they had."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
from door_cases.torch_images import MODULES, Calls, normed  # noqa: E402
from torch import nn  # noqa: E402

import leo_core  # noqa: E402
from leo_core.files import live, write  # noqa: E402
from leo_core.linear import Select  # noqa: E402
from leo_core.plugins import registry  # noqa: E402
from leo_frontends import layers  # noqa: E402
from leo_frontends.torch import read_live_model  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")

#: What stays one layer of its kind when it is read and written.
KINDS = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.MaxPool1d, nn.MaxPool2d)
#: The same in ONNX.
OPERATORS = {nn.BatchNorm2d: "BatchNormalization", nn.MaxPool1d: "MaxPool", nn.MaxPool2d: "MaxPool",
             nn.Conv1d: "Conv", nn.Conv2d: "Conv",
             nn.ConvTranspose1d: "ConvTranspose", nn.ConvTranspose2d: "ConvTranspose"}  # fmt: skip


def kinds(module):
    return Counter(type(layer) for layer in module.modules() if isinstance(layer, KINDS))


@pytest.mark.parametrize("name", MODULES)
def test_it_comes_back_as_it_was(name, tmp_path):
    torch.manual_seed(0)
    make, shape = MODULES[name]
    first = (nn.Conv1d if len(shape) == 2 else nn.Conv2d)(shape[0], shape[0], 1)  # from there on, tensors are images
    module = nn.Sequential(first, make()).eval()
    network = read_live_model(module, input_shape=shape).network
    path = write(network, tmp_path / "model.onnx").path  # through the door, as everything here
    written = live(network, registry.frontend("torch"))
    images = torch.from_numpy(np.random.default_rng(0).standard_normal((3, *shape)).astype(np.float32))
    with torch.no_grad():
        assert torch.allclose(written(images), module(images), atol=1e-4, rtol=1e-4)
    assert kinds(module) <= kinds(written)
    more = ("joined", "without pads", "of windows")  # minus, and a sum to be divided, are depthwise convolutions
    assert kinds(written) == kinds(module) or any(word in name for word in more)
    operators = Counter(node.op_type for node in onnx.load(path).graph.node)
    for kind, count in kinds(module).items():
        assert operators[OPERATORS[kind]] >= count
    moved = ("largest", "smallest", "channels", "without pads", "enlarged", "shuffled")
    assert "Gather" not in operators or any(word in name for word in moved)


def test_a_norm_keeps_its_numbers_to_the_bit(tmp_path):
    module = normed().eval()
    written = live(read_live_model(module, input_shape=(2, 5, 5)).network, registry.frontend("torch"))
    (was,), (now,) = ([m for m in net.modules() if isinstance(m, nn.BatchNorm2d)] for net in (module, written))
    for key, value in was.state_dict().items():
        if "num_batches" not in key:
            assert torch.equal(value, now.state_dict()[key])
    assert was.eps == now.eps


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_channels_go_and_the_model_stays_a_model(suffix, tmp_path):
    torch.manual_seed(1)
    module = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 4, 1), nn.ReLU(), nn.AvgPool2d(3), nn.Flatten(), nn.Linear(16, 3),
    ).eval()  # fmt: skip
    with torch.no_grad():
        module[1].bias[torch.tensor([1, 4])] = -50.0
    torch.export.save(
        torch.export.export(module, (torch.zeros(2, 1, 12, 12),), dynamic_shapes=({0: torch.export.Dim("batch")},)),
        tmp_path / "model.pt2",
    )
    result = leo_core.compress(tmp_path / "model.pt2", (0, 1))
    assert result.deviation <= result.float_noise
    result.export(tmp_path / f"small{suffix}")
    small = result.to("torch")
    convolutions = [m for m in small.modules() if isinstance(m, nn.Conv2d)]
    assert [(m.in_channels, m.out_channels, m.groups) for m in convolutions][:2] == [(1, 4, 1), (4, 4, 4)]
    assert kinds(small) == kinds(module)
    small.train()
    loss = small(torch.rand(4, 1, 12, 12)).square().sum()
    loss.backward()
    assert all(parameter.grad is not None for parameter in small.parameters())


@pytest.mark.parametrize("size", [8, 7])  # a mean over 64 is exact, one over 49 a layer with a number of its own
def test_a_mean_over_all_positions_stays_one_when_channels_go(size, tmp_path):
    torch.manual_seed(0)
    convolution = nn.Conv2d(2, 6, 3, padding=1)
    module = nn.Sequential(
        convolution, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)
    ).eval()  # fmt: skip
    with torch.no_grad():
        convolution.bias[:2] -= 9.0
    result = leo_core.compress(module, {"lower": 0.0, "upper": 1.0, "input_shape": [2, size, size]})
    assert result.network.widths == (2 * size**2, 4, 3)
    (pool,) = (layer for layer in result.model.modules() if isinstance(layer, nn.AdaptiveAvgPool2d))
    assert pool.output_size == 1
    assert sum(isinstance(layer, nn.Linear) for layer in result.model.modules()) == 1
    operators = [node.op_type for node in onnx.load(result.export(tmp_path / "small.onnx")).graph.node]
    assert operators == ["Conv", "Relu", "GlobalAveragePool", "Reshape", "Gemm"]


def test_what_the_map_is_not_a_layer_of_is_not_taken_for_one():
    values = np.arange(12)
    turned = Select(values.reshape(3, 4).T.ravel(), columns=12)
    assert layers.permutation(turned, (3, 4)) == (1, 0)
    assert layers.permutation(Select(np.roll(values, 1), columns=12), (3, 4)) is None
    assert layers.channels_picked(Select(values[4:8], columns=12), (3, 4)).tolist() == [1]
    assert layers.channels_picked(Select(values[3:7], columns=12), (3, 4)) is None


def test_a_norm_of_channels_in_another_order_is_read_as_that():
    """Its constants were taken from the channel of its own number: 2e-37 was proved where it was 1.97."""
    torch.manual_seed(0)
    first, norm, last = nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 1)
    with torch.no_grad():
        norm.running_mean.copy_(torch.tensor([0.3, -0.2, 0.1, 0.4]))
        norm.running_var.copy_(torch.tensor([0.7, 1.3, 0.5, 0.9]))
        for channel, value in ((0, 5.0), (1, 2.0)):
            first.weight[channel], first.bias[channel] = 0, value
    module = nn.Sequential(first, Calls(lambda x: x.flip(1)), norm, nn.ReLU(), last, nn.Flatten()).eval()
    network = read_live_model(module, input_shape=(2, 3, 3)).network
    result = leo_core.compress(network, (0, 1), tolerance=1e-3)
    assert result.network.connections < network.connections
    for x in np.random.default_rng(0).random((5, 18)):
        was, now = (net.evaluate_exact(x)[net.output].fractions() for net in (network, result.network))
        assert max(abs(a - b) for a, b in zip(was, now, strict=True)) <= Fraction(result.deviation)
