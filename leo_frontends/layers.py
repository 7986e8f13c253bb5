"""The layers of images that a network's nodes were lowered from, put together again for those who write a model."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from leo_core.linear import Conv, ConvTranspose, Diagonal, LinearMap, Select, Spacing, Sparse
from leo_core.network import INPUT, Affine, Network, Node, Origin, Own, Relu, sources_of

Array = NDArray[Any]
Layout = tuple[int, ...]
Pairs = tuple[tuple[int, int], ...]


@final
@dataclass(frozen=True, eq=False)
class Pool:
    """A pooling of the node ``source``: windows along each spatial axis, or over all of it.

    Attributes
    ----------
    layout:
        How it sees the source: (channels, *positions).
    inside:
        The nodes that it was lowered to, but for the last, whose name it has.
    channels:
        Which channel of the source each of its own is of.
    over_all:
        Whether it was said to be over all positions, however many.
    """

    kind: str  # "max" or "average"
    source: str
    layout: Layout
    taps: Layout
    strides: Layout
    low: Layout
    high: Layout
    dilations: Layout
    inside: frozenset[str]
    channels: NDArray[np.int64]
    over_all: bool = False


@final
@dataclass(frozen=True, eq=False)
class Clip:
    """A node that is what the node ``source`` is, cut off below zero; and above a number, where ``capped`` says so.

    ``inside`` are the nodes that it was lowered to, but for the last.
    """

    source: str
    inside: frozenset[str]
    capped: NDArray[np.bool_]


@final
@dataclass(frozen=True, eq=False)
class Term:
    """What a linear map does to a tensor, in the words of frameworks.

    Attributes
    ----------
    kind:
        'same'; 'scale' by ``numbers``, one for each value; 'transpose': ``numbers`` are the old axes in new order;
        'channels': those of ``numbers`` are picked; 'convolve'; 'sum' of each channel; 'pick': values ``numbers``, of
        which ``columns`` is a zero; 'matrix'.
    layout:
        How the tensor lies before it.
    behind:
        And behind it.
    """

    kind: str
    layout: Layout
    behind: Layout
    numbers: Array = field(default_factory=lambda: np.zeros(0))


def term(linear: LinearMap, layout: Layout) -> Term:
    """The simplest way to say what a map does to a tensor that has, or can be given, this layout."""
    flat = (linear.columns,)
    if isinstance(linear, Diagonal):
        return Term("scale", layout, layout, linear.arrays()["diagonal"])
    if isinstance(linear, Select) and linear.is_identity:
        return Term("same", layout, layout)
    order = permutation(linear, layout)
    if order is not None:
        return Term("transpose", layout, tuple(layout[axis] for axis in order), np.array(order))
    channels = channels_picked(linear, layout)
    if channels is not None:
        return Term("channels", layout, (len(channels), *layout[1:]), channels)
    if isinstance(linear, Conv | ConvTranspose):
        conv = linear if isinstance(linear, Conv) else linear.conv
        ends = (conv.in_channels, *conv.geometry.input), (conv.out_channels, *conv.geometry.output)
        return Term("convolve", *(ends if isinstance(linear, Conv) else ends[::-1]))
    if summed_over(linear, layout):
        return Term("sum", layout, layout[:1])
    index = picked(linear)
    return Term("matrix", flat, (linear.rows,)) if index is None else Term("pick", flat, (linear.rows,), index)


def pools(network: Network) -> dict[str, Pool]:
    """By the name of the node that holds its result, each pooling that can be put back."""
    return _put_back(network, _average, "maxpool", _largest)


def global_pools(network: Network) -> dict[str, Pool]:
    """The same of each pooling over all positions that :func:`pools` has not."""
    return _put_back(network, _mean, "globalmaxpool", _largest_of_all)


def _put_back(
    network: Network,
    mean: Callable[[Network, Affine], Pool | None],
    kind: str,
    largest: Callable[[Network, list[Node]], Pool | None],
) -> dict[str, Pool]:
    """Means by their last node, maxima by the nodes of one layer of that kind."""
    groups: dict[Origin, list[Node]] = {}
    for node in network.nodes:
        if kind in node.origin.kind.lower().replace("_", ""):
            groups.setdefault(node.origin, []).append(node)
    found = {node.name: mean(network, node) for node in network.nodes if isinstance(node, Affine)}
    found |= {group[-1].name: largest(network, group) for group in groups.values()}
    return {name: pool for name, pool in found.items() if pool is not None}


def clips(network: Network, end: float) -> dict[str, Clip]:
    """By the name of the node that holds its result, each min(max(x, 0), end) = relu(x) − relu(x − end)."""
    found = {node.name: _clip(network, node, end) for node in network.nodes if isinstance(node, Affine)}
    return {name: clip for name, clip in found.items() if clip is not None}


def _clip(network: Network, node: Affine, end: float) -> Clip | None:
    if len(node.maps) != 2 or node.bias.any() or INPUT in node.sources:
        return None
    plus, minus = node.maps[0], negated(node.maps[1])
    lower, upper = (network[source] for source in node.sources)
    if not (isinstance(plus, Select) and plus.is_identity) or minus is None:
        return None
    spread, inside = picked(minus), {lower.name}
    if isinstance(upper, Affine) and upper.sources[0] != INPUT:  # what is above the end, with zeros between
        index = picked(upper.maps[0])
        if index is None or len(upper.maps) > 1 or upper.bias.any() or spread is None:
            return None
        inside.add(upper.name)
        spread, upper = np.append(index, upper.maps[0].columns)[spread], network[upper.sources[0]]
    if not (isinstance(lower, Relu) and isinstance(upper, Relu)) or lower.slope.any() or upper.slope.any():
        return None
    shifted = network.affine(upper.source)
    within = len(shifted.maps) == 1 and shifted.sources[0] in (lower.source, lower.name)  # it is the same above zero
    units = picked(shifted.maps[0]) if within else None
    if units is None or spread is None or (shifted.bias != -end).any():
        return None
    inside |= {upper.name, shifted.name}
    capped = spread < upper.size
    own = np.array_equal(np.append(units, -1)[spread][capped], np.flatnonzero(capped))
    readers = {reader for name in inside for reader in network.readers[name]}
    alone = readers <= {node.name, *inside} and network.output not in inside
    return Clip(lower.source, frozenset(inside), capped) if alone and own else None


def framed(index: NDArray[np.int64], before: Layout, behind: Layout) -> tuple[Pairs, Pairs] | None:
    """(what of each spatial axis is cut off, zeros put around what is left) by which picked values come to lie anew.

    ``index`` is as :func:`picked` has it. None where something else is done.
    """
    none = math.prod(before)
    there = np.argwhere(index.reshape(behind) < none)
    if len(before) != len(behind) or before[0] != behind[0] or not len(there):
        return None
    start, stop = there.min(axis=0), there.max(axis=0) + 1
    corner = int(index.reshape(behind)[tuple(start)])
    if corner == none:  # a hole
        return None
    first = np.array(np.unravel_index(corner, before))
    cut = tuple(zip(first, before - (first + stop - start), strict=True))
    around = tuple(zip(start, behind - stop, strict=True))
    if np.min(cut) < 0 or np.any(cut[0] + around[0]):
        return None
    kept = np.arange(none).reshape(before)[tuple(slice(a, b) for a, b in zip(first, first + stop - start, strict=True))]
    same = np.array_equal(np.pad(kept, around, constant_values=none).ravel(), index)
    pairs = (tuple((int(low), int(high)) for low, high in found[1:]) for found in (cut, around))
    return (next(pairs), next(pairs)) if same else None


def repeated(index: NDArray[np.int64], before: Layout, behind: Layout) -> Layout | None:
    """How many times each position is repeated along each spatial axis; None where something else is done."""
    if len(before) != len(behind) or before[0] != behind[0]:
        return None
    times = tuple(long // short for short, long in zip(before[1:], behind[1:], strict=True))
    values = np.arange(math.prod(before)).reshape(before)
    for axis, count in enumerate(times, 1):
        values = values.repeat(count, axis)
    return times if np.array_equal(values.ravel(), index) else None


def joined(node: Affine) -> tuple[int, list[tuple[str, Select]]] | None:
    """The axis along which a node puts parts of its sources side by side, and the parts; None where it does not."""
    layout, parts = node.shape or (node.size,), []
    there = np.zeros((len(node.maps), node.size), bool)
    for at, (source, linear) in enumerate(node.reads):
        index = picked(linear)
        if index is None or len(node.maps) < 2:
            return None
        there[at] = index < linear.columns
        parts.append((source, Select(index[there[at]], columns=linear.columns)))
    if (there.sum(axis=0) != 1).any():
        return None
    which = there.argmax(axis=0).reshape(layout)
    for axis, length in enumerate(layout):
        along = np.moveaxis(which, axis, 0).reshape(length, -1)
        runs = along[np.flatnonzero(np.diff(along[:, 0], prepend=-1)), 0]
        if (along == along[:, :1]).all() and len(runs) == len(parts):
            return axis, [parts[part] for part in runs]
    return None


def permutation(linear: LinearMap, layout: Layout) -> tuple[int, ...] | None:
    """The order of axes with which a map lays out values of this layout anew; None where it does something else."""
    if not isinstance(linear, Select) or linear.rows != linear.columns or not 2 <= len(layout) <= 4:
        return None
    values = np.arange(math.prod(layout)).reshape(layout)
    orders = itertools.permutations(range(len(layout)))
    return next((order for order in orders if np.array_equal(values.transpose(order).ravel(), linear.indices)), None)


def picked(linear: LinearMap) -> NDArray[np.int64] | None:
    """Which value each row takes as it is, or ``columns`` where it is zero; None where it computes something."""
    if isinstance(linear, Select):
        return linear.indices
    if not isinstance(linear, Sparse):
        return None
    arrays = linear.arrays()
    counts = np.diff(arrays["indptr"])
    if (counts > 1).any() or (arrays["data"] != 1).any():
        return None
    index = np.full(linear.rows, linear.columns)
    index[counts == 1] = arrays["indices"]
    return index


def channels_picked(linear: LinearMap, layout: Layout) -> NDArray[np.int64] | None:
    """The channels of a layout that a map takes as they are; None where it does something else."""
    if not isinstance(linear, Select) or len(layout) < 2 or linear.rows % (count := math.prod(layout[1:])):
        return None
    channels = linear.indices[::count] // count
    whole = (channels[:, None] * count + np.arange(count)).ravel()
    return channels if np.array_equal(whole, linear.indices) else None


def compact(array: Array, layout: Layout) -> Array:
    """A list of numbers in a layout, with length 1 along axes that it is the same along: to be broadcast."""
    shaped = array.reshape(layout or (-1,))
    for axis in range(shaped.ndim):
        first = shaped.take([0], axis) if shaped.shape[axis] else shaped
        if (shaped == first).all():
            shaped = first
    return np.ascontiguousarray(shaped)


def by_channel(array: Array, layout: Layout) -> Array | None:
    """One number for each channel of a layout, where all positions of each have the same."""
    rows = array.reshape(layout[0], -1) if layout else array[:, None]
    return np.ascontiguousarray(rows[:, 0]) if rows.shape[1] and (rows == rows[:, :1]).all() else None


def norm_of(node: Affine) -> Own | None:
    """The batch norm that a node is, where it has one number of each kind for each channel."""
    whole = node.own is not None and len(node.own.numbers.get("gamma", ())) == node.groups
    return node.own if whole else None


def divisor_of(node: Affine) -> Array | None:
    """What each value of a node is divided by, where that is all it does."""
    divisor = node.own.numbers.get("divisor") if node.own is not None else None
    if divisor is None or node.bias.any():
        return None
    return np.repeat(divisor, node.size // len(divisor))


def negated(linear: LinearMap) -> LinearMap | None:
    """The map of other sign, where that only moves values."""
    if isinstance(linear, Diagonal) and (linear.arrays()["diagonal"] == -1).all():
        return Select.identity(linear.rows)
    if isinstance(linear, Sparse) and linear.terms <= 1 and (linear.arrays()["data"] == -1).all():
        return Sparse(**{**linear.arrays(), "data": -linear.arrays()["data"]}, columns=linear.columns)
    return None


def block_of(linear: LinearMap) -> tuple[int, Array] | None:
    """(how many times, the matrix) where a map applies one matrix to each of so many runs of values, one by one."""
    if not isinstance(linear, Sparse) or not linear.rows or linear.picks:
        return None
    arrays = linear.arrays()
    counts = np.diff(arrays["indptr"])
    width = int(counts[0])
    if not width or linear.columns % width or (counts != width).any():
        return None
    times = linear.columns // width
    if times < 2 or linear.rows % times:
        return None
    height = linear.rows // times
    index, data = (arrays[name].reshape(times, height, width) for name in ("indices", "data"))
    runs = np.arange(linear.columns).reshape(times, 1, width)
    same = bool((index == runs).all() and (data == data[:1]).all())
    return (times, np.ascontiguousarray(data[0])) if same else None


def summed_over(linear: LinearMap, layout: Layout) -> bool:
    """Whether a map sums each channel of a layout over all positions."""
    if not isinstance(linear, Sparse) or len(layout) < 2 or linear.rows != layout[0]:
        return False
    arrays, count = linear.arrays(), math.prod(layout[1:])
    ends = np.arange(0, linear.columns + 1, count)
    whole = np.array_equal(arrays["indptr"], ends) and np.array_equal(arrays["indices"], np.arange(linear.columns))
    return bool(whole and (arrays["data"] == 1).all())


def bare_averages(network: Network) -> dict[str, Pool]:
    """By the name of the node that holds its result, each average over windows with pads that are not counted."""
    found = {node.name: _average(network, node, bare=True) for node in network.nodes if isinstance(node, Affine)}
    return {name: pool for name, pool in found.items() if pool is not None and any(pool.low + pool.high)}


def _average(network: Network, node: Affine, *, bare: bool = False) -> Pool | None:
    """Ones summed, then divided by how many there are, those in the pads counted unless ``bare``."""
    if node.sources[0] == INPUT:
        return None
    summing = network[node.sources[0]]
    if not isinstance(summing, Affine) or len(node.sources) > 1 or node.bias.any():
        return None
    conv, alone = summing.maps[0], network.readers[summing.name] == (node.name,) and network.output != summing.name
    if not alone or len(summing.maps) > 1 or not isinstance(conv, Conv) or summing.bias.any():
        return None
    kernel, geometry = conv.kernel, conv.geometry
    if kernel.shape[1] != 1 or len(kernel) != geometry.groups or (kernel != 1).any():
        return None
    counts = conv.apply(np.ones(conv.columns)) if bare else np.full(node.size, math.prod(kernel.shape[2:]))
    divisor = _divisor(node)
    if len(counts) % len(divisor) or (np.repeat(divisor, len(counts) // len(divisor)) != counts).any():
        return None
    where = kernel.shape[2:], geometry.strides, geometry.low, geometry.high, geometry.dilations
    layout = (conv.in_channels, *geometry.input)
    return Pool("average", summing.sources[0], layout, *where, frozenset([summing.name]), np.arange(len(kernel)))


def _mean(network: Network, node: Affine) -> Pool | None:
    """Each channel summed, then divided by how many positions there are."""
    summing = None if node.sources[0] == INPUT else network[node.sources[0]]
    if not isinstance(summing, Affine) or len(node.maps) > 1 or len(summing.maps) > 1:
        return None
    layout, alone = network.layout(summing.sources[0]), network.readers[summing.name] == (node.name,)
    if not alone or network.output == summing.name or summing.bias.any() or node.bias.any():
        return None
    if not summed_over(summing.maps[0], layout) or (_divisor(node) != math.prod(layout[1:])).any():
        return None
    return _over_all("average", summing.sources[0], layout, [summing.name])


def _over_all(kind: str, source: str, layout: Layout, inside: Iterable[str]) -> Pool:
    ones, zeros = (1,) * len(layout[1:]), (0,) * len(layout[1:])
    where = layout[1:], ones, zeros, zeros, ones
    return Pool(kind, source, layout, *where, frozenset(inside), np.arange(layout[0]), True)


def _divisor(node: Affine) -> Array:
    """What each value is divided by; NaN where it is none."""
    if node.own is not None:
        return node.own.numbers.get("divisor", np.full(1, np.nan))
    scale = node.maps[0].scaling()
    return np.full(1, np.nan) if scale is None or not scale.all() else 1.0 / scale.astype(np.float64)


def _largest(network: Network, group: list[Node]) -> Pool | None:
    """Maxima of two, and of two, until one is left of each window."""
    last, found = group[-1], _reached(network, group)
    if found is None or not isinstance(last, Affine) or len(last.shape) not in (2, 3):
        return None
    source, reached = found
    layout = network.layout(source)
    if len(layout) != len(last.shape):
        return None
    return _windows(last, source, layout, reached, [node.name for node in group])


def _largest_of_all(network: Network, group: list[Node]) -> Pool | None:
    """The same until one is left of each channel."""
    last, found = group[-1], _reached(network, group)
    if found is None or not isinstance(last, Affine):
        return None
    source, reached = found
    layout = network.layout(source)
    if len(layout) < 2 or last.size != layout[0]:
        return None
    count = math.prod(layout[1:])
    whole = sparse.kron(sparse.identity(layout[0], np.float32), np.ones((1, count), np.float32), "csr")
    if (whole != reached.astype(bool)).nnz:
        return None
    return _over_all("max", source, layout, [node.name for node in group[:-1]])


def _reached(network: Network, group: list[Node]) -> tuple[str, Any] | None:
    """(the one node outside that a group of nodes reads, which of its values the last of them depends on)."""
    last, names = group[-1], {node.name for node in group}
    outside = {source for node in group for source in sources_of(node)} - names
    read = {name for node in group[:-1] for name in network.readers[node.name]}
    if len(outside) != 1 or not read <= names:
        return None
    (source,) = outside
    reached: dict[str, Any] = {source: sparse.identity(network.size(source), np.float32, "csr")}
    for node in group:
        if isinstance(node, Relu):
            reached[node.name] = reached[node.source]
        else:
            reached[node.name] = sum(_support(linear) @ reached[name] for name, linear in node.reads)
    return source, reached[last.name].tocsr()


def _support(linear: LinearMap) -> Any:
    arrays = linear.sparse().arrays()
    data = np.ones(len(arrays["data"]), np.float32)
    return sparse.csr_matrix((data, arrays["indices"], arrays["indptr"]), shape=(linear.rows, linear.columns))


def _windows(last: Affine, source: str, layout: Layout, reached: Any, group: list[str]) -> Pool | None:
    """The windows of which each value of a node sees all values, if they are windows."""
    sizes, outputs = layout[1:], last.shape[1:]
    count = math.prod(sizes)
    reached.sort_indices()
    if (np.diff(reached.indptr) == 0).any():
        return None
    places = np.unravel_index(reached.indices % count, sizes)
    parts = []
    for axis, size in enumerate(sizes):
        # along this axis, the windows of the first channel that are the first along the others
        first = np.arange(math.prod(outputs)).reshape(outputs).swapaxes(0, axis).reshape(outputs[axis], -1)[:, 0]
        seen = [np.unique(places[axis][reached.indptr[at] : reached.indptr[at + 1]]) for at in first]
        parts.append(_along(seen, size))
    taps, strides, low, high, dilations = (tuple(part) for part in zip(*parts, strict=True))
    channels = reached.indices[reached.indptr[: -1 : math.prod(outputs)]] // count
    ones = np.ones((len(channels), 1, *taps), np.float32)
    wanted = Conv.of(ones, sizes, Spacing(strides, low, high, dilations), len(channels))
    if wanted.geometry.output != outputs:
        return None
    of_channels = (channels[:, None] * count + np.arange(count)).ravel()
    if (_support(wanted) != reached[:, of_channels].astype(bool)).nnz:
        return None
    return Pool("max", source, layout, taps, strides, low, high, dilations, frozenset(group) - {last.name}, channels)


def _along(seen: list[Array], size: int) -> tuple[int, int, int, int, int]:
    """(taps, stride, pad before, pad behind, dilation) of windows that see these places along an axis."""
    taps = max(map(len, seen))
    full = [at for at, places in enumerate(seen) if len(places) == taps]
    dilation = int(seen[full[0]][1] - seen[full[0]][0]) if taps > 1 else 1
    first, stride = full[0], max(1, size)
    if first + 1 < len(seen):  # where a window begins behind a whole one, and ends before it, no pad hides
        stride = int(seen[first + 1][0] - seen[first][0])
    elif first:
        stride = int(seen[first][-1] - seen[first - 1][-1])
    low = first * stride - int(seen[first][0])
    span = (taps - 1) * dilation + 1
    return taps, stride, max(0, low), max(0, (len(seen) - 1) * stride + span - size - low), dilation
