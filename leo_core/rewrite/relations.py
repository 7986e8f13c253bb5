"""Channels expressed by others: v_j = Σ c_ji v_i + d_j, up to an error, followed through a stream from its writers on.

Through an affine node that keeps channels apart, v' = K_j ∗ v_j + b_j, it holds with c'_ji where c_ji K_j = c'_ji K_i;
what that leaves is an error. A ReLU passes a line where it bends none of the channels, and one positive multiple,
relu(c z) = c relu(z), always: a ReLU is 1-Lipschitz, so errors stay what they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from leo_core.arithmetic import float_up, product_error, round_up
from leo_core.linear import Conv
from leo_core.network import Affine, Relu
from leo_core.rewrite.form import Form, change
from leo_core.rewrite.streams import Apart, Stream, channel_range, is_padded
from leo_core.rewrite.view import View
from leo_core.stability.verdict import State

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Fractions: TypeAlias = NDArray[np.object_]

#: A new factor this near to one of few digits is taken for it.
_SHORT = 1e-11


@final
@dataclass(frozen=True, eq=False)
class Relations:
    """|v_j − Σ c_ji v_i − d_j| ≤ off_j at each position, for some channels j by others i, at one node.

    Attributes
    ----------
    goes:
        (relations,): the channels j.
    factors:
        (relations, channels): c, 0 for all that is no i.
    shift:
        (relations,) of fractions: d.
    off:
        (relations,); infinite where nothing is known.
    """

    goes: Indices
    factors: Array
    shift: Fractions
    off: Array

    @property
    def used(self) -> Indices:
        """The channels that others are expressed by."""
        return np.flatnonzero((self.factors != 0).any(axis=0))

    def first(self, count: int) -> Relations:
        return self.taken(np.arange(len(self.goes)) < count)

    def taken(self, mask: NDArray[np.bool_]) -> Relations:
        return Relations(self.goes[mask], self.factors[mask], self.shift[mask], self.off[mask])


def shorten(factors: Array) -> Array:
    """Factors met exactly where they are near numbers of few digits."""
    short = np.round(factors * 2.0**24) * 2.0**-24
    return np.where(np.abs(factors - short) <= _SHORT * np.maximum(1.0, np.abs(short)), short, factors)


def patch_of(view: View, node: Affine) -> tuple[Array, Array, Array]:
    """(weights, lower, upper) of a convolution: (out, in · taps) and bounds of what the taps read."""
    conv = node.maps[0]
    assert isinstance(conv, Conv)
    reads, taps = conv.kernel.shape[1], int(np.prod(conv.kernel.shape[2:]))
    groups = conv.geometry.groups
    weights = np.zeros((conv.out_channels, groups, reads * taps))
    of = np.arange(conv.out_channels) // (conv.out_channels // groups)
    weights[np.arange(conv.out_channels), of] = conv.kernel.reshape(conv.out_channels, -1)
    columns = np.arange(conv.columns).reshape(conv.in_channels, -1)
    lower, upper = channel_range(view, node.sources[0], columns)
    if is_padded(conv):
        lower, upper = np.minimum(lower, 0.0), np.maximum(upper, 0.0)
    return weights.reshape(conv.out_channels, -1), np.repeat(lower, taps), np.repeat(upper, taps)


def written(view: View, node: Affine, goes: Indices, factors: Array) -> Relations:
    """Where channels of a convolution are written: its kernels tell how near they are."""
    weights, lower, upper = patch_of(view, node)
    used = np.flatnonzero((factors != 0).any(axis=0))
    nothing = np.zeros(len(goes))
    old = Form(np.eye(len(goes)), weights[goes], nothing, nothing)
    new = Form(factors[:, used], weights[used], np.zeros(len(used)), nothing)
    off = change(old, new, lower, upper).most if len(goes) else nothing
    bias = channel_bias(node)
    return Relations(goes, factors, _shift(bias, goes, factors), np.where(_uneven(bias, goes, factors), np.inf, off))


def _uneven(bias: Array, goes: Indices, factors: Array) -> NDArray[np.bool_]:
    """The relations that have to do with a channel that has no bias of its own."""
    none = np.isnan(bias)
    return np.asarray(none[goes] | ((factors != 0) & none).any(axis=1))


def channel_bias(node: Affine, index: Indices | None = None) -> Array:
    """The bias of each channel: NaN where not all positions have the same."""
    rows = node.bias.astype(np.float64)[np.arange(node.size).reshape(node.groups, -1) if index is None else index]
    return np.where((rows == rows[:, :1]).all(axis=1), rows[:, 0], np.nan)


def _shift(bias: Array, goes: Indices, factors: Array) -> Fractions:
    """b_j − Σ c_ji b_i, exactly; infinite biases are none."""
    shift = np.full(len(goes), Fraction(0), dtype=object)
    for row, (j, of) in enumerate(zip(goes, factors, strict=True)):
        if np.isfinite(bias[j]):
            shift[row] = Fraction(float(bias[j]))
        for i in np.flatnonzero(of):
            if np.isfinite(bias[i]):
                shift[row] -= Fraction(float(of[i])) * Fraction(float(bias[i]))
    return shift


def followed(view: View, stream: Stream, begun: Mapping[str, Relations]) -> dict[str, Relations]:
    """By node of a stream, what becomes of relations among the channels that its writers write."""
    found = dict(begun)
    for node in view.network.nodes:
        if node.name in found or node.name not in stream.index:
            continue
        if isinstance(node, Relu):
            found[node.name] = _rectified(view, stream, node, found[node.source])
        else:
            found[node.name] = _kept(view, stream, node, found)
    return found


def _kept(view: View, stream: Stream, node: Affine, found: Mapping[str, Relations]) -> Relations:
    """Behind an affine node that keeps channels apart: a norm, a depthwise layer, a pooling, a sum."""
    sources = [source for source in node.sources if source in stream.index]
    parts = stream.kept[node.name]
    goes = found[sources[0]].goes
    factors = _behind(parts[0], found[sources[0]])
    off = np.zeros(len(goes))
    bias = channel_bias(node, stream.index[node.name])
    shift = _shift(bias, goes, factors)
    for source, part in zip(sources, parts, strict=True):
        of = found[source]
        off = round_up(off + _apart(view, source, stream.index[source], part, of, factors))
        for row, j in enumerate(goes):
            if of.shift[row] and part.padded:
                size = np.abs(part.weights[j]) * float_up(abs(of.shift[row]))
                size = part.most(size[None])[0]
                off[row] = round_up(off[row] + size + product_error(size, len(part.rows)))
            elif of.shift[row]:
                first = part.weights[j][part.rows == 0]
                shift[row] += of.shift[row] * sum((Fraction(float(w)) for w in first), Fraction(0))
    if node.own is not None:
        off = round_up(off + _rounded(view, stream, node, sources, factors, goes))
    lost = np.isnan(off) | _uneven(bias, goes, factors)
    return Relations(goes, factors, shift, np.where(lost, np.inf, off))


def _behind(part: Apart, of: Relations) -> Array:
    """The factors behind a map: c_ji K_j / K_i, as far as that is a number."""
    if (part.weights == part.weights[:1]).all():
        return of.factors
    factors = np.zeros_like(of.factors)
    for row, j in enumerate(of.goes):
        for i in np.flatnonzero(of.factors[row]):
            mine, others = part.weights[j], part.weights[i]
            size = float(others @ others)
            ratio = 1.0 if np.array_equal(mine, others) else float(mine @ others) / size if size else 0.0
            factors[row, i] = of.factors[row, i] * ratio
    return np.where(np.isfinite(factors), shorten(factors), 0.0)


def _apart(view: View, source: str, index: Indices, part: Apart, of: Relations, factors: Array) -> Array:
    """How far K_j ∗ v_j is from Σ c'_ji K_i ∗ v_i (and what the shift comes to)."""
    lower, upper = channel_range(view, source, index)
    reach = np.maximum(np.abs(lower), np.abs(upper))
    total = np.zeros(len(of.goes))
    for row, j in enumerate(of.goes):
        mine = part.weights[j]
        terms = np.abs(mine) * of.off[row] if of.off[row] else np.zeros(len(mine))
        for i in np.flatnonzero((of.factors[row] != 0) | (factors[row] != 0)):
            c, behind = float(of.factors[row, i]), float(factors[row, i])
            if c == behind and np.array_equal(mine, part.weights[i]):
                continue
            left = _difference(c, mine, behind, part.weights[i])
            terms = round_up(terms + np.where(left > 0, round_up(left * reach[i]), 0.0))
        if terms.any():
            largest = float(part.most(terms[None])[0])
            total[row] = round_up(largest + product_error(np.array(largest), len(mine) + 4 * len(reach)))
    return total


