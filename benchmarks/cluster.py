"""What a Dask cluster costs and gains: measured with one worker and two on this machine, simulated with more.

    python benchmarks/cluster.py [--networks PART …] [--workers 8 …] [--jobs N] [--out docs/results/cluster.json]

Through the front door, ``leo_core.analyze(…, cluster=client)``, from the first bound to the last verdict, on ACAS Xu's
whole input box, VertCAS and a network of 4 inputs; with one process (``jobs=1``), one worker and two, one after the
other. No clock decides (``unit_time_limit=0``). Of each run: seconds; the share of them that the client works before or
after there is anything to share; the share of the rest in which workers were idle; tasks and batches; and the bytes of
tasks and results, pickled. Overhead is that of tasks which do nothing, one by one and in batches.

With more workers the same runs are simulated, see ``virtual.py``, and so is a campaign of 45 networks of ACAS Xu, which
are 45 times the one that is here.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import distributed
from listing import NETS, Case, picked
from virtual import Step, Virtual, together

import leo_core
from leo_backends.dask import client as dask_client
from leo_backends.dask import worker
from leo_core.execution.budget import Budget
from leo_core.plugins import Needs, registry
from leo_core.testing.executor_kit import Probe
from leo_core.testing.networks import chain

WORKERS = (1, 2, 8, 32, 64, 256)
#: Networks of a campaign, and the case it is made of.
CAMPAIGN, OF = 45, "ACAS Xu"
#: Seconds of the clock after which a run is stopped, so that this ends; no run should come to it.
LIMIT = 600.0


@dataclass
class Wire:
    """What went over the wire in one run."""

    batches: int = 0
    tasks: int = 0
    sent: int = 0
    received: int = 0
    #: Seconds of each task; between the first batch out and the last result in, summed over all that was shared.
    seconds: list[float] = field(default_factory=list)
    shared: float = 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="*", default=(), metavar="PART", help="those with this in their name")
    parser.add_argument("--workers", nargs="*", type=int, default=WORKERS, help="how many are simulated")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="simulations at once")
    parser.add_argument("--nets", type=Path, default=NETS)
    parser.add_argument("--out", type=Path, default=Path("docs/results/cluster.json"))
    arguments = parser.parse_args()
    cases = list(picked(listed(arguments.nets), arguments.networks))
    figures: dict[str, Any] = {"load": os.getloadavg()[0], "cores": os.cpu_count(), "python": platform.python_version()}
    figures["dask"] = distributed.__version__
    with workers(1) as one, workers(2) as two:
        figures["overhead"] = {"one by one": overhead(one, 1), "batched": overhead(one, 256)}
        print("overhead, ms per task:", figures["overhead"], file=sys.stderr)
        figures["networks"] = {
            case.name: {"one process": measured(case, None), "1": measured(case, one), "2": measured(case, two)}
            for case in cases
        }
    cost = 1e-3 * figures["overhead"]["one by one"]
    asked = [(case, count, cost) for count in arguments.workers for case in cases]
    os.environ.pop("MALLOC_TRIM_THRESHOLD_", None)  # left by Dask for its workers, see leo_backends/dask/worker.py
    with ProcessPoolExecutor(arguments.jobs, get_context("spawn"), warm) as pool:
        runs = dict(zip(((case.name, count) for case, count, _ in asked), pool.map(simulated, asked), strict=True))
    for case in cases:
        figures["networks"][case.name]["simulated"] = {
            count: summary(runs[case.name, count], runs[case.name, min(arguments.workers)], count)
            for count in arguments.workers
        }
    figures["campaign"] = [
        campaign({count: runs[case.name, count] for count in arguments.workers}) for case in cases if OF in case.name
    ]
    arguments.out.write_text(json.dumps(figures, indent=1) + "\n")
    arguments.out.with_suffix(".md").write_text(page(figures))
    print(page(figures))


def listed(nets: Path) -> list[Case]:
    """The networks that are measured."""
    acas, vertical = (
        nets / name for name in ("acasxu/ACASXU_experimental_v2a_1_1", "verticalcas/VertCAS_pra01_v4_45HU_200")
    )
    return [
        Case("ACAS Xu 1_1, whole box", acas.with_suffix(".nnet"), acas.with_suffix(".domain.json"), {}),
        Case("VertCAS pra01", vertical.with_suffix(".nnet"), vertical.with_suffix(".domain.json"), {}),
        Case("made, 4-96-96-96-96-2", chain(4, 96, 96, 96, 96, 2, seed=1), (-1.0, 1.0), {}),
    ]


@contextmanager
def workers(count: int) -> Iterator[Any]:
    with (
        distributed.LocalCluster(n_workers=count, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield client


def overhead(client: Any, at_once: int) -> float:
    """Milliseconds that a task which does nothing takes, from its drawing to its result."""
    executor = registry.executor_for(client).start(client, Needs.here("highs"), print)
    before, dask_client.MOST = dask_client.MOST, at_once
    count = 400 if at_once == 1 else 20_000
    waiting = [("multiply", float(k)) for k in range(count)]
    begun = time.perf_counter()
    try:
        done = sum(1 for _ in executor.map(Probe, ("",), lambda: waiting.pop() if waiting else None, Budget()))
    finally:
        dask_client.MOST = before
    assert done == count
    return 1e3 * (time.perf_counter() - begun) / count


def measured(case: Case, client: Any) -> dict[str, Any]:
    """One run from beginning to end, by a cluster or (None) by this process alone."""
    wire, begun = Wire(), time.perf_counter()
    with watched(wire):
        found = leo_core.analyze(case.model, case.domain, cluster=client, unit_time_limit=0, time_limit=LIMIT)
    seconds = time.perf_counter() - begun
    workers = 0 if client is None else len(client.scheduler_info()["workers"])
    figures: dict[str, Any] = {"seconds": seconds, "undecided": found.count(leo_core.State.UNDECIDED)}
    if workers:
        busy = sum(wire.seconds)
        figures |= {
            "alone": 1 - wire.shared / seconds,
            "idle": 1 - busy / (workers * wire.shared) if wire.shared else None,
            "tasks": wire.tasks,
            "batches": wire.batches,
            "mean": busy / max(1, wire.tasks),
            "longest": max(wire.seconds, default=0.0),
            "sent": wire.sent / max(1, wire.tasks),
            "received": wire.received / max(1, wire.tasks),
        }
    print(case.name, workers, json.dumps(figures), file=sys.stderr, flush=True)
    return figures


@contextmanager
def watched(wire: Wire) -> Iterator[None]:
    """Note what goes out to a cluster, and what comes in."""
    send, gathered, map_ = dask_client._Run._send, dask_client._Run._gathered, dask_client.DaskCluster.map

    def sent(self: Any, batch: Any) -> None:
        wire.batches += 1
        wire.sent += len(pickle.dumps(batch.tasks))
        send(self, batch)

    def got(self: Any, future: Any) -> Any:
        done = gathered(self, future)
        if done is not None:
            wire.tasks += len(done)
            wire.received += len(pickle.dumps(done))
            wire.seconds += [seconds for seconds, _, _ in done]
        return done

    def mapped(self: Any, make: Any, arguments: Any, draw: Any, budget: Any) -> Any:
        begun = last = time.perf_counter()
        with closing(map_(self, make, arguments, draw, budget)) as results:
            try:
                for pair in results:
                    last = time.perf_counter()
                    yield pair
            finally:  # also when what is left is called off
                wire.shared += last - begun

    patched = (
        (dask_client._Run, "_send", sent),
        (dask_client._Run, "_gathered", got),
        (dask_client.DaskCluster, "map", mapped),
    )
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in patched]
    for owner, name, new in patched:
        setattr(owner, name, new)
    try:
        yield
    finally:
        for owner, name, old in before:
            setattr(owner, name, old)


def warm() -> None:
    """What is imported once counts for no run; and memory is kept as workers keep it."""
    worker._keep_memory()
    leo_core.analyze(chain(4, 20, 20, 1, seed=1), (-1.0, 1.0))


def simulated(asked: tuple[Case, int, float]) -> list[Step]:
    """The steps of a client with so many workers."""
    case, count, cost = asked
    cluster = Virtual(count, cost)
    leo_core.analyze(case.model, case.domain, cluster=cluster, unit_time_limit=0)
    cluster.close()
    print(case.name, count, f"{cluster.now:.2f} s", file=sys.stderr, flush=True)
    return cluster.steps


def busy(steps: Sequence[Step]) -> float:
    """Seconds of workers."""
    return sum(step.seconds or 0.0 for step in steps)


def alone(steps: Sequence[Step]) -> float:
    """Seconds of the client while nothing is out."""
    total, out = 0.0, 0
    for step in steps:
        total += 0.0 if out else step.thought
        if step.batch:
            out += -1 if step.seconds is None else 1
    return total


def summary(steps: Sequence[Step], first: Sequence[Step], count: int) -> dict[str, float]:
    """What so many workers gain over the fewest that were simulated; ``work`` is how much more they did."""
    seconds = together([steps], count)
    return {
        "seconds": seconds,
        "gain": together([first], 1) / seconds,
        "work": busy(steps) / max(busy(first), 1e-9),
        "alone": alone(steps),
        "longest": max((step.seconds or 0.0 for step in steps), default=0.0),
    }


def campaign(runs: dict[int, Sequence[Step]]) -> dict[str, Any]:
    """Efficiencies of a campaign: each network a task of one worker, or each with its own client on one cluster.

    That is the seconds of one core alone over those of all workers until the end, and of clients while they work.
    """
    one = together([runs[min(runs)]], 1)
    found: dict[str, Any] = {"seconds of one": one, "a task each": {}, "a client each": {}}
    for count, steps in runs.items():
        rounds = -(-CAMPAIGN // count)
        found["a task each"][count] = CAMPAIGN / (count * rounds)
        spent = count * together([steps] * CAMPAIGN, count) + CAMPAIGN * sum(step.thought for step in steps)
        found["a client each"][count] = CAMPAIGN * one / spent
    return found


def page(figures: dict[str, Any]) -> str:
    """The page of the results."""
    networks = figures["networks"]
    one_by_one, batched = figures["overhead"].values()
    parts = [
        _PAGE.format(
            one=one_by_one, batched=1e3 * batched, cores=figures["cores"], load=figures["load"], dask=figures["dask"]
        ),
        *(_measured(name, found) for name, found in networks.items()),
        _SIMULATED,
    ]
    counts = list(next(iter(networks.values()))["simulated"])
    parts += _head("network", "", *counts)
    for name, found in networks.items():
        rows = found["simulated"]
        parts.append(_row(name, "times as fast", *(f"{row['gain']:.1f}" for row in rows.values())))
        parts.append(_row("", "efficiency", *(f"{row['gain'] / int(n):.0%}" for n, row in rows.items())))
        parts.append(_row("", "client alone, s", *(f"{row['alone']:.1f}" for row in rows.values())))
        parts.append(_row("", "longest batch, s", *(f"{row['longest']:.1f}" for row in rows.values())))
        parts.append(_row("", "work", *(f"{row['work']:.2f}" for row in rows.values())))
    for found in figures["campaign"]:
        parts += [_CAMPAIGN.format(count=CAMPAIGN, one=found["seconds of one"]), *_head("efficiency", *counts)]
        for way in ("a task each", "a client each"):
            parts.append(_row(way, *(f"{share:.0%}" for share in found[way].values())))
    return "\n".join(parts) + "\n"


def _measured(name: str, found: dict[str, Any]) -> str:
    here, one, two = found["one process"], found["1"], found["2"]
    idle = ["" if run["idle"] is None else f"{run['idle']:.0%}" for run in (one, two)]
    undecided = "" if not two["undecided"] else f" ({two['undecided']} open)"
    return _row(
        name + undecided, f"{here['seconds']:.1f}", f"{one['seconds']:.1f}", f"{two['seconds']:.1f}",
        f"{one['seconds'] / two['seconds']:.2f}", f"{one['alone']:.0%}, {two['alone']:.0%}", ", ".join(idle),
        two["tasks"], f"{two['mean']:.2f}", f"{two['longest']:.2f}",
        f"{two['sent'] / 1e3:,.1f}, {two['received'] / 1e3:,.1f}",
    )  # fmt: skip


def _head(*names: object) -> list[str]:
    return [_row(*names), "|---|" + "--:|" * (len(names) - 1)]


def _row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


_PAGE = """# What a Dask cluster costs and gains

