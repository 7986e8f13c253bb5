"""Proved bounds on what a rewrite changes: at the node it touches, and from there to the outputs.

A ReLU is 1-Lipschitz, so a change e of pre-activations is at most e behind it, whatever the unit's
state; an affine node multiplies it by |W|. Everything is rounded up.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leo_core.arithmetic import Array, float_up, nearest_float, product_error, round_up, to_integers
from leo_core.bounds.region import Region
from leo_core.network import Affine, Network, Rounding

#: Exact arithmetic is used where it takes at most this many products of integers.
EXACT_PRODUCTS = 2_000_000


def carry(network: Network, errors: Mapping[str, Array]) -> dict[str, Array]:
    """How far every node may move when the affine nodes in ``errors`` are off by at most that much."""
    moved: dict[str, Array] = {}
    for node in network.nodes:
        if isinstance(node, Affine):
            total = errors.get(node.name)
            for source, linear in zip(node.sources, node.maps, strict=True):
                if source in moved and moved[source].any():
                    flow = linear.absolute().apply(moved[source])
                    flow = round_up(flow + product_error(flow, linear.columns))
                    total = flow if total is None else round_up(total + flow)
            if total is not None:
                moved[node.name] = total
        elif node.source in moved:
            moved[node.name] = moved[node.source]
    return moved


def import_deviation(network: Network, region: Region, rounding: Mapping[str, Rounding]) -> float:
    """How far the network as read may be from what its model means, at any output, over a region's box."""
    if not rounding:
        return 0.0
    moved: dict[str, Array] = {}
    for node in network.nodes:
        if not isinstance(node, Affine):
            moved[node.name] = moved[node.source]
            continue
        inexact = rounding.get(node.name)
        relative = inexact.weights if inexact else 0.0
        total = np.asarray(inexact.bias, dtype=np.float64) if inexact else np.zeros(node.size)
        for source, linear in zip(node.sources, node.maps, strict=True):
            low, high = region.value(network, source)
            reach = relative * np.maximum(np.abs(low), np.abs(high))
            off = moved.get(source, np.zeros(linear.columns)) * (1.0 + relative)
            flow = linear.absolute().apply(round_up(reach + off))
            total = round_up(total + round_up(flow + product_error(flow, linear.columns + 8)))
        moved[node.name] = total
    return float(moved[network.output].max(initial=0.0))


def affine_error(matrix: Array, slack: Array, offset: Array, offset_slack: Array, lower: Array, upper: Array) -> Array:
    """max |(matrix + Δ) x + offset + d| per row over lower ≤ x ≤ upper, for |Δ| ≤ slack, |d| ≤ offset_slack."""
    with np.errstate(invalid="ignore", over="ignore"):
        centre = lower + 0.5 * (upper - lower)
        radius = round_up(np.maximum(upper - centre, centre - lower))
        absolute = np.abs(matrix)
        spread = absolute @ radius + slack @ (radius + np.abs(centre))
        middle = np.abs(matrix @ centre + offset)
        magnitude = absolute @ (np.abs(centre) + radius) + np.abs(offset) + slack @ (radius + np.abs(centre))
        total = round_up(spread + middle + offset_slack + product_error(magnitude, 2 * matrix.shape[1] + 8))
    return np.where(np.isnan(total), np.inf, total)


def product_change(
    old: tuple[Array, Array, Array, Array], new: tuple[Array, Array, Array, Array], lower: Array, upper: Array
) -> Array:
    """How far new may be from old, per row, where each is (M, W, b, c): x → M (W x + b) + c, on a box.

    Float64 with bounded rounding first; where that leaves rounding dust only, and the sizes allow,
    over the rationals. Rows of the result: those of M.
    """
    (M, W, b, c), (N, V, d, e) = old, new
    with np.errstate(invalid="ignore", over="ignore"):
        matrix = N @ V - M @ W
        offset = (N @ d - M @ b) + (e - c)
        terms = _terms(W, V)
        slack = product_error(np.abs(N) @ np.abs(V) + np.abs(M) @ np.abs(W), terms)
        size = np.abs(N) @ np.abs(d) + np.abs(M) @ np.abs(b) + np.abs(e) + np.abs(c)
        offset_slack = product_error(size, M.shape[1] + N.shape[1] + 4)
        rough = affine_error(matrix, slack, offset, offset_slack, lower, upper)
        likely = affine_error(matrix, np.zeros_like(slack), offset, np.zeros_like(offset), lower, upper)
    if not _affordable(old, new) or (likely > 0.9 * rough).all():
        return rough
    return np.minimum(rough, _product_change_exact(old, new, lower, upper))


