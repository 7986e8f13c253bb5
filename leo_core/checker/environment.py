"""The arithmetic that proofs take for granted: denormals kept, rounding to the nearest, and no numpy error raised.

A processor can be told otherwise, thread by thread: to read denormal numbers as zero (DAZ), to flush results that
would be denormal (FTZ), to round up or down. ``torch.set_flush_denormal(True)`` does that, and so does loading a
library linked with ``-ffast-math``; threads begin with what the thread that makes them has. Nothing here believes a
register: numpy's loops and the matrix products of its BLAS, which has threads of its own, are tried on numbers that
tell. What is wrong in this thread is set right for the time of the work where the C library can do that; otherwise,
and where it is BLAS's threads, nothing is computed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .errors import MachineError

Result = TypeVar("Result")

#: Who asked for one thread: the first with what puts back the setting from before.
_LIMITS: list[Any] = []
_ASKED = threading.Lock()
_LONG = 67
#: Columns of a matrix product that all threads of BLAS share, and rows for each of them.
_COLUMNS, _ROWS = 72, 64
#: More than a fenv_t takes anywhere.
_STATE_BYTES = 512
_NOT_IEEE = "the processor's arithmetic is not what proofs are about"
_DENORMALS = "denormal numbers are taken for zero"
_ROUNDING = "results are not rounded to the nearest number"


@contextlib.contextmanager
def ieee() -> Iterator[None]:
    """The arithmetic that proofs are about, in this thread and in BLAS's, for the time of some work; on one thread.

    Raises :class:`MachineError` where it cannot be had, or is lost meanwhile.
    """
    keep_freed_memory()
    with own_thread(), one_thread():
        _trust_blas()
        yield
        if found := thread_fault():  # what was computed since is worth nothing
            raise _error(found, "this thread since the work began (a plug-in or a listener changed it)")
        _trust_blas()


@contextlib.contextmanager
def own_thread() -> Iterator[None]:
    """The same in this thread alone, which is tested in microseconds; what it had before is put back."""
    with np.errstate(all="ignore"):  # an overflow makes a bound infinite, whatever numpy.seterr says
        before = _state() if thread_fault() else None
        settle()
        try:
            yield
        finally:
            if before is not None:
                _libm().fesetenv(before)


@cache
def keep_freed_memory() -> None:
    """Once it has freed a block this large, glibc keeps what numpy's temporaries give back, for the next ones.

    Handing it to the system, to be faulted in anew, is a quarter of the time where many boxes are bounded. Elsewhere
    this does nothing.
    """
    np.empty(31 << 20, dtype=np.uint8)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """BLAS and OpenMP with one thread each for the time of some work; what was set before is put back at its end.

    LEO's matrices are small: more threads gain nothing on an idle machine, and beside another job each product waits
    for the slowest of them. The setting is the whole process's, so it ends with the last of those that asked for it.
    Without threadpoolctl, which the checker by itself does not need, nothing is set.
    """
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        yield
        return
    with _ASKED:
        _LIMITS.append(None if _LIMITS else threadpool_limits(1))
    try:
        yield
    finally:
        with _ASKED:
            before = _LIMITS[0]
            _LIMITS.pop()
            if not _LIMITS:
                before.restore_original_limits()


def settle() -> bool:
    """Set this thread right after others' code has run in it; whether it had to be.

    Raises :class:`MachineError` where that cannot be done.
    """
    found = thread_fault()
    if found and sys.platform == "linux":
        _libm().fesetenv(ctypes.c_void_p(-1))  # FE_DFL_ENV, in glibc and musl
    if found and thread_fault():
        raise _error(found, "this thread")
    return bool(found)


def undisturbed(call: Callable[[], Result]) -> Result:
    """What others' code returns; it is called again where it has changed the arithmetic of this thread on the way.

    A library does so when it is loaded, so not a second time. Raises :class:`MachineError` if it does.
    """
    for _ in range(2):
        result = call()
        if not settle():
            _trust_blas()
            return result
    raise _error("it changes each time", "a plug-in that reads or writes models")


def thread_fault() -> str:
    """What is wrong in this thread, in words; empty if nothing is."""
    with np.errstate(all="ignore"):
        for numbers, factors, products, ones, added in _probes():
            if not _same(numbers * factors, products):
                return _DENORMALS
            if not _same(ones + added, ones):
                return _ROUNDING
    return ""


def blas_fault() -> str:
    """What is wrong in matrix products, in words; empty if nothing is."""
    with np.errstate(all="ignore"):
        for left, right, product in _matrices():
            seen = left @ right
            if not _same(seen[:2], product[:2]):
                return _DENORMALS if _same(seen[2], product[2]) else _ROUNDING
            if not _same(seen, product):
                rows = np.flatnonzero((_bits(seen) != _bits(product)).any(axis=1)) % 4
                return _ROUNDING if (rows == 2).any() else _DENORMALS
    return ""


def _trust_blas() -> None:
    if found := blas_fault():
        raise MachineError(
            f"{_NOT_IEEE}: {found} in the threads of numpy's BLAS, which began so; import numpy before any library "
            "built with -ffast-math, or start Python with OPENBLAS_NUM_THREADS=1"
        )


def _error(found: str, where: str) -> MachineError:
    return MachineError(
        f"{_NOT_IEEE}: {found} in {where}; call torch.set_flush_denormal(False), leave out libraries built with "
        "-ffast-math, and set the rounding mode to nearest"
    )


def _same(left: NDArray[Any], right: NDArray[Any]) -> bool:
    """Bit by bit, as a comparison of floats would take denormals for zero too."""
    return bool((_bits(left) == _bits(right)).all())


def _bits(values: NDArray[Any]) -> NDArray[Any]:
    return values.view(np.int64 if values.dtype == np.float64 else np.int32)


#: A dtype, and powers of two: 2**-tiny is denormal, 2**-small · 2**(small − tiny) of two normal numbers is too,
#: 2**big is large, 1 + 2**-fine is to be rounded.
_KINDS: tuple[tuple[Any, int, int, int, int], ...] = (
    (np.float64, 1060, 1000, 1000, 60),
    (np.float32, 140, 100, 100, 30),
)


@cache
def _probes() -> tuple[tuple[NDArray[Any], ...], ...]:
    """By dtype: numbers, factors and products, a denormal among what enters and what leaves in turn; then ones, and
    what is lost when it is added to them unless they are rounded up, down or to zero.

    Made of bits, which no processor flushes, and long enough for every vector loop and its tail.
    """
    made = []
    for kind, tiny, small, big, fine in _KINDS:
        even = np.arange(_LONG) % 2 == 0
        low, lost = _full(kind, -tiny, _LONG), _full(kind, -fine, _LONG)
        numbers, factors, products = low.copy(), _full(kind, big, _LONG), _full(kind, big - tiny, _LONG)
        np.copyto(numbers, _full(kind, -small, _LONG), where=even)
        np.copyto(factors, _full(kind, small - tiny, _LONG), where=even)
        np.copyto(products, low, where=even)
        np.copyto(lost, -lost, where=even)
        made.append((numbers, factors, products, _full(kind, 0, _LONG), lost))
    return tuple(made)


@cache
def _matrices() -> tuple[tuple[NDArray[Any], NDArray[Any], NDArray[Any]], ...]:
    """By dtype: two matrices and their product. In every fourth row a denormal enters, in every fourth leaves.

    Few entries do, as processors are slow at them; every thread gets some.
    """
    made = []
    for kind, tiny, small, big, fine in _KINDS:
        rows = _ROWS * _threads()
        left, right = np.zeros((rows, _COLUMNS), kind), np.zeros((_COLUMNS, _COLUMNS), kind)
        product = np.zeros((rows, _COLUMNS), kind)
        told = slice(None, None, 8)
        left[0::4, 0], right[0, told] = _full(kind, -tiny, 1), _full(kind, big, 1)
        left[1::4, 1], right[1, told] = _full(kind, -small, 1), _full(kind, small - tiny, 1)
        left[2::4, 2], left[2::4, 3] = 1, _full(kind, -fine, 1)
        right[2], right[3, 0::2], right[3, 1::2] = 1, 1, -1
        product[0::4, told], product[1::4, told] = _full(kind, big - tiny, 1), _full(kind, -tiny, 1)
        product[2::4] = 1
        made.append((left, right, product))
    return tuple(made)


def _threads() -> int:
    """How many threads BLAS has at most."""
    asked = os.environ.get("OPENBLAS_NUM_THREADS", "")
    there = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(2, int(asked) if asked.isdecimal() and int(asked) else min(there, 64))


def _full(kind: Any, exponent: int, count: int) -> NDArray[Any]:
    """``count`` times 2**exponent, put together from bits."""
    about = np.finfo(kind)
    places, bias = int(about.nmant), int(about.maxexp) - 1
    bits = 1 << (exponent + bias + places - 1) if exponent + bias <= 0 else (exponent + bias) << places
    return np.full(count, bits, np.int64 if kind == np.float64 else np.int32).view(kind)


@cache
def _libm() -> Any:
    return ctypes.CDLL(None)


def _state() -> Any:
    """The thread's floating-point environment, to be put back; None where it cannot be had."""
    if sys.platform != "linux":
        return None
    state = ctypes.create_string_buffer(_STATE_BYTES)
    _libm().fegetenv(state)
    return state
