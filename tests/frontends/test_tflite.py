"""TensorFlow Lite files: what is read of them, what is refused and why, and how they come back."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import numpy as np
import pytest

import leo_core
from leo_core import door, files
from leo_core.domain import Box
from leo_core.errors import DoorError, FormatError, LeoError, UnsupportedModelError
from leo_core.files import as_read
from leo_core.linear import Conv, Dense, Select, Spacing
from leo_core.network import Affine, Network, Origin, Output, Relu, Signature
from leo_core.testing.networks import chain

pytest.importorskip("ai_edge_litert", reason="LiteRT (ai-edge-litert) is not installed")

from ai_edge_litert import schema_py_generated as schema

from leo_frontends import tflite
from leo_frontends.tflite.build import Builder
from leo_frontends.tflite.run import interpreter


class Graph:
    """A file put together by hand."""

    def __init__(self, *shape: int) -> None:
        self.builder = Builder()
        self.at = self.given = self.builder.tensor(shape, "serving_default_x:0")
        self.shape = shape
        self.rng = np.random.default_rng(0)

    def op(self, kind: str, *more: int, shape: tuple[int, ...] = (), version: int = 1, **options: object) -> Graph:
        self.at = self.builder.operator(kind, [self.at, *more], shape or self.shape, kind.lower(), version, **options)
        self.shape = shape or self.shape
        return self

    def floats(self, *shape: int) -> int:
        return self.builder.constant(self.rng.normal(size=shape).astype(np.float32), "weights")

    def ints(self, *numbers: int) -> int:
        return self.builder.constant(np.array(numbers, np.int32), "numbers")

    def data(
        self, *, free: bool = True, outputs: tuple[int, ...] = (), metadata: dict[str, bytes] | None = None
    ) -> bytes:
        ends = [(at, f"y{i}") for i, at in enumerate(outputs or (self.at,))]
        return self.builder.packed(
            (self.given, "x"), ends, free_batch=free, key="serve", description="by hand", metadata=metadata or {}
        )


def conv_net(activation: int = 3) -> Graph:
    graph = Graph(9, 8, 2)
    where = {"padding": 0, "strideH": 2, "strideW": 2, "dilationHFactor": 1, "dilationWFactor": 1}
    graph.op(
        "CONV_2D",
        graph.floats(4, 3, 3, 2),
        graph.floats(4),
        shape=(5, 4, 4),
        fusedActivationFunction=activation,
        **where,
    )
    each = {**where, "strideH": 1, "strideW": 1, "depthMultiplier": 2}
    graph.op(
        "DEPTHWISE_CONV_2D",
        graph.floats(1, 3, 3, 8),
        graph.floats(8),
        shape=(5, 4, 8),
        fusedActivationFunction=1,
        **each,
    )
    graph.op("AVERAGE_POOL_2D", shape=(3, 2, 8), padding=0, strideH=2, strideW=2, filterHeight=3, filterWidth=3)
    graph.op("MAX_POOL_2D", shape=(2, 1, 8), padding=1, strideH=1, strideW=2, filterHeight=2, filterWidth=2)
    graph.op("RESHAPE", graph.ints(-1, 16), shape=(16,))
    graph.op("FULLY_CONNECTED", graph.floats(3, 16), graph.floats(3), shape=(3,))
    return graph.op("SOFTMAX", beta=1.0)


def read(data: bytes, folder: Path) -> leo_core.plugins.Imported:
    path = folder / "model.tflite"
    path.write_bytes(data)
    return tflite.read_file(path)


def kinds(path: Path) -> list[str]:
    """The operators of a file, one star for each number of a built-in activation."""
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    names = {number: name for name, number in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    codes = [names[code.builtinCode] for code in model.operatorCodes]
    found = []
    for operator in model.subgraphs[0].operators:
        fused = getattr(operator.builtinOptions, "fusedActivationFunction", 0)
        found.append(codes[operator.opcodeIndex] + "*" * int(fused))
    return found


def changed(data: bytes, change: object) -> bytes:
    """A file after a change of the schema's own objects."""
    import flatbuffers

    model = schema.ModelT.InitFromPackedBuf(data, 0)
    change(model)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def refused(data: bytes, folder: Path, kind: type[LeoError] = UnsupportedModelError) -> str:
    with pytest.raises(kind) as caught:
        read(data, folder)
    assert "model.tflite" in str(caught.value)
    return str(caught.value)


