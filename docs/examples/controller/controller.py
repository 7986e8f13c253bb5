"""Train a controller that holds a pendulum upright, compress it on its physical box, and fly both side by side.

    pip install ".[highs,torch]" matplotlib
    python docs/examples/controller/controller.py

writes controller.pt2 (the smaller controller) and controller.svg into the current folder.
"""

from __future__ import annotations

import numpy as np
import torch
from matplotlib import pyplot as plt

import leo_core
from leo_frontends.torch.training import ProximalL1

# The physical box: what the two sensors can report before a supervisor takes over.
LOWER = (-0.6, -3.0)  # angle in rad, angular velocity in rad/s
UPPER = (0.6, 3.0)
LIMIT = 4.0  # N·m, what the motor gives
STEP = 0.02  # seconds


def teacher(state: torch.Tensor) -> torch.Tensor:
    """A linear law, cut off where the motor ends."""
    return (-12.0 * state[:, :1] - 2.5 * state[:, 1:]).clamp(-LIMIT, LIMIT)


def train() -> torch.nn.Module:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(2, 48), torch.nn.ReLU(), torch.nn.Linear(48, 48), torch.nn.ReLU(), torch.nn.Linear(48, 1)
    )
    states = torch.tensor(LOWER) + torch.rand(4096, 2) * (torch.tensor(UPPER) - torch.tensor(LOWER))
    wanted, steps = teacher(states), 400
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    proximal = ProximalL1(optimizer, 2e-2)
    for step in range(steps):
        if step == steps // 2:
            proximal.settle()
        batch = torch.randint(len(states), (256,))
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(states[batch]), wanted[batch]).backward()
        optimizer.step()
        schedule.step()
    return model


def fly(model: torch.nn.Module, start: tuple[float, float], seconds: float = 2.0) -> np.ndarray:
    """The pendulum's states (steps, 2) under a controller: θ'' = 9.81 sin θ + torque, with 1 m and 1 kg."""
    angle, speed = start
    path = []
    for _ in range(round(seconds / STEP)):
        path.append((angle, speed))
        with torch.no_grad():
            torque = model(torch.tensor([[angle, speed]], dtype=torch.float32)).item()
        speed += STEP * (9.81 * np.sin(angle) + torque)
        angle += STEP * speed
    return np.array(path)


def picture(model: torch.nn.Module, smaller: torch.nn.Module, path: str) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(7, 3), layout="constrained")
    angles = torch.linspace(LOWER[0], UPPER[0], 200)
    states = torch.stack([angles, torch.zeros_like(angles)], dim=1)
    for network, style, name in ((model, {"lw": 5, "alpha": 0.35}, "before"), (smaller, {"lw": 1.5}, "after")):
        with torch.no_grad():
            left.plot(angles, network(states), label=name, color="#0072B2", **style)
        flown = fly(network, (0.25, 0.0))
        right.plot(np.arange(len(flown)) * STEP, flown[:, 0], color="#B45F00", label=name, **style)
    left.set(xlabel="angle (rad), at rest", ylabel="torque (N·m)")
    right.set(xlabel="time (s)", ylabel="angle (rad)")
    for axes in (left, right):
        axes.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    model = train()
    result = leo_core.compress(model, {"lower": LOWER, "upper": UPPER})
    smaller = result.model
    result.export("controller.pt2")
    print(result.summary())

    starts = [(0.25, 0.0), (-0.2, 0.5), (0.1, -0.8)]
    apart = max(np.abs(fly(model, start) - fly(smaller, start)).max() for start in starts)
    print(f"\nlargest change of the torque, anywhere on the box: {result.deviation:.1g} N·m, proved")
    print(f"largest change of any state in {len(starts)} flights of 2 s: {apart:.1g}, seen")
    picture(model, smaller, "controller.svg")


if __name__ == "__main__":
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "leo"})
    main()
