"""The examples of a batch: a model run on any number of them, and one read for any number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from leo_core.errors import LeoError, UnsupportedModelError
from leo_core.network import Network
from leo_core.plugins import Imported
from leo_frontends.graph import ALONE, MIXES, Array


def in_batches(run: Callable[[Array], Any], size: int | None) -> Callable[[Array], Any]:
    """``run`` for any number of examples; ``size`` is what it takes at once, None or 0 where that is free.

    The last example fills up the last batch.
    """
    if not size:
        return run

    def whole(inputs: Array) -> Any:
        filled = np.concatenate([inputs, np.repeat(inputs[-1:], -len(inputs) % size, axis=0)])
        parts = [run(filled[begin : begin + size]) for begin in range(0, len(filled), size)]
        return below(parts, len(inputs))

    return whole


def below(parts: Sequence[Any], count: int) -> Any:
    """The first so many rows of what was computed part by part: an array, or outputs in a list or by name, for each."""
    if isinstance(parts[0], dict):
        return {name: below([part[name] for part in parts], count) for name in parts[0]}
    if isinstance(parts[0], list):
        return [below(output, count) for output in zip(*parts, strict=True)]
    return np.concatenate(parts)[:count]


def for_any_batch(lower: Callable[[int], Imported], where: str, input_size: int) -> Imported:
    """A model that takes batches of any size, lowered with three sizes that must give one network.

    One example alone is special: an axis of length 1 is broadcast, squeezed, and laid out in memory otherwise.
    ``lower`` takes the size. Raises :class:`UnsupportedModelError` where the size makes a difference.
    """
    few, many, alone = (_outcome(lower, size) for size in (2, max(3, min(67, 2**16 // input_size)), 1))
    if isinstance(few, LeoError) and isinstance(many, LeoError):
        raise few
    if isinstance(few, LeoError) or isinstance(many, LeoError) or _differ(few.network, many.network):
        raise UnsupportedModelError(where, [f"{MIXES}: the number of examples itself changes what it computes"])
    single = None if isinstance(alone, LeoError) else alone.network
    if single != few.network:
        raise UnsupportedModelError(where, [f"{MIXES}: {ALONE}"])
    return few


def _differ(one: Network, other: Network) -> bool:
    return one != other or one.signature != other.signature


def _outcome(lower: Callable[[int], Imported], size: int) -> Imported | LeoError:
    try:
        return lower(size)
    except LeoError as error:
        return error
