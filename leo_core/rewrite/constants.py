"""A unit whose every input is constant is constant: its value moves into the biases of what reads it.

Values are computed over the rationals; a new bias is rounded once, to its dtype, and the error is exact.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from leo_core.arithmetic import float_up, nearest_float
from leo_core.bounds.change import Change
from leo_core.network import INPUT, Affine
from leo_core.rewrite.step import Ladder, Refusal, Rewrite, only
from leo_core.rewrite.view import View

Constants = dict[str, dict[int, Fraction]]


def fold_constants(view: View, name: str) -> Ladder | Refusal | None:
    """Fold the constant units that the affine node ``name`` reads into its bias."""
    node = view.network[name]
    if not isinstance(node, Affine):
        return None
    known = _constants(view)
    exact = [Fraction(float(value)) for value in node.bias]
    new_maps, folded = [], 0
    for source, linear in node.reads:
        used = linear.used_columns(np.ones(linear.rows, dtype=bool))
        columns = [] if source == INPUT else [j for j in known[source] if used[j]]
        for j in columns:
            value = known[source][j]
            for row, weight in zip(*linear.column(j), strict=True) if value else ():
                exact[row] += Fraction(float(weight)) * value
        new_maps.append(linear.without(np.zeros(linear.rows, dtype=bool), _mask(columns, linear.columns)))
        folded += len(columns)
    if not folded:
        return None
    with np.errstate(over="ignore"):
        bias = np.array([nearest_float(value) for value in exact]).astype(node.bias.dtype)
    what = f"{folded} constant unit(s) before it folded into the bias"
    if not np.isfinite(bias).all():
        return Refusal(what, "a new bias would overflow")
    error = np.array([float_up(abs(Fraction(float(new)) - old)) for new, old in zip(bias, exact, strict=True)])
    changed = Affine(name, node.sources, tuple(new_maps), bias, node.origin)
    changes = {name: Change.at_most(error)} if error.any() else {}
    return only(
        Rewrite(view.with_nodes(changed), what, changes),
        Refusal(what, "rounding the new biases costs more than the tolerance leaves"),
    )


def _constants(view: View) -> Constants:
    """By node, the units that have one value on the whole box, with that value; worked out once for a view."""
    return view.once("constants", lambda: _constant_units(view))


def _constant_units(view: View) -> Constants:
    box = view.facts.box
    known: Constants = {INPUT: {int(j): Fraction(float(box.lower[j])) for j in np.flatnonzero(box.lower == box.upper)}}
    for node in view.network.nodes:
        if isinstance(node, Affine):
            known[node.name] = _constant_rows(node, known)
        else:
            known[node.name] = {
                i: value if value >= 0 else value * Fraction(float(node.slope[i]))
                for i, value in known[node.source].items()
            }
    return known


def _constant_rows(node: Affine, known: Constants) -> dict[int, Fraction]:
    varies = np.zeros(node.size, dtype=bool)
    for source, linear in node.reads:
        moving = ~_mask(list(known[source]), linear.columns)
        varies |= linear.absolute().apply(moving.astype(np.float64)) > 0
    result = {}
    for i in np.flatnonzero(~varies):
        total = Fraction(float(node.bias[i]))
        for source, linear in node.reads:
            for j, weight in zip(*linear.row(int(i)), strict=True):
                total += Fraction(float(weight)) * known[source][int(j)]
        result[int(i)] = total
    return result


def _mask(columns: list[int], size: int) -> NDArray[np.bool_]:
    mask = np.zeros(size, dtype=bool)
    mask[columns] = True
    return mask
