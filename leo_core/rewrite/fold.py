"""A layer that is a line over the whole box folds into what reads it: M (W x + b) + c = (M W) x + (M b + c).

That holds for a ReLU layer whose units are all stable (LEO; Serra et al. 2020, section 3), and for an affine
node that only affine nodes read.
"""

from __future__ import annotations

import numpy as np

from leo_core.bounds.change import Change
from leo_core.linear import LinearMap, Select
from leo_core.network import Affine, Relu
from leo_core.rewrite import maps
from leo_core.rewrite.block import Block, linear_block, whole
from leo_core.rewrite.form import Form, best_constants, change
from leo_core.rewrite.layer import incoming
from leo_core.rewrite.step import Ladder, Refusal, Rewrite, only
from leo_core.rewrite.view import View


def fold_linear(view: View, name: str) -> Ladder | Refusal | None:
    """Fold node ``name`` into everything that reads it."""
    network = view.network
    found = network[name]
    relu = found if isinstance(found, Relu) else None
    node = network.affine(relu.source) if relu else network.affine(name)
    readers = [network[reader] for reader in network.readers[name]]
    if name == network.output or not readers or not all(isinstance(reader, Affine) for reader in readers):
        return None
    if relu and not view.facts.units[node.name].linear(relu.slope).all():
        return None
    if relu is None and network.output in network.readers[name] and len(network.signature.outputs) > 1:
        last = network.affine(network.output)
        if all(linear.places for source, linear in last.reads if source == name):
            return None  # an output is a layer of its own, and putting them side by side stores nothing
    reads = incoming(view, node)
    block = linear_block(reads, view.facts.units[node.name], relu.slope) if relu else whole(reads)
    changed: dict[str, Affine] = {}
    changes: dict[str, Change] = {}
    for reader in readers:
        assert isinstance(reader, Affine)
        if len(set(reader.sources)) < len(reader.sources) or len(set(node.sources)) < len(node.sources):
            return Refusal("not folded", "one node reads another twice")
        try:
            folded, made = _exactly(reader, name, node, block) or _rounded(reader, name, node, block)
        except OverflowError as overflow:
            return Refusal("not folded", str(overflow))
        changed[reader.name] = folded
        if made is not None and made.most.any():
            changes[reader.name] = made
    kind = "stable layer" if relu else "affine layer"
    return only(
        Rewrite(view.with_nodes(*changed.values()), f"{kind} folded into what reads it", changes),
        Refusal(f"{kind} not folded", "rounding the new weights costs more than the tolerance leaves"),
    )


def _exactly(reader: Affine, name: str, node: Affine, block: Block) -> tuple[Affine, Change | None] | None:
    """Where one of the two maps only picks entries, nothing is multiplied."""
    position = reader.sources.index(name)
    outer = reader.maps[position]
    if block.cost.any() or any(source in reader.sources for source in node.sources):
        return None
    composed: list[LinearMap]
    if isinstance(outer, Select):
        composed = [inner.select_rows(outer.indices) for inner in node.maps]
        bias = node.bias[outer.indices]
        if reader.bias.any() and bias.any():
            return None
        bias = np.where(bias == 0, reader.bias, bias)
    elif len(node.maps) == 1 and isinstance(node.maps[0], Select) and not node.bias.any():
        inner = node.maps[0]
        if len(np.unique(inner.indices)) < len(inner.indices):
            return None
        composed, bias = [outer.spread_columns(inner.indices, inner.columns)], reader.bias
    else:
        return None
    if (block.weights != node.dense()).any():  # a leaky layer's scaled rows
        return None
    sources = (*reader.sources[:position], *node.sources, *reader.sources[position + 1 :])
    linears = (*reader.maps[:position], *composed, *reader.maps[position + 1 :])
    return Affine(reader.name, sources, linears, bias, reader.origin), None


def _rounded(reader: Affine, name: str, node: Affine, block: Block) -> tuple[Affine, Change | None]:
    """The product, rounded to the stored dtype, and what that provably changes."""
    position = reader.sources.index(name)
    outer = reader.weights_of(name)
    bias = reader.bias.astype(np.float64)
    kinds = [node.bias.dtype, *(linear.dtype for linear in node.maps)]
    dtype = np.result_type(reader.maps[position].dtype, reader.bias.dtype, *kinds)  # a wide network stays one
    others = {s: m for s, m in reader.reads if s != name}
    # A source that the reader sees already keeps one map: the sum of both.
    beside = np.hstack(
        [others[s].rows_at(np.arange(reader.size)) if s in others else np.zeros((reader.size, m.columns))
         for s, m in node.reads]
    )  # fmt: skip
    left, weights, shift = outer, block.weights, block.bias
    if beside.any():
        left = np.hstack([outer, np.eye(reader.size)])
        weights, shift = np.vstack([weights, beside]), np.concatenate([shift, np.zeros(reader.size)])
    before = Form(left, weights, shift, bias)
    product = before.rounded(dtype)
    new: dict[str, LinearMap] = {
        source: maps.stored(part, dtype, reader.maps[position])
        for source, part in zip(node.sources, maps.by_source(node, product), strict=True)
    }
    stacked = np.hstack([new[source].rows_at(np.arange(reader.size)) for source in node.sources])
    after = Form(np.eye(reader.size), stacked, np.zeros(reader.size), np.zeros(reader.size))
    with np.errstate(over="ignore"):
        constant = best_constants(before, after, block.lower, block.upper, reader.bias.dtype).astype(reader.bias.dtype)
    if not np.isfinite(constant).all():
        raise OverflowError("a new bias would overflow")
    made = change(before, after.with_constants(constant.astype(np.float64)), block.lower, block.upper).reading(
        node.sources
    )
    if block.cost.any():
        made = made.plus(Change.at_most(block.charge(outer)))
    kept = {source: linear for source, linear in others.items() if source not in new}
    merged = {**kept, **new}
    return Affine(reader.name, tuple(merged), tuple(merged.values()), constant, reader.origin), made
