"""What layers mean as affine maps and ReLUs, exactly; one function per meaning, for all frontends.

Each takes the graph, where the layer came from, and tensors: a :class:`~leo_frontends.graph.Value` is computed,
an array is constant. Each raises :class:`~leo_frontends.graph.Refused` with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from leo_core.linear import LinearMap, Sparse
from leo_core.network import Origin
from leo_frontends.graph import Array, Graph, Refused, Tensor, Value, elements, turned_back
from leo_frontends.indices import scaling

#: Relative error allowed for one rounded float64 operation and the next: generous on purpose.
EPS = 2.0**-50
#: Units of roundoff by which a batch norm's numbers, computed in a few steps, may be off.
_STEPS = 16.0


def number_array(array: Array) -> Array:
    """An array LEO can work with; half floats become float32, which is exact."""
    if array.dtype == np.float16:
        return array.astype(np.float32)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"numbers of type {array.dtype} are not read")
    return array


def weights(tensor: Any, what: str) -> Array:
    """A constant in one of the dtypes that are stored."""
    if not isinstance(tensor, np.ndarray):
        raise Refused(f"{what} is not a constant")
    return tensor if tensor.dtype in (np.float32, np.float64) else tensor.astype(np.float64)


def computed(tensor: Any) -> Value:
    """A tensor that depends on the input."""
    if not isinstance(tensor, Value):
        raise Refused("it works on constants only")
    return tensor


def dense(graph: Graph, origin: Origin, value: Value, weight: Array, bias: Array) -> Value:
    """weight (rows × columns) applied along the last axis, plus bias."""
    if weight.ndim != 2 or weight.shape[1] != value.index.shape[-1]:
        raise Refused(f"its matrix takes {weight.shape[-1]} values, its input has {value.index.shape[-1]}")
    columns = value.index.reshape(-1, max(1, weight.shape[1]))
    shape = (*value.index.shape[:-1], weight.shape[0])
    spread = np.broadcast_to(bias, (columns.shape[0], weight.shape[0])).ravel()
    return graph.matrix(origin, value, columns, weight, spread, shape)


def linear(graph: Graph, origin: Origin, value: Any, weight: Any, bias: Any = None) -> Tensor:
    """weight · value along the last axis, plus bias, which may be computed too; weight may be a vector."""
    rows = weights(weight, "the weight")
    if rows.ndim == 1:  # a vector: the result loses that axis
        result = linear(graph, origin, value, rows[None], None)
        result = Value(computed(result).node, computed(result).index[..., 0])
        return result if bias is None else add(graph, origin, result, bias)
    constant = bias if isinstance(bias, np.ndarray) and bias.ndim <= 1 else None
    start = np.zeros(rows.shape[0], rows.dtype) if constant is None else weights(constant, "the bias")
    result = dense(graph, origin, computed(value), rows, start)
    return result if bias is None or constant is not None else add(graph, origin, result, bias)


def matmul(graph: Graph, origin: Origin, left: Any, right: Any) -> Tensor:
    """left right, as NumPy's matmul multiplies: one of them is constant, one matrix or vector for all of a stack."""
    if isinstance(left, Value) and isinstance(right, Value):
        raise Refused("it multiplies two computed tensors: that has no affine + ReLU form")
    if isinstance(left, Value):
        matrix, value = weights(right, "the matrix"), left
        if matrix.ndim == 1:
            return linear(graph, origin, value, matrix, None)
        row = value.index.ndim == 1
        index = _stacked(value.index[None] if row else value.index, matrix)
        result = computed(linear(graph, origin, Value(value.node, index), _one(matrix).T, None))
        return Value(result.node, result.index[..., 0, :]) if row else result
    matrix, value = weights(left, "the matrix"), computed(right)
    column = value.index.ndim == 1
    index = value.index[:, None] if column else value.index
    index = _stacked(index, matrix) if matrix.ndim > 2 else index
    rows = _one(matrix) if matrix.ndim > 1 else matrix
    result = computed(linear(graph, origin, Value(value.node, np.swapaxes(index, -1, -2)), rows, None))
    if rows.ndim == 1:
        return Value(result.node, result.index[..., 0]) if column else result
    turned = np.swapaxes(result.index, -1, -2)
    return Value(result.node, turned[..., 0] if column else turned)


