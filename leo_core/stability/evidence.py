"""Evidence of a stable verdict: a tree of splits, on ReLU phases or of the input box.

It can be re-checked without the engine. On the way down, whatever was split, bound the layers behind the split again
by intervals and backward linear bounds with adaptive slopes, and keep what the part around it had where that is
better (:func:`leo_core.bounds.descend.descend`). A leaf below ReLU splits holds multipliers: put them into the safe
dual bound (:mod:`leo_core.bounds.dual`) there, and see that it is not positive; without any, the bounds themselves
show the part empty. A bisection of the box holds none: see that no leaf's own bound is positive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from leo_core.bounds.dual import Tilts


@final
@dataclass(frozen=True, eq=False)
class Leaf:
    """Multipliers y per affine node (NaN: the natural one) and tilts; ``exact`` if only exact arithmetic closes it.

    ``infeasible`` says that they show the region empty, by a negative bound on the zero objective.
    """

    multipliers: Mapping[str, NDArray[np.float64]]
    tilts: Tilts = field(default_factory=dict)
    infeasible: bool = False
    exact: bool = False


@final
@dataclass(frozen=True, eq=False)
class Split:
    """The unit ``unit`` of affine node ``node`` is taken on (a ≥ 0) and off (a ≤ 0)."""

    node: str
    unit: int
    on: Tree
    off: Tree


@final
@dataclass(frozen=True, eq=False)
class Bisection:
    """The input box, halved again and again. Node 0 is the whole box.

    Node k is a leaf where ``axis[k]`` is −1; else its input ``axis[k]`` is cut at ``at[k]``, and nodes
    ``child[k]`` and ``child[k] + 1`` are the parts below and above.
    """

    axis: NDArray[np.int32]
    at: NDArray[np.float64]
    child: NDArray[np.int64]

    def boxes(self, lower: NDArray[np.float64], upper: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        """(lower, upper) of every leaf, each of shape (leaves, inputs), for the whole box given."""
        low, high = np.tile(lower, (len(self.axis), 1)), np.tile(upper, (len(self.axis), 1))
        for k in np.flatnonzero(self.axis >= 0):  # parents come before their children
            j, first = self.axis[k], self.child[k]
            low[first : first + 2], high[first : first + 2] = low[k], high[k]
            high[first, j] = low[first + 1, j] = self.at[k]
        leaf = self.axis < 0
        return low[leaf], high[leaf]

    def depths(self) -> NDArray[np.int64]:
        """How often the box was cut to get each node."""
        depth = np.zeros(len(self.axis), dtype=np.int64)
        for k in np.flatnonzero(self.axis >= 0):
            depth[self.child[k] : self.child[k] + 2] = depth[k] + 1
        return depth

    def parts(self, lower: NDArray[np.float64], upper: NDArray[np.float64]) -> bool:
        """Whether the leaves are parts of the whole box given that make it up: to be asked of a tree from a file."""
        count = len(self.axis)
        inner = np.flatnonzero(self.axis >= 0)
        child = self.child[inner]
        once = np.sort(np.concatenate([[0], child, child + 1]))
        if not (np.array_equal(once, np.arange(count)) and (child > inner).all() and (self.axis < len(lower)).all()):
            return False
        low, high = np.tile(lower, (count, 1)), np.tile(upper, (count, 1))
        for k in inner:
            j, first = self.axis[k], self.child[k]
            if not low[k, j] < self.at[k] < high[k, j]:
                return False
            low[first : first + 2], high[first : first + 2] = low[k], high[k]
            high[first, j] = low[first + 1, j] = self.at[k]
        return True


#: The box as it is.
WHOLE = Bisection(np.full(1, -1, np.int32), np.zeros(1), np.zeros(1, np.int64))


Tree: TypeAlias = "Leaf | Split | Bisection"


def grown(nodes: Mapping[int, Leaf | tuple[str, int, int]]) -> Tree:
    """A tree from its nodes by number: a leaf, or (node, unit, number of the 'on' half; 'off' is the next one).

    Node 0 is the root, and halves have larger numbers than what they are halves of.
    """
    built: dict[int, Tree] = {}
    for number in sorted(nodes, reverse=True):
        at = nodes[number]
        built[number] = at if isinstance(at, Leaf) else Split(at[0], at[1], built.pop(at[2]), built.pop(at[2] + 1))
    return built[0]


@final
@dataclass(frozen=True, eq=False)
class Flat:
    """A tree of phases as arrays, for files.

    Attributes
    ----------
    nodes:
        The affine nodes that are meant.
    where, unit:
        Per node of the tree, in level order, what is split: ``nodes[where]`` and the unit, or a leaf (−1). The
        m-th one that is split has the halves 2m + 1 ('on') and 2m + 2.
    infeasible, exact:
        Per leaf, in the same order.
    multipliers:
        By affine node, (leaves × units); NaN where there are none.
    tilts:
        By the number of a leaf.
    """

    nodes: Sequence[str]
    where: NDArray[np.int64]
    unit: NDArray[np.int64]
    infeasible: NDArray[np.int8]
    exact: NDArray[np.int8]
    multipliers: Mapping[str, NDArray[np.float64]]
    tilts: Mapping[int, Tilts]

    @staticmethod
    def of(tree: Tree) -> Flat:
        """Of a tree of phases."""
        level, splits, leaves = [tree], list[tuple[str, int] | None](), list[Leaf]()
        for at in level:  # it grows on the way
            if isinstance(at, Split):
                splits.append((at.node, at.unit))
                level += [at.on, at.off]
            else:
                assert isinstance(at, Leaf)
                splits.append(None)
                leaves.append(at)
        nodes = sorted({split[0] for split in splits if split})
        sizes = {name: values.size for leaf in leaves for name, values in leaf.multipliers.items()}
        multipliers = {name: np.full((len(leaves), size), np.nan) for name, size in sorted(sizes.items())}
        for row, leaf in enumerate(leaves):
            for name, values in leaf.multipliers.items():
                multipliers[name][row] = values
        return Flat(
            nodes,
            np.array([nodes.index(split[0]) if split else -1 for split in splits]),
            np.array([split[1] if split else 0 for split in splits]),
            np.array([leaf.infeasible for leaf in leaves], dtype=np.int8),
            np.array([leaf.exact for leaf in leaves], dtype=np.int8),
            multipliers,
            {number: leaf.tilts for number, leaf in enumerate(leaves) if leaf.tilts},
        )

    def tree(self) -> Tree:
        """The tree; arrays that make none raise what they raise."""
        leaves = [
            Leaf(
                {name: values[k] for name, values in self.multipliers.items()},
                self.tilts.get(k, {}),
                bool(self.infeasible[k]),
                bool(self.exact[k]),
            )
            for k in range(np.count_nonzero(self.where < 0))
        ]
        first, leaf = 2 * np.cumsum(self.where >= 0) - 1, np.cumsum(self.where < 0) - 1
        return grown({
            k: leaves[leaf[k]] if at < 0 else (self.nodes[at], int(self.unit[k]), int(first[k]))
            for k, at in enumerate(self.where.tolist())
        })  # fmt: skip


def leaves(tree: Tree) -> int:
    """How many leaves a tree has."""
    count, stack = 0, [tree]
    while stack:
        at = stack.pop()
        if isinstance(at, Leaf):
            count += 1
        elif isinstance(at, Bisection):
            count += int(np.count_nonzero(at.axis < 0))
        else:
            stack += [at.on, at.off]
    return count
