"""Models with several outputs, in each framework: read, run, written, and refused where they cannot be."""

from __future__ import annotations

import importlib
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

import leo_core
from leo_core import files
from leo_core.errors import DoorError, FormatError, UnsupportedModelError
from leo_core.network import Affine, Network, Output, Relu, Signature
from leo_core.testing.networks import chain, two_heads
from leo_frontends.graph import Graph
from leo_frontends.heads import apart, returned
from leo_frontends.keras import import_keras

RNG = np.random.default_rng(0)
X = RNG.uniform(-1, 1, (5, 4)).astype(np.float32)


def needs(*packages):
    """Skip where one is missing; Keras is imported on whichever of its backends there is."""
    for package in packages:
        if package == "keras":
            if find_spec("keras") is None:
                pytest.skip("keras is not installed")
            import_keras()
        else:
            pytest.importorskip(package)


def parts(network, x):
    """What its outputs are, by name."""
    values = network.signature.finished(network.evaluate(x.reshape(len(x), -1).astype(np.float64)))
    return dict(zip(network.signature.names, values, strict=True))


class TestApart:
    def test_heads_are_the_nodes_they_are(self):
        net = two_heads()
        nodes, names = apart(net)
        assert names == ("head6", "head1", "relu2")
        assert [node.name for node in nodes] == [node.name for node in net.nodes[:-1]]

    def test_a_node_that_is_read_is_kept(self):
        base = chain(3, 4, 2, seed=1)
        tail = Affine(
            "more", (base.output,), (base.affine("dense2").maps[0].select_columns(np.arange(2)),), np.zeros(2)
        )
        outputs = (Output("a", (1,)), Output("b", (1,)))
        net = Network(3, base.nodes, base.output, Signature(outputs=outputs))
        assert tail.size == 2
        nodes, names = apart(net)
        both = Network(3, nodes, names[0])
        x = RNG.normal(size=(5, 3))
        values = both.evaluate_nodes(x)
        np.testing.assert_allclose(np.hstack([values[name] for name in names]), net.evaluate(x))

    def test_names_that_are_numbers_come_in_a_tuple(self):
        first, second = Output("output0", (1,)), Output("output1", (1,))
        assert returned([first, second], [1, 2]) == (1, 2)
        assert returned([first, replace(second, name="b")], [1, 2]) == {"output0": 1, "b": 2}
        assert returned([first], [1]) == 1


@pytest.mark.parametrize("suffix", ["nnet", "pt"])
def test_formats_of_one_output_refuse(suffix, tmp_path):
    if suffix == "pt":
        pytest.importorskip("torch")
    with pytest.raises(UnsupportedModelError, match=r"it has 3 outputs \(scores, value, features\)"):
        leo_core.convert(two_heads(), tmp_path / f"n.{suffix}")
    cut = replace(chain(3, 4, 2), signature=Signature(outputs=(Output("a", (1,)), Output("b", (1,)))))
    with pytest.raises(UnsupportedModelError, match="it has 2 outputs"):
        leo_core.convert(cut, tmp_path / f"n.{suffix}")


EXPORTS = {"onnx": ("onnx", "onnxruntime"), "pt2": ("torch",), "keras": ("keras", "torch"), "h5": ("keras", "torch")}


@pytest.mark.parametrize("suffix", EXPORTS)
def test_a_result_is_exported_and_compares_equal(suffix, tmp_path):
    needs(*EXPORTS[suffix])
    net = two_heads()
    result = leo_core.compress(net, (0, 1), evidence=True)
    written = result.written(tmp_path / f"n.{suffix}")
    assert written.door == "agrees"
    back = files.read(written.path)[0].network
    assert back.signature.outputs == net.signature.outputs
    assert leo_core.verify(net, written.path, (0, 1)).upper <= result.deviation
    result.certify(tmp_path / "c", written.path)
    leo_core.check(tmp_path / "c", net, written.path)