def _stacked(index: Array, matrix: Array) -> Array:
    """An index of matrices, as many of them as there are when each meets its own of a stack."""
    stack = np.broadcast_shapes(index.shape[:-2], matrix.shape[:-2])
    return np.broadcast_to(index, (*stack, *index.shape[-2:]))


def _one(matrix: Array) -> Array:
    """The matrix of which a stack is made."""
    if not _same_rows(matrix):
        raise Refused("it multiplies by several matrices at once, which is not read; use one matrix for each")
    return np.ascontiguousarray(matrix[(0,) * (matrix.ndim - 2)])


def _same_rows(matrix: Array) -> bool:
    """Whether a stack of matrices is the same one each time."""
    if matrix.ndim <= 2:
        return True
    flat = matrix.reshape(-1, *matrix.shape[-2:])
    return bool((flat == flat[:1]).all())


def add(graph: Graph, origin: Origin, left: Tensor, right: Tensor, signs: tuple[float, float] = (1.0, 1.0)) -> Tensor:
    """±left ± right, broadcast."""
    if isinstance(left, np.ndarray) and isinstance(right, np.ndarray):
        return np.asarray(signs[0] * left + signs[1] * right)
    if isinstance(left, Value) and isinstance(right, Value):
        shape = np.broadcast_shapes(left.index.shape, right.index.shape)
        left, right = (Value(value.node, np.broadcast_to(value.index, shape)) for value in (left, right))
        axes = graph.stored(left, right)
        spread = [value.index.transpose(axes).ravel() for value in (left, right)]
        if left.node == right.node and (spread[0] == spread[1]).all():
            factor = np.full(math.prod(shape), signs[0] + signs[1], np.float32).reshape(shape)
            return graph.scaled(origin, left, factor, np.zeros((), np.float32))
        split = graph.joined([left, right], np.stack(spread, axis=1))
        maps = [
            scaling(units, np.full(len(units), sign, np.float32), graph.size(value.node))
            for value, units, sign in zip((left, right), split.reads.T, signs, strict=True)
        ]
        bias = np.zeros(len(split.reads), np.float32)
        turned = [shape[axis] for axis in axes]
        return turned_back(graph.affine(origin, [left.node, right.node], maps, bias, split, turned), axes)
    (value, sign), (constant, other) = (left, signs[0]), (right, signs[1])
    if isinstance(right, Value):
        (value, sign), (constant, other) = (right, signs[1]), (left, signs[0])
    shift = weights(constant, "the constant")
    return graph.scaled(origin, computed(value), np.full((), sign, np.float32), -shift if other < 0 else shift)


def multiply(graph: Graph, origin: Origin, left: Tensor, right: Tensor) -> Tensor:
    """left · right where one of them is constant."""
    if isinstance(left, np.ndarray) and isinstance(right, np.ndarray):
        return left * right
    value, factor = (left, right) if isinstance(left, Value) else (right, left)
    if isinstance(factor, Value):
        raise Refused("it multiplies two computed tensors")
    return graph.scaled(origin, computed(value), weights(factor, "the factor"), np.zeros((), np.float32))


def divide(graph: Graph, origin: Origin, left: Tensor, right: Tensor) -> Tensor:
    """left / right where right is constant; 1 / right is rounded unless it is a power of two."""
    if not isinstance(left, Value):
        raise Refused("it divides by a computed tensor" if isinstance(right, Value) else "it works on constants only")
    divisor = weights(right, "the divisor").astype(np.float64)
    if (divisor == 0).any():
        raise Refused("it divides by zero")
    if (np.frexp(np.abs(divisor))[0] == 0.5).all():
        return graph.scaled(origin, left, _short(1.0 / divisor), np.zeros((), np.float32))
    result = graph.scaled(origin, left, 1.0 / divisor, np.zeros(()), (EPS, np.zeros(())))
    if result.node != left.node:
        graph.remember(result, {"divisor": weights(right, "the divisor")})
    return result


def relu(graph: Graph, origin: Origin, value: Value, slope: Array | float = 0.0) -> Value:
    """x where x ≥ 0, slope · x elsewhere: relu(x) − slope · relu(−x) where a slope is not in [0, 1)."""
    slope = np.asarray(slope, dtype=np.float64)
    if not np.isfinite(slope).all():
        raise Refused("its slope is not finite")
    if ((slope >= 0) & (slope < 1)).all():
        return graph.relu(origin, value, np.broadcast_to(slope, value.index.shape).ravel())
    zero = np.zeros((), np.float32)
    above = relu(graph, origin, value)
    below = relu(graph, origin, graph.scaled(origin, value, np.full((), -1.0, np.float32), zero))
    graph.added += value.index.size
    scale = -slope.astype(np.float32) if (slope == slope.astype(np.float32)).all() else -slope
    return computed(add(graph, origin, above, graph.scaled(origin, below, scale, zero)))


