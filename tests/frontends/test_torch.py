"""PyTorch: live modules, exported programs and state dicts, against PyTorch itself, and what must be refused."""

from __future__ import annotations

import logging
import pickle
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from strategies import networks

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import leo_core  # noqa: E402
from leo_core.errors import FormatError, LeoError, UnsupportedModelError  # noqa: E402
from leo_core.files import read  # noqa: E402
from leo_core.testing.networks import NETWORKS, chain, two_heads  # noqa: E402, two_heads
from leo_frontends.torch import read_file, read_live_model, write_file, write_live_model  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


def seeded(module):
    """A module with weights on a grid, and statistics that are not those of a fresh batch norm."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if tensor.is_floating_point() and "act" not in name:
                values = torch.randint(-16, 17, tensor.shape, generator=generator) / 16
                tensor.copy_(values.abs() + 0.5 if "running_var" in name else values)
    return module


def chained(*layers):
    return nn.Sequential(*layers)


class Residual(nn.Module):
    """Batch norm and skip connections."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Linear(6, 6)
        self.last = nn.Linear(6, 3)

    def forward(self, x):
        h = torch.relu(self.norm(self.first(x)))
        return self.last(torch.relu(self.second(h) + x) + h)


class Everything(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 4), nn.Linear(8, 2)
        self.register_buffer("scale", torch.tensor([0.5, 2.0, -1.0, 4.0]))
        self.act = nn.PReLU(4, init=0.25)

    def forward(self, x):
        x = x.flatten(1)
        h = self.a(x) * self.scale - 0.5
        h = torch.maximum(h.abs(), x[:, :4]) - 2 * torch.minimum(h, -h)
        h = self.act(h).clamp(-1, 2) + nn.functional.leaky_relu(h, 0.1) / 4
        h = nn.functional.relu6(3 - h) + nn.functional.hardtanh(h)
        h = torch.cat([h, x.view(x.size(0), -1)[:, 2:]], dim=1).unsqueeze(1).transpose(1, 2).squeeze(2)
        return self.b(h.reshape(h.shape[0], 8))


class Rearranged(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(12, 2)

    def forward(self, x):
        h = torch.roll(x.flip(1, -1), (1, -1), (1, 2))
        h = torch.stack([h.swapaxes(1, 2), torch.clip(h, 0, 1).movedim(1, 2)], -1)
        return self.a(h.flatten(1))


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 4), nn.Linear(4, 2)

    def forward(self, x):
        h = self.a(x)
        nn.functional.relu_(h)
        return self.b(h)


MODULES = {
    "sequential": (lambda: chained(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2)), (6,)),
    "nested": (lambda: chained(chained(nn.Linear(6, 5), nn.ReLU(inplace=True)), nn.Dropout(), nn.Linear(5, 2)), (6,)),
    "flattened": (
        lambda: chained(nn.Flatten(), nn.Linear(6, 5), nn.ReLU6(), nn.Linear(5, 2), nn.Unflatten(1, (1, 2))),
        (2, 3),
    ),
    "normalised": (lambda: chained(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.LeakyReLU(0.1), nn.Linear(5, 2)), (6,)),
    "no bias": (lambda: chained(nn.Linear(6, 5, bias=False), nn.Hardtanh(), nn.Identity(), nn.Linear(5, 2)), (6,)),
    "relu last": (lambda: chained(nn.Linear(6, 5), nn.ReLU()), (6,)),
    "double": (lambda: chained(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2)).double(), (6,)),
    "residual": (Residual, (6,)),
    "everything": (Everything, (2, 3)),
    "rearranged": (Rearranged, (2, 3)),
    "in place": (InPlace, (6,)),
}


def made(name):
    make, shape = MODULES[name]
    return seeded(make()).eval(), shape


def agrees(module, shape, network):
    kind = torch.float64 if network.dtype == np.float64 else torch.float32
    points = torch.randn(32, *shape, generator=torch.Generator().manual_seed(1)).to(kind) * 3
    with torch.no_grad():
        want = module(points).numpy().reshape(32, -1)
    got = network.evaluate(points.numpy().reshape(32, -1).astype(np.float64))
    assert np.allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", MODULES)
