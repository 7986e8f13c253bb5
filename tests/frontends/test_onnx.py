"""ONNX: against onnxruntime, the traps of real files, and what must be refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from strategies import networks

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from leo_core import files  # noqa: E402
from leo_core.errors import DoorError, FormatError, LeoError, UnsupportedModelError  # noqa: E402
from leo_core.testing.networks import NETWORKS, chain, two_heads  # noqa: E402, two_heads
from leo_frontends import lowering  # noqa: E402
from leo_frontends.onnx import read_file, read_live_model, write_file, write_live_model  # noqa: E402
from leo_frontends.onnx.lowerings import LOWERINGS  # noqa: E402
from leo_frontends.onnx.reference import reference  # noqa: E402

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def numbers_that_do_not_depend_on_other_tests():
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state


def weight(*shape, dtype=np.float32):
    return (RNG.integers(-32, 33, shape) / 16).astype(dtype)


def model(nodes, weights, shape_in, shape_out, dtype=np.float32, opset=17):
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", kind, shape_in)], [helper.make_tensor_value_info("y", kind, shape_out)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(made)
    return made


def node(kind, inputs, output, **attributes):
    return helper.make_node(kind, inputs.split(), [output], **attributes)


def run(made, x):
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def assert_same(made, shape, dtype=np.float32, tolerance=1e-4):
    """LEO's reading and onnxruntime agree on a few random inputs of the model's own shape."""
    network = read_live_model(made).network
    for _ in range(5):
        x = RNG.standard_normal(shape).astype(dtype)
        want = run(made, x).reshape(-1, network.output_size)
        got = network.evaluate(x.reshape(-1, network.input_size), dtype)
        assert np.allclose(got, want, rtol=tolerance, atol=tolerance)
    return network


DENSE = {"W": weight(3, 4), "b": weight(4), "V": weight(4, 2), "c": weight(2)}


def test_matmul_add_relu():
    nodes = [node("MatMul", "x W", "a"), node("Add", "a b", "z"), node("Relu", "z", "h"), node("MatMul", "h V", "p"),
             node("Add", "c p", "y")]  # fmt: skip
    network = assert_same(model(nodes, DENSE, ["n", 3], ["n", 2]), (2, 3))
    assert network.widths == (3, 4, 2)


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (0.5, 2.0)])
def test_gemm(transposed, alpha, beta):
    weights = {**DENSE, "W": DENSE["W"].T.copy() if transposed else DENSE["W"]}
    nodes = [node("Gemm", "x W b", "z", transB=transposed, alpha=alpha, beta=beta), node("Relu", "z", "h"),
             node("Gemm", "h V", "y")]  # fmt: skip
    assert_same(model(nodes, weights, ["n", 3], ["n", 2]), (2, 3))


def test_a_relu_on_the_output():
    nodes = [node("Gemm", "x W b", "z"), node("Relu", "z", "y")]
    network = assert_same(model(nodes, DENSE, ["n", 3], ["n", 4]), (2, 3))
    assert network.widths == (3, 4)


def test_a_zero_subtracted_first_and_a_scale():
    weights = {**DENSE, "m": np.zeros(3, np.float32), "s": np.array([0.5, 2, 4], np.float32), "d": np.float32(2)}
    nodes = [node("Sub", "x m", "x1"), node("Mul", "x1 s", "x2"), node("Div", "x2 d", "x3"),
             node("Gemm", "x3 W b", "z"), node("Relu", "z", "y")]  # fmt: skip
    assert_same(model(nodes, weights, ["n", 3], ["n", 4]), (2, 3))


@pytest.mark.parametrize("shape", [[1, 1, 1, 6], [1, 6, 1], [7, 6], [1, 2, 3], [1, 1, 2, 3]])
def test_inputs_of_odd_shapes(shape):
    weights = {"W": weight(6, 4), "b": weight(4)}
    nodes = [node("Flatten", "x", "f", axis=1), node("Gemm", "f W b", "z"), node("Relu", "z", "y")]
    network = assert_same(model(nodes, weights, shape, [shape[0], 4]), shape)
    assert network.input_size == 6


def test_column_major_images():
    weights = {"W": weight(6, 4), "b": weight(4), "s": np.array([1, 6], np.int64)}
    nodes = [node("Transpose", "x", "t", perm=[0, 2, 1]), node("Reshape", "t s", "f"), node("Gemm", "f W b", "z"),
             node("Relu", "z", "y")]  # fmt: skip
    assert_same(model(nodes, weights, [1, 2, 3], [1, 4]), (1, 2, 3))


def test_consecutive_affine_layers_and_pass_through_nodes():
    nodes = [node("Gemm", "x W b", "a"), node("Identity", "a", "a1"), node("Gemm", "a1 V c", "z"),
             node("Dropout", "z", "d"), node("Relu", "d", "y")]  # fmt: skip
    network = assert_same(model(nodes, DENSE, ["n", 3], ["n", 2]), (2, 3))
    assert network.widths == (3, 2)


def test_float64_weights_stay_float64():
    weights = {name: array.astype(np.float64) / 3 for name, array in DENSE.items()}
    nodes = [node("Gemm", "x W b", "z"), node("Relu", "z", "h"), node("Gemm", "h V c", "y")]
    network = assert_same(model(nodes, weights, ["n", 3], ["n", 2], np.float64), (2, 3), np.float64, 1e-12)
    assert network.dtype == np.float64


def test_tiny_weights_are_kept():
    weights = {name: array * np.float32(1e-6) for name, array in DENSE.items()}
    nodes = [node("Gemm", "x W b", "z"), node("Relu", "z", "h"), node("Gemm", "h V c", "y")]
    network = read_live_model(model(nodes, weights, ["n", 3], ["n", 2])).network
    assert (network.affine(network.nodes[0].name).bias == weights["b"]).all()


def test_batch_normalisation_is_folded_with_its_import_deviation():
    weights = {**DENSE, "g": weight(4), "be": weight(4), "m": weight(4), "v": np.abs(weight(4)) + np.float32(0.5)}
    nodes = [node("Gemm", "x W b", "z"), node("BatchNormalization", "z g be m v", "n", epsilon=1e-3),
             node("Relu", "n", "y")]  # fmt: skip
    made = model(nodes, weights, ["n", 3], ["n", 4])
    assert_same(made, (2, 3))
    assert read_live_model(made).rounding


def test_a_residual_sum_and_a_leaky_relu():
    weights = {"W": weight(3, 3), "b": weight(3)}
    nodes = [node("Gemm", "x W b", "z"), node("LeakyRelu", "z", "h", alpha=0.125), node("Add", "h x", "y")]
    assert_same(model(nodes, weights, ["n", 3], ["n", 3]), (2, 3))


@pytest.mark.parametrize(
    ("kind", "inputs", "constants"),
    [
        ("Clip", "h low high", {"low": np.float32(0), "high": np.float32(6)}),
        ("Clip", "h low high", {"low": np.float32(-0.5), "high": np.float32(0.75)}),
        ("Clip", "h low", {"low": np.float32(-0.5)}),
        ("Clip", "h  high", {"high": np.float32(0.5)}),
        ("Abs", "h", {}),
        ("Neg", "h", {}),
        ("Max", "h g", {}),
        ("Max", "h k", {"k": np.float32([0.5, -1, 0, 2])}),
        ("Min", "h g", {}),
        ("Min", "h k g", {"k": np.float32([0.5, -1, 0, 2])}),
        ("Add", "h h", {}),
        ("Sub", "h h", {}),
        ("Sub", "k h", {"k": np.float32([0.5, -1, 0, 2])}),
    ],
)
def test_what_is_lowered_into_affine_maps_and_relus(kind, inputs, constants):
    nodes = [node("Gemm", "x W b", "h"), node("Gemm", "x U b", "g"),
             helper.make_node(kind, inputs.split(" "), ["t"]), node("Gemm", "t V c", "y")]  # fmt: skip
    made = model(nodes, {**DENSE, "U": weight(3, 4), **constants}, ["n", 3], ["n", 2])
    network = assert_same(made, (5, 3))
    imported = read_live_model(made)
    stand_ins = 4 * {"Clip": len(constants), "Abs": 1, "Max": 1, "Min": inputs.count(" ")}.get(kind, 0)
    assert network.units == stand_ins
    assert any("ReLU" in note for note in imported.notes) == bool(stand_ins)


@pytest.mark.parametrize(
    ("kind", "inputs", "attributes"),
    [
        ("Clip", "h half half", {}),
        ("Clip", "h two half", {}),
        ("Pow", "h ones", {}),
        ("CastLike", "h half", {}),
        ("CastLike", "h h", {}),
        ("ThresholdedRelu", "h", {"alpha": 0.0}),
        ("Shrink", "h", {"lambd": 0.25, "bias": 0.25}),
        ("Shrink", "h", {"lambd": 0.0}),
        ("ReduceL1", "h last", {"keepdims": 0}),
        ("ReduceL1", "h", {"noop_with_empty_axes": 1}),
    ],
)
def test_special_cases_that_are_affine_and_relu(kind, inputs, attributes):
    constants = {"half": np.float32(0.5), "two": np.float32(2), "ones": np.ones((1, 4), np.float32),
                 "last": np.array([1])}  # fmt: skip
    used = {name: constants[name] for name in inputs.split() if name in constants}
    nodes = [node("Gemm", "x W b", "h"), node(kind, inputs, "y", **attributes)]
    shape = ["n"] if "keepdims" in attributes else ["n", 4]
    assert_same(model(nodes, {"W": DENSE["W"], "b": DENSE["b"], **used}, ["n", 3], shape, opset=18), (5, 3))


@pytest.mark.parametrize(
    ("kind", "inputs", "attributes", "says"),
    [
        ("Pow", "h two", {}, "a power has no affine"),
        ("ThresholdedRelu", "h", {}, "it jumps"),
        ("Shrink", "h", {"lambd": 0.25}, "it jumps"),
        ("CastLike", "h whole", {}, "use Cast"),
        ("TopK", "h one", {}, "sorting is not read"),
    ],
)
def test_the_same_operators_where_they_are_not(kind, inputs, attributes, says):
    constants = {"two": np.float32(2), "whole": np.array(1), "one": np.array([1])}
    used = {name: constants[name] for name in inputs.split() if name in constants}
    outputs = ["y", "places"] if kind == "TopK" else ["y"]
    nodes = [node("Gemm", "x W b", "h"), helper.make_node(kind, inputs.split(), outputs, **attributes)]
    with pytest.raises(UnsupportedModelError, match=says):
        read_live_model(model(nodes, {"W": DENSE["W"], "b": DENSE["b"], **used}, ["n", 3], ["n", None], opset=18))


@pytest.mark.parametrize("opset", [7, 9, 11, 12, 13, 14, 18])
@pytest.mark.parametrize(
    ("kind", "attributes"),
    [("BatchNormalization", {}), ("BatchNormalization", {"epsilon": 0.25}), ("Softmax", {}), ("Softmax", {"axis": 2}),
     ("LogSoftmax", {}), ("LogSoftmax", {"axis": -1})],
)  # fmt: skip
def test_the_reference_implementation_obeys_the_models_opset(kind, attributes, opset):
    statistics = {name: np.abs(weight(3)) + np.float32(0.5) for name in "smbv"} if kind[0] == "B" else {}
    made = model([node(kind, " ".join(["x", *statistics]), "y", **attributes)], statistics, [2, 3, 4], [2, 3, 4],
                 opset=opset)  # fmt: skip
    x = RNG.standard_normal((2, 3, 4)).astype(np.float32)
    assert np.allclose(reference(made)({"x": x})[0], run(made, x), atol=1e-6)


def test_the_layer_where_the_runtime_and_the_reading_part_is_named(monkeypatch, tmp_path):
    nodes = [node("Gemm", "x W b", "z"), node("Transpose", "z", "t"), node("Relu", "t", "r"),
             node("Transpose", "r", "u"), node("Gemm", "u V c", "y")]  # fmt: skip
    made = model(nodes, DENSE, ["n", 3], ["n", 2])
    onnx.save(made, tmp_path / "m.onnx")
    leaky = lambda graph, op, inputs: lowering.relu(graph, op.origin, inputs[0], 0.125)  # noqa: E731
    monkeypatch.setitem(LOWERINGS, "Relu", leaky)
    for source in (made, str(tmp_path / "m.onnx")):
        with pytest.raises(DoorError, match="the layers part at 'r'"):
            files.read(source)


def everything(opset):
    """Every operator that is read, in the form it has at an opset: attributes became inputs over the years."""
    ints = {"to6": [0, 6], "one": [1], "two": [2], "from1": [1], "to4": [4], "pick": [3, 0, 1, 2]}
    ints = {name: np.array(value, np.int64) for name, value in ints.items()}
    floats = {"W": weight(6, 4), "b": weight(4), "S": np.float32([0.5, 2, -1, 4]), "low": np.float32(-1),
              "high": np.float32(2), "P": np.abs(weight(4)) / 4, "g": weight(4), "be": weight(4), "m": weight(4),
              "v": np.abs(weight(4)) + np.float32(0.5), "R": weight(7, 3), "c": weight(3),
              "U": weight(4, 4)}  # fmt: skip

    def since(version, name, given, out, constants=(), **attributes):
        """Constants as inputs from ``version`` on, as attributes before."""
        if opset >= version:
            return node(name, " ".join([given, *constants]), out)
        return node(name, given, out, **attributes)

    nodes = [
        node("Flatten", "x", "f0"), node("Reshape", "f0 to6", "f"), node("Gemm", "f W b", "a"), node("Mul", "a S", "s"),
        node("Div", "s two_f", "d"), node("Relu", "d", "r"), node("LeakyRelu", "r", "l", alpha=0.25),
        node("PRelu", "a P", "p"), node("Sub", "l p", "q"),
        since(11, "Clip", "q", "k", ["low", "high"], min=-1.0, max=2.0),
        node("Abs", "a", "abs"), node("Neg", "abs", "n"), node("Identity", "n", "i"), node("Dropout", "i", "o"),
        node("BatchNormalization", "k g be m v", "bn", epsilon=1e-3),
        since(13, "Unsqueeze", "bn", "u", ["two"], axes=[2]), node("Transpose", "u", "t", perm=[0, 2, 1]),
        since(13, "Squeeze", "t", "w", ["one"], axes=[1]), node("Gather", "w pick", "ga", axis=1),
        node("MatMul", "ga U", "mm"), node("Add", "mm o", "ad"), node("Sum", "ad k a", "su"),
        node("Cast", "su", "ca", to=1),
        since(10, "Slice", "ca", "sl", ["from1", "to4", "one"], starts=[1], ends=[4], axes=[1]),
        node("Concat", "sl a", "cc", axis=1), node("Gemm", "cc R c", "z"), node("Softmax", "z", "y", axis=1),
    ]  # fmt: skip
    if opset >= 8:
        nodes[-1:] = [node("Max", "z c", "mx"), node("Min", "mx z", "mi"), node("LogSoftmax", "mi", "y", axis=1)]
    return model(nodes, {**floats, **ints, "two_f": np.float32(2)}, ["n", 2, 3], ["n", 3], opset=opset)


@pytest.mark.parametrize("opset", range(7, onnx.defs.onnx_opset_version() + 1))
def test_every_opset(opset):
    made = everything(opset)
    network = read_live_model(made).network
    x = RNG.standard_normal((5, 2, 3)).astype(np.float32)
    try:
        want = run(made, x)
    except Exception as error:  # onnxruntime trails the newest opset
        if "opset" not in str(error) and "not implemented" not in str(error).lower():
            raise
        pytest.skip(f"onnxruntime does not run opset {opset}")
    assert np.allclose(run(write_live_model(network), x), want, rtol=1e-4, atol=1e-4)


def test_picking_a_batchs_examples_is_refused():
    nodes = [node("Slice", "x from to axes", "s"), node("Gemm", "s W b", "y")]
    weights = {**DENSE, "from": np.array([1]), "to": np.array([2]), "axes": np.array([0])}
    with pytest.raises(UnsupportedModelError, match="every example of a batch"):
        read_live_model(model(nodes, weights, ["n", 3], ["n", 4]))


@pytest.mark.parametrize(("start", "end", "step"), [(0, 2**62, 1), (-3, -1, 1), (-1, -(2**62), -1), (4, 0, -2)])
def test_slices(start, end, step):
    ends = {name: np.array([v], np.int64) for name, v in {"from": start, "to": end, "axis": -1, "step": step}.items()}
    count = len(range(5)[start:end:step])
    nodes = [node("Slice", "x from to axis step", "s"), node("Gemm", "s W", "y")]
    assert_same(model(nodes, {**ends, "W": weight(count, 2)}, ["n", 5], ["n", 2]), (3, 5))


def test_gemm_is_written_with_alpha_and_beta():
    """OMLT reads them without asking whether they are there."""
    made = write_live_model(chain(3, 4, 2))
    gemms = [made_node for made_node in made.graph.node if made_node.op_type == "Gemm"]
    assert len(gemms) == 2
    for gemm in gemms:
        assert {a.name: a.f for a in gemm.attribute if a.name in ("alpha", "beta")} == {"alpha": 1.0, "beta": 1.0}


@pytest.mark.parametrize("kind", ["Softmax", "LogSoftmax", "Sigmoid", "Tanh"])
def test_a_tail_stays_outside(kind):
    made = model([node("Gemm", "x W b", "z"), node(kind, "z", "y")], DENSE, ["n", 3], ["n", 4])
    imported = read_live_model(made)
    tail = {"LogSoftmax": "log_softmax"}.get(kind, kind.lower())
    assert imported.network.signature.ending == tail
    assert tail in imported.notes[-1]
    x = RNG.standard_normal((5, 3)).astype(np.float32)
    assert np.allclose(run(write_live_model(imported.network), x), run(made, x), atol=1e-6)


def test_external_weights(tmp_path):
    nodes = [node("Gemm", "x W b", "z"), node("Relu", "z", "h"), node("Gemm", "h V c", "y")]
    made = model(nodes, DENSE, ["n", 3], ["n", 2])
    inline = read_live_model(made).network
    path = tmp_path / "m.onnx"
    onnx.save(made, path, save_as_external_data=True, all_tensors_to_one_file=True, location="w.bin", size_threshold=0)
    assert read_file(path).network == inline
    (tmp_path / "w.bin").unlink()
    with pytest.raises(LeoError, match=r"m\.onnx"):
        read_file(path)


@pytest.mark.parametrize("make", [make for make in NETWORKS if make is not two_heads])
def test_written_models_run_in_onnxruntime(make, tmp_path):
    network = make()
    path = tmp_path / "n.onnx"
    write_file(network, path)
    made = onnx.load(path)
    onnx.checker.check_model(made, full_check=True)
    shape = network.signature.input_shape or (network.input_size,)
    x = RNG.standard_normal((3, *shape)).astype(network.dtype)
    want = network.evaluate(x.reshape(3, -1), network.dtype)
    assert np.allclose(run(made, x).reshape(3, -1), want, rtol=1e-4, atol=1e-4)
    assert run(made, x[:1]).shape[0] == 1


@given(networks())
def test_any_network_written_runs_the_same(network):
    made = write_live_model(network)
    x = RNG.standard_normal((2, network.input_size)).astype(network.dtype)
    assert np.allclose(run(made, x), network.evaluate(x, network.dtype), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seed", range(200))
def test_graphs_in_which_any_tensor_may_be_read_again(seed):
    rng = np.random.default_rng(seed)
    nodes, names, constants = [], ["x"], {}

    def constant(*shape):
        constants[f"c{len(constants)}"] = (rng.integers(-32, 33, shape) / 16).astype(np.float32)
        return list(constants)[-1]

    def some():
        return names[-int(rng.integers(1, 1 + min(3, len(names))))]

    for k in range(12):
        kind = str(rng.choice(["MatMul", "MatMul", "Gemm", "Add", "Add", "Add", "Sub", "from", "Mul", "both", "Relu",
                               "Clip", "Identity", "Dropout", "Flatten", "Cast", "Reshape"]))  # fmt: skip
        if kind in ("MatMul", "Gemm"):
            made = node(kind, f"{some()} {constant(3, 3)}", f"t{k}")
        elif kind in ("Add", "Sub", "Mul"):
            made = node(kind, f"{some()} {constant(3)}", f"t{k}")
        elif kind == "from":
            made = node("Sub", f"{constant(3)} {some()}", f"t{k}")
        elif kind == "both":
            made = node("Add", f"{some()} {some()}", f"t{k}")
        elif kind == "Clip":
            constants |= {"low": np.float32(-0.5), "high": np.float32(1.5)}
            made = node(kind, f"{some()} low high", f"t{k}")
        elif kind == "Reshape":
            constants["shape"] = np.array([0, 3])
            made = node(kind, f"{some()} shape", f"t{k}")
        else:
            made = node(kind, some(), f"t{k}", **({"to": TensorProto.FLOAT} if kind == "Cast" else {}))
        nodes.append(made)
        names.append(f"t{k}")
    nodes.append(node("Sum", " ".join(names[-3:]), "y"))
    assert_same(model(nodes, constants, ["n", 3], ["n", 3]), (2, 3))


def test_a_matrix_read_again_behind_an_alias_does_not_get_the_bias():
    nodes = [node("MatMul", "x W", "a"), node("Dropout", "a", "d"), node("Add", "d b", "s"), node("Relu", "s", "h"),
             node("Add", "h a", "y")]  # fmt: skip
    network = assert_same(model(nodes, {"W": weight(3, 4), "b": weight(4)}, ["n", 3], ["n", 4]), (2, 3))
    assert [type(n).__name__ for n in network.nodes] == ["Affine", "Affine", "Relu", "Affine"]


def test_a_batch_joined_with_another_axis_for_a_while():
    nodes = [node("Reshape", "x rows", "r"), node("MatMul", "r W", "a"), node("Relu", "a", "h"),
             node("Reshape", "h back", "y")]  # fmt: skip
    constants = {"rows": np.array([-1, 3]), "W": weight(3, 4), "back": np.array([-1, 2, 4])}
    assert_same(model(nodes, constants, ["n", 2, 3], ["n", 2, 4]), (5, 2, 3))


def test_one_value_read_twice_by_a_matrix():
    nodes = [node("Gather", "x i", "g", axis=1), node("MatMul", "g V", "y")]
    assert_same(model(nodes, {"V": DENSE["V"], "i": np.array([0, 0, 2, 2])}, ["n", 3], ["n", 2]), (2, 3))


def test_what_nothing_reads_may_be_anything():
    nodes = [node("Sigmoid", "x", "u"), node("Relu", "x", "y")]
    assert_same(model(nodes, {}, ["n", 3], ["n", 3]), (2, 3))


def test_a_model_that_does_nothing(tmp_path):
    network = read_live_model(model([node("Identity", "x", "y")], {}, ["n", 3], ["n", 3])).network
    same = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])
    graph = helper.make_graph([], "g", [same], [same])
    nothing = read_live_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])).network
    for one in (network, nothing):
        made = write_live_model(one)
        onnx.checker.check_model(made, full_check=True)
        assert run(made, np.ones((2, 3), np.float32)).tolist() == np.ones((2, 3)).tolist()


def test_a_network_in_double_is_written_in_double():
    constants = {"W": 1000 * weight(3, 4, dtype=np.float64), "low": np.float64(-0.5), "high": np.float64(1)}
    nodes = [node("MatMul", "x W", "a"), node("Clip", "a low high", "y")]
    made = model(nodes, constants, ["n", 3], ["n", 4], np.float64)
    again = write_live_model(read_live_model(made).network)
    assert not any(item.op_type == "Cast" for item in again.graph.node)
    x = RNG.standard_normal((50, 3)) / 1000
    assert np.allclose(run(again, x), run(made, x), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("nodes", "shape", "said"), [
    ([node("Relu", "x", "h"), node("Squeeze", "h last", "y")], ["n", 1], "one axis"),
    ([node("Reshape", "x flat", "h"), node("Relu", "h", "y")], [1, 3], "one axis"),
    ([node("Add", "x rows", "y")], [1, 3], "no batch axis"),
    ([node("Cast", "x", "h", to=TensorProto.FLOAT16), node("Cast", "h", "y", to=TensorProto.FLOAT)], ["n", 3], "half"),
])  # fmt: skip
def test_what_a_result_cannot_keep_is_noted(nodes, shape, said):
    constants = {"last": np.array([1]), "flat": np.array([-1]), "rows": weight(2, 3)}
    used = {name: constants[name] for item in nodes for name in item.input if name in constants}
    read = read_live_model(model(nodes, used, shape, ["m"]))
    assert said in read.notes[0]
    onnx.checker.check_model(write_live_model(read.network), full_check=True)


class TestRefused:
    @pytest.mark.parametrize(
        "nodes",
        [
            [node("Add", "x rows", "y")],
            [node("Gemm", "x W rows4", "y")],
            [node("MatMul", "x W", "a"), node("Reshape", "a pairs", "y")],
        ],
    )
    @pytest.mark.parametrize("batch", ["n", 2])
    def test_what_differs_between_the_examples_of_a_batch(self, nodes, batch):
        constants = {"rows": weight(2, 3), "rows4": weight(2, 4), "W": weight(3, 4), "pairs": np.array([-1, 2]),
                     "pairs3": np.array([2, 3])}  # fmt: skip
        used = {name: constants[name] for item in nodes for name in item.input if name in constants}
        with pytest.raises(UnsupportedModelError, match="every example"):
            read_live_model(model(nodes, used, [batch, 3], ["m"]))

    def test_an_empty_file(self, tmp_path):
        (tmp_path / "empty.onnx").write_bytes(b"")
        with pytest.raises(FormatError, match=r"empty\.onnx: .*empty or truncated"):
            read_file(tmp_path / "empty.onnx")

    def test_operators_of_other_domains(self):
        made = model([node("Relu", "x", "y")], {}, ["n", 3], ["n", 3])
        made.graph.node[0].domain = "com.example"
        with pytest.raises(UnsupportedModelError, match=r"Relu.*domain 'com\.example'"):
            read_live_model(made)

    def test_every_unsupported_node_is_listed(self):
        nodes = [node("Sigmoid", "x", "a"), node("Gemm", "a W b", "z"), node("Cos", "z", "h"), node("Sign", "h", "y")]
        with pytest.raises(UnsupportedModelError) as caught:
            read_live_model(model(nodes, DENSE, ["n", 3], ["n", 4]))
        assert len(caught.value.problems) == 3
        for kind in ("sigmoid", "Cos", "Sign"):
            assert kind in str(caught.value)

    def test_a_product_of_two_computed_values(self):
        nodes = [node("Gemm", "x W b", "z"), node("Mul", "z z", "y")]
        with pytest.raises(UnsupportedModelError, match="Mul"):
            read_live_model(model(nodes, DENSE, ["n", 3], ["n", 4]))

    def test_two_inputs(self):
        graph = helper.make_graph(
            [node("Add", "x x2", "y")], "g",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]) for name in ("x", "x2")],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
        )  # fmt: skip
        with pytest.raises(UnsupportedModelError, match="2 inputs"):
            read_live_model(helper.make_model(graph))

    def test_a_softmax_in_the_middle_or_over_the_batch(self):
        cases = ((-1, node("Relu", "s", "y"), "softmax"), (0, node("Identity", "s", "y"), "every example"))
        for axis, last, why in cases:
            nodes = [node("Gemm", "x W b", "z"), node("Softmax", "z", "s", axis=axis), last]
            with pytest.raises(UnsupportedModelError, match=why):
                read_live_model(model(nodes, DENSE, ["n", 3], ["n", 4]))

    def test_a_convolution_over_three_axes(self):
        nodes = [node("Conv", "x K", "y")]
        with pytest.raises(UnsupportedModelError, match="it has 3 spatial axes"):
            read_live_model(model(nodes, {"K": weight(1, 1, 2, 2, 2)}, [1, 1, 3, 3, 3], [1, 1, 2, 2, 2]))

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_weights_that_are_not_finite(self, bad, tmp_path):
        weights = {**DENSE, "W": DENSE["W"].copy()}
        weights["W"][1, 1] = bad
        path = tmp_path / "m.onnx"
        onnx.save(model([node("Gemm", "x W b", "y")], weights, ["n", 3], ["n", 4]), path)
        with pytest.raises(FormatError, match=r"m\.onnx.*'W'.*NaN or infinity"):
            read_file(path)

    def test_division_by_zero(self):
        nodes = [node("Div", "x d", "y")]
        with pytest.raises(LeoError, match="zero"):
            read_live_model(model(nodes, {"d": np.zeros(3, np.float32)}, ["n", 3], ["n", 3]))

    def test_a_matrix_of_the_wrong_shape(self):
        nodes = [node("MatMul", "x W", "y")]
        with pytest.raises(LeoError):
            read_live_model(model(nodes, {"W": weight(5, 4)}, ["n", 3], ["n", 4]))

    def test_something_that_is_no_whole_model(self):
        with pytest.raises(UnsupportedModelError, match="ModelProto"):
            read_live_model(helper.make_node("Relu", ["x"], ["y"]))


def unchecked(nodes, constants, opset=18):
    """A model that onnx's own checker may refuse."""
    given, made = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in "xy")
    held = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "g", [given], [made], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


