"""How long it takes to decide every ReLU: LEO as published, ISA as published, and the cascade, side by side.

    python benchmarks/stability.py [--nets ../shared/nets] [--solver highs] [--time-limit 60] [--jobs 1] [NAME…]

One run, one machine, the same solver for all. ``paper`` and ``isa`` believe the solver, as their authors did;
``cascade`` proves each of its verdicts. Times are those of deciding alone, in one process. A ratio is the baseline's
time over the cascade's; '>' says that the baseline was stopped by the time limit, and how many units it left
undecided. Networks: the real ones beside the project, where they are there, and some made here. NAME picks by a part
of the name.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from listing import NETS, Case, made, picked, real
from rich.console import Console
from rich.table import Table

import leo_core
from leo_core import StabilityMap, State
from leo_core.stability.cross_check import cross_checked

BASELINES = ("paper", "isa")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", type=Path, default=NETS)
    parser.add_argument("--solver", default="highs")
    parser.add_argument("--time-limit", type=float, default=60.0, help="seconds per network and strategy")
    parser.add_argument("--baselines", default=",".join(BASELINES), help="of these, by commas; may be empty")
    parser.add_argument("--jobs", type=int, default=1, help="processes for the cascade; the baselines use one")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    baselines = [name for name in arguments.baselines.split(",") if name]
    rows = []
    for name, model, domain, known in cases(arguments.nets, arguments.names):
        options = {"solver": arguments.solver, "time_limit": arguments.time_limit}
        rows.append(measure(name, model, domain, known, baselines, options, arguments.jobs))
        print(f"{name}: {rows[-1]['cascade']['seconds']:.2f} s", file=sys.stderr, flush=True)
    Console(width=160).print(table(rows, baselines))
    for row in rows:
        for problem in row["contradictions"]:
            print(f"CONTRADICTION {row['name']}: {problem}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


def measure(
    name: str, model: Any, domain: Any, known: dict[str, Any], baselines: list[str], options: dict[str, Any], jobs: int
) -> dict[str, Any]:
    found = {"cascade": leo_core.analyze(model, domain, jobs=jobs, **options)}
    for strategy in baselines:
        found[strategy] = leo_core.analyze(model, domain, strategy=strategy, trust="solver", **options)
    cascade = found["cascade"]
    row: dict[str, Any] = {"name": name, "units": cascade.units, "jobs": jobs, **options}
    for strategy, stability in found.items():
        counts = {state.name.lower(): stability.count(state) for state in State}
        row[strategy] = {"seconds": round(stability.seconds, 4), **counts}
    row["contradictions"] = [*against_what_is_known(cascade, known), *disagreements(found)]
    return row


def against_what_is_known(stability: StabilityMap, known: dict[str, Any]) -> Iterator[str]:
    counts = (stability.count(State.ACTIVE), stability.count(State.INACTIVE))
    if known.get("complete") and not stability.count(State.UNDECIDED):
        if counts != (known["active"], known["inactive"]):
            yield f"active, inactive are {counts}, known are {known['active']}, {known['inactive']}"
    elif "at_most" in known and any(got > most for got, most in zip(counts, known["at_most"], strict=True)):
        yield f"active, inactive are {counts}, at most {known['at_most']} were thought possible"


def disagreements(found: dict[str, StabilityMap]) -> Iterator[str]:
    """Units for which a baseline's solver claimed what the cascade has disproved, or the other way round."""
    for strategy in found.keys() - {"cascade"}:
        differ = Counter(item.relu for item in cross_checked(found["cascade"], found[strategy]).disagreements)
        for layer, units in differ.items():
            yield f"{strategy} differs on {units} units of '{layer}' (its word, against a proof)"


def table(rows: list[dict[str, Any]], baselines: list[str]) -> Table:
    shown = Table(box=None, pad_edge=False)
    headings = ("network", "ReLUs", "active", "inactive", "undecided", "cascade", *(f"{b} ×" for b in baselines))
    for heading in headings:
        shown.add_column(heading, justify="left" if heading == "network" else "right", no_wrap=True)
    for row in rows:
        mine = row["cascade"]
        counts = [str(mine[key]) for key in ("active", "inactive", "undecided")]
        ratios = [ratio(row[baseline], mine) for baseline in baselines]
        shown.add_row(row["name"], str(row["units"]), *counts, f"{mine['seconds']:.2f} s", *ratios)
    return shown


def ratio(baseline: dict[str, Any], mine: dict[str, Any]) -> str:
    factor = f"{baseline['seconds'] / mine['seconds']:,.1f}"
    return f"> {factor} ({baseline['undecided']} undecided)" if baseline["undecided"] else factor


def cases(nets: Path, names: list[str]) -> Iterator[Case]:
    widths = ((10, 20, 20, 1), (4, 40, 40, 40, 1), (784, 100, 100, 10))
    yield from picked([Case("made " + "-".join(map(str, each)), made(each), "0,1", {}) for each in widths], names)
    yield from real(nets, names)


if __name__ == "__main__":
    main()
