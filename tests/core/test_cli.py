"""The command, as a user meets it: through a real process where that matters."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import leo_core
from leo_core.cli import main
from leo_core.network import Output, Signature
from leo_core.testing.networks import chain


def leo(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)


def process(*arguments, **options):
    return subprocess.run([sys.executable, "-m", "leo_core", *map(str, arguments)], capture_output=True, text=True,
                          check=False, **options)  # fmt: skip


@pytest.fixture
def net(tmp_path) -> Path:
    return leo_core.convert(chain(3, 8, 8, 2, seed=2), tmp_path / "net.onnx")


def test_compress_prints_a_table_and_writes_the_file(net, tmp_path):
    done = leo("compress", net, tmp_path / "out.leo", "--domain", "-1,1")
    assert done.exit_code == 0
    for word in ("before", "after", "connections", "widths", "proved", "out.leo"):
        assert word in done.output
    assert (tmp_path / "out.leo").exists()


def test_compress_json_is_one_object_and_nothing_else(net, tmp_path):
    done = process("compress", net, tmp_path / "out.onnx", "--domain", "-1,1", "--json")
    content = json.loads(done.stdout)
    assert done.returncode == 0
    assert {"layers", "seconds", "strategy", "solver", "before", "after", "deviation", "tolerance",
            "float_noise", "running_error", "running_error_after"} <= content.keys()  # fmt: skip
    assert "certain" not in content
    sizes = {"widths", "connections", "nonzeros", "operations", "parameters", "operators", "activation_bytes"}
    assert content["before"].keys() == content["after"].keys() == sizes
    assert content["before"]["widths"] == [3, 8, 8, 2]
    assert content["before"]["connections"] == content["before"]["operations"] == 24 + 64 + 16
    assert content["before"]["nonzeros"] <= content["before"]["connections"]
    assert content["before"]["operators"] == 3
    assert content["before"]["activation_bytes"] == (8 + 8) * 4
    assert 0 <= content["deviation"] <= content["tolerance"]
    assert "layer 1 of 2" in done.stderr


def array(path, *arrays, **named):
    with path.open("wb") as file:
        np.save(file, *arrays) if arrays else np.savez(file, **named)
    return path


def test_inputs_whose_class_is_certain(net, tmp_path, monkeypatch):
    inputs = np.random.default_rng(0).uniform(-1, 1, (40, 3))
    files = [array(tmp_path / "i.npy", inputs), array(tmp_path / "i.npz", images=inputs, labels=np.arange(40))]
    for path in files:
        done = leo("compress", net, tmp_path / "out.leo", "--domain", "-1,1", "--inputs", path)
        assert "class certain to stay when both are run in float32: 100.00% of 40 inputs" in done.output
    done = leo("compress", net, tmp_path / "out.leo", "--domain", "-1,1", "--inputs", files[0], "-q", "--json")
    content = json.loads(done.stdout)
    assert (content["inputs"], content["certain"]) == (40, 1)

    one = leo_core.convert(chain(3, 8, 1), tmp_path / "one.onnx")
    done = leo("compress", one, tmp_path / "out.leo", "--domain", "-1,1", "--inputs", files[0])
    assert "not applicable" in done.output

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("leo_core.result.certain_class", interrupted)
    done = leo("compress", net, tmp_path / "late.leo", "--domain", "-1,1", "--inputs", files[0])
    assert done.exit_code == 0
    assert (tmp_path / "late.leo").exists()
    assert "certain" not in done.output


def test_inspect_json(net):
    content = json.loads(leo("inspect", net, "--domain", "-1,1", "--json", "-q").stdout)
    assert [layer["units"] for layer in content["layers"]] == [8, 8]
    for layer in content["layers"]:
        assert layer.keys() == {"name", "units", "active", "inactive", "unstable", "undecided"}
        assert sum(layer[k] for k in ("active", "inactive", "unstable", "undecided")) == layer["units"]
    assert content["strategy"] == "cascade"
    assert content["trust"] == "proved"


def test_trusting_the_solver_is_said_in_every_output(net, tmp_path):
    assert "not proved" in leo("inspect", net, "--domain", "-1,1", "--trust", "solver").output
    assert "not proved" in leo("compress", net, tmp_path / "o.leo", "--domain", "-1,1", "--trust", "solver").output
    content = json.loads(leo("inspect", net, "--domain", "-1,1", "--trust", "solver", "--json", "-q").stdout)
    assert content["trust"] == "solver"


def test_domain_files(net, tmp_path):
    (tmp_path / "d.json").write_text('{"lower": [-1, -1, -1], "upper": 1}')
    (tmp_path / "d.vnnlib").write_text(
        "".join(f"(declare-const X_{i} Real)(assert (>= X_{i} -1))(assert (<= X_{i} 1))" for i in range(3))
    )
    corners = array(tmp_path / "d.npz", examples=np.array([[-1, 1, -1], [1, -1, 1]]), labels=np.arange(2))
    told = leo("box", corners, tmp_path / "e.json")
    assert told.exit_code == 0
    assert "the box around 2 examples" in told.stderr
    assert f"3 ranges, within -1 and 1, written to {tmp_path / 'e.json'}" in told.stdout
    answers = [json.loads(leo("inspect", net, "--domain", d, "--json", "-q").stdout)["layers"]
               for d in ("-1,1", tmp_path / "d.json", tmp_path / "d.vnnlib", corners, tmp_path / "e.json")]  # fmt: skip
    assert all(answer == answers[0] for answer in answers)

    wider = leo("box", corners, tmp_path / "e.json", "--margin", "0.5", "-q")
    assert (wider.exit_code, wider.output) == (0, "")
    assert json.loads((tmp_path / "e.json").read_text()) == {"lower": [-2.0] * 3, "upper": [2.0] * 3}
    for arguments, code, said in (
        ((corners, tmp_path / "e.npy"), 1, "ends in .json"),
        ((tmp_path / "none.npy", tmp_path / "e.json"), 1, "no such file"),
        ((corners, tmp_path / "e.json", "--margin", "-1"), 1, "margin"),
        ((array(tmp_path / "y.npy", np.arange(4)), tmp_path / "e.json"), 1, "give examples × inputs"),
        ((array(tmp_path / "t.npz", a=np.eye(2), b=np.eye(2)), tmp_path / "e.json"), 1, "several of its arrays"),
    ):
        done = leo("box", *arguments)
        assert (done.exit_code, said in done.stderr) == (code, True), done.stderr


def test_convert_and_verify(net, tmp_path):
    assert leo("convert", net, tmp_path / "net.leo").exit_code == 0
    same = json.loads(leo("verify", net, tmp_path / "net.leo", "--domain", "-1,1", "--json", "-q").stdout)
    assert same["lower"] == 0
    assert leo("verify", net, net, "--domain", "-1,1", "-q").output == "equal over the reals\n"


def last_bias_moved(network, unit, by):
    last = network.affine(network.output)
    bias = last.bias.copy()
    bias[unit] += by
    return replace(network, nodes=(*network.nodes[:-1], replace(last, bias=bias)))


@pytest.mark.parametrize("inputs", [3, 40])
def test_verify_shows_where_two_networks_differ(inputs, tmp_path):
    one = chain(inputs, 4, 2, seed=2)
    pair = (one, "a.leo"), (last_bias_moved(one, 1, 4), "b.leo")
    paths = [leo_core.convert(net, tmp_path / name) for net, name in pair]
    done = leo("verify", *paths, "--domain", "0.25,0.75", "-q")
    assert done.exit_code == 0
    assert "at this input output 1 is " in done.output
    assert ("input of 40 values: " in done.output) == (inputs == 40)
    assert ("… (all of them with --json)" in done.output) == (inputs == 40)
    content = json.loads(leo("verify", *paths, "--domain", "0.25,0.75", "-q", "--json").stdout)
    largest, x = content["largest"], np.array(content["witness"])
    assert largest["output"] == 1
    assert f"is {largest['first']:.9g} in A, {largest['second']:.9g} in B" in done.output
    assert largest["first"] == pytest.approx(one.evaluate(x)[1])
    assert largest["second"] - largest["first"] == pytest.approx(4)
    assert content["interrupted"] is False
    same = json.loads(leo("verify", paths[0], paths[0], "--domain", "0,1", "-q", "--json").stdout)
    assert same["largest"] is None


def test_inputs_outside_the_domain_are_counted(net, tmp_path):
    inside = np.zeros((7, 3))
    outside = np.array([[0, 0, 1.5], [-2, 0, 0]])
    path = array(tmp_path / "i.npy", np.concatenate([inside, outside]))
    asked = ("compress", net, tmp_path / "out.leo", "--domain", "-1,1", "--inputs", path)
    assert "2 of 9 inputs lie outside the domain: the guarantee" in leo(*asked).output.replace("\n", " ")
    assert json.loads(leo(*asked, "--json").stdout)["outside"] == 2
    path = array(tmp_path / "i.npy", inside)
    assert "outside the domain" not in leo(*asked).output
    assert json.loads(leo(*asked, "--json").stdout)["outside"] == 0


def test_bytes_are_those_of_both_networks_as_leo_writes_them(net, tmp_path):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(net)
    model.doc_string = "padding" * 1000
    onnx.save(model, tmp_path / "padded.onnx")
    asked = [
        ("compress", source, tmp_path / "out.onnx", "--domain", "-1,1", "--json", "-q")
        for source in (net, tmp_path / "padded.onnx")
    ]
    sizes = [json.loads(leo(*arguments).stdout)["file_bytes"] for arguments in asked]
    assert sizes[0] == sizes[1]
    assert sizes[0]["after"] == (tmp_path / "out.onnx").stat().st_size
    # where the format does not hold the original, nothing is said of bytes
    softmax = replace(chain(2, 3, 2), signature=Signature(outputs=(Output(tail="softmax"),)))
    from leo_core.files import sizes_written

    (tmp_path / "x.nnet").touch()
    assert sizes_written(softmax, tmp_path / "x.nnet") is None
    done = leo("compress", net, tmp_path / "out.leo", "--domain", "-1,1")
    for row in ("bytes as LEO writes it", "… that are not zero", "multiplications for one input"):
        assert row in done.output


def test_plugins():
    text = leo("plugins").output
    for name in ("highs", "scipy", "onnx", "nnet", "leo"):
        assert name in text
    listed = json.loads(leo("plugins", "--json").stdout)["plugins"]
    assert all({"kind", "name", "state", "detail"} <= entry.keys() for entry in listed)


@pytest.mark.parametrize("command", ["compress", "inspect", "verify", "check", "convert", "plugins"])
def test_every_command_has_a_help_text(command):
    done = leo(command, "--help")
    assert done.exit_code == 0
    assert len(done.output) > 150 or command in ("plugins", "check", "convert")


def bad(tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(data)
    return path


CASES = {
    "missing file": (lambda n, t: ["inspect", t / "no.onnx", "--domain", "0,1"], 1, "no.onnx"),
    "truncated": (lambda n, t: ["inspect", bad(t, "cut.onnx", n.read_bytes()[:200]), "--domain", "0,1"], 1, "cut.onnx"),
    "empty": (lambda n, t: ["inspect", bad(t, "e.onnx", b""), "--domain", "0,1"], 1, "e.onnx"),
    "text": (lambda n, t: ["inspect", bad(t, "t.nnet", b"hello"), "--domain", "0,1"], 1, "t.nnet"),
    "binary text": (lambda n, t: ["inspect", bad(t, "b.nnet", b"\xff\xfe\x00"), "--domain", "0,1"], 1, "b.nnet"),
    "a folder": (lambda n, t: ["inspect", t, "--domain", "0,1"], 1, "folder"),
    "no path": (lambda n, t: ["inspect", "", "--domain", "0,1"], 1, "path of a model is empty"),
    "no output path": (lambda n, t: ["convert", n, ""], 1, "path of a model is empty"),
    "suffix": (lambda n, t: ["inspect", bad(t, "x.abc", b""), "--domain", "0,1"], 1, ".abc"),
    "wrong box shape": (lambda n, t: ["inspect", n, "--domain", bad(t, "d.json", b'{"lower":[0],"upper":[1]}')], 1,
                        "d.json"),
    "box upside down": (lambda n, t: ["inspect", n, "--domain", "1,0"], 2, "input 0"),
    "box of nan": (lambda n, t: ["inspect", n, "--domain", "nan,0"], 2, "input 0"),
    "no box": (lambda n, t: ["inspect", n, "--domain", "all"], 2, "LO,HI"),
    "a word for a bound": (lambda n, t: ["inspect", n, "--domain", "0,one"], 2, "LO,HI"),
    "three bounds": (lambda n, t: ["verify", n, n, "--domain", "0,1,2"], 2, "LO,HI"),
    "check with no box": (lambda n, t: ["check", n, n, n, "--domain", "0"], 2, "LO,HI"),
    "a domain file upside down": (lambda n, t: ["inspect", n, "--domain", bad(t, "d.json", b'{"lower":1,"upper":0}')],
                                  1, "d.json"),
    "no domain file": (lambda n, t: ["inspect", n, "--domain", t / "no.json"], 1, "no such file"),
    "no domain": (lambda n, t: ["inspect", n], 2, "--domain"),
    "solver": (lambda n, t: ["inspect", n, "--domain", "0,1", "--solver", "cplex"], 1, "cplex"),
    "strategy": (lambda n, t: ["inspect", n, "--domain", "0,1", "--strategy", "magic"], 2, "magic"),
    "trust": (lambda n, t: ["inspect", n, "--domain", "0,1", "--trust", "me"], 2, "me"),
    "jobs": (lambda n, t: ["inspect", n, "--domain", "0,1", "--jobs", "0"], 2, "jobs"),
    "negative seed": (lambda n, t: ["inspect", n, "--domain", "0,1", "--seed", "-1"], 2, "--seed"),
    "jobs text": (lambda n, t: ["inspect", n, "--domain", "0,1", "--jobs", "many"], 2, "many"),
    "negative time": (lambda n, t: ["inspect", n, "--domain", "0,1", "--time-limit", "-1"], 2, "time limit"),
    "tolerance": (lambda n, t: ["compress", n, t / "o.leo", "--domain", "0,1", "--tolerance", "some"], 2, "tolerance"),
    "output suffix": (lambda n, t: ["compress", n, t / "o.abc", "--domain", "0,1"], 1, ".abc"),
    "output folder": (lambda n, t: ["compress", n, t / "no" / "o.leo", "--domain", "0,1"], 1, "no folder"),
    "output is input": (lambda n, t: ["compress", n, n, "--domain", "0,1"], 2, "same file"),
    "certificate folder": (lambda n, t: ["compress", n, t / "o.leo", "--domain", "0,1", "--certificate", t / "no/c"],
                           1, "no folder"),
    "certificate is OUT": (lambda n, t: ["compress", n, t / "o.leo", "--domain", "0,1", "--certificate", t / "o.leo"],
                              2, "file of its own"),
    "no certificate": (lambda n, t: ["check", t / "c", n, n], 1, "no such file"),
    "check a network": (lambda n, t: ["check", n, n, n], 1, "no certificate"),
    "unknown option": (lambda n, t: ["inspect", n, "--domain", "0,1", "--fast"], 2, "--fast"),
    "unknown command": (lambda n, t: ["shrink", n], 2, "shrink"),
    "damaged leo file": (lambda n, t: ["inspect", bad(t, "n.leo", b"PK\x03\x04 no"), "--domain", "0,1"], 1, "n.leo"),
    "format that cannot hold it": (lambda n, t: ["convert", leo_core.convert(_residual(), t / "r.leo"), t / "r.nnet"],
                                   1, "r.nnet: LEO cannot represent"),
}  # fmt: skip


def _residual():
    from leo_core.testing.networks import residual

    return residual()


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_message_and_an_exit_code(case, net, tmp_path):
    build, code, said = CASES[case]
    done = leo(*build(net, tmp_path))
    assert done.exit_code == code, done.output
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not list(tmp_path.glob("o.*"))


INPUTS = {
    "missing": (lambda file: file, "there is no such file"),
    "a folder": (lambda file: file.mkdir(), "cannot be read"),
    "empty": (lambda file: file.touch(), "cannot be read"),
    "text": (lambda file: file.write_text("1,2,3"), "cannot be read"),
    "cut short": (lambda file: file.write_bytes(array(file, a=np.ones((9, 3))).read_bytes()[:99]), "cannot be read"),
    "code": (lambda file: array(file, np.array([[print] * 3], dtype=object)), "cannot be read"),
    "words": (lambda file: array(file, np.array([["a", "b", "c"]])), "give numbers"),
    "another shape": (lambda file: array(file, np.ones((2, 4))), "takes 3 inputs"),
    "a single example": (lambda file: array(file, np.ones(3)), "takes 3 inputs"),
    "no example": (lambda file: array(file, np.ones((0, 3))), "takes 3 inputs"),
    "a number": (lambda file: array(file, np.float32(1)), "takes 3 inputs"),
    "nan": (lambda file: array(file, np.array([[0, 1, 2], [0, np.nan, 2]])), "example 1"),
    "none that fits": (lambda file: array(file, a=np.ones((2, 4)), b=np.ones(3)), "none of its arrays"),
    "two that fit": (lambda file: array(file, a=np.ones((2, 3)), b=np.ones((9, 3))), "several of its arrays"),
}


@pytest.mark.parametrize("case", INPUTS)
def test_bad_inputs_are_refused_before_the_work(case, net, tmp_path):
    write, said = INPUTS[case]
    write(tmp_path / "given")
    done = leo("compress", net, tmp_path / "o.leo", "--domain", "-1,1", "--inputs", tmp_path / "given")
    assert done.exit_code == 1, done.output
    assert said in done.stderr
    assert "given" in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "o.leo").exists()


def test_nan_weights_through_the_command(tmp_path):
    onnx = pytest.importorskip("onnx")
    path = leo_core.convert(chain(3, 4, 2), tmp_path / "n.onnx")
    model = onnx.load(path)
    tensor = model.graph.initializer[0]
    array = onnx.numpy_helper.to_array(tensor).copy()
    array.flat[0] = np.nan
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    onnx.save(model, path)
    done = process("inspect", path, "--domain", "0,1")
    assert done.returncode == 1
    assert "NaN" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_time_limit_of_zero_writes_a_valid_file(net, tmp_path):
    done = process("compress", net, tmp_path / "o.onnx", "--domain", "-1,1", "--time-limit", "0", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["deviation"] >= 0
    assert (tmp_path / "o.onnx").exists()


def heed_ctrl_c():
    """A job that a shell put into the background would ignore it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.slow
