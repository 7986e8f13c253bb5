"""Reading ``.nnet``: a chain of ReLU layers on raw inputs, normalised as (x − mean) / range.

Header lines, after ``//`` comments: sizes; layer widths; a flag; input minima and maxima (not applied: a
network is what its weights say); means and ranges of the inputs and, last, of the output. Then, layer by
layer, one line per row of weights and one per bias. Numbers are decimal, read as the nearest float64.
"""

from __future__ import annotations

import itertools
import math
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


def reciprocals(numbers: Array) -> tuple[Array, Array, float]:
    """1 / n as the sum of two floats, the first the nearest; and how far that is off at most, relative to it.

    Raises :class:`OverflowError` where there is none.
    """
    exact = [1 / Fraction(float(number)) for number in numbers]
    first = [float(value) for value in exact]
    second = [float(value - Fraction(near)) for value, near in zip(exact, first, strict=True)]
    left = max(abs((e - Fraction(f) - Fraction(s)) / Fraction(f)) for e, f, s in zip(exact, first, second, strict=True))
    return np.array(first), np.array(second), math.nextafter(float(left), math.inf) if left else 0.0


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
        """(x − mean) / range. Where 1 / range has no float, it is stored as two: what is left is worth no rewrite."""
        if not means.any() and (ranges == 1).all():
            return INPUT
        name, origin = "normalised", Origin("input", "normalisation")
        if (ranges == 1).all():
            nodes.append(Affine(name, (INPUT,), (Select.identity(len(means)),), -means, origin))
            return name
        with np.errstate(over="ignore"):
            scale, shift = 1.0 / ranges, -means / ranges
        if (np.frexp(np.abs(ranges))[0] == 0.5).all() and (shift * ranges == -means).all():  # every quotient is a float
            nodes.append(Affine(name, (INPUT,), (Diagonal(scale),), shift, origin))
            return name
        at = INPUT
        if means.any():
            at = "centred"
            nodes.append(Affine(at, (INPUT,), (Select.identity(len(means)),), -means, origin))
        try:
            first, second, left = reciprocals(ranges)
        except OverflowError:
            raise FormatError(f"{self._where}: the range {np.abs(ranges).min():g} is too small to divide by") from None
        nodes.append(Affine(name, (at, at), (Diagonal(first), Diagonal(second)), np.zeros(len(means)), origin))
        if left:
            rounding[name] = Rounding(left, np.zeros(len(means)))
        return name

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
