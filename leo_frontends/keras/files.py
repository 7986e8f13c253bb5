"""``.keras`` and ``.h5`` files: what they hold is looked at before Keras opens them, so that no code is run."""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from leo_core.errors import FormatError, LeoError, UnsupportedModelError, first_line
from leo_core.network import Network
from leo_core.plugins import Imported
from leo_frontends.keras.read import read_model
from leo_frontends.keras.training import SoftThreshold
from leo_frontends.keras.write import build_model

#: The one class of ours that a model may hold, by the name under which it is registered.
_OURS = keras.saving.get_registered_name(SoftThreshold)


def load(path: Path) -> Imported:
    """Read a model's file.

    Raises :class:`FormatError` for what is none, :class:`UnsupportedModelError` for code in it, and as
    :func:`read_model` does.
    """
    if path.is_dir():
        raise FormatError(f"{path}: is a folder; a SavedModel says nothing of its layers: save the model as .keras")
    if not path.exists():
        raise FormatError(f"{path}: there is no such file")
    try:
        problems = sorted(set(_foreign(_config(path))))
        if problems:
            raise UnsupportedModelError(str(path), problems)
        model = opened(path)
    except LeoError:
        raise
    except Exception as error:  # Keras, h5py and zipfile raise a dozen types on damaged files
        raise FormatError(
            f"{path}: not a readable Keras file ({type(error).__name__}: {first_line(error)}); save it again"
        ) from None
    return read_model(model, str(path))


def opened(path: Path) -> Any:
    """The model in a file that holds no code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return keras.models.load_model(path, compile=False, safe_mode=True)


def save(network: Network, path: Path) -> None:
    """Write the model of a network."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        build_model(network).save(path)


def _config(path: Path) -> Any:
    if path.suffix.lower() == ".keras":
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read("config.json"))
    import h5py

    with h5py.File(path, "r") as file:
        text = file.attrs["model_config"]
    return json.loads(text if isinstance(text, str) else text.decode("utf-8"))


def _foreign(config: Any) -> Iterator[str]:
    """Whatever in a configuration is not Keras' own: lambdas, registered and imported classes."""
    if isinstance(config, dict):
        name, module = config.get("class_name"), config.get("module")
        if name in ("Lambda", "__lambda__", "function") or "__lambda__" in config:
            yield f"it holds a {name or 'lambda'}, which is code; LEO opens none"
        elif _OURS in (config.get("registered_name"), name):
            pass
        elif isinstance(module, str) and module.partition(".")[0] not in ("keras", "builtins"):
            yield f"it holds '{module}.{name}', which is not one of Keras' own classes"
        elif config.get("registered_name") and module is None and isinstance(name, str):
            yield f"it holds '{name}', which is not one of Keras' own classes"
        for item in config.values():
            yield from _foreign(item)
    elif isinstance(config, list):
        for item in config:
            yield from _foreign(item)
