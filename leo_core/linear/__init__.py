"""The linear maps that an :class:`~leo_core.network.Affine` is made of: a file for each kind.

Each is immutable, keeps its stored dtype, and answers the same questions (:class:`LinearMap`).
"""

from __future__ import annotations

from typing import Any

from leo_core.linear.base import LARGEST_DENSE, FloatArray, LinearMap, frozen_array
from leo_core.linear.conv import Conv
from leo_core.linear.conv_transpose import ConvTranspose
from leo_core.linear.dense import Dense
from leo_core.linear.diagonal import Diagonal
from leo_core.linear.geometry import Spacing
from leo_core.linear.select import Select
from leo_core.linear.sparse import Sparse

#: By the name used in LEO's own file.
KINDS: dict[str, Any] = {
    "dense": Dense,
    "sparse": Sparse,
    "diagonal": Diagonal,
    "select": Select,
    "conv": Conv,
    "conv_transpose": ConvTranspose,
}


def kind_of(linear: LinearMap) -> str:
    """The name of a map's class in :data:`KINDS`."""
    for name, kind in KINDS.items():
        if type(linear) is kind:
            return name
    raise TypeError(f"{type(linear).__name__} is not one of LEO's linear maps: {', '.join(KINDS)}")


__all__ = [
    "KINDS",
    "LARGEST_DENSE",
    "Conv",
    "ConvTranspose",
    "Dense",
    "Diagonal",
    "FloatArray",
    "LinearMap",
    "Select",
    "Spacing",
    "Sparse",
    "frozen_array",
    "kind_of",
]
