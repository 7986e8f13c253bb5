"""A ReLU layer as the passes see it: incoming rows, units, and the outgoing weights of all its readers, stacked.

What a pass makes of it is written as x → N relu(V x + d) + e and put back by :meth:`ReluLayer.replaced`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from leo_core.arithmetic import Array
from leo_core.bounds.change import Change
from leo_core.network import Affine, Node, Relu
from leo_core.rewrite import maps
from leo_core.rewrite.facts import Units
from leo_core.rewrite.step import Refusal
from leo_core.rewrite.view import View


@final
@dataclass(frozen=True, eq=False)
class ReluLayer:
    """The ReLU node ``relu`` behind the affine ``node``, which nothing else reads.

    Attributes
    ----------
    view:
        Where it is.
    readers:
        The affine nodes that read the ReLU, each once.
    outgoing, constants:
        Their weights of the units (rows × units) and their biases (rows,), one reader below the other.
    """

    view: View
    node: Affine
    relu: Relu
    readers: tuple[Affine, ...]
    outgoing: Array
    constants: Array

    @property
    def units(self) -> Units:
        """What is known of its units."""
        return self.view.facts.units[self.node.name]

    @property
    def columns(self) -> int:
        """How many values its affine node reads."""
        return sum(linear.columns for linear in self.node.maps)

    @cached_property
    def incoming(self) -> Incoming:
        """Its affine node."""
        return incoming(self.view, self.node)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The widest in which a weight or bias of it is stored."""
        kinds = [dtype for _, _, dtype in self.parts()]
        kinds += [maps.weight_dtype(self.node, linear) for linear in self.node.maps]
        return np.result_type(self.node.bias, *(reader.bias for reader in self.readers), *kinds)

    def parts(self) -> Iterator[tuple[Affine, slice, Any]]:
        """(reader, its rows, the dtype its weights are stored in)."""
        start = 0
        for reader in self.readers:
            linear = reader.maps[reader.sources.index(self.relu.name)]
            yield reader, slice(start, start + reader.size), maps.weight_dtype(reader, linear)
            start += reader.size

    def stored(self, outgoing: Array) -> Array:
        """Outgoing weights as they will be stored. Raises OverflowError where one does not fit."""
        return self._rounded(outgoing, "weight", {reader.name: dtype for reader, _, dtype in self.parts()})

    def stored_constants(self, constants: Array) -> Array:
        """Biases as they will be stored. Raises OverflowError where one does not fit."""
        return self._rounded(constants, "bias", {reader.name: reader.bias.dtype for reader in self.readers})

    def stored_incoming(self, weights: Array) -> Array:
        """Incoming weights (new units × concatenated sources) as they will be stored. Raises OverflowError."""
        with np.errstate(over="ignore"):
            parts = [
                part.astype(maps.weight_dtype(self.node, linear)).astype(np.float64)
                for linear, part in zip(self.node.maps, maps.by_source(self.node, weights), strict=True)
            ]
        result = np.hstack(parts)
        if not np.isfinite(result).all():
            raise OverflowError(f"a new weight of {self.node.name} would overflow")
        return result

    def by_reader(self, change: Change) -> dict[str, Change]:
        """A change of the stacked rows as one per reader; readers without any are left out."""
        return {reader.name: change.rows(rows) for reader, rows, _ in self.parts() if change.most[rows].any()}

    def replaced(self, keep: NDArray[Any], rows: Rows, outgoing: Array, constants: Array) -> View:
        """The view with the units ``keep`` as they were, then the units of ``rows``.

        ``outgoing`` (stacked rows × units) and ``constants`` are taken as :meth:`stored` gave them.
        """
        changed: dict[str, Node] = {}
        for reader, part, dtype in self.parts():
            position = reader.sources.index(self.relu.name)
            linear = maps.stored(outgoing[part], dtype, reader.maps[position])
            linears = (*reader.maps[:position], linear, *reader.maps[position + 1 :])
            bias = constants[part].astype(reader.bias.dtype)
            changed[reader.name] = Affine(reader.name, reader.sources, linears, bias, reader.origin)
        changed[self.node.name] = self._incoming(keep, rows)
        slope = np.concatenate([self.relu.slope[keep], np.zeros(len(rows.bias))])
        changed[self.relu.name] = Relu(self.relu.name, self.relu.source, slope, self.relu.origin)
        return self.view.with_nodes(*changed.values(), units={self.node.name: self.units.kept(keep).joined(rows.units)})

    def _incoming(self, keep: NDArray[Any], rows: Rows) -> Affine:
        node, linears = self.node, []
        for linear, part in zip(node.maps, maps.by_source(node, rows.weights), strict=True):
            kept = linear.select_rows(keep)
            if len(rows.bias):
                stacked = np.vstack([linear.rows_at(keep), part])
                kept = maps.stored(stacked, maps.weight_dtype(node, linear), linear)
            linears.append(kept)
        bias = np.concatenate([node.bias[keep], rows.bias.astype(node.bias.dtype)])
        return Affine(node.name, node.sources, tuple(linears), bias, node.origin)

    def _rounded(self, values: Array, what: str, dtypes: dict[str, Any]) -> Array:
        result = np.empty(values.shape)
        for reader, rows, _ in self.parts():
            with np.errstate(over="ignore"):
                result[rows] = values[rows].astype(dtypes[reader.name])
            if not np.isfinite(result[rows]).all():
                raise OverflowError(f"a new {what} of {reader.name} would overflow")
        return result


