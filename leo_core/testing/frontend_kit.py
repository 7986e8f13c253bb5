"""What LEO relies on in a frontend; see :mod:`leo_core.testing` for how to run it.

Each check takes the frontend's spec and an empty folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from leo_core import door
from leo_core.door import Reading
from leo_core.errors import LeoError, UnsupportedModelError
from leo_core.files import as_read
from leo_core.network import Network
from leo_core.plugins import FrontendSpec, Imported
from leo_core.testing.networks import NETWORKS


def files_keep_the_function(spec: FrontendSpec, folder: Path) -> None:
    """What is written reads back as the same function over the rationals, names and shapes kept."""
    if spec.write_file is None or spec.read_file is None:
        return
    held = 0
    for network, path in _files(spec, folder):
        held += 1
        _same(network, spec.read_file(path))
    assert held, "none of the kit's networks could be written"


def live_models_keep_the_function(spec: FrontendSpec, folder: Path) -> None:  # noqa: ARG001 - every check takes it
    """A network made a live model and read back is the same function over the rationals."""
    if spec.write_model is None or spec.read_model is None:
        return
    held = 0
    for network, model in _models(spec):
        held += 1
        _same(network, spec.read_model(model, network.signature.input_shape or None))
    assert held, "none of the kit's networks could be made a live model"


def models_compute_what_the_network_computes(spec: FrontendSpec, folder: Path) -> None:  # noqa: ARG001
    """The framework runs a live model of a network within what is proved of its run, in batches of 1, 2 and 7."""
    if spec.write_model is None or spec.run_model is None:
        return
    held = 0
    for network, model in _models(spec):
        held += 1
        _agrees(spec, network, partial(spec.run_model, model))
    assert held, "none of the kit's networks could be made a live model"


def files_compute_what_the_network_computes(spec: FrontendSpec, folder: Path) -> None:
    """The same of a file that was written, and of what is read back, where the frontend says how to run it."""
    if spec.write_file is None or spec.read_file is None:
        return
    for network, path in _files(spec, folder):
        if spec.run_file is not None:
            _agrees(spec, network, spec.run_file(path))
        back = spec.read_file(path)
        assert back.run is None or not back.not_run, "it says how to run a model, and why it is not run"
        if back.run is not None:
            assert door.agrees(as_read(back), door.inputs_at(back.network, None)) == door.AGREES


def refuses_what_is_no_model(spec: FrontendSpec, folder: Path) -> None:
    """A missing, an empty, a garbage file and a folder are LeoErrors that name the path."""
    if spec.read_file is None:
        return
    suffix = spec.suffixes[0]
    empty, garbage, folder_like = (folder / f"{name}{suffix}" for name in ("empty", "garbage", "folder"))
    empty.write_bytes(b"")
    garbage.write_bytes(bytes(np.random.default_rng(0).integers(0, 256, 500, dtype=np.uint8)))
    folder_like.mkdir()
    for path in (folder / f"missing{suffix}", empty, garbage, folder_like):
        _refused(spec, path)


def refuses_damaged_files(spec: FrontendSpec, folder: Path) -> None:
    """A file cut off anywhere, or with bytes changed, is read as a valid network or refused; never a crash."""
    if spec.write_file is None or spec.read_file is None:
        return
    network = next(_networks())
    whole = folder / f"whole{spec.suffixes[0]}"
    spec.write_file(network, whole)
    data = whole.read_bytes()
    rng = np.random.default_rng(1)
    damaged = folder / f"damaged{spec.suffixes[0]}"
    for cut in (1, len(data) // 3, len(data) // 2, len(data) - len(data) // 10):
        damaged.write_bytes(data[:cut])
        _refused(spec, damaged)
    for _ in range(60):
        changed = bytearray(data)
        for _ in range(int(rng.integers(1, 5))):
            changed[int(rng.integers(len(changed)))] = int(rng.integers(256))
        damaged.write_bytes(bytes(changed))
        try:
            imported = spec.read_file(damaged)
        except LeoError:
            continue
        assert isinstance(imported, Imported), "a damaged file was read as something else than Imported"


CHECKS: tuple[Callable[[FrontendSpec, Path], None], ...] = (
    files_keep_the_function,
    live_models_keep_the_function,
    models_compute_what_the_network_computes,
    files_compute_what_the_network_computes,
    refuses_what_is_no_model,
    refuses_damaged_files,
)


def _agrees(spec: FrontendSpec, network: Network, run: door.Run) -> None:
    reading = Reading(network, run, spec.runs_in(network) if spec.runs_in else "")
    said = door.agrees(reading, door.inputs_at(network, None))
    assert said == door.AGREES, f"the framework does not run it as it should: {said}"


def _files(spec: FrontendSpec, folder: Path) -> Iterator[tuple[Network, Path]]:
    """The kit's networks that a format can hold, written."""
    assert spec.write_file is not None
    for number, network in enumerate(_networks()):
        path = folder / f"network{number}{spec.suffixes[0]}"
        try:
            spec.write_file(network, path)
        except UnsupportedModelError:
            continue
        yield network, path


def _models(spec: FrontendSpec) -> Iterator[tuple[Network, Any]]:
    """The kit's networks that a framework can hold, as live models."""
    assert spec.write_model is not None
    for network in _networks():
        try:
            model = spec.write_model(network)
        except UnsupportedModelError:
            continue
        yield network, model


def _networks() -> Iterator[Network]:
    for make in NETWORKS:
        yield make()


def _refused(spec: FrontendSpec, path: Path) -> None:
    assert spec.read_file is not None
    said = None
    try:
        spec.read_file(path)
    except LeoError as error:
        said = str(error)
    assert said is not None, f"{path.name} was read without an error"
    assert path.name in said, f"the error does not name the file: {said}"


def _same(network: Network, imported: Imported) -> None:
    back = imported.network
    assert (back.input_size, back.output_size) == (network.input_size, network.output_size), "sizes changed"
    assert not imported.rounding, "an import deviation for a model that has exact weights"
    rng = np.random.default_rng(0)
    for x in np.vstack([np.zeros(network.input_size), rng.integers(-8, 9, (6, network.input_size)) / 4]):
        was = network.evaluate_exact(x)[network.output].fractions()
        now = back.evaluate_exact(x)[back.output].fractions()
        assert was == now, f"the function changed at {x.tolist()}: {_first(was, now)}"
    assert network.signature.functions == back.signature.functions, "what the outputs end in was lost"
    if len(network.signature.outputs) > 1:  # the name and shape of a single one are lost in some formats
        outputs = network.signature.outputs, back.signature.outputs
        assert outputs[0] == outputs[1], f"the outputs {outputs[0]} became {outputs[1]}"
    if back.signature.input_shape and network.signature.input_shape:  # some formats know flat inputs only
        assert back.signature.input_shape == network.signature.input_shape, "the input's shape was lost"


def _first(was: list[Fraction], now: list[Fraction]) -> str:
    return next(f"{float(a)} became {float(b)}" for a, b in zip(was, now, strict=True) if a != b)
