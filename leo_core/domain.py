"""The input domain: a box of float64 bounds, on the model's own input, before any normalisation."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from leo_core.arithmetic import float_down, float_up
from leo_core.checker.environment import own_thread
from leo_core.errors import DomainError, FormatError
from leo_core.inputs import read_inputs
from leo_core.paths import replacing
from leo_core.vnnlib import read_input_boxes

Array = NDArray[np.float64]

#: The suffixes of files that hold examples, and of all that say a domain.
DATA = (".npy", ".npz")
FILES = (".json", ".vnnlib", ".vnnlib.gz", *DATA)
#: Bytes that a packed file may unpack to.
_MOST = 1 << 28


@final
@dataclass(frozen=True, eq=False)
class Box:
    """{ x : lower ≤ x ≤ upper }, both of shape (inputs,); an input may be fixed (lower = upper).

    ``notes`` are things a user should be told about how the box came to be. Raises
    :class:`DomainError`, naming the input, for NaN, infinite or reversed bounds.
    """

    lower: Array
    upper: Array
    notes: tuple[str, ...] = ()

    @own_thread()
    def __post_init__(self) -> None:
        for name in ("lower", "upper"):
            # + 0.0 turns −0.0 into 0.0, so that equal boxes have equal bytes
            array = np.array(_even(getattr(self, name), name, "a box"), dtype=np.float64) + 0.0
            if array.ndim != 1:
                raise DomainError(f"a box's {name} bounds must be a list of numbers, not of shape {array.shape}")
            array.setflags(write=False)
            object.__setattr__(self, name, array)
            bad = np.flatnonzero(~np.isfinite(array))
            if len(bad):
                raise DomainError(
                    f"input {bad[0]}: its {name} bound is {array[bad[0]]}; give a finite number for every input"
                )
        if len(self.lower) != len(self.upper) or len(self.lower) == 0:
            raise DomainError(f"a box needs as many lower bounds ({len(self.lower)}) as upper ({len(self.upper)})")
        bad = np.flatnonzero(self.lower > self.upper)
        if len(bad):
            i = bad[0]
            raise DomainError(
                f"input {i}: its lower bound {self.lower[i]:g} lies above its upper bound {self.upper[i]:g}; swap them"
            )
        with np.errstate(over="ignore"):
            if not np.isfinite(self.upper - self.lower).all():
                raise DomainError("an input's range is too wide for float64; give smaller bounds")

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Box)
            and np.array_equal(self.lower, other.lower)
            and np.array_equal(self.upper, other.upper)
        )

    def __hash__(self) -> int:
        return hash((self.lower.tobytes(), self.upper.tobytes()))

    def __reduce__(self) -> tuple[Any, ...]:
        return Box, (self.lower, self.upper, self.notes)

    @staticmethod
    def uniform(lower: float, upper: float, size: int) -> Box:
        """The same bounds for each of ``size`` inputs."""
        return Box(np.full(size, lower), np.full(size, upper))

    @staticmethod
    def of(spec: Any, size: int) -> Box:
        """A box for a network of ``size`` inputs.

        Parameters
        ----------
        spec:
            A Box, a pair (lower, upper) of numbers or arrays, a dict ``{"lower": …, "upper": …}`` of
            such, the text ``"LO,HI"``, or the path of a ``.json`` or ``.vnnlib`` file, or of a ``.npy`` or ``.npz``
            file of examples, whose box it is (:meth:`from_data`).
        """
        if isinstance(spec, Box):
            box = spec
        elif isinstance(spec, str | Path):
            box = _from_text(str(spec), size)
        elif isinstance(spec, Mapping):
            box = _from_sides(spec, size, "domain")
        elif isinstance(spec, tuple | list) and len(spec) == 2:
            box = _from_sides({"lower": spec[0], "upper": spec[1]}, size, "domain")
        else:
            raise DomainError(
                "a domain is a Box, a pair (lower, upper), a dict of both, 'LO,HI', a .json or .vnnlib file, or a .npy "
                f"or .npz file of examples, not {spec!r}"
            )
        if box.size != size:
            raise DomainError(f"the domain has {box.size} inputs, the network {size}; give one bound pair per input")
        return box

    @staticmethod
    def from_json(path: str | Path, size: int) -> Box:
        """From ``{"lower": …, "upper": …}``: numbers, or (nested) lists with one number per input."""
        try:
            content = json.loads(_read_text(path), object_pairs_hook=_no_duplicates)
        except (ValueError, RecursionError) as error:
            raise DomainError(f"{path}: not a valid JSON file ({error})") from None
        try:
            return _from_sides(content, size, str(path))
        except DomainError as error:
            raise DomainError(str(error) if str(path) in str(error) else f"{path}: {error}") from None

    @staticmethod
    def from_data(data: Any, margin: float = 0.0) -> Box:
        """The smallest box around data (examples × …), widened by ``margin`` × each input's range.

        The guarantee then holds on that box only: an input outside it, however common, is not covered. An input that is
        the same in all examples stays fixed, whatever the margin, and a note says so.
        """
        array = np.asarray(data)
        if array.dtype.kind not in "fiub":
            raise DomainError(f"data must hold numbers, float or integer, not {array.dtype} values")
        if array.ndim < 2 or len(array) == 0:
            raise DomainError(f"data must hold examples × inputs, not be of shape {array.shape}")
        if not (np.isfinite(margin) and margin >= 0):
            raise DomainError(f"the margin must be a finite number from 0, not {margin!r}")
        flat = array.reshape(len(array), -1)
        bad = np.flatnonzero(~np.isfinite(flat).all(axis=0))
        if len(bad):
            raise DomainError(f"input {bad[0]}: the data holds a value that is not finite")
        low, high = _ends(flat)
        widen = margin * (high - low)
        notes = [f"the domain is the box around {len(flat)} examples; the guarantee holds on that box only"]
        if fixed := int(np.count_nonzero(low == high)):
            notes.append(
                f"{fixed} of {len(low)} inputs are the same in all examples and were fixed there; if they may change, "
                "give a range for each input"
            )
        return Box(low - widen, high + widen, tuple(notes))

    def save(self, path: str | Path) -> Path:
        """Write a ``.json`` file that :meth:`of`, and ``--domain``, take for this very box.

        Raises :class:`DomainError` for another suffix, :class:`OutputError` where it cannot be written.
        """
        if Path(path).suffix.lower() != ".json":
            raise DomainError(f"{path}: a box is written to a file that ends in .json")
        text = json.dumps({"lower": self.lower.tolist(), "upper": self.upper.tolist()})
        with replacing(path) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
        return Path(path)

    @staticmethod
    def from_vnnlib(path: str | Path, size: int) -> Box:
        """From the input constraints of a VNN-LIB property, 1.0 or 2.0; several disjuncts give their hull."""
        boxes, notes = read_input_boxes(read_vnnlib(path), str(path), size)
        lower = np.min([box[0] for box in boxes], axis=0)
        upper = np.max([box[1] for box in boxes], axis=0)
        if len(boxes) > 1:
            notes = (*notes, f"{path}: {len(boxes)} input boxes; the domain is their hull")
        try:
            return Box(lower, upper, notes)
        except DomainError as error:
            raise DomainError(f"{path}: {error}") from None

    @property
    def size(self) -> int:
        return len(self.lower)

    @property
    def center(self) -> Array:
        return self.clip(0.5 * self.lower + 0.5 * self.upper)

    def clip(self, x: Any) -> Array:
        """The nearest point of the box."""
        return np.minimum(np.maximum(np.asarray(x, dtype=np.float64), self.lower), self.upper)

    def contains(self, x: Any) -> bool:
        """Whether every point of x (…, inputs) lies in the box."""
        points = np.asarray(x, dtype=np.float64)
        return bool(((points >= self.lower) & (points <= self.upper)).all())

    def sample(self, rng: np.random.Generator, count: int) -> Array:
        """``count`` points, uniform in the box: shape (count, inputs)."""
        return self.clip(self.lower + rng.random((count, self.size)) * (self.upper - self.lower))

    def corners(self, limit: int = 4096) -> Array:
        """Up to ``limit`` corners, all of them where there are no more: shape (corners, inputs)."""
        free = np.flatnonzero(self.lower < self.upper)
        chosen = free[: max(0, int(np.floor(np.log2(max(1, limit)))))]
        corners = np.tile(self.lower, (2 ** len(chosen), 1))
        for row, ends in zip(corners, _sides(len(chosen)), strict=True):
            row[chosen] = np.where(ends, self.upper[chosen], self.lower[chosen])
        return corners


def input_shape(spec: Any) -> tuple[int, ...] | None:
    """The shape of one example that a domain lets know, for models that do not say it themselves.

    ``spec`` is what :meth:`Box.of` takes; a ``.json`` file or a dict may hold an ``"input_shape"``. None where it is
    unknown.
    """
    if isinstance(spec, Box):
        return (spec.size,)
    try:
        content = spec
        if isinstance(spec, tuple | list) and len(spec) == 2:
            content = {"lower": spec[0]}
        elif isinstance(spec, str | Path):
            content = json.loads(_read_text(spec)) if Path(spec).suffix.lower() == ".json" else {}
        shape = tuple(int(d) for d in content.get("input_shape") or np.shape(content["lower"]))
    except (DomainError, ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return None  # a domain that cannot be read is reported when it is needed
    return shape if shape and min(shape) > 0 else None


def _sides(count: int) -> Iterator[tuple[bool, ...]]:
    return product((False, True), repeat=count)


def _ends(data: NDArray[Any]) -> tuple[Array, Array]:
    """(least, largest) of each column; where that is no float64 (of 64-bit integers, of long doubles), the next one."""
    low, high = data.min(axis=0), data.max(axis=0)
    if data.dtype.itemsize <= (8 if data.dtype.kind == "f" else 4):
        return low.astype(np.float64), high.astype(np.float64)
    return (
        np.array([float_down(Fraction(*value.as_integer_ratio())) for value in low.tolist()]),
        np.array([float_up(Fraction(*value.as_integer_ratio())) for value in high.tolist()]),
    )


def _from_text(text: str, size: int) -> Box:
    if text.lower().endswith(".json"):
        return Box.from_json(text, size)
    if is_vnnlib(text):
        return Box.from_vnnlib(text, size)
    if text.lower().endswith(DATA):
        try:
            return Box.from_data(read_inputs(text, size).reshape(-1, size))
        except FormatError as error:
            raise DomainError(str(error)) from None
    parts = text.split(",")
    try:
        low, high = (float(part) for part in parts)
    except ValueError:
        raise DomainError(
            f"domain '{text}': give LO,HI (such as 0,1), a .json or .vnnlib file, or a .npy or .npz file of examples"
        ) from None
    return Box.uniform(low, high, size)


def _from_sides(content: Any, size: int, where: str) -> Box:
    if not isinstance(content, Mapping) or not {"lower", "upper"} <= content.keys():
        raise DomainError(f'{where}: a domain holds {{"lower": …, "upper": …}}')
    return Box(_bounds(content["lower"], size, "lower", where), _bounds(content["upper"], size, "upper", where))


def _even(values: Any, side: str, where: str) -> Any:
    """Values that make an array; numpy alone would speak of inhomogeneous shapes."""
    try:
        np.shape(values)
    except ValueError:
        raise DomainError(f"{where}: the {side} bounds are ragged lists; give lists of one length") from None
    return values


def _bounds(values: Any, size: int, side: str, where: str) -> Array:
    def numbers(value: Any) -> Iterator[float]:
        stack = [value]
        while stack:
            item = stack.pop()
            if isinstance(item, list | tuple | np.ndarray) and np.ndim(item):
                stack.extend(reversed(list(item)))
            elif isinstance(item, bool) or not isinstance(item, int | float | np.integer | np.floating):
                raise DomainError(f"{where}: the {side} bounds hold {item!r}, which is not a number")
            else:
                yield float(item)

    try:
        flat = list(numbers(_even(values, side, where)))
    except (OverflowError, ValueError) as error:
        raise DomainError(f"{where}: one of the {side} bounds cannot be read as a number ({error})") from None
    if np.ndim(values) == 0 and len(flat) == 1 and not isinstance(values, list | tuple):
        return np.full(size, flat[0])
    if len(flat) != size:
        raise DomainError(f"{where}: {len(flat)} {side} bounds for a network of {size} inputs; give one per input")
    return np.array(flat)


def _read_text(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")  # editors on Windows put a mark in front
    except FileNotFoundError:
        raise DomainError(f"{path}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DomainError(f"{path}: cannot be read as text ({error})") from None


def is_vnnlib(spec: Any) -> bool:
    """Whether a domain is named by the path of a VNN-LIB file."""
    return isinstance(spec, str | Path) and str(spec).lower().endswith((".vnnlib", ".vnnlib.gz"))


def read_vnnlib(path: str | Path) -> str:
    """The text of a ``.vnnlib`` file, which may be packed (``.vnnlib.gz``)."""
    if not str(path).lower().endswith(".gz"):
        return _read_text(path)
    try:
        with gzip.open(path) as file:
            data = file.read(_MOST + 1)
        if len(data) > _MOST:
            raise DomainError(f"{path}: it unpacks to more than {_MOST >> 20} MiB; is it a property?")
        return data.decode("utf-8-sig")
    except FileNotFoundError:
        raise DomainError(f"{path}: there is no such file") from None
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DomainError(f"{path}: cannot be unpacked as text ({error})") from None


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key '{key}' stands there twice")
        found[key] = value
    return found