def clip(graph: Graph, origin: Origin, value: Value, low: float, high: float) -> Tensor:
    """min(max(x, low), high) = low + relu(x − low) − relu(x − high); either end may be infinite.

    Where the ends are equal or crossed it is ``high`` everywhere, as in all frameworks.
    """
    if math.isnan(low) or math.isnan(high):
        raise Refused("an end of it is not a number")
    if low >= high:
        return graph.scaled(origin, value, np.zeros((), np.float32), _number(high))
    ends = [end for end in (low, high) if math.isfinite(end)]
    if not ends:
        return value
    lifted = [relu(graph, origin, _shifted(graph, origin, value, end)) for end in ends]
    graph.added += len(ends) * value.index.size
    if not math.isfinite(low):
        return add(graph, origin, value, lifted[0], (1.0, -1.0))
    result: Tensor = lifted[0] if len(lifted) == 1 else add(graph, origin, lifted[0], lifted[1], (1.0, -1.0))
    return result if low == 0 else add(graph, origin, result, _number(low))


def absolute(graph: Graph, origin: Origin, value: Value) -> Tensor:
    """|x| = 2 relu(x) − x."""
    graph.added += value.index.size
    twice = graph.scaled(origin, relu(graph, origin, value), np.full((), 2.0, np.float32), np.zeros((), np.float32))
    return add(graph, origin, twice, value, (1.0, -1.0))


def shrink(graph: Graph, origin: Origin, value: Value, width: float, bias: float) -> Tensor:
    """x − bias above ``width``, x + bias below −``width``, 0 between: relu(x − width) − relu(−x − width) if equal."""
    if not width == bias >= 0:
        raise Refused(f"it jumps at its threshold: its width is {width}, its bias {bias}")
    opposite = graph.scaled(origin, value, np.full((), -1.0, np.float32), np.zeros((), np.float32))
    above, below = (relu(graph, origin, _shifted(graph, origin, side, width)) for side in (value, opposite))
    graph.added += value.index.size
    return add(graph, origin, above, below, (1.0, -1.0))


def maximum(graph: Graph, origin: Origin, left: Tensor, right: Tensor, sign: float = 1.0) -> Tensor:
    """max(a, b) = b + relu(a − b); with ``sign`` −1, min(a, b) = b − relu(b − a)."""
    if isinstance(left, np.ndarray) and isinstance(right, np.ndarray):
        return np.maximum(left, right) if sign > 0 else np.minimum(left, right)
    above = computed(add(graph, origin, left, right, (sign, -sign)))
    graph.added += above.index.size
    return add(graph, origin, right, relu(graph, origin, above), (1.0, sign))


def batch_norm(
    graph: Graph, origin: Origin, value: Value, statistics: Sequence[Array], epsilon: float, axis: int
) -> Value:
    """gamma (x − mean) / √(variance + epsilon) + beta along an axis, in float64; what that rounds is said."""
    gamma, beta, mean, variance = (array.astype(np.float64) for array in statistics)
    spread = variance + epsilon
    if (spread <= 0).any():
        raise Refused("its variance is not positive")
    scale = gamma / np.sqrt(spread)
    shift = beta - mean * scale
    error = 4 * EPS * (np.abs(beta) + np.abs(mean * scale))
    axes = [1] * value.index.ndim
    axes[axis] = -1
    result = graph.scaled(origin, value, scale.reshape(axes), shift.reshape(axes), (4 * EPS, error.reshape(axes)))
    # as run: √, 1/·, two products and two sums, each of what was rounded before, in whichever order
    if result.node != value.node:
        names = ("gamma", "beta", "mean", "variance")
        numbers = {name: array.reshape(axes) for name, array in zip(names, statistics, strict=True)}
        graph.remember(result, numbers, epsilon)
        size = (np.abs(beta) + np.abs(mean * scale)).reshape(axes)
        graph.loosen(result, _STEPS, _STEPS * graph.by_value(result, size))
    return result


