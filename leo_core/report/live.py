"""The live line on stderr: what is being done, time passed and, while units are decided, how many are and time left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TextIO, cast

from leo_core.execution.events import Event, Listener, Note


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


@contextmanager
def live(stream: TextIO) -> Iterator[Listener]:
    """A listener that shows events on a stream: a moving line on a terminal, else one line per layer."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
    from rich.text import Text

    class Decided(ProgressColumn):
        def render(self, task: Task) -> Text:
            if task.total is None:
                return Text()
            left = task.time_remaining
            decided = f"{task.completed:.0f}/{task.total:.0f} units decided"
            words = decided if left is None else f"{decided}, {timedelta(seconds=int(left))} left"
            return Text(words, no_wrap=True)

    console = Console(file=cast(TextIO, _Lasting(stream)), highlight=False, markup=False, soft_wrap=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=16),
        TimeElapsedColumn(),
        Decided(),
    )
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    task = bar.add_task("starting", total=None)
    last = ""

    def listen(event: Event) -> None:
        nonlocal last
        if isinstance(event, Note):
            if not event.passing:
                console.print(f"note: {event.text}")
            elif console.is_terminal:
                bar.update(task, description=event.text)
            return
        where = f"layer {event.number} of {event.layers}" if event.number else "bounds"
        bar.update(task, description=where, completed=event.decided, total=event.total)
        if not console.is_terminal and where != last and event.number:
            console.print(f"{where} ({event.layer}): {event.decided} of {event.total} units decided so far")
        last = where

    with bar:
        yield listen
