"""What models end in: part of the digest, of certificates, and of every comparison."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tampering import mutated

import leo_core
from leo_core import storage, tails
from leo_core.checker import lines, networks
from leo_core.errors import CertificateError, NetworkError, OutputError
from leo_core.linear import Dense
from leo_core.network import TAILS, Affine, Network
from leo_core.testing.networks import chain


def ending(network, tail):
    return with_output(network, tail=tail)


def with_output(network, **changes):
    (output,) = network.signature.outputs
    return replace(network, signature=replace(network.signature, outputs=(replace(output, **changes),)))


NET = chain(4, 6, 3, seed=3)


@pytest.mark.parametrize("tail", TAILS)
@given(
    st.lists(st.tuples(st.floats(-40, 40), st.floats(-40, 40)), min_size=1, max_size=5),
    st.sampled_from([1.0, 1e-3, 1e-6]),
)
def test_outputs_behind_a_tail_are_no_further_apart_than_said(tail, pairs, scale):
    first = np.array([a for a, _ in pairs])
    second = first + scale * np.array([b for _, b in pairs])
    apply = tails.TAILS[tail].apply
    apart = float(np.abs(first - second).max())
    seen = np.abs(apply(first) - apply(second)).max()
    assert seen <= tails.through(tail, apart) * (1 + 1e-9) + 1e-12
    assert seen <= tails.TAILS[tail].span


def test_the_bound_through_a_tail_is_rounded_up():
    tiny = 5e-324
    assert tails.through("sigmoid", tiny) == tails.through("softmax", tiny) == tiny
    assert tails.through("", 3.0) == tails.through("tanh", 3.0) + 1 == 3
    assert tails.through("softmax", np.inf) == 1
    assert tails.through("log_softmax", 1.7e308) == np.inf


def test_a_tail_is_part_of_the_digest_and_none_changes_nothing():
    digests = {ending(NET, tail).digest for tail in ("", *TAILS)}
    assert len(digests) == 1 + len(TAILS)
    assert ending(NET, "").digest == NET.digest
    assert ending(NET, "softmax") != NET
    # written down, so that certificates and checkpoints of earlier releases stay valid
    one = Network(1, (Affine("a", ("input",), (Dense([[2.0]]),), np.array([1.0])),), "a")
    assert one.digest == "465e2a369851729b7acf986a4eed661e050193cb445c380543b6218f2050b835"


@pytest.mark.parametrize("tail", ["", *TAILS])
def test_the_checker_reads_the_same_digest(tail, tmp_path):
    storage.save(ending(NET, tail), tmp_path / "n.leo")
    read = networks.read_network(tmp_path / "n.leo")
    assert (read.digest, read.tail, read.before_tail) == (ending(NET, tail).digest, tail, NET.digest)


def test_the_checker_refuses_a_tail_that_it_does_not_know(tmp_path, monkeypatch):
    monkeypatch.setattr(networks, "TAILS", ("",))
    storage.save(ending(NET, "tanh"), tmp_path / "n.leo")
    with pytest.raises(networks.Refused, match="tanh"):
        networks.read_network(tmp_path / "n.leo")


class TestVerify:
    @pytest.mark.parametrize("tail", TAILS)
    def test_other_tails_are_incomparable(self, tail):
        for other in {"", *TAILS} - {tail}:
            with pytest.raises(NetworkError, match=r"cannot be compared.*at the end") as caught:
                leo_core.verify(ending(NET, tail), ending(NET, other), (-1, 1))
            assert f"a {tail}" in str(caught.value)
            assert f"a {other}" in str(caught.value) or (not other and "none" in str(caught.value))

    @pytest.mark.parametrize("tail", TAILS)
    def test_the_same_tail_is_compared_before_it_and_through_it(self, tail):
        moved = chain(4, 6, 3, seed=3)
        last = moved.affine(moved.output)
        moved = replace(moved, nodes=(*moved.nodes[:-1], replace(last, bias=last.bias + np.float32(2**-7))))
        found = leo_core.verify(ending(NET, tail), ending(moved, tail), (-1, 1))
        assert found.tail == tail
        assert 0.0078 < found.lower <= found.upper < 0.0079
        assert found.outputs_upper == tails.TAILS[tail].factor * found.upper
        assert found.verdict.startswith(f"before the {tail} that both end in: within 0.0078")
        assert "the outputs themselves: within" in found.verdict
        x = np.random.default_rng(0).uniform(-1, 1, (100, 4))
        apply = tails.TAILS[tail].apply
        assert np.abs(apply(NET.evaluate(x)) - apply(moved.evaluate(x))).max() <= found.outputs_upper * (1 + 1e-9)

    def test_equal_networks_with_equal_tails_are_equal(self):
        assert leo_core.verify(ending(NET, "tanh"), ending(NET, "tanh"), (-1, 1)).verdict == "equal over the reals"

    def test_shapes_that_differ_are_told(self):
        shaped = with_output(NET, shape=(3, 1))
        shaped = replace(shaped, signature=replace(shaped.signature, input_shape=(2, 2)))
        heard = []
        found = leo_core.verify(NET, shaped, (-1, 1), listener=heard.append)
        told = " ".join(event.text for event in heard if not getattr(event, "passing", True))
        assert found.upper == 0
        assert "(2, 2)" in told
        assert "(3, 1)" in told
        assert "flat" in told


@pytest.fixture(scope="module")
def proved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tails")
    net = ending(chain(4, 8, 8, 3, seed=1), "softmax")
    result = leo_core.compress(net, (-1, 1), evidence=True)
    storage.save(net, folder / "old.leo")
    result.export(folder / "new.leo")
    result.certify(folder / "cert", folder / "new.leo")
    return folder


class TestCertificate:
    def test_it_says_what_it_is_about(self, proved):
        report = leo_core.check(proved / "cert", proved / "old.leo", proved / "new.leo")
        assert report.tail == "softmax"
        assert "before the softmax" in lines(report)[-1]

    @pytest.mark.parametrize("tail", ["", "sigmoid", "tanh"])
    def test_another_tail_is_refused(self, proved, tail):
        old, new = (storage.load(proved / name) for name in ("old.leo", "new.leo"))
        for pair in ((old, ending(new, tail)), (ending(old, tail), new), (ending(old, tail), ending(new, tail))):
            with pytest.raises(CertificateError):
                leo_core.check(proved / "cert", *pair)

    @pytest.mark.parametrize("tail", ["", "sigmoid"])
    def test_a_certificate_that_names_both_digests_proves_nothing(self, proved, tail, tmp_path):
        new = ending(storage.load(proved / "new.leo"), tail)
        path = tmp_path / "forged"
        path.write_bytes((proved / "cert").read_bytes())
        mutated(path, lambda content, _: content.update(compressed=new.digest))
        with pytest.raises(CertificateError, match="end in different functions"):
            leo_core.check(path, proved / "old.leo", new)

    @pytest.mark.parametrize("change", [{"tail": ""}, {"tail": "sigmoid"}])
    def test_a_certificate_about_another_tail_is_refused(self, proved, change, tmp_path):
        path = tmp_path / "forged"
        path.write_bytes((proved / "cert").read_bytes())
        mutated(path, lambda content, _: content.update(change))
        with pytest.raises(CertificateError, match="end in"):
            leo_core.check(path, proved / "old.leo", proved / "new.leo")

    def test_one_of_an_earlier_release_is_refused_in_words(self, proved, tmp_path):
        path = tmp_path / "early"
        path.write_bytes((proved / "cert").read_bytes())
        bare = [ending(storage.load(proved / name), "").digest for name in ("old.leo", "new.leo")]

        def earlier(content, _):
            content.pop("tail")
            content.update(original=bare[0], compressed=bare[1])

        mutated(path, earlier)
        with pytest.raises(CertificateError, match=r"says nothing of the softmax.*compress again"):
            leo_core.check(path, proved / "old.leo", proved / "new.leo")

    def test_none_is_written_about_a_file_with_another_tail(self, proved, tmp_path):
        net = ending(chain(4, 8, 8, 3, seed=1), "softmax")
        result = leo_core.compress(net, (-1, 1), evidence=True)
        storage.save(ending(result.network, "sigmoid"), tmp_path / "other.leo")
        with pytest.raises(OutputError, match="sigmoid"):
            result.certify(tmp_path / "c", tmp_path / "other.leo")


def test_the_file_whose_softmax_was_made_a_sigmoid(tmp_path):
    onnx = pytest.importorskip("onnx")
    leo_core.convert(ending(chain(4, 6, 3, seed=3), "softmax"), tmp_path / "softmax.onnx")
    result = leo_core.compress(tmp_path / "softmax.onnx", (-1, 1), evidence=True)
    result.export(tmp_path / "smaller.onnx")
    result.certify(tmp_path / "cert", tmp_path / "smaller.onnx")
    leo_core.check(tmp_path / "cert", tmp_path / "softmax.onnx", tmp_path / "smaller.onnx")
    for kind in ("Sigmoid", "Tanh", "Identity"):
        model = onnx.load(tmp_path / "smaller.onnx")
        node = next(node for node in model.graph.node if node.op_type == "Softmax")
        node.op_type = kind
        del node.attribute[:]
        onnx.save(model, tmp_path / "tampered.onnx")
        with pytest.raises(CertificateError):
            leo_core.check(tmp_path / "cert", tmp_path / "softmax.onnx", tmp_path / "tampered.onnx")
        with pytest.raises(NetworkError, match="cannot be compared"):
            leo_core.verify(tmp_path / "softmax.onnx", tmp_path / "tampered.onnx", (-1, 1))


@pytest.mark.parametrize("suffix", ["onnx", "keras", "pt2", "leo"])
@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("shape", [(), (2, 3)])
def test_a_tail_goes_through_every_format(tail, suffix, shape, tmp_path):
    if suffix == "keras" and find_spec("keras") is None:
        pytest.skip("keras is not installed")
    for package in {"onnx": ("onnx", "onnxruntime"), "pt2": ("torch",)}.get(suffix, ()):
        pytest.importorskip(package)
    net = ending(chain(4, 6, 6, seed=3), tail)
    net = with_output(net, shape=shape)
    path = leo_core.convert(net, tmp_path / f"net.{suffix}")
    x = np.random.default_rng(0).uniform(-1, 1, (5, 4)).astype(np.float32)
    expected = tails.TAILS[tail].apply(net.evaluate(x))
    if suffix == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path))
        seen = session.run(None, {session.get_inputs()[0].name: x})[0]
    elif suffix == "keras":
        from leo_frontends.keras import import_keras

        keras = import_keras()
        seen = np.asarray(keras.ops.convert_to_numpy(keras.models.load_model(path)(x)))
    elif suffix == "pt2":
        import torch

        seen = torch.export.load(path).module()(torch.tensor(x)).detach().numpy()
    else:
        assert storage.load(path).signature.ending == tail
        return
    assert seen.shape == (5, *(shape or (6,)))
    np.testing.assert_allclose(seen.reshape(5, -1), expected, rtol=0, atol=1e-5)
