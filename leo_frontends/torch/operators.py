"""ATen operators that compute: each takes the graph, where the call came from, and its arguments, and gives a tensor.

Arguments are numbers, lists, names of dtypes and tensors: a :class:`~leo_frontends.graph.Value`, or an array where it
is constant. Operators that rearrange elements into a new tensor are here too; those that give views are in
:mod:`~leo_frontends.torch.views`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from leo_core.network import Origin
from leo_frontends import lowering
from leo_frontends.graph import Array, Graph, Refused, Tensor, Value, elements, moved
from leo_frontends.lowering import computed, weights
from leo_frontends.torch.images import IMAGES, blocks_to_places, places_to_blocks, shuffled

Arguments = dict[str, Any]
Lowering = Callable[[Graph, Origin, Arguments], Tensor]


def _tensor(graph: Graph, value: Any) -> Any:
    """A tensor, or a number as one, rounded as PyTorch's kernels round it."""
    return value if isinstance(value, Value | np.ndarray) else np.array(value, graph.dtype)


def _linear(graph: Graph, origin: Origin, given: Arguments) -> Tensor:
    return lowering.linear(graph, origin, given["input"], given["weight"], given.get("bias"))


def _scaled(graph: Graph, origin: Origin, tensor: Any, factor: Any) -> Any:
    return tensor if factor == 1 else lowering.multiply(graph, origin, tensor, _tensor(graph, factor))


def _addmm(left: str, right: str) -> Lowering:
    """beta · self + alpha · left right."""

    def apply(graph: Graph, origin: Origin, given: Arguments) -> Tensor:
        product = lowering.matmul(graph, origin, given[left], given[right])
        product = _scaled(graph, origin, product, given.get("alpha", 1))
        start = _scaled(graph, origin, given["self"], given.get("beta", 1))
        return lowering.add(graph, origin, product, start)

    return apply


def _matmul(graph: Graph, origin: Origin, given: Arguments) -> Tensor:
    right = next(given[name] for name in ("mat2", "other", "vec", "tensor") if name in given)
    return lowering.matmul(graph, origin, given["self"], right)


def _relu(graph: Graph, origin: Origin, given: Arguments) -> Tensor:
    return lowering.relu(graph, origin, computed(given["self"]))


def _leaky_relu(graph: Graph, origin: Origin, given: Arguments) -> Tensor:
    slope = float(_tensor(graph, given.get("negative_slope", 0.01)))
    return lowering.relu(graph, origin, computed(given["self"]), slope)


def _rrelu(graph: Graph, origin: Origin, given: Arguments) -> Tensor:
    if given.get("training"):
        raise Refused("it is in training mode; call eval() first")
    slope = (given.get("lower", 1 / 8) + given.get("upper", 1 / 3)) / 2
    return lowering.relu(graph, origin, computed(given["self"]), float(_tensor(graph, slope)))


def _prelu(graph: Graph, origin: Origin, given: Arguments) -> Tensor:
    value, slope = computed(given["self"]), weights(given["weight"], "the slope")
    axes = (1, -1) + (1,) * (value.index.ndim - 2)
    return lowering.relu(graph, origin, value, slope.reshape(axes) if slope.size > 1 else slope.ravel()[0])


def _threshold(graph: Graph, origin: Origin, given: Arguments) -> Tensor:
    if given["threshold"] != given["value"]:
        raise Refused("it jumps at its threshold: that has no affine + ReLU form")
    return lowering.clip(graph, origin, computed(given["self"]), float(_tensor(graph, given["value"])), math.inf)


def _clamp(low_default: float, high_default: float) -> Lowering:
    def apply(graph: Graph, origin: Origin, given: Arguments) -> Tensor:
        low, high = given.get("min", given.get("min_val")), given.get("max", given.get("max_val"))
        ends = (low_default if low is None else low, high_default if high is None else high)
        value: Tensor = computed(given["self"])
        if any(isinstance(end, Value) or np.size(end) != 1 for end in ends):  # max, then min
            for end, sign in zip(ends, (1.0, -1.0), strict=True):
                if isinstance(end, Value | np.ndarray):
                    value = lowering.maximum(graph, origin, value, end, sign)
                elif math.isfinite(end):
                    value = lowering.maximum(graph, origin, value, _tensor(graph, end), sign)
            return value
        return lowering.clip(graph, origin, computed(value), *(float(_tensor(graph, np.ravel(end)[0])) for end in ends))

    return apply


