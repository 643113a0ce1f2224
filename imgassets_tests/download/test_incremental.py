from __future__ import annotations

from pathlib import Path

import pytest

from imgassets.download import journal
from imgassets.download.partition import collect, plan
from imgassets.manifests import Outcome, RawRow
from imgassets_tests.download.conftest import Partition, url_row, url_rows
from imgassets_tests.download.pictures import picture
from imgassets_tests.download.server import Answer, Handler, Server, answer, hang

JPEG = picture()
OTHER = picture(seed=1)
PNG = picture("PNG")


def with_etag(body: bytes, etag: str) -> Answer:
    def found(handler: Handler) -> None:
        if handler.headers["If-None-Match"] == etag:
            handler.head(304, {"ETag": etag})
        else:
            handler.reply(body, headers={"ETag": etag})

    return found


def with_date(body: bytes, date: str) -> Answer:
    def found(handler: Handler) -> None:
        if handler.headers["If-Modified-Since"] == date:
            handler.head(304)
        else:
            handler.reply(body, headers={"Last-Modified": date})

    return found


def refresh(partition: Partition, *urls: str) -> list[RawRow]:
    rows = url_rows(*urls)
    partition.download(rows, refresh=True)
    return collect(rows, partition.folder)


@pytest.mark.parametrize("found", [with_etag(JPEG, '"1"'), with_date(JPEG, "Fri, 02 Jan 2026")])
def test_a_refresh_of_an_unchanged_picture_costs_no_body(
    partition: Partition, server: Server, found: Answer
) -> None:
    url = server.add("/a.jpg", found)
    (first,) = partition.run(url)
    (again,) = refresh(partition, url)
    assert (again.outcome, again.http_status, again.sha256) == (Outcome.OK, 304, first.sha256)
    assert again.fetched_at > first.fetched_at  # type: ignore[operator]
    assert (again.etag, again.last_modified) == (first.etag, first.last_modified)
    (report,) = partition.reports
    assert (report.unchanged, report.changed, report.bytes) == (1, 0, 0)
    assert partition.files == {"p-0.jpg": JPEG}


def test_a_refresh_replaces_changed_content(partition: Partition, server: Server) -> None:
    url = server.add("/a.jpg", with_etag(JPEG, '"1"'))
    (first,) = partition.run(url)
    server.add("/a.jpg", with_etag(OTHER, '"2"'))
    (again,) = refresh(partition, url)
    assert (again.outcome, again.http_status, again.etag) == (Outcome.OK, 200, '"2"')
    assert again.sha256 != first.sha256
    assert partition.files == {"p-0.jpg": OTHER}
    (report,) = partition.reports
    assert (report.unchanged, report.changed, report.bytes) == (0, 1, len(OTHER))


def test_a_refresh_that_changes_the_format_removes_the_old_file(
    partition: Partition, server: Server
) -> None:
    url = server.add("/a.jpg", JPEG)
    partition.run(url)
    server.add("/a.jpg", PNG)
    (again,) = refresh(partition, url)
    assert again.path == "images/p-0.png"
    assert partition.files == {"p-0.png": PNG}


def test_a_refresh_of_a_server_without_etags_compares_the_content(
    partition: Partition, server: Server
) -> None:
    url = server.add("/a.jpg", JPEG)
    partition.run(url)
    path = Path(partition.folder.address, "images", "p-0.jpg")
    written = path.stat().st_mtime_ns
    refresh(partition, url)
    assert partition.reports[0].unchanged == 1
    assert path.stat().st_mtime_ns == written


@pytest.mark.parametrize("found", [answer(b"", 404), answer(b"", 503), answer(b"<html>"), hang])
def test_a_refresh_that_fails_takes_no_picture_away(
    partition: Partition, server: Server, found: Answer
) -> None:
    url = server.add("/a.jpg", JPEG)
    (first,) = partition.run(url)
    server.add("/a.jpg", found)
    (again,) = refresh(partition.with_settings(retries=0), url)
    assert (again.outcome, again.sha256, again.path) == (Outcome.OK, first.sha256, first.path)
    assert "could not be refreshed" in str(again.error)
    assert partition.files == {"p-0.jpg": JPEG}
    assert partition.reports[0].not_refreshed == 1
    server.add("/a.jpg", JPEG)
    (again,) = refresh(partition, url)
    assert again.error is None


def test_a_refresh_asks_also_for_what_failed_and_what_is_new(
    partition: Partition, server: Server
) -> None:
    urls = [
        server.add("/0.jpg", with_etag(JPEG, '"1"')),
        server.url("/1.jpg"),
        server.url("/2.jpg"),
    ]
    partition.run(*urls[:2])
    server.add("/1.jpg", JPEG)
    server.add("/2.jpg", JPEG)
    rows = refresh(partition, *urls)
    assert [(row.outcome, row.http_status) for row in rows] == [
        (Outcome.OK, 304),
        (Outcome.OK, 200),
        (Outcome.OK, 200),
    ]


