"""Streams: channels that several nodes share, from the convolutions that write them to what mixes them.

A convolution makes channels; ReLUs, norms, depthwise layers, poolings and sums keep them apart, and so does what lays
them out anew: each channel of the one is made of one channel of the other alone. Sums tie the channels of all that they
add up; some may be dropped on the way, or written by one of them alone.
What is true of channels where they are written is followed from there, node by node, to the readers, which mix them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from leo_core.arithmetic import to_integers
from leo_core.linear import Conv, LinearMap, Select
from leo_core.network import INPUT, Affine, Network, Relu
from leo_core.rewrite.view import View
from leo_core.stability.verdict import State

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]


@final
@dataclass(frozen=True, eq=False)
class Places:
    """Where the channels of a stream lie in a node: not all nodes need hold all of them.

    Attributes
    ----------
    held:
        (channels,): those that it holds.
    index:
        (channels, values of each): where they lie, all positions in the same order; −1 for those that it does not hold.
    """

    held: Mask
    index: Indices

    def of(self, units: NDArray[Any], absent: Any) -> NDArray[Any]:
        """(channels, values of each): what is given for the units of the node, ``absent`` for what it does not hold."""
        found = np.asarray(units[self.index])
        found[~self.held] = absent
        return found

    @cached_property
    def whole(self) -> Indices | None:
        """Which channels of the layout those held are, all positions in order; None where they are not whole ones."""
        return whole_channels(self.index[self.held])


@final
@dataclass(frozen=True, eq=False)
class Apart:
    """A map that keeps channels apart: which weights make each channel of the one of the other.

    Attributes
    ----------
    places:
        Where the channels lie behind it.
    weights:
        (channels, weights), in the same places for each channel; 0 for those that it drops.
    rows:
        (weights,): the value of the channel that each weight is for.
    padded:
        Whether some values see fewer weights than others, so that a constant before it is none behind it.
    """

    places: Places
    weights: Array
    rows: Indices
    padded: bool

    def most(self, terms: Array) -> Array:
        """(…, weights) → (…): the largest sum of those that go into one value."""
        if not len(self.rows):
            return np.zeros(terms.shape[:-1])
        sums = np.zeros((*terms.shape[:-1], int(self.rows.max()) + 1))
        np.add.at(sums.T, self.rows, terms.T)
        return np.asarray(sums.max(axis=-1, initial=0.0))

    def renumbered(self, places: Places, label: Indices, channels: int) -> Apart:
        """The same of a stream that has so many channels, of which those before it are ``label``."""
        weights = np.zeros((channels, self.weights.shape[1]))
        weights[label] = self.weights
        return replace(self, places=places, weights=weights)


@final
@dataclass(frozen=True, eq=False)
class Stream:
    """Channels, the convolutions that write them, and the nodes that hold them.

    Attributes
    ----------
    writers:
        The convolutions, in order.
    places:
        By node, where the channels lie.
    kept:
        By affine node but the writers, for each source that holds channels how it keeps them apart.
    readers:
        (node, what it reads): what mixes the channels.
    """

    writers: tuple[Affine, ...]
    places: Mapping[str, Places]
    kept: Mapping[str, Mapping[str, Apart]]
    readers: tuple[tuple[Affine, str], ...]

    @property
    def channels(self) -> int:
        return len(self.places[self.writers[0].name].held)

    @cached_property
    def kinds(self) -> Indices:
        """(channels,): those that the same nodes hold are of one kind."""
        held = np.stack([places.held for places in self.places.values()], axis=1)
        return np.asarray(np.unique(held, axis=0, return_inverse=True)[1].ravel())

    def relus(self, network: Network) -> list[Relu]:
        """The ReLUs in it, in order."""
        return [node for node in network.relus if node.name in self.places]


def stream_of(view: View, name: str) -> Stream | None:
    """The stream of which the convolution ``name`` is the first writer; None where it leads none that ends."""
    network = view.network
    node = network[name]
    if not _writes(node):
        return None
    assert isinstance(node, Affine)
    writers = {name}
    while True:
        found = _followed(network, writers)
        if not isinstance(found, set):
            break
        if found <= writers:
            return None
        writers |= found
    if found is None or found.writers[0].name != name:
        return None
    return found


def _writes(node: object) -> bool:
    """Whether a node is a convolution that mixes what it reads."""
    if not isinstance(node, Affine) or not node.shape or node.own is not None or len(node.maps) > 1:
        return False
    conv = node.maps[0]
    return isinstance(conv, Conv) and not _depthwise(conv) and conv.out_channels == node.groups


def _depthwise(conv: Conv) -> bool:
    return bool(1 < conv.geometry.groups == conv.in_channels == conv.out_channels)


def _followed(network: Network, names: set[str]) -> Stream | set[str] | None:
    """The stream of some writers; or all its writers, where there are more; None where it is none."""
    writers = tuple(node for node in network.nodes if node.name in names and isinstance(node, Affine))
    ties = _Ties({node.name: np.arange(node.size).reshape(node.groups, -1) for node in writers})
    readers: list[tuple[Affine, str]] = []
    for node in network.nodes:
        if isinstance(node, Relu):
            if node.source in ties.index:
                ties.hand_on(node.name, node.source)
            continue
        inside = [(source, linear) for source, linear in node.reads if source in ties.index]
        if not inside or node.name in names:
            readers += [(node, source) for source, _ in inside]
            continue
        parts = {source: keeps_apart(linear, ties.index[source]) for source, linear in inside}
        apart = {source: part for source, part in parts.items() if part is not None}
        if len(apart) < len(inside):
            readers += [(node, source) for source, _ in inside]
            continue
        here = np.zeros(node.size, dtype=bool)
        for part in apart.values():
            here[part.places.index[part.places.held]] = True
        beside = [
            source for source, linear in node.reads if source not in ties.index and linear.used_columns(here).any()
        ]
        if beside:
            more = [_writers_of(network, source) for source in beside]
            if any(found is None for found in more):
                return None
            return names.union(*(found for found in more if found is not None))
        if not ties.tie(node.name, apart):
            return None
    return None if network.output in ties.index or not readers else ties.stream(writers, tuple(readers))


class _Ties:
    """Which channels of which nodes are one: the channels of a stream are numbered once all of them are known.

    Attributes
    ----------
    index:
        By node, (its channels, values of each).
    """

    def __init__(self, index: dict[str, Indices]) -> None:
        self.index = index
        self._kept: dict[str, Mapping[str, Apart]] = {}
        self._start: dict[str, int] = {}
        self._count = 0
        self._edges: list[Indices] = []
        for name in index:
            self._number(name)

    def hand_on(self, name: str, source: str) -> None:
        """A node has the channels of another."""
        self.index[name] = self.index[source]
        self._number(name)
        self._join(source, np.arange(len(self.index[source])), name, np.arange(len(self.index[name])))

    def tie(self, name: str, parts: Mapping[str, Apart]) -> bool:
        """A node has the channels that are kept apart of others; False where they overlap otherwise than whole."""
        held = {source: part.places.index[part.places.held] for source, part in parts.items()}
        if len({index.shape[1] for index in held.values()}) > 1:
            return False
        every = np.concatenate(list(held.values()))
        _, first, of = np.unique(every[:, 0], return_index=True, return_inverse=True)
        index = every[first]
        if (index[of.ravel()] != every).any() or np.bincount(index.ravel()).max() > 1:
            return False
        self.index[name], self._kept[name] = index, parts
        self._number(name)
        ends = np.cumsum([len(part) for part in held.values()])[:-1]
        for (source, part), here in zip(parts.items(), np.split(of.ravel(), ends), strict=True):
            self._join(source, np.flatnonzero(part.places.held), name, here)
        return True

    def stream(self, writers: tuple[Affine, ...], readers: tuple[tuple[Affine, str], ...]) -> Stream | None:
        """The stream; None where a node holds a channel of it twice."""
        label = self._labels()
        channels = int(label.max()) + 1
        of = {name: label[start : start + len(self.index[name])] for name, start in self._start.items()}
        if any(len(np.unique(labels)) < len(labels) for labels in of.values()):
            return None
        places = {name: _spread(index, of[name], channels) for name, index in self.index.items()}
        kept = {
            name: {source: part.renumbered(places[name], of[source], channels) for source, part in parts.items()}
            for name, parts in self._kept.items()
        }
        return Stream(writers, places, kept, readers)

    def _number(self, name: str) -> None:
        self._start[name] = self._count
        self._count += len(self.index[name])

    def _join(self, source: str, before: Indices, name: str, behind: Indices) -> None:
        self._edges.append(np.stack([self._start[source] + before, self._start[name] + behind]))

    def _labels(self) -> Indices:
        """By channel of a node, the channel of the stream that it is, in the order in which they come."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        ends = np.concatenate([np.zeros((2, 0), np.int64), *self._edges], axis=1)
        graph = coo_array((np.ones(ends.shape[1]), tuple(ends)), shape=(self._count, self._count))
        label = connected_components(graph, directed=False)[1]
        _, first, of = np.unique(label, return_index=True, return_inverse=True)
        return np.asarray(np.argsort(np.argsort(first))[of.ravel()], np.int64)


