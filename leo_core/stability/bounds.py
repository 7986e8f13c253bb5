"""Bounds to hand out: what is proved of every unit and every output, by the model's own names and in its shapes.

A file of them is JSON or, by the suffix ``.npz``, a zip archive of a JSON header and plain arrays
(docs/reference/formats.md); either is read back by :meth:`Bounds.load`, and nothing in it is code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from leo_core.checker.networks import checksum, open_archive
from leo_core.domain import Box
from leo_core.errors import FormatError, LeoError, UsageError, first_line
from leo_core.network import Relu
from leo_core.paths import replacing
from leo_core.stability.verdict import LayerStability, Method, StabilityMap, State
from leo_core.storage import write_archive

Array = NDArray[np.float64]

#: The suffixes of files of bounds.
FILES = (".json", ".npz")
FORMAT, VERSION = "leo-bounds", 1
#: What is spelled out in JSON.
_WORDS: Mapping[str, type[State] | type[Method]] = {"state": State, "method": Method}


@final
@dataclass(frozen=True, eq=False)
class Values:
    """What is proved of the values of one layer before its ReLU, or of one output before its tail.

    All arrays are of the shape that the model gives one example of these values: of images, channels last where it has
    them last.

    Attributes
    ----------
    layer:
        What the model calls the layer that computes them.
    lower, upper:
        Proved over the box; infinite where nothing is.
    state, method:
        A :class:`State` and a :class:`Method` for each value, as int8. Of an output the state is its sign, as if a ReLU
        followed: active says that it is never negative.
    least, most:
        What values near the true extremes were seen, rounded inward: the smallest value is at most ``least``, the
        largest at least ``most``. Not there unless bounds were narrowed.
    tail:
        The function that follows an output (softmax, say): the bounds are of what enters it.
    """

    layer: str
    lower: Array
    upper: Array
    state: NDArray[np.int8]
    method: NDArray[np.int8]
    least: Array | None = None
    most: Array | None = None
    tail: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        return self.lower.shape

    @property
    def gaps(self) -> Array:
        """How far each bound may be from the true extreme, (2, …): lower ones first; infinite where that is unknown."""
        if self.least is None or self.most is None:
            return np.full((2, *self.shape), np.inf)
        with np.errstate(invalid="ignore"):
            gaps = np.stack([self.least - self.lower, self.upper - self.most])
        return np.where(np.isnan(gaps), np.inf, np.maximum(gaps, 0.0))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What there is of them, by name."""
        found = {name: getattr(self, name) for name in ("lower", "upper", "state", "method", "least", "most")}
        return {name: array for name, array in found.items() if array is not None}


