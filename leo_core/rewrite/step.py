"""What a pass hands over: a proposal, or why there is none; and what the pipeline keeps of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from leo_core.network import Network
from leo_core.rewrite.deviation import Change
from leo_core.rewrite.facts import Facts

Array = NDArray[np.float64]


@final
@dataclass(frozen=True, eq=False)
class Rewrite:
    """A proposed network.

    Attributes
    ----------
    facts:
        What is known of its units, as far as the units stay the same ones.
    changes:
        By affine node of the new network, how far its value may be from the old one's *for equal
        values before it*; nodes not named are exact.
    what:
        For the user: what was done.
    """

    network: Network
    facts: Facts
    what: str
    changes: Mapping[str, Change] = field(default_factory=dict)


@final
@dataclass(frozen=True)
class Refusal:
    """Why a pass left a layer as it was; the pipeline says which."""

    what: str
    reason: str
    layer: str = ""


@final
@dataclass(frozen=True)
class Step:
    """A rewrite that was kept.

    Attributes
    ----------
    layer:
        The node it was made at.
    what:
        What was done.
    deviation:
        The proved deviation it adds at the outputs.
    connections:
        How many connections it took away.
    """

    layer: str
    what: str
    deviation: float
    connections: int


#: Whether a proposal's deviation is within what is left of the tolerance.
Fits: TypeAlias = Callable[[Rewrite], bool]
#: A pass works on one node: None when it has nothing to do there.
Pass: TypeAlias = Callable[[Network, Facts, str, Fits], "Rewrite | Refusal | None"]
