"""A ``.pt`` state dict of a plain chain of ``Linear`` layers with ReLUs between."""

from __future__ import annotations

import re
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from leo_core.errors import FormatError, NetworkError, UnsupportedModelError
from leo_core.linear import Dense
from leo_core.network import INPUT, Affine, Network, Node, Origin, Relu, Signature
from leo_core.plugins import Imported
from leo_frontends.graph import Array
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
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise FormatError(f"{path}: there is no such file") from None
    except Exception as error:  # what torch.load raises on damaged files has no common type
        # its text is left out: it advises to load without weights_only, which could run code
        raise FormatError(
            f"{path}: not a readable state dict ({type(error).__name__}); a whole pickled module is not opened, "
            "as it could run code: pass the live module, or its .pt2 export"
        ) from None
    try:
        return _chain(_tensors(content, str(path)), str(path))
    except (NetworkError, KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise FormatError(f"{path}: the state dict is damaged ({type(error).__name__}: {error})") from None


def _tensors(content: Any, where: str) -> dict[str, Array]:
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content:
        raise UnsupportedModelError(where, [f"it holds a {type(content).__name__}, no state dict; {_HINT}"])
    others = [str(key) for key, value in content.items() if not isinstance(value, torch.Tensor)]
    if others:
        raise UnsupportedModelError(where, [f"'{others[0]}' is no tensor; {_HINT}"])
    return {str(key): numbers(value) for key, value in content.items()}


def _chain(tensors: dict[str, Array], where: str) -> Imported:
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
                number = "no" if second - first == 1 else "more than one"
                problems.append(f"{number} layer stands between {first} and {second}; {_HINT}")
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
    return Imported(Network(inputs, tuple(nodes), at, Signature("input", (inputs,), "output")), (note,))
