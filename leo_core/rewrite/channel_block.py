"""The channels of one convolution that are lines on the box, and all that reads them, realised by fewer.

With W and b the filters of such channels, (channels, in · taps), and M what the readers make of them, row by row and
tap by tap, all that counts is M W: channels V ∗ x + d do as well for any N V = M W, and M b − N d, for each row and
tap, goes into the bias; where a reader has pads, to a carrier. Averages in between treat all channels alike and leave
constants what they are, so that the same holds behind them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from leo_core.arithmetic import float_up, product_error, weigh_up
from leo_core.bounds.change import Change
from leo_core.linear import Conv
from leo_core.network import Affine, Node, Relu
from leo_core.rewrite.absorb import Carrier, Reading, added_up, rounded_bias
from leo_core.rewrite.channels import carrier_at, stream_at, varying
from leo_core.rewrite.facts import Units
from leo_core.rewrite.form import Form, best_constants, change
from leo_core.rewrite.merge import Pivoted
from leo_core.rewrite.refactor import balanced, short_up
from leo_core.rewrite.relations import channel_bias, filters
from leo_core.rewrite.step import Ladder, Rewrite
from leo_core.rewrite.streams import Apart, Stream, linear_channels
from leo_core.rewrite.view import View
from leo_core.stability.verdict import State

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]

#: With more products than this the product M W is not looked at.
_PRODUCTS = 1 << 28


@final
@dataclass(frozen=True, eq=False)
class ChannelLayer:
    """A convolution, the ReLU behind it, and all that reads its channels, maybe behind averages.

    Attributes
    ----------
    weights, bias:
        (channels, in · taps) and (channels,): its filters; a bias is NaN where not all positions have the same.
    lower, upper:
        (in · taps,): bounds of what the taps read.
    usable:
        (channels,): those that every node holds, and that all averages treat alike.
    """

    view: View
    stream: Stream
    weights: Array
    bias: Array
    lower: Array
    upper: Array
    usable: Mask

    @staticmethod
    def of(view: View, stream: Stream) -> ChannelLayer | None:
        """Of a stream that one convolution in one group writes, and that only averages hand on."""
        (writer, *others) = stream.writers
        conv = writer.maps[0]
        assert isinstance(conv, Conv)
        if others or conv.geometry.groups > 1 or any(r.source != writer.name for r in stream.relus(view.network)):
            return None
        usable = _treated_alike(view, stream)
        if usable is None:
            return None
        weights, lower, upper = filters(view, stream, writer)
        bias = channel_bias(writer, stream.places[writer.name])
        return ChannelLayer(view, stream, weights, bias, lower, upper, usable & np.isfinite(bias))

    @cached_property
    def readings(self) -> tuple[Reading, ...]:
        """All that reads the channels; nothing where one of them sees only some, or the product M W is too large."""
        found = [Reading.of(reader, self.stream.places[source]) for reader, source in self.stream.readers]
        readings = tuple(reading for reading in found if reading is not None and reading.whole)
        rows = sum(reading.weights.shape[0] * reading.weights.shape[2] for reading in readings)
        return readings if len(readings) == len(found) and rows * self.weights.size <= _PRODUCTS else ()

    @cached_property
    def outgoing(self) -> Array:
        """(rows · taps, channels): the weights of all readers, one below the other."""
        return np.vstack([_by_tap(reading.weights) for reading in self.readings])

    @cached_property
    def carriers(self) -> tuple[Carrier | None, ...]:
        """For each reader, a channel that is constant there."""
        places = self.stream.places
        return tuple(carrier_at(self.view, source, places[source]) for _, source in self.stream.readers)

    @cached_property
    def active(self) -> Indices:
        """The channels that are lines on the box, and not constant."""
        return np.flatnonzero(self.usable & linear_channels(self.view, self.stream) & varying(self.view, self.stream))

    @cached_property
    def cost(self) -> Array:
        """(channels,): how far what a ReLU makes of an active channel can be from its line."""
        cost = np.zeros(len(self.bias))
        for relu in self.stream.relus(self.view.network):
            defect = self.view.facts.units[relu.source].defect(relu.slope)
            cost = np.maximum(cost, self.stream.places[relu.name].of(defect, absent=0.0).max(axis=1))
        return cost

    @property
    def writer(self) -> Affine:
        return self.stream.writers[0]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The widest in which a weight of it is stored."""
        return np.result_type(self.writer.maps[0].dtype, *(reading.dtype for reading in self.readings))

    def parts(self) -> Iterator[tuple[Reading, slice]]:
        """Each reader, and its rows of what is stacked."""
        start = 0
        for reading in self.readings:
            end = start + reading.weights.shape[0] * reading.weights.shape[2]
            yield reading, slice(start, end)
            start = end

    def stored(self, outgoing: Array) -> Array:
        """Outgoing weights as they will be stored. Raises OverflowError where one does not fit."""
        return np.vstack([reading.stored(outgoing[rows]) for reading, rows in self.parts()])