@final
@dataclass(frozen=True, eq=False)
class Bounds:
    """Proved bounds of a network's values over a box.

    Attributes
    ----------
    layers:
        By ReLU node, in the network's order, named as in ``leo inspect --json``: the values that it reads.
    outputs:
        By the name that the model gives each output.
    network:
        The digest of the network.
    trusted:
        Whether they hold only if what a solver said does (``trust="solver"``).
    interrupted:
        Whether the work ended early; the bounds hold all the same.
    """

    box: Box
    layers: Mapping[str, Values]
    outputs: Mapping[str, Values]
    network: str = ""
    trusted: bool = False
    interrupted: bool = False

    @staticmethod
    def of(stability: StabilityMap) -> Bounds:
        """From verdicts."""
        network = stability.network
        layers = {}
        for name, known in stability.layers.items():
            relu = network[name]
            assert isinstance(relu, Relu)
            node = network.affine(relu.source)
            places = relu.origin.as_in_model(np.arange(known.units), node.shape)
            layers[name] = _values(known, node.origin.layer or node.name, places)
        outputs = {}
        for output, part in zip(network.signature.outputs, network.signature.slices, strict=True):
            places = np.arange(network.output_size)[part].reshape(output.shape)
            layer = network[network.output].origin.layer or network.output
            outputs[output.name] = _values(stability.outputs, layer, places, output.tail)
        return Bounds(stability.box, layers, outputs, network.digest, stability.trusted, stability.interrupted)

    @property
    def gap(self) -> float:
        """How far any bound may be from the true extreme; infinite where that is not known."""
        return max(float(values.gaps.max(initial=0.0)) for values in (*self.layers.values(), *self.outputs.values()))

    def within(self, gap: float) -> tuple[int, int]:
        """How many bounds are at most ``gap`` from the true extreme, and how many there are."""
        gaps = [values.gaps for values in (*self.layers.values(), *self.outputs.values())]
        return sum(int(np.count_nonzero(found <= gap)) for found in gaps), sum(found.size for found in gaps)

    def save(self, path: str | Path) -> Path:
        """Write them to a ``.json`` or ``.npz`` file; a crash leaves no half file.

        Raises :class:`UsageError` for another suffix, :class:`OutputError` where it cannot be written.
        """
        suffix = require_suffix(path)
        with replacing(path) as temporary:
            if suffix == ".json":
                content = {"format": FORMAT, "version": VERSION, **self._described(in_place=True)}
                temporary.write_text(json.dumps(content, allow_nan=False, ensure_ascii=False), "utf-8")
            else:
                content, arrays = self._described(in_place=False), self._arrays()
                digest = checksum(content, arrays)
                header = {"format": FORMAT, "version": VERSION, "sha256": digest, "content": content}
                write_archive(temporary, header, arrays)
        return Path(path)

    @staticmethod
    def load(path: str | Path) -> Bounds:
        """Read what :meth:`save` wrote.

        Raises :class:`FormatError`, naming the file, when it is missing, damaged or of an unknown version.
        """
        suffix = require_suffix(path)
        try:
            if suffix == ".json":
                content = json.loads(Path(path).read_text("utf-8-sig"))
                _require_version(content)
                return _read(content, _in_place(content))
            header, arrays = open_archive(path)
            _require_version(header)
            return _read(header["content"], arrays)
        except FileNotFoundError:
            raise FormatError(f"{path}: there is no such file") from None
        except OSError as error:
            raise FormatError(f"{path}: cannot be read ({error.strerror or error})") from None
        except LeoError as error:
            raise FormatError(f"{path}: {error}") from None
        except Exception as error:  # a damaged file makes zipfile, json and numpy raise whatever they like
            raise FormatError(
                f"{path}: no file of bounds, or damaged ({type(error).__name__}: {first_line(error)}); write it anew"
            ) from None

    def _described(self, in_place: bool) -> dict[str, Any]:
        """Everything, or everything but the arrays."""

        def described(name: str, values: Values) -> dict[str, Any]:
            found = {"name": name, "layer": values.layer, "shape": list(values.shape)}
            found |= {"tail": values.tail} if values.tail else {}
            return found | ({key: _listed(key, array) for key, array in values.arrays().items()} if in_place else {})

        return {
            "network": self.network,
            "domain": {"lower": self.box.lower.tolist(), "upper": self.box.upper.tolist()},
            "trust": "solver" if self.trusted else "proved",
            "interrupted": self.interrupted,
            "layers": [described(name, values) for name, values in self.layers.items()],
            "outputs": [described(name, values) for name, values in self.outputs.items()],
        }

    def _arrays(self) -> dict[str, NDArray[Any]]:
        groups = (("layers", self.layers), ("outputs", self.outputs))
        return {
            f"{kind}/{name}/{key}": array
            for kind, group in groups
            for name, values in group.items()
            for key, array in values.arrays().items()
        }


def require_suffix(path: str | Path) -> str:
    """That of a file of bounds. Raises :class:`UsageError` for another."""
    suffix = Path(path).suffix.lower()
    if suffix not in FILES:
        raise UsageError(f"{path}: bounds are kept in files that end in {' or '.join(FILES)}")
    return suffix


def by_sign(lower: Array, upper: Array, positive: NDArray[np.bool_], negative: NDArray[np.bool_]) -> NDArray[np.int8]:
    """A :class:`State` for each value, from its bounds, and from whether it was seen above zero and below."""
    state = np.where(positive & negative, State.UNSTABLE, State.UNDECIDED)
    state = np.where(lower >= 0, State.ACTIVE, state)
    return np.where(upper <= 0, State.INACTIVE, state).astype(np.int8)