@pytest.mark.parametrize("framework", ["onnx", "torch", "keras"])
def test_written_heads_that_are_exchanged_are_withdrawn(framework, monkeypatch, tmp_path):
    needs(framework)
    base = two_heads()
    outputs = tuple(Output(name, (6,)) for name in ("a", "b"))
    net = replace(
        base, nodes=(*base.nodes[:-1], replace(base.affine("outputs"), name="whole")), output="whole",
        signature=Signature("input", (4,), outputs),
    )  # fmt: skip
    where = "channels_last" if framework == "keras" else f"{framework}.write"
    module = importlib.import_module(f"leo_frontends.{where}")
    right = module.apart

    def exchanged(network):
        nodes, names = right(network)
        return nodes, names[::-1]

    monkeypatch.setattr(module, "apart", exchanged)
    suffix = {"onnx": "onnx", "torch": "pt2", "keras": "keras"}[framework]
    with pytest.raises(DoorError, match=r"withdrawn.*as output 'a'\[\d\]"):
        leo_core.convert(net, tmp_path / f"n.{suffix}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", ["onnx", "keras"])
def test_heads_that_are_read_in_another_order_are_caught(suffix, monkeypatch, tmp_path):
    needs(*EXPORTS[suffix])
    base = two_heads()
    outputs = (Output("a", (6,)), Output("b", (6,)))
    net = replace(base, signature=Signature("input", (4,), outputs))
    path = leo_core.convert(net, tmp_path / f"n.{suffix}")
    right = Graph._beside
    monkeypatch.setattr(Graph, "_beside", lambda self, origin, values: right(self, origin, values[::-1]))
    with pytest.raises(DoorError, match=r"LEO has misread this model.*as output 'a'\[\d\]"):
        files.read(path, domain=(0, 1))


