"""A unit that is never positive is zero: what reads it need not (LEO; Serra et al. 2020, section 3).

With a leak it computes slope · z instead, a line, and belongs to :mod:`~leo_core.rewrite.merge`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from leo_core.arithmetic import product_error, round_up
from leo_core.bounds.change import Change
from leo_core.network import Affine, Node, Relu
from leo_core.rewrite.step import Ladder, Refusal, Rewrite, only
from leo_core.rewrite.view import View
from leo_core.stability.verdict import State


def drop_inactive(view: View, name: str) -> Ladder | Refusal | None:
    """Clear the columns of inactive units in everything that reads the ReLU ``name``."""
    network = view.network
    relu = network[name]
    if not isinstance(relu, Relu) or name == network.output:
        return None
    units = view.facts.units[relu.source]
    off = (units.state == State.INACTIVE) & (relu.slope == 0)
    if not off.any():
        return None
    defect = np.where(off, units.defect(relu.slope), 0.0)
    changed: list[Node] = []
    changes: dict[str, Change] = {}
    for reader in network.readers[name]:
        node = network[reader]
        if not isinstance(node, Affine) or node.shape or node.own is not None:
            continue  # of a layer with channels, whole ones go, with what else is constant
        read = [linear for source, linear in node.reads if source == name]
        if not any(linear.used_columns(np.ones(linear.rows, bool))[off].any() for linear in read):
            continue
        cleared = []
        error = np.zeros(node.size)
        for source, linear in node.reads:
            if source == name:
                cleared.append(linear.without(np.zeros(linear.rows, dtype=bool), off))
                flow = linear.absolute().apply(defect)
                error = round_up(error + round_up(flow + product_error(flow, linear.terms)))
            else:
                cleared.append(linear)
        if defect.any():
            changes[node.name] = Change.at_most(error)
        changed.append(replace(node, maps=tuple(cleared)))
    if not changed:
        return None
    what = f"{int(off.sum())} inactive unit(s) dropped"
    return only(
        Rewrite(view.with_nodes(*changed), what, changes),
        Refusal(what, "their state is only known up to a rounding of earlier layers"),
    )
