"""What crashes cost: `leo compress --checkpoint` killed at random times, and resumed until it is done.

    python benchmarks/faults.py [--nets ../shared/nets] [--points 50] [--seed 0] [--json FILE] [NAME…]

SIGKILL of the command: at each point one to three times, each at a random moment of an undisturbed run's time, then it
is left to finish. SIGKILL of a worker, under ``--jobs 2``: a random one at a random moment, then the command is left to
finish. Counted are points whose verdicts, unit by unit, or whose OUT, byte by byte, differ from the undisturbed run's,
and moments after a kill at which OUT was neither absent nor whole. 'again' is the time of a run that finds the
checkpoint of a finished one, as a share of the undisturbed run's. NAME picks by a part of the name.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from listing import NETS
from rich.console import Console
from rich.table import Table

ACAS = "acasxu/ACASXU_experimental_v2a_1_1"
#: By name: model, domain, and what is killed.
CASES = {
    "mnist_400-400": ("mnist_l1/mnist_400-400_0.0002.onnx", "mnist_l1/mnist_400-400_0.0002.domain.json", "command"),
    "ACAS Xu 1_1 prop_3": (f"{ACAS}.nnet", f"{ACAS}.prop_3.domain.json", "command"),
    "twin_ladder-25_inp-5": (
        "twinstream/twin_ladder-25_inp-5_layers-10_width-1_margin.onnx",
        "twinstream/twin_ladder-25_inp-5_layers-10_width-1_margin.domain.json",
        "worker",
    ),
}
#: The command itself; the verdicts of each unit, which it does not print, go to a file as well.
COMMAND = """
import json, sys
from pathlib import Path
from leo_core import api, cli

compress, verdicts = api.compress, Path(sys.argv.pop(1))

def told(*arguments, **options):
    result = compress(*arguments, **options)
    verdicts.write_text(json.dumps({name: layer.state.tolist() for name, layer in result.stability.layers.items()}))
    return result

api.compress = told
cli.main(prog_name="leo")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", type=Path, default=NETS)
    parser.add_argument("--points", type=int, default=50, help="kill points per network")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures there, beside those of other networks")
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    known = json.loads(arguments.json.read_text()) if arguments.json and arguments.json.exists() else {}
    for name, (model, domain, victim) in CASES.items():
        if arguments.names and not any(part in name for part in arguments.names):
            continue
        with tempfile.TemporaryDirectory() as folder:
            run = Run(arguments.nets / model, arguments.nets / domain, Path(folder), 2 if victim == "worker" else 1)
            known[name] = measure(run, victim, arguments.points, random.Random(arguments.seed))
        if arguments.json:
            arguments.json.write_text(json.dumps(known, indent=1) + "\n")
    Console(width=160).print(table(known))


class Run:
    """One network's command and its files."""

    def __init__(self, model: Path, domain: Path, folder: Path, jobs: int) -> None:
        self.out, self.verdicts, self.checkpoint = folder / "out.leo", folder / "verdicts.json", folder / "checkpoint"
        self._command = [
            *(sys.executable, "-c", COMMAND, self.verdicts, "compress", model, self.out, "--domain", domain),
            *("--checkpoint", self.checkpoint, "--solver", "highs", "--jobs", str(jobs), "-q"),
        ]

    def start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(list(map(str, self._command)), stdout=subprocess.DEVNULL)

    def finish(self) -> tuple[float, bytes, bytes]:
        """(seconds, verdicts, OUT) of a run left alone."""
        begun = time.monotonic()
        if code := self.start().wait():
            raise SystemExit(f"a run left alone ended with exit code {code}")
        return time.monotonic() - begun, self.verdicts.read_bytes(), self.out.read_bytes()

    def forget(self) -> None:
        for path in (self.out, self.verdicts, self.checkpoint):
            path.unlink(missing_ok=True)


def measure(run: Run, victim: str, points: int, rng: random.Random) -> dict[str, Any]:
    seconds, verdicts, out = run.finish()
    row: dict[str, Any] = {"killed": victim, "seconds": round(seconds, 3), "points": points, "kills": 0}
    row |= {"size": run.checkpoint.stat().st_size, "again": round(run.finish()[0] / seconds, 3)}
    row |= {"half_files": 0, "other_verdicts": 0, "other_out": 0}
    kill = kill_command if victim == "command" else kill_worker
    for point in range(points):
        run.forget()
        row["kills"] += kill(run, seconds, out, row, rng)
        row["other_verdicts"] += run.verdicts.read_bytes() != verdicts
        row["other_out"] += run.out.read_bytes() != out
        print(f"{point + 1} of {points}, {row['kills']} kills", file=sys.stderr, flush=True)
    return row


def kill_command(run: Run, seconds: float, out: bytes, row: dict[str, Any], rng: random.Random) -> int:
    """Kill the command, start it again, kill it again, let it finish; how often it was still alive."""
    kills = 0
    for _ in range(rng.randint(1, 3)):
        process = run.start()
        try:
            process.wait(rng.uniform(0.1, 1.0) * seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
        row["half_files"] += run.out.exists() and run.out.read_bytes() != out
    run.finish()
    return kills


def kill_worker(run: Run, seconds: float, _out: bytes, _row: dict[str, Any], rng: random.Random) -> int:
    """Kill a random worker at a random moment of the first part of the run, and let the command finish."""
    process, kills = run.start(), 0
    wait_until = time.monotonic() + rng.uniform(0.0, 0.4) * seconds
    while process.poll() is None:
        children = workers(process.pid)
        if children and time.monotonic() > wait_until and not kills:
            subprocess.run(["kill", "-9", str(rng.choice(children))], check=False, stderr=subprocess.DEVNULL)
            kills += 1
        time.sleep(0.02)
    if process.returncode:
        raise SystemExit(f"a run whose worker was killed ended with exit code {process.returncode}")
    return kills


def workers(pid: int) -> list[int]:
    """A process's children that do its work, without multiprocessing's own resource tracker."""
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split() if Path(f"/proc/{pid}").exists() else ():
        try:
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(int(child))
        except OSError:
            continue
    return found


def table(rows: dict[str, dict[str, Any]]) -> Table:
    shown = Table(box=None, pad_edge=False)
    for heading in ("network", "killed", "points", "kills", "other verdicts", "other OUT", "half files", "again"):
        shown.add_column(heading, justify="left" if heading in ("network", "killed") else "right", no_wrap=True)
    for name, row in rows.items():
        counts = [str(row[key]) for key in ("points", "kills", "other_verdicts", "other_out", "half_files")]
        shown.add_row(name, row["killed"], *counts, f"{row['again']:.2f}")
    return shown


if __name__ == "__main__":
    main()
