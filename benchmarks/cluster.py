"""What a Dask cluster costs and gains: measured with one worker and two on this machine, simulated with more.

    python benchmarks/cluster.py [--results 12] [--networks PART …] [--json FILE]

Through the front door, ``leo_core.analyze(…, cluster=client)``, on ACAS Xu's whole input box, VertCAS and a network of
4 inputs, each stopped, as Ctrl-C does it, after so many results of the cluster. Of each run: the seconds between the
first result and the last, the share of them in which workers were idle, batches, and the bytes of tasks and results,
pickled. Overhead is that of tasks which do nothing, one by one and in batches.

The simulation replays the seconds that tasks took with one worker. A task can start when those are done that its boxes
come from, on the worker that is free first, in the order drawn, at the measured overhead; what happens in the client
between them is as it was. ``bound`` is the speed-up that the longest chain of tasks allows. A campaign of 45 networks
is simulated as 45 times the first one, each network a task of its own.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import pickle
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import distributed
from listing import NETS
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

import leo_core
from leo_backends.dask import client as dask_client
from leo_core.execution.budget import Budget
from leo_core.plugins import Needs, registry
from leo_core.search import boxes
from leo_core.testing.executor_kit import Probe
from leo_core.testing.networks import chain

WORKERS = (1, 2, 8, 16, 32, 64, 128, 256)
CAMPAIGN = 45


@dataclass
class Replay:
    """One run's tasks in the order drawn: seconds, tasks they come from; and what went over the wire."""

    seconds: list[float] = field(default_factory=list)
    after: list[list[int]] = field(default_factory=list)
    batches: int = 0
    sent: int = 0
    received: int = 0
    times: list[float] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=int, default=12, help="results of the cluster after which a run is stopped")
    parser.add_argument("--networks", nargs="*", default=("ACAS", "VertCAS", "4 inputs"))
    parser.add_argument("--nets", type=Path, default=NETS)
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args()
    acas, vertical = (
        arguments.nets / name
        for name in ("acasxu/ACASXU_experimental_v2a_1_1", "verticalcas/VertCAS_pra01_v4_45HU_200")
    )
    cases = {
        "ACAS Xu, whole box": (acas.with_suffix(".nnet"), acas.with_suffix(".domain.json")),
        "VertCAS pra01": (vertical.with_suffix(".nnet"), vertical.with_suffix(".domain.json")),
        "made, 4 inputs, 48-48-48": (chain(4, 48, 48, 48, 2, seed=1), (-1.0, 1.0)),
    }
    figures: dict[str, Any] = {"load": os.getloadavg(), "cores": os.cpu_count(), "networks": {}}
    with workers(1) as one, workers(2) as two:
        figures["overhead"] = {"one by one": overhead(one, 1), "batched": overhead(one, 256)}
        print("overhead, ms per task:", figures["overhead"], file=sys.stderr)
        for name, (model, domain) in cases.items():
            if not any(part in name for part in arguments.networks):
                continue
            runs = {count: run(model, domain, client, arguments.results) for count, client in ((1, one), (2, two))}
            figures["networks"][name] = shown = of_case(runs, figures["overhead"]["one by one"])
            print(name, json.dumps({key: value for key, value in shown.items() if key != "seconds"}), file=sys.stderr)
    tell(figures)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


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


def run(model: Any, domain: Any, client: Any, results: int) -> Replay:
    """Decide until so many results of the cluster are in."""
    seen = Replay()
    with watched(seen, results):
        leo_core.analyze(model, domain, cluster=client)
    return seen


@contextmanager
def watched(seen: Replay, results: int) -> Iterator[None]:
    """Note what goes out and comes in; interrupt after so many results."""
    originals = dask_client._Run._send, dask_client._Run._gathered, dask_client.DaskCluster.map, boxes._Search.merge
    send, gathered, map_, merge = originals
    grown: list[tuple[int, int, int]] = []  # nodes from, to, and the task they come from
    number: dict[int, int] = {}
    kept: list[Any] = []  # so that no id comes twice

    def sent(self: Any, batch: Any) -> None:
        seen.batches += 1
        seen.sent += len(pickle.dumps(batch.tasks))
        send(self, batch)

    def got(self: Any, future: Any) -> Any:
        done = gathered(self, future)
        if done is not None:
            seen.received += len(pickle.dumps(done))
            self.latest = [seconds for seconds, _, _ in done]
        return done

    def mapped(self: Any, make: Any, arguments: Any, draw: Any, budget: Any) -> Any:
        grown.clear()
        phase = len(seen.seconds)

        def drawn() -> Any:
            task = draw()
            if task is not None:
                number[id(task)] = len(seen.seconds)
                kept.append(task)
                seen.seconds.append(0.0)
                nodes = getattr(task, "node", None)
                after = [at for low, high, at in grown if nodes is not None and ((nodes >= low) & (nodes < high)).any()]
                seen.after.append(after or ([phase - 1] if phase else []))
            return task

        for task, result in map_(self, make, arguments, drawn, budget):
            seen.times.append(time.perf_counter())
            yield task, result
            if len(seen.times) >= results:
                raise KeyboardInterrupt

    def taken(self: Any, key: str) -> Any:
        for task, result in take(self, key):
            seen.seconds[number[id(task)]] = self.latest.pop(0)
            yield task, result

    def merged(self: Any, part: Any, found: Any) -> None:
        before = self._tree.count
        merge(self, part, found)
        grown.append((before, self._tree.count, number[id(part)]))

    take = dask_client._Run._take
    patched: tuple[tuple[Any, str, Any], ...] = (
        (dask_client._Run, "_send", sent), (dask_client._Run, "_gathered", got), (dask_client._Run, "_take", taken),
        (dask_client.DaskCluster, "map", mapped), (boxes._Search, "merge", merged),
    )  # fmt: skip
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in patched]
    for owner, name, new in patched:
        setattr(owner, name, new)
    try:
        yield
    finally:
        for owner, name, old in before:
            setattr(owner, name, old)


