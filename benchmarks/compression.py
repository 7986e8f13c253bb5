"""How small networks get: LEO's own operations, the nearest published rule, and all passes, at three tolerances.

    python benchmarks/compression.py [--nets ../shared/nets] [--time-limit 60] [--json FILE] [NAME…]

Each network is compressed nine times by ``leo_core.compress``, as a user does it, from its file, with what reading it
costs and the door; it is decided once, and a checkpoint keeps the verdicts. ``leo`` drops inactive units, merges
dependent active ones and folds stable layers (Serra, Kumar, Ramalingam 2020); ``min-width`` also passes the active
units of a layer through as many as its narrower side has (REDNet 2023); ``all`` is what LEO does by default. For the
default result: the noise of running it against the original's (and, in the JSON, the proved bound on each), the largest
weight, test images classified differently (MNIST), and how much faster it runs in onnxruntime on one thread, beside the
ratio of the connections.
NAME picks by a part of the name.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from listing import NETS, Case, picked, real

import leo_core
from leo_core import Box, Network, State
from leo_core.files import write
from leo_core.options import PASSES
from leo_core.report.json import number_json

TOLERANCES = ("exact", "float", "1e-4")
BATCHES = (1, 64)
ROOT = Path(__file__).parents[1]
#: Seconds for each unit that is open still when a network is rewritten once more.
_AGAIN = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", type=Path, default=NETS)
    parser.add_argument("--time-limit", type=float, default=60.0, help="seconds to decide a network")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    rows = []
    for name, model, domain, _ in cases(arguments.nets, arguments.names):
        rows.append(measure(name, model, domain, arguments.time_limit, arguments.nets.parent / "data" / "mnist.npz"))
        print(f"{name}: {rows[-1]['results']['all']['float']['widths']}", file=sys.stderr, flush=True)
    show(rows)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


def cases(nets: Path, names: list[str]) -> Iterator[Case]:
    digits = ROOT / "docs" / "examples" / "digits"
    demo = Case("digits (ships with LEO)", digits / "digits.onnx", digits / "digits.domain.json", {})
    yield from picked([demo], names)
    yield from real(nets, names)


def measure(name: str, model: Path, domain: Path, time_limit: float, mnist: Path) -> dict[str, Any]:
    results: dict[tuple[str, str], leo_core.CompressionResult] = {}
    with tempfile.TemporaryDirectory() as folder:
        decided = Path(folder) / "decided"
        leo_core.analyze(model, domain, time_limit=time_limit, checkpoint=decided)
        for passes in PASSES:
            for tolerance in TOLERANCES:
                results[passes, tolerance] = leo_core.compress(
                    model, domain, tolerance=tolerance, passes=passes, time_limit=time_limit, checkpoint=decided,
                    unit_time_limit=_AGAIN,
                )  # fmt: skip
    default = results["all", "float"]
    network = default.original
    row: dict[str, Any] = {
        "name": name,
        "widths": network.widths,
        "connections": network.connections,
        "float_noise": default.float_noise,
        "float_noise_after": default.float_noise_after,
        "running_error": number_json(default.running_error),
        "running_error_after": number_json(default.running_error_after),
        "import_deviation": default.import_deviation,
        "largest_weight": network.largest_weight,
        "largest_weight_after": default.network.largest_weight,
        "undecided": default.stability.count(State.UNDECIDED),
        "door": default.door,
        "results": {
            passes: {tolerance: figures(results[passes, tolerance]) for tolerance in TOLERANCES} for passes in PASSES
        },
    }
    if model.parent.name == "mnist_l1":
        row |= classified(network, default.network, mnist)
    row["speed-up"] = speed_up(network, default.network)
    return row


def figures(result: leo_core.CompressionResult) -> dict[str, Any]:
    before, after = result.original, result.network
    return {
        "widths": after.widths,
        "connections": after.connections,
        "removed": 1 - after.connections / before.connections,
        "deviation": result.deviation,
        "seconds": round(result.seconds, 3),
    }


def classified(before: Network, after: Network, mnist: Path) -> dict[str, Any]:
    """Test images right before and after, and how many are classified differently, all in float32."""
    if not mnist.exists():
        return {}
    data = np.load(mnist)
    images = data["test_images"].reshape(len(data["test_images"]), -1).astype(np.float32) / np.float32(255)
    was, now = (net.evaluate(images, np.float32).argmax(axis=1) for net in (before, after))
    labels = data["test_labels"]
    return {
        "images": len(labels),
        "right": int((was == labels).sum()),
        "right_after": int((now == labels).sum()),
        "changed": int((was != now).sum()),
    }


def speed_up(before: Network, after: Network) -> dict[str, float]:
    """Time before over time after, by batch size: medians of runs that take turns, 25 by 25."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    sessions = []
    with tempfile.TemporaryDirectory() as folder:
        for number, network in enumerate((before, after)):
            path = write(network, Path(folder) / f"{number}.onnx").path
            sessions.append(onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]))
    result = {}
    box = Box.uniform(0, 1, before.input_size)
    for batch in BATCHES:
        points = box.sample(np.random.default_rng(0), batch).astype(before.dtype)
        shape = before.signature.input_shape or (before.input_size,)
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(12):
            for session, spent in zip(sessions, times, strict=True):
                feed = {session.get_inputs()[0].name: points.reshape(batch, *shape)}
                for _ in range(25):
                    begun = time.perf_counter()
                    session.run(None, feed)
                    spent.append(time.perf_counter() - begun)
        result[str(batch)] = float(np.median(times[0]) / np.median(times[1]))
    return result


def show(rows: list[dict[str, Any]]) -> None:
    """Two Markdown tables."""
    columns = [(passes, tolerance) for tolerance in TOLERANCES for passes in PASSES[::-1]]
    print("| network | widths | connections |", " | ".join(f"{p}, {t}" for p, t in columns), "|")
    print("|---|---|--:|" + "--:|" * len(columns))
    for row in rows:
        cells = [f"{row['results'][passes][tolerance]['removed']:.1%}" for passes, tolerance in columns]
        print("|", " | ".join([row["name"], widths(row["widths"]), f"{row['connections']:,}", *cells]), "|")
    headings = ("network", "becomes", "δ", "float noise", "after", "largest weight", "after", "changed",
                "fewer connections", *(f"faster, batch {batch}" for batch in BATCHES))  # fmt: skip
    print("\n|", " | ".join(headings), "|")
    print("|---|---|" + "--:|" * (len(headings) - 2))
    for row in rows:
        found = row["results"]["all"]["float"]
        fewer = f"{row['connections'] / found['connections']:.1f} ×" if found["connections"] else "all gone"
        cells = [
            row["name"],
            widths(found["widths"]),
            *(f"{value:.1e}" for value in (found["deviation"], row["float_noise"], row["float_noise_after"])),
            *(f"{row[key]:.3g}" for key in ("largest_weight", "largest_weight_after")),
            f"{row['changed']} of {row['images']:,}" if "changed" in row else "",
            fewer,
            *(f"{value:.1f} ×" for value in row["speed-up"].values()),
        ]
        print("|", " | ".join(cells), "|")


def widths(values: list[int]) -> str:
    return "-".join(map(str, values))


if __name__ == "__main__":
    main()
