"""Networks on images without their dead channels, made by hand, with what the certificate of that needs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from leo_core.network import INPUT, Affine, Network, Relu
from leo_core.rewrite import Rewritten
from leo_core.rewrite.facts import Facts
from leo_core.stability import State


def without_dead_channels(network, stability):
    """What rewriting gives that drops the channels that are inactive everywhere, and those that only they read."""
    facts = Facts.of(network, stability)
    live = {INPUT: np.ones(network.input_size, dtype=bool)}
    live |= {node.name: np.zeros(node.size, dtype=bool) for node in network.nodes}
    live[network.output][:] = True
    for node in reversed(network.nodes):
        if isinstance(node, Relu):
            dead = (facts.units[node.source].state == State.INACTIVE) & (node.slope == 0)
            live[node.name] &= whole(network.affine(node.source), ~dead)
            live[node.source] |= live[node.name]
        else:
            for source, linear in node.reads:
                used, before = linear.used_columns(live[node.name]), network[source] if source != INPUT else None
                affine = network.affine(before.source) if isinstance(before, Relu) else before
                live[source] |= used if affine is None else whole(affine, used)
    for node in network.nodes:  # a channel that is read, but dead
        if isinstance(node, Relu):
            dead = (facts.units[node.source].state == State.INACTIVE) & (node.slope == 0)
            live[node.name] &= whole(network.affine(node.source), ~dead)
    nodes = []
    for node in network.nodes:
        rows = np.flatnonzero(live[node.name])
        if not len(rows):
            continue
        if isinstance(node, Affine):
            reads = [(source, linear) for source, linear in node.reads if live[source].any()]
            maps = [linear.select(rows, np.flatnonzero(live[source])) for source, linear in reads]
            shape = (len(rows) * node.shape[0] // node.size, *node.shape[1:]) if node.shape else ()
            nodes.append(
                replace(node, sources=tuple(s for s, _ in reads), maps=tuple(maps), bias=node.bias[rows], shape=shape)
            )
        else:
            nodes.append(replace(node, slope=node.slope[rows]))
    small = Network(network.input_size, tuple(nodes), network.output, network.signature)
    return Rewritten(small, 0.0, facts.kept(live), (), ())


def whole(node, units):
    """The units of all channels of a node that have one of these."""
    channels = node.shape[0] if node.shape else node.size
    return np.repeat(units.reshape(channels, -1).any(axis=1), node.size // channels)
