"""The checker by itself, where only numpy is."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from leo_core.certificate.check import Refused, check, lines


def main(arguments: Sequence[str]) -> int:
    """The command: 0 if all of it holds, 1 if not, 2 if it was used wrongly."""
    if len(arguments) != 3:
        print("use: python -m leo_core.certificate.check CERTIFICATE ORIGINAL.leo COMPRESSED.leo", file=sys.stderr)
        return 2
    try:
        report = check(*arguments)
    except (Refused, OSError) as error:
        print(f"{arguments[0]}: {error}", file=sys.stderr)
        return 1
    print("\n".join(lines(report)))
    return 1 if report.trusted else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
