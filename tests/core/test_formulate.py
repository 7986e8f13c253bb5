"""Networks written as programs: HiGHS and SCIP read the file, and what they find is what the network does."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import networks_and_boxes
from truth import extremes

import leo_core
from leo_core import Box
from leo_core.cli import main
from leo_core.errors import EncodingError, OutputError, UsageError
from leo_core.network import Network, Output, Signature
from leo_core.testing.networks import chain

highspy = pytest.importorskip("highspy")


def by_highs(path, inputs=None):
    """(the objective, columns by name) of a file; some columns may be fixed."""
    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("mip_rel_gap", 0.0)
    assert solver.readModel(str(path)) != highspy.HighsStatus.kError
    names = [solver.getColName(column)[1] for column in range(solver.getNumCol())]
    for name, value in (inputs or {}).items():
        solver.changeColBounds(names.index(name), value, value)
    solver.run()
    assert solver.getModelStatus() == highspy.HighsModelStatus.kOptimal
    return solver.getInfo().objective_function_value, dict(zip(names, solver.getSolution().col_value, strict=True))


def by_scip(path):
    pyscipopt = pytest.importorskip("pyscipopt")
    model = pyscipopt.Model()
    model.hideOutput()
    model.readProblem(str(path))
    model.optimize()
    assert model.getStatus() == "optimal"
    return model.getObjVal(), {variable.name: model.getVal(variable) for variable in model.getVars()}


@settings(max_examples=25)
@given(networks_and_boxes(), st.sampled_from(["mps", "lp"]))
def test_the_optimum_is_the_true_one(tmp_path_factory, network_and_box, suffix):
    network, box = network_and_box
    path = tmp_path_factory.getbasetemp() / f"net.{suffix}"
    leo_core.formulate(network, path, box, maximize="output_0", solver="scipy")
    most = float(extremes(network, box)[network.output][0][1])
    assert by_highs(path)[0] == pytest.approx(most, abs=1e-5)


@pytest.mark.parametrize("suffix", ["mps", "lp"])
def test_highs_and_scip_agree_with_the_network(tmp_path, suffix):
    network, box = chain(4, 10, 8, 3, seed=3), Box.uniform(-1, 1, 4)
    path = tmp_path / f"net.{suffix}"
    leo_core.formulate(network, path, box, maximize="output_1")
    answers = [by_highs(path), by_scip(path)]
    assert answers[0][0] == pytest.approx(answers[1][0], abs=1e-5)
    for value, columns in answers:
        x = np.array([columns[f"input_{place}"] for place in range(4)])
        outputs = network.evaluate(box.clip(x))
        assert outputs[1] == pytest.approx(value, abs=1e-4)
        assert [columns[f"output_{place}"] for place in range(3)] == pytest.approx(outputs.tolist(), abs=1e-4)


def test_every_input_has_the_outputs_of_the_network(tmp_path):
    network, box = chain(3, 8, 8, 2, seed=2), Box.uniform(-1, 1, 3)
    found = leo_core.formulate(network, tmp_path / "net.mps", box, tight=0.01, time_limit=5)
    assert not found.objective.any()
    for x in box.sample(np.random.default_rng(0), 5):
        _, columns = by_highs(tmp_path / "net.mps", dict(zip(found.inputs, x, strict=True)))
        assert [columns[name] for name in found.outputs] == pytest.approx(network.evaluate(x).tolist(), abs=1e-5)


def test_names_are_the_models_own_as_far_as_the_formats_take_them(tmp_path):
    plain = chain(2, 3, 3, seed=1)
    outputs = (Output("steer/left", (1,)), Output("steer left", (1,)), Output("1e5", (1,)))
    network = Network(2, plain.nodes, plain.output, Signature("the image", (2,), outputs))
    for suffix in ("mps", "lp"):
        path = tmp_path / f"net.{suffix}"
        found = leo_core.formulate(network, path, (-1, 1), maximize="steer/left")
        assert found.inputs == ("the_image_0", "the_image_1")
        assert found.outputs == ("steer_left_0", "steer_left_0_2", "_1e5_0")
        assert by_highs(path)[0] == pytest.approx(by_scip(path)[0], abs=1e-6)


def test_what_cannot_be_written(tmp_path):
    network = chain(2, 3, 2)
    with pytest.raises(UsageError, match=r"\.mps or \.lp"):
        leo_core.formulate(network, tmp_path / "net.txt", (-1, 1))
    with pytest.raises(UsageError, match=r"no output 'up'.*output_0, output_1"):
        leo_core.formulate(network, tmp_path / "net.mps", (-1, 1), maximize="up")
    with pytest.raises(OutputError, match="no folder"):
        leo_core.formulate(network, tmp_path / "no" / "net.mps", (-1, 1))
    nodes = [
        replace(node, maps=tuple(leo_core.Dense(1e200 * linear.dense().astype(float)) for linear in node.maps))
        if isinstance(node, leo_core.Affine)
        else node
        for node in network.nodes
    ]
    with pytest.raises(EncodingError, match="overflow"):
        leo_core.formulate(Network(2, tuple(nodes), network.output), tmp_path / "net.mps", (-1e9, 1e9))
    assert not list(tmp_path.iterdir())


def test_the_command(tmp_path):
    net = leo_core.convert(chain(3, 8, 2, seed=2), tmp_path / "net.leo")
    arguments = ["formulate", str(net), str(tmp_path / "net.lp"), "--domain", "-1,1", "--maximize", "output_1", "-q"]
    text = CliRunner().invoke(main, arguments, catch_exceptions=False).stdout
    assert "inputs input_0 to input_2; outputs output_0 to output_1" in text
    content = json.loads(CliRunner().invoke(main, [*arguments, "--json"], catch_exceptions=False).stdout)
    assert content["outputs"] == ["output_0", "output_1"]
    assert content["binaries"] <= 8
    assert by_highs(tmp_path / "net.lp")[1].keys() >= {"input_0", "output_1"}
