"""What reads channels takes over those that others express: M'_i = M_i + Σ_j M_j c_ji, and channel j is read no more.

The shift d_j of each goes into the bias, as Σ_j M_j d_j. A convolution with pads sees less of it at the
border: there it goes to a carrier, a channel of one value v, as Σ_j M_j d_j / v. What new weights round goes the same
way, as far as it is the same on the whole box.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from leo_core.arithmetic import float_down, float_up, nearest_float, product_error, round_up, to_integers, weigh_up
from leo_core.linear import LARGEST_DENSE, Conv, ConvTranspose, LinearMap
from leo_core.network import Affine
from leo_core.rewrite import maps
from leo_core.rewrite.form import Form, best_constants, change
from leo_core.rewrite.relations import Relations
from leo_core.rewrite.streams import Places, channel_range, is_padded
from leo_core.rewrite.view import View

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


@final
@dataclass(frozen=True)
class Carrier:
    """A channel of one value on the whole box; ``new`` where it is one only once the rewrite is made.

    Its value may be another by ``off``.
    """

    channel: int
    value: Fraction
    new: bool = False
    off: float = 0.0


@final
@dataclass(frozen=True, eq=False)
class Reading:
    """A node's weights for the channels of what it reads: (rows, channels, taps).

    A row of a convolution is a channel, of anything else a unit; a tap is a position of the kernel, or of the image.
    Channels that are not there to be read have weights of 0.
    """

    node: Affine
    places: Places
    weights: Array
    padded: bool

    @staticmethod
    def of(node: Affine, places: Places) -> Reading | None:
        """Of a node with one map, from channels that lie at ``places``; None where it is of another kind."""
        if len(node.maps) > 1 or node.own is not None:
            return None
        linear = node.maps[0]
        if not isinstance(linear, Conv | ConvTranspose):
            if linear.rows * linear.columns > LARGEST_DENSE:
                return None
            weights = places.of(node.weights_of(node.sources[0]).T, absent=0.0)
            return Reading(node, places, np.moveaxis(weights, -1, 0), padded=False)
        positions = places.index.shape[1]
        if places.whole is None or positions != linear.columns // _reads(linear):
            return None
        own = _by_channel(linear)[:, places.whole]
        kernel = np.zeros((len(own), len(places.held), int(np.prod(own.shape[2:]))))
        kernel[:, places.held] = own.reshape(*own.shape[:2], -1)
        return Reading(node, places, kernel, _sees_less(linear))

    @property
    def dtype(self) -> np.dtype[Any]:
        """What its weights are stored in."""
        return maps.weight_dtype(self.node, self.node.maps[0])

    def stored(self, weights: Array) -> Array:
        """Weights as they will be stored. Raises OverflowError where one does not fit."""
        with np.errstate(over="ignore", invalid="ignore"):
            stored = weights.astype(self.dtype).astype(np.float64)
        if not np.isfinite(stored).all():
            raise OverflowError(f"a new weight of {self.node.name} would overflow")
        return stored

    @property
    def whole(self) -> bool:
        """Whether each row sees all channels, not those of its group alone."""
        linear = self.node.maps[0]
        return not isinstance(linear, Conv | ConvTranspose) or linear.geometry.groups == 1

    def can(self, of: Relations) -> NDArray[np.bool_]:
        """Which of some relations are among channels that it can read instead: those of one group."""
        linear, held = self.node.maps[0], self.places.held
        if self.whole or self.places.whole is None or not isinstance(linear, Conv | ConvTranspose):
            return np.ones(len(of.goes), dtype=bool)
        group = np.full(len(held), -1)
        group[held] = self.places.whole // (_reads(linear) // linear.geometry.groups)
        return np.asarray(((of.factors == 0) | (group[of.goes][:, None] == group)).all(axis=1))

    def with_weights(self, weights: Array, bias: Array) -> Affine:
        """The node with others, as they were given in the stored type."""
        linear, held = self.node.maps[0], self.places.held
        assert not weights[:, ~held].any()
        weights, bias = weights[:, held], bias.astype(self.node.bias.dtype)
        if not isinstance(linear, Conv | ConvTranspose):
            matrix = self.node.weights_of(self.node.sources[0])
            matrix[:, self.places.index[held]] = weights
            return replace(self.node, maps=(maps.stored(matrix, self.dtype, linear),), bias=bias)
        kernel = _by_channel(linear)
        kernel[:, self.places.whole] = weights.reshape(*weights.shape[:2], *kernel.shape[2:])
        return replace(self.node, maps=(_of_channels(linear, kernel),), bias=bias)

    def units(self, of_rows: Array) -> Array:
        """What is given for each row, for each unit."""
        return np.repeat(of_rows, self.node.size // len(of_rows))


def _reads(linear: Conv | ConvTranspose) -> int:
    return linear.in_channels if isinstance(linear, Conv) else linear.conv.out_channels


def _sees_less(linear: Conv | ConvTranspose) -> bool:
    return is_padded(linear) if isinstance(linear, Conv) else True


def _by_channel(linear: Conv | ConvTranspose) -> Array:
    """(out, in, *taps), with zeros between the groups, in float64."""
    conv = linear if isinstance(linear, Conv) else linear.conv
    kernel, groups = conv.kernel.astype(np.float64), conv.geometry.groups
    outs, reads, *taps = kernel.shape
    whole = np.zeros((outs, groups, reads, *taps))
    whole[np.arange(outs), np.arange(outs) // (outs // groups)] = kernel
    whole = whole.reshape(outs, groups * reads, *taps)
    return whole if isinstance(linear, Conv) else np.ascontiguousarray(whole.swapaxes(0, 1))


def _of_channels(linear: Conv | ConvTranspose, whole: Array) -> LinearMap:
    conv = linear if isinstance(linear, Conv) else linear.conv
    whole = whole if isinstance(linear, Conv) else whole.swapaxes(0, 1)
    outs, reads, *taps = conv.kernel.shape
    groups = conv.geometry.groups
    grouped = whole.reshape(outs, groups, reads, *taps)[np.arange(outs), np.arange(outs) // (outs // groups)]
    return type(linear)(grouped.astype(conv.dtype), conv.arrays()["geometry"])


def absorbed(view: View, source: str, reading: Reading, of: Relations, carrier: Carrier | None) -> tuple[Affine, Array]:
    """(the node without the channels that others express, how far its units are from what they were).

    Raises OverflowError.
    """
    if not reading.whole:
        carrier = None  # a group may not see it
    goes, used = of.goes, of.used
    others = used if carrier is None or carrier.new else np.union1d(used, [carrier.channel])
    old_units = np.concatenate([goes, others])
    reads = others if carrier is None or not carrier.new else np.concatenate([others, [carrier.channel]])
    rows, _, taps = reading.weights.shape
    outgoing = reading.weights[:, old_units].swapaxes(1, 2).reshape(rows * taps, -1)
    expressed = np.vstack([of.factors[:, reads], np.eye(len(reads))[: len(others)]])
    off = of.off.copy()
    if of.shift.any() and reading.padded:
        for row, shift in enumerate(of.shift):
            if carrier is not None and (weight := nearest_float(shift / carrier.value)):
                expressed[row, reads == carrier.channel] = weight
                shift -= Fraction(weight) * carrier.value
                if carrier.off:
                    off[row] = round_up(off[row] + float_up(abs(Fraction(weight)) * Fraction(carrier.off)))
            off[row] = round_up(off[row] + float_up(abs(shift))) if shift else off[row]
    lower, upper = (ends[reads] for ends in channel_range(view, source, reading.places))
    if carrier is not None:
        at = reads == carrier.channel
        spread = Fraction(carrier.off)
        lower[at], upper[at] = float_down(carrier.value - spread), float_up(carrier.value + spread)
    nothing = np.zeros(len(outgoing))
    old = Form(outgoing, expressed, np.zeros(len(old_units)), nothing)
    new = Form(reading.stored(old.rounded(reading.dtype)), np.eye(len(reads)), np.zeros(len(reads)), nothing)
    made = change(old, new, lower, upper).most
    if made.any() and (carrier is not None or not reading.padded):
        left = best_constants(old, new, lower, upper, np.float64)
        if reading.padded and carrier is not None:
            added = np.where(reads == carrier.channel, left[:, None] / float(carrier.value), 0.0)
            nearer = replace(new, outgoing=reading.stored(new.outgoing + added))
        else:
            nearer = new.with_constants(left)
        better = change(old, nearer, lower, upper).most < made
        outgoing, constants = (
            np.where(better[:, None], nearer.outgoing, new.outgoing),
            np.where(better, nearer.constants, 0.0),
        )
        new = replace(new, outgoing=outgoing, constants=constants)
        made = change(old, new, lower, upper).most
    constants = new.constants.reshape(rows, taps)
    bias, lost = reading.node.bias.astype(np.float64), np.zeros(rows)
    if constants.any() or (of.shift.any() and not reading.padded):
        bias, lost = _shifted(reading, of, constants)
    made = added_up(made + weigh_up(old.outgoing[:, : len(goes)], off), 1)
    error = added_up(made.reshape(rows, taps).sum(axis=1) + lost, taps)
    weights = reading.weights.copy()
    weights[:, goes] = 0
    weights[:, reads] = new.outgoing.reshape(rows, taps, -1).swapaxes(1, 2)
    return reading.with_weights(weights, bias), reading.units(error)


def added_up(total: Array, additions: int) -> Array:
    """Sums of what is not negative, rounded up; where all of it is nothing, there is nothing to round."""
    return np.where(total == 0, 0.0, round_up(total + product_error(total, additions + 1)))


def _shifted(reading: Reading, of: Relations, more: Array) -> tuple[Array, Array]:
    """(the bias with Σ M_j d_j and more, (rows, taps), rounded to its type; what that rounds). Raises OverflowError."""
    terms: list[list[Any]] = [[*row] for row in more.tolist()]
    if not reading.padded:
        integers, bits = to_integers(reading.weights[:, of.goes].reshape(-1))
        summed = integers.reshape(len(reading.weights), len(of.goes), -1).sum(axis=2)
        for row, weights in zip(terms, summed, strict=True):
            row += [Fraction(int(w), 1 << bits) * d for w, d in zip(weights, of.shift, strict=True) if d]
    return rounded_bias(reading.node.bias, terms)


def rounded_bias(bias: NDArray[Any], more: Sequence[Sequence[float | Fraction]]) -> tuple[NDArray[Any], Array]:
    """(a bias to which terms are added, for each of so many rows or channels, rounded once; what that rounds, by row).

    Raises OverflowError.
    """
    old = bias.reshape(len(more), -1)
    new, lost = np.zeros(old.shape, bias.dtype), np.zeros(len(more))
    for row, terms in enumerate(more):
        total = sum((Fraction(term) for term in terms), Fraction(0))
        for value in np.unique(old[row]):
            exact = Fraction(float(value)) + total
            with np.errstate(over="ignore"):
                rounded = bias.dtype.type(nearest_float(exact))
            if not np.isfinite(rounded):
                raise OverflowError("a new bias would overflow")
            new[row, old[row] == value] = rounded
            lost[row] = max(lost[row], float_up(abs(Fraction(float(rounded)) - exact)))
    return new.ravel(), lost
