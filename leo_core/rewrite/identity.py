"""What only hands a node on goes: a sum of one term, a ReLU of what a ReLU gives. Exact.

Such nodes are left where a branch of a residual sum was constant and is gone.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from leo_core.linear import Select
from leo_core.network import INPUT, Affine, Node, Relu
from leo_core.rewrite.step import Ladder, Refusal, Rewrite, only
from leo_core.rewrite.view import View


def drop_identity(view: View, name: str) -> Ladder | Refusal | None:
    """Have all that reads the sum ``name`` read what it hands on."""
    network = view.network
    node = network[name]
    if not isinstance(node, Affine) or not _hands_on(node) or name == network.output or not node.shape:
        return None
    (source,) = node.sources
    if source == INPUT or network.layout(source) != node.shape:
        return None
    before = network[source]
    instead = {name: source}
    changed: dict[str, Node] = {}
    units = {}
    for reader in map(network.__getitem__, network.readers[name]):
        if isinstance(reader, Affine):
            continue
        if isinstance(before, Affine) and source not in view.facts.units:
            units[source] = view.facts.units[name]
            changed[reader.name] = replace(reader, source=source)
        elif isinstance(before, Relu) and not before.slope.any() and reader.name != network.output:
            instead[reader.name] = source  # what it reads is not below zero
        else:
            return None
    for reader in map(network.__getitem__, {n: None for old in instead for n in network.readers[old]}):
        if isinstance(reader, Affine):
            sources = tuple(instead.get(s, s) for s in reader.sources)
            if len(set(sources)) < len(sources):
                return None
            changed[reader.name] = replace(reader, sources=sources)
    what = "a sum of one term dropped"
    return only(Rewrite(view.with_nodes(*changed.values(), units=units), what), Refusal(what, "it is not exact"))


def _hands_on(node: Affine) -> bool:
    linear = node.maps[0]
    alone = len(node.maps) == 1 and node.own is None and not np.any(node.bias)
    return alone and isinstance(linear, Select) and linear.is_identity
