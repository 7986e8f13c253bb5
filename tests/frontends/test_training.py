"""Training aids: weights become exactly zero, losses are what the papers say, and the result compresses."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import leo_core  # noqa: E402
from leo_core.bounds.interval import bound_network  # noqa: E402
from leo_core.domain import Box  # noqa: E402
from leo_core.errors import UnsupportedModelError  # noqa: E402
from leo_frontends.torch import read_live_model  # noqa: E402
from leo_frontends.torch.training import ProximalL1, channels, instability, l1_penalty, weights  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


def model(seed=0, inputs=4, width=24):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2))


def data():
    points = torch.rand(256, 4, generator=torch.Generator().manual_seed(1))
    return points, torch.stack([points[:, 0] + points[:, 1], (points[:, 2] - 0.5).abs()], dim=1)


def trained(made, optimizer, steps=300, extra=lambda: 0.0):
    points, wanted = data()
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(made(points), wanted) + extra()
        loss.backward()
        optimizer.step()
    return float(nn.functional.mse_loss(made(points), wanted).detach())


def test_the_penalty_is_the_sum_of_all_weights_and_no_biases():
    made = model()
    wanted = sum(float(layer.weight.detach().abs().sum()) for layer in made if isinstance(layer, nn.Linear))
    assert float(l1_penalty(made).detach()) == pytest.approx(wanted, rel=1e-6)
    l1_penalty(made).backward()
    assert all(torch.equal(weight.grad, weight.detach().sign()) for weight in weights(made))
    assert made[0].bias.grad is None


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_step_shrinks_as_a_steady_gradient_of_the_strength_would(momentum):
    parameter = nn.Parameter(torch.tensor([[1.0, -1.0, 0.01, -0.03]]))
    bias = nn.Parameter(torch.tensor([1.0]))
    optimizer = torch.optim.SGD([parameter, bias], lr=0.1, momentum=momentum)
    proximal = ProximalL1(optimizer, 0.2 * (1 - momentum))
    parameter.grad, bias.grad = torch.zeros_like(parameter), torch.zeros_like(bias)
    optimizer.step()
    assert parameter.detach().tolist() == [[pytest.approx(0.98), pytest.approx(-0.98), 0.0, pytest.approx(-0.01)]]
    assert bias.detach().tolist() == [1.0]
    proximal.remove()
    before = parameter.detach().clone()
    optimizer.step()
    assert torch.equal(parameter.detach(), before)


def test_adams_step_is_measured_by_what_gradients_have_been():
    parameter = nn.Parameter(torch.tensor([[1.0, -1.0, 0.5]]))
    optimizer = torch.optim.Adam([parameter], lr=0.1, eps=1e-12)
    ProximalL1(optimizer, 2e-5)
    parameter.grad = torch.tensor([[1e-3, -1e-3, 0.0]])
    optimizer.step()  # by 0.1, as far as a gradient of 1e-3 always does; 2e-5 reaches a fiftieth of that
    assert parameter.detach().tolist() == [[pytest.approx(0.9 - 0.002), pytest.approx(-0.9 + 0.002), 0.0]]


def test_what_is_zero_stays_zero_once_settled_and_the_rest_grows():
    parameter = nn.Parameter(torch.tensor([[1.0, 0.01]]))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    proximal = ProximalL1(optimizer, 0.5)
    parameter.grad = torch.zeros(1, 2)
    optimizer.step()
    proximal.settle()
    parameter.grad = torch.tensor([[-1.0, -1.0]])
    optimizer.step()
    assert parameter.detach().tolist() == [[pytest.approx(1.05), 0.0]]


def test_only_chosen_parameters_shrink_and_schedulers_count():
    first, second = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    optimizer = torch.optim.SGD([first, second], lr=1.0)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    ProximalL1(optimizer, 0.1, [first])
    for wanted in (0.9, 0.85):
        first.grad, second.grad = torch.zeros(2, 2), torch.zeros(2, 2)
        optimizer.step()
        scheduler.step()
        assert first.detach().numpy() == pytest.approx(wanted)
        assert (second == 1).all()


def test_a_strength_below_zero_is_refused():
    with pytest.raises(ValueError, match="not negative"):
        ProximalL1(torch.optim.SGD([nn.Parameter(torch.ones(1, 1))], lr=1.0), -1.0)


def test_proximal_training_leaves_exact_zeros_and_a_penalty_leaves_dust():
    proximal, penalised = model(), model()
    optimizer = torch.optim.Adam(proximal.parameters(), lr=3e-3)
    ProximalL1(optimizer, 3e-3)
    loss = trained(proximal, optimizer, 600)
    trained(penalised, torch.optim.Adam(penalised.parameters(), lr=3e-3), 600, lambda: 3e-3 * l1_penalty(penalised))
    zeros, dust = (sum(int((w == 0).sum()) for w in weights(made)) for made in (proximal, penalised))
    total = sum(w.numel() for w in weights(proximal))
    assert zeros > total / 3 > dust
    assert loss < 0.05
    result = leo_core.compress(proximal, (0, 1))
    assert result.network.units < result.original.units / 2


def test_instability_is_what_the_paper_says():
    made = model(3)
    box = Box.uniform(0.25, 0.75, 4)
    network = read_live_model(made).network
    bounds = bound_network(network, box).intervals
    products = [low * high for low, high in (bounds[relu.source] for relu in network.relus)]
    wanted = -np.tanh(1 + np.concatenate(products)).mean()
    assert float(instability(made, 0.25, 0.75).detach()) == pytest.approx(float(wanted), rel=1e-4)
    box_of_tensors = instability(made, torch.full((4,), 0.25), torch.full((4,), 0.75))
    assert torch.equal(box_of_tensors, instability(made, 0.25, 0.75))


def test_instability_makes_units_stable():
    counts = []
    for strength in (0.0, 0.1):
        made = model(5)
        optimizer = torch.optim.Adam(made.parameters(), lr=3e-3)
        trained(made, optimizer, 400, lambda made=made, strength=strength: strength * instability(made, 0.0, 1.0))
        stability = leo_core.analyze(made, (0, 1))
        counts.append(stability.units - stability.count(leo_core.State.UNSTABLE))
    assert counts[1] > counts[0]


@pytest.mark.parametrize("made", [nn.Sequential(nn.Linear(2, 2), nn.Tanh()), nn.Sequential(nn.ReLU()),
                                  nn.Sequential(nn.Linear(2, 2))])  # fmt: skip
def test_other_layers_are_refused(made):
    with pytest.raises(UnsupportedModelError):
        instability(made, 0.0, 1.0)


class TestKeras:
    @pytest.fixture(autouse=True)
    def _keras(self):
        if find_spec("keras") is None:
            pytest.skip("keras is not installed")
        from leo_frontends.keras import import_keras

        self.keras = import_keras()

    def made(self, amount):
        from leo_frontends.keras.training import SoftThreshold

        layers = self.keras.layers
        self.keras.utils.set_random_seed(0)
        made = self.keras.Sequential([self.keras.Input((4,)),
                                      layers.Dense(24, "relu", kernel_constraint=SoftThreshold(amount)),
                                      layers.Dense(2, kernel_constraint=SoftThreshold(amount))])  # fmt: skip
        made.compile(self.keras.optimizers.Adam(3e-3), "mse")
        return made

    def test_weights_become_exactly_zero_and_the_file_is_read_back(self, tmp_path):
        made = self.made(3e-3 * 0.2)
        points, wanted = (tensor.numpy() for tensor in data())
        made.fit(points, wanted, epochs=60, batch_size=32, verbose=0)
        kernel = np.asarray(self.keras.ops.convert_to_numpy(made.layers[0].kernel))
        assert (kernel == 0).mean() > 0.3
        result = leo_core.compress(made, (0, 1))
        assert result.network.units < 24
        for suffix in (".keras", ".h5"):
            made.save(tmp_path / f"m{suffix}")
            assert leo_core.compress(tmp_path / f"m{suffix}", (0, 1)).network == result.network

    def test_a_threshold_below_zero_is_refused(self):
        with pytest.raises(ValueError, match="not negative"):
            self.made(-1.0)


def small_conv():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.ReLU(),
        nn.Conv2d(6, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2),
    )  # fmt: skip


def test_a_channel_is_a_filter_or_the_norm_behind_it():
    made = small_conv()
    found = channels(made)
    assert [[id(part) for part in group] for group in found] == [
        [id(made[1].weight), id(made[1].bias)],
        [id(made[5].weight)],
    ]


def test_whole_channels_shrink_by_the_proximal_step_of_the_group_lasso():
    made = small_conv()
    made[1].weight.data[:] = torch.tensor([3.0, 0.01, 1, 1, 1, 1])
    made[1].bias.data[:] = torch.tensor([4.0, 0.01, 0, 0, 0, 0])
    optimizer = torch.optim.SGD(made.parameters(), lr=0.1)
    proximal = ProximalL1(optimizer, 1.0, groups="channels", model=made)
    for parameter in made.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    left = 1 - 0.1 * 2**0.5 / 5
    assert made[1].weight[0].item() == pytest.approx(3 * left)
    assert made[1].bias[0].item() == pytest.approx(4 * left)
    assert made[1].weight[1].item() == made[1].bias[1].item() == 0
    proximal.settle()
    for parameter in made.parameters():
        parameter.grad = -torch.ones_like(parameter)
    optimizer.step()
    assert made[1].weight[1].item() == 0
    assert made[1].weight[0].item() == pytest.approx(3 * left + 0.1)


def test_shrunk_channels_are_what_compressing_takes():
    whole = small_conv()
    made = nn.Sequential(*whole[:3], *whole[5:])
    made[1].weight.data[2:4] = made[1].bias.data[2:4] = 0.01
    optimizer = torch.optim.SGD(made.parameters(), lr=0.1)
    ProximalL1(optimizer, 0.5, groups="channels", model=made)
    for parameter in made.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    result = leo_core.compress(made.eval(), {"lower": np.zeros((1, 6, 6)), "upper": np.ones((1, 6, 6))})
    assert result.network.widths[1] == 4


def test_groups_are_named_and_channels_need_a_model():
    optimizer = torch.optim.SGD(small_conv().parameters(), lr=0.1)
    with pytest.raises(ValueError, match="not 'rows'"):
        ProximalL1(optimizer, 0.1, groups="rows")
    with pytest.raises(ValueError, match="model="):
        ProximalL1(optimizer, 0.1, groups="channels")
    with pytest.raises(ValueError, match="no convolution"):
        ProximalL1(optimizer, 0.1, groups="channels", model=model())


def keras_images():
    """Keras, pictures, and what a model is to tell of them."""
    pytest.importorskip("keras")
    from leo_frontends.keras import import_keras

    keras = import_keras()
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x = rng.random((64, 6, 6, 1)).astype(np.float32)
    return keras, x, x.mean(axis=(1, 2)).astype(np.float32)


def test_channels_of_a_keras_model_go_as_one():
    keras, x, y = keras_images()
    from leo_frontends.keras.training import ChannelThreshold

    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            keras.layers.Conv2D(8, 3, activation="relu", kernel_constraint=ChannelThreshold(4e-3)),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(1),
        ]
    )
    model.compile(keras.optimizers.SGD(0.05), "mse")
    model.fit(x, y, batch_size=16, epochs=10, verbose=0)
    kernel = keras.ops.convert_to_numpy(model.layers[0].kernel).reshape(9, 8)
    gone = (kernel == 0).all(axis=0)
    assert 0 < gone.sum() < 8
    assert (kernel != 0).any(axis=0).sum() + gone.sum() == 8, "a channel is zero as a whole, or not at all"
    result = leo_core.compress(model, (0, 1))
    assert result.network.widths[1] <= 8 - gone.sum()


def test_norms_of_a_keras_model_are_shrunk_to_zero_and_stay_there():
    keras, x, y = keras_images()
    from leo_frontends.keras.training import ShrinkNorms

    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            keras.layers.Conv2D(8, 3, use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(1),
        ]
    )
    model.compile(keras.optimizers.SGD(0.05), "mse")
    model.layers[1].gamma.assign(np.linspace(0.2, 2.0, 8))
    shrink = ShrinkNorms(0.6)
    model.fit(x, y, batch_size=16, epochs=6, verbose=0, callbacks=[shrink])

    def numbers():
        return [keras.ops.convert_to_numpy(part) for part in (model.layers[1].gamma, model.layers[1].beta)]

    dead = (numbers()[0] == 0) & (numbers()[1] == 0)
    assert 0 < dead.sum() < 8
    shrink.strength = 0.0
    model.fit(x, y, batch_size=16, epochs=2, verbose=0, callbacks=[shrink])
    assert all((part[dead] == 0).all() for part in numbers())
    result = leo_core.compress(model, (0, 1))
    assert result.network.widths[1] <= 8 - dead.sum()
