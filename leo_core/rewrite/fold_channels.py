"""Two convolutions with nothing between them are one: M ∗ (W ∗ x + b) + c, where the one or the other has one tap.

A ReLU between them is nothing where it is active at all positions. Behind a kernel of one tap a padded one would see
less of b at the border, so there b must be 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import numpy as np
from numpy.typing import NDArray

from leo_core.arithmetic import product_error, round_up
from leo_core.bounds.change import Change
from leo_core.linear import Conv, Spacing
from leo_core.network import Affine, Relu
from leo_core.rewrite.absorb import rounded_bias
from leo_core.rewrite.form import Form, best_constants, change
from leo_core.rewrite.relations import channel_bias, patch_of
from leo_core.rewrite.step import Ladder, Refusal, Rewrite, only
from leo_core.rewrite.streams import is_padded
from leo_core.rewrite.view import View
from leo_core.stability.verdict import State

Array = NDArray[np.float64]


def fold_convolutions(view: View, name: str) -> Ladder | Refusal | None:
    """Fold what the convolution ``name`` reads into it, where that is a convolution that nothing else reads."""
    pair = _Pair.at(view, name)
    if pair is None:
        return None
    first, second = pair.convolutions
    outer = second.kernel.astype(np.float64).reshape(second.out_channels, second.in_channels, -1)
    inner, lower, upper = patch_of(view, pair.first)
    size = second.out_channels * first.in_channels * outer.shape[2] * (inner.shape[1] // first.in_channels)
    bias = channel_bias(pair.first)
    carried = is_padded(second)
    if size >= first.weights + second.weights or np.isnan(bias).any() or (carried and bias.any()):
        return None
    rows, _, taps = outer.shape
    dtype = np.result_type(first.dtype, second.dtype)
    old = Form(outer.swapaxes(1, 2).reshape(rows * taps, -1), inner, bias, np.zeros(rows * taps))
    what = f"{first.out_channels} channel(s) of a convolution folded into the one behind it"
    with np.errstate(over="ignore", invalid="ignore"):
        product = old.rounded(dtype).astype(dtype).astype(np.float64)
    if not np.isfinite(product).all():
        return Refusal(what, "a new weight would overflow")
    new = Form(np.eye(rows * taps), product, np.zeros(rows * taps), np.zeros(rows * taps))
    if not carried:
        new = new.with_constants(best_constants(old, new, lower, upper, np.float64))
    error = change(old, new, lower, upper).most
    if pair.defect.any():
        flow = np.abs(old.outgoing) @ pair.defect
        error = round_up(error + flow + product_error(flow, len(pair.defect)))
    total = error.reshape(rows, taps).sum(axis=1)
    total = np.where(total == 0, 0.0, round_up(total + product_error(total, taps)))
    try:
        changed, lost = rounded_bias(pair.second.bias, [[*row] for row in new.constants.reshape(rows, taps).tolist()])
    except OverflowError as overflow:
        return Refusal(what, str(overflow))
    total = np.where(lost > 0, round_up(total + lost), total)
    node = replace(pair.second, sources=pair.first.sources, maps=(_composed(first, second, product),), bias=changed)
    changes = {name: Change.at_most(np.repeat(total, node.size // rows))} if total.any() else {}
    refusal = Refusal(f"{what.replace(' folded', ' not folded')}", "rounding costs more than the tolerance leaves")
    return only(Rewrite(view.with_nodes(node), what, changes), refusal)


@final
@dataclass(frozen=True, eq=False)
class _Pair:
    """Two convolutions, the second of which alone reads the first; by channel, what a ReLU between them comes to."""

    first: Affine
    second: Affine
    defect: Array

    @property
    def convolutions(self) -> tuple[Conv, Conv]:
        first, second = _plain(self.first), _plain(self.second)
        assert first is not None
        assert second is not None
        return first, second

    @staticmethod
    def at(view: View, name: str) -> _Pair | None:
        network = view.network
        second = network[name]
        if not isinstance(second, Affine) or _plain(second) is None or second.sources[0] not in network:
            return None
        before = network[second.sources[0]]
        relu = before if isinstance(before, Relu) else None
        first = network.affine(relu.source) if relu is not None else before
        assert isinstance(first, Affine)
        path = [first.name, *([relu.name] if relu is not None else [])]
        read_by = [*path[1:], name]
        conv = _plain(first)
        if conv is None or conv.out_channels != first.groups:
            return None
        if any(network.readers[a] != (b,) for a, b in zip(path, read_by, strict=True)):
            return None
        defect = np.zeros(first.groups)
        if relu is not None:
            units = view.facts.units[first.name]
            if (units.state != State.ACTIVE).any():
                return None
            defect = units.defect(relu.slope).reshape(first.groups, -1).max(axis=1)
        found = _Pair(first, second, defect)
        return None if network.output in path or not _foldable(*found.convolutions) else found


def _plain(node: Affine) -> Conv | None:
    """The convolution in one group that a node is."""
    conv = node.maps[0]
    alone = node.own is None and len(node.maps) == 1 and bool(node.shape)
    return conv if alone and isinstance(conv, Conv) and conv.geometry.groups == 1 else None


def _foldable(first: Conv, second: Conv) -> bool:
    """Whether one of them has one tap, so that both are one convolution."""
    if (first.out_channels, first.geometry.output) != (second.in_channels, second.geometry.input):
        return False  # laid out anew between them
    if second.kernel[0, 0].size == 1 and not is_padded(second):
        return True
    return first.kernel[0, 0].size == 1 and not is_padded(first) and set(first.geometry.strides) == {1}


def _composed(first: Conv, second: Conv, product: Array) -> Conv:
    """The one convolution, whose kernel is (rows · taps of the second, in · taps of the first)."""
    geometry = first.geometry
    pads = geometry.low, geometry.high
    if second.kernel[0, 0].size == 1:
        kernel = product.reshape(second.out_channels, first.in_channels, *first.kernel.shape[2:])
        strides = tuple(a * b for a, b in zip(geometry.strides, second.geometry.strides, strict=True))
        dilations = geometry.dilations
    else:
        taps = second.kernel.shape[2:]
        kernel = product.reshape(second.out_channels, *taps, first.in_channels)
        kernel = np.moveaxis(kernel, -1, 1)
        strides, dilations = second.geometry.strides, second.geometry.dilations
        pads = second.geometry.low, second.geometry.high
    low, high = pads
    dtype = np.result_type(first.dtype, second.dtype)
    return Conv.of(kernel.astype(dtype), geometry.input, Spacing(strides, low, high, dilations))
