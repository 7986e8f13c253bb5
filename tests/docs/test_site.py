"""The documentation as a site: it builds without a warning, holds every public name, and shows what it should."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import browser
import pytest

import leo_core

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

sphinx = pytest.mark.skipif(
    importlib.util.find_spec("furo") is None, reason="Sphinx and furo are missing; make test installs them"
)


@pytest.fixture(scope="module")
def site():
    """A build that fails on any warning: a broken link between pages or to a heading is one."""
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder, "site")
        command = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going"]
        done = subprocess.run([*command, "-d", Path(folder, "doctrees"), "-b", "html", DOCS, built], cwd=ROOT,
                              capture_output=True, text=True, check=False)  # fmt: skip
        assert done.returncode == 0, done.stderr
        yield built


def test_every_public_name_is_in_the_reference():
    page = (DOCS / "reference" / "api.md").read_text(encoding="utf-8")
    named = re.findall(r"\.\. auto\w+:: leo_core\.(\w+)", page)
    assert sorted(named) == sorted(leo_core.__all__)


@sphinx
def test_the_site_holds_every_page_and_every_public_name(site):
    for source in DOCS.rglob("*.md"):
        if source != DOCS / "README.md":  # the front page takes it in
            assert (site / source.relative_to(DOCS)).with_suffix(".html").is_file(), source
    reference = (site / "reference" / "api.html").read_text(encoding="utf-8")
    for name in leo_core.__all__:
        assert f'id="leo_core.{name}"' in reference, name
    assert "Fields of" in reference, "docstrings are there, not only names"


@sphinx
@pytest.mark.skipif(browser.found() is None, reason="Chromium is missing")
@pytest.mark.parametrize("width", [360, 1280])
def test_pages_fit_the_window_and_fetch_nothing(site, width, tmp_path):
    with browser.chromium(tmp_path) as chromium:
        for name in ("index", "results/compression", "reference/api", "explanation/stability"):
            page = chromium.open(site / f"{name}.html", width)
            assert page.logged == []
            assert [url for url in page.fetched if not url.startswith(("file:", "data:"))] == []
            assert page.scroll_width <= width, name


@sphinx
@pytest.mark.skipif(browser.found() is None, reason="Chromium is missing")
def test_the_site_is_searched_from_a_folder(site, tmp_path):
    with browser.chromium(tmp_path) as chromium:
        chromium.ask("Page.navigate", url=(site / "search.html").resolve().as_uri() + "?q=carrier")
        found = "[...document.querySelectorAll('#search-results li a')].map(a => a.href).join(' ')"
        look = f"""new Promise(done => {{
            setTimeout(done, 60000);
            const look = () => ({found}).includes('rewriting') ? done() : setTimeout(look, 50);
            look();
        }})"""
        chromium.ask("Runtime.evaluate", awaitPromise=True, expression=look)
        assert "explanation/rewriting" in chromium.evaluate(found)


def test_figures_are_drawn_by_their_script_and_described(tmp_path):
    pytest.importorskip("matplotlib")
    subprocess.run([sys.executable, DOCS / "figures" / "draw.py", tmp_path], check=True, capture_output=True)
    names = {path.name for path in (DOCS / "figures").glob("*.svg")}
    assert {path.name for path in tmp_path.iterdir()} == names
    text = "\n".join(page.read_text(encoding="utf-8") for page in DOCS.rglob("*.md"))
    for name in names:
        root = ElementTree.parse(DOCS / "figures" / name).getroot()
        words = {"".join(e.itertext()) for e in root.iter("{http://www.w3.org/2000/svg}text")}
        drawn = ElementTree.parse(tmp_path / name).getroot()
        assert words == {"".join(e.itertext()) for e in drawn.iter("{http://www.w3.org/2000/svg}text")}, name
        alt = re.search(rf"!\[([^]]*)\]\([^)]*{name}\)", text)
        assert alt is not None, f"no page shows {name}"
        assert len(alt[1]) > 40, f"{name} is not described"
