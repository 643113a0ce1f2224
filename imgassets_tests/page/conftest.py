"""What a person has who typed `make demo` and `make ui`, and a browser that looks at it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from imgassets.folders import project_root
from imgassets_tests.demo.copies import project_copy
from imgassets_tests.page.demo import Demo

# CI sets the first, so that a browser that is missing there is no silence; `make screenshots` the
# second.
NEEDED = "IMGASSETS_TESTS_NEED_BROWSER"
SCREENSHOTS = "IMGASSETS_TESTS_SCREENSHOTS"

WIDTH, HEIGHT = 1440, 900
PATIENCE_MS = 60_000
ARGUMENTS = [
    "--headless=new",
    "--no-sandbox",  # containers run as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="package")
def chromium() -> str:
    """The system's browser."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        told = "there is no chromium on this machine: apt-get install chromium"
        if os.environ.get(NEEDED) == "1":
            pytest.fail(told)
        pytest.skip(told)
    return found


@pytest.fixture(scope="package")
def demo(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """The demo, materialized, with its UI; made only where there is a browser."""
    assert chromium
    with project_copy(tmp_path_factory.mktemp("page") / "imgassets") as folder:
        demo = Demo(folder)
        with demo.running():
            yield demo


@pytest.fixture(scope="package")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # A launched browser has a new folder for its user's data.
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, demo: Demo) -> Iterator[Page]:
    """An empty page, whose addresses are the UI's."""
    context = browser.new_context(
        base_url=demo.address,
        viewport={"width": WIDTH, "height": HEIGHT},
        locale="en-GB",
        timezone_id="UTC",
    )
    context.set_default_timeout(PATIENCE_MS)
    yield context.new_page()
    context.close()


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pictures of the page go: a folder that a person named, or one that is thrown away."""
    named = os.environ.get(SCREENSHOTS)
    return project_root() / named if named else tmp_path_factory.mktemp("screenshots")
