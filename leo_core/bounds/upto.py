"""What a node depends on, in order: worked out once for each node of a network, and how much of it fits at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from leo_core.network import Affine, Network, Relu, sources_of

Step: TypeAlias = "tuple[Affine, tuple[Relu, ...]]"

#: Numbers in one array of a sweep: 16 MB.
_NUMBERS = 2_000_000
#: Products in one sweep: well under a second.
_PRODUCTS = 2_000_000_000


@final
@dataclass(frozen=True, eq=False)
class SignedUnits:
    """Units of a node, each with a sign; one may be there twice. What is asked about is signs[k]·a of ``units[k]``."""

    units: NDArray[np.int64]
    signs: NDArray[np.float64]

    @staticmethod
    def of(claims: Iterable[tuple[int, int]]) -> SignedUnits:
        """From pairs of a unit and a sign."""
        pairs = np.array(list(claims), dtype=np.int64).reshape(-1, 2)
        return SignedUnits(pairs[:, 0], pairs[:, 1].astype(np.float64))

    @staticmethod
    def alike(units: NDArray[np.int64], sign: float) -> SignedUnits:
        """All with one sign."""
        return SignedUnits(units, np.full(len(units), float(sign)))

    def __len__(self) -> int:
        return len(self.units)

    def __getitem__(self, rows: Any) -> SignedUnits:
        return SignedUnits(self.units[rows], self.signs[rows])


@final
@dataclass(frozen=True, eq=False)
class Upto:
    """The affine nodes that ``target`` depends on, itself last, each with the ReLUs on the way that read it."""

    target: str
    steps: tuple[Step, ...]
    input_size: int

    @cached_property
    def names(self) -> frozenset[str]:
        """All these nodes."""
        return frozenset(name for affine, relus in self.steps for name in (affine.name, *(relu.name for relu in relus)))

    @cached_property
    def positions(self) -> dict[str, int]:
        """Of each affine node, its place among them."""
        return {node.name: position for position, (node, _) in enumerate(self.steps)}

    @cached_property
    def branching(self) -> tuple[str, ...]:
        """Those that a ReLU reads."""
        return tuple(node.name for node, relus in self.steps if relus)

    @cached_property
    def products(self) -> int:
        """Multiplications that one sweep of one objective takes."""
        return sum(linear.products for node, _ in self.steps for linear in node.maps)

    @cached_property
    def exact(self) -> bool:
        """Whether what is stored is what is meant: no layer on the way has numbers of its own, rounded in its node."""
        return all(node.own is None for node, _ in self.steps)

    def objectives(self, units: Any, signs: Any = 1.0) -> NDArray[np.float64]:
        """One row for each of some units of the target, with its sign there: (len(units), units of the target)."""
        return one_hot(units, self.steps[-1][0].size, signs)

    def signed(self, asked: SignedUnits) -> NDArray[np.float64]:
        """The same of units with signs."""
        return self.objectives(asked.units, asked.signs)

    def chunks(self, count: int) -> list[slice]:
        """Slices of so many objectives that a sweep of one fits memory, and is well under a second."""
        widest = max([self.input_size, *(node.size for node, _ in self.steps)])
        step = max(1, min(_NUMBERS // widest, _PRODUCTS // max(1, self.products)))
        return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def upto(network: Network, target: str) -> Upto:
    """The way to an affine node; the same object each time."""
    known: Upto | None = network.memo.get(("upto", target))
    if known is None:
        known = network.memo["upto", target] = Upto(target, _steps(network, target), network.input_size)
    return known


def _steps(network: Network, target: str) -> tuple[Step, ...]:
    needed = {target}
    for node in reversed(network.nodes):
        if node.name in needed:
            needed.update(sources_of(node))
    result = []
    for node in network.nodes:
        if isinstance(node, Affine) and node.name in needed:
            relus = tuple(
                reader
                for name in network.readers[node.name]
                if name in needed and isinstance(reader := network[name], Relu) and node.name != target
            )
            result.append((node, relus))
    return tuple(result)


def one_hot(units: Any, size: int, signs: Any = 1.0) -> NDArray[np.float64]:
    """``signs[k]`` at place ``units[k]`` of row k, zeros elsewhere."""
    rows = np.zeros((len(units), size))
    rows[np.arange(len(units)), units] = signs
    return rows
