"""TensorFlow Lite files. The package ``ai-edge-litert`` (LiteRT) is imported when one is read, run or written.

It brings the schema of the format and the interpreter that runs it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from leo_core.errors import MissingExtraError
from leo_core.network import Network
from leo_core.plugins import FrontendSpec, Imported, hookimpl
from leo_frontends.pointers import bytes_of


@hookimpl
def leo_frontend() -> FrontendSpec:
    """Describe TensorFlow Lite."""
    return FrontendSpec(
        name="tflite",
        summary="TensorFlow Lite (LiteRT) models in float32, as microcontrollers and phones run them",
        suffixes=(".tflite",),
        read_file=read_file,
        write_file=write_file,
        run_file=run_file,
        packages=("ai_edge_litert",),
        extra="tflite",
    )


def read_file(path: Path) -> Imported:
    """Read a ``.tflite`` file; see :mod:`leo_frontends.tflite.read`."""
    require_litert()
    from leo_frontends.tflite.file import parsed
    from leo_frontends.tflite.read import read_model

    data = bytes_of(path)
    return read_model(parsed(data, str(path)), data, str(path))


def write_file(network: Network, path: Path) -> None:
    """Write a ``.tflite`` file; see :mod:`leo_frontends.tflite.write`."""
    require_litert()
    from leo_frontends.tflite.write import built

    path.write_bytes(built(network))


def run_file(path: Path) -> Callable[[Any], Any]:
    """Open a file that LEO has written, to run it in the LiteRT interpreter."""
    require_litert()
    from leo_frontends.tflite.file import parsed
    from leo_frontends.tflite.run import runner

    data = path.read_bytes()
    model = parsed(data, str(path))
    given = model.tensors[model.inputs[0]]
    return runner(data, 0 if given.free[0] else given.shape[0])


def require_litert() -> None:
    """Raise :class:`MissingExtraError` where the package ``ai-edge-litert`` is not installed."""
    try:
        import ai_edge_litert  # noqa: F401
    except ImportError as error:
        if error.name == "ai_edge_litert":
            raise MissingExtraError("reading and writing TensorFlow Lite files", "ai-edge-litert", "tflite") from None
        raise
