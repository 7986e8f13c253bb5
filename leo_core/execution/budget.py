"""A time budget that is passed down, asked often, and never extended."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True)
class Budget:
    """A deadline on the monotonic clock; infinite when there is no limit."""

    deadline: float = math.inf

    @staticmethod
    def of(seconds: float | None) -> Budget:
        """A budget that ends ``seconds`` from now, or never."""
        return Budget() if seconds is None else Budget(time.monotonic() + seconds)

    @property
    def remaining(self) -> float:
        """Seconds left, never negative; infinite without a limit."""
        return max(0.0, self.deadline - time.monotonic())

    @property
    def expired(self) -> bool:
        return self.remaining <= 0.0

    def at_most(self, seconds: float) -> Budget:
        """The stricter of this budget and ``seconds`` from now."""
        return Budget(min(self.deadline, time.monotonic() + seconds))