def _difference(c: float, mine: Array, behind: float, others: Array) -> Array:
    """|c · mine − behind · others|, rounded up."""
    first, second = Fraction(c), Fraction(behind)
    pairs = zip(mine.tolist(), others.tolist(), strict=True)
    return np.array([float_up(abs(first * Fraction(m) - second * Fraction(o))) for m, o in pairs])


def _rounded(view: View, stream: Stream, node: Affine, sources: list[str], factors: Array, goes: Indices) -> Array:
    """What the rounding of a layer's own numbers comes to: each channel may be another than is stored."""
    assert node.own is not None
    rounding = node.own.rounding
    (source,), (part,) = sources, stream.kept[node.name]
    lower, upper = channel_range(view, source, stream.index[source])
    reach = np.maximum(np.abs(lower), np.abs(upper))
    size = part.most(np.abs(part.weights)) * reach
    loose = round_up(np.max(rounding.weights) * size * (1 + 2.0**-20))
    bias = np.broadcast_to(rounding.bias, (node.size,))[stream.index[node.name]].max(axis=1)
    each = round_up(loose + bias)
    flow = each[goes] + np.abs(factors) @ each
    return np.asarray(round_up(flow + product_error(flow, len(each))))


def _rectified(view: View, stream: Stream, relu: Relu, of: Relations) -> Relations:
    """Behind a ReLU."""
    units, index = view.facts.units[relu.source], stream.index[relu.name]
    active = (units.state[index] == State.ACTIVE).all(axis=1)
    defect = units.defect(relu.slope)[index].max(axis=1)
    slopes = relu.slope[index]
    off, shift = of.off.copy(), of.shift.copy()
    for row, (j, factors) in enumerate(zip(of.goes, of.factors, strict=True)):
        others = np.flatnonzero(factors)
        if active[j] and active[others].all():
            cost = defect[j] + np.abs(factors[others]) @ defect[others]
            if cost:
                off[row] = round_up(off[row] + cost + product_error(np.array(cost), len(others) + 1))
            continue
        single = len(others) == 1 and factors[others[0]] > 0 and np.array_equal(slopes[j], slopes[others[0]])
        if not single or slopes[j].max(initial=0.0) > 1:
            off[row] = np.inf
        elif shift[row]:
            off[row] = round_up(off[row] + float_up(abs(shift[row])))
            shift[row] = Fraction(0)
    return Relations(of.goes, of.factors, shift, off)
