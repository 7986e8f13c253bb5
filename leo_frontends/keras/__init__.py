"""Keras 3 models, on whichever of its backends is installed. ``keras`` is imported when a model is read or written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from leo_core.network import Network
from leo_core.plugins import FrontendSpec, Imported, hookimpl
from leo_frontends.keras.backend import import_keras


@hookimpl
def leo_frontend() -> FrontendSpec:
    """Describe Keras."""
    return FrontendSpec(
        name="keras",
        summary="Keras 3 models, Sequential and Functional (.keras, .h5)",
        suffixes=(".keras", ".h5", ".hdf5"),
        read_file=read_file,
        write_file=write_file,
        model_modules=("keras",),
        read_model=read_live_model,
        write_model=write_live_model,
        run_model=run_model,
        run_file=run_file,
        runs_in=runs_in,
        packages=("keras", "h5py"),
        extra="keras",
    )


def run_model(model: Any, inputs: Any) -> Any:
    """The outputs of a model for a batch."""
    import_keras()
    from leo_frontends.keras.run import running

    return running(model)(inputs)


def run_file(path: Path) -> Callable[[Any], Any]:
    """Open a file that LEO has written, to run it."""
    import_keras()
    from leo_frontends.keras.files import opened
    from leo_frontends.keras.run import running

    return running(opened(path))


def runs_in(network: Network) -> str:
    """What Keras computes a model of a network in, where that is narrower than the network's type."""
    import_keras()
    from leo_frontends.keras.run import written_runs_in

    return written_runs_in(network)


def read_file(path: Path) -> Imported:
    """Read a ``.keras`` or ``.h5`` file; one that holds code is refused."""
    import_keras()
    from leo_frontends.keras.files import load

    return load(path)


def write_file(network: Network, path: Path) -> None:
    """Write a ``.keras`` or ``.h5`` file."""
    import_keras()
    from leo_frontends.keras.files import save

    save(network, path)


def read_live_model(model: Any, _input_shape: tuple[int, ...] | None = None) -> Imported:
    """Read a built Sequential or Functional model."""
    import_keras()
    from leo_frontends.keras.read import read_model

    return read_model(model, getattr(model, "name", "the model"))


def write_live_model(network: Network) -> Any:
    """A Sequential model of a chain, a Functional model of anything else."""
    import_keras()
    from leo_frontends.keras.write import build_model

    return build_model(network)
