"""An exported PyTorch program as plain values, and its lowering: the same for live models and for files.

A program is a list of calls of ATen operators, as ``torch.export`` makes it without decompositions: they are gone
through one after the other, with tensors in a :class:`~leo_frontends.torch.memory.Memory`, so that what is changed in
place changes wherever it is shared. Arguments are numbers, lists, None, names of dtypes, constants (arrays) and
:class:`Ref`, the name of a tensor or of a number that was computed of the batch size.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np

from leo_core.errors import FormatError, UnsupportedModelError
from leo_core.network import INPUT, Affine, Network, Origin, Output, Relu, Signature
from leo_core.plugins import Imported
from leo_frontends.batches import for_any_batch
from leo_frontends.graph import MIXES, Array, Graph, Refused, Tensor, Value, elements
from leo_frontends.heads import numbered
from leo_frontends.lowering import weights
from leo_frontends.torch.folding import folded
from leo_frontends.torch.memory import Memory, Place
from leo_frontends.torch.operators import OPERATORS, ROW_BY_ROW
from leo_frontends.torch.reasons import why_not
from leo_frontends.torch.views import CUTS, RESHAPES, VIEWS, cut, sliced, viewed


@final
@dataclass(frozen=True)
class Ref:
    """A tensor, a number or a list of tensors, by its name in the program."""

    name: str


@final
@dataclass(frozen=True, eq=False)
class Call:
    """One operator: ``operator`` is "linear.default", ``where`` the source line it came from, if known.

    ``outputs`` names what it gives; several names take a list apart. ``body`` is what a call runs that only wraps it
    (``torch.enable_grad``).
    """

    operator: str
    arguments: Mapping[str, Any]
    outputs: tuple[str, ...]
    where: str = ""
    body: Body | None = None


@final
@dataclass(frozen=True, eq=False)
class Body:
    """Calls that a call wraps: they read ``inputs``, and give ``outputs``."""

    inputs: tuple[str, ...]
    calls: tuple[Call, ...]
    outputs: tuple[str, ...]


@final
@dataclass(frozen=True, eq=False)
class Program:
    """``shape`` is that of one example of the input, without the batch axis; ``batch`` its size, 0 where it is free.

    ``outputs`` are tensors by their names in the program; ``container`` is what they are returned in ("tuple", "dict"),
    empty for one tensor as such, and ``keys`` their names there, if any.
    """

    input: str
    shape: tuple[int, ...]
    dtype: str
    constants: Mapping[str, Array]
    calls: Sequence[Call]
    outputs: tuple[str, ...]
    notes: tuple[str, ...] = ()
    batch: int = 0
    container: str = ""
    keys: tuple[str, ...] = ()


def lower(program: Program, where: str) -> Imported:
    """The program as a network.

    Raises :class:`UnsupportedModelError` with every call that is not read, and :class:`FormatError` for a program
    that does not fit together.
    """
    if program.batch:
        return _Run(program, where, program.batch).imported()
    return for_any_batch(lambda batch: _Run(program, where, batch).imported(), where, max(1, math.prod(program.shape)))


class _Run:
    """The program gone through with a batch of one size. ``_known`` holds places, numbers and lists by name."""

    def __init__(self, program: Program, where: str, batch: int) -> None:
        self._program, self._where, self._batch = program, where, batch
        self._graph = Graph(math.prod(program.shape), batch, dtype=program.dtype)
        self._memory = Memory(self._graph)
        self._known: dict[str, Any] = {
            name: self._memory.new(array, held=True) for name, array in program.constants.items()
        }
        self._known[program.input] = self._memory.new(self._graph.given((batch, *program.shape)))
        self._lost: set[str] = set()
        self._problems: list[str] = []
        self._cast = False  # whether a tensor was cast to another type than the program's

    def imported(self) -> Imported:
        """The whole lowering."""
        program = self._program
        for call in program.calls:
            self._step(call)
        if self._problems:
            raise UnsupportedModelError(self._where, self._problems)
        names = program.keys or numbered(len(program.outputs))
        if len(program.outputs) == 1:
            names = program.outputs
        results = [self._result(name) for name in program.outputs]
        shapes = [tuple(elements(result).shape) for result in results]
        outputs = []
        for name, sizes in zip(names, shapes, strict=True):
            if self._batch > 1 and sizes[:1] != (self._batch,):
                problem = f"the output of shape {sizes} is not one row for every example"
                raise UnsupportedModelError(self._where, [problem])
            outputs.append(Output(name, (sizes[1:] if sizes[:1] == (self._batch,) else sizes) or (1,)))
        last = [Origin(f"{name}_values", "Identity") for name in names]
        signature = Signature(program.input, program.shape, tuple(outputs), program.dtype)
        return self._graph.imported(self._where, results, last, signature, self._notes(shapes))

    def _result(self, name: str) -> Tensor:
        if name in self._known and self._known[name] is None:
            problem = f"the output '{name}' is not read: statistics of a batch, or the places of maxima"
            raise UnsupportedModelError(self._where, [problem])
        if not isinstance(self._known.get(name), Place):
            raise FormatError(f"{self._where}: nothing computes the output '{name}'")
        result = self._memory.read(self._known[name])
        return result if isinstance(result, Value) else weights(result, "the output")

    def _notes(self, shapes: Sequence[tuple[int, ...]]) -> tuple[str, ...]:
        program = self._program
        notes = list(program.notes)
        if program.batch > 1:
            notes.append(f"the model's batch size was fixed at {program.batch}; LEO's result takes any")
        kind = program.container
        if len(shapes) == 1:
            if kind:
                notes.append(f"the model returns its output in a {kind}; LEO's result returns the tensor itself")
        elif kind != (ours := "dict" if program.keys else "tuple"):
            notes.append(f"the model returns its outputs in a {kind}; LEO's result returns them in a {ours}")
        if any(len(sizes) <= 1 for sizes in shapes):
            which = "the model's output" if len(shapes) == 1 else "an output of the model"
            notes.append(f"{which} has the shape (batch,); that of LEO's result has (batch, 1)")
        return tuple(notes)

    def _step(self, call: Call) -> None:
        """One call. What it gives is known then, or lost."""
        name = call.operator.partition(".")[0]
        if name.startswith(("_assert", "sym_constrain", "_check")) or not call.outputs:
            return
        label = f"{call.operator} '{call.outputs[0]}'" + (f", {call.where}" if call.where else "")
        read = _names(call.arguments)
        if self._lost.intersection(read):
            self._lost.update(call.outputs)
            return
        missing = [found for found in read if found not in self._known]
        if missing:
            raise FormatError(f"{self._where}: {call.operator} reads '{missing[0]}', which nothing computes")
        try:
            result = self._called(call, name)
            if len(call.outputs) == 1:
                self._known[call.outputs[0]] = result
            else:
                self._known.update(zip(call.outputs, result, strict=True))
        except Refused as reason:
            self._lost.update(call.outputs)
            self._problems.append(f"{label}: {reason}")
        except (KeyError, IndexError, ValueError, TypeError, AttributeError, OverflowError) as error:
            raise FormatError(f"{self._where}: {label} does not fit ({type(error).__name__}: {error})") from None

    def _called(self, call: Call, name: str) -> Any:
        given = self._resolved(call.arguments)
        if call.body is not None:
            return self._inside(call.body, given["args"])
        if name in NUMBERS:
            return NUMBERS[name](*given.values())
        if name == "getitem":
            container, index = given.values()
            return container[index]
        if name in ("sym_size", "size"):
            return given["self"].at.shape[given["dim"]]
        if name == "sym_numel":
            return given["self"].at.size
        if call.operator.endswith((".out", "_out")):
            raise Refused("it writes into a tensor given by out=, which is not read")
        place = given.get("self", given.get("input"))
        if name.endswith("_") and not name.endswith("__"):
            return self._in_place(call, name, place, given)
        if isinstance(place, Place):
            if name == "slice":
                return sliced(self._graph, self._memory, place, given)
            if name in VIEWS:
                return viewed(name, place, self._shapes(given))
            if name in CUTS:
                return cut(self._graph, self._memory, name, place, given)
            if name in RESHAPES:
                return self._memory.reshaped(place, RESHAPES[name](place.at.shape, self._shapes(given)))
            if name == "contiguous":
                return self._memory.contiguous(place)
            if name in ("to", "type_as", "type"):
                return self._converted(place, given)
        return self._computed(call, name, given)

    def _inside(self, body: Body, arguments: Sequence[Any]) -> list[Any]:
        """What a wrapped body gives: its names are its own."""
        outer = self._known
        self._known = {**outer, **dict(zip(body.inputs, arguments, strict=True))}
        try:
            for call in body.calls:
                self._step(call)
            if self._lost.intersection(body.outputs):
                raise Refused("what it wraps is not read")
            return [self._known[name] for name in body.outputs]
        finally:
            self._known = outer

    def _in_place(self, call: Call, name: str, place: Place, given: dict[str, Any]) -> Place:
        """``x.relu_()`` and the like: x itself, changed wherever its memory is shared."""
        plain = name.rstrip("_")
        if name in _SHAPES_IN_PLACE:
            raise Refused(
                "it changes the shape of a tensor in place, which is not read; write it without the underscore"
            )
        if plain in ("detach", "requires_grad") or plain.endswith("dropout"):
            return viewed(plain, place, given) if plain in VIEWS else place
        if plain not in OPERATORS:
            raise Refused(why_not(plain))
        origin = Origin(call.outputs[0], call.operator)
        before = self._memory.read(place)
        self._memory.write(origin, place, OPERATORS[plain](self._graph, origin, {**self._read(given), "self": before}))
        return place

    def _converted(self, place: Place, given: Mapping[str, Any]) -> Place:
        """``x.to(dtype)``: x itself where that is its type, else a copy."""
        kind, other, tensor = given.get("dtype"), given.get("other"), self._memory.read(place)
        if isinstance(other, Place):
            model = self._memory.read(other)
            kind = str(model.dtype) if isinstance(model, np.ndarray) else self._program.dtype
        if isinstance(kind, str) and not isinstance(tensor, Value):
            return self._memory.new(tensor.astype(kind if kind in _NUMPY else "float32"))
        if isinstance(kind, str) and kind not in ("float32", "float64"):
            raise Refused(f"it casts to {kind}, which rounds: that has no affine + ReLU form")
        if given.get("copy"):
            return self._memory.new(self._memory.read(place))
        self._cast |= isinstance(kind, str) and kind != self._program.dtype
        if self._cast:
            return self._memory.unsure(place, place.at)
        return place

    def _computed(self, call: Call, name: str, given: dict[str, Any]) -> Any:
        """A new tensor, a number, or a list of them."""
        places = _places(given)
        arguments = self._read(given)
        if name.startswith(("_operator_", "sym_")):
            raise Refused(why_not(name))
        if any(isinstance(self._memory.read(place), Value) for place in places):
            try:
                if name not in OPERATORS:
                    raise Refused(why_not(name))
                if isinstance(kind := arguments.get("dtype"), str) and kind not in ("float32", "float64"):
                    raise Refused(f"it casts to {kind}, which rounds: that has no affine + ReLU form")
                result = OPERATORS[name](self._graph, Origin(call.outputs[0], call.operator), arguments)
            except Refused as reason:
                tails = [self._graph.tail_of(tensor) for tensor in map(self._memory.read, places)]
                also = "".join(f"; and the {tail} that it reads is kept at the end only" for tail in tails if tail)
                raise Refused(f"{reason}{also}") from None
            known = name in ROW_BY_ROW or all(place.in_order and self._memory.known_layout(place) for place in places)
            place = self._memory.new(result, laid_out=known)
            return [place, *[None] * _AND_MORE[name]] if name in _AND_MORE else place
        if name in ROW_BY_ROW:
            self._require_one_matrix(arguments)
        result, shared = folded(call.operator, arguments)
        return self._kept(result, places if shared else ())

    def _require_one_matrix(self, arguments: Mapping[str, Any]) -> None:
        """Refuse a product of rows that stand for the examples, all alike: as many of them, so they are rounded."""
        left = next((arguments[key] for key in _LEFT if key in arguments), None)
        batch = self._graph.batch
        if not isinstance(left, np.ndarray) or batch == 1 or left.shape[:1] != (batch,) or not left.any():
            return
        if (left == left[:1]).all():
            raise Refused("it multiplies what is the same for all inputs, and rounds that by how many there are")

    def _kept(self, result: Any, shared: Sequence[Place] = ()) -> Any:
        if isinstance(result, list):
            return [self._kept(item, shared) for item in result]
        return self._memory.beside(shared, result) if isinstance(result, np.ndarray) else result

    def _resolved(self, argument: Any) -> Any:
        if isinstance(argument, Ref):
            return self._known[argument.name]
        if isinstance(argument, Mapping):
            return {name: self._resolved(item) for name, item in argument.items()}
        if isinstance(argument, list | tuple):
            return [self._resolved(item) for item in argument]
        return argument

    def _read(self, argument: Any) -> Any:
        """Arguments with tensors for their places."""
        if isinstance(argument, Place):
            return self._memory.read(argument)
        if isinstance(argument, Mapping):
            return {name: self._read(item) for name, item in argument.items()}
        if isinstance(argument, list | tuple):
            return [self._read(item) for item in argument]
        return argument

    def _shapes(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments with an array of its shape for each tensor: all that a view needs to know of others."""
        return {name: item.at if isinstance(item, Place) else item for name, item in given.items()}