def test_a_network_of_images_is_read_run_and_written_as_it_was(tmp_path):
    source, target = tmp_path / "model.tflite", tmp_path / "again.tflite"
    source.write_bytes(conv_net().data(metadata={"min_runtime_version": b"1.5.0", "more": bytes(range(256))}))
    imported, name = files.read(source, domain=(0, 1))
    assert (name, imported.door) == ("tflite", door.AGREES)
    assert imported.network.signature.input_name == "x"
    assert imported.network.signature.names == ("y0",)
    points = door.inputs_at(imported.network, Box.uniform(0, 1, 144))
    assert files.write(imported.network, target, points).door == door.AGREES
    assert kinds(target) == kinds(source)
    before, after = (schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0) for path in (source, target))
    assert after.description == before.description
    for was, now in zip(before.metadata, after.metadata, strict=True):
        assert (was.name, bytes(before.buffers[was.buffer].data)) == (now.name, bytes(after.buffers[now.buffer].data))
    signature = after.signatureDefs[0]
    assert signature.signatureKey == b"serve"
    assert [item.name for item in (*signature.inputs, *signature.outputs)] == [b"x", b"y0"]
    graph = after.subgraphs[0]
    assert graph.tensors[graph.inputs[0]].name == b"serving_default_x:0"
    assert graph.tensors[graph.outputs[0]].name == b"softmax"
    assert list(graph.tensors[graph.inputs[0]].shapeSignature) == [-1, 9, 8, 2]
    assert np.array_equal(run(target, points), run(source, points))


def run(path: Path, points: np.ndarray) -> np.ndarray:
    ran = interpreter(path.read_bytes())
    details = ran.get_input_details()[0]
    given = points.reshape(-1, *details["shape"][1:]).astype(np.float32)
    ran.resize_tensor_input(details["index"], given.shape)
    ran.allocate_tensors()
    ran.set_tensor(details["index"], given)
    ran.invoke()
    return ran.get_tensor(ran.get_output_details()[0]["index"])


def test_places_are_those_that_the_interpreter_takes(tmp_path):
    """An axis dropped whose begin is masked: its first; and halves of float32 that are a little less than one half."""
    cut = Graph(5)
    cut.op("STRIDED_SLICE", cut.ints(0, 3), cut.ints(1, 4), cut.ints(1, 1), shape=(), beginMask=2, shrinkAxisMask=2)
    cut.builder._tensors[cut.at].shape = np.array([1], np.int32)
    wider = Graph(2, 1, 1)
    wider.op("RESIZE_NEAREST_NEIGHBOR", wider.ints(42, 1), shape=(42, 1, 1), version=3, alignCorners=True,
             halfPixelCenters=True)  # fmt: skip
    for graph, size in ((cut, 5), (wider, 2)):
        imported = read(graph.data(free=False), tmp_path)
        x = np.arange(1.0, size + 1)
        ran = run(tmp_path / "model.tflite", x).ravel()
        assert imported.network.evaluate(x[None])[0].tolist() == ran.tolist()
    back = Graph(5)
    back.op("STRIDED_SLICE", back.ints(0, 3), back.ints(1, 4), back.ints(1, -1), shrinkAxisMask=2)
    assert "by steps of -1" in refused(back.data(free=False), tmp_path)


def test_constants_lie_where_small_devices_expect_them(tmp_path):
    data = conv_net().data()
    model = schema.Model.GetRootAs(data, 0)
    for number in range(model.BuffersLength()):
        buffer = model.Buffers(number)
        if buffer.DataLength():
            held = bytes(buffer.DataAsNumpy())
            assert any(at % 16 == 0 for at in places(data, held))


def places(data: bytes, part: bytes) -> list[int]:
    return [found.start() for found in re.finditer(re.escape(part), data)]


def test_compression_keeps_the_layers_and_the_door_agrees(tmp_path):
    source, target = tmp_path / "model.tflite", tmp_path / "small.tflite"
    graph = conv_net(activation=1)
    for tensor in graph.builder._tensors:  # two channels die, one is constant
        if list(tensor.shape) == [8]:
            bias = np.frombuffer(graph.builder._buffers[tensor.buffer].data, np.float32).copy()
            bias[:2] = -1000.0
            graph.builder._buffers[tensor.buffer].data = bias.tobytes()
    source.write_bytes(graph.data())
    result = leo_core.compress(source, (0, 1))
    assert result.network.connections < result.original.connections
    assert result.written(target).door == door.AGREES
    assert kinds(target) == kinds(source)
    assert target.stat().st_size < source.stat().st_size
    points = np.random.default_rng(1).random((50, 144))
    assert np.abs(run(source, points) - run(target, points)).max() < 1e-5


