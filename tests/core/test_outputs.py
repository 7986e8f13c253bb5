"""Models with several outputs: one value, cut into parts, each with its own name, shape and tail."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from tampering import mutated

import leo_core
from leo_core import door, storage, tails
from leo_core.checker import networks
from leo_core.door import Reading
from leo_core.errors import CertificateError, DoorError, FormatError, NetworkError, OutputError
from leo_core.linear import Dense, Select, Sparse
from leo_core.network import Affine, Network, Output, Relu, Signature
from leo_core.testing.networks import chain, two_heads

HEADS = two_heads()


def giving(network, *outputs):
    return replace(network, signature=replace(network.signature, outputs=outputs))


def towers(seed=0, widths=(4, 12, 8), rows=(3, 3), tail=("", "sigmoid")):
    """Two heads, each behind layers of its own on one trunk; many of their units are stable on [0, 1]."""
    rng = np.random.default_rng(seed)
    nodes, at, sources = [], "input", []
    first = Dense(rng.normal(size=widths[1::-1]).astype("f4"))
    trunk = [Affine("trunk", ("input",), (first,), rng.normal(size=widths[1]).astype("f4")),
             Relu("trunk_relu", "trunk", np.zeros(widths[1]))]  # fmt: skip
    for head, size in enumerate(rows):
        at = f"hidden{head}"
        hidden = rng.normal(size=(widths[2], widths[1])).astype("f4")
        nodes += [
            Affine(at, ("trunk_relu",), (Dense(hidden),), (3 * rng.normal(size=widths[2])).astype("f4")),
            Relu(f"{at}_relu", at, np.zeros(widths[2])),
            Affine(f"head{head}", (f"{at}_relu",), (Dense(rng.normal(size=(size, widths[2])).astype("f4")),),
                   rng.normal(size=size).astype("f4")),
        ]  # fmt: skip
        sources.append(f"head{head}")
    total = sum(rows)
    maps = [Sparse.of(np.eye(total, size, -start, dtype="f4")) for size, start in zip(rows, (0, rows[0]), strict=True)]
    last = Affine("outputs", tuple(sources), tuple(maps), np.zeros(total, "f4"))
    outputs = tuple(Output(f"out{i}", (size,), name) for i, (size, name) in enumerate(zip(rows, tail, strict=True)))
    return Network(widths[0], (*trunk, *nodes, last), "outputs", Signature("x", (widths[0],), outputs, "float32"))


class TestSignature:
    def test_an_output_without_a_shape_is_all_of_the_value(self):
        assert chain(2, 3, 4).signature.outputs == (Output("output", (4,)),)

    def test_an_axis_that_says_nothing_is_none(self):
        assert Output("a", (3, 1), "softmax", 0).axis is None
        assert Output("a", (3, 2), "sigmoid", 1).axis is None
        assert Output("a", (3, 2), "softmax", -1) == Output("a", (3, 2), "softmax", 1)

    @pytest.mark.parametrize(
        ("outputs", "said"),
        [
            ((), "at least one output"),
            ((Output("a", (1,)), Output("a", (11,))), "two outputs have one name"),
            ((Output("a", (4,)), Output("b", (4,))), r"hold 8 values, the network gives 12"),
        ],
    )
    def test_outputs_that_do_not_fit(self, outputs, said):
        with pytest.raises(NetworkError, match=said):
            giving(HEADS, *outputs)

    def test_an_axis_or_a_tail_that_is_not_there(self):
        with pytest.raises(NetworkError, match="no axis 2"):
            Output("a", (2, 3), "softmax", 2)
        with pytest.raises(NetworkError, match="'relu' is unknown"):
            Output("a", (2, 3), "relu")

    def test_the_outputs_behind_their_tails(self):
        x = np.random.default_rng(0).normal(size=(5, 4))
        value = HEADS.evaluate(x)
        scores, bounded, features = HEADS.signature.finished(value)
        rows = scores.reshape(5, 2, 3)
        np.testing.assert_allclose(rows.sum(-1), 1)
        np.testing.assert_allclose(rows, tails.TAILS["softmax"].apply(value[:, :6].reshape(5, 2, 3)))
        np.testing.assert_allclose(bounded, np.tanh(value[:, 6:7]))
        assert (features == value[:, 7:]).all()

    def test_values_in_words(self):
        assert [HEADS.signature.called(unit) for unit in (4, 6, 7)] == [
            "output 'scores'[4]", "output 'value'", "output 'features'[0]"
        ]  # fmt: skip
        assert chain(2, 3, 2).signature.called(1) == "output 1"
        assert HEADS.signature.ending == "softmax of 'scores' along axis 1 and tanh of 'value'"

    def test_putting_side_by_side_stores_no_weight(self):
        assert HEADS.connections == 4 * 5 + 5 * 5 + 5 * 6 + 5
        assert HEADS.widths == (4, 5, 5, 12)


SCORES, VALUE, FEATURES = HEADS.signature.outputs
OTHERS = {
    "in another order": (VALUE, SCORES, FEATURES),
    "a name": (SCORES, VALUE, replace(FEATURES, name="trunk")),
    "no tail": (replace(SCORES, tail="", axis=None), VALUE, FEATURES),
    "another tail": (SCORES, replace(VALUE, tail="sigmoid"), FEATURES),
    "another axis": (replace(SCORES, axis=0), VALUE, FEATURES),
    "over all": (replace(SCORES, axis=None), VALUE, FEATURES),
    "cut elsewhere": (SCORES, replace(VALUE, shape=(2,)), replace(FEATURES, shape=(4,))),
    "one": (Output("all", (12,)),),
}


@pytest.mark.parametrize("outputs", OTHERS.values(), ids=OTHERS.keys())
def test_the_digest_sees_the_outputs(outputs, tmp_path):
    other = giving(HEADS, *outputs)
    assert other.digest != HEADS.digest
    assert other != HEADS
    storage.save(other, tmp_path / "n.leo")
    read = networks.read_network(tmp_path / "n.leo")
    assert (read.digest, read.tail) == (other.digest, other.signature.ending)
    assert storage.load(tmp_path / "n.leo").signature == other.signature


def changed(path, change):
    """Change the header of a .leo file, its checksum put right."""
    with zipfile.ZipFile(path) as archive:
        header = json.loads(archive.read("header.json"))
        names = [name for name in archive.namelist() if name.endswith(".npy")]
        arrays = {name.removesuffix(".npy"): np.load(io.BytesIO(archive.read(name))) for name in names}
    change(header)
    header["sha256"] = networks.checksum(header["content"], arrays)
    storage.write_archive(path, header, arrays)


def test_files_of_version_1_are_read(tmp_path):
    net = replace(chain(2, 3, 2), signature=Signature("x", (2,), (Output("y", (2, 1), "tanh"),), "float32"))
    storage.save(net, tmp_path / "old.leo")

    def older(header):
        header["version"] = 1
        signature = header["content"]["signature"]
        ((name, shape, tail, _),) = signature.pop("outputs")
        signature |= {"output": [name, shape], "tail": tail}

    changed(tmp_path / "old.leo", older)
    assert storage.load(tmp_path / "old.leo") == net
    assert storage.load(tmp_path / "old.leo").signature == net.signature
    assert networks.read_network(tmp_path / "old.leo").digest == net.digest


BAD = {
    "a tail": lambda outputs: outputs[0].__setitem__(2, "gelu"),
    "an axis": lambda outputs: outputs[0].__setitem__(3, 2),
    "a text for an axis": lambda outputs: outputs[0].__setitem__(3, "1"),
    "a shape": lambda outputs: outputs[0].__setitem__(1, [2, 2]),
    "a negative shape": lambda outputs: outputs[0].__setitem__(1, [-2, -3]),
    "a part too few": lambda outputs: outputs.pop(),
    "none": lambda outputs: outputs.clear(),
    "three numbers": lambda outputs: outputs[0].pop(),
}


@pytest.mark.parametrize("change", BAD.values(), ids=BAD.keys())
def test_files_whose_outputs_do_not_fit_are_refused(change, tmp_path):
    storage.save(HEADS, tmp_path / "n.leo")
    changed(tmp_path / "n.leo", lambda header: change(header["content"]["signature"]["outputs"]))
    with pytest.raises(FormatError, match=r"n\.leo"):
        storage.load(tmp_path / "n.leo")
    with pytest.raises((networks.Refused, ValueError)):  # of the latter, checking makes a refusal
        networks.read_network(tmp_path / "n.leo")


class TestDoor:
    points = door.inputs_at(HEADS, None)

    def run(self, x):
        return HEADS.signature.finished(HEADS.evaluate(x, np.float32))

    def test_a_list_and_names_go_through(self):
        assert door.agrees(Reading(HEADS, self.run), self.points) == door.AGREES
        named = Reading(HEADS, lambda x: dict(zip(reversed(HEADS.signature.names), reversed(self.run(x)), strict=True)))
        assert door.agrees(named, self.points) == door.AGREES

    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            (lambda a, b, c: [b, a, c], r"an output 'scores' of shape \(1, 1\).*1 × 6"),
            (lambda a, b, c: [a, b, c[:, ::-1]], r"as output 'features'\[\d\], where .* gives between"),
            (lambda a, b, c: [a, np.arctanh(b), c], r"as output 'value', where"),
            (lambda a, b, c: [a.reshape(-1, 3, 2).swapaxes(1, 2), b, c], r"as output 'scores'\[\d\], where"),
            (lambda a, b, _: [a, b], r"gives 2 output\(s\); LEO sees a network of 3: scores, value, features"),
            (lambda a, _b, _c: a, r"gives 1 output\(s\)"),
            (lambda a, b, c: {"scores": a, "value": b, "other": c}, "gives the outputs scores, value, other"),
        ],
    )
    def test_a_wrong_one_is_named(self, wrong, said):
        with pytest.raises(DoorError, match=said):
            door.agrees(Reading(HEADS, lambda x: wrong(*self.run(x))), self.points)

    def test_heads_of_one_size_that_are_exchanged(self):
        net = towers(tail=("", ""))

        def run(x):
            first, second = net.signature.finished(net.evaluate(x, np.float32))
            return {"out0": second, "out1": first}

        with pytest.raises(DoorError, match=r"output 'out0'\[0\]"):
            door.agrees(Reading(net, run), door.inputs_at(net, None))

    def test_two_models_are_compared_by_the_factor_of_each_tail(self):
        base = Reading(HEADS, self.run)

        def off(place, by):
            def run(x):
                parts = self.run(x)
                parts[place] = parts[place] + by
                return parts

            return Reading(HEADS, run)

        points = 0.1 * self.points  # tanh, and sums, of small numbers
        door.alike(base, off(2, 1e-3), points, 1.1e-3)
        for place in (0, 1, 2):
            with pytest.raises(DoorError, match=HEADS.signature.names[place]):
                door.alike(base, off(place, 3e-3), points, 1e-3)


class TestCompare:
    def test_the_bound_behind_the_tails_is_the_worst_of_all(self):
        last = HEADS.affine("head1")
        moved = HEADS.with_nodes(replace(last, bias=last.bias + np.float32(2**-7)))
        found = leo_core.verify(HEADS, moved, (-1, 1))
        assert 0.0078 < found.lower <= found.upper < 0.0079
        assert found.outputs_upper == found.upper
        assert found.signature.called(found.largest) == "output 'value'"
        assert found.verdict.startswith("before the softmax of 'scores' along axis 1 and tanh of 'value' that both")

    @pytest.mark.parametrize("case", ["no tail", "another tail", "another axis", "over all", "cut elsewhere", "one"])
    def test_models_that_end_otherwise_are_not_compared(self, case):
        for pair in ((HEADS, giving(HEADS, *OTHERS[case])), (giving(HEADS, *OTHERS[case]), HEADS)):
            with pytest.raises(NetworkError, match="cannot be compared"):
                leo_core.verify(*pair, (-1, 1))

    def test_names_may_differ_but_not_their_order(self):
        net = towers(tail=("", ""))
        first, second = net.signature.outputs
        assert leo_core.verify(net, giving(net, replace(first, name="a"), second), (-1, 1)).upper == 0
        with pytest.raises(NetworkError, match="in another order, out0, out1 in the first model and out1, out0"):
            leo_core.verify(net, giving(net, replace(first, name="out1"), replace(second, name="out0")), (-1, 1))


@pytest.mark.parametrize("tolerance", ["exact", "float", 1e-3])
@pytest.mark.parametrize("seed", [0, 1])
def test_two_heads_are_compressed_with_a_certificate(tolerance, seed, tmp_path):
    net = towers(seed)
    result = leo_core.compress(net, (0, 1), tolerance=tolerance, evidence=True)
    assert result.network.connections < net.connections
    assert result.network.signature == net.signature
    assert result.deviation <= result.tolerance
    x = np.random.default_rng(1).random((2000, 4))
    assert np.abs(net.evaluate(x) - result.network.evaluate(x)).max() <= result.deviation + 1e-12
    storage.save(net, tmp_path / "old.leo")
    result.export(tmp_path / "new.leo")
    result.certify(tmp_path / "cert", tmp_path / "new.leo")
    report = leo_core.check(tmp_path / "cert", tmp_path / "old.leo", tmp_path / "new.leo")
    assert report.tail == "sigmoid of 'out1'"
    assert leo_core.verify(tmp_path / "old.leo", tmp_path / "new.leo", (0, 1)).lower <= result.deviation


@pytest.fixture(scope="module")
def proved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("heads")
    net = towers(2, tail=("", ""))
    result = leo_core.compress(net, (0, 1), evidence=True)
    result.export(folder / "new.leo")
    result.certify(folder / "cert", folder / "new.leo")
    return net, result, folder


class TestCertificate:
    @pytest.mark.parametrize("change", ["exchanged", "renamed", "a tail", "cut elsewhere"])
    def test_other_outputs_are_refused(self, proved, change, tmp_path):
        net, result, folder = proved
        first, second = result.network.signature.outputs
        outputs = {
            "exchanged": (replace(first, name="out1"), replace(second, name="out0")),
            "renamed": (replace(first, name="a"), second),
            "a tail": (first, replace(second, tail="tanh")),
            "cut elsewhere": (replace(first, shape=(2,)), replace(second, shape=(4,))),
        }[change]
        other = giving(result.network, *outputs)
        with pytest.raises(CertificateError):
            leo_core.check(folder / "cert", net, other)
        forged = tmp_path / "forged"
        forged.write_bytes((folder / "cert").read_bytes())
        mutated(forged, lambda content, _: content.update(compressed=other.digest))
        if change == "renamed":  # counterparts by their order
            leo_core.check(forged, net, other)
            return
        with pytest.raises(CertificateError, match=r"different (orders|functions)"):
            leo_core.check(forged, net, other)

    def test_none_is_written_about_other_outputs(self, proved, tmp_path):
        _, result, _ = proved
        first, second = result.network.signature.outputs
        for outputs in (
            (replace(first, name="out1"), replace(second, name="out0")),
            (first, replace(second, tail="tanh")),
        ):
            storage.save(giving(result.network, *outputs), tmp_path / "other.leo")
            with pytest.raises(OutputError, match="no certificate"):
                result.certify(tmp_path / "c", tmp_path / "other.leo")


def test_stable_heads_that_are_relus(tmp_path):
    """A ReLU as an output: its inactive units become 0, and where all are stable it goes."""
    trunk = chain(3, 6, seed=3, relu_last=False)
    bias = np.array([9, 9, 9, -9, -9, 0], "f4") * 9
    dense = replace(trunk.affine("dense1"), bias=bias)
    last = Affine(
        "outputs", ("relu", "dense1"),
        (Sparse.of(np.eye(12, 6, dtype="f4")), Sparse.of(np.eye(12, 6, -6, dtype="f4"))), np.zeros(12, "f4"),
    )  # fmt: skip
    outputs = (Output("behind", (6,)), Output("before", (6,)))
    net = Network(3, (dense, Relu("relu", "dense1", np.zeros(6)), last), "outputs", Signature("x", (3,), outputs))
    result = leo_core.compress(net, (-1, 1), tolerance="exact")
    assert result.network.units < net.units
    x = np.random.default_rng(0).uniform(-1, 1, (500, 3))
    np.testing.assert_allclose(result.network.evaluate(x), net.evaluate(x), atol=1e-12)
    assert leo_core.verify(net, result.export(tmp_path / "n.leo"), (-1, 1)).upper == result.deviation == 0


def test_there_is_no_class_of_several_outputs():
    inputs = np.zeros((3, 4))
    assert leo_core.compress(towers(), (0, 1)).certain(inputs) is None
    boxes = giving(chain(4, 5, 6), Output("scores", (2, 3), "softmax", 1))
    assert leo_core.compress(boxes, (0, 1)).certain(inputs) is None
    assert leo_core.compress(giving(boxes, Output("scores", (6,), "softmax")), (0, 1)).certain(inputs) is not None


def test_one_node_cut_into_outputs():
    base = chain(3, 6, 4)
    net = giving(base, Output("a", (1,)), Output("b", (3,), "softmax"))
    assert isinstance(net[net.output], Affine)
    assert Select.identity(3).places
    assert leo_core.compress(net, (-1, 1)).network.signature == net.signature
