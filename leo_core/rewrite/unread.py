"""Units and nodes that nothing downstream reads go: exact, and always worth it, so it follows every rewrite.

Of a node with channels, only whole ones go: what is left is then still a convolution. A matrix, or a layer that keeps
channels apart, may read fewer of what such a node has: what it reads is picked first. Of a convolution in groups, those
that are left keep as many channels as the one that needs most.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from leo_core.linear import Conv, LinearMap, Select, Sparse
from leo_core.network import INPUT, Affine, Network, Node, Relu, free_name
from leo_core.rewrite.facts import Units
from leo_core.rewrite.maps import restricted
from leo_core.rewrite.view import View

Mask = NDArray[np.bool_]


def drop_unread(view: View) -> View:
    """Keep what the output depends on through non-zero weights, unit by unit."""
    network, facts = view.network, view.facts
    live = _live(network)
    nodes: list[Node] = []
    units: dict[str, Units] = {}
    taken = {INPUT, *(node.name for node in network.nodes)}
    for node in network.nodes:
        keep = live[node.name]
        if not keep.any():
            continue
        if isinstance(node, Affine):
            nodes += _restricted_affine(network, node, live, taken)
        else:
            source, slope = node.source, node.slope[keep]
            if not np.array_equal(live[source], keep):
                source = free_name(f"{node.source}.{node.name}", taken, ".")
                taken.add(source)
                wanted = np.flatnonzero(keep[live[node.source]])
                picked = Select(wanted, columns=int(live[node.source].sum()))
                bias = np.zeros(len(wanted), network.affine(node.source).bias.dtype)
                of = network.affine(node.source)
                nodes.append(Affine(source, (node.source,), (picked,), bias, node.origin, _shape(of.shape, keep)))
            nodes.append(node if keep.all() and source == node.source else Relu(node.name, source, slope, node.origin))
            units[source] = facts.units[node.source].kept(keep)
    return View(replace(network, nodes=tuple(nodes)), replace(facts, units=units))


def _live(network: Network) -> dict[str, Mask]:
    live: dict[str, Mask] = {INPUT: np.ones(network.input_size, dtype=bool)}
    for node in network.nodes:
        live[node.name] = np.zeros(node.size, dtype=bool)
    live[network.output][:] = True
    for node in reversed(network.nodes):
        if not isinstance(node, Affine):
            live[node.source] |= live[node.name]
            continue
        rows = by_channel(live[node.name], node.shape)
        if rows.any() and (conv := grouped(node)) is not None:
            rows = _balanced(rows, conv.out_channels, conv.geometry.groups)
        live[node.name] = rows
        if rows.any():
            for source, linear in node.reads:
                live[source] |= _read(node, linear, rows)
    filled = set()  # nodes with channels that only fill groups; what follows takes them as they come
    for node in network.nodes:
        before = node.source if isinstance(node, Relu) else node.sources[0]
        if isinstance(node, Relu):  # it has the layout of what it reads
            live[node.name] = by_channel(live[node.name], network.affine(before).shape)
        elif grouped(node) is not None:
            filled.add(node.name)
        follows = isinstance(node, Relu) or node.own is not None
        if follows and before in filled and network.readers[before] == (node.name,):
            live[node.name] = live[before]
            filled.add(node.name)
    return live


def grouped(node: Affine) -> Conv | None:
    """The convolution in several groups that a node is; None where it is something else."""
    conv = node.maps[0]
    several = len(node.maps) == 1 and isinstance(conv, Conv) and conv.geometry.groups > 1
    return conv if several and node.own is None and isinstance(conv, Conv) else None


def _balanced(units: Mask, channels: int, groups: int, among: Mask | None = None) -> Mask:
    """At least these units: whole channels, as many in each group ``among`` those that count: all that have some."""
    kept: Mask = np.asarray(units.reshape(groups, channels // groups, -1).any(axis=2))
    counted: Mask = np.asarray(kept.any(axis=1)) if among is None else among
    most = int(kept.sum(axis=1).max(initial=0))
    for group in np.flatnonzero(counted):
        spare = np.flatnonzero(~kept[group])
        kept[group, spare[: most - int(kept[group].sum())]] = True
    kept[~counted] = False
    return np.repeat(kept.ravel(), units.size // channels)


def _read(node: Affine, linear: LinearMap, rows: Mask) -> Mask:
    """What some rows of a node read; one that works value by value reads what its factor is 0 for, too."""
    if node.own is not None:
        return rows
    used = linear.used_columns(rows)
    conv = grouped(node)
    if conv is None or not used.any():
        return used
    groups = conv.geometry.groups
    among: Mask = np.asarray(rows.reshape(groups, -1).any(axis=1))
    if node.sources[0] == INPUT:  # all of it is there
        return np.repeat(among, used.size // groups)
    return _balanced(used, conv.in_channels, groups, among)


def by_channel(mask: Mask, shape: tuple[int, ...]) -> Mask:
    """All units of each channel of which the mask has one, where a node has channels."""
    if not shape or not mask.any():
        return mask
    channels = mask.reshape(shape[0], -1).any(axis=1)
    return np.repeat(channels, mask.size // shape[0])


def _shape(shape: tuple[int, ...], keep: Mask) -> tuple[int, ...]:
    """The layout that is left of one of whose channels these units are kept."""
    return (int(keep.sum()) // (keep.size // shape[0]), *shape[1:]) if shape else ()


def _restricted_affine(network: Network, node: Affine, live: dict[str, Mask], taken: set[str]) -> list[Affine]:
    """The node with what is live, behind nodes that pick what it reads of channels that others need, too."""
    rows = live[node.name]
    picks: list[Affine] = []
    parts = []
    for source, linear in node.reads:
        columns, read = live[source], _read(node, linear, rows)
        if not (columns.any() and read.any()):
            continue
        shape = network.layout(source)
        conv = grouped(node)
        by_itself = node.own is not None or conv is not None or (bool(shape) and linear.is_full)
        if by_itself and (read != columns).any():
            name = free_name(f"{source}.{node.name}", taken, ".")
            picked = Select(np.flatnonzero(read[columns]), columns=int(columns.sum()))
            nothing = np.zeros(picked.rows, node.bias.dtype)
            layout = _shape(shape, read) if node.own is not None else ()
            if conv is not None:
                layout = _shape((conv.in_channels, *conv.geometry.input), read)
            picks.append(Affine(name, (source,), (picked,), nothing, node.origin, layout))
            taken.add(name)
            source, columns = name, read
        parts.append((source, restricted(linear, rows, columns)))
    if not parts:
        parts = [(INPUT, Sparse.zero(int(rows.sum()), network.input_size, node.bias.dtype))]
    sources, linears = (tuple(part) for part in zip(*parts, strict=True))
    if sources == node.sources and all(a is b for a, b in zip(linears, node.maps, strict=True)):
        return [node]
    own = node.own.kept(rows) if node.own is not None else None
    kept = Affine(node.name, sources, linears, node.bias[rows], node.origin, _shape(node.shape, rows), own)
    return [*picks, kept]
