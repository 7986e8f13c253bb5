"""How the command and Python talk: width, quiet and verbose, progress, completion, one line for each value."""

from __future__ import annotations

import inspect
import os
import pty
import pydoc
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

import leo_core
from leo_core import options
from leo_core.cli import main
from leo_core.errors import UsageError
from leo_core.execution.events import Note, Progress
from leo_core.report.live import live
from leo_core.report.table import running_error_line
from leo_core.testing.networks import chain, convolutional
from leo_core.text import wrapped

ROOT = Path(__file__).parents[2]


def leo(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


def on_a_terminal(columns, *arguments):
    """What a terminal of some width shows of stdout and stderr."""
    own, others = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm"}
    process = subprocess.Popen([sys.executable, "-m", "leo_core", *map(str, arguments)], stdin=others, stdout=others,
                               stderr=others, env=environment)  # fmt: skip
    os.close(others)
    parts = []

    def read():
        try:
            while part := os.read(own, 4096):
                parts.append(part)
        except OSError:  # the other end is closed
            pass

    reader = threading.Thread(target=read)
    reader.start()
    code = process.wait(timeout=120)
    reader.join(timeout=60)
    os.close(own)
    return code, b"".join(parts).decode().replace("\r\n", "\n")


@pytest.fixture
def net(tmp_path):
    return leo_core.convert(chain(3, 8, 8, 2, seed=2), tmp_path / "net.leo")


@pytest.mark.parametrize("columns", [40, 80])
def test_prose_is_broken_at_the_ends_of_words(columns, net, tmp_path):
    code, shown = on_a_terminal(columns, "compress", net, tmp_path / "o.leo", "--domain", "-1,1", "--time-limit", "0")
    assert code == 0
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in shown.split("\n")]
    text = [line.split("\r")[-1] for line in lines]
    for line in text:
        assert len(line) <= columns or " " not in line.strip(), line  # a path may be longer
    joined = " ".join(" ".join(text).split())
    assert "error the original itself was seen to make in float32" in joined
    code, shown = on_a_terminal(columns, "compress", net, tmp_path / "o.nothing", "--domain", "-1,1")
    assert code == 1
    assert max(map(len, shown.split("\n"))) <= max(columns, len(str(tmp_path)) + 20)


def test_the_list_of_commands_is_whole_at_80_columns():
    done = CliRunner().invoke(main, ["--help"], terminal_width=80)
    listed = done.output.split("Commands:\n")[1].splitlines()
    assert [line.split()[0] for line in listed] == sorted(main.commands)
    assert all(line.endswith(".") and not line.endswith("...") for line in listed)


def test_wrapping():
    text = "one two three /a/very/long/path/that/is/never-broken"
    assert wrapped(text, 10).split("\n") == ["one two", "  three", "  /a/very/long/path/that/is/never-broken"]
    assert wrapped("  - a bb ccc dddd", 9).split("\n") == ["  - a bb", "    ccc", "    dddd"]
    assert wrapped("short\n\nlines", 80) == "short\n\nlines"


def test_quiet_is_quiet_and_verbose_says_more(net, tmp_path):
    for arguments in (("compress", net, tmp_path / "o.leo", "--domain", "-1,1"), ("convert", net, tmp_path / "p.leo")):
        done = leo(*arguments, "-q")
        assert (done.exit_code, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "o.leo").exists()
    assert "active" in leo("inspect", net, "--domain", "-1,1", "-q").stdout
    less, more = (leo("compress", net, tmp_path / "o.leo", "--domain", "0,1", *flags) for flags in ((), ("-v",)))
    assert "digest before" in more.stdout
    assert "digest before" not in less.stdout
    assert len(more.stderr.splitlines()) > len(less.stderr.splitlines())
    assert re.search(r"^\d+\.\d s: rewriting", more.stderr, re.MULTILINE)


def test_channels_are_counted_where_channels_are_asked_for():
    network = convolutional()
    told = []
    stability = leo_core.analyze(network, (-1, 1), listener=told.append)
    progress = [event for event in told if isinstance(event, Progress)]
    channels = [event for event in progress if event.what == "channels"]
    counts = [layer.channel_counts() for layer in stability.layers.values()]
    assert channels
    assert {event.total for event in channels} == {sum(found["total"] for found in counts)}
    decided = [event.decided for event in channels]
    assert decided == sorted(decided)
    assert decided[-1] == sum(found["total"] - found["undecided"] for found in counts)
    units = [event for event in told if isinstance(event, Progress) and event.what == "units"]
    assert progress == [*units, *channels]
    leo_core.analyze(network, (-1, 1), listener=told.append, every_unit=True)
    assert told[-1].what == "units"


class Terminal:
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def __init__(self):
        self.written = []

    def isatty(self):
        return True

    def write(self, text):
        self.written.append(text)
        return len(text)

    def flush(self):
        pass