def _absolute(graph: Graph, origin: Origin, given: Arguments) -> Tensor:
    return lowering.absolute(graph, origin, computed(given["self"]))


def _hard_sigmoid(graph: Graph, origin: Origin, given: Arguments) -> Tensor:
    return lowering.hard_sigmoid(graph, origin, computed(given["self"]))


def _extreme(sign: float) -> Lowering:
    def apply(graph: Graph, origin: Origin, given: Arguments) -> Tensor:
        if "other" not in given:
            raise Refused("it is the extreme of one tensor, which is not read; torch.amax, and maximum of two, are")
        return lowering.maximum(graph, origin, _tensor(graph, given["self"]), _tensor(graph, given["other"]), sign)

    return apply


def _add(left: float, right: float) -> Lowering:
    def apply(graph: Graph, origin: Origin, given: Arguments) -> Tensor:
        alpha = given.get("alpha", 1)
        pair = {"self": _tensor(graph, given["self"]), "other": _tensor(graph, given["other"])}
        pair["other"] = _scaled(graph, origin, pair["other"], alpha)
        return lowering.add(graph, origin, pair["self"], pair["other"], (left, right))

    return apply


def _rsub(graph: Graph, origin: Origin, given: Arguments) -> Tensor:
    """other − alpha · self."""
    tensor = _scaled(graph, origin, _tensor(graph, given["self"]), given.get("alpha", 1))
    return lowering.add(graph, origin, tensor, _tensor(graph, given["other"]), (-1.0, 1.0))


def _multiply(graph: Graph, origin: Origin, given: Arguments) -> Tensor:
    return lowering.multiply(graph, origin, _tensor(graph, given["self"]), _tensor(graph, given["other"]))


def _divide(graph: Graph, origin: Origin, given: Arguments) -> Tensor:
    if given.get("rounding_mode") is not None:
        raise Refused("it rounds: that has no affine + ReLU form")
    return lowering.divide(graph, origin, _tensor(graph, given["self"]), _tensor(graph, given["other"]))


def _addcmul(graph: Graph, origin: Origin, given: Arguments) -> Tensor:
    """self + value · tensor1 · tensor2."""
    product = lowering.multiply(graph, origin, given["tensor1"], given["tensor2"])
    return lowering.add(graph, origin, given["self"], _scaled(graph, origin, product, given.get("value", 1)))


def _lerp(graph: Graph, origin: Origin, given: Arguments) -> Tensor:
    """self + weight · (end − self)."""
    apart = lowering.add(graph, origin, given["end"], given["self"], (1.0, -1.0))
    return lowering.add(
        graph, origin, given["self"], lowering.multiply(graph, origin, apart, _tensor(graph, given["weight"]))
    )


def _negative(graph: Graph, origin: Origin, given: Arguments) -> Tensor:
    return lowering.multiply(graph, origin, given["self"], np.full((), -1.0, np.float32))


def _batch_norm(graph: Graph, origin: Origin, given: Arguments) -> Tensor:
    if given.get("training"):
        raise Refused(
            "it normalises by the statistics of the batch: it is in training mode, or has no running statistics "
            "(track_running_stats=False); give it those and call eval()"
        )
    mean, variance = weights(given["running_mean"], "the mean"), weights(given["running_var"], "the variance")
    gamma = np.ones(len(mean)) if given.get("weight") is None else weights(given["weight"], "the weight")
    beta = np.zeros(len(mean)) if given.get("bias") is None else weights(given["bias"], "the bias")
    statistics = (gamma, beta, mean, variance)
    return lowering.batch_norm(graph, origin, computed(given["input"]), statistics, float(given.get("eps", 1e-5)), 1)


