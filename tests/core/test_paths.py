"""Nothing is written over what is read, or over what else is written, however the paths are spelled."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import leo_core
from leo_core.cli import main
from leo_core.errors import UsageError
from leo_core.paths import require_apart
from leo_core.testing.networks import chain


def leo(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)


@pytest.fixture
def net(tmp_path) -> Path:
    return leo_core.convert(chain(3, 4, 2, seed=2), tmp_path / "net.leo")


def same(path):
    return path


def detour(path):
    (path.parent / "sub").mkdir(exist_ok=True)
    return path.parent / "sub" / ".." / path.name


def relative(path):
    return Path(os.path.relpath(path))


def symbolic(path):
    link = path.with_name(f"symbolic{path.suffix}")
    link.symlink_to(path)
    return link


def hard(path):
    if not path.exists():
        pytest.skip("a hard link leads to a file that is there")
    link = path.with_name(f"hard{path.suffix}")
    link.hardlink_to(path)
    return link


def through_a_folder(path):
    folder = path.parent / "link"
    folder.symlink_to(path.parent)
    return folder / path.name


SPELLINGS = [same, detour, relative, symbolic, hard, through_a_folder]


@pytest.mark.parametrize("spelled", SPELLINGS)
def test_convert_and_compress_keep_their_input(spelled, net):
    before = net.read_bytes()
    other = spelled(net)
    for asked in (("convert", net, other), ("convert", other, net), ("compress", net, other, "--domain", "-1,1")):
        done = leo(*asked)
        assert done.exit_code == 2
        assert "same file as IN" in done.stderr
        assert net.read_bytes() == before
    with pytest.raises(UsageError, match="same file"):
        leo_core.convert(str(net), other)


@pytest.mark.parametrize("spelled", SPELLINGS)
def test_all_outputs_are_apart_from_all_inputs_and_from_each_other(spelled, net, tmp_path):
    domain, inputs, out = tmp_path / "box.json", tmp_path / "inputs.npy", tmp_path / "out.leo"
    domain.write_text('{"lower": -1, "upper": 1}')
    np.save(inputs, np.zeros((2, 3)))
    there = {path: path.read_bytes() for path in (net, domain, inputs)}
    named = {"IN": net, "the domain": domain, "--inputs": inputs, "OUT": out}
    named |= {"cert": tmp_path / "c", "kept": tmp_path / "k"}
    asked = [(flag, to) for flag in ("--certificate", "--checkpoint") for to in ("IN", "the domain", "--inputs", "OUT")]
    for flag, to in (*asked, ("--checkpoint", "cert")):
        target = named[to]
        if spelled in (symbolic, through_a_folder):
            for link in (*tmp_path.glob("symbolic*"), tmp_path / "link"):
                link.unlink(missing_ok=True)
        if spelled is hard:
            for link in tmp_path.glob("hard*"):
                link.unlink()
            if not target.exists():
                continue
        given = {"--certificate": named["cert"], "--checkpoint": named["kept"], flag: spelled(target)}
        options = [word for pair in given.items() for word in pair]
        done = leo("compress", net, out, "--domain", domain, "--inputs", inputs, *options, "-q")
        assert done.exit_code == 2, (flag, to, done.output)
        assert "same file as" in done.stderr
        assert {path: path.read_bytes() for path in there} == there
        assert not out.exists()


def test_inspect_keeps_its_input_from_the_checkpoint(net):
    before = net.read_bytes()
    done = leo("inspect", net, "--domain", "-1,1", "--checkpoint", net)
    assert done.exit_code == 2
    assert net.read_bytes() == before


def test_a_certificate_does_not_take_the_place_of_the_file_it_is_about(net, tmp_path):
    result = leo_core.compress(net, (-1, 1), evidence=True)
    out = result.export(tmp_path / "out.leo")
    with pytest.raises(UsageError, match="same file"):
        result.certify(out, out)
    result.certify(tmp_path / "cert", out)
    leo_core.check(tmp_path / "cert", net, out)


def test_what_is_no_path_is_passed_over(tmp_path):
    require_apart({"IN": chain(2, 2, 1), "the domain": None, "x": ""}, {"OUT": tmp_path / "o", "cert": None, "y": ""})
    require_apart({"IN": "a\0b"}, {"OUT": tmp_path / "o"})
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    require_apart({"IN": tmp_path / "in"}, {"OUT": loop})
    with pytest.raises(UsageError):
        require_apart({"IN": loop}, {"OUT": loop})


def test_two_outputs_that_are_not_there_yet(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="the checkpoint is the same file as the certificate"):
        require_apart({}, {"the certificate": "a/../x", "the checkpoint": tmp_path / "x"})
