"""Verdicts in tables and sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leo_core.stability.cross_check import CrossCheck
from leo_core.stability.verdict import StabilityMap, State
from leo_core.text import counts_table

if TYPE_CHECKING:
    from rich.table import Table

_ORDER = (State.ACTIVE, State.INACTIVE, State.UNSTABLE, State.UNDECIDED)
_KINDS = ("inactive", "constant", "active", "unstable", "undecided")
#: So many contradictions, or values, are written out.
_LISTED = 12


def verdicts_table(stability: StabilityMap) -> Table:
    """One row per ReLU layer: how many channels, where they were asked for, or units are of each kind."""
    return channels_table(stability) if stability.by_channels else stability_table(stability)


def stability_table(stability: StabilityMap) -> Table:
    """One row per ReLU layer: how many units are in each state."""
    table = counts_table("ReLU layer", "units", "active", "inactive", "unstable", "undecided")
    rows = [(layer.relu, layer.units, [layer.count(state) for state in _ORDER]) for layer in stability.layers.values()]
    if len(rows) > 1:
        rows.append(("all", stability.units, [stability.count(state) for state in _ORDER]))
    for name, units, counts in rows:
        table.add_row(name, str(units), *map(str, counts))
    return table


def channels_table(stability: StabilityMap) -> Table:
    """One row per ReLU layer of a network on images: how many channels are of each kind."""
    table = counts_table("ReLU layer", "channels", *_KINDS, "units each")
    counts = {layer.relu: layer.channel_counts() for layer in stability.layers.values()}
    for layer in stability.layers.values():
        found = counts[layer.relu]
        row = [str(found[heading]) for heading in ("total", *_KINDS)]
        table.add_row(layer.relu, *row, str(layer.units // max(1, found["total"])))
    sums = (str(sum(found[heading] for found in counts.values())) for heading in ("total", *_KINDS))
    table.add_row("all", *sums, "")
    return table


def how_decided(stability: StabilityMap) -> str:
    """What the verdicts rest on."""
    return "claimed by the solver, not proved (--trust solver)" if stability.trusted else "proved"


def decided_line(stability: StabilityMap, seconds: float) -> str:
    """By what, with what, in which time."""
    return f"{stability.strategy} strategy, solver {stability.solver}, {seconds:.1f} s"


def outlook(stability: StabilityMap) -> str | None:
    """What a user should know who hoped for more: no ReLU is stable, or the work is not finished."""
    if stability.by_channels:
        return _channels_outlook(stability)
    stable = stability.count(State.ACTIVE) + stability.count(State.INACTIVE)
    undecided = stability.count(State.UNDECIDED)
    if undecided:
        return (
            f"{undecided} of {stability.units} ReLUs are undecided: they are kept; more time may settle them, and so "
            "may a tighter domain"
        )
    if stability.units and not stable:
        return f"no ReLU keeps one state on this domain: there is nothing to gain from stability here; {_TRY}"
    return None


_TRY = "a domain as tight as the inputs truly are may help, and so does training with an L1 penalty"


def _channels_outlook(stability: StabilityMap) -> str | None:
    counts = [layer.channel_counts() for layer in stability.layers.values()]
    total, undecided = (sum(found[kind] for found in counts) for kind in ("total", "undecided"))
    if undecided:
        return (
            f"{undecided} of {total} channels are undecided: they are kept; a tighter domain decides more, and "
            "--every-unit asks for each unit"
        )
    if not any(found[kind] for found in counts for kind in ("inactive", "constant", "active")):
        return f"every channel changes state on this domain: there is nothing to gain from stability here; {_TRY}"
    return None


def verdict_lines(stability: StabilityMap) -> list[str]:
    """What is said below the table."""
    lines = [f"{how_decided(stability)}; {decided_line(stability, stability.seconds)}"]
    lines += ["stopped early"] if stability.interrupted else []
    return [*lines, *filter(None, [outlook(stability)])]


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
