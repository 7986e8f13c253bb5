"""A network's outputs as nodes of their own: it has one value, formats have an output each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from leo_core.errors import UnsupportedModelError
from leo_core.linear import Conv, ConvTranspose, LinearMap, Select, Sparse
from leo_core.network import INPUT, Affine, Network, Node, Output, free_name


def apart(network: Network) -> tuple[tuple[Node, ...], tuple[str, ...]]:
    """(nodes, the name of the one that each output is), an output being all of a node, or the input.

    An affine node that only puts outputs side by side is taken apart into them.
    """
    outputs, last = network.signature.outputs, network[network.output]
    if len(outputs) == 1:
        return network.nodes, (network.output,)
    taken = {INPUT, *(node.name for node in network.nodes)}
    whole = not isinstance(last, Affine) or bool(network.readers[last.name])
    whole = whole or any(isinstance(linear, Conv | ConvTranspose) for linear in last.maps)  # type: ignore[union-attr]
    nodes = [node for node in network.nodes if whole or node is not last]
    names = []
    for output, part in zip(outputs, network.signature.slices, strict=True):
        units = np.arange(part.start, part.stop)
        reads, bias = [(last.name, _picked(Select.identity(last.size), units))], np.zeros(len(units), np.float32)
        if not whole:
            assert isinstance(last, Affine)
            reads = [(source, _picked(linear, units)) for source, linear in last.reads]
            reads, bias = [read for read in reads if read[1].nonzeros] or reads[:1], last.bias[units]
        (source, linear), *others = reads
        if isinstance(linear, Select) and linear.is_identity and not (others or bias.any()):
            names.append(source)
            continue
        name = free_name(f"{output.name}_values", taken)
        taken.add(name)
        sources, maps = zip(*reads, strict=True)
        nodes.append(Affine(name, sources, maps, bias, last.origin))
        names.append(name)
    return tuple(nodes), tuple(names)


def _picked(linear: LinearMap, units: Any) -> LinearMap:
    """Rows of a map: a selection, where each is just one entry of what it reads."""
    rows = linear.select_rows(units)
    if isinstance(rows, Sparse) and rows.places and rows.nonzeros == rows.rows:
        return Select(rows.arrays()["indices"], columns=rows.columns)
    return rows


def require_one(network: Network, where: str, hint: str) -> None:
    """Raise :class:`UnsupportedModelError` where a network has several outputs, for a format that has none such."""
    names = network.signature.names
    if len(names) > 1:
        raise UnsupportedModelError(where, [f"it has {len(names)} outputs ({', '.join(names)}); {hint}"])


def numbered(count: int) -> tuple[str, ...]:
    """Names for outputs that have none of their own."""
    return ("output",) if count == 1 else tuple(f"output{i}" for i in range(count))


def returned(outputs: Sequence[Output], tensors: Sequence[Any]) -> Any:
    """Outputs as a model in Python returns them: a tensor, a dict where they have names of their own, else a tuple."""
    names = tuple(output.name for output in outputs)
    if len(tensors) == 1:
        return tensors[0]
    return tuple(tensors) if names == numbered(len(names)) else dict(zip(names, tensors, strict=True))
