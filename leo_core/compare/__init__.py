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
from leo_core.network import Network, Signature
from leo_core.tails import named, through
from leo_core.text import as_text

__all__ = ["Comparison", "compare", "side_by_side"]

Array = NDArray[np.float64]

#: Where pairing units brings the bound below this share of the joint one, splitting the joint network is hopeless; it
#: is tried all the same where no more than this share of the bound was seen.
_PAIRED = 0.01
#: Inputs tried to show how different two models with different tails are.
_SHOWN = 64
#: Numbers of an input that are written out.
_LISTED = 12


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
    signature:
        How the models look outside: all of this is of what enters the functions that their outputs end in.
    interrupted:
        Whether Ctrl-C ended the work early; what is said holds all the same.
    """

    lower: float
    upper: float
    witness: Array
    first: Array = field(default_factory=lambda: np.zeros(0))
    second: Array = field(default_factory=lambda: np.zeros(0))
    signature: Signature = field(default_factory=Signature)
    interrupted: bool = False

    @property
    def tail(self) -> str:
        """The functions that the outputs of both end in, in words."""
        return self.signature.ending

    @property
    def outputs_upper(self) -> float:
        """What the models' outputs, behind their tails, differ by at most."""
        return max(through(output.tail, self.upper) for output in self.signature.outputs)

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

    @property
    def lines(self) -> list[str]:
        """The verdict, and where the two differ most: the output, both its values, and the input."""
        at, lines = self.largest, [self.verdict]
        if at is not None:
            what = self.signature.called(at) if len(self.first) > 1 else "the output"
            values = f"at this input {what} is {self.first[at]:.9g} in A, {self.second[at]:.9g} in B"
            lines += [values + (f" (before the {self.tail})" if self.tail else ""), _listed(self.witness)]
        return [*lines, "stopped early"] if self.interrupted else lines

    def summary(self) -> str:
        """The same, as text."""
        return as_text(*self.lines)

    def __repr__(self) -> str:
        return f"<Comparison: {self.verdict}>"

    def _apart(self) -> str:
        within = f"within {self.upper:.3g}" if np.isfinite(self.upper) else "no bound was found"
        if self.lower == 0:
            return f"{within}; no difference was found"
        apart = f"they differ by at least {self.lower:.3g}"
        if self.upper <= 1.02 * self.lower:
            return f"{within}; {apart}"
        return f"{within}; {apart}; what is between the two is open"


def _listed(point: Array) -> str:
    if len(point) <= _LISTED:
        return f"input: {', '.join(f'{value:.9g}' for value in point)}"
    first = ", ".join(f"{value:.9g}" for value in point[:_LISTED])
    return f"input of {len(point):,} values: {first}, … (all of them with --json)"


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
    _require_one_ending(first, second, box, seed)
    signature = first.signature
    if first == second:
        return Comparison(0.0, 0.0, box.center, signature=signature)
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
    return Comparison(seen.largest, upper, seen.witness, left, right, signature, interrupted)


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


def _require_one_ending(first: Network, second: Network, box: Box, seed: int) -> None:
    first.signature.require_same_outputs(second.signature)
    if first.signature.functions == second.signature.functions:
        return
    endings = [named(net.signature.ending) for net in (first, second)]
    points = np.vstack([box.center, box.sample(np.random.default_rng(seed), _SHOWN)])
    with np.errstate(all="ignore"):
        left, right = (np.hstack(net.signature.finished(net.evaluate(points))) for net in (first, second))
        at = np.unravel_index(np.nan_to_num(np.abs(left - right)).argmax(), left.shape)
    raise NetworkError(
        f"the networks cannot be compared: the first model ends in {endings[0]}, the second in {endings[1]} "
        "(of softmax, log_softmax, sigmoid, tanh), so what comes before does not say how far apart they are: at an "
        f"input of the domain, {first.signature.called(int(at[1]))} is about {left[at]:.3g} in the first, "
        f"{right[at]:.3g} in the second; save both with the same function at the end, or both without any"
    )
