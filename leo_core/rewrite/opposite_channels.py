"""Opposite filters become one ReLU and a line: relu(−z) = relu(z) − z, for whole channels that change state.

The rule of :mod:`~leo_core.rewrite.opposite` for channels: where z_j = −a z_i with a > 0, what reads both takes
M_i + a M_j of relu(z_i), and M_j of the line z_j, which joins the active channels; where that leaves nothing of M_i, or
rounding only, channel i goes, too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import numpy as np
from numpy.typing import NDArray

from leo_core.arithmetic import weigh_up
from leo_core.rewrite.absorb import added_up
from leo_core.rewrite.channel_block import ChannelBlock, ChannelLayer, channel_layer
from leo_core.rewrite.channels import told_copies, varying
from leo_core.rewrite.form import Form, change
from leo_core.rewrite.opposite import ROUNDING
from leo_core.rewrite.parallel import apart_by, multiple_of, near_multiples
from leo_core.rewrite.step import Ladder, Refusal, Rewrite
from leo_core.rewrite.view import View
from leo_core.stability.verdict import State

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


def merge_opposite_channels(view: View, name: str) -> Ladder | Refusal | None:
    """Turn as many opposite channels of the convolution ``name`` into lines as fit, if all lines then take fewer."""
    layer = channel_layer(view, name)
    if layer is None:
        return None
    pairs = _Opposite.of(layer)
    if pairs is None:
        return None
    count = len(pairs.goes)

    def without(left: int) -> Ladder | None:
        """All but the worst ``left`` pairs."""
        taken = pairs.first(count - left)
        try:
            block = taken.block()
        except OverflowError:
            return None
        what = f"{count - left} opposite channel(s) and {len(block.channels) - count + left} active one(s) re-factored"
        return block.ladder(what).then(taken.told)

    refusal = Refusal(f"{count} opposite channel(s) left", "their linear parts would take as many")
    return Ladder(count, without, otherwise=refusal)


@final
@dataclass(frozen=True, eq=False)
class _Opposite:
    """Channels ``goes`` near ``factor`` < 0 times others, ``stays``: |z_goes − factor · z_stays| ≤ ``error``."""

    layer: ChannelLayer
    goes: Indices
    stays: Indices
    factor: Array
    error: Array

    @staticmethod
    def of(layer: ChannelLayer) -> _Opposite | None:
        """Those of a layer, the nearest first; None where there are none."""
        view, stream, writer = layer.view, layer.stream, layer.writer
        relus = stream.relus(view.network)
        if len(relus) != 1 or view.network.readers[writer.name] != (relus[0].name,):
            return None
        places, units = stream.places[writer.name], view.facts.units[writer.name]
        usable = layer.usable & varying(view, stream)
        usable &= (places.of(units.state, State.INACTIVE) == State.UNSTABLE).any(axis=1)
        usable &= (places.of(relus[0].slope, 1.0) == 0).all(axis=1)
        centre, radius = layer.lower + 0.5 * (layer.upper - layer.lower), 0.5 * (layer.upper - layer.lower)
        full = np.column_stack([layer.weights, layer.bias])
        with np.errstate(invalid="ignore", over="ignore"):
            rows = np.column_stack([layer.weights * radius, layer.weights @ centre + layer.bias])
            length = np.sqrt((rows * rows).sum(axis=1))
            usable &= np.isfinite(length) & (length > 1e-150)
        found = near_multiples(rows, length, usable, np.zeros(len(rows)), sign=-1)
        if not found or not layer.readings:
            return None
        goes, stays = np.array(list(found), np.int64), np.array(list(found.values()), np.int64)
        factor = np.array([multiple_of(full[j], full[i], rows[j], rows[i]) for j, i in found.items()])
        error = apart_by(full[goes], factor, full[stays], layer.lower, layer.upper)
        order = np.argsort(np.abs(layer.outgoing[:, goes]).max(axis=0, initial=0.0) * error, kind="stable")
        return _Opposite(layer, goes[order], stays[order], factor[order], error[order])

    def first(self, count: int) -> _Opposite:
        return _Opposite(self.layer, self.goes[:count], self.stays[:count], self.factor[:count], self.error[:count])

    def block(self) -> ChannelBlock:
        """The lines that these channels and the active ones are, beside what is left of their ReLUs.

        Raises OverflowError.
        """
        layer = self.layer
        outgoing, before, free = self._turned()
        cost = np.concatenate([np.zeros(len(self.goes)), layer.cost[layer.active]])
        return ChannelBlock(layer, np.concatenate([self.goes, layer.active]), cost, outgoing, before, free)

    def _turned(self) -> tuple[Array, Array, Indices]:
        """(the outgoing weights, what they change, the channels of which they leave nothing)."""
        layer = self.layer
        stays, of = np.unique(self.stays, return_inverse=True)
        eye = np.eye(len(stays))
        involved = np.concatenate([stays, self.goes])
        factors = np.vstack([eye, eye[of.ravel()] * np.abs(self.factor)[:, None]])
        old = Form(layer.outgoing[:, involved], factors, np.zeros(len(involved)), np.zeros(len(layer.outgoing)))
        made = layer.stored(_spread(layer, stays, old.rounded(layer.dtype)))[:, stays]
        size = np.abs(layer.outgoing[:, stays])
        np.add.at(size.T, of.ravel(), (np.abs(self.factor) * np.abs(layer.outgoing[:, self.goes])).T)
        empty = (np.abs(made) <= ROUNDING * size).all(axis=0) & (size > 0).any(axis=0)
        made[:, empty] = 0.0
        upper = self._upper()[stays]
        new = Form(made, eye, np.zeros(len(stays)), np.zeros(len(made)))
        before = change(old, new, np.zeros(len(stays)), upper).most
        before = added_up(before + weigh_up(layer.outgoing[:, self.goes], self.error), 1)
        outgoing = layer.outgoing.copy()
        outgoing[:, stays] = made
        return outgoing, before, stays[empty]

    def _upper(self) -> Array:
        """The most that the ReLU of each channel gives."""
        places = self.layer.stream.places[self.layer.writer.name]
        upper = self.layer.view.facts.units[self.layer.writer.name].upper
        return np.asarray(np.maximum(places.of(upper, absent=0.0).max(axis=1), 0.0))

    def told(self, found: Rewrite) -> Rewrite:
        """A rewrite that says in its lineage what the channels that go were taken for."""
        layer, lineage = self.layer, found.view.facts.lineage
        (relu,) = layer.stream.relus(layer.view.network)
        index, units = layer.stream.places[relu.name].index, layer.view.facts.units[relu.source]
        for j, i, factor in zip(self.goes, self.stays, self.factor, strict=True):
            lineage = told_copies(lineage, relu.name, units, index[j], index[i], float(factor))
        return replace(found, view=found.view.with_lineage(lineage))


def _spread(layer: ChannelLayer, channels: Indices, weights: Array) -> Array:
    """Weights of some channels among those of all."""
    outgoing = layer.outgoing.copy()
    outgoing[:, channels] = weights
    return outgoing
