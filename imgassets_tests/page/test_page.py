"""The UI shows the asset graph, images, backfills and failed checks."""

from __future__ import annotations

import io
import re
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from imgassets_tests.page.conftest import TIMEOUT_MS
from imgassets_tests.page.demo import DAY, PLACEHOLDER_PRODUCTS, SHARED, SHOPS, Demo

pytestmark = pytest.mark.slow

PARTITION = "2026-01-03|maison-verte"
GROUPS = {
    "source": ["product_documents"],
    "images": ["url_list", "face_model", "raw_images", "processed_images"],
    "reports": ["daily_report", "retailer_report"],
}
# Long, because runs share the machine with other work.
BACKFILL_MS = 150_000

expect.set_options(timeout=TIMEOUT_MS)


@pytest.fixture
def screenshot(screenshots: Path, page: Page) -> Screenshot:
    return Screenshot(screenshots, page)


class Screenshot:
    """Saves screenshots of a page."""

    def __init__(self, folder: Path, page: Page) -> None:
        self._folder, self._page = folder, page

    def __call__(self, name: str) -> None:
        # Spinners and sliding panels need a moment to settle.
        self._page.wait_for_timeout(1500)
        shot = Image.open(io.BytesIO(self._page.screenshot())).convert("RGB")
        file = self._folder / f"{name}.png"
        # 256 colours: a third of the size, with hardly a visible difference.
        shot.quantize(256).save(file, optimize=True)
        assert file.stat().st_size < 300_000


def width_of(image: Locator) -> int:
    """Return the natural width of an image element in px; 0 if the image cannot be shown."""
    image.evaluate("image => image.decode()")
    width: int = image.evaluate("image => image.naturalWidth")
    return width


def open_partition(page: Page, asset: str, key: str) -> None:
    page.goto(f"/assets/{asset}?view=partitions&partition={quote(key)}")
    expect(page.get_by_text("Latest materialization")).to_be_visible()


def show(page: Page, name: str) -> Locator:
    """Open the image or table of a partition's metadata entry; return the dialog."""
    row = page.get_by_role("row").filter(has=page.get_by_text(name, exact=True))
    row.get_by_text("Show Markdown").click()
    return page.get_by_role("dialog")


def test_only_this_machine_can_open_the_ui(demo: Demo) -> None:
    assert demo.listening_addresses() == {"127.0.0.1"}


def test_the_graph_shows_all_assets_in_their_groups(page: Page, screenshot: Screenshot) -> None:
    page.goto("/asset-groups")
    # The graph shows the state of its assets only if it is wide enough.
    page.set_viewport_size({"width": 2000, "height": 900})
    page.get_by_text("Hide navigation").click()
    for group in GROUPS:
        expect(page.locator("foreignObject").get_by_text(group, exact=True)).to_be_visible()
    expanded = ",".join(f"global@global:{group}" for group in GROUPS)
    page.goto(f"/asset-groups?expanded={quote(expanded)}")
    graph = page.locator("foreignObject")
    for asset in (name for names in GROUPS.values() for name in names):
        expect(graph.get_by_text(asset, exact=True)).to_be_visible()
    # The state of each asset is visible: all checks of `processed_images` passed.
    expect(graph.get_by_text("5 / 5 Passed")).to_be_visible()
    screenshot("ui_asset_graph")


def test_an_asset_shows_its_contact_sheet_first_its_columns_and_plots_its_metadata(
    page: Page, screenshot: Screenshot
) -> None:
    page.goto("/assets/processed_images?view=overview")
    expect(page.get_by_text("contact sheet", exact=True)).to_be_in_viewport()
    expect(page.get_by_text(re.compile("/manifests/processed_images$"))).to_be_in_viewport()
    screenshot("ui_asset")
    columns = show(page, "columns")
    expect(columns.get_by_text("Area that the trim kept / area before the trim")).to_be_attached()
    page.keyboard.press("Escape")
    page.get_by_text("Plots", exact=True).click()
    page.get_by_text("Events", exact=True).last.click()
    for name in ("faces found", "trim ratio/mean"):
        expect(page.get_by_text(name, exact=True)).to_be_attached()


