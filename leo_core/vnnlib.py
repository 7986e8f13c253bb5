"""The input side of VNN-LIB 1.0 properties: which boxes the constraints on X_0, X_1, … describe.

Only what is a union of boxes is read: ``(assert (<= X_0 1.0))``, either operand order, ``and``, and
one ``or`` of such conjunctions. Constraints on the outputs Y_* do not matter for the domain.
"""

from __future__ import annotations

import re
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from leo_core import vnnlib2
from leo_core.errors import DomainError

Array = NDArray[np.float64]
Expression: TypeAlias = "str | list[Expression]"

_TOKEN = re.compile(r";[^\n]*|[()]|[^\s();]+|\n")
_INPUT = re.compile(r"X_(\d+)\Z")
_OUTPUT = re.compile(r"Y_(\d+)\Z")


def read_input_boxes(text: str, where: str, size: int) -> tuple[list[tuple[Array, Array]], tuple[str, ...]]:
    """The boxes a property's inputs range over, and notes for the user.

    Raises :class:`DomainError` for damaged text and for anything over the inputs that is no box.
    """
    if vnnlib2.is_version_2(text):
        return vnnlib2.read_input_boxes(text, where, size)
    common: list[tuple[int, str, float]] = []
    choices: list[list[list[tuple[int, str, float]]]] = []
    notes: tuple[str, ...] = ()
    for expression, line in parse(text, where):
        place = f"{where}, line {line}"
        if not isinstance(expression, list) or not expression:
            raise DomainError(f"{place}: expected (declare-const …) or (assert …)")
        if expression[0] == "declare-const":
            _check_declaration(expression, place, size)
        elif expression[0] == "assert" and len(expression) == 2:
            names = set(_names(expression[1]))
            if not any(_INPUT.match(name) for name in names):
                if any(_OUTPUT.match(name) for name in names):
                    notes = (f"{where}: constraints on outputs do not bound the domain; they are ignored",)
                continue
            cases = _cases(expression[1], place)
            if len(cases) == 1:
                common += cases[0]
            else:
                choices.append(cases)
        else:
            raise DomainError(f"{place}: expected (declare-const …) or (assert …), found ({show(expression[0])} …)")
    if len(choices) > 1:
        raise DomainError(f"{where}: several disjunctions over the inputs; LEO reads one")
    boxes = [_box([*common, *case], where, size) for case in (choices[0] if choices else [[]])]
    return boxes, notes


def parse(text: str, where: str) -> list[tuple[Expression, int]]:
    """The expressions of a file, each with its line."""
    finished: list[tuple[Expression, int]] = []
    stack: list[tuple[list[Expression], int]] = []
    line = 1
    for match in _TOKEN.finditer(text):
        token = match.group()
        if token == "\n":
            line += 1
        elif token.startswith(";"):
            continue
        elif token == "(":
            stack.append(([], line))
        elif token == ")":
            if not stack:
                raise DomainError(f"{where}, line {line}: a ')' too many")
            done, begun = stack.pop()
            if stack:
                stack[-1][0].append(done)
            else:
                finished.append((done, begun))
        elif stack:
            stack[-1][0].append(token)
        else:
            raise DomainError(f"{where}, line {line}: '{token[:40]}' stands outside any parenthesis")
    if stack:
        raise DomainError(f"{where}, line {stack[0][1]}: the '(' there is never closed; is the file truncated?")
    return finished


def _names(expression: Expression) -> list[str]:
    found: list[str] = []
    stack = [expression]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            found.append(item)
        else:
            stack.extend(item)
    return found


def _check_declaration(expression: list[Expression], place: str, size: int) -> None:
    if len(expression) != 3 or not isinstance(expression[1], str) or expression[2] != "Real":
        raise DomainError(f"{place}: expected (declare-const NAME Real)")
    match = _INPUT.match(expression[1])
    if match and int(match[1]) >= size:
        raise DomainError(f"{place}: {expression[1]} is declared, but the network has {size} inputs")


def _cases(expression: Expression, place: str) -> list[list[tuple[int, str, float]]]:
    """Disjunctive form of one assertion: a list of conjunctions of (input, side, value)."""
    if isinstance(expression, list) and expression and expression[0] == "or":
        return [_conjunction(part, place) for part in expression[1:]]
    return [_conjunction(expression, place)]


def _conjunction(expression: Expression, place: str) -> list[tuple[int, str, float]]:
    found: list[tuple[int, str, float]] = []
    stack = [expression]
    while stack:
        item = stack.pop()
        if isinstance(item, list) and item and item[0] == "and":
            stack.extend(item[1:])
        elif isinstance(item, list) and len(item) == 3 and item[0] in ("<=", ">="):
            bound = _comparison(item, place)
            if bound is not None:
                found.append(bound)
        else:
            raise DomainError(f"{place}: {show(item)} is not a box constraint; LEO reads (<= X_i c) and (>= X_i c)")
    return found


def _comparison(item: list[Expression], place: str) -> tuple[int, str, float] | None:
    operator, left, right = item[0], _atom(item[1]), _atom(item[2])
    for name, other, is_upper in ((left, right, operator == "<="), (right, left, operator == ">=")):
        if isinstance(name, str) and isinstance(other, str):
            if _OUTPUT.match(name) and not _INPUT.match(other):
                return None
            match = _INPUT.match(name)
            value = _number(other)
            if match and value is not None:
                return int(match[1]), "upper" if is_upper else "lower", value
    raise DomainError(f"{place}: {show(item)} is not a box constraint; LEO reads (<= X_i c) and (>= X_i c)")


def _atom(side: Expression) -> Expression:
    """A name or a number; SMT-LIB spells a negative one (- 1.0)."""
    match side:
        case ["-", str(number)]:
            return f"-{number}"
    return side


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _box(bounds: list[tuple[int, str, float]], where: str, size: int) -> tuple[Array, Array]:
    lower, upper = np.full(size, -np.inf), np.full(size, np.inf)
    for index, side, value in bounds:
        if index >= size:
            raise DomainError(f"{where}: X_{index} is bounded, but the network has {size} inputs")
        if np.isnan(value):
            raise DomainError(f"{where}: X_{index} is compared with NaN")
        if side == "lower":
            lower[index] = max(lower[index], value)
        else:
            upper[index] = min(upper[index], value)
    missing = np.flatnonzero(~(np.isfinite(lower) & np.isfinite(upper)))
    if len(missing):
        raise DomainError(f"{where}: X_{missing[0]} has no lower or no upper bound; a box needs both")
    return lower, upper


def show(item: Expression) -> str:
    """An expression for a message, shortened."""
    text = item if isinstance(item, str) else "(" + " ".join(i if isinstance(i, str) else "(…)" for i in item) + ")"
    return text if len(text) <= 80 else text[:77] + "…"
