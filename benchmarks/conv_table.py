"""Convolutional networks on MNIST made smaller in three ways: accuracy against weights and multiplications.

    pip install torch-pruning==1.6.1
    python benchmarks/conv_table.py [--data mnist.npz] [--out docs/results/conv_table.json]

One architecture, two convolutions and a matrix, a few epochs on 10,000 images, one seed. By LEO: trained with
``ProximalL1(groups="channels")``, the last epochs after ``settle()``, then compressed on [0, 1]; and a network with
four times as many filters in front, of which single weights shrink, so that some stay active everywhere. By magnitude:
trained plainly, the filters of the least L1 norm removed by hand, then fine-tuned. By Torch-Pruning: the same network
and number of filters, then fine-tuned.
'changed' is the largest difference of an output on the test images before and after the step that removes channels,
before anything is fine-tuned: what that step itself does to the function.
"""

from __future__ import annotations

import argparse
import copy
import importlib.metadata
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import leo_core
from leo_frontends.torch.training import ProximalL1

warnings.filterwarnings("ignore")

ROOT = Path(__file__).resolve().parents[1]
IMAGES, BATCH = 10_000, 100
FILTERS, WIDE = 16, 64
SHRINKING, SETTLED, FINE_TUNING = 4, 2, 2
#: λ of whole channels (SGD), and of single weights in the wide network (Adam).
BY_CHANNELS, BY_WEIGHTS = (5e-4, 1e-3, 2e-3), (1e-3, 3e-3)
#: Shares of the filters of each convolution that are removed.
SHARES = (0.25, 0.5, 0.75)
#: By which passes active channels go; by all others those that are constant or that nothing reads.
OF_ACTIVE = ("merge_parallel_channels", "merge_dependent_channels", "merge_opposite_channels", "refactor_channels",
             "merge_parallel", "merge_opposite", "lift", "refactor_block", "fold_linear", "fold_convolutions",
             "straighten")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "mnist.npz")
    parser.add_argument("--out", type=Path, default=Path("docs/results/conv_table.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = Data.of(arguments.data)
    plain = network(FILTERS)
    trained(plain, data, SHRINKING + SETTLED, descent(plain, 0.1))
    rows = [row("plain", "", plain, data)]
    rows.append(compressed(plain, "plain, LEO", "", data))
    for strength in BY_CHANNELS:
        model = network(FILTERS)
        optimizer = descent(model, 0.1)
        proximal = ProximalL1(optimizer, strength, groups="channels", model=model)
        trained(model, data, SHRINKING + SETTLED, optimizer, proximal)
        rows.append(compressed(model, "L1 by channels, LEO", f"λ = {strength:g}", data))
    for strength in BY_WEIGHTS:
        model = network(WIDE)
        adam = torch.optim.Adam(model.parameters(), 1e-3)
        trained(model, data, SHRINKING + SETTLED, adam, ProximalL1(adam, strength))
        rows.append(compressed(model, "wide, L1 by weights, LEO", f"λ = {strength:g}", data))
    for tool, remove in (("magnitude", by_magnitude), ("Torch-Pruning", by_torch_pruning)):
        rows += [pruned(tool, remove, plain, share, data) for share in SHARES]
    arguments.out.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
    arguments.out.with_suffix(".md").write_text(page(rows))
    print(page(rows))


class Data:
    """Images of [0, 1], (count, 1, 28, 28), and labels."""

    def __init__(self, images: Tensor, labels: Tensor, test_images: Tensor, test_labels: Tensor) -> None:
        self.images, self.labels = images, labels
        self.test_images, self.test_labels = test_images, test_labels

    @staticmethod
    def of(path: Path) -> Data:
        """The first images of MNIST for training, and all test images."""
        with np.load(path) as found:
            parts = [found[f"{part}_{what}"] for part in ("train", "test") for what in ("images", "labels")]
        images, test = (torch.from_numpy(part).float()[:, None] / 255 for part in parts[::2])
        labels, of_test = (torch.from_numpy(part).long() for part in parts[1::2])
        return Data(images[:IMAGES], labels[:IMAGES], test, of_test)


def network(filters: int) -> nn.Sequential:
    """Two convolutions with pads, the first of so many filters, and a matrix; the same numbers each time."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, filters, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(filters, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 49, 10),
    )


def descent(model: nn.Module, rate: float) -> torch.optim.Optimizer:
    """Stochastic gradient descent with momentum."""
    return torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)


def trained(
    model: nn.Module, data: Data, epochs: int, optimizer: torch.optim.Optimizer, proximal: ProximalL1 | None = None
) -> None:
    """Trains a model in place; what shrinks does so until the last epochs."""
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * (IMAGES // BATCH))
    model.train()
    for epoch in range(epochs):
        if proximal is not None and epoch == SHRINKING:
            proximal.settle()
        order = torch.randperm(IMAGES, generator=torch.Generator().manual_seed(epoch))
        for at in order.split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(data.images[at]), data.labels[at]).backward()
            optimizer.step()
            schedule.step()
    model.eval()


def outputs(model: nn.Module, data: Data) -> Tensor:
    """(test images, 10)."""
    with torch.no_grad():
        return torch.cat([model(part) for part in data.test_images.split(1000)])


def row(how: str, setting: str, model: nn.Module, data: Data, **more: Any) -> dict[str, Any]:
    """The figures of a network; its numbers and multiplications are counted from its layers as they are."""
    accuracy = float((outputs(model, data).argmax(dim=1) == data.test_labels).float().mean())
    return {"how": how, "setting": setting, "accuracy": accuracy, **size(model), **more}


def size(model: nn.Module) -> dict[str, int]:
    """Weights, and multiplications for one image."""
    weights = products = 0
    shape = (1, 28, 28)
    given: dict[nn.Module, Any] = {}
    hooks = [
        layer.register_forward_hook(lambda layer, _, out: given.__setitem__(layer, out.shape))
        for layer in model.modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    with torch.no_grad():
        model(torch.zeros(1, *shape))
    for hook in hooks:
        hook.remove()
    for layer, made in given.items():
        weights += layer.weight.numel()
        products += layer.weight.numel() * (int(np.prod(made[2:])) if isinstance(layer, nn.Conv2d) else 1)
    return {"weights": weights, "multiplications": products}


def compressed(model: nn.Sequential, how: str, setting: str, data: Data) -> dict[str, Any]:
    """A network as LEO leaves it, and by which passes its weights went."""
    domain = {"lower": np.zeros((1, 28, 28)), "upper": np.ones((1, 28, 28))}
    started = time.perf_counter()
    found = leo_core.compress(model, domain)
    seconds = time.perf_counter() - started
    small = found.model
    gone = {"active": 0, "other": 0}
    for step in found.steps:
        gone["active" if step.rule in OF_ACTIVE else "other"] += step.connections
    dead = [int((layer.weight.flatten(1) == 0).all(dim=1).sum()) for layer in model if isinstance(layer, nn.Conv2d)]
    changed = float((outputs(small, data) - outputs(model, data)).abs().max())
    return row(
        how, setting, small, data, changed=changed, deviation=found.deviation, noise=found.float_noise, gone=gone,
        zero_filters=dead, active_filters=active(found), trained=size(model), seconds=seconds,
        steps=[f"{step.layer}: {step.what}" for step in found.steps],
    )  # fmt: skip


def active(found: leo_core.CompressionResult) -> int:
    """How many channels of the first layer are active everywhere, and not constant, as LEO proved."""
    layer = found.stability.layers[found.original.relus[0].name]
    low, high = (ends.reshape(-1, 14 * 14) for ends in (layer.lower, layer.upper))
    return int(((low >= 0).all(axis=1) & (high > low).any(axis=1)).sum())


Removal = Callable[[nn.Sequential, float], nn.Sequential]


def pruned(tool: str, remove: Removal, model: nn.Sequential, share: float, data: Data) -> dict[str, Any]:
    """A network without a share of its filters, fine-tuned."""
    setting = f"{share:.0%} of the filters"
    try:
        small = remove(copy.deepcopy(model), share)
        changed = float((outputs(small, data) - outputs(model, data)).abs().max())
    except Exception as error:  # whatever another tool raises is what is reported
        return {"how": tool, "setting": setting, "failed": f"{type(error).__name__}: {error}".splitlines()[0][:160]}
    untuned = float((outputs(small, data).argmax(dim=1) == data.test_labels).float().mean())
    trained(small, data, FINE_TUNING, descent(small, 0.025))
    return row(tool, setting, small, data, changed=changed, untuned=untuned)


def by_magnitude(model: nn.Sequential, share: float) -> nn.Sequential:
    """Without the filters of the least L1 norm, in each convolution the same share."""
    first, second, last = model[0], model[2], model[5]
    kept = []
    for layer in (first, second):
        norm = layer.weight.detach().abs().sum(dim=(1, 2, 3))
        kept.append(norm.argsort(descending=True)[: round(len(norm) * (1 - share))].sort().values)
    for layer, at in zip((first, second), kept, strict=True):
        layer.weight = nn.Parameter(layer.weight.detach()[at])
        layer.bias = nn.Parameter(layer.bias.detach()[at])
        layer.out_channels = len(at)
    second.weight = nn.Parameter(second.weight.detach()[:, kept[0]])
    second.in_channels = len(kept[0])
    columns = last.weight.detach().reshape(10, 32, 49)[:, kept[1]].reshape(10, -1)
    last.weight, last.in_features = nn.Parameter(columns), columns.shape[1]
    return model


def by_torch_pruning(model: nn.Sequential, share: float) -> nn.Sequential:
    """Without as many filters, as Torch-Pruning's magnitude importance ranks them in each convolution."""
    import torch_pruning

    torch_pruning.pruner.MagnitudePruner(
        model, torch.zeros(1, 1, 28, 28), importance=torch_pruning.importance.MagnitudeImportance(p=1),
        pruning_ratio=share, ignored_layers=[model[5]],
    ).step()  # fmt: skip
    return model


def page(rows: list[dict[str, Any]]) -> str:
    """The page of the results."""
    first = _PAGE.format(pruning=version("torch-pruning"))
    return first + "\n".join(map(line, rows)) + "\n" + told(rows)


def version(package: str) -> str:
    """The version that is installed, or that it is not."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def line(found: dict[str, Any]) -> str:
    """One row of the table."""
    if "failed" in found:
        return f"| {found['how']} | {found['setting']} | does not run: {found['failed']} | | | | |"
    changed = f"{found['changed']:.1e}" if "changed" in found else ""
    untuned = f"{found['untuned']:.1%}" if "untuned" in found else ""
    return (
        f"| {found['how']} | {found['setting']} | {found['accuracy']:.1%} | {found['weights']:,} "
        f"| {found['multiplications']:,} | {changed} | {untuned} |"
    )


def told(rows: list[dict[str, Any]]) -> str:
    """What LEO took away of each network, and by what."""
    lines = []
    for found in rows:
        if "gone" not in found:
            continue
        network = f"{found['how'].removesuffix(', LEO')} {found['setting']}".rstrip()
        zero, gone = ", ".join(map(str, found["zero_filters"])), found["gone"]
        lines.append(
            f"| {network} | {zero} | {found['active_filters']} | {found['trained']['weights']:,} | {gone['other']:,} "
            f"| {gone['active']:,} | {found['deviation']:.1e} | {found['noise']:.1e} |"
        )
    return _TOLD + "\n".join(lines) + "\n"


_PAGE = """# Channels trained away, and pruned away

One convolutional network for MNIST (16 and 32 filters of 3 × 3, a matrix), by `benchmarks/conv_table.py`: six epochs on
10,000 images, one seed, so that accuracies are good to about half a percent. LEO compresses what `ProximalL1` has
trained and tunes nothing afterwards; the wide network has 64 filters in front. The others remove a share of the filters
of the plainly trained network and are fine-tuned for two epochs: magnitude by hand, Torch-Pruning {pruning}.
'Changed' is the largest difference of an output on 10,000 test images that removing makes, before fine-tuning, and
'before tuning' the accuracy then. Only-Train-Once 3.0.1 is not compared: with PyTorch 2.13 its import ends in
“No module named 'torch.onnx._globals'”.

Pruning with fine-tuning is as accurate on this network for as many weights, or half a percent more. It changes the
function by the step itself, which training must make good again; what LEO takes away changes nothing beyond rounding.

| | setting | accuracy | weights | multiplications | changed | before tuning |
|---|---|--:|--:|--:|--:|--:|
"""

_TOLD = """
What LEO took away: weights of channels that are constant or that nothing reads, and those of channels that are active,
parallel or opposite, merged or re-factored. That pays in the wide network alone, where more channels are active in
front than a filter has weights. δ is proved for every image of [0, 1]; the noise is what the original's own arithmetic
was seen to err by.

| network | zero filters | active in front | weights | gone as constant or unread | gone as active, merged | δ | noise |
|---|--:|--:|--:|--:|--:|--:|--:|
"""


if __name__ == "__main__":
    main()
