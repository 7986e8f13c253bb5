"""The door: what LEO read, and what it wrote, must be what the framework runs.

A proof about a misread network is a false answer with a seal on it. So the framework itself runs the model on
inputs of the domain, in batches of 1, 2 and 7, and every output must lie in the interval that is *proved* to hold it as
run (:mod:`leo_core.bounds.running`, at a point): a threshold with no guess in it, but for what softmax and the like
round, of which nobody promises anything. Samples can miss a fault; what is outside the interval is one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from leo_core.arithmetic import round_down, round_up
from leo_core.bounds.running import nodes_as_run, smallest_normal, unit_roundoff
from leo_core.domain import Box
from leo_core.errors import DoorError, first_line
from leo_core.network import INPUT, Affine, Network, Rounding
from leo_core.tails import TAILS

Array = NDArray[Any]
Run: TypeAlias = "Callable[[Array], Any]"

AGREES = "agrees"
BATCHES = (1, 2, 7)
#: Units of roundoff that a softmax, sigmoid or tanh may be off by, relative to 1 or to its value.
_TAIL_UNITS = 64
#: So many values of nodes are bounded at once, several numbers for each.
_HELD = 2**24


@final
@dataclass(frozen=True, eq=False)
class Reading:
    """A network as a framework is to run it; ``runs_in`` and ``loose`` are as in
    :class:`leo_core.plugins.Imported`."""

    network: Network
    run: Run
    runs_in: str = ""
    loose: Mapping[str, Rounding] | None = None
    inside: Callable[[Any], Mapping[str, Any]] | None = None


def inputs_at(network: Network, box: Box | None, seed: int = 0, more: Array | None = None) -> Array:
    """Ten inputs to try: the box's centre, ends and corners, those a linear look at the network takes for extreme, and
    samples; ``more`` (count, inputs), such as witnesses, replace samples. Without a box, inputs of several sizes.

    Shape (10, inputs), in the network's dtype.
    """
    rng = np.random.default_rng(seed)
    count, size = sum(BATCHES), network.input_size
    if box is None:
        sizes = np.array([1, 1, 1, 0.1, 10, 10, 100, 100, 1e3, 1])
        return np.asarray((rng.uniform(-1, 1, (count, size)) * sizes[:, None]).astype(network.dtype))
    steep = _steepest(network, box.center, rng)
    corners = np.where(np.vstack([steep, -steep, rng.uniform(-1, 1, (1, size))]) >= 0, box.upper, box.lower)
    ends = np.vstack([box.sample(rng, 1), box.lower, box.upper, box.center])
    points = np.vstack([ends, corners])
    given = np.zeros((0, size)) if more is None else more[: count - len(points)]
    points = np.vstack([points, given, box.sample(rng, count - len(points) - len(given))])
    return np.asarray(points.astype(network.dtype))


def agrees(reading: Reading, points: Array) -> str:
    """Ask the framework at ``points`` (10, inputs), in batches of 1, 2 and 7; :data:`AGREES`, or what was not run.

    Raises :class:`DoorError` with the input, both outputs and the layer where they part.
    """
    network = reading.network
    points = _representable(points, reading.runs_in or str(network.dtype))
    known = _outputs(reading, points)
    begin = 0
    for count in BATCHES:
        batch = slice(begin, begin + count)
        try:
            ran = _outputs_of(reading, points[batch])
        except DoorError:
            raise
        except Exception as error:  # whatever a framework raises
            why = f"its framework could not run it ({type(error).__name__}: {first_line(error)})"
            return f"not run: {why}" if not begin else f"{AGREES}, one example at a time; in a batch of {count}, {why}"
        _compare(reading, points, batch, ran, known)
        begin += count
    return AGREES


def alike(first: Reading, second: Reading, points: Array, deviation: float) -> None:
    """Compare two models, whose networks are ``deviation`` apart at most, by what their frameworks compute.

    Raises :class:`DoorError` where that differs by more than deviation and rounding can explain.
    """
    readings = (first, second)
    wide = [_representable(points, reading.runs_in or str(reading.network.dtype)) for reading in readings]
    if (wide[0] != wide[1]).any():
        return  # of other types: the inputs themselves differ
    try:
        ran = [_outputs_of(reading, points) for reading in readings]
    except DoorError:
        raise
    except Exception:  # that one of them is not run is said elsewhere
        return
    with np.errstate(invalid="ignore", over="ignore"):
        widths = [upper - lower for lower, upper in (_outputs(reading, points) for reading in readings)]
        slack = widths[0] + widths[1]
        off = np.abs(ran[0] - ran[1])
        limit = _factors(first.network) * deviation + slack
    if (off > limit).any():
        example, unit = (int(at) for at in np.argwhere(off > limit)[0])
        raise DoorError(
            f"at the input {_shown(points[example])} the two models compute {ran[0][example, unit]:.9g} and "
            f"{ran[1][example, unit]:.9g} as {first.network.signature.called(unit)}, further apart than "
            f"{limit[example, unit]:.2g}"
        )


def _outputs_of(reading: Reading, points: Array) -> Array:
    """What the framework computes for one batch: (count, all outputs)."""
    network, count = reading.network, len(points)
    outputs = network.signature.outputs
    given = points.astype(network.dtype).reshape(count, *network.signature.input_shape or (-1,))
    parts = []
    for output, values in zip(outputs, _apart(reading.run(given), network.signature.names), strict=True):
        ran = np.asarray(values, dtype=np.float64)
        if ran.size != count * output.size:
            what = "outputs" if len(outputs) == 1 else f"an output '{output.name}'"
            raise DoorError(
                f"for {count} inputs the model's framework gives {what} of shape {ran.shape}; of the network "
                f"as LEO sees it they would be {count} × {output.size}"
            )
        parts.append(ran.reshape(count, -1))
    return np.hstack(parts)


def _apart(ran: Any, names: tuple[str, ...]) -> list[Any]:
    """Outputs in the order of their names, of a mapping by name, a list of them, or the only one."""
    if isinstance(ran, Mapping):
        if len(names) > 1 and {*ran} != {*names}:
            raise DoorError(
                f"the model's framework gives the outputs {', '.join(ran)}; LEO sees a network of {', '.join(names)}"
            )
        return [ran[name] for name in names] if len(names) > 1 else [*ran.values()]
    if len(names) == 1:
        return [ran]
    if not isinstance(ran, list | tuple) or len(ran) != len(names):
        count = len(ran) if isinstance(ran, list | tuple) else 1
        raise DoorError(
            f"the model's framework gives {count} output(s); LEO sees a network of {len(names)}: {', '.join(names)}"
        )
    return [*ran]


def _factors(network: Network) -> Array:
    """By how much its tail can enlarge a change, for each output value."""
    factors = [np.full(output.size, TAILS[output.tail].factor) for output in network.signature.outputs]
    return np.concatenate(factors)


def _compare(reading: Reading, points: Array, batch: slice, ran: Array, known: tuple[Array, Array]) -> None:
    lower, upper = (side[batch] for side in known)
    unknown = np.isneginf(lower) | np.isposinf(upper)  # where a sum may overflow, nothing is proved
    outside = ~((ran >= lower) & (ran <= upper)) & ~unknown
    if not outside.any():
        return
    example, unit = (int(at) for at in np.argwhere(outside)[0])
    low, high = lower[example, unit], upper[example, unit]
    raise DoorError(
        f"at the input {_shown(points[batch][example])} (example {example + 1} in a batch of {len(ran)}) the framework "
        f"itself computes {ran[example, unit]:.9g} as {reading.network.signature.called(unit)}, where the network as "
        f"LEO sees it gives between {low:.9g} and {high:.9g}{_where_they_part(reading, points, batch, example)}"
    )


def _outputs(reading: Reading, points: Array) -> tuple[Array, Array]:
    """Proved (lower, upper) of the outputs as run, tail included: (count, outputs)."""
    network = reading.network
    dtype = reading.runs_in or str(network.dtype)
    step = max(1, _HELD // sum(node.size for node in network.nodes))
    sides = [
        nodes_as_run(network, points[begin : begin + step], dtype, reading.loose)[network.output]
        for begin in range(0, len(points), step)
    ]
    lower, upper = (np.vstack(side) for side in zip(*sides, strict=True))
    for output, at in network.signature.ends:
        lower[..., at], upper[..., at] = through_tail(output.tail, lower[..., at], upper[..., at], dtype)
    return lower, upper


def through_tail(tail: str, lower: Array, upper: Array, dtype: str) -> tuple[Array, Array]:
    """Bounds of what a tail computes of vectors within bounds (…, outputs), run in a float type."""
    if not tail:
        return lower, upper
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        if tail == "sigmoid":
            low, high = (1 / (1 + np.exp(-side)) for side in (lower, upper))
        elif tail == "tanh":
            low, high = np.tanh(lower), np.tanh(upper)
        else:
            # the smallest share of a value: itself as low, all others as high as they may be
            low, high = (_log_share(own, others) for own, others in ((lower, upper), (upper, lower)))
            if tail == "softmax":
                low, high = np.exp(low), np.exp(high)
    slack = (_TAIL_UNITS + lower.shape[-1]) * unit_roundoff(dtype)
    reach = np.nan_to_num(np.maximum(np.abs(lower), np.abs(upper)), nan=0.0, posinf=0.0)
    largest = reach.max(axis=-1, keepdims=True, initial=0.0) if "softmax" in tail else reach
    low, high = low - slack * (1 + largest), high + slack * (1 + largest)
    if tail == "log_softmax":  # as the logarithm of a softmax that underflows it is −∞
        low = np.where(low < np.log(smallest_normal(dtype)), -np.inf, low)
    return np.where(np.isnan(low), -np.inf, round_down(low)), np.where(np.isnan(high), np.inf, round_up(high))


def _log_share(own: Array, others: Array) -> Array:
    """log(exp(own_i) / (exp(own_i) + Σ_{j≠i} exp(others_j))); the sums leave i out, so that nothing cancels."""
    top = others.max(axis=-1, keepdims=True)
    parts = np.exp(others - top)
    none = np.zeros_like(parts[..., :1])
    below = np.concatenate([none, np.cumsum(parts, axis=-1)[..., :-1]], axis=-1)
    above = np.concatenate([none, np.cumsum(parts[..., ::-1], axis=-1)[..., :-1]], axis=-1)[..., ::-1]
    with np.errstate(divide="ignore"):
        rest = np.asarray(top + np.log(below + above))
    # the largest one's own share of the sum is left out, and beside it the others may be nothing: summed by themselves
    first = others.argmax(axis=-1)[..., None]
    left = others.copy()
    np.put_along_axis(left, first, -np.inf, axis=-1)
    np.put_along_axis(rest, first, np.logaddexp.reduce(left, axis=-1, keepdims=True), axis=-1)
    return np.asarray(own - np.logaddexp(own, rest))


def _where_they_part(reading: Reading, points: Array, batch: slice, example: int) -> str:
    """The first layer whose values, as the framework tells them, lie outside those of LEO's network."""
    if reading.inside is None:
        return ""
    network, x = reading.network, points[batch][example : example + 1]
    try:
        seen = reading.inside(x.astype(network.dtype).reshape(1, *network.signature.input_shape or (-1,)))
    except Exception:  # it only helps to say where
        return ""
    known = nodes_as_run(network, x, reading.runs_in or str(network.dtype), reading.loose)
    last = {node.origin.layer: node.name for node in network.nodes}
    for layer, name in last.items():
        values = np.ravel(np.asarray(seen.get(layer, ()), dtype=np.float64))
        lower, upper = (side[0] for side in known[name])
        if layer and values.size == lower.size and not ((values >= lower) & (values <= upper)).all():
            return f"; the layers part at '{layer}'"
    return ""


