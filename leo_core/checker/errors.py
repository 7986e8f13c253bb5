"""What the checker raises, and the base of every exception of LEO (the others are in ``leo_core.errors``)."""

from __future__ import annotations


class LeoError(Exception):
    """Base of all errors a user may meet; the command prints its message, never a traceback."""


class MachineError(LeoError):
    """The processor computes otherwise than proofs take for granted, and that cannot be set right from here."""


class Refused(LeoError):  # noqa: N818 - a verdict, not a fault
    """The certificate does not hold, or is none."""


class OfAnother(Refused):
    """It is about other networks; ``which`` says whose digest is not the one given: "original" or "compressed"."""

    def __init__(self, which: str) -> None:
        super().__init__(f"it is of another {which} network")
        self.which = which
