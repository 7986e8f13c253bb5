"""How far two networks can be apart on a box: a proved upper bound, and an input that shows a lower one.

The lower side is what exact evaluation gives at the best point found. The upper side is the least of three: the trace
of what differs between units that both have (:mod:`.pairing`), bounds that run backward through both networks side by
side, what is proved to be the same taken once (:mod:`.joint`), and branch and bound on their difference
(:mod:`.narrow`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import final

import numpy as np
from numpy.typing import NDArray

from leo_core.checker.environment import ieee
from leo_core.compare.joint import DIFFERENCE, Seen, joint_region, side_by_side
from leo_core.compare.narrow import narrowed
from leo_core.compare.pairing import DUST, paired
from leo_core.domain import Box
from leo_core.errors import NetworkError
from leo_core.execution.budget import Budget
from leo_core.execution.events import Listener, Note, silent
from leo_core.milp.checked import CheckedSolver
from leo_core.network import Network
from leo_core.tails import TAILS, named, through

__all__ = ["Comparison", "compare", "side_by_side"]

Array = NDArray[np.float64]

#: Where pairing units brings the bound below this share of the joint one, splitting the joint network is hopeless; it
#: is tried all the same where no more than this share of the bound was seen.
_PAIRED = 0.01
#: Inputs tried to show how different two models with different tails are.
_SHOWN = 64


@final
@dataclass(frozen=True, eq=False)
class Comparison:
    """max |A − B| over the box and all outputs lies in [lower, upper], both proved.

    Attributes
    ----------
    witness:
        The input at which ``lower`` was evaluated exactly.
    first, second:
        What the networks give there: shape (outputs,), empty where no input was looked at.
    tail:
        The function that both models end in; all of this is of what enters it.
    interrupted:
        Whether Ctrl-C ended the work early; what is said holds all the same.
    """

    lower: float
    upper: float
    witness: Array
    first: Array = field(default_factory=lambda: np.zeros(0))
    second: Array = field(default_factory=lambda: np.zeros(0))
    tail: str = ""
    interrupted: bool = False

    @property
    def outputs_upper(self) -> float:
        """What the models' outputs, behind the tail, differ by at most."""
        return through(self.tail, self.upper)

    @property
    def largest(self) -> int | None:
        """The output that differs most at the witness; None where no difference was seen."""
        apart = np.abs(self.first - self.second)
        return int(apart.argmax()) if self.lower > 0 and len(apart) else None

    @property
    def verdict(self) -> str:
        """In words, for people."""
        if self.upper == 0:
            return "equal over the reals"
        if not self.tail:
            return self._apart()
        outputs = f"the outputs themselves: within {self.outputs_upper:.3g}" if self.outputs_upper < np.inf else ""
        return "; ".join(filter(None, (f"before the {self.tail} that both end in: {self._apart()}", outputs)))

    def _apart(self) -> str:
        within = f"within {self.upper:.3g}" if np.isfinite(self.upper) else "no bound was found"
        if self.lower == 0:
            return f"{within}; no difference was found"
        apart = f"they differ by at least {self.lower:.3g}"
        if self.upper <= 1.02 * self.lower:
            return f"{within}; {apart}"
        return f"{within}; {apart}; what is between the two is open"


@ieee()
def compare(
    first: Network,
    second: Network,
    box: Box,
    solver: CheckedSolver,
    *,
    budget: Budget | None = None,
    seed: int = 0,
    listener: Listener = silent,
) -> Comparison:
    """Bound max |first − second| on a box.

    ``solver`` solves the LPs of proofs. When the budget ends, or on Ctrl-C, what is proved by then stands.

    Raises :class:`NetworkError` when inputs or outputs do not match, or what the models end in (softmax, say).
    """
    budget = budget or Budget()
    for what in ("input_size", "output_size"):
        sizes = getattr(first, what), getattr(second, what)
        if sizes[0] != sizes[1]:
            raise NetworkError(f"the networks cannot be compared: {what.replace('_', ' ')} {sizes[0]} and {sizes[1]}")
    _require_one_tail(first, second, box, seed)
    tail = first.signature.tail
    if first == second:
        return Comparison(0.0, 0.0, box.center, tail=tail)
    seen = Seen(first, second, box, listener)
    upper, interrupted = np.inf, False
    try:
        for bound in _bounds(first, second, box, solver, budget, seed, seen, listener):
            upper = min(upper, bound)
    except KeyboardInterrupt:
        interrupted = True
    values = (net.evaluate_exact(seen.witness)[net.output].fractions() for net in (first, second))
    with np.errstate(all="ignore"):
        left, right = (np.array([_nearest(value) for value in side]) for side in values)
    return Comparison(seen.largest, upper, seen.witness, left, right, tail, interrupted)


def _bounds(
    first: Network,
    second: Network,
    box: Box,
    solver: CheckedSolver,
    budget: Budget,
    seed: int,
    seen: Seen,
    listener: Listener,
) -> Iterator[float]:
    """Upper bounds on max |first − second|, as they are found; ``seen`` learns of every point looked at."""
    with np.errstate(all="ignore"):  # an overflow makes a bound infinite
        seen.look_around(seed, budget)
        listener(Note("pairing units that both networks have", passing=True))
        pair = paired(first, second, box, solver, budget, seed, seen=seen.largest)
        yield (upper := pair.bound)
        if upper > seen.largest:
            listener(Note("bounding both networks side by side", passing=True))
            joint = side_by_side(pair.old, pair.new, pair.shared)
            region = joint_region(joint, box, budget)
            low, high = region.intervals[DIFFERENCE]
            beside = float(np.maximum(np.abs(low), np.abs(high)).max(initial=0.0))
            yield (upper := min(upper, beside))
            reach = float(region.reach(joint, joint.affine(DIFFERENCE).sources[0]).max(initial=0.0))
            unseen = seen.largest < _PAIRED * upper and upper > DUST * max(1.0, reach)
            if unseen or upper >= _PAIRED * beside:
                yield from narrowed(joint, region, solver, budget, seen, upper, seed)


def _nearest(value: Fraction) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _require_one_tail(first: Network, second: Network, box: Box, seed: int) -> None:
    tails = first.signature.tail, second.signature.tail
    if tails[0] == tails[1]:
        return
    points = np.vstack([box.center, box.sample(np.random.default_rng(seed), _SHOWN)])
    with np.errstate(all="ignore"):
        left, right = (TAILS[net.signature.tail].apply(net.evaluate(points)) for net in (first, second))
        at = np.unravel_index(np.nan_to_num(np.abs(left - right)).argmax(), left.shape)
    raise NetworkError(
        f"the networks cannot be compared: the first model ends in {named(tails[0])}, the second in {named(tails[1])} "
        "(of softmax, log_softmax, sigmoid, tanh), so what comes before does not say how far apart they are: at an "
        f"input of the domain, output {at[1]} is about {left[at]:.3g} in the first, {right[at]:.3g} in the second; "
        "save both with the same function at the end, or both without any"
    )