def by_bounds(state: NDArray[np.int8]) -> NDArray[np.int8]:
    """The :class:`Method` of states that :func:`by_sign` gives."""
    method = np.where(state == State.UNSTABLE, Method.WITNESS, Method.BOUND)
    return np.where(state == State.UNDECIDED, Method.NONE, method).astype(np.int8)


def _values(known: LayerStability, layer: str, places: NDArray[np.int64], tail: str = "") -> Values:
    """What is known of some units, in the shape of ``places``."""

    def laid(array: NDArray[Any]) -> NDArray[Any]:
        return array[places]

    least, most = (None if side is None else laid(side) for side in (known.least, known.most))
    return Values(layer, laid(known.lower), laid(known.upper), laid(known.state), laid(known.method), least, most, tail)


def _listed(key: str, array: NDArray[Any]) -> Any:
    """Nested lists as JSON has them: words for states and methods, null for what is infinite."""
    if key in _WORDS:
        words: NDArray[Any] = np.array(
            [_WORDS[key](code).name.lower() for code in array.ravel().tolist()], dtype=object
        )
    else:
        words = array.astype(object).ravel()
        words[~np.isfinite(array.ravel())] = None
    return words.reshape(array.shape).tolist()


def _require_version(content: Any) -> None:
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise FormatError("not a file of bounds")
    if content.get("version") != VERSION:
        raise FormatError(f"bounds of version {content.get('version')!r}; this LEO reads version {VERSION}: update LEO")


def _read(content: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Bounds:
    domain = content["domain"]
    box = Box(np.array(domain["lower"], dtype=np.float64), np.array(domain["upper"], dtype=np.float64))
    if content["trust"] not in ("proved", "solver"):
        raise FormatError(f"bounds cannot rest on {content['trust']!r}")
    groups = []
    for kind in ("layers", "outputs"):
        groups.append(
            {_text(item["name"]): _read_values(item, f"{kind}/{item['name']}", arrays) for item in content[kind]}
        )
        if len(groups[-1]) < len(content[kind]):
            raise FormatError(f"two {kind} have one name")
    trusted, interrupted = content["trust"] == "solver", content["interrupted"] is True
    return Bounds(box, groups[0], groups[1], _text(content["network"]), trusted, interrupted)


def _read_values(item: Mapping[str, Any], name: str, arrays: Mapping[str, NDArray[Any]]) -> Values:
    found: dict[str, Any] = {}
    for key in ("lower", "upper", "state", "method", "least", "most"):
        if f"{name}/{key}" in arrays or key in ("lower", "upper", "state", "method"):
            array = arrays[f"{name}/{key}"]
            if list(array.shape) != item["shape"]:
                raise FormatError(f"{name}/{key} is of shape {list(array.shape)}, not {item['shape']}")
            found[key] = array.astype(np.int8 if key in ("state", "method") else np.float64)
            if np.isnan(array).any():
                raise FormatError(f"{name}/{key} holds NaN")
    if (found["lower"] > found["upper"]).any():
        raise FormatError(f"{name}: a lower bound lies above the upper one")
    for key, kind in _WORDS.items():
        if not np.isin(found[key], [int(code) for code in kind]).all():
            raise FormatError(f"{name}: an unknown {key}")
    return Values(_text(item["layer"]), tail=_text(item.get("tail", "")), **found)


def _in_place(content: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """The arrays of a JSON file, by the names that they have in an archive."""
    return {
        f"{kind}/{item['name']}/{key}": _parsed(key, listed)
        for kind in ("layers", "outputs")
        for item in content[kind]
        for key, listed in item.items()
        if key in ("lower", "upper", "state", "method", "least", "most")
    }


def _parsed(key: str, listed: Any) -> NDArray[Any]:
    """An array from what :func:`_listed` gives."""
    array = np.array(listed, dtype=object)
    flat = array.ravel().tolist()
    if key in _WORDS:
        return np.array([_WORDS[key][_text(word).upper()] for word in flat], dtype=np.int8).reshape(array.shape)
    unknown = -np.inf if key in ("lower", "most") else np.inf
    return np.array([unknown if value is None else _number(value) for value in flat], np.float64).reshape(array.shape)


def _number(value: Any) -> float:
    if type(value) not in (int, float):
        raise FormatError(f"it holds {value!r} where a number belongs")
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise FormatError(f"it holds {value!r} where a name belongs")
    return value