def test_a_relu6_that_caps_some_channels_only_stays_two_operators(tmp_path):
    """Where a channel never reaches six, the ReLU for that goes; what is left are the ends of the others."""
    source, small, again = (tmp_path / name for name in ("model.tflite", "small.tflite", "again.tflite"))
    graph = Graph(9)
    matrix, bias = np.random.default_rng(3).random((4, 9)).astype(np.float32), np.array([0, 0, 1, -1], np.float32)
    matrix[2:] *= 4
    matrix[:2] /= 4  # at most 9 / 4
    weights = graph.builder.constant(matrix, "w"), graph.builder.constant(bias, "b")
    graph.op("FULLY_CONNECTED", *weights, shape=(4,), fusedActivationFunction=3)
    graph.op("FULLY_CONNECTED", graph.floats(2, 4), graph.floats(2), shape=(2,))
    source.write_bytes(graph.data())
    result = leo_core.compress(source, (0, 1), passes="leo")
    assert kinds(source) == ["FULLY_CONNECTED***", "FULLY_CONNECTED"]
    assert result.network.units < result.original.units
    result.export(small)
    assert kinds(small) == ["FULLY_CONNECTED*", "MINIMUM", "FULLY_CONNECTED"]
    back, _ = files.read(small, domain=(0, 1))
    assert back.network.units == result.network.units
    files.write(back.network, again)
    assert kinds(again) == kinds(small)
    points = np.random.default_rng(1).random((50, 9)) * 3 - 1  # beyond the domain, too
    images = points.astype(np.float32).astype(float)
    assert np.abs(run(small, images) - run(again, images)).max() < 1e-5
    assert np.abs(run(small, images) - result.network.evaluate(images)).max() < 1e-4


def test_float16_weights_are_what_they_are(tmp_path):
    graph = Graph(3)
    array = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float16)
    stored = graph.builder.constant(array.view(np.uint16).astype(np.int32), "half")  # the type is put right below
    wide = graph.builder.operator("DEQUANTIZE", [stored], (4, 3), "wide")
    graph.op("FULLY_CONNECTED", wide, graph.floats(4), shape=(4,))

    def halve(model):
        tensor = model.subgraphs[0].tensors[stored]
        tensor.type, model.buffers[tensor.buffer].data = (
            schema.TensorType.FLOAT16,
            np.frombuffer(array.tobytes(), np.uint8),
        )

    imported = read(changed(graph.data(free=False), halve), tmp_path)
    assert np.array_equal(imported.network.nodes[0].maps[0].dense(), array.astype(np.float32))
    assert door.agrees(as_read(imported), door.inputs_at(imported.network, None)) == door.AGREES


def test_a_free_batch_that_the_shapes_do_not_allow_is_read_for_one_example(tmp_path):
    graph = Graph(2, 3)
    graph.op("RESHAPE", graph.ints(1, 6), shape=(6,)).op(
        "FULLY_CONNECTED", graph.floats(2, 6), graph.floats(2), shape=(2,)
    )
    imported = read(graph.data(), tmp_path)
    assert "read for one" in imported.notes[0]
    assert door.agrees(as_read(imported), door.inputs_at(imported.network, None)) == door.AGREES


def quantised(model: object) -> None:
    graph = model.subgraphs[0]
    tensor = graph.tensors[graph.operators[0].inputs[1]]
    tensor.type, tensor.quantization = schema.TensorType.INT8, schema.QuantizationParametersT()
    tensor.quantization.scale, tensor.quantization.zeroPoint = np.ones(1, np.float32), np.zeros(1, np.int64)
    model.buffers[tensor.buffer].data = np.zeros(int(np.prod(tensor.shape)), np.uint8)


def test_an_int8_file_is_refused_with_the_way_to_go(tmp_path):
    said = refused(changed(conv_net().data(), quantised), tmp_path)
    assert "quantised (its weights 'weights' are int8)" in said
    assert "Compress the float model and quantise the result" in said
    assert "says nothing of what quantising does" in said
    assert said.count("\n") == 1, "one reason, not one for each operator"


def custom(model: object) -> None:
    model.operatorCodes[0].builtinCode = model.operatorCodes[0].deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    model.operatorCodes[0].builtinCode, model.operatorCodes[0].deprecatedBuiltinCode = 32, 32
    model.operatorCodes[0].customCode = "MyOp"


def unknown(model: object) -> None:
    model.operatorCodes[0].builtinCode = 9999


def curved(model: object) -> None:
    model.operatorCodes[0].builtinCode = schema.BuiltinOperator.HARD_SWISH
    model.operatorCodes[0].deprecatedBuiltinCode = schema.BuiltinOperator.HARD_SWISH


def twice(model: object) -> None:
    model.subgraphs.append(copy.copy(model.subgraphs[0]))


