"""The active channels of a convolution are re-factored: rank(M W) new ones take the place of all of them.

The rule of :mod:`~leo_core.rewrite.refactor` for channels. V takes rows of M W itself, chosen by a column-pivoted QR;
the bias lifts each new channel to where it is proved to be active.
"""

from __future__ import annotations

import numpy as np

from leo_core.rewrite.channel_block import ChannelBlock, channel_layer
from leo_core.rewrite.step import Ladder
from leo_core.rewrite.view import View


def refactor_channels(view: View, name: str) -> Ladder | None:
    """Make what reads the active channels of the convolution ``name`` read as few new ones as the tolerance allows."""
    layer = channel_layer(view, name)
    if layer is None or len(layer.active) < 2 or not layer.readings:
        return None
    active, nothing = layer.active, np.zeros(len(layer.outgoing))
    block = ChannelBlock(layer, active, layer.cost[active], layer.outgoing, nothing, active[:0])
    return block.ladder(f"{len(active)} active channel(s) re-factored")
