"""What a worker of the cluster does: a batch of tasks, one after the other, with a handler kept for the next batch."""

from __future__ import annotations

import ctypes
import os
import platform
import threading
import time
from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias

import distributed

from leo_core.checker.environment import ieee
from leo_core.execution.budget import Budget
from leo_core.execution.executor import Handler, Setup

#: Of one task: the seconds it took, whether memory was enough for it, and its result.
Done: TypeAlias = tuple[float, bool, Any]

#: By ``mallopt`` of glibc: when free memory is given back, and from which size on an array is a mapping of its own; the
#: values are those that glibc comes to by itself.
_TRIM, _MAPPED = (-1, 64 << 20), (-3, 32 << 20)
#: Handlers kept at once: two runs that share a worker do not make theirs anew all the time.
_KEPT = 2

_alone = threading.Lock()  # handlers, and the settings of BLAS, are one process's
_handlers: dict[str, Handler[Any, Any]] = {}
_now = ""


def keep(make: Callable[..., Handler[Any, Any]], arguments: tuple[Any, ...]) -> Setup:
    """What makes a handler, kept by the cluster: sent to it once, and from worker to worker."""
    return make, arguments


def do(setup: Setup, run: str, tasks: list[Any], seconds: float, target: float) -> list[Done]:
    """The first tasks of a batch; those not begun after ``target`` seconds, or ``seconds``, are left to others."""
    global _now
    _keep_memory()
    with _alone, ieee():  # once for all of them, as setting up BLAS takes longer than a small task
        _now = run
        try:
            return _do(setup, run, tasks, Budget(time.monotonic() + seconds, _called_off()), target)
        finally:
            _now = ""


def busy_with() -> str:
    """The run whose batch is being done in this process."""
    return _now


@cache
def _keep_memory() -> None:
    """Dask has workers give memory back at once, so each larger array is mapped anew: three times as slow in all."""
    if "MALLOC_TRIM_THRESHOLD_" in os.environ and platform.libc_ver()[0] == "glibc":
        for setting in (_TRIM, _MAPPED):
            ctypes.CDLL(None).mallopt(*setting)


def _do(setup: Setup, run: str, tasks: list[Any], budget: Budget, target: float) -> list[Done]:
    done: list[Done] = []
    enough = budget.at_most(target)
    for task in tasks:
        if budget.expired or (done and enough.expired):
            break
        begun = time.monotonic()
        try:
            handler = _handler(run, setup)
            with ieee():
                result, fits = handler(task, budget), True
        except MemoryError:
            result, fits = None, False
            if run in _handlers:  # it may be left in any state
                _handlers.pop(run).close()
        done.append((time.monotonic() - begun, fits, result))
    return done


def _handler(run: str, setup: Setup) -> Handler[Any, Any]:
    if run not in _handlers:
        while len(_handlers) >= _KEPT:
            _handlers.pop(next(iter(_handlers))).close()
        make, arguments = setup
        _handlers[run] = make(*arguments)
    _handlers[run] = _handlers.pop(run)  # the last used is the last to go
    return _handlers[run]


def _called_off() -> Callable[[], bool]:
    """Whether nobody waits for the batch any more: it was cancelled, or the client that asked for it is gone."""
    worker = distributed.get_worker()
    states, key = worker.state.tasks, worker.get_current_task()

    def called_off() -> bool:
        state = states.get(key)
        return state is None or state.state != "executing"

    return called_off
