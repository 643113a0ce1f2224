from __future__ import annotations

import contextlib
import itertools
import threading
import time
from pathlib import Path
from typing import Any

import pycurl  # type: ignore[import-untyped]
import pytest

from imgassets.download import inspection, journal
from imgassets.download.curl_loop import Loop, Transfer
from imgassets.download.partition import CancelledError, collect, plan, shard_rows
from imgassets.manifests import Outcome, RawRow, from_table, to_table
from imgassets.storage import Folder, StorageError, read_table
from imgassets_tests.download.conftest import Partition, url_row, url_rows
from imgassets_tests.download.pictures import picture
from imgassets_tests.download.server import Handler, Server, answer, hang, slow

JPEG = picture()
PNG = picture("PNG")


def test_every_url_ends_as_one_row_in_order(partition: Partition, server: Server) -> None:
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
    assert from_table(read_table(partition.folder), RawRow) == [*map(_with_milliseconds, rows)]
    assert partition.files == {"p-0.jpg": JPEG, "p-4.png": PNG}
    assert sum(sum(report.outcomes.values()) for report in partition.reports) == 5


def _with_milliseconds(row: RawRow) -> RawRow:
    return from_table(to_table([row], RawRow), RawRow)[0]


def test_the_journal_is_gone_after_the_manifest(partition: Partition, server: Server) -> None:
    partition.run(server.add("/0.jpg", JPEG))
    assert (partition.folder / "_journal").sizes() == {}


def test_a_second_run_fetches_nothing_and_keeps_the_rows(
    partition: Partition, server: Server
) -> None:
    urls = [server.add(f"/{n}.jpg", JPEG) for n in range(3)]
    first = partition.run(*urls)
    asked = server.hits.total()
    assert plan(url_rows(*urls), partition.folder, 10) == []
    second = partition.run(*urls)
    assert server.hits.total() == asked
    assert second == [_with_milliseconds(row) for row in first]


def test_a_second_run_tries_what_failed(partition: Partition, server: Server) -> None:
    urls = [server.add("/0.jpg", JPEG), server.url("/1.jpg")]
    assert [str(row.outcome) for row in partition.run(*urls)] == ["ok", "http_error"]
    server.add("/1.jpg", PNG)
    assert [str(row.outcome) for row in partition.run(*urls)] == ["ok", "ok"]
    assert server.hits["/0.jpg"] == 1


def test_a_file_that_is_gone_or_cut_is_fetched_again(partition: Partition, server: Server) -> None:
    urls = [server.add(f"/{n}.jpg", JPEG) for n in range(3)]
    partition.run(*urls)
    images = Path(partition.folder.address, "images")
    (images / "p-0.jpg").unlink()
    (images / "p-1.jpg").write_bytes(JPEG[:10])
    partition.run(*urls)
    assert set(partition.files.values()) == {JPEG}
    assert [server.hits[f"/{n}.jpg"] for n in range(3)] == [2, 2, 1]


def test_a_new_url_is_fetched_and_a_url_that_left_loses_its_row_but_not_its_picture(
    partition: Partition, server: Server
) -> None:
    old, kept, new = (server.add(f"/{name}.jpg", JPEG) for name in ("old", "kept", "new"))
    partition.run_rows([url_row("a", old), url_row("b", kept)])
    rows = partition.run_rows([url_row("b", kept), url_row("c", new)])
    assert [row.key for row in rows] == ["b", "c"]
    assert sorted(partition.files) == ["a.jpg", "b.jpg", "c.jpg"]
    assert server.hits["/kept.jpg"] == 1


def test_one_url_of_several_products_is_fetched_once(partition: Partition, server: Server) -> None:
    url, other = server.add("/0.jpg", JPEG), server.add("/1.jpg", PNG)
    rows = [url_row("a", url), url_row("b", other), url_row("c", url), url_row("d", url)]
    partition.with_settings(shard_size=1)
    done = partition.run_rows(rows)
    assert [row.key for row in done] == ["a", "b", "c", "d"]
    assert partition.files == {"a.jpg": JPEG, "b.png": PNG, "c.jpg": JPEG, "d.jpg": JPEG}
    assert server.hits["/0.jpg"] == 1


