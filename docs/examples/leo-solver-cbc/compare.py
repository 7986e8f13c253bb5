"""The same questions to CBC and to HiGHS: how large can each output of a small network be?

    python docs/examples/leo-solver-cbc/compare.py

asks both about the ten outputs of the compressed digits network, for a second each, and draws in compare.svg what both
claim: a value that the network reaches, and a bound that it cannot exceed. A bound below a value that the network
takes somewhere is false, whatever the solver calls it; LEO believes none before it has proved it by itself.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from leo_solver_cbc import CbcSolver

import leo_core
from leo_core.milp.question import Question
from leo_core.plugins import registry

DIGITS = Path(__file__).resolve().parents[1] / "digits" / "digits.onnx"
SECONDS = 1.0
COLOURS = {"CBC": "#B45F00", "HiGHS": "#0072B2"}


def ask(solver, network, named) -> np.ndarray:
    """(outputs, 2): what the network computes at the solver's point, and the solver's bound; NaN where it has none."""
    places = [named.columns.index(name) for name in named.inputs]
    session, found = solver.load(named.problem), []
    for output, name in enumerate(named.outputs):
        objective = np.zeros(named.problem.columns)
        objective[named.columns.index(name)] = 1.0
        answer = session.maximize(Question(objective, time_limit=SECONDS))
        value = np.nan
        if answer.point is not None:  # an input of the box, and what the network makes of it
            value = network.evaluate(np.clip(answer.point[places], 0, 16))[output]
        bound = np.nan if answer.dual_bound is None else answer.dual_bound
        print(f"output {output}, {solver.name}: {answer.stop.name}, reaches {value:.4f}, bound {bound:.4f}")
        found.append((value, bound))
    session.close()
    return np.array(found)


def picture(found: dict[str, np.ndarray], false: dict[str, np.ndarray], path: str) -> None:
    figure, axes = plt.subplots(figsize=(7, 2.8), layout="constrained")
    for side, (name, colour) in zip((-0.17, 0.17), COLOURS.items(), strict=True):
        at = np.arange(len(found[name])) + side
        values, bounds = found[name].T
        axes.vlines(at, values, bounds, color=colour, lw=6, alpha=0.35)
        axes.plot(at, values, "o", color=colour, ms=5, label=f"{name}: value reached")
        axes.plot(at, bounds, "_", color=colour, ms=10, mew=2, label=f"{name}: bound claimed")
        if false[name].any():
            axes.plot(at[false[name]], bounds[false[name]], "x", color="black", ms=9, label=f"{name}: false")
    axes.set(xlabel="output", ylabel="largest value", xticks=range(10))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, bbox_to_anchor=(1, 1), loc="upper left", fontsize="small")
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    network = leo_core.compress(DIGITS, "0,16").network
    named = leo_core.formulate(network, "digits.mps", "0,16")
    found = {"CBC": ask(CbcSolver(), network, named), "HiGHS": ask(registry.solver("highs"), network, named)}
    reached = np.fmax(found["CBC"][:, 0], found["HiGHS"][:, 0])
    false = {name: bounds < reached - 1e-6 * (1 + np.abs(reached)) for name, (_, bounds) in zip(
        found, (answers.T for answers in found.values()), strict=True)}  # fmt: skip
    for name, wrong in false.items():
        print(f"bounds of {name} that the network exceeds: {wrong.sum()} of {len(wrong)}")
    picture(found, false, "compare.svg")


if __name__ == "__main__":
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "leo"})
    main()
