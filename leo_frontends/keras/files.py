"""``.keras`` and ``.h5`` files: what they hold is looked at before Keras opens them, so that no code is run."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import keras

from leo_core.errors import FormatError, LeoError, UnsupportedModelError, first_line
from leo_core.network import Network
from leo_core.plugins import Imported
from leo_frontends.keras.old import attach, misread, modernised, several_axes, unread
from leo_frontends.keras.read import read_model
from leo_frontends.keras.training import SoftThreshold
from leo_frontends.keras.write import build_model
from leo_frontends.pointers import refuse_pointer

_SHAPELESS = (
    "the file does not say the shape of its input; build the model with an Input, load the weights into it "
    "(load_weights) and save it again"
)
_DISORDERED = (
    "its weights are in another order than its layers, so that Keras 3 gives them to the wrong ones; build the model, "
    "load the weights into it by name (load_weights with by_name=True) and save it again"
)
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
    refuse_pointer(path)
    try:
        config = _config(path)
        problems = sorted(set(_foreign(config)))
        if _version(path) < 3:
            problems += misread(config)
        if not _is_new(path):
            problems += several_axes(config)
        if problems:
            raise UnsupportedModelError(str(path), problems)
        model, notes = (opened(path), ()) if _is_new(path) else _opened_h5(path, config)
    except LeoError:
        raise
    except Exception as error:  # Keras, h5py and zipfile raise a dozen types on damaged files
        raise FormatError(
            f"{path}: not a readable Keras file ({type(error).__name__}: {first_line(error)}); save it again"
        ) from None
    imported = read_model(model, str(path))
    return replace(imported, notes=(*notes, *imported.notes))


def opened(path: Path) -> Any:
    """The model in a file that holds no code."""
    with _quiet():
        return keras.models.load_model(path, compile=False, safe_mode=True)


def save(network: Network, path: Path) -> None:
    """Write the model of a network."""
    with _quiet(), tempfile.TemporaryDirectory() as folder:
        named = path if path.suffix != ".hdf5" else Path(folder) / "model.h5"  # Keras knows .h5 only
        model = build_model(network)
        calls = [] if isinstance(model, keras.Sequential) else model.operations
        functions = sorted({type(call).__name__ for call in calls if not isinstance(call, keras.Layer)})
        if functions and not _is_new(path):
            problem = f"it takes functions ({', '.join(functions)}), which Keras does not read back from .h5"
            raise UnsupportedModelError(str(path), [f"{problem}; write .keras"])
        model.save(named)
        if named != path:
            shutil.move(named, path)


def _opened_h5(path: Path, config: Any) -> tuple[Any, tuple[str, ...]]:
    """A model in the older format, and notes on it."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "model.h5"
        shutil.copyfile(path, copy)
        with h5py.File(copy, "r+") as file:
            model = modernised(config, lambda name: _kernel_rows(file, name))
            file.attrs["model_config"] = json.dumps(model.config)
        try:
            loaded = opened(copy)
        except Exception:
            problems = list(dict.fromkeys(unread(config))) or ([_SHAPELESS] if model.shapeless else [])
            if problems:
                raise UnsupportedModelError(str(path), problems) from None
            raise
        with h5py.File(copy, "r") as file:
            if not _in_order(file["model_weights"], loaded):
                raise UnsupportedModelError(str(path), [_DISORDERED])
    if model.shapeless and not loaded.built:
        raise UnsupportedModelError(str(path), [_SHAPELESS])
    attach(loaded, model.activations)
    return loaded, model.notes


def _in_order(group: Any, model: Any) -> bool:
    """Whether weights, which Keras loads in the order in which they are listed, went where their names say."""
    layers = {layer.name: layer for layer in model.layers if layer.weights}
    listed = {name: _listed(group[name], "weight_names") for name in _listed(group, "layer_names")}
    if [*layers] != [name for name, weights in listed.items() if weights]:
        return False
    for name, layer in layers.items():
        parts = {part.name for part in getattr(layer, "layers", ())}
        for weight, written in zip([*layer.trainable_weights, *layer.non_trainable_weights], listed[name], strict=True):
            of = parts.intersection(written.split("/"))
            if of and not of.intersection(weight.path.split("/")):
                return False
    return True


def _listed(group: Any, what: str) -> list[str]:
    """Names in an attribute, or in several where they are many."""
    chunks = [what] if what in group.attrs else sorted((key for key in group.attrs if key.startswith(what)), key=len)
    found = [name for chunk in chunks for name in group.attrs[chunk]]
    return [name.decode("utf-8") if isinstance(name, bytes) else str(name) for name in found]


def _kernel_rows(file: Any, name: str) -> int | None:
    """How many rows the kernel of a layer has, in a file of weights."""
    found: list[int] = []

    def visit(path: str, item: Any) -> None:
        if path.rpartition("/")[2].startswith("kernel") and isinstance(item, h5py.Dataset) and item.ndim == 2:
            found.append(item.shape[0])

    group = file["model_weights"].get(name)
    if group is not None:
        group.visititems(visit)
    return found[0] if len(found) == 1 else None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without Keras' advice about its own file formats."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def _is_new(path: Path) -> bool:
    return path.suffix.lower() == ".keras"


def _config(path: Path) -> Any:
    if _is_new(path):
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read("config.json"))
    with h5py.File(path, "r") as file:
        text = file.attrs.get("model_config")
        weights_alone = text is None and (
            "layer_names" in file.attrs or "layers" in file or "_layer_checkpoint" in file
        )
    if weights_alone or (text is None and path.name.endswith(".weights.h5")):
        raise UnsupportedModelError(
            str(path),
            [
                "it holds weights without a model (save_weights); build the model, load the weights into it, and pass "
                "it live, or save it with model.save"
            ],
        )
    return json.loads(text if isinstance(text, str) else text.decode("utf-8"))


def _version(path: Path) -> int:
    """The number before the point of the Keras that wrote a file; a file that does not say it is from before 3."""
    if _is_new(path):
        with zipfile.ZipFile(path) as archive:
            version = json.loads(archive.read("metadata.json")).get("keras_version", "2")
    else:
        with h5py.File(path, "r") as file:
            version = file.attrs.get("keras_version", "2")
    text = version.decode("utf-8") if isinstance(version, bytes) else str(version)
    return int(text.partition(".")[0])


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
