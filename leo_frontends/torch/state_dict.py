"""A ``.pt`` state dict of a plain chain of ``Linear`` layers with ReLUs between."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from leo_core.errors import FormatError, NetworkError, UnsupportedModelError
from leo_core.linear import Dense
from leo_core.network import INPUT, Affine, Network, Node, Origin, Relu, Signature
from leo_core.plugins import Imported
from leo_frontends.graph import Array
from leo_frontends.pointers import refuse_pointer
from leo_frontends.torch.live import numbers

_HINT = (
    "a state dict does not say what is between its layers: only that of an nn.Sequential with Linear layers at "
    "0, 2, 4, … and ReLUs between is read; pass the live module, or its .pt2 export"
)
_KEY = re.compile(r"(?P<prefix>(?:.*\.)?)(?P<number>\d+)\.(?P<what>weight|bias)$")


def read_state_dict(path: Path) -> Imported:
    """Read ``{"0.weight": …, "0.bias": …, "2.weight": …}``, a prefix with a dot allowed; each gap is one ReLU.

    Layers that follow each other are refused: they may be attributes (``layers.0``, ``layers.1`` of a ``ModuleList``)
    with a ReLU that only ``forward`` knows of.

    Raises :class:`FormatError` for what is no state dict, :class:`UnsupportedModelError` for another model's.
    """
    if path.is_dir():
        raise FormatError(f"{path}: is a folder, not a .pt file")
    refuse_pointer(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise FormatError(f"{path}: there is no such file") from None
    except Exception as error:  # what torch.load raises on damaged files has no common type
        raise _unopened(path, error) from None
    try:
        return _chain(_tensors(content, str(path)), str(path))
    except (NetworkError, KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise FormatError(f"{path}: the state dict is damaged ({type(error).__name__}: {error})") from None


def chain_of(path: Path) -> nn.Module:
    """The ``nn.Sequential`` that a state dict written by LEO is of, with its weights, in eval mode."""
    tensors = torch.load(path, map_location="cpu", weights_only=True)
    weights = [tensor for key, tensor in tensors.items() if key.endswith(".weight")]
    layers: list[nn.Module] = []
    for weight in weights:
        rows, columns = weight.shape
        layers += [nn.Linear(columns, rows, dtype=weight.dtype), nn.ReLU()]
    module = nn.Sequential(*layers[:-1])
    module.load_state_dict(tensors)
    return module.eval()


def _unopened(path: Path, error: Exception) -> FormatError:
    """Why PyTorch does not open a file; its own text is left out: it advises to load what could run code."""
    text = str(error)
    held = re.search(r"GLOBAL (\S+)", text)
    if "TorchScript" in text:
        why = "a TorchScript archive, which holds code; export the module as .pt2 (torch.export.save), or pass it live"
    elif held is not None and held[1].startswith(("torch.nn.", "__main__.")):
        why = (
            f"a whole pickled module ({held[1]}), which is not opened, as it could run code: pass the live module, or "
            "its .pt2 export"
        )
    elif held is not None:
        why = (
            f"it holds an object of the class {held[1]} beside weights, and to load that could run code; load the file "
            "yourself and save its state dict alone (torch.save(module.state_dict(), …)), or pass the live module"
        )
    else:
        why = (
            f"not a readable state dict ({type(error).__name__}); a whole pickled module is not opened, as it could "
            "run code: pass the live module, or its .pt2 export"
        )
    return FormatError(f"{path}: {why}")


def _tensors(content: Any, where: str) -> dict[str, Array]:
    """The one state dict in what a file holds, whatever it is put in: a checkpoint of Lightning, say."""
    found = dict(_state_dicts(content, ""))
    if len(found) > 1:
        names = ", ".join(f"'{name}'" for name in found)
        raise UnsupportedModelError(where, [f"it holds several state dicts ({names}); save the one that is meant"])
    if not found:
        kind = f"a {type(content).__name__}"
        if isinstance(content, dict) and content:
            others = [str(key) for key, value in content.items() if not isinstance(value, torch.Tensor)]
            kind = f"a dict in which '{others[0]}' is no tensor" if others else kind
        raise UnsupportedModelError(where, [f"it holds {kind}, no state dict; {_HINT}"])
    (state,) = found.values()
    quantised = [key for key, value in state.items() if value.is_quantized]
    if quantised:
        raise UnsupportedModelError(where, [f"'{quantised[0]}' is quantised; pass the state dict from before that"])
    return {key: numbers(value.to_dense() if value.layout != torch.strided else value) for key, value in state.items()}


def _state_dicts(content: Any, name: str) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    """Dicts from names to tensors and nothing else, at any depth: an optimizer's are by number, so they are none."""
    if not isinstance(content, dict) or not content or not all(isinstance(key, str) for key in content):
        return
    if all(isinstance(value, torch.Tensor) for value in content.values()):
        yield name, content
        return
    for key, value in content.items():
        yield from _state_dicts(value, f"{name}.{key}" if name else key)


