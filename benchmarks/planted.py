"""Random networks on images with planted structure: is each plant found, is δ never exceeded, is what is written right?

    python benchmarks/planted.py [--count 200] [--jobs 1] [--out docs/results/planted.json] [--certify-every 10]

Each network goes through :func:`leo_core.compress` and to a file in ONNX, PyTorch's and Keras' formats in turn, which
the door runs and compares. |f − g| is evaluated over the rationals at corners and samples of the box. Every few
networks a certificate is written and checked. Seeds count from 0; a plant that is not found is named.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

import leo_core
from leo_core import Box
from leo_core.network import Network
from leo_core.storage import save
from leo_core.testing.planted import KINDS, planted

SUFFIXES = (".onnx", ".pt2", ".keras")
#: What may be spent, relative to the largest output seen: merged filters round.
SPENT = 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--certify-every", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("docs/results/planted.json"))
    arguments = parser.parse_args()
    seeds = range(arguments.first, arguments.first + arguments.count)
    certified = [bool(arguments.certify_every) and seed % arguments.certify_every == 0 for seed in seeds]
    rows = []
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
        for row in pool.map(examined, seeds, certified):
            rows.append(row)
            if row["missed"] or not row["within"] or row.get("certificate") is False:
                print(json.dumps(row), flush=True)
    arguments.out.write_text(json.dumps({"networks": len(rows), **summary(rows)}, indent=1) + "\n")
    print(arguments.out.read_text())


def examined(seed: int, certify: bool) -> dict[str, Any]:
    """What came of the network of one seed."""
    with tempfile.TemporaryDirectory() as folder:
        return _examined(seed, Path(folder), certify)


def _examined(seed: int, folder: Path, certify: bool) -> dict[str, Any]:
    case = planted(seed)
    box = Box.uniform(0, 1, case.network.input_size)
    rng = np.random.default_rng(seed)
    points = np.vstack([box.sample(rng, 3), box.corners(3)])
    largest = float(np.abs(case.network.evaluate(points)).max())
    model = folder / "model.leo"
    save(case.network, model)
    started = time.perf_counter()
    found = leo_core.compress(model, box, tolerance=SPENT * largest, evidence=certify)
    seconds = time.perf_counter() - started
    apart = max(distance(case.network, found.network, x) for x in points)
    left = case.left(found.network)
    path = folder / f"small{SUFFIXES[seed % len(SUFFIXES)]}"
    written = found.written(path)
    row: dict[str, Any] = {
        "seed": seed,
        "plants": sorted(case.plants),
        "around": case.around,
        "missed": {name: [left[name], most] for name, most in case.most.items() if left[name] > most},
        "within": apart <= Fraction(found.deviation),
        "deviation": found.deviation,
        "door": written.door,
        "format": path.suffix,
        "seconds": seconds,
    }
    if certify:
        certificate = folder / "certificate"
        try:
            found.certify(certificate, path)
            leo_core.check(certificate, model, path, box)
            row["certificate"] = True
        except leo_core.LeoError as error:
            row["certificate"], row["refused"] = False, str(error)
    return row


def distance(first: Network, second: Network, x: Any) -> Fraction:
    """max |first − second| at one input, exactly."""
    was, now = (network.evaluate_exact(x)[network.output].fractions() for network in (first, second))
    return max(abs(a - b) for a, b in zip(was, now, strict=True))


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of all."""
    planted_in = Counter(kind for row in rows for kind in row["plants"])
    certified = [row["certificate"] for row in rows if "certificate" in row]
    return {
        "planted": {kind: planted_in[kind] for kind in KINDS},
        "all plants found": sum(not row["missed"] for row in rows),
        "difference within δ": sum(row["within"] for row in rows),
        "door agrees": sum(row["door"] == "agrees" for row in rows),
        "written as": dict(Counter(row["format"] for row in rows)),
        "certificates accepted": f"{sum(certified)} of {len(certified)}",
        "missed": [row for row in rows if row["missed"]],
        "seconds, median": float(np.median([row["seconds"] for row in rows])),
    }


if __name__ == "__main__":
    main()
