"""A real headless Chromium for tests, driven over the W3C WebDriver protocol with nothing but the standard library.

:func:`find` installs Debian's packages ``chromium`` and ``chromium-driver`` where they are missing, we are root, and
``OCD_BENCH_TEST_INSTALL`` allows it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
INSTALL = bool(os.environ.get("OCD_BENCH_TEST_INSTALL"))
TAB = "\ue004"
ENTER = "\ue007"


def find() -> tuple[str, str]:
    """Chromium and its driver. Without them the test is skipped, or fails if tests are allowed to install packages."""
    if not _present() and INSTALL and os.geteuid() == 0 and shutil.which("apt-get"):
        for command in (["update"], ["install", "-y", "--no-install-recommends", "chromium", "chromium-driver"]):
            environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
            subprocess.run(["apt-get", "-q", *command], check=True, timeout=600, env=environment, stdout=subprocess.DEVNULL)
    found = _present()
    if found is None:
        (pytest.fail if INSTALL else pytest.skip)("no Chromium with its driver: apt-get install chromium chromium-driver")
    return found


def _present() -> tuple[str, str] | None:
    browser, driver = next(filter(None, map(shutil.which, NAMES)), None), shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


class Page:
    """A browser window."""

    def __init__(self, address: str) -> None:
        self._address = address

    def _call(self, path: str, **body: Any) -> Any:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self._address}/{path}", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, html: str, folder: Path) -> None:
        """Open a page from a file."""
        path = folder / "page.html"
        path.write_text(html, encoding="utf-8")
        self._call("url", url=path.as_uri())

    def run(self, script: str) -> Any:
        """The value that the body of a function returns in the page."""
        return self._call("execute/sync", script=script, args=[])

    def wait(self, script: str) -> Any:
        """The value that the body of a function gives to its last argument, a callback ``done``."""
        return self._call("execute/async", script=f"const done=arguments[0];{script}", args=[])

    def type(self, keys: str) -> None:
        """Press keys one after the other, in the focused element."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._call("actions", actions=[{"type": "key", "id": "keyboard", "actions": actions}])

    def command(self, name: str, **parameters: Any) -> None:
        """A command of the Chrome DevTools protocol."""
        self._call("goog/cdp/execute", cmd=name, params=parameters)

    def complaints(self) -> list[str]:
        """Console messages since the last call: script errors, blocked resources."""
        return [entry["message"] for entry in self._call("se/log", type="browser")]


@contextlib.contextmanager
def window(folder: Path) -> Iterator[Page]:
    """A browser window with a new profile. It uses no network."""
    browser, driver = find()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([driver, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]
    options += [f"--user-data-dir={folder / 'profile'}", "--window-size=1280,900"]
    wanted = {"goog:chromeOptions": {"binary": browser, "args": options}, "goog:loggingPrefs": {"browser": "ALL"}}
    root = Page(f"http://127.0.0.1:{port}")
    try:
        session = _start(root, {"capabilities": {"alwaysMatch": wanted}})
        page = Page(f"http://127.0.0.1:{port}/session/{session}")
        yield page
        request = urllib.request.Request(f"http://127.0.0.1:{port}/session/{session}", method="DELETE")
        urllib.request.urlopen(request, timeout=60).close()
    finally:
        process.terminate()
        process.wait(30)


def _start(root: Page, wanted: dict[str, Any]) -> str:
    for _ in range(100):
        try:
            return root._call("session", **wanted)["sessionId"]
        except ConnectionError:
            time.sleep(0.1)
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from error
        except urllib.error.URLError:
            time.sleep(0.1)
    raise AssertionError("the driver does not answer")
