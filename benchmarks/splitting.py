"""Networks blown up by ReLU splitting, and what ``compress`` gives back.

    python benchmarks/splitting.py [--nets ../shared/nets] [--time-limit 60] [--json FILE] [NAME…]

Splitting puts a layer before another one that computes the same: z = τ + relu(s (z − τ)) / s − relu(t (τ − z)) / t for
a share of its units, any others passed through as relu(z), or as relu(z + M) − M where no value is that small. Each new
unit changes its state, so that tools that ask for stable units alone find nothing to remove. The networks, made here
and real ones, are split in one or two layers, in float32 or float64 as they are, with s = t = 1 or with random scales.
The original and the split network are compressed as a user does it, with the default tolerance; both sizes are shown,
and how much larger the split one stays. NAME picks by a part of the name.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from listing import NETS, Case, made, picked, real

import leo_core
from leo_core import Affine, Box, Dense, Network, Relu
from leo_core.network import Node

#: The share of a layer's units that is split.
SHARES = (0.2, 0.6, 1.0)
#: Real networks, by a part of their name, the layers that are split, and the seconds that they need to be decided.
REAL = (("v2a_1_1.prop_3", (1,)), ("mnist_l1", (0,)), ("gurobi_ml/diabetes_v2", (0, 1)))
#: What the split network may be larger by.
GOAL = 0.02


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", type=Path, default=NETS)
    parser.add_argument("--time-limit", type=float, default=60.0, help="seconds for each network")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    rows, known = [], {}
    print("| network | split | units | connections | δ | seconds |\n|---|---|--:|--:|--:|--:|", flush=True)
    for case, layers in (*ours(arguments.names), *public(arguments.nets, arguments.names)):
        name, network, box = case.loaded()
        if name not in known:
            known[name] = leo_core.compress(network, box, time_limit=arguments.time_limit)
        for number, share in enumerate(SHARES):
            for scales in ("fixed", "random"):
                blown = split(network, box, layers, share, scales=scales, seed=number, lifted=number % 2 == 1)
                rows.append(measure(name, known[name], blown, box, arguments.time_limit))
                rows[-1] |= {"layers": layers, "share": share, "scales": scales}
                show(rows[-1])
    back = sum(row["larger"] <= GOAL for row in rows)
    print(f"\n{back} of {len(rows)} come back within {GOAL:.0%}, in units and in connections")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


def ours(names: Sequence[str]) -> Iterator[tuple[Case, tuple[int, ...]]]:
    """Made networks: narrow boxes leave stable units, wide ones few."""
    for dtype in (np.float32, np.float64):
        for width, radius, layers in ((24, 0.1, (1,)), (24, 0.5, (0, 1)), (40, 0.05, (2,)), (16, 1.0, (1, 2))):
            network = stored(made((5, width, width, width, 4), seed=width), dtype)
            title = f"made 5-{width}-{width}-{width}-4, ±{radius}, {np.dtype(dtype).name}"
            for case in picked([Case(title, network, (-radius, radius), {})], names):
                yield case, layers


def public(nets: Path, names: Sequence[str]) -> Iterator[tuple[Case, tuple[int, ...]]]:
    """Real networks."""
    for part, layers in REAL:
        for case in picked(list(real(nets, [part]))[:1], names):
            yield case, layers


def stored(network: Network, dtype: Any) -> Network:
    """The same network with weights of its own in a dtype; float64 ones fill all their bits."""
    rng = np.random.default_rng(0)
    nodes: list[Node] = []
    for node in network.nodes:
        if isinstance(node, Affine):
            weights = node.dense() * (1 + 1e-9 * rng.standard_normal((node.size, node.maps[0].columns)))
            node = replace(node, maps=(Dense(weights.astype(dtype)),), bias=node.bias.astype(dtype))
        nodes.append(node)
    return replace(network, nodes=tuple(nodes))


def split(
    network: Network, box: Box, layers: Sequence[int], share: float, *, scales: str, seed: int, lifted: bool = False
) -> Network:
    """A chain of dense layers with a share of the units of some ReLU layers, by number, split.

    Parameters
    ----------
    scales:
        ``"fixed"``: s = t = 1; ``"random"``: each between a third and three.
    lifted:
        Whether other units pass as relu(z + M) − M rather than as relu(z).
    """
    rng = np.random.default_rng(seed)
    values = network.evaluate_nodes(box.sample(rng, 500))
    nodes: list[Node] = []
    numbers = {relu.source: number for number, relu in enumerate(network.relus)}
    for node in network.nodes:
        if isinstance(node, Affine) and numbers.get(node.name) in layers:
            nodes += _apart(node, values[node.name], share, scales, lifted, rng)
        else:
            nodes.append(node)
    return replace(network, nodes=tuple(nodes))


def _apart(
    node: Affine, values: Any, share: float, scales: str, lifted: bool, rng: np.random.Generator
) -> tuple[Affine, Relu, Affine]:
    """The nodes that compute what an affine one does, with a share of its units split."""
    dtype, size = node.bias.dtype, node.size
    chosen = np.sort(rng.permutation(size)[: round(share * size)])
    others = np.setdiff1d(np.arange(size), chosen)
    count = len(chosen)
    weights, bias = node.dense(), node.bias.astype(np.float64)
    low, high = values.min(axis=0), values.max(axis=0)
    place = rng.uniform(0.25, 0.75, size)
    middle = ((1 - place) * low + place * high)[chosen].astype(dtype).astype(np.float64)
    up, down = np.ones((2, count)) if scales == "fixed" else np.exp(rng.uniform(-np.log(3), np.log(3), (2, count)))
    shift = np.ceil(2 * np.abs(low).max() + np.abs(high).max()) * np.ones(len(others)) * lifted
    rows = np.vstack([up[:, None] * weights[chosen], -down[:, None] * weights[chosen], weights[others]])
    offsets = np.concatenate([up * (bias[chosen] - middle), down * (middle - bias[chosen]), bias[others] + shift])
    merge, constants = np.zeros((size, len(rows))), np.zeros(size)
    each = np.arange(count)
    merge[chosen, each], merge[chosen, count + each] = 1 / up, -1 / down
    merge[others, 2 * count + np.arange(len(others))] = 1
    constants[chosen], constants[others] = middle, -shift
    before = Affine(f"{node.name}.split", node.sources, (Dense(rows.astype(dtype)),), offsets.astype(dtype))
    relu = Relu(f"{node.name}.split.relu", before.name, np.zeros(len(rows)))
    return before, relu, Affine(node.name, (relu.name,), (Dense(merge.astype(dtype)),), constants.astype(dtype))


def measure(
    name: str, known: leo_core.CompressionResult, blown: Network, box: Box, time_limit: float
) -> dict[str, Any]:
    """How large the original and the split network are, compressed."""
    result = leo_core.compress(blown, box, time_limit=time_limit)
    sizes = [(net.units, net.connections) for net in (known.original, blown, known.network, result.network)]
    larger = max((now - was) / max(was, 1) for was, now in zip(sizes[2], sizes[3], strict=True))
    print(f"{name}: {result.network.widths}, {known.network.widths} without", file=sys.stderr, flush=True)
    return {
        "name": name,
        "sizes": sizes,
        "larger": larger,
        "widths": [list(known.network.widths), list(result.network.widths)],
        "deviation": result.deviation,
        "float_noise": result.float_noise,
        "seconds": round(result.seconds, 2),
    }


def show(row: dict[str, Any]) -> None:
    """A line of the table: before and split, then compressed each."""
    cells = []
    for k in (0, 1):  # units, connections
        before, blown, known, found = (f"{size[k]:,}" for size in row["sizes"])
        cells.append(f"{blown} → {found} (original: {before} → {known})")
    units, connections = cells
    how = f"{row['share']:.0%} of layer(s) {', '.join(str(n + 1) for n in row['layers'])}, {row['scales']} scales"
    print(f"| {row['name']} | {how} | {units} | {connections} | {row['deviation']:.1e} | {row['seconds']:.1f} |",
          flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
