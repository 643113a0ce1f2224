"""Cost of whole runs as users start them, beside img2dataset and the bare loops.

    apt-get install nginx-light                # once
    python -m benchmarks.whole_run             # 12,000 images, 5 rounds

A run is one `dagster asset materialize` of all four assets with their default checks and review
pages, in a new process, from documents in MongoDB to images of 448 pixels. Every round begins
without data; the run is then repeated for the same day, and for a second day that lists the same
URLs. CPU is that of the process and its children, start-up included; that of MongoDB and nginx is
not. It is attributed to the steps by the times of Dagster's events.

img2dataset downloads and resizes the same images to the same size. The loops are `process_image`,
in one process and in one per core at once, which slow each other down; and the original pipeline's
steps, as `benchmarks/loops` reimplements them, in one process.
"""

from __future__ import annotations

import argparse
import bisect
import datetime as dt
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import yaml
from pymongo import MongoClient

from benchmarks import catalogue, imaging_speed, programs
from benchmarks.programs import BENCH, OUT
from imgassets import read_manifest
from imgassets.cores import available_cores
from imgassets.demo.mongod import EmbeddedMongo
from imgassets.folders import project_root
from imgassets.review.pages import write_review
from imgassets.settings import ReviewSettings
from imgassets.storage import Storage

FOLDER = OUT.parent / "imgassets-whole-run"
DAYS = ("2026-01-01", "2026-01-02")
RETAILER = "shop"
_ASSETS = "url_list,face_model,raw_images,processed_images"
_IMAGES_PER_PRODUCT = 5
AFTER_STEPS = "between steps, exit"
# The list of processes is read less often: it takes 4 ms, which the run would miss on two cores.
_EVERY_S, _LIST_EVERY = 0.05, 4
_LOOP_IMAGES, _ORIGINAL_IMAGES = 300, 60


@dataclass(frozen=True)
class Run:
    """The cost of a run.

    Attributes:
        cpu_s: CPU seconds of the process and its children.
        wall_s: Seconds from its start to its end.
        steps: CPU and wall seconds by step; what is between the steps is under its own name.
        spans: The steps and what is between them, in order, each with the time of its end in
            seconds since 1970.
    """

    cpu_s: float
    wall_s: float
    steps: dict[str, tuple[float, float]] = field(default_factory=dict)
    spans: list[tuple[str, float]] = field(default_factory=list)


def main() -> None:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=12_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    catalogue.make(BENCH / "served")
    catalogue.make_people(BENCH / "served")
    img2dataset, original = (programs.create_environment(n) for n in ("img2dataset", "original"))
    shutil.rmtree(FOLDER, ignore_errors=True)
    distinct(BENCH / "served" / "people", FOLDER / "served", options.images)
    runs: dict[str, list[Run]] = defaultdict(list)
    with (
        catalogue.nginx(FOLDER / "served") as address,
        source(FOLDER, address, options.images) as variables,
    ):
        for number in range(1, options.rounds + 1):
            for name, run in _round(variables, address, options.images, img2dataset, original):
                runs[name].append(run)
                print(
                    f"round {number}: {name}: {run.cpu_s:.2f} CPU s, {run.wall_s:.2f} s", flush=True
                )
    shutil.rmtree(FOLDER)
    _print_tables(runs, options.images)


def _round(
    variables: dict[str, str], address: str, images: int, img2dataset: str, original: str
) -> Iterator[tuple[str, Run]]:
    """Run every program once, and yield its name and cost."""
    for name in ("data", "dagster_home"):
        shutil.rmtree(FOLDER / name, ignore_errors=True)
    subprocess.run(
        [program("imgassets"), "sync"], env=variables, check=True, stdout=subprocess.DEVNULL
    )
    yield "start-up", materialize(variables, "face_model")
    first, again, next_day = ("the run", DAYS[0]), ("again", DAYS[0]), ("next day", DAYS[1])
    for name, day in (first, again, next_day):
        yield name, materialize(variables, _ASSETS, "--partition", f"{day}|{RETAILER}")
        _check_manifest(day, images)
        if name == "the run":
            yield "review", _review(day)
    urls = FOLDER / "urls.txt"
    urls.write_text("\n".join(f"{address}/{number}.jpg" for number in range(images)))
    peer = programs.run(imaging_speed.img2dataset(urls, img2dataset), images)
    yield "img2dataset", Run(peer.cpu_s, peer.seconds)
    served = [FOLDER / "served" / f"{number}.jpg" for number in range(_LOOP_IMAGES)]
    ours = imaging_speed.process_images(served)
    with ProcessPoolExecutor(available_cores()) as pool:
        at_once = list(pool.map(imaging_speed.process_images, [served] * available_cores()))
    theirs = imaging_speed.process_as_original(served[:_ORIGINAL_IMAGES], original)
    yield "process_image", Run(ours.cpu_ms / 1000, ours.seconds / ours.images)
    yield "process_image, all cores", Run(statistics.mean(one.cpu_ms for one in at_once) / 1000, 0)
    yield "original", Run(theirs.cpu_ms / 1000, theirs.seconds / theirs.images)


