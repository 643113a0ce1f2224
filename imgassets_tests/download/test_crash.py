"""Tests that `kill -9` loses nothing, and that a large partition needs little memory."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from imgassets.manifests import Outcome, RawRow, from_table
from imgassets.storage import Folder, read_table
from imgassets_tests.download.conftest import journal_rows
from imgassets_tests.download.images import image_bytes
from imgassets_tests.download.server import Server, answer, slow

JPEG = image_bytes()
OTHER = image_bytes("PNG", seed=1)
IMAGES = 400


def start(folder: Folder, urls: Sequence[str], client: str) -> subprocess.Popen[str]:
    urls_file = Path(folder.address).with_suffix(".txt")
    urls_file.write_text("\n".join(urls))
    module = "imgassets_tests.download.run_partition"
    arguments = [folder.address, str(urls_file), client, "0.2"]
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, text=True
    )


@pytest.mark.slow
@pytest.mark.parametrize("client", ["curl", "requests"])
def test_a_partition_that_is_killed_repeatedly_loses_nothing(
    tmp_path: Path, server: Server, client: str
) -> None:
    folder = Folder(str(tmp_path / "raw_images"))
    served = {f"/{n}.jpg": OTHER if n % 3 else JPEG for n in range(IMAGES)}
    urls = [server.add(path, slow(0.03, answer(body))) for path, body in served.items()]
    rng = random.Random(0)
    kept: dict[str, int] = {}
    rounds = 0
    # Repeat until at least one kill came after a journal part; otherwise the test proves nothing.
    while rounds < 6 or not kept:
        rounds += 1
        assert rounds < 30
        process = start(folder, urls, client)
        before = server.hits.total()
        while server.hits.total() == before and process.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.8))
        process.kill()
        process.communicate()
        # A file with its final name is complete.
        images = folder / "images"
        for name in images.sizes():
            if not name.startswith("."):
                number = name.removeprefix("p-").partition(".")[0]
                assert images.read(name) == served[f"/{number}.jpg"]
        # A file that the journal names exists and is never requested again.
        for row in journal_rows(folder).values():
            assert hashlib.sha256(folder.read(str(row.path))).hexdigest() == row.sha256
            path = "/" + row.url.rpartition("/")[2]
            assert kept.setdefault(path, server.hits[path]) == server.hits[path]
    process = start(folder, urls, client)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, out
    rows = from_table(read_table(folder), RawRow)
    assert [row.url for row in rows] == urls
    assert {row.outcome for row in rows} == {Outcome.OK}
    assert {path: server.hits[path] for path in kept} == kept
    assert {str(row.path): served["/" + row.url.rpartition("/")[2]] for row in rows} == {
        f"images/{name}": (folder / "images").read(name) for name in (folder / "images").sizes()
    }
    assert (folder / "_journal").sizes() == {}


@pytest.mark.slow
def test_200000_urls_need_less_than_700_mb(tmp_path: Path, server: Server) -> None:
    # robots.txt disallows most URLs, but each row is still created, journalled and collected.
    server.add("/robots.txt", b"User-agent: *\nDisallow: /p/\n")
    urls = [server.add(f"/{n}.jpg", JPEG) for n in range(100)]
    tail = "x" * 100
    urls += [server.url(f"/p/products/{n:07d}/{tail}.jpg?width=1000") for n in range(200_000)]
    process = start(Folder(str(tmp_path / "raw_images")), urls, "curl")
    out, _ = process.communicate(timeout=250)
    assert process.returncode == 0
    assert out.partition(" ")[2].strip() == "{'disallowed': 200000, 'ok': 100}"
    assert int(out.split()[0]) < 700
