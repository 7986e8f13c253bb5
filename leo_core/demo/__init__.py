"""What LEO does, shown on a network that comes with it: handwritten digits, before and after (docs/examples/digits)."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from leo_core.api import compress
from leo_core.execution.events import Listener, silent
from leo_core.result import CompressionResult
from leo_core.storage import load

HERE = Path(__file__).parent
#: What the network is trained on: pixels of 0 to 16.
DOMAIN = "0,16"


def run(listener: Listener = silent) -> tuple[CompressionResult, list[str]]:
    """Compress the digits network; and what becomes of 450 digits that it was not trained on, in words."""
    result = compress(HERE / "digits.leo", DOMAIN, listener=listener)
    with tempfile.TemporaryDirectory() as folder:
        smaller = load(result.export(Path(folder) / "smaller.leo"))  # as it is read back
    with np.load(HERE / "digits.npz", allow_pickle=False) as digits:
        images, labels = digits["images"], digits["labels"]
    before, after = (network.evaluate(images, np.float32) for network in (result.original, smaller))
    was, now = before.argmax(axis=1), after.argmax(axis=1)
    return result, [
        f"on {len(labels)} handwritten digits, both networks run in float32:",
        f"  right before, after   {(was == labels).sum()}, {(now == labels).sum()}",
        f"  predictions changed   {(was != now).sum()}",
        f"  largest difference    {np.abs(before - after).max():.2g} (outputs reach {np.abs(before).max():.3g})",
    ]
