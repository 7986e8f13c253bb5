"""Install lines in errors work from where the user got LEO."""

from __future__ import annotations

from pathlib import Path

import pytest

from leo_core import errors
from leo_core.errors import MissingExtraError, install_line

ROOT = Path(__file__).parents[2]


def test_in_a_checkout_it_is_the_checkout(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    assert install_line("onnx") == 'pip install --editable ".[onnx]"'
    monkeypatch.chdir(tmp_path)
    assert install_line("onnx") == f'pip install --editable "{ROOT}[onnx]"'


def test_of_an_installed_package_it_is_the_package(monkeypatch, tmp_path):
    monkeypatch.setattr(errors, "__file__", str(tmp_path / "leo_core" / "errors.py"))
    assert install_line("keras,torch") == 'pip install "leo-compress[keras,torch]"'
    with pytest.raises(MissingExtraError, match=r'Install it with:\n    pip install "leo-compress\[highs\]"'):
        raise MissingExtraError("the solver 'highs'", "highspy", "highs")


def test_a_folder_that_is_gone_is_no_reason_to_fail(monkeypatch, tmp_path):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert install_line("onnx") == f'pip install --editable "{ROOT}[onnx]"'
