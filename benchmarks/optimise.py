"""Time to the optimum over a network, as it is and after LEO: by the command, on networks that people optimise over.

    python benchmarks/optimise.py [--nets NETS] [--out docs/results/optimise.json] [--only NAME …] [--limit SECONDS]

Of each network the first output is made largest over its domain by HiGHS, three times: written with big-M from plain
intervals (``leo formulate --time-limit 0``), with proved bounds (``leo formulate``), and, after ``leo compress
--objective units``, with proved bounds of what is left. LEO's own seconds count in the last two. Optima must agree.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from listing import NETS, Case, real
from programs import leo, solve

DIGITS = Path("docs/examples/digits")
#: Networks that are in MILPs, or stand for such.
NAMES = (
    "gurobi_ml/diabetes",
    "pyscipopt_ml",
    "hello_world",
    "sac_Mountain",
    "overt",
    "tau00",
    "coav",
    "twin_ladder-5_inp-5",
    "mnist_100-100_",
    "mnist_100-100-100",
    "marabou_mnist",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", type=Path, default=NETS)
    parser.add_argument("--out", type=Path, default=Path("docs/results/optimise.json"))
    parser.add_argument("--only", nargs="*", default=NAMES, help="parts of names")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds of the clock for each solve")
    arguments = parser.parse_args()
    cases = [Case("digits", DIGITS / "digits.onnx", DIGITS / "digits.domain.json", {})]
    rows = []
    for case in [*cases, *real(arguments.nets, arguments.only)]:
        rows.append(measured(case, arguments.limit))
        print(line(rows[-1]), flush=True)
        arguments.out.write_text(json.dumps({"limit": arguments.limit, "rows": rows}, indent=1) + "\n")
        arguments.out.with_suffix(".md").write_text(page(rows, arguments.limit))


def measured(case: Case, limit: float) -> dict[str, Any]:
    """The figures of one network."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small = folder / "small.leo"
        box = ("--domain", case.domain)
        output = leo("formulate", case.model, folder / "names.mps", *box, "--time-limit", "0")[0]["outputs"][0]
        ways = {}
        for way in ("plain", "bounds", "smaller"):
            spent, model, deviation = 0.0, case.model, 0.0
            if way == "smaller":
                found, seconds = leo("compress", case.model, small, *box, "--objective", "units")
                spent, model, deviation = seconds, small, found["deviation"]
            no_time = ("--time-limit", "0") if way == "plain" else ()
            path = folder / f"{way}.mps"
            written, seconds = leo("formulate", model, path, *box, "--maximize", output, *no_time)
            solved = solve(path, limit)
            ways[way] = {
                "binaries": written["binaries"],
                "leo": 0.0 if way == "plain" else spent + seconds,
                "highs": solved.seconds,
                "nodes": solved.nodes,
                "status": solved.status,
                "value": solved.value if solved.optimal else None,
                "bound": solved.bound,
                "deviation": deviation,
            }
    row = {"name": case.name, **ways}
    row["agree"] = agree(ways)
    return row


def agree(ways: dict[str, dict[str, Any]]) -> bool | None:
    """Whether the optima are one, but for δ and what HiGHS tolerates; None where fewer than two were reached."""
    known = [(way["value"], way["deviation"]) for way in ways.values() if way["value"] is not None]
    if len(known) < 2:
        return None
    values = [value for value, _ in known]
    slack = sum(deviation for _, deviation in known) + 1e-4 * max(1.0, *map(abs, values))
    return max(values) - min(values) <= slack


def line(row: dict[str, Any]) -> str:
    """One row of the table."""

    def shown(way: dict[str, Any]) -> str:
        total = way["leo"] + way["highs"]
        time = f"{total:.1f} s" if way["status"] == "Optimal" else f"not in {way['highs']:.0f} s"
        share = f" ({way['leo']:.1f})" if way["leo"] else ""
        return f"{way['binaries']} | {time}{share}"

    cells = " | ".join(shown(row[way]) for way in ("plain", "bounds", "smaller"))
    verdict = {True: "yes", False: "**NO**", None: "–"}[row["agree"]]
    return f"| {row['name']} | {cells} | {verdict} |"


def page(rows: list[dict[str, Any]], limit: float) -> str:
    """The page of the results."""
    return _PAGE.format(limit=limit) + "\n".join(map(line, rows)) + "\n"


_PAGE = """# Optimising over a network, before and after

The first output made largest over the domain, by HiGHS on one thread: of the network with big-M from plain intervals,
with bounds that LEO proves, and of the network that LEO makes smaller. Seconds are of CPU and count all of LEO
(its share in parentheses, about a second of which is Python starting and reading), by `benchmarks/optimise.py`; a solve
was given {limit:.0f} s of the clock, on a machine that was busy with other work. 'Agree': the optima that were reached
are one, but for δ and HiGHS's tolerance.

| network | binaries, plain | time | with proved bounds | time | made smaller | time | agree |
|---|--:|--:|--:|--:|--:|--:|--:|
"""


if __name__ == "__main__":
    main()
