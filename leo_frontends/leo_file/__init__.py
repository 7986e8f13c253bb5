"""LEO's own ``.leo`` files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from leo_core import storage
from leo_core.network import Network
from leo_core.plugins import FrontendSpec, Imported, Rounding, hookimpl


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
    network, stored = storage.load(path)
    rounding = {
        name: Rounding(weights, np.asarray(bias, dtype=np.float64)) for name, (weights, bias) in stored.items()
    }
    return Imported(network, rounding=rounding)


def write_file(network: Network, path: Path) -> None:
    """Write a ``.leo`` file."""
    storage.save(network, path)
