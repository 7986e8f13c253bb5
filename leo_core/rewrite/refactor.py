"""The linear block of a layer is re-factored: rank(M W) new units replace all of its units.

With M its outgoing and W its incoming weights, M (W x + b) = N (V x + d) + e for any N V = M W. V takes rows of
M W itself, chosen by a column-pivoted QR, so that N holds ones and well-conditioned coefficients; the bias
d lifts every new unit to where it is proved to be active. Directions of M W whose whole effect over the box is
within the tolerance get no unit. Where merging does as well, it is preferred: it rounds less.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from leo_core.arithmetic import Array
from leo_core.bounds.crown import backward_interval
from leo_core.bounds.interval import bound_affine
from leo_core.linear import Dense
from leo_core.network import INPUT, Affine, Network
from leo_core.rewrite import maps
from leo_core.rewrite.block import Block, fewest, linear_block, realised
from leo_core.rewrite.deviation import Change, Form
from leo_core.rewrite.facts import Facts, Units
from leo_core.rewrite.layer import ReluLayer, Rows, layer_of
from leo_core.rewrite.merge import Pivoted, merge_nearly_dependent
from leo_core.rewrite.step import Fits, Refusal, Rewrite


def refactor_block(network: Network, facts: Facts, name: str, fits: Fits) -> Rewrite | Refusal | None:
    """Realise the linear block of the ReLU ``name`` with as few units as the tolerance allows."""
    layer = layer_of(network, name)
    if not isinstance(layer, ReluLayer):
        return layer
    block = linear_block(network, facts, layer.node, layer.relu)
    if not len(block.units):
        return None
    merged = merge_nearly_dependent(network, facts, layer, block, fits)
    needed = len(block.units) if merged is None else merged.network.size(name) - layer.relu.size + len(block.units)
    mixed = mix_block(network, facts, layer, block, needed, fits)
    best = merged if mixed is None else mixed
    return (
        Refusal(f"{len(block.units)} {block.called} unit(s) left", "no fewer are within the tolerance")
        if best is None
        else best
    )


def pass_through(network: Network, facts: Facts, name: str, fits: Fits) -> Rewrite | Refusal | None:
    """Pass the linear block of the ReLU ``name`` through as many units as the narrower side has, for comparison.

    That is the rule of REDNet (2023): min(width before, width after) units, whatever the rank of M W.
    """
    layer = layer_of(network, name)
    if not isinstance(layer, ReluLayer):
        return layer
    block = linear_block(network, facts, layer.node, layer.relu)
    rows, columns = len(layer.outgoing), block.weights.shape[1]
    if not min(rows, columns) < len(block.units):
        return None
    old = block.form(layer.outgoing[:, block.units], layer.constants)
    product = old.rounded(layer.dtype)
    weights, new = (product, np.eye(rows)) if rows <= columns else (np.eye(columns), product)
    try:
        changed, left, change = _with_rows(network, facts, layer, block, old, weights, new)
    except OverflowError as overflow:
        return Refusal(f"{len(block.units)} {block.called} unit(s) left", str(overflow))
    what = f"{len(block.units)} {block.called} unit(s) passed through {len(weights)}"
    found = Rewrite(changed, left, what, layer.by_reader(change))
    return (
        found
        if fits(found)
        else Refusal(f"{len(block.units)} {block.called} unit(s) left", "the new weights round too much")
    )


def mix_block(
    network: Network, facts: Facts, layer: ReluLayer, block: Block, below: int, fits: Fits, before: Change | None = None
) -> Rewrite | None:
    """The block realised by new units, fewer than ``below`` and as few as fit.

    ``before`` is what ``layer`` and ``block`` change of the network already.
    """
    old = block.form(layer.outgoing[:, block.units], layer.constants)
    product = old.rounded(layer.dtype)
    pivoted = Pivoted.of(product * block.radius)

    def attempt(rank: int) -> Rewrite | None:
        found = pivoted.expressed(rank)
        if found is None:
            return None
        basis, dependent, coefficients = found
        new = np.zeros((len(product), rank))
        new[basis] = np.eye(rank)
        new[dependent] = coefficients
        weights = product[basis]
        try:
            changed, left, added = _with_rows(network, facts, layer, block, old, weights, new)
        except OverflowError:
            return None
        total = added if before is None else before.plus(added)
        what = f"{len(block.units)} {block.called} unit(s) re-factored into {rank}"
        proposal = Rewrite(changed, left, what, layer.by_reader(total))
        return proposal if fits(proposal) else None

    return fewest(below, attempt, likely=pivoted.rank)


def _with_rows(
    network: Network, facts: Facts, layer: ReluLayer, block: Block, old: Form, weights: Array, new: Array
) -> tuple[Network, Facts, Change]:
    """The block realised by new units with the given incoming and outgoing weights. Raises OverflowError."""
    # A power of two between a row and its outgoing weights rounds nothing: make them equally large.
    sizes = np.abs(new).max(axis=0, initial=0.0), np.abs(weights).max(axis=1, initial=0.0)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        power = np.nan_to_num(np.round(0.5 * (np.log2(sizes[0]) - np.log2(sizes[1]))), posinf=0.0, neginf=0.0)
        weights, new = np.ldexp(weights, power.astype(int)[:, None]), np.ldexp(new, -power.astype(int))
    rows, signs = _active_rows(network, facts, layer, weights)
    return realised(network, facts, layer, block, old, np.zeros(0, np.int64), rows, new * signs)


def _active_rows(network: Network, facts: Facts, layer: ReluLayer, weights: Array) -> tuple[Rows, Array]:
    """Units that compute each row, or its negative where that needs the smaller lift; and the signs."""
    stored = layer.stored_incoming(weights)
    low, high = _range(network, facts, layer.node, stored)
    signs = np.where(np.maximum(high, 0.0) < np.maximum(-low, 0.0), -1.0, 1.0)
    low, high = np.where(signs < 0, -high, low), np.where(signs < 0, -low, high)
    lift = _short_up(np.maximum(-low, 0.0), layer.node.bias.dtype)
    lowest = np.maximum(0.0, np.nextafter(low + lift, -np.inf))
    units = Units.new(lowest, np.nextafter(high + lift, np.inf))
    return Rows(signs[:, None] * stored, lift, units), signs


def _range(network: Network, facts: Facts, node: Affine, weights: Array) -> tuple[Array, Array]:
    """Proved bounds of linear forms over the concatenated sources of a node."""
    forms = tuple(Dense(part) for part in maps.by_source(node, weights))
    probe = Affine(node.name, node.sources, forms, np.zeros(len(weights)))
    before = network.nodes[: next(i for i, other in enumerate(network.nodes) if other.name == node.name)]
    probed = Network(network.input_size, (*before, probe), probe.name)
    region = Facts(facts.box, {name: units for name, units in facts.units.items() if name != node.name}).region(probed)
    low, high = bound_affine(probed, probe, region)
    if set(node.sources) != {INPUT}:
        lower, upper = backward_interval(probed, probe.name, region)
        low, high = np.fmax(low, lower), np.fmin(high, upper)
    return low, high


def _short_up(values: Array, dtype: Any) -> Array:
    """A number of the dtype not below each value, of six significant bits: products with it need few more."""
    mantissa, exponent = np.frexp(values)
    with np.errstate(over="ignore"):
        short = np.ldexp(np.ceil(mantissa * 64.0) / 64.0, exponent).astype(dtype)
    short = np.where(short.astype(np.float64) < values, np.nextafter(short, dtype.type(np.inf)), short)
    if not np.isfinite(short).all():
        raise OverflowError("a new bias would overflow")
    return np.asarray(short, dtype=np.float64)
