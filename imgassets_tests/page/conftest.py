"""The state after `make demo` and `make ui`, and a browser that opens it."""

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

# Set by CI: without a browser, the tests fail instead of being skipped.
BROWSER_REQUIRED = "IMGASSETS_TESTS_NEED_BROWSER"
# Set by `make screenshots`: the folder for screenshots, relative to the project.
SCREENSHOTS = "IMGASSETS_TESTS_SCREENSHOTS"

WIDTH, HEIGHT = 1440, 900
TIMEOUT_MS = 60_000
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
    """Path of the system's Chromium."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        message = "chromium is not installed; run `apt-get install chromium`"
        if os.environ.get(BROWSER_REQUIRED) == "1":
            pytest.fail(message)
        pytest.skip(message)
    return found


@pytest.fixture(scope="package")
def demo(
    chromium: str, catalogue_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Demo]:
    """The materialized demo and its UI; created only if there is a browser."""
    assert chromium  # requested first, so that no demo is made without a browser
    with project_copy(tmp_path_factory.mktemp("page") / "imgassets") as folder:
        demo = Demo(folder, catalogue_folder)
        with demo.running():
            yield demo


@pytest.fixture(scope="package")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # Playwright gives each launched browser an empty profile.
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, demo: Demo) -> Iterator[Page]:
    """An empty page; paths are relative to the UI's address."""
    context = browser.new_context(
        base_url=demo.address,
        viewport={"width": WIDTH, "height": HEIGHT},
        locale="en-GB",
        timezone_id="UTC",
    )
    context.set_default_timeout(TIMEOUT_MS)
    yield context.new_page()
    context.close()


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder for screenshots: the one that the environment names, or a temporary one."""
    named = os.environ.get(SCREENSHOTS)
    return project_root() / named if named else tmp_path_factory.mktemp("screenshots")
