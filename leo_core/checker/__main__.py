"""The checker by itself, where only numpy is."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from . import Refused, check, lines


def main(arguments: Sequence[str]) -> int:
    """The command: 0 if all of it holds, 1 if not, 2 if it was used wrongly."""
    if len(arguments) != 3:
        print("use: python -m leo_core.checker CERTIFICATE ORIGINAL.leo COMPRESSED.leo", file=sys.stderr)
        return 2
    certificate, original, compressed = arguments
    try:
        report = check(certificate, original, compressed, note=note)
    except (Refused, OSError) as error:
        print(f"{certificate}: {error}", file=sys.stderr)
        return 1
    print("\n".join(lines(report)))
    return 1 if report.trusted else 0


def note(text: str) -> None:
    """How far the work is, for who is watching."""
    if sys.stderr.isatty():
        print(text, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
