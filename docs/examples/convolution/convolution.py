"""Train a convolutional network, pull the scales of its norms to zero, and take the dead channels away for good.

    pip install ".[highs,torch]" matplotlib
    python docs/examples/convolution/convolution.py [DIGITS.npz]

learns the handwritten digits of the example beside this one, and writes smaller.pt2 and convolution.svg into the
current folder.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib import pyplot as plt

import leo_core
from leo_frontends.torch.training import ProximalL1

DIGITS = Path(__file__).parents[1] / "digits" / "digits.npz"


def network() -> torch.nn.Sequential:
    torch.manual_seed(0)
    layers: list[torch.nn.Module] = []
    for channels_in, channels_out, stride in ((1, 16, 1), (16, 24, 2), (24, 24, 2)):
        layers.append(torch.nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False))
        layers += [torch.nn.BatchNorm2d(channels_out), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(24 * 2 * 2, 10))


def train(model: torch.nn.Sequential, images: torch.Tensor, labels: torch.Tensor, epochs: int = 30) -> None:
    """Cross-entropy, and an L1 pull on the norms' scales: a channel that is not needed gets the scale 0."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    scales = [layer.weight for layer in model if isinstance(layer, torch.nn.BatchNorm2d)]
    proximal = ProximalL1(optimizer, 6e-2, parameters=scales)
    for epoch in range(epochs):
        if epoch == epochs // 2:
            proximal.settle()  # what is zero stays zero, and the rest recovers
        for batch in torch.randperm(len(images)).split(50):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
        schedule.step()
    model.eval()


def picture(before: tuple[int, ...], after: tuple[int, ...], path: str) -> None:
    figure, axes = plt.subplots(figsize=(5.4, 2.4), layout="constrained")
    places, names = np.arange(len(before)), [f"convolution {i + 1}" for i in range(len(before))]
    axes.barh(places, before, color="#C9CDD3", label="taken away")
    axes.barh(places, after, color="#0072B2", label="left")
    axes.set_yticks(places, names)
    axes.set(xlabel="channels")
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    figure.savefig(path, metadata={"Date": None})


def channels(model: torch.nn.Module) -> tuple[int, ...]:
    return tuple(layer.out_channels for layer in model.modules() if isinstance(layer, torch.nn.Conv2d))


def main(digits: Path) -> None:
    with np.load(digits) as data:
        images = torch.tensor(data["images"].reshape(-1, 1, 8, 8).astype(np.float32) / 16)
        labels = torch.tensor(data["labels"].astype(np.int64))
    model = network()
    train(model, images[:350], labels[:350])

    result = leo_core.compress(model, {"lower": 0, "upper": 1, "input_shape": [1, 8, 8]})  # pixels, scaled
    smaller = result.model
    result.export("smaller.pt2")
    print(result.summary())

    with torch.no_grad():
        was, now = model(images[350:]), smaller(images[350:])
    print(f"\nchannels of the convolutions: {channels(model)} before, {channels(smaller)} after")
    print(f"of 100 digits not trained on, right before {(was.argmax(1) == labels[350:]).sum()}, "
          f"after {(now.argmax(1) == labels[350:]).sum()}")  # fmt: skip
    print(f"predictions changed: {(was.argmax(1) != now.argmax(1)).sum()}; "
          f"largest change: {result.deviation:.1g} proved, {(was - now).abs().max():.1g} seen")  # fmt: skip
    picture(channels(model), channels(smaller), "convolution.svg")


if __name__ == "__main__":
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "leo"})
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DIGITS)
