"""Reading ``.nnet``: a chain of ReLU layers on raw inputs, normalised as (x − mean) / range.

Header lines, after ``//`` comments: sizes; layer widths; a flag; input minima and maxima (not applied: a
network is what its weights say); means and ranges of the inputs and, last, of the output. Then, layer by
layer, one line per row of weights and one per bias. Numbers are decimal, read as the nearest float64.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leo_core.errors import FormatError
from leo_core.linear import Dense, Diagonal, Select
from leo_core.network import INPUT, Affine, Network, Node, Origin, Relu
from leo_core.plugins import Imported, Rounding

Array = NDArray[np.float64]

#: What is left of a quotient, relative to it, where it is stored as two floats; generous.
_EPS = 2.0**-100
_LARGEST = 1 << 28


def read_file(path: Path) -> Imported:
    """Read a ``.nnet`` file.

    Raises :class:`FormatError` naming the file and the line.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="strict")
    except FileNotFoundError:
        raise FormatError(f"{path}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: cannot be read as text ({error})") from None
    return _Lines(text, str(path)).imported()


def split_quotient(divisor: float) -> tuple[float, float]:
    """1 / divisor as the sum of two floats, which have twice the digits of one."""
    high = 1.0 / divisor
    return high, float(1 / Fraction(divisor) - Fraction(high))


class _Lines:
    """The lines that hold numbers, taken one by one."""

    def __init__(self, text: str, where: str) -> None:
        self._where = where
        self._rest: Iterator[tuple[int, str]] = (
            (number, line)
            for number, line in enumerate(text.splitlines(), 1)
            if line.strip() and not line.lstrip().startswith("//")
        )

    def imported(self) -> Imported:
        """The network, with what rounding its normalisation took."""
        layers, inputs, outputs = self._whole("the sizes")[:3]
        widths = self._whole("the layer widths")
        if len(widths) != layers + 1 or widths[0] != inputs or widths[-1] != outputs:
            raise FormatError(
                f"{self._where}: the layer widths {widths} do not fit {layers} layers, {inputs} inputs "
                f"and {outputs} outputs"
            )
        if min(widths) < 1 or any(a * b > _LARGEST for a, b in itertools.pairwise(widths)):
            raise FormatError(f"{self._where}: layer widths {widths} are out of range")
        self._numbers("the flag")
        self._numbers("the input minima")
        self._numbers("the input maxima")
        means = self._numbers("the means", at_least=inputs + 1)
        ranges = self._numbers("the ranges", at_least=inputs + 1)
        if (ranges[: inputs + 1] == 0).any():
            raise FormatError(f"{self._where}: a range is zero")
        nodes: list[Node] = []
        rounding: dict[str, Rounding] = {}
        at = self._normalisation(means[:inputs], ranges[:inputs], nodes, rounding)
        for layer in range(layers):
            what = f"layer {layer + 1}"
            weights = np.stack([self._row(widths[layer], f"{what}, row {i}") for i in range(widths[layer + 1])])
            bias = np.concatenate([self._row(1, f"{what}, bias {i}") for i in range(widths[layer + 1])])
            nodes.append(Affine(f"layer{layer + 1}", (at,), (Dense(weights),), bias, Origin(what, "dense")))
            at = nodes[-1].name
            if layer < layers - 1:
                nodes.append(Relu(f"relu{layer + 1}", at, np.zeros(len(bias)), Origin(what, "relu")))
                at = nodes[-1].name
        for number, line in self._rest:
            raise FormatError(f"{self._where}, line {number}: '{line[:40]}' stands after the last layer")
        mean, scale = float(means[inputs]), float(ranges[inputs])
        if (mean, scale) != (0.0, 1.0):
            diagonal = Diagonal(np.full(outputs, scale))
            nodes.append(Affine("denormalised", (at,), (diagonal,), np.full(outputs, mean), Origin("output", "scale")))
            at = "denormalised"
        return Imported(Network(inputs, tuple(nodes), at), (), rounding)

    def _normalisation(self, means: Array, ranges: Array, nodes: list[Node], rounding: dict[str, Rounding]) -> str:
        """x − mean, which is exact, and that times 1 / range, as the sum of two floats: one alone rounds too much."""
        at, origin = INPUT, Origin("input", "normalisation")
        if means.any():
            nodes.append(Affine("centred", (at,), (Select.identity(len(means)),), -means, origin))
            at = "centred"
        if (ranges == 1).all():
            return at
        if (np.abs(ranges) < 2.0**-1000).any() or (np.abs(ranges) > 2.0**900).any():
            raise FormatError(f"{self._where}: dividing by the ranges leaves what float64 can hold; scale the inputs")
        scale, rest = (np.array(part) for part in zip(*map(split_quotient, ranges.tolist()), strict=True))
        maps = (Diagonal(scale), Diagonal(rest)) if rest.any() else (Diagonal(scale),)
        if rest.any():
            rounding["normalised"] = Rounding(_EPS, np.zeros(len(means)))
        nodes.append(Affine("normalised", (at,) * len(maps), maps, np.zeros(len(means)), origin))
        return "normalised"

    def _row(self, count: int, what: str) -> Array:
        values = self._numbers(what, at_least=count)
        if len(values) != count:
            raise FormatError(f"{self._where}: {what} has {len(values)} numbers, expected {count}")
        return values

    def _whole(self, what: str) -> list[int]:
        values = self._numbers(what, at_least=2)
        if (values != np.floor(values)).any() or (np.abs(values) > _LARGEST).any():
            raise FormatError(f"{self._where}: {what} are not whole numbers")
        if what == "the sizes" and len(values) < 3:
            raise FormatError(f"{self._where}: {what} are incomplete")
        return [int(value) for value in values]

    def _numbers(self, what: str, at_least: int = 0) -> Array:
        number, line = next(self._rest, (0, ""))
        if number == 0:
            raise FormatError(f"{self._where}: the file ends before {what}; is it truncated?")
        try:
            values = np.array([float(part) for part in line.split(",") if part.strip()])
        except ValueError:
            raise FormatError(f"{self._where}, line {number}: '{line.strip()[:40]}' is not numbers ({what})") from None
        if not np.isfinite(values).all():
            raise FormatError(f"{self._where}, line {number}: {what} hold NaN or infinity")
        if len(values) < at_least:
            raise FormatError(f"{self._where}, line {number}: {what} need {at_least} numbers, found {len(values)}")
        return values