class TestOnnx:
    @pytest.fixture(autouse=True)
    def onnx(self):
        self.onnx = pytest.importorskip("onnx")
        pytest.importorskip("onnxruntime")

    def model(self, nodes, outputs, batch="N", opset=17, weights=None):
        helper = self.onnx.helper
        held = {
            "W": RNG.normal(size=(4, 6)),
            "V": RNG.normal(size=(6, 6)),
            "U": RNG.normal(size=(6, 1)),
            **(weights or {}),
        }
        tensors = [self.onnx.numpy_helper.from_array(np.asarray(a, "f4") if a.dtype.kind == "f" else a, name)
                   for name, a in ((n, np.asarray(a)) for n, a in held.items())]  # fmt: skip
        made = [helper.make_node(kind, ins, outs, **attributes) for kind, ins, outs, attributes in nodes]
        info = helper.make_tensor_value_info
        graph = helper.make_graph(
            made, "g", [info("x", 1, [batch, 4])], [info(name, 1, shape) for name, shape in outputs], tensors
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)

    TRUNK = (("MatMul", ["x", "W"], ["z"], {}), ("Relu", ["z"], ["h"], {}))

    def read(self, nodes, outputs, **options):
        imported, _ = files.read(self.model((*self.TRUNK, *nodes), outputs, **options), domain=(-1, 1))
        assert imported.door == "agrees"
        return imported.network

    def test_each_with_a_tail_of_its_own(self):
        net = self.read(
            (
                ("MatMul", ["h", "V"], ["v"], {}), ("MatMul", ["h", "U"], ["u"], {}),
                ("Softmax", ["v"], ["p"], {}), ("Tanh", ["u"], ["t"], {}), ("Identity", ["v"], ["logits"], {}),
            ),
            [("t", ["N", 1]), ("logits", ["N", 6]), ("p", ["N", 6])],
        )  # fmt: skip
        assert net.signature.outputs == (
            Output("t", (1,), "tanh"), Output("logits", (6,)), Output("p", (6,), "softmax")
        )  # fmt: skip

    def test_inner_nodes_the_input_and_one_tensor_twice(self, tmp_path):
        net = self.read(
            (("Identity", ["h"], ["again"], {}), ("MatMul", ["h", "V"], ["v"], {}), ("Identity", ["x"], ["same"], {})),
            [("h", ["N", 6]), ("v", ["N", 6]), ("again", ["N", 6]), ("same", ["N", 4]), ("z", ["N", 6])],
        )
        assert net.signature.names == ("h", "v", "again", "same", "z")
        found = parts(net, X)
        assert (found["h"] == found["again"]).all()
        assert (found["h"] == np.maximum(found["z"], 0)).all()
        assert (found["same"] == X).all()
        result = leo_core.compress(net, (-1, 1), evidence=True)
        for suffix, package in (("onnx", "onnx"), ("pt2", "torch"), ("keras", "keras"), ("leo", "numpy")):
            needs(package)
            path = result.export(tmp_path / f"n.{suffix}")
            assert leo_core.verify(net, path, (-1, 1)).upper <= result.deviation
            result.certify(tmp_path / "c", path)
            leo_core.check(tmp_path / "c", net, path)

    def test_the_input_itself_is_an_output(self, tmp_path):
        net = self.read((("MatMul", ["h", "U"], ["u"], {}),), [("x", ["N", 4]), ("u", ["N", 1])])
        assert net.signature.names == ("x", "u")
        path = leo_core.convert(net, tmp_path / "n.onnx")
        assert files.read(path)[0].network.signature.names == ("x", "u")

    def test_orders_are_kept(self):
        nodes = (("MatMul", ["h", "V"], ["v"], {}), ("MatMul", ["h", "U"], ["u"], {}))
        outputs = [("v", ["N", 6]), ("u", ["N", 1]), ("h", ["N", 6])]
        nets = [self.read(nodes, outputs[i:] + outputs[:i]) for i in range(3)]
        assert [net.signature.names for net in nets] == [("v", "u", "h"), ("u", "h", "v"), ("h", "v", "u")]
        assert len({net.digest for net in nets}) == 3

    @pytest.mark.parametrize("batch", ["N", 1, 2])
    def test_boxes_in_reshapes_that_shapes_compute(self, batch, tmp_path):
        """As exporters write it: Shape, Gather, Unsqueeze, Concat, Reshape, and a softmax along the last axis."""
        net = self.read(
            (
                ("MatMul", ["h", "V"], ["v"], {}), ("Shape", ["v"], ["s"], {}), ("Gather", ["s", "zero"], ["n"], {}),
                ("Unsqueeze", ["n", "axes"], ["n1"], {}), ("Concat", ["n1", "rest"], ["to"], {"axis": 0}),
                ("Reshape", ["v", "to"], ["r"], {}), ("Softmax", ["r"], ["scores"], {"axis": 2}),
                ("MatMul", ["h", "U"], ["u"], {}),
            ),
            [("scores", [batch, 3, 2]), ("u", [batch, 1])],
            batch=batch,
            weights={"zero": np.array(0), "axes": np.array([0]), "rest": np.array([-1, 2])},
        )  # fmt: skip
        assert net.signature.outputs == (Output("scores", (3, 2), "softmax", 1), Output("u", (1,)))
        for suffix in ("onnx", "pt2", "keras"):
            needs({"pt2": "torch"}.get(suffix, suffix))
            path = leo_core.convert(net, tmp_path / f"n.{suffix}")
            assert files.read(path)[0].network.signature.outputs == net.signature.outputs

    @pytest.mark.parametrize(("tail", "opset"), [("Softmax", 11), ("LogSoftmax", 13), ("Softmax", 17)])
    @pytest.mark.parametrize("axis", [1, 2])
    def test_a_softmax_along_any_axis(self, tail, opset, axis, tmp_path):
        nodes = (("MatMul", ["h", "V"], ["v"], {}), ("Reshape", ["v", "to"], ["r"], {}),
                 (tail, ["r"], ["p"], {"axis": axis}))  # fmt: skip
        net = self.read(nodes, [("p", ["N", 3, 2])], opset=opset, weights={"to": np.array([-1, 3, 2])})
        (output,) = net.signature.outputs
        assert output.axis == (None if opset < 13 and axis == 1 else axis - 1)
        for suffix in ("onnx", "pt2", "keras", "leo"):
            needs({"pt2": "torch", "leo": "numpy"}.get(suffix, suffix))
            path = leo_core.convert(net, tmp_path / f"n.{suffix}")
            assert files.read(path)[0].network.signature.functions == net.signature.functions

    def test_constants_for_an_output(self):
        net = self.read((("Expand", ["c", "to"], ["e"], {}),), [("e", [2, 3]), ("h", [2, 6])], batch=2,
                        weights={"c": np.array([[1.0, 2.0, 3.0]]), "to": np.array([2, 3])})  # fmt: skip
        assert (parts(net, X)["e"] == [1, 2, 3]).all()

    def test_outputs_that_are_no_rows_or_none(self):
        with pytest.raises(UnsupportedModelError, match=r"the output 't', of shape .* is not one row"):
            self.read((("Transpose", ["h"], ["t"], {}),), [("h", ["N", 6]), ("t", [6, "N"])])
        with pytest.raises(FormatError, match="two tensors are named 'h'"):
            self.read((), [("h", ["N", 6]), ("h", ["N", 6])])
        with pytest.raises(FormatError, match="no node computes the output 'q'"):
            self.read((), [("h", ["N", 6]), ("q", ["N", 6])])
        with pytest.raises(UnsupportedModelError, match="one at the end"):
            self.read(
                (("Sigmoid", ["h"], ["s"], {}), ("Add", ["s", "h"], ["a"], {})), [("s", ["N", 6]), ("a", ["N", 6])]
            )