def test_shards_share_a_partition_and_only_those_with_work_are_planned(
    partition: Partition, server: Server
) -> None:
    urls = [server.add(f"/{n}.jpg", JPEG) for n in range(10)]
    rows = url_rows(*urls)
    shards = plan(rows, partition.folder, 3)
    assert [s.name for s in shards] == [f"shard_000{n}" for n in range(4)]
    assert [row for s in shards for row in shard_rows(rows, s)] == rows
    partition.with_settings(shard_size=3).run_rows(rows)
    Path(partition.folder.address, "images", "p-4.jpg").unlink()
    assert [s.name for s in plan(rows, partition.folder, 3)] == ["shard_0001"]


def test_temporary_files_of_a_killed_writer_are_swept_by_the_plan(
    partition: Partition, server: Server
) -> None:
    partition.run(server.add("/0.jpg", JPEG))
    left = Path(partition.folder.address, "images", ".p-1.jpg.123-4.tmp")
    left.write_bytes(JPEG[:100])
    plan([], partition.folder, 10)
    assert not left.exists()


def test_what_was_done_before_a_stop_is_not_fetched_again(
    partition: Partition, server: Server
) -> None:
    urls = [server.add(f"/{n}.jpg", JPEG) for n in range(5)]
    partition.download(url_rows(*urls))  # the run ends before the manifest
    assert [row.outcome for row in partition.run(*urls)] == [Outcome.OK] * 5
    assert server.hits.total() == 5


def test_a_url_whose_turn_never_came_is_said_to_be_not_fetched(partition: Partition) -> None:
    (row,) = collect(url_rows("http://127.0.0.1:9/x.jpg"), partition.folder)
    assert row.outcome is Outcome.NOT_FETCHED


def test_a_journal_of_many_parts_is_made_one(partition: Partition, server: Server) -> None:
    (row,) = partition.run(server.add("/0.jpg", JPEG))
    writer = journal.JournalWriter(partition.folder, "shard_0000")
    for _ in range(100):
        writer.add([row])
        writer.flush()
    assert len(journal.parts(partition.folder)) < 65
    assert journal.read(partition.folder).num_rows == 100


def test_of_two_rows_of_a_key_the_later_holds(partition: Partition, server: Server) -> None:
    rows = url_rows(server.url("/0.jpg"))
    partition.download(rows)
    server.add("/0.jpg", JPEG)
    partition.download(rows)
    assert len(journal.parts(partition.folder)) == 2
    (row,) = collect(rows, partition.folder)
    assert row.outcome is Outcome.OK


def test_cancelling_stops_promptly_and_keeps_what_was_done(
    partition: Partition, server: Server
) -> None:
    partition.with_settings(read_timeout_s=30, total_timeout_s=30, threads=4)
    done = [server.add(f"/{n}.jpg", JPEG) for n in range(8)]
    stuck = [server.add(f"/stuck{n}.jpg", hang) for n in range(8)]
    rows = url_rows(*done, *stuck)
    threading.Timer(0.7, partition.cancelled.set).start()
    start = time.monotonic()
    with pytest.raises(CancelledError):
        partition.download(rows)
    assert time.monotonic() - start < 10  # not the 30 s of the time limits
    assert not [t for t in threading.enumerate() if t.name.startswith("download-")]
    asked = server.hits.total()
    server.answers.update({f"/stuck{n}.jpg": answer(JPEG) for n in range(8)})
    partition.cancelled.clear()
    assert {row.outcome for row in partition.run_rows(rows)} == {Outcome.OK}
    assert server.hits.total() == asked + 8


def test_a_storage_that_is_unusable_is_one_clear_error(
    partition: Partition, server: Server
) -> None:
    images = Path(partition.folder.address, "images")
    images.parent.mkdir(parents=True)
    images.write_bytes(b"a file where the folder should be")
    with pytest.raises(StorageError, match=r"cannot list .*images.*repair"):
        partition.run(server.add("/0.jpg", JPEG))


