from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest
from hypothesis import given
from strategies import networks

from leo_core import storage
from leo_core.checker.networks import checksum
from leo_core.errors import FormatError, OutputError
from leo_core.testing.networks import NETWORKS, chain, convolutional


@pytest.mark.parametrize("make", [*NETWORKS, convolutional])
def test_a_network_comes_back_as_it_was(make, tmp_path):
    network = make()
    storage.save(network, tmp_path / "n.leo")
    again = storage.load(tmp_path / "n.leo")
    assert again == network
    assert again.signature == network.signature
    assert [node.origin for node in again.nodes] == [node.origin for node in network.nodes]
    shapes = [[getattr(node, "shape", ()) for node in one.nodes] for one in (again, network)]
    assert shapes[0] == shapes[1]


@given(network=networks())
def test_any_network_comes_back(network, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "any.leo"
    storage.save(network, path)
    assert storage.load(path) == network


def test_equal_networks_give_equal_files(tmp_path):
    for name in ("a", "b"):
        storage.save(chain(3, 4, 2), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def rewritten(path, change):
    """The file with its header changed and everything else kept."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    header = json.loads(parts["header.json"])
    change(header, parts)
    parts["header.json"] = json.dumps(header).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)


def test_an_unknown_version_is_refused_by_number(tmp_path):
    path = tmp_path / "n.leo"
    storage.save(chain(2, 2, 1), path)
    rewritten(path, lambda header, parts: header.update(version=99))
    with pytest.raises(FormatError, match="99"):
        storage.load(path)


def test_a_map_of_an_unknown_kind_is_refused_by_name(tmp_path):
    path = tmp_path / "n.leo"
    storage.save(chain(2, 2, 1), path)

    def change(header, parts):
        header["content"]["nodes"][0]["maps"][0]["kind"] = "fourier"
        arrays = {
            name.removesuffix(".npy"): np.load(io.BytesIO(data)) for name, data in parts.items() if ".npy" in name
        }
        header["sha256"] = checksum(header["content"], arrays)

    rewritten(path, change)
    with pytest.raises(FormatError, match=r"n\.leo: a linear map of the unknown kind 'fourier'; update LEO"):
        storage.load(path)


def test_a_changed_weight_is_noticed(tmp_path):
    path = tmp_path / "n.leo"
    storage.save(chain(2, 2, 1), path)

    def change(header, parts):
        name = next(name for name in parts if name.endswith(".npy"))
        parts[name] = parts[name][:-1] + bytes([parts[name][-1] ^ 1])

    rewritten(path, change)
    with pytest.raises(FormatError, match=r"checksum|damaged"):
        storage.load(path)


def test_pickled_arrays_are_refused(tmp_path):
    path = tmp_path / "n.leo"
    storage.save(chain(2, 2, 1), path)

    def change(header, parts):
        buffer = io.BytesIO()
        np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
        parts[next(name for name in parts if name.endswith(".npy"))] = buffer.getvalue()

    rewritten(path, change)
    with pytest.raises(FormatError):
        storage.load(path)


def test_an_unwritable_place_is_an_output_error(tmp_path):
    with pytest.raises(OutputError, match="nowhere"):
        storage.save(chain(2, 2, 1), tmp_path / "nowhere" / "n.leo")
