"""Requests to an object store, and CPU, by step of whole runs.

    apt-get install nginx-light                                  # once
    python -m benchmarks.object_store                            # 300 and 1,500 images
    python -m benchmarks.object_store --images 400 --delay-ms 30

A run is one `dagster asset materialize` of all four assets with their default checks and review
pages, with the data root in an S3 API (moto) on loopback that counts its requests. Each number of
images begins with an empty bucket; the run is repeated for the same day, and for a second day that
lists the same URLs. Requests are attributed to the steps by the times of Dagster's events. CPU is
that of the run's processes; moto is in the process of this benchmark.
"""

from __future__ import annotations

import argparse
import bisect
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence

from benchmarks import catalogue
from benchmarks.programs import BENCH, OUT
from benchmarks.whole_run import DAYS, RETAILER, Run, distinct, materialize, program, source
from imgassets_tests import object_store
from imgassets_tests.object_store import ObjectStore, Request

FOLDER = OUT.parent / "imgassets-object-store"
_ASSETS = "url_list,face_model,raw_images,processed_images"
_METHODS = ("PUT", "GET", "HEAD", "LIST", "DELETE", "BULK DELETE", "MULTIPART")


def main() -> None:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[300, 1500])
    parser.add_argument("--delay-ms", type=float, default=0, help="latency of each request")
    parser.add_argument("--local", action="store_true", help="compare with a folder")
    options = parser.parse_args()
    catalogue.make(BENCH / "served")
    catalogue.make_people(BENCH / "served")
    shutil.rmtree(FOLDER, ignore_errors=True)
    distinct(BENCH / "served" / "people", FOLDER / "served", max(options.images))
    measured: list[dict[str, tuple[Run, int]]] = []
    with catalogue.nginx(FOLDER / "served") as address, object_store.running() as store:
        store.delay_s = options.delay_ms / 1000
        os.environ |= store.environment
        for images in options.images:
            data_root = None if options.local else store.create_bucket(f"images-{images}")
            with source(FOLDER, address, images, data_root) as variables:
                measured.append(_measure(variables, store, images))
    shutil.rmtree(FOLDER)
    if len(measured) > 1:
        _print_slope(options.images, measured)


def _measure(
    variables: dict[str, str], store: ObjectStore, images: int
) -> dict[str, tuple[Run, int]]:
    """Run the commands, and return the cost and the number of requests of each."""
    measured = {}
    for name in ("data", "dagster_home"):
        shutil.rmtree(FOLDER / name, ignore_errors=True)
    subprocess.run(
        [program("imgassets"), "sync"], env=variables, check=True, stdout=subprocess.DEVNULL
    )
    for name, day in (("first run", DAYS[0]), ("again", DAYS[0]), ("next day", DAYS[1])):
        store.requests.clear()
        run = materialize(variables, _ASSETS, "--partition", f"{day}|{RETAILER}")
        _print_table(f"{name}, {images:,} images", run, store.requests, images)
        measured[name] = run, len(store.requests)
    return measured


def _print_table(title: str, run: Run, requests: Sequence[Request], images: int) -> None:
    total = len(requests)
    print(f"\n{title}: {total:,} requests, {total / images:.3f} per image;")
    cpu_ms = run.cpu_s * 1000 / images
    print(f"{run.cpu_s:.2f} CPU s, {cpu_ms:.2f} ms per image, {run.wall_s:.1f} s")
    ends = [end for _, end in run.spans]
    by_step: dict[str, Counter[tuple[str, str]]] = {step: Counter() for step in run.steps}
    for request in requests:
        step = run.spans[min(bisect.bisect(ends, request.time), len(ends) - 1)][0]
        by_step[step][request.kind, request.method] += 1
    print(f"\n| step | CPU s | s | folder | {' | '.join(_METHODS)} |")
    print(f"|---|---|---|---|{'---|' * len(_METHODS)}")
    for step, (cpu_s, wall_s) in run.steps.items():
        spent = f"{step} | {cpu_s:.2f} | {wall_s:.2f}"
        for kind in sorted({kind for kind, _ in by_step[step]}) or [""]:
            counts = [by_step[step][kind, method] for method in _METHODS]
            print(f"| {spent} | {kind} | {' | '.join(str(n or '') for n in counts)} |")
            spent = " | | "
    print(end="", flush=True)


def _print_slope(images: Sequence[int], measured: Sequence[dict[str, tuple[Run, int]]]) -> None:
    """Print what an image costs beyond what a run costs: the first and the last number compared."""
    few, many, added = measured[0], measured[-1], images[-1] - images[0]
    print(
        f"\n| each image from {images[0]:,} to {images[-1]:,} | requests | CPU ms |\n|---|---|---|"
    )
    for name, (run, requests) in many.items():
        cpu_ms = (run.cpu_s - few[name][0].cpu_s) * 1000 / added
        print(f"| {name} | {(requests - few[name][1]) / added:.3f} | {cpu_ms:.2f} |")


if __name__ == "__main__":
    main()
