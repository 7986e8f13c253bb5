"""The processor's arithmetic: what proofs take for granted is tested, set right, put back, or refused."""

from __future__ import annotations

import contextlib
import ctypes
import platform
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import threadpoolctl

from leo_backends.highs import HighsSolver
from leo_core import api
from leo_core.checker import Refused
from leo_core.checker import check as check_certificate
from leo_core.checker.environment import blas_fault, ieee, one_thread, own_thread, settle, thread_fault, undisturbed
from leo_core.domain import Box
from leo_core.errors import LeoError, MachineError
from leo_core.linear import Dense
from leo_core.milp.checked import CheckedSolver
from leo_core.milp.question import Question
from leo_core.milp.result import SolverResult, Stop
from leo_core.network import INPUT, Affine, Network, Relu
from leo_core.plugins import registry
from leo_core.plugins.specs import SolverSpec
from leo_core.stability import State
from leo_core.testing.problems import box_only

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="switches MXCSR by glibc's fenv_t of x86-64"
)

#: Bits of MXCSR: results flushed, inputs flushed, both; rounding down, up, to zero.
MODES = {"FTZ": 0x8000, "DAZ": 0x40, "both": 0x8040, "down": 0x2000, "up": 0x4000, "zero": 0x6000}


def switch(bits: int) -> None:
    """Set bits of this thread's MXCSR."""
    libm, state = ctypes.CDLL(None), ctypes.create_string_buffer(512)
    libm.fegetenv(state)
    state[28:32] = (int.from_bytes(state.raw[28:32], "little") | bits).to_bytes(4, "little")
    libm.fesetenv(state)


@contextlib.contextmanager
def switched(mode: str):
    """Another arithmetic in this thread; it must still be there in the end."""
    libm, state = ctypes.CDLL(None), ctypes.create_string_buffer(512)
    libm.fegetenv(state)
    switch(MODES[mode])
    try:
        yield
        assert thread_fault(), "the user's own settings are to be put back"
    finally:
        libm.fesetenv(state)


def tiny() -> tuple[Network, Box, Fraction]:
    """1e38 · relu(w x) with a float32 denormal w, its box, and the largest output."""
    w = np.array([0x00010000], "<u4").view("<f4").reshape(1, 1)
    nodes = (
        Affine("z1", (INPUT,), (Dense(w),), np.zeros(1, np.float32)),
        Relu("h1", "z1", np.zeros(1)),
        Affine("z2", ("h1",), (Dense(np.array([[1e38]], np.float32)),), np.zeros(1, np.float32)),
    )
    return (
        Network(1, nodes, "z2"),
        Box([0.0], [100.0]),
        Fraction(1 << 16, 1 << 149) * 100 * Fraction(float(np.float32(1e38))),
    )


def zero() -> Network:
    return Network(1, (Affine("z2", (INPUT,), (Dense(np.zeros((1, 1))),), np.zeros(1)),), "z2")


def right(network: Network, box: Box, largest: Fraction) -> None:
    """Everything a user calls, with the true answers."""
    found = api.analyze(network, box)
    assert found.layers["h1"].state[0] == State.ACTIVE
    result = api.compress(network, box)
    exact = result.network.evaluate_exact([100.0])[result.network.output].fractions()[0]
    assert abs(largest - exact) <= Fraction(result.deviation)
    compared = api.verify(network, zero(), box, time_limit=2)
    assert Fraction(compared.lower) <= largest <= Fraction(compared.upper)
    assert compared.lower > 0.9


@pytest.mark.parametrize("mode", MODES)
def test_it_is_seen_set_right_and_put_back(mode):
    assert (thread_fault(), blas_fault()) == ("", "")
    with switched(mode):
        assert thread_fault()
        assert blas_fault()
        with ieee():
            assert (thread_fault(), blas_fault()) == ("", "")
    assert (thread_fault(), blas_fault()) == ("", "")


@pytest.mark.parametrize("mode", MODES)
def test_answers_are_the_same_whatever_the_caller_has_set(mode):
    network, box, largest = tiny()
    with switched(mode):
        right(network, box, largest)


def test_what_a_network_keeps_does_not_depend_on_who_asked_first():
    network, box, largest = tiny()
    with switched("both"):
        network.evaluate([[100.0]])
        network.affine("z1").maps[0].absolute()
        bounds = Box([5e-324], [1e-310])
    assert (bounds.lower > 0).all()
    right(network, box, largest)