def _steepest(network: Network, x: Array, rng: np.random.Generator) -> Array:
    """The slope of a random mix of the outputs at x, (inputs,): where a linear network has its extremes."""
    values = network.evaluate_nodes(x)
    slopes = {node.name: np.zeros(node.size) for node in network.nodes} | {INPUT: np.zeros(network.input_size)}
    slopes[network.output] = rng.normal(size=network.output_size)
    with np.errstate(over="ignore", invalid="ignore"):
        for node in reversed(network.nodes):
            if isinstance(node, Affine):
                node.push(slopes[node.name], slopes)
            else:
                passing = np.where(values[node.source] >= 0, 1.0, node.slope)
                slopes[node.source] = slopes[node.source] + passing * slopes[node.name]
    return np.nan_to_num(slopes[INPUT])


def _representable(points: Array, dtype: str) -> Array:
    """Points as numbers of a narrow type, so that a framework that casts its input changes nothing."""
    if dtype == "bfloat16":
        bits = points.astype(np.float32).view(np.uint32) & np.uint32(0xFFFF0000)
        return bits.view(np.float32).astype(points.dtype)
    with np.errstate(over="ignore"):
        return points.astype(dtype).astype(points.dtype)


def _shown(x: Array) -> str:
    return np.array2string(x, threshold=12, precision=9, separator=", ")


__all__ = ["AGREES", "BATCHES", "Reading", "agrees", "alike", "inputs_at", "through_tail"]
