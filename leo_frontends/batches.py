"""Running a model that takes so many examples at once on any number of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from leo_frontends.graph import Array


def in_batches(run: Callable[[Array], Array], size: int | None) -> Callable[[Array], Array]:
    """``run`` for any number of examples; ``size`` is what it takes at once, None or 0 where that is free.

    The last example fills up the last batch.
    """
    if not size:
        return run

    def whole(inputs: Array) -> Array:
        filled = np.concatenate([inputs, np.repeat(inputs[-1:], -len(inputs) % size, axis=0)])
        parts = [run(filled[begin : begin + size]) for begin in range(0, len(filled), size)]
        return np.concatenate(parts)[: len(inputs)]

    return whole
