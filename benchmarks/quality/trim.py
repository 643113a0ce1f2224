"""How much product each trim cuts off, and how much background it leaves.

    python -m benchmarks.quality.trim --count 2352 --seed 2026

Peers: the original pipeline's loop over thresholds; ImageMagick `-trim -fuzz`; libvips
`find_trim`. Needs `pip install pyvips pyvips-binary` and `apt-get install imagemagick`; a peer that
is not installed is left out, and said so.
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


def ours(method: str) -> Trimmer:
    """A method of this project, with its defaults."""
    settings = TrimSettings.model_validate({"method": method})
    return lambda pixels: find_trim(pixels, settings).box


def original(pixels: NDArray[np.uint8]) -> Box:
    """The original's way: grey, blur, variances against thresholds from 250 down by 25.

    It loses the last row and column that vary, and computes the variances at every step; written
    after issue 4's description of it.
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
    """`convert -fuzz N% -format %@ info:`: the box that `-trim` would keep."""
    program = _imagemagick()

    def trim(pixels: NDArray[np.uint8]) -> Box:
        file = cv2.imencode(".bmp", pixels)[1].tobytes()
        told = subprocess.run(
            [str(program), "bmp:-", "-fuzz", f"{fuzz}%", "-format", "%@", "info:"],
            input=file,
            capture_output=True,
            check=False,
        ).stdout.decode()
        try:
            size, x, y = told.split("+")
            width, height = size.split("x")
            box = Box(int(x), int(y), int(width), int(height))
        except ValueError:  # nothing but background
            box = Box(0, 0, 0, 0)
        return box if box.area else Box(0, 0, pixels.shape[1], pixels.shape[0])

    return trim


def libvips(threshold: int) -> Trimmer:
    """The `find_trim` of libvips; the background is the colour of the corner."""
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
    """Share of product pixels cut off; share of the background around it that is left."""
    height, width = product.mask.shape
    rows, columns = np.nonzero(product.mask)
    tight = int((np.ptp(rows) + 1) * (np.ptp(columns) + 1))
    kept = product.mask[box.y : box.y + box.height, box.x : box.x + box.width].sum()
    cut = 1 - float(kept) / rows.size
    return cut, max(0, box.area - tight) / max(1, width * height - tight)


def _imagemagick() -> str | None:
    """The path of ImageMagick 6 or 7, if it is one."""
    for path in (shutil.which("magick"), "/usr/bin/convert", shutil.which("convert")):
        if path and shutil.which(path):
            told = subprocess.run([path, "--version"], capture_output=True, check=False).stdout
            if b"ImageMagick" in told:
                return path
    return None


def _trimmers() -> dict[str, Trimmer]:
    found: dict[str, Trimmer] = {
        "imgassets background": ours("background"),
        "imgassets variance": ours("variance"),
        "original": original,
    }
    if _imagemagick() is None:
        print("ImageMagick is not installed, and left out")
    else:
        found |= {f"ImageMagick -fuzz {f}%": imagemagick(f) for f in (2, 5, 10)}
    try:
        import pyvips  # noqa: F401
    except ImportError:
        print("pyvips is not installed, and left out")
    else:
        found |= {f"libvips find_trim {t}": libvips(t) for t in (5, 10, 20)}
    return found


def _row(name: str, figures: Iterable[tuple[float, float]]) -> str:
    cut, left = np.array(list(figures)).T
    return (
        f"| {name} | {cut.mean():.3%} | {np.percentile(cut, 95):.2%} | {cut.max():.1%} "
        f"| {(cut > 0.02).mean():.1%} | {left.mean():.1%} | {np.percentile(left, 95):.1%} "
        f"| {left.max():.0%} |"
    )


def main() -> None:
    """Draw, trim, print the tables."""
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
        "| | cut mean | p95 | worst | pictures > 2 % | left mean | p95 | worst |\n"
        + "|---" * 8
        + "|"
    )
    print(f"{arguments.count} pictures, seed {arguments.seed}\n\n{head}")
    print("\n".join(_row(name, values) for name, values in figures.items()))
    print(f"\n`imgassets background`, by background, tone and shape\n\n{head}")
    print("\n".join(_row(name, values) for name, values in kinds.items()))


if __name__ == "__main__":
    main()
