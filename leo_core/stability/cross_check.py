"""Where two decisions of the same network on the same box contradict each other: one of them is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from leo_core.stability.verdict import StabilityMap, State


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
    """Two decisions, with what they contradict each other in, and how many units only one of them decided."""

    first: StabilityMap
    second: StabilityMap
    disagreements: tuple[Disagreement, ...]
    decided_by_one: int


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
