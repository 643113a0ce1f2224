"""How fast pictures are fetched, beside the peers: `python -m benchmarks.download --rounds 3`.

Each program runs as a process of its own, in turn, several rounds; medians count. CPU is that of
the process and its children, start-up included.
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
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=12_000)
    parser.add_argument("--only", choices=("peers", "growth", "latency"), help="one part of it")
    options = parser.parse_args()
    served = BENCH / "served"
    print("making pictures and environments ...", flush=True)
    catalogue.make(served)
    pythons = {name: programs.environment(name) for name in ("img2dataset", "loops")}
    sizes = [path.stat().st_size for path in (served / "large").iterdir()]
    print(f"{len(sizes)} pictures, mean {statistics.mean(sizes) / 1000:.0f} kB", flush=True)
    with catalogue.nginx(served) as address:
        if options.only in (None, "peers"):
            _compare(address, options.images, options.rounds, pythons)
        if options.only in (None, "growth"):
            _growth(address, options.rounds)
    if options.only in (None, "latency"):
        _latency(served / "small" / "0.jpg")
    shutil.rmtree(OUT)


def _compare(address: str, images: int, rounds: int, pythons: dict[str, str]) -> None:
    urls = programs.urls(address, "large", images)
    few = programs.urls(address, "large", catalogue.PICTURES)
    runs: dict[str, Callable[[], Result]] = {
        "imgassets, curl": lambda: _ours(urls, "curl"),
        "imgassets, requests": lambda: _ours(urls, "requests"),
        "img2dataset 1.47, 2 processes x 32 threads": lambda: _img2dataset(
            urls, pythons["img2dataset"]
        ),
        "bare requests loop": lambda: _loop(urls, pythons["loops"], "bare_requests.py"),
        "the original pipeline's way": lambda: _loop(few, pythons["loops"], "original.py"),
    }
    results: dict[str, list[Result]] = {name: [] for name in runs}
    for number in range(rounds):
        for name, run in runs.items():
            result = run()
            results[name].append(result)
            print(f"round {number + 1}: {programs.line(name, result)}", flush=True)
    middle = {name: programs.median(found) for name, found in results.items()}
    ours, slow, peer, bare, original = middle.values()
    print("\n| what | images/s | CPU ms an image | peak MB |\n|---|---|---|---|")
    for name, result in middle.items():
        print(f"| {name} | {result.rate:.0f} | {result.cpu_ms:.2f} | {result.peak_mb:.0f} |")
    print("\n| ratio of medians | measured | wanted |\n|---|---|---|")
    for what, ratio, wanted in (
        ("CPU, curl / img2dataset", ours.cpu_ms / peer.cpu_ms, "at most 0.7"),
        ("rate, curl / img2dataset", ours.rate / peer.rate, "at least 1.5"),
        ("rate, curl / bare loop", ours.rate / bare.rate, "at least 2"),
        ("CPU, requests / bare loop", slow.cpu_ms / bare.cpu_ms, "at most 1.4"),
        ("CPU, original / curl", original.cpu_ms / ours.cpu_ms, "at least 5"),
    ):
        print(f"| {what} | {ratio:.2f} | {wanted} |")


def _growth(address: str, rounds: int) -> None:
    sizes = (2_000, 20_000, 200_000)
    found: dict[int, list[tuple[Result, float, float]]] = {number: [] for number in sizes}
    # In turn, since the machine itself is faster in one minute than in the next.
    for _ in range(rounds):
        for number in sizes:
            urls = programs.urls(address, "small", number)
            for _ in range(3 if number < 10_000 else 1):
                found[number].append((_ours(urls, "curl"), *_rates()))
    print("\n| small pictures, curl | images/s | with plan and manifest | with start-up |", end="")
    print(" CPU ms an image | peak MB |\n|---|---|---|---|---|---|")
    for number, runs in found.items():
        results, downloads, wholes = zip(*runs, strict=True)
        middle = programs.median(results)
        rates = f"{statistics.median(downloads):.0f} | {statistics.median(wholes):.0f}"
        print(f"| {number} | {rates} | {middle.rate:.0f} |", end="")
        print(f" {middle.cpu_ms:.2f} | {middle.peak_mb:.0f} |", flush=True)


def _latency(picture: Path) -> None:
    arguments = [sys.executable, "-m", "benchmarks.latency", str(picture), str(LATENCY_S)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None  # noqa: S101  (for the type checker)
        address = f"http://127.0.0.1:{server.stdout.readline().strip()}"
        try:
            for client in ("curl", "requests"):
                result = _ours(programs.urls(address, "x", 10_000), client)
                # Of the download alone: the second of start-up has nothing to do with latency.
                at_work = _rates()[0]
                share = at_work * LATENCY_S / THREADS
                rates = f"{at_work:.0f} images/s ({result.rate:.0f} with start-up and collect)"
                print(f"\n50 ms latency, {client}: {rates}, {share:.0%} of 640", flush=True)
        finally:
            server.terminate()


def _ours(urls: Path, client: str) -> Result:
    return _run(urls, [sys.executable, "-m", "benchmarks.ours", str(urls), str(OUT), client])


def _rates() -> tuple[float, float]:
    """What our last run printed: images/s of its download, and from plan to manifest."""
    download, whole = LOG.read_text().split()
    return float(download), float(whole)


def _loop(urls: Path, python: str, program: str) -> Result:
    return _run(urls, [python, str(LOOPS / program), str(urls), str(OUT)])


def _img2dataset(urls: Path, python: str) -> Result:
    """Its fastest: nothing is encoded again."""
    fastest = {"resize_mode": "no", "disable_all_reencoding": True}
    command = programs.img2dataset(urls, python, number_sample_per_shard=1000, **fastest)
    return _run(urls, command)


def _run(urls: Path, arguments: list[str]) -> Result:
    return programs.run(arguments, urls.read_text().count("\n") + 1)


if __name__ == "__main__":
    main()
