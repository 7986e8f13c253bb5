"""The question 'is |f − g| ≤ ε?': a limit for each output, exact, as it was asked."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from leo_core.arithmetic import float_down
from leo_core.errors import UsageError

Array = NDArray[np.float64]


@final
@dataclass(frozen=True)
class Within:
    """|f − g| ≤ ``limits[k]`` at every output k, or < where ``strict[k]``; an output whose limit is None is not asked.

    Limits are rationals: the decimal 0.05 of a file is no float. ``slack`` is how far the networks compared may be,
    together, from those that are meant (what reading them rounded): it counts against either answer.
    """

    limits: tuple[Fraction | None, ...]
    strict: tuple[bool, ...]
    slack: float = 0.0

    @staticmethod
    def of(given: Any, outputs: int) -> Within:
        """From a :class:`Within`, one number for all outputs, or one for each (infinite: that one is not asked).

        Raises :class:`UsageError`.
        """
        if isinstance(given, Within):
            if len(given.limits) != outputs:
                raise UsageError(f"{len(given.limits)} limits for networks of {outputs} outputs; give one for each")
            return given
        several = isinstance(given, Iterable) and not isinstance(given, str)
        numbers = list(given) if several else [given] * outputs
        if len(numbers) != outputs:
            raise UsageError(f"within: {len(numbers)} numbers for networks of {outputs} outputs; give one, or one each")
        limits = tuple(_limit(number) for number in numbers)
        if all(limit is None for limit in limits):
            raise UsageError("within: no output has a finite limit, so there is nothing to ask")
        return Within(limits, (False,) * outputs)

    @property
    def provable(self) -> Array:
        """Per output the largest float so that |f − g| ≤ it proves what is asked; infinite where nothing is.

        It is negative where nothing can be proved.
        """
        found = np.full(len(self.limits), np.inf)
        for output, (limit, strict) in enumerate(zip(self.limits, self.strict, strict=True)):
            if limit is not None and self.slack == math.inf:
                found[output] = -np.inf
            elif limit is not None:
                left = limit - Fraction(self.slack)
                below = float_down(left)
                found[output] = math.nextafter(below, -math.inf) if strict and Fraction(below) == left else below
        return found

    def exceeded(self, apart: Sequence[Fraction]) -> int | None:
        """The output at which differences of at least ``apart`` are furthest beyond the limit; None where none is."""
        if self.slack == math.inf:
            return None
        beyond = [
            (away - limit - Fraction(self.slack), strict, output)
            for output, (away, limit, strict) in enumerate(zip(apart, self.limits, self.strict, strict=True))
            if limit is not None
        ]
        beyond = [found for found in beyond if found[0] > 0 or (found[1] and found[0] == 0)]
        return max(beyond)[2] if beyond else None

    @property
    def numbers(self) -> list[float | None]:
        """The limits to the nearest float that is finite."""
        return [None if limit is None else float(min(limit, Fraction(sys.float_info.max))) for limit in self.limits]

    def __str__(self) -> str:
        told = ["any" if number is None else f"{number:.6g}" for number in self.numbers]
        return told[0] if len(set(told)) == 1 else f"{', '.join(told)} by output"


def _limit(number: Any) -> Fraction | None:
    try:  # text is exact: 0.1 is a tenth; what is no float but zero or infinite is taken for that
        value = math.nan if isinstance(number, bool) else float(number)
        if value == math.inf:
            return None
        if value >= 0:
            return Fraction(number) if isinstance(number, str | int | Decimal | Fraction) and value else Fraction(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise UsageError(f"within: {number!r} is no number from 0; give one for all outputs, or one for each") from None
