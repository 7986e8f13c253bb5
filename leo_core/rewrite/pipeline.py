"""All passes, from the output back, again and again until none finds anything.

A proposal is kept where it makes the network smaller and its proved deviation, carried to the outputs, is
within what the tolerance still leaves. What one layer spends another cannot: so the whole is tried several
times, with different shares of the tolerance for a single rewrite, and the smallest result is taken. In each
trial whoever can use what is left in the end gets it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import final

import numpy as np

from leo_core.arithmetic import Array
from leo_core.checker.environment import ieee
from leo_core.execution.budget import Budget
from leo_core.execution.events import Listener, Note, silent
from leo_core.network import Network
from leo_core.rewrite.channels import fold_constant_channels, merge_dependent_channels, merge_parallel_channels
from leo_core.rewrite.climb import Tolerance, climb
from leo_core.rewrite.constants import fold_constants
from leo_core.rewrite.facts import Facts
from leo_core.rewrite.fold import fold_linear
from leo_core.rewrite.fold_channels import fold_convolutions
from leo_core.rewrite.hidden import merge_hidden
from leo_core.rewrite.identity import drop_identity
from leo_core.rewrite.inactive import drop_inactive
from leo_core.rewrite.lift import lift
from leo_core.rewrite.merge import merge_dependent
from leo_core.rewrite.opposite import merge_opposite
from leo_core.rewrite.opposite_channels import merge_opposite_channels
from leo_core.rewrite.output_relu import settle_output
from leo_core.rewrite.parallel import merge_parallel
from leo_core.rewrite.refactor import pass_through, refactor_block
from leo_core.rewrite.refactor_channels import refactor_channels
from leo_core.rewrite.size import OBJECTIVES, Size
from leo_core.rewrite.step import Ladder, Pass, Refusal, Step
from leo_core.rewrite.straighten import straighten
from leo_core.rewrite.unread import drop_unread
from leo_core.rewrite.view import View

#: Cheap passes, which run whatever the clock says.
_CHEAP: tuple[Pass, ...] = (drop_inactive, fold_constants, drop_identity, settle_output)
#: Those that know of channels; the others rewrite units one by one.
_CHANNELS: tuple[Pass, ...] = (
    fold_constant_channels,
    merge_parallel_channels,
    merge_dependent_channels,
    merge_opposite_channels,
    refactor_channels,
    fold_convolutions,
)
_ON_IMAGES: tuple[Pass, ...] = (drop_inactive, fold_constants, drop_identity, *_CHANNELS)
#: By name, the passes that multiply matrices: all; LEO's own (Serra et al. 2020); LEO's and the nearest rule known;
#: those that take layers away.
PASSES: Mapping[str, tuple[Pass, ...]] = MappingProxyType(
    {
        "all": (
            merge_parallel,
            lift,
            merge_opposite,
            refactor_block,
            fold_linear,
            merge_hidden,
            straighten,
            *_CHANNELS,
        ),
        "leo": (merge_dependent, fold_linear),
        "min-width": (merge_dependent, pass_through, fold_linear),
        "depth": (lift, fold_linear),
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
    unmoved:
        Proved: no value that is left, in any layer, is another than it was.
    """

    network: Network
    deviation: float
    facts: Facts
    steps: tuple[Step, ...]
    refusals: tuple[Refusal, ...]
    interrupted: bool = False
    unmoved: bool = False


