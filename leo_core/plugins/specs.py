"""What a plug-in hands over: a frozen description with functions that do the work when called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from leo_core.milp.solver import Solver
from leo_core.network import Network, Rounding


@final
@dataclass(frozen=True)
class SolverSpec:
    """A MILP solver: ``create`` imports the solver's package and nothing before it does.

    ``packages`` are the importable modules it needs, ``extra`` the extra of ours that brings them.
    """

    name: str
    summary: str
    create: Callable[[], Solver]
    packages: tuple[str, ...] = ()
    extra: str | None = None


@final
@dataclass(frozen=True)
class Imported:
    """A model as LEO sees it, with everything a user should be told about the reading of it."""

    network: Network
    notes: tuple[str, ...] = ()
    rounding: Mapping[str, Rounding] = field(default_factory=dict)


@final
@dataclass(frozen=True)
class FrontendSpec:
    """A model format. A function that is None is not supported; each raises only LeoError subclasses.

    Attributes
    ----------
    suffixes:
        File suffixes with the dot, lower case; empty when the format has no files.
    read_file:
        ``(path) -> Imported``.
    write_file:
        ``(network, path) -> None``; the caller renames ``path``, a temporary name with the right
        suffix, into place.
    model_modules:
        Top-level modules of live model types this frontend reads (``("torch",)``).
    read_model, write_model:
        ``(model, input shape of one example or None) -> Imported``; ``(network) -> model``.
    run_model:
        ``(model, inputs) -> outputs``, as the framework computes them: examples × the model's own shapes. The
        conformance kit compares with it.
    """

    name: str
    summary: str
    suffixes: tuple[str, ...] = ()
    read_file: Callable[[Path], Imported] | None = None
    write_file: Callable[[Network, Path], None] | None = None
    model_modules: tuple[str, ...] = ()
    read_model: Callable[[Any, tuple[int, ...] | None], Imported] | None = None
    write_model: Callable[[Network], Any] | None = None
    run_model: Callable[[Any, Any], Any] | None = None
    packages: tuple[str, ...] = ()
    extra: str | None = None


@final
@dataclass(frozen=True)
class ExecutorSpec:
    """A way to run independent jobs: ``create(jobs)`` returns a :class:`concurrent.futures.Executor`."""

    name: str
    summary: str
    create: Callable[[int], Any]
    packages: tuple[str, ...] = ()
    extra: str | None = None