def test_live_modules(name):
    module, shape = made(name)
    imported = read_live_model(module, shape)
    assert imported.network.signature.input_shape == shape
    agrees(module, shape, imported.network)
    assert all(parameter.requires_grad for parameter in module.parameters())


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("free", [False, True], ids=["fixed batch", "free batch"])
def test_exported_programs_are_read_without_running_them(name, free, tmp_path):
    module, shape = made(name)
    kind = next(module.parameters()).dtype
    dynamic = ({0: torch.export.Dim("batch")},) if free else None
    exported = torch.export.export(module, (torch.zeros(2, *shape, dtype=kind),), dynamic_shapes=dynamic)
    live = read_live_model(exported).network
    agrees(module, shape, live)
    torch.export.save(exported, tmp_path / "model.pt2")
    assert read_file(tmp_path / "model.pt2").network == live


@pytest.mark.parametrize("name", ["sequential", "residual", "normalised", "everything"])
def test_compressed_and_written_back(name, tmp_path):
    module, shape = made(name)
    result = leo_core.compress(module, (-1, 1)) if len(shape) == 1 else leo_core.compress(
        write_and_read(module, shape, tmp_path), (-1, 1))  # fmt: skip
    smaller = result.to("torch")
    agrees(smaller, result.network.signature.input_shape, result.network)
    path = result.export(tmp_path / "smaller.pt2")
    loaded = torch.export.load(path).module()
    agrees(loaded, result.network.signature.input_shape, result.network)
    assert read(path)[0].network.output_size == result.network.output_size


class Returning(nn.Module):
    """A regressor that returns what ``finish`` makes of its column."""

    def __init__(self, finish):
        super().__init__()
        self.a, self.finish = nn.Linear(3, 1), finish

    def forward(self, x):
        return self.finish(self.a(x))


@pytest.mark.parametrize(
    ("finish", "says"),
    [
        (lambda y: y, None),
        (lambda y: y.squeeze(-1), "(batch, 1)"),
        (lambda y: y[..., 0], "(batch, 1)"),
        (lambda y: y.flatten(), "(batch, 1)"),
        (lambda y: {"o": y}, "in a dict"),
        (lambda y: (y,), "in a tuple"),
    ],
)
def test_an_output_that_comes_back_in_another_form_is_noted(finish, says, tmp_path):
    module = Returning(finish)
    torch.export.save(torch.export.export(module, (torch.zeros(1, 3),)), tmp_path / "model.pt2")
    live, stored = read_live_model(module), read_file(tmp_path / "model.pt2")
    assert live.notes == stored.notes
    assert len(live.notes) == (says is not None)
    assert says is None or says in live.notes[0]
    assert write_live_model(live.network)(torch.zeros(5, 3)).shape == (5, 1)


def write_and_read(module, shape, folder):
    exported = torch.export.export(module, (torch.zeros(2, *shape),))
    torch.export.save(exported, folder / "in.pt2")
    return folder / "in.pt2"


def test_a_residual_module_keeps_its_skip():
    module, _ = made("residual")
    result = leo_core.compress(module, (-1, 1))
    assert isinstance(result.model, torch.fx.GraphModule)
    assert any("add" in str(node.target) for node in result.model.graph.nodes)
    assert result.import_deviation > 0  # batch norm has no exact floats
    assert any("computes in float64" in note for note in result.notes)
    assert next(result.model.parameters()).dtype == torch.float64
    assert result.model(torch.zeros(1, 6)).dtype == torch.float32


def test_a_module_of_float32_numbers_stays_one_without_a_note():
    module, _ = made("sequential")
    result = leo_core.compress(module, (-1, 1))
    assert not result.notes
    assert next(result.model.parameters()).dtype == torch.float32


def test_chains_become_a_sequential_with_the_same_bits():
    module, shape = made("sequential")
    network = read_live_model(module, shape).network
    back = write_live_model(network)
    assert [type(layer) for layer in back] == [nn.Linear, nn.ReLU, nn.Linear]
    for was, now in zip(module.parameters(), back.parameters(), strict=True):
        assert torch.equal(was, now)


@pytest.mark.parametrize("make", [make for make in NETWORKS if make is not two_heads])
def test_any_network_becomes_a_module(make):
    network = make()
    module = write_live_model(network)
    agrees(module, network.signature.input_shape or (network.input_size,), network)


@settings(max_examples=25)
@given(networks())
def test_any_network_written_runs_the_same(network):
    module = write_live_model(network)
    points = np.random.default_rng(0).uniform(-2, 2, (20, network.input_size)).astype(network.dtype)
    with torch.no_grad():
        got = module(torch.from_numpy(points)).numpy()
    want = network.evaluate(points.astype(np.float64))
    scale = max(1.0, float(np.abs(want).max()))
    assert np.abs(got - want).max() <= 1e-5 * scale