def distinct(images: Path, target: Path, count: int) -> None:
    """Write images that differ in a comment (a COM segment, after the SOI marker).

    Args:
        images: folder of the images, `N.jpg`.
        target: folder in which they are written.
        count: number of images to write.
    """
    target.mkdir(parents=True)
    for number in range(count):
        data = (images / f"{number % catalogue.IMAGES}.jpg").read_bytes()
        comment = f"{number:08d}".encode()
        segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2) + comment
        (target / f"{number}.jpg").write_bytes(data[:2] + segment + data[2:])


@contextmanager
def source(
    folder: Path, address: str, urls: int, data_root: str | None = None
) -> Iterator[dict[str, str]]:
    """Start MongoDB with the same products on each day.

    Args:
        folder: folder of the configuration and of Dagster.
        address: base URL of the images.
        urls: number of images.
        data_root: the data root; None for a folder in `folder`.

    Yields:
        The environment variables of processes that use it.
    """
    config = {
        "data_root": data_root or str(folder / "data"),
        "source": {"database": "bench", "collection": "days"},
        "download": {"allow_private_addresses": True},
        # The images are composed; a failed check would draw images of its findings.
        "checks": {"max_residual_faces": 1, "severity": {"residual_faces": "warn"}},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    mongodb = EmbeddedMongo(folder / "mongodb")
    uri = mongodb.ensure_running()
    try:
        with MongoClient[dict[str, Any]](uri, tz_aware=True) as client:
            days = client["bench"]["days"]
            days.drop()
            for day in DAYS:
                noon = dt.datetime.combine(dt.date.fromisoformat(day), dt.time(12), dt.UTC)
                days.insert_many(
                    {
                        "product_retailer": RETAILER,
                        "product_images": [
                            f"{address}/{number}.jpg"
                            for number in range(start, min(start + _IMAGES_PER_PRODUCT, urls))
                        ],
                        "scraped_at": noon,
                    }
                    for start in range(0, urls, _IMAGES_PER_PRODUCT)
                )
        yield {
            **os.environ,
            "PYTHONPATH": str(project_root()),
            "IMGASSETS_CONFIG": str(folder / "config.yaml"),
            "MONGODB_URI": uri,
            "DAGSTER_HOME": str(folder / "dagster_home"),
        }
    finally:
        mongodb.stop()


def materialize(variables: dict[str, str], assets: str, *options: str) -> Run:
    """Materialize assets in a new process.

    Args:
        variables: its environment, as `source` yields it.
        assets: names of the assets, with commas.
        *options: further options of `dagster asset materialize`.
    """
    arguments = ["asset", "materialize", "--select", assets, *options]
    command = [program("dagster"), *arguments, "-m", "imgassets.definitions"]
    path = Path(variables["DAGSTER_HOME"]).with_name("log")
    with path.open("a") as log:
        start = time.time()
        process = subprocess.Popen(command, env=variables, stdout=log, stderr=log)
        with _sample_cpu(process.pid) as samples:
            _, status, usage = os.wait4(process.pid, 0)
        end = time.time()
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"the run failed; see {path}")
    cpu_s = usage.ru_utime + usage.ru_stime
    samples.append((end, cpu_s))
    spans = [*_spans(variables["DAGSTER_HOME"]), (AFTER_STEPS, end)]
    return Run(cpu_s, end - start, _steps(spans, samples, start), spans)


@contextmanager
def _sample_cpu(pid: int) -> Iterator[list[tuple[float, float]]]:
    """Yields a list of times (s since 1970) and the CPU seconds spent until then."""
    samples = [(time.time(), 0.0)]
    ended = threading.Event()

    def sample() -> None:
        root = psutil.Process(pid)
        children: list[psutil.Process] = []
        while not ended.wait(_EVERY_S):
            with suppress(psutil.NoSuchProcess):
                if len(samples) % _LIST_EVERY == 0:
                    children = root.children(recursive=True)
                own = root.cpu_times()
                spent = own.user + own.system + own.children_user + own.children_system
                for child in children:
                    with suppress(psutil.NoSuchProcess):
                        times = child.cpu_times()
                        spent += times.user + times.system
                # A child that has ended is counted by its parent only when that has waited for it.
                samples.append((time.time(), max(spent, samples[-1][1])))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        ended.set()
        thread.join()


