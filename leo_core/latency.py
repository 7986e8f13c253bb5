"""How long one input takes in ONNX Runtime: a network and what became of it, run in turn so that both see one machine.

A busy machine slows both alike, and medians keep out the runs that were held up. What is measured holds for the
machine, the runtime and the hour it was measured in, and is promised of no other.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from leo_core.checker.environment import undisturbed
from leo_core.door import Array
from leo_core.errors import LeoError
from leo_core.execution.budget import Budget
from leo_core.network import Network
from leo_core.plugins import FrontendSpec, registry

#: The frontend whose runtime is asked.
FRONTEND = "onnx"
#: Seconds that the measuring may take once it has its fewest runs; its fewest and most runs, of each network.
_SECONDS, _FEWEST, _MOST = 1.0, 11, 2000


@final
@dataclass(frozen=True)
class Spread:
    """Of the seconds that single runs took: their median, and the quartiles below and above it."""

    median: float
    lower: float
    upper: float


@final
@dataclass(frozen=True)
class Latency:
    """What one input at a time takes on one thread.

    Attributes
    ----------
    runtime:
        What ran them, and its version.
    runs:
        How often each network was run, the one after the other.
    before, after:
        Of the original and of the result.
    """

    runtime: str
    runs: int
    before: Spread
    after: Spread


def stopwatch() -> FrontendSpec:
    """The frontend that measures. Raises :class:`LeoError` where its package, or its runtime, is missing: asked before
    any work, so that none is lost."""
    spec = registry.frontend(FRONTEND)
    assert spec.runtime is not None
    spec.runtime()
    return spec


def measure(before: Network, after: Network, points: Array, budget: Budget) -> Latency | str:
    """The latency of two networks at some points (count, inputs), or why there is none: no time, or a network that the
    format does not hold."""
    spec = stopwatch()
    assert spec.runtime is not None
    assert spec.write_file is not None
    assert spec.deploy is not None
    if budget.expired:
        return "no time was left"
    runs: list[Callable[[Array], Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            for number, network in enumerate((before, after)):
                path = Path(folder) / f"network{number}{spec.suffixes[0]}"
                with registry.blaming(spec, "writing", path):
                    spec.write_file(network, path)
                    runs.append(undisturbed(lambda path=path: spec.deploy(path)))  # type: ignore[misc]
        except LeoError as error:
            return str(error)
        shape = before.signature.input_shape or (before.input_size,)
        inputs = [np.ascontiguousarray(point.reshape(1, *shape).astype(before.dtype)) for point in points]
        seconds = _in_turn(runs, inputs, budget)
    return Latency(spec.runtime(), len(seconds), *(_spread(column) for column in seconds.T))


def _in_turn(runs: list[Callable[[Array], Any]], inputs: list[Array], budget: Budget) -> Array:
    """(rounds, networks): the seconds of each run. Which comes first alternates, and the first round is not counted."""
    seconds: list[list[float]] = []
    limit = budget.at_most(_SECONDS)
    while len(seconds) <= _FEWEST or (len(seconds) <= _MOST and not limit.expired):
        x = inputs[len(seconds) % len(inputs)]
        took = [0.0] * len(runs)
        for which in range(len(runs)) if len(seconds) % 2 else reversed(range(len(runs))):
            begun = time.perf_counter()
            runs[which](x)
            took[which] = time.perf_counter() - begun
        seconds.append(took)
    return np.array(seconds[1:])


def _spread(seconds: Array) -> Spread:
    lower, median, upper = np.quantile(seconds, [0.25, 0.5, 0.75]).tolist()
    return Spread(median, lower, upper)
