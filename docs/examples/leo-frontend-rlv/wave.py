"""A network in the format of the plug-in beside this script: written, made smaller on a part of its range, and drawn.

    python docs/examples/leo-frontend-rlv/wave.py

writes wave.rlv, a sine of 32 straight pieces over two periods, compresses it for inputs from 0 to π alone, and draws
both into wave.svg. Every unit is one corner of the curve.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from leo_frontend_rlv import Planet, leo_frontend, parsed

import leo_core
from leo_core.errors import PluginError

KNOTS = np.linspace(-2 * np.pi, 2 * np.pi, 33)


def wave() -> str:
    """A file as Planet has it: Σ (change of slope) · relu(x − knot)."""
    slopes = np.diff(np.sin(KNOTS)) / np.diff(KNOTS)
    turns = np.diff(slopes, prepend=0.0)
    lines = ["Input x"]
    lines += [f"ReLU corner{i} {-knot!r} 1.0 x" for i, knot in enumerate(KNOTS[:-1].tolist())]
    lines += ["Linear y 0.0 " + " ".join(f"{turn!r} corner{i}" for i, turn in enumerate(turns.tolist()))]
    lines += [f"Assert {sign} {float(end)!r} 1.0 x" for sign, end in (("<=", KNOTS[0]), (">=", KNOTS[-1]))]
    return "\n".join(lines) + "\n"


def corners(path: Path) -> np.ndarray:
    """Where each unit of a file that reads the input switches on."""
    units = parsed(path)[0].values()
    first = [unit for unit in units if unit.kind == "ReLU" and len(unit.terms) == 1]
    return np.array([-unit.bias / unit.terms[0][0] for unit in first])


def curve(path: Path, x: np.ndarray) -> np.ndarray:
    return Planet(parsed(path)[0]).run(x[:, None])[:, 0]


def picture(before: Path, after: Path, target: str) -> None:
    figure, axes = plt.subplots(figsize=(7, 2.8), layout="constrained")
    whole, inside = np.linspace(KNOTS[0], KNOTS[-1], 1000), np.linspace(0, np.pi, 300)
    for path, x, colour, width, size, name in (
        (before, whole, "#8C959F", 2.0, 4, "before"),
        (after, inside, "#0072B2", 3.0, 7, "after, on 0 to π"),
    ):
        at = corners(path)
        at = at[(x[0] <= at) & (at <= x[-1])]
        axes.plot(x, curve(path, x), color=colour, lw=width, label=name)
        axes.plot(at, curve(path, at), "o", color=colour, ms=size)
    axes.axvspan(0, np.pi, color="#0072B2", alpha=0.08, lw=0)
    axes.set(xlabel="input; each dot is a unit that switches there", ylabel="output")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper right")
    figure.savefig(target, metadata={"Date": None})


def main() -> None:
    with suppress(PluginError):  # where it is installed, LEO knows it
        leo_core.register_frontend(leo_frontend())
    before, after = Path("wave.rlv"), Path("smaller.rlv")
    before.write_text(wave(), encoding="utf-8")
    result = leo_core.compress(before, (0, np.pi))
    result.export(after)
    print(result.summary())
    x = np.linspace(0, np.pi, 1000)
    apart = np.abs(curve(before, x) - curve(after, x)).max()
    print(f"\nunits: {result.original.units} before, {result.network.units} after")
    print(
        f"largest change on 0 to π: {result.deviation:.1g}, proved; when both are run, {apart:.1g} seen with rounding"
    )
    picture(before, after, "wave.svg")


if __name__ == "__main__":
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "leo"})
    main()
