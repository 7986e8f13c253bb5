"""Models in and out: whichever frontend knows a file or a live model reads it, and no crash leaves half a file.

Everything that is read or written goes through the door (:mod:`leo_core.door`) here.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

from leo_core import door
from leo_core.checker.environment import ieee, undisturbed
from leo_core.domain import Box, input_shape
from leo_core.door import Array, Reading
from leo_core.errors import DomainError, DoorError, FormatError, LeoError, OutputError, PluginError
from leo_core.execution.events import Listener, Note, silent
from leo_core.network import Network
from leo_core.paths import replacing
from leo_core.plugins import FrontendSpec, Imported, registry


@ieee()
def read(model: Any, listener: Listener = silent, domain: Any = None) -> tuple[Imported, str]:
    """(a model as LEO sees it, the name of the frontend that read it), from a path or a live model.

    ``domain`` is whatever :meth:`Box.of` takes: the door tries inputs of it, and live models that do not know the shape
    of their input get it from there. Raises :class:`DoorError` where the framework computes something else than what
    was read.
    """
    imported, spec = lower(model, input_shape(domain))
    status = "not run: no framework runs it"
    if imported.run is not None:
        box = _fitting(domain, imported.network.input_size)
        try:
            status = door.agrees(as_read(imported), door.inputs_at(imported.network, box))
        except DoorError as error:
            where = model if isinstance(model, str | Path) else f"the {type(model).__name__}"
            raise DoorError(
                f"{where}: LEO has misread this model, so there is no result: {error}. Please report it with the model"
            ) from None
    elif imported.not_run:
        status = f"not run: {imported.not_run}"
    for note in imported.notes:
        listener(Note(note))
    if status != door.AGREES and (imported.run is not None or imported.not_run):
        listener(
            Note(
                f"what was read is not compared with the model itself, {status}; what is proved is about what LEO "
                "read, so compare a few outputs of the result with the model's own"
            )
        )
    return replace(imported, door=status), spec.name


def as_read(imported: Imported) -> Reading:
    """A model that has been read, and that its framework can run, as the door takes it."""
    assert imported.run is not None
    return Reading(imported.network, imported.run, imported.runs_in, imported.loose, imported.inside)


def lower(model: Any, shape: tuple[int, ...] | None = None) -> tuple[Imported, FrontendSpec]:
    """What a frontend makes of a model, not yet through the door, and that frontend.

    ``shape`` is that of one example of the input, for live models that do not say it themselves.
    """
    if isinstance(model, str | Path):
        path = Path(model)
        if path.is_dir() and str(model):  # Path("") is the folder "."
            raise FormatError(
                f"{path}: is a folder, not a model file (a SavedModel says nothing of its layers: save it as .keras)"
            )
        spec = registry.frontend_for_path(model)
        if spec.read_file is None:
            raise PluginError(f"{path}: the frontend '{spec.name}' cannot read files")
        read_file = spec.read_file
        with registry.blaming(spec, "reading", path):
            return undisturbed(lambda: read_file(path)), spec
    spec = registry.frontend_for_model(model)
    if spec.read_model is None:
        raise PluginError(f"the frontend '{spec.name}' cannot read live models; save it to a file")
    read_model = spec.read_model
    with registry.blaming(spec, "reading a model"):
        return undisturbed(lambda: read_model(model, shape)), spec


def _fitting(domain: Any, size: int) -> Box | None:
    try:
        return None if domain is None else Box.of(domain, size)
    except DomainError:  # it is reported where it is needed
        return None


def output_frontend(path: str | Path) -> FrontendSpec:
    """The frontend that will write ``path``; asked before any work, so that none is lost.

    Raises :class:`OutputError` when the folder is missing or not writable, :class:`PluginError` for an
    unknown suffix.
    """
    spec = registry.frontend_for_path(path)
    if spec.write_file is None:
        raise PluginError(f"{path}: the frontend '{spec.name}' cannot write files")
    require_writable(path)
    return spec


def require_writable(path: str | Path) -> None:
    """Raise :class:`OutputError` when a file cannot be written there: asked before any work, so that none is lost."""
    target = Path(path)
    if target.is_dir():
        raise OutputError(f"{path}: is a folder; give the name of a file")
    if not target.parent.is_dir():
        raise OutputError(f"{path}: there is no folder '{target.parent}'; create it first")
    if not os.access(target.parent, os.W_OK):
        raise OutputError(f"{path}: the folder '{target.parent}' is not writable")


@final
@dataclass(frozen=True)
class Written:
    """A file, and what the door found."""

    path: Path
    door: str


@final
@dataclass(frozen=True, eq=False)
class Source:
    """The model that a network came from, at most ``deviation`` away from it, for comparison with what is written."""

    reading: Reading
    deviation: float


@ieee()
def write(network: Network, path: str | Path, points: Array | None = None, source: Source | None = None) -> Written:
    """Write a network under a temporary name, let the door look at it, then rename it into place.

    ``points`` (10, inputs) are what the door tries. Raises :class:`DoorError` where the file computes something else.
    """
    spec = output_frontend(path)
    write_file = spec.write_file
    assert write_file is not None
    with replacing(path) as temporary, registry.blaming(spec, "writing", path):
        undisturbed(lambda: write_file(network, temporary))
        try:
            status = _written(spec, network, temporary, points, source)
        except DoorError as error:
            raise DoorError(f"{path}: {_MISWRITTEN}: {error}. {_REPORT}") from None
    return Written(Path(path), status)


def live(network: Network, spec: FrontendSpec, points: Array | None = None, source: Source | None = None) -> Any:
    """A network as a live model of a framework, through the door as in :func:`write`."""
    assert spec.write_model is not None
    model = spec.write_model(network)
    if spec.run_model is not None:
        run = spec.run_model
        try:
            _compared(spec, network, lambda inputs: run(model, inputs), points, source)
        except DoorError as error:
            raise DoorError(f"a model of '{spec.name}': {_MISWRITTEN}: {error}. {_REPORT}") from None
    return model


_MISWRITTEN = "LEO has written something else than it computed, so it is withdrawn"
_REPORT = "Please report it; a .leo file keeps the result as it is"


def _written(spec: FrontendSpec, network: Network, path: Path, points: Array | None, source: Source | None) -> str:
    if spec.run_file is not None:
        return _compared(spec, network, spec.run_file(path), points, source)
    if spec.read_file is None:
        return "not run: no framework runs it"
    back = spec.read_file(path).network

    def run(inputs: Array) -> dict[str, Array]:
        values = back.signature.finished(back.evaluate(inputs.reshape(len(inputs), -1)))
        return dict(zip(back.signature.names, values, strict=True))

    door.agrees(Reading(network, run), _tried(network, points))
    return "not run: no framework runs it; LEO reads it back as it was"


def _compared(spec: FrontendSpec, network: Network, run: door.Run, points: Array | None, source: Source | None) -> str:
    reading = Reading(network, run, spec.runs_in(network) if spec.runs_in else "")
    tried = _tried(network, points)
    status = door.agrees(reading, tried)
    if source is not None:
        door.alike(source.reading, reading, tried, source.deviation)
    return status


def _tried(network: Network, points: Array | None) -> Array:
    return door.inputs_at(network, None) if points is None else points


def sizes_written(original: Network, path: str | Path) -> tuple[int, int] | None:
    """Bytes that ``original`` takes as LEO writes it in the format of ``path``, and bytes of that file; like with like.

    A file from elsewhere may hold an optimiser's state, or a graph that a compiler laid out. None where the format does
    not hold the original.
    """
    spec = output_frontend(path)
    assert spec.write_file is not None
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(LeoError, OSError):
        twin = Path(folder) / f"original{Path(path).suffix}"
        with registry.blaming(spec, "writing", twin):
            spec.write_file(original, twin)
        return twin.stat().st_size, Path(path).stat().st_size
    return None


def write_text(text: str, path: str | Path) -> None:
    """Write a text under a temporary name, then rename it into place. Raises :class:`OutputError`."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
