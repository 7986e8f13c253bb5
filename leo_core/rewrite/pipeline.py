"""All passes, from the output back, again and again until none finds anything.

A proposal is kept where it makes the network smaller and its proved deviation, carried to the outputs, is
within what the tolerance still leaves. What one layer spends another cannot: so the whole is tried several
times, with different shares of the tolerance for a single rewrite, and the smallest result is taken. In each
trial whoever can use what is left in the end gets it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import final

import numpy as np

from leo_core.arithmetic import Array, round_up
from leo_core.checker.environment import ieee
from leo_core.execution.budget import Budget
from leo_core.execution.events import Listener, Note, silent
from leo_core.network import Network
from leo_core.rewrite.constants import fold_constants
from leo_core.rewrite.deviation import carry
from leo_core.rewrite.facts import Facts
from leo_core.rewrite.fold import fold_linear
from leo_core.rewrite.inactive import drop_inactive
from leo_core.rewrite.merge import merge_dependent
from leo_core.rewrite.opposite import merge_opposite
from leo_core.rewrite.output_relu import settle_output
from leo_core.rewrite.parallel import merge_parallel
from leo_core.rewrite.refactor import pass_through, refactor_block
from leo_core.rewrite.size import OBJECTIVES, Size
from leo_core.rewrite.step import Pass, Refusal, Rewrite, Step
from leo_core.rewrite.straighten import straighten
from leo_core.rewrite.unread import drop_unread
from leo_core.stability.verdict import StabilityMap

#: Cheap passes, which run whatever the clock says.
_CHEAP: tuple[Pass, ...] = (drop_inactive, fold_constants, settle_output)
#: By name, the passes that multiply matrices: all; LEO's own (Serra et al. 2020); LEO's and the nearest rule known.
PASSES: Mapping[str, tuple[Pass, ...]] = MappingProxyType(
    {
        "all": (merge_parallel, merge_opposite, refactor_block, fold_linear, straighten),
        "leo": (merge_dependent, fold_linear),
        "min-width": (merge_dependent, pass_through, fold_linear),
    }
)
#: The largest part of the tolerance that one rewrite may take, a trial for each.
_SHARES = (1.0, 0.25, 0.0625)


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
    facts:
        What is known of the rewritten network's units.
    """

    network: Network
    deviation: float
    facts: Facts
    steps: tuple[Step, ...]
    refusals: tuple[Refusal, ...]
    interrupted: bool = False


@ieee()
def rewrite(
    network: Network,
    stability: StabilityMap,
    *,
    tolerance: float,
    passes: str = "all",
    objective: str = "connections",
    budget: Budget | None = None,
    listener: Listener = silent,
) -> Rewritten:
    """Rewrite ``network`` with what ``stability`` says of it.

    Parameters
    ----------
    tolerance:
        The largest deviation allowed at any output; 0 keeps to rewrites without any.
    passes:
        A name in :data:`PASSES`.
    objective:
        What 'smaller' means first of all: a name in :data:`OBJECTIVES`.
    """
    budget = budget or Budget()
    size = OBJECTIVES[objective]
    facts = Facts.of(network, stability)
    best: _Trial | None = None
    interrupted = False
    for share in _SHARES if tolerance > 0 else _SHARES[:1]:
        trial = _Trial(network, facts, tolerance, size)
        try:
            for part in dict.fromkeys((share, 1.0)):
                trial.run(PASSES[passes], part * tolerance, budget, listener)
        except KeyboardInterrupt:
            interrupted = True
        if best is None or size(trial.network) < size(best.network):
            best = trial
        if interrupted or budget.expired or trial.deviation <= _SHARES[-1] * tolerance:
            break
    assert best is not None
    done = tuple(best.steps), tuple(best.refusals.values())
    return Rewritten(best.network, best.deviation, best.facts, *done, interrupted)


class _Trial:
    """The network so far. Every change goes through :meth:`_keep`, in one assignment."""

    def __init__(self, network: Network, facts: Facts, tolerance: float, size: Size) -> None:
        self.network, self.facts = network, facts
        dropped = drop_unread(network, facts)
        self._tolerance, self._size = tolerance, size
        self._allowance = tolerance
        self._moved = np.zeros(network.output_size)
        self.steps: list[Step] = []
        if size(dropped[0]) < size(network):
            self.network, self.facts = dropped
            self.steps.append(Step("", "units that nothing reads dropped", 0.0, _removed(network, self.network)))
        self.refusals: dict[tuple[str, str], Refusal] = {}

    @property
    def deviation(self) -> float:
        return float(self._moved.max(initial=0.0))

    def run(self, passes: tuple[Pass, ...], allowance: float, budget: Budget, listener: Listener) -> None:
        """Sweep until nothing changes; no single rewrite adds more than ``allowance``."""
        self._allowance = allowance
        while True:
            self.refusals.clear()
            before = len(self.steps)
            for apply in _CHEAP:
                self._sweep(apply, Budget())
            for apply in passes:
                self._sweep(apply, budget)
            if budget.expired:
                break
            if len(self.steps) == before:
                break
            listener(Note(f"rewriting: {self.network.connections} connections left", passing=True))

    def _sweep(self, apply: Pass, budget: Budget) -> None:
        """One pass over every node there is now, from the output back."""
        for name in [node.name for node in reversed(self.network.nodes)]:
            if budget.expired:
                return
            if any(node.name == name for node in self.network.nodes):
                outcome = apply(self.network, self.facts, name, lambda made: not budget.expired and self._fits(made))
                if isinstance(outcome, Refusal):
                    self.refusals[name, outcome.what] = replace(outcome, layer=name)
                elif outcome is not None:
                    self._keep(name, outcome)

    def _fits(self, proposal: Rewrite) -> bool:
        total, moved = self._after(proposal)
        added = moved.get(proposal.network.output, np.zeros(1))
        return bool((total <= self._tolerance).all() and (added <= self._allowance).all())

    def _after(self, proposal: Rewrite) -> tuple[Array, dict[str, Array]]:
        moved = carry(proposal.network, proposal.facts, proposal.changes)
        added = moved.get(proposal.network.output)
        return (self._moved if added is None else round_up(self._moved + added)), moved

    def _keep(self, name: str, proposal: Rewrite) -> None:
        total, moved = self._after(proposal)
        network, facts = drop_unread(proposal.network, proposal.facts.moved(moved))
        before, after = self._size(self.network), self._size(network)
        if not after < before:
            return
        if after[:2] == before[:2] and (total > self._moved).any():  # entries that became zero are worth no deviation
            return
        added = max(0.0, float(np.max(total, initial=0.0)) - self.deviation)
        step = Step(name, proposal.what, added, _removed(self.network, network))
        self.network, self.facts, self._moved = network, facts, total
        self.steps.append(step)


def _removed(before: Network, after: Network) -> int:
    return before.connections - after.connections
