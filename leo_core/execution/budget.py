"""A time budget that is passed down, asked often, and never extended."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import final

#: The share of patience that one part may take, and the seconds that each gets however many there were.
SHARE, LEAST = 0.1, 0.1


def _never() -> bool:
    return False


@final
@dataclass(frozen=True)
class Budget:
    """A deadline on the monotonic clock, infinite without a limit; over before it once work is ``called_off``."""

    deadline: float = math.inf
    called_off: Callable[[], bool] = _never

    @staticmethod
    def of(seconds: float | None) -> Budget:
        """A budget that ends ``seconds`` from now, or never."""
        return Budget() if seconds is None else Budget(time.monotonic() + seconds)

    @property
    def remaining(self) -> float:
        """Seconds left, never negative; infinite without a limit."""
        return 0.0 if self.called_off() else max(0.0, self.deadline - time.monotonic())

    @property
    def expired(self) -> bool:
        return self.remaining <= 0.0

    def at_most(self, seconds: float) -> Budget:
        """The stricter of this budget and ``seconds`` from now."""
        return replace(self, deadline=min(self.deadline, time.monotonic() + seconds))


@final
@dataclass(frozen=True)
class Limits:
    """How many seconds work may take: in all, at any one unit, and about how many at all that stay open together."""

    budget: Budget = field(default_factory=Budget)
    unit_seconds: float = math.inf
    open_seconds: float = math.inf


@final
class Patience:
    """How long what is tried in vain may take in all, so that work with many hard parts ends, too.

    Each part may take a share of what is left, so that the first ones get most, but never less than :data:`LEAST`.
    """

    def __init__(self, seconds: float = math.inf) -> None:
        self.seconds = seconds
        self.given_up: set[Hashable] = set()

    @property
    def each(self) -> float:
        """Seconds that the next part may take."""
        return max(LEAST, SHARE * self.seconds)

    def lose(self, seconds: float) -> None:
        """So many seconds were in vain."""
        self.seconds = max(0.0, self.seconds - seconds)
