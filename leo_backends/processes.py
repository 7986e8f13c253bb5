"""Processes of this machine: ``--jobs N``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from leo_core.execution.executor import Executor
from leo_core.plugins import ExecutorSpec, Needs, hookimpl


@hookimpl
def leo_executor() -> ExecutorSpec:
    """Describe the pool of processes."""
    return ExecutorSpec(
        name="processes",
        summary="processes of this machine: --jobs N",
        takes=lambda where: isinstance(where, int),
        start=_start,
    )


def _start(where: Any, _needs: Needs, _note: Callable[[str], None]) -> Executor:
    """They run the very same code, so they lack nothing."""
    from leo_core.execution.pool import Pool

    return Pool(where)
