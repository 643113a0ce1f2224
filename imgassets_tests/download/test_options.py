"""Tests download options that no other test sets to a value other than the default."""

from __future__ import annotations

import contextlib
import gzip
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from imgassets.manifests import Outcome
from imgassets_tests.download.conftest import Partition
from imgassets_tests.download.images import image_bytes
from imgassets_tests.download.server import Handler, Server, answer, drip, hang

JPEG = image_bytes()
LONG = {"connect_timeout_s": 60, "read_timeout_s": 60, "total_timeout_s": 60, "retries": 0}


@contextlib.contextmanager
def full_queue() -> Iterator[str]:
    """Return a URL whose host accepts no connection, because its listen queue is full."""
    with contextlib.ExitStack() as stack:
        host = stack.enter_context(socket.socket())
        host.bind(("127.0.0.1", 0))
        host.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect(host.getsockname())
        yield f"http://127.0.0.1:{host.getsockname()[1]}/a.jpg"


@pytest.mark.parametrize(
    ("option", "seconds"),
    [("connect_timeout_s", 0.3), ("read_timeout_s", 1), ("total_timeout_s", 0.5)],
)
def test_each_timeout_ends_a_request_by_itself(
    partition: Partition, server: Server, option: str, seconds: float
) -> None:
    partition.with_settings(**LONG | {option: seconds})
    with full_queue() as full:
        url = {
            "connect_timeout_s": full,
            "read_timeout_s": server.add("/hang.jpg", hang),
            "total_timeout_s": server.add("/drip.jpg", drip(JPEG)),
        }[option]
        (row,) = partition.run(url)
    assert (row.outcome, row.attempts) == (Outcome.TIMEOUT, 1)
    assert row.elapsed_ms is not None
    assert seconds * 900 <= row.elapsed_ms < 9_000  # less than any default


def test_a_file_with_more_than_max_bytes_is_too_large(partition: Partition, server: Server) -> None:
    url = server.add("/a.jpg", JPEG)
    (row,) = partition.with_settings(max_bytes=len(JPEG) - 1).run(url)
    assert (row.outcome, partition.files) == (Outcome.TOO_LARGE, {})
    (row,) = partition.with_settings(max_bytes=len(JPEG)).run(url)
    assert row.outcome is Outcome.OK


def test_max_bytes_also_applies_after_decompression(partition: Partition, server: Server) -> None:
    padded = JPEG + bytes(10_000)
    packed = gzip.compress(padded, mtime=0)
    assert len(packed) < len(padded) - 1
    url = server.add("/a.jpg", answer(packed, headers={"Content-Encoding": "gzip"}))
    (row,) = partition.with_settings(max_bytes=len(padded) - 1).run(url)
    assert (row.outcome, partition.files) == (Outcome.TOO_LARGE, {})
    (row,) = partition.with_settings(max_bytes=len(padded)).run(url)
    assert row.outcome is Outcome.OK


def test_an_image_with_more_than_max_pixels_has_too_many_pixels(
    partition: Partition, server: Server
) -> None:
    (row,) = partition.run(server.add("/a.jpg", JPEG))
    assert row.width is not None
    assert row.height is not None
    pixels = row.width * row.height
    other = server.add("/b.jpg", JPEG)
    (row,) = partition.with_settings(max_pixels=pixels - 1).run(other)
    assert (row.outcome, row.path) == (Outcome.TOO_MANY_PIXELS, None)
    (row,) = partition.with_settings(max_pixels=pixels).run(other)
    assert row.outcome is Outcome.OK


@pytest.mark.parametrize("threads", [2, 40])
def test_as_many_images_as_threads_are_fetched_at_the_same_time(
    partition: Partition, server: Server, threads: int
) -> None:
    together = threading.Barrier(threads)

    def reply_together(handler: Handler) -> None:
        together.wait(30)
        handler.reply(JPEG)

    urls = [server.add(f"/{number}.jpg", reply_together) for number in range(2 * threads)]
    partition.with_settings(threads=threads, per_host=64, read_timeout_s=60, total_timeout_s=60)
    rows = partition.run(*urls)
    assert {row.outcome for row in rows} == {Outcome.OK}
    assert server.most_at_once == threads


@pytest.mark.parametrize("partition", ["curl"], indirect=True)
def test_the_wait_before_a_retry_is_at_least_half_of_backoff_s_and_at_most_backoff_max_s(
    partition: Partition, server: Server
) -> None:
    times: list[float] = []

    def busy(handler: Handler) -> None:
        times.append(time.monotonic())
        handler.reply(b"", 503)

    partition.with_settings(backoff_s=1.5, retries=1).run(server.add("/a.jpg", busy))
    first, second = times
    assert second - first > 0.7  # longer than the default of 0.5 s would allow
    times.clear()
    limited = partition.with_settings(backoff_s=1000, backoff_max_s=0.01)
    limited.run(server.add("/b.jpg", busy))
    first, second = times
    assert second - first < 14  # shorter than the default backoff_max_s of 30 s would allow
