"""VNN-LIB 2.0: the box that the inputs of a network range over, and the question whether two networks are within ε.

A query declares networks (``declare-network``) with their inputs and outputs, and asserts what a counterexample is.
Read is a box of the inputs; and of two networks, whose inputs are tied one by one (``==``), that an output is apart:

    (or (> Y_g[0] (+ Y_f[0] 0.05)) (< Y_g[0] (- Y_f[0] 0.05)) …)

No counterexample, and |f − g| ≤ ε, are the same. Whatever else a file asserts is refused, by line. Linear terms are
added up over the rationals, in any order of writing; bounds of a box are then read as the nearest float64.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from leo_core.errors import DomainError
from leo_core.within import Within

Array = NDArray[np.float64]
#: A name or a number, or what stands between two parentheses; with its line.
Item: TypeAlias = "tuple[int, str] | tuple[int, list[Item]]"
#: (network, 'X' or 'Y', place among all its inputs or outputs) → coefficient.
Linear: TypeAlias = "dict[tuple[int, str, int], Fraction]"
#: (name, size) of each output of a model.
Outputs: TypeAlias = "Sequence[tuple[str, int]]"

_TOKEN = re.compile(r';[^\n]*|"[^"\n]*"|[()]|\[[^\[\]()]*\]|[^\s()\[\]";]+|\n|\s+|.')
_VERSION = re.compile(r"^(?:\s|;[^\n]*(?:\n|$))*\(\s*(?:vnnlib-version|declare-network)\b")
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d{1,3})?\Z|[+-]?\.\d+([eE][+-]?\d{1,3})?\Z")
_NAME = re.compile(r"[A-Za-z]\w*\Z", re.ASCII)
#: Types whose values are numbers of any size; of whole ones a box has more points than are meant.
_TYPE = re.compile(r"real\Z|b?float\d", re.ASCII | re.IGNORECASE)
_TIMES = {"<=": 1, "<": 1, ">=": -1, ">": -1}
#: Parentheses in parentheses, and characters of a number, at most.
_DEEP, _LONG = 200, 400


@final
@dataclass(frozen=True)
class _Network:
    """A declaration: tensors as (name, size, name in the model if given) by kind, and whether it says it is ``equal``
    to another network."""

    name: str
    line: int
    inputs: tuple[tuple[str, int, str], ...]
    outputs: tuple[tuple[str, int, str], ...]
    equal: bool

    def size(self, kind: str) -> int:
        return sum(size for _, size, _ in (self.inputs if kind == "X" else self.outputs))


@final
@dataclass(frozen=True)
class _Atom:
    """Σ coefficients · variables ≤ limit, or < where ``strict``, or = where ``equal``."""

    line: int
    terms: Linear
    limit: Fraction
    strict: bool = False
    equal: bool = False


#: An atom, or ("and" or "or", line, parts).
_Formula: TypeAlias = "_Atom | tuple[str, int, list[_Formula]]"


@final
@dataclass(frozen=True, eq=False)
class Pair:
    """What a file asks of two networks: a box, and limits of their outputs. ``same``: it says that both are one."""

    lower: Array
    upper: Array
    within: Within
    same: bool


def is_version_2(text: str) -> bool:
    """Whether a file says that it is of VNN-LIB 2.0 or later: it begins with that, or with a network."""
    return _VERSION.match(text) is not None


def names_two(text: str, where: str) -> bool:
    """Whether a file declares two networks, or more."""
    return is_version_2(text) and len(_Query(text, where).networks) > 1


def read_input_boxes(text: str, where: str, size: int) -> tuple[list[tuple[Array, Array]], tuple[str, ...]]:
    """As :func:`leo_core.vnnlib.read_input_boxes`: the boxes of one network's inputs, and notes for the user."""
    query = _Query(text, where)
    if len(query.networks) > 1:
        line = query.networks[1].line
        raise DomainError(f"{where}, line {line}: it is about {len(query.networks)} networks; only 'verify' takes two")
    query.require_size(0, "X", size)
    common: list[_Atom] = []
    choices: list[list[list[_Atom]]] = []
    notes: tuple[str, ...] = ()
    for formula in query.conjuncts:
        kinds = {kind for atom in _atoms(formula) for _, kind, _ in atom.terms}
        if "X" not in kinds:
            notes = (f"{where}: constraints on outputs do not bound the domain; they are ignored",)
        elif isinstance(formula, _Atom):
            common.append(formula)
        else:
            choices.append([_conjunction(part, where) for part in formula[2]])
    if len(choices) > 1:
        raise DomainError(f"{where}: several disjunctions over the inputs; LEO reads one")
    boxes = []
    for case in choices[0] if choices else [[]]:
        atoms = [*common, *case]
        boxes.append(_box([atom for atom in atoms if any(kind == "X" for _, kind, _ in atom.terms)], where, size))
    return boxes, notes


