"""Writes the picture of the digits network's report: makes it, and looks at it with Chromium.

python docs/pictures.py
"""

from __future__ import annotations

import base64
import sys
import tempfile
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent / "tests"))

from browser import chromium

import leo_core

#: Pixels across; a picture is as high as the window.
WIDTH = 860


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder, "digits.html")
        leo_core.compress(DOCS / "examples" / "digits" / "digits.onnx", "0,16").report(page)
        with chromium(Path(folder, "profile")) as browser:
            browser.ask("Emulation.setScrollbarsHidden", hidden=True)
            browser.open(page, WIDTH)
            shot = browser.ask("Page.captureScreenshot", format="png")
        (DOCS / "examples" / "digits" / "report.png").write_bytes(base64.b64decode(shot["data"]))


if __name__ == "__main__":
    main()
