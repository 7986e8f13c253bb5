"""Networks made to fool solvers, decided and compared with the exact truth: how many verdicts are false?

    python benchmarks/soundness.py [--count 10000] [--families bump,backdoor] [--jobs 1] [--time-limit 2]
        [--records soundness.jsonl] [--json FILE]

The families are those of ``tests/adversaries.py``. Each network is decided three times: by the cascade with HiGHS; by
one of the other eight pairs of a strategy and a solver, in turn; and by one of the nine under ``trust="solver"``, in
turn, which shows what the solvers' raw answers are worth. Solvers that are not installed are left out. What the
cascade finds is used to rewrite networks of one or two inputs, and the deviation claimed is compared with the true one.

One line per decision goes to the file of records as soon as it is there, and what is there already is not done again:
after a kill, or to go on to a larger count, give the same command. Networks that change need a new file. ``--json``
writes the table's figures, and every false verdict in words. The exit code is 1 if a proved verdict is false.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from records import read
from rich.box import MARKDOWN
from rich.console import Console
from rich.progress import track
from rich.table import Table

from leo_core.arithmetic import nearest_float
from leo_core.errors import MissingExtraError
from leo_core.execution.budget import Budget, Limits
from leo_core.milp.checked import CheckedSolver
from leo_core.milp.problem import MilpProblem
from leo_core.milp.question import Question
from leo_core.milp.result import SolverResult, Stop
from leo_core.milp.solver import Interruptible, Solver, SolverSession
from leo_core.options import STRATEGIES
from leo_core.plugins import registry
from leo_core.rewrite import View, rewrite
from leo_core.stability import StabilityMap, Work, decide

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from adversaries import FAMILIES, Adversary, adversary, judge
from truth import largest_difference

SOLVERS = ("highs", "scip", "scipy")
#: What rewrites may change, one after the other; each claim is compared with the exact truth.
TOLERANCES = (0.0, 1e-9, 1e-3)
Run = tuple[str, str, str]  # strategy, solver, trust
Record = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000, help="networks, over all families")
    parser.add_argument("--families", default=",".join(FAMILIES), help="of these, by commas")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--time-limit", type=float, default=2.0, help="seconds per decision")
    parser.add_argument("--records", type=Path, default=Path("soundness.jsonl"))
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args()
    families = arguments.families.split(",")
    done = list(read(arguments.records))
    known = {(*name(record), record["strategy"], record["solver"], record["trust"]) for record in done}
    waiting = []
    available = solvers()
    for at in range(arguments.count):  # a network of each family in turn, so that any count is spread over all
        seed, family = at // len(families), families[at % len(families)]
        turn = seed + list(FAMILIES).index(family)
        left = [run for run in runs_of(available, turn) if (family, seed, *run) not in known]
        if left:
            waiting.append((family, seed, left))
    with arguments.records.open("a") as file:
        if done:
            file.write("\n")  # a kill may have cut the last line short
        for records in track(decided(waiting, arguments.time_limit, arguments.jobs), "networks", len(waiting)):
            file.writelines(json.dumps(record) + "\n" for record in records)
            file.flush()
            done += records
    figures = {"time_limit": arguments.time_limit, **summary(done)}
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    console = Console(width=300)
    for trust in ("proved", "solver"):
        console.print(run_table(figures, trust))
    console.print(proved_table(figures))
    console.print(trusted_table(figures))
    for line in figures["false"]:
        console.print(f"FALSE {line}")
    sys.exit(bool(figures["false"]))


def runs_of(available: list[str], turn: int) -> list[Run]:
    """What is to be decided of one network."""
    pairs = [(strategy, solver) for solver in available for strategy in STRATEGIES]
    first = ("cascade", "highs") if "highs" in available else pairs[0]
    others = [pair for pair in pairs if pair != first]
    return [(*first, "proved"), (*others[turn % len(others)], "proved"), (*pairs[turn % len(pairs)], "solver")]


def solvers() -> list[str]:
    found = []
    for solver in SOLVERS:
        try:
            registry.solver(solver)
            found.append(solver)
        except MissingExtraError as error:
            print(f"left out: {error}", file=sys.stderr)
    return found


def decided(waiting: list[tuple[str, int, list[Run]]], limit: float, jobs: int) -> Iterable[list[Record]]:
    if jobs == 1:
        yield from map(partial(measure, limit), waiting)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(partial(measure, limit), waiting, chunksize=4)


def measure(limit: float, task: tuple[str, int, list[Run]]) -> list[Record]:
    family, seed, runs = task
    case = adversary(family, seed)
    return [{"family": family, "seed": seed, **one(case, *run, limit)} for run in runs]


def one(case: Adversary, strategy: str, solver: str, trust: str, limit: float) -> Record:
    listening = Listening(registry.solver(solver))
    record: Record = {"strategy": strategy, "solver": solver, "trust": trust}
    try:
        found = decide(Work(
            case.network, case.box, CheckedSolver(listening), strategy, trust, Limits(Budget.of(limit))
        ))  # fmt: skip
    except Exception as error:  # a finding, not an accident: the engine promises a map whatever happens
        return {**record, "units": case.network.units, "error": f"{type(error).__name__}: {error}"}
    seen = judge(case, found)
    strayed = astray(case, found) if (strategy, trust) == ("cascade", "proved") else []
    return {
        **record,
        "units": seen.units,
        "undecided": seen.undecided,
        "claims": seen.claims,
        "infeasible": listening.infeasible,
        "seconds": round(found.seconds, 4),
        "false_stable": seen.false_stable,
        "false_unstable": seen.false_unstable,
        "false_bounds": seen.false_bounds if trust == "proved" else (),  # else they rest on the solver's verdicts
        "false_deviations": strayed,
    }


def astray(case: Adversary, found: StabilityMap) -> list[str]:
    """Rewrites that are further from the network than they claim, by the exact truth, which few inputs allow."""
    mistakes = []
    for tolerance in TOLERANCES if case.box.size <= 2 else ():
        result = rewrite(View.of(case.network, found), tolerance=tolerance)
        true = largest_difference(case.network, result.network, case.box)
        if not (np.isfinite(result.deviation) and true <= Fraction(result.deviation)):
            mistakes.append(f"a deviation of {result.deviation:.6g} is claimed, {nearest_float(true):.6g} is true")
    return mistakes


class Listening:
    """A solver, and how often it has said 'infeasible'. No MILP here is, unless a false claim went before it."""

    def __init__(self, solver: Solver) -> None:
        self._solver = solver
        self.name, self.capabilities = solver.name, solver.capabilities
        self.infeasible = 0

    def load(self, problem: MilpProblem, *, seed: int = 0) -> SolverSession:
        return ListenedSession(self, self._solver.load(problem, seed=seed), bool(problem.integer.any()))


class ListenedSession:
    def __init__(self, listening: Listening, session: SolverSession, whole: bool) -> None:
        self._listening, self._session, self._whole = listening, session, whole

    def maximize(self, question: Question) -> SolverResult:
        answer = self._session.maximize(question)
        # An LP of a branch may be infeasible by right, and an isa solve with lazy rows ends so.
        self._listening.infeasible += self._whole and question.lazy is None and answer.stop is Stop.INFEASIBLE
        return answer

    def interrupt(self) -> None:
        if isinstance(self._session, Interruptible):
            self._session.interrupt()

    def close(self) -> None:
        self._session.close()


def name(record: Record) -> tuple[str, int]:
    return record["family"], record["seed"]


def summary(records: list[Record]) -> dict[str, Any]:
    """Figures by family and kind of run, and all over, and every false proved verdict or bound in words."""
    families: dict[str, Any] = {}
    false = []
    for record in records:
        key = " ".join((record["strategy"], record["solver"]))
        for family in (record["family"], "all"):
            at = families.setdefault(family, {"proved": {}, "solver": {}})[record["trust"]]
            add(at.setdefault(key, dict.fromkeys(COUNTED, 0)), record)
        if record["trust"] == "proved":
            mistakes = [text for kind in MISTAKES for text in record.get(kind, ())] + [record.get("error", "")]
            false += [f"{record['family']} {record['seed']}, {key}: {text}" for text in mistakes if text]
    kinds = ["all", *(family for family in FAMILIES if family in families)]
    return {
        "networks": len({name(record) for record in records}),
        "decisions": len(records),
        "families": {kind: families[kind] for kind in kinds if kind in families},
        "false": false,
    }


MISTAKES = ("false_stable", "false_unstable", "false_bounds", "false_deviations")
COUNTED = ("networks", "units", "undecided", "claims", *MISTAKES, "fooled", "infeasible", "errors", "seconds")


def add(total: dict[str, Any], record: Record) -> None:
    total["networks"] += 1
    total["errors"] += "error" in record
    total["fooled"] += bool(record.get("false_stable"))
    for key in ("units", "undecided", "claims", "infeasible"):
        total[key] += record.get(key, 0)
    for key in MISTAKES:
        total[key] += len(record.get(key, ()))
    total["seconds"] = round(total["seconds"] + record.get("seconds", 0.0), 3)


def run_table(figures: dict[str, Any], trust: str) -> Table:
    """By strategy and solver: how many verdicts, how many false."""
    cells = figures["families"]["all"][trust]
    claimed = ("false_stable", "false_unstable", "claims", "fooled", "infeasible")
    keys = MISTAKES if trust == "proved" else claimed
    shown = table(f"trust='{trust}'", "networks", "units", "open", *(heading(key) for key in keys))
    for run, cell in sorted(cells.items()):
        shown.add_row(run, str(cell["networks"]), str(cell["units"]), share(cell), *(str(cell[key]) for key in keys))
    return shown


def proved_table(figures: dict[str, Any]) -> Table:
    """By family: mistakes of all proved runs together, and the units that each leaves open, of how many networks."""
    runs = sorted(figures["families"]["all"]["proved"])
    shown = table("trust='proved'", "networks", "verdicts", *(heading(kind) for kind in MISTAKES), *runs)
    for family, by_trust in figures["families"].items():
        cells = by_trust["proved"]
        sums = {key: sum(cell[key] for cell in cells.values()) for key in COUNTED}
        shown.add_row(
            family,
            str(max(cell["networks"] for cell in cells.values())),
            str(sums["units"] - sums["undecided"]),
            *(str(sums[kind]) for kind in MISTAKES),
            *(f"{share(cells[run])} of {cells[run]['networks']}" if run in cells else "" for run in runs),
        )
    return shown


def trusted_table(figures: dict[str, Any]) -> Table:
    """By family: networks with a false verdict when the solver is believed."""
    runs = sorted(figures["families"]["all"]["solver"])
    shown = table("trust='solver'", *runs)
    for family, by_trust in figures["families"].items():
        cells = by_trust["solver"]
        shown.add_row(
            family,
            *(f"{cells[run]['fooled']} of {cells[run]['networks']}" if run in cells else "" for run in runs),
        )
    return shown


def share(cell: dict[str, Any]) -> str:
    return f"{100 * cell['undecided'] / cell['units']:.1f} %"


def heading(key: str) -> str:
    return {"fooled": "networks with a false verdict", "infeasible": "'infeasible'"}.get(key, key.replace("_", " "))


def table(*headings: str) -> Table:
    """In Markdown, for the page in docs/results."""
    shown = Table(box=MARKDOWN)
    for at, text in enumerate(headings):
        shown.add_column(text, justify="right" if at else "left", no_wrap=True)
    return shown


if __name__ == "__main__":
    main()
