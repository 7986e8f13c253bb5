"""Ladders are climbed: the boldest proposal whose proved deviation is within the tolerance, found by bisection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar, final

import numpy as np

from leo_core.arithmetic import Array, round_up
from leo_core.bounds.change import Change, carry
from leo_core.execution.budget import Budget
from leo_core.rewrite.step import Ladder, Rewrite
from leo_core.rewrite.view import View

T = TypeVar("T")


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
        added = moved.get(view.network.output, np.zeros(len(self.spent)))
        within = (self.after(added) <= self.most).all() and (added <= self.at_once).all()
        return (added, moved) if within else None

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
        carried = None if made is None else tolerance.carried(made.view, made.changes)
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
