"""Ladders are climbed: the boldest proposal whose proved deviation is within the tolerance, found by bisection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar, final

import numpy as np

from leo_core.arithmetic import Array, round_up
from leo_core.bounds.change import Change, carry
from leo_core.execution.budget import Budget
from leo_core.rewrite.step import Ladder, Rewrite
from leo_core.rewrite.view import View

T = TypeVar("T")

#: How many times too large a change may be on the whole box for its parts to be looked at.
_WORTH = 16.0


@final
@dataclass(frozen=True, eq=False)
class Tolerance:
    """What may be spent at the outputs: in all, and by one rewrite.

    Attributes
    ----------
    spent:
        At each output, what earlier rewrites took.
    """

    spent: Array
    most: float
    at_once: float

    def carried(self, view: View, changes: Mapping[str, Change]) -> tuple[Array, dict[str, Array]] | None:
        """(what this adds at each output, how far each node moves), where that is within the tolerance."""
        moved = carry(view.network, view.facts.bounds, changes)
        added = self._added(view, moved)
        return (added, moved) if self._holds(added) else None

    def carried_by_parts(
        self, before: View, view: View, changes: Mapping[str, Change]
    ) -> tuple[Array, dict[str, Array]] | None:
        """The same, where that is so on each part of the box by itself: ReLUs have fewer states there.

        ``before`` is the view that is changed: bounds of units that stay the same ones are taken from it.
        """
        found = self.carried(view, changes)
        if found is not None or not changes:
            return found
        rough = self._added(view, carry(view.network, view.facts.bounds, changes))
        if not (rough <= _WORTH * np.maximum(0.0, np.minimum(self.at_once, self.most - self.spent))).all():
            return None
        moved = self._by_parts(before, view, changes)
        return None if moved is None else (self._added(view, moved), moved)

    def narrowed(self, before: View, climbed: Climbed) -> Climbed:
        """The same proposal, with what it adds on each part of the box where that is less."""
        moved = self._by_parts(before, climbed.rewrite.view, climbed.rewrite.changes) if climbed.added.any() else None
        if moved is None:
            return climbed
        least = {name: np.fmin(far, moved.get(name, np.zeros_like(far))) for name, far in climbed.moved.items()}
        return Climbed(climbed.rewrite, np.fmin(climbed.added, self._added(climbed.rewrite.view, moved)), least)

    def _by_parts(self, before: View, view: View, changes: Mapping[str, Change]) -> dict[str, Array] | None:
        """How far each node moves on any part of the box; None where there are no parts, or on one it is too much."""
        same = [name for name, units in view.facts.units.items() if before.facts.units.get(name) is units]
        most: dict[str, Array] = {}
        for part in before.parts:
            ends = {**view.facts.bounds, **{name: part.intervals[name] for name in same}}
            here = {name: found.on(partial(part.value, before.network)) for name, found in changes.items()}
            moved = carry(view.network, ends, here)
            if not self._holds(self._added(view, moved)):
                return None
            for name, far in moved.items():
                most[name] = np.maximum(most[name], far) if name in most else far
        return most if before.parts else None

    def _added(self, view: View, moved: Mapping[str, Array]) -> Array:
        return moved.get(view.network.output, np.zeros(len(self.spent)))

    def _holds(self, added: Array) -> bool:
        return bool((self.after(added) <= self.most).all() and (added <= self.at_once).all())

    def after(self, added: Array) -> Array:
        """What is spent once that is added."""
        return np.where(added > 0, round_up(self.spent + added), self.spent)


@final
@dataclass(frozen=True, eq=False)
class Climbed:
    """A proposal within the tolerance, what it adds at each output, and how far each node moves."""

    rewrite: Rewrite
    added: Array
    moved: Mapping[str, Array]


def climb(view: View, ladder: Ladder, tolerance: Tolerance, budget: Budget) -> Climbed | None:
    """The lowest rung that is within the tolerance; the best one found so far once the budget has ended."""

    def tried(rung: int) -> Climbed | None:
        if budget.expired:
            return None
        made = ladder.make(rung)
        if isinstance(made, Ladder):
            return climb(view, made, tolerance, budget)
        carried = None if made is None else tolerance.carried_by_parts(view, made.view, made.changes)
        return None if made is None or carried is None else Climbed(made, *carried)

    first, least = 0, ladder.least
    if least is not None:
        first = lowest(ladder.rungs, 0, lambda rung: tolerance.carried(view, least(rung)))[0]
    return lowest(ladder.rungs - first, max(0, ladder.likely - first), lambda rung: tried(first + rung))[1]


def lowest(count: int, likely: int, holds: Callable[[int], T | None]) -> tuple[int, T | None]:
    """The lowest of ``count`` numbers for which ``holds`` gives anything, and what; (count, None) where there is none.

    ``likely`` is asked first; that it holds for all numbers above one for which it does is taken for granted.
    """
    best: T | None = None
    low, high, middle = -1, count, min(likely, count - 1)
    while high - low > 1:
        found = holds(middle)
        if found is None:
            low = middle
        else:
            best, high = found, middle
        middle = (low + high) // 2
    return high, best
