"""All passes, again and again, until none finds anything: front to back, exact ones first.

A proposal is kept where it makes the network smaller and its proved deviation, carried to the outputs,
is within what the tolerance still leaves. Ranks are taken after the layer before was compressed: that
order finds more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from leo_core.arithmetic import Array, round_up
from leo_core.execution.budget import Budget
from leo_core.execution.events import Listener, Note, silent
from leo_core.network import Affine, Network
from leo_core.rewrite.constants import fold_constants
from leo_core.rewrite.deviation import carry
from leo_core.rewrite.facts import Facts
from leo_core.rewrite.fold import fold_linear
from leo_core.rewrite.inactive import drop_inactive
from leo_core.rewrite.merge import merge_dependent
from leo_core.rewrite.output_relu import settle_output
from leo_core.rewrite.step import Pass, Refusal, Rewrite, Step
from leo_core.rewrite.unread import drop_unread
from leo_core.stability.verdict import StabilityMap

#: Cheap passes, which run whatever the clock says, and those that multiply matrices.
_CHEAP: tuple[Pass, ...] = (drop_inactive, fold_constants, settle_output)
_COSTLY: tuple[Pass, ...] = (merge_dependent, fold_linear)


@final
@dataclass(frozen=True, eq=False)
class Rewritten:
    """The smaller network, how far it may be from the one given, and how that came about.

    Attributes
    ----------
    deviation:
        Proved: max |given − rewritten| at any output over the box.
    steps, refusals:
        What was done, in order; what was left, and why.
    """

    network: Network
    deviation: float
    steps: tuple[Step, ...]
    refusals: tuple[Refusal, ...]
    interrupted: bool = False


def rewrite(
    network: Network,
    stability: StabilityMap,
    *,
    tolerance: float,
    budget: Budget | None = None,
    listener: Listener = silent,
) -> Rewritten:
    """Rewrite ``network`` with what ``stability`` says of it.

    Parameters
    ----------
    tolerance:
        The largest deviation allowed at any output; 0 keeps to rewrites without any.
    """
    work = _Work(network, Facts.of(network, stability), tolerance)
    budget = budget or Budget()
    interrupted = False
    try:
        while True:
            before = len(work.steps)
            for step in (*_CHEAP, *(() if budget.expired else _COSTLY)):
                work.sweep(step)
            if len(work.steps) == before:
                break
            listener(Note(f"rewriting: {work.network.connections} connections left", passing=True))
    except KeyboardInterrupt:
        interrupted = True
    return Rewritten(work.network, work.deviation, tuple(work.steps), tuple(work.refusals.values()), interrupted)


class _Work:
    """The network so far. Every change goes through :meth:`_keep`, in one assignment."""

    def __init__(self, network: Network, facts: Facts, tolerance: float) -> None:
        self.network, self._facts = drop_unread(network, facts)
        self._tolerance = tolerance
        self._moved = np.zeros(network.output_size)
        self.steps: list[Step] = []
        if _size(self.network) < _size(network):
            self.steps.append(Step("units that nothing reads dropped", 0.0))
        self.refusals: dict[str, Refusal] = {}

    @property
    def deviation(self) -> float:
        return float(self._moved.max(initial=0.0))

    def sweep(self, apply: Pass) -> None:
        """One pass over every node there is now, front to back."""
        for name in [node.name for node in self.network.nodes]:
            if any(node.name == name for node in self.network.nodes):
                outcome = apply(self.network, self._facts, name, self._fits)
                if isinstance(outcome, Refusal):
                    self.refusals[outcome.what] = outcome
                elif outcome is not None:
                    self._keep(outcome)

    def _fits(self, proposal: Rewrite) -> bool:
        return bool((self._after(proposal)[0] <= self._tolerance).all())

    def _after(self, proposal: Rewrite) -> tuple[Array, dict[str, Array]]:
        moved = carry(proposal.network, proposal.errors)
        added = moved.get(proposal.network.output)
        return (self._moved if added is None else round_up(self._moved + added)), moved

    def _keep(self, proposal: Rewrite) -> None:
        total, moved = self._after(proposal)
        network, facts = drop_unread(proposal.network, proposal.facts.moved(moved))
        if not _size(network) < _size(self.network):
            return
        added = max(0.0, float(np.max(total, initial=0.0)) - self.deviation)
        self.refusals.pop(proposal.what, None)
        self.network, self._facts, self._moved = network, facts, total
        self.steps.append(Step(proposal.what, added))


def _size(network: Network) -> tuple[int, int, int, int]:
    """Smaller is better: connections first, then ReLUs, then what is not zero, then nodes."""
    units = sum(relu.size for relu in network.relus)
    nonzeros = sum(m.nonzeros for node in network.nodes if isinstance(node, Affine) for m in node.maps)
    return network.connections, units, nonzeros, len(network.nodes)