def test_the_line_tells_what_is_open_and_no_time_left(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with live(stream) as listener:
        listener(Progress("r", 1, 2, 41500, 231552))
        listener(Progress("r", 2, 2, 11, 30, "channels"))
        listener(Note("what to do"))
    shown = "".join(stream.written)
    assert "19 of 30 channels open" in shown
    assert "left" not in shown
    assert "note: what to do" in shown


def test_progress_in_python(capfd):
    network, told = chain(3, 8, 8, 2, seed=2), []
    leo_core.compress(network, (-1, 1))
    assert capfd.readouterr().err == ""
    leo_core.compress(network, (-1, 1), progress=True, listener=told.append)
    assert "layer 2 of 2" in capfd.readouterr().err
    assert told
    leo_core.verify(network, network, (-1, 1), progress=True)


def test_keywords_are_typed():
    hints = get_type_hints(options.Chosen)
    assert list(hints) == list(options.Options.__dataclass_fields__)
    for name, values in (("strategy", options.STRATEGIES), ("trust", options.TRUST), ("passes", options.PASSES),
                         ("objective", options.OBJECTIVES)):  # fmt: skip
        assert get_args(hints[name]) == values
    refused = {"compress": {"tight"}, "cross_check": {"solver", "tight", "checkpoint"}}
    for function in (leo_core.compress, leo_core.analyze, leo_core.cross_check, leo_core.formulate):
        assert function.__annotations__["options"] == "Unpack[Chosen]"
        shown = inspect.signature(function).parameters
        expected = [name for name in hints if name not in refused.get(function.__name__, ())]
        assert [*shown][-len(expected) :] == expected, "nothing is hidden behind **options"
        for name in expected:
            assert shown[name].kind is inspect.Parameter.KEYWORD_ONLY
            assert shown[name].default == getattr(options.Options(), name)
    help_text = pydoc.render_doc(leo_core.compress, renderer=pydoc.plaintext)
    assert re.search(r"strategy: \W?Literal\['cascade', 'isa', 'paper'\]\W? = 'cascade'", help_text)
    for name in refused["cross_check"]:
        given = {name: "scip" if name == "solver" else 0.1}
        with pytest.raises(UsageError, match=name):
            leo_core.cross_check(chain(3, 4, 2), (0, 1), ("highs", "scip"), **given)


@pytest.mark.slow
def test_editors_and_type_checkers_know_the_keywords(tmp_path):
    pytest.importorskip("mypy")
    script = tmp_path / "user.py"
    script.write_text(
        "import leo_core\n"
        "leo_core.compress('a.onnx', (0, 1), strategy='isa', time_limit=3.5, jobs=2, progress=True)\n"
        "leo_core.formulate('a.onnx', 'a.mps', (0, 1), tight=0.1)\n"
        "leo_core.compress('a.onnx', (0, 1), strategi='isa')\n"
        "leo_core.analyze('a.onnx', (0, 1), strategy='isaac')\n"
    )
    command = [sys.executable, "-m", "mypy", "--no-incremental", "--follow-imports=silent", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    wrong = [int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error:" in line]
    assert wrong == [4, 5], done.stdout


def test_each_result_is_one_line_and_has_a_summary(net, tmp_path):
    network = leo_core.convert(chain(3, 8, 2, seed=2), tmp_path / "other.leo")
    result = leo_core.compress(net, (-1, 1), evidence=True)
    result.export(tmp_path / "o.leo")
    result.certify(tmp_path / "c.cert", tmp_path / "o.leo")
    values = {
        "ReLU units": result,
        "unstable": result.stability,
        "differ": leo_core.verify(net, network, (-1, 1)),
        "box of 3 inputs": leo_core.check(tmp_path / "c.cert", net, tmp_path / "o.leo"),
        "strategy": leo_core.cross_check(network, (-1, 1), ("scipy", "highs"), time_limit=5),
    }
    for word, value in values.items():
        assert re.fullmatch(r"<[^\n]{10,150}>", repr(value)), repr(value)
        assert word in value.summary()
    assert "\n" not in repr(next(iter(result.stability.layers.values())))


def test_a_worst_case_is_put_in_words():
    assert "67 times what was seen" in running_error_line(0.0067, 0.001, 1e-4)
    assert "what was seen says more" in running_error_line(3.4e11, 1.0, 1e-5)
    assert "no bound" in running_error_line(float("inf"), 1.0, 1e-5)
    assert running_error_line(0.5, 0.25, 0.0).endswith("(the result: 0.25)")


def completions(*words):
    *before, begun = words
    found = ShellComplete(main, {}, "leo", "_LEO_COMPLETE").get_completions(list(before), begun)
    return [(item.type, item.value) for item in found]


def test_the_shell_completes_values_and_files():
    assert completions("compress", "--strategy", "") == [("plain", name) for name in options.STRATEGIES]
    assert ("plain", "auto") in completions("inspect", "--solver", "")
    assert ("plain", "scipy") in completions("verify", "--solver", "s")
    assert completions("compress", "--tolerance", "e") == [("plain", "exact")]
    assert completions("compress", "--report", "r") == [("file", "r")]
    assert completions("compress", "mo") == [("file", "mo")]
    assert completions("compress", "a", "b", "--domain", "d") == [("file", "d")]
    assert ("plain", "--certificate") in completions("compress", "--cert")
    for name, command in main.commands.items():  # whatever takes a path says so
        for parameter in command.params:
            if parameter.metavar and ("FILE" in parameter.metavar or "html" in parameter.metavar):
                assert [item.type for item in parameter.shell_complete(None, "x")] == ["file"], (name, parameter.name)


def test_the_demo_is_where_leo_is(digits, tmp_path):
    from leo_core import demo

    for name in ("digits.npz",):
        assert (demo.HERE / name).read_bytes() == (digits / name).read_bytes()
    pytest.importorskip("onnx")
    leo_core.convert(digits / "digits.onnx", tmp_path / "digits.leo")
    assert (tmp_path / "digits.leo").read_bytes() == (demo.HERE / "digits.leo").read_bytes()
    done = leo("demo")
    assert done.exit_code == 0
    assert re.search(r"predictions changed +0", done.stdout)


def test_what_is_said_while_importing_is_shown_where_that_fails(capfd):
    from leo_frontends.imports import hushed

    with hushed():
        os.write(2, b"chatter")
    assert capfd.readouterr().err == ""

    def failing():
        with hushed():
            os.write(2, b"why")
            raise ImportError

    with pytest.raises(ImportError):
        failing()
    assert "why" in capfd.readouterr().err
