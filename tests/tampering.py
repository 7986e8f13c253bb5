"""Certificates changed by someone who mends the checksum."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np

from leo_core.certificate import check
from leo_core.certificate.check import networks as archives


def mutated(path, change):
    """The certificate at ``path``, changed by someone who mends the checksum."""
    content, arrays = check.open_certificate(path)
    arrays = {name: array.copy() for name, array in arrays.items()}
    change(content, arrays)
    header = {"format": "leo certificate", "version": 1, "sha256": archives.checksum(content, arrays)}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("header.json", json.dumps({**header, "content": content}))
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, array, allow_pickle=False)
            archive.writestr(f"{name}.npy", buffer.getvalue())
    return content, arrays
