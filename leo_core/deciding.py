"""From what a user asks for to verdicts: options, domain and listener taken, workers and a checkpoint at hand."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

import leo_core
from leo_core.checker.environment import settle
from leo_core.domain import Box
from leo_core.errors import UsageError
from leo_core.execution.budget import Budget, Limits
from leo_core.execution.checkpoint import Checkpoint
from leo_core.execution.events import Listener, Note
from leo_core.execution.executor import Executor, Here
from leo_core.milp.checked import CheckedSolver
from leo_core.milp.solver import Solver
from leo_core.network import Network
from leo_core.options import Options
from leo_core.plugins import Needs, registry
from leo_core.stability import Work


class Heard:
    """Passes events on and keeps the notes for the result."""

    def __init__(self, listener: Listener) -> None:
        if not callable(listener):
            raise UsageError(
                f"the listener must be a function of one event, not {listener!r}; leave it out for silence"
            )
        self._listener = listener
        self.notes: list[str] = []

    def __call__(self, event: Any) -> None:
        if isinstance(event, Note) and not event.passing:
            self.notes.append(event.text)
        self._listener(event)
        settle()


def options_of(given: Mapping[str, Any]) -> Options:
    """Raises :class:`UsageError` for one that there is not, or that is none of its values."""
    try:
        return Options(**given)
    except TypeError:
        known = ", ".join([*Options.__dataclass_fields__, "listener", "progress"])
        unknown = ", ".join(sorted(set(given) - set(Options.__dataclass_fields__)))
        raise UsageError(f"there is no option {unknown}; there are: {known}") from None


def box_of(domain: Any, network: Network, listener: Listener) -> Box:
    """The domain of a network, what there is to say of it said."""
    box = Box.of(domain, network.input_size)
    for note in box.notes:
        listener(Note(note))
    return box


@contextmanager
def work_of(
    network: Network, box: Box, settings: Options, budget: Budget, listener: Listener, given: Solver | None = None
) -> Iterator[Work]:
    """What the settings ask for, by their solver or the one given; its workers and its checkpoint end with it."""
    if settings.trust == "solver":
        listener(
            Note(
                "stable verdicts rest on the solver's word (--trust solver); the deviation is not proved; leave "
                "the option out for proofs"
            )
        )
    solver = given or registry.solver(settings.solver, lambda text: listener(Note(text)))
    with (
        closing(executor_of(settings, solver, listener)) as executor,
        checkpoint_of(network, box, settings, solver.name, listener) as checkpoint,
    ):
        yield Work(
            network,
            box,
            CheckedSolver(solver, lambda text: listener(Note(text))),
            strategy=settings.strategy,
            trust=settings.trust,
            limits=Limits(budget, *settings.unit_limits),
            every_unit=settings.every_unit,
            seed=settings.seed,
            executor=executor,
            checkpoint=checkpoint,
        )


def executor_of(settings: Options, solver: Solver, listener: Listener) -> Executor:
    """Who shares the work: this process alone, others beside it, or a cluster."""
    flag = "--jobs" if settings.cluster is None else "--cluster"
    if settings.cluster is None and settings.jobs == 1:
        return Here()
    if settings.strategy != "cascade":
        listener(
            Note(
                f"the {settings.strategy} strategy asks one MILP after the other; {flag} has no effect on it; the "
                "cascade shares its work"
            )
        )
        return Here()
    if type(solver).__module__ == "__main__":
        listener(Note(f"the solver '{solver.name}' lives in the running script, where workers cannot see it: one job"))
        return Here()
    where = settings.jobs if settings.cluster is None else settings.cluster
    return registry.executor_for(where).start(where, Needs.here(solver.name), lambda text: listener(Note(text)))


def checkpoint_of(network: Network, box: Box, settings: Options, solver: str, listener: Listener) -> Checkpoint:
    """What the options name, or one that keeps nothing; it is about all that verdicts may depend on."""
    if settings.checkpoint is None:
        return Checkpoint()
    about = {
        "LEO": leo_core.__version__,
        "network": network.digest,
        "domain": hashlib.sha256(box.lower.tobytes() + box.upper.tobytes()).hexdigest(),
        "strategy": settings.strategy,
        "solver": solver,
        "trust": settings.trust,
        "seed": str(settings.seed),
    }
    checkpoint = Checkpoint.open(settings.checkpoint, about, lambda text: listener(Note(text)))
    if checkpoint.count:
        listener(
            Note(f"goes on from {settings.checkpoint}: {checkpoint.count} entries of earlier work, each checked again")
        )
    return checkpoint


def solver_of(settings: Options, listener: Listener) -> CheckedSolver:
    """The solver that the options name, not believed."""
    return CheckedSolver(registry.solver(settings.solver), lambda text: listener(Note(text)))