def read_pair(text: str, where: str, inputs: int, outputs: Sequence[Outputs]) -> Pair:
    """What a file asks of two networks with so many inputs, and these outputs.

    Raises :class:`DomainError`, naming the line, where that is anything but a box and |f − g| ≤ ε.
    """
    query = _Query(text, where)
    if len(query.networks) != 2:
        raise DomainError(f"{where}: {len(query.networks)} networks are declared; LEO compares two")
    for number in (0, 1):
        query.require_size(number, "X", inputs)
        query.require_outputs(number, outputs[number])
    bounds: list[_Atom] = []
    tied: set[int] = set()
    apart: list[_Formula] = []
    for formula in query.conjuncts:
        kinds = {kind for atom in _atoms(formula) for _, kind, _ in atom.terms}
        if kinds == {"X"} and isinstance(formula, _Atom):
            place = _tied(formula)
            if place is None:
                bounds.append(formula)
            else:
                tied.add(place)
        elif kinds == {"Y"}:
            apart.append(formula)
        else:
            line = next(iter(_atoms(formula))).line
            raise DomainError(f"{where}, line {line}: neither a bound of one input, nor about outputs alone; {_READ}")
    lower, upper = _box(bounds, where, inputs)
    if missing := sorted(set(range(inputs)) - tied):
        line = query.networks[1].line
        raise DomainError(
            f"{where}, line {line}: input {missing[0]} of the two networks is not tied by (== …), so they are not "
            "compared at the same inputs"
        )
    if len(apart) != 1:
        line = next(_atoms(apart[1])).line if apart else query.networks[1].line
        raise DomainError(f"{where}, line {line}: {len(apart)} conditions on outputs hold at once; {_READ}")
    return Pair(lower, upper, _limits(apart[0], where, sum(size for _, size in outputs[0])), query.networks[1].equal)


_READ = "LEO reads a box of the inputs, inputs tied by ==, and one 'or' of outputs that are apart by more than ε"


