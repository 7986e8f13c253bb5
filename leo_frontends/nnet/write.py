"""Writing ``.nnet``: plain chains only; a leading and a trailing scaling become its normalisation again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TypeGuard

import numpy as np
from numpy.typing import NDArray

from leo_core.errors import NetworkError, UnsupportedModelError
from leo_core.linear import Diagonal, Select
from leo_core.network import INPUT, Layer, Network, Node
from leo_core.network import Affine as _Affine
from leo_frontends.nnet.read import reciprocals

Array = NDArray[np.float64]

_HEADER = "// Neural network in the .nnet format, written by LEO"


def write_file(network: Network, path: Path) -> None:
    """Write a plain ReLU chain. Weights are printed so that they read back to the same float64.

    Raises :class:`UnsupportedModelError` for what the format cannot hold.
    """
    layers, means, ranges = _layers(network, str(path))
    widths = [network.input_size, *(layer.affine.size for layer in layers)]
    inputs = network.input_size
    lines = [
        _HEADER,
        _row([len(layers), inputs, widths[-1], max(widths)]),
        _row(widths),
        "0,",
        _row([-np.finfo(np.float32).max] * inputs),
        _row([np.finfo(np.float32).max] * inputs),
        _row(means),
        _row(ranges),
    ]
    for layer in layers:
        lines += [_row(row) for row in layer.affine.maps[0].matrix().astype(np.float64)]
        lines += [_row([value]) for value in layer.affine.bias.astype(np.float64)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _layers(network: Network, where: str) -> tuple[list[Layer], Array, Array]:
    if network.signature.tail:
        raise UnsupportedModelError(
            where, [f"the {network.signature.tail} at its end has no place in .nnet; write .onnx"]
        )
    inputs = network.input_size
    means, ranges = np.zeros(inputs + 1), np.ones(inputs + 1)
    means[:inputs], ranges[:inputs], begun = _normalisation(network)
    try:
        layers = list(_behind(network, begun).layers())
    except NetworkError as error:
        raise UnsupportedModelError(where, [f"{error}; .nnet holds plain chains, write .onnx"]) from None
    last = layers[-1].affine
    if len(layers) > 1 and layers[-1].relu is None and layers[-2].relu is None and isinstance(last.maps[0], Diagonal):
        scale, shift = np.unique(last.maps[0].matrix().diagonal()), np.unique(last.bias)
        if len(scale) == len(shift) == 1 and scale[0] != 0:
            means[inputs], ranges[inputs] = shift[0], scale[0]
            layers = layers[:-1]
    problems = [
        f"'{layer.relu.name}' is a leaky ReLU" for layer in layers if layer.relu is not None and layer.relu.slope.any()
    ]
    problems += [f"'{layer.affine.name}' has no ReLU after it" for layer in layers[:-1] if layer.relu is None]
    if layers[-1].relu is not None:
        problems.append(f"the output has a ReLU ('{layers[-1].relu.name}')")
    if problems:
        raise UnsupportedModelError(where, [f"{problem}; .nnet cannot hold that, write .onnx" for problem in problems])
    return layers, means, ranges


def _normalisation(network: Network) -> tuple[Array, Array, int]:
    """(means, ranges, of how many first nodes they are): they read back to exactly these nodes."""
    inputs = network.input_size
    means, ranges, begun, at = np.zeros(inputs), np.ones(inputs), 0, INPUT
    first = [node if _alone(network, node) else None for node in network.nodes[:2]]
    node = first[0]
    if node is not None and _is_identity(node) and isinstance(node.maps[0], Select):
        means, begun, at = -node.bias.astype(np.float64), 1, node.name
    elif node is not None and len(node.sources) == 1 and isinstance(node.maps[0], Diagonal):
        found = _one_float(node)
        return (means, ranges, 0) if found is None else (*found, 1)
    node = first[begun] if begun < len(first) else None
    if node is not None and node.sources == (at, at):
        found_ranges = _two_floats(node)
        if found_ranges is not None:
            return means, found_ranges, begun + 1
    return means, ranges, begun


def _alone(network: Network, node: Node) -> TypeGuard[_Affine]:
    """Whether it is an affine node that only one other node reads."""
    return isinstance(node, _Affine) and len(network.readers[node.name]) == 1 and len(network.readers[INPUT]) == 1


def _is_identity(node: _Affine) -> bool:
    return len(node.maps) == 1 and isinstance(node.maps[0], Select) and node.maps[0].is_identity


def _two_floats(node: _Affine) -> Array | None:
    """The ranges whose reciprocals these two diagonals are."""
    if node.bias.any() or not all(isinstance(linear, Diagonal) for linear in node.maps):
        return None
    first, second = (linear.matrix().diagonal().astype(np.float64) for linear in node.maps)
    sums = [Fraction(float(a)) + Fraction(float(b)) for a, b in zip(first, second, strict=True)]
    if not all(sums):
        return None
    try:
        ranges = np.array([float(1 / value) for value in sums])
        again = reciprocals(ranges)
    except (ZeroDivisionError, OverflowError):
        return None
    return ranges if (again[0] == first).all() and (again[1] == second).all() else None


def _one_float(node: _Affine) -> tuple[Array, Array] | None:
    """(means, ranges) of one diagonal and its bias, where they are powers of two."""
    scale = node.maps[0].matrix().diagonal().astype(np.float64)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        ranges = 1.0 / scale
        means = -node.bias.astype(np.float64) * ranges
        same = (1.0 / ranges == scale).all() and (-means / ranges == node.bias).all()
    powers = (np.frexp(np.abs(scale))[0] == 0.5).all()
    return (means, ranges) if same and powers and np.isfinite(means).all() and np.isfinite(ranges).all() else None


def _behind(network: Network, begun: int) -> Network:
    """The network behind its first nodes, which only the next one reads."""
    if not begun:
        return network
    names = {node.name: INPUT for node in network.nodes[:begun]}
    nodes = [
        replace(node, sources=tuple(names.get(source, source) for source in node.sources))
        if isinstance(node, _Affine)
        else replace(node, source=names.get(node.source, node.source))
        for node in network.nodes[begun:]
    ]
    return Network(network.input_size, tuple(nodes), network.output)


def _row(values: Sequence[float] | Array) -> str:
    return ",".join(str(v) if isinstance(v, int) else repr(float(v)) for v in values) + ","
