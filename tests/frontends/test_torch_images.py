"""PyTorch's convolutions and poolings, read live and from .pt2, against PyTorch itself; the door is left out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
from door_cases.torch_images import MODULES, Calls  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812

from leo_core.errors import UnsupportedModelError  # noqa: E402
from leo_core.linear import Conv, ConvTranspose  # noqa: E402
from leo_frontends.torch import read_file, read_live_model  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


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
        saved = read_file(tmp_path / "m.pt2").network
        if any("getitem" in node.name for node in saved.nodes):  # a file names the first of several results by itself
            assert (saved.evaluate(x.reshape(5, -1)) == network.evaluate(x.reshape(5, -1))).all()
        else:
            assert saved == network
    return network


@pytest.mark.parametrize("name", MODULES)
def test_modules(name, tmp_path):
    torch.manual_seed(0)
    make, shape = MODULES[name]
    agrees(make(), shape, tmp_path)


@settings(max_examples=15, deadline=None)
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
        (nn.AdaptiveMaxPool2d(2), (1, 5, 5), "windows that differ"),
        (nn.AdaptiveMaxPool3d(1), (1, 3, 3, 3), "places of the maxima"),
        (nn.MaxPool2d(2, return_indices=True), (1, 4, 4), "the places of maxima"),
        (nn.Upsample(scale_factor=2, mode="bilinear"), (1, 4, 4), "the nearest values"),
        (nn.Upsample(scale_factor=1.3), (1, 2), "devices differ"),
        (nn.Upsample(scale_factor=2.1), (1, 2, 3), "devices differ"),
        (nn.AvgPool2d(2, divisor_override=3), (1, 4, 4), "a number of its own"),
        (nn.LPPool2d(2, 2), (1, 4, 4), "no affine"),
        (nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular"), (1, 4, 5), "mode 'circular'"),
        (Calls(lambda x: F.conv2d(x, x[:1])), (1, 3, 3), "not a constant"),
    ],
    ids=[
        "three axes",
        "adaptive windows",
        "adaptive maxima",
        "maxima over three axes",
        "places",
        "bilinear",
        "enlarged to the same size",
        "enlarged to twice the size",
        "divisor",
        "power",
        "circular pads",
        "computed kernel",
    ],
)
def test_what_is_refused(module, shape, said):
    with pytest.raises(UnsupportedModelError, match=said):
        read_live_model(module.double().eval(), input_shape=shape)
