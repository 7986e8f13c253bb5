"""Finding plug-ins: listed from metadata without importing them, loaded and called one at a time.

In pluggy one raising plug-in would empty a collecting call for all, so each gets a call of its own.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TypeAlias, final

import pluggy

from leo_core.checker.environment import settle
from leo_core.errors import FormatError, LeoError, MachineError, MissingExtraError, PluginError, first_line
from leo_core.milp.problem import NamedProblem
from leo_core.milp.solver import Solver
from leo_core.plugins import hookspecs
from leo_core.plugins.specs import ExecutorSpec, FrontendSpec, SolverSpec

Kind: TypeAlias = Literal["solver", "frontend", "executor"]
Spec: TypeAlias = SolverSpec | FrontendSpec | ExecutorSpec

_SPECS: dict[Kind, type[Any]] = {"solver": SolverSpec, "frontend": FrontendSpec, "executor": ExecutorSpec}

#: The order in which ``auto`` looks for a solver.
AUTO_SOLVERS = ("highs", "scip", "scipy")

_registered: dict[tuple[Kind, str], Any] = {}


@final
@dataclass(frozen=True)
class PluginStatus:
    """One line of ``leo plugins``: ``state`` is available, missing (``detail``: how to install) or broken."""

    kind: Kind
    name: str
    summary: str
    distribution: str
    state: Literal["available", "missing", "broken"]
    detail: str = ""


class _RunTime:
    """A plug-in registered while running: the same hook, called by the same door."""

    def __init__(self, kind: Kind, spec: Spec) -> None:
        @hookspecs.hookimpl
        def hook() -> Spec:
            return spec

        setattr(self, f"leo_{kind}", hook)


def register_solver(spec: SolverSpec) -> None:
    """Add a solver for this process; users then name it like any other.

    Raises :class:`PluginError` when the name is taken.
    """
    _register("solver", spec)


def register_frontend(spec: FrontendSpec) -> None:
    """Add a frontend for this process."""
    _register("frontend", spec)


def register_executor(spec: ExecutorSpec) -> None:
    """Add an executor for this process."""
    _register("executor", spec)


def solver(name: str, tell: Callable[[str], None] = lambda _text: None) -> Solver:
    """The solver of a name; ``auto`` is the first of :data:`AUTO_SOLVERS` that works, and ``tell`` hears why.

    Raises :class:`MissingExtraError` when its package is missing, :class:`PluginError` when it is
    unknown or broken.
    """
    if name == "auto":
        return _auto_solver(tell)
    spec = _require("solver", name)
    try:
        created: Solver = spec.create()
        settle()
    except LeoError:
        raise
    except Exception as error:
        raise PluginError(f"the solver '{name}' cannot be started: {type(error).__name__}: {error}") from error
    return created


def problem_writer() -> Callable[[NamedProblem, Path], None]:
    """What writes programs to files: HiGHS.

    Raises :class:`MissingExtraError` when its package is missing.
    """
    spec: SolverSpec = _require("solver", "highs")
    if spec.write_problem is None:
        raise PluginError("the solver 'highs' cannot write programs")
    return spec.write_problem


def frontends() -> tuple[FrontendSpec, ...]:
    """Every frontend that can be loaded; broken ones are left out (``leo plugins`` shows them)."""
    found = []
    for name in _names("frontend"):
        try:
            found.append(_load("frontend", name))
        except LeoError:
            continue
    return tuple(found)


def frontend(name: str) -> FrontendSpec:
    """The frontend of a name, its packages present."""
    spec: FrontendSpec = _require("frontend", name)
    return spec


def frontend_for_path(path: str | Path) -> FrontendSpec:
    """The frontend whose suffix a file has."""
    if not str(path):
        raise PluginError("the path of a model is empty; name a file")
    suffix = Path(path).suffix.lower()
    known = frontends()
    for spec in known:
        if suffix in spec.suffixes:
            return frontend(spec.name)
    listed = ", ".join(sorted(s for spec in known for s in spec.suffixes))
    raise PluginError(f"{path}: no frontend knows the suffix '{suffix}'; LEO knows {listed}")


def frontend_for_model(model: Any) -> FrontendSpec:
    """The frontend for a live model, by the modules its type and its bases come from."""
    modules = {base.__module__.partition(".")[0] for base in type(model).__mro__}
    for spec in frontends():
        if modules & set(spec.model_modules):
            return frontend(spec.name)
    raise PluginError(
        f"no frontend reads a live model of type {type(model).__module__}.{type(model).__qualname__}; "
        "save it as ONNX and pass the path"
    )


def executor_for(where: Any) -> ExecutorSpec:
    """The executor that a number of jobs, a cluster's address or a live object of its library is of."""
    for name in _names("executor"):
        try:
            spec: ExecutorSpec = _load("executor", name)
        except LeoError:  # ``leo plugins`` shows it
            continue
        if spec.takes(where):
            _require("executor", name)
            return spec
    said = f"'{where}'" if isinstance(where, str) else f"of type {type(where).__module__}.{type(where).__qualname__}"
    raise PluginError(
        f"no executor knows the cluster {said}; there are: {_listed('executor')}. "
        "Say tcp://HOST:PORT, tls://HOST:PORT, the scheduler's .json file, or local:N"
    )


