"""What a strategy is asked to do, and with what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

from leo_core.domain import Box
from leo_core.execution.budget import Budget, Limits
from leo_core.execution.checkpoint import Checkpoint
from leo_core.execution.executor import Executor, Here
from leo_core.milp.checked import CheckedSolver
from leo_core.network import Network
from leo_core.stability.verdict import LayerStability


@final
@dataclass(frozen=True, eq=False)
class Work:
    """Decide every ReLU of ``network`` on ``box``.

    Attributes
    ----------
    strategy, trust:
        Among ``leo_core.options.STRATEGIES`` and ``TRUST``.
    limits:
        Those at units that stay open together are kept by the cascade.
    every_unit:
        Of networks on images the cascade decides channels (:mod:`~leo_core.stability.channels`) unless this is set.
    executor:
        Its workers share the work where the strategy can; it stays open.
    checkpoint:
        Holds what earlier runs found, and takes what this one does.
    known:
        By ReLU node, proved bounds and witnesses found elsewhere: of a network with the same units, say
        (:mod:`leo_core.rewrite.beforehand`).
    cheaply:
        The cascade stops at what is cheap.
    """

    network: Network
    box: Box
    solver: CheckedSolver
    strategy: str = "cascade"
    trust: str = "proved"
    limits: Limits = field(default_factory=Limits)
    every_unit: bool = False
    seed: int = 0
    executor: Executor = field(default_factory=Here)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    known: Mapping[str, LayerStability] = field(default_factory=dict)
    cheaply: bool = False

    @property
    def budget(self) -> Budget:
        return self.limits.budget
