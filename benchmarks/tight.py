"""How near bounds are to the true extremes, as they are and narrowed, beside the optima that HiGHS finds.

    python benchmarks/tight.py [--nets NETS] [--out docs/results/tight.json] [--gap GAP] [--limit SECONDS]

By ``leo inspect --bounds``, without and with ``--tight GAP``, on the digits network and on an ACAS Xu network over a
small box. The largest and the smallest value of each output are also found by HiGHS, on the program that ``leo
formulate`` writes: an optimum of HiGHS outside the bounds, by more than it tolerates, is a fault and stops this.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from listing import NETS
from programs import leo, solve

from leo_core import Bounds

#: What an optimum of HiGHS may be off by, relative to the values.
SLACK = 1e-5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", type=Path, default=NETS)
    parser.add_argument("--out", type=Path, default=Path("docs/results/tight.json"))
    parser.add_argument("--gap", type=float, default=0.01)
    parser.add_argument("--limit", type=float, default=600.0, help="seconds of the clock for each command and solve")
    parser.add_argument("--only", nargs="*", help="parts of names")
    arguments = parser.parse_args()
    digits, acas = Path("docs/examples/digits"), arguments.nets / "acasxu" / "ACASXU_experimental_v2a_1_1"
    cases = [
        ("digits", digits / "digits.onnx", digits / "digits.domain.json"),
        ("ACAS Xu 1_1, box of property 3", acas.with_suffix(".nnet"), Path(f"{acas}.prop_3.domain.json")),
    ]
    rows = []
    for case in cases:
        if arguments.only and not any(part in case[0] for part in arguments.only):
            continue
        rows.append(measured(*case, arguments.gap, arguments.limit))
        print(line(rows[-1]), flush=True)
        arguments.out.write_text(json.dumps({"gap": arguments.gap, "rows": rows}, indent=1) + "\n")
        arguments.out.with_suffix(".md").write_text(page(rows, arguments.gap))


def measured(name: str, model: Path, domain: Path, gap: float, limit: float) -> dict[str, Any]:
    """The figures of one network."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        call = ("inspect", model, "--domain", domain, "--time-limit", limit)
        _, plain = leo(*call, "--bounds", folder / "plain.npz")
        told, narrowed = leo(*call, "--bounds", folder / "tight.npz", "--tight", gap)
        loose, tight = (Bounds.load(folder / f"{kind}.npz") for kind in ("plain", "tight"))
        optima, seconds = exact(model, domain, folder, limit)
    lower, upper = (np.concatenate([side.ravel() for side in ends]) for ends in _outputs(tight))
    slack = SLACK * np.maximum(1.0, np.abs(upper))
    least, most = np.array(optima).T
    if (most > upper + slack).any() or (least < lower - slack).any():
        raise SystemExit(f"{name}: an optimum lies outside the bounds")
    over = np.concatenate([side.ravel() for side in _outputs(loose)[1]]) - most
    return {
        "name": name,
        "bounds": told["tight"]["of"],
        "within": told["tight"]["within"],
        "plain_seconds": plain,
        "tight_seconds": narrowed,
        "highs_seconds": seconds,
        "proved_optima": int(np.isfinite(most).sum() + np.isfinite(least).sum()),
        "above": {"plain": _shown(over), "tight": _shown(upper - most)},
    }


def _outputs(bounds: Bounds) -> tuple[list[np.ndarray], list[np.ndarray]]:
    values = bounds.outputs.values()
    return [found.lower for found in values], [found.upper for found in values]


def _shown(over: np.ndarray) -> list[float]:
    known = over[np.isfinite(over)]
    return [float(np.median(known)), float(known.max())] if len(known) else []


def exact(model: Path, domain: Path, folder: Path, limit: float) -> tuple[list[tuple[float, float]], float]:
    """(smallest, largest) of each output by HiGHS, infinite inwards where it did not get there; and its seconds."""
    path, spent, found = folder / "net.mps", 0.0, []
    program, _ = leo("formulate", model, path, "--domain", domain)
    for output in program["outputs"]:
        ends = []
        for sign in (-1.0, 1.0):
            solved = solve(path, limit, objective={output: sign})
            spent += solved.seconds
            ends.append(sign * solved.value if solved.optimal else -sign * np.inf)
        found.append((ends[0], ends[1]))
    return found, spent


def line(row: dict[str, Any]) -> str:
    """One row of the table."""
    median, largest = row["above"]["plain"] or (np.nan, np.nan)
    near, nearest = row["above"]["tight"] or (np.nan, np.nan)
    within = f"{row['within']} of {row['bounds']}"
    return (
        f"| {row['name']} | {within} | {median:.3g}, {largest:.3g} | {near:.2g}, {nearest:.2g} "
        f"| {row['plain_seconds']:.1f} s | {row['tight_seconds']:.0f} s | {row['highs_seconds']:.0f} s |"
    )


def page(rows: list[dict[str, Any]], gap: float) -> str:
    """The page of the results."""
    return _PAGE.format(gap=gap) + "\n".join(map(line, rows)) + "\n"


_PAGE = """# How near bounds are to the true extremes

By `leo inspect --bounds`, as it is and with `--tight {gap:g}`, by `benchmarks/tight.py`: how many bounds, of units and
outputs, are within {gap:g} of the true extreme, by how much the upper bounds of the outputs exceed the maxima that
HiGHS proves (median and largest), and seconds of CPU: for both commands, and for HiGHS on the minima and maxima of
the outputs alone. No optimum lies outside a bound. The machine was busy with other work, and each command and each
solve was limited by the clock.

| network | within | plain: above the maxima | narrowed | plain | narrowed | HiGHS |
|---|--:|--:|--:|--:|--:|--:|
"""


if __name__ == "__main__":
    main()
