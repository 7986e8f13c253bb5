"""Models in and out: whichever frontend knows a file or a live model reads it, and no crash leaves half a file."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from leo_core.environment import ieee, undisturbed
from leo_core.errors import FormatError, LeoError, OutputError, PluginError
from leo_core.execution.events import Listener, Note, silent
from leo_core.network import Network
from leo_core.plugins import FrontendSpec, Imported, registry


@ieee()
def read(model: Any, listener: Listener = silent, shape: tuple[int, ...] | None = None) -> tuple[Imported, str]:
    """(a model as LEO sees it, the name of the frontend that read it), from a path or a live model.

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
        imported = undisturbed(lambda: read_file(path))
    else:
        spec = registry.frontend_for_model(model)
        if spec.read_model is None:
            raise PluginError(f"the frontend '{spec.name}' cannot read live models; save it to a file")
        read_model = spec.read_model
        imported = undisturbed(lambda: read_model(model, shape))
    for note in imported.notes:
        listener(Note(note))
    return imported, spec.name


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


@ieee()
def write(network: Network, path: str | Path) -> Path:
    """Write a network under a temporary name, then rename it into place."""
    spec = output_frontend(path)
    write_file = spec.write_file
    assert write_file is not None
    with replacing(path) as temporary:
        undisturbed(lambda: write_file(network, temporary))
    return Path(path)


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path``; what is written there takes its place in the end.

    Raises :class:`OutputError` when that fails.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.stem}.{secrets.token_hex(4)}{target.suffix}")
    try:
        yield temporary
        temporary.replace(target)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from None
    except LeoError as error:  # a frontend's own; it names the file it was given
        error.args = (str(error).replace(str(temporary), str(path)),)
        raise
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
