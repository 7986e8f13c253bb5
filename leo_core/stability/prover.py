"""Branch and bound that proves or refutes 'this unit is never positive': the disposer of DESIGN §5.

A node of the tree is a region cut out by ReLU phases. It is closed only by the safe dual bound, with
multipliers from backward linear bounds first and from the LP relaxation next; the LP's word is never
taken. The LP's optimal input, evaluated on the real network, may refute the claim at once. Otherwise
the tree splits on the ReLU with the largest gap between p and max(a, 0) at that point.

Source: safe bounds as in Neumaier and Shcherbina, Math. Program. 99 (2004).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from leo_core.bounds.dual import DualBound, adaptive, bound_above, bound_above_exact, given
from leo_core.bounds.region import Region
from leo_core.execution.budget import Budget
from leo_core.milp.encode import encode
from leo_core.milp.relaxation import Relaxation
from leo_core.milp.solver import Solver
from leo_core.network import Network
from leo_core.stability.evidence import Leaf, Split, Tree
from leo_core.stability.witness import sign_at

Array = NDArray[np.float64]

#: A claim that needs a larger tree stays undecided.
NODE_LIMIT = 200_000
#: Bounds this close to zero, relative to the unit's own range, are tried in exact arithmetic.
NEARLY_ZERO = 1e-6
#: Bits that exact attempts round multipliers to: LP duals are often simple numbers, slightly off.
_SNAP_BITS = (52, 20, 8, 3)


@final
@dataclass(frozen=True, eq=False)
class Outcome:
    """A claim proved (``tree``), refuted (``witness``, an input), or left open (neither)."""

    tree: Tree | None = None
    witness: Array | None = None
    nodes: int = 0


@final
@dataclass(frozen=True, eq=False)
class _Open:
    """A node to be worked on: the phases that cut it out, and the region they leave."""

    phases: dict[tuple[str, int], bool]
    region: Region


class Prover:
    """Proves claims about the units of one affine node over one region; ``close`` frees its LP."""

    def __init__(self, network: Network, target: str, region: Region, solver: Solver, seed: int = 0) -> None:
        self._network, self._target, self._region = network, target, region
        self._solver, self._seed = solver, seed
        self._relaxation: Relaxation | None = None

    def never_positive(self, unit: int, sign: int, budget: Budget) -> Outcome:
        """Decide whether sign·a_unit ≤ 0 on the whole region.

        Parameters
        ----------
        sign:
            +1 for 'never positive' (inactive), −1 for 'never negative' (active).
        """
        lower, upper = self._region.intervals[self._target]
        reach = max(abs(float(lower[unit])), abs(float(upper[unit])))
        objective = np.zeros((1, self._network.size(self._target)))
        objective[0, unit] = sign
        # Post-order over an explicit stack: trees get deeper than Python's own.
        stack: list[_Open | tuple[str, int]] = [_Open({}, self._region)]
        closed: list[Tree] = []
        nodes = 0
        while stack:
            item = stack.pop()
            if isinstance(item, tuple):
                off, on = closed.pop(), closed.pop()
                closed.append(Split(item[0], item[1], on, off))
                continue
            nodes += 1
            if nodes > NODE_LIMIT or budget.expired:
                return Outcome(nodes=nodes)
            result = self._close(item, objective, unit, sign, reach, budget)
            if isinstance(result, Leaf):
                closed.append(result)
            elif isinstance(result, np.ndarray):
                return Outcome(witness=result, nodes=nodes)
            elif result is None:
                return Outcome(nodes=nodes)
            else:
                name, split_unit = result
                stack.append(result)
                for active in (False, True):  # 'on' is popped, and closed, first
                    stack.append(
                        _Open(
                            {**item.phases, result: active},
                            item.region.split(name, split_unit, active=active),
                        )
                    )
        return Outcome(tree=closed.pop(), nodes=nodes)

    def close(self) -> None:
        """Free the LP."""
        if self._relaxation is not None:
            self._relaxation.close()
            self._relaxation = None

    def _close(
        self, item: _Open, objective: Array, unit: int, sign: int, reach: float, budget: Budget
    ) -> Leaf | Array | tuple[str, int] | None:
        """A leaf, a witness, the unit to split on, or None when nothing is left to try."""
        bound = bound_above(self._network, self._target, objective, item.region, adaptive)
        if bound.upper[0] <= 0:
            return Leaf({name: y[0] for name, y in bound.multipliers.items()})
        leaf = self._exactly({name: y[0] for name, y in bound.multipliers.items()}, bound, item, objective, reach)
        if leaf is not None:
            return leaf
        relaxed = self._lp().maximize(unit, sign, item.phases, min(budget.remaining, 1e6))
        if relaxed.multipliers is not None:
            leaf = self._by_duals(relaxed.multipliers, relaxed.infeasible, item, objective, reach)
            if leaf is not None:
                return leaf
        if relaxed.inputs is not None:
            point = np.clip(relaxed.inputs, self._region.lower, self._region.upper)
            if sign * sign_at(self._network, self._target, unit, point) > 0:
                return point
        return self._branch(item, relaxed.gaps)

    def _by_duals(
        self, multipliers: dict[str, Array], infeasible: bool, item: _Open, objective: Array, reach: float
    ) -> Leaf | None:
        if infeasible:
            empty = bound_above(self._network, self._target, 0.0 * objective, item.region, given(multipliers))
            return Leaf(multipliers, infeasible=True) if empty.upper[0] < 0 else None
        bound = bound_above(self._network, self._target, objective, item.region, given(multipliers))
        if bound.upper[0] <= 0:
            return Leaf(multipliers)
        return self._exactly(multipliers, bound, item, objective, reach)

    def _exactly(
        self, multipliers: dict[str, Array], bound: DualBound, item: _Open, objective: Array, reach: float
    ) -> Leaf | None:
        """Where rounding may be all that is missing: simple multipliers, in rational arithmetic."""
        if not bound.upper[0] - 2 * bound.rounding[0] <= NEARLY_ZERO * reach:
            return None
        for bits in _SNAP_BITS:
            snapped = {name: _snap(y, bits) for name, y in multipliers.items()}
            if bound_above_exact(self._network, self._target, objective[0], item.region, snapped) <= 0:
                return Leaf(snapped, exact=True)
        return None

    def _branch(self, item: _Open, gaps: dict[str, Array]) -> tuple[str, int] | None:
        best, choice = -1.0, None
        for name, group in self._lp().encoding.open_units.items():
            low, high = item.region.intervals[name]
            gap = gaps.get(name)
            for position, unit in enumerate(group.units.tolist()):
                if (name, unit) in item.phases:
                    continue
                # Without a point, or where it has no gap, the wider triangle goes first.
                width = 1e-12 * min(-low[unit], high[unit])
                score = width if gap is None else float(gap[position]) + width
                if score > best:
                    best, choice = score, (name, unit)
        return choice

    def _lp(self) -> Relaxation:
        if self._relaxation is None:
            self._relaxation = Relaxation(encode(self._network, self._target, self._region), self._solver, self._seed)
        return self._relaxation


def _snap(values: Array, bits: int) -> Array:
    mantissa, exponent = np.frexp(values)
    return np.asarray(np.ldexp(np.round(np.ldexp(mantissa, bits)), exponent - bits))