def concatenate(graph: Graph, origin: Origin, tensors: Sequence[Tensor], axis: int) -> Tensor:
    """Tensors side by side along an axis; constants among them become biases."""
    if all(isinstance(tensor, np.ndarray) for tensor in tensors):
        return np.concatenate([np.asarray(tensor) for tensor in tensors], axis)
    whole = _one_node(tensors, axis)
    if whole is not None:
        return whole
    filled = [_filled(tensor) for tensor in tensors]
    which = np.concatenate([np.full(np.shape(index), i) for i, (index, _) in enumerate(filled)], axis)
    index = np.concatenate([index for index, _ in filled], axis)
    constants = np.concatenate([constant for _, constant in filled], axis)
    return put_together(graph, origin, tensors, which, index, constants)


def padded(graph: Graph, origin: Origin, tensor: Tensor, axis: int, widths: tuple[int, int], value: float) -> Tensor:
    """A tensor with so many constants before and behind it along an axis."""
    shape = elements(tensor).shape
    before, behind = (np.full((*shape[:axis], width, *shape[axis + 1 :]), value, graph.dtype) for width in widths)
    parts = [*([before] if widths[0] else []), tensor, *([behind] if widths[1] else [])]
    return concatenate(graph, origin, parts, axis)


def where(graph: Graph, origin: Origin, mask: Array, left: Tensor, right: Tensor) -> Tensor:
    """left where a constant mask says so, else right; broadcast."""
    if isinstance(left, np.ndarray) and isinstance(right, np.ndarray):
        return np.where(mask, left, right)
    filled = [_filled(tensor) for tensor in (left, right)]
    shape = np.broadcast_shapes(np.shape(mask), *(index.shape for index, _ in filled))
    mask = np.broadcast_to(mask, shape).astype(bool)
    index, constants = (np.where(mask, *(np.broadcast_to(pair[part], shape) for pair in filled)) for part in range(2))
    if isinstance(left, Value) and isinstance(right, Value) and left.node == right.node:
        return Value(left.node, index)
    return put_together(graph, origin, [left, right], np.where(mask, 0, 1), index, constants)


def replaced(graph: Graph, origin: Origin, old: Tensor, at: Array, new: Tensor) -> Tensor:
    """``old`` with its elements ``at`` (counted row by row) taken from ``new``, which has the shape of ``at``."""
    if isinstance(old, np.ndarray) and isinstance(new, np.ndarray):
        changed = old.copy()
        changed.ravel()[at.ravel()] = new.ravel()
        return changed
    shape = elements(old).shape
    mask = np.zeros(math.prod(shape), bool)
    mask[at.ravel()] = True
    (index, constants), (of_new, from_new) = _filled(old), _filled(new)
    index, constants = index.ravel().copy(), constants.ravel().astype(np.result_type(constants, from_new))
    index[at.ravel()], constants[at.ravel()] = of_new.ravel(), from_new.ravel()
    index, constants = index.reshape(shape), constants.reshape(shape)
    if isinstance(new, np.ndarray) and mask.all():
        return constants
    if isinstance(new, Value) and (mask.all() or (isinstance(old, Value) and old.node == new.node)):
        return Value(new.node, index)
    return put_together(graph, origin, [old, new], mask.reshape(shape).astype(int), index, constants)


def put_together(
    graph: Graph, origin: Origin, tensors: Sequence[Tensor], which: Array, index: Array, constants: Array
) -> Value:
    """Element e is that of ``tensors[which[e]]``: the one that ``index`` names, or a constant."""
    values = {i: tensor for i, tensor in enumerate(tensors) if isinstance(tensor, Value)}
    axes = graph.stored(*(value for value in values.values() if value.index.ndim == which.ndim))
    axes = axes or tuple(range(which.ndim))
    which, index, constants = (array.transpose(axes) for array in (which, index, constants))
    split = graph.gathered(values, which, index.ravel())
    of, units = split.reads.T
    maps: list[LinearMap] = []
    for i, value in values.items():
        mine = of == i
        pointers = np.concatenate([[0], np.cumsum(mine)])
        maps.append(Sparse(np.ones(mine.sum(), np.float32), units[mine], pointers, columns=graph.size(value.node)))
    names = [value.node for value in values.values()]
    whole = graph.affine(origin, names, maps, split.same(constants.ravel()), split, which.shape)
    return turned_back(whole, axes)


