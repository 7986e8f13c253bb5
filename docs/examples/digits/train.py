"""Train the demo's network: scikit-learn's handwritten digits, 64-64-48-10, L1 on every weight.

Writes digits.onnx, digits.domain.json and digits.npz beside this file. Needs torch, scikit-learn and onnx:

    pip install "leo-compress[torch,onnx]" scikit-learn
    python docs/examples/digits/train.py
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from leo_core import Affine, Dense, Network, Relu, convert
from leo_core.network import Output, Signature

HERE = Path(__file__).parent
WIDTHS = (64, 64, 48, 10)
L1 = 3e-4
EPOCHS = 400


def main() -> None:
    torch.manual_seed(0)
    digits = load_digits()
    images, labels = digits.data.astype(np.float32), digits.target
    train_x, test_x, train_y, test_y = train_test_split(images, labels, test_size=0.25, random_state=0, stratify=labels)
    model = nn.Sequential(
        nn.Linear(WIDTHS[0], WIDTHS[1]), nn.ReLU(), nn.Linear(WIDTHS[1], WIDTHS[2]), nn.ReLU(),
        nn.Linear(WIDTHS[2], WIDTHS[3]),
    )  # fmt: skip
    fit(model, torch.tensor(train_x), torch.tensor(train_y))
    with torch.no_grad():
        right = (model(torch.tensor(test_x)).argmax(1).numpy() == test_y).mean()
    print(f"test accuracy {right:.2%}")
    convert(as_network(model), HERE / "digits.onnx")
    (HERE / "digits.domain.json").write_text(json.dumps({"lower": 0, "upper": 16}) + "\n")
    np.savez_compressed(HERE / "digits.npz", images=test_x.astype(np.uint8), labels=test_y.astype(np.uint8))


def fit(model: nn.Sequential, x: torch.Tensor, y: torch.Tensor) -> None:
    """Cross-entropy and L1, full batches of Adam; inputs scaled while training, the scale folded in after."""
    scaled = x / 16.0
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    weights = [layer.weight for layer in model if isinstance(layer, nn.Linear)]
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(x)).split(64):
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(model(scaled[batch]), y[batch])
            loss = loss + L1 * sum(weight.abs().sum() for weight in weights)
            loss.backward()
            optimiser.step()
    with torch.no_grad():
        model[0].weight /= 16.0  # a power of two: nothing is rounded
        for weight in weights:
            weight[weight.abs() < 1e-4 * weight.abs().max()] = 0.0


def as_network(model: nn.Sequential) -> Network:
    nodes, at = [], "input"
    for position, layer in enumerate(model):
        if isinstance(layer, nn.Linear):
            weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
            nodes.append(Affine(f"dense{position // 2 + 1}", (at,), (Dense(weight),), bias))
        else:
            nodes.append(Relu(f"relu{position // 2 + 1}", at, np.zeros(nodes[-1].size)))
        at = nodes[-1].name
    return Network(WIDTHS[0], tuple(nodes), at, Signature("pixels", (64,), (Output("logits", (10,)),)))


if __name__ == "__main__":
    main()
