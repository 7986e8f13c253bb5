"""The solvers side by side: on whole networks, and on the MILPs that bounds and witnesses leave over.

    python benchmarks/solvers.py [--nets ../shared/nets] [--solvers highs,scip,scipy] [--time-limit 60]
        [--paper-limit 300] [--question-limit 10] [--part networks|questions] [--json FILE] [NAME…]

*networks*: every real network with at most 600 ReLUs is decided with each solver, under ``cascade`` and under
``paper`` (LEO as published, its claims then proved), and the verdicts are compared unit by unit. A unit that is
undecided with one solver (a time limit) contradicts nothing, and is counted. Where ``paper`` does not end in time
with the first solver, the others are not tried.

*questions*: what 'is this unit ever positive?' costs a solver where intervals, backward bounds and samples do not
answer: answered means a real witness, or a claim that there is none. A claim that a proof refutes is false.
One process, one thread; a ratio is the time of a solver over that of the first, on the questions both answered.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from listing import NETS, Case, made, real
from rich.console import Console
from rich.table import Table

import leo_core
from leo_core import Affine, Box, Network, StabilityMap, State
from leo_core.bounds.crown import backward_interval
from leo_core.bounds.interval import bound_affine
from leo_core.bounds.region import Region
from leo_core.execution.budget import Budget
from leo_core.milp.checked import CheckedSolver
from leo_core.plugins import registry
from leo_core.search.attack import scatter
from leo_core.search.oracle import Oracle
from leo_core.stability.cross_check import cross_checked

LARGEST = 600
#: Questions asked of one layer, at most.
PER_LAYER = 12
#: Networks, by a part of their name, whose layers are asked about, and which of the layers.
ASKED = {
    "ACASXU_experimental_v2a_1_1.prop_3": (1, 2, 3),
    "sac_MountainCarContinuous": (1,),
    "mnist10x10": (1, 2, 3),
    "mnist_relu_3_50": (1, 2),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", type=Path, default=NETS)
    parser.add_argument("--solvers", default="highs,scip,scipy")
    parser.add_argument("--time-limit", type=float, default=60.0, help="seconds per network for the cascade")
    parser.add_argument(
        "--paper-limit", type=float, default=300.0, help="seconds per network for paper; 0 leaves it out"
    )
    parser.add_argument("--question-limit", type=float, default=10.0, help="seconds per question")
    parser.add_argument("--part", choices=("networks", "questions"))
    parser.add_argument("--json", type=Path, help="write the figures there; figures of other parts are kept")
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    solvers = arguments.solvers.split(",")
    figures: dict[str, Any] = {}
    if arguments.json and arguments.json.exists():
        figures = json.loads(arguments.json.read_text())
    for part, measure in (("networks", whole_networks), ("questions", hard_questions)):
        if arguments.part not in (None, part):
            continue
        figures[part] = []
        for row in measure(arguments, solvers):
            figures[part].append(row)
            print(json.dumps(row), file=sys.stderr, flush=True)
            if arguments.json:
                arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    console = Console(width=160)
    if figures.get("networks"):
        console.print(network_table(figures["networks"], solvers))
        disagree = [row["name"] for row in figures["networks"] if row["contradictions"]]
        console.print(f"contradictions: {', '.join(disagree) or 'none'}")
    if figures.get("questions"):
        console.print(question_table(figures["questions"], solvers))


def whole_networks(arguments: argparse.Namespace, solvers: list[str]) -> Iterator[dict[str, Any]]:
    limits = {"cascade": arguments.time_limit, "paper": arguments.paper_limit}
    for name, network, box in map(Case.loaded, real(arguments.nets, arguments.names)):
        if network.units > LARGEST:
            continue
        for strategy, limit in limits.items():
            if not limit:
                continue
            found: dict[str, StabilityMap] = {}
            for solver in solvers:
                found[solver] = leo_core.analyze(network, box, solver=solver, strategy=strategy, time_limit=limit)
                if strategy == "paper" and found[solver].count(State.UNDECIDED):
                    break
            first, *others = found.values()
            checks = [cross_checked(first, other) for other in others]
            yield {
                "name": name,
                "strategy": strategy,
                "limit": limit,
                "units": network.units,
                "contradictions": sum(len(check.disagreements) for check in checks),
                "decided_by_one": sum(check.decided_by_one for check in checks),
                "solvers": {
                    solver: {"seconds": round(one.seconds, 3), "undecided": one.count(State.UNDECIDED)}
                    for solver, one in found.items()
                },
            }


def hard_questions(arguments: argparse.Namespace, solvers: list[str]) -> Iterator[dict[str, Any]]:
    found = [
        (name, network, box, layers)
        for name, network, box in map(Case.loaded, real(arguments.nets, arguments.names))
        for part, layers in ASKED.items()
        if part in name
    ]
    for widths in ((1, 40, 40, 40, 1), (1, 100, 100, 1)):  # learned indexes are such: one key in, its place out
        network = made(widths, seed=3)
        found.append(("made " + "-".join(map(str, widths)), network, Box.uniform(0, 1, 1), (1, 2)))
    for name, network, box, layers in found:
        truth = leo_core.analyze(network, box, time_limit=arguments.time_limit)
        region = Region.of(box)
        samples = network.evaluate_nodes(scatter(box, 2000, 0))
        sources = [relu.source for relu in network.relus]
        for node in network.nodes:
            if not isinstance(node, Affine):
                continue
            region = region.tightened(node.name, *bound_affine(network, node, region))
            if node.name not in sources:
                continue
            low, high = backward_interval(network, node.name, region)
            region = region.tightened(node.name, low, high)
            if sources.index(node.name) not in layers:
                continue
            seen = samples[node.name]
            asked = [(unit, 1) for unit in np.flatnonzero((high > 0) & (seen.max(axis=0) <= 0)).tolist()]
            asked += [(unit, -1) for unit in np.flatnonzero((low < 0) & (seen.min(axis=0) >= 0)).tolist()]
            asked = sorted(asked)[:: max(1, len(asked) // PER_LAYER)][:PER_LAYER]
            if asked:
                relu = next(relu.name for relu in network.relus if relu.source == node.name)
                yield questions(f"{name}, {relu}", network, node.name, region, asked, truth, relu, solvers,
                                arguments.question_limit)  # fmt: skip


def questions(
    name: str, network: Network, target: str, region: Region, asked: list[tuple[int, int]], truth: StabilityMap,
    relu: str, solvers: list[str], limit: float
) -> dict[str, Any]:  # fmt: skip
    row: dict[str, Any] = {"name": name, "questions": len(asked)}
    for solver in solvers:
        oracle = Oracle(network, target, region, CheckedSolver(registry.solver(solver)), seed=0)
        answers = []
        try:
            for unit, sign in asked:
                begun = time.monotonic()
                hint = oracle.ask(unit, sign, Budget.of(limit))
                answers.append((hint, time.monotonic() - begun))
        finally:
            oracle.close()
        states = truth.layers[relu].state
        false = sum(
            hint.claimed and states[unit] in (State.UNSTABLE, State(sign))
            for (unit, sign), (hint, _) in zip(asked, answers, strict=True)
        )
        row[solver] = {
            "answered": sum(hint.claimed or hint.witness is not None for hint, _ in answers),
            "false": int(false),
            "seconds": [
                round(seconds, 4) if hint.claimed or hint.witness is not None else None for hint, seconds in answers
            ],
            "total": round(sum(seconds for _, seconds in answers), 3),
        }
    return row


def network_table(rows: list[dict[str, Any]], solvers: list[str]) -> Table:
    shown = _table("network", "strategy", "ReLUs", *solvers, "decided by one only", "contradictions")
    for row in rows:
        times = [_time(row["solvers"].get(solver)) for solver in solvers]
        shown.add_row(row["name"], row["strategy"], str(row["units"]), *times, str(row["decided_by_one"]),
                      str(row["contradictions"]))  # fmt: skip
    return shown


def _time(taken: dict[str, Any] | None) -> str:
    if taken is None:
        return "—"
    return f"{taken['seconds']:.2f} s" + (f" ({taken['undecided']} open)" if taken["undecided"] else "")


def question_table(rows: list[dict[str, Any]], solvers: list[str]) -> Table:
    shown = _table("MILPs of", "questions", *(f"{solver}: answered, false, ×" for solver in solvers))
    for row in rows:
        cells = [
            f"{row[solver]['answered']}, {row[solver]['false']}, {ratio(row, solver, solvers[0])}" for solver in solvers
        ]
        shown.add_row(row["name"], str(row["questions"]), *cells)
    return shown


def ratio(row: dict[str, Any], solver: str, first: str) -> str:
    both = [
        (mine, base)
        for mine, base in zip(row[solver]["seconds"], row[first]["seconds"], strict=True)
        if mine is not None and base is not None
    ]
    return f"{sum(mine for mine, _ in both) / sum(base for _, base in both):.2f}" if both else "—"


def _table(*headings: str) -> Table:
    shown = Table(box=None, pad_edge=False)
    for at, heading in enumerate(headings):
        shown.add_column(heading, justify="right" if at else "left", no_wrap=True)
    return shown


if __name__ == "__main__":
    main()
