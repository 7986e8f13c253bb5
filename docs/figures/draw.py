"""Draw the figures of these pages, each an SVG beside this file: ``python docs/figures/draw.py``.

They stand on a light card of their own, so that they read the same in a dark page, and keep to colours that the
colour-blind tell apart (Okabe and Ito).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("svg")
from matplotlib import pyplot as plt

HERE = Path(__file__).parent
BLUE, ORANGE, GREEN, RED, GREY, CARD = "#0072B2", "#B45F00", "#00704F", "#B03A00", "#5C6470", "#FBFBFA"
STYLE = {
    "svg.fonttype": "none",  # text stays text: small files that can be searched
    "svg.hashsalt": "leo",
    "font.size": 12,
    "font.family": "sans-serif",
    "figure.facecolor": CARD,
    "axes.facecolor": CARD,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": "#1A1F24",
}


def intervals() -> Any:
    """What bounds say of a ReLU: its interval left of zero, across it, right of it."""
    figure, panels = plt.subplots(1, 3, figsize=(5.4, 2.4), sharey=True)
    cases = (
        (-2.4, -0.6, BLUE, "inactive", "it is 0"),
        (-1.3, 1.5, ORANGE, "unstable", "it bends"),
        (0.5, 2.3, GREEN, "active", "it is a line"),
    )
    for axes, (low, high, colour, name, what) in zip(panels, cases, strict=True):
        z = np.array([-2.8, 0.0, 2.8])
        axes.plot(z, np.maximum(z, 0), color=GREY, linewidth=1)
        here = np.array(sorted({low, high, *([0.0] if low < 0 < high else [])}))
        axes.plot(here, np.maximum(here, 0), color=colour, linewidth=4, solid_capstyle="butt")
        axes.plot([low, high], [-0.45, -0.45], color=colour, linewidth=2)
        axes.plot([low, high], [-0.45, -0.45], "|", color=colour, markersize=11, markeredgewidth=2)
        axes.axvline(0, color=GREY, linewidth=0.8, linestyle=":")
        axes.text((low + high) / 2, -1.15, "[L, U]", ha="center", color=colour)
        axes.set_title(name, fontsize=12, color=colour, fontweight="bold")
        axes.text(-2.7, 2.3, what, fontsize=11)
        axes.set(xlim=(-2.9, 2.9), ylim=(-1.3, 3.0), xticks=[0], yticks=[])
        axes.tick_params(colors=GREY)
        axes.spines["left"].set_visible(False)
    figure.subplots_adjust(left=0.02, right=0.98, top=0.87, bottom=0.12, wspace=0.08)
    return figure


def chord() -> Any:
    """The lines that hold an unstable ReLU: the chord above it, any line through zero below."""
    figure, axes = plt.subplots(figsize=(5.4, 3.3))
    low, high = -2.0, 3.0
    z = np.array([low, 0.0, high])
    axes.fill([low, 0, high], [0, 0, high], color=ORANGE, alpha=0.15, linewidth=0)
    axes.plot(z, np.maximum(z, 0), color="#1A1F24", linewidth=3)
    axes.plot([low, high], [0, high], color=ORANGE, linewidth=2)
    for slope in (0.35, 0.7):
        axes.plot([low, high], [slope * low, slope * high], color=BLUE, linewidth=1.5, linestyle="--")
    axes.axvline(low, color=GREY, linewidth=0.8, linestyle=":")
    axes.axvline(high, color=GREY, linewidth=0.8, linestyle=":")
    axes.text(-1.8, 1.75, "the chord: the upper line", color=ORANGE)
    axes.text(0.9, -1.3, "lower lines αz: any α from 0 to 1", color=BLUE, ha="center")
    axes.text(1.2, 1.33, "ReLU", ha="right")
    axes.set(xlim=(-2.5, 3.5), ylim=(-1.6, 3.3), xticks=[low, 0, high], yticks=[])
    axes.set_xticklabels(["L", "0", "U"])
    axes.spines["left"].set_visible(False)
    figure.subplots_adjust(left=0.03, right=0.97, top=0.97, bottom=0.1)
    return figure


def product() -> Any:
    """Eight active units between five numbers and three: three do, as only M W matters."""
    figure, panels = plt.subplots(1, 2, figsize=(5.4, 3.2))
    for axes, middle, colour, names in ((panels[0], 8, GREY, "W M"), (panels[1], 3, GREEN, "V N")):
        columns = [_column(0.0, 5), _column(1.0, middle), _column(2.0, 3)]
        for left, right in pairwise(columns):
            for a in left:
                for b in right:
                    axes.plot([a[0], b[0]], [a[1], b[1]], color=colour, linewidth=0.6, alpha=0.7)
        for column, face in zip(columns, (CARD, colour, CARD), strict=True):
            axes.scatter(*zip(*column), s=90, facecolor=face, edgecolor=colour, zorder=3)
        for x, name in zip((0.5, 1.5), names.split(), strict=True):
            axes.text(x, 1.12, name, ha="center", fontsize=14, style="italic")
        axes.set(xlim=(-0.2, 2.2), ylim=(-1.45, 1.3))
        axes.set_axis_off()
    panels[0].text(1.0, -1.4, "8 active units: M (W x + b)", ha="center", fontsize=11)
    panels[1].text(1.0, -1.4, "3 do: N V = M W", ha="center", fontsize=11, color=GREEN)
    figure.subplots_adjust(left=0.01, right=0.99, top=0.99, bottom=0.02, wspace=0.05)
    return figure


def _column(x: float, count: int) -> list[tuple[float, float]]:
    return [(x, y) for y in np.linspace(-0.95, 0.95, count)] if count > 3 else [(x, y) for y in (-0.6, 0.0, 0.6)]


def splits() -> Any:
    """A tree of splits: each leaf is closed by a bound of its own."""
    figure, axes = plt.subplots(figsize=(5.4, 3.5))
    places = {"root": (2.0, 3.0), "a": (0.8, 2.0), "b": (3.2, 2.0), "ba": (2.4, 1.0), "bb": (4.0, 1.0)}
    edges = (("root", "a", "u ≤ 0"), ("root", "b", "u ≥ 0"), ("b", "ba", "v ≤ 0"), ("b", "bb", "v ≥ 0"))
    for start, end, text in edges:
        (x0, y0), (x1, y1) = places[start], places[end]
        axes.plot([x0, x1], [y0, y1], color=GREY, linewidth=1.2, zorder=1)
        axes.text((x0 + x1) / 2 + (0.14 if x1 > x0 else -0.14), (y0 + y1) / 2 + 0.05, text,
                  ha="left" if x1 > x0 else "right", fontsize=11)  # fmt: skip
    bounds = {"root": (ORANGE, "≤ 0.8"), "a": (GREEN, "≤ −0.3"), "b": (ORANGE, "≤ 0.2"),
              "ba": (GREEN, "≤ −0.1"), "bb": (GREEN, "≤ −0.4")}  # fmt: skip
    for name, (colour, text) in bounds.items():
        axes.text(*places[name], text, ha="center", va="center", color="white", zorder=2, fontsize=12,
                  bbox={"boxstyle": "round,pad=0.35", "facecolor": colour, "edgecolor": colour})  # fmt: skip
    axes.text(2.75, 3.0, "is z ≤ 0 everywhere?", va="center", fontsize=11)
    axes.text(
        2.0, 0.25, "each leaf has a bound of its own at or below 0: proved", ha="center", fontsize=11, color=GREEN
    )
    axes.set(xlim=(-0.1, 4.8), ylim=(0.0, 3.4))
    axes.set_axis_off()
    figure.subplots_adjust(left=0, right=1, top=1, bottom=0)
    return figure


FIGURES: dict[str, Callable[[], Any]] = {
    "intervals.svg": intervals,
    "chord.svg": chord,
    "product.svg": product,
    "splits.svg": splits,
}


def main(folder: Path) -> None:
    with mpl.rc_context(STYLE):
        for name, draw in FIGURES.items():
            figure = draw()
            figure.savefig(folder / name, metadata={"Date": None})
            plt.close(figure)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
