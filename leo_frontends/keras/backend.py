"""Which of its backends Keras runs on, and what must be imported before it."""

from __future__ import annotations

import json
import os
import sys
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from leo_core.errors import MissingExtraError, first_line, install_line
from leo_frontends.imports import hushed, import_triton_first

#: Keras' backends, each by the package of the same name, in the order in which they are tried.
BACKENDS = ("torch", "tensorflow", "jax")


def import_keras() -> Any:
    """The package ``keras`` on a backend that is there, or :class:`MissingExtraError`."""
    if "keras" not in sys.modules:
        if find_spec("keras") is None:
            with_torch = install_line("keras,torch")
            raise MissingExtraError("Keras models", "keras", "keras", f"with PyTorch as its backend: {with_torch}")
        if not os.environ.get("KERAS_BACKEND"):
            os.environ["KERAS_BACKEND"] = _chosen()
        import_triton_first()
    chatty = "keras" not in sys.modules and os.environ.get("KERAS_BACKEND") == "tensorflow"
    try:
        with hushed() if chatty else nullcontext():
            import keras
    except (ImportError, ValueError) as error:  # that is how Keras says that its backend is not there
        backend = os.environ.get("KERAS_BACKEND", "")
        raise MissingExtraError(
            f"Keras on the backend '{backend}' ({first_line(error)})", backend, "keras,torch", "or change KERAS_BACKEND"
        ) from None
    return keras


def _chosen() -> str:
    """What the user wrote into keras.json, else the first backend that is installed.

    Keras writes "tensorflow" there by itself, on whatever backend it runs: that is no choice.
    """
    there = [name for name in BACKENDS if find_spec(name) is not None]
    if not there:
        raise MissingExtraError("Keras", "torch", "keras,torch", "Keras needs a backend: torch, tensorflow or jax")
    written = _written()
    return written if written in there and written != "tensorflow" else there[0]


def _written() -> str:
    """The backend that Keras' own settings name, if there are any."""
    folder = Path(os.environ.get("KERAS_HOME") or Path("~/.keras").expanduser())
    try:
        return str(json.loads((folder / "keras.json").read_text(encoding="utf-8")).get("backend", ""))
    except (OSError, ValueError, AttributeError):
        return ""
