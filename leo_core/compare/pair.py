"""Two networks on a box, and the means to compare them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

from leo_core.domain import Box
from leo_core.execution.events import Listener, Note, silent
from leo_core.execution.executor import Executor, Here
from leo_core.milp.checked import CheckedSolver
from leo_core.network import Network


@final
@dataclass(frozen=True, eq=False)
class Pair:
    """``solver`` solves the LPs of proofs; workers of the ``executor``, which stays open, share parts of the box."""

    first: Network
    second: Network
    box: Box
    solver: CheckedSolver
    seed: int = 0
    listener: Listener = silent
    executor: Executor = field(default_factory=Here)

    def note(self, text: str) -> None:
        """Tell what is being done."""
        self.listener(Note(text, passing=True))
