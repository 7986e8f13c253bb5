"""What a plug-in hands over: a frozen description with functions that do the work when called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from leo_core.execution.executor import Executor
from leo_core.milp.problem import NamedProblem
from leo_core.milp.solver import Solver
from leo_core.network import Network, Rounding
from leo_core.plugins.needs import Needs


@final
@dataclass(frozen=True)
class SolverSpec:
    """A MILP solver: ``create`` imports the solver's package and nothing before it does.

    ``packages`` are the importable modules it needs, ``extra`` the extra of ours that brings them. ``write_problem``
    writes a program to a ``.mps`` or ``.lp`` file, where the solver can.
    """

    name: str
    summary: str
    create: Callable[[], Solver]
    packages: tuple[str, ...] = ()
    extra: str | None = None
    write_problem: Callable[[NamedProblem, Path], None] | None = None


@final
@dataclass(frozen=True)
class Imported:
    """A model as LEO sees it, with everything a user should be told about the reading of it.

    Attributes
    ----------
    rounding:
        By node, how far the stored numbers may be from what the model means.
    run:
        The framework itself runs the model: ``(count, *input shape)`` → (count, …), in one batch where the model allows
        that, whatever follows the network (a softmax) included. The door compares with it. None where it is not run.
    not_run:
        Why not, where a user should know; empty where no framework runs such models.
    inside:
        Values of layers by their names (:class:`~leo_core.network.Origin`), each (count, …), where the framework
        tells them: for errors only.
    runs_in:
        The type the framework computes in where that is narrower than the network's: "float32", "float16", "bfloat16".
    loose:
        By node, how far its numbers may be from the stored ones when the framework runs it, in units of roundoff: a
        batch norm computed in several rounded steps.
    door:
        What the door found; :mod:`leo_core.files` fills it in.
    """

    network: Network
    notes: tuple[str, ...] = ()
    rounding: Mapping[str, Rounding] = field(default_factory=dict)
    run: Callable[[Any], Any] | None = None
    not_run: str = ""
    inside: Callable[[Any], Mapping[str, Any]] | None = None
    runs_in: str = ""
    loose: Mapping[str, Rounding] = field(default_factory=dict)
    door: str = ""


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
        ``(model, inputs) -> outputs``, as the framework computes them: examples × the model's own shapes. The door asks
        it about live models that LEO made, and the conformance kit does.
    run_file:
        ``(path) -> run``: opens a file that LEO has just written, and runs it as :attr:`Imported.run` does.
    runtime, deploy:
        ``() -> str``: the runtime that models of the format are used in, and its version, or a LeoError that says how
        to get it; ``(path) -> run``: opens a file that LEO has written in it, optimised and on one thread. Latency is
        measured so.
    runs_in:
        ``(network) -> type``: what a model of that network, written by LEO, is computed in, where that is narrower than
        its dtype ("float32"), else "".
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
    run_file: Callable[[Path], Callable[[Any], Any]] | None = None
    runtime: Callable[[], str] | None = None
    deploy: Callable[[Path], Callable[[Any], Any]] | None = None
    runs_in: Callable[[Network], str] | None = None
    packages: tuple[str, ...] = ()
    extra: str | None = None


@final
@dataclass(frozen=True)
class ExecutorSpec:
    """Where independent work is done.

    Attributes
    ----------
    takes:
        ``(where) -> bool``: whether that is one of its own: a number of jobs, a cluster's address, a live object of its
        library. Imports nothing.
    start:
        ``(where, needs, note) -> Executor``, ready to work: reached, and its workers looked at. Those that lack what
        ``needs`` says get no work, and ``note`` is told which and why, now and when one joins later. Raises LeoError
        subclasses only.
    """

    name: str
    summary: str
    takes: Callable[[Any], bool]
    start: Callable[[Any, Needs, Callable[[str], None]], Executor]
    packages: tuple[str, ...] = ()
    extra: str | None = None
