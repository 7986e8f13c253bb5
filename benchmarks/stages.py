"""Where the seconds go when networks are made smaller, by stage: what workers could share, and what that is worth.

    python benchmarks/stages.py [--nets NETS] [--only PART …] [--out docs/results/stages.json]

Through the front door, ``leo_core.compress``, in one process; seconds of CPU, of functions as they are called. On
networks on images these are points run with proved bounds, gradient ascent, and backward bounds of windows; on all, the
rewriting with each of its trials.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from listing import NETS

import leo_core
from leo_core.rewrite import pipeline
from leo_core.stability import channels

#: Of the real networks, those that take long, and one that is rewritten in three trials.
NETWORKS = (
    "mlperf_tiny/vww_96_mobilenet025", "mnist_l1/mnist_100-100_0.0005", "dronet/dronet", "ultraface/version-slim-320",
)  # fmt: skip
STAGES = {"points": (channels._Seen, "look"), "ascent": (channels, "ascend"),
          "windows": (channels, "backward_interval")}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", type=Path, default=NETS)
    parser.add_argument("--only", nargs="*", default=("",), help="parts of names")
    parser.add_argument("--out", type=Path, default=Path("docs/results/stages.json"))
    arguments = parser.parse_args()
    spent: dict[str, list[float]] = {}
    for stage, (owner, name) in STAGES.items():
        setattr(owner, name, timed(getattr(owner, name), spent.setdefault(stage, [])))
    trials: list[float] = []
    pipeline._rewritten = by_trial(pipeline._rewritten, trials)  # type: ignore[assignment]
    rows: list[dict[str, Any]] = []
    for name in NETWORKS:
        if not any(part in name for part in arguments.only):
            continue
        for seconds in (*spent.values(), trials):
            seconds.clear()
        begun = time.process_time()
        found = leo_core.compress(arguments.nets / f"{name}.onnx", arguments.nets / f"{name}.domain.json")
        row = {"name": Path(name).name, "seconds": time.process_time() - begun, "trials": list(trials)}
        row["stages"] = {stage: list(seconds) for stage, seconds in spent.items()}
        row["connections"] = found.network.connections
        rows.append(row)
        print(line(row), flush=True)
        arguments.out.write_text(json.dumps(rows, indent=1) + "\n")
        arguments.out.with_suffix(".md").write_text(_PAGE + "\n".join(map(line, rows)) + "\n")


def timed(function: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    """The same function, whose seconds are noted."""

    def call(*positional: Any, **named: Any) -> Any:
        begun = time.process_time()
        try:
            return function(*positional, **named)
        finally:
            seconds.append(time.process_time() - begun)

    return call


def by_trial(rewritten: Callable[..., Iterator[Any]], trials: list[float]) -> Callable[..., Iterator[Any]]:
    """The same sweeps, whose seconds are noted: those that begin where the first began are a trial of their own."""
    first: list[Any] = []

    def sweeps(state: Any, *more: Any) -> Iterator[Any]:
        if not trials:
            first[:] = [state]
        if state is first[0]:
            trials.append(0.0)
        begun = time.process_time()
        yield from rewritten(state, *more)
        trials[-1] += time.process_time() - begun

    return sweeps


def line(row: dict[str, Any]) -> str:
    """One row of the table."""
    stages = row["stages"]
    shares = [f"{sum(seconds) / row['seconds']:.0%}" for seconds in stages.values()]
    longest = max(stages["windows"], default=0.0)
    windows = f"{len(stages['windows'])}, {longest:.2f} s" if stages["windows"] else ""
    trials = ", ".join(f"{seconds:.1f}" for seconds in row["trials"])
    return f"| {row['name']} | {row['seconds']:.0f} s | {' | '.join(shares)} | {windows} | {trials} s |"


_PAGE = """# Where the seconds go, and what workers could share

By `benchmarks/stages.py`: `leo_core.compress` in one process, its seconds of CPU, and the shares of them that points
run with proved bounds take, gradient ascent, and backward bounds of windows (how many times, and the longest). *Trials*
are those of the rewriting: a second and a third come only where one rewrite took much of the tolerance, and go on from
what the first looked at.

| network | in all | points | ascent | windows | windows: times, longest | trials |
|---|--:|--:|--:|--:|--:|--:|
"""


if __name__ == "__main__":
    main()
