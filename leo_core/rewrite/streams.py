"""Streams: channels that several nodes share, from the convolutions that write them to what mixes them.

A convolution makes channels; ReLUs, norms, depthwise layers, poolings and sums keep them apart, and so does what lays
them out anew: channel k of one is made of channel k of the other alone. Sums tie the channels of all that they add up.
What is true of channels where they are written is followed from there, node by node, to the readers, which mix them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

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
class Apart:
    """A map that keeps channels apart: which weights make each channel of the one of the other.

    Attributes
    ----------
    index:
        (channels, values of each): where the channels lie behind it.
    weights:
        (channels, weights), in the same places for each channel.
    rows:
        (weights,): the value of the channel that each weight is for.
    padded:
        Whether some values see fewer weights than others, so that a constant before it is none behind it.
    """

    index: Indices
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


@final
@dataclass(frozen=True, eq=False)
class Stream:
    """Channels, the convolutions that write them, and the nodes that hold them.

    Attributes
    ----------
    writers:
        The convolutions, in order.
    index:
        By node, (channels, values of each): where the channels lie.
    kept:
        By affine node but the writers, for each source how it keeps them apart.
    readers:
        (node, what it reads): what mixes the channels.
    """

    writers: tuple[Affine, ...]
    index: Mapping[str, Indices]
    kept: Mapping[str, tuple[Apart, ...]]
    readers: tuple[tuple[Affine, str], ...]

    @property
    def channels(self) -> int:
        return self.writers[0].groups

    def relus(self, network: Network) -> list[Relu]:
        """The ReLUs in it, in order."""
        return [node for node in network.relus if node.name in self.index]


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
        if found <= writers or any(network.affine(other).groups != node.groups for other in found):
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
    index = {node.name: np.arange(node.size).reshape(node.groups, -1) for node in writers}
    kept: dict[str, tuple[Apart, ...]] = {}
    readers: list[tuple[Affine, str]] = []
    for node in network.nodes:
        if isinstance(node, Relu):
            if node.source in index:
                index[node.name] = index[node.source]
            continue
        inside = [(source, linear) for source, linear in node.reads if source in index]
        if not inside or node.name in names:
            if inside:
                readers += [(node, source) for source, _ in inside]
            continue
        parts = [keeps_apart(linear, index[source]) for source, linear in inside]
        apart = [part for part in parts if part is not None]
        if len(apart) < len(parts):
            readers += [(node, source) for source, _ in inside]
            continue
        others = [(source, linear) for source, linear in node.reads if source not in index]
        here = np.zeros(node.size, dtype=bool)
        here[apart[0].index] = True
        beside = [source for source, linear in others if linear.used_columns(here).any()]
        if beside:
            more = [_writers_of(network, source) for source in beside]
            if any(found is None for found in more):
                return None
            return names.union(*(found for found in more if found is not None))
        if any(not np.array_equal(part.index, apart[0].index) for part in apart):
            return None
        index[node.name], kept[node.name] = apart[0].index, tuple(apart)
    if network.output in index or not readers:
        return None
    return Stream(writers, index, kept, tuple(readers))


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
    if isinstance(linear, Select) and linear.is_identity:
        return Apart(index, np.ones((channels, 1)), np.zeros(1, np.int64), padded=False)
    if isinstance(linear, Conv):
        where = whole_channels(index)
        if where is None or not _depthwise(linear) or linear.columns != linear.in_channels * positions:
            return None
        weights = linear.kernel[where].reshape(channels, -1).astype(np.float64)
        behind = linear.rows // linear.out_channels
        places = where[:, None] * behind + np.arange(behind)
        return Apart(places, weights, np.zeros(weights.shape[1], np.int64), padded=is_padded(linear))
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
    if any((count != count[0]).any() or not count[0] for count in each):
        return None
    behind = made.reshape(channels, -1)
    rank = np.zeros(linear.rows, np.int64)
    rank[behind] = np.arange(behind.shape[1])
    pattern = np.stack([rank[rows], place[columns]]).reshape(2, channels, -1)
    if (pattern != pattern[:, :1]).any():
        return None
    weights = weights.reshape(channels, -1)
    return Apart(behind, weights, pattern[0, 0], padded=_uneven(weights, pattern[0, 0], behind.shape[1]))


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
        linear &= active[stream.index[relu.source]].all(axis=1)
    return linear


def channel_range(view: View, name: str, index: Indices) -> tuple[Array, Array]:
    """(lower, upper) of each channel of a node, over all its positions."""
    lower, upper = view.region.value(view.network, name)
    return lower[index].min(axis=1), upper[index].max(axis=1)
