"""Where things stand in the report's pictures: plain numbers, in pixels downwards and per cent across.

All of it is worked out from the JSON of a result. A picture is as wide as its page; text stays as large as text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

#: In the order in which they are drawn; what can go comes first.
STATES = ("inactive", "constant", "active", "unstable", "undecided")
#: Pixels from one layer of the network to the next, and those of its block: of a few layers, and of many.
_FEW, _OF_FEW, _OF_MANY = 10, (38, 22), (24, 12)
#: Pixels between an arc and the blocks: for the shortest, for each layer that it skips, and at most.
_NEAR, _FURTHER, _FURTHEST = 5, 2, 22
#: Pixels of one picture of ranges.
RANGES_HEIGHT = 96
#: The share of ranges that fits into their picture; further ones are cut off.
_FITTING = 0.9


@final
@dataclass(frozen=True)
class Block:
    """A layer: its name, its channels before and after, and both as per cent of the widest one."""

    name: str
    before: int
    after: int
    y: int
    middle: float
    was: float
    now: float
    follows: bool


@final
@dataclass(frozen=True)
class Arc:
    """A connection that skips layers: from and to which height, how far it reaches out, and what it joins."""

    begin: float
    end: float
    reach: int
    what: str


@final
@dataclass(frozen=True)
class Drawing:
    """The network, layer by layer, downwards."""

    blocks: tuple[Block, ...]
    arcs: tuple[Arc, ...]
    height: int
    pitch: int
    block: int


def network_drawing(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> Drawing:
    """Blocks for the input, the ReLU layers, sums and the output of the network before; skips are arcs."""
    nodes = {str(node["name"]): node for node in before}
    left = {str(node["name"]): int(node["channels"]) for node in after}
    shown = _shown(before)
    widest = max([int(nodes[name]["channels"]) for name in shown], default=0) or 1
    place = {name: number for number, name in enumerate(shown)}
    pitch, thick = _OF_FEW if len(shown) <= _FEW else _OF_MANY
    blocks, arcs = [], []
    for number, name in enumerate(shown):
        was, y = int(nodes[name]["channels"]), number * pitch + 4
        now = min(was, left.get(name, 0))
        sources = sorted({place[source] for source in _sources(nodes, name, place)})
        blocks.append(
            Block(
                name=_called(nodes[name]),
                before=was,
                after=now,
                y=y,
                middle=y + thick / 2,
                was=100 * was / widest,
                now=100 * now / widest,
                follows=number - 1 in sources,
            )
        )
        for source in sources:
            if source < number - 1:
                reach = min(_FURTHEST, _NEAR + _FURTHER * (number - source))
                what = f"{blocks[source].name} → {blocks[number].name}"
                arcs.append(Arc(blocks[source].middle, blocks[number].middle, reach, what))
    return Drawing(tuple(blocks), tuple(arcs), len(shown) * pitch + 4, pitch, thick)


def _shown(nodes: Sequence[Mapping[str, Any]]) -> list[str]:
    """The nodes that get a block; those of poolings get none, nor a sum that one ReLU reads right away."""
    readers: dict[str, list[Mapping[str, Any]]] = {}
    for node in nodes:
        for source in node["reads"]:
            readers.setdefault(str(source), []).append(node)
    shown = []
    for node in nodes:
        reading = readers.get(str(node["name"]), [])
        if node["kind"] == "affine":
            alone = len(reading) == 1 and reading[0]["kind"] == "relu"
            block = not reading or (len(node["reads"]) > 1 and not alone)
        else:
            block = True
        if block and not (reading and "pool" in str(node["type"]).lower()):
            shown.append(str(node["name"]))
    return shown


def _sources(nodes: Mapping[str, Mapping[str, Any]], name: str, shown: Mapping[str, int]) -> set[str]:
    """The blocks whose values reach a node without passing another block."""
    found, left, seen = set(), [str(source) for source in nodes[name]["reads"]], set()
    while left:
        source = left.pop()
        if source in shown:
            found.add(source)
        elif source not in seen:
            seen.add(source)
            left.extend(str(other) for other in nodes[source]["reads"])
    return found


def _called(node: Mapping[str, Any]) -> str:
    return str(node["layer"] or node["name"])


@final
@dataclass(frozen=True)
class Part:
    """A piece of a bar, in per cent: what it stands for, and how many."""

    what: str
    count: int
    begin: float
    width: float


def stacked(counts: Mapping[str, int]) -> tuple[Part, ...]:
    """A bar of all states that occur, one after the other."""
    total = sum(counts.values()) or 1
    parts, begin = [], 0.0
    for state in STATES:
        if count := int(counts.get(state, 0)):
            width = 100 * count / total
            parts.append(Part(state, count, begin, width))
            begin += width
    return tuple(parts)


@final
@dataclass(frozen=True)
class Range:
    """The range of one pre-activation, from ``top`` (pixels) downwards."""

    state: str
    x: float
    width: float
    top: float
    height: float
    lower: float | None
    upper: float | None


@final
@dataclass(frozen=True)
class Ranges:
    """The ranges of a layer's pre-activations around zero; ``end`` is where the picture ends, above and below."""

    bars: tuple[Range, ...]
    end: float
    cut: bool


def ranges_drawing(ranges: Mapping[str, Any]) -> Ranges:
    """One upright bar for each range; zero is halfway down."""
    lower, upper, states = ranges["lower"], ranges["upper"], ranges["state"]
    reaches = sorted(abs(float(value)) for value in (*lower, *upper) if value is not None)
    end = (reaches[min(len(reaches) - 1, int(_FITTING * len(reaches)))] if reaches else 0.0) or 1.0
    half, step = RANGES_HEIGHT / 2, 100 / max(1, len(states))

    def height(value: float | None, missing: float) -> float:
        at = missing if value is None else max(-1.0, min(1.0, float(value) / end))
        return half - at * (half - 2)

    bars = []
    for number, (low, high, state) in enumerate(zip(lower, upper, states, strict=True)):
        top, bottom = height(high, 1.0), height(low, -1.0)
        if bottom - top < 1:  # a constant is seen, too
            top, bottom = (top + bottom - 1) / 2, (top + bottom + 1) / 2
        bars.append(Range(_state(state), number * step + step / 8, 0.75 * step, top, bottom - top, low, high))
    unknown = any(value is None for value in (*lower, *upper))
    return Ranges(tuple(bars), end, unknown or bool(reaches and reaches[-1] > end))


def _state(name: object) -> str:
    return str(name) if name in STATES else "undecided"


@final
@dataclass(frozen=True)
class Fall:
    """One rule's part of a waterfall: what it took away, from where to where in per cent, and what it may change."""

    what: str
    removed: int
    begin: float
    width: float
    deviation: float


def waterfall(before: int, steps: Sequence[Mapping[str, Any]], words: Mapping[str, str]) -> tuple[Fall, ...]:
    """What each rule, in words, removed of so many connections, in the order in which they first came."""
    removed: dict[str, int] = {}
    changed: dict[str, float] = {}
    for step in steps:
        rule = str(step.get("rule") or step["what"])
        rule = words.get(rule, rule)
        removed[rule] = removed.get(rule, 0) + int(step["connections"])
        changed[rule] = changed.get(rule, 0.0) + float(step["deviation"])
    falls, left, whole = [], before, before or 1
    for rule, count in removed.items():
        begin, end = 100 * (left - count) / whole, 100 * left / whole
        falls.append(Fall(rule, count, max(0.0, min(begin, end)), abs(end - begin), changed[rule]))
        left -= count
    return tuple(falls)