def test_state_dicts(tmp_path):
    module = seeded(nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2)))
    torch.save(module.state_dict(), tmp_path / "a.pt")
    imported = read_file(tmp_path / "a.pt")
    agrees(module, (6,), imported.network)
    assert "ReLU" in imported.notes[0]
    torch.save({"state_dict": {f"features.module.{k}": v for k, v in module.state_dict().items()}}, tmp_path / "b.pth")
    assert read_file(tmp_path / "b.pth").network.widths == (6, 5, 4, 2)
    write_file(imported.network, tmp_path / "c.pt")
    again = torch.load(tmp_path / "c.pt", weights_only=True)
    assert all(torch.equal(again[key], value) for key, value in module.state_dict().items())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            lambda: nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 2)).state_dict(),
            "batch norm, .*epsilon",
        ),
        (lambda: nn.Sequential(nn.Conv2d(1, 2, 3)).state_dict(), "Linear"),
        (lambda: {"a.weight": torch.zeros(2, 2)}, "Sequential"),
        (lambda: {"fc1.weight": torch.zeros(2, 2), "fc2.weight": torch.zeros(2, 2)}, "what is between its layers"),
        (lambda: {"fc0.weight": torch.zeros(2, 2), "fc2.weight": torch.zeros(2, 2)}, "what is between its layers"),
        (lambda: {f"layers.{i}.weight": torch.zeros(2, 2) for i in range(3)}, "no layer stands between 0 and 1"),
        (lambda: {"0.weight": torch.zeros(2, 3), "0.bias": torch.zeros(3)}, "damaged"),
        (lambda: {"0.weight": torch.zeros(2, 3), "2.weight": torch.zeros(2, 3)}, "inputs"),
        (lambda: {"0.weight": torch.zeros(2, 3), "5.weight": torch.zeros(2, 2)}, "more than one layer"),
        (lambda: {"0.weight": torch.zeros(2, 3), "epoch": 3}, "tensor"),
        (lambda: {"0.weight": torch.full((2, 3), float("nan"))}, "finite"),
        (lambda: [1, 2], "state dict"),
        (dict, "state dict"),
    ],
)
def test_state_dicts_of_other_models_are_refused(content, says, tmp_path):
    torch.save(content(), tmp_path / "other.pt")
    with pytest.raises(LeoError, match=says) as refused:
        read_file(tmp_path / "other.pt")
    assert "other.pt" in str(refused.value)


class _Bomb:
    def __reduce__(self):
        return open, ("/tmp/leo-was-here", "w")


def test_nothing_in_a_file_is_run(tmp_path):
    module = nn.Sequential(nn.Linear(3, 2))
    torch.save(module, tmp_path / "whole.pt")
    (tmp_path / "bomb.pt").write_bytes(pickle.dumps(_Bomb()))
    for name in ("whole.pt", "bomb.pt"):
        with pytest.raises(FormatError, match="live module") as refused:
            read_file(tmp_path / name)
        assert "weights_only" not in str(refused.value)  # what torch advises could run code
    write_file(chain(3, 4, 2), tmp_path / "good.pt2")
    with zipfile.ZipFile(tmp_path / "good.pt2") as good, zipfile.ZipFile(tmp_path / "bomb.pt2", "w") as bad:
        for item in good.namelist():
            data = good.read(item)
            if item.endswith("model_weights_config.json"):
                data = data.replace(b'"use_pickle": false', b'"use_pickle": true')
            bad.writestr(item, data)
    with pytest.raises(UnsupportedModelError, match="pickle"):
        read_file(tmp_path / "bomb.pt2")


