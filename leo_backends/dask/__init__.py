"""A Dask cluster: ``--cluster ADDRESS``. ``client`` is this side of it, ``worker`` and ``join`` the other."""

from __future__ import annotations

from collections.abc import Callable
from os import fspath
from pathlib import Path
from typing import Any

from leo_core.execution.executor import Executor
from leo_core.plugins import ExecutorSpec, Needs, hookimpl

_BEGINNINGS = ("tcp://", "tls://", "ws://", "wss://", "ucx://", "ucxx://", "local:")


@hookimpl
def leo_executor() -> ExecutorSpec:
    """Describe a Dask cluster."""
    return ExecutorSpec(
        name="dask",
        summary="a Dask cluster: --cluster tcp://HOST:PORT, a scheduler's .json file, or local:N",
        takes=_takes,
        start=_start,
        packages=("distributed",),
        extra="dask",
    )


def _takes(where: Any) -> bool:
    if isinstance(where, str | Path):
        address = fspath(where)
        return address.startswith(_BEGINNINGS) or address.endswith(".json")
    return any(base.__module__.partition(".")[0] == "distributed" for base in type(where).__mro__)


def _start(where: Any, needs: Needs, note: Callable[[str], None]) -> Executor:
    from leo_backends.dask.client import connect

    return connect(where, needs, note)
