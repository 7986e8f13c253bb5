"""Executors that are wrong on purpose: the kit must catch each."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeAlias, final

from leo_core.execution.budget import Budget
from leo_core.execution.executor import LOST, Draw, Executor, Results
from leo_core.testing.executor_kit import HANG

#: From a right executor, and what its ``map`` was asked (make, arguments, draw, budget), to what comes out.
Fault: TypeAlias = Callable[[Executor, Any, tuple[Any, ...], Draw, Budget], Results]


@final
class WrongExecutor:
    """A right executor whose ``map`` passes through a fault."""

    def __init__(self, inner: Executor, fault: Fault) -> None:
        self._inner, self._fault = inner, fault

    def map(self, make: Any, arguments: tuple[Any, ...], draw: Draw, budget: Budget) -> Results:
        """The fault's results."""
        return self._fault(self._inner, make, arguments, draw, budget)

    def close(self) -> None:
        """Let the right one's workers go."""
        self._inner.close()


def forgets_one(inner: Executor, make: Any, arguments: tuple[Any, ...], draw: Draw, budget: Budget) -> Results:
    """One result is lost on the way."""
    results = inner.map(make, arguments, draw, budget)
    next(results)
    yield from results


def tells_one_twice(inner: Executor, make: Any, arguments: tuple[Any, ...], draw: Draw, budget: Budget) -> Results:
    """As after a retry whose first try had come to its end."""
    first = None
    for pair in inner.map(make, arguments, draw, budget):
        first = pair if first is None else first
        yield pair
    if first is not None:
        yield first


def mixes_results_up(inner: Executor, make: Any, arguments: tuple[Any, ...], draw: Draw, budget: Budget) -> Results:
    """Each task with the result of another."""
    pairs = list(inner.map(make, arguments, draw, budget))
    for (task, _), (_, result) in zip(pairs, pairs[1:] + pairs[:1], strict=True):
        yield task, result


def waits_for_all(inner: Executor, make: Any, arguments: tuple[Any, ...], draw: Draw, budget: Budget) -> Results:
    """Nothing comes out before everything is in."""
    yield from list(inner.map(make, arguments, draw, budget))


def draws_all_at_first(inner: Executor, make: Any, arguments: tuple[Any, ...], draw: Draw, budget: Budget) -> Results:
    """What results lead to is never drawn."""
    waiting = []
    while (task := draw()) is not None:
        waiting.append(task)
    yield from inner.map(make, arguments, lambda: waiting.pop() if waiting else None, budget)


_first: dict[int, tuple[Any, ...]] = {}


def keeps_the_first_handlers(
    inner: Executor, make: Any, arguments: tuple[Any, ...], draw: Draw, budget: Budget
) -> Results:
    """Those of the work before answer for this one."""
    yield from inner.map(make, _first.setdefault(id(inner), arguments), draw, budget)


def calls_a_death_a_result(
    inner: Executor, make: Any, arguments: tuple[Any, ...], draw: Draw, budget: Budget
) -> Results:
    """None, where nothing is known."""
    for task, result in inner.map(make, arguments, draw, budget):
        yield task, None if result is LOST else result


def loses_all_with_one(inner: Executor, make: Any, arguments: tuple[Any, ...], draw: Draw, budget: Budget) -> Results:
    """One death costs every task."""
    pairs = list(inner.map(make, arguments, draw, budget))
    lost = any(result is LOST for _, result in pairs)
    yield from ((task, LOST if lost else result) for task, result in pairs)


def hides_errors(inner: Executor, make: Any, arguments: tuple[Any, ...], draw: Draw, budget: Budget) -> Results:
    """A handler's exception counts as a death."""
    drawn = []

    def noted() -> Any:
        drawn.append(draw())
        return drawn[-1]

    try:
        yield from inner.map(make, arguments, noted, budget)
    except Exception:
        yield drawn[0], LOST


def waits_for_what_hangs(inner: Executor, make: Any, arguments: tuple[Any, ...], draw: Draw, budget: Budget) -> Results:
    """As if there were much more time."""
    if not budget.expired:
        yield from inner.map(make, arguments, draw, Budget.of(budget.remaining + 2 * HANG))


def begins_without_time(inner: Executor, make: Any, arguments: tuple[Any, ...], draw: Draw, budget: Budget) -> Results:
    """The budget is not looked at."""
    del budget
    yield from inner.map(make, arguments, draw, Budget())


def goes_on_unheard(inner: Executor, make: Any, arguments: tuple[Any, ...], draw: Draw, budget: Budget) -> Results:
    """What nobody waits for any more is not called off."""
    results = inner.map(make, arguments, draw, budget)
    _unheard.append(results)  # else it would be closed together with this one
    while (pair := next(results, None)) is not None:
        yield pair


_unheard: list[Results] = []


def swallows_ctrl_c(inner: Executor, make: Any, arguments: tuple[Any, ...], draw: Draw, budget: Budget) -> Results:
    """And says that all is done."""
    try:
        yield from inner.map(make, arguments, draw, budget)
    except KeyboardInterrupt:
        time.sleep(0.1)


FAULTS: tuple[Fault, ...] = (
    forgets_one,
    tells_one_twice,
    mixes_results_up,
    waits_for_all,
    draws_all_at_first,
    keeps_the_first_handlers,
    calls_a_death_a_result,
    loses_all_with_one,
    hides_errors,
    waits_for_what_hangs,
    begins_without_time,
    goes_on_unheard,
    swallows_ctrl_c,
)
