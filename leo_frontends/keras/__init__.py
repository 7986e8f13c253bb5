"""Keras 3 models, on whichever of its backends is installed. ``keras`` is imported when a model is read or written."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from leo_core.errors import MissingExtraError
from leo_core.network import Network
from leo_core.plugins import FrontendSpec, Imported, hookimpl

#: Keras' backends by the package each needs, in the order in which they are tried.
_BACKENDS = {"tensorflow": "tensorflow", "torch": "torch", "jax": "jax"}


@hookimpl
def leo_frontend() -> FrontendSpec:
    """Describe Keras."""
    return FrontendSpec(
        name="keras",
        summary="Keras 3 models, Sequential and Functional (.keras, .h5)",
        suffixes=(".keras", ".h5"),
        read_file=read_file,
        write_file=write_file,
        model_modules=("keras",),
        read_model=read_live_model,
        write_model=write_live_model,
        run_model=run_model,
        packages=("keras", "h5py"),
        extra="keras",
    )


def run_model(model: Any, inputs: Any) -> Any:
    """The outputs of a model for a batch."""
    return import_keras().ops.convert_to_numpy(model(inputs, training=False))


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


def import_keras() -> Any:
    """The package ``keras`` on a backend that is there, or :class:`MissingExtraError`."""
    if find_spec("keras") is None:
        raise MissingExtraError("Keras models", "keras", "keras", 'with a backend: "leo-compress[keras,torch]"')
    if "KERAS_BACKEND" not in os.environ:
        there = [name for name, package in _BACKENDS.items() if find_spec(package) is not None]
        if not there:
            raise MissingExtraError("Keras", "torch", "keras,torch", "Keras needs a backend: torch, tensorflow or jax")
        os.environ["KERAS_BACKEND"] = there[0]
    import keras

    return keras
