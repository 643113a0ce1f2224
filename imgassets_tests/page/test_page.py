"""What a person sees who opens the UI: the graph, the pictures, a backfill, a failed check."""

from __future__ import annotations

import io
from pathlib import Path
from urllib.parse import quote

import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from imgassets_tests.page.conftest import PATIENCE_MS
from imgassets_tests.page.demo import DAY, SHARED, SHOPS, WITHOUT, Demo

pytestmark = pytest.mark.slow

MADE = "2026-01-03|maison-verte"
GROUPS = {
    "source": ["product_documents"],
    "images": ["url_list", "face_model", "raw_images", "processed_images"],
}
# A run begins with a new process that imports the code, on a machine that does other things too.
BACKFILL_MS = 150_000

expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture
def picture_of(screenshots: Path, page: Page) -> PictureOf:
    return PictureOf(screenshots, page)


class PictureOf:
    """Saves what the browser shows."""

    def __init__(self, folder: Path, page: Page) -> None:
        self._folder, self._page = folder, page

    def __call__(self, name: str) -> None:
        # What turns while it waits, and what slides in, has come to rest.
        self._page.wait_for_timeout(1500)
        shot = Image.open(io.BytesIO(self._page.screenshot())).convert("RGB")
        file = self._folder / f"{name}.png"
        # A third of the size, and hardly to be seen.
        shot.quantize(256).save(file, optimize=True)
        assert file.stat().st_size < 300_000


def width_of(picture: Locator) -> int:
    """Of the decoded picture, in pixels of its own; 0 where it cannot be shown."""
    picture.evaluate("picture => picture.decode()")
    width: int = picture.evaluate("picture => picture.naturalWidth")
    return width


def open_partition(page: Page, asset: str, key: str) -> None:
    page.goto(f"/assets/{asset}?view=partitions&partition={quote(key)}")
    expect(page.get_by_text("Latest materialization")).to_be_visible()


def show(page: Page, name: str) -> Locator:
    """Open a picture or table of a partition's metadata; returns the dialog."""
    row = page.get_by_role("row").filter(has=page.get_by_text(name, exact=True))
    row.get_by_text("Show Markdown").click()
    return page.get_by_role("dialog")


def test_only_this_machine_can_open_the_ui(demo: Demo) -> None:
    assert demo.listens_on() == {"127.0.0.1"}


def test_the_graph_shows_all_assets_in_their_groups(page: Page, picture_of: PictureOf) -> None:
    page.goto("/asset-groups")
    # The graph shows an asset's state only where it has the room.
    page.get_by_text("Hide navigation").click()
    for group in GROUPS:
        expect(page.locator("foreignObject").get_by_text(group, exact=True)).to_be_visible()
    expanded = ",".join(f"global@global:{group}" for group in GROUPS)
    page.goto(f"/asset-groups?expanded={quote(expanded)}")
    graph = page.locator("foreignObject")
    for asset in (name for names in GROUPS.values() for name in names):
        expect(graph.get_by_text(asset, exact=True)).to_be_visible()
    # Each has its state, and the checks of the pictures made passed.
    expect(graph.get_by_text("5 / 5 Passed")).to_be_visible()
    picture_of("ui_asset_graph")


def test_an_asset_says_what_its_columns_mean_and_plots_its_figures(
    page: Page, picture_of: PictureOf
) -> None:
    page.goto("/assets/processed_images?view=overview")
    expect(page.get_by_text("Area kept / area before the trim, 0 to 1.")).to_be_attached()
    picture_of("ui_asset")
    page.get_by_text("Plots", exact=True).click()
    page.get_by_text("Events", exact=True).last.click()
    for name in ("faces found", "trim ratio/mean"):
        expect(page.get_by_text(name, exact=True)).to_be_attached()


def test_a_partition_shows_its_contact_sheet(page: Page, picture_of: PictureOf) -> None:
    open_partition(page, "processed_images", MADE)
    picture_of("ui_partition")
    dialog = show(page, "contact sheet")
    sheet = dialog.locator("img")
    expect(sheet).to_be_visible()
    assert width_of(sheet) > 700
    picture_of("ui_contact_sheet")


def test_a_backfill_launched_in_the_browser_ends_green_and_a_failed_check_shows_its_pictures(
    page: Page, picture_of: PictureOf
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
    picture_of("ui_launch")
    dialog.get_by_role("button", name="Launch backfill").click()
    told = page.get_by_text("Created backfill").inner_text()
    page.goto(f"/runs/b/{told.split()[2]}")
    expect(page.get_by_text("100% completed")).to_be_visible(timeout=BACKFILL_MS)
    # Its state, and the name of a column.
    expect(page.get_by_text("Succeeded", exact=True)).to_have_count(2, timeout=BACKFILL_MS)
    expect(page.get_by_text("Completed with failures")).to_have_count(0)
    picture_of("ui_backfill")

    # A warning: the runs were green nevertheless.
    page.goto("/assets/raw_images?view=checks&checkDetail=duplicate_images")
    expect(page.get_by_text("Failed", exact=True).first).to_be_visible()
    expect(page.get_by_text(f"{WITHOUT} products share one image")).to_be_visible()
    picture_of("ui_failed_check")
    page.get_by_text("Show Markdown").click()
    thumbnails = page.get_by_role("dialog").locator("img")
    expect(thumbnails).to_have_count(len(SHARED))
    for thumbnail in thumbnails.all():
        assert width_of(thumbnail) > 80
    picture_of("ui_failed_check_pictures")
