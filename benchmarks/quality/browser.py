"""Compare what decoding gives with what Chromium shows, for image files of any kind.

    python -m benchmarks.quality.browser FOLDER...

The folders may be any that hold image files, for example an unpacked source distribution of
`requirements/corpus.txt`. Each file on which the two differ is printed: it is shown by one only, or
with another size or other colours. Chromium tells no error for a file that ends early; the last
column is the share of pixels that it leaves transparent, as missing rows are.
"""

from __future__ import annotations

import argparse
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from playwright.sync_api import Page, Route, sync_playwright

from imgassets.download.inspection import inspect
from imgassets.errors import UnreadableImageError
from imgassets.imaging.decode import decode
from imgassets.imaging.image import Pixels
from imgassets.settings import DecodeSettings

SETTINGS = DecodeSettings(max_pixels=30_000_000)
# Rounding and interpolation differ: levels on average and at most, of 255.
MEAN, HIGHEST = 0.6, 12
ARGUMENTS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--force-color-profile=srgb"]
ADDRESS = "http://127.0.0.1/"
DRAW = """async address => {
  const image = new Image();
  image.src = address;
  if (!await new Promise(r => { image.onload = () => r(true); image.onerror = () => r(false); }))
    return null;
  const [width, height] = [image.naturalWidth, image.naturalHeight];
  const context = new OffscreenCanvas(width, height).getContext("2d", {willReadFrequently: true});
  context.drawImage(image, 0, 0);
  const body = context.getImageData(0, 0, width, height).data;
  await fetch(address, {method: "POST", body});
  return [width, height];
}"""


class Comparison(NamedTuple):
    """How a file fares here and in Chromium; `kind` is empty if both agree."""

    kind: str
    details: str = ""


class Chromium:
    """A page that draws files and hands back their pixels."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._file = self._drawn = b""
        page.route("**/*", self._answer)
        page.goto(ADDRESS)

    def _answer(self, route: Route) -> None:
        if route.request.method == "POST":
            self._drawn = route.request.post_data_buffer or b""
            route.fulfill(status=204)
        elif route.request.url == ADDRESS:
            route.fulfill(body="<!doctype html>", content_type="text/html")
        else:
            route.fulfill(body=self._file)

    def draw(self, data: bytes, number: int) -> NDArray[np.uint8] | None:
        """The pixels of a file, RGBA; None if Chromium does not know it."""
        self._file = data
        size = self._page.evaluate(DRAW, f"{ADDRESS}{number}")
        if size is None:
            return None
        return np.frombuffer(self._drawn, np.uint8).reshape(size[1], size[0], 4)


def _decoded(data: bytes) -> tuple[str, Pixels | None]:
    try:
        inspect(data, SETTINGS.max_pixels)
        return "ok", decode(data, SETTINGS).pixels
    except UnreadableImageError as error:
        return f"{error.outcome}: {error}", None


def compare(data: bytes, shown: NDArray[np.uint8] | None) -> Comparison:
    """Compare a file with its pixels in Chromium."""
    outcome, pixels = _decoded(data)
    if pixels is None and shown is None:
        return Comparison("")
    if shown is None:
        return Comparison("only here")
    transparent = f"{(shown[:, :, 3] == 0).mean():.2f}"
    if pixels is None:
        return Comparison("only in Chromium", f"{outcome[:80]} {transparent}")
    if pixels.shape[:2] != shown.shape[:2]:
        return Comparison("size", f"{pixels.shape[1::-1]} {shown.shape[1::-1]}")
    opacity = shown[:, :, 3:].astype(np.float32) / 255
    expected = shown[:, :, :3] * opacity + np.array(SETTINGS.background) * (1 - opacity)
    difference = np.abs(expected - pixels[:, :, ::-1])
    mean, highest = float(difference.mean()), float(difference.max())
    if mean <= MEAN and highest <= HIGHEST:
        return Comparison("")
    return Comparison("colours", f"{mean:.1f} {highest:.0f} {transparent}")


def _files(folders: list[Path]) -> Iterator[Path]:
    for folder in folders:
        yield from sorted(path for path in folder.rglob("*") if path.is_file())


def main() -> None:
    """Print the differences, and how many files there are of each kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    counts: Counter[str] = Counter()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=ARGUMENTS
        )
        chromium = Chromium(browser.new_page())
        for number, path in enumerate(_files(parser.parse_args().folders)):
            data = path.read_bytes()
            kind, details = compare(data, chromium.draw(data, number))
            counts[kind or "the same"] += 1
            if kind:
                print(f"{kind:18} {path} {details}", flush=True)
        browser.close()
    print(*(f"{count} {kind}" for kind, count in counts.most_common()), sep=", ")


if __name__ == "__main__":
    main()
