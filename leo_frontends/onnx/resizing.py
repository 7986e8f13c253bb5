"""Which old value each new one is when an axis is resized to the nearest values, by ONNX's formulas for Resize.

ONNX gives the place of each new value among the old ones as a real number, and says how it is rounded. Runtimes compute
it in float32; where that, or the rounding of the scale, would make a difference, nobody can say what is meant.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from leo_frontends.graph import Refused

#: How a place is rounded.
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
#: How new places are laid over the old ones.
COORDINATES = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_half_pixel_for_nn")


def nearest(length: int, size: int, scale: float, coordinates: str, rounding: str) -> NDArray[np.int64]:
    """(size): which of ``length`` old values each new one is; ``scale`` is what the model gives, or size / length.

    Raises :class:`Refused` where a place lies so close to where the rounding turns that runtimes may differ, and where
    they do: ONNX Runtime copies what keeps its size, and takes the size for a whole number in every formula.
    """
    ways = [
        _rounded(_places(length, size, number, coordinates, dtype), length, rounding)
        for dtype in (np.float32, np.float64)
        for number in (scale, float(np.float32(scale)))
    ]
    if any((way != ways[0]).any() for way in ways):
        raise Refused("it takes values at places so close to the middle of two that runtimes differ; give other scales")
    if coordinates in ("align_corners", "pytorch_half_pixel") and abs(scale * length - size) > 1e-3:
        raise Refused("its scale makes no whole number of values: runtimes differ in where they lie; give its sizes")
    if size == length and (ways[0] != np.arange(size)).any():
        raise Refused("its scale is not 1, but its size stays the same: runtimes differ in what they take")
    return ways[0]


def _places(length: int, size: int, scale: float, coordinates: str, dtype: Any) -> NDArray[Any]:
    """(size): the places among the old values, computed in a type."""
    new = np.arange(size, dtype=dtype)
    half, ratio = dtype(0.5), dtype(scale)
    if coordinates == "asymmetric":
        return np.asarray(new / ratio)
    if coordinates == "align_corners":
        return np.asarray(new * dtype(length - 1) / dtype(max(1, size - 1)))
    if coordinates == "tf_half_pixel_for_nn":
        return np.asarray((new + half) / ratio)
    if coordinates == "pytorch_half_pixel" and size == 1:
        return np.zeros(1, dtype)
    return np.asarray((new + half) / ratio - half)


def _rounded(places: NDArray[Any], length: int, rounding: str) -> NDArray[np.int64]:
    if rounding == "floor":
        whole = np.floor(places)
    elif rounding == "ceil":
        whole = np.ceil(places)
    elif rounding == "round_prefer_floor":
        whole = np.ceil(places - 0.5)
    else:
        whole = np.floor(places + 0.5)
    index: NDArray[np.int64] = np.clip(whole, 0, length - 1).astype(np.int64)
    return index
