"""Given inputs: from an array, or from a file that NumPy wrote. Nothing in such a file is run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leo_core.errors import FormatError, first_line


def inputs_of(values: Any, size: int | None, where: str = "the inputs") -> NDArray[Any]:
    """Examples × … as a matrix (examples, ``size``) of finite numbers, in the dtype given; None: whatever size it has.

    Raises :class:`FormatError`, naming ``where`` and the example, for another shape and for what is no finite number.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "fiu":
        raise FormatError(f"{where}: holds {array.dtype} values; give numbers (float or integer)")
    if not _fits(array, size):
        wanted = "" if size is None else f"the network takes {size} inputs, so "
        raise FormatError(
            f"{where}: of shape {array.shape}; {wanted}give examples × inputs, such as (100, {size or 4})"
        )
    flat = array.reshape(len(array), -1)
    bad = np.flatnonzero(~np.isfinite(flat).all(axis=1))
    if len(bad):
        raise FormatError(f"{where}: example {bad[0]} holds a value that is not finite")
    return flat


def read_inputs(path: str | Path, size: int | None = None) -> NDArray[Any]:
    """:func:`inputs_of` a ``.npy`` file, or of the one array of an ``.npz`` file that has such a shape.

    Raises :class:`FormatError`, naming the file.
    """
    content = _load(path)
    if isinstance(content, np.ndarray):
        return inputs_of(content, size, str(path))
    fitting = [name for name, array in content.items() if _fits(array, size)]
    if len(fitting) != 1:
        listed = ", ".join(f"'{name}' {array.shape}" for name, array in content.items()) or "there are no arrays"
        inputs = "inputs" if size is None else f"{size} inputs"
        found = "several" if fitting else "none"
        raise FormatError(
            f"{path}: {found} of its arrays hold examples × {inputs} ({listed}); save the right one as a .npy file"
        )
    return inputs_of(content[fitting[0]], size, f"{path}, '{fitting[0]}'")


def _load(path: str | Path) -> NDArray[Any] | dict[str, NDArray[Any]]:
    try:
        with Path(path).open("rb") as file:
            content = np.load(file, allow_pickle=False)
            return content if isinstance(content, np.ndarray) else dict(content)
    except FileNotFoundError:
        raise FormatError(f"{path}: there is no such file") from None
    except MemoryError:
        raise
    except Exception as error:  # a damaged file makes zipfile, zlib and the header's parser raise whatever they like
        why = "it holds objects, which are never loaded" if "pickle" in str(error) else first_line(error)
        raise FormatError(f"{path}: cannot be read as numbers in a .npy or .npz file ({why})") from None


def _fits(array: NDArray[Any], size: int | None) -> bool:
    if array.ndim == 0 or array.size == 0:
        return False
    if size is None:
        return array.ndim > 1
    return math.prod(array.shape[1:]) == size and (array.ndim > 1 or size == 1)
