"""A ReLU on the output: its inactive units are the constant 0, and if none is left unsettled it goes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from leo_core.bounds.change import Change
from leo_core.network import Affine, Relu
from leo_core.rewrite.step import Ladder, Refusal, Rewrite, only
from leo_core.rewrite.view import View
from leo_core.stability.verdict import State


def settle_output(view: View, name: str) -> Ladder | Refusal | None:
    """Clear the rows of inactive output units; drop the ReLU when all its units are stable."""
    network, facts = view.network, view.facts
    relu = network[name]
    if not isinstance(relu, Relu) or name != network.output or network.readers[name]:
        return None
    node, units = network.affine(relu.source), facts.units[relu.source]
    off = units.state == State.INACTIVE
    leaky = off & (relu.slope > 0)
    settled = bool((units.state != State.UNSTABLE).all()) and not leaky.any()
    off &= ~leaky
    zero = off & (node.bias == 0) & ~np.any([m.absolute().apply(np.ones(m.columns)) > 0 for m in node.maps], axis=0)
    if network.readers[node.name] != (name,) or not (settled or (off & ~zero).any()):
        return None
    cleared = Affine(
        node.name,
        node.sources,
        tuple(m.without(off, np.zeros(m.columns, dtype=bool)) for m in node.maps),
        np.where(off, node.bias.dtype.type(0), node.bias),
        node.origin,
    )
    nodes = tuple(cleared if other.name == node.name else other for other in network.nodes)
    what = f"{int(off.sum())} inactive output(s) set to zero"
    zeroed = replace(units, lower=np.where(off, 0.0, units.lower), upper=np.where(off, 0.0, units.upper))
    output, left = name, {**facts.units, node.name: zeroed}
    if settled:
        nodes = tuple(other for other in nodes if other.name != name)
        output = node.name
        left = {other: known for other, known in facts.units.items() if other != node.name}
        what = "every output is stable; the ReLU is dropped"
    # The cleared rows change their node by more than a rounding, but not what the ReLU made of them.
    defect = np.where(off | settled, units.defect(relu.slope), 0.0)
    changes = {node.name: Change.at_most(defect)} if defect.any() else {}
    settled_view = View(replace(network, nodes=nodes, output=output), replace(facts, units=left))
    return only(
        Rewrite(settled_view, what, changes),
        Refusal(what, "its state is only known up to a rounding of earlier layers"),
    )
