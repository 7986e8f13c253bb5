"""Two-level lattice networks: how many ReLUs fold before any is decided, and what compressing makes of the networks.

    python benchmarks/lattice.py [--functions 8 16 24] [--inputs 2] [--time-limit 120] [--json FILE]

The networks are made here (:func:`leo_core.testing.networks.lattice`), as many sets as functions, on [−2, 2] for each
input. ``inspect`` and ``compress`` are asked as a user does it; 'decided as it is' is what the cascade says of the
network when nothing is folded before. Seconds are of CPU. The compressed network is compared with the original at
random points, over the rationals.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

import leo_core
from leo_core import Box, Network, State
from leo_core.deciding import options_of, work_of
from leo_core.execution.budget import Budget
from leo_core.execution.events import silent
from leo_core.stability import decide
from leo_core.testing.networks import lattice

LOW, HIGH = -2.0, 2.0
POINTS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--functions", nargs="*", type=int, default=[8, 16, 24])
    parser.add_argument("--inputs", type=int, default=2)
    parser.add_argument("--time-limit", type=float, default=120.0, help="seconds of the clock for each run")
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args()
    rows = []
    print("| functions | ReLUs | open, decided as it is | seconds | open | seconds | ReLUs left | connections | δ |")
    print("|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    for functions in arguments.functions:
        rows.append(measured(lattice(arguments.inputs, functions, functions), functions, arguments.time_limit))
        print(line(rows[-1]), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


def measured(network: Network, functions: int, limit: float) -> dict[str, Any]:
    """The figures of one network."""
    box = Box.uniform(LOW, HIGH, network.input_size)
    begun = time.process_time()
    with work_of(network, box, options_of({}), Budget.of(limit), silent) as work:
        plain = decide(work)
    middle = time.process_time()
    result = leo_core.compress(network, box, time_limit=limit)
    end = time.process_time()
    for x in box.sample(np.random.default_rng(0), POINTS):
        was, now = (net.evaluate_exact(x)[net.output].fractions() for net in (network, result.network))
        assert max(abs(a - b) for a, b in zip(was, now, strict=True)) <= result.deviation
    return {
        "functions": functions,
        "relus": plain.units,
        "open_plain": plain.count(State.UNDECIDED),
        "seconds_plain": middle - begun,
        "open": result.stability.count(State.UNDECIDED),
        "seconds": end - middle,
        "left": sum(relu.size for relu in result.network.relus),
        "connections": [network.connections, result.network.connections],
        "deviation": result.deviation,
    }


def line(row: dict[str, Any]) -> str:
    """One row of the table."""
    before, after = row["connections"]
    return (
        f"| {row['functions']} | {row['relus']:,} | {row['open_plain']} | {row['seconds_plain']:.1f} | {row['open']} | "
        f"{row['seconds']:.1f} | {row['left']} | {after:,} of {before:,} | {row['deviation']:.1g} |"
    )


if __name__ == "__main__":
    main()
