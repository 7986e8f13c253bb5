"""A value that is the same on the whole box moves into what reads it: into a bias, or into as few of its like.

What is constant is asked by channel where a node has channels, else by unit. Values are computed over the rationals; a
new number is rounded once, to its dtype, and what is left is exact, too. A convolution without pads takes constants
into its bias. With pads it sees less of them at the border, so one or more of the constant channels stay, as
*carriers*: their kernels take the sum of all the others', each what the rounding of those before has left. A carrier
takes what a bias loses, too: two floats instead of one, where the norms of twenty layers would blow one up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from leo_core.arithmetic import ExactVector, add_exact, float_up, nearest_float, product_error, round_up, to_integers
from leo_core.bounds.change import Change
from leo_core.bounds.interval import rounded_off
from leo_core.linear import Conv, ConvTranspose, LinearMap
from leo_core.network import INPUT, Affine, Network, Own, Relu
from leo_core.rewrite.step import Ladder, Refusal, Rewrite, only
from leo_core.rewrite.view import View
from leo_core.stability.verdict import State

Mask = NDArray[np.bool_]
Array = NDArray[np.float64]
Fractions: TypeAlias = NDArray[np.object_]

#: The most channels that are kept to carry what the others come to.
_CARRIERS = 3


@final
@dataclass(frozen=True, eq=False)
class Constants:
    """Which channels of a node, or units where it has none, have one value on the whole box.

    Attributes
    ----------
    known:
        (groups,)
    values:
        (groups,) of fractions, 0 where nothing is known.
    off:
        (groups,), by how much a value may be another.
    size:
        How many units there are.
    """

    known: Mask
    values: Fractions
    off: Array
    size: int

    @staticmethod
    def none(groups: int, size: int) -> Constants:
        return Constants(np.zeros(groups, bool), np.full(groups, Fraction(0)), np.zeros(groups), size)

    def units(self, of_groups: NDArray[Any]) -> NDArray[Any]:
        """What is given for each channel, for each of its units."""
        return np.repeat(of_groups, self.size // max(1, len(of_groups)))

    def exact(self, of: Mask) -> ExactVector:
        """The values of the units of some channels, 0 elsewhere."""
        denominator = math.lcm(*(value.denominator for value in self.values[of]))
        numerators = np.zeros(len(of), dtype=object)
        numerators[of] = [value.numerator * (denominator // value.denominator) for value in self.values[of]]
        return ExactVector(self.units(numerators), denominator)


def fold_constants(view: View, name: str) -> Ladder | Refusal | None:
    """Fold what is constant of all that the affine node ``name`` reads."""
    node = view.network[name]
    if not isinstance(node, Affine) or node.own is not None:
        return None
    known = constants_of(view)
    read: list[_Read] = []
    for source, linear in node.reads:
        gone = known[source].known & (source != INPUT)
        if gone.any():
            gone = gone & _used(linear, len(gone))
        read.append(_Read(source, linear, known[source], gone))
    if not any(part.gone.any() for part in read):
        return None
    if not node.shape:
        return _into_bias(view, node, read)
    if not _takes(view.network, node):
        return _without_branches(view, node, read)
    needed = read[0].gone & _needed(view, node, read[0])
    gone = read[0].gone & ~needed
    return _into_convolution(view, node, replace(read[0], gone=gone), needed) if gone.any() else None


def _without_branches(view: View, node: Affine, read: list[_Read]) -> Ladder | Refusal | None:
    """A sum without those of its terms that are constant in every channel."""
    dead = []
    for part in read:
        whole = not (_used(part.linear, len(part.gone)) & ~part.gone).any()
        dead.append(part if whole else replace(part, gone=np.zeros_like(part.gone)))
    if len(read) < 2 or not any(part.gone.any() for part in dead) or all(part.gone.any() for part in dead):
        return None
    return _into_bias(view, node, dead)


def _takes(network: Network, node: Affine) -> bool:
    """Whether a node can take constants in: not a sum, a concatenation, a layer that keeps channels apart.

    What reads those takes theirs. One whose channels are not those of what it reads takes none.
    """
    if node.own is not None or not node.shape:
        return node.own is None
    first, (source, *_) = node.maps[0], node.sources
    if len(node.maps) > 1 or not isinstance(first, Conv | ConvTranspose) or first.geometry.groups > 1:
        return False
    reads = first.in_channels if isinstance(first, Conv) else first.conv.out_channels
    return source != INPUT and reads == (network.layout(source) or (network.size(source),))[0]


def _needed(view: View, node: Affine, read: _Read) -> Mask:
    """The channels of what a node reads that stay, since something else reads them that takes no constants."""
    network, needed = view.network, np.zeros(len(read.gone), dtype=bool)
    for name in network.readers[read.source]:
        other = network[name]
        if isinstance(other, Relu):
            return np.ones_like(needed)
        if other is not node and not _takes(network, other):
            for source, linear in other.reads:
                if source == read.source:
                    needed |= _used(linear, len(needed))
    return needed


@final
@dataclass(frozen=True, eq=False)
class _Read:
    """A source of a node, what is constant of it, and which of that the node reads: ``gone`` (groups,)."""

    source: str
    linear: LinearMap
    constants: Constants
    gone: Mask

    def without(self, gone: Mask) -> LinearMap:
        return self.linear.without(np.zeros(self.linear.rows, dtype=bool), self.constants.units(gone))

    def off(self, gone: Mask) -> Array:
        """How far the sum may be off because values are."""
        off = np.where(gone, self.constants.off, 0.0)
        if not off.any():
            return np.zeros(self.linear.rows)
        flow = self.linear.absolute().apply(self.constants.units(off))
        return round_up(flow + product_error(flow, self.linear.terms))


def _into_bias(view: View, node: Affine, read: list[_Read]) -> Ladder | Refusal | None:
    """Of a node without channels."""
    parts = [ExactVector.of(node.bias)]
    error = np.zeros(node.size)
    for part in read:
        if part.gone.any():
            columns = np.flatnonzero(part.constants.units(part.gone))
            values = part.constants.exact(part.gone)
            taken = ExactVector(values.numerators[columns], values.denominator)
            parts.append(part.linear.select_columns(columns).apply_exact(taken))
            error = error + part.off(part.gone)
    folded = sum(int(part.gone.sum()) for part in read)
    exact = add_exact(parts).fractions()
    with np.errstate(over="ignore"):
        bias = np.array([nearest_float(value) for value in exact]).astype(node.bias.dtype)
    what = f"{folded} constant unit(s) before it folded into the bias"
    if node.shape and not _by_channel(bias, node.shape[0]):
        return None  # a bias for each position is not what any layer has
    if not np.isfinite(bias).all():
        return Refusal(what, "a new bias would overflow")
    rounded = np.array([float_up(abs(Fraction(float(new)) - old)) for new, old in zip(bias, exact, strict=True)])
    error = np.where(error == 0, rounded, round_up(error + rounded))
    changed = replace(node, maps=tuple(part.without(part.gone) for part in read), bias=bias)
    changes = {node.name: Change.at_most(error)} if error.any() else {}
    return only(
        Rewrite(view.with_nodes(changed), what, changes),
        Refusal(what, "rounding the new biases costs more than the tolerance leaves"),
    )


def _into_convolution(view: View, node: Affine, read: _Read, needed: Mask) -> Ladder | Refusal | None:
    """Of a convolution: into its bias where it has no pads; with more and more of the constant channels left.

    Those that are ``needed`` elsewhere stay in any case, and the largest carries what it can.
    """
    nothing = np.array([value == 0 for value in read.constants.values]) & (read.constants.off == 0)
    zeros, others = read.gone & nothing, np.flatnonzero(read.gone & ~nothing)
    size = np.array([float(abs(value)) for value in read.constants.values])
    there = needed & (size > 0)
    stays = [int(np.argmax(np.where(there, size, 0.0)))] if there.any() else []
    ways: list[Mask | int] = []
    if len(others) and isinstance(read.linear, Conv):
        first = 1 if _padded(read.linear) and not stays else 0
        ways += range(first, min(_CARRIERS, len(others) - 1) + 1)
    if zeros.any():
        ways.append(zeros)
    if not ways:
        return None
    what = f"{int(read.gone.sum())} constant channel(s) before it not folded"

    def made(rung: int) -> Rewrite | None:
        way = ways[rung]
        if not isinstance(way, int):
            cleared = replace(node, maps=(read.without(zeros),))
            return Rewrite(view.with_nodes(cleared), f"{int(zeros.sum())} channel(s) before it that are zero dropped")
        return _carried(view, node, read, others, stays, way)

    return Ladder(len(ways), made, otherwise=Refusal(what, "rounding costs more than the tolerance leaves"))


def _padded(conv: Conv) -> bool:
    return any(size > 0 for size in (*conv.geometry.low, *conv.geometry.high))


def _carried(
    view: View, node: Affine, read: _Read, others: NDArray[np.int64], stays: list[int], count: int
) -> Rewrite | None:
    """All constant channels but ``count``, which carry what the others come to beyond a bias; None on overflow.

    One that ``stays`` carries first of all, with what it came to itself.
    """
    conv = read.linear
    assert isinstance(conv, Conv)
    values = read.constants.values
    order = np.argsort([-abs(float(values[channel])) for channel in others], kind="stable")
    carriers = np.array([*stays, *others[order[:count]]], np.int64)
    others = np.concatenate([others, np.array(stays, np.int64)])
    old = conv.arrays()["kernel"]
    kernel = old.reshape(conv.out_channels, conv.in_channels, -1).copy()
    integers, shift = to_integers(kernel[:, others])
    denominator = math.lcm(*(values[channel].denominator for channel in others))
    numerators = [int(values[channel] * denominator) for channel in others]
    summed = np.tensordot(integers, np.array(numerators, dtype=object), axes=([1], [0]))
    left = [[Fraction(int(tap), denominator << shift) for tap in row] for row in summed]  # (out, taps) to be carried
    size = np.abs(kernel[:, others].astype(np.float64)).sum(axis=2) @ read.constants.off[others]
    off = round_up(size + product_error(size, kernel.size))
    kernel[:, read.gone] = 0
    kernel[:, stays] = 0
    bias = node.bias
    if not _padded(conv):
        positions = node.size // conv.out_channels
        exact = [Fraction(float(b)) + sum(row) for b, row in zip(bias[::positions], left, strict=True)]
        with np.errstate(over="ignore"):
            rounded = np.array([nearest_float(value) for value in exact]).astype(bias.dtype)
        if not np.isfinite(rounded).all() or not _by_channel(bias, conv.out_channels):
            return None
        bias = np.repeat(rounded, positions)
        left = [[value - Fraction(float(b))] for value, b in zip(exact, rounded, strict=True)]
    for channel in carriers:
        value = values[channel]
        if value == 0:
            return None
        taps = len(left[0])
        with np.errstate(over="ignore"):
            weight = np.array([[nearest_float(part / value) for part in row] for row in left]).astype(kernel.dtype)
        if not np.isfinite(weight).all():
            return None
        kernel[:, channel, :taps] = weight
        size = np.abs(weight.astype(np.float64)).sum(axis=1) * read.constants.off[channel]
        off = round_up(off + round_up(size + product_error(size, taps)))
        left = [
            [part - Fraction(float(w)) * value for part, w in zip(row, taken, strict=True)]
            for row, taken in zip(left, weight, strict=True)
        ]
    error = np.array([float_up(Fraction(float(o)) + sum(map(abs, row))) for o, row in zip(off, left, strict=True)])
    changed = replace(node, maps=(Conv(kernel.reshape(old.shape), conv.arrays()["geometry"]),), bias=bias)
    changes = {}
    if error.any():
        changes[node.name] = Change.at_most(np.repeat(error, node.size // len(error)))
    what = f"{int(read.gone.sum()) - count} constant channel(s) before it folded"
    if count:
        what += f", {count} left to carry what they come to"
    return Rewrite(view.with_nodes(changed), what, changes)


def _used(linear: LinearMap, groups: int, rows: Mask | None = None) -> Mask:
    """The channels of what a map reads, so many, that some of its rows, or any, depend on."""
    rows = np.ones(linear.rows, dtype=bool) if rows is None else rows
    return np.asarray(_by_group(linear.used_columns(rows), groups).any(axis=1))


def _by_group(units: NDArray[Any], groups: int) -> NDArray[Any]:
    """What is given of units, (groups, units of each)."""
    return units.reshape(groups, len(units) // max(1, groups))


def _by_channel(bias: NDArray[Any], channels: int) -> bool:
    """Whether all positions of a channel have the same bias."""
    rows = bias.reshape(channels, -1)
    return bool((rows == rows[:, :1]).all())


def constants_of(view: View) -> Mapping[str, Constants]:
    """By node, what is constant of it; worked out once for a view."""
    return view.once("constants", lambda: _found(view))


def _found(view: View) -> Mapping[str, Constants]:
    network, box = view.network, view.facts.box
    fixed = box.lower == box.upper
    given = np.full(box.size, Fraction(0))
    given[fixed] = [Fraction(float(value)) for value in box.lower[fixed]]
    found = {INPUT: Constants(fixed, given, np.zeros(box.size), box.size)}
    for node in network.nodes:
        found[node.name] = _affine(node, found) if isinstance(node, Affine) else _relu(view, node, found)
    return found


def _affine(node: Affine, found: Mapping[str, Constants]) -> Constants:
    groups = node.groups
    varies = np.zeros(node.size, dtype=bool)
    for source, linear in node.reads:
        moving = ~found[source].known
        if moving.any():
            varies |= linear.support().apply(found[source].units(moving).astype(np.float32)) > 0
    known: Mask = ~np.asarray(_by_group(varies, groups).any(axis=1))
    constants = Constants.none(groups, node.size)
    if not known.any():
        return constants
    if node.own is not None and len(node.own.numbers.get("gamma", ())) == groups == len(found[node.sources[0]].known):
        return _normed(node, node.own, found[node.sources[0]], known)
    rows = np.flatnonzero(constants.units(known))
    total = [ExactVector.of(node.bias[rows])]
    off, size = np.zeros(node.size), np.abs(node.bias.astype(np.float64))
    for source, linear in node.reads:
        of = found[source]
        nonzero = np.array([value != 0 for value in of.values], dtype=bool)
        if of.off.any():
            off = off + _flow(linear, of.units(of.off))
        if not nonzero.any():
            continue
        used = _used(linear, len(of.known), constants.units(known))
        columns = np.flatnonzero(of.units(used))
        if len(columns):
            values = of.exact(used & of.known)
            taken = ExactVector(values.numerators[columns], values.denominator)
            total.append(linear.select(rows, columns).apply_exact(taken))
            size = size + _flow(linear, of.units(np.array([float_up(abs(value)) for value in of.values])))
    off = np.asarray(off + rounded_off(node, size))
    return _uniform(constants, known, add_exact(total), off)


def _normed(node: Affine, own: Own, source: Constants, known: Mask) -> Constants:
    """Behind a batch norm, from its own numbers: all that their rounding allows would count where norms blow it up.

    What the node stores may not be further off than is said, so that the same is proved of the network as it is stored.
    """
    values, off = np.full(len(known), Fraction(0)), np.zeros(len(known))
    positions = node.size // len(known)
    scales, shifts = node.maps[0].scaling(), node.bias
    assert scales is not None  # it works value by value
    for i in np.flatnonzero(known):
        gamma, beta, mean, variance = (
            Fraction(float(own.numbers[name][i])) for name in ("gamma", "beta", "mean", "variance")
        )
        scale = gamma * _root(1 / (variance + Fraction(own.epsilon)))
        before, spread = source.values[i], Fraction(source.off[i])
        values[i] = beta + scale * (before - mean)
        meant = 2 * abs(scale) * (spread + abs(before - mean) * _ROOT)
        factor, shift = (Fraction(float(array[i * positions])) for array in (scales, shifts))
        off[i] = float_up(max(meant, abs(factor * before + shift - values[i]) + abs(factor) * spread))
    return Constants(known, values, off, source.size)


#: How far a root may be off, relative to it.
_ROOT = Fraction(1, 1 << 120)


def _root(square: Fraction) -> Fraction:
    """Its root, a little too small at most."""
    shift = max(0, 128 + (square.denominator.bit_length() - square.numerator.bit_length()) // 2)
    return Fraction(math.isqrt((square.numerator << (2 * shift)) // square.denominator), 1 << shift)


def _flow(linear: LinearMap, entering: NDArray[Any]) -> Array:
    flow = linear.absolute().apply(entering.astype(np.float64))
    return round_up(round_up(flow) + product_error(flow, linear.terms))


def _uniform(nothing: Constants, known: Mask, exact: ExactVector, off: Array) -> Constants:
    """The channels, among those of which no unit varies, in which all units are the same."""
    numerators = _by_group(exact.numerators, int(known.sum()))
    same = (numerators == numerators[:, :1]).all(axis=1).astype(bool)
    groups = np.flatnonzero(known)[same]
    mask, values = np.zeros(len(known), dtype=bool), nothing.values.copy()
    mask[groups] = True
    values[groups] = [Fraction(int(first), exact.denominator) for first in numerators[same, 0]]
    most = _by_group(off, len(known)).max(axis=1, initial=0.0)
    return Constants(mask, values, np.where(mask & (most > 0), round_up(most), 0.0), nothing.size)


def _relu(view: View, node: Relu, found: Mapping[str, Constants]) -> Constants:
    source, network = found[node.source], view.network
    slopes = _by_group(node.slope, len(source.known))
    known = source.known & (slopes == slopes[:, :1]).all(axis=1)
    values, off = source.values.copy(), np.where(known, source.off, 0.0)
    for i in np.flatnonzero(known):
        if values[i] < 0:
            values[i] *= Fraction(float(slopes[i, 0]))
    values[~known] = Fraction(0)
    if network.affine(node.source).shape:  # of a plain layer those are dropped on their own
        units = view.facts.units[node.source]
        dead = _by_group((units.state == State.INACTIVE) & (node.slope == 0), len(known)).all(axis=1)
        defect = _by_group(units.defect(node.slope), len(known)).max(axis=1, initial=0.0)
        values[dead], off, known = Fraction(0), np.where(dead, defect, off), known | dead
    return Constants(known, values, off, source.size)
