"""What each worker of a cluster is asked when it joins.

This module travels as its source, so that it also runs where there is no LEO, or another, and on another Python, which
would crash on the byte code of this one: it may import nothing of LEO at the top. A worker that lacks nothing gets one
*resource*, named after what is needed; work asks for that resource, so no other worker is ever given any, and each does
one task of LEO's at a time.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Callable
from typing import Any

from distributed import WorkerPlugin


def _sent(makes: str, **names: Any) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """What pickle calls at the other end: run this source there, then evaluate what ``makes`` the object."""
    names |= {"source": inspect.getsource(sys.modules[__name__]), "space": {"__name__": "leo_join"}}
    return eval, (f"(exec(source, space), space{makes})[1]", names)


class Join(WorkerPlugin):  # type: ignore[misc]
    """Looks whether a worker has what ``needs`` (the fields of :class:`~leo_core.plugins.Needs`) says."""

    def __init__(self, resource: str, needs: tuple[str, str, str]) -> None:
        self.resource, self.needs = resource, needs
        self.lacking: str | None = None

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _sent("['Join'](resource, needs)", resource=self.resource, needs=self.needs)

    async def setup(self, worker: Any) -> None:
        """Called by Dask on each worker there is, and on each that comes."""
        lacking = await asyncio.to_thread(_lacking, self.needs)
        if not lacking:
            await worker.set_resources(**{self.resource: 1})
        self.lacking = lacking


class Verdict:
    """Asks the worker that this runs on what it lacks; empty if nothing, None if it was not asked yet."""

    def __call__(self, resource: str, dask_worker: Any = None) -> str | None:
        plugin = dask_worker.plugins.get(resource)
        return None if plugin is None else plugin.lacking

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _sent("['Verdict']()")


def _lacking(needs: tuple[str, str, str]) -> str:
    try:
        import leo_core
    except ImportError as error:
        return f"LEO cannot be imported there ({error}); install leo-compress"
    try:
        from leo_core.plugins import Needs

        return Needs(*needs).lacking()
    except Exception as error:  # an older LEO may lack anything
        theirs = getattr(leo_core, "__version__", "of unknown version")
        return f"it runs LEO {theirs}, and this is {needs[0]} ({type(error).__name__}: {error}); install the same there"
