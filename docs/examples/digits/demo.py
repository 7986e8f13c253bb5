"""Compress a digits classifier, then run it before and after on 450 handwritten digits it was not trained on."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

import leo_core

HERE = Path(__file__).parent


def main() -> int:
    result = leo_core.compress(HERE / "digits.onnx", HERE / "digits.domain.json", progress=True)
    with tempfile.TemporaryDirectory() as folder:
        path = result.export(Path(folder) / "smaller.onnx")
        smaller = leo_core.compress(path, HERE / "digits.domain.json", time_limit=0).original  # as read back
        saved = 1 - path.stat().st_size / (HERE / "digits.onnx").stat().st_size
    print(f"\n{result.summary()}\n")

    digits = np.load(HERE / "digits.npz")
    before, after = (net.evaluate(digits["images"], np.float32) for net in (result.original, smaller))
    labels, was, now = digits["labels"], before.argmax(axis=1), after.argmax(axis=1)
    print(f"on {len(labels)} handwritten digits, both networks run in float32:")
    print(f"  file size             {saved:.0%} smaller")
    print(f"  right before, after   {(was == labels).sum()}, {(now == labels).sum()}")
    print(f"  predictions changed   {(was != now).sum()}")
    print(f"  largest difference    {np.abs(before - after).max():.2g} (outputs reach {np.abs(before).max():.3g})")
    return int((was != now).any())


if __name__ == "__main__":
    sys.exit(main())