def source_line(trace: str | None) -> str:
    """The innermost line of a call's stack trace, empty where there is none."""
    lines = [line.strip() for line in (trace or "").splitlines()]
    return next((line for line in reversed(lines) if line.startswith("File")), "")


def _names(argument: Any) -> list[str]:
    if isinstance(argument, Ref):
        return [argument.name]
    if isinstance(argument, Mapping):
        argument = list(argument.values())
    if isinstance(argument, list | tuple):
        return [name for item in argument for name in _names(item)]
    return []


def _places(argument: Any) -> list[Place]:
    if isinstance(argument, Place):
        return [argument]
    if isinstance(argument, Mapping):
        argument = list(argument.values())
    if isinstance(argument, list | tuple):
        return [place for item in argument for place in _places(item)]
    return []


def same_function(one: Imported, other: Imported) -> bool:
    """Whether two programs, exported for batches of different sizes, were read as one network, names aside."""
    return bool(_unnamed(one) == _unnamed(other))


def _unnamed(imported: Imported) -> Any:
    network = imported.network
    names = {INPUT: INPUT}
    nodes: list[Affine | Relu] = []
    for number, node in enumerate(network.nodes):
        name = names[node.name] = f"node{number}"
        if isinstance(node, Affine):
            nodes.append(Affine(name, tuple(names[source] for source in node.sources), node.maps, node.bias))
        else:
            nodes.append(Relu(name, names[node.source], node.slope))
    outputs = tuple(replace(output, name=str(i)) for i, output in enumerate(network.signature.outputs))
    return Network(network.input_size, tuple(nodes), names[network.output], Signature(outputs=outputs))


