from __future__ import annotations

import os
import stat
import sys
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from strategies import networks_and_boxes
from truth import largest_difference

import leo_core
from leo_core import Box, Dense, LeoError, State
from leo_core.bounds.interval import bound_network
from leo_core.bounds.running import running_error
from leo_core.errors import DomainError, OutputError, PluginError, UsageError
from leo_core.execution.events import Note, Progress
from leo_core.testing.networks import chain


def test_the_whole_way_from_file_to_file(digits, tmp_path):
    result = leo_core.compress(digits / "digits.onnx", digits / "digits.domain.json")
    assert result.network.connections < 0.6 * result.original.connections
    assert 0 < result.deviation <= result.tolerance == result.float_noise
    assert result.stability.count(State.UNDECIDED) == 0
    path = result.export(tmp_path / "smaller.onnx")
    again = leo_core.compress(path, digits / "digits.domain.json", time_limit=0).original
    images = np.load(digits / "digits.npz")["images"]
    before, after = result.original.evaluate(images), again.evaluate(images)
    assert np.abs(before - after).max() <= result.deviation + 1e-12 * np.abs(before).max()
    assert "proved" in result.summary()
    assert list(tmp_path.iterdir()) == [path]


def test_a_network_is_its_own_live_model_and_onnx_one_too():
    network = chain(3, 6, 2)
    result = leo_core.compress(network, (-1, 1))
    assert result.model is result.network
    onnx = pytest.importorskip("onnx")
    proto = result.to("onnx")
    assert isinstance(proto, onnx.ModelProto)
    assert isinstance(leo_core.compress(proto, "-1,1").model, onnx.ModelProto)
    with pytest.raises(PluginError, match="files only"):
        result.to("nnet")


@pytest.mark.parametrize("tolerance", ["exact", "float", 1e-3, "0.001", 0])
def test_tolerances_are_kept_to(tolerance):
    network = chain(3, 12, 12, 2, seed=5)
    result = leo_core.compress(network, "-0.1,0.1", tolerance=tolerance)
    assert result.deviation <= result.tolerance
    assert result.tolerance == {"exact": 0.0, "float": result.float_noise}.get(tolerance, float(result.tolerance))


@given(networks_and_boxes())
def test_noise_is_never_more_than_the_arithmetic_really_errs(case):
    network, box = case
    result = leo_core.compress(network, box)
    assert result.float_noise >= 0
    assert largest_difference(network, result.network, box) <= Fraction(result.deviation)


@given(networks_and_boxes())
def test_no_run_leaves_the_proved_bounds(case):
    network, box = case
    result = leo_core.compress(network, box)
    points = box.sample(np.random.default_rng(0), 20).astype(network.dtype)
    for net, bound in ((network, result.running_error), (result.network, result.running_error_after)):
        for x in points:
            if box.contains(x):
                seen = net.evaluate(x, network.dtype).tolist()
                exact = net.evaluate_exact(x.astype(float))[net.output].fractions()
                assert max(abs(Fraction(s) - e) for s, e in zip(seen, exact, strict=True)) <= Fraction(bound)


def test_the_proved_running_error_says_something(digits):
    result = leo_core.compress(digits / "digits.onnx", digits / "digits.domain.json")
    assert result.float_noise < result.running_error < 1e3 * result.float_noise
    assert result.float_noise_after < result.running_error_after < 1e3 * result.float_noise_after
    assert "in any order of summation" in result.summary()
    images = np.load(digits / "digits.npz")["images"]
    assert result.certain(images) == 1
    assert result.certain(images.reshape(-1, 8, 8)) == 1
    on_the_edge = np.vstack([images, 0.5 * (images[:-1] + images[1:])])
    assert result.certain(on_the_edge) > 0.9


