"""What README and docs say works when pasted, and generated pages are up to date."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
#: Python blocks of these pages are quoted from an example with tests of its own; ``...`` stands for what is left out.
QUOTED = {"solver-plugin.md": "leo-solver-cbc", "frontend-plugin.md": "leo-frontend-rlv"}
#: What this page shows needs a cluster's own queue; it only has to be Python.
OUTLINES = {"cluster.md"}
#: The block of this page is a script, which test_examples.py runs.
SCRIPTS = {"keras-to-pytorch.md"}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A scratch folder in which the paths that the pages use exist."""
    shutil.copytree(ROOT / "docs" / "examples", tmp_path / "docs" / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=name)
def test_python_blocks_run(page, folder):
    for block in blocks(page, "python") if page.name not in QUOTED else ():
        code = compile(block, str(page), "exec")
        if page.name not in OUTLINES | SCRIPTS:
            exec(code, {})  # the page's own words


@pytest.mark.parametrize("page", QUOTED)
def test_what_is_quoted_stands_in_the_example(page):
    sources = "\n".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "docs/examples" / QUOTED[page]).rglob("*.py")
    )
    found = blocks(ROOT / "docs/how-to" / page, "python")
    assert found
    for part in (part for block in found for part in re.split(r"^ *\.\.\.\n", block, flags=re.MULTILINE)):
        assert part in sources, f"{page} quotes what the example does not hold:\n{part}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_leo_commands_run(page, folder):
    for block in re.findall(r"^```\w*\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if ".tflite" in line and find_spec("ai_edge_litert") is None:
                continue
            if line.startswith("leo ") and "NAME" not in line and "controller" not in line:
                done = subprocess.run([sys.executable, "-m", *line.replace("leo", "leo_core", 1).split()],
                                      capture_output=True, text=True, check=False)  # fmt: skip
                assert done.returncode == 0, f"{line}: {done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{name(page)} links to {target}"


def test_the_command_page_is_up_to_date():
    done = subprocess.run([sys.executable, ROOT / "docs" / "generate.py", "--check"], capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_demo_shows_that_nothing_changed():
    done = subprocess.run([sys.executable, ROOT / "docs" / "examples" / "digits" / "demo.py"], capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search(r"predictions changed +0", done.stdout)
    assert "connections" in done.stdout


def test_contributing_names_every_room():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for path in (ROOT / "leo_core").iterdir():
        if path.name.startswith(("_", "py.typed", ".")):
            continue
        assert path.name in text, f"CONTRIBUTING.md does not mention leo_core/{path.name}"
