"""The door: what a framework computes lies within what LEO proves of its run; what does not is an error."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import boxes, networks

import leo_core
from leo_core import door, files
from leo_core.domain import Box
from leo_core.door import Reading
from leo_core.errors import DoorError, LeoError
from leo_core.linear import Dense
from leo_core.network import INPUT, TAILS, Affine, Network, Output, Relu, Rounding, Signature
from leo_core.plugins import FrontendSpec, Imported, registry


def as_the_framework(network, dtype=None, tail=None):
    """A framework: NumPy in the network's own dtype, sums in NumPy's order."""
    dtype = dtype or network.dtype

    def run(inputs):
        values = network.evaluate(inputs.reshape(len(inputs), -1).astype(dtype), dtype)
        return TAIL_FUNCTIONS[network.signature.ending if tail is None else tail](values)

    return run


def softmax(z):
    parts = np.exp(z - z.max(-1, keepdims=True))
    return parts / parts.sum(-1, keepdims=True)


def log_softmax(z):
    shifted = z - z.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def sigmoid(z):
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-z))


TAIL_FUNCTIONS = {
    "": lambda z: z,
    "softmax": softmax,
    "log_softmax": log_softmax,
    "sigmoid": sigmoid,
    "tanh": np.tanh,
}


def small(tail="", dtype="float32", shape=(3,)):
    rng = np.random.default_rng(0)
    return Network(
        3,
        (
            Affine("z", (INPUT,), (Dense(rng.normal(size=(5, 3)).astype(dtype)),), rng.normal(size=5).astype(dtype)),
            Relu("h", "z", np.zeros(5)),
            Affine("y", ("h",), (Dense(rng.normal(size=(2, 5)).astype(dtype)),), np.zeros(2, dtype)),
        ),
        "y",
        Signature("in", shape, (Output("out", (2,), tail),)),
    )


@given(network=networks(), data=st.data())
def test_a_network_run_in_its_own_dtype_goes_through(network, data):
    box = data.draw(boxes(network.input_size))
    points = door.inputs_at(network, box, seed=1)
    assert points.shape == (10, network.input_size)
    assert door.agrees(Reading(network, as_the_framework(network)), points) == door.AGREES


@given(network=networks(), data=st.data())
def test_inputs_lie_in_the_domain_up_to_rounding(network, data):
    box = data.draw(boxes(network.input_size))
    points = door.inputs_at(network, box, seed=2).astype(np.float64)
    low, high = (side.astype(network.dtype).astype(np.float64) for side in (box.lower, box.upper))
    assert (points >= np.minimum(low, box.lower)).all()
    assert (points <= np.maximum(high, box.upper)).all()


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("size", [1e-3, 1.0, 30.0, 1e4])
def test_tails_are_run_through(tail, size):
    network = small(tail)
    points = door.inputs_at(network, Box.uniform(-size, size, 3))
    assert door.agrees(Reading(network, as_the_framework(network)), points) == door.AGREES
    for other in {"", *TAILS} - {tail}:
        wrong = Reading(network, as_the_framework(network, tail=other))
        with pytest.raises(DoorError, match="computes"):
            door.agrees(wrong, points)


@given(
    st.sampled_from(TAILS),
    st.lists(st.floats(-40, 40), min_size=1, max_size=5),
    st.lists(st.floats(0, 3), min_size=5, max_size=5),
    st.lists(st.floats(0, 1), min_size=5, max_size=5),
)
def test_bounds_go_through_a_tail(tail, low, width, at):
    low = np.array([low])
    high = low + np.array([width])[:, : low.shape[1]]
    inside = low + np.array([at])[:, : low.shape[1]] * (high - low)
    lower, upper = door.through_tail(tail, low, high, "float64")
    value = TAIL_FUNCTIONS[tail](inside)
    assert (lower <= value).all()
    assert (value <= upper).all()
    tight_low, tight_high = door.through_tail(tail, inside, inside, "float64")
    assert (tight_high - tight_low <= 1e-9 * (1 + np.abs(inside).max())).all()


@pytest.mark.parametrize(
    ("dtype", "end"), [("float16", -9.7), ("bfloat16", -87.3), ("float32", -87.3), ("float64", -708)]
)
def test_a_logarithm_may_be_infinite_only_where_its_softmax_underflows(dtype, end):
    for value, infinite in ((0.5 * end, False), (1.1 * end, True)):
        lower, upper = door.through_tail("log_softmax", *(np.array([[0.0, value]]),) * 2, dtype)
        assert np.isneginf(lower[0, 1]) == infinite
        assert upper[0, 1] < 0.3 * end


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_a_framework_that_computes_in_a_narrower_type(dtype):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    kind = {"bfloat16": ml_dtypes.bfloat16}.get(dtype, np.dtype(dtype))
    network = small(dtype="float64")
    points = door.inputs_at(network, Box.uniform(-4, 4, 3))

    def run(inputs):
        return as_the_framework(network, kind)(inputs).astype(np.float64)

    assert door.agrees(Reading(network, run, runs_in=dtype), points) == door.AGREES
    with pytest.raises(DoorError):
        door.agrees(Reading(network, run), points)


def test_loose_numbers():
    network = small()
    points = door.inputs_at(network, Box.uniform(-4, 4, 3))
    off = np.float32(1 + 10 * 2.0**-24)

    def run(inputs):
        z = inputs @ (network.affine("z").maps[0].dense() * off).T + network.affine("z").bias * off
        return np.maximum(z, 0) @ network.affine("y").maps[0].dense().T

    loose = {"z": Rounding(12.0, 12.0 * np.abs(network.affine("z").bias))}
    assert door.agrees(Reading(network, run, loose=loose), points) == door.AGREES


FAULTS = {
    "a weight's sign": lambda m: m * np.where(np.arange(m.size).reshape(m.shape) == 1, -1, 1),
    "a weight in the fifth digit": lambda m: m * np.where(np.arange(m.size).reshape(m.shape) == 1, 1 + 3e-5, 1),
    "two rows exchanged": lambda m: m[::-1],
    "two columns exchanged": lambda m: m[:, ::-1],
    "rounded to half": lambda m: m.astype(np.float16).astype(np.float32),
}


@pytest.mark.parametrize("change", FAULTS.values(), ids=FAULTS.keys())
def test_a_misread_matrix_is_caught(change):
    network = small()
    truth = Network(
        3,
        (
            *network.nodes[:2],
            Affine("y", ("h",), (Dense(change(network.affine("y").maps[0].dense())),), np.zeros(2)),
        ),
        "y", network.signature,
    )  # fmt: skip
    with pytest.raises(DoorError, match=r"at the input .* computes .* as output"):
        door.agrees(
            Reading(network, as_the_framework(truth, np.float32)), door.inputs_at(network, Box.uniform(-1, 1, 3))
        )


def test_only_several_examples_at_once_are_wrong():
    network = small()
    run = as_the_framework(network)
    with pytest.raises(DoorError, match="batch of 2"):
        door.agrees(Reading(network, lambda x: run(x) * len(x)), door.inputs_at(network, None))


def test_outputs_of_another_shape_or_no_numbers():
    network = small()
    points = door.inputs_at(network, None)
    with pytest.raises(DoorError, match="shape"):
        door.agrees(Reading(network, lambda x: np.zeros((len(x), 3))), points)
    with pytest.raises(DoorError, match="nan"):
        door.agrees(Reading(network, lambda x: np.full((len(x), 2), np.nan)), points)


def test_what_cannot_be_run_is_said():
    network = small()

    def broken(_inputs):
        raise RuntimeError("no such kernel\nat all")

    def alone(inputs):
        return as_the_framework(network)(inputs) if len(inputs) == 1 else broken(inputs)

    assert door.agrees(Reading(network, broken), door.inputs_at(network, None)).startswith("not run: ")
    said = door.agrees(Reading(network, alone), door.inputs_at(network, None))
    assert said.startswith("agrees, one example at a time")
    assert "no such kernel" in said


def test_the_layer_where_they_part_is_named():
    network = small()
    changed = small()
    truth = as_the_framework(network)

    def inside(inputs):
        values = network.evaluate_nodes(inputs.reshape(len(inputs), -1), np.float32)
        return {"first": values["z"], "second": values["y"]}

    nodes = tuple(
        Affine(n.name, n.sources, n.maps, n.bias + np.float32(1), type(n.origin)(layer, "Linear"))
        if isinstance(n, Affine) else n
        for n, layer in zip(changed.nodes, ("first", "", "second"), strict=True)
    )  # fmt: skip
    misread = Network(3, nodes, "y", network.signature)
    with pytest.raises(DoorError, match="part at 'first'"):
        door.agrees(Reading(misread, truth, inside=inside), door.inputs_at(network, None))


def test_two_models_further_apart_than_is_proved():
    network = small()
    reading = Reading(network, as_the_framework(network))
    shifted = Reading(network, lambda x: as_the_framework(network)(x) + 1e-3)
    points = door.inputs_at(network, None)
    door.alike(reading, reading, points, 0.0)
    door.alike(reading, shifted, points, 1e-3)
    with pytest.raises(DoorError, match="further apart"):
        door.alike(reading, shifted, points, 1e-5)


class Model:
    """A live model of a made-up framework."""

    def __init__(self, network, factor=1.0):
        self.network, self.factor = network, factor


@pytest.fixture
def misreading(monkeypatch):
    """A frontend whose models are not what it reads, and that writes other models than it is given."""

    def read_model(model, _shape):
        run = as_the_framework(model.network)
        return Imported(model.network, run=lambda inputs: run(inputs) * model.factor)

    def run_model(model, inputs):
        return as_the_framework(model.network)(inputs) * model.factor

    spec = FrontendSpec(
        "misreading", "a frontend that is wrong", model_modules=("test_door",), read_model=read_model,
        write_model=lambda network: Model(network, 2.0), run_model=run_model,
    )  # fmt: skip
    known = registry.frontend
    monkeypatch.setattr(registry, "frontend_for_model", lambda model: spec)
    monkeypatch.setattr(registry, "frontend", lambda name: spec if name == "misreading" else known(name))
    return spec


class TestFrontEntrance:
    def test_a_model_read_right(self, misreading):
        result = leo_core.compress(Model(small()), (-1, 1))
        assert result.as_json()["door"] == {"read": "agrees", "written": "nothing is written"}

    def test_a_misread_model_gives_no_result(self, misreading):
        with pytest.raises(DoorError, match=r"the Model: LEO has misread this model, so there is no result"):
            leo_core.compress(Model(small(), 1.001), (-1, 1))

    def test_a_miswritten_model_is_withdrawn(self, misreading):
        result = leo_core.compress(Model(small()), (-1, 1))
        with pytest.raises(DoorError, match="withdrawn"):
            result.to("misreading")

    def test_every_way_in_goes_through_the_door(self, misreading, tmp_path):
        good, bad = Model(small()), Model(small(), 1.001)
        for ask in (
            lambda: leo_core.analyze(bad, (-1, 1)),
            lambda: leo_core.verify(bad, good, (-1, 1)),
            lambda: leo_core.verify(good, bad, (-1, 1)),
            lambda: leo_core.convert(bad, tmp_path / "out.leo"),
            lambda: leo_core.check(tmp_path / "none.cert", good, bad),
            lambda: files.read(bad),
        ):
            with pytest.raises(DoorError):
                ask()
        assert not list(tmp_path.iterdir())

    def test_a_miswritten_file_leaves_none(self, tmp_path, monkeypatch):
        wrong = FrontendSpec(
            "wrong", "", (".wrong",), write_file=lambda network, path: path.write_text("x"),
            run_file=lambda path: lambda inputs: np.zeros((len(inputs), 2)),
        )  # fmt: skip
        monkeypatch.setattr(registry, "frontend_for_path", lambda path: wrong)
        with pytest.raises(DoorError, match=r"net\.wrong: LEO has written something else"):
            files.write(small(), tmp_path / "net.wrong")
        assert not list(tmp_path.iterdir())

    def test_it_is_a_leo_error(self):
        assert issubclass(DoorError, LeoError)
