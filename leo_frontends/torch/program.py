"""An exported PyTorch program as plain values, and its lowering: the same for live models and for files.

A program is a list of calls of ATen operators, as ``torch.export`` makes it without decompositions. Arguments
are numbers, lists, None, names of dtypes, constants (arrays) and :class:`Ref`, the name of a tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from leo_core.errors import FormatError, UnsupportedModelError
from leo_core.network import Origin, Signature
from leo_core.plugins import Imported
from leo_frontends import lowering
from leo_frontends.graph import Array, Graph, Refused, Tensor, Value
from leo_frontends.lowering import computed, weights


@final
@dataclass(frozen=True)
class Ref:
    """A tensor by its name in the program."""

    name: str


@final
@dataclass(frozen=True, eq=False)
class Call:
    """One operator: ``operator`` is "linear.default", ``where`` the source line it came from, if known."""

    operator: str
    arguments: Mapping[str, Any]
    output: str
    where: str = ""


@final
@dataclass(frozen=True, eq=False)
class Program:
    """``shape`` is that of one example of the input, without the batch axis; ``batch`` its size, where it is fixed.

    ``container`` is what the output is returned in ("tuple", "dict"), empty for a tensor as such.
    """

    input: str
    shape: tuple[int, ...]
    dtype: str
    constants: Mapping[str, Array]
    calls: Sequence[Call]
    output: str
    notes: tuple[str, ...] = ()
    batch: int = 1
    container: str = ""


def lower(program: Program, where: str) -> Imported:
    """The program as a network.

    Raises :class:`UnsupportedModelError` with every call that has no affine + ReLU form, and
    :class:`FormatError` for a program that does not fit together.
    """
    size = math.prod(program.shape)
    graph = Graph(size, program.batch, dtype=program.dtype)
    tensors: dict[str, Tensor] = dict(program.constants)
    tensors[program.input] = graph.given((program.batch, *program.shape))
    lost: set[str] = set()
    problems = []
    for call in program.calls:
        read = list(_names(call.arguments))
        if lost.intersection(read):
            lost.add(call.output)
            continue
        missing = [name for name in read if name not in tensors]
        if missing:
            raise FormatError(f"{where}: {call.operator} reads '{missing[0]}', which nothing computes")
        label = f"{call.operator} '{call.output}'" + (f", {call.where}" if call.where else "")
        apply = OPERATORS.get(call.operator.partition(".")[0].rstrip("_"))
        try:
            if apply is None:
                raise Refused("there is no affine + ReLU form for it")
            arguments = _resolved(call.arguments, tensors)
            result = apply(graph, Origin(call.output, call.operator), arguments)
        except Refused as reason:
            problems.append(f"{label}: {reason}")
            lost.add(call.output)
            continue
        except (KeyError, IndexError, ValueError, TypeError, AttributeError, OverflowError) as error:
            raise FormatError(f"{where}: {label} does not fit ({type(error).__name__}: {error})") from None
        tensors[call.output] = result
        if call.operator.partition(".")[0].endswith("_") and read:  # in place: the argument changes too
            tensors[read[0]] = result
    if problems:
        raise UnsupportedModelError(where, problems)
    if program.output not in tensors:
        raise FormatError(f"{where}: nothing computes the output '{program.output}'")
    result = tensors[program.output]
    last = Origin(f"{program.output}_values", "Identity")
    if not isinstance(result, Value):
        result = weights(result, "the output")
    sizes = result.index.shape if isinstance(result, Value) else result.shape
    if not sizes or sizes[0] != program.batch:
        raise UnsupportedModelError(where, [f"the output of shape {sizes} has lost its batch axis"])
    shape = tuple(sizes[1:]) or (1,)
    signature = Signature(program.input, program.shape, program.output, shape, program.dtype)
    notes = list(program.notes)
    if program.batch > 1:
        notes.append(f"the model's batch size was fixed at {program.batch}; LEO's result takes any")
    if program.container:
        notes.append(f"the model returns its output in a {program.container}; LEO's result returns the tensor itself")
    if len(sizes) == 1:
        notes.append("the model's output has the shape (batch,); that of LEO's result has (batch, 1)")
    return graph.imported(where, result, last, signature, tuple(notes))


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


def _resolved(argument: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(argument, Ref):
        return tensors[argument.name]
    if isinstance(argument, Mapping):
        return {name: _resolved(item, tensors) for name, item in argument.items()}
    if isinstance(argument, list | tuple):
        return [_resolved(item, tensors) for item in argument]
    return argument


Arguments = dict[str, Any]
Lowering = Callable[[Graph, Origin, Arguments], Tensor]


def _tensor(graph: Graph, value: Any) -> Any:
    """A tensor, or a number as one, rounded as PyTorch's kernels round it."""
    return value if isinstance(value, Value | np.ndarray) else np.array(value, graph.dtype)


