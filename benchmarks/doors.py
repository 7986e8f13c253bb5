"""Random models of each framework: does LEO read them as the framework runs them, with the door left out?

    python benchmarks/doors.py fuzz [--frameworks onnx,torch,keras] [--count 5000] [--jobs 1] [--records doors.jsonl]
        [--json FILE]
    python benchmarks/doors.py faults [--cases 400] [--enough 5]
    python benchmarks/doors.py cost [--networks PART …]

``fuzz`` makes ``--count`` models of each framework (``tests/door_cases``), reads each with the door left out, and
compares what the framework computes on three times ten inputs, in batches of 1, 2 and 7, with the interval proved for
the network as run. Outcomes: *equal*, *refused* (by a sentence: listed by frequency, to be read), *wrong*, *crash*. One
line per model goes to the file of records as soon as it is there, and what is there is not done again. The exit code
is 1 if one is wrong or crashes.

``faults`` plants one fault after the other in the readers, and says for each on how many models that it makes LEO
misread the door raises its error.

``cost`` compresses the real networks beside the project and says what share of each run the door took.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from listing import NETS, real
from records import read
from rich.box import MARKDOWN
from rich.console import Console
from rich.progress import track
from rich.table import Table

import leo_core
from leo_core import door

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import door_cases
from door_cases import faults

FRAMEWORKS = ("onnx", "torch", "keras")
KINDS = ("equal", "refused", "wrong", "crash", "not run")
Record = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    fuzz = commands.add_parser("fuzz")
    fuzz.add_argument("--frameworks", default=",".join(FRAMEWORKS), help="of these, by commas")
    fuzz.add_argument("--count", type=int, default=5000, help="models of each framework")
    fuzz.add_argument("--jobs", type=int, default=1, help="processes")
    fuzz.add_argument("--records", type=Path, default=Path("doors.jsonl"))
    fuzz.add_argument("--json", type=Path, help="write the figures there")
    plant = commands.add_parser("faults")
    plant.add_argument("--cases", type=int, default=400, help="models of the framework tried at most for each fault")
    plant.add_argument("--enough", type=int, default=5, help="misread models after which a fault is done with")
    plant.add_argument("--names", default="", help="only faults with one of these in their name, by commas")
    cost = commands.add_parser("cost")
    cost.add_argument("--networks", nargs="*", default=())
    cost.add_argument("--nets", type=Path, default=NETS)
    arguments = parser.parse_args()
    sys.exit({"fuzz": run_fuzz, "faults": run_faults, "cost": run_cost}[arguments.command](arguments))


def run_fuzz(arguments: argparse.Namespace) -> int:
    frameworks = arguments.frameworks.split(",")
    done = list(read(arguments.records))
    known = {(record["framework"], record["seed"]) for record in done}
    waiting = [
        (framework, seed)
        for seed in range(arguments.count)
        for framework in frameworks
        if (framework, seed) not in known
    ]
    with arguments.records.open("a") as file:
        if done:
            file.write("\n")  # a kill may have cut the last line short
        for record in track(tried(waiting, arguments.jobs), "models", len(waiting)):
            file.write(json.dumps(record) + "\n")
            file.flush()
            done.append(record)
    figures = summary(record for record in done if record["framework"] in frameworks)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    console = Console(width=300)
    console.print(kinds_table(figures))
    for framework, reasons in figures["reasons"].items():
        console.print(f"\n{framework}: why models are refused")
        for reason, count in reasons.items():
            console.print(f"{count:6} {reason}", highlight=False, markup=False)
    for line in figures["faults"]:
        console.print(line, highlight=False, markup=False)
    return int(bool(figures["faults"]))


def tried(waiting: list[tuple[str, int]], jobs: int) -> Iterable[Record]:
    if jobs == 1:
        yield from map(one, waiting)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(one, waiting, chunksize=8)


def one(task: tuple[str, int]) -> Record:
    framework, seed = task
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        case = door_cases.make(framework, seed, Path(folder))
        found = door_cases.outcome(case, seed)
    why = found.why.replace(folder, "FOLDER")
    return {"framework": framework, "seed": seed, "uses": list(case.uses), "kind": found.kind, "why": why}


def summary(records: Iterable[Record]) -> dict[str, Any]:
    kinds: dict[str, Counter[str]] = {}
    uses: dict[str, Counter[str]] = {}
    reasons: dict[str, Counter[str]] = {}
    faults = []
    for record in records:
        framework = record["framework"]
        kinds.setdefault(framework, Counter())[record["kind"]] += 1
        if record["kind"] == "equal":
            uses.setdefault(framework, Counter()).update(set(record["uses"]))
        if record["kind"] == "refused":
            reasons.setdefault(framework, Counter()).update({reason(record["why"])})
        if record["kind"] in ("wrong", "crash"):
            faults.append(f"{record['kind'].upper()} {framework} {record['seed']}: {record['why']}")
    return {
        "kinds": {framework: {kind: counts[kind] for kind in KINDS} for framework, counts in kinds.items()},
        "uses": {framework: dict(counts.most_common()) for framework, counts in uses.items()},
        "reasons": {framework: dict(counts.most_common()) for framework, counts in reasons.items()},
        "faults": faults,
    }


def reason(text: str) -> str:
    """A refusal without what is of one model only: its first problem, names and numbers left out."""
    lines = [line.strip(" -") for line in text.splitlines()]
    first = lines[1] if len(lines) > 1 and lines[0].endswith("this model:") else lines[0]
    first = re.sub(r"'[^']*'|\"[^\"]*\"", "'…'", first)
    return re.sub(r"\d+", "#", first)[:200]


def kinds_table(figures: dict[str, Any]) -> Table:
    shown = Table(box=MARKDOWN)
    for at, text in enumerate(("framework", "models", *KINDS, "kinds of layers or operators in models read")):
        shown.add_column(text, justify="right" if at else "left", no_wrap=True)
    for framework, counts in figures["kinds"].items():
        read_kinds = len(figures["uses"].get(framework, {}))
        shown.add_row(framework, str(sum(counts.values())), *(str(counts[kind]) for kind in KINDS), str(read_kinds))
    return shown


def run_faults(arguments: argparse.Namespace) -> int:
    shown = Table(box=MARKDOWN)
    for at, text in enumerate(("framework", "fault", "models misread", "caught by the door")):
        shown.add_column(text, justify="right" if at > 1 else "left", no_wrap=True)
    missed = 0
    wanted = [part for part in arguments.names.split(",") if part]
    chosen = [fault for fault in faults.planted() if not wanted or any(part in fault.name for part in wanted)]
    for fault in track(chosen, "faults"):
        misread, caught = faults.caught(fault, range(arguments.cases), arguments.enough)
        missed += not misread or caught < misread
        shown.add_row(fault.framework, fault.name, str(misread), str(caught))
    Console(width=300).print(shown)
    return int(bool(missed))


def run_cost(arguments: argparse.Namespace) -> int:
    shown = Table(box=MARKDOWN)
    for at, text in enumerate(("network", "run", "door", "share", "read", "written")):
        shown.add_column(text, justify="right" if 0 < at < 4 else "left", no_wrap=True)
    spent = timed()
    worst = 0.0
    for case in real(arguments.nets, arguments.networks):
        with tempfile.TemporaryDirectory() as folder:
            suffix = ".pt2" if case.model.suffix == ".pt" else case.model.suffix
            spent.clear()
            begun = time.perf_counter()
            try:
                result = leo_core.compress(case.model, case.domain, time_limit=60)
                written = result.written(Path(folder) / f"out{suffix}")
            except leo_core.LeoError as error:
                shown.add_row(case.name, "", "", "", str(error).splitlines()[0][:60], "")
                continue
            whole = time.perf_counter() - begun
        share = sum(spent) / whole
        worst = max(worst, share)
        shown.add_row(
            case.name, f"{whole:.2f} s", f"{1e3 * sum(spent):.0f} ms", f"{share:.1%}", result.door, written.door
        )
    console = Console(width=300)
    console.print(shown)
    console.print(f"largest share: {worst:.1%}")
    return 0


def timed() -> list[float]:
    """The seconds that each call of the door takes from now on, as they come."""
    spent: list[float] = []
    for name in ("agrees", "alike", "inputs_at"):
        function = getattr(door, name)

        def clocked(*given: Any, _function: Any = function, **more: Any) -> Any:
            begun = time.perf_counter()
            try:
                return _function(*given, **more)
            finally:
                spent.append(time.perf_counter() - begun)

        setattr(door, name, clocked)
    return spent


if __name__ == "__main__":
    main()
