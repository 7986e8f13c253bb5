"""Whole channels merge: those whose filters are multiples of another's, and active ones that depend on others.

The rules of :mod:`~leo_core.rewrite.parallel` and :mod:`~leo_core.rewrite.merge` for channels. What is found among the
filters of the convolutions that write a stream is followed to each of its readers (:mod:`~leo_core.rewrite.relations`),
which take it over all at once (:mod:`~leo_core.rewrite.absorb`). Where a reader has pads, shifts need a carrier: a
channel that is constant already, or one of those that go, made the constant 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from leo_core.bounds.change import Change
from leo_core.linear import Conv
from leo_core.network import Affine, Node, Relu
from leo_core.rewrite.absorb import Carrier, Reading, absorbed
from leo_core.rewrite.constants import constants_of
from leo_core.rewrite.facts import Lineage, Units
from leo_core.rewrite.merge import Pivoted
from leo_core.rewrite.parallel import multiple_of, near_multiples
from leo_core.rewrite.relations import Fractions, Relations, channel_bias, filters, followed, written
from leo_core.rewrite.step import Ladder, Refusal, Rewrite
from leo_core.rewrite.streams import Places, Stream, linear_channels, stream_of
from leo_core.rewrite.unread import grouped
from leo_core.rewrite.view import View
from leo_core.stability.verdict import State

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]


def merge_parallel_channels(view: View, name: str) -> Ladder | Refusal | None:
    """Merge as many channels of the stream that the convolution ``name`` leads into multiples as are near enough."""
    stream = stream_at(view, name)
    if stream is None:
        return None
    rows, full = _rows(view, stream)
    varies = varying(view, stream)
    with np.errstate(over="ignore", invalid="ignore"):
        length = np.sqrt((rows * rows).sum(axis=1))
    usable = varies & np.isfinite(length) & (length > 1e-150)
    found = near_multiples(rows, length, usable, stream.kinds.astype(np.float64), sign=1)
    if not found:
        return None
    goes, stays = np.array(list(found), np.int64), np.array(list(found.values()), np.int64)
    factors = np.zeros((len(goes), stream.channels))
    for row, (j, i) in enumerate(zip(goes, stays, strict=True)):
        factors[row, i] = multiple_of(full[j], full[i], rows[j], rows[i])
    harm = np.abs(rows[goes] - factors[np.arange(len(goes)), stays][:, None] * rows[stays]).max(axis=1)
    order = np.argsort(harm, kind="stable")
    goes, factors = _possible(view, stream, goes[order], factors[order])
    if not len(goes):
        return None
    refusal = Refusal("parallel channels not merged", "they are not near enough")

    def made(left: int) -> Rewrite | None:
        some = slice(0, len(goes) - left)
        what = f"{len(goes) - left} parallel channel(s) merged into others"
        return _merged(view, stream, goes[some], factors[some], None, what)

    return Ladder(len(goes), made, otherwise=refusal)


def merge_dependent_channels(view: View, name: str) -> Ladder | Refusal | None:
    """Express active channels of the stream that the convolution ``name`` leads by as few as are enough.

    Those that the same nodes hold: of all such kinds, the one of which there are most.
    """
    stream = stream_at(view, name)
    if stream is None:
        return None
    usable = linear_channels(view, stream) & varying(view, stream)
    most = np.bincount(stream.kinds, weights=usable).argmax()
    active = np.flatnonzero(usable & (stream.kinds == most))
    if len(active) < 2:
        return None
    rows, _ = _rows(view, stream)
    pivoted = Pivoted.of(rows[active, : -len(stream.writers)])

    def of_rank(rank: int) -> Ladder | None:
        found = pivoted.expressed(rank)
        if found is None:
            return None
        basis, dependent, coefficients = found
        factors = np.zeros((len(dependent), stream.channels))
        factors[:, active[basis]] = coefficients
        goes, factors = _possible(view, stream, active[dependent], factors)
        what = f"{len(goes)} dependent active channel(s) merged into {rank}"
        ways = (False, True) if _can_carry(view, stream) else (False,)
        return Ladder(len(ways), lambda rung: _merged(view, stream, goes, factors, ways[rung], what))

    refusal = Refusal(f"{len(active)} active channel(s) left", "no fewer are within the tolerance")
    return Ladder(len(active), of_rank, likely=pivoted.rank, otherwise=refusal)


def fold_constant_channels(view: View, name: str) -> Ladder | Refusal | None:
    """Fold the constant channels of the stream that the convolution ``name`` leads into all that reads it, at once.

    What only one node reads, and not in groups, is :mod:`~leo_core.rewrite.constants`'.
    """
    stream = stream_at(view, name)
    if stream is None or (len(stream.readers) == 1 and grouped(stream.readers[0][0]) is None):
        return None
    values = {source: _values(view, source, stream.places[source]) for _, source in stream.readers}
    same = np.all([known for known, _, _ in values.values()], axis=0)
    readings = [(Reading.of(reader, stream.places[source]), source) for reader, source in stream.readers]
    if any(reading is None for reading, _ in readings) or not same.any():
        return None
    read = np.any([reading.weights.any(axis=(0, 2)) for reading, _ in readings if reading is not None], axis=0)
    goes = np.flatnonzero(same & read)
    kept = _carriers({source: shift[goes] for source, (_, shift, _) in values.items()})
    carried = len(goes) > 1 and all(row is not None for row in kept.values())
    ways = (False, True) if carried else (False,) if len(goes) else ()

    def made(rung: int) -> Rewrite | None:
        found, carriers = {}, {}
        for source, (_, shift, off) in values.items():
            stays = kept[source] if ways[rung] else None
            some = goes if stays is None else np.delete(goes, stays)
            found[source] = Relations(some, np.zeros((len(some), stream.channels)), shift[some], off[some])
            channel = None if stays is None else int(goes[stays])
            carriers[source] = None if channel is None else Carrier(channel, shift[channel], off=float(off[channel]))
        count = min(len(of.goes) for of in found.values())
        return _taken_over(view, stream, found, carriers, f"{count} constant channel(s) folded into all that read them")

    refusal = Refusal(f"{len(goes)} constant channel(s) not folded", "rounding costs more than the tolerance leaves")
    return Ladder(len(ways), made, otherwise=refusal) if ways else None


def _carriers(values: Mapping[str, Fractions]) -> dict[str, int | None]:
    """By node, which of some constants carries the others: one that does so at many nodes, and is large; 0 cannot."""
    size = np.abs(np.array(list(values.values())))

    def worth(at: int) -> tuple[int, Fraction]:
        there = [value for value in size[:, at] if value]
        return len(there), min(there, default=Fraction(0))

    order = sorted(range(size.shape[1]), key=worth, reverse=True)
    return {source: next((at for at in order if shift[at]), None) for source, shift in values.items()}


def _values(view: View, source: str, places: Places) -> tuple[Mask, Fractions, Array]:
    """(which channels at a node are constant, their values, by how much they may be others)."""
    constants = constants_of(view)[source]
    values, off = np.zeros(len(places.held), dtype=object), np.zeros(len(places.held))
    known = places.of(constants.units(constants.known), absent=True).all(axis=1)
    of_units = places.of(constants.units(constants.values), absent=Fraction(0))
    known &= np.array([all(value == row[0] for value in row) for row in of_units], dtype=bool)
    values[:] = [row[0] if there else Fraction(0) for row, there in zip(of_units, known, strict=True)]
    off[:] = places.of(constants.units(constants.off), absent=0.0).max(axis=1)
    return known, values, off


def stream_at(view: View, name: str) -> Stream | None:
    """The stream that the convolution ``name`` leads; worked out once for a view."""
    node = view.network[name]
    if not isinstance(node, Affine) or not node.shape:
        return None
    return view.once(("stream", name), lambda: stream_of(view, name))


def varying(view: View, stream: Stream) -> Mask:
    """The channels that are constant nowhere."""
    varies = np.ones(stream.channels, dtype=bool)
    for name, places in stream.places.items():
        constants = constants_of(view)[name]
        varies &= ~places.of(constants.units(constants.known), absent=False).any(axis=1)
    return varies


def _scaled(view: View, stream: Stream, writer: Affine) -> tuple[Array, Array]:
    """(scale, shift) of each channel by the norms right behind a writer."""
    name = writer.name
    scale, shift = np.ones(stream.channels), channel_bias(writer, stream.places[name])
    while True:
        readers = view.network.readers[name]
        if len(readers) != 1 or readers[0] not in stream.kept:
            return scale, shift
        name = readers[0]
        parts = list(stream.kept[name].values())
        if len(parts) > 1 or parts[0].weights.shape[1] != 1 or parts[0].padded:
            return scale, shift
        factor = parts[0].weights[:, 0]
        scale, shift = scale * factor, shift * factor + channel_bias(view.network.affine(name), stream.places[name])


def _rows(view: View, stream: Stream) -> tuple[Array, Array]:
    """What each channel does on the box, and its weights: the filters of all writers side by side, and their biases.

    Slopes over the ranges of what is read, then for each writer the value at the centre, or the bias.
    """
    slopes, values, weights, biases = [], [], [], []
    with np.errstate(over="ignore", invalid="ignore"):
        for writer in stream.writers:
            kernel, lower, upper = filters(view, stream, writer)
            scale, shift = _scaled(view, stream, writer)
            kernel = kernel * scale[:, None]
            centre, radius = lower + 0.5 * (upper - lower), 0.5 * (upper - lower)
            slopes.append(kernel * radius)
            values.append(kernel @ centre + shift)
            weights.append(kernel)
            biases.append(shift)
    return np.column_stack([*slopes, *values]), np.column_stack([*weights, *biases])


def _begun(view: View, stream: Stream, goes: Indices, factors: Array) -> dict[str, Relations]:
    """Relations of channels as they are behind the norms of the writers, where they are written."""
    found = {}
    for writer in stream.writers:
        scale, _ = _scaled(view, stream, writer)
        with np.errstate(divide="ignore", invalid="ignore"):
            before = np.where(factors != 0, factors * (scale / scale[goes][:, None]), 0.0)
        found[writer.name] = written(view, stream, writer, goes, np.where(np.isfinite(before), before, 0.0))
    return found


def _possible(view: View, stream: Stream, goes: Indices, factors: Array) -> tuple[Indices, Array]:
    """Those relations that hold up to an error wherever the channels are read, by nodes that can do without one."""
    if not len(goes):
        return goes, factors
    found = followed(view, stream, _begun(view, stream, goes, factors))
    can = np.ones(len(goes), dtype=bool)
    for reader, source in stream.readers:
        reading = Reading.of(reader, stream.places[source])
        can &= np.isfinite(found[source].off) & (reading.can(found[source]) if reading is not None else False)
    return goes[can], factors[can]


def _merged(view: View, stream: Stream, goes: Indices, factors: Array, carry: bool | None, what: str) -> Rewrite | None:
    """The readers without some channels; None on overflow.

    ``carry``: whether one of those channels is made a carrier; None where shifts are no more than errors.
    """
    if not len(goes):
        return None
    found = followed(view, stream, _begun(view, stream, goes, factors))
    sources = {source for _, source in stream.readers}
    carriers: dict[str, Carrier | None] = dict.fromkeys(sources)
    if carry:
        carriers = dict.fromkeys(sources, Carrier(int(goes[0]), Fraction(1), new=True))
    elif carry is False:
        carriers = {source: carrier_at(view, source, stream.places[source]) for source in sources}
    made = _taken_over(view, stream, found, carriers, what)
    if made is None:
        return None
    told = made.view.with_lineage(_told(view, stream, found))
    if not carry:
        return replace(made, view=told)
    writer, units = _constant_one(view, stream.writers[0], int(goes[0]))
    what = f"{what}, one channel left to carry what they are shifted by"
    return replace(made, view=told.with_nodes(writer, units={writer.name: units}), what=what)


def _taken_over(
    view: View, stream: Stream, found: Mapping[str, Relations], carriers: Mapping[str, Carrier | None], what: str
) -> Rewrite | None:
    """All readers without the channels that others express; None where one cannot be, or a number overflows."""
    changed: list[Node] = []
    changes: dict[str, Change] = {}
    for reader, source in stream.readers:
        reading = Reading.of(reader, stream.places[source])
        if reading is None:
            return None
        try:
            node, error = absorbed(view, source, reading, found[source], carriers[source])
        except OverflowError:
            return None
        changed.append(node)
        if error.any():
            changes[node.name] = Change.at_most(error)
    return Rewrite(view.with_nodes(*changed), what, changes)


def carrier_at(view: View, source: str, places: Places) -> Carrier | None:
    """The largest of the constant channels at a node; None where there is none but 0."""
    known, values, off = _values(view, source, places)
    usable = np.flatnonzero(known & (off == 0) & (values != 0))
    if not len(usable):
        return None
    best = max(usable.tolist(), key=lambda channel: abs(values[channel]))
    return Carrier(best, values[best])


def _can_carry(view: View, stream: Stream) -> bool:
    """Whether a channel can be made the constant 1: one convolution, its ReLU, and nothing else before the readers."""
    (writer, *others) = stream.writers
    readers = [view.network[name] for name in view.network.readers[writer.name]]
    return not others and not stream.kept and any(isinstance(reader, Relu) for reader in readers)


def _constant_one(view: View, writer: Affine, channel: int) -> tuple[Affine, Units]:
    """A convolution one of whose channels is 1 everywhere."""
    conv = writer.maps[0]
    assert isinstance(conv, Conv)
    kernel, bias = conv.kernel.copy(), writer.bias.copy()
    at = np.arange(writer.size).reshape(writer.groups, -1)[channel]
    kernel[channel], bias[at] = 0, 1
    units = view.facts.units[writer.name]
    parts = {name: getattr(units, name).copy() for name in ("state", "lower", "upper", "origin")}
    for name, value in (("state", State.ACTIVE), ("lower", 1.0), ("upper", 1.0), ("origin", -1)):
        parts[name][at] = value
    return replace(writer, maps=(Conv(kernel, conv.arrays()["geometry"]),), bias=bias), Units(**parts)


def _told(view: View, stream: Stream, found: Mapping[str, Relations]) -> Lineage:
    """The lineage, once units that change state were taken for multiples of others."""
    lineage = view.facts.lineage
    for relu in stream.relus(view.network):
        of, places, units = found[relu.source], stream.places[relu.name], view.facts.units[relu.source]
        for j, factors in zip(of.goes, of.factors, strict=True):
            others = np.flatnonzero(factors)
            if len(others) != 1 or not places.held[j]:
                continue
            goes, stays = places.index[j], places.index[others[0]]
            lineage = told_copies(lineage, relu.name, units, goes, stays, factors[others[0]])
    return lineage


def told_copies(lineage: Lineage, relu: str, units: Units, goes: Indices, stays: Indices, factor: float) -> Lineage:
    """The same, now that units that change state, at some places, were taken for one multiple of others."""
    bent = (units.state[goes] == State.UNSTABLE) & (units.origin[goes] >= 0) & (units.origin[stays] >= 0)
    if not bent.any():
        return lineage
    goes, stays = units.origin[goes[bent]], units.origin[stays[bent]]
    return lineage.with_copies(relu, goes, stays, np.full(len(goes), factor))
