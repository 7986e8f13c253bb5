"""Writes pictures of reports into the pages of examples: makes them, and looks at them with Chromium.

python docs/pictures.py
"""

from __future__ import annotations

import base64
import os
import sys
import tempfile
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent / "tests"))

from browser import chromium

import leo_core

#: Pixels across and down.
WIDTH, HEIGHT = 760, 600
#: By example: its network and the domain.
REPORTS = {"digits": ("digits.onnx", "0,16"), "edge": ("digits.tflite", "0,1")}


def main() -> None:
    os.chdir(DOCS.parent)  # the page names paths as they were given
    with tempfile.TemporaryDirectory() as folder, chromium(Path(folder, "profile")) as browser:
        browser.ask("Emulation.setScrollbarsHidden", hidden=True)
        for name, (network, domain) in REPORTS.items():
            example, page = Path("docs", "examples", name), Path(folder, f"{name}.html")
            leo_core.compress(example / network, domain).report(page)
            browser.open(page, WIDTH)
            clip = {"x": 0, "y": 0, "width": WIDTH, "height": HEIGHT, "scale": 1}
            shot = browser.ask("Page.captureScreenshot", format="png", clip=clip)
            (example / "report.png").write_bytes(base64.b64decode(shot["data"]))


if __name__ == "__main__":
    main()
