"""What must be imported before what."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def hushed() -> Iterator[None]:
    """What the compiled code of a package says on stderr while it is imported is shown only where that fails.

    TensorFlow tells everybody of missing GPUs and of instructions that it uses, before anything could ask it not to.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        own = os.dup(2)
    except OSError:  # there is no stderr
        yield
        return
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        except BaseException:
            said.seek(0)
            os.write(own, said.read())
            raise
        finally:
            os.dup2(own, 2)
            os.close(own)