class TestWeightsElsewhere:
    def stored(self, folder):
        """A model whose weights are to lie in a file beside it."""
        made = model([node("MatMul", "x W", "y")], {"W": weight(3, 4)}, ["n", 3], ["n", 4])
        onnx.save(made, folder / "m.onnx", save_as_external_data=True, location="m.weights", size_threshold=0)
        return folder / "m.onnx", folder / "m.weights"

    def test_a_missing_file(self, tmp_path):
        path, held = self.stored(tmp_path)
        held.unlink()
        with pytest.raises(FormatError, match=r"m\.onnx: its weights lie in a file of their own, which is missing"):
            read_file(path)

    def test_a_pointer_in_its_place(self, tmp_path):
        path, held = self.stored(tmp_path)
        held.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 48\n")
        with pytest.raises(FormatError, match=r"m\.weights: is a Git LFS pointer"):
            read_file(path)

    def test_a_live_model_without_them(self, tmp_path):
        path, _ = self.stored(tmp_path)
        with pytest.raises(FormatError, match="load them, or give LEO the path"):
            read_live_model(onnx.load(path, load_external_data=False))


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        ([node("ConstantOfShape", "size", "c")], {"size": np.array([1 << 17, 1 << 17])}),
        ([node("Expand", "one size", "c")], {"one": np.float32(1), "size": np.array([1 << 17, 1 << 17])}),
        ([node("Range", "zero many one", "c")],
         {"zero": np.float32(0), "many": np.float32(1e9), "one": np.float32(1)}),
        ([node("Tile", "x size", "c")], {"size": np.array([1, 1 << 28])}),
    ],
)  # fmt: skip
def test_what_would_not_fit_is_refused_before_it_is_made(nodes, constants):
    made = unchecked([*nodes, node("ReduceSum", "c", "s", keepdims=0), node("Add", "x s", "y")], constants)
    with pytest.raises(UnsupportedModelError, match="more than a hundred million numbers"):
        read_live_model(made)


