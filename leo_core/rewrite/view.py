"""The rewriting view: a network, what is known of its units, and what follows from both, worked out once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar, final

from leo_core.bounds.interval import bound_affine
from leo_core.bounds.region import Region
from leo_core.network import Affine, Network, Node
from leo_core.rewrite.facts import Facts, Lineage, Units

T = TypeVar("T")


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
