"""Bounds that are handed out: they contain the exact truth, before and after, and files give back what was written."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import networks_and_boxes
from truth import contained

import leo_core
from leo_core import Bounds, State
from leo_core.cli import main
from leo_core.errors import FormatError, OutputError, UsageError
from leo_core.network import Relu
from leo_core.testing.networks import chain, convolutional


@settings(max_examples=25)
@given(networks_and_boxes())
def test_bounds_contain_the_exact_extremes(network_and_box):
    network, box = network_and_box
    contained(leo_core.analyze(network, box, solver="scipy").bounds, network, box)


@settings(max_examples=25)
@given(networks_and_boxes(), st.sampled_from(["exact", "float", 0.1, 3.0]))
def test_those_of_the_result_contain_its_own(network_and_box, tolerance):
    network, box = network_and_box
    result = leo_core.compress(network, box, tolerance=tolerance, solver="scipy")
    contained(result.bounds, network, box)
    contained(result.bounds_after, result.network, box)


def test_no_time_leaves_intervals():
    network, box = chain(2, 6, 6, 2, seed=3), leo_core.Box.uniform(-1, 1, 2)
    contained(leo_core.analyze(network, box, time_limit=0, solver="scipy").bounds, network, box)


def test_names_and_shapes_are_the_models_own(tmp_path):
    network = convolutional()
    bounds = leo_core.analyze(network, (-1, 1), solver="scipy").bounds
    assert list(bounds.layers) == [relu.name for relu in network.relus]
    for name, values in bounds.layers.items():
        relu = network[name]
        assert isinstance(relu, Relu)
        assert values.shape == (network.affine(relu.source).shape or (relu.size,))
    assert [values.shape for values in bounds.outputs.values()] == [o.shape for o in network.signature.outputs]


@pytest.fixture(scope="module")
def bounds():
    return leo_core.analyze(chain(3, 8, 8, 2, seed=2), (-1, 1), solver="scipy").bounds


def same(one, other):
    assert (one.box, one.network, one.trusted, one.interrupted) == (
        other.box, other.network, other.trusted, other.interrupted)  # fmt: skip
    for mine, theirs in ((one.layers, other.layers), (one.outputs, other.outputs)):
        assert list(mine) == list(theirs)
        for name, values in mine.items():
            again = theirs[name]
            assert (values.layer, values.tail, values.shape) == (again.layer, again.tail, again.shape)
            assert values.arrays().keys() == again.arrays().keys()
            for key, array in values.arrays().items():
                assert (array == again.arrays()[key]).all()


@pytest.mark.parametrize("name", ["b.json", "b.npz", "B.NPZ"])
def test_a_file_gives_back_what_was_written(bounds, name, tmp_path):
    same(bounds, Bounds.load(bounds.save(tmp_path / name)))


@pytest.mark.parametrize("name", ["b.json", "b.npz"])
def test_what_is_not_known_stays_so(name, tmp_path):
    huge = chain(1, 2, 1, dtype=np.float64)
    nodes = [node if isinstance(node, Relu) else leo_core.Affine(
        node.name, node.sources, tuple(leo_core.Dense(1e200 * m.dense()) for m in node.maps), node.bias)
        for node in huge.nodes]  # fmt: skip
    found = leo_core.analyze(leo_core.Network(1, tuple(nodes), huge.output), (-1e9, 1e9), solver="scipy").bounds
    assert np.isinf(found.outputs["output"].lower).all()
    same(found, Bounds.load(found.save(tmp_path / name)))


def test_numpy_reads_the_archive_by_names(bounds, tmp_path):
    with np.load(bounds.save(tmp_path / "b.npz")) as content:
        assert (content["layers/relu1/upper"] == bounds.layers["relu1"].upper).all()
        assert content["outputs/output/lower"].shape == (2,)


def test_json_spells_states_out(bounds, tmp_path):
    content = json.loads(bounds.save(tmp_path / "b.json").read_text("utf-8"))
    assert content["trust"] == "proved"
    assert {word for layer in content["layers"] for word in layer["state"]} <= {"active", "inactive", "unstable"}
    assert {word for layer in content["layers"] for word in layer["method"]} <= {"bound", "tree", "witness"}


def test_other_suffixes_and_places_are_refused(bounds, tmp_path):
    with pytest.raises(UsageError, match=r"\.json or \.npz"):
        bounds.save(tmp_path / "b.csv")
    with pytest.raises(OutputError, match="cannot be written"):
        bounds.save(tmp_path / "nowhere" / "b.json")


def tampered(change):
    def write(bounds, path):
        content = json.loads(bounds.save(path).read_text("utf-8"))
        change(content)
        path.write_text(json.dumps(content), "utf-8")

    return write


BAD = {
    "another format": (tampered(lambda c: c.update(format="x")), "not a file of bounds"),
    "a later version": (tampered(lambda c: c.update(version=2)), "version 2"),
    "a word for a number": (tampered(lambda c: c["layers"][0]["lower"].__setitem__(0, "low")), "'low'"),
    "NaN": (tampered(lambda c: c["layers"][0]["lower"].__setitem__(0, float("nan"))), "NaN"),
    "reversed": (tampered(lambda c: c["layers"][0]["lower"].__setitem__(0, 1e9)), "above the upper"),
    "a state that is none": (tampered(lambda c: c["layers"][0]["state"].__setitem__(0, "dead")), "DEAD"),
    "one number too few": (tampered(lambda c: c["layers"][0]["upper"].pop()), "shape"),
    "a layer twice": (tampered(lambda c: c["layers"].append(c["layers"][0])), "one name"),
    "no bounds": (tampered(lambda c: c["outputs"][0].pop("upper")), "outputs/output/upper"),
    "another trust": (tampered(lambda c: c.update(trust="me")), "'me'"),
    "half a file": (
        lambda bounds, path: path.write_text(bounds.save(path).read_text("utf-8")[:200], "utf-8"),
        "damaged",
    ),
    "no file": (lambda bounds, path: None, "no such file"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused(case, bounds, tmp_path):
    write, message = BAD[case]
    write(bounds, tmp_path / "b.json")
    with pytest.raises(FormatError, match=message):
        Bounds.load(tmp_path / "b.json")


def test_a_damaged_archive_is_noticed(bounds, tmp_path):
    path = bounds.save(tmp_path / "b.npz")
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    name = "layers/relu1/upper.npy"
    parts[name] = parts[name][:-1] + bytes([parts[name][-1] ^ 1])
    with zipfile.ZipFile(path, "w") as archive:
        for entry, data in parts.items():
            archive.writestr(entry, data)
    with pytest.raises(FormatError, match="checksum"):
        Bounds.load(path)


def leo(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)


def test_the_command_writes_them(tmp_path):
    net = leo_core.convert(chain(3, 8, 8, 2, seed=2), tmp_path / "net.leo")
    for name in ("b.json", "b.npz"):
        done = leo("inspect", net, "--domain", "-1,1", "--bounds", tmp_path / name, "--json", "-q")
        content = json.loads(done.stdout)
        assert content["bounds"] == str(tmp_path / name)
        found = Bounds.load(tmp_path / name)
        for layer in content["layers"]:
            states = found.layers[layer["name"]].state
            assert (states == State.INACTIVE).sum() == layer["inactive"]
    assert leo("inspect", net, "--domain", "-1,1", "--bounds", tmp_path / "b.txt").exit_code == 2
    assert leo("inspect", net, "--domain", "-1,1", "--bounds", net).exit_code == 2
    assert leo("inspect", net, "--domain", "-1,1", "--bounds", tmp_path / "no" / "b.npz").exit_code == 1
    crossed = leo("inspect", net, "--domain", "-1,1", "--bounds", tmp_path / "b.npz", "--cross-check", "highs,scipy")
    assert crossed.exit_code == 2