def test_text_is_no_numbers():
    made = model([node("Relu", "x", "y")], {}, ["n", 3], ["n", 3])
    made.graph.initializer.append(helper.make_tensor("words", TensorProto.STRING, [1], [b"a"]))
    assert read_live_model(made).network.units == 3
    made.graph.node[0].CopyFrom(node("Reshape", "x words", "y"))
    with pytest.raises(UnsupportedModelError, match="it reads text"):
        read_live_model(made)


def test_weights_stored_as_bfloat16():
    made = unchecked([node("Cast", "H", "W", to=1), node("MatMul", "x W", "y")], {})
    made.graph.initializer.append(helper.make_tensor("H", TensorProto.BFLOAT16, [3, 4], weight(3, 4).ravel().tolist()))
    network = read_live_model(made).network
    assert network.nodes[-1].maps[0].dense().shape == (4, 3)


class TestNoGraphAtAll:
    """What is not valid is refused before a runtime sees it: ONNX Runtime crashes on the first."""

    def test_batch_norm_with_outputs_that_have_no_names(self):
        statistics = {name: np.ones(3, np.float32) for name in "smbv"}
        norm = helper.make_node("BatchNormalization", ["x", "s", "b", "m", "v"], ["y", "", "", "", ""])
        made = unchecked([norm], statistics, opset=9)
        with pytest.raises(UnsupportedModelError, match="training mode"):
            read_live_model(made)

    def test_a_name_given_twice(self):
        nodes = [node("Relu", "x", "h"), node("Neg", "x", "h"), node("Relu", "h", "y")]
        with pytest.raises(FormatError, match="two tensors are named 'h'"):
            read_live_model(unchecked(nodes, {}))
        nodes = [node("Relu", "x", "W"), node("Gemm", "x W", "y")]
        with pytest.raises(FormatError, match="two tensors are named 'W'"):
            read_live_model(unchecked(nodes, {"W": weight(3, 2)}))

    def test_an_attribute_that_an_operator_does_not_have(self):
        with pytest.raises(FormatError, match="is not valid"):
            read_live_model(unchecked([node("Relu", "x", "y", slope=0.5)], {}))

    def test_dropout_of_a_constant_in_training_mode(self):
        nodes = [node("Dropout", "c half on", "d"), node("Add", "x d", "y")]
        constants = {"c": weight(3), "half": np.array(0.5, np.float32), "on": np.array(True)}
        with pytest.raises(UnsupportedModelError, match="random"):
            read_live_model(model(nodes, constants, [1, 3], [1, 3]))
