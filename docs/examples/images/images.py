"""A convolutional network: channels that batch norms have learnt to switch off go, and the model stays what it was.

    pip install "leo-compress[highs,torch,report]" scikit-learn
    python images.py [FOLDER]

Writes images.html, the report, and smaller.pt2 into FOLDER (the current one).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn

import leo_core


def train(images: torch.Tensor, labels: torch.Tensor) -> nn.Sequential:
    """Two convolutions with batch norms; the penalty on what these let through switches channels off."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # for so small a network, one is faster
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AvgPool2d(2), nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip
    norms = [layer for layer in model if isinstance(layer, nn.BatchNorm2d)]
    fit(model, norms, images, labels, epochs=8, penalty=3e-2)
    off = [norm.weight.abs() < 0.3 * norm.weight.abs().max() for norm in norms]
    fit(model, norms, images, labels, epochs=4, off=off)
    return model.eval()


def fit(
    model: nn.Module,
    norms: list[nn.BatchNorm2d],
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    epochs: int,
    penalty: float = 0.0,
    off: Sequence[torch.Tensor] = (),
) -> None:
    """Cross-entropy, and an L1 penalty on what norms let through; channels that are off stay off."""
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(100):
            loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
            loss = loss + penalty * sum(norm.weight.abs().sum() for norm in norms)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            with torch.no_grad():
                for norm, channels in zip(norms, off):
                    norm.weight[channels] = norm.bias[channels] = 0.0


def main(folder: Path) -> None:
    digits = load_digits()
    images = torch.tensor(digits.images[:, None] / 16, dtype=torch.float32)
    labels = torch.tensor(digits.target)
    model = train(images[:1400], labels[:1400])

    result = leo_core.compress(model, {"lower": 0, "upper": 1, "input_shape": [1, 8, 8]})
    print(result.summary())
    result.report(folder / "images.html")
    result.export(folder / "smaller.pt2")

    smaller = result.to("torch")
    with torch.no_grad():
        before, after = model(images[1400:]), smaller(images[1400:])
    right = [int((outputs.argmax(1) == labels[1400:]).sum()) for outputs in (before, after)]
    print(f"\nof {len(after)} digits: {right[0]} right before, {right[1]} after")
    print(f"largest difference of an output: {float((before - after).abs().max()):.2g}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