class Sigmoid(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(3, 3)

    def forward(self, x):
        return torch.sigmoid(self.a(x)) * torch.softmax(x, 1) + torch.sin(x)


def test_every_unsupported_operation_is_named_with_its_line():
    with pytest.raises(UnsupportedModelError) as refused:
        read_live_model(Sigmoid(), (3,))
    assert len(refused.value.problems) == 2
    for name in ("sigmoid", "softmax", "sin"):
        assert any(name in problem and "test_torch.py" in problem for problem in refused.value.problems)


@pytest.mark.parametrize("mix", [lambda y: y.flip(0), lambda y: y.roll(1, 0), lambda y: y.roll(1)])
def test_what_mixes_the_examples_of_a_batch_is_refused(mix):
    with pytest.raises(UnsupportedModelError, match="every example of a batch"):
        read_live_model(Returning(mix))


@pytest.mark.parametrize("end", ["min", "max"])
def test_a_clamp_at_another_number_for_each_element(end):
    class Clamped(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(3, 3)

        def forward(self, x):
            return torch.clamp(self.a(x), **{end: torch.tensor([0.0, 1.0, 2.0])})

    module = Clamped()
    agrees(module, (3,), read_live_model(module, (3,)).network)


class Halved(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(3, 3)

    def forward(self, x):
        return self.a(x).to(torch.float16).to(torch.float32)


def test_a_cast_that_rounds_is_refused(tmp_path):
    with pytest.raises(UnsupportedModelError, match="float16"):
        read_live_model(Halved(), (3,))
    torch.export.save(torch.export.export(Halved(), (torch.zeros(1, 3),)), tmp_path / "half.pt2")
    with pytest.raises(UnsupportedModelError, match="float16"):
        read_file(tmp_path / "half.pt2")


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(3, 3)

    def forward(self, x):
        return self.a(x) if x.sum() > 0 else x


def test_control_flow_and_unknown_shapes_are_refused():
    with pytest.raises(UnsupportedModelError, match="cannot follow"):
        read_live_model(Branching(), (3,))
    with pytest.raises(UnsupportedModelError, match="shape of its input"):
        read_live_model(nn.Sequential(nn.ReLU()), None)
    with pytest.raises(UnsupportedModelError, match="Module"):
        read_live_model(torch.zeros(3), None)


@pytest.mark.parametrize(
    "make", [lambda: nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4, 2)), nn.Identity, Branching]
)
def test_where_export_fails_the_error_says_how_to_give_a_shape_and_torch_says_nothing(make, caplog, capsys):
    logger = logging.getLogger("torch._subclasses.fake_tensor")  # torch's loggers do not hand on what they get
    logger.addHandler(caplog.handler)
    try:
        with pytest.raises(UnsupportedModelError, match=r"bounds of the shape of one example.*input_shape"):
            leo_core.compress(make(), (0, 1))
    finally:
        logger.removeHandler(caplog.handler)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert capsys.readouterr().err == ""
    assert logging.root.manager.disable == logging.NOTSET


def test_half_precision_and_training_mode(capsys):
    module, shape = made("normalised")
    half = read_live_model(seeded(nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))).half(), shape)
    assert any("half" in note for note in half.notes)
    assert half.network.dtype == np.float32
    module.train()
    network = read_live_model(module, shape).network
    assert module.training
    agrees(module.eval(), shape, network)


@pytest.mark.parametrize(("tail", "name"), [(nn.Softmax(1), "softmax"), (nn.LogSoftmax(-1), "log_softmax"),
                                            (nn.Sigmoid(), "sigmoid")])  # fmt: skip
def test_a_tail_is_kept_outside_and_put_back(tail, name, tmp_path):
    module = seeded(chained(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3), tail)).eval()
    result = leo_core.compress(module, (-1, 1))
    assert result.network.signature.ending == name
    points = torch.rand(20, 6) * 2 - 1
    with torch.no_grad():
        want = module(points)
        assert torch.allclose(result.model(points), want, atol=1e-5)
        assert torch.allclose(torch.export.load(result.export(tmp_path / "t.pt2")).module()(points), want, atol=1e-5)
    for other in ("t.onnx", "t.leo"):
        again = read(result.export(tmp_path / other))[0].network
        assert again.signature.ending == name


class Sized(nn.Module):
    """What it does depends on how many examples there are."""

    def __init__(self, change):
        super().__init__()
        self.a, self.change = nn.Linear(4, 3), change

    def forward(self, x):
        return self.change(self.a(x))


SIZES = {
    "divided": lambda y: y / y.shape[0],
    "times": lambda y: y * y.size(0),
    "a branch for one": lambda y: y if y.shape[0] > 1 else -y,
    "a branch for many": lambda y: y if y.shape[0] < 100 else -y,
    "the first": lambda y: y[:1].expand(y.shape[0], -1),
    "plus the first": lambda y: y + y[:1],
    "the first hundred": lambda y: y[:100],
    "joined": lambda y: torch.cat([y, y], 0),
    "their mean": lambda y: y - y.mean(0),
    "as many numbers": lambda y: y + torch.arange(y.shape[0]).reshape(-1, 1),
    "turned round behind a transpose": lambda y: y.transpose(0, 1).flip(1).transpose(0, 1),
    "modulo": lambda y: y + y.shape[0] % 64,
    "laid out in order for one": lambda y: (y.transpose(0, 1).contiguous().mul_(-0.5), y)[1],
}