def _linear(graph: Graph, origin: Origin, given: Arguments) -> Tensor:
    weight = weights(given["weight"], "the weight")
    bias = given.get("bias")
    bias = np.zeros(weight.shape[0], weight.dtype) if bias is None else weights(bias, "the bias")
    return lowering.dense(graph, origin, computed(given["input"]), weight, bias)


def _addmm(graph: Graph, origin: Origin, given: Arguments) -> Tensor:
    if given.get("alpha", 1) != 1 or given.get("beta", 1) != 1:
        raise Refused("its factors are not 1")
    weight = np.ascontiguousarray(weights(given["mat2"], "the matrix").T)
    return lowering.dense(graph, origin, computed(given["mat1"]), weight, weights(given["self"], "the bias"))


def _matmul(graph: Graph, origin: Origin, given: Arguments) -> Tensor:
    left, right = given["self"], given.get("mat2", given.get("other"))
    weight = np.ascontiguousarray(weights(right, "the matrix").T)
    return lowering.dense(graph, origin, computed(left), weight, np.zeros(len(weight), weight.dtype))


def _relu(graph: Graph, origin: Origin, given: Arguments) -> Tensor:
    return lowering.relu(graph, origin, computed(given["self"]))


def _leaky_relu(graph: Graph, origin: Origin, given: Arguments) -> Tensor:
    slope = float(_tensor(graph, given.get("negative_slope", 0.01)))
    return lowering.relu(graph, origin, computed(given["self"]), slope)


def _prelu(graph: Graph, origin: Origin, given: Arguments) -> Tensor:
    value, slope = computed(given["self"]), weights(given["weight"], "the slope")
    axes = (1, -1) + (1,) * (value.index.ndim - 2)
    return lowering.relu(graph, origin, value, slope.reshape(axes) if slope.size > 1 else slope.ravel()[0])


def _clamp(low_default: float, high_default: float) -> Lowering:
    def apply(graph: Graph, origin: Origin, given: Arguments) -> Tensor:
        low, high = given.get("min", given.get("min_val")), given.get("max", given.get("max_val"))
        ends = (low_default if low is None else low, high_default if high is None else high)
        if any(isinstance(end, Value) for end in ends):
            raise Refused("its ends are not constant")
        if any(np.size(end) != 1 for end in ends):
            raise Refused("its ends are tensors, not numbers; torch.maximum and torch.minimum are read")
        return lowering.clip(graph, origin, computed(given["self"]), *(float(np.ravel(end)[0]) for end in ends))

    return apply


def _absolute(graph: Graph, origin: Origin, given: Arguments) -> Tensor:
    return lowering.absolute(graph, origin, computed(given["self"]))


def _extreme(sign: float) -> Lowering:
    def apply(graph: Graph, origin: Origin, given: Arguments) -> Tensor:
        if "other" not in given:
            raise Refused("it is the extreme of one tensor, not of two")
        return lowering.maximum(graph, origin, _tensor(graph, given["self"]), _tensor(graph, given["other"]), sign)

    return apply


def _sum(left: float, right: float) -> Lowering:
    def apply(graph: Graph, origin: Origin, given: Arguments) -> Tensor:
        alpha = given.get("alpha", 1)
        if alpha != 1:
            raise Refused(f"its factor alpha is {alpha}")
        return lowering.add(graph, origin, _tensor(graph, given["self"]), _tensor(graph, given["other"]), (left, right))

    return apply


def _multiply(graph: Graph, origin: Origin, given: Arguments) -> Tensor:
    return lowering.multiply(graph, origin, _tensor(graph, given["self"]), _tensor(graph, given["other"]))