class _Query:
    """Declarations, and what is asserted as a list of formulas, none of them an 'and'."""

    def __init__(self, text: str, where: str) -> None:
        self._where = where
        self.networks: list[_Network] = []
        self._places: dict[str, tuple[int, str, int, tuple[int, ...]]] = {}
        self.conjuncts: list[_Formula] = []
        for position, (line, parts) in enumerate(_parsed(text, where)):
            assert isinstance(parts, list)  # what else there is stands outside any parenthesis
            head = _head(parts)
            if head == "vnnlib-version" and position == 0:
                self._version(line, parts)
            elif head == "declare-network":
                self._declare(line, parts)
            elif head == "assert" and len(parts) == 2:
                self.conjuncts += _flat("and", self._formula(parts[1]))
            else:
                raise self._error(line, f"({_told(parts)}) is no command that LEO knows, or not in its place")
        if not self.networks:
            raise DomainError(f"{where}: no network is declared")

    def require_size(self, number: int, kind: str, size: int) -> None:
        """Raise where a declaration has more or fewer values than the network given."""
        network = self.networks[number]
        if network.size(kind) != size:
            what = "inputs" if kind == "X" else "outputs"
            raise self._error(network.line, f"'{network.name}' is declared with {network.size(kind)} {what}, the "
                                            f"network has {size}")  # fmt: skip

    def require_outputs(self, number: int, outputs: Outputs) -> None:
        """Raise where a declaration has other outputs than the network given, or, of several, in another order."""
        self.require_size(number, "Y", sum(size for _, size in outputs))
        network = self.networks[number]
        if len(network.outputs) > 1 and any(
            size != known or name not in ("", called)
            for (_, size, name), (called, known) in zip(network.outputs, outputs, strict=False)
        ):
            told = ", ".join(f"'{name}' of {size}" for name, size in outputs)
            raise self._error(network.line, f"'{network.name}' is declared with other outputs than the network gives, "
                                            f"or in another order: these are {told}")  # fmt: skip

    def _error(self, line: int, text: str) -> DomainError:
        return DomainError(f"{self._where}, line {line}: {text}")

    def _version(self, line: int, parts: list[Item]) -> None:
        version = re.fullmatch(r"<(\d+)\.(\d+)>", str(parts[1][1])) if len(parts) == 2 else None
        if version is None or version[1] != "2":
            raise self._error(line, f"({_told(parts)}) is none that LEO reads: it reads <2.0>, and 1.0 without")

    def _declare(self, line: int, parts: list[Item]) -> None:
        name = parts[1][1] if len(parts) > 1 else ""
        if not isinstance(name, str) or not _NAME.match(name) or any(name == other.name for other in self.networks):
            raise self._error(line, "expected (declare-network NAME …), with a name of its own")
        tensors: dict[str, list[tuple[str, int, str]]] = {"declare-input": [], "declare-output": []}
        equal = False
        for at, item in parts[2:]:
            words = [part if isinstance(part, str) else "" for _, part in item] if isinstance(item, list) else []
            if words and words[0] in ("equal-to", "isomorphic-to"):
                if len(words) != 2 or words[1] not in [other.name for other in self.networks]:
                    raise self._error(at, f"({_told(item)}) names no network declared before")
                equal |= words[0] == "equal-to"
            elif words and words[0] in tensors and len(words) in (4, 5):
                kind = "X" if words[0] == "declare-input" else "Y"
                shape, known = _indices(words[3]), tensors[words[0]]
                tensor = words[1]
                if shape is None or not _NAME.match(tensor) or tensor in self._places:
                    raise self._error(at, f"expected ({words[0]} NAME TYPE [SHAPE]), with a name of its own")
                if not _TYPE.match(words[2]):
                    raise self._error(at, f"'{tensor}' is of type {words[2]}; LEO reads real and floats")
                self._places[tensor] = len(self.networks), kind, sum(size for _, size, _ in known), shape
                called = words[4].strip('"') if len(words) == 5 else ""
                known.append((tensor, math.prod(shape), called))
            else:
                raise self._error(at, f"({_told(item)}) in a network's declaration is not read")
        inputs, outputs = (tuple(found) for found in tensors.values())
        if len(inputs) != 1 or not outputs:
            raise self._error(line, f"'{name}' has {len(inputs)} inputs and {len(outputs)} outputs; LEO reads networks "
                                    "with one input")  # fmt: skip
        self.networks.append(_Network(name, line, inputs, outputs, equal))

    def _formula(self, item: Item, depth: int = 0) -> _Formula:
        line, parts = item
        head = _head(parts)
        if depth > _DEEP:
            raise self._error(line, "nested too deep")
        if isinstance(parts, list) and head in ("and", "or") and len(parts) > 1:
            return head, line, [self._formula(part, depth + 1) for part in parts[1:]]
        if isinstance(parts, list) and head in (*_TIMES, "==") and len(parts) == 3:
            left, right = (self._linear(part, depth + 1) for part in parts[1:])
            sign = _TIMES.get(head, 1)
            terms = _added(_scaled(left[0], sign), _scaled(right[0], -sign))
            return _Atom(line, terms, sign * (right[1] - left[1]), head in ("<", ">"), head == "==")
        raise self._error(line, f"{_told(parts)} is no comparison (<=, <, >=, >, ==), and no 'and' or 'or' of such")

    def _linear(self, item: Item, depth: int) -> tuple[Linear, Fraction]:
        line, parts = item
        if depth > _DEEP:
            raise self._error(line, "nested too deep")
        if isinstance(parts, str):
            if len(parts) <= _LONG and _NUMBER.match(parts):
                return {}, Fraction(parts)
            return {self._variable(line, parts): Fraction(1)}, Fraction(0)
        head = _head(parts)
        values = [self._linear(part, depth + 1) for part in parts[1:]]
        if head == "+" and values:
            signs = [1] * len(values)
        elif head == "-" and values:
            signs = [-1] if len(values) == 1 else [1] + [-1] * (len(values) - 1)
        elif head == "*" and values and sum(bool(terms) for terms, _ in values) <= 1:
            factor = math.prod((constant for terms, constant in values if not terms), start=Fraction(1))
            terms, constant = next((value for value in values if value[0]), ({}, Fraction(1)))
            return _scaled(terms, factor), constant * factor
        else:
            raise self._error(line, f"{_told(parts)} is no linear term")
        total: Linear = {}
        for sign, (terms, _) in zip(signs, values, strict=True):
            total = _added(total, _scaled(terms, sign))
        return total, sum((sign * constant for sign, (_, constant) in zip(signs, values, strict=True)), Fraction(0))

    def _variable(self, line: int, text: str) -> tuple[int, str, int]:
        name, bracket, rest = text.partition("[")
        indices = _indices(bracket + rest) if bracket else ()
        if name not in self._places or indices is None:
            raise self._error(line, f"'{text[:40]}' is no number, and no value of a network declared before")
        number, kind, begin, shape = self._places[name]
        if len(indices) != len(shape) or any(index >= size for index, size in zip(indices, shape, strict=True)):
            raise self._error(line, f"'{text[:40]}' is outside the shape {list(shape)} that is declared")
        return number, kind, begin + (int(np.ravel_multi_index(indices, shape)) if shape else 0)