def test_a_disk_that_fills_up_keeps_what_was_done(
    partition: Partition, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = [server.add(f"/{n}.jpg", JPEG) for n in range(20)]
    write = Folder.write
    written = itertools.count()

    def filling(folder: Folder, name: str, data: bytes) -> None:
        if name.endswith(".jpg") and next(written) >= 10:
            raise StorageError("cannot write: no space left on device")
        write(folder, name, data)

    monkeypatch.setattr(Folder, "write", filling)
    with pytest.raises(StorageError, match="no space left"):
        partition.download(url_rows(*urls))
    monkeypatch.undo()
    kept = journal.rows(partition.folder)
    assert len(kept) == 10
    assert {row.outcome for row in partition.run(*urls)} == {Outcome.OK}
    assert server.hits.total() <= 20 + partition.settings.threads + 1


def test_a_bug_met_in_one_picture_is_logged_and_stops_no_other(
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


def test_a_bug_in_the_loop_of_libcurl_hangs_nothing_and_is_told_in_every_row(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    end, wake = Loop._end, Transfer.end
    multi: list[pycurl.CurlMulti] = []
    still_added: list[Transfer] = []

    def buggy(loop: Loop) -> None:
        multi[:] = [loop._multi]
        if server.hits["/2.jpg"]:
            raise KeyError("oops")
        end(loop)

    def watched(transfer: Transfer, *how: Any) -> None:
        with contextlib.suppress(pycurl.error):
            multi[0].remove_handle(transfer.curl)
            still_added.append(transfer)
        wake(transfer, *how)

    monkeypatch.setattr(Loop, "_end", buggy)
    monkeypatch.setattr(Transfer, "end", watched)
    partition = Partition(Folder(str(tmp_path))).with_settings(client="curl", threads=1)
    rows = partition.run(*[server.add(f"/{n}.jpg", JPEG) for n in range(4)])
    assert [str(row.outcome) for row in rows] == ["ok", "ok", "failed", "failed"]
    assert "the loop of libcurl broke: KeyError: 'oops'" in str(rows[-1].error)
    assert not still_added, "the thread that wakes cannot set its handle up while it is removed"


def test_connections_are_kept_alive(partition: Partition, server: Server) -> None:
    partition.with_settings(threads=4)
    partition.run(*(server.add(f"/{n}.jpg", JPEG) for n in range(100)))
    assert server.connections <= 4


def test_no_more_requests_than_allowed_go_to_one_host(partition: Partition, server: Server) -> None:
    partition.with_settings(threads=16, per_host=3)
    partition.run(*(server.add(f"/{n}.jpg", slow(0.01, answer(JPEG))) for n in range(40)))
    assert server.most_at_once <= 3


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


def test_progress_names_what_is_done_failed_and_how_fast(
    partition: Partition, server: Server
) -> None:
    partition.run(server.add("/0.jpg", JPEG), server.url("/1.jpg"))
    assert "2 of 2 done, 1 failed" in partition.log[-1]
    assert "images/s" in partition.log[-1]
    assert "MB/s" in partition.log[-1]


def test_a_partition_on_an_object_store_is_downloaded_resumed_and_collected(
    partition: Partition, server: Server, s3: str
) -> None:
    partition.folder = Folder(f"s3://{s3}/raw_images/date=2026-01-02/retailer=zara")
    urls = [server.add(f"/{n}.jpg", JPEG) for n in range(4)]
    server.answers["/3.jpg"] = answer(b"", 503)
    rows = partition.run(*urls)
    assert [str(row.outcome) for row in rows] == ["ok"] * 3 + ["http_error"]
    assert partition.files == {f"p-{n}.jpg": JPEG for n in range(3)}

    server.add("/3.jpg", PNG)
    (partition.folder / "images").remove("p-0.jpg")
    rows = partition.run(*urls)
    assert [str(row.outcome) for row in rows] == ["ok"] * 4
    assert partition.files == {**{f"p-{n}.jpg": JPEG for n in range(3)}, "p-3.png": PNG}
    assert [server.hits[f"/{n}.jpg"] for n in range(3)] == [2, 1, 1]
    assert (partition.folder / "_journal").sizes() == {}
    assert from_table(read_table(partition.folder), RawRow) == [*map(_with_milliseconds, rows)]