@ieee()
def rewrite(
    view: View,
    *,
    tolerance: float,
    passes: str = "all",
    objective: str = "connections",
    budget: Budget | None = None,
    listener: Listener = silent,
) -> Rewritten:
    """Rewrite a network with what is known of its units.

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
    work = _Work(tolerance, OBJECTIVES[objective], PASSES[passes], budget, listener)
    start = _started(view, work.size)
    ends: list[_State] = []
    interrupted = False
    for share in _SHARES if tolerance > 0 else _SHARES[:1]:
        if ends and ends[-1].largest <= share * tolerance:  # it would go the same way
            continue
        ends.append(start)
        try:
            for part in dict.fromkeys((share, 1.0)):
                for state in _rewritten(ends[-1], work, part * tolerance):
                    ends[-1] = state
        except KeyboardInterrupt:
            interrupted = True
        if interrupted or budget.expired:
            break
    best = min(ends, key=lambda state: work.size(state.view.network))
    found = best.view.network, best.deviation, best.view.facts, best.steps, best.refusals
    return Rewritten(*found, interrupted, best.unmoved)


@final
@dataclass(frozen=True, eq=False)
class _Work:
    """What stays the same while a network is rewritten."""

    tolerance: float
    size: Size
    passes: tuple[Pass, ...]
    budget: Budget
    listener: Listener


@final
@dataclass(frozen=True, eq=False)
class _State:
    """The network so far.

    Attributes
    ----------
    spent:
        Of the tolerance, at each output.
    steps, largest:
        How it came about, and the most that one of these steps added at an output.
    unmoved:
        Whether none of them changed a value of any node.
    looked:
        What came of passes at its nodes, so that no trial looks again.
    """

    view: View
    spent: Array
    steps: tuple[Step, ...] = ()
    largest: float = 0.0
    unmoved: bool = True
    looked: dict[tuple[Pass, str], _Look] = field(default_factory=dict)

    @property
    def deviation(self) -> float:
        return float(self.spent.max(initial=0.0))

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """Why passes left it as it is."""
        told = {(name, look.refusal.what): replace(look.refusal, layer=name)
                for (_, name), look in self.looked.items() if look.refusal is not None}  # fmt: skip
        return tuple(told.values())


@final
@dataclass(frozen=True, eq=False)
class _Look:
    """What came of a pass at a node where no rewrite may add more than ``at_once``: the state then, or why none."""

    state: _State
    at_once: float
    refusal: Refusal | None = None
    added: float = 0.0

    def holds(self, at_once: float) -> bool:
        """Whether the same comes of it with another limit."""
        return self.added <= at_once <= self.at_once


def _started(view: View, size: Size) -> _State:
    """Without what nothing reads."""
    nothing = np.zeros(view.network.output_size)
    dropped = drop_unread(view)
    if not size(dropped.network) < size(view.network):
        return _State(view, nothing)
    removed = view.network.connections - dropped.network.connections
    return _State(dropped, nothing, (Step("", "units that nothing reads dropped", 0.0, removed, drop_unread.__name__),))


def _rewritten(state: _State, work: _Work, at_once: float) -> Iterator[_State]:
    """Sweeps until nothing changes, no single rewrite adding more than ``at_once``; each new state as it is reached."""
    while True:
        changed = False
        for look in (*_CHEAP, *work.passes):
            for reached in _sweep(state, work, look, at_once):
                yield reached
                state, changed = reached, True
        if not changed or work.budget.expired:
            return
        work.listener(Note(f"rewriting: {state.view.network.connections} connections left", passing=True))


def _sweep(state: _State, work: _Work, look: Pass, at_once: float) -> Iterator[_State]:
    """One pass over every node there is now, from the output back."""
    budget = Budget() if look in _CHEAP else work.budget
    for name in [node.name for node in reversed(state.view.network.nodes)]:
        if budget.expired:
            return
        if name not in state.view.network:
            continue
        if look not in _ON_IMAGES and not state.view.plain(name):
            continue
        known = state.looked.get((look, name))
        if known is None or not known.holds(at_once):
            known = state.looked[look, name] = _looked(state, work, look, name, at_once, budget)
        if known.state is not state:
            state = known.state
            yield state


def _looked(state: _State, work: _Work, look: Pass, name: str, at_once: float, budget: Budget) -> _Look:
    found = look(state.view, name)
    if not isinstance(found, Ladder):
        return _Look(state, math.inf, found)
    tolerance = Tolerance(state.spent, work.tolerance, at_once)
    climbed = climb(state.view, found, tolerance, budget)
    if climbed is None:
        return _Look(state, at_once, found.otherwise)
    if not budget.expired:
        climbed = tolerance.narrowed(state.view, climbed)
    made = climbed.rewrite.view
    view = drop_unread(View(made.network, made.facts.moved(climbed.moved)))
    before, after = work.size(state.view.network), work.size(view.network)
    fewer = view.network.connections < state.view.network.connections
    # what takes away nothing that counts, entries that became zero, say, is worth no deviation
    if not after < before or (climbed.added.any() and not (fewer or after[0] < before[0])):
        return _Look(state, at_once)
    spent, added = tolerance.after(climbed.added), float(climbed.added.max(initial=0.0))
    more = max(0.0, float(spent.max(initial=0.0)) - state.deviation)
    removed = state.view.network.connections - view.network.connections
    step = Step(name, climbed.rewrite.what, more, removed, look.__name__)
    unmoved = state.unmoved and not any(far.any() for far in climbed.moved.values())
    state.view.forget()
    reached = _State(view, spent, (*state.steps, step), max(state.largest, added), unmoved)
    return _Look(reached, at_once, added=added)
