"""Where removing channels goes wrong: small networks with a trap each, and what LEO and Torch-Pruning make of them.

    pip install torch-pruning==1.6.1
    python benchmarks/convolution_faults.py [--out docs/results/convolution_faults.json]

Each network has a channel that a criterion may take for nothing: a filter whose weights sum to zero, one of zeros with
a bias above zero in front of pads, in a residual stream, before a depthwise layer, or a batch norm whose γ is 0. The
other tool removes the channel that its magnitude importance ranks lowest (LEO is not told which). 'changed' is the
largest difference of outputs before and after, seen on 200 images of [0, 1]; nothing is fine-tuned.
"""

from __future__ import annotations

import argparse
import copy
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import leo_core

warnings.filterwarnings("ignore")


class Residual(nn.Module):
    """A stream of four channels that two convolutions write."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.last = nn.Conv2d(4, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 1, 8, 8) → (batch, 128)."""
        stream = torch.relu(self.first(x))
        stream = torch.relu(stream + self.second(stream))
        return torch.flatten(torch.relu(self.last(stream)), 1)


def chain(*middle: nn.Module, **reads: Any) -> nn.Sequential:
    """A convolution of four channels, what follows it, and a convolution that reads them."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), *middle, nn.ReLU(), nn.Conv2d(4, 2, 3, **reads), nn.ReLU(), nn.Flatten()
    )


def zeroed(model: nn.Module, conv: nn.Conv2d, bias: float, channels: Any = (1,)) -> nn.Module:
    """The model with filters of zeros and a bias."""
    conv.weight.data[list(channels)] = 0
    assert conv.bias is not None
    conv.bias.data[list(channels)] = bias
    return model


def sobel() -> nn.Module:
    """A filter whose weights sum to zero: not nothing."""
    model = chain()
    model[0].weight.data[1] = 0.05 * torch.tensor([[[1.0, 0, -1], [2, 0, -2], [1, 0, -1]]])
    model[0].bias.data[1] = 0
    return model


def padded() -> nn.Module:
    """A constant channel before pads."""
    model = chain(padding=1)
    zeroed(model, model[0], 0.5, (1, 2))
    return model


def unequal() -> nn.Module:
    """The same where one side has pads and the other has none."""
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(),
        nn.ZeroPad2d((1, 0, 0, 2)),
        nn.Conv2d(4, 2, 3),
        nn.ReLU(),
        nn.Flatten(),
    )
    return zeroed(model, model[0], 0.5, (1, 2))


def dilated() -> nn.Module:
    """The same where taps are apart."""
    model = chain(padding=2, dilation=2)
    return zeroed(model, model[0], 0.5, (1, 2))


def residual() -> nn.Module:
    """A channel that is dead in both that write a stream."""
    model = Residual()
    zeroed(model, model.first, -1.0)
    return zeroed(model, model.second, -1.0)


def depthwise() -> nn.Module:
    """A dead channel before a depthwise layer, which makes a constant of it."""
    model = chain(nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1, groups=4))
    zeroed(model, model[0], -1.0)
    model[2].bias.data[1] = 0.3
    return model


def nothing_left() -> nn.Module:
    """A layer all of whose channels are dead."""
    model = chain()
    return zeroed(model, model[0], -1.0, range(4))


def norm() -> nn.Module:
    """A batch norm with γ = 0 and β above zero."""
    model = chain(nn.BatchNorm2d(4))
    model[1].weight.data[1], model[1].bias.data[1] = 0, 0.4
    return model


CASES: dict[str, Callable[[], nn.Module]] = {
    "a filter whose weights sum to zero": sobel,
    "constants before pads": padded,
    "constants before unequal pads": unequal,
    "constants before a dilated kernel": dilated,
    "dead in a residual stream": residual,
    "dead before a depthwise layer": depthwise,
    "no channel left": nothing_left,
    "a batch norm with γ = 0": norm,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/results/convolution_faults.json"))
    arguments = parser.parse_args()
    rows = []
    for name, build in CASES.items():
        torch.manual_seed(0)
        model = build().eval()
        rows.append({"case": name, "LEO": tried(by_leo, model), "Torch-Pruning": tried(by_torch_pruning, model)})
        print(json.dumps(rows[-1]), flush=True)
    arguments.out.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
    arguments.out.with_suffix(".md").write_text(_PAGE + "\n".join(map(line, rows)) + "\n")


def tried(tool: Callable[[nn.Module], nn.Module], model: nn.Module) -> dict[str, Any]:
    """How many weights a tool leaves, and how far its result is from the model."""
    images = torch.rand(200, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    try:
        small = tool(copy.deepcopy(model))
        with torch.no_grad():
            changed = float((small(images) - model(images)).abs().max())
    except Exception as error:  # whatever another tool raises is what is reported
        return {"failed": f"{type(error).__name__}: {error}".splitlines()[0][:160]}
    return {"weights": [weights(model), weights(small)], "changed": changed}


def weights(model: nn.Module) -> int:
    """How many numbers its layers store."""
    return sum(parameter.numel() for parameter in model.parameters())


def by_leo(model: nn.Module) -> nn.Module:
    """What is proved to be superfluous goes."""
    domain = {"lower": torch.zeros(1, 8, 8).numpy(), "upper": torch.ones(1, 8, 8).numpy()}
    result: nn.Module = leo_core.compress(model, domain).model
    return result


def by_torch_pruning(model: nn.Module) -> nn.Module:
    """The channel, or all but one, of the least magnitude goes, with all that depends on it."""
    import torch_pruning

    example = torch.rand(1, 1, 8, 8)
    outputs = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)][-1:]
    first = next(layer for layer in model.modules() if isinstance(layer, nn.Conv2d))
    dead = int((first.weight.abs().sum(dim=(1, 2, 3)) == 0).sum())
    pruner = torch_pruning.pruner.MagnitudePruner(
        model, example, importance=torch_pruning.importance.MagnitudeImportance(p=2),
        pruning_ratio=max(1, dead) / 4, ignored_layers=outputs,
    )  # fmt: skip
    pruner.step()
    return model


def line(row: dict[str, Any]) -> str:
    """One row of the table."""
    cells = []
    for tool in ("LEO", "Torch-Pruning"):
        found = row[tool]
        if "failed" in found:
            cells += [f"fails: {found['failed']}", ""]
        else:
            before, after = found["weights"]
            cells += [f"{before} → {after}", f"{found['changed']:.1e}"]
    return f"| {row['case']} | {' | '.join(cells)} |"


_PAGE = """# Traps for those who remove channels

By `benchmarks/convolution_faults.py`: small networks of which a channel looks like nothing, or is, and what is left of
their stored numbers. LEO takes away what it proves to be superfluous on [0, 1]; Torch-Pruning 1.6.1 takes as many
channels as there are filters of zeros, at least one, those of the least magnitude. It is made to be followed by
fine-tuning, so that a difference is no fault of its own there; as a step by itself it changes the function. 'changed'
is the largest difference of an output seen on 200 images, before and after that step, without fine-tuning.

| trap | LEO: numbers | changed | Torch-Pruning: numbers | changed |
|---|---|--:|---|--:|
"""


if __name__ == "__main__":
    main()
