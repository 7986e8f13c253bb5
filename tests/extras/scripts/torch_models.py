"""The extra torch: live modules, exported programs and state dicts, in and out."""

from __future__ import annotations

import torch
from torch import nn

import leo_core

torch.manual_seed(0)
module = nn.Sequential(
    nn.Linear(3, 16), nn.ReLU(), nn.BatchNorm1d(16), nn.Linear(16, 8), nn.ReLU6(), nn.Linear(8, 2)
).eval()
points = torch.rand(50, 3) * 2 - 1
result = leo_core.compress(module, (-1, 1))
with torch.no_grad():
    assert torch.allclose(result.model(points), module(points), atol=1e-4)
    loaded = torch.export.load(result.export("out.pt2")).module()
    assert torch.allclose(loaded(points), module(points), atol=1e-4)
    for name in ("net.pt2", "net.pt"):
        smaller = leo_core.compress(name, (-1, 1)).to("torch")
        assert isinstance(smaller, nn.Module)