By `benchmarks/cluster.py`: every ReLU decided, by `leo_core.analyze`, from the first bound to the last verdict, in
this process alone, by a cluster of one worker and by one of two, one after the other on {cores} cores (load
{load:.1f} at the beginning; Dask {dask}). The client is a process of its own beside them, on the same cores.

A task that does nothing costs {one:.1f} ms by itself, from its drawing to its result, and {batched:.0f} µs in a batch.

*Alone* is the share of the time when nothing is shared and only the client works: bounds, samples, attacks, and
halvings until there are boxes enough. *Idle* is the share of the rest in which workers had nothing to do. Tasks, their
mean and longest seconds and their kilobytes (there, back; pickled) are those of two workers.

| network | here, s | 1 worker, s | 2, s | 1 : 2 | alone 1, 2 | idle 1, 2 | tasks | mean s | longest s | kB |
|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"""

_SIMULATED = """
## With more workers: simulated

What hands work to Dask runs as it is, and so does what a worker does; only the clock is simulated
(`benchmarks/virtual.py`). Each batch is done here, and its seconds of CPU are measured; then it ends when the worker
that was free first would have done it. The client's own seconds count as they are, and so does the overhead above for
each batch; what the wire takes does not. *Client alone* is the bound: no number of workers makes that shorter. *Work*
is that of all workers, against that of one: more of them try more at once of what turns out not to be needed.
"""

_CAMPAIGN = """
## A campaign of {count} networks: simulated

{count} times the ACAS Xu network that is here, which takes one worker {one:.0f} s (those of the others are not known).
Either [each network is a task](../how-to/cluster.md#many-networks-at-once), and the longest one is the bound; or each
has a client of its own, a core for it beside the workers, and all clients share the workers. Efficiency is the seconds
of one core alone over those of all workers until the end, and of the clients' cores while they work.
"""


if __name__ == "__main__":
    main()
