"""Activations: Keras' functions by their names, as affine maps, ReLUs or what is kept outside at the end."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from leo_core.network import TAILS, Origin
from leo_frontends import lowering
from leo_frontends.graph import Graph, Refused, Tensor, Value
from leo_frontends.lowering import computed

Function = Callable[[Graph, Origin, Value], Tensor]


def named(graph: Graph, origin: Origin, tensor: Tensor, function: Any, axis: Any = -1) -> Tensor:
    """What a function of Keras, called on a tensor with its own defaults, makes of it; ``axis`` is that of a softmax.

    Raises :class:`Refused` where it is none of Keras' own, or has no affine + ReLU form.
    """
    name = getattr(function, "__name__", type(function).__name__)
    if not str(getattr(function, "__module__", "")).startswith("keras."):
        raise Refused(f"its activation '{name}' is not one of Keras' own; LEO cannot know what it computes")
    if name == "linear":
        return tensor
    if name in TAILS:
        return tail(graph, name, computed(tensor), axis)
    if name in FUNCTIONS:
        return FUNCTIONS[name](graph, origin, computed(tensor))
    raise Refused(f"its activation '{name}' {_why_not(name)}")


def tail(graph: Graph, name: str, value: Value, axis: Any = -1) -> Value:
    """A softmax and the like; ``axis`` may be several, over all of which a softmax is taken."""
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    if len(axes) == 1:
        return graph.cut(name, value, axes[0])
    ndim = value.index.ndim
    over = sorted(a % ndim for a in axes)
    kept = [a for a in range(ndim) if a not in over]
    together = value.index.transpose(*kept, *over).reshape(*(value.index.shape[a] for a in kept), -1)
    after = graph.cut(name, Value(value.node, together))
    moved = after.index.reshape([value.index.shape[a] for a in (*kept, *over)])
    return Value(after.node, moved.transpose(np.argsort([*kept, *over])))


def relu(graph: Graph, origin: Origin, value: Value, options: Any) -> Tensor:
    """Keras' ReLU with its three options."""
    if options.threshold:
        raise Refused(f"its threshold is {options.threshold}, so it jumps there: it has no affine + ReLU form")
    if options.max_value is None:
        return leaky_relu(graph, origin, value, options.negative_slope or 0.0)
    return clipped_relu(graph, origin, value, options.negative_slope or 0.0, options.max_value)


def leaky_relu(graph: Graph, origin: Origin, value: Value, slope: Any) -> Tensor:
    """x where x ≥ 0, slope · x elsewhere; the slope is a number of the type that the model runs in."""
    return lowering.relu(graph, origin, value, number(graph, slope))


def clipped_relu(graph: Graph, origin: Origin, value: Value, slope: Any, most: Any) -> Tensor:
    """min(x, most) where x ≥ 0, slope · x elsewhere: leaky(x) − relu(x − most), as most ≥ 0."""
    if not slope:
        return clip(graph, origin, value, 0.0, most)
    above = lowering.add(graph, origin, value, np.array(-number(graph, most), graph.dtype))
    over = lowering.relu(graph, origin, computed(above))
    graph.added += value.index.size
    return lowering.add(graph, origin, leaky_relu(graph, origin, value, slope), over, (1.0, -1.0))


def clip(graph: Graph, origin: Origin, value: Value, low: Any, high: Any) -> Tensor:
    """min(max(x, low), high); an end may be None."""
    ends = (-math.inf if low is None else number(graph, low), math.inf if high is None else number(graph, high))
    if ends[0] == ends[1] and math.isfinite(ends[0]):
        return graph.scaled(origin, value, np.zeros((), graph.dtype), np.array(ends[0], graph.dtype))
    return lowering.clip(graph, origin, value, *ends)


def soft_shrink(graph: Graph, origin: Origin, value: Value, threshold: Any = 0.5) -> Tensor:
    """x − min(max(x, −t), t): what is closer to 0 than t becomes 0."""
    if not threshold > 0:
        raise Refused(f"its threshold is {threshold}")
    return lowering.add(graph, origin, value, clip(graph, origin, value, -threshold, threshold), (1.0, -1.0))


def number(graph: Graph, value: Any) -> float:
    """A Python number as Keras uses it: in the type of the tensors it meets."""
    return float(np.array(value, graph.dtype))


def _sparse_sigmoid(graph: Graph, origin: Origin, value: Value) -> Tensor:
    half = np.full((), 0.5, np.float32)
    return graph.scaled(origin, computed(clip(graph, origin, value, -1.0, 1.0)), half, half)


def _why_not(name: str) -> str:
    if name in ("hard_shrink", "threshold"):
        return "jumps, so it has no affine + ReLU form"
    if name in ("hard_silu", "hard_swish", "sparse_plus"):
        return "has no affine + ReLU form: it is quadratic in between"
    if name in CURVED:
        return "has no affine + ReLU form"
    return "is not read"


#: Those with an exact affine + ReLU form, by the names of Keras' functions.
FUNCTIONS: dict[str, Function] = {
    "abs": lowering.absolute,
    "absolute": lowering.absolute,
    "hard_sigmoid": lowering.hard_sigmoid,
    "hard_tanh": lambda graph, origin, value: clip(graph, origin, value, -1.0, 1.0),
    "leaky_relu": lambda graph, origin, value: leaky_relu(graph, origin, value, 0.2),
    "relu": lambda graph, origin, value: lowering.relu(graph, origin, value),
    "relu6": lambda graph, origin, value: clip(graph, origin, value, 0.0, 6.0),
    "soft_shrink": soft_shrink,
    "sparse_sigmoid": _sparse_sigmoid,
}

#: Those that are curved.
CURVED = frozenset((
    "celu", "elu", "exp", "exponential", "gelu", "glu", "log_sigmoid", "mish", "selu", "silu", "softplus", "softsign",
    "squareplus", "swish", "tanh_shrink",
))  # fmt: skip