def _spans(dagster_home: str) -> list[tuple[str, float]]:
    """The steps of the last run and what is between them, each with the time of its end."""
    with dg.DagsterInstance.from_config(dagster_home) as instance:
        (run,) = instance.get_runs(limit=1)
        records = instance.all_logs(run.run_id)
    spans: list[tuple[str, float]] = []
    name = "start-up and imports"
    for record in records:
        event = record.dagster_event
        if event is not None and event.is_step_start:
            spans.append((name, record.timestamp))
            name = str(event.step_key).partition("[")[0].rpartition(".")[2]
        elif event is not None and (event.is_step_success or event.is_step_failure):
            spans.append((name, record.timestamp))
            name = AFTER_STEPS
    return spans


def _steps(
    spans: Sequence[tuple[str, float]], samples: Sequence[tuple[float, float]], start: float
) -> dict[str, tuple[float, float]]:
    """CPU and wall seconds by step."""
    times = [at for at, _ in samples]
    spent: dict[str, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
    previous, previous_cpu = start, 0.0
    for part, until in spans:
        cpu = samples[min(bisect.bisect(times, until), len(samples) - 1)][1]
        old = spent[part]
        spent[part] = (old[0] + cpu - previous_cpu, old[1] + until - previous)
        previous, previous_cpu = until, cpu
    return dict(spent)


def _check_manifest(day: str, images: int) -> None:
    rows = read_manifest("processed_images", data_root=str(FOLDER / "data"), start=day, end=day)
    if (done := int((rows["outcome"] == "ok").sum())) != images:
        raise RuntimeError(f"{done} of {images} images are processed")


def _review(day: str) -> Run:
    """Write the review pages of a finished partition once more, in this process."""
    partition = Storage(str(FOLDER / "data")).partition(day, RETAILER)
    table = partition.read_manifest("processed_images")
    shutil.rmtree(FOLDER / "data" / partition.review)
    cpu, wall = time.process_time(), time.perf_counter()
    write_review(table, partition, ReviewSettings())
    return Run(time.process_time() - cpu, time.perf_counter() - wall)


def _print_tables(runs: dict[str, list[Run]], images: int) -> None:
    cpu = {name: statistics.median(run.cpu_s for run in found) for name, found in runs.items()}
    wall = {name: statistics.median(run.wall_s for run in found) for name, found in runs.items()}
    print(
        f"\n| {images:,} images | CPU s | s | CPU ms per image | images/s |\n|---|---|---|---|---|"
    )
    for name in ("the run", "again", "next day", "img2dataset"):
        print(
            f"| {name} | {cpu[name]:.2f} | {wall[name]:.2f} | {cpu[name] * 1000 / images:.2f} "
            f"| {images / wall[name]:.0f} |"
        )
    print("\n| step of the run | CPU s | s | CPU ms per image |\n|---|---|---|---|")
    steps = {
        step: [statistics.median(run.steps[step][i] for run in runs["the run"]) for i in (0, 1)]
        for step in runs["the run"][0].steps
    }
    for step, (cpu_s, wall_s) in steps.items():
        print(f"| {step} | {cpu_s:.2f} | {wall_s:.2f} | {cpu_s * 1000 / images:.3f} |")
    checks = sum(cpu_s for step, (cpu_s, _) in steps.items() if step.endswith("_checks"))
    pure, review = cpu["process_image, all cores"] * 1000, cpu["review"] * 1000 / images
    overhead = steps["process_images"][0] * 1000 / images - pure - review
    print("\n| ratio of medians, or CPU ms per image | measured | target |\n|---|---|---|")
    for text, figure, target in (
        ("CPU, the run / img2dataset", cpu["the run"] / cpu["img2dataset"], "at most 0.55"),
        ("rate, the run / img2dataset", wall["img2dataset"] / wall["the run"], "at least 1.9"),
        ("CPU, original / process_image", cpu["original"] / cpu["process_image"], "at least 12"),
        ("process_image, ms", cpu["process_image"] * 1000, ""),
        ("process_image in a process per core at once, ms", pure, ""),
        ("processed_images without that and review, ms", overhead, "at most 0.7"),
        ("review and checks, ms", review + checks * 1000 / images, "at most 0.5"),
        ("CPU, again / the run", cpu["again"] / cpu["the run"], "at most 0.03"),
        ("the same without start-up", _without_start_up(cpu, "again"), ""),
        ("CPU, next day / the run, without start-up", _without_start_up(cpu, "next day"), ""),
    ):
        print(f"| {text} | {figure:.3f} | {target} |")
    print("\nRatios of each round, CPU and rate, the run and img2dataset:")
    for ours, theirs in zip(runs["the run"], runs["img2dataset"], strict=True):
        print(f"{ours.cpu_s / theirs.cpu_s:.2f}, {theirs.wall_s / ours.wall_s:.2f}")


def _without_start_up(cpu: dict[str, float], name: str) -> float:
    return (cpu[name] - cpu["start-up"]) / (cpu["the run"] - cpu["start-up"])


def program(name: str) -> str:
    """The path of a program in this Python environment."""
    return str(Path(sys.executable).with_name(name))


if __name__ == "__main__":
    main()
