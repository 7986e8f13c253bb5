"""This side of a Dask cluster: batches of tasks out, findings in as they come.

What makes a handler is sent once, as a task of its own whose result the cluster keeps, hands from worker to worker and
makes again should it be lost. Tasks go in batches of about a second, by what those before took; what a batch does not
come to in that time it hands back. Two batches are out for each worker, so that none waits for the next. Dask moves
batches from busy workers to idle ones, and gives those of a dead worker to another; those that keep killing workers are
taken apart, so that only the task that does it is lost.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import math
import queue
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from os import fspath
from pathlib import Path
from typing import Any, final

import dask
import distributed
from distributed.comm import CommClosedError
from distributed.scheduler import KilledWorker

from leo_backends.dask import join
from leo_backends.dask.worker import Done, busy_with, do, keep
from leo_core.errors import ClusterError, first_line
from leo_core.execution.budget import Budget
from leo_core.execution.executor import GRACE, LOST, Draw, Handler, Results
from leo_core.execution.pool import bare_child
from leo_core.plugins import Needs

#: Seconds until a scheduler must answer.
CONNECT = 5.0
#: How an address with TLS begins, and what to do about certificates.
_ENCRYPTED, CERTIFICATES = (
    ("tls://", "wss://"),
    (
        "Dask's configuration names them (distributed.comm.tls.ca-file, .client.cert and .client.key), "
        "or in Python a Client's security="
    ),
)
#: Seconds of work in a batch; tasks in it at most; batches out for each worker.
TARGET, MOST, AHEAD = 1.0, 256, 2
#: Times that a task, alone, may have cost a worker before it is given up.
DEATHS = 4
#: Seconds between two looks at who has joined or left.
LOOK = 2.0
#: Seconds that a task which was called off may go on before its worker is started anew.
HANGS = 20.0


def connect(where: Any, needs: Needs, note: Callable[[str], None]) -> DaskCluster:
    """Reach a cluster by its address, its scheduler's file, a live Client or a live Cluster; or start workers here.

    Raises :class:`ClusterError` when nobody answers, and when none of the workers that are there can take part.
    """
    with ExitStack() as owned:
        try:
            client = _client(where, owned)
        except ClusterError:
            raise
        except Exception as error:
            said = first_line(error).rstrip(".")
            raise ClusterError(
                f"the Dask cluster {where} cannot be reached ({said}); 'dask scheduler' starts one and says its address"
            ) from None
        cluster = DaskCluster(client, needs, note, owned)
        cluster.open()
        owned.pop_all()
        return cluster


def _client(where: Any, owned: ExitStack) -> Any:
    if isinstance(where, distributed.Client):
        if where.asynchronous:
            raise ClusterError("the client is asynchronous; make it with distributed.Client(address)")
        return where
    options: dict[str, Any] = {"timeout": CONNECT, "set_as_default": False, "name": "LEO"}
    if not isinstance(where, str | Path):  # a live cluster
        return owned.enter_context(distributed.Client(where, **options))
    address = fspath(where)
    log = logging.getLogger("distributed")
    owned.callback(log.setLevel, log.level)
    log.setLevel(logging.CRITICAL)  # what matters is said by LEO
    if address.startswith("local:"):
        count = address.removeprefix("local:")
        if not count.isdecimal() or not int(count):
            raise ClusterError(f"the cluster '{address}' is not local:N with N workers, 1 or more")
        with bare_child():
            local = distributed.LocalCluster(
                n_workers=int(count), threads_per_worker=1, dashboard_address=None, silence_logs=logging.CRITICAL
            )
        owned.enter_context(local)
        return owned.enter_context(distributed.Client(local, **options))
    if address.endswith(".json"):
        address = _written(address)
    connection = _connection(address)
    try:
        asyncio.run(asyncio.wait_for(_answer(address, connection), CONNECT))
    except CommClosedError:
        why = "a scheduler that asks for TLS is at tls://…"
        if address.startswith(_ENCRYPTED):
            why = f"the one's certificates do not suit the other; {CERTIFICATES}"
        raise ClusterError(f"what answers at {address} hangs up: {why}") from None
    except (OSError, TimeoutError):
        raise ClusterError(f"no Dask scheduler answers at {address}; 'dask scheduler' starts one") from None
    except MemoryError:  # it took what came for the size of a message
        raise ClusterError(f"what answers at {address} is no Dask scheduler") from None
    except Exception as error:
        raise ClusterError(f"what answers at {address} is no Dask scheduler ({first_line(error)})") from None
    return owned.enter_context(distributed.Client(address, **options))


def _connection(address: str) -> dict[str, Any]:
    """What a connection needs besides: certificates, for TLS, as Dask's configuration names them."""
    security = distributed.Security()
    try:
        connection: dict[str, Any] = security.get_connection_args("client")
    except OSError as error:
        raise ClusterError(f"a certificate that Dask's configuration names cannot be read ({error})") from None
    if address.startswith(_ENCRYPTED):
        if connection.get("ssl_context") is None:
            raise ClusterError(f"{address} needs certificates; {CERTIFICATES}")
    elif security.require_encryption:
        raise ClusterError(f"Dask's configuration requires encryption, and {address} has none; say tls://HOST:PORT")
    return connection


