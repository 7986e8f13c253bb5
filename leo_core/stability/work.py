"""What a strategy is asked to do, and with what."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import final

from leo_core.domain import Box
from leo_core.execution.budget import Budget, Patience
from leo_core.execution.checkpoint import Checkpoint
from leo_core.execution.executor import Executor, Here
from leo_core.milp.checked import CheckedSolver
from leo_core.network import Network


@final
@dataclass(frozen=True, eq=False)
class Work:
    """Decide every ReLU of ``network`` on ``box``.

    ``every_unit`` asks for each unit of each channel, too. ``unit_seconds`` is how long one unit may take by itself,
    ``patience`` what limits it, too, where many stay open; ``trust`` is one of ``leo_core.options.TRUST``;
    ``checkpoint`` holds what earlier runs found, and takes what this one does.
    """

    network: Network
    box: Box
    solver: CheckedSolver
    trust: str = "proved"
    budget: Budget = field(default_factory=Budget)
    unit_seconds: float = math.inf
    patience: Patience = field(default_factory=Patience)
    every_unit: bool = False
    seed: int = 0
    pool: Executor = field(default_factory=Here)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