RETURNED = {
    "tuple": (lambda x, h, a, b: (a, b.sigmoid()), ("output0", "output1"), tuple),
    "list": (lambda x, h, a, b: [a.view(-1, 3, 2).softmax(-1), b], ("output0", "output1"), tuple),
    "dict": (lambda x, h, a, b: {"z": b.tanh(), "y": a}, ("z", "y"), dict),
    "nested": (lambda x, h, a, b: (a, {"q": [b, h]}), ("output0", "output1", "output2"), tuple),
    "the same twice": (lambda x, h, a, b: (h, h), ("output0", "output1"), tuple),
    "the input": (lambda x, h, a, b: (x, a, x), ("output0", "output1", "output2"), tuple),
    "parts of one": (lambda x, h, a, b: (a[:, 1:], a[:, :1]), ("output0", "output1"), tuple),
    "scalars": (lambda x, h, a, b: (b[:, 0], a), ("output0", "output1"), tuple),
}


class TestTorch:
    @pytest.fixture(autouse=True)
    def torch(self):
        self.torch = pytest.importorskip("torch")

    def module(self, give):
        torch = self.torch
        torch.manual_seed(0)

        class Model(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.trunk, self.one, self.two = (torch.nn.Linear(*s) for s in ((4, 6), (6, 6), (6, 1)))

            def forward(self, x):
                h = torch.relu(self.trunk(x))
                return give(x, h, self.one(h), self.two(h))

        return Model().eval()

    @pytest.mark.parametrize("case", RETURNED)
    def test_what_a_module_returns(self, case, tmp_path):
        torch = self.torch
        give, names, container = RETURNED[case]
        module = self.module(give)
        result = leo_core.compress(module, (-1, 1))
        assert result.door == "agrees"
        assert result.network.signature.names == names
        smaller = result.model
        was, now = (torch.utils._pytree.tree_leaves(m(torch.tensor(X))) for m in (module, smaller))
        assert isinstance(smaller(torch.tensor(X)), container)
        for first, second in zip(was, now, strict=True):
            np.testing.assert_allclose(first.detach().reshape(5, -1), second.detach().reshape(5, -1), atol=1e-5)
        free = ({0: torch.export.Dim("batch")},)
        exported = torch.export.export(module, (torch.zeros(2, 4),), dynamic_shapes=free)
        torch.export.save(exported, tmp_path / "n.pt2")
        again = files.read(tmp_path / "n.pt2")[0].network
        assert again.signature.outputs == result.network.signature.outputs
        assert leo_core.verify(exported, tmp_path / "n.pt2", (-1, 1)).upper == 0
        back = files.read(result.export(tmp_path / "m.pt2"))[0].network
        assert back.signature.outputs == again.signature.outputs

    @pytest.mark.parametrize("also", [None, 3])
    def test_what_is_no_tensor_is_refused(self, also):
        with pytest.raises(UnsupportedModelError, match=f"it returns {also}"):
            leo_core.analyze(self.module(lambda x, h, a, b: (a, also)), (-1, 1))

    def test_a_list_is_said_to_become_a_tuple(self):
        notes = leo_core.compress(self.module(lambda x, h, a, b: [a, b]), (-1, 1), time_limit=0).notes
        assert any("returns its outputs in a list" in note for note in notes)


GIVEN_BY_KERAS = {
    "list": (lambda k, x, h, a, b: [k.Softmax()(a), k.Activation("tanh")(b)], ("output0", "output1")),
    "dict": (lambda k, x, h, a, b: {"z": a, "y": k.Activation("sigmoid")(b)}, ("z", "y")),
    "nested": (lambda k, x, h, a, b: {"l": [b, h], "a": a}, ("output0", "output1", "output2")),
    "the same twice": (lambda k, x, h, a, b: [h, a, h], ("output0", "output1", "output2")),
    "the input": (lambda k, x, h, a, b: [x, b], ("output0", "output1")),
    "axes": (lambda k, x, h, a, b: [k.Softmax(1)(k.Reshape((3, 2))(a)), b], ("output0", "output1")),
    "one": (lambda k, x, h, a, b: {"only": a}, ("output",)),
}


class TestKeras:
    @pytest.fixture(autouse=True)
    def keras(self):
        needs("keras")
        self.keras = import_keras()

    def model(self, give):
        layers = self.keras.layers
        self.keras.utils.set_random_seed(0)
        x = self.keras.Input((4,))
        h = layers.Dense(6, "relu")(x)
        return self.keras.Model(x, give(layers, x, h, layers.Dense(6)(h), layers.Dense(1)(h)))

    @pytest.mark.parametrize("case", GIVEN_BY_KERAS)
    def test_what_a_model_gives(self, case, tmp_path):
        give, names = GIVEN_BY_KERAS[case]
        model = self.model(give)
        result = leo_core.compress(model, (-1, 1))
        assert result.door == "agrees"
        assert result.network.signature.names == names
        was, now = (m(X, training=False) for m in (model, result.model))
        if case in ("list", "dict"):
            assert type(was) is type(now)
        flat = self.keras.tree.flatten
        if case != "nested":
            for first, second in zip(flat(was), flat(now), strict=True):
                first, second = (np.asarray(self.keras.ops.convert_to_numpy(t)).reshape(5, -1) for t in (first, second))
                np.testing.assert_allclose(first, second, atol=1e-5)
        model.save(tmp_path / "n.keras")
        imported = files.read(tmp_path / "n.keras")[0]
        assert imported.door == "agrees"
        assert imported.network.signature.outputs == result.network.signature.outputs
        for suffix in ("keras", "h5"):
            back = files.read(result.export(tmp_path / f"m.{suffix}"))[0].network
            assert back.signature.outputs == imported.network.signature.outputs

    def test_several_inputs_stay_refused(self):
        first, second = self.keras.Input((2,)), self.keras.Input((2,))
        added = self.keras.layers.Add()([first, second])
        with pytest.raises(UnsupportedModelError, match="2 inputs and 2 outputs; LEO reads models with one input"):
            leo_core.analyze(self.keras.Model([first, second], [added, first]), (-1, 1))


def test_a_relu_as_the_whole_value_cut_into_outputs(tmp_path):
    base = chain(3, 5, 4, relu_last=True)
    assert isinstance(base[base.output], Relu)
    net = replace(base, signature=Signature("x", (3,), (Output("a", (3,)), Output("b", (1,), "sigmoid"))))
    for suffix, package in (("onnx", "onnx"), ("pt2", "torch"), ("keras", "keras"), ("leo", "numpy")):
        needs(package)
        path = leo_core.convert(net, tmp_path / f"n.{suffix}")
        assert leo_core.verify(net, path, (-1, 1)).upper == 0
