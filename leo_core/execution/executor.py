"""Who does independent work: one small protocol, behind which are this process, others beside it, or a cluster.

A *handler* is made once per worker from picklable arguments, then called with task after task. An executor is asked
one thing: do tasks as they are drawn, and hand out each result as it comes. A worker that dies costs its own tasks
only.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Final, Protocol, TypeAlias, TypeVar, final

from leo_core.checker.environment import ieee
from leo_core.execution.budget import Budget

Task = TypeVar("Task", contravariant=True)
Result = TypeVar("Result", covariant=True)

#: The next task, or None.
Draw: TypeAlias = Callable[[], Any]
#: What makes a handler, and its arguments.
Setup: TypeAlias = tuple[Callable[..., Any], tuple[Any, ...]]
#: (task, its result or LOST), until it is closed.
Results: TypeAlias = Generator[tuple[Any, Any], None, None]

#: Seconds that a worker may overrun the budget before it is stopped.
GRACE = 0.5


class Handler(Protocol[Task, Result]):
    """Does one kind of work; ``close`` frees what it holds."""

    def __call__(self, task: Task, budget: Budget, /) -> Result: ...
    def close(self) -> None: ...


class _Lost:
    """The task's worker died, again and again, ran out of memory, or was stopped because it overran its time."""

    def __repr__(self) -> str:
        return "LOST"


LOST: Final = _Lost()


class Executor(Protocol):
    """Workers, ready for one kind of work after the other until ``close``."""

    def map(
        self, make: Callable[..., Handler[Any, Any]], arguments: tuple[Any, ...], draw: Draw, budget: Budget
    ) -> Results:
        """(task, result or LOST) as they are done, each task once, in no fixed order.

        ``draw`` is called in this thread whenever there is room, so it may look at results so far; None says that
        there is no task now, and none at all once every result is in. Nothing is begun when the budget has ended, and
        what overruns it by more than :data:`GRACE` is given up. A task whose worker dies is tried again; one that keeps
        killing workers is LOST, and so is one that memory was not enough for. ``make`` must be importable,
        ``arguments``, tasks and results picklable. An exception in a handler is raised here. Whoever stops listening,
        and Ctrl-C, calls off all that is not done; the executor can then be used again.
        """
        ...

    def close(self) -> None:
        """Let the workers go."""
        ...


@final
class Here:
    """One task after the other, in this process."""

    def map(
        self, make: Callable[..., Handler[Any, Any]], arguments: tuple[Any, ...], draw: Draw, budget: Budget
    ) -> Results:
        """As :meth:`Executor.map` says; what kills or hangs, though, kills or hangs this process."""
        handler: Handler[Any, Any] | None = None
        try:
            while not budget.expired and (task := draw()) is not None:
                handler = make(*arguments) if handler is None else handler
                try:
                    with ieee():  # a solver may have changed it when it was loaded
                        result = handler(task, budget)
                except MemoryError:
                    result = LOST
                if result is LOST:  # it may be left in any state
                    handler.close()
                    handler = None
                yield task, result
        finally:
            if handler is not None:
                handler.close()

    def close(self) -> None:
        """Nothing to let go."""