def _spread(index: Indices, label: Indices, channels: int) -> Places:
    """The places of a node's own channels, each of which is one of so many."""
    held, places = np.zeros(channels, dtype=bool), np.full((channels, index.shape[1]), -1, np.int64)
    held[label], places[label] = True, index
    return Places(held, places)


def _writers_of(network: Network, name: str) -> set[str] | None:
    """The convolutions whose channels a node holds; None where it holds others."""
    if name == INPUT:
        return None
    node = network[name]
    if isinstance(node, Relu):
        return _writers_of(network, node.source)
    if _writes(node):
        return {name}
    found: set[str] = set()
    for source, linear in node.reads:
        layout = network.layout(source)
        if not layout or keeps_apart(linear, np.arange(linear.columns).reshape(layout[0], -1)) is None:
            return None
        before = _writers_of(network, source)
        if before is None:
            return None
        found |= before
    return found


def keeps_apart(linear: LinearMap, index: Indices) -> Apart | None:
    """How a map keeps channels apart that lie at ``index`` in what it reads; None where it mixes them."""
    channels, positions = index.shape
    everything = np.ones(channels, dtype=bool)
    if isinstance(linear, Select) and linear.is_identity:
        return Apart(Places(everything, index), np.ones((channels, 1)), np.zeros(1, np.int64), padded=False)
    if isinstance(linear, Conv):
        where = whole_channels(index)
        if where is None or not _depthwise(linear) or linear.columns != linear.in_channels * positions:
            return None
        weights = linear.kernel[where].reshape(channels, -1).astype(np.float64)
        behind = linear.rows // linear.out_channels
        places = where[:, None] * behind + np.arange(behind)
        rows = np.zeros(weights.shape[1], np.int64)
        return Apart(Places(everything, places), weights, rows, padded=is_padded(linear))
    if linear.is_full:
        return None
    return _by_entries(linear, index)


