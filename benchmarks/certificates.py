"""A certificate for every real network that LEO makes smaller, re-checked where nothing but numpy is installed.

    python benchmarks/certificates.py [--nets ../shared/nets] [--time-limit 120] [--json FILE] [NAME…]

Per network: what was decided, the deviation claimed and re-proved, the size, what re-checking it takes as a
multiple of the time to decide (same run, one thread), and how many of eight false claims (two where a check takes
long), an unstable unit called stable each, the checker refuses. The checker runs in a virtual environment made for it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Any

import numpy as np
from listing import NETS, Case, real
from rich.console import Console
from rich.table import Table

import leo_core
from leo_core import Box, Network, State, storage
from leo_core.certificate.evidence import NO_PROOF
from leo_core.execution.events import Event, Note

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from tampering import call_stable, mutated  # noqa: E402 - the tests' own tampering

#: False claims per network; and where a check takes more seconds than that.
FALSE_CLAIMS, FEWER, LONG = 8, 2, 20.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", type=Path, default=NETS)
    parser.add_argument("--time-limit", type=float, default=120.0, help="seconds per network, before it is checked")
    parser.add_argument("--json", type=Path, help="write the figures there; networks that are in it are not done again")
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    if arguments.json and arguments.json.exists():
        rows = json.loads(arguments.json.read_text())
    done = {row["name"] for row in rows}
    with tempfile.TemporaryDirectory() as folder:
        python = numpy_alone(Path(folder) / "venv")
        for name, network, box in map(Case.loaded, real(arguments.nets, arguments.names)):
            if name in done:
                continue
            rows.append(measured(name, network, box, python, Path(folder), arguments.time_limit))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
            if arguments.json:
                arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    Console(width=160).print(table(rows))


def numpy_alone(folder: Path) -> Path:
    """The interpreter of a fresh environment in which only numpy is installed."""
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", "numpy"], check=True)
    return python


def measured(name: str, network: Network, box: Box, python: Path, folder: Path, limit: float) -> dict[str, Any]:
    given_up: list[int] = []

    def listener(event: Event) -> None:
        if isinstance(event, Note) and NO_PROOF in event.text:
            given_up.append(int(event.text.split()[0]))

    result = leo_core.compress(network, box, time_limit=limit, evidence=True, listener=listener)
    row: dict[str, Any] = {
        "name": name,
        "units": network.units,
        "stable": result.stability.count(State.ACTIVE) + result.stability.count(State.INACTIVE),
        "given_up": sum(given_up),
        "unstable": result.stability.count(State.UNSTABLE),
        "undecided": result.stability.count(State.UNDECIDED),
        "connections": [network.connections, result.network.connections],
        "deciding": round(result.stability.seconds, 3),
    }
    if result.network.connections == network.connections:
        return row
    paths = [folder / file for file in ("c.cert", "a.leo", "b.leo")]
    row["claimed"] = result.certify(paths[0])
    row["engine"] = result.deviation
    storage.save(network, paths[1])
    storage.save(result.network, paths[2])
    row["bytes"] = paths[0].stat().st_size
    begun = time.monotonic()
    row["accepted"] = checked(python, paths)
    row["checking"] = round(time.monotonic() - begun, 3)
    count = FALSE_CLAIMS if row["checking"] < LONG else FEWER
    row["false_claims"], row["refused"] = false_claims(python, paths, count)
    return row


def checked(python: Path, paths: list[Path]) -> bool:
    """Whether the checker, numpy alone, accepts a certificate."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [python, "-m", "leo_core.checker", *paths]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise RuntimeError(done.stderr)
    return done.returncode == 0


def false_claims(python: Path, paths: list[Path], count: int) -> tuple[int, int]:
    """(unstable units called stable one at a time, how many of those the checker refuses)."""
    whole, rng, made, refused = paths[0].read_bytes(), np.random.default_rng(0), 0, 0
    for _ in range(count):
        done: list[bool] = []
        mutated(paths[0], lambda content, arrays, done=done: done.append(call_stable(content, arrays, rng)))
        if done[0]:
            made += 1
            refused += not checked(python, paths)
        paths[0].write_bytes(whole)
    return made, refused


def table(rows: list[dict[str, Any]]) -> Table:
    shown = Table(box=None, pad_edge=False)
    for at, heading in enumerate(
        ("network", "ReLUs", "stable", "given up", "connections left", "claimed", "kB", "check ÷ decide", "accepted",
         "false claims refused")
    ):  # fmt: skip
        shown.add_column(heading, justify="right" if at else "left", no_wrap=True)
    for row in rows:
        cells = [row["name"], str(row["units"]), str(row["stable"]), str(row["given_up"]),
                 f"{100 * row['connections'][1] / row['connections'][0]:.1f}%"]  # fmt: skip
        if "claimed" in row:
            ratio = row["checking"] / max(row["deciding"], 1e-9)
            cells += [f"{row['claimed']:.2g}", f"{row['bytes'] / 1000:.0f}", f"{ratio:.1f}",
                      "yes" if row["accepted"] else "NO", f"{row['refused']} of {row['false_claims']}"]  # fmt: skip
        shown.add_row(*cells)
    return shown


if __name__ == "__main__":
    main()
