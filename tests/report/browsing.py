"""Headless Chromium for the tests of the reports, and what it complains about."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")


def launch_browser() -> Iterator[Any]:
    """Start Chromium; skip the test if it or its driver is missing."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        process = driver.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield process
        process.close()


class BrowserMessages(list[str]):
    """What the browser complains about while pages are open."""

    def watch(self, page: Any) -> Any:
        """Collect the messages of a page, and return it."""
        page.on("console", lambda message: self.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.append(str(error)))
        page.on("requestfailed", self._add_failed)
        page.on("dialog", self._add_dialog)
        return page

    def _add_failed(self, request: Any) -> None:
        if request.failure != "net::ERR_ABORTED":  # as when the test leaves a page early
            self.append(f"{request.failure}: {request.url}")

    def _add_dialog(self, dialog: Any) -> None:
        self.append(f"dialog: {dialog.message}")
        dialog.dismiss()