def _by_entries(linear: LinearMap, index: Indices) -> Apart | None:
    channels, positions = index.shape
    arrays = linear.sparse().arrays()
    nonzero = arrays["data"] != 0
    weights, columns = arrays["data"][nonzero].astype(np.float64), arrays["indices"][nonzero]
    rows = np.repeat(np.arange(linear.rows), np.diff(arrays["indptr"]))[nonzero]
    channel, place = np.full(linear.columns, -1), np.zeros(linear.columns, np.int64)
    channel[index], place[index] = np.arange(channels)[:, None], np.arange(positions)
    of_row = np.full(linear.rows, -1)
    of_row[rows] = channel[columns]
    if (of_row[rows] != channel[columns]).any():
        return None  # a row reads two channels
    inside = of_row[rows] >= 0
    rows, columns, weights = rows[inside], columns[inside], weights[inside]
    order = np.lexsort((place[columns], rows, of_row[rows]))
    rows, columns, weights = rows[order], columns[order], weights[order]
    made = np.flatnonzero(of_row >= 0)
    made = made[np.argsort(of_row[made], kind="stable")]
    each = np.bincount(of_row[made], minlength=channels), np.bincount(of_row[rows], minlength=channels)
    held = each[0] > 0
    if not held.any() or any((count[held] != count[held][0]).any() for count in each):
        return None
    count = int(held.sum())
    behind = made.reshape(count, -1)
    rank = np.zeros(linear.rows, np.int64)
    rank[behind] = np.arange(behind.shape[1])
    pattern = np.stack([rank[rows], place[columns]]).reshape(2, count, -1)
    if (pattern != pattern[:, :1]).any():
        return None
    weights = weights.reshape(count, -1)
    padded = _uneven(weights, pattern[0, 0], behind.shape[1])
    spread = np.zeros((channels, weights.shape[1]))
    spread[held] = weights
    return Apart(_spread(behind, np.flatnonzero(held), channels), spread, pattern[0, 0], padded=padded)


def _uneven(weights: Array, rows: Indices, count: int) -> bool:
    """Whether the weights of some of a channel's values add up to something else than those of others."""
    exact, _ = to_integers(np.unique(weights, axis=0))  # sums of floats may be the same where those of numbers are not
    sums = np.zeros((len(exact), count), dtype=object)
    np.add.at(sums.T, rows, exact.T)
    return bool((sums != sums[:, :1]).any())


def whole_channels(index: Indices) -> Indices | None:
    """The channels of a layout that lie at ``index``, all positions in order; None where they do not."""
    positions = index.shape[1]
    channels = index[:, 0] // max(1, positions)
    return channels if np.array_equal(channels[:, None] * positions + np.arange(positions), index) else None


def is_padded(conv: Conv) -> bool:
    """Whether a convolution reads beyond its input."""
    return any(size > 0 for size in (*conv.geometry.low, *conv.geometry.high))


def linear_channels(view: View, stream: Stream) -> Mask:
    """(channels,): those that no ReLU of a stream bends: each is active at all positions."""
    linear = np.ones(stream.channels, dtype=bool)
    for relu in stream.relus(view.network):
        active = view.facts.units[relu.source].state == State.ACTIVE
        linear &= stream.places[relu.source].of(active, absent=True).all(axis=1)
    return linear


def channel_range(view: View, name: str, places: Places) -> tuple[Array, Array]:
    """(lower, upper) of each channel of a node, over all its positions; 0 of those that it does not hold."""
    lower, upper = view.region.value(view.network, name)
    return places.of(lower, 0.0).min(axis=1), places.of(upper, 0.0).max(axis=1)


def all_places(node_channels: int, size: int) -> Places:
    """Of a node of so many units that holds so many channels, one after the other."""
    return Places(np.ones(node_channels, dtype=bool), np.arange(size).reshape(node_channels, -1))
