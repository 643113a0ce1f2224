"""Generate images like those of a catalogue, and serve them with nginx on loopback.

The programs that download them are in the other modules of this package.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from benchmarks.quality import people

IMAGES = 2_000
SMALL_IMAGES = 2_000
WIDTH, HEIGHT = 1000, 1500


def make(folder: Path) -> None:
    """Generate `large/N.jpg` (150 to 250 kB each) and `small/N.jpg` (2 to 3 kB), if missing.

    Args:
        folder: the folder in which the folders `large` and `small` are created.
    """
    for name, draw, count in (("large", _large, IMAGES), ("small", _small, SMALL_IMAGES)):
        target = folder / name
        if target.is_dir():
            continue
        partial = folder / f"{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for n in range(count):
            (partial / f"{n}.jpg").write_bytes(draw(n))
        partial.rename(target)


def make_people(folder: Path) -> None:
    """Generate `people/N.jpg`, if missing: large images, every third with a real person.

    Args:
        folder: the folder in which `make` has created `large`.
    """
    target = folder / "people"
    if target.is_dir():
        return
    partial = folder / "people.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    for n in range(IMAGES):
        large = folder / "large" / f"{n}.jpg"
        if n % 3:
            os.link(large, partial / large.name)
        else:
            scene = np.asarray(cv2.imread(str(large)), np.uint8)
            (partial / large.name).write_bytes(people.on_scene(scene, n // 3).file)
    partial.rename(target)


def _large(seed: int) -> bytes:
    """A JPEG of a textured figure on a plain background; the texture sets the file size."""
    random = np.random.default_rng(seed)
    image = np.full((HEIGHT, WIDTH, 3), 235 + seed % 20, np.uint8)
    coarse = random.integers(0, 256, (150, 75, 3), dtype=np.uint8)
    figure = cv2.resize(coarse, (600, 1200), interpolation=cv2.INTER_CUBIC)
    noise = random.normal(0, 7, figure.shape)
    image[200:1400, 200:800] = np.clip(figure * 0.6 + noise + 40, 0, 255).astype(np.uint8)
    for quality in range(90, 20, -4):
        data = _jpeg(image, quality)
        if len(data) <= 160_000 + seed % 10 * 10_000:
            return data
    raise RuntimeError(f"image {seed} is too large at every JPEG quality from 90 to 22")


def _small(seed: int) -> bytes:
    random = np.random.default_rng(seed)
    return _jpeg(random.integers(0, 256, (40, 30, 3), dtype=np.uint8), 90)


def _jpeg(image: np.ndarray, quality: int) -> bytes:
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return data.tobytes()


_CONFIG = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/errors;
events {{ worker_connections 4096; }}
http {{
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000;
  client_body_temp_path {folder}/1; proxy_temp_path {folder}/2; fastcgi_temp_path {folder}/3;
  uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
  server {{ listen 127.0.0.1:{port} backlog=4096; root {root}; default_type image/jpeg; }}
}}
"""


@contextlib.contextmanager
def nginx(root: Path) -> Iterator[str]:
    """Serve a folder with nginx on a free loopback port.

    Args:
        root: the folder to serve.

    Yields:
        The base URL, without a trailing slash.

    Raises:
        RuntimeError: nginx is not installed or does not start.
    """
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        raise RuntimeError("nginx is not installed; on Debian: apt-get install nginx-light")
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        config = Path(folder, "nginx.conf")
        config.write_text(_CONFIG.format(folder=folder, root=root.resolve(), port=port))
        # If root runs nginx, its workers would become another user, who cannot read /root.
        user = ["-g", "user root;"] if Path("/proc/self").owner() == "root" else []
        process = subprocess.Popen(
            [program, *user, "-e", f"{folder}/errors", "-c", str(config)], stderr=subprocess.DEVNULL
        )
        try:
            _wait_for_port(port)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


def _wait_for_port(port: int) -> None:
    for _ in range(100):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"nginx does not accept connections on port {port}")
