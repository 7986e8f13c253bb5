"""What a rewriting came to, in tables and sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from leo_core.network import Network
from leo_core.report.words import microseconds, times
from leo_core.rewrite.footprint import footprint
from leo_core.rewrite.step import Refusal, Step
from leo_core.text import counts_table, scientific, table

if TYPE_CHECKING:
    from rich.table import Table

#: A bound that is so many times what was seen says nothing.
_SAYS_NOTHING = 10_000


def before_after_table(
    before: Network,
    after: Network,
    bytes_: tuple[int, int] | None = None,
    seconds: tuple[float, float] | None = None,
) -> Table:
    """Widths, connections, parameters and, where they are known, file sizes and latency; and what is left of each.

    ``bytes_`` are those of both networks as LEO writes them, in one format; ``seconds`` are medians for one input.
    """
    made = counts_table("", "before", "after", "left")
    made.add_row("widths", _widths(before), _widths(after), "")
    was, now = footprint(before), footprint(after)
    counts = [
        ("ReLU units", before.units, after.units),
        ("connections", before.connections, after.connections),
        ("… that are not zero", before.nonzeros, after.nonzeros),
        ("… behind the first ReLU", before.inner_connections, after.inner_connections),
        ("parameters", before.parameters, after.parameters),
        ("multiplications for one input", before.operations, after.operations),
        ("operators", was.operators, now.operators),
        ("activations, bytes at most", was.activation_bytes, now.activation_bytes),
    ]
    if bytes_ is not None:
        counts.append(("bytes as LEO writes it", *bytes_))
    for label, first, second in counts:
        made.add_row(label, f"{first:,}", f"{second:,}", f"{second / first:.1%}" if first else "")
    if seconds is not None:
        was_seconds, now_seconds = seconds
        numbers = (f"{microseconds(value)}" for value in seconds)
        made.add_row("µs for one input", *numbers, f"{now_seconds / was_seconds:.1%}" if was_seconds else "")
    made.add_row("largest weight", f"{before.largest_weight:.3g}", f"{after.largest_weight:.3g}", "")
    return made


def steps_table(before: Network, steps: Sequence[Step]) -> Table:
    """What was rewritten, layer by layer, what that took away and what it may change."""
    made = table(("layer", "left"), ("rewritten", "left"), ("connections", "right"), ("change ≤", "right"))
    order = {node.name: place for place, node in enumerate(before.nodes)}
    last = None
    for step in sorted(steps, key=lambda step: order.get(step.layer, -1)):
        name = step.layer if step.layer != last else ""
        last = step.layer
        made.add_row(name, step.what, f"−{step.connections:,}", scientific(step.deviation))
    return made


def refusals_table(refusals: Sequence[Refusal]) -> Table:
    """What was left as it was, and why."""
    made = table(("layer", "left"), ("left as it was", "left"), ("why", "left"))
    for refusal in refusals:
        made.add_row(refusal.layer, refusal.what, refusal.reason)
    return made


def running_error_line(before: float, after: float, seen: float) -> str:
    """What the error of a run in floats can be at most, beside what was seen."""
    if not math.isfinite(before):
        return "no bound on that error was proved: a number might overflow on the way"
    result = scientific(after) if math.isfinite(after) else "no bound"
    bound = f"proved, in any order of summation: at most {scientific(before)} (the result: {result})"
    if not seen:
        return bound
    if before > _SAYS_NOTHING * seen:
        return f"{bound}; such a worst case grows with every layer and says little here, what was seen says more"
    return f"{bound}; a worst case, {times(before / seen)} what was seen"


def certain_line(share: float | None, inputs: int, dtype: str) -> str:
    """Of how many given inputs the class is certain to stay."""
    if share is None:
        return "class certain to stay: not applicable, there is no class of one number or of several outputs"
    return f"class certain to stay when both are run in {dtype}: {share:.2%} of {inputs:,} inputs"


def inputs_lines(report: Mapping[str, Any], dtype: str) -> list[str]:
    """What is said of given inputs: the class certain to stay, and how many the guarantee does not cover."""
    lines = [certain_line(report["certain"], report["inputs"], dtype)] if "certain" in report else []
    if report.get("outside"):
        lines.append(
            f"{report['outside']:,} of {report['inputs']:,} inputs lie outside the domain: the guarantee, and the "
            "largest change, do not hold there"
        )
    return lines


def _widths(network: Network) -> str:
    return "-".join(map(str, network.widths))