@pytest.mark.parametrize("mode", ["FTZ", "DAZ", "up"])
def test_threads_of_blas_that_began_otherwise_are_found_and_not_asked(mode):
    script = f"""
import ctypes
libm, state = ctypes.CDLL(None), ctypes.create_string_buffer(512)
libm.fegetenv(state); before = state.raw
state[28:32] = (int.from_bytes(state.raw[28:32], "little") | {MODES[mode]}).to_bytes(4, "little")
libm.fesetenv(state)
import numpy as np
libm.fesetenv(before)
from leo_core.checker.environment import blas_fault, thread_fault
assert not thread_fault()
if not blas_fault(): raise SystemExit("one thread")
import leo_core
from leo_core.checker.environment import ieee
from leo_core.network import Network, Affine
from leo_core.linear import Dense
with ieee():
    assert not blas_fault(), "BLAS is asked for more than this thread"
net = Network(1, (Affine("z", ("input",), (Dense([[1.0]]),), np.zeros(1)),), "z")
leo_core.compress(net, "-1,1")
assert blas_fault(), "BLAS has not got its threads back"
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    if "one thread" in done.stderr:
        pytest.skip("numpy's BLAS has no threads of its own here")
    assert done.returncode == 0, done.stderr


def threads():
    return {item["num_threads"] for item in threadpoolctl.threadpool_info()}


def test_no_more_than_one_thread_works_and_the_callers_setting_comes_back():
    network, box, _ = tiny()
    seen = []
    with threadpoolctl.threadpool_limits(2):
        api.compress(network, box, listener=lambda _: seen.append(threads()))
        assert threads() == {2}
        with pytest.raises(LeoError):
            api.compress(network, "no domain")
        assert threads() == {2}
    assert seen
    assert set().union(*seen) == {1}


def test_the_setting_comes_back_with_the_last_of_several_works():
    with threadpoolctl.threadpool_limits(2):
        first, second = one_thread(), one_thread()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)  # as where two threads of the caller work at once
        assert threads() == {1}
        second.__exit__(None, None, None)
        assert threads() == {2}


def test_the_checker_by_itself_sets_it_right_too(tmp_path):
    network, box, _ = tiny()
    result = api.compress(network, box, evidence=True)
    path, names = tmp_path / "result.cert", (tmp_path / "a.leo", tmp_path / "b.leo")
    result.certify(path)
    for each, name in zip((network, result.network), names, strict=True):
        api.convert(each, name)
    with switched("both"):
        report = check_certificate(path, *names)
    assert report.deviation <= result.deviation


def test_the_checker_refuses_where_it_cannot_be_had(tmp_path, monkeypatch):
    monkeypatch.setattr("leo_core.checker.environment.blas_fault", lambda: "two and two are five")
    with pytest.raises(Refused, match="two and two are five in the threads of numpy's BLAS"):
        check_certificate(*[tmp_path / name for name in ("c", "a", "b")])


def test_where_it_cannot_be_set_right_nothing_is_computed(monkeypatch):
    monkeypatch.setattr("leo_core.checker.environment.thread_fault", lambda: "two and two are five")
    with pytest.raises(MachineError, match="two and two are five in this thread"):
        api.compress(None, "-1,1")


class Meddling:
    """A solver that leaves another arithmetic behind in every call."""

    def __init__(self) -> None:
        self._inner = HighsSolver()
        self.name, self.capabilities = "meddling", self._inner.capabilities

    def load(self, problem, *, seed=0):
        session = self._inner.load(problem, seed=seed)
        for name in ("maximize", "close"):
            setattr(session, name, meddled(getattr(session, name)))
        return session


def meddled(call):
    def wrapped(*given, **more):
        try:
            return call(*given, **more)
        finally:
            switch(MODES["both"])

    return wrapped


@pytest.fixture
def meddling(monkeypatch):
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))

    def create():
        switch(MODES["down"])
        return Meddling()

    registry.register_solver(SolverSpec("meddling", "sets the processor otherwise", create))


@pytest.mark.parametrize("strategy", ["cascade", "paper", "isa"])
def test_a_solver_may_leave_what_it_likes_behind(meddling, strategy):
    network, box, _ = tiny()
    found = api.analyze(network, box, solver="meddling", strategy=strategy)
    assert found.layers["h1"].state[0] in (State.ACTIVE, State.UNDECIDED)
    assert not thread_fault()


def test_a_session_that_closes_so_is_cleaned_up_after():
    class Session:
        def maximize(self, _question):
            return SolverResult(Stop.INTERRUPTED)

        def close(self):
            switch(MODES["both"])

    class Solver:
        name, capabilities = "closing", frozenset()

        def load(self, _problem, *, seed=0):
            return Session()

    problem = box_only().problem
    session = CheckedSolver(Solver()).load(problem)
    session.maximize(Question(np.zeros(problem.columns)))
    session.close()
    assert not thread_fault()


def test_a_listener_that_meddles_changes_nothing():
    network, box, largest = tiny()
    result = api.compress(network, box, listener=lambda _event: switch(MODES["both"]))
    exact = result.network.evaluate_exact([100.0])[result.network.output].fractions()[0]
    assert abs(largest - exact) <= Fraction(result.deviation)


def test_work_during_which_it_changed_is_thrown_away():
    with pytest.raises(MachineError, match="since the work began"), ieee():
        switch(MODES["DAZ"])
    settle()


def test_what_others_return_is_asked_for_again_where_it_changed_on_the_way():
    calls = []

    def first_time():
        calls.append(1)
        if len(calls) == 1:
            switch(MODES["both"])
        return len(calls)

    with own_thread():
        assert undisturbed(first_time) == 2
        with pytest.raises(MachineError, match="each time"):
            undisturbed(lambda: switch(MODES["both"]))


def test_numpy_told_to_raise_changes_nothing(tmp_path):
    network, box, largest = tiny()
    with np.errstate(all="raise"):
        right(network, box, largest)
        result = api.compress(network, box, jobs=2, evidence=True)
        result.certify(tmp_path / "a.cert")
        result.export(tmp_path / "a.leo")
        api.check(tmp_path / "a.cert", network, result.network)
        assert result.certain([[1.0]]) is None
        result.summary()
