"""Measure how much of the product each trim cuts off, and how much background it leaves.

    python -m benchmarks.quality.trim --count 2352 --seed 2026

Other methods: the original pipeline's loop over thresholds, ImageMagick `-trim -fuzz`, libvips
`find_trim`. Install them with `apt-get install imagemagick` and `pip install pyvips pyvips-binary`;
if one is missing, a message says so and its rows are left out.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.products import Product, products
from imgassets.imaging.image import Box
from imgassets.imaging.trim import find_trim
from imgassets.settings import TrimSettings

Trimmer = Callable[[NDArray[np.uint8]], Box]


def imgassets_trim(method: str) -> Trimmer:
    """A method of imgassets with default settings.

    Args:
        method: value of `trim.method`.
    """
    settings = TrimSettings.model_validate({"method": method})
    return lambda pixels: find_trim(pixels, settings).box


def original(pixels: NDArray[np.uint8]) -> Box:
    """The trim of the original pipeline, written from its description.

    It compares the variances of the rows and columns of the blurred grey image with thresholds from
    250 down in steps of 25, and recomputes them at every step. It excludes the last row and column
    above the threshold.

    Args:
        pixels: height x width x 3, uint8, BGR.
    """
    height, width = pixels.shape[:2]
    grey = cv2.GaussianBlur(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), (9, 9), 0)
    for threshold in range(250, 0, -25):
        columns = np.flatnonzero(np.var(grey, axis=0) > threshold)
        rows = np.flatnonzero(np.var(grey, axis=1) > threshold)
        if columns.size == 0 or rows.size == 0:
            continue
        box = Box(
            int(columns[0]), int(rows[0]), int(columns[-1] - columns[0]), int(rows[-1] - rows[0])
        )
        if box.width >= 0.25 * width and box.height >= 0.25 * height:
            return box
    return Box(0, 0, width, height)


def imagemagick(fuzz: int) -> Trimmer:
    """ImageMagick: `convert -fuzz N% -format %@ info:` prints the box that `-trim` would keep.

    Args:
        fuzz: tolerance in percent.
    """
    program = _imagemagick()

    def trim(pixels: NDArray[np.uint8]) -> Box:
        file = cv2.imencode(".bmp", pixels)[1].tobytes()
        output = subprocess.run(
            [str(program), "bmp:-", "-fuzz", f"{fuzz}%", "-format", "%@", "info:"],
            input=file,
            capture_output=True,
            check=False,
        ).stdout.decode()
        try:
            size, x, y = output.split("+")
            width, height = size.split("x")
            box = Box(int(x), int(y), int(width), int(height))
        except ValueError:  # the image is all background
            box = Box(0, 0, 0, 0)
        return box if box.area else Box(0, 0, pixels.shape[1], pixels.shape[0])

    return trim


def libvips(threshold: int) -> Trimmer:
    """`find_trim` of libvips with the colour of the top left corner as background.

    Args:
        threshold: maximum difference from the background, in levels of 0 to 255.
    """
    import pyvips

    def trim(pixels: NDArray[np.uint8]) -> Box:
        rgb = np.ascontiguousarray(pixels[:, :, ::-1])
        image = pyvips.Image.new_from_array(rgb)
        corner = [float(v) for v in rgb[0, 0]]
        x, y, width, height = image.find_trim(threshold=threshold, background=corner)
        if width == 0 or height == 0:
            return Box(0, 0, pixels.shape[1], pixels.shape[0])
        return Box(x, y, width, height)

    return trim


def measure(product: Product, box: Box) -> tuple[float, float]:
    """Compare a box with the product's mask.

    Args:
        product: the image.
        box: the box that a trim keeps.

    Returns:
        Share of the product's pixels that is cut off, and share of the background outside the
        product's bounding box that is left.
    """
    height, width = product.mask.shape
    rows, columns = np.nonzero(product.mask)
    tight = int((np.ptp(rows) + 1) * (np.ptp(columns) + 1))
    kept = product.mask[box.y : box.y + box.height, box.x : box.x + box.width].sum()
    cut = 1 - float(kept) / rows.size
    return cut, max(0, box.area - tight) / max(1, width * height - tight)


def _imagemagick() -> str | None:
    """Path of ImageMagick 6 or 7, or None; Windows has another program named `convert`."""
    for path in (shutil.which("magick"), "/usr/bin/convert", shutil.which("convert")):
        if path and shutil.which(path):
            version = subprocess.run([path, "--version"], capture_output=True, check=False).stdout
            if b"ImageMagick" in version:
                return path
    return None


def _trimmers() -> dict[str, Trimmer]:
    found: dict[str, Trimmer] = {
        "imgassets background": imgassets_trim("background"),
        "imgassets variance": imgassets_trim("variance"),
        "original": original,
    }
    if _imagemagick() is None:
        print("ImageMagick is not installed; its rows are left out")
    else:
        found |= {f"ImageMagick -fuzz {f}%": imagemagick(f) for f in (2, 5, 10)}
    try:
        import pyvips  # noqa: F401
    except ImportError:
        print("pyvips is not installed; its rows are left out")
    else:
        found |= {f"libvips find_trim {t}": libvips(t) for t in (5, 10, 20)}
    return found


def _row(name: str, measured: Iterable[tuple[float, float]]) -> str:
    cut, left = np.array(list(measured)).T
    return (
        f"| {name} | {cut.mean():.3%} | {np.percentile(cut, 95):.2%} | {cut.max():.1%} "
        f"| {(cut > 0.02).mean():.1%} | {left.mean():.1%} | {np.percentile(left, 95):.1%} "
        f"| {left.max():.0%} |"
    )


def main() -> None:
    """Generate the images, trim them and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2352)
    parser.add_argument("--seed", type=int, default=2026)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    trimmers = _trimmers()
    figures: dict[str, list[tuple[float, float]]] = defaultdict(list)
    kinds: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for product in products(arguments.count, arguments.seed):
        for name, trim in trimmers.items():
            figures[name].append(measure(product, trim(product.pixels)))
        for kind in product.kind:
            kinds[kind].append(figures["imgassets background"][-1])
    head = (
        "| | cut mean | p95 | worst | images > 2 % | left mean | p95 | worst |\n" + "|---" * 8 + "|"
    )
    print(f"{arguments.count} images, seed {arguments.seed}\n\n{head}")
    print("\n".join(_row(name, values) for name, values in figures.items()))
    print(f"\n`imgassets background`, by background, tone and shape\n\n{head}")
    print("\n".join(_row(name, values) for name, values in kinds.items()))


if __name__ == "__main__":
    main()
