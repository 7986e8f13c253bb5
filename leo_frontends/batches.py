"""Running a model that takes so many examples at once on any number of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from leo_frontends.graph import Array


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
