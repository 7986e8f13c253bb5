"""The protocol a MILP solver speaks: load a problem once, then maximise many objectives."""

from __future__ import annotations

import inspect
from enum import Enum
from typing import Protocol, runtime_checkable

from leo_core.milp.problem import MilpProblem
from leo_core.milp.question import Question
from leo_core.milp.result import SolverResult


class Capability(Enum):
    """What a solver can do itself.

    The core makes up for what is missing, the adapter never does: it compares stops after the fact, rebuilds, takes
    duals from SciPy, and leaves out of a question what needs a capability that the solver lacks.
    """

    EARLY_STOP = "stops during a solve on either side"
    OBJECTIVE_CHANGE = "takes a new objective without a rebuild"
    BOUND_CHANGE = "takes new column bounds without a rebuild"
    ROW_DUALS = "returns row duals, or a dual ray, of programs without integers"
    WARM_START = "starts from a given point"
    LAZY_ROWS = "takes rows that are added, by a callback, when a candidate violates them"
    INTERRUPT = "ends a solve when another thread calls interrupt()"
    THREADS = "sessions of their own may solve in several threads at once"
    EXACT = "solves over the rationals"


class SolverSession(Protocol):
    """One loaded problem, used by one thread at a time; ``close`` frees it and may be called twice.

    Solves run in a thread of their own, so that LEO keeps to time limits and hears Ctrl-C whatever a solver does.
    """

    def maximize(self, question: Question) -> SolverResult:
        """Answer a question, which asks for no more than the solver's capabilities."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class Interruptible(Protocol):
    """A session whose solver declares INTERRUPT."""

    def interrupt(self) -> None:
        """End the solve that is going on early, called from another thread; do nothing when there is none."""
        ...


class Solver(Protocol):
    """A factory of sessions, with what it can do."""

    @property
    def name(self) -> str: ...
    @property
    def capabilities(self) -> frozenset[Capability]: ...
    def load(self, problem: MilpProblem, *, seed: int = 0) -> SolverSession: ...


def outdated(session: SolverSession) -> str:
    """What to change in a session whose ``maximize`` takes the parts of a question one by one, else nothing.

    That is how sessions were asked before there was a :class:`~leo_core.milp.question.Question`.
    """
    try:
        taken = tuple(inspect.signature(session.maximize).parameters)
    except (TypeError, ValueError):  # compiled code need not say what it takes
        return ""
    parts = [name for name in taken if name in Question.__dataclass_fields__]
    if not parts:
        return ""
    return (
        f"its sessions are asked by maximize({', '.join(taken)}), as in older versions of LEO; now maximize takes one "
        f"leo_core.milp.question.Question, which holds {', '.join(parts)}: write 'def maximize(self, question)'"
    )
