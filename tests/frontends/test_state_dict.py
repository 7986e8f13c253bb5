"""State dicts in whatever they are put in, what cannot be told from them, and what is not opened."""

from __future__ import annotations

import argparse
from collections import OrderedDict

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from torch import nn

import leo_core
from leo_core.errors import LeoError
from leo_core.files import read
from leo_core.testing.networks import chain
from leo_frontends.torch import read_file, write_file
from leo_frontends.torch.state_dict import chain_of

pytestmark = pytest.mark.filterwarnings("ignore")


def module():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def state():
    return module().state_dict()


def lightning():
    """A checkpoint as Lightning writes it."""
    trained = module()
    optimizer = torch.optim.Adam(trained.parameters())
    trained(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return {
        "epoch": 3,
        "global_step": 12,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": OrderedDict((f"model.{key}", value) for key, value in state().items()),
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 1}}}},
        "callbacks": {},
        "optimizer_states": [optimizer.state_dict()],
        "optimizer": optimizer.state_dict(),
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": {"width": 4},
    }


@pytest.mark.parametrize(
    "content",
    [
        state,
        lightning,
        lambda: {"net": state(), "epoch": 1},
        lambda: {"model": state(), "optimizer": torch.optim.Adam(module().parameters()).state_dict()},
        lambda: {"model": {"state_dict": state()}, "args": {"width": 3}},
        lambda: {"params": state()},
        lambda: OrderedDict((f"_orig_mod.module.{key}", value) for key, value in state().items()),
        lambda: {key: value.to_sparse() if value.ndim == 2 else value for key, value in state().items()},
        lambda: {key: nn.Parameter(value) for key, value in state().items()},
    ],
)
def test_the_one_state_dict_in_a_file_is_read(content, tmp_path):
    torch.save(content(), tmp_path / "a.pt")
    imported, _ = read(tmp_path / "a.pt")
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    with torch.no_grad():
        assert np.allclose(imported.network.evaluate(x), module()(torch.from_numpy(x)).numpy(), atol=1e-6)
    assert imported.door == "not run: a state dict holds weights, no model to run"


def script():
    return torch.jit.script(module())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (lambda: {"model": state(), "ema": state()}, r"several state dicts \('model', 'ema'\)"),
        (
            lambda: {"state_dict": state(), "args": argparse.Namespace(lr=1)},
            r"class argparse\.Namespace .*state dict alone",
        ),
        (lambda: {"0.weight": np.ones((2, 3))}, r"class numpy.*state dict alone"),
        (module, r"whole pickled module \(torch\.nn\.modules\.container\.Sequential\)"),
        (lambda: nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).state_dict(), r"'1' is a batch norm, .*epsilon"),
        (
            lambda: nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, track_running_stats=False)).state_dict(),
            r"'1\.weight' has 2 numbers in a row: a batch norm without statistics",
        ),
        (lambda: nn.Sequential(nn.Linear(2, 2), nn.PReLU()).state_dict(), r"'1\.weight' has 1 numbers .*PReLU"),
        (lambda: {"epoch": 3}, "'epoch' is no tensor"),
        (lambda: {"optimizer": torch.optim.SGD(module().parameters(), 1.0).state_dict()}, "no state dict"),
        (lambda: {"0.weight": torch.quantize_per_tensor(torch.ones(2, 2), 1.0, 0, torch.qint8)}, "quantised"),
    ],
)
def test_what_cannot_be_told_is_refused_in_its_own_words(content, says, tmp_path):
    torch.save(content(), tmp_path / "a.pt")
    with pytest.raises(LeoError, match=rf"a\.pt: .*(\n.*)*{says}") as refused:
        read_file(tmp_path / "a.pt")
    assert "weights_only" not in str(refused.value)  # what torch advises could run code


def test_what_is_no_state_dict_at_all(tmp_path):
    torch.jit.save(script(), tmp_path / "script.pt")
    with pytest.raises(LeoError, match=r"script\.pt: a TorchScript archive"):
        read_file(tmp_path / "script.pt")
    (tmp_path / "pointer.pt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    with pytest.raises(LeoError, match=r"pointer\.pt: is a Git LFS pointer.*git lfs pull"):
        read_file(tmp_path / "pointer.pt")


@pytest.mark.parametrize("widths", [(3, 2), (3, 5, 4, 2)])
def test_a_written_state_dict_runs_as_the_chain_it_is_of(widths, tmp_path):
    network = chain(*widths)
    write_file(network, tmp_path / "a.pt")
    x = np.random.default_rng(0).normal(size=(5, 3))
    with torch.no_grad():
        ran = chain_of(tmp_path / "a.pt")(torch.from_numpy(x.astype(network.dtype))).numpy()
    assert np.allclose(ran, network.evaluate(x), atol=1e-5)
    assert leo_core.convert(tmp_path / "a.pt", tmp_path / "b.pt")
