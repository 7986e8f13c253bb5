"""Ten properties of an ACAS Xu network, by HiGHS on the network and on what LEO makes of it: verdicts and seconds.

    python benchmarks/acas.py [--nets NETS] [--out docs/results/acas.json] [--limit SECONDS] [--only NUMBER …]

The network is 1_1 of Katz et al. (2017); the boxes and the outputs are those of their properties 1 to 10, in raw units,
all asked of this one network, whatever network they were written for. ``leo compress --property P --property-out Q``
gives SMALL and Q. Both networks are written with big-M from plain intervals (``leo formulate --time-limit 0``) and with
the bounds that LEO proves, and HiGHS looks for a point in each disjunct of P's, or Q's, constraints on outputs. A point
found on SMALL is looked at on the network itself.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from listing import NETS
from programs import Solved, leo, solve

from leo_core.files import read
from leo_core.network import Network
from leo_core.vnnlib import parse

PI = 3.141592
#: Factors of outputs, and what their sum is at most.
Row = tuple[dict[int, float], float]


class Asked(NamedTuple):
    """A property: boxes of the inputs, and disjuncts of what a counterexample's outputs satisfy."""

    boxes: list[list[tuple[float, float]]]
    unsafe: list[list[Row]]


def lowest(unit: int) -> list[list[Row]]:
    """One output is the smallest."""
    return [[({unit: 1.0, other: -1.0}, 0.0) for other in range(5) if other != unit]]


def another_below(unit: int) -> list[list[Row]]:
    """One output is not the smallest: another is below it."""
    return [[({other: 1.0, unit: -1.0}, 0.0)] for other in range(5) if other != unit]


def below_all(units: tuple[int, ...], rest: tuple[int, ...]) -> list[list[Row]]:
    """One of some outputs is below all of the rest."""
    return [[({unit: 1.0, other: -1.0}, 0.0) for other in rest] for unit in units]