def _one_node(tensors: Sequence[Tensor], axis: int) -> Value | None:
    """Parts of one node side by side: no node is needed for that."""
    values = [tensor for tensor in tensors if isinstance(tensor, Value)]
    if len(values) < len(tensors) or len({value.node for value in values}) > 1:
        return None
    return Value(values[0].node, np.concatenate([value.index for value in values], axis))


def _filled(tensor: Tensor) -> tuple[Array, Array]:
    """(the index of a tensor, its constants): each is zero where it is the other."""
    if isinstance(tensor, Value):
        return tensor.index, np.zeros(tensor.index.shape, np.float32)
    return np.zeros(np.shape(tensor), np.int64), weights(np.asarray(tensor), "a part")


def total(
    graph: Graph, origin: Origin, tensor: Tensor, axes: Sequence[int] | None = None, *, keepdims: bool = False
) -> Tensor:
    """The sum over some axes, or over all."""
    rest, over, shape = _reduced(elements(tensor).shape, axes, keepdims=keepdims)
    if isinstance(tensor, np.ndarray):
        return np.asarray(tensor.sum(tuple(over), keepdims=keepdims, dtype=tensor.dtype))
    count = math.prod(tensor.index.shape[axis] for axis in over)
    columns = tensor.index.transpose(*rest, *over).reshape(-1, count)
    return graph.matrix(
        origin, tensor, columns, np.ones((1, count), np.float32), np.zeros(len(columns), np.float32), shape
    )


def _reduced(
    shape: tuple[int, ...], axes: Sequence[int] | None, *, keepdims: bool
) -> tuple[list[int], list[int], tuple[int, ...]]:
    """(the axes that stay, those that are reduced, all where none are given; the shape that is left)."""
    over = sorted({axis % len(shape) for axis in (range(len(shape)) if axes is None else axes)})
    rest = [axis for axis in range(len(shape)) if axis not in over]
    kept = tuple(1 if axis in over else length for axis, length in enumerate(shape) if keepdims or axis not in over)
    return rest, over, kept


def extreme(
    graph: Graph,
    origin: Origin,
    tensor: Tensor,
    axes: Sequence[int] | None = None,
    *,
    sign: float = 1.0,
    keepdims: bool = False,
) -> Tensor:
    """The largest value over some axes, or over all; with ``sign`` −1, the smallest."""
    value = computed(tensor)
    rest, over, kept = _reduced(value.index.shape, axes, keepdims=keepdims)
    flat = value.index.transpose(*rest, *over).reshape(*(value.index.shape[axis] for axis in rest), -1)
    if not flat.shape[-1]:
        raise Refused("it takes the extreme of no values")
    best, left = Value(value.node, flat), list[Value]()
    while (count := best.index.shape[-1]) > 1:
        half = count // 2
        parts = (best.index[..., :half], best.index[..., half : 2 * half], best.index[..., 2 * half :])
        one, other, odd = (Value(best.node, part) for part in parts)
        if odd.index.size:
            left.append(odd)
        best = computed(maximum(graph, origin, one, other, sign))
    for odd in left:
        best = computed(maximum(graph, origin, best, odd, sign))
    return Value(best.node, best.index.reshape(kept))


def mean(
    graph: Graph, origin: Origin, tensor: Tensor, axes: Sequence[int] | None = None, *, keepdims: bool = False
) -> Tensor:
    """The mean over some axes, or over all: the sum, divided by a count that need be no power of two."""
    summed = total(graph, origin, tensor, axes, keepdims=keepdims)
    count = np.array(elements(tensor).size / max(1, elements(summed).size), graph.dtype)
    if isinstance(summed, np.ndarray):
        return np.asarray(summed / count.astype(summed.dtype))
    return divide(graph, origin, summed, count)


def hard_sigmoid(graph: Graph, origin: Origin, value: Value) -> Tensor:
    """min(max(x + 3, 0), 6) / 6."""
    shifted = computed(add(graph, origin, value, np.full((), 3.0, np.float32)))
    return divide(graph, origin, clip(graph, origin, shifted, 0.0, 6.0), np.full((), 6.0, np.float32))


def _shifted(graph: Graph, origin: Origin, value: Value, end: float) -> Value:
    return value if end == 0 else graph.scaled(origin, value, np.ones((), np.float32), _number(-end))


def _short(array: Array) -> Array:
    """In float32 where that is exact: it must not make a float32 network a wider one."""
    short = array.astype(np.float32)
    return short if (short == array).all() else array


def _number(value: float) -> Array:
    return _short(np.array(value, np.float64))