def two_inputs(model: object) -> None:
    graph = model.subgraphs[0]
    graph.tensors.append(copy.copy(graph.tensors[0]))
    graph.inputs = np.array([*graph.inputs, len(graph.tensors) - 1], np.int32)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (custom, "'MyOp' is a custom operator"),
        (unknown, "has the number 9999, which the installed schema does not know"),
        (curved, "(HARD_SWISH): there is no affine + ReLU form for it"),
        (twice, "it has 2 graphs"),
        (two_inputs, "2 inputs"),
    ],
)
def test_each_model_that_is_not_read_gets_its_reason(change, words, tmp_path):
    assert words in refused(changed(conv_net().data(), change), tmp_path)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "is an HDF5 file (.h5), not a TensorFlow Lite file"),
        (b"PK\x03\x04" + bytes(100), "is a ZIP archive"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(12), "damaged or truncated"),
        (b"nonsense, and more of it", "is not a TensorFlow Lite file"),
    ],
)
def test_what_is_no_such_file_says_so(data, words, tmp_path):
    assert words in refused(data, tmp_path, FormatError)


def test_three_hundred_damaged_files_are_read_or_refused(tmp_path):
    whole, rng, said = conv_net().data(), np.random.default_rng(0), []
    words = [b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0", b"\0\0\0\x80", b"\1\0\0\0"]
    for number in range(300):
        data = bytearray(whole)
        match number % 4:
            case 0:
                del data[int(rng.integers(len(data))) :]
            case 1:
                for _ in range(int(rng.integers(1, 6))):
                    data[int(rng.integers(len(data)))] = int(rng.integers(256))
            case 2:
                at = 4 * int(rng.integers(len(data) // 4))
                data[at : at + 4] = words[int(rng.integers(len(words)))]
            case 3:
                at, other, length = (int(n) for n in rng.integers((len(data), len(data), 64)))
                data[at : at + length] = data[other : other + length]
        try:
            imported = read(bytes(data), tmp_path)
        except LeoError as error:
            said.append(str(error))
            continue
        with_door = None
        try:
            with_door = door.agrees(as_read(imported), door.inputs_at(imported.network, None))
        except DoorError as error:  # pragma: no cover - it would be a misreading
            pytest.fail(f"damaged file {number} is read otherwise than it runs: {error}")
        assert with_door
    assert len(said) > 150
    assert all("model.tflite" in text for text in said)


def test_a_file_that_says_it_is_huge_ends_at_once(tmp_path):
    """Many tables in the place of one: without a limit they would be gone through for hours."""

    def many(model):
        graph = model.subgraphs[0]
        graph.operators = [graph.operators[0]] * 3000

    data = changed(conv_net().data(), many)
    assert "makes a tensor that is there already" in refused(data, tmp_path, FormatError)

    def long(model):
        model.subgraphs[0].tensors[0].shape = np.array([1, 1 << 20, 1 << 20, 2], np.int32)
        model.subgraphs[0].tensors[0].shapeSignature = None

    assert "tensor" in refused(changed(conv_net().data(), long), tmp_path, FormatError)


def test_convolutions_over_one_axis_groups_and_transposes_are_written_and_run(tmp_path):
    rng = np.random.default_rng(2)

    def kernel(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    def one(linear: object, shape: tuple[int, ...], size: int, given: tuple[int, ...]) -> Network:
        affine = Affine("a", ("input",), (linear,), kernel(size), Origin("a", "Conv"), shape)
        relu = Relu("r", "a", np.zeros(size), Origin("r", "Relu"))
        last = Affine("out", ("r",), (Dense(kernel(3, size)),), kernel(3), Origin("out", "Gemm"))
        return Network(linear.columns, (affine, relu, last), "out", Signature("x", given, (Output("y", (3,)),)))

    from leo_core.linear import ConvTranspose

    conv1d = Conv.of(kernel(4, 3, 3), (10,), Spacing(strides=2, low=1, high=1))
    grouped = Conv.of(kernel(4, 2, 3, 2), (6, 5), Spacing(low=(0, 1), high=(1, 0)), groups=2)
    dilated = Conv.of(kernel(4, 1, 2, 2), (6, 5), Spacing(dilations=2), groups=2)
    turned = ConvTranspose.of(kernel(2, 3, 3, 2), (4, 3), Spacing(strides=(2, 1), low=(1, 0), high=(0, 1)))
    odd = ConvTranspose.of(kernel(2, 3, 2, 2), (3, 3), Spacing(strides=2, low=0, high=0), output_padding=1)
    for number, (linear, channels, given) in enumerate(
        [
            (conv1d, 4, (3, 10)),
            (grouped, 4, (4, 6, 5)),
            (dilated, 4, (2, 6, 5)),
            (turned, 3, (2, 4, 3)),
            (odd, 3, (2, 3, 3)),
        ]
    ):
        geometry = linear.geometry
        sizes = geometry.input if linear in (turned, odd) else geometry.output
        network = one(linear, (channels, *sizes), linear.rows, given)
        written = files.write(network, tmp_path / f"net{number}.tflite")
        assert written.door == door.AGREES, number
        back, _ = files.read(written.path)
        assert back.door == door.AGREES
        assert back.network.connections == network.connections, "a convolution came back as something else"


def test_a_constant_a_selection_and_an_output_that_is_the_input(tmp_path):
    pick = Affine("a", ("input",), (Select(np.array([2, 0, 1, 1]), columns=3),), np.array([0, 0, 1, 0], np.float32))
    both = Affine("same", ("input",), (Select.identity(3),), np.zeros(3, np.float32))
    joined = Affine(
        "out",
        ("a", "same"),
        (picking([0, 1, 2, 3], 7, 4, 0), picking([0, 1, 2], 7, 3, 4)),
        np.zeros(7, np.float32),
    )
    outputs = (Output("picked", (4,)), Output("given", (3,)))
    network = Network(3, (pick, both, joined), "out", Signature("x", (3,), outputs))
    assert files.write(network, tmp_path / "net.tflite").door == door.AGREES
    back, _ = files.read(tmp_path / "net.tflite")
    assert back.network.signature.names == ("picked", "given")


def picking(units: list[int], rows: int, columns: int, first: int) -> object:
    from leo_core.linear import Sparse

    pointers = np.concatenate([np.zeros(first + 1, int), np.arange(1, len(units) + 1)])
    pointers = np.concatenate([pointers, np.full(rows + 1 - len(pointers), len(units))])
    return Sparse(np.ones(len(units), np.float32), np.array(units), pointers, columns=columns)


def third(node: Affine) -> Affine:
    return Affine(node.name, node.sources, tuple(Dense(m.dense().astype(float) / 3) for m in node.maps), node.bias)


def test_float64_is_not_written(tmp_path):
    network = chain(2, 3, 1)
    wide = network.with_nodes(*(third(node) for node in network.nodes if isinstance(node, Affine)))
    with pytest.raises(UnsupportedModelError, match=r"in float32; write \.onnx or \.leo"):
        files.write(wide, tmp_path / "net.tflite")


@pytest.mark.parametrize("suffix", [".onnx", ".keras", ".pt2"])
def test_other_formats_become_tflite_and_come_back(suffix, tmp_path):
    source = tmp_path / "model.tflite"
    source.write_bytes(conv_net().data())
    other, again = tmp_path / f"other{suffix}", tmp_path / "again.tflite"
    leo_core.convert(source, other)
    leo_core.convert(other, again)
    points = np.random.default_rng(0).random((20, 144)).astype(np.float32)
    assert np.abs(run(source, points) - run(again, points)).max() < 1e-5


def test_what_was_read_is_written_to_run_the_same(tmp_path):
    """Random graphs, written and run: each output lies where the network that was read is proved to have it."""
    import door_cases

    held = 0
    for seed in range(300_000, 300_030):
        folder = tmp_path / str(seed)
        folder.mkdir()
        case = door_cases.make("tflite", seed, folder)
        try:
            network = files.lower(case.model, case.shape)[0].network
        except LeoError:
            continue
        path = folder / "written.tflite"
        tflite.write_file(network, path)
        again = tflite.read_file(path).network
        for found in (network, again):
            reading = door.Reading(found, tflite.run_file(path))
            said = door.agrees(reading, door.inputs_at(network, None, seed))
            assert said == door.AGREES or "one example at a time" in said, (seed, case.uses)
        held += 1
    assert held > 20


def test_one_matrix_on_each_of_many_rows_stays_one_matrix(tmp_path):
    graph = Graph(5, 4)
    graph.op("FULLY_CONNECTED", graph.floats(3, 4), graph.floats(3), shape=(5, 3), version=2, keepNumDims=True)
    graph.op("RELU")
    network = read(graph.data(), tmp_path).network
    path = files.write(network, tmp_path / "again.tflite").path
    assert tflite.read_file(path).network.connections == network.connections


def test_bounds_lie_as_tensors_do(tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(conv_net(activation=1).data())
    bounds = leo_core.analyze(path, (0, 1), solver="scipy", time_limit=5).bounds
    assert [values.shape for values in bounds.layers.values()][:2] == [(5, 4, 4), (5, 4, 8)]
