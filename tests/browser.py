"""A headless Chromium, asked through its pipe: what a page logs, fetches and shows at some width."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: Under these names systems have it.
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def found() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@dataclass
class Page:
    """What is known of a page once it is loaded."""

    logged: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)
    scroll_width: int = 0
    #: Elements that reach out of the page on the right, each as text.
    outside: list[str] = field(default_factory=list)


class Browser:
    """One Chromium process; commands and events are JSON, ended by a zero byte."""

    def __init__(self, process: subprocess.Popen[bytes], write: int, read: int) -> None:
        self.process = process
        self._out, self._in = os.fdopen(write, "wb", 0), os.fdopen(read, "rb", 0)
        self._number, self._rest, self._session = 0, b"", None
        self.events: list[dict[str, Any]] = []

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            read = self._in.read(1 << 16)
            if not read:
                raise RuntimeError("Chromium has ended")
            self._rest += read
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        asked = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            asked["sessionId"] = self._session
        self._out.write(json.dumps(asked).encode() + b"\0")
        while True:
            message = self._message()
            if message.get("id") == self._number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]
            self.events.append(message)

    def attach(self) -> None:
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def evaluate(self, expression: str) -> Any:
        return self.ask("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def open(self, path: Path, width: int, dark: bool = False, media: str = "", picture: Path | None = None) -> Page:
        """Load a file at some width, and say what came of it; ``picture`` takes a PNG of the whole page."""
        self.events.clear()
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self.ask("Page.navigate", url=path.resolve().as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._message())
        page = Page(scroll_width=int(self.evaluate("document.documentElement.scrollWidth")))
        page.outside = self.evaluate(_OUTSIDE)
        for event in self.events:
            what, about = event.get("method"), event.get("params", {})
            if what == "Runtime.consoleAPICalled":
                page.logged.append(str(about["args"]))
            elif what == "Log.entryAdded":
                page.logged.append(about["entry"]["text"])
            elif what == "Runtime.exceptionThrown":
                page.logged.append(str(about))
            elif what == "Network.requestWillBeSent":
                page.fetched.append(about["request"]["url"])
        if picture is not None:
            shot = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True)
            picture.write_bytes(base64.b64decode(shot["data"]))
        return page


#: Elements that reach out of the window to the right by more than a pixel.
_OUTSIDE = """[...document.body.querySelectorAll('*')]
  .filter(e => e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .map(e => e.outerHTML.slice(0, 120))"""


@contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """A browser that keeps what it must in ``folder``."""
    there, write = os.pipe()
    read, back = os.pipe()

    def place() -> None:  # Chromium reads from 3 and writes to 4
        first, second = os.dup(there), os.dup(back)
        os.dup2(first, 3)
        os.dup2(second, 4)

    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe",
             f"--user-data-dir={folder}"]  # fmt: skip
    process = subprocess.Popen(
        [str(found()), *flags, "about:blank"], preexec_fn=place, close_fds=False, stderr=subprocess.DEVNULL
    )
    os.close(there)
    os.close(back)
    browser = Browser(process, write, read)
    try:
        browser.attach()
        yield browser
    finally:
        process.kill()
        process.wait()
