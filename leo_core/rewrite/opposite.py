"""Opposite unstable units become one ReLU and a linear part: relu(−z) = relu(z) − z.

If z_j = −a z_i with a > 0, then M_j relu(z_j) = M_j z_j + (a M_j) relu(z_i): M_i becomes M_i + a M_j, and
unit j counts as a line. The lines of a layer need no more units than the rank of what is read of them (see
:mod:`~leo_core.rewrite.refactor`), so that this pays where there are more lines than that.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from leo_core.network import Network
from leo_core.rewrite.block import linear_block
from leo_core.rewrite.facts import Facts
from leo_core.rewrite.layer import ReluLayer, incoming, layer_of
from leo_core.rewrite.parallel import absorbed, pairs_of
from leo_core.rewrite.refactor import mix_block
from leo_core.rewrite.step import Fits, Refusal, Rewrite


def merge_opposite(network: Network, facts: Facts, name: str, fits: Fits) -> Rewrite | Refusal | None:
    """Turn every opposite unit of the ReLU ``name`` into a line and re-factor all lines, if that takes fewer units."""
    layer = layer_of(network, name)
    if not isinstance(layer, ReluLayer):
        return layer
    pairs = pairs_of(network, facts, layer, sign=-1)
    if not len(pairs.goes):
        return None
    what = f"{len(pairs.goes)} opposite unit(s)"
    try:
        outgoing, error = absorbed(facts, layer, pairs)
    except OverflowError as overflow:
        return Refusal(f"{what} kept", str(overflow))
    turned = replace(layer, outgoing=outgoing)
    weights, bias, _, _ = incoming(network, facts, layer.node)
    block = linear_block(network, facts, layer.node, layer.relu)
    block = block.with_lines(weights[pairs.goes], bias[pairs.goes], pairs.goes, np.zeros(len(pairs.goes)))
    found = mix_block(network, facts, turned, block, len(block.units), fits, error)
    if found is None:
        return Refusal(f"{what} kept", "their linear parts would take as many units")
    return replace(found, what=f"{what} and {len(block.units) - len(pairs.goes)} active one(s) re-factored")
