"""What a pass hands over: a ladder of proposals, or why there is none; and what the pipeline keeps of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias, final

from leo_core.bounds.change import Change
from leo_core.rewrite.view import View


@final
@dataclass(frozen=True, eq=False)
class Rewrite:
    """A proposed network.

    Attributes
    ----------
    view:
        The network, with what is known of its units as far as they stay the same ones.
    changes:
        By affine node of the new network, how far its value may be from the old one's *for equal
        values before it*; nodes not named are exact.
    what:
        For the user: what was done.
    """

    view: View
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
@dataclass(frozen=True, eq=False)
class Ladder:
    """Proposals for one node, rung by rung from the boldest to the most careful, each made only when it is asked for.

    That the rungs above one that is within the tolerance are so, too, is taken for granted.

    Attributes
    ----------
    rungs:
        How many there are: 0 … rungs − 1.
    make:
        The proposal of a rung, or a ladder of several; None where nothing can be made of it.
    likely:
        The rung to ask first.
    least:
        By affine node, what any proposal of a rung changes at least, where that is cheaply known: rungs for which
        this alone is too much are not made.
    otherwise:
        What is told where no rung is within the tolerance.
    """

    rungs: int
    make: Callable[[int], Rewrite | Ladder | None]
    likely: int = 0
    least: Callable[[int], Mapping[str, Change]] | None = None
    otherwise: Refusal | None = None

    def then(self, edit: Callable[[Rewrite], Rewrite]) -> Ladder:
        """The same proposals, each edited."""

        def made(rung: int) -> Rewrite | Ladder | None:
            found = self.make(rung)
            if found is None:
                return None
            return found.then(edit) if isinstance(found, Ladder) else edit(found)

        return replace(self, make=made)


def only(proposal: Rewrite, otherwise: Refusal) -> Ladder:
    """A ladder of one rung."""
    return Ladder(1, lambda _: proposal, otherwise=otherwise)


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
    rule:
        The pass that did it, by its name.
    """

    layer: str
    what: str
    deviation: float
    connections: int
    rule: str = ""


#: A pass looks at one node: None when it has nothing to do there.
Pass: TypeAlias = Callable[[View, str], "Ladder | Refusal | None"]