def _limits(formula: _Formula, where: str, outputs: int) -> Within:
    """ε of each output, from the ways to be too far apart; None for those that may be anything."""
    known: dict[tuple[int, int], tuple[Fraction, bool]] = {}
    for part in _flat("or", formula):
        while not isinstance(part, _Atom) and len(part[2]) == 1:
            part = part[2][0]
        line = part.line if isinstance(part, _Atom) else part[1]
        if not isinstance(part, _Atom) or part.equal:
            raise DomainError(
                f"{where}, line {line}: two networks that are apart in several ways at once are not what |f − g| > ε "
                f"says; {_READ}"
            )
        found = _one_apart(part)
        if found is None:
            raise DomainError(f"{where}, line {line}: not of the form |f − g| > ε at one output; {_READ}")
        side, epsilon, strict = found
        at_once = epsilon, strict
        known[side] = min(known.get(side, at_once), at_once)
    limits: list[Fraction | None] = []
    for output in range(outputs):
        above, below = known.get((output, 1)), known.get((output, -1))
        if above != below:
            line = next(iter(_atoms(formula))).line
            raise DomainError(
                f"{where}, line {line}: output {output} is bounded to one side, or by two ε; that is not |f − g| ≤ ε"
            )
        limits.append(above[0] if above else None)
    reached = [known.get((output, 1), (Fraction(0), True)) for output in range(outputs)]  # by ε is too far already
    return Within(tuple(limits), tuple(not more for _, more in reached))


def _one_apart(atom: _Atom) -> tuple[tuple[int, int], Fraction, bool] | None:
    """((output, sign of f − g), ε, whether 'apart' means by more than it) where an atom says sign · (f − g) > ε ≥ 0."""
    if len(atom.terms) != 2:
        return None
    (one, factor), (other, opposite) = sorted(atom.terms.items())
    if (one[0], other[0]) != (0, 1) or one[2] != other[2] or factor != -opposite:
        return None
    epsilon = -atom.limit / abs(factor)  # factor·(f − g) ≤ limit
    return ((one[2], -1 if factor > 0 else 1), epsilon, atom.strict) if epsilon >= 0 else None


def _tied(atom: _Atom) -> int | None:
    """The input that an atom says is the same in both networks; None for another atom."""
    if not atom.equal or atom.limit or len(atom.terms) != 2:
        return None
    (one, factor), (other, opposite) = sorted(atom.terms.items())
    return one[2] if (one[0], other[0]) == (0, 1) and one[2] == other[2] and factor == -opposite else None


