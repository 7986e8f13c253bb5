"""``.rlv``, the text format of the verifier Planet, as a frontend for LEO: a whole plug-in, to be read as it stands.

A file holds one line for each unit (R. Ehlers 2017, https://github.com/progirep/planet):

    Input NAME
    Linear NAME BIAS WEIGHT SOURCE WEIGHT SOURCE …
    ReLU NAME BIAS WEIGHT SOURCE …
    MaxPool NAME SOURCE …
    Assert <= NUMBER WEIGHT SOURCE …

What nobody reads is an output. ``Assert`` lines belong to the question that Planet is asked, not to the network.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from leo_core.errors import FormatError, UnsupportedModelError
from leo_core.linear import Dense, Sparse
from leo_core.network import INPUT, Affine, Network, Node, Relu
from leo_core.plugins import FrontendSpec, Imported, hookimpl

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@hookimpl
def leo_frontend() -> FrontendSpec:
    """What LEO is told."""
    return FrontendSpec(
        name="rlv",
        summary="Planet's text format, a line for each unit",
        suffixes=(".rlv",),
        read_file=read_file,
        write_file=write_file,
        run_file=lambda path: Planet(parsed(path)[0]).run,
    )


@dataclass(frozen=True)
class Unit:
    """One line: its kind, its name, its bias, and what it reads as (weight, name)."""

    kind: str
    name: str
    bias: float = 0.0
    terms: tuple[tuple[float, str], ...] = ()


def read_file(path: Path) -> Imported:
    """The network of a file. Raises :class:`FormatError`, naming the line, or :class:`UnsupportedModelError`."""
    units, asserts = parsed(path)
    if pools := [f"'{unit.name}' is a MaxPool, which this frontend does not read" for unit in units.values()
                 if unit.kind == "MaxPool"]:  # fmt: skip
        raise UnsupportedModelError(str(path), pools)
    notes = [f"{path}: {asserts} Assert lines are left aside; say the domain with --domain"] if asserts else []
    return Imported(network_of(units), tuple(notes), run=Planet(units).run)


def parsed(path: Path) -> tuple[dict[str, Unit], int]:
    """The units of a file by name, in their order, and how many Assert lines there are."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise FormatError(f"{path}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: cannot be read as text ({error})") from None
    units: dict[str, Unit] = {}
    asserts = 0
    for number, line in enumerate(lines, 1):
        kind, *words = line.split() or [""]
        if kind == "Assert":
            asserts += 1
        elif kind:
            try:
                unit = unit_of(kind, words, units)
            except ValueError as error:
                raise FormatError(f"{path}, line {number}: {error}") from None
            units[unit.name] = unit
    kinds = {unit.kind for unit in units.values()}
    if "Input" not in kinds or kinds == {"Input"}:
        raise FormatError(f"{path}: a network has lines that begin with Input, and others; is it an .rlv file?")
    return units, asserts


def unit_of(kind: str, words: Sequence[str], known: Mapping[str, Unit]) -> Unit:
    """The unit of a line. Raises :class:`ValueError` with what is wrong."""
    if kind not in ("Input", "Linear", "ReLU", "MaxPool"):
        raise ValueError(f"'{kind[:20]}' is none of Input, Linear, ReLU, MaxPool, Assert")
    name, *rest = words or [""]
    if not name or name in known:
        raise ValueError("a unit needs a name of its own")
    bias, weights, sources = rest[:1], rest[1::2], rest[2::2]
    if kind == "MaxPool":
        bias, weights, sources = ["0"], ["1"] * len(rest), rest
    if kind == "Input":
        bias = ["0", *rest]
    if len(bias) != 1 or len(weights) != len(sources):
        raise ValueError(f"this is no whole {kind} line")
    for source in sources:
        if source not in known:
            raise ValueError(f"there is no unit '{source[:20]}' above this line")
    if len(set(sources)) < len(sources):  # their weights would have to be added, and rounded
        raise ValueError("it reads one unit twice")
    terms = zip(map(number_of, weights), sources, strict=True)
    return Unit(kind, name, number_of(bias[0]), tuple(terms))


def number_of(word: str) -> float:
    """The float64 nearest to a decimal, as Planet reads it. 'nan', 'inf' and '1_0', which float() takes, are none."""
    if NUMBER.fullmatch(word) is None or not np.isfinite(float(word)):
        raise ValueError(f"'{word[:20]}' is no number")
    return float(word)


def network_of(units: Mapping[str, Unit]) -> Network:
    """Affine and ReLU nodes: neighbours of one kind that do not read each other are a layer."""
    inputs = [unit.name for unit in units.values() if unit.kind == "Input"]
    place = {name: (INPUT, index) for index, name in enumerate(inputs)}
    sizes = {INPUT: len(inputs)}
    nodes: list[Node] = []

    def add(name: str, layer: Sequence[Unit], relu: bool) -> None:
        nodes.append(affine_of(name, layer, place, sizes))
        if relu:
            nodes.append(Relu(f"{name}_relu", name, np.zeros(len(layer))))
        place.update({unit.name: (nodes[-1].name, index) for index, unit in enumerate(layer)})
        sizes[nodes[-1].name] = len(layer)

    for number, layer in enumerate(layers_of(units), 1):
        add(f"layer{number}", layer, layer[0].kind == "ReLU")
    ends = outputs_of(units)
    if [place[name] for name in ends] != [(nodes[-1].name, index) for index in range(sizes[nodes[-1].name])]:
        add("outputs", [Unit("Linear", f"{name}, again", 0.0, ((1.0, name),)) for name in ends], relu=False)
    return Network(len(inputs), tuple(nodes), nodes[-1].name)