_FAR = [(55947.691, 60760.0), (-PI, PI), (-PI, PI), (1145.0, 1200.0), (0.0, 60.0)]
_WIDE = [(0.0, 60760.0), (-PI, PI), (-PI, PI), (100.0, 1200.0), (0.0, 1200.0)]
PROPERTIES = {
    1: Asked([_FAR], [[({0: -1.0}, -1500.0)]]),
    2: Asked([_FAR], [[({other: 1.0, 0: -1.0}, 0.0) for other in range(1, 5)]]),
    3: Asked([[(1500, 1800), (-0.06, 0.06), (3.10, PI), (980, 1200), (960, 1200)]], lowest(0)),
    4: Asked([[(1500, 1800), (-0.06, 0.06), (0, 0), (1000, 1200), (700, 800)]], lowest(0)),
    5: Asked([[(250, 400), (0.2, 0.4), (-PI, -PI + 0.005), (100, 400), (0, 400)]], another_below(4)),
    6: Asked(
        [
            [(12000, 60760), (0.7, PI), (-PI, -PI + 0.005), (100, 1200), (0, 1200)],
            [(12000, 60760), (-PI, -0.7), (-PI, -PI + 0.005), (100, 1200), (0, 1200)],
        ],
        another_below(0),
    ),
    7: Asked([_WIDE], below_all((3, 4), (0, 1, 2))),
    8: Asked([[(0, 60760), (-PI, -0.75 * PI), (-0.1, 0.1), (600, 1200), (600, 1200)]], below_all((2, 3, 4), (0, 1))),
    9: Asked([[(2000, 7000), (-0.4, -0.14), (-PI, -PI + 0.01), (100, 150), (0, 150)]], another_below(3)),
    10: Asked([[(36000, 60760), (0.7, PI), (-PI, -PI + 0.01), (900, 1200), (600, 1200)]], another_below(0)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", type=Path, default=NETS)
    parser.add_argument("--out", type=Path, default=Path("docs/results/acas.json"))
    parser.add_argument("--only", nargs="*", type=int, default=[*PROPERTIES])
    parser.add_argument("--limit", type=float, default=60.0, help="seconds of the clock for each solve")
    arguments = parser.parse_args()
    model = arguments.nets / "acasxu" / "ACASXU_experimental_v2a_1_1.nnet"
    rows = []
    for number in arguments.only:
        rows.append(measured(number, model, arguments.limit))
        print(line(rows[-1]), flush=True)
        arguments.out.write_text(json.dumps({"limit": arguments.limit, "rows": rows}, indent=1) + "\n")
        arguments.out.with_suffix(".md").write_text(page(rows, arguments.limit))


def measured(number: int, model: Path, limit: float) -> dict[str, Any]:
    """The figures of one property."""
    asked = PROPERTIES[number]
    network = read(model)[0].network
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        given, moved, small = folder / "p.vnnlib", folder / "q.vnnlib", folder / "small.leo"
        given.write_text(written(asked))
        call = ("compress", model, small, "--property", given, "--property-out", moved, "--objective", "units")
        found, spent = leo(*call, "--time-limit", limit)
        unsafe = moved_rows(moved.read_text())
        original = decided(model, given, asked.unsafe, ("--time-limit", 0), network, asked, limit)
        reduced = decided(small, moved, unsafe, ("--time-limit", limit), network, asked, limit)
    return {
        "property": number,
        "units": [found["details"][when]["units"] for when in ("before", "after")],
        "deviation": found["deviation"],
        "original": original,
        "reduced": {**reduced, "leo": reduced["leo"] + spent},
        "differ": {original["verdict"], reduced["verdict"]} == {"holds", "counterexample"},
    }


def decided(
    model: Path,
    domain: Path,
    unsafe: list[list[Row]],
    options: tuple[Any, ...],
    network: Network,
    asked: Asked,
    limit: float,
) -> dict[str, Any]:
    """What HiGHS says of each disjunct, until one has a point that is a counterexample on the network itself."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "net.mps"
        program, spent = leo("formulate", model, path, "--domain", domain, *options)
        found = {"verdict": "holds", "leo": spent if options[1] else 0.0, "binaries": program["binaries"], "highs": 0.0}
        for box in asked.boxes:
            for rows in unsafe:
                solved = solve(path, limit, list(named(program, rows, box)))
                found["highs"] += solved.seconds
                if is_counterexample(solved, program, network, asked):
                    return found | {"verdict": "counterexample"}
                if solved.status != "Infeasible":
                    found["verdict"] = "open"
    return found


def named(
    program: dict[str, Any], rows: list[Row], box: list[tuple[float, float]]
) -> Iterator[tuple[dict[str, float], float]]:
    """Constraints on outputs, and the box, as rows over columns."""
    for factors, side in rows:
        yield {program["outputs"][unit]: factor for unit, factor in factors.items()}, side
    for column, (low, high) in zip(program["inputs"], box, strict=True):
        yield {column: 1.0}, float(high)
        yield {column: -1.0}, -float(low)


def is_counterexample(solved: Solved, program: dict[str, Any], network: Network, asked: Asked) -> bool:
    """Whether the point, within a box, is unsafe on the network itself."""
    if not solved.columns or not math.isfinite(solved.value):
        return False
    x = np.array([solved.columns[name] for name in program["inputs"]])
    for box in asked.boxes:
        at = np.clip(x, *np.array(box, dtype=np.float64).T)
        y = network.evaluate(at)
        for rows in asked.unsafe:
            if all(sum(factor * y[unit] for unit, factor in factors.items()) <= side for factors, side in rows):
                return True
    return False


def written(asked: Asked) -> str:
    """The property in VNN-LIB."""
    lines = [f"(declare-const {letter}_{place} Real)" for letter in "XY" for place in range(5)]
    boxes = [
        " ".join(f"(>= X_{i} {float(low)!r}) (<= X_{i} {float(high)!r})" for i, (low, high) in enumerate(box))
        for box in asked.boxes
    ]
    joined = " ".join(f"(and {box})" for box in boxes)
    lines.append(f"(assert (or {joined}))" if len(boxes) > 1 else f"(assert {joined})")
    conjunctions = [" ".join(map(atom, rows)) for rows in asked.unsafe]
    lines.append(f"(assert (or {' '.join(f'(and {text})' for text in conjunctions)}))")
    return "\n".join(lines) + "\n"


def atom(row: Row) -> str:
    """A row in VNN-LIB: one output against a number, or two against each other."""
    factors, side = row
    if len(factors) == 1:
        return f"(>= Y_{next(iter(factors))} {-side!r})"
    above, below = (next(unit for unit, factor in factors.items() if factor == sign) for sign in (-1.0, 1.0))
    return f"(<= Y_{below} Y_{above})"


def moved_rows(text: str) -> list[list[Row]]:
    """What the last assertion of a moved property says of the outputs."""
    (expression, _) = parse(text, "the moved property")[-1]
    return [[_row(item) for item in conjunction[1:]] for conjunction in expression[1][1:]]


def _row(item: Any) -> Row:
    operator, left, right = item
    if operator == ">=":
        return {int(left[2:]): -1.0}, -float(right)
    if isinstance(left, str):
        return {int(left[2:]): 1.0, int(right[2:]): -1.0}, 0.0
    return {int(left[1][2:]): 1.0, int(left[2][2:]): -1.0}, float(right)


def line(row: dict[str, Any]) -> str:
    """One row of the table."""

    def shown(way: dict[str, Any]) -> str:
        return f"{way['binaries']} | {way['verdict']} | {way['leo'] + way['highs']:.1f} s ({way['leo']:.1f})"

    before, after = row["units"]
    differ = "**yes**" if row["differ"] else "no"
    cells = f"{shown(row['original'])} | {after} of {before} | {row['deviation']:.1e} | {shown(row['reduced'])}"
    return f"| {row['property']} | {cells} | {differ} |"


def page(rows: list[dict[str, Any]], limit: float) -> str:
    """The page of the results."""
    return _PAGE.format(limit=limit) + "\n".join(map(line, rows)) + "\n"


_PAGE = """# Properties of an ACAS Xu network, before and after

The boxes and outputs of properties of Katz et al. (2017), all asked of network 1_1, by HiGHS on one thread: of
the network with big-M from plain intervals, and of what `leo compress --property P --property-out Q --objective units`
makes of it, with Q and with bounds that LEO proves. Seconds are of CPU and count all of LEO (its share in parentheses),
by `benchmarks/acas.py`; each solve was given {limit:.0f} s of the clock, on a machine that was busy with other work, so
that 'open' says little. A verdict differs where one way says 'holds' and the other shows a counterexample.

| property | binaries | verdict | time | ReLUs left | δ | binaries | verdict | time | differs |
|---|--:|---|--:|--:|--:|--:|---|--:|---|
"""


if __name__ == "__main__":
    main()