def _box(atoms: Sequence[_Atom], where: str, size: int) -> tuple[Array, Array]:
    lower, upper = np.full(size, -np.inf), np.full(size, np.inf)
    for atom in atoms:
        if len(atom.terms) != 1 or atom.strict:
            raise DomainError(f"{where}, line {atom.line}: not a bound of one input (<= or >= a number)")
        ((_, _, place), factor), *_ = atom.terms.items()
        try:
            value = float(atom.limit / factor)
        except OverflowError:
            raise DomainError(f"{where}, line {atom.line}: a bound that no float64 holds") from None
        if factor > 0 or atom.equal:
            upper[place] = min(upper[place], value)
        if factor < 0 or atom.equal:
            lower[place] = max(lower[place], value)
    missing = np.flatnonzero(~(np.isfinite(lower) & np.isfinite(upper)))
    if len(missing):
        raise DomainError(f"{where}: input {missing[0]} has no lower or no upper bound; a box needs both")
    return lower, upper


def _conjunction(formula: _Formula, where: str) -> list[_Atom]:
    found = _flat("and", formula)
    for part in found:
        if not isinstance(part, _Atom):
            raise DomainError(f"{where}, line {part[1]}: an 'or' inside another is no box, and no hull of boxes")
    return [part for part in found if isinstance(part, _Atom)]


def _flat(word: str, formula: _Formula) -> list[_Formula]:
    """The parts of nested formulas of one word."""
    if isinstance(formula, _Atom) or formula[0] != word:
        return [formula]
    return [part for inner in formula[2] for part in _flat(word, inner)]


def _atoms(formula: _Formula) -> Iterator[_Atom]:
    if isinstance(formula, _Atom):
        yield formula
    else:
        for part in formula[2]:
            yield from _atoms(part)


def _scaled(terms: Linear, factor: Fraction | int) -> Linear:
    return {variable: coefficient * factor for variable, coefficient in terms.items() if factor}


def _added(left: Linear, right: Linear) -> Linear:
    total = dict(left)
    for variable, coefficient in right.items():
        total[variable] = total.get(variable, Fraction(0)) + coefficient
    return {variable: coefficient for variable, coefficient in total.items() if coefficient}


def _head(parts: str | list[Item]) -> str:
    """The word that a parenthesis begins with; empty where it begins with none."""
    first = parts[0][1] if isinstance(parts, list) and parts else ""
    return first if isinstance(first, str) else ""


def _indices(text: str) -> tuple[int, ...] | None:
    """The whole numbers between brackets."""
    if not text.startswith("[") or not text.endswith("]"):
        return None
    parts = [part.strip() for part in text[1:-1].split(",")] if text[1:-1].strip() else []
    return tuple(map(int, parts)) if all(re.fullmatch(r"[0-9]{1,9}", part) for part in parts) else None


def _parsed(text: str, where: str) -> list[Item]:
    """The commands of a file. A bracket belongs to the name before it."""
    top: list[Item] = []
    stack: list[tuple[int, list[Item]]] = [(0, top)]
    line = 1
    for match in _TOKEN.finditer(text):
        token = match.group()
        inside = stack[-1][1]
        if token == "(":
            stack.append((line, []))
        elif token == ")":
            if len(stack) == 1:
                raise DomainError(f"{where}, line {line}: a ')' too many")
            begun, parts = stack.pop()
            stack[-1][1].append((begun, parts))
        elif not token.isspace() and not token.startswith(";"):
            if len(stack) == 1:
                raise DomainError(f"{where}, line {line}: '{token[:40]}' stands outside any parenthesis")
            last = inside[-1][1] if inside else ""
            if token.startswith("[") and isinstance(last, str) and _NAME.match(last) and not _declaring(inside):
                inside[-1] = inside[-1][0], last + token
            else:
                inside.append((line, token))
        line += token.count("\n")
    if len(stack) > 1:
        raise DomainError(f"{where}, line {stack[1][0]}: the '(' there is never closed; is the file truncated?")
    return top


def _declaring(parts: list[Item]) -> bool:
    """Whether a bracket after these is a shape of its own, not the place in the name before it."""
    return bool(parts) and str(parts[0][1]).startswith("declare-")


def _told(content: str | list[Item]) -> str:
    text = content if isinstance(content, str) else " ".join(p if isinstance(p, str) else "(…)" for _, p in content)
    return text if len(text) <= 80 else text[:77] + "…"
