"""VNN-LIB 1.0 properties with their outputs: moved, so that what is proved of a smaller network holds for the first.

A property asks for an input of a box at which the outputs satisfy its constraints: a counterexample. Where a network g
is at most δ away from f at every output, f(x) can satisfy Σ cᵢ yᵢ ≤ b only if g(x) satisfies

    Σ cᵢ yᵢ ≤ b + Σ |cᵢ| δᵢ,

so a property with all constraints moved like that has a counterexample on g wherever the first has one on f: none on g
proves that there is none on f. One found on g need not be one on f, and is to be looked at there. All of it is worked
out over the rationals; new numbers are rounded away from the constraint.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias, final

import numpy as np

from leo_core.arithmetic import float_up
from leo_core.domain import Box, read_vnnlib
from leo_core.errors import DomainError
from leo_core.network import Signature
from leo_core.tails import through
from leo_core.vnnlib import Expression, parse, read_input_boxes, show

#: What a constraint's side comes to: a factor for each output, and the constant.
Form: TypeAlias = "tuple[dict[int, Fraction], Fraction]"

_TURNED = {"<=": ">=", ">=": "<=", "<": ">", ">": "<"}


@final
@dataclass(frozen=True, eq=False)
class Property:
    """A property as read: ``box`` is the hull of its input boxes, ``outputs`` how many outputs it speaks of."""

    name: str
    box: Box
    outputs: int
    _asserted: tuple[tuple[Any, int], ...] = field(repr=False)

    @staticmethod
    def read(path: str | Path) -> Property:
        """From a ``.vnnlib`` file.

        Raises :class:`DomainError`, naming the line, for what is not a union of boxes over the inputs, and for
        constraints on outputs that are not linear.
        """
        text, where = read_vnnlib(path), str(path)
        expressions = parse(text, where)
        for item, line in expressions:
            for name in _leaves(item):
                if "|" in name or (name.startswith("Y_") and not list(_numbered(name, "Y"))):
                    raise DomainError(f"{where}, line {line}: '{name[:40]}' is no name that LEO reads, as in Y_0")
        inputs, outputs = (1 + max(_numbered([item for item, _ in expressions], letter), default=-1) for letter in "XY")
        if not inputs or not outputs:
            raise DomainError(f"{where}: a property speaks of inputs X_0, … and of outputs Y_0, …")
        boxes, _ = read_input_boxes(text, where, inputs)
        notes = (f"{where}: {len(boxes)} input boxes; the network is reduced on their hull",) if len(boxes) > 1 else ()
        lower, upper = np.min([low for low, _ in boxes], axis=0), np.max([high for _, high in boxes], axis=0)
        try:
            box = Box(lower, upper, notes)
        except DomainError as error:
            raise DomainError(f"{where}: {error}") from None
        found = Property(where, box, outputs, tuple(expressions))
        try:
            found.moved([0.0] * outputs)  # what cannot be moved is said before any work
        except RecursionError:
            raise DomainError(f"{where}: parentheses are nested too deeply") from None
        return found

    def require_outputs(self, count: int) -> None:
        """Raise :class:`DomainError` where it speaks of more outputs than there are."""
        if self.outputs > count:
            raise DomainError(f"{self.name}: it speaks of Y_{self.outputs - 1}, but the network has {count} outputs")

    def moved(self, apart: list[float]) -> str:
        """The property for a network that is at most ``apart[i]`` away at output i.

        Raises :class:`DomainError` where that is infinite.
        """
        if not all(map(math.isfinite, apart)):
            raise DomainError(f"{self.name}: cannot be moved, as no bound on the deviation was found")
        far = [Fraction(value) for value in apart]
        most = float_up(max(far, default=Fraction(0)))
        head = f"; {Path(self.name).name} for a network at most {most!r} away at any output: constraints moved by that"
        lines = [head, *(_written(self._turned(item, far, 1, line)) for item, line in self._asserted)]
        return "\n".join([*lines, ""])

    def _turned(self, item: Expression, apart: list[Fraction], sign: int, line: int) -> Expression:
        """An expression with its constraints on outputs moved; ``sign`` is −1 below a negation."""
        if not isinstance(item, list) or not item or item[0] == "declare-const" or not list(_numbered(item, "Y")):
            return item
        place, operator = f"{self.name}, line {line}", item[0]
        if operator in ("assert", "and", "or"):
            return [operator, *(self._turned(part, apart, sign, line) for part in item[1:])]
        if operator == "not" and len(item) == 2:
            return [operator, self._turned(item[1], apart, -sign, line)]
        if isinstance(operator, str) and len(item) == 3 and (operator in _TURNED or (operator == "=" and sign > 0)):
            if list(_numbered(item, "X")):
                raise DomainError(f"{place}: {show(item)} ties inputs to outputs, which a smaller network cannot keep")
            return _moved_by(operator, item[1], item[2], apart, sign, place)
        raise DomainError(f"{place}: {show(item)} is no constraint on outputs that LEO can move")


def _leaves(item: Expression) -> Iterator[str]:
    """All words in an expression."""
    stack = [item]
    while stack:
        part = stack.pop()
        if isinstance(part, list):
            stack.extend(part)
        else:
            yield part


def _numbered(item: Expression, letter: str) -> Iterator[int]:
    """The numbers of all inputs (X) or outputs (Y) in an expression."""
    for word in _leaves(item):
        if match := re.fullmatch(rf"{letter}_(\d{{1,9}})", word, re.ASCII):
            yield int(match[1])


def apart_at(signature: Signature, deviation: float) -> list[float]:
    """How far each output of a model may be away, behind what it ends in, where it is ``deviation`` before that."""
    return [through(output.tail, deviation) for output in signature.outputs for _ in range(output.size)]


def _moved_by(
    operator: str, left: Expression, right: Expression, apart: list[Fraction], sign: int, place: str
) -> Expression:
    (ours, constant), (theirs, other) = _form(left, place), _form(right, place)
    factors = {unit: ours.get(unit, Fraction(0)) - theirs.get(unit, Fraction(0)) for unit in {**ours, **theirs}}
    slack = sum((abs(factor) * apart[unit] for unit, factor in factors.items()), Fraction(0))
    if not slack:
        return [operator, left, right]
    if operator == "=":
        return ["and", *(_moved_by(half, left, right, apart, sign, place) for half in ("<=", ">="))]
    if not theirs:
        return [operator, left, _constant(operator, other, slack, sign)]
    if not ours:
        return [operator, _constant(_TURNED[operator], constant, slack, sign), right]
    return [operator, ["-", left, right], _constant(operator, Fraction(0), slack, sign)]


def _constant(operator: str, value: Fraction, slack: Fraction, sign: int) -> str:
    """A bound moved by ``slack``: up for an upper one, down for a lower one, and the other way below a negation."""
    upwards = (operator in ("<=", "<")) == (sign > 0)
    return _number_above(value + slack) if upwards else _negative(_number_above(slack - value))


def _negative(text: str) -> str:
    return text[1:] if text.startswith("-") else f"-{text}"


def _number_above(value: Fraction) -> str:
    """A decimal that is not below a value, neither as it stands nor as the float that it is read as."""
    number = float_up(value)
    while Fraction(Decimal(repr(number))) < value:
        number = math.nextafter(number, math.inf)
    if not math.isfinite(number):
        raise DomainError("a constraint on outputs, moved, overflows: the deviation is too large")
    return format(Decimal(repr(number)), "f")


def _form(item: Expression, place: str) -> Form:
    """A side of a constraint as a linear form of the outputs."""
    if isinstance(item, str):
        units = list(_numbered(item, "Y"))
        if units:
            return {units[0]: Fraction(1)}, Fraction(0)
        try:
            return {}, Fraction(Decimal(item))
        except (InvalidOperation, ValueError, OverflowError):
            raise DomainError(f"{place}: '{item[:40]}' is neither an output nor a number") from None
    operator, parts = (item[0], item[1:]) if item else ("", [])
    forms = [_form(part, place) for part in parts]
    if operator == "+" and forms:
        return _sum(forms)
    if operator == "-" and len(forms) == 1:
        return _times(Fraction(-1), forms[0])
    if operator == "-" and forms:
        return _sum([forms[0], *(_times(Fraction(-1), form) for form in forms[1:])])
    if operator == "*" and len(forms) == 2:
        for (factors, constant), other in (forms, forms[::-1]):
            if not factors:
                return _times(constant, other)
    raise DomainError(f"{place}: {show(item)} is not linear in the outputs")


def _sum(forms: list[Form]) -> Form:
    total: dict[int, Fraction] = {}
    for factors, _ in forms:
        for unit, factor in factors.items():
            total[unit] = total.get(unit, Fraction(0)) + factor
    return total, sum((constant for _, constant in forms), Fraction(0))


def _times(factor: Fraction, form: Form) -> Form:
    return {unit: factor * value for unit, value in form[0].items()}, factor * form[1]


def _written(item: Expression) -> str:
    return item if isinstance(item, str) else f"({' '.join(map(_written, item))})"
