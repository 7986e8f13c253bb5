"""A map that outlives its process: keys and values in an append-only file, for long work that may be cut off.

The file is a magic line, then frames: the length of the content (8 bytes, little-endian), its SHA-256, the content.
The first frame says what the file is about, each further one holds a key, a JSON value and plain arrays; the last
frame of a key counts. A frame that a crash or a full disk cut short, and all after it, is dropped when the file is next
opened, so everything before it counts. Nothing in the file is code. What it holds is as good as whoever could write to
it: a reader checks it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from leo_core.errors import CheckpointError

Arrays: TypeAlias = Mapping[str, NDArray[Any]]

_MAGIC, VERSION = b"LEO checkpoint ", 2
MAGIC = b"%s%d\n" % (_MAGIC, VERSION)
_HEAD = struct.Struct("<Q32s")
_DTYPES = ("<f8", "<i8", "<i4", "<i2", "|i1")


@final
class Checkpoint:
    """Keys are JSON lists; ``Checkpoint()`` keeps nothing."""

    def __init__(self, file: BinaryIO | None = None, report: Callable[[str], None] = lambda _text: None) -> None:
        self._file, self._report = file, report
        self._at: dict[str, tuple[int, int]] = {}  # of each key's last frame, where its content is
        self._end = 0
        self._full = False

    @staticmethod
    def open(path: str | Path, about: Mapping[str, str], report: Callable[[str], None]) -> Checkpoint:
        """Go on with a file, or begin one; nobody else can until ``close``, or this process ends.

        ``report`` is told of what is lost. Raises :class:`CheckpointError`, and leaves the file as it is, when it is in
        use, is about something else, or is no checkpoint.
        """
        try:
            file = Path(path).open("a+b", buffering=0)  # noqa: SIM115 - it stays open
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be used as a checkpoint ({error.strerror or error})") from None
        try:
            _lock(file, path)
            checkpoint = Checkpoint(file, lambda what: report(f"the checkpoint {path} {what}"))
            checkpoint._read(path, dict(about))
        except BaseException:
            file.close()
            raise
        return checkpoint

    @property
    def count(self) -> int:
        """How many keys it holds."""
        return len(self._at)

    def get(self, *key: Any) -> tuple[Any, dict[str, NDArray[Any]]] | None:
        """(value, arrays) last put for a key.

        Whoever edited the file could make them anything: reading may raise whatever odd JSON and shapes raise.
        """
        at = self._at.get(json.dumps(key))
        if at is None or self._file is None:
            return None
        content = _content(os.pread(self._file.fileno(), at[1], at[0]))
        return content["value"], content["arrays"]

    def put(self, *key: Any, value: Any = None, arrays: Arrays | None = None) -> None:
        """Add to the file. Where it cannot be written, that is reported once, and work goes on without it."""
        if self._file is None or self._full:
            return
        content = _packed({"key": key, "value": value}, arrays or {})
        at = self._at.get(json.dumps(key))
        if at is not None and at[1] == len(content) and os.pread(self._file.fileno(), at[1], at[0]) == content:
            return  # it is there already
        if self._append(_framed(content)):
            self._at[json.dumps(key)] = self._end - len(content), len(content)

    def close(self) -> None:
        """Let others use the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, path: str | Path, about: dict[str, str]) -> None:
        assert self._file is not None
        size = os.fstat(self._file.fileno()).st_size
        new = MAGIC + _framed(_packed({"about": about}, {}))
        start = os.pread(self._file.fileno(), len(new), 0)
        if len(start) < len(new) and new.startswith(start):  # empty, or cut off while it was begun
            self._cut(0)
            self._append(new)
            return
        if not start.startswith(MAGIC):
            if not start.startswith(_MAGIC):
                raise CheckpointError(f"{path}: is not a checkpoint; choose another file")
            there = start[len(_MAGIC) :].split(b"\n")[0].decode(errors="replace")
            raise CheckpointError(
                f"{path}: is a checkpoint of version {there}, but this release reads version {VERSION}; "
                "choose another file, or delete it"
            )
        frames = self._frames(size)
        try:
            begin, length = next(frames)
            known = _content(os.pread(self._file.fileno(), length, begin))["about"]
            differs = [what for what in about if known.get(what) != about[what]]
        except Exception:  # anything may be in a file
            raise CheckpointError(f"{path}: is damaged at its beginning; delete it to begin anew") from None
        if differs:
            what = ", ".join(f"{what} (there {known.get(what)}, here {about[what]})" for what in differs)
            raise CheckpointError(
                f"{path}: is the checkpoint of other work, it differs in: {what}; choose another file, or delete it"
            )
        self._end = begin + length
        for begin, length in frames:
            with contextlib.suppress(Exception):  # as above: what is no key is not found
                self._at[json.dumps(_content(os.pread(self._file.fileno(), length, begin))["key"])] = begin, length
            self._end = begin + length
        if self._end < size:
            self._report(f"was cut off; its last {size - self._end} bytes are not used")
            self._cut(self._end)

    def _frames(self, size: int) -> Iterator[tuple[int, int]]:
        """Where the content of each whole frame begins, and its length."""
        assert self._file is not None
        at = len(MAGIC)
        while at + _HEAD.size <= size:
            length, digest = _HEAD.unpack(os.pread(self._file.fileno(), _HEAD.size, at))
            begin = at + _HEAD.size
            if begin + length > size:
                return
            if hashlib.sha256(os.pread(self._file.fileno(), length, begin)).digest() != digest:
                return
            yield begin, length
            at = begin + length

    def _append(self, data: bytes) -> bool:
        assert self._file is not None
        left = memoryview(data)
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            self._full = True
            self._cut(self._end)
            self._report(f"cannot be written ({error.strerror or error}); work goes on without it")
            return False
        self._end += len(data)
        return True

    def _cut(self, end: int) -> None:
        assert self._file is not None
        with contextlib.suppress(OSError):  # then the next reader drops it
            self._file.truncate(end)


def _lock(file: BinaryIO, path: str | Path) -> None:
    """The kernel lets go of it when the process ends, however it ends."""
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise CheckpointError(f"{path}: another run uses it; wait for that, or choose another file") from None
    except OSError:  # a file system without locks
        return


def _framed(content: bytes) -> bytes:
    return _HEAD.pack(len(content), hashlib.sha256(content).digest()) + content


def _packed(head: dict[str, Any], arrays: Arrays) -> bytes:
    """The length of a JSON head, the head, and the arrays' bytes one after the other."""
    plain = {name: np.ascontiguousarray(a, dtype=a.dtype.newbyteorder("<")) for name, a in arrays.items()}
    described = [[name, array.dtype.str, list(array.shape)] for name, array in plain.items()]
    text = json.dumps({**head, "arrays": described}).encode()
    return b"".join([struct.pack("<I", len(text)), text, *(array.tobytes() for array in plain.values())])


def _content(data: bytes) -> dict[str, Any]:
    (length,) = struct.unpack_from("<I", data)
    at = 4 + length
    content: dict[str, Any] = json.loads(data[4:at])
    arrays = {}
    for name, dtype, shape in content["arrays"]:
        if dtype not in _DTYPES:
            raise ValueError(f"an array of type {dtype}")
        count = math.prod(shape)
        arrays[name] = np.frombuffer(data, dtype, count, at).reshape(shape)
        at += arrays[name].nbytes
    content["arrays"] = arrays
    return content