@contextmanager
def blaming(spec: FrontendSpec, doing: str, path: str | Path | None = None) -> Iterator[None]:
    """Name the frontend whose function is ``doing`` something when it raises what is no error of LEO's.

    An OSError where ``path`` is written is left to whoever opened it; where it is read, it is said of the file.
    """
    where = "" if path is None else f"{path}: "
    try:
        yield
    except (LeoError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and path is not None:
            if doing == "writing":
                raise
            missing = isinstance(error, FileNotFoundError) and not Path(path).exists()
            said = "there is no such file" if missing else f"cannot be read ({error.strerror or error})"
            raise FormatError(f"{path}: {said}") from None
        raised = type(error).__name__ if str(error) in ("", type(error).__name__) else f"{type(error).__name__}: "
        said = raised + (first_line(error) if raised.endswith(": ") else "")
        raise PluginError(
            f"{where}the frontend '{spec.name}' ({_version(spec.name)}) failed while {doing}: {said}; "
            "it should raise one of LEO's errors: report this to its authors"
        ) from error


def listing() -> tuple[PluginStatus, ...]:
    """Every plug-in with its state, loaded one at a time; nothing here raises."""
    return tuple(_status(kind, name) for kind in _SPECS for name in _names(kind))


def _auto_solver(tell: Callable[[str], None]) -> Solver:
    passed_over = []
    for name in AUTO_SOLVERS:
        try:
            found = solver(name)
        except LeoError as error:
            passed_over.append(str(error))
            continue
        if passed_over:
            tell(f"solving with '{name}': {passed_over[0]}")
        return found
    raise PluginError(f"no solver can be used; 'leo plugins' lists them. {' '.join(passed_over)}")


def _status(kind: Kind, name: str) -> PluginStatus:
    owners = ", ".join(_distribution(point) for point in _points(kind) if point.name == name) or "this process"
    try:
        spec = _load(kind, name)
    except LeoError as error:
        return PluginStatus(kind, name, "", owners, "broken", str(error))
    missing = _missing(spec)
    if missing:
        return PluginStatus(kind, name, spec.summary, owners, "missing", str(_missing_error(kind, spec, missing)))
    return PluginStatus(kind, name, spec.summary, owners, "available")


def _version(name: str) -> str:
    """The distribution that a frontend comes from, with its version."""
    for point in _points("frontend"):
        if point.name == name and point.dist is not None:
            return f"{point.dist.name} {point.dist.version}"
    return "this process"


def _register(kind: Kind, spec: Any) -> None:
    if not isinstance(spec, _SPECS[kind]):
        raise PluginError(f"register_{kind} takes a {_SPECS[kind].__name__}, not {type(spec).__name__}")
    if spec.name in _names(kind):
        raise PluginError(f"there is already a {kind} named '{spec.name}'; choose another name")
    _registered[kind, spec.name] = _RunTime(kind, spec)


def _points(kind: Kind) -> tuple[EntryPoint, ...]:
    return _installed(tuple(sys.path), tuple(sys.meta_path))[kind]


@lru_cache(maxsize=1)
def _installed(_path: tuple[str, ...], _finders: tuple[Any, ...]) -> Mapping[Kind, tuple[EntryPoint, ...]]:
    """By kind, the plug-ins that are found there: to look through all distributions takes long where there are many."""
    found = entry_points()
    return {kind: tuple(found.select(group=f"leo.{kind}s")) for kind in _SPECS}


def _names(kind: Kind) -> tuple[str, ...]:
    found = [point.name for point in _points(kind)] + [name for at, name in _registered if at == kind]
    return tuple(dict.fromkeys(found))


def _distribution(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "an unknown distribution"


def _load(kind: Kind, name: str) -> Any:
    if not isinstance(name, str):
        raise PluginError(f"a {kind} is given by its name, not {name!r}; there are: {_listed(kind)}")
    plugin = _registered.get((kind, name))
    if plugin is None:
        points = [point for point in _points(kind) if point.name == name]
        if not points:
            raise PluginError(_unknown(kind, name))
        owners = sorted({f"{_distribution(point)} ({point.value})" for point in points})
        if len(owners) > 1:
            raise PluginError(f"the {kind} '{name}' is defined by {' and by '.join(owners)}; uninstall one of them")
        try:
            plugin = points[0].load()
            settle()  # a library may set the processor's arithmetic when it is loaded
        except MachineError:
            raise
        except Exception as error:
            raise PluginError(
                f"the {kind} '{name}' of {owners[0]} cannot be imported: {type(error).__name__}: {error}"
            ) from error
    return _call(kind, name, plugin)


def _call(kind: Kind, name: str, plugin: Any) -> Any:
    manager = pluggy.PluginManager("leo")
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(plugin, name=name)
        answers = getattr(manager.hook, f"leo_{kind}")()
        settle()
    except MachineError:
        raise
    except Exception as error:
        raise PluginError(f"the {kind} '{name}' failed when asked: {type(error).__name__}: {error}") from error
    if len(answers) != 1 or not isinstance(answers[0], _SPECS[kind]):
        raise PluginError(f"the {kind} '{name}' does not return a {_SPECS[kind].__name__} from a hook leo_{kind}")
    return answers[0]


def _require(kind: Kind, name: str) -> Any:
    spec = _load(kind, name)
    missing = _missing(spec)
    if missing:
        raise _missing_error(kind, spec, missing)
    return spec


def _missing(spec: Any) -> str | None:
    for package in spec.packages:
        try:
            present = find_spec(package) is not None
        except (ImportError, ValueError):
            present = False
        if not present:
            return str(package)
    return None


def _missing_error(kind: Kind, spec: Any, package: str) -> LeoError:
    if spec.extra is None:
        return PluginError(f"the {kind} '{spec.name}' needs the package '{package}', which is not installed")
    return MissingExtraError(f"the {kind} '{spec.name}'", package, spec.extra)


def _unknown(kind: Kind, name: str) -> str:
    close = difflib.get_close_matches(name, _names(kind), n=1)
    hint = f" (did you mean '{close[0]}'?)" if close else ""
    return f"there is no {kind} '{name}'{hint}; there are: {_listed(kind)}"


def _listed(kind: Kind) -> str:
    return ", ".join(sorted(_names(kind))) or "none"