def test_certain_counts_classes_that_are_sure_and_the_same():
    network = chain(3, 6, 2, seed=3)
    result = leo_core.compress(network, "-1,1")
    inputs = Box.uniform(-1, 1, 3).sample(np.random.default_rng(0), 64).astype(np.float32)
    assert result.certain(inputs) == 1
    last = network.affine(network.output)
    swapped = replace(last, maps=(Dense(last.maps[0].dense()[::-1]),), bias=last.bias[::-1])
    assert replace(result, network=replace(network, nodes=(*network.nodes[:-1], swapped))).certain(inputs) == 0
    tied = replace(last, maps=(Dense(np.zeros((2, 6), np.float32)),), bias=np.zeros(2, np.float32))
    tie = leo_core.compress(replace(network, nodes=(*network.nodes[:-1], tied)), "-1,1")
    assert tie.certain(inputs) == 0
    assert leo_core.compress(chain(3, 6, 1), "-1,1").certain(inputs) is None
    with pytest.raises(LeoError, match="3 inputs"):
        result.certain(inputs[:, :2])


def test_what_a_solver_claims_is_no_ground_for_the_running_error():
    network = chain(3, 8, 8, 2, seed=2)
    result = leo_core.compress(network, "-1,1", trust="solver")
    for net, bound in ((network, result.running_error), (result.network, result.running_error_after)):
        assert bound == running_error(net, bound_network(net, result.stability.box), net.dtype).max()
    proved = leo_core.compress(network, "-1,1")
    assert proved.running_error < result.running_error


def test_ctrl_c_while_the_running_error_is_bounded(monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("leo_core.api.running_error", interrupted)
    result = leo_core.compress(chain(3, 6, 2), "-1,1")
    assert result.interrupted
    assert result.running_error == result.running_error_after == np.inf
    assert result.as_json()["running_error"] is None
    assert "no bound on that error" in result.summary()


def test_events_come_in_order_and_notes_are_kept():
    events = []
    data = np.random.default_rng(0).random((20, 3))
    result = leo_core.compress(
        chain(3, 6, 6, 2), Box.from_data(data), listener=events.append, trust="solver", jobs=2, strategy="paper"
    )
    progress = [event for event in events if isinstance(event, Progress)]
    assert [p.decided for p in progress] == sorted(p.decided for p in progress)
    assert progress[-1].decided <= progress[-1].total == 12
    assert any("that box only" in note for note in result.notes)
    assert any("not proved" in note for note in result.notes)
    assert any("--jobs" in note for note in result.notes)
    assert "claimed by the solver" in result.summary()
    assert {note.text for note in events if isinstance(note, Note)} >= set(result.notes)


def test_a_result_prints_as_one_line():
    result = leo_core.compress(chain(3, 6, 6, 2), "-1,1", time_limit=0)
    assert "ReLUs 12 → " in repr(result)
    assert "connections 66 → " in repr(result)
    assert len(str(result)) < 120


def test_a_time_limit_of_zero_is_valid():
    network = chain(3, 6, 6, 2)
    result = leo_core.compress(network, "-1,1", time_limit=0)
    x = Box.uniform(-1, 1, 3).sample(np.random.default_rng(0), 50)
    assert np.abs(network.evaluate(x) - result.network.evaluate(x)).max() <= result.deviation + 1e-12


def test_ctrl_c_gives_a_valid_partial_result():
    network = chain(2, 8, 8, 8, 2, seed=4)

    def listener(event):
        if isinstance(event, Progress) and event.number == 2:
            raise KeyboardInterrupt

    result = leo_core.compress(network, "-1,1", listener=listener)
    assert result.interrupted
    assert "stopped early" in result.summary()
    x = Box.uniform(-1, 1, 2).sample(np.random.default_rng(0), 200)
    assert np.abs(network.evaluate(x) - result.network.evaluate(x)).max() <= result.deviation + 1e-12


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda n: leo_core.compress(n, "1,0"), DomainError, "input 0"),
        (lambda n: leo_core.compress(n, "-1,1", tolerance=-1), UsageError, "tolerance"),
        (lambda n: leo_core.compress(n, "-1,1", tolerance="loose"), UsageError, "tolerance"),
        (lambda n: leo_core.compress(n, "-1,1", tolerance=float("nan")), UsageError, "tolerance"),
        (lambda n: leo_core.compress(n, "-1,1", time_limit=-1), UsageError, "time limit"),
        (lambda n: leo_core.compress(n, "-1,1", time_limit=float("nan")), UsageError, "time limit"),
        (lambda n: leo_core.compress(n, "-1,1", jobs=0), UsageError, "jobs"),
        (lambda n: leo_core.compress(n, "-1,1", strategy="magic"), UsageError, "magic"),
        (lambda n: leo_core.compress(n, "-1,1", trust="blindly"), UsageError, "blindly"),
        (lambda n: leo_core.compress(n, "-1,1", tolerance=True), UsageError, "tolerance"),
        (lambda n: leo_core.compress(n, "-1,1", seed=-1), UsageError, "seed"),
        (lambda n: leo_core.compress(n, "-1,1", seed=1.5), UsageError, "seed"),
        (lambda n: leo_core.verify(n, n, "-1,1", seed=-1), UsageError, "seed"),
        (lambda n: leo_core.compress(n, "-1,1", solver=None), UsageError, "solver"),
        (lambda n: leo_core.compress(n, "-1,1", listener=None), UsageError, "listener"),
        (lambda n: leo_core.compress(n, "-1,1", time_limit=0).to(None), PluginError, "frontend.*by its name.*onnx"),
        (lambda n: leo_core.compress(n, "-1,1", soler="highs"), UsageError, "no option soler.*listener"),
        (lambda n: leo_core.compress(n, "-1,1", solver="gurobi9"), PluginError, "gurobi9"),
        (lambda n: leo_core.compress({"a": 1}, "-1,1"), PluginError, "dict"),
        (lambda n: leo_core.compress("model.docx", "-1,1"), PluginError, r"\.docx"),
        (lambda n: leo_core.compress("nowhere.onnx", "-1,1"), LeoError, "nowhere.onnx"),
        (lambda n: leo_core.analyze(n, "-1,1", tolerance="what"), UsageError, "tolerance"),
        (lambda n: leo_core.verify(n, chain(4, 2), "-1,1"), LeoError, "cannot be compared"),
    ],
)
def test_bad_arguments_say_what_and_where(call, error, said):
    with pytest.raises(error, match=said):
        call(chain(3, 4, 2))


