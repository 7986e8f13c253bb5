"""Opposite unstable units become one ReLU and a linear part: relu(−z) = relu(z) − z.

If z_j = −a z_i with a > 0, then M_j relu(z_j) = M_j z_j + (a M_j) relu(z_i): M_i becomes M_i + a M_j, and
unit j counts as a line. Where that leaves nothing of M_i, or rounding only, unit i goes, too. The lines of a layer need
no more units than the rank of what is read of them (see :mod:`~leo_core.rewrite.refactor`), so that this pays where
more units than that go or are lines.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from leo_core.arithmetic import product_error, round_up
from leo_core.bounds.change import Change
from leo_core.rewrite.block import block_of, old_form
from leo_core.rewrite.layer import ReluLayer, layer_of
from leo_core.rewrite.parallel import Pairs, absorbed, pairs_of
from leo_core.rewrite.refactor import Mixing
from leo_core.rewrite.step import Ladder, Refusal
from leo_core.rewrite.view import View

#: What is left of an outgoing weight of two units that cancel is rounding up to this share of theirs.
ROUNDING = 2.0**-20


def merge_opposite(view: View, name: str) -> Ladder | Refusal | None:
    """Turn as many opposite units of the ReLU ``name`` into lines as fit, if all lines then take fewer units."""
    layer = layer_of(view, name)
    if not isinstance(layer, ReluLayer):
        return layer
    pairs = pairs_of(layer, sign=-1)
    count = len(pairs.goes)
    if not count:
        return None
    block, known = block_of(layer), layer.incoming

    def without(left: int) -> Ladder | None:
        """All but the worst ``left`` pairs."""
        taken = pairs.first(count - left)
        try:
            turned, made = absorbed(layer, taken)
        except OverflowError:
            return None
        turned, made, emptied = _emptied(layer, turned, made, taken)
        at = taken.goes
        lines = block.with_lines(known.weights[at], known.bias[at], at, np.zeros(len(at)))
        what = f"{len(at)} opposite unit(s) and {len(block.units)} active one(s) re-factored"
        lineage = taken.told(layer)
        mixed = Mixing.of(turned, lines, old_form(turned, lines)).ladder(len(lines.units) + emptied, before=made)
        return mixed.then(lambda found: replace(found, what=what, view=found.view.with_lineage(lineage)))

    return Ladder(
        count, without, otherwise=Refusal(f"{count} opposite unit(s) left", "their linear parts would take as many")
    )


def _emptied(layer: ReluLayer, turned: ReluLayer, made: Change, taken: Pairs) -> tuple[ReluLayer, Change, int]:
    """(the layer without what rounding alone left of units' outgoing weights, what was changed so far, how many).

    ``turned`` is the layer in which the units that go are lines; those that stay and are read no more are counted.
    """
    stays = np.unique(taken.stays)
    size = np.abs(layer.outgoing[:, stays])
    np.add.at(
        size.T, np.searchsorted(stays, taken.stays), (np.abs(taken.factor) * np.abs(layer.outgoing[:, taken.goes])).T
    )
    left = np.abs(turned.outgoing[:, stays])
    empty = (left <= ROUNDING * size).all(axis=0) & (size > 0).any(axis=0)
    goes, left = stays[empty], left[:, empty]
    if left.any():
        with np.errstate(invalid="ignore"):
            lost = left @ np.maximum(layer.units.upper[goes], 0.0)
        made = made.plus(Change.at_most(round_up(lost + product_error(lost, len(goes)))))
        outgoing = turned.outgoing.copy()
        outgoing[:, goes] = 0.0
        turned = replace(turned, outgoing=outgoing)
    return turned, made, len(goes)