def _same(_graph: Graph, _origin: Origin, given: Arguments) -> Tensor:
    return given["self"]  # type: ignore[no-any-return]


def _reduced(step: Callable[..., Tensor]) -> Lowering:
    def apply(graph: Graph, origin: Origin, given: Arguments) -> Tensor:
        _float(given.get("dtype"))
        dim = given.get("dim")
        axes = None if dim is None or dim == [] else [dim] if isinstance(dim, int) else list(dim)
        return step(graph, origin, given["self"], axes, keepdims=bool(given.get("keepdim")))

    return apply


def _float(kind: Any) -> None:
    if isinstance(kind, str) and kind not in ("float32", "float64"):
        raise Refused(f"it computes in {kind}, which rounds to it: that has no affine + ReLU form")


def _rearranged(change: Callable[[Array, Arguments], Array]) -> Lowering:
    """A new tensor of the elements of another: of the indices of a computed one, or of a constant itself."""

    return lambda _graph, _origin, given: moved(given["self"], lambda array: change(array, given))


def _index_select(array: Array, given: Arguments) -> Array:
    return np.take(array, np.ravel(_whole_numbers(given["index"])), axis=given["dim"] % max(1, array.ndim))


def _index(array: Array, given: Arguments) -> Array:
    indices = given["indices"]
    picked = tuple(slice(None) if item is None else _positions(item) for item in indices)
    return array[picked]


def _positions(item: Any) -> Array:
    if isinstance(item, np.ndarray) and item.dtype == np.bool_:
        return item
    return _whole_numbers(item)


def _whole_numbers(item: Any) -> Array:
    if isinstance(item, Value):
        raise Refused("its indices are computed: that has no affine + ReLU form")
    array = np.asarray(item)
    if array.dtype.kind not in "iu":
        raise Refused("its indices are no whole numbers")
    return array.astype(np.int64)


def _gather(array: Array, given: Arguments) -> Array:
    index = _whole_numbers(given["index"])
    dim = given["dim"] % max(1, array.ndim)
    front = tuple(slice(0, d) if axis != dim else slice(None) for axis, d in enumerate(index.shape))
    return np.take_along_axis(array[front], index, dim)


def _roll(array: Array, given: Arguments) -> Array:
    dims = given.get("dims") or None
    shifts = given["shifts"]
    if dims is None:
        return np.roll(array, shifts[0] if isinstance(shifts, Sequence) else shifts)
    return np.roll(array, shifts, tuple(d % array.ndim for d in dims))


def _repeat(array: Array, given: Arguments) -> Array:
    repeats = list(given["repeats"] if "repeats" in given else given["dims"])
    kept = array.reshape((1,) * (len(repeats) - array.ndim) + array.shape)
    return np.tile(kept, repeats)


def _repeat_interleave(array: Array, given: Arguments) -> Array:
    repeats = given["repeats"]
    count = repeats if isinstance(repeats, int) else np.ravel(_whole_numbers(repeats))
    return np.repeat(array, count, axis=given.get("dim"))


def _pad(graph: Graph, origin: Origin, given: Arguments) -> Tensor:
    """Constants around the last axes: pairs of widths, the last axis first."""
    if given.get("mode", "constant") != "constant":
        raise Refused(f"padding of the mode '{given['mode']}' is not read")
    tensor, value = given["self"], given.get("value") or 0.0
    ndim = len(elements(tensor).shape)
    pairs = [given["pad"][at : at + 2] for at in range(0, len(given["pad"]), 2)]
    for at, widths in enumerate(pairs):
        axis = ndim - 1 - at
        if min(widths) < 0:
            raise Refused("padding by less than nothing is not read")
        tensor = lowering.padded(graph, origin, tensor, axis, tuple(widths), value)
    return tensor  # type: ignore[no-any-return]


def _cat(graph: Graph, origin: Origin, given: Arguments) -> Tensor:
    tensors = [tensor for tensor in given["tensors"] if elements(tensor).shape != (0,)]  # which torch.cat leaves out
    return lowering.concatenate(graph, origin, tensors or given["tensors"], given.get("dim", 0))


