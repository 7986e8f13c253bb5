"""Does a run take as long beside another job as alone?

    python benchmarks/steady.py [--networks PART …] [--busy 1] [--json FILE]

Compresses ten of the real networks beside the project with the command, as a user does: alone, and while ``--busy``
processes of numpy multiply matrices without end. LEO works on one thread, so with as many cores as jobs both should
take the same; where jobs outnumber cores, ``fair`` says how much longer an equal share of the machine takes. The
seconds are each the median of three runs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from listing import NETS, Case, real
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

_BUSY = "import numpy as np; a = np.random.default_rng(0).random((900, 900))\nwhile True: a @ a"
#: Networks whose runs take between a second and half a minute, of several shapes.
_NAMES = (
    "hello_world", "DNN_S", "diabetes_v2", "tora_smallest", "pra0_tau00", "pra0_tau60", "reluBenchmark0.0563",
    "twin_ladder-25_inp-2", "dqn_MountainCar", "eran_mnist/",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="*", default=_NAMES)
    parser.add_argument("--nets", type=Path, default=NETS)
    parser.add_argument("--busy", type=int, default=1, help="processes beside it")
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    fair = max(1.0, (arguments.busy + 1) / cores)
    figures = []
    for case in first_of_each(arguments.nets, arguments.networks):
        alone = seconds(case)
        jobs = [subprocess.Popen([sys.executable, "-c", _BUSY]) for _ in range(arguments.busy)]
        try:
            beside = seconds(case)
        finally:
            for job in jobs:
                job.kill()
                job.wait()
        figures.append({"name": case.name, "alone": alone, "beside": beside, "ratio": beside / alone / fair})
        print(f"{case.name}: {alone:.2f} s alone, {beside:.2f} s beside", file=sys.stderr)
    shown = Table(box=MARKDOWN)
    for at, text in enumerate(("network", "alone", f"beside {arguments.busy}", "times its fair share")):
        shown.add_column(text, justify="right" if at else "left", no_wrap=True)
    for row in figures:
        shown.add_row(row["name"], f"{row['alone']:.2f} s", f"{row['beside']:.2f} s", f"{row['ratio']:.2f}")
    Console(width=200).print(shown)
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"cores": cores, "busy": arguments.busy, "runs": figures}, indent=1) + "\n"
        )


def first_of_each(nets: Path, names: Sequence[str]) -> list[Case]:
    """One network for each part of a name."""
    return [case for name in names for case in list(real(nets, [name]))[:1]]


def seconds(case: Case) -> float:
    """The median of three runs of the command."""
    taken = []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "out.leo"
            run = [sys.executable, "-c", "from leo_core.cli import main; main()"]
            command = [*run, "compress", str(case.model), str(out), "--domain", str(case.domain), "--time-limit", "60"]
            begun = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            taken.append(time.perf_counter() - begun)
    return median(taken)


if __name__ == "__main__":
    main()
