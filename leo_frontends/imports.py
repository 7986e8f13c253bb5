"""What must be imported before what."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec


def import_triton_first() -> None:
    """PyTorch compiles with triton, and a process ends where TensorFlow was loaded before that.

    Both bring LLVM, whose options then are registered twice. If TensorFlow is there already, PyTorch goes without.
    """
    if "triton" in sys.modules or find_spec("torch") is None or find_spec("triton") is None:
        return
    if "tensorflow" in sys.modules:
        sys.modules["triton"] = None  # type: ignore[assignment]  # to import it raises ImportError, which PyTorch expects
    elif os.environ.get("KERAS_BACKEND") == "tensorflow":
        import triton  # noqa: F401
