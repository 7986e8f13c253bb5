"""The rewriting view: a network, what is known of its units, and what follows from both, worked out once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar, final

import numpy as np
from numpy.typing import NDArray

from leo_core.bounds.descend import descend
from leo_core.bounds.interval import bound_affine
from leo_core.bounds.region import Region
from leo_core.network import Affine, Network, Node
from leo_core.rewrite.facts import Facts, Lineage, Units
from leo_core.stability.verdict import StabilityMap

T = TypeVar("T")

#: A box of at most so many inputs that move is cut into so many parts, for networks of so many products.
_FEW_INPUTS, _PARTS, _FEW_PRODUCTS = 6, 64, 100_000


def _bounded(region: Region) -> bool:
    """Whether all its intervals are finite."""
    return all(bool(np.isfinite(side).all()) for ends in region.intervals.values() for side in ends)


def _halved(stack: Region, lean: NDArray[np.float64]) -> Region:
    """Each region of a stack in two, at the middle of the input that most of what its bounds vary by leans on."""
    wide = (stack.upper - stack.lower) * (lean > 0)
    at = np.where(lean.any(axis=1), (lean + 1e-12 * wide).argmax(axis=1), (stack.upper - stack.lower).argmax(axis=1))
    each = np.arange(len(at))
    middle = 0.5 * stack.lower[each, at] + 0.5 * stack.upper[each, at]
    below, above = stack.upper.copy(), stack.lower.copy()
    below[each, at] = above[each, at] = middle
    return Region.joined([replace(stack, upper=below), replace(stack, lower=above)])


@final
@dataclass(frozen=True, eq=False)
class View:
    """A network while it is rewritten. Passes get one and propose others.

    Attributes
    ----------
    facts:
        What is known of the network's units.
    """

    network: Network
    facts: Facts

    @staticmethod
    def of(network: Network, stability: StabilityMap) -> View:
        """A network with what verdicts say of it."""
        return View(network, Facts.of(network, stability))

    @cached_property
    def region(self) -> Region:
        """Proved intervals for every affine node."""
        region = Region.of(self.facts.box)
        for node in self.network.nodes:
            if isinstance(node, Affine):
                region = region.tightened(node.name, *bound_affine(self.network, node, region))
                if node.name in self.facts.units:
                    units = self.facts.units[node.name]
                    region = region.tightened(node.name, units.lower, units.upper)
        return region

    @cached_property
    def parts(self) -> tuple[Region, ...]:
        """Intervals on parts of the box, where inputs are few and the network is small; none elsewhere."""
        network, box = self.network, self.facts.box
        output = network[network.output]
        moving = np.flatnonzero(box.lower < box.upper)
        plain = not any(node.shape or node.own is not None for node in network.nodes if isinstance(node, Affine))
        products = sum(m.products for node in network.nodes if isinstance(node, Affine) for m in node.maps)
        if not plain or not 0 < len(moving) <= _FEW_INPUTS or products > _FEW_PRODUCTS or not _bounded(self.region):
            return ()
        target = output.name if isinstance(output, Affine) else output.source
        stack = self.region.take(np.zeros(1, np.int64))
        while len(stack.lower) < _PARTS:
            _, lean = descend(network, target, stack)
            stack = _halved(stack, lean)
        stack, _ = descend(network, target, stack)
        return tuple(stack.one(row) for row in range(len(stack.lower)))

    def once(self, question: Hashable, answer: Callable[[], T]) -> T:
        """What passes ask of this view, worked out the first time."""
        if question not in self._answers:
            self._answers[question] = answer()
        found: T = self._answers[question]
        return found

    def forget(self) -> None:
        """Free what was worked out."""
        self._answers.clear()

    @cached_property
    def _answers(self) -> dict[Hashable, Any]:
        return {}

    def plain(self, name: str) -> bool:
        """Whether units can be rewritten one by one around a node: neither it nor a reader has channels or own numbers.

        Of a ReLU, what it reads counts, too.
        """
        node = self.network[name]
        around = [node.name if isinstance(node, Affine) else node.source, *self.network.readers[name]]
        near = [found for found in map(self.network.__getitem__, around) if isinstance(found, Affine)]
        return not any(found.shape or found.own is not None for found in near)

    def with_nodes(self, *nodes: Node, units: Mapping[str, Units] | None = None) -> View:
        """The same, but for some nodes, by their names, and for the units of some."""
        facts = replace(self.facts, units={**self.facts.units, **units}) if units else self.facts
        return View(self.network.with_nodes(*nodes), facts)

    def with_lineage(self, lineage: Lineage) -> View:
        """The same, told what its units were taken for."""
        return View(self.network, replace(self.facts, lineage=lineage))
