"""Ctrl-C, SIGTERM and SIGHUP: what is proved by then is written, and the exit code says that it was cut short."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

import leo_core
from leo_core import signals, stability
from leo_core.cli import main
from leo_core.testing.networks import chain

SIGNALS = [number for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", None)) if number is not None]
BOX = ("--domain", "-1,1")


@pytest.fixture(autouse=True)
def heeded():
    """Whatever the tests themselves run under (nohup, a background job): handlers as in a terminal."""
    defaults = dict.fromkeys(SIGNALS, signal.SIG_DFL) | {signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, handler) for number, handler in defaults.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def net(tmp_path) -> Path:
    return leo_core.convert(chain(3, 8, 8, 2, seed=2), tmp_path / "net.leo")


def leo(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)


def sends(monkeypatch, target, number, times=1):
    """A function that sends this process a signal as it is called, the first times."""
    module, _, name = target.rpartition(".")
    original = getattr(__import__(module, fromlist=[name]), name)
    sent = []

    def sending(*arguments, **options):
        if len(sent) < times:
            sent.append(number)
            os.kill(os.getpid(), number)
        return original(*arguments, **options)

    monkeypatch.setattr(target, sending)
    return sent


@pytest.mark.parametrize("number", SIGNALS)
def test_the_exit_code_says_which_signal(number, net, tmp_path, monkeypatch):
    sent = sends(monkeypatch, "leo_core.api.float_noise", number)
    done = leo("compress", net, tmp_path / "o.leo", *BOX, "-q")
    assert sent
    assert done.exit_code == 128 + number
    assert "stopped early" in done.output
    assert (tmp_path / "o.leo").exists()
    assert leo("compress", net, tmp_path / "o.leo", *BOX, "-q").exit_code == 0


STAGES = (
    *(f"leo_core.api.{name}" for name in ("gather", "float_noise", "rewrite", "_running_error")),
    *(f"leo_core.result.{name}" for name in ("write", "write_certificate", "certain_class")),
)


@pytest.mark.parametrize("stage", STAGES)
def test_at_whatever_stage_the_result_is_valid(stage, net, tmp_path, monkeypatch):
    inputs = tmp_path / "inputs.npy"
    import numpy as np

    np.save(inputs, np.random.default_rng(0).uniform(-2, 2, (30, 3)))
    sent = sends(monkeypatch, stage, signal.SIGTERM)
    out, cert = tmp_path / "o.leo", tmp_path / "cert"
    done = leo("compress", net, out, *BOX, "--certificate", cert, "--inputs", inputs, "--json", "-q")
    assert sent
    assert done.exit_code == 143, done.output
    content = json.loads(done.stdout)
    assert content["interrupted"]
    assert leo_core.verify(net, out, (-1, 1)).upper <= content["deviation"]
    assert leo("check", cert, net, out, "-q").exit_code == 0


def test_inside_rewriting_and_deciding(net, tmp_path, monkeypatch):
    for target in ("leo_core.rewrite.pipeline.drop_unread", "leo_core.certificate.evidence.as_checked"):
        with monkeypatch.context() as patch:
            sent = sends(patch, target, signal.SIGTERM)
            asked = ("compress", net, tmp_path / "o.leo", *BOX, "--certificate", tmp_path / "c", "-q")
            assert leo(*asked).exit_code == 143
            assert sent
    cascade = stability._STRATEGIES["cascade"]

    def early(work, tally):
        os.kill(os.getpid(), signal.SIGTERM)
        cascade(work, tally)

    monkeypatch.setitem(stability._STRATEGIES, "cascade", early)
    done = leo("inspect", net, *BOX, "--json", "-q")
    assert done.exit_code == 143
    content = json.loads(done.stdout)
    assert content["interrupted"]
    assert sum(layer["units"] for layer in content["layers"]) == 16
    assert "stopped early" in leo("inspect", net, *BOX, "-q").output


@pytest.mark.parametrize(
    ("target", "arguments"),
    [
        ("leo_core.api.read", ("inspect", "NET", *BOX)),
        ("leo_core.api.read", ("verify", "NET", "NET", *BOX)),
        ("leo_core.api.box_of", ("compress", "NET", "OUT", *BOX)),
        ("leo_core.checker.verdicts", ("check", "CERT", "NET", "SMALLER")),
    ],
)
def test_before_there_is_a_result_json_says_so(target, arguments, net, tmp_path, monkeypatch):
    paths = {"NET": net, "OUT": tmp_path / "o.leo", "CERT": tmp_path / "cert", "SMALLER": tmp_path / "s.leo"}
    assert leo("compress", net, paths["SMALLER"], *BOX, "--certificate", paths["CERT"], "-q").exit_code == 0
    sent = sends(monkeypatch, target, signal.SIGTERM)
    done = leo(*(paths.get(word, word) for word in arguments), "--json", "-q")
    assert sent
    assert done.exit_code == 143
    assert json.loads(done.stdout) == {"interrupted": True}
    assert "nothing was written" in done.stderr
    assert not paths["OUT"].exists()


@pytest.mark.parametrize(
    "target", ["leo_core.compare.work.paired", "leo_core.compare.work.joint_region", "leo_core.compare.work.narrowed"]
)
def test_verify_says_what_is_proved_by_then(target, net, tmp_path, monkeypatch):
    other = leo_core.convert(chain(3, 8, 8, 2, seed=5), tmp_path / "other.leo")
    asked = ("verify", net, other, *BOX, "--json", "-q", "--time-limit", "2")
    whole = json.loads(leo(*asked).stdout)
    sent = sends(monkeypatch, target, signal.SIGTERM)
    done = leo(*asked)
    assert sent
    assert done.exit_code == 143
    content = json.loads(done.stdout)
    assert content["interrupted"]
    assert content["lower"] > 0
    assert content["upper"] is None or content["upper"] >= whole["lower"]


def test_convert_leaves_no_half_file(net, tmp_path, monkeypatch):
    sends(monkeypatch, "leo_core.storage.write_archive", signal.SIGTERM)
    done = leo("convert", net, tmp_path / "o.leo", "-q")
    assert done.exit_code == 143
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.leo"]


def test_handlers_are_put_back_and_ignored_signals_stay_ignored(net, tmp_path, monkeypatch):
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
        sent = sends(monkeypatch, "leo_core.api.float_noise", signal.SIGHUP)
        assert leo("compress", net, tmp_path / "o.leo", *BOX, "-q").exit_code == 0
        assert sent
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_the_library_installs_no_handler(net):
    before = [signal.getsignal(number) for number in SIGNALS]
    leo_core.compress(net, (-1, 1), listener=lambda _: check(before))
    check(before)


def check(before):
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_signal_sent_twice_at_once_is_one(net, tmp_path, monkeypatch):
    sent = sends(monkeypatch, "leo_core.api.float_noise", signal.SIGTERM)
    again = sends(monkeypatch, "leo_core.api.rewrite", signal.SIGTERM)
    monkeypatch.setattr(signals, "ONE", 1e9)
    done = leo("compress", net, tmp_path / "o.leo", *BOX, "-q")
    assert (len(sent), len(again)) == (1, 1)
    assert done.exit_code == 143
    assert (tmp_path / "o.leo").exists()


def test_a_second_signal_ends_it_at_once(net, tmp_path, monkeypatch):
    class Ended(BaseException):
        pass

    def end(code):
        raise Ended(code)

    sends(monkeypatch, "leo_core.api.float_noise", signal.SIGTERM)
    sends(monkeypatch, "leo_core.result.write", signal.SIGINT)
    monkeypatch.setattr(signals, "ONE", -1.0)
    monkeypatch.setattr(signals, "_end", end)
    with pytest.raises(Ended, match="130"):
        leo("compress", net, tmp_path / "o.leo", *BOX, "-q")
    assert not (tmp_path / "o.leo").exists()


def workers(pid: int) -> list[int]:
    try:
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(child) for child in listed if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
    except OSError:
        return []


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for workers in /proc")
@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("number", SIGNALS)
def test_a_group_with_workers_ends_quietly(number, twice, tmp_path):
    """As a terminal, timeout or a scheduler does it: every process of the group gets the signal, even starting ones."""
    net = leo_core.convert(chain(8, 60, 60, 60, 60, 2, seed=1), tmp_path / "net.leo")
    out = tmp_path / "o.leo"
    running = subprocess.Popen(
        [sys.executable, "-m", "leo_core", "compress", str(net), str(out), *BOX, "--json", "--jobs", "2"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    found: list[int] = []
    while running.poll() is None and not found:
        found = workers(running.pid)
        time.sleep(0.005)
    assert found, "it ended before it had any worker"
    os.killpg(running.pid, number)
    if twice:
        time.sleep(signals.ONE + 0.3)
        if running.poll() is None:
            os.killpg(running.pid, number)
    stdout, stderr = running.communicate(timeout=120)
    # the second may come when all is done and Python's own handlers are back: to a shell it is the same
    assert running.returncode in ((128 + number, -number) if twice else (128 + number,)), stderr
    assert "Traceback" not in stderr
    if stdout.strip():
        assert json.loads(stdout)["interrupted"]
        assert out.exists()
    else:
        assert twice
    for _ in range(1000):
        if not any(map(alive, found)):
            break
        time.sleep(0.01)
    assert not any(map(alive, found))


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals as Unix has them")
def test_a_signal_while_a_string_is_run_ends_with_its_own_code(tmp_path):
    (tmp_path / "told.py").write_text(
        "import sys\n"
        "from leo_core.signals import stopping\n"
        "with stopping() as stop:\n"
        "    try:\n"
        "        exec('import os, signal, time; os.kill(os.getpid(), signal.SIGHUP); time.sleep(60)')\n"
        "    except KeyboardInterrupt:\n"
        "        pass\n"
        "sys.exit(stop.exit_code)\n"
    )
    ended = subprocess.run([sys.executable, "-m", "told"], cwd=tmp_path, timeout=50)
    assert ended.returncode == 128 + signal.SIGHUP


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs a terminal as Unix has them")
@pytest.mark.parametrize("number", SIGNALS)
def test_the_cursor_is_shown_again(number, tmp_path):
    import pty

    net = leo_core.convert(chain(8, 60, 60, 60, 60, 2, seed=1), tmp_path / "net.leo")
    ours, theirs = pty.openpty()
    running = subprocess.Popen(
        [sys.executable, "-m", "leo_core", "inspect", str(net), *BOX],
        stdout=subprocess.PIPE, stderr=theirs, env={**os.environ, "TERM": "xterm"}, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    while b"\x1b[?25l" not in shown:
        shown += os.read(ours, 4096)
    running.send_signal(number)
    try:
        while more := os.read(ours, 4096):
            shown += more
    except OSError:  # its end of the terminal is closed
        pass
    running.communicate(timeout=60)
    os.close(ours)
    assert running.returncode == 128 + number, shown.decode()
    assert shown.rindex(b"\x1b[?25h") > shown.rindex(b"\x1b[?25l")
    assert b"Traceback" not in shown


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs a terminal as Unix has them")
def test_a_terminal_that_goes_away_costs_no_result(tmp_path):
    import pty

    net = leo_core.convert(chain(8, 60, 60, 60, 60, 2, seed=1), tmp_path / "net.leo")
    ours, theirs = pty.openpty()
    running = subprocess.Popen(
        [sys.executable, "-m", "leo_core", "compress", str(net), str(tmp_path / "o.leo"), *BOX],
        stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm"}, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    while b"\x1b[?25l" not in shown:
        shown += os.read(ours, 4096)
    os.close(ours)  # from now on, writing to it fails
    time.sleep(0.5)
    running.send_signal(signal.SIGHUP)
    assert running.wait(timeout=120) == 129
    assert (tmp_path / "o.leo").exists()
