"""Random PyTorch modules on images: convolutions and transposed ones, norms, poolings, sums, joins, in any order.

``torch_images`` has one module of each kind; here they are drawn with their options and put together, those that LEO
refuses among them. Everything follows from the seed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from door_cases import Case

Draw = np.random.Generator
Step = Callable[[torch.Tensor], torch.Tensor]


class Drawn(nn.Module):
    """Stages, each of ways that read the same tensor, and how their results are put together."""

    def __init__(self, stages: list[tuple[nn.ModuleList, str]]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(ways for ways, _ in stages)
        self.joins = [join for _, join in stages]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for ways, join in zip(self.stages, self.joins, strict=True):
            found = [way(x) for way in ways]
            if join == "sum":
                x = found[0] + (found[1] if len(found) > 1 else x)
            elif join == "join":
                x = torch.cat([*found, x], 1)
            else:
                x = found[0]
        return x


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Step) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


def make(seed: int, folder: Path) -> Case:
    """The module of a seed."""
    rng = np.random.default_rng([seed, 5])
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        axes = int(rng.integers(1, 3))
        shape = (int(rng.integers(1, 5)), *rng.integers(3, 8, axes).tolist())
        x = torch.randn(2, *shape)
        stages: list[tuple[nn.ModuleList, str]] = []
        uses: list[str] = []
        for _ in range(int(rng.integers(2, 7))):
            join = ("", "", "", "sum", "join")[rng.integers(5)]
            layers = [_layer(rng, x) for _ in range(1 + (join == "sum" and rng.random() < 0.5))]
            stage = (nn.ModuleList(layers), join)
            try:
                found = Drawn([stage]).eval()(x)
            except Exception:  # it does not fit: that is the draw's fault
                continue
            if 0 < found[0].numel() <= 2000 and found.ndim == x.ndim:
                x = found
                stages.append(stage)
                uses += [type(layer).__name__ for layer in layers]
        if rng.random() < 0.6:
            head = nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 3))
            stages.append((nn.ModuleList([head]), ""))
        module = Drawn(stages).eval()

    def run(inputs: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return np.asarray(module(torch.from_numpy(np.array(inputs)).float()).double().numpy())

    return Case(tuple(uses), module, shape, run)


def _layer(rng: Draw, x: torch.Tensor) -> nn.Module:
    kinds = (_convolution, _convolution, _transposed, _transposed, _norm, _pool, _pool, _rectifier, _rectifier, _other)
    return kinds[rng.integers(len(kinds))](rng, x)


def _each(rng: Draw, x: torch.Tensor, low: int, high: int) -> Any:
    """A number for each axis, or one for all."""
    count = x.ndim - 2
    return int(rng.integers(low, high)) if rng.random() < 0.5 else tuple(rng.integers(low, high, count).tolist())


def _groups(rng: Draw, channels: int) -> int:
    return int(rng.choice([k for k in range(1, channels + 1) if channels % k == 0]))


def _convolution(rng: Draw, x: torch.Tensor) -> nn.Module:
    groups = _groups(rng, x.shape[1])
    kind = nn.Conv1d if x.ndim == 3 else nn.Conv2d
    padding: Any = "same" if rng.random() < 0.2 else _each(rng, x, 0, 3)
    stride = 1 if padding == "same" else _each(rng, x, 1, 3)
    return kind(
        x.shape[1], groups * int(rng.integers(1, 3)), _each(rng, x, 1, 4), stride, padding, _each(rng, x, 1, 3), groups,
        bias=rng.random() < 0.7, padding_mode="zeros" if rng.random() < 0.95 else "circular",
    )  # fmt: skip


def _transposed(rng: Draw, x: torch.Tensor) -> nn.Module:
    groups = _groups(rng, x.shape[1])
    kind = nn.ConvTranspose1d if x.ndim == 3 else nn.ConvTranspose2d
    return kind(
        x.shape[1], groups * int(rng.integers(1, 3)), _each(rng, x, 1, 4), _each(rng, x, 1, 4), _each(rng, x, 0, 2),
        _each(rng, x, 0, 2), groups, rng.random() < 0.7, _each(rng, x, 1, 3),
    )  # fmt: skip


def _norm(rng: Draw, x: torch.Tensor) -> nn.Module:
    if rng.random() < 0.1:
        return nn.InstanceNorm2d(x.shape[1]) if x.ndim == 4 else nn.InstanceNorm1d(x.shape[1])
    norm = (nn.BatchNorm1d if x.ndim == 3 else nn.BatchNorm2d)(x.shape[1], affine=rng.random() < 0.8)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.1, 2.0)
    if norm.affine:
        norm.weight.normal_()
        norm.bias.normal_()
    return norm


def _pool(rng: Draw, x: torch.Tensor) -> nn.Module:
    options: dict[str, Any] = {
        "stride": _each(rng, x, 1, 4),
        "padding": _each(rng, x, 0, 2),
        "ceil_mode": rng.random() < 0.4,
    }
    taps = _each(rng, x, 1, 4)
    if rng.random() < 0.5:
        kind = nn.MaxPool1d if x.ndim == 3 else nn.MaxPool2d
        return kind(taps, dilation=_each(rng, x, 1, 3), **options)
    kind = nn.AvgPool1d if x.ndim == 3 else nn.AvgPool2d
    return kind(taps, count_include_pad=rng.random() < 0.5, **options)


def _rectifier(rng: Draw, x: torch.Tensor) -> nn.Module:
    choices = (
        nn.ReLU(), nn.ReLU(inplace=False), nn.ReLU6(), nn.LeakyReLU(0.1), nn.PReLU(x.shape[1]), nn.Hardtanh(),
        nn.Sigmoid(), Function(F.relu), Function(torch.abs),
    )  # fmt: skip
    return choices[rng.integers(len(choices))]


def _other(rng: Draw, x: torch.Tensor) -> nn.Module:
    spatial = tuple(range(2, x.ndim))
    choices: tuple[nn.Module, ...] = (
        nn.Upsample(scale_factor=2, mode="nearest"),
        nn.Upsample(scale_factor=2, mode="linear" if x.ndim == 3 else "bilinear"),
        nn.AdaptiveAvgPool1d(1) if x.ndim == 3 else nn.AdaptiveAvgPool2d(1),
        nn.AdaptiveMaxPool1d(1) if x.ndim == 3 else nn.AdaptiveMaxPool2d(1),
        nn.ChannelShuffle(_groups(rng, x.shape[1])),
        nn.Dropout1d() if x.ndim == 3 else nn.Dropout2d(),
        Function(lambda x: F.pad(x, (1, 2))),
        Function(lambda x: x.flip(1)),
        Function(lambda x: x[:, ::2]),
        Function(lambda x: x[..., 1:]),
        Function(lambda x: x.mean(spatial, keepdim=True)),
        Function(lambda x: torch.chunk(x, 2, 1)[0]),
        nn.Softmax(1),
    )
    return choices[rng.integers(len(choices))]
