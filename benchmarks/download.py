"""Download speed of imgassets and other programs: `python -m benchmarks.download --rounds 3`.

Every program runs as a separate process. Programs take turns for several rounds, and the tables
show medians. CPU includes start-up and child processes.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks import catalogue, programs
from benchmarks.programs import BENCH, LOG, LOOPS, OUT, THREADS, Result

LATENCY_S = 0.05


def main() -> None:
    """Run the benchmarks and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=12_000)
    parser.add_argument("--only", choices=("peers", "growth", "latency"), help="run only this part")
    options = parser.parse_args()
    served = BENCH / "served"
    print("generating images and environments ...", flush=True)
    catalogue.make(served)
    pythons = {name: programs.create_environment(name) for name in ("img2dataset", "loops")}
    sizes = [path.stat().st_size for path in (served / "large").iterdir()]
    print(f"{len(sizes)} images, mean {statistics.mean(sizes) / 1000:.0f} kB", flush=True)
    with catalogue.nginx(served) as address:
        if options.only in (None, "peers"):
            _compare(address, options.images, options.rounds, pythons)
        if options.only in (None, "growth"):
            _growth(address, options.rounds)
    if options.only in (None, "latency"):
        _latency(served / "small" / "0.jpg")
    shutil.rmtree(OUT)


def _compare(address: str, images: int, rounds: int, pythons: dict[str, str]) -> None:
    urls = programs.write_urls(address, "large", images)
    few = programs.write_urls(address, "large", catalogue.IMAGES)
    runs: dict[str, Callable[[], Result]] = {
        "imgassets, curl": lambda: _imgassets(urls, "curl"),
        "imgassets, requests": lambda: _imgassets(urls, "requests"),
        "img2dataset 1.47, 2 processes x 32 threads": lambda: _img2dataset(
            urls, pythons["img2dataset"]
        ),
        "bare requests loop": lambda: _loop(urls, pythons["loops"], "bare_requests.py"),
        "original pipeline's loop": lambda: _loop(few, pythons["loops"], "original.py"),
    }
    results: dict[str, list[Result]] = {name: [] for name in runs}
    for number in range(rounds):
        for name, run in runs.items():
            result = run()
            results[name].append(result)
            print(f"round {number + 1}: {programs.progress_line(name, result)}", flush=True)
    medians = {name: programs.median(found) for name, found in results.items()}
    curl, requests, peer, bare, original = medians.values()
    print("\n| program | images/s | CPU ms per image | peak MB |\n|---|---|---|---|")
    for name, result in medians.items():
        print(f"| {name} | {result.rate:.0f} | {result.cpu_ms:.2f} | {result.peak_mb:.0f} |")
    print("\n| ratio of medians | measured | target |\n|---|---|---|")
    for name, ratio, target in (
        ("CPU, curl / img2dataset", curl.cpu_ms / peer.cpu_ms, "at most 0.7"),
        ("rate, curl / img2dataset", curl.rate / peer.rate, "at least 1.5"),
        ("rate, curl / bare loop", curl.rate / bare.rate, "at least 2"),
        ("CPU, requests / bare loop", requests.cpu_ms / bare.cpu_ms, "at most 1.4"),
        ("CPU, original / curl", original.cpu_ms / curl.cpu_ms, "at least 5"),
    ):
        print(f"| {name} | {ratio:.2f} | {target} |")


def _growth(address: str, rounds: int) -> None:
    sizes = (2_000, 20_000, 200_000)
    found: dict[int, list[tuple[Result, float, float]]] = {number: [] for number in sizes}
    # The sizes take turns, because the speed of the machine changes over time.
    for _ in range(rounds):
        for number in sizes:
            urls = programs.write_urls(address, "small", number)
            for _ in range(3 if number < 10_000 else 1):
                found[number].append((_imgassets(urls, "curl"), *_rates()))
    print("\n| small images, curl | images/s | with plan and manifest | with start-up |", end="")
    print(" CPU ms per image | peak MB |\n|---|---|---|---|---|---|")
    for count, runs in found.items():
        results, downloads, totals = zip(*runs, strict=True)
        median = programs.median(results)
        rates = f"{statistics.median(downloads):.0f} | {statistics.median(totals):.0f}"
        print(f"| {count} | {rates} | {median.rate:.0f} |", end="")
        print(f" {median.cpu_ms:.2f} | {median.peak_mb:.0f} |", flush=True)


def _latency(image: Path) -> None:
    arguments = [sys.executable, "-m", "benchmarks.latency", str(image), str(LATENCY_S)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None  # noqa: S101  (for the type checker)
        address = f"http://127.0.0.1:{server.stdout.readline().strip()}"
        try:
            for client in ("curl", "requests"):
                result = _imgassets(programs.write_urls(address, "x", 10_000), client)
                # Download only: start-up takes a second and does not depend on latency.
                rate = _rates()[0]
                share = rate * LATENCY_S / THREADS
                rates = f"{rate:.0f} images/s ({result.rate:.0f} with start-up and collect)"
                print(f"\n50 ms latency, {client}: {rates}, {share:.0%} of 640", flush=True)
        finally:
            server.terminate()


def _imgassets(urls: Path, client: str) -> Result:
    images = urls.read_text().splitlines()
    arguments = [sys.executable, "-m", "benchmarks.imgassets_run", str(urls), str(OUT), client]
    # imgassets stores equal images once.
    distinct = len({url.partition("?")[0] for url in images})
    return programs.run(arguments, len(images), files=distinct)


def _rates() -> tuple[float, float]:
    """Images/s of the last run of imgassets: of its download, and from plan to manifest."""
    download, total = LOG.read_text().split()
    return float(download), float(total)


def _loop(urls: Path, python: str, program: str) -> Result:
    return _run(urls, [python, str(LOOPS / program), str(urls), str(OUT)])


def _img2dataset(urls: Path, python: str) -> Result:
    """Run img2dataset with its fastest options: it re-encodes no image."""
    fastest = {"resize_mode": "no", "disable_all_reencoding": True}
    command = programs.img2dataset(urls, python, number_sample_per_shard=1000, **fastest)
    return _run(urls, command)


def _run(urls: Path, arguments: list[str]) -> Result:
    return programs.run(arguments, urls.read_text().count("\n") + 1)


if __name__ == "__main__":
    main()
