"""Results as rich tables, and as plain text for those who print."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from leo_core.compare import Comparison
from leo_core.network import Network
from leo_core.rewrite.footprint import footprint
from leo_core.rewrite.step import Step
from leo_core.stability.cross_check import CrossCheck
from leo_core.stability.verdict import StabilityMap, State

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table


def stability_table(stability: StabilityMap) -> Table:
    """One row per ReLU layer: how many units are in each state."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("ReLU layer")
    for heading in ("units", "active", "inactive", "unstable", "undecided"):
        table.add_column(heading, justify="right")
    rows = [(layer.relu, layer.units, [layer.count(state) for state in _ORDER]) for layer in stability.layers.values()]
    if len(rows) > 1:
        rows.append(("all", stability.units, [stability.count(state) for state in _ORDER]))
    for name, units, counts in rows:
        table.add_row(name, str(units), *map(str, counts))
    return table


def channels_table(stability: StabilityMap) -> Table:
    """One row per ReLU layer of a network on images: how many channels are of each kind."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("ReLU layer")
    counts = {layer.relu: layer.channel_counts() for layer in stability.layers.values()}
    headings = ("total", "inactive", "constant", "active", "unstable", "undecided")
    for heading in ("channels", *headings[1:], "units each"):
        table.add_column(heading, justify="right")
    for layer in stability.layers.values():
        found = counts[layer.relu]
        row = [str(found[heading]) for heading in headings]
        table.add_row(layer.relu, *row, str(layer.units // max(1, found["total"])))
    table.add_row("all", *(str(sum(found[heading] for found in counts.values())) for heading in headings), "")
    return table


def before_after_table(before: Network, after: Network, bytes_: tuple[int, int] | None = None) -> Table:
    """Widths, connections, parameters and, where they are known, file sizes; and what is left of each.

    ``bytes_`` are those of both networks as LEO writes them, in one format.
    """
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("", "before", "after", "left"):
        table.add_column(heading, justify="right" if heading else "left")
    table.add_row("widths", _widths(before), _widths(after), "")
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
        table.add_row(label, f"{first:,}", f"{second:,}", f"{second / first:.1%}" if first else "")
    table.add_row("largest weight", f"{before.largest_weight:.3g}", f"{after.largest_weight:.3g}", "")
    return table


def steps_table(before: Network, steps: Sequence[Step]) -> Table:
    """What was rewritten, layer by layer, what that took away and what it may change."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading, side in (("layer", "left"), ("rewritten", "left"), ("connections", "right"), ("change ≤", "right")):
        table.add_column(heading, justify=side, overflow="fold")  # type: ignore[arg-type]
    order = {node.name: place for place, node in enumerate(before.nodes)}
    last = None
    for step in sorted(steps, key=lambda step: order.get(step.layer, -1)):
        name = step.layer if step.layer != last else ""
        last = step.layer
        table.add_row(name, step.what, f"−{step.connections:,}", scientific(step.deviation))
    return table


def how_decided(stability: StabilityMap) -> str:
    """What the verdicts rest on."""
    return "claimed by the solver, not proved (--trust solver)" if stability.trusted else "proved"


def outlook(stability: StabilityMap) -> str | None:
    """What a user should know who hoped for more: no ReLU is stable, or the work is not finished."""
    if stability.by_channels:
        return _channels_outlook(stability)
    stable = stability.count(State.ACTIVE) + stability.count(State.INACTIVE)
    undecided = stability.count(State.UNDECIDED)
    if undecided:
        return f"{undecided} of {stability.units} ReLUs are undecided: they are kept; more time may settle them"
    if stability.units and not stable:
        return "no ReLU keeps one state on this domain: there is nothing to gain from stability here"
    return None


def narrowed_lines(stability: StabilityMap, gap: float | None) -> list[str]:
    """How near bounds came to the true extremes, where they were narrowed; and where each output lies."""
    if gap is None:
        return []
    near, total = stability.bounds.within(gap)
    lines = [f"{near:,} of {total:,} bounds are within {gap:g} of the true extreme"]
    for name, values in stability.bounds.outputs.items():
        ends = list(zip(values.lower.ravel().tolist(), values.upper.ravel().tolist(), strict=True))
        for unit, (low, high) in enumerate(ends[:_LISTED]):
            lines.append(f"output '{name}'{f'[{unit}]' if len(ends) > 1 else ''}: between {low:.9g} and {high:.9g}")
        if len(ends) > _LISTED:
            lines.append(f"… and {len(ends) - _LISTED} more values of '{name}' (all of them with --bounds FILE)")
    return lines


def _channels_outlook(stability: StabilityMap) -> str | None:
    counts = [layer.channel_counts() for layer in stability.layers.values()]
    total, undecided = (sum(found[kind] for found in counts) for kind in ("total", "undecided"))
    if undecided:
        return f"{undecided} of {total} channels are undecided: they are kept; --every-unit asks for each unit"
    if not any(found[kind] for found in counts for kind in ("inactive", "constant", "active")):
        return "every channel changes state on this domain: there is nothing to gain from stability here"
    return None


def running_error_line(before: float, after: float, seen: float) -> str:
    """What the error of a run in floats can be at most, and how loose that bound is."""
    if not math.isfinite(before):
        return "no bound on that error was proved"
    loose = f"; loose, {before / seen:,.0f} times as much" if seen else ""
    result = scientific(after) if math.isfinite(after) else "no bound"
    return f"proved, in any order of summation: at most {scientific(before)} (the result: {result}){loose}"


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


def difference_lines(found: Comparison) -> list[str]:
    """Where two networks differ most: the output, both its values, and the input."""
    at = found.largest
    if at is None:
        return []
    what = found.signature.called(at) if len(found.first) > 1 else "the output"
    return [
        f"at this input {what} is {found.first[at]:.9g} in A, {found.second[at]:.9g} in B"
        + (f" (before the {found.tail})" if found.tail else ""),
        _listed(found.witness),
    ]


def _listed(point: Any) -> str:
    if len(point) <= _LISTED:
        return f"input: {', '.join(f'{value:.9g}' for value in point)}"
    first = ", ".join(f"{value:.9g}" for value in point[:_LISTED])
    return f"input of {len(point):,} values: {first}, … (all of them with --json)"


def contradiction_lines(found: CrossCheck) -> list[str]:
    """Verdicts, and answers, of two solvers that contradict each other."""
    lines = [
        f"  {item.relu}, unit {item.unit}: {item.first.name.lower()} with {found.first.solver}, "
        f"{item.second.name.lower()} with {found.second.solver}"
        for item in found.disagreements
    ]
    lines += [f"  question {item.question}: {item.what}" for item in found.contradictions[:_LISTED]]
    if len(found.contradictions) > _LISTED:
        lines.append(f"  … and {len(found.contradictions) - _LISTED} more (all of them with --json)")
    return lines


def as_text(*parts: RenderableType, width: int = 100) -> str:
    """Rich things as plain text without colour, as ``print`` needs it."""
    import io

    from rich.console import Console

    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=False, color_system=None, highlight=False, markup=False)
    for part in parts:
        console.print(part)
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    return "\n".join(line for i, line in enumerate(lines) if line or (i and lines[i - 1])).strip("\n")


def scientific(value: float) -> str:
    """A deviation or a tolerance, short."""
    return "0" if value == 0 else f"{value:.2g}"


#: Numbers, or lines, that are written out.
_LISTED = 12
_ORDER = (State.ACTIVE, State.INACTIVE, State.UNSTABLE, State.UNDECIDED)


def _widths(network: Network) -> str:
    return "-".join(map(str, network.widths))
