"""Every exception LEO raises on purpose.

Each message says what is wrong, where (file, layer, unit) and what to do about it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from leo_core.checker.errors import LeoError as LeoError
from leo_core.checker.errors import MachineError as MachineError


class UsageError(LeoError):
    """An option or argument has a value LEO cannot use."""


class NetworkError(LeoError):
    """A network is malformed: shapes do not fit, a weight is not finite, a name is unknown."""


def first_line(error: BaseException) -> str:
    """What another package's exception says, in one line; its type where it says nothing."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__).strip()


class DomainError(LeoError):
    """An input domain is not a finite box of the right shape."""


class FormatError(LeoError):
    """A file is damaged, truncated, or not of the format its name claims."""


class UnsupportedModelError(LeoError):
    """A well-formed model holds something LEO has no affine + ReLU form for.

    Attributes
    ----------
    problems:
        One line for every unsupported operation, so that a user sees all of them at once.
    """

    def __init__(self, where: str, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        lines = "\n".join(f"  - {problem}" for problem in self.problems)
        super().__init__(f"{where}: LEO cannot represent this model:\n{lines}")


class DoorError(LeoError):
    """A model, run by its own framework, computes something else than the network that LEO read, or wrote, of it."""


class OutputError(LeoError):
    """A result could not be written."""


class CheckpointError(LeoError):
    """A checkpoint is in use, is of other work, or is none; the file is left as it is."""


class ClusterError(LeoError):
    """A cluster cannot be reached, or none of its workers can take part."""


class PluginError(LeoError):
    """A plug-in is unknown, broken, or clashes with another of the same name."""


class ProtocolError(PluginError):
    """A plug-in was written for another version of LEO's protocol; the message says what to change in it."""


def install_line(extra: str) -> str:
    """The command that brings an extra to this copy of LEO: into a checkout that is used as it lies, or a package."""
    lies = Path(__file__).resolve().parents[1]
    if not (lies / "pyproject.toml").is_file():  # pip sees that the package itself is there, and brings the rest
        return f'pip install "leo-compress[{extra}]"'
    try:
        where = "." if Path.cwd() == lies else str(lies)
    except OSError:  # the folder the user stands in is gone
        where = str(lies)
    return f'pip install --editable "{where}[{extra}]"'


class MissingExtraError(LeoError):
    """An optional package is not installed; the message holds the exact install line."""

    def __init__(self, what: str, package: str, extra: str, alternative: str | None = None) -> None:
        self.package = package
        self.extra = extra
        self.install = install_line(extra)
        message = f"{what} needs the package '{package}', which is not installed. Install it with:\n    {self.install}"
        if alternative:
            message += f"\n({alternative})"
        super().__init__(message)


class SolverError(LeoError):
    """A solver broke its contract or failed; LEO never takes a verdict from such an answer."""


class CertificateError(LeoError):
    """A certificate does not hold, or is none."""


class EncodingError(LeoError):
    """A network's MILP cannot be written: its numbers overflow, or it would not fit in memory. Units stay undecided."""
