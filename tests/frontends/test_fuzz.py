"""Damaged files of every format: an error that names the file or a valid network, never a crash or a hang."""

from __future__ import annotations

import numpy as np
import pytest

from leo_core.errors import LeoError
from leo_core.plugins import Imported, registry
from leo_core.testing.networks import chain

FILES = [(spec, suffix) for spec in registry.frontends() for suffix in spec.suffixes if suffix != ".pth"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("spec", "suffix"), FILES, ids=[suffix for _, suffix in FILES])
def test_damaged_files(spec, suffix, tmp_path):
    registry.frontend(spec.name)
    whole, path = tmp_path / f"whole{suffix}", tmp_path / f"damaged{suffix}"
    spec.write_file(chain(3, 5, 4, 2), whole)
    data = whole.read_bytes()
    rng = np.random.default_rng(0)
    for number in range(300):
        changed = bytearray(data)
        for _ in range(int(rng.integers(1, 6))):
            changed[int(rng.integers(len(changed)))] = int(rng.integers(256))
        path.write_bytes(bytes(changed if number % 3 else changed[: int(rng.integers(len(changed)))]))
        said = path.name
        try:
            assert isinstance(spec.read_file(path), Imported)
        except LeoError as error:
            said = str(error)
        assert path.name in said
