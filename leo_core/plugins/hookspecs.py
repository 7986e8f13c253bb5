"""The hooks a LEO plug-in may implement: all of them, on one screen.

A plug-in is a module named by an entry point in one of three groups; the entry's name is what users
type. Mark the function with :data:`hookimpl`::

    [project.entry-points."leo.solvers"]
    mysolver = "my_package.leo_plugin"

    @leo_core.plugins.hookimpl
    def leo_solver() -> SolverSpec: ...

A hook is called when, and only when, its plug-in is needed or listed. It must be cheap: import the
heavy package inside the spec's functions, not at module level.
"""

from __future__ import annotations

import pluggy

from leo_core.plugins.specs import ExecutorSpec, FrontendSpec, SolverSpec

hookspec = pluggy.HookspecMarker("leo")
hookimpl = pluggy.HookimplMarker("leo")


@hookspec
def leo_solver() -> SolverSpec:  # type: ignore[empty-body]
    """Group ``leo.solvers``: describe one MILP solver."""


@hookspec
def leo_frontend() -> FrontendSpec:  # type: ignore[empty-body]
    """Group ``leo.frontends``: describe one model format."""


@hookspec
def leo_executor() -> ExecutorSpec:  # type: ignore[empty-body]
    """Group ``leo.executors``: describe one place where independent work is done."""
