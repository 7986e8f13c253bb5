"""Convolutional ONNX models: against ONNX Runtime and onnx's reference, operator by operator and as random graphs."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
import door_cases  # noqa: E402
from door_cases import onnx_graphs  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from leo_core.bounds.running import nodes_as_run  # noqa: E402
from leo_core.errors import FormatError, LeoError, UnsupportedModelError  # noqa: E402
from leo_core.linear import Conv, Dense, Diagonal  # noqa: E402
from leo_core.network import Affine  # noqa: E402
from leo_frontends.onnx import read_live_model  # noqa: E402
from leo_frontends.onnx.reference import reference  # noqa: E402
from leo_frontends.onnx.run import session  # noqa: E402

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def numbers_that_do_not_depend_on_other_tests():
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state


def numbers(*shape):
    return (RNG.integers(-32, 33, shape) / 16).astype(np.float32)


def model(nodes, weights, shape, opset=17):
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def one(kind, weights, shape, opset=17, inputs=(), **attributes):
    """A model of one node; ``inputs`` behind x, all weights by default."""
    names = ["x", *(inputs or weights)]
    return model([helper.make_node(kind, names, ["y"], **attributes)], weights, shape, opset)


def assert_same(made, runners=(session, reference)):
    """LEO's reading and each runtime agree at some inputs, whose examples differ."""
    network = read_live_model(made).network
    dims = [d.dim_value or 3 for d in made.graph.input[0].type.tensor_type.shape.dim]
    x = RNG.standard_normal(dims).astype(np.float32)
    got = network.evaluate(x.reshape(-1, network.input_size), np.float32)
    for runner in runners:
        want = runner(made)({"x": x})[0]
        assert want.size == got.size, f"{want.shape} by {runner.__name__}"
        assert np.allclose(got.ravel(), want.ravel(), rtol=1e-4, atol=1e-5), runner.__name__
    return network


def images(seed):
    """A random convolutional graph, read with the door left out."""
    case = onnx_graphs.make(seed, Path(), image_share=1.0)
    try:
        return case, read_live_model(case.model)
    except LeoError:
        assume(False)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1 << 30))
def test_random_graphs_are_read_as_they_run(seed):
    case, imported = images(seed)
    assert door_cases.compared(imported, case, seed).kind in ("equal", "not run")


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1 << 30))
def test_kernels_are_the_matrices_they_stand_for(seed):
    """With each map written out, the network has the same exact values; and they lie in the bounds of its run."""
    _, imported = images(seed)
    network = imported.network
    dense = [
        Affine(node.name, node.sources, tuple(Dense(linear.dense()) for linear in node.maps), node.bias)
        if isinstance(node, Affine) and any(isinstance(linear, Conv) for linear in node.maps)
        else node
        for node in network.nodes
    ]
    x = np.random.default_rng(seed).integers(-8, 9, network.input_size) / 4
    exact = network.evaluate_exact(x)[network.output].fractions()
    assert (
        exact
        == type(network)(network.input_size, tuple(dense), network.output).evaluate_exact(x)[network.output].fractions()
    )
    lower, upper = nodes_as_run(network, x[None], str(network.dtype), imported.loose)[network.output]
    assert all(low <= value <= high for low, value, high in zip(lower[0], exact, upper[0], strict=True))


@pytest.mark.parametrize("auto", ["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool"])
def test_windows_of_poolings(kind, auto):
    """Both runtimes and LEO take the same windows, with pads before and behind, rounded up and down."""
    ways = itertools.product([4, 5], [2, 3], [1, 2, 3], [(0, 0), (1, 0), (0, 1)], [0, 1], [0, 1])
    for size, taps, stride, pads, up, counted in ways:
        attributes = {"pads": pads} if auto == "NOTSET" else {"auto_pad": auto}
        if kind == "AveragePool":
            attributes["count_include_pad"] = counted
        if (
            (auto.startswith("SAME") and stride > taps)
            or (kind == "MaxPool" and counted)
            or (auto != "NOTSET" and any(pads))
        ):
            continue
        assert_same(one(kind, {}, [1, 1, size], kernel_shape=[taps], strides=[stride], ceil_mode=up, **attributes))


