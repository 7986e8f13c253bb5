"""Latency is measured when asked for, in turn, and said as it was seen: no test knows how long anything takes."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
from click.testing import CliRunner

import leo_core
from leo_core import latency
from leo_core.cli import main
from leo_core.errors import PluginError, UnsupportedModelError
from leo_core.execution.budget import Budget
from leo_core.latency import Latency, Spread
from leo_core.report.html import page
from leo_core.report.words import latency_line, microseconds
from leo_core.testing.networks import chain, two_heads


@pytest.fixture
def runtime():
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")


@pytest.mark.parametrize(
    "make", [lambda: chain(3, 8, 8, 2, seed=2), lambda: chain(2, 4, 3, dtype=np.float64), two_heads]
)
def test_it_is_measured_where_it_is_asked_for(runtime, make):
    result = leo_core.compress(make(), (0, 1), latency=True)
    found = result.latency
    assert found.runtime.startswith("ONNX Runtime ")
    assert found.runs >= 11
    for spread in (found.before, found.after):
        assert 0 < spread.lower <= spread.median <= spread.upper
    assert result.as_json()["latency"] == json.loads(json.dumps(asdict(found)))
    assert "µs for one input" in result.summary()
    assert "in turn" in result.summary()
    text = page(result.as_json())
    assert f'<data value="{found.before.median}">' in text
    assert f'<data value="{found.after.median}">' in text

    silent = leo_core.compress(make(), (0, 1))
    assert silent.latency is None
    assert "latency" not in silent.as_json()
    assert "µs" not in silent.summary()
    assert "icroseconds" not in page(silent.as_json())


def test_the_command_measures_too(runtime, tmp_path):
    net = leo_core.convert(chain(3, 8, 8, 2, seed=2), tmp_path / "net.leo")
    arguments = ["compress", str(net), str(tmp_path / "o.leo"), "--domain", "0,1", "--latency"]
    done = CliRunner().invoke(main, [*arguments, "--json", "-q"], catch_exceptions=False)
    assert json.loads(done.stdout)["latency"]["runs"] >= 11
    assert json.loads(done.stdout)["command"].endswith("--latency")
    assert "one input took" in " ".join(CliRunner().invoke(main, arguments).stdout.split())


def test_without_a_runtime_it_is_said_before_any_work(monkeypatch, tmp_path):
    pytest.importorskip("onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr("leo_core.api.read", None)  # no work is begun
    with pytest.raises(PluginError, match="pip install onnxruntime"):
        leo_core.compress(chain(3, 8, 2), (0, 1), latency=True)


def test_why_there_is_none_is_a_note(runtime, monkeypatch):
    network = chain(3, 8, 2)
    assert latency.measure(network, network, np.zeros((1, 3)), Budget.of(0.0)) == "no time was left"

    def refused(*_):
        raise UnsupportedModelError("net.onnx", ["a map that ONNX lacks"])

    spec = replace(latency.stopwatch(), write_file=refused)
    monkeypatch.setattr(latency, "stopwatch", lambda: spec)
    result = leo_core.compress(network, (0, 1), latency=True)
    assert result.latency is None
    assert any("latency was not measured" in note and "a map that ONNX lacks" in note for note in result.notes)


def test_an_interruption_keeps_the_result(runtime, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(latency, "_in_turn", interrupted)
    result = leo_core.compress(chain(3, 8, 8, 2, seed=2), (0, 1), latency=True)
    assert result.interrupted
    assert result.latency is None
    assert result.network.connections <= result.original.connections


def test_they_run_in_turn():
    ran = []
    seconds = latency._in_turn(
        [lambda x: ran.append(("a", x)), lambda x: ran.append(("b", x))], [0, 1, 2], Budget.of(0.0)
    )
    assert seconds.shape == (11, 2)
    rounds = [ran[at : at + 2] for at in range(0, len(ran), 2)]
    assert len(rounds) == 12, "the first one warms up"
    for number, ((first, x), (second, y)) in enumerate(rounds):
        assert first + second == ("ab" if number % 2 else "ba")
        assert x == y == number % 3
    assert (seconds >= 0).all()


def test_words():
    def line(before, after):
        return latency_line(asdict(Latency("ONNX Runtime 1", 500, Spread(*before), Spread(*after))))

    apart = line((812e-6, 800e-6, 830e-6), (430.4e-6, 420e-6, 450e-6))
    assert apart.startswith("one input took 812 µs before and 430 µs after in ONNX Runtime 1 on one thread")
    assert "500 runs of each, in turn)" in apart
    assert "no difference" not in apart
    assert "no difference is shown" in line((6.8e-6, 6.7e-6, 6.9e-6), (6.7e-6, 6.6e-6, 6.8e-6))
    assert "no difference" not in line((1e-6, 1e-6, 1e-6), (2e-6, 2e-6, 2e-6)), "it may also be slower"
    assert [microseconds(s) for s in (1.234e-6, 56.78e-6, 1234.5e-6, 0.0)] == ["1.23", "56.8", "1,234", "0"]
    assert not re.search(r"[eE]", microseconds(1.5))