def test_a_partition_shows_its_contact_sheet(page: Page, screenshot: Screenshot) -> None:
    open_partition(page, "processed_images", PARTITION)
    screenshot("ui_partition")
    dialog = show(page, "contact sheet")
    sheet = dialog.locator("img")
    expect(sheet).to_be_visible()
    assert width_of(sheet) > 600
    screenshot("ui_contact_sheet")


def test_a_backfill_launched_in_the_browser_succeeds_and_a_failed_check_shows_its_images(
    page: Page, screenshot: Screenshot
) -> None:
    page.goto("/locations/imgassets/jobs/catalogue_job")
    page.get_by_role("button", name="Materialize").first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_placeholder("ex: 2026").fill(DAY.isoformat())
    page.keyboard.press("Tab")
    dialog.get_by_text("Select a partition").click()
    for shop in SHOPS:
        option = page.get_by_role("menuitem").filter(has_text=shop)
        option.locator("label").click()
    page.keyboard.press("Escape")
    expect(dialog.get_by_text(f"{len(SHOPS)} partitions")).to_be_visible()
    screenshot("ui_launch")
    dialog.get_by_role("button", name="Launch backfill").click()
    message = page.get_by_text("Created backfill").inner_text()
    page.goto(f"/runs/b/{message.split()[2]}")
    expect(page.get_by_text("100% completed")).to_be_visible(timeout=BACKFILL_MS)
    # Once as the state of the backfill, once as the name of a column.
    expect(page.get_by_text("Succeeded", exact=True)).to_have_count(2, timeout=BACKFILL_MS)
    expect(page.get_by_text("Completed with failures")).to_have_count(0)
    screenshot("ui_backfill")

    # The check has severity WARN, so that the runs succeeded.
    page.goto("/assets/raw_images?view=checks&checkDetail=duplicate_images")
    expect(page.get_by_text("Failed", exact=True).first).to_be_visible()
    expect(page.get_by_text(f"{PLACEHOLDER_PRODUCTS} products share one image")).to_be_visible()
    screenshot("ui_failed_check")
    page.get_by_text("Show Markdown").click()
    thumbnails = page.get_by_role("dialog").locator("img")
    expect(thumbnails).to_have_count(len(SHARED))
    for thumbnail in thumbnails.all():
        assert width_of(thumbnail) > 60
    screenshot("ui_failed_check_images")


def test_a_day_is_reported_with_its_culprits_and_all_retailers_in_the_heat_map(
    page: Page, screenshot: Screenshot
) -> None:
    page.set_viewport_size({"width": 1440, "height": 1000})
    page.goto(f"/assets/daily_report?view=partitions&partition={DAY}")
    page.get_by_role("button", name="Materialize").first.click()
    page.get_by_role("dialog").get_by_role("button", name="Launch 1 run").click()
    expect(page.get_by_text("Materialized (1)")).to_be_visible(timeout=BACKFILL_MS)
    page.reload()  # the page updates only the number
    summary = page.get_by_text(f"of {len(SHOPS)} retailers with documents")
    expect(summary).to_be_in_viewport()
    for shop in SHOPS:
        address = f"/assets/processed_images?view=partitions&partition={DAY}%7C{shop}"
        expect(page.locator(f"a[href='{address}']").last).to_be_in_viewport()
    screenshot("ui_daily_report")
    heat_map = show(page, "success rates of 30 days").locator("img")
    assert width_of(heat_map) > 700
    shot = np.asarray(Image.open(io.BytesIO(heat_map.screenshot())).convert("RGB"))
    # The 29 days before have no report; a cell is 20 x 11 px.
    assert (shot == (232, 234, 238)).all(-1).sum() > len(SHOPS) * 29 * 20 * 10
