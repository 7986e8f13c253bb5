"""One frozen set of options: the command's flags are its fields, and so are the API's keyword arguments."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any, Literal, TypedDict, TypeVar, final

from leo_core.errors import UsageError

STRATEGIES = ("cascade", "isa", "paper")
TRUST = ("proved", "solver")
PASSES = ("all", "leo", "min-width")
OBJECTIVES = ("connections", "units", "parameters")
Function = TypeVar("Function", bound=Callable[..., Any])

#: How long 'verify' works unless told otherwise.
VERIFY_SECONDS = 30.0
#: How long one unit may take, and all that stay undecided together, unless told otherwise.
UNIT_SECONDS, OPEN_SECONDS = 20.0, 300.0


class Chosen(TypedDict, total=False):
    """The fields of :class:`Options` as keyword arguments, each of which may be left out: what an editor shows."""

    tolerance: Literal["exact", "float"] | float | str
    passes: Literal["all", "leo", "min-width"]
    objective: Literal["connections", "units", "parameters"]
    solver: str
    strategy: Literal["cascade", "isa", "paper"]
    time_limit: float | None
    unit_time_limit: float | None
    every_unit: bool
    jobs: int
    cluster: Any
    trust: Literal["proved", "solver"]
    seed: int
    evidence: bool
    latency: bool
    checkpoint: str | Path | None
    tight: float | None


@final
@dataclass(frozen=True)
class Options:
    """How to decide stability and how much a rewrite may change.

    Attributes
    ----------
    tolerance:
        ``"exact"``, ``"float"``, or the largest proved deviation allowed at any output.
    passes:
        What may be rewritten: ``"all"``; ``"leo"``, the operations of Serra et al. (2020) alone; or
        ``"min-width"``, those and active blocks passed through the narrower side, for comparison.
    objective:
        What 'smaller' means first of all; one of :data:`OBJECTIVES`.
    solver:
        A solver plug-in's name, or ``"auto"`` for the first one installed.
    strategy:
        How stability is decided; one of :data:`STRATEGIES`.
    time_limit:
        Seconds for everything, or None. Units not decided by then are kept.
    unit_time_limit:
        Seconds that any one unit may take by itself, 0 for no limit; None for :data:`UNIT_SECONDS` and, in the cascade,
        about :data:`OPEN_SECONDS` for all that stay open.
    every_unit:
        Of networks on images, decide each unit and not the channels only, which can take very long.
    jobs:
        Processes that share the work.
    cluster:
        In place of them, a cluster's address (``tcp://HOST:PORT``, a scheduler's ``.json`` file, ``local:N``) or a live
        ``distributed.Client``; or None.
    trust:
        ``"proved"``: no verdict rests on a solver's word. ``"solver"``: as in the published papers.
    seed:
        For everything random, so that a run can be repeated.
    evidence:
        Whether to keep what a certificate holds, and no verdict without it.
    latency:
        Of :func:`leo_core.compress`: whether to measure how long one input takes, before and after, in ONNX Runtime,
        which must be installed.
    checkpoint:
        A file that keeps what was found, to go on from should the run be cut off; or None.
    tight:
        Of :func:`leo_core.analyze`: how far bounds may be from the true extremes, to be narrowed further; or None.
    """

    tolerance: str | float = "float"
    passes: str = "all"
    objective: str = "connections"
    solver: str = "auto"
    strategy: str = "cascade"
    time_limit: float | None = None
    unit_time_limit: float | None = None
    every_unit: bool = False
    jobs: int = 1
    cluster: Any = None
    trust: str = "proved"
    seed: int = 0
    evidence: bool = False
    latency: bool = False
    checkpoint: str | Path | None = None
    tight: float | None = None

    @property
    def unit_limits(self) -> tuple[float, float]:
        """(seconds for one unit, seconds for all that stay open)."""
        if self.unit_time_limit is None:
            return UNIT_SECONDS, OPEN_SECONDS
        return self.unit_time_limit or math.inf, math.inf

    def __post_init__(self) -> None:
        object.__setattr__(self, "tolerance", _tolerance(self.tolerance))
        for what, names in (
            ("strategy", STRATEGIES),
            ("trust", TRUST),
            ("passes", PASSES),
            ("objective", OBJECTIVES),
        ):
            if getattr(self, what) not in names:
                raise UsageError(f"{what} '{getattr(self, what)}' is unknown; choose one of: {', '.join(names)}")
        for what, limit in (("time limit", self.time_limit), ("time limit per unit", self.unit_time_limit)):
            if limit is not None and not (isinstance(limit, int | float) and limit >= 0):
                raise UsageError(f"the {what} must be a number of seconds, 0 or more, not {limit!r}")
        if self.tight is not None and not (isinstance(self.tight, int | float) and 0 < self.tight < math.inf):
            raise UsageError(f"bounds can be narrowed to within a finite number above 0, not {self.tight!r}")
        if not isinstance(self.jobs, int) or self.jobs < 1:
            raise UsageError(f"jobs must be a whole number from 1, not {self.jobs!r}")
        if self.cluster is not None and self.jobs > 1:
            raise UsageError("work goes to a cluster or to processes of this machine; leave out cluster or jobs")
        if not isinstance(self.seed, Integral) or self.seed < 0:
            raise UsageError(f"the seed must be a whole number from 0, not {self.seed!r}")
        if not isinstance(self.solver, str):
            raise UsageError(f"a solver is given by its name, not {self.solver!r}; 'auto' takes the first installed")


def spelled_out(*refused: str) -> Callable[[Function], Function]:
    """A function's ``**options`` named one by one in its signature: all fields of :class:`Options` but the ``refused``.

    That is what :func:`help`, notebooks and the reference show; type checkers read ``Unpack[Chosen]`` itself.
    """

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function)
        plain = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
        for name, field in Options.__dataclass_fields__.items():
            if name not in refused:
                kind = inspect.Parameter.KEYWORD_ONLY
                hint = Chosen.__annotations__[name].__forward_arg__  # as written, like those of the other parameters
                plain.append(inspect.Parameter(name, kind, default=field.default, annotation=hint))
        function.__signature__ = signature.replace(parameters=plain)  # type: ignore[attr-defined]
        return function

    return decorate


def _tolerance(value: Any) -> str | float:
    if isinstance(value, str) and value in ("exact", "float"):
        return value
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (number >= 0 and math.isfinite(number)):
        raise UsageError(f"tolerance must be 'exact', 'float' or a finite number from 0, not {value!r}")
    return number
