"""A cluster of which only the clock is simulated: LEO's own scheduling, with as many workers as one likes.

``leo_core.analyze(…, cluster=Virtual(64, overhead))`` runs what hands work to Dask (``leo_backends.dask.client``:
batches by measured cost, so many out at once) and what a worker does, as they are. A batch is done in this process when
it is handed out, and its seconds of CPU are measured; its result is held back until the virtual clock has come to where
the worker that is free first would have been done. The client's own seconds, such as what it does before there is work
to share, pass on that clock as they do on the real one.

The steps of one such run can be played again as those of many clients that share the workers.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, final

from leo_backends.dask import client, worker
from leo_core.execution.budget import Budget
from leo_core.execution.executor import Draw, Results
from leo_core.plugins import ExecutorSpec, registry


@final
@dataclass(frozen=True)
class Step:
    """What a client does next: after ``thought`` seconds of its own it hands out a batch that takes ``seconds``, or
    (``seconds`` is None) waits for it."""

    thought: float
    batch: str
    seconds: float | None


@final
@dataclass
class Virtual:
    """So many workers, each batch at ``overhead`` seconds of the client's; ``steps`` is what was done so far, in
    ``now`` seconds."""

    count: int
    overhead: float
    now: float = 0.0
    steps: list[Step] = field(default_factory=list)
    resource: str = "virtual"
    gone: bool = False

    def __post_init__(self) -> None:
        self.workers = frozenset(map(str, range(self.count)))
        self.client = self
        self._free = [(0.0, name) for name in self.workers]
        self._ends: list[tuple[float, int, str]] = []
        self._real = time.process_time()

    def map(self, make: Callable[..., Any], arguments: tuple[Any, ...], draw: Draw, budget: Budget) -> Results:
        """As the executor of Dask does it."""
        run = client._Run(self, draw, budget)
        run._done = self  # type: ignore[assignment]
        try:
            yield from run.results(make, arguments)
        finally:
            run.call_off()
            for name in [name for name in worker._handlers if name.startswith(run._name)]:
                worker._handlers.pop(name).close()

    def submit(self, function: Callable[..., Any], *arguments: Any, key: str, **_options: Any) -> Any:
        """Do a batch now, and say when it would have been done."""
        if function is worker.keep:
            return _Future(key, function(*arguments))
        thought = self._tick()
        setup, run, tasks, seconds, target = arguments
        start, name = heapq.heappop(self._free)
        begun = time.process_time()
        done = worker._do(setup.value, f"{run} {name}", tasks, Budget(time.monotonic() + seconds), target)
        took = time.process_time() - begun
        self.now += self.overhead
        end = max(start, self.now) + took
        heapq.heappush(self._free, (end, name))
        heapq.heappush(self._ends, (end, len(self.steps), key))
        self.steps.append(Step(thought + self.overhead, key, took))
        self._real = time.process_time()
        return _Future(key, done)

    def get(self, **_options: Any) -> str:
        """Wait for the batch that is done first."""
        thought = self._tick()
        end, _, key = heapq.heappop(self._ends)
        self.now = max(self.now, end)
        self.steps.append(Step(thought, key, None))
        return key

    def cancel(self, futures: list[Any], **_options: Any) -> None:
        """Forget batches; their workers are free again."""
        names = {future.key for future in futures}
        self._ends = [end for end in self._ends if end[2] not in names]
        heapq.heapify(self._ends)
        self._free = [(min(end, self.now), name) for end, name in self._free]
        heapq.heapify(self._free)

    def close(self) -> None:
        """The last seconds of the client's own."""
        self.steps.append(Step(self._tick(), "", None))

    def look(self) -> bool:
        """Nobody joins or leaves."""
        return False

    def note(self, _text: str) -> None:
        """There is nothing to say."""

    def _tick(self) -> float:
        real = time.process_time()
        thought, self._real = real - self._real, real
        self.now += thought
        return thought


@final
@dataclass(frozen=True)
class _Future:
    key: str
    value: Any
    status: str = "finished"

    def result(self, **_options: Any) -> Any:
        return self.value

    def add_done_callback(self, _function: Callable[..., Any]) -> None:
        """Whoever waits is told by the clock."""

    def release(self) -> None:
        """It is kept no longer than it is referred to."""


registry.register_executor(
    ExecutorSpec(
        name="virtual",
        summary="workers whose clock is simulated",
        takes=lambda where: isinstance(where, Virtual),
        start=lambda where, _needs, _note: where,
    )
)


def together(clients: Sequence[Sequence[Step]], workers: int) -> float:
    """Seconds until the last of many clients, begun together, each as fast as if it had a core of its own, has done
    its steps; what was handed out first is begun first."""
    free = [0.0] * workers
    ends: list[dict[str, float]] = [{} for _ in clients]
    waiting = [(steps[0].thought, number, 0) for number, steps in enumerate(clients)]
    heapq.heapify(waiting)
    last = 0.0
    while waiting:
        now, number, at = heapq.heappop(waiting)
        step = clients[number][at]
        if step.seconds is not None:
            end = max(heapq.heappop(free), now) + step.seconds
            heapq.heappush(free, end)
            ends[number][step.batch] = end
        else:
            now = max(now, ends[number].get(step.batch, now))
        last = max(last, now)
        if at + 1 < len(clients[number]):
            heapq.heappush(waiting, (now + clients[number][at + 1].thought, number, at + 1))
    return last
