"""auto_LiRPA: LEO's proved bounds as its ``intermediate_layer_bounds``, which it then need not work out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from auto_LiRPA import BoundedModule, BoundedTensor
from auto_LiRPA.operators import BoundRelu
from auto_LiRPA.perturbations import PerturbationLpNorm

import leo_core
from leo_core import Bounds, Box

Ends = tuple[np.ndarray, np.ndarray]


def crown(module: Any, box: Box, bounds: Bounds | None) -> Ends:
    """(lower, upper) of the outputs by CROWN; with ``bounds``, those of what each ReLU reads are given."""
    low, high = (torch.tensor(side, dtype=torch.float32)[None] for side in (box.lower, box.upper))
    bounded = BoundedModule(module, torch.zeros_like(low))
    given: Mapping[str, Any] = {}
    if bounds is not None:
        reads = [node.inputs[0].name for node in bounded.modules() if isinstance(node, BoundRelu)]
        known = [[_outward(values.lower, down=True), _outward(values.upper)] for values in bounds.layers.values()]
        given = dict(zip(reads, known, strict=True))
    inputs = BoundedTensor(0.5 * (low + high), PerturbationLpNorm(norm=np.inf, x_L=low, x_U=high))
    found = bounded.compute_bounds(x=(inputs,), method="CROWN", intermediate_layer_bounds=given)
    return tuple(side.detach().numpy().ravel() for side in found)


def _outward(bound: np.ndarray, down: bool = False) -> torch.Tensor:
    """As float32, rounded away from what it bounds."""
    return torch.tensor(np.nextafter(bound.astype(np.float32), np.float32(-np.inf if down else np.inf)))[None]


def main(path: str = "docs/examples/digits/digits.onnx") -> dict[str, Ends]:
    box = leo_core.Box.uniform(0, 16, 64)
    result = leo_core.compress(path, box, objective="units")
    module = result.to("torch")
    return {"crown": crown(module, box, None), "bounds": crown(module, box, result.bounds_after)}


if __name__ == "__main__":
    print(main())
