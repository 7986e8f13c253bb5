"""How small networks get, by a method that proves what it does: one Markdown table.

    python benchmarks/sizes.py [--nets ../shared/nets] [--time-limit 120] [FILE…]

For each network: connections before and after, the proved deviation δ and the original's own float noise;
and the time to decide. How that compares with other methods: ``benchmarks/stability.py``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import leo_core
from leo_core import State

DEFAULT = (
    "hello_world/hello_world.onnx",
    "pyscipopt_ml/sk_3_42_0_0_relu.onnx",
    "sb3/sac_MountainCarContinuous.onnx",
    "sb3/dqn_MountainCar.onnx",
    "overt/single_pendulum_small_controller.onnx",
    "coav/reluBenchmark0.00491881370544s_UNSAT.nnet",
    "coav/reluBenchmark0.0658059120178s_UNSAT.nnet",
    "mnist_l1/mnist_100-100_0.0005.onnx",
    "mnist_l1/mnist_400-400_0.0002.onnx",
    "mnist_l1/mnist_800-800_0.0001.onnx",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nets", type=Path, default=Path(__file__).parents[2] / "shared" / "nets")
    parser.add_argument("--time-limit", type=float, default=120.0)
    parser.add_argument("files", nargs="*", default=DEFAULT)
    arguments = parser.parse_args()
    index = {entry["file"]: entry for entry in json.loads((arguments.nets / "INDEX.json").read_text())["networks"]}
    print("| network | widths | | connections | | left | δ (proved) | float noise | undecided | s |")
    print("|---|---|---|--:|--:|--:|--:|--:|--:|--:|")
    ours = Path(__file__).parents[1] / "docs" / "examples" / "digits"
    row("digits (ships with LEO)", ours / "digits.onnx", ours / "digits.domain.json", arguments.time_limit)
    for file in arguments.files:
        row(file, arguments.nets / file, arguments.nets / index[file]["domain"], arguments.time_limit)


def row(name: str, path: Path, domain: Path, time_limit: float) -> None:
    result = leo_core.compress(path, domain, time_limit=time_limit)
    before, after = result.original, result.network
    cells = (
        name.rpartition("/")[2],
        "-".join(map(str, before.widths)),
        "-".join(map(str, after.widths)),
        f"{before.connections:,}",
        f"{after.connections:,}",
        f"{after.connections / before.connections:.1%}",
        f"{result.deviation:.1e}",
        f"{result.float_noise:.1e}",
        str(result.stability.count(State.UNDECIDED)),
        f"{result.stability.seconds:.1f}",
    )
    print("|", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
