"""What a worker on another machine must have, so that it decides as this process would."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import final

import leo_core
from leo_core.errors import LeoError


@final
@dataclass(frozen=True)
class Needs:
    """A LEO of the same ``version`` with the same ``code`` (a digest of its sources), and a ``solver`` that starts."""

    version: str
    code: str
    solver: str

    @staticmethod
    def here(solver: str) -> Needs:
        """What this process has."""
        return Needs(leo_core.__version__, code(), solver)

    def lacking(self) -> str:
        """What this process lacks of it, and what to do; empty if nothing."""
        if leo_core.__version__ != self.version:
            return f"it runs LEO {leo_core.__version__}, and this is {self.version}; install the same release there"
        if code() != self.code:
            return f"its LEO {self.version} is not built from the same sources as this one; install the same there"
        from leo_core.plugins import registry

        try:
            registry.solver(self.solver)
        except LeoError as error:
            return str(error)
        return ""


@cache
def code() -> str:
    """A digest of the sources of LEO's packages that decide."""
    digest = hashlib.sha256()
    top = Path(leo_core.__file__).parent
    for folder in (top, top.parent / "leo_backends"):
        for path in sorted(folder.rglob("*.py")):
            digest.update(str(path.relative_to(top.parent)).encode() + path.read_bytes())
    return digest.hexdigest()[:16]
