"""Modules on images, for PyTorch's reader and for what is written: by name, how to make one, and its input."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812


class Calls(nn.Module):
    """A function of one tensor as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


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
    "channels sliced, normed": (lambda: Sliced(), (2, 4, 4)),
    "channels flipped, divided": (lambda: Calls(lambda x: (x.flip(1) / 3).relu()), (3, 4, 4)),
    "channels joined": (lambda: Calls(lambda x: torch.cat([x, -x], 1).relu()), (2, 3, 3)),
    "channels shuffled": (lambda: Calls(lambda x: x.reshape(-1, 2, 2, 9).transpose(1, 2).flatten(1)), (4, 3, 3)),
    "enlarged": (lambda: nn.Sequential(nn.Upsample(scale_factor=(3, 2)), nn.Conv2d(2, 1, 2), nn.ReLU()), (2, 3, 4)),
    "enlarged to a size": (lambda: nn.UpsamplingNearest2d(size=(7, 5)), (2, 3, 4)),
    "enlarged to a size, exactly": (lambda: nn.Upsample(size=(7, 5), mode="nearest-exact"), (2, 3, 4)),
    "enlarged by an odd factor": (lambda: nn.Upsample(scale_factor=1.7), (2, 11)),
    "largest of windows": (lambda: nn.AdaptiveMaxPool2d((2, 1)), (3, 4, 5)),
    "largest of windows over one axis": (lambda: nn.AdaptiveMaxPool1d(3), (2, 6)),
    "channels to places": (lambda: nn.Sequential(nn.Conv2d(2, 8, 1), nn.PixelShuffle(2), nn.ReLU()), (2, 2, 3)),
    "places to channels": (lambda: nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(8, 3, 1)), (2, 4, 6)),
    "shuffled by a module": (lambda: nn.Sequential(nn.Conv2d(3, 6, 1), nn.ChannelShuffle(3), nn.ReLU()), (3, 2, 3)),
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


class Sliced(nn.Module):
    """A norm that reads some of the channels that there are, and gives one of them no weight."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(2, 4, 1), nn.BatchNorm2d(2)
        with torch.no_grad():
            self.norm.running_mean.copy_(torch.tensor([0.3, -0.2]))
            self.norm.running_var.copy_(torch.tensor([0.7, 1.3]))
            self.norm.weight[1] = 0.0

    def forward(self, x):
        return F.relu(self.norm(self.first(x)[:, 1:3]))
