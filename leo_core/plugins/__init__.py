"""Solvers, frontends and executors as plug-ins: what they hand over and how they are found."""

from leo_core.network import Rounding
from leo_core.plugins.hookspecs import hookimpl
from leo_core.plugins.needs import Needs
from leo_core.plugins.specs import ExecutorSpec, FrontendSpec, Imported, SolverSpec

__all__ = ["ExecutorSpec", "FrontendSpec", "Imported", "Needs", "Rounding", "SolverSpec", "hookimpl"]