def _divide(graph: Graph, origin: Origin, given: Arguments) -> Tensor:
    if given.get("rounding_mode") is not None:
        raise Refused("it rounds")
    return lowering.divide(graph, origin, _tensor(graph, given["self"]), _tensor(graph, given["other"]))


def _negative(graph: Graph, origin: Origin, given: Arguments) -> Tensor:
    return lowering.multiply(graph, origin, given["self"], np.full((), -1.0, np.float32))


def _batch_norm(graph: Graph, origin: Origin, given: Arguments) -> Tensor:
    if given.get("training"):
        raise Refused("it is in training mode")
    mean, variance = weights(given["running_mean"], "the mean"), weights(given["running_var"], "the variance")
    gamma = np.ones(len(mean)) if given.get("weight") is None else weights(given["weight"], "the weight")
    beta = np.zeros(len(mean)) if given.get("bias") is None else weights(given["bias"], "the bias")
    statistics = (gamma, beta, mean, variance)
    return lowering.batch_norm(graph, origin, computed(given["input"]), statistics, float(given.get("eps", 1e-5)), 1)


def _dropout(graph: Graph, origin: Origin, given: Arguments) -> Tensor:
    if given.get("train"):
        raise Refused("it is in training mode; call eval() first")
    return _same(graph, origin, given)


def _same(_graph: Graph, _origin: Origin, given: Arguments) -> Tensor:
    return given["input"] if "input" in given else given["self"]  # type: ignore[no-any-return]


def _cast(_graph: Graph, _origin: Origin, given: Arguments) -> Tensor:
    kind = given.get("dtype", given.get("other"))
    if isinstance(kind, str) and kind not in ("float32", "float64"):
        raise Refused(f"it casts to {kind}")
    return given["self"]  # type: ignore[no-any-return]


def _shaped(change: Callable[[Array, Arguments], Array]) -> Lowering:
    """A rearrangement: of the indices of a computed tensor, or of a constant itself."""

    def apply(_graph: Graph, _origin: Origin, given: Arguments) -> Tensor:
        tensor = given["self"]
        return Value(tensor.node, change(tensor.index, given)) if isinstance(tensor, Value) else change(tensor, given)

    return apply


def _flatten(array: Array, given: Arguments) -> Array:
    start, end = (at % array.ndim for at in (given.get("start_dim", 0), given.get("end_dim", -1)))
    return array.reshape(*array.shape[:start], -1, *array.shape[end + 1 :])


def _view(graph: Graph, origin: Origin, given: Arguments) -> Tensor:
    sizes = [int(d) for d in given.get("size", given.get("shape"))]
    return _shaped(lambda array, _given: array.reshape(sizes))(graph, origin, given)


def _expand(array: Array, given: Arguments) -> Array:
    sizes = [int(d) for d in given["size"]]
    kept = array.reshape((1,) * (len(sizes) - array.ndim) + array.shape)
    return np.broadcast_to(kept, [have if d == -1 else d for d, have in zip(sizes, kept.shape, strict=True)])


def _index_select(array: Array, given: Arguments) -> Array:
    if given["dim"] % array.ndim == 0:
        raise Refused("it picks examples of the batch")
    return np.take(array, np.asarray(given["index"]), axis=given["dim"])


def _unflatten(array: Array, given: Arguments) -> Array:
    dim = given["dim"] % array.ndim
    return array.reshape(*array.shape[:dim], *(int(d) for d in given["sizes"]), *array.shape[dim + 1 :])


def _squeeze(array: Array, given: Arguments) -> Array:
    dims = given.get("dim", range(array.ndim))
    dims = [d % array.ndim for d in ([dims] if isinstance(dims, int) else dims)]
    return np.squeeze(array, tuple(d for d in dims if array.shape[d] == 1 and d != 0))


def _slice(array: Array, given: Arguments) -> Array:
    dim = given.get("dim", 0) % array.ndim
    start, end, step = given.get("start") or 0, given.get("end"), given.get("step", 1)
    if dim == 0 and (start, step) != (0, 1):
        raise Refused("it picks examples of the batch")
    picked = [slice(None)] * array.ndim
    picked[dim] = slice(start, None if end is None or end > array.shape[dim] else end, step)
    return array[tuple(picked)]


