"""PyTorch's convolutions and poolings, read live and from .pt2, against PyTorch itself; the door is left out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812

from leo_core.errors import UnsupportedModelError  # noqa: E402
from leo_core.linear import Conv, ConvTranspose  # noqa: E402
from leo_frontends.torch import read_file, read_live_model  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


class Calls(nn.Module):
    """A function of one tensor as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def agrees(module, shape, tmp_path=None):
    """Whether the network read is what the module computes, in float64; the network."""
    module = module.double().eval()
    network = read_live_model(module, input_shape=shape).network
    rng = np.random.default_rng(0)
    for batch in (1, 2, 5):
        x = rng.standard_normal((batch, *shape))
        with torch.no_grad():
            wanted = module(torch.from_numpy(x)).reshape(batch, -1).numpy()
        found = network.evaluate(x.reshape(batch, -1), np.float64)
        assert np.abs(found - wanted).max() <= 1e-9 * max(1.0, np.abs(wanted).max())
    if tmp_path is not None:
        given = torch.from_numpy(rng.standard_normal((2, *shape)))
        free = {0: torch.export.Dim("batch")}
        torch.export.save(torch.export.export(module, (given,), dynamic_shapes=(free,)), tmp_path / "m.pt2")
        assert read_file(tmp_path / "m.pt2").network == network
    return network


MODULES = {
    "conv": (lambda: nn.Conv2d(2, 3, 3, padding=1), (2, 5, 6)),
    "no bias, strided, dilated": (lambda: nn.Conv2d(2, 3, (2, 3), (2, 1), dilation=(1, 2), bias=False), (2, 7, 8)),
    "grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2, padding=(0, 2)), (4, 5, 5)),
    "depthwise and pointwise": (lambda: nn.Sequential(nn.Conv2d(3, 3, 3, groups=3), nn.Conv2d(3, 4, 1)), (3, 5, 5)),
    "same pads, even kernel": (lambda: nn.Conv2d(1, 2, (4, 2), padding="same", dilation=(1, 3)), (1, 6, 7)),
    "valid": (lambda: nn.Conv2d(1, 2, 3, padding="valid"), (1, 5, 5)),
    "one axis": (lambda: nn.Conv1d(2, 3, 4, stride=3, padding=1), (2, 9)),
    "transposed": (lambda: nn.ConvTranspose2d(2, 4, 3, stride=2, padding=1, output_padding=1, groups=2), (2, 3, 4)),
    "transposed over one axis": (lambda: nn.ConvTranspose1d(2, 3, 3, stride=2, dilation=2), (2, 4)),
    "batch norm and relu": (lambda: normed(), (2, 5, 5)),
    "max pool": (lambda: nn.MaxPool2d(3, stride=2, padding=1), (2, 6, 7)),
    "max pool, ceil, dilated": (lambda: nn.MaxPool2d(2, stride=3, dilation=2, ceil_mode=True), (1, 7, 8)),
    "max pool over one axis": (lambda: nn.MaxPool1d(3), (2, 8)),
    "average pool": (lambda: nn.AvgPool2d(3, stride=2, padding=1), (2, 6, 7)),
    "average pool, ceil": (lambda: nn.AvgPool2d(2, stride=2, padding=1, ceil_mode=True), (1, 6, 5)),
    "average pool without pads": (lambda: nn.AvgPool2d(2, padding=1, count_include_pad=False), (1, 4, 5)),
    "average pool over one axis": (lambda: nn.AvgPool1d(3, padding=1), (2, 8)),
    "adaptive to one": (lambda: nn.AdaptiveAvgPool2d(1), (3, 4, 5)),
    "adaptive to windows of one size": (lambda: nn.AdaptiveAvgPool2d((2, None)), (2, 4, 5)),
    "adaptive over one axis": (lambda: nn.AdaptiveAvgPool1d(2), (2, 6)),
    "largest over positions": (lambda: Calls(lambda x: x.amax((2, 3))), (2, 3, 5)),
    "smallest over channels": (lambda: Calls(lambda x: x.amin(1, keepdim=True)), (3, 2, 2)),
    "residual": (lambda: Residual(), (3, 4, 4)),
    "channels joined": (lambda: Calls(lambda x: torch.cat([x, -x], 1).relu()), (2, 3, 3)),
    "channels shuffled": (lambda: Calls(lambda x: x.reshape(-1, 2, 2, 9).transpose(1, 2).flatten(1)), (4, 3, 3)),
    "a head": (lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3)),
               (1, 6, 6)),
}  # fmt: skip