@pytest.mark.parametrize("auto", ["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"])
def test_windows_of_convolutions(auto):
    for size, taps, stride, pads in itertools.product([4, 5], [1, 2, 3], [1, 2, 3], [(0, 0), (1, 0), (0, 2)]):
        given = {"pads": pads} if auto == "NOTSET" else {"auto_pad": auto}
        assert_same(one("Conv", {"W": numbers(2, 1, taps)}, ["n", 1, size], strides=[stride], **given))


def test_a_convolution_with_everything():
    weights = {"W": numbers(6, 1, 2, 2), "b": numbers(6)}
    attributes = {"group": 3, "pads": [1, 0, 0, 1], "strides": [2, 1], "dilations": [1, 2], "kernel_shape": [2, 2]}
    network = assert_same(one("Conv", weights, ["n", 3, 4, 5], **attributes))
    assert [type(linear) for linear in network.nodes[-1].maps] == [Conv]
    weights = {"W": numbers(4, 3, 2, 3), "b": numbers(6)}
    attributes = {"group": 2, "pads": [1, 0, 0, 1], "strides": [2, 3], "dilations": [2, 1], "output_padding": [1, 2]}
    assert_same(one("ConvTranspose", weights, ["n", 4, 3, 2], **attributes))


@pytest.mark.parametrize("shape", [["n", 2, 7], ["n", 2, 3, 3], [2, 2, 2, 2, 3]])
@pytest.mark.parametrize("kind", ["GlobalMaxPool", "GlobalAveragePool"])
def test_whole_channels(kind, shape):
    assert_same(one(kind, {}, shape))


@pytest.mark.parametrize("kind", ["ReduceMax", "ReduceMin"])
def test_extremes_over_axes(kind):
    assert_same(one(kind, {"a": np.int64([-1, 1])}, ["n", 2, 3, 5], opset=18, keepdims=0))
    assert_same(one(kind, {}, ["n", 2, 3, 5], opset=11, axes=[2]))
    assert_same(one(kind, {}, [1, 2, 3], opset=18, noop_with_empty_axes=1))
    with pytest.raises(UnsupportedModelError, match="it does not do the same for every example"):
        read_live_model(one(kind, {}, ["n", 2, 3]))


class TestFactors:
    """What is one number for each channel, and what only looks so."""

    def test_of_each_channel(self):
        nodes = [helper.make_node("Conv", ["x", "K"], ["c"]), helper.make_node("Mul", ["c", "f"], ["y"])]
        weights = {"K": numbers(3, 3, 1, 1), "f": numbers(3, 1, 1)}
        network = assert_same(model(nodes, weights, ["n", 3, 2, 2]))
        assert [type(linear) for linear in network.nodes[-1].maps] == [Conv]

    def test_of_each_channel_where_nothing_is_convolved(self):
        network = assert_same(one("Mul", {"f": numbers(3, 1, 1)}, ["n", 3, 2, 2]))
        assert [type(linear) for linear in network.nodes[-1].maps] == [Diagonal]
        assert not network.nodes[-1].shape

    @pytest.mark.parametrize("kind", ["Mul", "PRelu"])
    def test_of_each_example_too(self, kind):
        factors = np.float32([1.5, 2, 3, 4]).reshape(2, 2, 1, 1)
        with pytest.raises(UnsupportedModelError, match="it does not do the same for every example"):
            read_live_model(one(kind, {"f": factors}, [2, 2, 1, 5]))

    @pytest.mark.parametrize("batch", ["n", 2])
    def test_where_the_first_axis_has_the_channels(self, batch):
        nodes = [
            helper.make_node("Conv", ["x", "K"], ["c"]),
            helper.make_node("Transpose", ["c"], ["t"], perm=[1, 0, 2]),
            helper.make_node("Mul", ["t", "f"], ["m"]),
            helper.make_node("Transpose", ["m"], ["y"], perm=[1, 0, 2]),
        ]
        assert_same(model(nodes, {"f": np.float32([2, 3]).reshape(2, 1, 1), "K": numbers(2, 2, 1)}, [batch, 2, 3]))