def _by_tap(weights: Array) -> Array:
    """(rows, channels, taps) → (rows · taps, channels)."""
    return np.ascontiguousarray(weights.swapaxes(1, 2).reshape(-1, weights.shape[1]))


def _treated_alike(view: View, stream: Stream) -> Mask | None:
    """The channels that all nodes hold and average in the same way; None where one does anything else to them."""
    usable = np.all([places.held for places in stream.places.values()], axis=0)
    for name, parts in stream.kept.items():
        node = view.network.affine(name)
        part = next(iter(parts.values()))
        first = part.weights[usable][:1]
        if len(parts) > 1 or node.own is not None or part.padded or not len(first) or not _averages(part, first[0]):
            return None
        usable &= (part.weights == first).all(axis=1) & (stream.places[name].of(node.bias, 1.0) == 0).all(axis=1)
    return np.asarray(usable)


def _averages(part: Apart, weights: Array) -> bool:
    """Whether weights are none below zero, and of sum 1 for each value, exactly."""
    sums: dict[int, Fraction] = {}
    for row, weight in zip(part.rows.tolist(), weights.tolist(), strict=True):
        sums[row] = sums.get(row, Fraction(0)) + Fraction(weight)
    return bool((weights >= 0).all()) and all(total == 1 for total in sums.values())


@final
@dataclass(frozen=True, eq=False)
class ChannelBlock:
    """Channels of a layer that are taken for lines.

    Attributes
    ----------
    channels, cost:
        Which, and how far the value of each can be from its line.
    outgoing, before:
        The outgoing weights of all channels, and how much of each row and tap was changed before.
    free:
        Further channels that nothing reads any more.
    """

    layer: ChannelLayer
    channels: Indices
    cost: Array
    outgoing: Array
    before: Array
    free: Indices

    @cached_property
    def old(self) -> Form:
        """What the readers make of the lines."""
        weights, bias = self.layer.weights[self.channels], self.layer.bias[self.channels]
        return Form(self.outgoing[:, self.channels], weights, bias, np.zeros(len(self.outgoing)))

    @cached_property
    def product(self) -> Array:
        return self.old.rounded(self.layer.dtype)

    @cached_property
    def pivoted(self) -> Pivoted:
        with np.errstate(invalid="ignore", over="ignore"):
            return Pivoted.of(self.product * (0.5 * (self.layer.upper - self.layer.lower)))

    def ladder(self, what: str) -> Ladder:
        """By the number of channels, fewer than there are, that take the place of all."""
        padded = any(reading.padded for reading in self.layer.readings)

        def of_rank(rank: int) -> Ladder:
            return Ladder(1 + padded, lambda rung: self._to(rank, what, new=bool(rung)))

        return Ladder(len(self.channels) + len(self.free), of_rank, likely=self.pivoted.rank)

    def _to(self, rank: int, what: str, *, new: bool) -> Rewrite | None:
        """With so many channels; ``new`` where one more is to be a carrier. None on overflow."""
        slots = np.concatenate([self.channels, self.free])
        found = self.pivoted.expressed(rank) if rank + new < len(slots) else None
        if found is None:
            return None
        one = Carrier(int(slots[rank]), Fraction(1), new=True) if new else None
        basis, dependent, coefficients = found
        outgoing = np.zeros((len(self.product), rank))
        outgoing[basis], outgoing[dependent] = np.eye(rank), coefficients
        try:
            weights, outgoing = balanced(self.product[basis], outgoing)
            lines = _Lines.active(self.layer, weights)
            view, changes = self._with(lines, outgoing * lines.signs, slots, one)
        except OverflowError:
            return None
        more = ", one left to carry what they are shifted by" if new else ""
        return Rewrite(view, f"{what} into {rank}{more}", changes)

    def _with(self, lines: _Lines, made: Array, slots: Indices, one: Carrier | None) -> tuple[View, dict[str, Change]]:
        """(the lines in the first of some slots, read by weights ``made``; what that changes). Raises OverflowError.

        ``one`` is a channel that is made a carrier.
        """
        layer, rank = self.layer, len(lines.bias)
        made = layer.stored(made)
        form = Form(made, lines.weights, lines.bias, np.zeros(len(made)))
        constants = best_constants(self.old, form, layer.lower, layer.upper, np.float64)
        outgoing = self.outgoing.copy()
        outgoing[:, slots], outgoing[:, slots[:rank]] = 0.0, made
        lost = np.zeros(len(made))
        for (reading, rows), there in zip(layer.parts(), layer.carriers, strict=True):
            carrier = one or there
            if reading.padded and carrier is None:
                constants[rows] = 0.0
            elif reading.padded and carrier is not None:
                was = outgoing[rows, carrier.channel].copy()
                with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                    now = reading.stored(was + constants[rows] / float(carrier.value))
                outgoing[rows, carrier.channel] = now
                lost[rows] = _missed(was, now, constants[rows], carrier)
        apart = change(self.old, form.with_constants(constants), layer.lower, layer.upper).most
        error = added_up(apart + weigh_up(self.old.outgoing, self.cost) + lost + self.before, 3)
        changed: list[Node] = []
        changes = {}
        for reading, rows in layer.parts():
            count, _, taps = reading.weights.shape
            bias, rounded = reading.node.bias.astype(np.float64), np.zeros(count)
            if not reading.padded:
                bias, rounded = rounded_bias(reading.node.bias, constants[rows].reshape(count, taps).tolist())
            weights = outgoing[rows].reshape(count, taps, -1).swapaxes(1, 2)
            changed.append(reading.with_weights(weights, bias))
            total = added_up(error[rows].reshape(count, taps).sum(axis=1) + rounded, taps)
            if total.any():
                changes[reading.node.name] = Change.at_most(reading.units(total))
        view = lines.written(layer, slots[:rank], one)
        return view.with_nodes(*changed), changes


