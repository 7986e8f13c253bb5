"""Better multipliers for the safe dual bound, by gradient descent for many objectives at once.

The lower slope α of a ReLU whose interval crosses zero may be anything in [0, 1]; any other unit, settled by
its bounds or by a split, may be priced by a β: Xu et al. 2021, Wang et al. 2021 (α,β-CROWN). Nothing here is
proved: what is found is a hint to :func:`leo_core.bounds.dual.bound_above`, which makes a proof of any
multipliers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from leo_core.bounds.dual import DualBound, Policy, bound_above
from leo_core.bounds.region import Region
from leo_core.bounds.upto import Step, upto
from leo_core.network import INPUT, Network

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

#: Adam's first step, the factor per step, and its decay rates.
_RATE, _DECAY, _FIRST, _SECOND = 0.25, 0.96, 0.9, 0.99


def improved(
    network: Network,
    target: str,
    objectives: Array,
    region: Region,
    steps: int,
    expired: Callable[[], bool] = lambda: False,
) -> DualBound:
    """The best safe bounds met in ``steps`` steps from the adaptive slopes on, on a region, or on one of a stack each.

    An objective is left alone once its bound is not positive; no step begins once ``expired``.
    """
    slopes: dict[str, _Slopes] = {}
    at = np.arange(len(objectives))
    stack = region.lower.ndim == 2
    now = bound_above(network, target, objectives, region, _policy(slopes, at), at if stack else None)
    upper, rounding, slope = now.upper.copy(), now.rounding.copy(), now.slope_at_input.copy()
    used = {name: y.copy() for name, y in now.multipliers.items()}
    prices = {name: price.copy() for name, price in now.prices.items()}
    for step in range(steps):
        kept = np.flatnonzero(upper[at] > 0)
        if len(kept) == 0 or expired():
            break
        _descend(slopes, _gradients(upto(network, target).steps, region, at, now, slopes), at, kept, step)
        at = at[kept]
        now = bound_above(network, target, objectives[at], region, _policy(slopes, at), at if stack else None)
        better = now.upper < upper[at]
        won = at[better]
        upper[won], rounding[won], slope[won] = now.upper[better], now.rounding[better], now.slope_at_input[better]
        for name, y in now.multipliers.items():
            used[name][won], prices[name][won] = y[better], now.prices[name][better]
    return DualBound(upper, rounding, used, prices, slope)


@dataclass(eq=False)
class _Slopes:
    """For one node: α and β per objective and unit, Adam's moments, and the lines of the last pass."""

    alpha: Array
    beta: Array
    scale: Array  # of β, per objective
    first: Array
    second: Array
    gain: Array = field(default_factory=lambda: np.zeros((0, 0)))
    lift: Array = field(default_factory=lambda: np.zeros((0, 0)))

    @staticmethod
    def begin(ahead: Array, low: Array, high: Array) -> _Slopes:
        alpha = np.broadcast_to((high > -low).astype(np.float64), ahead.shape).copy()
        zero = np.zeros_like(ahead)
        scale = np.maximum(np.abs(ahead).max(axis=1, keepdims=True, initial=0.0), 1e-300)
        return _Slopes(alpha, zero, scale, zero.copy(), zero.copy())


def _policy(slopes: dict[str, _Slopes], at: Indices) -> Policy:
    """y from the slopes: the chord where the price is positive, α where it is not, β where the sign is known."""

    def choose(name: str, ahead: Array, low: Array, high: Array) -> Array:
        mine = slopes.setdefault(name, _Slopes.begin(ahead, low, high))
        crossing = (low < 0) & (high > 0)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            chord = high / (high - low)
        chord = np.where(crossing & np.isfinite(chord), chord, 0.0)
        rising = ahead > 0
        mine.gain = np.where(crossing, np.where(rising, chord, mine.alpha[at]), (low >= 0).astype(np.float64))
        mine.lift = np.where(crossing & rising & np.isfinite(low), -chord * low, 0.0)
        price = np.where(crossing, 0.0, mine.beta[at] * mine.scale[at])
        return np.asarray(ahead * mine.gain + price)

    return Policy(choose)


def _gradients(
    plan: Sequence[Step],
    region: Region,
    at: Indices,
    now: DualBound,
    slopes: dict[str, _Slopes],
) -> dict[str, tuple[Array, NDArray[np.bool_]]]:
    """(∂bound/∂α or ∂bound/∂β, which of the two) per node: the relaxed network at the input of the bound."""

    def own(side: Array) -> Array:
        return side[at] if side.ndim == 2 else side

    values = {INPUT: np.where(now.slope_at_input > 0, own(region.upper), own(region.lower))}
    result: dict[str, tuple[Array, NDArray[np.bool_]]] = {}
    for node, relus in plan[:-1]:
        a = values[node.name] = node.apply(values)
        mine = slopes.get(node.name)
        if mine is None:
            continue
        for relu in relus:
            p = mine.gain * a + mine.lift
            values[relu.name] = relu.slope * a + (1.0 - relu.slope) * p if relu.slope.any() else p
        low, high = (own(side) for side in region.intervals[node.name])
        crossing = np.broadcast_to((low < 0) & (high > 0), a.shape)
        beta = mine.beta[at]
        end = np.where(beta > 0, low, np.where(beta < 0, high, np.clip(a, low, high)))
        price = now.prices[node.name]
        falling = np.where(price < 0, price * a, 0.0)
        result[node.name] = np.where(crossing, falling, (a - end) * mine.scale[at]), crossing
    return result


def _descend(
    slopes: dict[str, _Slopes],
    gradients: dict[str, tuple[Array, NDArray[np.bool_]]],
    at: Indices,
    kept: Indices,
    step: int,
) -> None:
    """One step of Adam (Kingma and Ba 2015) for the kept rows."""
    rows = at[kept]
    rate = _RATE * _DECAY**step
    for name, (gradient, crossing) in gradients.items():
        mine, g, alpha = slopes[name], np.nan_to_num(gradient[kept]), crossing[kept]
        first = _FIRST * mine.first[rows] + (1 - _FIRST) * g
        second = _SECOND * mine.second[rows] + (1 - _SECOND) * g * g
        mine.first[rows], mine.second[rows] = first, second
        move = rate * (first / (1 - _FIRST ** (step + 1)))
        move /= np.sqrt(second / (1 - _SECOND ** (step + 1))) + 1e-150
        mine.alpha[rows] = np.clip(mine.alpha[rows] - np.where(alpha, move, 0.0), 0.0, 1.0)
        mine.beta[rows] -= np.where(alpha, 0.0, 0.3 * move)
