"""What may follow a network: a function of its whole output vector, kept outside and put back.

It is part of what a model computes: models that end in different ones are different functions, however equal the
networks before. How far outputs are apart behind the same one follows from how far they are apart before it, both in
the largest entry, by the mean value theorem: at most as many times as far as the absolute derivatives of an output sum
up to. For a sigmoid that is σ(1 − σ) ≤ 1/4, for tanh 1 − tanh² ≤ 1; for a softmax |∂sᵢ/∂aᵢ| = sᵢ(1 − sᵢ) and
Σⱼ≠ᵢ |∂sᵢ/∂aⱼ| = Σⱼ≠ᵢ sᵢsⱼ = sᵢ(1 − sᵢ), together ≤ 1/2; for its logarithm (1 − sᵢ) + (1 − sᵢ) ≤ 2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@final
@dataclass(frozen=True)
class Tail:
    """One such function: ``apply`` takes (…, outputs) to the same shape.

    Inputs that are nowhere further apart than d give outputs no further apart than ``factor`` · d, or than ``span``.
    """

    apply: Callable[[Array], Array]
    factor: float
    span: float


def _log_softmax(values: Array) -> Array:
    below = values - values.max(axis=-1, keepdims=True)
    return np.asarray(below - np.log(np.exp(below).sum(axis=-1, keepdims=True)))


def _softmax(values: Array) -> Array:
    return np.asarray(np.exp(_log_softmax(values)))


def _sigmoid(values: Array) -> Array:
    return np.asarray(0.5 * np.tanh(0.5 * values) + 0.5)


def _same(values: Array) -> Array:
    return values


#: By name; the empty name is that of none.
TAILS: Mapping[str, Tail] = MappingProxyType(
    {
        "": Tail(_same, 1.0, math.inf),
        "softmax": Tail(_softmax, 0.5, 1.0),
        "log_softmax": Tail(_log_softmax, 2.0, math.inf),
        "sigmoid": Tail(_sigmoid, 0.25, 1.0),
        "tanh": Tail(lambda values: np.asarray(np.tanh(values)), 1.0, 2.0),
    }
)


def through(tail: str, apart: float) -> float:
    """What two outputs behind a tail differ by at most, over the reals, where they differ by ``apart`` before it."""
    found = TAILS[tail]
    after = found.factor * apart  # exact but for the smallest numbers: the factors are powers of two
    if after / found.factor != apart:
        after = math.nextafter(after, math.inf)
    return min(found.span, after)


def named(tail: str) -> str:
    """A tail in a sentence: 'a softmax', or 'none'."""
    return f"a {tail}" if tail else "none"
