"""Reading ``.nnet``: a chain of ReLU layers on raw inputs, normalised as (x − mean) / range.

Header lines, after ``//`` comments: sizes; layer widths; a flag, 0; input minima and maxima (not applied: a
network is what its weights say); means and ranges of the inputs and, last, of the output. Then, layer by
layer, one line per row of weights and one per bias. Numbers are decimal, read as the nearest float64. Where the
readers of the format differ in what a header means, it is refused.
"""

from __future__ import annotations

import codecs
import itertools
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leo_core.errors import FormatError
from leo_core.linear import Dense, Diagonal, Select
from leo_core.network import INPUT, Affine, Network, Node, Origin, Relu
from leo_core.plugins import Imported, Rounding
from leo_frontends.pointers import bytes_of

Array = NDArray[np.float64]

#: What is left of a quotient, relative to it, where it is stored as two floats; generous.
_EPS = 2.0**-100
_LARGEST = 1 << 28


def read_file(path: Path) -> Imported:
    """Read a ``.nnet`` file.

    Raises :class:`FormatError` naming the file and the line.
    """
    return _Lines(_text(bytes_of(path), str(path)), str(path)).imported()


def _text(data: bytes, where: str) -> str:
    """The text of a file; only its comments can hold anything but ASCII, so the encoding changes nothing."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            return data.decode("utf-16")
        except UnicodeDecodeError as error:
            raise FormatError(f"{where}: cannot be read as text ({error})") from None
    if b"\0" in data:
        raise FormatError(f"{where}: is not a text file")
    return data.removeprefix(codecs.BOM_UTF8).decode("latin-1")


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
            for number, line in enumerate(re.split("\r\n|\r|\n", text), 1)
            if line.strip() and not line.lstrip().startswith("//")
        )

        self._line = 0

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
        flag = self._numbers("the flag")
        if flag.any():
            raise FormatError(
                f"{self._where}, line {self._line}: the flag is {flag[0]:g}; some readers mirror inputs and outputs "
                "then, others do not: LEO reads networks with the flag 0"
            )
        for what in ("the input minima", "the input maxima"):
            self._limits(what, inputs)
        means, ranges = (
            self._header(what, inputs + 1, f"{inputs} inputs and the output", neutral)
            for what, neutral in (("the means", 0.0), ("the ranges", 1.0))
        )
        if (ranges == 0).any():
            raise FormatError(f"{self._where}, line {self._line}: a range is zero")
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
        beyond = [(number, line.strip()) for number, line in self._rest if line.strip(", \t")]
        notes = [
            f"{self._where}, line {number}: '{line[:40]}' stands after the last layer and is not read"
            for number, line in beyond[:1]
        ]
        mean, scale = float(means[inputs]), float(ranges[inputs])
        if (mean, scale) != (0.0, 1.0):
            diagonal = Diagonal(np.full(outputs, scale))
            nodes.append(Affine("denormalised", (at,), (diagonal,), np.full(outputs, mean), Origin("output", "scale")))
            at = "denormalised"
        return Imported(Network(inputs, tuple(nodes), at), tuple(notes), rounding)

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

    def _limits(self, what: str, count: int) -> None:
        """A line with a limit for each input, which is not applied; some writers put the output's behind."""
        values = self._numbers(what)
        if len(values) not in (count, count + 1):
            raise FormatError(
                f"{self._where}, line {self._line}: {what} are {len(values)} numbers for {count} inputs, "
                f"expected {count}"
            )

    def _header(self, what: str, count: int, of: str, neutral: float) -> Array:
        """A line of the header that must hold exactly so many numbers: readers differ in which they take else.

        Where all are neutral, it does not matter that the last one is missing.
        """
        values = self._numbers(what)
        if len(values) == count - 1 and (values == neutral).all():
            return np.full(count, neutral)
        if len(values) != count:
            raise FormatError(
                f"{self._where}, line {self._line}: {what} are {len(values)} numbers for {of}, expected {count}; other "
                "readers of the format differ in which of them they take"
            )
        return values

    def _row(self, count: int, what: str) -> Array:
        values = self._numbers(what, at_least=count)
        if len(values) != count:
            raise FormatError(f"{self._where}, line {self._line}: {what} has {len(values)} numbers, expected {count}")
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
        self._line = number
        try:
            values = np.array([_number(part) for part in line.strip().removesuffix(",").split(",")])
        except ValueError:
            raise FormatError(f"{self._where}, line {number}: '{line.strip()[:40]}' is not numbers ({what})") from None
        if not np.isfinite(values).all():
            raise FormatError(f"{self._where}, line {number}: {what} hold NaN or infinity")
        if len(values) < at_least:
            raise FormatError(f"{self._where}, line {number}: {what} need {at_least} numbers, found {len(values)}")
        return values


def _number(text: str) -> float:
    """A decimal number; Python's own underscores and other digits are none in C."""
    if not text.isascii() or "_" in text:
        raise ValueError(text)
    return float(text)