async def _answer(address: str, connection: dict[str, Any]) -> None:
    """Ask a scheduler who it is: a Client that finds none would go on looking when it is given up."""
    async with distributed.rpc(address, timeout=CONNECT, connection_args=connection) as scheduler:
        await scheduler.identity(n_workers=0)


def _written(path: str) -> str:
    """The address in a scheduler's file."""
    try:
        return str(json.loads(Path(path).read_text(encoding="utf-8"))["address"])
    except OSError as error:
        wrong = f"cannot be read ({error.strerror})"
    except (ValueError, KeyError, TypeError):
        wrong = "is no scheduler's file"
    raise ClusterError(f"{path}: {wrong}; 'dask scheduler --scheduler-file' writes one") from None


@final
class DaskCluster:
    """The workers of a cluster that have what is needed; ``owned`` is closed with it."""

    def __init__(self, client: Any, needs: Needs, note: Callable[[str], None], owned: ExitStack) -> None:
        self.client, self.note = client, note
        self.resource = f"LEO {needs.version} {needs.code} {needs.solver}"
        self.workers: frozenset[str] = frozenset()
        self._last: frozenset[str] = frozenset()  # as they were when there last were any
        self._needs, self._owned = needs, owned.pop_all()
        owned.callback(self.close)
        self._seen: set[str] = set()
        self._nannies: dict[str, bool] = {}
        self._looked = -math.inf
        self._overran: dict[str, float] = {}

    def open(self) -> None:
        """Ask every worker what it has, and have those that come later asked."""
        plugin = join.Join(self.resource, dataclasses.astuple(self._needs))
        self.client.register_plugin(plugin, name=self.resource)
        refused = self._look()
        address = self.client.scheduler.address
        if not self.workers and refused:
            raise ClusterError(f"none of the {len(refused)} workers at {address} can take part: {refused[0]}")
        for said in refused:
            self.note(said)
        if not self.workers:
            self.note(f"there is no worker at {address} yet: waiting for one; 'dask worker {address}' starts one")

    def map(
        self, make: Callable[..., Handler[Any, Any]], arguments: tuple[Any, ...], draw: Draw, budget: Budget
    ) -> Results:
        """As :meth:`~leo_core.execution.executor.Executor.map` says."""
        run = _Run(self, draw, budget)
        try:
            yield from run.results(make, arguments)
        finally:
            run.call_off()

    def close(self) -> None:
        """Let go of a client and of workers that were started here; others stay."""
        self._owned.close()

    @property
    def gone(self) -> bool:
        """Whether there is no scheduler any more."""
        return bool(self.client.status != "running")

    def look(self) -> bool:
        """See who has joined and left, now and then; whether all workers are new ones."""
        if time.monotonic() - self._looked < LOOK:
            return False
        before, last, seen = self.workers, self._last, set(self._seen)
        self._restart()
        for said in self._look():
            self.note(said)
        for address in sorted(self.workers - before - seen):
            self.note(f"the worker {address} has joined")
        return bool(self.workers) and not (self.workers & last)

    def overran(self, run: str) -> None:
        """A run was called off as it overran its time: should a worker still be at it after a while, it is stuck."""
        self._overran[run] = time.monotonic()

    def _restart(self) -> None:
        """Start the workers anew that are stuck; what looks at its time has ended long before."""
        old = [run for run, since in self._overran.items() if time.monotonic() - since > HANGS]
        busy = [address for run in old for address in self._busy(run)]
        for run in old:
            del self._overran[run]
        watched = [address for address in busy if self._nannies.get(address)]
        for address in busy:
            does = "it is started anew" if address in watched else "end it by hand, as it has no nanny to do so"
            self.note(f"the worker {address} is stuck in a task that overran its time: {does}")
        if watched:
            self.client.restart_workers(watched, timeout=10, raise_for_error=False)

    def _busy(self, run: str) -> list[str]:
        said = self.client.run(busy_with, workers=sorted(self.workers), on_error="return") if self.workers else {}
        return [address for address, at in said.items() if at == run]

    def _look(self) -> list[str]:
        """What to say of the workers that were not seen yet."""
        found = self.client.scheduler_info(n_workers=-1)["workers"]
        self._looked = time.monotonic()
        self._nannies = {address: bool(about["nanny"]) for address, about in found.items()}
        self.workers = frozenset(address for address, about in found.items() if about["resources"].get(self.resource))
        self._last = self.workers or self._last
        new = sorted(found.keys() - self._seen)
        lacking = self.client.run(join.Verdict(), self.resource, workers=new, on_error="return") if new else {}
        told = []
        for address in new:
            lacks = lacking.get(address)
            if not isinstance(lacks, str):  # it is about to be asked, or has just left
                continue
            self._seen.add(address)
            threads = found[address]["nthreads"]
            if lacks:
                told.append(f"the worker {address} gets no work: {lacks}")
            elif threads > 1:
                told.append(
                    f"the worker {address} has {threads} threads, of which LEO uses one: "
                    f"'dask worker --nworkers {threads} --nthreads 1' makes as many workers of them"
                )
        return told


