"""Writes the pictures of reports beside the examples in docs/examples: runs each, and looks at it with Chromium.

python docs/pictures.py
"""

from __future__ import annotations

import base64
import subprocess
import sys
import tempfile
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent / "tests"))

from browser import chromium  # noqa: E402

import leo_core  # noqa: E402

#: Pixels across; a picture is as high as the window.
WIDTH = 860


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        pages = {"digits": Path(folder, "digits.html")}
        leo_core.compress(DOCS / "examples" / "digits" / "digits.onnx", "0,16").report(pages["digits"])
        for name in ("controller", "keras_to_torch", "images"):
            subprocess.run([sys.executable, DOCS / "examples" / name / f"{name}.py", folder], check=True)
            pages[name] = Path(folder, f"{name}.html")
        with chromium(Path(folder, "profile")) as browser:
            for name, page in pages.items():
                browser.ask("Emulation.setScrollbarsHidden", hidden=True)
                browser.open(page, WIDTH)
                shot = browser.ask("Page.captureScreenshot", format="png")
                (DOCS / "examples" / name / "report.png").write_bytes(base64.b64decode(shot["data"]))


if __name__ == "__main__":
    main()
