"""LEO's own ``.leo`` files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from leo_core import storage
from leo_core.errors import UnsupportedModelError
from leo_core.network import Network
from leo_core.plugins import FrontendSpec, Imported, hookimpl


@hookimpl
def leo_frontend() -> FrontendSpec:
    """Describe LEO's own file."""
    return FrontendSpec(
        name="leo",
        summary="LEO's own file: one archive, no code, with a checksum",
        suffixes=(".leo",),
        read_file=read_file,
        write_file=write_file,
        model_modules=("leo_core",),
        read_model=read_live_model,
        write_model=write_live_model,
    )


def read_file(path: Path) -> Imported:
    """Read a ``.leo`` file."""
    return Imported(storage.load(path))


def read_live_model(model: Any, _input_shape: tuple[int, ...] | None = None) -> Imported:
    """A :class:`Network` is its own live model."""
    if not isinstance(model, Network):
        raise UnsupportedModelError(f"a {type(model).__name__}", ["only a leo_core.Network is a model"])
    return Imported(model)


def write_live_model(network: Network) -> Network:
    """A :class:`Network` is its own live model."""
    return network


def write_file(network: Network, path: Path) -> None:
    """Write a ``.leo`` file."""
    storage.save(network, path)