@final
@dataclass(frozen=True)
class _Batch:
    """Tasks that are out together, and how often they may have cost a worker; then each goes alone."""

    tasks: list[Any]
    deaths: int = 0


class _Run:
    """One kind of work: what is out, and what its tasks take."""

    def __init__(self, cluster: DaskCluster, draw: Draw, budget: Budget) -> None:
        self._cluster, self._client, self._draw, self._budget = cluster, cluster.client, draw, budget
        self._name = f"leo-{uuid.uuid4().hex}"
        self._setup: Any = None
        self._count = 0
        self._out: dict[str, tuple[Any, _Batch]] = {}
        self._back: list[Any] = []  # tasks that a batch did not come to
        self._apart: list[_Batch] = []  # batches to try again as they are
        self._done: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._tasks, self._seconds = 0, 0.0

    def results(self, make: Callable[..., Handler[Any, Any]], arguments: tuple[Any, ...]) -> Results:
        while not self._cluster.gone:
            self._feed(make, arguments)
            if not self._out:
                return
            key = self._next()
            if key in self._out:
                yield from self._take(key)
            elif self._budget.remaining <= 0 and not key and self._late():
                lost = [task for _, batch in self._out.values() for task in batch.tasks]
                self.call_off()
                self._cluster.overran(self._name)
                yield from ((task, LOST) for task in lost)
                return
            if self._cluster.look():
                yield from self._send_again()
        self._cluster.note(
            f"the scheduler at {self._client.scheduler.address} is gone; what was not decided by then is kept as it is"
        )

    def call_off(self) -> None:
        """Nobody waits for what is out any more; a task that is being done ends at its next look at the time."""
        futures = [future for future, _ in self._out.values()]
        self._out.clear()
        if futures and not self._cluster.gone:
            self._client.cancel(futures, force=True)
        self._setup = None

    def _feed(self, make: Callable[..., Handler[Any, Any]], arguments: tuple[Any, ...]) -> None:
        room = AHEAD * max(1, len(self._cluster.workers))
        while len(self._out) < room and not self._budget.expired:
            if any(batch.deaths for _, batch in self._out.values()):
                return  # what may have cost a worker is out alone
            batch = self._chosen()
            if not batch.tasks:
                return
            if self._setup is None:
                self._count += 1
                with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1TB"}):
                    self._setup = self._client.submit(
                        keep,
                        make,
                        arguments,
                        key=f"{self._name}-{self._count}",
                        resources={self._cluster.resource: 1},
                        priority=100,
                    )
            self._send(batch)

    def _chosen(self) -> _Batch:
        """What goes out next: what may have cost a worker once nothing else is out, so that nothing else is blamed."""
        for at, batch in enumerate(self._apart):
            if not batch.deaths:
                return self._apart.pop(at)
        batch = self._drawn()
        return self._apart.pop() if self._apart and not batch.tasks and not self._out else batch

    def _drawn(self) -> _Batch:
        """As many tasks as take about a second, by what those before took; the first go one by one."""
        size = 1 if not self._tasks else max(1, min(MOST, int(TARGET * self._tasks / max(self._seconds, 1e-6))))
        tasks: list[Any] = []
        while len(tasks) < size:
            task = self._back.pop() if self._back else self._draw()
            if task is None:
                break
            tasks.append(task)
        return _Batch(tasks)

    def _send(self, batch: _Batch) -> None:
        self._count += 1
        mean = self._seconds / self._tasks if self._tasks else 0.0
        future = self._client.submit(
            do, self._setup, self._name, batch.tasks, self._budget.remaining, TARGET,
            key=f"{self._name}-{self._count}", pure=False, resources={self._cluster.resource: 1},
            priority=-math.log2(max(mean, 1e-3)),  # what is cheap comes first, of whichever run
        )  # fmt: skip
        self._out[future.key] = future, batch
        future.add_done_callback(lambda done: self._done.put(done.key))

    def _send_again(self) -> Results:
        """All workers are new ones: Dask gives them nothing that was waiting for those that are gone."""
        batches = [batch for _, batch in self._out.values()]
        self.call_off()
        for batch in batches:
            yield from self._after_a_death(batch)

    def _gathered(self, future: Any) -> list[Done] | None:
        """The result of what is done; None if its worker died before handing it out, and another does it again."""
        patience = LOOK
        while future.status == "finished":
            try:
                done: list[Done] = future.result(timeout=patience)
                return done
            except TimeoutError:
                patience *= 2
        return None

    def _after_a_death(self, batch: _Batch) -> Results:
        """Try again what may have cost a worker, taken apart; a task that did so alone, and often, is lost."""
        if len(batch.tasks) > 1:
            self._apart += [_Batch([task], 1) for task in batch.tasks]
        elif batch.deaths + 1 < DEATHS:
            self._apart.append(_Batch(batch.tasks, batch.deaths + 1))
        else:
            yield batch.tasks[0], LOST

    def _late(self) -> bool:
        return time.monotonic() > self._budget.deadline + GRACE

    def _next(self) -> str:
        """The key of a batch that is done; empty after a while without one."""
        left = max(0.0, self._budget.deadline + GRACE - time.monotonic())
        try:
            return self._done.get(timeout=min(LOOK, left + 0.01))
        except queue.Empty:
            return ""

    def _take(self, key: str) -> Results:
        future, batch = self._out.pop(key)
        if future.status == "finished":
            done = self._gathered(future)
            if done is None:
                self._out[key] = future, batch
                future.add_done_callback(lambda done: self._done.put(done.key))
                return
            future.release()
            for task, (seconds, fits, result) in zip(batch.tasks, done, strict=False):
                self._tasks, self._seconds = self._tasks + 1, self._seconds + seconds
                yield task, result if fits else LOST
            self._back += batch.tasks[len(done) :][::-1]
        elif future.status == "error":
            error = future.exception()
            if not isinstance(error, KilledWorker):
                raise error
            if self._setup.status == "error":  # it was not the batch
                self._setup = None
            else:
                # Dask has tried it again and again; but what waits at a worker that dies is blamed, too
                batch = _Batch(batch.tasks, DEATHS if batch.deaths else 0)
            yield from self._after_a_death(batch)
        elif future.status == "lost":
            self._apart.append(batch)
        elif not self._cluster.gone:  # somebody else has cancelled it, or restarted the workers
            yield from self._after_a_death(batch)
