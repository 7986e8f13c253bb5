"""Writing ``.nnet``: plain chains only; a leading and a trailing scaling become its normalisation again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leo_core.errors import NetworkError, UnsupportedModelError
from leo_core.linear import Diagonal, Select
from leo_core.network import INPUT, Affine, Layer, Network
from leo_frontends.heads import require_one
from leo_frontends.matrices import matrix
from leo_frontends.nnet.read import split_quotient

Array = NDArray[np.float64]

_HEADER = "// Neural network in the .nnet format, written by LEO"


def write_file(network: Network, path: Path) -> None:
    """Write a plain ReLU chain. Weights are printed so that they read back to the same float64.

    Raises :class:`UnsupportedModelError` for what the format cannot hold.
    """
    layers, means, ranges = _layers(network, str(path))
    widths = [network.input_size, *(layer.affine.size for layer in layers)]
    inputs, largest = network.input_size, float(np.finfo(np.float32).max)
    lines = [
        _HEADER,
        _row([len(layers), inputs, widths[-1], max(widths)]),
        _row(widths),
        "0,",
        _row([-largest] * inputs),
        _row([largest] * inputs),
        _row(means),
        _row(ranges),
    ]
    for layer in layers:
        lines += [_row(row) for row in matrix(layer.affine.maps[0], layer.affine.name, str(path)).astype(np.float64)]
        lines += [_row([value]) for value in layer.affine.bias.astype(np.float64)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _layers(network: Network, where: str) -> tuple[list[Layer], Array, Array]:
    require_one(network, where, ".nnet holds one; write .onnx")
    ending = network.signature.ending
    if ending:
        raise UnsupportedModelError(where, [f"the {ending} at its end has no place in .nnet; write .onnx"])
    network, means, ranges = _normalised(network)
    try:
        layers = list(network.layers())
    except NetworkError as error:
        raise UnsupportedModelError(where, [f"{error}; .nnet holds plain chains, write .onnx"]) from None
    inputs = network.input_size
    plain = not means.any() and (ranges == 1).all()
    if (
        plain
        and len(layers) > 1
        and layers[0].relu is None
        and (undone := _normalisation(layers[0].affine)) is not None
    ):
        means[:inputs], ranges[:inputs] = undone
        layers = layers[1:]
    last = layers[-1].affine
    if len(layers) > 1 and layers[-1].relu is None and layers[-2].relu is None and isinstance(last.maps[0], Diagonal):
        scale, shift = np.unique(last.maps[0].scaling()), np.unique(last.bias)
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


def _alone(network: Network, node: Affine, source: str) -> bool:
    """Whether a node reads that source only, and nothing else does."""
    return set(node.sources) == {source} and network.readers[source] == (node.name,) and node.name != network.output


def _is_identity(node: Affine) -> bool:
    return len(node.maps) == 1 and isinstance(node.maps[0], Select) and node.maps[0].is_identity


def _ranges(node: Affine) -> Array | None:
    """The ranges that are read as a node's one or two diagonals, which sum up to their reciprocals; None: none are."""
    parts = [linear.scaling().astype(np.float64) for linear in node.maps if isinstance(linear, Diagonal)]
    if len(node.maps) > 2 or len(parts) < len(node.maps):
        return None
    scales = [sum(map(Fraction, column), Fraction(0)) for column in zip(*(p.tolist() for p in parts), strict=True)]
    if not all(scales):
        return None
    ranges = np.array([float(1 / scale) for scale in scales])
    if not np.isfinite(ranges).all() or not ranges.all():
        return None
    read = [split_quotient(value) for value in ranges.tolist()]
    same = all((np.array([pair[k] for pair in read]) == part).all() for k, part in enumerate(parts))
    return ranges if same and (len(parts) == 2 or not any(low for _, low in read)) else None


def _normalised(network: Network) -> tuple[Network, Array, Array]:
    """What follows x − mean, and that times 1 / range as two floats; means and ranges, 0 and 1 where there are none."""
    inputs, at, rest = network.input_size, INPUT, list(network.nodes)
    means, ranges = np.zeros(inputs + 1), np.ones(inputs + 1)
    first = rest[0] if rest else None
    if isinstance(first, Affine) and _alone(network, first, at) and _is_identity(first) and len(rest) > 1:
        means[:inputs], at = -first.bias.astype(np.float64), first.name
        rest = rest[1:]
    scaled = rest[0]
    if isinstance(scaled, Affine) and _alone(network, scaled, at) and len(rest) > 1 and not scaled.bias.any():
        found = _ranges(scaled)
        if found is not None:
            ranges[:inputs], at = found, scaled.name
            rest = rest[1:]
    if at == INPUT or not rest:
        return network, np.zeros(inputs + 1), np.ones(inputs + 1)
    nodes = tuple(
        replace(node, sources=tuple(INPUT if source == at else source for source in node.sources))
        if isinstance(node, Affine)
        else node
        for node in rest
    )
    return replace(network, nodes=nodes), means, ranges


def _normalisation(node: Affine) -> tuple[Array, Array] | None:
    """(means, ranges) that read back to exactly this node, or None."""
    linear = node.maps[0]
    if isinstance(linear, Select):
        return (-node.bias.astype(np.float64), np.ones(linear.rows)) if linear.is_identity else None
    if not isinstance(linear, Diagonal):
        return None
    scale = linear.scaling().astype(np.float64)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        for ranges in (1.0 / scale, np.nextafter(1.0 / scale, np.inf), np.nextafter(1.0 / scale, -np.inf)):
            means = -node.bias.astype(np.float64) * ranges
            for candidate in (means, np.nextafter(means, np.inf), np.nextafter(means, -np.inf)):
                same = (1.0 / ranges == scale).all() and (-candidate / ranges == node.bias).all()
                if same and np.isfinite(ranges).all() and np.isfinite(candidate).all():
                    return candidate, ranges
    return None


def _row(values: Sequence[float] | Array) -> str:
    return ",".join(str(v) if isinstance(v, int) else repr(float(v)) for v in values) + ","
