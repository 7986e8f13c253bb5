"""How the command is told to stop: Ctrl-C, SIGTERM and SIGHUP, each heard as a KeyboardInterrupt.

Whatever works then keeps what is proved, and the command still writes it. What it writes it finishes. A second signal
ends the process at once. Only the command installs handlers: in Python they are the caller's.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, final

#: What is heard, where the system has it.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))

#: Seconds within which signals are one: ``timeout`` sends its own twice, and a terminal that closes a SIGHUP per shell.
ONE = 0.5
#: What a shell adds to a signal's number, as the exit code of what it ended.
_ENDED_BY = 128
_SHOW_CURSOR = "\x1b[?25h"


@final
class Stop:
    """The signal that came, if any; as a handler it raises KeyboardInterrupt, unless things are being written."""

    def __init__(self) -> None:
        self._number: int | None = None
        self._when = 0.0
        self._writing = False

    @property
    def heard(self) -> bool:
        return self._number is not None

    @property
    def exit_code(self) -> int:
        """130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP: what is usual for a process that such a signal ended."""
        return _ENDED_BY + (signal.SIGINT if self._number is None else self._number)

    def __call__(self, number: int, _frame: Any) -> None:
        if self._number is not None:
            if time.monotonic() > self._when + ONE:
                _end(_ENDED_BY + number)
            return
        self._number, self._when = number, time.monotonic()
        if not self._writing:
            raise KeyboardInterrupt

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Nothing is raised in here: what is begun is finished."""
        before, self._writing = self._writing, True
        try:
            yield
        finally:
            self._writing = before


@contextmanager
def stopping() -> Iterator[Stop]:
    """Hear the signals that are not ignored (as by ``nohup``, or in a shell's background) while the command runs."""
    stop = Stop()
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, stop)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if stop.heard:
            # One that was raised while a string was run, as where a dataclass is made, would end ``python -m`` as
            # Ctrl-C does, though it was caught: CPython remembers it until the next string is run.
            exec("")


def _end(code: int) -> NoReturn:
    """End this process and its workers now, the cursor shown."""
    for worker in multiprocessing.active_children():
        worker.kill()
    if sys.stderr.isatty():
        os.write(sys.stderr.fileno(), _SHOW_CURSOR.encode())
    os._exit(code)
