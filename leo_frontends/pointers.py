"""What is read of a file as it lies there, and files that only say where the file is."""

from __future__ import annotations

from pathlib import Path

from leo_core.errors import FormatError

_LFS = b"version https://git-lfs.github.com/spec"


def bytes_of(path: Path) -> bytes:
    """All of a file; raises :class:`FormatError` where it cannot be read, or is a Git LFS pointer."""
    refuse_pointer(path)
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise FormatError(f"{path}: there is no such file") from None
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror or error})") from None


def refuse_pointer(path: Path) -> None:
    """Raise :class:`FormatError` for a Git LFS pointer, which a clone without Git LFS leaves in place of a large file.

    Nothing is said of what cannot be read.
    """
    try:
        with path.open("rb") as file:
            begins = file.read(len(_LFS))
    except OSError:
        return
    if begins == _LFS:
        raise FormatError(f"{path}: is a Git LFS pointer, not the file itself; fetch that with: git lfs pull")
