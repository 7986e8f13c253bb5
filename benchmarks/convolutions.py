"""What compressing convolutional networks leaves of them, by the command: weights, multiplications, bytes.

    python benchmarks/convolutions.py NETS [--out docs/results/convolutions.json] [--only NAME …]

NETS is a folder with an INDEX.json that names networks, each with its domain, and those that are ``convolutional``.
Every network goes through ``leo compress --json`` as a user would call it, and the result runs beside the original on
300 inputs in ONNX Runtime: how far the two outputs are apart there is no proof, but shows what the proof is about. The
table is written beside the JSON file.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from leo_core import Box


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/results/convolutions.json"))
    parser.add_argument("--only", nargs="*", help="parts of names")
    arguments = parser.parse_args()
    rows = []
    for entry in json.loads((arguments.nets / "INDEX.json").read_text())["networks"]:
        wanted = not arguments.only or any(part in entry["file"] for part in arguments.only)
        if not wanted or "convolutional" not in f"{entry.get('kind', '')} {entry['format']}":
            continue
        row = measured(arguments.nets / entry["file"], arguments.nets / entry["domain"])
        rows.append(row)
        print(line(row), flush=True)
    arguments.out.write_text(json.dumps(rows, indent=1) + "\n")
    arguments.out.with_suffix(".md").write_text(page(rows))


def measured(model: Path, domain: Path) -> dict[str, Any]:
    """The figures of one network."""
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / f"small{model.suffix}"
        started = time.perf_counter()
        call = [sys.executable, "-m", "leo_core", "compress", model, small, "--domain", domain, "--json"]
        done = subprocess.run([str(part) for part in call], capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - started
        if done.returncode:
            return {"file": model.name, "refused": done.stderr.strip().splitlines()[-1]}
        found = json.loads(done.stdout)
        share = {key: found["after"][key] / found["before"][key] for key in ("connections", "operations")}
        channels = [layer["channels"] for layer in found["layers"] if "channels" in layer]
        return {
            "file": model.name,
            "seconds": seconds,
            "channels": {key: sum(known[key] for known in channels) for key in channels[0]} if channels else {},
            **share,
            "bytes": found.get("bytes"),
            "deviation": found["deviation"],
            "float_noise": found["float_noise"],
            **beside(model, small, domain),
        }


def beside(model: Path, small: Path, domain: Path) -> dict[str, Any]:
    """Both in ONNX Runtime: the largest difference of outputs on 300 inputs, and milliseconds for one input.

    They take turns on one thread, so that what else the machine does slows both; each time is the median of 300.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    providers = ["CPUExecutionProvider"]
    sessions = [onnxruntime.InferenceSession(path, options, providers=providers) for path in (model, small)]
    given = sessions[0].get_inputs()[0]
    shape = [1 if not isinstance(size, int) else size for size in given.shape]
    box = Box.of(domain, int(np.prod(shape)))
    worst, times = 0.0, []
    for x in [*box.corners(20), *box.sample(np.random.default_rng(0), 280)]:
        example, ran, ends = x.reshape(shape).astype(np.float32), [], [time.perf_counter()]
        for session in sessions:
            ran.append(session.run(None, {session.get_inputs()[0].name: example}))
            ends.append(time.perf_counter())
        times.append(np.diff(ends))
        worst = max(worst, *(float(np.abs(a.ravel() - b.ravel()).max()) for a, b in zip(*ran, strict=True)))
    return {"apart": worst, "milliseconds": (1e3 * np.median(times, axis=0)).tolist()}


def line(row: dict[str, Any]) -> str:
    """One row of the table."""
    if "refused" in row:
        return f"| {row['file']} | {row['refused']} | | | | | | |"
    known = row["channels"]
    constant = known.get("inactive", 0) + known.get("constant", 0)
    return (
        f"| {row['file']} | {constant} of {known.get('total', 0)} | {row['connections']:.1%} | {row['operations']:.1%} "
        f"| {row['deviation']:.1e} | {row['float_noise']:.1e} | {row['apart']:.1e} "
        f"| {' → '.join(f'{ms:.2g}' for ms in row['milliseconds'])} | {row['seconds']:.0f} s |"
    )


def page(rows: list[dict[str, Any]]) -> str:
    """The page of the results."""
    return _PAGE + "\n".join(map(line, rows)) + "\n"


_PAGE = """# Convolutional networks made smaller

By `leo compress` at its defaults, on the domain that each network is made for; by `benchmarks/convolutions.py`. δ is
proved for every input of the domain; the noise is what the original's own arithmetic was seen to err by; 'apart' is the
largest difference seen on 300 inputs, of the whole models in ONNX Runtime; 'ms' is what one input takes there, before
and after, on one thread, the two taking turns. Seconds are of the whole command, reading, proving and writing included.
A network of which nothing goes is as honest a result as any: most networks trained without sparsity stay as they are.

| network | channels constant | weights left | multiplications left | δ | noise | apart | ms | time |
|---|--:|--:|--:|--:|--:|--:|--:|--:|
"""


if __name__ == "__main__":
    main()
