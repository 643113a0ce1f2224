"""Tests the download of a partition: planning, shards, interruptions and the manifest."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pycurl  # type: ignore[import-untyped]
import pytest

from imgassets.download import inspection
from imgassets.download.curl_loop import CurlLoop, CurlTransfer
from imgassets.download.partition import Shard
from imgassets.errors import SettingsError, StorageError
from imgassets.manifests import Outcome, RawRow, from_table, to_table
from imgassets.storage import Storage, read_table
from imgassets_tests.download.conftest import (
    Partition,
    journal_rows,
    path_of,
    stored,
    url_row,
    url_rows,
)
from imgassets_tests.download.failing_storage import failing_removals, failing_writes, is_manifest
from imgassets_tests.download.images import image_bytes
from imgassets_tests.download.server import Handler, Server, answer, hang, slow

JPEG = image_bytes()
PNG = image_bytes("PNG")


def download_threads() -> list[str]:
    """The names of the threads of downloads that have not ended, without those that look up names.

    A lookup cannot be interrupted; its thread ends by itself afterwards.
    """
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith("download-") and name != "download-dns"]


def test_every_url_has_one_row_in_the_order_of_the_catalogue(
    partition: Partition, server: Server
) -> None:
    urls = [
        server.add("/0.jpg", JPEG),
        server.url("/missing.jpg"),
        "no url",
        server.add("/3.jpg", b"<html>"),
        server.add("/4.jpg", PNG),
    ]
    rows = partition.run(*urls)
    assert [row.key for row in rows] == [f"p-{n}" for n in range(5)]
    assert [row.url for row in rows] == urls
    assert [str(row.outcome) for row in rows] == [
        "ok",
        "http_error",
        "invalid_url",
        "not_an_image",
        "ok",
    ]
    assert partition.manifest == [*map(_with_milliseconds, rows)]
    assert partition.files == stored(JPEG, PNG)
    assert sum(sum(report.outcomes.values()) for report in partition.reports) == 5


def _with_milliseconds(row: RawRow) -> RawRow:
    return from_table(to_table([row], RawRow), RawRow)[0]


def test_the_journal_is_removed_after_the_manifest_is_written(
    partition: Partition, server: Server
) -> None:
    rows = url_rows(server.add("/0.jpg", JPEG))
    partition.download(rows, refresh=True)
    assert partition.journal
    partition.collect(rows)
    assert partition.journal == []


def test_a_manifest_that_cannot_be_written_loses_no_row_and_no_file(
    partition: Partition, server: Server
) -> None:
    # a keeps its image; the URL of b moves to the key c; d fails.
    urls = [server.add(f"/{name}.jpg", JPEG) for name in ("a", "b")] + [server.url("/d.jpg")]
    partition.run_rows([url_row("a", urls[0]), url_row("b", urls[1])])
    rows = [url_row(key, url) for key, url in zip(("a", "c", "d"), urls, strict=True)]
    partition.download(rows)
    with failing_writes(is_manifest):
        partition.collect(rows)
    assert partition.files == stored(JPEG)

    server.hits.clear()
    partition.download(rows, retry=[])
    done = partition.collect(rows)
    assert [str(row.outcome) for row in done] == ["ok", "ok", "http_error"]
    assert not server.hits
    assert partition.files == stored(JPEG)


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("after", [0, 1])
def test_a_run_killed_while_it_removes_its_journal_loses_nothing(
    partition: Partition, server: Server, after: int, newest_first: bool
) -> None:
    rows = url_rows(server.url("/0.jpg"), server.add("/1.jpg", JPEG))
    partition.download(rows)  # the first URL fails; the run is killed before the manifest
    server.add("/0.jpg", JPEG)
    partition.download(rows)
    with failing_removals(after, newest_first=newest_first):
        partition.collect(rows)
    server.hits.clear()
    assert [row.outcome for row in partition.run_rows(rows)] == [Outcome.OK] * 2
    assert not server.hits
    assert partition.files == stored(JPEG)
    assert partition.journal == []


def test_a_second_run_fetches_nothing_and_keeps_the_rows(
    partition: Partition, server: Server
) -> None:
    urls = [server.add(f"/{n}.jpg", JPEG) for n in range(3)]
    first = partition.run(*urls)
    requests = server.hits.total()
    assert partition.plan(url_rows(*urls)) == []
    second = partition.run(*urls)
    assert server.hits.total() == requests
    assert second == [_with_milliseconds(row) for row in first]


def test_a_second_run_retries_failed_urls(partition: Partition, server: Server) -> None:
    urls = [server.add("/0.jpg", JPEG), server.url("/1.jpg")]
    assert [str(row.outcome) for row in partition.run(*urls)] == ["ok", "http_error"]
    server.add("/1.jpg", PNG)
    assert [str(row.outcome) for row in partition.run(*urls)] == ["ok", "ok"]
    assert server.hits["/0.jpg"] == 1


def test_a_missing_or_truncated_file_is_fetched_again(partition: Partition, server: Server) -> None:
    images = [image_bytes(seed=n) for n in range(3)]
    urls = [server.add(f"/{n}.jpg", data) for n, data in enumerate(images)]
    partition.run(*urls)
    partition.storage.remove(path_of(images[0]))
    partition.storage.write(path_of(images[1]), images[1][:10])
    partition.run(*urls)
    assert partition.files == stored(*images)
    assert [server.hits[f"/{n}.jpg"] for n in range(3)] == [2, 2, 1]


def test_a_new_url_is_fetched_and_a_url_that_left_loses_its_row_but_not_its_image(
    partition: Partition, server: Server
) -> None:
    images = [image_bytes(seed=n) for n in range(3)]
    old, kept, new = (
        server.add(f"/{name}.jpg", data)
        for name, data in zip(("old", "kept", "new"), images, strict=True)
    )
    partition.run_rows([url_row("a", old), url_row("b", kept)])
    rows = partition.run_rows([url_row("b", kept), url_row("c", new)])
    assert [row.key for row in rows] == ["b", "c"]
    assert partition.files == stored(*images)
    assert server.hits["/kept.jpg"] == 1


def test_one_url_of_several_products_is_fetched_once(partition: Partition, server: Server) -> None:
    url, other = server.add("/0.jpg", JPEG), server.add("/1.jpg", PNG)
    rows = [url_row("a", url), url_row("b", other), url_row("c", url), url_row("d", url)]
    partition.with_settings(shard_size=1)
    done = partition.run_rows(rows)
    assert [row.key for row in done] == ["a", "b", "c", "d"]
    assert partition.files == stored(JPEG, PNG)
    assert server.hits["/0.jpg"] == 1


def test_only_urls_that_need_a_request_are_planned(partition: Partition, server: Server) -> None:
    images = [image_bytes(seed=n) for n in range(10)]
    urls = [server.add(f"/{n}.jpg", data) for n, data in enumerate(images)]
    rows = url_rows(*urls)
    partition.with_settings(shard_size=3)
    shards = partition.plan(rows)
    assert [s.name for s in shards] == [f"shard_000{n}" for n in range(4)]
    assert [url for shard in shards for url in planned_urls(partition, shard)] == urls
    partition.run_rows(rows)
    for number in (4, 8):
        partition.storage.remove(path_of(images[number]))
    (shard,) = partition.plan(rows)
    assert planned_urls(partition, shard) == [urls[4], urls[8]]


def planned_urls(partition: Partition, shard: Shard) -> list[str]:
    """Return the URLs that a shard will request."""
    path = f"{partition.partition_files.journal('raw_images')}/{shard.name}.urls.parquet"
    urls: list[str] = read_table(partition.storage, path)["url"].to_pylist()
    return urls


@pytest.mark.parametrize(
    ("urls", "size", "shards"),
    [
        ("abcde", 2, ["ab", "cd", "e"]),
        ("abcd", 2, ["ab", "cd"]),
        ("abc", 10, ["abc"]),
        ("", 10, []),
        ("aabbc", 1, ["aa", "bb", "c"]),
        ("abcbd", 2, ["abb", "cd"]),
        ("abcc", 3, ["abcc"]),
        ("aaaa", 2, ["aaaa"]),
    ],
)
def test_shards_have_shard_size_rows_unless_one_url_has_more(
    tmp_path: Path, urls: str, size: int, shards: list[str]
) -> None:
    partition = Partition(Storage(str(tmp_path))).with_settings(shard_size=size)
    planned = partition.plan(url_rows(*urls))
    assert ["".join(planned_urls(partition, shard)) for shard in planned] == shards
    assert [shard.name for shard in planned] == [f"shard_{n:04d}" for n in range(len(shards))]


@pytest.mark.parametrize(("age_s", "kept"), [(90_000, False), (80_000, True)])
def test_planning_removes_temporary_files_that_no_writer_can_be_using(
    partition: Partition, server: Server, age_s: float, kept: bool
) -> None:
    url = server.add("/0.jpg", JPEG)
    partition.download(url_rows(url))
    temporary = Path(partition.storage.root, "journal", "temporary", "123-4")
    temporary.write_bytes(JPEG[:100])
    os.utime(temporary, (time.time() - age_s,) * 2)
    partition.plan(url_rows(url))
    assert temporary.exists() is kept
    assert partition.files == stored(JPEG)


def test_urls_done_before_an_interruption_are_not_fetched_again(
    partition: Partition, server: Server
) -> None:
    urls = [server.add(f"/{n}.jpg", JPEG) for n in range(5)]
    partition.download(url_rows(*urls))  # the run ends before the manifest
    assert [row.outcome for row in partition.run(*urls)] == [Outcome.OK] * 5
    assert server.hits.total() == 5


def test_a_url_that_was_never_requested_has_the_outcome_not_fetched(partition: Partition) -> None:
    (row,) = partition.collect(url_rows("http://127.0.0.1:9/x.jpg"))
    assert (row.outcome, row.attempts) == (Outcome.NOT_FETCHED, 0)
    assert row.error == (
        "the run ended before this image was downloaded; materialize the partition again"
    )
    assert (row.key, row.url, row.fetched_at) == ("p-0", "http://127.0.0.1:9/x.jpg", None)


def test_an_invalid_url_gets_a_row_without_a_request(partition: Partition, server: Server) -> None:
    rows = partition.run("ftp://shop/a.jpg", server.add("/1.jpg", JPEG))
    assert rows[0].outcome is Outcome.INVALID_URL
    assert rows[0].error == "the URL does not start with http:// or https://"
    assert (rows[0].attempts, rows[0].elapsed_ms, rows[0].path) == (0, None, None)
    assert rows[1].outcome is Outcome.OK
    (report,) = partition.reports
    assert report.outcomes == {"invalid_url": 1, "ok": 1}
    # It is also in the journal, so that a resumed run does not try it again.
    partition.download(url_rows("ftp://shop/b.jpg"))
    assert partition.plan(url_rows("ftp://shop/b.jpg"), retry=[]) == []


def test_different_spellings_of_one_url_are_fetched_once(
    partition: Partition, server: Server
) -> None:
    url = server.add("/a%20b.jpg", JPEG)
    rows = partition.run(url, url.replace("%20", " "), url + "#top", url.replace("http", "HTTP"))
    assert [row.outcome for row in rows] == [Outcome.OK] * 4
    assert server.hits == {"/a%20b.jpg": 1}
    assert partition.files == stored(JPEG)


def test_a_report_counts_only_the_downloads_of_its_own_run(
    partition: Partition, server: Server
) -> None:
    urls = [server.add(f"/{n}.jpg", JPEG) for n in range(3)]
    partition.run(*urls[:2])
    partition.run(*urls)
    (report,) = partition.reports
    assert (report.outcomes, report.bytes) == ({"ok": 1}, len(JPEG))
    assert partition.log[-1].startswith("shard_0000: 1 of 1 done, 0 failed; ")


def test_the_last_row_of_a_key_counts(partition: Partition, server: Server) -> None:
    rows = url_rows(server.url("/0.jpg"))
    partition.download(rows)
    server.add("/0.jpg", JPEG)
    partition.download(rows)
    assert sum(name.endswith(".jsonl") for name in partition.journal) == 2
    (row,) = partition.collect(rows)
    assert row.outcome is Outcome.OK


def interrupt() -> None:
    """Interrupt the main thread, like "Terminate" in the UI."""
    os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupted_run_stops_promptly_and_keeps_what_was_done(
    partition: Partition, server: Server
) -> None:
    partition.with_settings(read_timeout_s=240, total_timeout_s=240, threads=4, per_host=4)
    arrived = itertools.count(1)

    def stuck(handler: Handler) -> None:
        if next(arrived) == 4:  # all threads hang, so that each has returned its rows
            interrupt()
        hang(handler)

    done = [server.add(f"/{n}.jpg", JPEG) for n in range(8)]
    rows = url_rows(*done, *(server.add(f"/stuck{n}.jpg", stuck) for n in range(8)))
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        partition.download(rows)
    assert time.monotonic() - start < 120  # not the 240 s of the time limits
    assert not download_threads()
    server.hits.clear()
    server.answers.update({f"/stuck{n}.jpg": answer(JPEG) for n in range(8)})
    assert {row.outcome for row in partition.run_rows(rows)} == {Outcome.OK}
    assert server.hits == {f"/stuck{n}.jpg": 1 for n in range(8)}


def wait_for(condition: Callable[[], object]) -> bool:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return True


def test_an_image_saved_just_before_an_interrupt_is_kept(
    partition: Partition, server: Server
) -> None:
    partition.with_settings(read_timeout_s=240, total_timeout_s=240)
    urls = [server.add("/0.jpg", JPEG), server.add("/hangs.jpg", hang)]
    file = Path(partition.storage.address(path_of(JPEG)))

    def interrupt_when_saved() -> None:
        wait_for(lambda: file.exists() and "/hangs.jpg" in server.hits)
        interrupt()

    watcher = threading.Thread(target=interrupt_when_saved)
    watcher.start()
    with pytest.raises(KeyboardInterrupt):
        partition.download(url_rows(*urls))
    watcher.join()
    server.answers["/hangs.jpg"] = answer(JPEG)
    assert [row.outcome for row in partition.run(*urls)] == [Outcome.OK] * 2
    assert server.hits == {"/0.jpg": 1, "/hangs.jpg": 2}


def test_an_image_written_while_the_run_stops_is_kept(
    partition: Partition, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Storage.write

    def write_slowly(storage: Storage, path: str, data: bytes) -> None:
        if data == PNG:
            interrupt()
            time.sleep(0.5)  # more than twice the poll interval of the run
        write(storage, path, data)

    urls = [server.add(f"/{n}.jpg", data) for n, data in enumerate((JPEG, PNG))]
    partition.with_settings(threads=1)  # the first image is done when the second is written
    monkeypatch.setattr(Storage, "write", write_slowly)
    with pytest.raises(KeyboardInterrupt):
        partition.download(url_rows(*urls))
    monkeypatch.undo()
    assert [row.outcome for row in partition.run(*urls)] == [Outcome.OK] * 2
    assert server.hits == {"/0.jpg": 1, "/1.jpg": 1}


def test_a_row_is_in_the_journal_before_the_thread_requests_another_url(
    partition: Partition, server: Server
) -> None:
    kept: list[dict[str, RawRow]] = []

    def read_journal(handler: Handler) -> None:
        kept.append(journal_rows(partition.partition_files))
        handler.reply(JPEG)

    partition.with_settings(threads=1, read_timeout_s=30, total_timeout_s=30)
    partition.run(server.add("/0.jpg", JPEG), server.add("/1.jpg", read_journal))
    assert [{key: row.outcome for key, row in rows.items()} for rows in kept] == [
        {"p-0": Outcome.OK}
    ]


def test_unusable_storage_is_one_clear_error(partition: Partition, server: Server) -> None:
    images = Path(partition.storage.root, "images")
    images.parent.mkdir(parents=True)
    images.write_bytes(b"a file where the folder should be")
    with pytest.raises(StorageError, match=r"cannot write .*images.*repair"):
        partition.run(server.add("/0.jpg", JPEG))


def test_finished_rows_are_kept_when_the_disk_fills_up(
    partition: Partition, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = [server.add(f"/{n}.jpg", image_bytes(seed=n)) for n in range(20)]
    write = Storage.write
    written = itertools.count()

    def write_until_full(storage: Storage, path: str, data: bytes) -> None:
        if path.endswith(".jpg") and next(written) >= 10:
            raise StorageError("cannot write: no space left on device")
        write(storage, path, data)

    monkeypatch.setattr(Storage, "write", write_until_full)
    with pytest.raises(StorageError, match="no space left"):
        partition.download(url_rows(*urls))
    monkeypatch.undo()
    rows = journal_rows(partition.partition_files).values()
    kept = {row.url for row in rows if row.outcome is Outcome.OK}
    assert len(kept) == 10
    errors = {(str(row.outcome), row.error) for row in rows if row.url not in kept}
    message = "the image could not be stored: cannot write: no space left on device"
    assert errors == {("not_fetched", message)}
    server.hits.clear()
    assert {row.outcome for row in partition.run(*urls)} == {Outcome.OK}
    assert {server.url(path) for path in server.hits} == {*urls} - kept


def test_an_unexpected_error_on_one_image_is_logged_and_does_not_stop_others(
    partition: Partition, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    inspect = inspection.inspect

    def buggy(data: bytes, max_pixels: int) -> object:
        if data == PNG:
            raise KeyError("oops")
        return inspect(data, max_pixels)

    monkeypatch.setattr(inspection, "inspect", buggy)
    rows = partition.run(server.add("/0.jpg", JPEG), server.add("/1.jpg", PNG))
    assert [row.outcome for row in rows] == [Outcome.OK, Outcome.FAILED]
    assert "KeyError" in str(rows[1].error)
    assert any("Traceback" in line and "oops" in line for line in partition.log)


def test_a_failing_log_ends_the_run_and_finished_rows_are_kept(
    partition: Partition, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def buggy(*_: object) -> object:
        raise KeyError("oops")

    class Full(list[str]):
        def append(self, line: str) -> None:
            raise OSError(28, "no space left for the log", line)

    done = server.add("/0.jpg", JPEG)
    partition.run(done)
    partition.with_settings(threads=4)
    urls = [done, *(server.add(f"/{n}.jpg", JPEG) for n in range(1, 9))]
    with monkeypatch.context() as patch:
        patch.setattr(inspection, "inspect", buggy)
        patch.setattr(partition, "log", Full())
        with pytest.raises(OSError, match="no space left for the log"):
            partition.download(url_rows(*urls))
    assert not download_threads()
    assert {row.outcome for row in partition.run(*urls)} == {Outcome.OK}
    assert server.hits["/0.jpg"] == 1


def test_a_bug_in_the_curl_loop_ends_all_requests_and_is_in_every_row(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    end, wake = CurlLoop._finish_done, CurlTransfer.finish
    multi: list[pycurl.CurlMulti] = []
    still_added: list[CurlTransfer] = []

    def buggy(loop: CurlLoop) -> None:
        multi[:] = [loop._multi]
        if server.hits["/2.jpg"]:
            raise KeyError("oops")
        end(loop)

    def watched(transfer: CurlTransfer, *how: Any) -> None:
        with contextlib.suppress(pycurl.error):
            multi[0].remove_handle(transfer.curl)
            still_added.append(transfer)
        wake(transfer, *how)

    monkeypatch.setattr(CurlLoop, "_finish_done", buggy)
    monkeypatch.setattr(CurlTransfer, "finish", watched)
    partition = Partition(Storage(str(tmp_path))).with_settings(client="curl", threads=1)
    rows = partition.run(*[server.add(f"/{n}.jpg", JPEG) for n in range(4)])
    assert [str(row.outcome) for row in rows] == ["ok", "ok", "failed", "failed"]
    assert "the event loop of libcurl failed: KeyError: 'oops'" in str(rows[-1].error)
    assert not still_added, (
        "the woken thread cannot reuse its handle while the handle is being removed"
    )


def test_connections_are_reused(partition: Partition, server: Server) -> None:
    partition.with_settings(threads=4)
    partition.run(*(server.add(f"/{n}.jpg", JPEG) for n in range(100)))
    assert server.connections <= 4


@pytest.mark.parametrize(("threads", "per_host", "at_once"), [(16, 3, 3), (2, 8, 2)])
def test_one_host_gets_as_many_concurrent_requests_as_allowed(
    partition: Partition, server: Server, threads: int, per_host: int, at_once: int
) -> None:
    together = threading.Event()

    def found(handler: Handler) -> None:
        if server.at_once >= at_once:
            server.closing.wait(0.2)  # further requests would arrive now if the limit were higher
            together.set()
        assert together.wait(20)
        handler.reply(JPEG)

    partition.with_settings(
        threads=threads, per_host=per_host, read_timeout_s=30, total_timeout_s=30
    )
    rows = partition.run(*(server.add(f"/{n}.jpg", found) for n in range(30)))
    assert {row.outcome for row in rows} == {Outcome.OK}
    assert server.most_at_once == at_once


@pytest.mark.parametrize("rate", [5, None])
def test_requests_to_a_host_have_the_configured_rate(
    partition: Partition, server: Server, rate: float | None
) -> None:
    at: list[float] = []

    def found(handler: Handler) -> None:
        at.append(time.monotonic())
        handler.reply(JPEG)

    number = 6 if rate else 30
    partition.with_settings(rate_per_host=rate)
    partition.run(*(server.add(f"/{n}.jpg", found) for n in range(number)))
    assert len(at) == number
    at.sort()
    if rate is None:
        assert at[-1] - at[0] < 10  # not one per second
        return
    # A busy machine may delay some requests, but not all of them.
    assert min(later - earlier for earlier, later in itertools.pairwise(at)) < 1.5 / rate
    assert at[-1] - at[0] >= 0.9 * (number - 1) / rate


def test_the_credentials_of_a_retailer_are_sent_to_the_host_of_its_urls(
    partition: Partition, server: Server
) -> None:
    partition.with_settings(headers={"X-Shop": "key"}, auth="bearer token")
    partition.run(server.add("/0.jpg", JPEG))
    (request,) = server.requests["/0.jpg"]
    assert (request["X-Shop"], request["Authorization"]) == ("key", "Bearer token")


def test_concurrent_shards_keep_each_others_rows(partition: Partition, server: Server) -> None:
    together = threading.Barrier(2, timeout=20)

    def found(handler: Handler) -> None:
        together.wait()
        handler.reply(JPEG)

    partition.with_settings(read_timeout_s=30, total_timeout_s=30)
    rows = url_rows(*(server.add(f"/{n}.jpg", found) for n in range(2)))
    shards = partition.with_settings(shard_size=1).plan(rows)
    with ThreadPoolExecutor() as pool:
        reports = pool.map(partition.download_shard, shards)
        assert [report.outcomes for report in reports] == [{"ok": 1}, {"ok": 1}]
    assert partition.plan(rows) == []
    assert [row.outcome for row in partition.collect(rows)] == [Outcome.OK] * 2


def test_a_shard_that_is_executed_again_requests_only_what_it_has_not_finished(
    partition: Partition, server: Server
) -> None:
    # As "Re-execute from failure" does: the plan is not made again.
    partition.with_settings(threads=1, retries=0)
    urls = [server.add("/0.jpg", JPEG), server.url("/1.jpg"), server.add("/2.jpg", PNG)]
    (shard,) = partition.plan(url_rows(*urls))
    with failing_writes(lambda path: path == path_of(PNG)):
        partition.download_shard(shard)
    report = partition.download_shard(shard)
    assert report.outcomes == {"ok": 1}
    assert server.hits == {"/0.jpg": 1, "/1.jpg": 1, "/2.jpg": 2}
    rows = partition.collect(url_rows(*urls))
    assert [str(row.outcome) for row in rows] == ["ok", "http_error", "ok"]


def test_on_a_full_disk_finished_rows_are_kept_and_the_others_say_why_they_are_not(
    partition: Partition, server: Server
) -> None:
    partition.with_settings(threads=1)
    images = [image_bytes(seed=n) for n in range(3)]
    rows = url_rows(*(server.add(f"/{n}.jpg", data) for n, data in enumerate(images)))
    (shard,) = partition.plan(rows)
    with failing_writes(lambda path: path == path_of(images[1])):
        partition.download_shard(shard)
    assert [(str(row.outcome), row.error) for row in partition.collect(rows)] == [
        ("ok", None),
        ("not_fetched", "the image could not be stored: the disk is gone"),
        ("not_fetched", "the run ended before this image was downloaded; materialize the "
         "partition again"),
    ]  # fmt: skip
    assert partition.files == stored(images[0])
    # Whatever the outcomes that are retried: these two were not downloaded.
    partition.download(rows, retry=[])
    assert [str(row.outcome) for row in partition.collect(rows)] == ["ok"] * 3
    assert [server.hits[f"/{n}.jpg"] for n in range(3)] == [1, 2, 1]


def test_a_refresh_on_a_full_disk_keeps_the_image_and_is_made_again(
    partition: Partition, server: Server
) -> None:
    rows = url_rows(server.add("/0.jpg", JPEG))
    partition.run_rows(rows)
    server.add("/0.jpg", PNG)
    with failing_writes(lambda path: path == path_of(PNG)):
        partition.download(rows, refresh=True)
    (row,) = partition.collect(rows)
    assert (row.outcome, row.path, row.error) == (Outcome.OK, path_of(JPEG), None)
    (row,) = partition.run_rows(rows, refresh=True)
    assert (row.outcome, row.path) == (Outcome.OK, path_of(PNG))


def test_a_shard_of_a_partition_that_is_complete_requests_nothing(
    partition: Partition, server: Server
) -> None:
    rows = url_rows(server.add("/0.jpg", JPEG))
    (shard,) = partition.plan(rows)
    partition.download_shard(shard)
    partition.collect(rows)
    assert partition.download_shard(shard).outcomes == {}
    assert server.hits == {"/0.jpg": 1}
    assert [row.outcome for row in partition.collect(rows)] == [Outcome.OK]


def test_a_host_that_keeps_failing_gets_cooldowns_and_is_down_after_three(
    partition: Partition, server: Server
) -> None:
    at: list[float] = []

    def overloaded(handler: Handler) -> None:
        at.append(time.monotonic())
        handler.reply(b"", 503)

    partition.with_settings(threads=1, retries=0, breaker_failures=2, breaker_cooldown_s=0.3)
    rows = partition.run(*(server.add(f"/{n}.jpg", overloaded) for n in range(9)))
    # Two failures, then three cooldowns with one request after each.
    assert [str(row.outcome) for row in rows] == ["http_error"] * 5 + ["host_down"] * 4
    assert all(later - earlier >= 0.25 for earlier, later in itertools.pairwise(at[1:]))


@pytest.mark.parametrize("robots", [True, False])
def test_robots_txt_is_read_once_before_any_image_or_not_at_all(
    partition: Partition, server: Server, robots: bool
) -> None:
    server.add("/robots.txt", slow(0.2, answer(b"User-agent: *\nDisallow: /1")))
    partition.with_settings(robots=robots, user_agent="imgassets")
    rows = partition.run(*(server.add(f"/{n}.jpg", JPEG) for n in range(8)))
    assert server.hits["/robots.txt"] == robots
    assert str(rows[1].outcome) == ("disallowed" if robots else "ok")
    assert {row.outcome for row in rows[2:]} == {Outcome.OK}


def test_private_addresses_are_refused_unless_they_are_allowed(
    partition: Partition, server: Server
) -> None:
    partition.with_settings(allow_private_addresses=False)
    (row,) = partition.run(server.add("/0.jpg", JPEG))
    assert row.outcome is Outcome.BLOCKED_ADDRESS
    assert not server.hits


def test_the_error_for_a_missing_pycurl_says_what_to_do(
    partition: Partition, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "imgassets.download.curl_client", None)
    url = server.add("/0.jpg", JPEG)
    if partition.settings.client == "requests":
        (row,) = partition.run(url)
        assert row.outcome is Outcome.OK
        return
    with pytest.raises(
        SettingsError,
        match=r"^download.client is curl, but pycurl cannot be imported \(.+\); "
        r"install pycurl, or set download.client: requests$",
    ):
        partition.run(url)


def test_a_wait_before_a_retry_does_not_hold_up_other_urls(
    partition: Partition, server: Server
) -> None:
    partition.with_settings(threads=1, backoff_s=0.5, retries=1)
    order: list[str] = []

    def busy(handler: Handler) -> None:
        order.append("busy")
        handler.reply(b"", 503)

    def ready(handler: Handler) -> None:
        order.append("ok")
        handler.reply(JPEG)

    others = [server.add(f"/{n}.jpg", ready) for n in range(5)]
    partition.run(server.add("/busy.jpg", busy), *others)
    assert order == ["busy", "ok", "ok", "ok", "ok", "ok", "busy"]


def test_a_partition_on_an_object_store_is_downloaded_resumed_and_collected(
    partition: Partition, server: Server, s3: str
) -> None:
    partition.storage = Storage(f"s3://{s3}/data")
    images = [image_bytes(seed=n) for n in range(3)]
    urls = [server.add(f"/{n}.jpg", data) for n, data in enumerate([*images, PNG])]
    server.answers["/3.jpg"] = answer(b"", 503)
    rows = partition.run(*urls)
    assert [str(row.outcome) for row in rows] == ["ok"] * 3 + ["http_error"]
    assert partition.files == stored(*images)

    server.add("/3.jpg", PNG)
    partition.storage.remove(path_of(images[0]))
    rows = partition.run(*urls)
    assert [str(row.outcome) for row in rows] == ["ok"] * 4
    assert partition.files == stored(*images, PNG)
    assert [server.hits[f"/{n}.jpg"] for n in range(3)] == [2, 1, 1]
    assert partition.journal == []
    assert partition.manifest == [*map(_with_milliseconds, rows)]
