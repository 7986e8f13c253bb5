"""Evidence of a stable verdict: a tree of splits on ReLU phases whose leaves hold multipliers.

It can be re-checked without the engine: put each leaf's multipliers into the safe dual bound
(:mod:`leo_core.bounds.dual`) of the region its splits cut out, and see that no bound is positive.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias, final

import numpy as np
from numpy.typing import NDArray


@final
@dataclass(frozen=True, eq=False)
class Leaf:
    """Multipliers y per affine node (NaN: the natural one); ``exact`` if only exact arithmetic closes it.

    ``infeasible`` says that they show the region empty, by a negative bound on the zero objective.
    """

    multipliers: Mapping[str, NDArray[np.float64]]
    infeasible: bool = False
    exact: bool = False


@final
@dataclass(frozen=True, eq=False)
class Split:
    """The unit ``unit`` of affine node ``node`` is taken on (a ≥ 0) and off (a ≤ 0)."""

    node: str
    unit: int
    on: Tree
    off: Tree


Tree: TypeAlias = "Leaf | Split"


def leaves(tree: Tree) -> int:
    """How many leaves a tree has."""
    count, stack = 0, [tree]
    while stack:
        at = stack.pop()
        if isinstance(at, Leaf):
            count += 1
        else:
            stack += [at.on, at.off]
    return count
