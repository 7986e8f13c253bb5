"""Linearly dependent active units merge (LEO; Serra et al. 2020, section 3).

If h_j = Σ c_ji h_i + d_j over a basis B of a layer's linear block, the outgoing weights become
M'_i = M_i + Σ_j M_j c_ji, with Σ_j M_j d_j in the bias, and unit j goes. A column-pivoted QR of the rows,
scaled by the inputs' ranges, proposes B and c; whatever it proposes is kept only for what it provably changes.
The basis keeps its own rows, so nothing before the outgoing weights is rounded.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leo_core.arithmetic import Array, round_up
from leo_core.linear import Select
from leo_core.network import Affine, Network, Relu
from leo_core.rewrite import maps
from leo_core.rewrite.block import Block, linear_block
from leo_core.rewrite.deviation import best_constant, product_change
from leo_core.rewrite.facts import Facts
from leo_core.rewrite.step import Fits, Refusal, Rewrite

#: Merges with larger coefficients would amplify the noise of running the network.
LARGEST_COEFFICIENT = 8.0
#: A pivot this small, relative to the first, is rounding.
_NEGLIGIBLE = 1e-13


def merge_dependent(network: Network, facts: Facts, name: str, fits: Fits) -> Rewrite | Refusal | None:
    """Merge as many units of the ReLU ``name``'s linear block as the tolerance allows."""
    relu = network[name]
    if not isinstance(relu, Relu) or name == network.output:
        return None
    node = network.affine(relu.source)
    if not facts.units[node.name].linear(relu.slope).any():
        return None
    what = f"{name}: dependent active units not merged"
    if network.readers[node.name] != (name,):
        return Refusal(what, "its pre-activation is read elsewhere")
    readers = [network.affine(reader) for reader in network.readers[name]]
    if any(reader.sources.count(name) > 1 for reader in readers):
        return Refusal(what, "one node reads it twice")
    block = linear_block(network, facts, node, relu)
    best: Rewrite | None = None
    order, triangle = _pivoted(block)
    low, high = -1, len(block.units)  # 'low' is not known to fit, 'high' keeps every unit or fits
    full = _numerical_rank(triangle)
    if full < high:
        best = _merged(network, facts, relu, readers, block, order, triangle, full)
        if best is None or not fits(best):
            return Refusal(f"{name}: dependent active units not merged", "the new weights would round too much")
        high = full
    while high - low > 1:
        rank = (low + high) // 2
        proposal = _merged(network, facts, relu, readers, block, order, triangle, rank)
        if proposal is not None and fits(proposal):
            best, high = proposal, rank
        else:
            low = rank
    return best


def _pivoted(block: Block) -> tuple[NDArray[Any], NDArray[Any]]:
    """Units by importance, and the triangular factor of the rows in that order."""
    from scipy.linalg import qr

    radius = 0.5 * (block.upper - block.lower)
    scaled = block.weights * radius
    if not np.isfinite(scaled).all() or scaled.size == 0:
        return np.arange(len(block.units)), np.zeros((0, len(block.units)))
    _, triangle, order = qr(scaled.T, mode="economic", pivoting=True, check_finite=False)
    return order, triangle


def _numerical_rank(triangle: Array) -> int:
    diagonal = np.abs(np.diag(triangle))
    return int(np.count_nonzero(diagonal > _NEGLIGIBLE * diagonal.max(initial=0.0)))


def _coefficients(triangle: Array, rank: int) -> Array | None:
    """c (dependent units × basis) from the first ``rank`` pivots."""
    from scipy.linalg import solve_triangular

    columns = triangle.shape[1]
    if rank == 0:
        return np.zeros((columns, 0))
    solved = solve_triangular(triangle[:rank, :rank], triangle[:rank, rank:], check_finite=False).T
    if not np.isfinite(solved).all() or np.abs(solved).max(initial=0.0) > LARGEST_COEFFICIENT:
        return None
    # Exact dependences are mostly small numbers: meet them exactly.
    simple = np.round(solved * 4096.0) / 4096.0
    return np.where(np.abs(solved - simple) <= 1e-11, simple, solved)


def _merged(
    network: Network,
    facts: Facts,
    relu: Relu,
    readers: list[Affine],
    block: Block,
    order: Array,
    triangle: Array,
    rank: int,
) -> Rewrite | None:
    coefficients = _coefficients(triangle, rank)
    if coefficients is None:
        return None
    basis, dependent = order[:rank], order[rank:]
    changed: dict[str, Affine] = {}
    errors: dict[str, Array] = {}
    for reader in readers:
        position = reader.sources.index(relu.name)
        linear = reader.maps[position]
        matrix = linear.matrix().astype(np.float64)
        old = matrix[:, block.units]
        dtype = reader.bias.dtype if isinstance(linear, Select) else linear.dtype
        moved = matrix.copy()
        moved[:, block.units[basis]] += old[:, dependent] @ coefficients
        moved[:, block.units[dependent]] = 0.0
        try:
            new_linear = maps.stored(moved, dtype, linear)
        except OverflowError:
            return None
        new = new_linear.matrix().astype(np.float64)[:, block.units[basis]]
        weights, bias, ends = block.weights, block.bias, (block.lower, block.upper)
        before = (old, weights, bias, reader.bias.astype(np.float64))
        after = (new, weights[basis], bias[basis])
        constant = best_constant(before, after, *ends, reader.bias.dtype)
        if not np.isfinite(constant).all():
            return None
        error = product_change(before, (*after, constant.astype(np.float64)), *ends)
        kept = np.zeros_like(old)
        kept[:, basis] = new
        error = round_up(error + round_up(block.charge(old) + block.charge(kept))) if block.cost.any() else error
        linears = (*reader.maps[:position], new_linear, *reader.maps[position + 1 :])
        changed[reader.name] = Affine(reader.name, reader.sources, linears, constant, reader.origin)
        if error.any():
            errors[reader.name] = error
    nodes = tuple(changed.get(node.name, node) for node in network.nodes)
    what = f"{relu.name}: {len(dependent)} dependent active unit(s) merged into {rank}"
    return Rewrite(replace(network, nodes=nodes), facts, what, errors)
