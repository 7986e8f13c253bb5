"""A small controller: train it, say the physical box of its inputs, compress it, and drive the pendulum with both.

    pip install "leo-compress[highs,torch,report]"
    python controller.py [FOLDER]

Writes controller.html, the report, and smaller.pt2 into FOLDER (the current one).
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import torch
from torch import nn

import leo_core

#: What the plant can do: an angle in radians, and an angular velocity in radians per second.
LOWER, UPPER = (-0.8, -4.0), (0.8, 4.0)
#: The largest torque of the motor, in newton metres.
TORQUE = 2.0


def teacher(state: torch.Tensor) -> torch.Tensor:
    """What the network learns: a linear law, cut off where the motor ends."""
    angle, velocity = state[:, :1], state[:, 1:]
    return (-6.0 * angle - 1.5 * velocity).clamp(-TORQUE, TORQUE)


def train() -> nn.Sequential:
    """Least squares on states of the box, and L1 on the weights, without which little would go."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # for so small a network, one is faster
    model = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1))
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    low, high = torch.tensor(LOWER), torch.tensor(UPPER)
    for _ in range(800):
        state = low + (high - low) * torch.rand(256, 2)
        weights = sum(layer.weight.abs().sum() for layer in model if isinstance(layer, nn.Linear))
        loss = nn.functional.mse_loss(model(state), teacher(state)) + 3e-4 * weights
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval()


def drive(controller: nn.Module, angle: float, seconds: float = 3.0, step: float = 0.01) -> list[float]:
    """Angles of a pendulum of 1 kg and 1 m, upright at 0, under a controller."""
    angles, velocity = [angle], 0.0
    with torch.no_grad():
        for _ in range(int(seconds / step)):
            torque = float(controller(torch.tensor([[angle, velocity]]))[0, 0])
            velocity += step * (9.81 * math.sin(angle) / 2 + torque)
            angle += step * velocity
            angles.append(angle)
    return angles


def main(folder: Path) -> None:
    model = train()
    result = leo_core.compress(model, leo_core.Box(LOWER, UPPER))
    print(result.summary())
    result.report(folder / "controller.html")
    result.export(folder / "smaller.pt2")
    smaller = result.to("torch")
    before, after = drive(model, 0.3), drive(smaller, 0.3)
    print(f"\nfrom 0.3 rad, after 3 s: {before[-1]:.5f} rad before, {after[-1]:.5f} rad after")
    print(f"largest difference of the angle on the way: {max(abs(a - b) for a, b in zip(before, after)):.2g} rad")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