@pytest.mark.parametrize("change", SIZES.values(), ids=SIZES)
def test_the_size_of_a_batch_as_a_number_is_refused(change, tmp_path):
    module = Sized(change).eval()
    with pytest.raises(UnsupportedModelError, match="example"):
        read_live_model(module, (4,))
    try:
        exported = torch.export.export(module, (torch.zeros(3, 4),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    except Exception:
        return
    torch.export.save(exported, tmp_path / "m.pt2")
    if change is SIZES["a branch for one"]:
        return  # PyTorch itself leaves that branch out of the program
    with pytest.raises(UnsupportedModelError, match="example"):
        read_file(tmp_path / "m.pt2")


IN_PLACE = {
    "behind a dropout": lambda x: (lambda y: (torch.relu_(y), x)[1])(nn.functional.dropout(x, 0.5, False)),
    "a column": lambda x: (x[:, 0].mul_(2), x)[1],
    "a slice": lambda x: (x[:, 1:].relu_(), x)[1],
    "a view": lambda x: (x.view(-1, 2, 2)[:, 0].zero_(), x)[1],
    "a reshape that is a view": lambda x: (x.reshape(-1, 2, 2).neg_(), x)[1],
    "a reshape that is a copy": lambda x: (x.view(-1, 2, 2).transpose(1, 2).reshape(-1, 4).neg_(), x)[1],
    "contiguous": lambda x: (x.contiguous().abs_(), x)[1],
    "detached": lambda x: (x.detach().clamp_(0, 1), x)[1],
    "a chunk": lambda x: (x.chunk(2, 1)[1].fill_(3.0), x)[1],
    "copied into": lambda x: (x[:, :2].copy_(x[:, 2:] * 2), x)[1],
    "set by an index": lambda x: (x.__setitem__((slice(None), [0, 3]), 0.0), x)[1],
    "twice": lambda x: (x.add_(1), x.relu_(), x)[2],
    "a plus sign": lambda x: (torch.positive(x).neg_(), x)[1],
    "a clone": lambda x: (x.clone().neg_(), x)[1],
}


@pytest.mark.parametrize("change", IN_PLACE.values(), ids=IN_PLACE)
@pytest.mark.parametrize("decomposed", [False, True])
def test_what_is_changed_in_place_changes_wherever_its_memory_is_shared(change, decomposed, tmp_path):
    class Changed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x):
            h = self.a(x)
            return self.b(change(h) + h)

    module = Changed().eval()
    agrees(module, (3,), read_live_model(module, (3,)).network)
    with torch.no_grad():
        exported = torch.export.export(module, (torch.zeros(3, 3),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    exported = exported.run_decompositions({}) if decomposed else exported
    torch.export.save(exported, tmp_path / "m.pt2")
    # decomposing, PyTorch 2.13 forgets that a dropout in eval mode is its input: the program is what the file says
    agrees(exported.module(), (3,), read_file(tmp_path / "m.pt2").network)


def test_a_buffer_that_is_changed_by_running_is_refused():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(3, 2)
            self.register_buffer("seen", torch.zeros(1))

        def forward(self, x):
            self.seen.add_(1)
            return self.a(x) + self.seen

    with pytest.raises(UnsupportedModelError, match="buffer"):
        read_live_model(Counting(), (3,))


def test_a_product_of_what_is_the_same_for_all_inputs_is_refused_where_it_rounds(tmp_path):
    """PyTorch rounds it by how many examples there are; of zeros it is exact."""

    class Overwritten(nn.Module):
        def __init__(self, value):
            super().__init__()
            self.value, self.a = value, nn.Linear(3, 2)

        def forward(self, x):
            return self.a(torch.full_like(x, self.value)) + self.a(x)

    read_live_model(Overwritten(0.0).eval(), (3,))
    with pytest.raises(UnsupportedModelError, match="by how many there are"):
        read_live_model(Overwritten(0.1).eval(), (3,))


def test_a_view_of_a_constant_that_is_computed_ahead_is_not_changed_in_place(tmp_path):
    """``unfold`` is read of constants only, by PyTorch itself, and gives a view of them."""

    class Unfolded(nn.Module):
        def __init__(self, change):
            super().__init__()
            self.change, self.a = change, nn.Linear(4, 4)

        def forward(self, x):
            y = self.a(x * 1.0)
            y.zero_()
            self.change(y.unfold(1, 2, 2))
            return y + self.a(x)

    for change, is_read in ((lambda view: view + 1, True), (lambda view: view.add_(1), False)):
        module = Unfolded(change).eval()
        exported = torch.export.export(module, (torch.zeros(3, 4),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
        torch.export.save(exported, tmp_path / "m.pt2")
        if is_read:
            agrees(module, (4,), read_file(tmp_path / "m.pt2").network)
        else:
            with pytest.raises(UnsupportedModelError, match="whether another shares its memory"):
                read_file(tmp_path / "m.pt2")
