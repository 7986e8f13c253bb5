"""LEO's own ``.leo`` files."""

from __future__ import annotations

from pathlib import Path

from leo_core import storage
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
    )


def read_file(path: Path) -> Imported:
    """Read a ``.leo`` file."""
    return Imported(storage.load(path))


def write_file(network: Network, path: Path) -> None:
    """Write a ``.leo`` file."""
    storage.save(network, path)
