"""What long work tells its listener: plain frozen values, handed to one callable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, final


@final
@dataclass(frozen=True)
class Progress:
    """``decided`` of ``total`` units are settled; work is on ``layer``, number ``number`` of ``layers``.

    ``what`` names them: units, or channels where these are asked for.
    """

    layer: str
    number: int
    layers: int
    decided: int
    total: int
    what: str = "units"


@final
@dataclass(frozen=True)
class Note:
    """Something a user should be told once; ``passing`` when it only says how far the work is."""

    text: str
    passing: bool = False


Event: TypeAlias = Progress | Note
Listener: TypeAlias = Callable[[Event], None]


def silent(_event: Event) -> None:
    """The listener that ignores everything."""
