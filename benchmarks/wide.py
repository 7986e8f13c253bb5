"""What rewriting a wide network costs beside deciding it: 784-2048-2048-10, made here as L1 training leaves them.

    python benchmarks/wide.py [--width 2048] [--json FILE]

A twentieth of the weights is not zero; of the units, two in five are active and nearly half inactive on [0, 1], which
intervals alone tell, so that what the figures show is the rewriting. The network is compressed by
``leo_core.compress``, once for each tolerance.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import leo_core
from leo_core import Affine, Box, Dense, Network, Relu

TOLERANCES = ("exact", "float", "1e-4")
#: Shares of weights that are not zero, of active and of inactive units.
_WEIGHTS, _ACTIVE, _INACTIVE = 0.05, 0.4, 0.45


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args()
    network, box = made(arguments.width)
    started = time.perf_counter()
    stability = leo_core.analyze(network, box)
    deciding = time.perf_counter() - started
    print(f"deciding {deciding:.1f} s: {stability.count(leo_core.State.ACTIVE)} active, "
          f"{stability.count(leo_core.State.INACTIVE)} inactive of {network.units}")  # fmt: skip
    rows = []
    for tolerance in TOLERANCES:
        started = time.perf_counter()
        result = leo_core.compress(network, box, tolerance=tolerance)
        seconds = time.perf_counter() - started
        rows.append({"tolerance": tolerance, "seconds": seconds, "beside deciding": seconds / deciding,
                     "widths": result.network.widths, "connections": result.network.connections,
                     "deviation": result.deviation, "noise": result.float_noise})  # fmt: skip
        print(f"{tolerance}: {seconds:.1f} s, {result.network.widths}, {result.network.connections} connections, "
              f"deviation {result.deviation:.2g} (noise {result.float_noise:.2g})")  # fmt: skip
    if arguments.json:
        arguments.json.write_text(json.dumps({"deciding": deciding, "rows": rows}, indent=1) + "\n")


def made(width: int, seed: int = 0) -> tuple[Network, Box]:
    """The network and its box."""
    rng = np.random.default_rng(seed)
    low, high = np.zeros(784), np.ones(784)
    nodes: list[Affine | Relu] = []
    at = "input"
    for number, rows in enumerate((width, width, 10), 1):
        weights = _sparse(rng, rows, len(low)).astype(np.float32)
        centre, radius = weights @ (0.5 * (low + high)), np.abs(weights) @ (0.5 * (high - low))
        drawn = rng.random(rows)
        # the centre is moved beyond the radius, or to somewhere within it
        within = rng.uniform(-0.5, 0.5, rows)
        where = np.where(drawn < _ACTIVE, 1.1, np.where(drawn < _ACTIVE + _INACTIVE, -1.1, within))
        bias = (where * radius - centre).astype(np.float32)
        nodes.append(Affine(f"dense{number}", (at,), (Dense(weights),), bias))
        at = nodes[-1].name
        if rows == width:
            nodes.append(Relu(f"relu{number}", at, np.zeros(rows)))
            at = nodes[-1].name
            middle = weights @ (0.5 * (low + high)) + bias
            low, high = np.maximum(middle - radius, 0), np.maximum(middle + radius, 0)
    return Network(784, tuple(nodes), at), Box.uniform(0, 1, 784)


def _sparse(rng: np.random.Generator, rows: int, columns: int) -> NDArray[np.float64]:
    weights = rng.standard_normal((rows, columns)) / np.sqrt(_WEIGHTS * columns)
    return np.where(rng.random((rows, columns)) < _WEIGHTS, weights, 0.0)


if __name__ == "__main__":
    main()
