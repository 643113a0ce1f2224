"""Image files of two libraries' source distributions, and what this project makes of each.

`python -m imgassets_tests.imaging.corpus` prints the table anew, for `corpus.csv`. The files are
not copied into the project: `make` downloads the distributions that `requirements/corpus.txt` pins.
"""

from __future__ import annotations

import csv
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2

from imgassets.download.inspection import inspect
from imgassets.errors import UnreadableImageError
from imgassets.folders import project_root
from imgassets.imaging.decode import decode
from imgassets.settings import DecodeSettings

FOLDER = project_root() / ".imgassets/corpus"
TABLE = Path(__file__).with_suffix(".csv")
# Folders of image files in the distributions, by the name of the distribution.
FOLDERS = {"pillow": "Tests/images/", "pillow_heif": "tests/images/"}
SETTINGS = DecodeSettings(max_pixels=20_000_000)


class Result(NamedTuple):
    """What becomes of a file.

    Attributes:
        outcome: `ok`, or the outcome of the error at download or at decoding.
        width: Width of the upright image in pixels, empty without an image.
        height: Height of the upright image in pixels, empty without an image.
        colours: Mean colours of the image's quarters, RRGGBB in hexadecimal digits, row by row.
    """

    outcome: str
    width: str = ""
    height: str = ""
    colours: str = ""


def result(data: bytes) -> Result:
    """Read a file as the download and the imaging do."""
    try:
        inspect(data, SETTINGS.max_pixels)
        pixels = decode(data, SETTINGS).pixels
    except UnreadableImageError as error:
        return Result(str(error.outcome))
    quarters = cv2.resize(pixels, (2, 2), interpolation=cv2.INTER_AREA)
    height, width = pixels.shape[:2]
    return Result("ok", str(width), str(height), quarters[:, :, ::-1].tobytes().hex())


def files(distribution: str) -> Iterator[tuple[str, bytes]]:
    """The paths and contents of all image files of a distribution."""
    (archive,) = FOLDER.glob(f"{distribution}-[0-9]*.tar.gz")
    with tarfile.open(archive) as tar:
        for member in tar:
            _root, _, path = member.name.partition("/")
            content = tar.extractfile(member)
            if path.startswith(FOLDERS[distribution]) and content is not None:
                yield path.removeprefix(FOLDERS[distribution]), content.read()


def table() -> dict[tuple[str, str], Result]:
    """The stored results, by distribution and path."""
    with TABLE.open(newline="") as file:
        rows = csv.reader(file)
        next(rows)
        return {(distribution, path): Result(*rest) for distribution, path, *rest in rows}


if __name__ == "__main__":
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["distribution", "path", *Result._fields])
    for name in FOLDERS:
        for path, content in sorted(files(name)):
            writer.writerow([name, path, *result(content)])