@final
@dataclass(frozen=True, eq=False)
class Rows:
    """New units: their incoming weights over the concatenated sources, biases, and what is known of them."""

    weights: Array
    bias: Array
    units: Units

    @staticmethod
    def none(columns: int) -> Rows:
        empty = np.zeros(0)
        return Rows(np.zeros((0, columns)), empty, Units.new(empty, empty))


@final
@dataclass(frozen=True, eq=False)
class Incoming:
    """An affine node W x + b over its concatenated sources, and proved bounds of x.

    Shapes: ``weights`` (units, sources' values), ``bias`` (units,), ``lower`` and ``upper`` (sources' values,).
    """

    weights: Array
    bias: Array
    lower: Array
    upper: Array

    @property
    def reach(self) -> Array:
        """The largest |x|."""
        return np.maximum(np.abs(self.lower), np.abs(self.upper))


def incoming(view: View, node: Affine) -> Incoming:
    """An affine node of the view."""
    ends = [view.region.value(view.network, source) for source in node.sources]
    lower, upper = np.concatenate([low for low, _ in ends]), np.concatenate([high for _, high in ends])
    return Incoming(node.dense(), node.bias.astype(np.float64), lower, upper)


def layer_of(view: View, name: str) -> ReluLayer | Refusal | None:
    """The layer of the ReLU ``name``; None where there is nothing to rewrite, a refusal where the graph forbids it."""
    return view.once(("layer", name), lambda: _layer_of(view, name))


def _layer_of(view: View, name: str) -> ReluLayer | Refusal | None:
    network = view.network
    relu = network[name]
    if not isinstance(relu, Relu) or name == network.output or not network.readers[name]:
        return None
    node = network.affine(relu.source)
    if network.readers[node.name] != (name,):
        return Refusal("units not merged", "its pre-activation is read elsewhere")
    readers = tuple(network.affine(reader) for reader in network.readers[name])
    if any(reader.sources.count(name) > 1 for reader in readers):
        return Refusal("units not merged", "one node reads it twice")
    outgoing = np.vstack([reader.weights_of(name) for reader in readers])
    constants = np.concatenate([reader.bias.astype(np.float64) for reader in readers])
    return ReluLayer(view, node, relu, readers, outgoing, constants)
