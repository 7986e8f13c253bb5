"""Work over processes: tasks go to spawned workers one at a time; a killed worker costs its own task only.

A task whose worker dies is tried once more; if that kills a worker too, its result is LOST. With one job there are no
processes: the handler lives here.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any, final

import numpy as np

from leo_core.checker.environment import ieee
from leo_core.execution.budget import Budget
from leo_core.execution.executor import GRACE, LOST, Draw, Handler, Here, Results, Setup

#: Workers that a task may kill before it is given up.
DEATHS = 2
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


@final
class Pool:
    """``jobs`` workers, started when first needed and kept until ``close``."""

    def __init__(self, jobs: int = 1) -> None:
        self.jobs = jobs
        self._workers: list[_Worker] = []

    def map(
        self, make: Callable[..., Handler[Any, Any]], arguments: tuple[Any, ...], draw: Draw, budget: Budget
    ) -> Results:
        """As :meth:`~leo_core.execution.executor.Executor.map` says."""
        if self.jobs == 1:
            yield from Here().map(make, arguments, draw, budget)
        else:
            yield from self.spread(make, arguments, draw, budget)

    def close(self) -> None:
        """Stop the workers."""
        for worker in self._workers:
            worker.stop()
        self._workers.clear()

    def spread(
        self, make: Callable[..., Handler[Any, Any]], arguments: tuple[Any, ...], draw: Draw, budget: Budget
    ) -> Results:
        """The same by processes, even if by one."""
        setup: Setup = (make, arguments)
        again: list[tuple[Any, int]] = []  # tasks whose worker died, and how often
        try:
            while True:
                self._feed(setup, draw, again, budget)
                busy = [worker for worker in self._workers if worker.busy]
                if not busy:
                    return
                timeout = None if budget.remaining == float("inf") else budget.remaining + GRACE
                ready = wait([end for worker in busy for end in worker.ends], timeout)
                for worker in busy:
                    if not ready:  # out of time, and a moment more
                        yield worker.task, LOST
                        self._drop(worker)
                    elif worker.connection in ready or worker.process.sentinel in ready:
                        task, deaths = worker.task, worker.deaths
                        result = worker.receive()
                        if result is not LOST:
                            yield task, result
                            continue
                        self._drop(worker)
                        if deaths + 1 < DEATHS:
                            again.append((task, deaths + 1))
                        else:
                            yield task, LOST
        except GeneratorExit:
            self._call_off()
            raise
        except BaseException:
            self.close()  # Ctrl-C: nothing may go on in the background
            raise

    def _feed(self, setup: Setup, draw: Draw, again: list[tuple[Any, int]], budget: Budget) -> None:
        while not budget.expired and sum(worker.busy for worker in self._workers) < self.jobs:
            task, deaths = again.pop() if again else (draw(), 0)
            if task is None:
                return
            worker = next((worker for worker in self._workers if not worker.busy), None)
            if worker is None:
                worker = _Worker()
                self._workers.append(worker)
            worker.give(setup, task, deaths, budget)

    def _call_off(self) -> None:
        """Nobody listens any more: who is done in a moment stays, as another would take longer to start."""
        until = time.monotonic() + GRACE
        try:
            for worker in [worker for worker in self._workers if worker.busy]:
                if wait(worker.ends, max(0.0, until - time.monotonic())):
                    with contextlib.suppress(Exception):  # what a task raises matters to nobody any more
                        worker.receive()
                if worker.busy:
                    self._drop(worker)
        except BaseException:
            self.close()
            raise

    def _drop(self, worker: _Worker) -> None:
        worker.stop()
        self._workers.remove(worker)


@final
@dataclass(frozen=True)
class _Raised:
    error: BaseException


@dataclass(eq=False)
class _Worker:
    """One process, and the task it is at."""

    connection: Connection = field(init=False)
    process: multiprocessing.process.BaseProcess = field(init=False)
    busy: bool = False
    task: Any = None
    deaths: int = 0
    _setup: Setup | None = None

    def __post_init__(self) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would copy solvers' and BLAS's threads half
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,), daemon=True)
        with ThreadPoolExecutor(1) as starter:  # Ctrl-C breaks into no other thread, which would leave half a process
            starter.submit(self._start).result()
        theirs.close()

    def _start(self) -> None:
        with bare_child(), _undisturbed():
            self.process.start()

    @property
    def ends(self) -> tuple[Any, Any]:
        return self.connection, self.process.sentinel

    def give(self, setup: Setup, task: Any, deaths: int, budget: Budget) -> None:
        self.busy, self.task, self.deaths = True, task, deaths
        # A worker that has just died is found out when its answer is waited for.
        with contextlib.suppress(OSError):
            if setup is not self._setup:
                self._setup = setup
                self.connection.send(("make", *setup))
            self.connection.send(("do", task, budget.remaining))

    def receive(self) -> Any:
        """The result, or LOST if the process died."""
        try:
            result = self.connection.recv()
        except (EOFError, OSError):
            return LOST
        if isinstance(result, _Raised):
            if isinstance(result.error, MemoryError):
                return LOST
            raise result.error
        self.busy, self.task = False, None
        return result

    def stop(self) -> None:
        self.connection.close()
        self.process.terminate()
        self.process.join(1.0)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


@contextlib.contextmanager
def bare_child() -> Iterator[None]:
    """A process started here does not run the user's script again, and its BLAS keeps to one thread."""
    main = sys.modules["__main__"]
    hidden: dict[str, Any] = {name: vars(main)[name] for name in ("__spec__", "__file__") if name in vars(main)}
    threads = [name for name in _THREADS if name not in os.environ]
    main.__spec__ = None
    if "__file__" in hidden:
        del main.__file__
    os.environ.update(dict.fromkeys(threads, "1"))
    try:
        yield
    finally:
        vars(main).update(hidden)
        for name in threads:
            del os.environ[name]


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """A process started here is not ended by Ctrl-C, with a traceback, before it has come to :func:`_serve`.

    What a thread holds back is heard by another one of its process, and a process begins with what its starter held.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # which would let it through in between
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _follow_parent() -> None:
    """A parent that is killed says nothing: end with it, whatever is being solved."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _serve(connection: Connection) -> None:
    """A worker's life: make a handler, do tasks; it ends when the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_follow_parent, daemon=True).start()
    np.seterr(all="ignore")  # as where the parent works: overflows are looked for where they matter
    handler: Handler[Any, Any] | None = None
    while True:
        try:
            kind, first, second = connection.recv()
        except (EOFError, OSError):
            return
        if kind == "make":
            if handler is not None:
                handler.close()
            handler = first(*second)
            continue
        assert handler is not None
        begun = time.monotonic()
        result: Any
        try:
            with ieee():
                result = handler(first, Budget(begun + second))
        except Exception as error:
            result = _Raised(error)
        connection.send(result)