def layers_of(units: Mapping[str, Unit]) -> Iterator[list[Unit]]:
    layer: dict[str, Unit] = {}
    for unit in units.values():
        if unit.kind == "Input":
            continue
        same = not layer or unit.kind == next(iter(layer.values())).kind
        if not same or any(source in layer for _, source in unit.terms):
            yield list(layer.values())
            layer = {}
        layer[unit.name] = unit
    yield list(layer.values())


def affine_of(
    name: str, layer: Sequence[Unit], place: Mapping[str, tuple[str, int]], sizes: Mapping[str, int]
) -> Affine:
    """One map for each node that the layer reads; what no line names has no weight, which is not a weight of 0."""
    entries: dict[str, list[tuple[float, int, int]]] = {}
    for row, unit in enumerate(layer):
        for weight, source in unit.terms:
            node, column = place[source]
            entries.setdefault(node, []).append((weight, row, column))
    maps = {}
    for node, listed in (entries or {INPUT: []}).items():
        weights, rows, columns = np.array(listed, dtype=np.float64).reshape(-1, 3).T
        shape = len(layer), sizes[node]
        matrix = csr_array((weights, (rows.astype(int), columns.astype(int))), shape)
        maps[node] = Dense(matrix.toarray()) if len(listed) == shape[0] * shape[1] else Sparse.of(matrix)
    bias = np.array([unit.bias for unit in layer])
    return Affine(name, tuple(maps), tuple(maps.values()), bias)


def outputs_of(units: Mapping[str, Unit]) -> list[str]:
    read = {source for unit in units.values() for _, source in unit.terms}
    return [unit.name for unit in units.values() if unit.name not in read and unit.kind != "Input"]


class Planet:
    """Runs a file as it is written, unit by unit, with nothing of LEO's: what the door compares with."""

    def __init__(self, units: Mapping[str, Unit]) -> None:
        self.units, self.outputs = units, outputs_of(units)

    def run(self, inputs: Any) -> Any:
        """(count, inputs) → (count, outputs), in float64."""
        columns = iter(np.asarray(inputs, dtype=np.float64).reshape(len(inputs), -1).T)
        values = {}
        for unit in self.units.values():
            if unit.kind == "Input":
                values[unit.name] = next(columns)
                continue
            total = np.full(len(inputs), unit.bias)
            for weight, source in unit.terms:
                total = total + weight * values[source]
            values[unit.name] = np.maximum(total, 0.0) if unit.kind == "ReLU" else total
        return np.stack([values[name] for name in self.outputs], axis=1)


def write_file(network: Network, path: Path) -> None:
    """Write a network, numbers with all their digits. Raises :class:`UnsupportedModelError`, listing what cannot be."""
    problems = [f"'{relu.name}' is a leaky ReLU" for relu in network.relus if relu.slope.any()]
    problems += [f"'{node.name}' reads a layer twice" for node in network.nodes
                 if isinstance(node, Affine) and len(set(node.sources)) < len(node.sources)]  # fmt: skip
    if len(network.signature.outputs) > 1 or network.signature.ending:
        problems.append("it has several outputs, or one that ends in more than the network")
    if problems:
        raise UnsupportedModelError(str(path), [f"{problem}; .rlv cannot hold that" for problem in problems])
    path.write_text("\n".join(lines_of(network)) + "\n", encoding="utf-8")


def lines_of(network: Network) -> Iterator[str]:
    """The lines of a file. Only what an output needs is written: anything else would be taken for one."""
    needed = {node.name: np.full(node.size, node.name == network.output) for node in network.nodes}
    needed[INPUT] = np.ones(network.input_size, dtype=bool)
    for node in reversed(network.nodes):
        if isinstance(node, Relu):
            needed[node.source] |= needed[node.name]
        else:
            for source, linear in node.reads:
                needed[source] |= linear.used_columns(needed[node.name])
    called = {name: f"n{number}_" for number, name in enumerate((INPUT, *(node.name for node in network.nodes)))}
    yield from (f"Input {called[INPUT]}{index}" for index in range(network.input_size))
    for node in network.nodes:
        kind, affine = ("ReLU", network[node.source]) if isinstance(node, Relu) else ("Linear", node)
        if isinstance(node, Affine) and within_relu(network, node.name):
            continue
        for unit in np.flatnonzero(needed[node.name]):
            start, terms = 0.0, [f"1.0 {called[affine.name]}{unit}"]
            if isinstance(affine, Affine) and (affine is node or within_relu(network, affine.name)):
                start, terms = float(affine.bias[unit]), []
                for source, linear in affine.reads:
                    columns, weights = linear.row(int(unit))
                    terms += [f"{float(w)!r} {called[source]}{c}" for w, c in zip(weights, columns, strict=True)]
            yield " ".join([kind, f"{called[node.name]}{unit}", repr(start), *terms])
    if network.readers.get(network.output):  # read by others, so it would not be seen to be an output
        name = called[network.output]
        yield from (f"Linear output{unit} 0.0 1.0 {name}{unit}" for unit in range(network.output_size))


def within_relu(network: Network, name: str) -> bool:
    """Whether one ReLU alone reads an affine node, so that both are one line."""
    readers = network.readers.get(name, ())
    return name != network.output and len(readers) == 1 and isinstance(network[readers[0]], Relu)