def _normalising(tensors: Mapping[str, Array]) -> list[str]:
    """What is said of batch norms and other layers with one number for each unit."""
    problems = []
    for key, array in tensors.items():
        layer, _, what = key.rpartition(".")
        if what == "running_var":
            problems.append(
                f"'{layer}' is a batch norm, and a state dict holds neither its epsilon nor what stands around it; "
                "pass the live module, or its .pt2 export"
            )
        elif what == "weight" and array.ndim <= 1 and f"{layer}.running_var" not in tensors:
            problems.append(
                f"'{key}' has {array.size} numbers in a row: a batch norm without statistics, which normalises by each "
                "batch, a layer norm or a PReLU; a state dict does not say which. Pass the live module, or its .pt2 "
                "export"
            )
    return problems


def _chain(tensors: dict[str, Array], where: str) -> Imported:
    normalising = _normalising(tensors)
    if normalising:
        raise UnsupportedModelError(where, normalising)
    layers: dict[int, dict[str, Array]] = {}
    prefixes = set()
    for key, array in tensors.items():
        match = _KEY.match(key)
        if match is None:
            raise UnsupportedModelError(where, [f"'{key}' is no layer of a plain nn.Sequential; {_HINT}"])
        prefixes.add(match["prefix"])
        layers.setdefault(int(match["number"]), {})[match["what"]] = array
    order = sorted(layers)
    problems = []
    if len(prefixes) > 1:
        problems.append(f"it holds more than one group of layers ({', '.join(sorted(prefixes))}); {_HINT}")
    for number in order:
        weight = layers[number].get("weight")
        if weight is None or weight.ndim != 2:
            problems.append(f"layer {number} is not a Linear layer; {_HINT}")
    if not problems:
        for first, second in pairwise(order):
            rows, columns = layers[first]["weight"].shape[0], layers[second]["weight"].shape[1]
            if rows != columns:
                problems.append(f"layer {first} has {rows} outputs, layer {second} takes {columns} inputs; {_HINT}")
            if second - first != 2:
                many = "no" if second - first == 1 else "more than one"
                problems.append(f"{many} layer stands between {first} and {second}; {_HINT}")
    if problems:
        raise UnsupportedModelError(where, problems)
    nodes: list[Node] = []
    at = INPUT
    for number in order:
        weight = layers[number]["weight"]
        bias = layers[number].get("bias", np.zeros(len(weight), weight.dtype))
        nodes.append(Affine(str(number), (at,), (Dense(weight),), bias, Origin(str(number), "Linear")))
        at = nodes[-1].name
        if number != order[-1]:
            nodes.append(Relu(str(number + 1), at, np.zeros(len(weight)), Origin(str(number + 1), "ReLU")))
            at = nodes[-1].name
    inputs = layers[order[0]]["weight"].shape[1]
    note = "a state dict names no activations; the layers between were taken for ReLUs"
    network = Network(inputs, tuple(nodes), at, Signature("input", (inputs,)))
    return Imported(network, (note,), not_run="a state dict holds weights, no model to run")
