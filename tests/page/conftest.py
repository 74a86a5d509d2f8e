"""The page, served by a real server in this process, in a real browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.api_rig import Rig, filled, serving

FLAGS = [
    "--no-sandbox",  # Chromium's sandbox refuses root, which CI is
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]


@dataclass(frozen=True, slots=True)
class Site:
    """A served API and what lies below it."""

    address: str
    rig: Rig


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, or the one that CHROMIUM names."""
    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    assert path is not None, "no Chromium: `make test-page` installs it"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, headless=True, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def site() -> Iterator[Site]:
    """A tenant with three families of four pictures, over HTTP."""
    rig = filled()
    with serving(rig.app()) as address:
        yield Site(address, rig)


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A fresh tab; what the browser refused or what the script threw fails the test."""
    context = browser.new_context(viewport={"width": 1100, "height": 800})
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: _note(complaints, message.type, message.text))
    page.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}"))
    yield page
    context.close()
    assert complaints == []


def _note(complaints: list[str], kind: str, text: str) -> None:
    """Answers that the page expects (404, 422) are no complaint; what CSP refuses is."""
    if kind == "error" and "Failed to load resource" not in text:
        complaints.append(text)