def normed():
    norm = nn.BatchNorm2d(3)
    with torch.no_grad():
        norm.running_mean.copy_(torch.tensor([0.5, -1.0, 2.0]))
        norm.running_var.copy_(torch.tensor([0.3, 2.0, 1.0]))
    return nn.Sequential(nn.Conv2d(2, 3, 3, bias=False), norm, nn.ReLU6())


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1)

    def forward(self, x):
        y = F.relu(self.first(x), inplace=True)
        y += self.second(x)
        return F.relu_(y)


@pytest.mark.parametrize("name", MODULES)
def test_modules(name, tmp_path):
    torch.manual_seed(0)
    make, shape = MODULES[name]
    agrees(make(), shape, tmp_path)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_options(data):
    each = lambda low, high: data.draw(st.tuples(st.integers(low, high), st.integers(low, high)))  # noqa: E731
    groups, taps, strides, dilations = data.draw(st.integers(1, 2)), each(1, 3), each(1, 3), each(1, 2)
    torch.manual_seed(data.draw(st.integers(0, 99)))
    conv = nn.Conv2d(2 * groups, 2 * groups, taps, strides, each(0, 2), dilations, groups)
    pads = tuple(min(pad, size // 2) for pad, size in zip(each(0, 1), taps, strict=True))
    kind = data.draw(st.sampled_from([nn.MaxPool2d, nn.AvgPool2d]))
    pool = kind(taps, strides, pads, ceil_mode=data.draw(st.booleans()))
    sizes = tuple(
        (tap - 1) * dilation + 1 + extra for tap, dilation, extra in zip(taps, dilations, each(2, 6), strict=True)
    )
    module = nn.Sequential(conv, nn.LeakyReLU(0.25), pool)
    try:
        with torch.no_grad():
            conv(torch.zeros(1, 2 * groups, *sizes))
            module(torch.zeros(1, 2 * groups, *sizes))
    except RuntimeError:  # nothing is left
        return
    agrees(module, (2 * groups, *sizes))


def test_what_is_read_is_a_convolution_and_not_its_matrix():
    network = agrees(nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.ConvTranspose2d(3, 1, 2)), (2, 5, 5))
    maps = [linear for node in network.nodes for linear in getattr(node, "maps", ())]
    assert [type(linear) for linear in maps if isinstance(linear, Conv | ConvTranspose)] == [Conv, ConvTranspose]
    assert [relu.size for relu in network.relus] == [27]
    assert network.affine(network.relus[0].source).shape == (3, 3, 3)


@pytest.mark.parametrize(
    ("module", "shape", "said"),
    [
        (nn.Conv3d(1, 1, 2), (1, 3, 3, 3), "one or two axes"),
        (nn.AdaptiveAvgPool2d(2), (1, 5, 5), "windows that differ"),
        (nn.AdaptiveMaxPool2d(1), (1, 5, 5), "places of the maxima"),
        (nn.AvgPool2d(2, divisor_override=3), (1, 4, 4), "a number of its own"),
        (nn.LPPool2d(2, 2), (1, 4, 4), "no affine"),
        (nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular"), (1, 4, 5), "mode 'circular'"),
        (Calls(lambda x: F.conv2d(x, x[:1])), (1, 3, 3), "not a constant"),
    ],
    ids=["three axes", "adaptive windows", "adaptive maxima", "divisor", "power", "circular pads", "computed kernel"],
)
def test_what_is_refused(module, shape, said):
    with pytest.raises(UnsupportedModelError, match=said):
        read_live_model(module.double().eval(), input_shape=shape)
