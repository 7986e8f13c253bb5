"""Certificates: what LEO writes is accepted, by numpy alone; what is false is not, whoever wrote it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import networks_and_boxes
from tampering import call_stable, mutated
from truth import extremes, largest_difference, state_of

import leo_core
from leo_core import Box, State, checker, storage
from leo_core.certificate.evidence import gather
from leo_core.certificate.write import Account, write
from leo_core.checker import networks as archives
from leo_core.cli import main
from leo_core.errors import CertificateError, OutputError, UsageError
from leo_core.execution.budget import Budget
from leo_core.execution.events import Note, silent
from leo_core.rewrite import View, rewrite
from leo_core.stability import Method
from leo_core.testing.networks import chain, leaky, residual, skip
from leo_core.testing.reference import ReferenceSolver
from tests.deciding import decide


class Files:
    """A certificate with both networks, as files."""

    def __init__(self, folder, original, compressed, certificate):
        self.original, self.compressed, self.path = folder / "a.leo", folder / "b.leo", folder / "c.cert"
        storage.save(original, self.original)
        storage.save(compressed, self.compressed)
        write(self.path, certificate, {})

    def check(self):
        return checker.check(self.path, self.original, self.compressed)


def certified(network, box, *, tolerance=1e-3, prover_only=False, solver=None):
    """(account, certificate) of a network rewritten on what the checker accepts."""
    solver = solver or ReferenceSolver()
    stability = decide(network, box, solver=solver)
    if prover_only:  # evidence is then looked for by splitting ReLUs
        bare = {name: replace(layer, trees={}) for name, layer in stability.layers.items()}
        stability = replace(stability, layers=bare)
    evidence = gather(network, stability, solver, Budget(), silent)
    account = Account(network, evidence, rewrite(View.of(network, evidence.stability), tolerance=tolerance))
    return account, account.certificate(account.rewritten.network)


def untrue(content, arrays, original, compressed, box):
    """What a certificate claims that is not so."""
    wrong = []
    truth = truth_of(original, box.lower.tobytes(), box.upper.tobytes())
    for name, layer in content["layers"].items():
        lower, upper, state = (arrays[layer[what]] for what in ("lower", "upper", "state"))
        for unit, (low, high) in enumerate(truth[name]):
            if not (lower[unit] <= low and high <= upper[unit]):
                wrong.append((name, unit, "bounds"))
            if state[unit] != State.UNDECIDED and state[unit] not in possible(low, high):
                wrong.append((name, unit, "state"))
    if distance_of(original, compressed, box.lower.tobytes(), box.upper.tobytes()) > Fraction(content["deviation"]):
        wrong.append("deviation")
    return wrong


@cache
def truth_of(network, *ends):
    return extremes(network, Box(*map(np.frombuffer, ends)))


@cache
def distance_of(first, second, *ends):
    return largest_difference(first, second, Box(*map(np.frombuffer, ends)))


def possible(low, high):
    """A unit that is always 0 is both inactive and active."""
    return {state_of(low, high)} | ({State.ACTIVE} if low >= 0 else set())


@settings(max_examples=40)
@given(networks_and_boxes(), st.sampled_from([0.0, 1e-9, 1e-3, 0.3]), st.booleans())
def test_what_is_written_is_accepted_and_true(tmp_path_factory, network_and_box, tolerance, prover_only):
    network, box = network_and_box
    account, certificate = certified(network, box, tolerance=tolerance, prover_only=prover_only)
    files = Files(tmp_path_factory.mktemp("certificate"), network, account.rewritten.network, certificate)
    report = files.check()
    assert report.deviation <= certificate.deviation
    layers = {relu.source: account.evidence.stability.layers[relu.name] for relu in network.relus}
    for state, count in ((State.ACTIVE, report.active), (State.INACTIVE, report.inactive)):
        assert sum(layer.count(state) for layer in layers.values()) == count
    content, arrays = checker.open_certificate(files.path)
    assert untrue(content, arrays, network, account.rewritten.network, box) == []
    if tolerance == 0:
        assert certificate.deviation == 0


@pytest.mark.parametrize("make", [residual, skip, leaky], ids=lambda make: make.__name__)
def test_graphs_that_branch_and_leak(make, tmp_path):
    network = make()
    account, certificate = certified(network, Box.uniform(0, 1, network.input_size), tolerance=1e-2)
    files = Files(tmp_path, network, account.rewritten.network, certificate)
    assert files.check().deviation <= certificate.deviation <= 1e-2


def test_the_deviation_is_about_what_the_engine_says(digits):
    result = leo_core.compress(digits / "digits.onnx", (0, 1), evidence=True)
    certificate = result.account.certificate(result.network)
    assert certificate.deviation <= 1.5 * result.deviation


# --- Tampering


def layers_of(content):
    return list(content["layers"].values())


def trees_of(content):
    return [tree for layer in layers_of(content) for tree in layer["trees"]]


def pick(rng, items):
    items = list(items)
    return items[rng.integers(len(items))] if items else None


def flip_verdict(content, arrays, rng):
    state = arrays[pick(rng, layers_of(content))["state"]]
    at = rng.integers(len(state))
    state[at] = pick(rng, {-1, 0, 1} - {int(state[at])})


def tighten_bound(content, arrays, rng):
    layer, side = pick(rng, layers_of(content)), pick(rng, ["lower", "upper"])
    bounds = arrays[layer[side]]
    bounds[rng.integers(len(bounds))] += (1 if side == "lower" else -1) * 10.0 ** rng.integers(-6, 1)


def change_multiplier(content, arrays, rng):
    tree = pick(rng, [tree for tree in trees_of(content) if tree["y"]])
    if tree is not None:
        y = arrays[pick(rng, tree["y"].values())]
        y.ravel()[rng.integers(y.size)] = rng.standard_normal() * 10.0 ** rng.integers(-3, 4)


def change_split(content, arrays, rng):
    tree = pick(rng, [tree for tree in trees_of(content) if (arrays[tree["where"]] >= 0).any()])
    if tree is not None:
        what = pick(rng, ["where", "unit"])
        at = pick(rng, np.flatnonzero(arrays[tree["where"]] >= 0))
        arrays[tree[what]][at] = rng.integers(-2, 4)


def drop_leaf(content, arrays, rng):
    tree = pick(rng, trees_of(content))
    if tree is not None:
        at = rng.integers(len(arrays[tree["closed"]]))
        for what in ("closed", "row"):
            arrays[tree[what]] = np.delete(arrays[tree[what]], at, axis=0)


def call_empty(content, arrays, rng):
    tree = pick(rng, trees_of(content))
    if tree is not None and len(arrays[tree["closed"]]):
        arrays[tree["closed"]][rng.integers(len(arrays[tree["closed"]])), 2] = 2


def move_witness(content, arrays, rng):
    if len(arrays["points"]):
        at = rng.integers(len(arrays["points"]))
        arrays["points"][at] = arrays["lower"] + rng.random(arrays["lower"].shape) * (arrays["upper"] - arrays["lower"])


def widen_box(content, arrays, rng):
    arrays["upper"][rng.integers(len(arrays["upper"]))] += 0.5


def remove_copies(content, arrays, rng):
    content["copies"].clear()


def remove_lines(content, arrays, rng):
    content["lines"].clear()


def claim_less(content, arrays, rng):
    content["deviation"] *= pick(rng, [0.0, 0.5, 0.99])


def change_origin(content, arrays, rng):
    origin = arrays[pick(rng, content["kept"].values())[1]] if content["kept"] else np.zeros(0)
    if len(origin):
        origin[rng.integers(len(origin))] = rng.integers(-1, 8)


def add_copy(content, arrays, rng):
    relu = pick(rng, RELUS)
    content["copies"].setdefault(relu, []).append([int(rng.integers(4)), int(rng.integers(4)), float(rng.normal())])


def add_line(content, arrays, rng):
    arrays |= {"units": rng.integers(0, 4, 1), "gain": rng.normal(size=1), "offset": rng.normal(size=1)}
    content["lines"][pick(rng, RELUS)] = ["units", "gain", "offset"]


MUTATIONS = (
    flip_verdict, tighten_bound, call_stable, change_multiplier, change_split, drop_leaf, call_empty, move_witness,
    widen_box, claim_less, remove_copies, remove_lines, change_origin, add_copy, add_line,
)  # fmt: skip
#: What is never harmless.
ALWAYS_FALSE = {call_stable}


#: The ReLUs of the sample networks.
RELUS = [relu.name for relu in chain(2, 4, 4, 4, 2).relus]


def sample(seed):
    """A small network with real numbers for weights, in which two units are nearly copies of each other."""
    network, rng = chain(2, 4, 4, 4, 2, seed=seed, dtype=np.float64), np.random.default_rng(seed)
    nodes = []
    for node in network.nodes:
        if isinstance(node, leo_core.Affine):
            matrix = rng.standard_normal(node.maps[0].dense().shape)
            bias = 0.5 * rng.standard_normal(node.size)
            matrix[1], bias[1] = 1.5 * matrix[0] + 1e-4 * rng.standard_normal(len(matrix[0])), 1.5 * bias[0]
            node = replace(node, maps=(leo_core.Dense(matrix),), bias=bias)
        nodes.append(node)
    return replace(network, nodes=tuple(nodes))


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """Certificates with trees of both kinds and a deviation, each with what the truth needs."""
    found = {False: [], True: []}
    for seed in range(200):
        network, box = sample(seed), Box.uniform(-1, 1, 2)
        for prover_only, kept in found.items():
            if len(kept) == 3:
                continue
            account, certificate = certified(network, box, tolerance=0.05, prover_only=prover_only)
            trees = [tree for layer in account.evidence.layers.values() for tree in layer.trees]
            kinds = {int(w) for tree in trees for w in tree.where.tolist() if w >= 0}
            if (any(k > 0 for k in kinds) if prover_only else 0 in kinds) and certificate.deviation > 0:
                folder = tmp_path_factory.mktemp("sample")
                kept.append((Files(folder, network, account.rewritten.network, certificate), account, box))
    assert all(len(kept) == 3 for kept in found.values()), "no network needs a tree"
    return found[False] + found[True]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_a_tampered_certificate_is_refused_or_still_true(mutation, samples, tmp_path):
    refused = harmless = 0
    for number, (files, account, _) in enumerate(samples):
        for seed in range(4):
            path = tmp_path / f"{number}-{seed}.cert"
            path.write_bytes(files.path.read_bytes())
            rng = np.random.default_rng([number, seed])
            before = path.read_bytes()
            content, arrays = mutated(path, lambda c, a, rng=rng: mutation(c, a, rng))
            if path.read_bytes() == before:
                continue
            try:
                checker.check(path, files.original, files.compressed)
            except checker.Refused:
                refused += 1
                continue
            harmless += 1
            now = Box(arrays["lower"], arrays["upper"])
            wrong = untrue(content, arrays, account.original, account.rewritten.network, now)
            assert wrong == [], f"accepted: {wrong}"
    assert refused + harmless > 12
    if mutation in ALWAYS_FALSE:
        assert harmless == 0
    print(f"{mutation.__name__}: {refused} refused, {harmless} harmless")


@pytest.mark.parametrize("which", ["original", "compressed"])
def test_a_changed_weight_is_another_network(which, samples, tmp_path):
    for files, account, box in samples:
        network = account.original if which == "original" else account.rewritten.network
        for seed in range(6):
            changed = with_one_weight_changed(network, seed)
            target = tmp_path / "changed.leo"
            storage.save(changed, target)
            paths = {"original": files.original, "compressed": files.compressed, which: target}
            with pytest.raises(checker.Refused, match=f"another {which}"):
                checker.check(files.path, **paths)
            # … and even where the certificate names it, only what is true of it is accepted
            path = tmp_path / "renamed.cert"
            path.write_bytes(files.path.read_bytes())
            named = {which: archives.read_network(target).digest}
            content, arrays = mutated(path, lambda c, a, named=named: c.update(named))
            try:
                checker.check(path, **paths)
            except checker.Refused:
                continue
            pair = (changed, account.rewritten.network) if which == "original" else (account.original, changed)
            assert untrue(content, arrays, *pair, box) == []


def with_one_weight_changed(network, seed):
    rng = np.random.default_rng(seed)
    affine = [node for node in network.nodes if isinstance(node, leo_core.Affine)]
    node = affine[rng.integers(len(affine))]
    matrix = node.maps[0].dense().copy()
    matrix.ravel()[rng.integers(matrix.size)] += rng.choice([1e-9, 1e-3, 1.0])
    changed = replace(node, maps=(leo_core.Dense(matrix), *node.maps[1:]))
    return replace(network, nodes=tuple(changed if other is node else other for other in network.nodes))


def test_damage_is_noticed(samples, tmp_path):
    files = samples[0][0]
    whole = files.path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(150):
        data = bytearray(whole)
        if rng.random() < 0.5:
            data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        else:
            data = data[: rng.integers(len(data))]
        path = tmp_path / "damaged.cert"
        path.write_bytes(data)
        try:
            checker.check(path, files.original, files.compressed)
        except checker.Refused:
            continue
        # a bit that zip does not use; what it unpacks to is the same
        content, arrays = checker.open_certificate(path)
        assert archives.checksum(content, arrays) == archives.checksum(*checker.open_certificate(files.path))


def test_another_version_is_refused_by_number(samples, tmp_path):
    files = samples[0][0]
    header, arrays = archives.open_archive(files.path)
    storage.write_archive(tmp_path / "c.cert", {**header, "version": 0}, arrays)
    with pytest.raises(checker.Refused, match="certificate of version 0, but this release reads version 1"):
        checker.check(tmp_path / "c.cert", files.original, files.compressed)


# --- Where only numpy is


def test_the_checker_needs_numpy_alone(samples):
    files = samples[0][0]
    script = f"""
import sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("scipy", "click", "rich", "pluggy", "highspy", "pyscipopt", "onnx", "torch"):
            raise ImportError(name)
sys.meta_path.insert(0, Nothing())
from leo_core.checker.__main__ import main
code = main([{str(files.path)!r}, {str(files.original)!r}, {str(files.compressed)!r}])
ours = {{name for name in sys.modules if name.startswith("leo_")}}
assert all(name == "leo_core" or name.startswith("leo_core.checker") for name in ours), ours
sys.exit(code)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "no output differs by more than" in done.stdout
    wrong = [sys.executable, "-m", "leo_core.checker"]
    other = [str(files.path), str(files.compressed), str(files.compressed)]
    done = subprocess.run([*wrong, *other], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "another original" in done.stderr
    assert subprocess.run(wrong, capture_output=True, check=False).returncode == 2


def test_a_copy_of_the_checker_is_enough(samples, tmp_path):
    shutil.copytree(Path(checker.__file__).parent, tmp_path / "alone")
    script = """
import sys
from alone.__main__ import main
code = main(sys.argv[1:])
assert not [name for name in sys.modules if name.startswith("leo_")]
sys.exit(code)
"""
    files = samples[0][0]
    command = [sys.executable, "-c", script, files.path, files.original, files.compressed]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# --- As a user meets it


@pytest.mark.parametrize("suffix", ["leo", "onnx", "pt2", "keras", "nnet"])
def test_the_command_certifies_what_is_in_the_file(suffix, tmp_path, digits):
    package = {"onnx": "onnx", "pt2": "torch", "keras": "keras"}.get(suffix)
    if package is not None and find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    leo_core.convert(digits / "digits.onnx", tmp_path / "net.leo")
    files = [str(tmp_path / name) for name in ("net.leo", f"out.{suffix}", "c.cert")]
    run = CliRunner().invoke
    done = run(main, ["compress", *files[:2], "--domain", "0,1", "--certificate", files[2], "--json", "-q"])
    assert done.exit_code == 0, done.output
    claimed = json.loads(done.stdout)["certificate"]["deviation"]
    done = run(main, ["check", files[2], *files[:2], "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["holds"]
    assert report["deviation"] <= claimed
    assert run(main, ["check", files[2], *files[:2], "--domain", "0,0.5"]).exit_code == 0
    assert run(main, ["check", files[2], *files[:2], "--domain", "0,2"]).exit_code == 1
    assert run(main, ["check", files[2], files[1], files[0]]).exit_code == 1


def test_a_solvers_word_is_marked_and_never_accepted(tmp_path):
    network, box = sample(0), Box.uniform(-1, 1, 2)
    stability = decide(network, box, solver=ReferenceSolver())
    name, layer = next((n, layer) for n, layer in stability.layers.items() if layer.count(State.UNSTABLE))
    state, method = layer.state.copy(), layer.method.copy()
    at = int(np.argmax(state == State.UNSTABLE))
    state[at], method[at] = State.ACTIVE, Method.SOLVER  # as a lying solver would have it
    layers = {**stability.layers, name: replace(layer, state=state, method=method)}
    stability = replace(stability, layers=layers, trusted=True)
    evidence = gather(network, stability, ReferenceSolver(), Budget(), silent)
    account = Account(network, evidence, rewrite(View.of(network, evidence.stability), tolerance=1e-3))
    files = Files(tmp_path, network, account.rewritten.network, account.certificate(account.rewritten.network))
    report = files.check()
    assert report.trusted == 1
    done = CliRunner().invoke(main, ["check", str(files.path), str(files.original), str(files.compressed)])
    assert done.exit_code == 1
    assert "a solver's word" in done.stderr


def test_without_evidence_nothing_is_certified(tmp_path):
    result = leo_core.compress(chain(2, 4, 2), (-1, 1))
    with pytest.raises(UsageError, match="evidence=True"):
        result.certify(tmp_path / "c.cert")
    result = leo_core.compress(chain(2, 4, 2), (-1, 1), evidence=True)
    leo_core.convert(chain(2, 3, 3, 3, 2), tmp_path / "other.leo")
    with pytest.raises(OutputError, match="ReLU layers"):
        result.certify(tmp_path / "c.cert", tmp_path / "other.leo")
    with pytest.raises(CertificateError, match="no such file"):
        leo_core.check(tmp_path / "none.cert", result.original, result.network)


def test_a_certificate_is_about_the_exported_file(tmp_path):
    pytest.importorskip("onnx")
    network = residual()
    result = leo_core.compress(network, (-1, 1), evidence=True)
    smaller = result.export(tmp_path / "smaller.onnx")
    result.certify(tmp_path / "c.cert", smaller)
    leo_core.check(tmp_path / "c.cert", network, smaller)
    result.certify(tmp_path / "c.cert")
    with pytest.raises(CertificateError, match="another compressed network; certify"):
        leo_core.check(tmp_path / "c.cert", network, smaller)


def test_ctrl_c_while_evidence_is_gathered_keeps_what_there_is(tmp_path):
    network = chain(3, 8, 8, 2, seed=2)

    def listener(event):
        if isinstance(event, Note) and "evidence" in event.text:
            raise KeyboardInterrupt

    result = leo_core.compress(network, (-1, 1), evidence=True, listener=listener)
    assert result.interrupted
    result.certify(tmp_path / "c.cert")
    leo_core.check(tmp_path / "c.cert", network, result.network)


def test_out_of_time_means_undecided_and_still_a_certificate(tmp_path):
    network = chain(8, 30, 30, 30, 2, seed=3)
    result = leo_core.compress(network, (-1, 1), evidence=True, time_limit=0)
    assert result.certify(tmp_path / "c.cert") == 0
    assert leo_core.check(tmp_path / "c.cert", network, result.network).undecided > 0