def _select(array: Array, given: Arguments) -> Array:
    if given["dim"] % array.ndim == 0:
        raise Refused("it picks one example of the batch")
    return np.take(array, given["index"], axis=given["dim"])


def _flip(array: Array, given: Arguments) -> Array:
    dims = [d % array.ndim for d in given["dims"]]
    if 0 in dims:
        raise Refused("it reorders the examples of the batch")
    return np.flip(array, dims)


def _roll(array: Array, given: Arguments) -> Array:
    dims = [d % array.ndim for d in given.get("dims") or [0]]  # none: over all elements, those of other examples too
    if 0 in dims:
        raise Refused("it reorders the examples of the batch")
    return np.roll(array, given["shifts"], dims)


def _cat(graph: Graph, origin: Origin, given: Arguments) -> Tensor:
    return lowering.concatenate(graph, origin, given["tensors"], given.get("dim", 0))


def _stack(graph: Graph, origin: Origin, given: Arguments) -> Tensor:
    dim = given.get("dim", 0)
    apart = _shaped(lambda array, _given: np.expand_dims(array, dim))
    parts = [apart(graph, origin, {"self": tensor}) for tensor in given["tensors"]]
    return lowering.concatenate(graph, origin, parts, dim)


def _tail(name: str) -> Lowering:
    def apply(graph: Graph, _origin: Origin, given: Arguments) -> Tensor:
        return graph.cut(name, computed(given["self"]), given.get("dim", -1))

    return apply


#: By ATen operator, without its overload.
OPERATORS: dict[str, Lowering] = {
    "_unsafe_view": _view,
    "abs": _absolute,
    "add": _sum(1.0, 1.0),
    "addmm": _addmm,
    "alias": _same,
    "batch_norm": _batch_norm,
    "_native_batch_norm_legit_no_training": _batch_norm,
    "cat": _cat,
    "clamp": _clamp(-math.inf, math.inf),
    "clamp_max": _clamp(-math.inf, math.inf),
    "clamp_min": _clamp(-math.inf, math.inf),
    "clip": _clamp(-math.inf, math.inf),
    "clone": _same,
    "concat": _cat,
    "contiguous": _same,
    "detach": _same,
    "div": _divide,
    "dropout": _dropout,
    "expand": _shaped(_expand),
    "feature_dropout": _dropout,
    "flatten": _shaped(_flatten),
    "flip": _shaped(_flip),
    "hardtanh": _clamp(-1.0, 1.0),
    "index_select": _shaped(_index_select),
    "leaky_relu": _leaky_relu,
    "lift_fresh_copy": _same,
    "linear": _linear,
    "log_softmax": _tail("log_softmax"),
    "matmul": _matmul,
    "max": _extreme(1.0),
    "maximum": _extreme(1.0),
    "min": _extreme(-1.0),
    "minimum": _extreme(-1.0),
    "mm": _matmul,
    "movedim": _shaped(lambda array, given: np.moveaxis(array, given["source"], given["destination"])),
    "mul": _multiply,
    "neg": _negative,
    "permute": _shaped(lambda array, given: np.transpose(array, given["dims"])),
    "prelu": _prelu,
    "relu": _relu,
    "relu6": _clamp(0.0, 6.0),
    "reshape": _view,
    "roll": _shaped(_roll),
    "rsub": _sum(-1.0, 1.0),
    "select": _shaped(_select),
    "sigmoid": _tail("sigmoid"),
    "slice": _shaped(_slice),
    "softmax": _tail("softmax"),
    "tanh": _tail("tanh"),
    "squeeze": _shaped(_squeeze),
    "stack": _stack,
    "sub": _sum(1.0, -1.0),
    "swapaxes": _shaped(lambda array, given: np.swapaxes(array, given["axis0"], given["axis1"])),
    "t": _shaped(lambda array, _given: array.T),
    "to": _cast,
    "_to_copy": _cast,
    "transpose": _shaped(lambda array, given: np.swapaxes(array, given["dim0"], given["dim1"])),
    "unflatten": _shaped(_unflatten),
    "unsqueeze": _shaped(lambda array, given: np.expand_dims(array, given["dim"])),
    "view": _view,
}
