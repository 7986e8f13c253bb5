"""Opposite unstable units become one ReLU and a linear part: relu(−z) = relu(z) − z.

If z_j = −a z_i with a > 0, then M_j relu(z_j) = M_j z_j + (a M_j) relu(z_i): M_i becomes M_i + a M_j, and
unit j counts as a line. The lines of a layer need no more units than the rank of what is read of them (see
:mod:`~leo_core.rewrite.refactor`), so that this pays where there are more lines than that.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from leo_core.network import Network
from leo_core.rewrite.block import fewest, linear_block
from leo_core.rewrite.facts import Facts
from leo_core.rewrite.layer import ReluLayer, incoming, layer_of
from leo_core.rewrite.parallel import absorbed, pairs_of
from leo_core.rewrite.refactor import mix_block
from leo_core.rewrite.step import Fits, Refusal, Rewrite


def merge_opposite(network: Network, facts: Facts, name: str, fits: Fits) -> Rewrite | Refusal | None:
    """Turn as many opposite units of the ReLU ``name`` into lines as fit, if all lines then take fewer units."""
    layer = layer_of(network, name)
    if not isinstance(layer, ReluLayer):
        return layer
    pairs = pairs_of(network, facts, layer, sign=-1)
    count = len(pairs.goes)
    if not count:
        return None
    weights, bias, _, _ = incoming(network, facts, layer.node)
    block = linear_block(network, facts, layer.node, layer.relu)

    def attempt(left: int) -> Rewrite | None:
        """With all but the worst ``left`` pairs."""
        taken = pairs.first(count - left)
        try:
            turned, made = absorbed(facts, layer, taken)
        except OverflowError:
            return None
        lines = block.with_lines(weights[taken.goes], bias[taken.goes], taken.goes, np.zeros(count - left))
        told = facts.with_copies(layer.relu, taken.goes, taken.stays, taken.factor)
        found = mix_block(network, told, turned, lines, len(lines.units), fits, made)
        what = f"{count - left} opposite unit(s) and {len(block.units)} active one(s) re-factored"
        return None if found is None else replace(found, what=what)

    found = fewest(count, attempt, likely=0)
    return (
        Refusal(f"{count} opposite unit(s) left", "their linear parts would take as many") if found is None else found
    )