def test_ctrl_c_writes_a_valid_partial_result(tmp_path):
    # dense and unstable: minutes of work, so that the signal falls into it
    net = leo_core.convert(chain(20, 40, 40, 40, 2, seed=1), tmp_path / "net.onnx")
    out = tmp_path / "o.onnx"
    running = subprocess.Popen(
        [sys.executable, "-m", "leo_core", "compress", str(net), str(out), "--domain", "-1,1", "--json",
         "--strategy", "paper"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
        preexec_fn=heed_ctrl_c,
    )  # fmt: skip
    assert running.stderr is not None
    running.stderr.readline()  # the first layer is on its way
    time.sleep(2)
    running.send_signal(signal.SIGINT)
    stdout, stderr = running.communicate(timeout=60)
    assert running.returncode == 130, stderr
    assert "Traceback" not in stderr
    content = json.loads(stdout)
    assert content["interrupted"]
    assert out.exists()
    assert sum(layer["undecided"] for layer in content["layers"]) > 0


def test_a_plug_in_that_prints_does_not_spoil_the_json(net, tmp_path):
    script = tmp_path / "noisy.py"
    script.write_text(
        "import os\n"
        "import leo_core\n"
        "from leo_core.cli import main\n"
        "from leo_core.plugins import SolverSpec\n"
        "from leo_core.testing.reference import ReferenceSolver\n"
        "class Noisy(ReferenceSolver):\n"
        "    name = 'noisy'\n"
        "    def load(self, problem, *, seed=0):\n"
        "        os.write(1, b'banner'); print('hello')\n"
        "        return super().load(problem, seed=seed)\n"
        "leo_core.register_solver(SolverSpec('noisy', 'prints', Noisy))\n"
        "main()\n"
    )
    asked = ["inspect", net, "--domain", "-1,1", "--solver", "noisy", "--strategy", "paper", "--json", "-q"]
    done = subprocess.run([sys.executable, script, *asked], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["solver"] == "noisy"
    assert "banner" in done.stderr
    assert "hello" in done.stderr


class TestCrossCheck:
    @pytest.fixture
    def net(self, tmp_path) -> Path:
        return leo_core.convert(chain(2, 6, 5, 2, seed=2), tmp_path / "net.leo")

    ASK = ("--domain", "-1,1", "--cross-check")

    @pytest.fixture
    def liar(self, monkeypatch):
        from leo_core.plugins import SolverSpec, registry
        from leo_core.testing.reference import ReferenceSolver
        from leo_core.testing.wrong import WrongSolver

        monkeypatch.setattr(registry, "_registered", {})

        def register(fault):
            leo_core.register_solver(SolverSpec("liar", "lies", lambda: WrongSolver(ReferenceSolver(), fault)))

        return register

    @pytest.mark.parametrize("strategy", ["cascade", "paper", "isa"])
    def test_solvers_that_agree(self, net, strategy):
        done = leo("inspect", net, *self.ASK, "highs,scipy", "--strategy", strategy, "--json", "-q")
        assert done.exit_code == 0, done.output
        content = json.loads(done.stdout)
        check = content["cross_check"]
        assert check["solvers"] == ["highs", "scipy"]
        assert check["disagreements"] == check["contradictions"] == []
        assert check["decided_by_one"] == 0
        assert check["compared"] > 0
        assert min(check["asked"]) >= check["compared"]
        assert check["failed"] == [0, 0]
        assert content["strategy"] == ("isa" if strategy == "isa" else "paper")
        assert [layer["units"] for layer in content["layers"]] == [6, 5]
        done = leo("inspect", net, *self.ASK, "highs,scipy", "--strategy", strategy)
        assert "no verdicts contradict" in done.output
        assert f"highs was asked {check['asked'][0]} times and scipy was asked {check['asked'][1]} times" in done.output
        assert ("the paper strategy is used" in done.stderr) == (strategy == "cascade")

    @pytest.mark.parametrize(
        ("fault", "order", "trust"),
        [
            ("zeros", "highs,liar", "proved"),
            ("zeros", "liar,highs", "solver"),
            ("always_infeasible", "highs,liar", "proved"),
            ("always_infeasible", "liar,highs", "proved"),
            ("bound_far_too_low", "highs,liar", "solver"),
            ("wrong_sense", "highs,liar", "proved"),
            ("stale_objective", "highs,liar", "solver"),
            ("primal_as_bound", "liar,highs", "proved"),
        ],
    )
    def test_a_liar_is_caught_whatever_is_trusted(self, net, liar, fault, order, trust):
        from leo_core.testing import wrong

        liar(getattr(wrong, fault))
        done = leo("inspect", net, *self.ASK, order, "--trust", trust, "--json")
        assert done.exit_code == 1
        assert "contradict" in done.stderr
        assert "question" in done.stderr
        assert "liar" in done.stderr
        found = json.loads(done.stdout)["cross_check"]["contradictions"]
        assert all("liar" in item["solvers"] for item in found), "the honest one is not accused of anything by itself"

    def test_verdicts_that_disagree_are_listed_by_unit(self, net, liar):
        from leo_core.testing.wrong import zeros

        liar(zeros)
        trusting = leo("inspect", net, *self.ASK, "highs,liar", "--trust", "solver")
        assert trusting.exit_code == 1
        assert "unit" in trusting.stderr

    @pytest.mark.parametrize("fault", ["crashes", "no_answer"])
    def test_one_that_never_answers_is_no_agreement(self, net, liar, fault):
        from leo_core.testing import wrong

        liar(getattr(wrong, fault))
        done = leo("inspect", net, *self.ASK, "highs,liar")
        assert done.exit_code == 1
        assert "liar failed" in done.output
        assert "no answers could be compared" in done.stderr
        assert "no verdicts contradict" not in done.output

    def test_one_that_is_asked_nothing_is_no_agreement(self, tmp_path):
        from leo_core.linear import Dense
        from leo_core.network import Affine, Network, Relu

        nodes = (
            Affine("a", ("input",), (Dense([[1.0], [1.0]]),), np.array([2.0, -3.0])),
            Relu("r", "a", np.zeros(2)),
            Affine("b", ("r",), (Dense([[1.0, 1.0]]),), np.zeros(1)),
        )
        path = leo_core.convert(Network(1, nodes, "b"), tmp_path / "stable.leo")
        done = leo("inspect", path, *self.ASK, "highs,scipy")
        assert done.exit_code == 0
        assert "neither solver was asked anything" in done.output
        assert "no verdicts contradict" not in done.output

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (("--cross-check", "highs"), "two solvers"),
            (("--cross-check", "highs,highs"), "different"),
            (("--cross-check", "highs,scipy", "--solver", "scipy"), "--solver"),
        ],
    )
    def test_wrong_usage(self, net, arguments, says):
        done = leo("inspect", net, "--domain", "-1,1", *arguments)
        assert done.exit_code == 2
        assert says in done.stderr
