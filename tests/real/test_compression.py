"""Real networks, rewritten: the sizes that are claimed, what never changes, and what is known of their structure."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

import leo_core
from leo_core import Box
from leo_core.bounds.noise import float_noise
from leo_core.bounds.running import as_run
from leo_core.files import read
from leo_core.options import OBJECTIVES
from leo_core.rewrite import View, rewrite

pytestmark = pytest.mark.real

#: Connections removed at least, by all passes at tolerance 'float'; and by LEO's own operations.
L1_TRAINED = {
    "mnist_l1/mnist_800-800_0.0001.onnx": (0.96, 0.505),
    "mnist_l1/mnist_400-400_0.0002.onnx": (0.92, 0.401),
    "mnist_l1/mnist_100-100_0.0005.onnx": (0.72, 0.188),
    "mnist_l1/mnist_100-100-100-100-100_0.0001.onnx": (0.43, 0.355),
}
#: What stays small: the noise of the result and its weights, against the original's.
QUIET = ("hello_world/hello_world.onnx", "sb3/sac_MountainCarContinuous.onnx", "sb3/dqn_MountainCar.onnx",
         "coav/reluBenchmark0.00491881370544s_UNSAT.nnet", "pyscipopt_ml/sk_3_42_0_0_relu.onnx",
         *L1_TRAINED)  # fmt: skip


def removed(result):
    return 1 - result.network.connections / result.original.connections


def find(nets, index, file):
    if file not in index:
        pytest.skip(f"{file} is not in INDEX.json")
    return nets / file, nets / index[file]["domain"]


@pytest.mark.slow
@pytest.mark.parametrize("file", L1_TRAINED)
def test_l1_trained_classifiers_shrink_and_no_prediction_changes(file, nets, index):
    model, domain = find(nets, index, file)
    least, by_leo = L1_TRAINED[file]
    result = leo_core.compress(model, domain)
    assert removed(result) >= least
    assert 0 < result.deviation <= result.tolerance == result.float_noise
    leo = leo_core.compress(model, domain, passes="leo")
    assert removed(leo) == pytest.approx(by_leo, abs=5e-4)
    data = nets.parent / "data" / "mnist.npz"
    if data.exists():
        images = np.load(data)["test_images"].reshape(-1, 784) / 255.0
        was, now = result.original.evaluate(images), result.network.evaluate(images)
        assert np.abs(was - now).max() <= result.deviation + 1e-12
        single = images.astype(np.float32)
        classes = [net.evaluate(single, np.float32).argmax(axis=1) for net in (result.original, result.network)]
        assert (classes[0] == classes[1]).all()


#: How many times what was seen the proved error of a run is at most; the share of test images whose class is certain.
RUNS = {
    "mnist_l1/mnist_800-800_0.0001.onnx": (2e3, 0.9998),
    "mnist_l1/mnist_400-400_0.0002.onnx": (2e3, 0.9999),
    "mnist_l1/mnist_100-100_0.0005.onnx": (2e3, 0.9999),
    "mnist_l1/mnist_100-100-100-100-100_0.0001.onnx": (4e4, 0.999),
    "sb3/sac_MountainCarContinuous.onnx": (200, None),
}


@pytest.mark.slow
@pytest.mark.parametrize("file", RUNS)
def test_the_proved_error_of_a_run_is_loose_but_classes_are_certain(file, nets, index):
    model, domain = find(nets, index, file)
    ratio, share = RUNS[file]
    result = leo_core.compress(model, domain)
    assert result.float_noise < result.running_error < ratio * result.float_noise
    assert result.float_noise_after < result.running_error_after < ratio * result.float_noise_after
    data = nets.parent / "data" / "mnist.npz"
    if share is None:
        assert result.certain(result.stability.box.center[None]) is None
    elif data.exists():
        assert result.certain(np.load(data)["test_images"].astype(np.float32) / np.float32(255)) >= share


def test_runtimes_stay_within_what_is_proved_of_a_run(nets, index):
    onnxruntime = pytest.importorskip("onnxruntime")
    for file in ("mnist_l1/mnist_100-100_0.0005.onnx", "sb3/dqn_MountainCar.onnx", "hello_world/hello_world.onnx"):
        model, domain = find(nets, index, file)
        network = read(model)[0].network
        box = Box.of(str(domain), network.input_size)
        points = box.sample(np.random.default_rng(0), 64).astype(np.float32)
        lower, upper = as_run(network, points, np.float32)
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        entry = session.get_inputs()[0].name
        shape = network.signature.input_shape or (network.input_size,)
        for batch in (1, 64):
            parts = [points[at : at + batch].reshape(-1, *shape) for at in range(0, 64, batch)]
            seen = np.vstack([session.run(None, {entry: part})[0].reshape(len(part), -1) for part in parts])
            assert ((lower <= seen) & (seen <= upper)).all()


@pytest.mark.parametrize("file", QUIET)
def test_the_result_is_not_noisier_and_no_weight_is_blown_up(file, nets, index):
    model, domain = find(nets, index, file)
    result = leo_core.compress(model, domain)
    assert removed(result) > 0.1
    assert result.float_noise_after <= 2 * result.float_noise
    assert result.network.largest_weight <= 4 * result.original.largest_weight


def test_twin_streams_collapse_to_the_constant_they_are(nets, index):
    files = [file for file in index if file.startswith("twinstream/")]
    for file in files:
        model, domain = find(nets, index, file)
        if "inp-5_layers-10" in file:  # ten seconds to decide
            continue
        for tolerance in ("exact", "float"):
            result = leo_core.compress(model, domain, tolerance=tolerance)
            assert result.network.units == 0, file
            assert result.network.connections == 0, file
            assert result.deviation <= result.tolerance
            x = result.stability.box.center
            was, now = (net.evaluate_exact(x)[net.output].fractions() for net in (result.original, result.network))
            assert abs(was[0] - now[0]) <= Fraction(result.deviation)


def test_the_parallel_rows_of_hello_world_merge_where_they_are_unstable(nets, index):
    model, _ = find(nets, index, "hello_world/hello_world.onnx")
    result = leo_core.compress(model, (-3.2, 3.2))
    step = next(step for step in result.steps if "parallel" in step.what)
    assert step.what.startswith("8 parallel")
    assert result.deviation <= result.tolerance


def test_objectives_choose_between_results(nets, index):
    model, domain = find(nets, index, "coav/reluBenchmark0.00491881370544s_UNSAT.nnet")
    network = read(model)[0].network
    stability = leo_core.analyze(network, domain)
    tolerance = float_noise(network, stability.box, stability.points)
    found = {o: rewrite(View.of(network, stability), tolerance=tolerance, objective=o).network for o in OBJECTIVES}
    assert found["units"].units <= min(net.units for net in found.values())
    assert found["connections"].connections <= min(net.connections for net in found.values())
    assert found["parameters"].parameters <= min(net.parameters for net in found.values())


def test_nothing_to_gain_comes_back_bit_for_bit(nets, index):
    model, domain = find(nets, index, "arm_kws/DNN_S.onnx")
    result = leo_core.compress(model, domain)
    assert result.network == result.original
    box = Box.of(str(domain), result.original.input_size)
    assert (result.network.evaluate(box.sample(np.random.default_rng(0), 5), np.float32)
            == result.original.evaluate(box.sample(np.random.default_rng(0), 5), np.float32)).all()  # fmt: skip
