"""The linear block of a layer is re-factored: rank(M W) new units replace all of its units.

With M its outgoing and W its incoming weights, M (W x + b) = N (V x + d) + e for any N V = M W. V takes rows of
M W itself, chosen by a column-pivoted QR, so that N holds ones and well-conditioned coefficients; the bias
d lifts every new unit to where it is proved to be active. Directions of M W whose whole effect over the box is
within the tolerance get no unit. Where merging does as well, it is preferred: it rounds less.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np

from leo_core.arithmetic import Array
from leo_core.bounds.change import Change
from leo_core.bounds.crown import backward_interval
from leo_core.bounds.interval import bound_affine
from leo_core.linear import Dense
from leo_core.network import INPUT, Affine, Network
from leo_core.rewrite import maps
from leo_core.rewrite.block import Block, block_of, old_form, realised
from leo_core.rewrite.facts import Units
from leo_core.rewrite.form import Form
from leo_core.rewrite.layer import ReluLayer, Rows, layer_of
from leo_core.rewrite.merge import Merging, Pivoted
from leo_core.rewrite.step import Ladder, Refusal, Rewrite, only
from leo_core.rewrite.view import View


def refactor_block(view: View, name: str) -> Ladder | Refusal | None:
    """Realise the linear block of the ReLU ``name`` with as few units as the tolerance allows."""
    layer = layer_of(view, name)
    if not isinstance(layer, ReluLayer):
        return layer
    block = block_of(layer)
    if not len(block.units):
        return None
    merging = Merging.of(layer)
    mixing = view.once(("mixing", name), lambda: Mixing.of(layer, block, merging.old))

    def realised_by(rank: int) -> Ladder:
        """Merged where that does, since it rounds less."""
        return Ladder(2, lambda rung: mixing.to(rank) if rung else merging.to(rank))

    left = Refusal(f"{len(block.units)} {block.called} unit(s) left", "no fewer are within the tolerance")
    return Ladder(len(block.units), realised_by, likely=mixing.pivoted.rank, otherwise=left)


def pass_through(view: View, name: str) -> Ladder | Refusal | None:
    """Pass the linear block of the ReLU ``name`` through as many units as the narrower side has, for comparison.

    That is the rule of REDNet (2023): min(width before, width after) units, whatever the rank of M W.
    """
    layer = layer_of(view, name)
    if not isinstance(layer, ReluLayer):
        return layer
    block = block_of(layer)
    rows, columns = len(layer.outgoing), block.weights.shape[1]
    if not min(rows, columns) < len(block.units):
        return None
    old = old_form(layer, block)
    product = old.rounded(layer.dtype)
    weights, new = (product, np.eye(rows)) if rows <= columns else (np.eye(columns), product)
    left = f"{len(block.units)} {block.called} unit(s) left"
    try:
        passed, change = _with_rows(layer, block, old, weights, new)
    except OverflowError as overflow:
        return Refusal(left, str(overflow))
    what = f"{len(block.units)} {block.called} unit(s) passed through {len(weights)}"
    return only(
        Rewrite(passed, what, layer.by_reader(change)),
        Refusal(left, "the new weights round too much"),
    )


@final
@dataclass(frozen=True, eq=False)
class Mixing:
    """A block of a layer, and which rows of its product M W nearly depend on which."""

    layer: ReluLayer
    block: Block
    old: Form
    product: Array
    pivoted: Pivoted

    @staticmethod
    def of(layer: ReluLayer, block: Block, old: Form) -> Mixing:
        """Of any block of a layer, of which the readers make ``old``."""
        product = old.rounded(layer.dtype)
        return Mixing(layer, block, old, product, Pivoted.of(product * block.radius))

    def to(self, rank: int, before: Change | None = None) -> Rewrite | None:
        """The block realised by ``rank`` new units; None where that needs large coefficients or overflows.

        ``before`` is what the layer and the block change of the network already.
        """
        found = self.pivoted.expressed(rank)
        if found is None:
            return None
        basis, dependent, coefficients = found
        new = np.zeros((len(self.product), rank))
        new[basis] = np.eye(rank)
        new[dependent] = coefficients
        try:
            view, added = _with_rows(self.layer, self.block, self.old, self.product[basis], new)
        except OverflowError:
            return None
        total = added if before is None else before.plus(added)
        what = f"{len(self.block.units)} {self.block.called} unit(s) re-factored into {rank}"
        return Rewrite(view, what, self.layer.by_reader(total))

    def ladder(self, below: int, before: Change | None = None) -> Ladder:
        """By the number of units, fewer than ``below``."""
        return Ladder(below, lambda rank: self.to(rank, before), likely=self.pivoted.rank)


def _with_rows(layer: ReluLayer, block: Block, old: Form, weights: Array, new: Array) -> tuple[View, Change]:
    """The block realised by new units with the given incoming and outgoing weights. Raises OverflowError."""
    weights, new = balanced(weights, new)
    rows, signs = _active_rows(layer, weights)
    return realised(layer, block, old, np.zeros(0, np.int64), rows, new * signs)


def balanced(weights: Array, new: Array) -> tuple[Array, Array]:
    """Rows and their outgoing weights, equally large: a power of two between them rounds nothing."""
    sizes = np.abs(new).max(axis=0, initial=0.0), np.abs(weights).max(axis=1, initial=0.0)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        power = np.nan_to_num(np.round(0.5 * (np.log2(sizes[0]) - np.log2(sizes[1]))), posinf=0.0, neginf=0.0)
        return np.ldexp(weights, power.astype(int)[:, None]), np.ldexp(new, -power.astype(int))


def _active_rows(layer: ReluLayer, weights: Array) -> tuple[Rows, Array]:
    """Units that compute each row, or its negative where that needs the smaller lift; and the signs."""
    stored = layer.stored_incoming(weights)
    low, high = _range(layer, stored)
    signs = np.where(np.maximum(high, 0.0) < np.maximum(-low, 0.0), -1.0, 1.0)
    low, high = np.where(signs < 0, -high, low), np.where(signs < 0, -low, high)
    lift = short_up(np.maximum(-low, 0.0), layer.node.bias.dtype)
    lowest = np.maximum(0.0, np.nextafter(low + lift, -np.inf))
    units = Units.new(lowest, np.nextafter(high + lift, np.inf))
    return Rows(signs[:, None] * stored, lift, units), signs


def _range(layer: ReluLayer, weights: Array) -> tuple[Array, Array]:
    """Proved bounds of linear forms over what a layer reads."""
    node, network, region = layer.node, layer.view.network, layer.view.region
    forms = tuple(Dense(part) for part in maps.by_source(node, weights))
    instead = Affine(node.name, node.sources, forms, np.zeros(len(weights)))
    low, high = bound_affine(network, instead, region)
    if set(node.sources) != {INPUT}:
        before = network.nodes[: network.nodes.index(node)]
        lower, upper = backward_interval(Network(network.input_size, (*before, instead), node.name), node.name, region)
        low, high = np.fmax(low, lower), np.fmin(high, upper)
    return low, high


def short_up(values: Array, dtype: Any) -> Array:
    """A number of the dtype not below each value, of six significant bits: products with it need few more."""
    mantissa, exponent = np.frexp(values)
    with np.errstate(over="ignore"):
        short = np.ldexp(np.ceil(mantissa * 64.0) / 64.0, exponent).astype(dtype)
    short = np.where(short.astype(np.float64) < values, np.nextafter(short, dtype.type(np.inf)), short)
    if not np.isfinite(short).all():
        raise OverflowError("a new bias would overflow")
    return np.asarray(short, dtype=np.float64)
