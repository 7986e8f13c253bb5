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

from leo_core.arithmetic import float_up, product_error, round_up, weigh_up
from leo_core.linear import Conv
from leo_core.network import Affine, Relu
from leo_core.rewrite.form import Form, change
from leo_core.rewrite.streams import Apart, Places, Stream, all_places, channel_range, is_padded
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
    """|v_j − Σ c_ji v_i − d_j| ≤ off_j at each position, for some channels j by others i of their kind, at one node.

    Where it holds none of them, nothing is said: they count as 0, and so do d and off.

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
    lower, upper = channel_range(view, node.sources[0], all_places(conv.in_channels, conv.columns))
    if is_padded(conv):
        lower, upper = np.minimum(lower, 0.0), np.maximum(upper, 0.0)
    return weights.reshape(conv.out_channels, -1), np.repeat(lower, taps), np.repeat(upper, taps)


def filters(view: View, stream: Stream, writer: Affine) -> tuple[Array, Array, Array]:
    """The same of a writer of a stream, by the channels of the stream; 0 for those that it does not write."""
    own, lower, upper = patch_of(view, writer)
    places = stream.places[writer.name]
    assert places.whole is not None
    weights = np.zeros((stream.channels, own.shape[1]))
    weights[places.held] = own[places.whole]
    return weights, lower, upper


def written(view: View, stream: Stream, node: Affine, goes: Indices, factors: Array) -> Relations:
    """Where channels of a convolution are written: its kernels tell how near they are."""
    weights, lower, upper = filters(view, stream, node)
    used = np.flatnonzero((factors != 0).any(axis=0))
    nothing = np.zeros(len(goes))
    old = Form(np.eye(len(goes)), weights[goes], nothing, nothing)
    new = Form(factors[:, used], weights[used], np.zeros(len(used)), nothing)
    off = change(old, new, lower, upper).most if len(goes) else nothing
    bias = channel_bias(node, stream.places[node.name])
    off = np.where(_uneven(bias, goes, factors), np.inf, off)
    return Relations(goes, factors, _shift(bias, goes, factors), off)


def _uneven(bias: Array, goes: Indices, factors: Array) -> NDArray[np.bool_]:
    """The relations that have to do with a channel that has no bias of its own."""
    none = np.isnan(bias)
    return np.asarray(none[goes] | ((factors != 0) & none).any(axis=1))


def channel_bias(node: Affine, places: Places | None = None) -> Array:
    """The bias of each channel: NaN where not all positions have the same."""
    rows = (places or all_places(node.groups, node.size)).of(node.bias.astype(np.float64), absent=0.0)
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
        if node.name in found or node.name not in stream.places:
            continue
        if isinstance(node, Relu):
            found[node.name] = _rectified(view, stream, node, found[node.source])
        else:
            found[node.name] = _kept(view, stream, node, found)
    return found


def _kept(view: View, stream: Stream, node: Affine, found: Mapping[str, Relations]) -> Relations:
    """Behind an affine node that keeps channels apart: a norm, a depthwise layer, a pooling, a sum."""
    parts, places = stream.kept[node.name], stream.places[node.name]
    goes = found[next(iter(parts))].goes
    factors, settled = np.zeros((len(goes), stream.channels)), ~places.held[goes]
    for source, part in parts.items():  # the first to hold a channel says by what factors it is expressed
        here = stream.places[source].held[goes] & ~settled
        if here.any():
            factors[here] = _behind(part, found[source].taken(here))
        settled |= here
    off = np.zeros(len(goes))
    bias = channel_bias(node, places)
    shift = _shift(bias, goes, factors)
    for source, part in parts.items():
        of = found[source]
        off = round_up(off + _apart(view, source, stream.places[source], part, of, factors))
        for row, j in enumerate(goes):
            if of.shift[row] and part.padded:
                size = np.abs(part.weights[j]) * float_up(abs(of.shift[row]))
                size = part.most(size[None])[0]
                off[row] = round_up(off[row] + size + product_error(size, len(part.rows)))
            elif of.shift[row]:
                first = part.weights[j][part.rows == 0]
                shift[row] += of.shift[row] * sum((Fraction(float(w)) for w in first), Fraction(0))
    if node.own is not None:
        off = round_up(off + _rounded(view, stream, node, factors, goes))
    lost = np.isnan(off) | _uneven(bias, goes, factors)
    nothing = ~places.held[goes]
    shift[nothing] = Fraction(0)
    return Relations(goes, factors, shift, np.where(nothing, 0.0, np.where(lost, np.inf, off)))


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


def _apart(view: View, source: str, places: Places, part: Apart, of: Relations, factors: Array) -> Array:
    """How far K_j ∗ v_j is from Σ c'_ji K_i ∗ v_i (and what the shift comes to)."""
    lower, upper = channel_range(view, source, places)
    reach = np.maximum(np.abs(lower), np.abs(upper))
    total = np.zeros(len(of.goes))
    for row, j in enumerate(of.goes):
        mine = part.weights[j]
        terms = np.where((mine == 0) | (of.off[row] == 0), 0.0, round_up(np.abs(mine) * of.off[row]))
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


def _rounded(view: View, stream: Stream, node: Affine, factors: Array, goes: Indices) -> Array:
    """What the rounding of a layer's own numbers comes to: each channel may be another than is stored."""
    assert node.own is not None
    rounding = node.own.rounding
    ((source, part),) = stream.kept[node.name].items()
    lower, upper = channel_range(view, source, stream.places[source])
    reach = np.maximum(np.abs(lower), np.abs(upper))
    size = part.most(np.abs(part.weights)) * reach
    loose = round_up(np.max(rounding.weights) * size * (1 + 2.0**-20))
    bias = np.broadcast_to(rounding.bias, (node.size,))
    bias = stream.places[node.name].of(bias, absent=0.0).max(axis=1)
    each = round_up(loose + bias)
    flow = each[goes] + np.abs(factors) @ each
    return np.asarray(round_up(flow + product_error(flow, len(each))))


def _rectified(view: View, stream: Stream, relu: Relu, of: Relations) -> Relations:
    """Behind a ReLU."""
    units, places = view.facts.units[relu.source], stream.places[relu.name]
    active: NDArray[np.bool_] = np.asarray(places.of(units.state == State.ACTIVE, absent=True).all(axis=1))
    defect = places.of(units.defect(relu.slope), absent=0.0).max(axis=1)
    slopes = places.of(relu.slope, absent=0.0)
    off, shift = of.off.copy(), of.shift.copy()
    for row, (j, factors) in enumerate(zip(of.goes, of.factors, strict=True)):
        others = np.flatnonzero(factors)
        if active[j] and active[others].all():
            cost = weigh_up(np.append(factors[others], 1.0)[None], np.append(defect[others], defect[j]))[0]
            if cost:
                off[row] = round_up(off[row] + cost)
            continue
        single = len(others) == 1 and factors[others[0]] > 0 and np.array_equal(slopes[j], slopes[others[0]])
        if not single or slopes[j].max(initial=0.0) > 1:
            off[row] = np.inf
        elif shift[row]:
            off[row] = round_up(off[row] + float_up(abs(shift[row])))
            shift[row] = Fraction(0)
    return Relations(of.goes, of.factors, shift, off)