def _stack(graph: Graph, origin: Origin, given: Arguments) -> Tensor:
    dim = given.get("dim", 0)
    apart = _rearranged(lambda array, _given: np.expand_dims(array, dim))
    parts = [apart(graph, origin, {"self": tensor}) for tensor in given["tensors"]]
    return lowering.concatenate(graph, origin, parts, dim)


def _where(graph: Graph, origin: Origin, given: Arguments) -> Tensor:
    if isinstance(given["condition"], Value):
        raise Refused("its condition is computed, which is not read")
    left, right = (_tensor(graph, given[name]) for name in ("self", "other"))
    return lowering.where(graph, origin, np.asarray(given["condition"]), left, right)


def _masked_fill(graph: Graph, origin: Origin, given: Arguments) -> Tensor:
    if isinstance(given["mask"], Value):
        raise Refused("its mask is computed, which is not read")
    return lowering.where(graph, origin, np.asarray(given["mask"]), _tensor(graph, given["value"]), given["self"])


def _copy(graph: Graph, _origin: Origin, given: Arguments) -> Tensor:
    """What ``x.copy_(src)`` puts into x."""
    source = _tensor(graph, given.get("src", given.get("source")))
    if isinstance(source, np.ndarray):
        return np.broadcast_to(source, elements(given["self"]).shape)
    return Value(source.node, np.broadcast_to(source.index, elements(given["self"]).shape))


def _fill(graph: Graph, _origin: Origin, given: Arguments) -> Tensor:
    value = _tensor(graph, given.get("value", 0.0))
    if isinstance(value, Value):
        return Value(value.node, np.broadcast_to(value.index, elements(given["self"]).shape))
    return np.full(elements(given["self"]).shape, value, graph.dtype)


def _index_put(graph: Graph, origin: Origin, given: Arguments) -> Tensor:
    if given.get("accumulate"):
        raise Refused("it adds to elements by their index, which is not read")
    tensor, values = given["self"], _tensor(graph, given["values"])
    shape = elements(tensor).shape
    at = _index(np.arange(math.prod(shape)).reshape(shape), given)
    if np.unique(at).size != at.size:
        raise Refused("it sets an element twice")
    spread = np.broadcast_to(values.index if isinstance(values, Value) else values, at.shape)
    new = Value(values.node, spread) if isinstance(values, Value) else spread
    return lowering.replaced(graph, origin, tensor, at, new)


def _scattered(at: Callable[[Array, Arguments], Array]) -> Lowering:
    """A tensor with some elements from another: what decomposed programs do instead of changing a view in place."""

    def apply(graph: Graph, origin: Origin, given: Arguments) -> Tensor:
        tensor, source = given["self"], given["src"]
        places = at(np.arange(math.prod(elements(tensor).shape)).reshape(elements(tensor).shape), given)
        return lowering.replaced(graph, origin, tensor, places, source)

    return apply


def _selected(array: Array, given: Arguments) -> Array:
    return np.moveaxis(array, given["dim"], 0)[given["index"]]


def _cut(array: Array, given: Arguments) -> Array:
    dim = given.get("dim", 0)
    part = slice(given.get("start"), given.get("end"), given.get("step", 1))
    return np.moveaxis(np.moveaxis(array, dim, 0)[part], 0, dim)


def _full_like(graph: Graph, _origin: Origin, given: Arguments) -> Tensor:
    _float(given.get("dtype"))
    return np.full(elements(given["self"]).shape, given.get("fill_value", 0.0), graph.dtype)


def _tail(name: str) -> Lowering:
    def apply(graph: Graph, _origin: Origin, given: Arguments) -> Tensor:
        _float(given.get("dtype"))
        dim = given.get("dim")
        return graph.cut(name, computed(given["self"]), -1 if dim is None else dim)

    return apply