def test_a_304_to_a_plain_request_is_an_http_error(partition: Partition, server: Server) -> None:
    (row,) = partition.run(server.add("/a.jpg", lambda handler: handler.head(304)))
    assert (row.outcome, row.http_status) == (Outcome.HTTP_ERROR, 304)


def test_a_refresh_that_was_stopped_goes_on_where_it_stopped(
    partition: Partition, server: Server
) -> None:
    urls = [server.add(f"/{n}.jpg", with_etag(JPEG, '"1"')) for n in range(4)]
    partition.run(*urls)
    rows = url_rows(*urls)
    partition.download(rows[:2], refresh=True)  # killed before the manifest
    refresh(partition, *urls)
    assert [server.hits[f"/{n}.jpg"] for n in range(4)] == [2, 2, 2, 2]


def test_a_picture_replaced_by_a_refresh_that_was_killed_is_not_taken_for_the_old_one(
    partition: Partition, server: Server
) -> None:
    url = server.add("/a.jpg", JPEG)
    partition.run(url)
    # The refresh was killed after it wrote the new picture, of the same size, and before its row.
    journal.mark_refresh(partition.folder)
    newer = JPEG[:-3] + bytes([JPEG[-3] ^ 1]) + JPEG[-2:]
    (partition.folder / "images").write("p-0.jpg", newer)
    server.add("/a.jpg", newer)
    assert len(plan(url_rows(url), partition.folder, 10)) == 1
    (row,) = partition.run(url)
    assert server.hits["/a.jpg"] == 2
    import hashlib

    assert row.sha256 == hashlib.sha256(newer).hexdigest()


def test_one_url_of_several_products_is_refreshed_once(
    partition: Partition, server: Server
) -> None:
    url = server.add("/a.jpg", with_etag(JPEG, '"1"'))
    rows = [url_row("a", url), url_row("b", url)]
    partition.run_rows(rows)
    partition.download(rows, refresh=True)
    assert [row.http_status for row in collect(rows, partition.folder)] == [304, 304]
    # A third product joins: its file is needed, so the body is.
    rows.append(url_row("c", url))
    partition.download(rows, refresh=True)
    done = collect(rows, partition.folder)
    assert [row.outcome for row in done] == [Outcome.OK] * 3
    assert partition.files == {"a.jpg": JPEG, "b.jpg": JPEG, "c.jpg": JPEG}


def test_only_some_outcomes_are_tried_again(partition: Partition, server: Server) -> None:
    urls = [
        server.add("/0.jpg", answer(b"", 404)),
        server.add("/1.jpg", b"<html>"),
        server.add("/2.jpg", JPEG),
        server.url("/new.jpg"),
    ]
    partition.run(*urls[:3])
    for n in range(2):
        server.add(f"/{n}.jpg", JPEG)
    server.add("/new.jpg", JPEG)
    rows = url_rows(*urls)
    partition.download(rows, retry={Outcome.NOT_AN_IMAGE})
    done = collect(rows, partition.folder)
    assert [str(row.outcome) for row in done] == ["http_error", "ok", "ok", "ok"]
    assert [server.hits[f"/{name}.jpg"] for name in ("0", "1", "2", "new")] == [1, 2, 1, 1]
    assert plan(rows, partition.folder, 10, retry=[]) == []
    assert len(plan(rows, partition.folder, 10)) == 1


def test_a_report_names_the_slowest_hosts_the_retries_and_the_failures(
    partition: Partition, server: Server
) -> None:
    from imgassets_tests.download.server import in_turn, slow

    partition.run(
        server.add("/a.jpg", slow(0.1, answer(JPEG))),
        server.url("/missing.jpg", host="localhost"),
        server.add("/b.jpg", in_turn(answer(b"", 500), answer(JPEG))),
        "no url",
    )
    (report,) = partition.reports
    assert report.urls == 4
    assert report.outcomes == {"ok": 2, "invalid_url": 1, "http_error": 1}
    assert report.bytes == 2 * len(JPEG)
    assert report.retries == 1
    port = server.server_address[1]
    assert [host.host for host in report.slowest_hosts] == [
        f"127.0.0.1:{port}",
        f"localhost:{port}",
    ]
    assert [(host.urls, host.failed) for host in report.slowest_hosts] == [(2, 0), (1, 1)]
    assert report.slowest_hosts[0].mean_ms >= 50
    assert {(f.outcome, f.http_status, f.attempts) for f in report.failures} == {
        ("invalid_url", None, 0),
        ("http_error", 404, 1),
    }
    assert report.images_per_second > 0
    assert report.megabytes_per_second > 0
