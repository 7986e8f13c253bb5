"""Where two decisions of a network on a box contradict each other, or two solvers' answers to one question.

One of the two is wrong. Verdicts that are proved cannot be made false by a solver, so answers are compared themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np

from leo_core.milp.panel import Contradiction
from leo_core.stability.verdict import StabilityMap, State
from leo_core.text import as_text


@final
@dataclass(frozen=True)
class Disagreement:
    """One unit of a ReLU node, and the state each side decided."""

    relu: str
    unit: int
    first: State
    second: State


@final
@dataclass(frozen=True, eq=False)
class CrossCheck:
    """Two decisions, with what they contradict each other in, and how many units only one of them decided.

    Of the two solvers: how often each was asked and failed, how many questions both answered, and which answers
    contradict each other.
    """

    first: StabilityMap
    second: StabilityMap
    disagreements: tuple[Disagreement, ...]
    decided_by_one: int
    asked: tuple[int, int] = (0, 0)
    failed: tuple[int, int] = (0, 0)
    compared: int = 0
    contradictions: tuple[Contradiction, ...] = ()

    @property
    def told(self) -> list[str]:
        """Who was asked how often, and what was compared, in words."""
        names = (self.first.solver, self.second.solver)
        if not any(self.asked):
            return ["neither solver was asked anything: no ReLU needed one; nothing was compared"]
        lines = [" and ".join(f"{name} was asked {count} times" for name, count in zip(names, self.asked, strict=True))]
        lines += [f"{name} failed {count} times" for name, count in zip(names, self.failed, strict=True) if count]
        lines.append(f"{self.compared} answers to the same question were compared")
        return lines

    def __repr__(self) -> str:
        against = len(self.disagreements) + len(self.contradictions)
        return f"<CrossCheck: {self.first.solver} and {self.second.solver}, {against} contradictions>"

    def summary(self) -> str:
        """Both decisions, what was compared, and what contradicts each other, as text."""
        from leo_core.stability.told import contradiction_lines, decided_line, stability_table

        parts: list[Any] = []
        for stability in (self.first, self.second):
            parts += [stability_table(stability), decided_line(stability, stability.seconds), ""]
        parts += self.told
        if self.decided_by_one:
            parts.append(f"{self.decided_by_one} units were decided with one of the solvers only")
        return as_text(*parts, *contradiction_lines(self))


def cross_checked(first: StabilityMap, second: StabilityMap) -> CrossCheck:
    """Compare two decisions unit by unit; a unit that one side left undecided contradicts nothing."""
    found, alone = [], 0
    for name, one in first.layers.items():
        other = second.layers[name]
        open_one, open_other = one.state == State.UNDECIDED, other.state == State.UNDECIDED
        alone += int(np.count_nonzero(open_one != open_other))
        for unit in np.flatnonzero((one.state != other.state) & ~open_one & ~open_other).tolist():
            found.append(Disagreement(name, unit, State(one.state[unit]), State(other.state[unit])))
    return CrossCheck(first, second, tuple(found), alone)
