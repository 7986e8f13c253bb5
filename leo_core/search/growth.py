"""The tree of a search for one claim while it grows: what both phase trees keep of it.

Nodes are numbered as they come; 0 is the root, and a second half follows the first. The first half of a cut holds the
unit active, the second one inactive. What is closed of the tree is a share, each half counting half: a search whose
nodes do not look as if they were enough for the rest is given up.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from leo_core.checker.trees import LEAF, Tree

#: A node that is done with: a tree without cuts, or where and at which unit it is cut, and its first half's number.
Grown: TypeAlias = "Tree | tuple[int, int, int]"


class Growth:
    """Of one search; ``looked_at`` nodes so far, and ``stuck`` once it is given up.

    Parameters
    ----------
    limit:
        Nodes that the whole search may look at.
    trial:
        Nodes that any search may look at before it must look as if ``limit`` were enough.
    """

    def __init__(self, limit: int, trial: int) -> None:
        self.looked_at = 0
        self.stuck = False
        self._limit, self._trial = limit, trial
        self._done: dict[int, Grown] = {}
        self._numbers = 1
        self._share = 0.0

    @property
    def hopeless(self) -> bool:
        """Whether it would take more than the limit, to judge by the share that is closed."""
        return self.looked_at >= self._trial and self.looked_at > self._limit * self._share

    def close(self, number: int, depth: int, leaf: Tree) -> None:
        """A leaf closes a node so many cuts below the root."""
        self._done[number] = leaf
        self._share += 0.5**depth

    def cut(self, number: int, where: int, unit: int) -> int:
        """A node is cut by the sign of a unit (at a position on the way to the target); its first half's number."""
        first, self._numbers = self._numbers, self._numbers + 2
        self._done[number] = where + 1, unit, first
        return first

    def tree(self) -> Tree:
        """The evidence, once no node is open."""
        order, where, unit, leaves = [0], list[int](), list[int](), list[Tree]()
        for number in order:  # it grows on the way
            node = self._done[number]
            cut = (LEAF, 0) if isinstance(node, Tree) else node[:2]
            where.append(cut[0])
            unit.append(cut[1])
            if isinstance(node, Tree):
                leaves.append(node)
            else:
                order += (node[2], node[2] + 1)
        closed = np.concatenate([leaf.closed for leaf in leaves])
        closed[:, 0] = np.flatnonzero(np.array(where) == LEAF)
        priced = np.array([bool(leaf.y) for leaf in leaves])
        natural = {name: np.full_like(values, np.nan) for leaf in leaves for name, values in leaf.y.items()}
        return Tree(
            leaves[0].units,
            leaves[0].signs,
            np.array(where),
            np.array(unit),
            closed,
            np.where(priced, np.cumsum(priced) - 1, -1),
            {name: np.vstack([leaf.y.get(name, y) for leaf in leaves if leaf.y]) for name, y in natural.items()},
            {k: leaf.tilts[0] for k, leaf in enumerate(leaves) if leaf.tilts},
        )
