"""What writers of formats with their channels last have in common: how a node is put together from tensors.

Each says how *its* layers are made; which are asked for, in which layout, and what is left of a bias, is said here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leo_core.linear import LinearMap, Select
from leo_core.network import INPUT, Affine, Network, Own, Relu
from leo_frontends import laid, layers
from leo_frontends.graph import Array
from leo_frontends.heads import apart
from leo_frontends.laid import Laid, channels_last, kept_order, straight, wanted_layout
from leo_frontends.layers import Layout, Pool, Term
from leo_frontends.matrices import matrix


class Writer(ABC):
    """``tensor`` holds the values of each node, as far as it is there; ``inside`` names nodes that layers stand for."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.tensor: dict[str, Laid] = {}
        self.pools: dict[str, Pool] = {}
        self.inside: set[str] = set()

    def heads(self, given: Any, layout: Layout) -> list[Laid]:
        """All nodes made, from the input's tensor on: those that the outputs stand for."""
        self.tensor[INPUT] = Laid(given, layout, straight(layout))
        nodes, heads = apart(self.network)
        for node in nodes:
            if node.name not in self.inside:
                self.tensor[node.name] = self.affine(node) if isinstance(node, Affine) else self.relu(node)
        return [self.tensor[head] for head in heads]

    def affine(self, node: Affine) -> Laid:
        """A pooling, a layer with numbers of its own, parts side by side, or Σ maps · sources + bias."""
        norm, divisor, joined = layers.norm_of(node), layers.divisor_of(node), layers.joined(node)
        if node.name in self.pools:
            return self.pool(node, self.pools[node.name])
        if norm is not None:
            return self.norm(node, norm)
        if divisor is not None:
            return self.divided(node, divisor)
        if joined is not None:
            return self.shifted(node.name, self._joined(node, *joined), node.bias)
        return self.sum(node)

    def sum(self, node: Affine) -> Laid:
        """Σ maps · sources + bias, all in one layout; a difference where one of two is taken off the other."""
        reads = [(source, linear) for source, linear in node.reads if linear.nonzeros and linear.columns]
        if not reads:
            return self.constant(node)
        wanted, less = wanted_layout(self.network, node), False
        if len(reads) == 2 and any(layers.negated(linear) is not None for _, linear in reads):
            minus, other = reads if layers.negated(reads[0][1]) is not None else reads[::-1]
            less, reads = True, [other, (minus[0], layers.negated(minus[1]) or minus[1])]
        bias: Array | None = node.bias
        terms: list[Laid] = []
        for source, linear in reads:
            taken_off = less and bool(terms)  # a bias that went into it would be taken off, too
            term, left = self._term(node, self.tensor[source], linear, None if taken_off else bias, wanted)
            terms, bias = [*terms, term], bias if taken_off else left
        layout = wanted or terms[0].layout
        order = next((term.order for term in terms if term.layout == layout), channels_last(layout))
        terms = [self.laid(term, layout, order) for term in terms]
        total = terms[0] if len(terms) == 1 else self.added(node.name, terms, less=less)
        return self.shifted(node.name, total, bias)

    def _joined(self, node: Affine, axis: int, parts: Sequence[tuple[str, Select]]) -> Laid:
        layout = node.shape or (node.size,)
        others = node.size // layout[axis]
        terms: list[Laid] = []
        for source, select in parts:
            part = (*layout[:axis], select.rows // others, *layout[axis + 1 :])
            term, _ = self._term(node, self.tensor[source], select, None, part)
            terms.append(self.laid(term, part, terms[0].order if terms else kept_order(term, part)))
        return Laid(self.concatenated(node.name, terms, axis), layout, terms[0].order)

    def _term(
        self, node: Affine, given: Laid, linear: LinearMap, bias: Array | None, layout: Layout
    ) -> tuple[Laid, Array | None]:
        """A map applied to a tensor, and the bias that is left; laid out as told, where it can be had in any layout."""
        term = layers.term(linear, given.layout)
        match term.kind:
            case "same":
                return given, bias
            case "transpose":
                order = tuple([*term.numbers].index(axis) for axis in given.order)
                return Laid(given.at, term.behind, order), bias
        return self.applied(node, given, linear, term, bias, layout)

    def image(self, given: Laid, layout: Layout) -> Laid:
        """With its channels last."""
        return self.laid(given, layout, channels_last(layout))

    def own_layout(self, node: Affine) -> Laid:
        """What a node reads, laid out as it is itself, if it says how."""
        given = self.tensor[node.sources[0]]
        return self.laid(given, node.shape, kept_order(given, node.shape)) if node.shape else given

    def laid(self, given: Laid, layout: Layout, order: Layout | None = None) -> Laid:
        """The same values in another layout and order of axes, by default its own; permuted only if that moves any."""
        order = order or straight(layout)
        if np.array_equal(given.places, laid.places(layout, order)):
            return self.reshaped(given, layout, order)
        if given.layout == layout:
            return self.permuted(given, order)
        return self.laid(self.laid(self.laid(given, given.layout), layout), layout, order)

    @abstractmethod
    def relu(self, node: Relu) -> Laid: ...
    @abstractmethod
    def pool(self, node: Affine, pool: Pool) -> Laid: ...
    @abstractmethod
    def norm(self, node: Affine, own: Own) -> Laid: ...
    @abstractmethod
    def divided(self, node: Affine, divisor: Array) -> Laid: ...
    @abstractmethod
    def constant(self, node: Affine) -> Laid:
        """The value of a node that reads nothing."""

    @abstractmethod
    def shifted(self, name: str, given: Laid, bias: Array | None) -> Laid:
        """With what is left of a bias added to it."""

    @abstractmethod
    def applied(
        self, node: Affine, given: Laid, linear: LinearMap, term: Term, bias: Array | None, layout: Layout
    ) -> tuple[Laid, Array | None]:
        """A map that does more than name axes anew, applied; and the bias that is left."""

    @abstractmethod
    def added(self, name: str, terms: Sequence[Laid], *, less: bool) -> Laid:
        """The sum of tensors of one layout and order; ``less``: of two, the first without the second."""

    @abstractmethod
    def concatenated(self, name: str, terms: Sequence[Laid], axis: int) -> Any:
        """Tensors of one order side by side along an axis of their layouts."""

    @abstractmethod
    def reshaped(self, given: Laid, layout: Layout, order: Layout) -> Laid:
        """The same values in the same order, as another layout in this order of its axes."""

    @abstractmethod
    def permuted(self, given: Laid, order: Layout) -> Laid:
        """With the axes of its layout in another order."""


def ordered(linear: LinearMap, name: str, where: str, given: Laid, layout: Layout) -> tuple[Array, NDArray[np.int64]]:
    """A matrix with rows and columns in the order in which tensors have their values, and which row is where.

    Raises :class:`UnsupportedModelError` for one too large to be written down.
    """
    rows, columns = laid.places(layout, channels_last(layout)), given.places
    weights = matrix(linear, name, where)
    if not np.array_equal(rows, np.arange(len(rows))):
        weights = weights[rows]
    if not np.array_equal(columns, np.arange(len(columns))):
        weights = weights[:, columns]
    return weights, rows


def picked(index: NDArray[np.int64], given: Laid, layout: Layout) -> NDArray[np.int64]:
    """``index`` by the order of both tensors; what is one beyond the last value is a zero."""
    place = np.append(np.argsort(given.places), len(given.places))
    wanted: NDArray[np.int64] = place[index][laid.places(layout, channels_last(layout))]
    return wanted