#: By ATen operator, without its overload.
OPERATORS: dict[str, Lowering] = {
    **IMAGES,
    "__rsub__": _rsub,
    "_log_softmax": _tail("log_softmax"),
    "_native_batch_norm_legit_no_training": _batch_norm,
    "_softmax": _tail("softmax"),
    "_sparse_mm": lambda graph, origin, given: lowering.matmul(graph, origin, given["sparse"], given["dense"]),
    "_to_copy": _same,
    "abs": _absolute,
    "absolute": _absolute,
    "add": _add(1.0, 1.0),
    "addcmul": _addcmul,
    "addmm": _addmm("mat1", "mat2"),
    "addmv": _addmm("mat", "vec"),
    "amax": _reduced(lowering.extreme),
    "amin": _reduced(partial(lowering.extreme, sign=-1.0)),
    "baddbmm": _addmm("batch1", "batch2"),
    "batch_norm": _batch_norm,
    "bmm": _matmul,
    "cat": _cat,
    "channel_shuffle": _rearranged(shuffled),
    "clamp": _clamp(-math.inf, math.inf),
    "clamp_max": _clamp(-math.inf, math.inf),
    "clamp_min": _clamp(-math.inf, math.inf),
    "clip": _clamp(-math.inf, math.inf),
    "clone": _same,
    "concat": _cat,
    "concatenate": _cat,
    "constant_pad_nd": _pad,
    "copy": _copy,
    "div": _divide,
    "divide": _divide,
    "fill": _fill,
    "flip": _rearranged(lambda array, given: np.flip(array, tuple(d % array.ndim for d in given["dims"]))),
    "fliplr": _rearranged(lambda array, _given: np.flip(array, 1)),
    "flipud": _rearranged(lambda array, _given: np.flip(array, 0)),
    "full_like": _full_like,
    "gather": _rearranged(_gather),
    "hardsigmoid": _hard_sigmoid,
    "hardtanh": _clamp(-1.0, 1.0),
    "index": _rearranged(_index),
    "index_put": _index_put,
    "index_select": _rearranged(_index_select),
    "leaky_relu": _leaky_relu,
    "lerp": _lerp,
    "lift_fresh_copy": _same,
    "linear": _linear,
    "log_softmax": _tail("log_softmax"),
    "masked_fill": _masked_fill,
    "matmul": _matmul,
    "max": _extreme(1.0),
    "maximum": _extreme(1.0),
    "mean": _reduced(lowering.mean),
    "min": _extreme(-1.0),
    "minimum": _extreme(-1.0),
    "mm": _matmul,
    "mul": _multiply,
    "multiply": _multiply,
    "mv": _matmul,
    "native_batch_norm": _batch_norm,
    "neg": _negative,
    "negative": _negative,
    "new_zeros": lambda graph, _origin, given: np.zeros(tuple(given["size"]), graph.dtype),
    "ones_like": lambda graph, origin, given: _full_like(graph, origin, {**given, "fill_value": 1.0}),
    "native_channel_shuffle": _rearranged(shuffled),
    "pad": _pad,
    "pixel_shuffle": _rearranged(blocks_to_places),
    "pixel_unshuffle": _rearranged(places_to_blocks),
    "prelu": _prelu,
    "_prelu_kernel": _prelu,
    "relu": _relu,
    "relu6": _clamp(0.0, 6.0),
    "repeat": _rearranged(_repeat),
    "repeat_interleave": _rearranged(_repeat_interleave),
    "roll": _rearranged(_roll),
    "rrelu": _rrelu,
    "rsub": _rsub,
    "select_scatter": _scattered(_selected),
    "sigmoid": _tail("sigmoid"),
    "slice_scatter": _scattered(_cut),
    "softmax": _tail("softmax"),
    "special_log_softmax": _tail("log_softmax"),
    "special_softmax": _tail("softmax"),
    "stack": _stack,
    "sub": _add(1.0, -1.0),
    "subtract": _add(1.0, -1.0),
    "sum": _reduced(lowering.total),
    "tanh": _tail("tanh"),
    "threshold": _threshold,
    "tile": _rearranged(_repeat),
    "true_divide": _divide,
    "where": _where,
    "zero": _fill,
    "zeros_like": _full_like,
}

#: Operators whose result lies in memory row by row, whatever they read.
ROW_BY_ROW = frozenset({"addmm", "addmv", "baddbmm", "bmm", "linear", "matmul", "mm", "mv"})