def of_case(runs: dict[int, Replay], overhead_ms: float) -> dict[str, Any]:
    one, two = runs[1], runs[2]
    walls = {count: seen.times[-1] - seen.times[0] if len(seen.times) > 1 else 0.0 for count, seen in runs.items()}
    done = [(seconds, after) for seconds, after in zip(one.seconds, one.after, strict=True)]
    kept = [k for k, (seconds, _) in enumerate(done) if seconds > 0]
    place = {k: n for n, k in enumerate(kept)}
    seconds = [done[k][0] for k in kept]
    after = [[place[a] for a in done[k][1] if a in place] for k in kept]
    total = sum(seconds)
    spans = {count: simulate(seconds, after, count, overhead_ms / 1e3) for count in WORKERS}
    return {
        "tasks": len(seconds),
        "seconds": [round(value, 4) for value in seconds],
        "mean": total / max(1, len(seconds)),
        "longest": max(seconds, default=0.0),
        "two against one": walls[1] / walls[2] if walls[2] else None,
        "idle": {n: 1 - sum(runs[n].seconds) / (n * walls[n]) if walls[n] else None for n in runs},
        "batches": one.batches,
        "bytes sent per task": one.sent / max(1, len(one.seconds)),
        "bytes received per task": one.received / max(1, len(seconds)),
        "bound": total / max(chain_of(seconds, after), 1e-9),
        "efficiency": {count: total / (count * span) if span else None for count, span in spans.items()},
        "results in two": len(two.times),
    }


def chain_of(seconds: list[float], after: list[list[int]]) -> float:
    """The longest chain of tasks of which each needs the one before."""
    ends: list[float] = []
    for took, needs in zip(seconds, after, strict=True):
        ends.append(took + max((ends[at] for at in needs), default=0.0))
    return max(ends, default=0.0)


def simulate(seconds: list[float], after: list[list[int]], count: int, overhead_s: float) -> float:
    """Seconds until all tasks are done, each begun in turn by the worker that is free first."""
    free = [0.0] * count
    ends: list[float] = []
    for took, needs in zip(seconds, after, strict=True):
        begin = max(heapq.heappop(free), max((ends[at] for at in needs), default=0.0))
        ends.append(begin + took + overhead_s)
        heapq.heappush(free, ends[-1])
    return max(ends, default=0.0)


def tell(figures: dict[str, Any]) -> None:
    console = Console(width=160)
    print("overhead per task: " + ", ".join(f"{way} {ms:.2f} ms" for way, ms in figures["overhead"].items()))
    shown = Table(box=MARKDOWN)
    for at, text in enumerate(
        ("network", "tasks", "mean s", "longest s", "2 against 1", "idle 1", "idle 2", "sent B", "back B")
    ):
        shown.add_column(text, justify="right" if at else "left", no_wrap=True)
    for name, found in figures["networks"].items():
        ratio, idle = found["two against one"], found["idle"]
        shown.add_row(
            name, str(found["tasks"]), f"{found['mean']:.2f}", f"{found['longest']:.2f}",
            "" if ratio is None else f"{ratio:.2f}", *("" if idle[n] is None else f"{idle[n]:.0%}" for n in (1, 2)),
            f"{found['bytes sent per task']:,.0f}", f"{found['bytes received per task']:,.0f}",
        )  # fmt: skip
    console.print(shown)
    simulated = Table(box=MARKDOWN)
    for at, text in enumerate(("simulated efficiency", "bound", *map(str, WORKERS))):
        simulated.add_column(text, justify="right" if at else "left", no_wrap=True)
    for name, found in figures["networks"].items():
        if not found["tasks"]:
            continue
        shares = [f"{found['efficiency'][count]:.0%}" for count in WORKERS]
        simulated.add_row(name, f"{found['bound']:.1f}", *shares)
    console.print(simulated)


if __name__ == "__main__":
    main()