def _missed(was: Array, now: Array, constants: Array, carrier: Carrier) -> Array:
    """How far what a carrier brings, once its weights are others, is from some constants."""
    spread = Fraction(carrier.off)
    more = [Fraction(b) - Fraction(a) for a, b in zip(was.tolist(), now.tolist(), strict=True)]
    return np.array(
        [
            float_up(abs(weight * carrier.value - Fraction(constant)) + abs(weight) * spread)
            for weight, constant in zip(more, constants.tolist(), strict=True)
        ]
    )


@final
@dataclass(frozen=True, eq=False)
class _Lines:
    """New channels that are proved to be active: filters, biases, bounds, and the signs by which they were turned."""

    weights: Array
    bias: Array
    lower: Array
    upper: Array
    signs: Array

    @staticmethod
    def active(layer: ChannelLayer, weights: Array) -> _Lines:
        """Of some filters, or their negatives where that needs a smaller lift. Raises OverflowError."""
        with np.errstate(over="ignore", invalid="ignore"):
            weights = weights.astype(layer.writer.maps[0].dtype).astype(np.float64)
            above, below = np.maximum(weights, 0.0), np.maximum(-weights, 0.0)
            high = above @ layer.upper - below @ layer.lower
            low = above @ layer.lower - below @ layer.upper
            size = np.abs(weights) @ np.maximum(np.abs(layer.lower), np.abs(layer.upper))
            slack = product_error(size, 2 * weights.shape[1] + 2)
        low, high = low - 2.0 * slack, high + 2.0 * slack
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise OverflowError("a new weight, or what it reads, has no bounds")
        signs = np.where(np.maximum(high, 0.0) < np.maximum(-low, 0.0), -1.0, 1.0)
        low, high = np.where(signs < 0, -high, low), np.where(signs < 0, -low, high)
        lift = short_up(np.maximum(-low, 0.0), layer.writer.bias.dtype)
        lower = np.maximum(0.0, np.nextafter(low + lift, -np.inf))
        return _Lines(signs[:, None] * weights, lift, lower, np.nextafter(high + lift, np.inf), signs)

    def written(self, layer: ChannelLayer, slots: Indices, carrier: Carrier | None) -> View:
        """The view in which the convolution writes them in the place of others, and 1 for a new carrier."""
        writer, conv = layer.writer, layer.writer.maps[0]
        assert isinstance(conv, Conv)
        places = layer.stream.places[writer.name]
        assert places.whole is not None
        own = np.full(len(places.held), -1)
        own[places.held] = places.whole
        kernel, bias = conv.kernel.copy(), writer.bias.copy()
        values = [kernel[own[slots]], self.bias, self.lower, self.upper]
        values[0] = self.weights.reshape(values[0].shape)
        if carrier is not None:
            slots = np.append(slots, carrier.channel)
            one = np.ones(1)
            values = [np.concatenate(pair) for pair in zip(values, (0.0 * kernel[:1], one, one, one), strict=True)]
        filters, shift, lower, upper = values
        at = places.index[slots]
        kernel[own[slots]], bias[at] = filters, shift[:, None]
        node = replace(writer, maps=(Conv(kernel, conv.arrays()["geometry"]),), bias=bias)
        if not any(isinstance(layer.view.network[name], Relu) for name in layer.view.network.readers[writer.name]):
            return layer.view.with_nodes(node)
        units = layer.view.facts.units[writer.name]
        parts = {key: getattr(units, key).copy() for key in ("state", "lower", "upper", "origin", "home")}
        known = {"state": State.ACTIVE, "lower": lower[:, None], "upper": upper[:, None], "origin": -1, "home": ""}
        for key, value in known.items():
            parts[key][at] = value
        return layer.view.with_nodes(node, units={writer.name: Units(**parts)})


def channel_layer(view: View, name: str) -> ChannelLayer | None:
    """The layer of the convolution ``name``; None where it is none. Worked out once for a view."""
    stream = stream_at(view, name)
    return None if stream is None else view.once(("channel layer", name), lambda: ChannelLayer.of(view, stream))
