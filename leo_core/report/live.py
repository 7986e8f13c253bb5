"""The live line on stderr: what is being done, how much of it is open, and the time passed."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from typing import Any, ParamSpec, TextIO, TypeVar, cast

from leo_core.execution.events import Event, Listener, Note, silent

Asked = ParamSpec("Asked")
Made = TypeVar("Made")


class _Lasting:
    """A stream that may go away: what a closed terminal does not take is lost, and the work goes on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with suppress(OSError):
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


def shown(function: Callable[Asked, Made]) -> Callable[Asked, Made]:
    """The function with its argument ``progress`` at work: its ``listener`` is told all the same."""

    @wraps(function)
    def wrapper(*positional: Asked.args, **named: Asked.kwargs) -> Made:
        if not named.get("progress"):
            return function(*positional, **named)
        told = cast(Listener, named.get("listener", silent))
        with live(sys.stderr) as line:

            def listen(event: Event) -> None:
                line(event)
                told(event)

            named["listener"] = listen
            return function(*positional, **named)

    return wrapper


@contextmanager
def live(stream: TextIO, verbose: bool = False) -> Iterator[Listener]:
    """A listener that shows events on a stream: a moving line on a terminal, else one line per layer.

    No time left is told: what is decided first takes no time, and nobody knows of the rest. ``verbose`` shows each step
    of the work as a line of its own.
    """
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeElapsedColumn
    from rich.text import Text

    class Open(ProgressColumn):
        def render(self, task: Task) -> Text:
            what = task.fields["what"]
            if task.total is None or not what:
                return Text()
            left = task.total - task.completed
            return Text(f"{left:,.0f} of {task.total:,.0f} {what} open", no_wrap=True)

    console = Console(file=cast(TextIO, _Lasting(stream)), highlight=False, markup=False)
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        Open(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    task = bar.add_task("starting", total=None, what="")
    last, begun = "", time.monotonic()

    def tell(text: str) -> None:
        console.print(text, soft_wrap=not console.is_terminal)

    def listen(event: Event) -> None:
        nonlocal last
        if isinstance(event, Note):
            if not event.passing:
                tell(f"note: {event.text}")
            elif verbose and event.text != last:
                tell(f"{time.monotonic() - begun:.1f} s: {event.text}")
            if event.passing:
                last = event.text
                bar.update(task, description=event.text, what="")
            return
        where = f"layer {event.number} of {event.layers}" if event.number else "bounds"
        bar.update(task, description=where, completed=event.decided, total=event.total, what=event.what)
        if (verbose or not console.is_terminal) and where != last and event.number:
            open_ = f"{event.total - event.decided:,} of {event.total:,} {event.what} open"
            tell(f"{time.monotonic() - begun:.1f} s: {where} ({event.layer}), {open_}")
        last = where

    with bar:
        yield listen
