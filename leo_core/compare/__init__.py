"""How far two networks can be apart on a box: a proved upper bound, and an input that shows a lower one.

Layers that only stand in the way are taken away first (:mod:`.depth`).
The lower side is what exact evaluation gives at the best point found. The upper side is the least of three: the trace
of what differs between units that both have (:mod:`.pairing`), bounds that run backward through both networks side by
side, what is proved to be the same taken once (:mod:`.joint`), and branch and bound on their difference
(:mod:`.narrow`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import final

import numpy as np
from numpy.typing import NDArray

from leo_core.checker.environment import ieee
from leo_core.compare.depth import levelled
from leo_core.compare.joint import side_by_side
from leo_core.compare.pair import Pair
from leo_core.compare.seen import Seen, values_at
from leo_core.compare.work import Evidence, bounded, decided, identical, share_of
from leo_core.domain import Box
from leo_core.errors import NetworkError
from leo_core.execution.budget import Budget
from leo_core.network import Network, Signature
from leo_core.tails import named, through
from leo_core.text import as_text
from leo_core.within import Within

__all__ = ["Comparison", "Pair", "compare", "side_by_side"]

Array = NDArray[np.float64]

#: Inputs tried to show how different two models with different tails are.
_SHOWN = 64
#: The share of the time for taking layers away.
_LEVELLING = 0.1
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
    asked:
        The question, where one was: then the work stops once it is decided, and the ends are as far as it had come.
    within:
        Its answer; None where it is open, and where nothing was asked.
    exceeded:
        An output that the witness shows, over the rationals, to differ by more than its limit; None where none does.
    evidence:
        What a certificate of the answer rests on; None where there is nothing to show.
    certified:
        Whether a certificate was written.
    """

    lower: float
    upper: float
    witness: Array
    first: Array = field(default_factory=lambda: np.zeros(0))
    second: Array = field(default_factory=lambda: np.zeros(0))
    signature: Signature = field(default_factory=Signature)
    interrupted: bool = False
    asked: Within | None = None
    within: bool | None = None
    exceeded: int | None = None
    evidence: Evidence | None = None
    certified: bool = False

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
        """The output that differs most at the witness, or by more than its limit; None where no difference was seen."""
        if self.exceeded is not None:
            return self.exceeded
        apart = np.abs(self.first - self.second)
        return int(apart.argmax()) if self.lower > 0 and len(apart) else None

    @property
    def verdict(self) -> str:
        """In words, for people."""
        if self.asked is None:
            return self._how_far()
        before = f"before the {self.tail} that both end in: " if self.tail else ""
        if self.within is None:
            return f"open, neither proved nor refuted: {before}within {self.asked}; so far {self._apart()}"
        if self.within:
            return f"proved: {before}within {self.asked}"
        return f"refuted: {before}not within {self.asked}; they differ by at least {self.lower:.6g}"

    def _how_far(self) -> str:
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
def compare(pair: Pair, within: Within | None = None, budget: Budget | None = None) -> Comparison:
    """Bound max |first − second| on a box; where it is asked whether they are ``within`` limits, until that is decided.

    When the budget ends, or on Ctrl-C, what is proved by then stands.

    Raises :class:`NetworkError` when inputs or outputs do not match, or what the models end in (softmax, say).
    """
    budget = budget or Budget()
    first, second, box = pair.first, pair.second, pair.box
    for what in ("input_size", "output_size"):
        sizes = getattr(first, what), getattr(second, what)
        if sizes[0] != sizes[1]:
            raise NetworkError(f"the networks cannot be compared: {what.replace('_', ' ')} {sizes[0]} and {sizes[1]}")
    _require_one_ending(first, second, box, pair.seed)
    if first == second and (within is None or (within.provable >= 0).all()):
        holds = None if within is None else True
        evidence = identical(first)
        return Comparison(
            0.0, 0.0, box.center, signature=first.signature, asked=within, within=holds, evidence=evidence
        )
    seen = Seen(first, second, box, pair.listener, within)
    upper, evidence, interrupted = np.inf, Evidence(), False
    try:
        with np.errstate(all="ignore"):  # an overflow makes a bound infinite
            level = levelled(pair, within, share_of(budget, _LEVELLING))
            if within is None:
                for bound in bounded(level.pair, budget, seen):
                    upper = min(upper, level.farther(bound))
            else:
                for found in decided(level.pair, level.within(within), budget, seen):
                    evidence = replace(found, rewritten=level.rewritten)
                    upper = level.farther(evidence.upper)
    except KeyboardInterrupt:
        interrupted = True
    holds = False if seen.exceeded is not None else True if evidence.complete else None
    left, right = (values_at(network, seen.witness) for network in (first, second))
    return Comparison(
        seen.largest, upper, seen.witness, left, right, first.signature, interrupted, within, holds, seen.exceeded,
        evidence,
    )  # fmt: skip


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
