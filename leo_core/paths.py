"""Which paths that a command is given are one file, however they are spelled; and how one is written, whole or not."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

from leo_core.errors import LeoError, OutputError, UsageError


def require_apart(read: Mapping[str, Any], written: Mapping[str, Any]) -> None:
    """Raise :class:`UsageError` where a file would be written over one that is read, or that is written too.

    Both are paths by what they are ("IN", "the certificate"); whatever is no path (None, a live model) is passed over.
    """
    outputs = [(what, Path(path)) for what, path in written.items() if isinstance(path, str | Path) and str(path)]
    inputs = [(what, Path(path)) for what, path in read.items() if isinstance(path, str | Path) and str(path)]
    pairs = [(one, other) for one in outputs for other in inputs]
    pairs += [(one, other) for other, one in combinations(outputs, 2)]
    for (what, path), (other, there) in pairs:
        if _is_one_file(path, there):
            raise UsageError(
                f"{path}: {what} is the same file as {other} and needs a file of its own; choose another name"
            )


def _is_one_file(first: Path, second: Path) -> bool:
    """Also through symbolic and hard links, other spellings, and where it is not there yet."""
    try:
        if first.exists() and second.exists():
            return first.samefile(second)
        first, second = (path.resolve() for path in (first, second))
        return first == second or (first.name == second.name and first.parent.samefile(second.parent))
    except (OSError, RuntimeError, ValueError):  # no such folder, a loop of links, a name that no system takes
        return first == second


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path``; what is written there takes its place in the end.

    Raises :class:`OutputError` when that fails.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.stem}.{secrets.token_hex(4)}{target.suffix}")
    try:
        yield temporary
        temporary.replace(target)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from None
    except LeoError as error:  # a frontend's own; it names the file it was given
        error.args = (str(error).replace(str(temporary), str(path)),)
        raise
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