class TestWriting:
    def test_an_unknown_suffix(self, tmp_path):
        with pytest.raises(PluginError, match=r"\.xyz"):
            leo_core.convert(chain(2, 2), tmp_path / "n.xyz")

    def test_a_missing_folder(self, tmp_path):
        with pytest.raises(OutputError, match="no folder"):
            leo_core.convert(chain(2, 2), tmp_path / "no" / "n.leo")

    def test_a_folder_in_the_way(self, tmp_path):
        (tmp_path / "n.leo").mkdir()
        with pytest.raises(OutputError, match="is a folder"):
            leo_core.convert(chain(2, 2), tmp_path / "n.leo")

    @pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write everywhere")
    def test_a_read_only_folder(self, tmp_path):
        tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
        with pytest.raises(OutputError, match="not writable"):
            leo_core.convert(chain(2, 2), tmp_path / "n.leo")

    def test_a_failure_leaves_the_old_file_and_no_half_one(self, tmp_path, monkeypatch):
        path = leo_core.convert(chain(2, 2), tmp_path / "n.leo")
        old = path.read_bytes()

        def half(network, target):
            target.write_bytes(b"half")
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("leo_frontends.leo_file.write_file", half)
        with pytest.raises(OutputError, match="No space left"):
            leo_core.convert(chain(3, 3), path)
        assert path.read_bytes() == old
        assert list(tmp_path.iterdir()) == [path]


class TestVerify:
    def test_a_network_and_itself(self):
        found = leo_core.verify(chain(3, 4, 2), chain(3, 4, 2), "-1,1")
        assert (found.lower, found.upper) == (0, 0)
        assert found.verdict == "equal over the reals"

    def test_two_that_differ(self):
        found = leo_core.verify(chain(3, 4, 2), chain(3, 4, 2, seed=1), "-1,1")
        assert 0 < found.lower <= found.upper
        assert "differ by at least" in found.verdict

    @given(networks_and_boxes(plain=True), networks_and_boxes(plain=True))
    def test_the_truth_lies_between(self, case, other):
        first, box = case
        second = other[0]
        if (first.input_size, first.output_size) != (second.input_size, second.output_size):
            return
        found = leo_core.verify(first, second, box)
        assert Fraction(found.lower) <= largest_difference(first, second, box) <= Fraction(found.upper)
        assert box.contains(found.witness)
