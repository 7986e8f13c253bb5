"""What the benchmarks run on: the real networks beside the project, and networks made here."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from leo_core import Affine, Box, Dense, Network, Relu
from leo_core.files import read

#: Where the real networks are, unless the command says otherwise.
NETS = Path(__file__).parents[2] / "shared" / "nets"


class Case(NamedTuple):
    """A network and its domain, as Python values or as files, and what is known of its counts."""

    name: str
    model: Any
    domain: Any
    known: dict[str, Any]

    def loaded(self) -> tuple[str, Network, Box]:
        """Name, network and box."""
        network = self.model if isinstance(self.model, Network) else read(self.model)[0].network
        return self.name, network, Box.of(self.domain, network.input_size)


def real(nets: Path, names: Sequence[str] = ()) -> Iterator[Case]:
    """Every real network with every domain of its own, or those with one of ``names`` in their name."""
    if not (nets / "INDEX.json").exists():
        print(f"no real networks at {nets}", file=sys.stderr)
        return
    for entry in json.loads((nets / "INDEX.json").read_text())["networks"]:
        twin = entry["file"].endswith(".pt") and (nets / entry["file"]).with_suffix(".onnx").exists()
        if entry["widths"] and not twin:
            name = entry["domain"].removesuffix(".domain.json")
            yield from picked([Case(name, nets / entry["file"], nets / entry["domain"], entry["expect"])], names)


def picked(cases: Sequence[Case], names: Sequence[str]) -> Iterator[Case]:
    """Those with one of ``names`` in their name; all, where there are none."""
    return (case for case in cases if not names or any(part in case.name for part in names))


def made(widths: tuple[int, ...], seed: int = 0) -> Network:
    """A network as it is before training (He et al. 2015), with biases as large as its values."""
    rng = np.random.default_rng(seed)
    nodes: list[Affine | Relu] = []
    at, columns = "input", widths[0]
    for number, rows in enumerate(widths[1:], 1):
        weights = rng.standard_normal((rows, columns)) * np.sqrt(2.0 / columns)
        bias = rng.standard_normal(rows).astype(np.float32)
        nodes.append(Affine(f"dense{number}", (at,), (Dense(weights.astype(np.float32)),), bias))
        at, columns = nodes[-1].name, rows
        if number < len(widths) - 1:
            nodes.append(Relu(f"relu{number}", at, np.zeros(rows)))
            at = nodes[-1].name
    return Network(widths[0], tuple(nodes), at)
