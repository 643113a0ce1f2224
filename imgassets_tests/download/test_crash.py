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

from imgassets.journal import Journal
from imgassets.manifests import Outcome
from imgassets.storage import Storage
from imgassets_tests.download.conftest import (
    DAY,
    Partition,
    journal_rows,
    path_of,
    stored,
    url_rows,
)
from imgassets_tests.download.images import image_bytes
from imgassets_tests.download.server import Server, answer, slow

KILLS = 20
IMAGES = 600
THREADS = 8  # of `conftest.QUICK`


def start(
    data_root: Path, urls: Sequence[str], client: str, date: str = DAY
) -> subprocess.Popen[str]:
    urls_file = data_root.with_name(f"{date}.txt")
    urls_file.write_text("\n".join(urls))
    module = "imgassets_tests.download.run_partition"
    arguments = [str(data_root), date, str(urls_file), client]
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, text=True
    )


@pytest.mark.slow
@pytest.mark.parametrize("client", ["curl", "requests"])
def test_a_download_killed_at_20_random_moments_repeats_only_what_was_in_flight(
    tmp_path: Path, server: Server, client: str
) -> None:
    partition = Partition(Storage(str(tmp_path / "data")))
    files = partition.partition_files
    images = [image_bytes(seed=n) for n in range(IMAGES)]
    urls = [server.add(f"/{n}.jpg", slow(0.02, answer(data))) for n, data in enumerate(images)]
    rng = random.Random(0)
    kills = 0
    while len(journal_rows(files)) < IMAGES - THREADS and kills < KILLS:
        process = start(tmp_path / "data", urls, client)
        until = server.hits.total() + rng.randint(1, 40)
        while server.hits.total() < until and process.poll() is None:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.02))  # any moment of a request
        process.kill()
        process.communicate()
        kills += 1
        # A file with its final name is complete, and so is the one of each row of the journal.
        for path, data in partition.files.items():
            assert hashlib.sha256(data).hexdigest() == path.rpartition("/")[2].partition(".")[0]
        for row in journal_rows(files).values():
            assert partition.file(row) == images[urls.index(row.url)]
    assert kills == KILLS
    assert 50 < len(journal_rows(files)) < IMAGES  # otherwise the test proves nothing
    process = start(tmp_path / "data", urls, client)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, out
    assert [(row.url, row.outcome) for row in partition.manifest] == [
        (url, Outcome.OK) for url in urls
    ]
    # Each kill loses at most the requests that its threads had sent.
    repeated = sum(server.hits[f"/{n}.jpg"] - 1 for n in range(IMAGES))
    assert repeated <= KILLS * THREADS
    assert partition.files == stored(*images)
    assert partition.journal == []


@pytest.mark.slow
def test_two_days_of_one_retailer_can_be_downloaded_at_the_same_time(
    tmp_path: Path, server: Server
) -> None:
    images = [image_bytes(seed=n) for n in range(300)]
    urls = [server.add(f"/{n}.jpg", slow(0.01, answer(data))) for n, data in enumerate(images)]
    days = ("2026-01-02", "2026-01-03")
    processes = [start(tmp_path / "data", urls, "curl", day) for day in days]
    for process in processes:
        assert process.communicate(timeout=120)[0].strip().endswith("{'ok': 300}")
    partition = Partition(Storage(str(tmp_path / "data")))
    for day in days:
        rows = partition.on(day).manifest
        assert [(row.url, row.path) for row in rows] == [
            (url, path_of(data)) for url, data in zip(urls, images, strict=True)
        ]
        assert partition.on(day).journal == []
    assert partition.files == stored(*images)


@pytest.mark.slow
def test_200000_urls_need_less_than_700_mb(tmp_path: Path, server: Server) -> None:
    # robots.txt disallows most URLs, but each row is still created, journalled and collected.
    server.add("/robots.txt", b"User-agent: *\nDisallow: /p/\n")
    urls = [server.add(f"/{n}.jpg", image_bytes()) for n in range(100)]
    tail = "x" * 100
    urls += [server.url(f"/p/products/{n:07d}/{tail}.jpg?width=1000") for n in range(200_000)]
    process = start(tmp_path / "data", urls, "curl")
    out, _ = process.communicate(timeout=250)
    assert process.returncode == 0
    assert out.partition(" ")[2].strip() == "{'disallowed': 200000, 'ok': 100}"
    assert int(out.split()[0]) < 700


def test_a_line_that_a_killed_writer_left_unfinished_is_requested_again(
    tmp_path: Path, server: Server
) -> None:
    partition = Partition(Storage(str(tmp_path / "data")))
    images = [image_bytes(seed=n) for n in range(3)]
    urls = [server.add(f"/{n}.jpg", data) for n, data in enumerate(images)]
    partition.with_settings(threads=1).download(url_rows(*urls))
    folder = Journal(partition.partition_files, "raw_images").folder
    (name,) = [name for name in partition.journal if name.endswith(".jsonl")]
    journal = Path(partition.storage.address(f"{folder}/{name}"))
    journal.write_bytes(journal.read_bytes()[:-20])
    rows = partition.run(*urls)
    assert [row.outcome for row in rows] == [Outcome.OK] * 3
    assert server.hits == {"/0.jpg": 1, "/1.jpg": 1, "/2.jpg": 2}
