"""The file that a certificate of either kind is: one header, one checksum over all of it."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from leo_core import checker
from leo_core.checker import networks
from leo_core.storage import write_archive


def write_certificate(path: Path, content: Mapping[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
    """Write it; the caller renames a temporary file into place."""
    content = json.loads(json.dumps(content, allow_nan=False))
    header = {
        "format": "leo certificate",
        "version": checker.VERSION,
        "sha256": networks.checksum(content, arrays),
        "content": content,
    }
    write_archive(path, header, arrays, zipfile.ZIP_DEFLATED)
