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

from leo_core.environment import ieee
from leo_core.execution.budget import Budget
from leo_core.execution.events import Listener, Note, silent
from leo_core.network import Network
from leo_core.rewrite.climb import Climbed, Tolerance, climb
from leo_core.rewrite.constants import fold_constants
from leo_core.rewrite.facts import Facts
from leo_core.rewrite.fold import fold_linear
from leo_core.rewrite.inactive import drop_inactive
from leo_core.rewrite.merge import merge_dependent
from leo_core.rewrite.opposite import merge_opposite
from leo_core.rewrite.output_relu import settle_output
from leo_core.rewrite.parallel import merge_parallel
from leo_core.rewrite.refactor import pass_through, refactor_block
from leo_core.rewrite.size import OBJECTIVES, Size
from leo_core.rewrite.step import Ladder, Pass, Refusal, Step
from leo_core.rewrite.straighten import straighten
from leo_core.rewrite.unread import drop_unread
from leo_core.rewrite.view import View
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
    view = View(network, Facts.of(network, stability))
    best: _Trial | None = None
    interrupted = False
    for share in _SHARES if tolerance > 0 else _SHARES[:1]:
        trial = _Trial(view, tolerance, size)
        try:
            for part in dict.fromkeys((share, 1.0)):
                trial.run(PASSES[passes], part * tolerance, budget, listener)
        except KeyboardInterrupt:
            interrupted = True
        if best is None or size(trial.view.network) < size(best.view.network):
            best = trial
        if interrupted or budget.expired or trial.deviation <= _SHARES[-1] * tolerance:
            break
    assert best is not None
    done = tuple(best.steps), tuple(best.refusals.values())
    return Rewritten(best.view.network, best.deviation, best.view.facts, *done, interrupted)


class _Trial:
    """The network so far. Every change goes through :meth:`_keep`, in one assignment."""

    def __init__(self, view: View, tolerance: float, size: Size) -> None:
        self.view = view
        self.steps: list[Step] = []
        self.refusals: dict[tuple[str, str], Refusal] = {}
        self._size = size
        self._tolerance = Tolerance(np.zeros(view.network.output_size), tolerance, tolerance)
        dropped = drop_unread(view)
        if size(dropped.network) < size(view.network):
            self.view = dropped
            removed = view.network.connections - dropped.network.connections
            self.steps.append(Step("", "units that nothing reads dropped", 0.0, removed))

    @property
    def deviation(self) -> float:
        return float(self._tolerance.spent.max(initial=0.0))

    def run(self, passes: tuple[Pass, ...], at_once: float, budget: Budget, listener: Listener) -> None:
        """Sweep until nothing changes; no single rewrite adds more than ``at_once``."""
        self._tolerance = replace(self._tolerance, at_once=at_once)
        while True:
            self.refusals.clear()
            before = len(self.steps)
            for look in _CHEAP:
                self._sweep(look, Budget())
            for look in passes:
                self._sweep(look, budget)
            if budget.expired:
                break
            if len(self.steps) == before:
                break
            listener(Note(f"rewriting: {self.view.network.connections} connections left", passing=True))

    def _sweep(self, look: Pass, budget: Budget) -> None:
        """One pass over every node there is now, from the output back."""
        for name in [node.name for node in reversed(self.view.network.nodes)]:
            if budget.expired:
                return
            if not any(node.name == name for node in self.view.network.nodes):
                continue
            found = look(self.view, name)
            refusal = found if isinstance(found, Refusal) else None
            if isinstance(found, Ladder):
                climbed = climb(self.view, found, self._tolerance, budget)
                refusal = found.otherwise if climbed is None else None
                if climbed is not None:
                    self._keep(name, climbed)
            if refusal is not None:
                self.refusals[name, refusal.what] = replace(refusal, layer=name)

    def _keep(self, name: str, climbed: Climbed) -> None:
        made = climbed.rewrite.view
        view = drop_unread(View(made.network, made.facts.moved(climbed.moved)))
        before, after = self._size(self.view.network), self._size(view.network)
        if not after < before:
            return
        spent, deviation = self._tolerance.spent, self.deviation
        if after[:2] == before[:2] and (climbed.spent > spent).any():  # entries that became zero are worth no deviation
            return
        removed = self.view.network.connections - view.network.connections
        self.view, self._tolerance = view, replace(self._tolerance, spent=climbed.spent)
        self.steps.append(Step(name, climbed.rewrite.what, max(0.0, self.deviation - deviation), removed))
