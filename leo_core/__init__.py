"""LEO makes trained ReLU networks smaller without changing what they compute, and proves it.

>>> result = leo_core.compress("controller.onnx", domain="-1,1")
>>> print(result.summary())
>>> result.export("smaller.onnx")

Names are loaded when first used, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leo_core.api import analyze, check, compress, convert, cross_check, verify
    from leo_core.compare import Comparison
    from leo_core.domain import Box
    from leo_core.errors import LeoError
    from leo_core.linear import Dense, Diagonal, Select, Sparse
    from leo_core.network import Affine, Network, Relu
    from leo_core.options import Options
    from leo_core.plugins.registry import register_executor, register_frontend, register_solver
    from leo_core.programs import formulate
    from leo_core.properties import Property
    from leo_core.result import CompressionResult
    from leo_core.stability import StabilityMap, State
    from leo_core.stability.bounds import Bounds

_HOMES = {
    "Affine": "leo_core.network",
    "Bounds": "leo_core.stability.bounds",
    "Box": "leo_core.domain",
    "Comparison": "leo_core.compare",
    "CompressionResult": "leo_core.result",
    "Dense": "leo_core.linear",
    "Diagonal": "leo_core.linear",
    "LeoError": "leo_core.errors",
    "Network": "leo_core.network",
    "Options": "leo_core.options",
    "Property": "leo_core.properties",
    "Relu": "leo_core.network",
    "Select": "leo_core.linear",
    "Sparse": "leo_core.linear",
    "StabilityMap": "leo_core.stability",
    "State": "leo_core.stability",
    "analyze": "leo_core.api",
    "check": "leo_core.api",
    "compress": "leo_core.api",
    "convert": "leo_core.api",
    "cross_check": "leo_core.api",
    "formulate": "leo_core.programs",
    "register_executor": "leo_core.plugins.registry",
    "register_frontend": "leo_core.plugins.registry",
    "register_solver": "leo_core.plugins.registry",
    "verify": "leo_core.api",
}

__all__ = [
    "Affine",
    "Bounds",
    "Box",
    "Comparison",
    "CompressionResult",
    "Dense",
    "Diagonal",
    "LeoError",
    "Network",
    "Options",
    "Property",
    "Relu",
    "Select",
    "Sparse",
    "StabilityMap",
    "State",
    "analyze",
    "check",
    "compress",
    "convert",
    "cross_check",
    "formulate",
    "register_executor",
    "register_frontend",
    "register_solver",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("leo-compress")
    if name not in _HOMES:
        raise AttributeError(f"module 'leo_core' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
