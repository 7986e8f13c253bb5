"""How near the δ that a result claims is to the largest change that is seen.

    python benchmarks/deltas.py [--nets ../shared/nets] [--time-limit 60] [--look 5] [--json FILE] [NAME…]

Compresses the dense real networks, and two of one input made here (``index …``: they learn where a number stands in a
sorted list), with the default tolerance, and has ``verify`` look for the largest change between original and result for
``--look`` seconds: random points, climbing, corners, each evaluated over the rationals. The ratio is what was seen over
what is claimed; networks that nothing but exact rewrites changed are left out of the median. NAME picks by a part of
the name.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from listing import NETS, Case, picked, real

import leo_core
from leo_core import Affine, Dense, Network, Relu
from leo_core.network import Node

WIDTHS = ((1, 128, 128, 128, 1), (1, 64, 64, 64, 64, 64, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", type=Path, default=NETS)
    parser.add_argument("--time-limit", type=float, default=60.0, help="seconds for each network")
    parser.add_argument("--look", type=float, default=5.0, help="seconds for finding a large change")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    rows = []
    print(
        "| network | connections | tolerance | δ | seen | seen / δ | seconds |\n|---|--:|--:|--:|--:|--:|--:|",
        flush=True,
    )
    ours = [Case("index " + "-".join(map(str, widths)), index(widths), "0,1", {}) for widths in WIDTHS]
    for case in (*picked(ours, arguments.names), *real(arguments.nets, arguments.names)):
        rows.append(measured(case, arguments.time_limit, arguments.look))
        print(line(rows[-1]), flush=True)
    ratios = [row["seen"] / row["deviation"] for row in rows if row["deviation"]]
    if ratios:
        print(f"\nseen / δ: {median(ratios):.2f} in the median of {len(ratios)}, {min(ratios):.2f} at least")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


def measured(case: Case, limit: float, look: float) -> dict[str, Any]:
    """The figures of one network."""
    begun = time.process_time()
    result = leo_core.compress(case.model, case.domain, time_limit=limit)
    seconds = time.process_time() - begun
    seen = 0.0
    if result.deviation:
        seen = leo_core.verify(result.original, result.network, result.stability.box, time_limit=look).lower
    connections = [result.original.connections, result.network.connections]
    return {"name": case.name, "connections": connections, "tolerance": result.tolerance, "seconds": seconds,
            "deviation": result.deviation, "import": result.import_deviation, "seen": seen}  # fmt: skip


def line(row: dict[str, Any]) -> str:
    """One row of the table."""
    before, after = row["connections"]
    ratio = f"{row['seen'] / row['deviation']:.2f}" if row["deviation"] else "exact"
    figures = f"{row['tolerance']:.1e} | {row['deviation']:.1e} | {row['seen']:.1e} | {ratio} | {row['seconds']:.1f}"
    return f"| {row['name']} | {after:,} of {before:,} | {figures} |"


def index(widths: tuple[int, ...], steps: int = 1500) -> Network:
    """A network of one input that learnt a distribution function, by Adam (Kingma and Ba 2015), in float32."""
    rng = np.random.default_rng(0)
    keys = np.sort(rng.beta(2, 5, 4000))
    keys = (keys - keys[0]) / (keys[-1] - keys[0])
    layers = list(pairwise(widths))
    weights = [rng.standard_normal((rows, columns)) * np.sqrt(2 / columns) for columns, rows in layers]
    parameters = [*weights, *[rng.uniform(-0.5, 0.5, rows) for _, rows in layers]]
    first, second = ([np.zeros_like(p) for p in parameters] for _ in range(2))
    depth = len(layers)
    for step in range(1, steps + 1):
        at = rng.integers(0, len(keys), 128)
        values = [keys[at][:, None]]
        for k in range(depth):
            z = values[-1] @ parameters[k].T + parameters[depth + k]
            values.append(np.maximum(z, 0) if k < depth - 1 else z)
        slope = (values[-1] - at[:, None] / len(keys)) / 64
        rate = 3e-3 * (1 - step / (steps + 1)) * np.sqrt(1 - 0.99**step) / (1 - 0.9**step)
        gradients = [np.zeros(0)] * (2 * depth)
        for k in reversed(range(depth)):
            gradients[k], gradients[depth + k] = slope.T @ values[k], slope.sum(axis=0)
            slope = slope @ parameters[k] * (values[k] > 0)
        for k, g in enumerate(gradients):
            first[k], second[k] = 0.9 * first[k] + 0.1 * g, 0.99 * second[k] + 0.01 * g * g
            parameters[k] = parameters[k] - rate * first[k] / (np.sqrt(second[k]) + 1e-8)
    nodes: list[Node] = []
    for k in range(depth):
        source = nodes[-1].name if nodes else "input"
        maps = (Dense(parameters[k].astype(np.float32)),)
        nodes.append(Affine(f"dense{k}", (source,), maps, parameters[depth + k].astype(np.float32)))
        if k < depth - 1:
            nodes.append(Relu(f"relu{k}", f"dense{k}", np.zeros(widths[k + 1])))
    return Network(1, tuple(nodes), nodes[-1].name)


if __name__ == "__main__":
    main()
