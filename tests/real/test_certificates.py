"""Real networks: every certificate is accepted where only numpy is, and what is changed in it is refused."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from tampering import call_stable, mutated

import leo_core
from leo_core import State, checker, storage
from leo_core.files import read

pytestmark = [pytest.mark.real, pytest.mark.slow]

#: Runs the checker as if nothing but numpy were installed.
ALONE = """
import sys
class OnlyNumpy:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("scipy", "click", "rich", "pluggy", "highspy", "pyscipopt", "onnx", "torch", "keras"):
            raise ImportError(name)
sys.meta_path.insert(0, OnlyNumpy())
from leo_core.checker.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
FILES = (
    "mnist_l1/mnist_100-100_0.0005.onnx", "mnist_l1/mnist_400-400_0.0002.onnx", "mnist_l1/mnist_800-800_0.0001.onnx",
    "mnist_l1/mnist_100-100-100-100-100_0.0001.onnx", "hello_world/hello_world.onnx",
    "sb3/sac_MountainCarContinuous.onnx", "sb3/dqn_MountainCar.onnx", "pyscipopt_ml/sk_3_42_0_0_relu.onnx",
    "coav/reluBenchmark0.00491881370544s_UNSAT.nnet", "coav/reluBenchmark0.0563449859619s_UNSAT.nnet",
)  # fmt: skip


def entries(index):
    wanted = [entry for file, entry in index.items() if file in FILES]
    return wanted or pytest.skip("none of these networks is in INDEX.json")


def test_every_certificate_is_accepted_by_numpy_alone(nets, index, tmp_path):
    for entry in entries(index):
        original = read(nets / entry["file"])[0].network
        result = leo_core.compress(original, nets / entry["domain"], evidence=True)
        paths = [tmp_path / name for name in ("c.cert", "a.leo", "b.leo")]
        claimed = result.certify(paths[0])
        storage.save(original, paths[1])
        storage.save(result.network, paths[2])
        assert result.network.connections < original.connections, entry["file"]
        assert claimed <= max(result.tolerance, 1.5 * result.deviation), entry["file"]
        assert paths[0].stat().st_size < 1e6, entry["file"]
        done = subprocess.run([sys.executable, "-c", ALONE, *paths], capture_output=True, text=True, check=False)
        assert done.returncode == 0, (entry["file"], done.stderr)
        assert f"{result.stability.count(State.UNSTABLE)} unstable" in done.stdout


def test_no_verdict_is_given_up_for_want_of_evidence(nets, index):
    for entry in entries(index):
        domain = nets / entry["domain"]
        with_evidence = leo_core.compress(nets / entry["file"], domain, evidence=True).stability
        without = leo_core.analyze(nets / entry["file"], domain)
        for name, layer in without.layers.items():
            assert (with_evidence.layers[name].state == layer.state).all(), (entry["file"], name)


@pytest.mark.parametrize("file", ["mnist_l1/mnist_100-100-100-100-100_0.0001.onnx", "hello_world/hello_world.onnx"])
def test_an_unstable_unit_is_never_accepted_as_stable(file, nets, index, tmp_path):
    if file not in index:
        pytest.skip(f"{file} is not in INDEX.json")
    original = read(nets / file)[0].network
    result = leo_core.compress(original, nets / index[file]["domain"], evidence=True)
    paths = [tmp_path / name for name in ("c.cert", "a.leo", "b.leo")]
    result.certify(paths[0])
    storage.save(original, paths[1])
    storage.save(result.network, paths[2])
    whole = paths[0].read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(8):
        paths[0].write_bytes(whole)
        mutated(paths[0], lambda content, arrays: call_stable(content, arrays, rng))
        with pytest.raises(checker.Refused, match="is not proved"):
            checker.check(*paths)


@pytest.mark.parametrize("file", [file for file in FILES if file.startswith("mnist_l1")])
def test_verify_proves_what_compress_promised(file, nets, index, tmp_path):
    if file not in index:
        pytest.skip(f"{file} is not in INDEX.json")
    result = leo_core.compress(nets / file, nets / index[file]["domain"])
    result.export(tmp_path / "small.onnx")
    found = leo_core.verify(nets / file, tmp_path / "small.onnx", nets / index[file]["domain"])
    assert 0 < found.lower <= found.upper <= 2 * result.deviation


def test_verify_shows_at_once_that_two_networks_have_nothing_in_common(nets, index):
    files = [file for file in FILES[:2] if file in index]
    if len(files) < 2:
        pytest.skip("two classifiers of digits are needed")
    found = leo_core.verify(*(nets / file for file in files), nets / index[files[0]]["domain"], time_limit=2)
    assert found.lower > 1