def best_constant(
    old: tuple[Array, Array, Array, Array], new: tuple[Array, Array, Array], lower: Array, upper: Array, dtype: Any
) -> Array:
    """The constant e, rounded to ``dtype``, for which x → N (V x + d) + e is right at the centre of the box."""
    (M, W, b, c), (N, V, d) = old, new
    centre = lower + 0.5 * (upper - lower)
    zero = np.zeros(len(c))
    if _affordable(old, (N, V, d, zero)):
        matrix, offset, shift = _exact_difference(old, (N, V, d, zero))
        whole, centre_shift = to_integers(centre)
        middle = matrix @ whole + offset * (1 << centre_shift) if len(centre) else offset
        scale = 1 << (shift + (centre_shift if len(centre) else 0))
        wanted = np.array([-nearest_float(Fraction(int(value), scale)) for value in middle])
    else:
        wanted = c + (M @ b - N @ d) + (M @ W - N @ V) @ centre
    return wanted.astype(dtype)


def _affordable(old: tuple[Array, Array, Array, Array], new: tuple[Array, Array, Array, Array]) -> bool:
    rows, columns = old[0].shape[0], old[1].shape[1]
    return bool((rows + 1) * (columns + 1) * (old[0].shape[1] + new[0].shape[1]) <= EXACT_PRODUCTS)


def _product_change_exact(
    old: tuple[Array, Array, Array, Array], new: tuple[Array, Array, Array, Array], lower: Array, upper: Array
) -> Array:
    matrix, offset, shift = _exact_difference(old, new)
    # max and min over the box, each sum over one denominator
    low, low_shift = to_integers(lower)
    high, high_shift = to_integers(upper)
    bits = max(low_shift, high_shift)
    low, high = low * (1 << (bits - low_shift)), high * (1 << (bits - high_shift))
    at_low, at_high = matrix * low, matrix * high
    base = offset * (1 << bits)
    top = np.where(at_low > at_high, at_low, at_high).sum(axis=1) + base
    bottom = np.where(at_low > at_high, at_high, at_low).sum(axis=1) + base
    denominator = 1 << (shift + bits)
    return np.array(
        [float_up(Fraction(max(abs(int(t)), abs(int(u))), denominator)) for t, u in zip(top, bottom, strict=True)]
    )


def _exact_difference(
    old: tuple[Array, Array, Array, Array], new: tuple[Array, Array, Array, Array]
) -> tuple[NDArray[np.object_], NDArray[np.object_], int]:
    """(matrix, offset, shift): N V − M W and its offset, as integers over 2**shift."""
    parts = []
    for (M, W, b, c), sign in ((new, 1), (old, -1)):
        left, left_shift = to_integers(M)
        right, right_shift = to_integers(np.column_stack([W, b]))
        product = left @ right if M.shape[1] else np.zeros((M.shape[0], right.shape[1]), dtype=object)
        parts.append((sign * product, left_shift + right_shift))
        constant, constant_shift = to_integers(c)
        padded = np.zeros(product.shape, dtype=object)
        padded[:, -1] = sign * constant
        parts.append((padded, constant_shift))
    shift = max(part_shift for _, part_shift in parts)
    total: Any = sum(part * (1 << (shift - part_shift)) for part, part_shift in parts)
    return total[:, :-1], total[:, -1], shift


def _terms(*matrices: Array) -> int:
    """The most products that one entry of (·)·matrix sums: adding zeros rounds nothing."""
    return 2 + sum(int(np.count_nonzero(m, axis=0).max(initial=0)) for m in matrices)
