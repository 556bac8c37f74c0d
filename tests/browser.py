"""A browser for the tests of pages: Playwright with the Chromium that is installed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def executable() -> str:
    """Skips the test where there is no browser."""
    for name in NAMES:
        if found := shutil.which(name):
            return found
    pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")


@contextmanager
def chromium() -> Iterator[Any]:
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install playwright)")
    path = executable()
    with sync.sync_playwright() as playwright:
        # As root, as in a container, Chromium has no sandbox. The pages are our own.
        sandbox = [] if os.getuid() else ["--no-sandbox"]
        browser = playwright.chromium.launch(executable_path=path, args=sandbox)
        yield browser
        browser.close()


class Opened:
    """A page of a file, and what went wrong in it: messages of its console, errors, requests of anything else."""

    def __init__(self, browser: Any, file: Path, width: int = 1280, dark: bool = False) -> None:
        scheme = "dark" if dark else "light"
        size = {"width": width, "height": 900}
        context = browser.new_context(viewport=size, color_scheme=scheme, offline=True, reduced_motion="reduce")
        self.page = context.new_page()
        self.wrong: list[str] = []
        own = file.absolute().as_uri()
        self.page.on("console", lambda message: self.wrong.append(f"console: {message.text}"))
        self.page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        self.page.on("dialog", lambda dialog: self.wrong.append(f"dialog: {dialog.message}"))
        self.page.on("request", lambda request: self._requested(request.url, own))
        self.page.goto(own)
        self.page.wait_for_selector("body[data-drawn]", timeout=60_000)

    def _requested(self, url: str, own: str) -> None:
        if url.partition("#")[0] != own and not url.startswith(("data:", "blob:")):
            self.wrong.append(f"request: {url}")