def _exact_quotient(left: int, right: int) -> int:
    if left % right:
        raise Refused(MIXES)
    return left // right


#: What is computed of the batch size alone, by Python's own operators; what tells small sizes from large is not read.
NUMBERS: dict[str, Callable[..., Any]] = {
    **{f"_operator_{name}": getattr(operator, name) for name in ("add", "sub", "mul", "neg", "truediv")},
    "_operator_floordiv": _exact_quotient,
    "sym_float": float,
}

#: What a product of matrices calls its left factor.
_LEFT = ("input", "mat1", "batch1", "mat", "self")

#: Types of constants that NumPy has, too; halves are held as float32, which is exact.
_NUMPY = ("int64", "int32", "int16", "int8", "uint8", "bool", "float64")
#: How much more than what is read they give: statistics of the batch, which are empty where it is not used, or places.
_AND_MORE = {
    "_native_batch_norm_legit_no_training": 2, "adaptive_max_pool1d": 1, "adaptive_max_pool2d": 1,
    "max_pool2d_with_indices": 1, "native_batch_norm": 2,
}  # fmt: skip
_SHAPES_IN_PLACE = ("squeeze_", "unsqueeze_", "t_", "transpose_", "swapaxes_", "swapdims_", "set_", "as_strided_")

__all__ = ["Body", "Call", "Program", "Ref", "lower", "same_function", "source_line"]
