"""How fast pictures are fetched, beside the peers: `python -m benchmarks.download --rounds 3`.

Each program runs as a process of its own, in turn, several rounds; medians count. CPU is that of
the process and its children, start-up included. Everything lies in `.imgassets/bench`, but the
files written lie in memory where the system has such a folder: what a disk and a virtual machine's
fresh memory cost differs from minute to minute, by more than the programs do.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
import venv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks import catalogue
from imgassets.settings import home

BENCH = home() / "bench"
_MEMORY = Path("/dev/shm")  # noqa: S108  (removed at the end)
OUT = (_MEMORY if _MEMORY.is_dir() else BENCH) / "imgassets-bench"
LOG = BENCH / "log.txt"
LOOPS = Path(__file__).parent / "loops"
PEERS = {
    "img2dataset": ["img2dataset==1.47.0"],
    "loops": ["requests==2.32.5", "pillow==12.0.0"],
}
LATENCY_S = 0.05
THREADS = 32


@dataclass(frozen=True)
class Result:
    """What a run took."""

    images: int
    seconds: float
    cpu_s: float
    peak_mb: float

    @property
    def rate(self) -> float:
        """Images a second."""
        return self.images / self.seconds

    @property
    def cpu_ms(self) -> float:
        """CPU milliseconds an image."""
        return self.cpu_s * 1000 / self.images


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
    pythons = {name: _environment(name, packages) for name, packages in PEERS.items()}
    sizes = [path.stat().st_size for path in (served / "large").iterdir()]
    print(f"{len(sizes)} pictures, mean {statistics.mean(sizes) / 1000:.0f} kB", flush=True)
    with catalogue.nginx(served) as address:
        if options.only in (None, "peers"):
            _compare(address, options.images, options.rounds, pythons)
        if options.only in (None, "growth"):
            _growth(address)
    if options.only in (None, "latency"):
        _latency(served / "small" / "0.jpg")
    shutil.rmtree(OUT)


def _compare(address: str, images: int, rounds: int, pythons: dict[str, str]) -> None:
    urls = _urls(address, "large", images)
    few = _urls(address, "large", catalogue.PICTURES)
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
            print(f"round {number + 1}: {_line(name, result)}", flush=True)
    middle = {name: _median(found) for name, found in results.items()}
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


def _growth(address: str) -> None:
    print(
        "\n| URLs (small pictures), curl | images/s | with start-up | CPU ms an image | peak MB |"
    )
    print("|---|---|---|---|---|")
    for number, times in ((2_000, 15), (20_000, 5), (200_000, 3)):
        urls = _urls(address, "small", number)
        results, rates = [], []
        for _ in range(times):
            results.append(_ours(urls, "curl"))
            rates.append(_rates()[1])
        middle = _median(results)
        row = f"{middle.rate:.0f} | {middle.cpu_ms:.2f} | {middle.peak_mb:.0f}"
        print(f"| {number} | {statistics.median(rates):.0f} | {row} |", flush=True)


def _latency(picture: Path) -> None:
    arguments = [sys.executable, "-m", "benchmarks.latency", str(picture), str(LATENCY_S)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None  # noqa: S101  (for the type checker)
        address = f"http://127.0.0.1:{server.stdout.readline().strip()}"
        try:
            for client in ("curl", "requests"):
                result = _ours(_urls(address, "x", 10_000), client)
                # Of the download alone: the second of start-up has nothing to do with latency.
                at_work = _rates()[0]
                share = at_work * LATENCY_S / THREADS
                rates = f"{at_work:.0f} images/s ({result.rate:.0f} with start-up and collect)"
                print(f"\n50 ms latency, {client}: {rates}, {share:.0%} of 640", flush=True)
        finally:
            server.terminate()


def _urls(address: str, folder: str, number: int) -> Path:
    """A file of so many different URLs."""
    made = catalogue.PICTURES
    lines = [f"{address}/{folder}/{n % made}.jpg?v={n // made}" for n in range(number)]
    path = BENCH / "urls.txt" if number != made else BENCH / "urls_few.txt"
    path.write_text("\n".join(lines))
    return path


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
    program = str(Path(python).with_name("img2dataset"))
    options = {
        "url_list": urls,
        "output_folder": OUT,
        "output_format": "files",
        "processes_count": 2,
        "thread_count": THREADS,
        "number_sample_per_shard": 1000,
        "resize_mode": "no",
        "disable_all_reencoding": True,
        "enable_wandb": False,
    }
    return _run(urls, [program, *(f"--{name}={value}" for name, value in options.items())])


def _run(urls: Path, arguments: Sequence[str]) -> Result:
    images = urls.read_text().count("\n") + 1
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    with LOG.open("w") as log:
        start = time.perf_counter()
        process = subprocess.Popen(arguments, stdout=log, stderr=subprocess.STDOUT)
        with _peak_of(process.pid) as peak:
            _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
    found = sum(name.endswith(".jpg") for _, _, names in os.walk(OUT) for name in names)
    if process.returncode or found != images:
        raise RuntimeError(f"{found} of {images} came; see {LOG}: {' '.join(arguments)}")
    return Result(images, seconds, usage.ru_utime + usage.ru_stime, peak[0])


@contextlib.contextmanager
def _peak_of(pid: int) -> Iterator[list[float]]:
    """The most memory (MB, resident) that a process and its children hold together."""
    peak = [0.0]
    over = threading.Event()

    def watch() -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(pid)
            while not over.wait(0.2):
                total = 0
                for process in (root, *root.children(recursive=True)):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        total += process.memory_info().rss
                peak[0] = max(peak[0], total / 1e6)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


def _environment(name: str, packages: Sequence[str]) -> str:
    """A peer's own environment: the address of its Python."""
    folder = BENCH / name
    python = folder / "bin" / "python"
    ready = folder / "ready"
    if not ready.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        ready.touch()
    return str(python)


def _median(results: Sequence[Result]) -> Result:
    return Result(
        results[0].images,
        statistics.median(r.seconds for r in results),
        statistics.median(r.cpu_s for r in results),
        statistics.median(r.peak_mb for r in results),
    )


def _line(name: str, result: Result) -> str:
    return (
        f"{name}: {result.rate:.0f} images/s, {result.cpu_ms:.2f} CPU ms an image, "
        f"{result.peak_mb:.0f} MB"
    )


if __name__ == "__main__":
    main()