class TestResize:
    """Each new value is one of the old ones, or the node is refused."""

    @pytest.mark.parametrize("rounding", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
    @pytest.mark.parametrize("places", ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"])
    def test_nearest(self, places, rounding):
        given = {"mode": "nearest", "coordinate_transformation_mode": places, "nearest_mode": rounding}
        for size, scale in itertools.product([2, 4, 6], [0.5, 1.0, 2.0, 3.0]):
            weights = {"s": np.float32([1, 1, scale])}
            assert_same(one("Resize", weights, ["n", 2, size], inputs=["", "s"], **given))
            weights = {"s": np.int64([size * 2, 5])}
            made = one("Resize", weights, ["n", 2, size, 5], 18, inputs=["", "", "s"], axes=[-2, 3], **given)
            assert_same(made, [session])  # onnx's reference takes no axes from the end

    @pytest.mark.parametrize("opset", [7, 8, 9, 10])
    def test_before_there_were_coordinates(self, opset):
        scales = np.float32([1, 1, 2, 3])
        if opset < 9:
            assert_same(one("Upsample", {}, ["n", 2, 2, 3], opset, scales=scales.tolist()), [session])
        else:
            kind = "Upsample" if opset == 9 else "Resize"
            assert_same(one(kind, {"s": scales}, ["n", 2, 2, 3], opset, mode="nearest"), [session])

    @pytest.mark.parametrize(
        ("scale", "attributes", "opset", "said"),
        [
            (2.0, {"mode": "linear"}, 17, "it interpolates"),
            (2.0, {"mode": "cubic"}, 17, "it interpolates"),
            (2.0, {"coordinate_transformation_mode": "tf_crop_and_resize"}, 17, "its places by tf_crop_and_resize"),
            (2.0, {"coordinate_transformation_mode": "half_pixel_symmetric"}, 19, "its places by half_pixel_symmetric"),
            (1.3, {}, 17, "its size stays the same"),
            (0.7, {"coordinate_transformation_mode": "align_corners"}, 17, "its scale makes no whole number of values"),
        ],
    )
    def test_refused(self, scale, attributes, opset, said):
        made = one("Resize", {"s": np.float32([1, 1, scale])}, ["n", 1, 3], opset, inputs=["", "s"], **attributes)
        with pytest.raises(UnsupportedModelError, match=said):
            read_live_model(made)

    def test_shrinking_before_opset_11(self):
        with pytest.raises(UnsupportedModelError, match="before opset 11"):
            read_live_model(one("Resize", {"s": np.float32([1, 1, 0.5])}, ["n", 1, 4], 10, mode="nearest"))

    def test_a_policy_and_the_batch(self):
        weights = {"s": np.int64([4, 4])}
        made = one("Resize", weights, ["n", 2, 3], 18, inputs=["", "", "s"], axes=[1, 2],
                   keep_aspect_ratio_policy="not_larger")  # fmt: skip
        with pytest.raises(UnsupportedModelError, match="its policy"):
            read_live_model(made)
        with pytest.raises(UnsupportedModelError, match="every example of a batch"):
            read_live_model(one("Resize", {"s": np.float32([2, 1, 1])}, ["n", 2, 3], inputs=["", "s"]))


REFUSED = [
    ("MaxPool", {}, {"kernel_shape": [2], "strides": [3], "auto_pad": "SAME_UPPER"}, "runtimes differ"),
    ("MaxPool", {}, {"kernel_shape": [2], "dilations": [2], "auto_pad": "SAME_LOWER"}, "runtimes differ"),
    ("MaxPool", {}, {"kernel_shape": [2], "pads": [-1, 0]}, "its pads must be"),
    ("AveragePool", {}, {"kernel_shape": [2], "pads": [0, 2]}, "its pads must be"),
    ("MaxPool", {}, {"kernel_shape": [2, 2]}, "its input has 3 axes, its kernel is for 4|malformed|does not fit"),
    ("Conv", {"W": numbers(1, 2, 2)}, {"pads": [-1, 0]}, "negative pads are not read"),
    ("Conv", {"W": numbers(1, 2, 2)}, {"kernel_shape": [3]}, "its kernel_shape is"),
    ("Conv", {"W": numbers(1, 3, 2)}, {}, "its kernel is for 3 channels"),
    ("Conv", {"W": numbers(1, 2, 9)}, {}, "does not fit"),
    ("ConvTranspose", {"W": numbers(2, 1, 2)}, {"auto_pad": "SAME_UPPER"}, "automatic pads"),
    ("ConvTranspose", {"W": numbers(2, 1, 2)}, {"auto_pad": "VALID", "pads": [1, 1]}, "automatic pads"),
    ("ConvTranspose", {"W": numbers(2, 1, 2)}, {"output_shape": [6]}, "an output shape"),
    ("ConvTranspose", {"W": numbers(2, 1, 2)}, {"output_padding": [1]}, "the output padding"),
    ("LpPool", {}, {"kernel_shape": [2]}, "AveragePool and MaxPool are"),
]


@pytest.mark.parametrize(("kind", "weights", "attributes", "said"), REFUSED)
def test_refused(kind, weights, attributes, said):
    with pytest.raises((UnsupportedModelError, FormatError), match=said):
        read_live_model(one(kind, weights, ["n", 2, 5], **attributes))


def test_a_second_output_or_several_images_of_one_example():
    made = model([helper.make_node("MaxPool", ["x"], ["y", "where"], kernel_shape=[2])], {}, ["n", 2, 5])
    with pytest.raises(UnsupportedModelError, match="its second output"):
        read_live_model(made)
    nodes = [helper.make_node("Reshape", ["x", "s"], ["t"]), helper.make_node("Conv", ["t", "W"], ["y"])]
    made = model(nodes, {"s": np.int64([-1, 1, 4]), "W": numbers(1, 1, 2)}, ["n", 3, 4])
    with pytest.raises(UnsupportedModelError, match="several images of one example"):
        read_live_model(made)


def test_a_kernel_or_a_bias_that_is_computed():
    for inputs, said in ((["x", "W", "t"], "the bias is not a constant"), (["k", "u"], "the kernel is not a constant")):
        nodes = [
            helper.make_node("Reshape", ["x", "s"], ["t"]),
            helper.make_node("Reshape", ["x", "r"], ["u"]),
            helper.make_node("Conv", inputs, ["y"]),
        ]
        weights = {"s": np.int64([-1]), "r": np.int64([2, 1, 1]), "W": numbers(2, 1, 1), "k": numbers(1, 1, 4)}
        with pytest.raises(UnsupportedModelError, match=said):
            read_live_model(model(nodes, weights, [1, 1, 2]))


def test_a_bias_that_is_added_leaves_channels_channels():
    """Conv without a bias and Add, Mul and Add: one node each, laid out as images."""
    kernel = np.arange(18, dtype=np.float32).reshape(2, 1, 3, 3) / 10 - 0.8
    ends = {"shift": (1.0, -9.0), "scale": (2.0, 0.5), "more": (0.5, 0.25)}
    constants = {name: np.array(pair, np.float32).reshape(2, 1, 1) for name, pair in ends.items()}
    constants["kernel"] = kernel
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["a"]),
        helper.make_node("Add", ["a", "shift"], ["b"]),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("Mul", ["c", "scale"], ["d"]),
        helper.make_node("Add", ["d", "more"], ["e"]),
        helper.make_node("Relu", ["e"], ["y"]),
    ]
    network = read_live_model(model(nodes, constants, ["n", 1, 5, 5])).network
    assert [node.shape for node in network.nodes if isinstance(node, Affine)][:2] == [(2, 3, 3), (2, 3, 3)]
    assert network.widths == (25, 2, 18)
