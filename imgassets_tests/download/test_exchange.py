"""Requests of one task: what each one sends, and what follows from its response."""

from __future__ import annotations

import datetime as dt
import gzip
import hashlib
import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from email.message import Message
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest

from imgassets.download import exchange as exchange_module
from imgassets.download.client import Limits, Request, Response
from imgassets.download.exchange import Exchange, NextAction, failed_rows, raw_row
from imgassets.download.schedule import HostFeedback, Task
from imgassets.errors import FetchAbortedError, FetchError, StorageError
from imgassets.manifests import Outcome, RawRow
from imgassets.settings import OPT_OUTS, DownloadSettings
from imgassets.storage import Storage
from imgassets.urls import origin
from imgassets_tests.download.conftest import HEADER_OPT_OUTS, Partition, path_of, stored, url_row
from imgassets_tests.download.images import image_bytes, png_of
from imgassets_tests.download.server import (
    Handler,
    Server,
    chunked,
    endless,
    redirect,
    running,
    slow,
)

JPEG = image_bytes()
SHA256 = hashlib.sha256(JPEG).hexdigest()
SHOP, CDN = "https://shop.example", "https://cdn.example"
A = f"{SHOP}/a.jpg"

Answer = Response | Exception


def response(status: int = 200, body: bytes = b"", /, **headers: str) -> Response:
    """Return a response as clients do; `retry_after="5"` sets the header `retry-after`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status, named, body)


def image_response(**headers: str) -> Response:
    return response(200, JPEG, **headers)


def redirect_to(location: str, status: int = 302) -> Response:
    return response(status, location=location)


@dataclass
class ScriptedClient:
    """Returns prepared responses and records the requests."""

    answers: list[Answer]
    requests: list[Request] = field(default_factory=list)
    limits: list[Limits] = field(default_factory=list)

    def fetch(self, request: Request, limits: Limits) -> Response:
        self.requests.append(request)
        self.limits.append(limits)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def abort(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class ScriptedExchange:
    """An exchange whose client returns these responses."""

    def __init__(
        self,
        storage: Storage,
        answers: tuple[Answer, ...],
        removed_sha256: Collection[str] = (),
        **settings: object,
    ) -> None:
        self.storage = storage
        self.client = ScriptedClient(list(answers))
        defaults = {"robots": False, "opt_outs": HEADER_OPT_OUTS, "backoff_s": 0, "retries": 3}
        settings = defaults | settings
        self.settings = DownloadSettings.model_validate(settings)
        self._exchange = Exchange(
            self.client, self.settings, storage, removed_sha256=removed_sha256
        )

    def send_next(self, task: Task) -> NextAction:
        """Run one step; point the task at its further request, as the pool does."""
        step = self._exchange.send_next(task)
        if step.rows is None:
            task.url, task.host = step.url, origin(step.url)
        return step

    def row(self, task: Task | None = None) -> RawRow:
        """Return the only row of a task that ends after one step."""
        rows = self.send_next(task or a_task()).rows
        assert rows is not None
        (row,) = rows
        return row

    def steps(self, task: Task | None = None) -> list[NextAction]:
        """Run all steps of a task."""
        task = task or a_task()
        steps = [self.send_next(task)]
        while steps[-1].rows is None:
            steps.append(self.send_next(task))
        return steps

    @property
    def requested_urls(self) -> list[str]:
        return [request.url for request in self.client.requests]

    @property
    def files(self) -> dict[str, bytes]:
        return {path: self.storage.read(path) for path in self.storage.find("images")}


StartExchange = Callable[..., ScriptedExchange]


@pytest.fixture
def start(tmp_path: Path) -> StartExchange:
    storage = Storage(str(tmp_path / "data"))
    return lambda *answers, **settings: ScriptedExchange(storage, answers, **settings)


def a_task(url: str = A, keys: tuple[str, ...] = ("p-0",)) -> Task:
    rows = tuple(url_row(key, url, n) for n, key in enumerate(keys))
    return Task(rows, url, origin(url), first_url=url, first_host=origin(url))


def only(step: NextAction) -> RawRow:
    assert step.rows is not None
    (row,) = step.rows
    return row


# Rows and files of downloaded images.


def test_an_image_is_saved_once_for_all_rows_of_its_url(start: StartExchange) -> None:
    run = start(image_response(etag='"1"', last_modified="Fri, 02 Jan 2026 00:00:00 GMT"))
    before = dt.datetime.now(dt.UTC)
    (step,) = run.steps(a_task(keys=("p-0", "p-1")))
    assert step.rows is not None
    assert run.files == stored(JPEG)
    for position, row in enumerate(step.rows):
        assert row.fetched_at is not None
        assert before <= row.fetched_at <= dt.datetime.now(dt.UTC)
        assert row.elapsed_ms is not None
        url = url_row(f"p-{position}", A, position)
        assert replace(row, fetched_at=None, elapsed_ms=None) == RawRow(
            key=url.key,
            url=url.url,
            retailer=url.retailer,
            date=url.date,
            product_id=url.product_id,
            position=position,
            document_id=url.document_id,
            outcome=Outcome.OK,
            http_status=200,
            error=None,
            attempts=1,
            path=path_of(JPEG),
            bytes=len(JPEG),
            sha256=SHA256,
            format="jpeg",
            width=60,
            height=90,
            etag='"1"',
            last_modified="Fri, 02 Jan 2026 00:00:00 GMT",
        )


@pytest.mark.parametrize(
    ("format_", "extension"),
    [("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp"), ("GIF", "gif"), ("BMP", "bmp"),
     ("TIFF", "tif"), ("AVIF", "avif")],
)  # fmt: skip
def test_the_file_extension_follows_from_the_format(
    start: StartExchange, format_: str, extension: str
) -> None:
    data = image_bytes(format_)
    run = start(response(200, data))
    row = run.row()
    sha256 = hashlib.sha256(data).hexdigest()
    path = f"images/raw/zara/{sha256[:2]}/{sha256}.{extension}"
    assert (row.path, row.format) == (path, format_.lower())
    assert run.files == {path: data}


@pytest.mark.parametrize("status", [200, 203, 206, 299])
def test_every_status_from_200_to_299_is_a_success(start: StartExchange, status: int) -> None:
    row = start(response(status, JPEG)).row()
    assert (row.outcome, row.http_status) == (Outcome.OK, status)


def test_an_image_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"a file where a folder should be")
    run = ScriptedExchange(Storage(str(tmp_path / "data")), (image_response(),))
    with pytest.raises(StorageError):
        run.send_next(a_task())


def test_an_abort_is_raised_to_the_caller(start: StartExchange) -> None:
    for settings in ({"robots": False}, {"robots": True}):
        with pytest.raises(FetchAbortedError):
            start(FetchAbortedError(), **settings).send_next(a_task())


@pytest.mark.parametrize(
    ("answer", "settings", "outcome", "error"),
    [
        (response(200), {}, Outcome.EMPTY, "the server sent no bytes"),
        (response(204), {}, Outcome.EMPTY, "the server sent no bytes"),
        (response(200, b"<html>"), {}, Outcome.NOT_AN_IMAGE, "an HTML page"),
        (response(200, JPEG[:-9], content_length="9"), {}, Outcome.CORRUPT,
         "the JPEG file is truncated"),
        (response(200, JPEG[:-9], transfer_encoding="chunked"), {}, Outcome.CORRUPT,
         "the JPEG file is truncated"),
        (response(200, b"\x1f\x8b?", content_encoding="br"), {}, Outcome.NOT_AN_IMAGE,
         "not an image; the file starts with b'\\x1f\\x8b?' (Content-Encoding: br)"),
        (response(200, JPEG[2:], content_encoding="compress\naws-chunked"), {},
         Outcome.NOT_AN_IMAGE, f"not an image; the file starts with {JPEG[2:18]!r} "
         "(Content-Encoding: compress, aws-chunked)"),
        (response(200, gzip.compress(b"<html>", mtime=0), content_encoding="gzip"), {},
         Outcome.NOT_AN_IMAGE, "an HTML page"),
        (response(200, png_of(3, 5)), {"min_bytes": 0}, Outcome.TOO_SMALL,
         "3 x 5 pixels, fewer than 16 (download.min_pixels)"),
        (image_response(), {"min_pixels": 5401}, Outcome.TOO_SMALL,
         "60 x 90 pixels, fewer than 5,401 (download.min_pixels)"),
        (image_response(), {"max_pixels": 5399}, Outcome.TOO_MANY_PIXELS,
         "60 x 90 pixels, more than 5,399 (download.max_pixels)"),
        (image_response(), {"min_bytes": len(JPEG) + 1}, Outcome.TOO_SMALL,
         f"{len(JPEG)} bytes; download.min_bytes is {len(JPEG) + 1}"),
        (response(200, gzip.compress(JPEG, mtime=0), content_encoding="gzip"), {"max_bytes": 999},
         Outcome.TOO_LARGE, "more than 999 bytes after decompression (download.max_bytes)"),
        (response(200, gzip.compress(JPEG, mtime=0)[:-9], content_encoding="gzip",
                  content_length="9"),
         {}, Outcome.CORRUPT, "the compressed body is truncated (Content-Encoding: gzip)"),
        (image_response(x_robots_tag="noindex, NoAI"), {}, Outcome.DISALLOWED,
         "the X-Robots-Tag header says noindex (download.opt_outs: noindex)"),
        (response(304), {}, Outcome.HTTP_ERROR, "the server answered with status 304"),
        (response(404, retry_after="9"), {}, Outcome.HTTP_ERROR,
         "the server answered with status 404"),
    ],
)  # fmt: skip
def test_a_response_without_a_usable_image_ends_the_task_with_the_reason(
    start: StartExchange,
    answer: Response,
    settings: dict[str, object],
    outcome: Outcome,
    error: str,
) -> None:
    answer = replace(answer, headers={**answer.headers, "etag": '"1"', "last-modified": "then"})
    run = start(answer, **settings)
    step = run.send_next(a_task())
    row = only(step)
    assert (row.outcome, row.error) == (outcome, error)
    assert (row.http_status, row.attempts) == (answer.status, 1)
    assert (row.etag, row.last_modified) == ('"1"', "then")
    assert (row.path, row.bytes, row.sha256, row.format, row.width) == (None,) * 5
    assert row.elapsed_ms is not None
    assert run.files == {}
    # The host has answered, so this is not a failure of the host.
    assert step.feedback == HostFeedback()


@pytest.mark.parametrize(
    ("answer", "settings"),
    [
        (image_response(), {"max_pixels": 5400, "min_bytes": len(JPEG), "max_bytes": len(JPEG)}),
        (image_response(), {"min_pixels": 5400}),
        (
            response(200, gzip.compress(JPEG, mtime=0), content_encoding="gzip"),
            {"max_bytes": len(JPEG)},
        ),
        (image_response(x_robots_tag="otherbot: noai"), {}),
        (image_response(x_robots_tag="noai"), {"opt_outs": ["noindex"]}),
    ],
)
def test_an_image_at_the_limits_is_saved(
    start: StartExchange, answer: Response, settings: dict[str, object]
) -> None:
    run = start(answer, **settings)
    assert run.row().outcome is Outcome.OK
    assert run.files == stored(JPEG)


def test_size_and_checksum_are_those_of_the_decompressed_body(start: StartExchange) -> None:
    padded = JPEG + bytes(1000)
    compressed = gzip.compress(padded, mtime=0)
    assert len(compressed) < len(padded)
    run = start(response(200, compressed, content_encoding="gzip"), min_bytes=len(padded))
    row = run.row()
    assert (row.outcome, row.bytes) == (Outcome.OK, len(padded))
    assert row.sha256 == hashlib.sha256(padded).hexdigest()
    assert run.files == stored(padded)


def test_an_x_robots_tag_applies_to_the_crawler_that_it_names(start: StartExchange) -> None:
    tag = "otherbot: all, myshop: noimageai"
    row = start(image_response(x_robots_tag=tag), user_agent="MyShop/2").row()
    assert (row.outcome, row.error) == (
        Outcome.DISALLOWED,
        "the X-Robots-Tag header says noimageai (download.opt_outs: noimageai)",
    )
    assert start(image_response(x_robots_tag=tag)).row().outcome is Outcome.OK


# Which failures are retried, and which count as failures of the host.


@pytest.mark.parametrize("retry_after", [{}, {"retry_after": "5"}])
def test_these_statuses_and_no_others_are_retried(
    start: StartExchange, retry_after: dict[str, str]
) -> None:
    run = start(*(response(status, **retry_after) for status in range(300, 1000)))
    retried = set()
    for status in range(300, 1000):
        step = run.send_next(a_task())
        cooldown_s = 0.0
        if step.rows is None:
            retried.add(status)
            cooldown_s = 5.0 if retry_after else 0
        else:
            assert (only(step).outcome, only(step).http_status) == (Outcome.HTTP_ERROR, status)
        assert step.feedback.cooldown_s == step.wait_s == cooldown_s
    assert retried == {408, 425, 429, 430, *range(500, 600)}


def test_these_statuses_and_no_others_count_as_failures_of_the_host(start: StartExchange) -> None:
    run = start(*(response(status) for status in range(200, 1000)))
    failures = {}
    for status in range(200, 1000):
        feedback = run.send_next(a_task()).feedback
        assert feedback.robots_known
        if feedback.failure is not None:
            failures[status] = feedback.failure
    assert failures == {
        status: f"the server answered with status {status}" for status in (429, 430, 502, 503, 504)
    }


def test_these_statuses_and_no_others_are_refusals(start: StartExchange) -> None:
    run = start(*(response(status) for status in range(200, 1000)))
    refusals = {}
    for status in range(200, 1000):
        feedback = run.send_next(a_task()).feedback
        assert not feedback.succeeded
        if feedback.refusal is not None:
            refusals[status] = feedback.refusal
    assert refusals == {
        status: f"the server answered with status {status}" for status in (401, 403, 429, 430)
    }


def test_only_an_image_that_is_stored_or_unchanged_is_a_success(start: StartExchange) -> None:
    html = response(200, b"<html>")
    run = start(image_response(), html, response(304), html, image_response())
    tasks = [a_task(), a_task(), a_refresh(), a_refresh(), a_refresh()]
    succeeded = [run.send_next(task).feedback.succeeded for task in tasks]
    assert succeeded == [True, False, True, False, True]


def test_an_overloaded_host_that_sends_retry_after_does_not_count_as_failed(
    start: StartExchange,
) -> None:
    run = start(response(503, retry_after="5"), response(503, retry_after="0"))
    assert run.send_next(a_task()).feedback == HostFeedback(cooldown_s=5)
    failure = "the server answered with status 503"
    assert run.send_next(a_task()).feedback == HostFeedback(failure=failure)


@pytest.mark.parametrize("retryable", [True, False])
@pytest.mark.parametrize(
    ("outcome", "host_failed"),
    [
        (Outcome.TIMEOUT, True),
        (Outcome.CONNECTION_ERROR, True),
        (Outcome.TOO_LARGE, False),
        (Outcome.INVALID_URL, False),
        (Outcome.BLOCKED_ADDRESS, False),
    ],
)
def test_a_fetch_error_is_retried_if_it_is_retryable(
    start: StartExchange, outcome: Outcome, host_failed: bool, retryable: bool
) -> None:
    run = start(FetchError(outcome, "no such luck", retryable=retryable), image_response())
    first, *later = run.steps()
    assert first.feedback == HostFeedback(failure="no such luck" if host_failed else None)
    if retryable:
        assert [only(step).outcome for step in later] == [Outcome.OK]
    else:
        row = only(first)
        assert later == []
        assert (row.outcome, row.error, row.http_status) == (outcome, "no such luck", None)
        assert (row.attempts, row.etag, row.last_modified) == (1, None, None)
        assert row.elapsed_ms is not None


@pytest.mark.parametrize("retries", [0, 1, 2, 5])
def test_a_failure_is_retried_as_often_as_the_settings_allow(
    start: StartExchange, retries: int
) -> None:
    run = start(*[response(500)] * (retries + 1), retries=retries)
    steps = run.steps()
    assert len(steps) == retries + 1
    row = only(steps[-1])
    assert (row.outcome, row.http_status, row.attempts) == (Outcome.HTTP_ERROR, 500, retries + 1)
    assert run.requested_urls == [A] * (retries + 1)


def test_a_damaged_image_of_unknown_length_gets_one_more_attempt(start: StartExchange) -> None:
    cut, cut_gzip = response(200, JPEG[:-9]), response(200, gzip.compress(JPEG, mtime=0)[:-9])
    run = start(cut, image_response())
    step, last = run.steps()
    assert step.feedback == HostFeedback()
    assert (only(last).outcome, only(last).attempts) == (Outcome.OK, 2)
    cut_gzip = replace(cut_gzip, headers={"content-encoding": "gzip"})
    for answers in ([cut, cut], [cut, cut_gzip], [response(500), cut_gzip, cut]):
        row = only(start(*answers).steps()[-1])
        assert (row.outcome, row.attempts) == (Outcome.CORRUPT, len(answers))
    row = start(cut, retries=0).row()
    assert (row.outcome, row.attempts) == (Outcome.CORRUPT, 1)


def test_the_error_of_a_page_says_to_which_url_the_redirects_led(start: StartExchange) -> None:
    page = response(200, b"<html>")
    run = start(redirect_to("/b"), redirect_to(f"{CDN}/sorry?from=a"), page)
    row = only(run.steps()[-1])
    assert row.outcome is Outcome.NOT_AN_IMAGE
    assert row.error == f"an HTML page, after a redirect to {CDN}/sorry?from=a"


def test_a_row_without_an_image_has_an_error_in_any_case(start: StartExchange) -> None:
    row = start(FetchError(Outcome.CONNECTION_ERROR, "", retryable=False)).row()
    assert row.error == Outcome.CONNECTION_ERROR.meaning


def test_a_row_describes_the_last_attempt(start: StartExchange) -> None:
    reset = FetchError(Outcome.CONNECTION_ERROR, "reset", retryable=True)
    row = only(start(response(500), response(503), reset, retries=2).steps()[-1])
    assert (row.outcome, row.http_status, row.error, row.attempts) == (
        Outcome.CONNECTION_ERROR, None, "reset", 3,
    )  # fmt: skip


def test_elapsed_time_counts_from_the_first_attempt(
    start: StartExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=50.0)
    monkeypatch.setattr(exchange_module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    run = start(response(500), redirect_to("/b.jpg"), image_response())
    task = a_task()
    for seconds in (1.25, 0.5, 0.0):
        step = run.send_next(task)
        clock.now += seconds
    assert only(step).elapsed_ms == 1750


# Attempts and redirects.


def test_every_attempt_starts_at_the_first_url_and_counts_its_own_redirects(
    start: StartExchange,
) -> None:
    run = start(
        redirect_to(f"{CDN}/x/1"), redirect_to("2"), response(503),
        redirect_to(f"{CDN}/y/1"), FetchError(Outcome.TIMEOUT, "late", retryable=True),
        response(500),
        redirect_to(f"{CDN}/z"), image_response(),
    )  # fmt: skip
    task = a_task()
    counters = []
    for _ in range(7):
        assert run.send_next(task).rows is None
        counters.append((task.attempts, task.redirects))
    row = run.row(task)
    assert run.requested_urls == [A, f"{CDN}/x/1", f"{CDN}/x/2", A, f"{CDN}/y/1", A, A, f"{CDN}/z"]
    assert counters == [(1, 1), (1, 2), (1, 0), (2, 1), (2, 0), (3, 0), (4, 1)]
    assert (row.outcome, row.attempts, row.url) == (Outcome.OK, 4, A)


def test_a_failure_after_a_redirect_counts_as_one_attempt(start: StartExchange) -> None:
    run = start(
        redirect_to("/b.jpg"),
        response(500),
        redirect_to("/b.jpg"),
        response(500),
        retries=1,
    )
    row = only(run.steps()[-1])
    assert (row.outcome, row.attempts) == (Outcome.HTTP_ERROR, 2)


def test_a_retry_goes_to_the_first_url(start: StartExchange) -> None:
    step = start(redirect_to(f"{CDN}/b.jpg"), response(500), image_response()).steps()[1]
    assert (step.rows, step.url) == (None, A)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_followed_at_once(start: StartExchange, status: int) -> None:
    run = start(redirect_to("../b.jpg", status), image_response(), backoff_s=9)
    first, second = run.steps(a_task(f"{SHOP}/x/y/a.jpg"))
    assert first == NextAction(None, f"{SHOP}/x/b.jpg")
    assert only(second).outcome is Outcome.OK


@pytest.mark.parametrize("status", [300, 304, 305, 306, 309, 404])
def test_a_location_header_of_another_status_is_not_followed(
    start: StartExchange, status: int
) -> None:
    row = start(redirect_to("/b.jpg", status)).row()
    assert (row.outcome, row.http_status) == (Outcome.HTTP_ERROR, status)


def test_a_redirect_without_a_location_is_an_http_error(start: StartExchange) -> None:
    row = start(response(302)).row()
    assert (row.outcome, row.http_status) == (Outcome.HTTP_ERROR, 302)


@pytest.mark.parametrize("allowed", [0, 1, 3])
def test_redirects_are_followed_up_to_the_maximum(start: StartExchange, allowed: int) -> None:
    chain = [redirect_to(f"/{n}") for n in range(1, allowed + 1)]
    run = start(*chain, image_response(), max_redirects=allowed)
    assert only(run.steps()[-1]).outcome is Outcome.OK
    run = start(*chain, redirect_to("/last"), max_redirects=allowed)
    step = run.steps()[-1]
    row = only(step)
    assert (row.outcome, row.http_status, row.attempts) == (Outcome.TOO_MANY_REDIRECTS, 302, 1)
    assert row.error == f"more than {allowed} redirects (download.max_redirects), the last to /last"
    assert step.feedback == HostFeedback()
    assert len(run.requested_urls) == allowed + 1


def test_every_attempt_may_use_all_its_redirects(start: StartExchange) -> None:
    run = start(
        redirect_to("/1"),
        response(500),
        redirect_to("/1"),
        image_response(),
        max_redirects=1,
    )
    assert only(run.steps()[-1]).outcome is Outcome.OK


def test_a_redirect_to_an_invalid_url_is_reported(start: StartExchange) -> None:
    step = start(redirect_to("ftp://shop.example/a.jpg")).send_next(a_task())
    row = only(step)
    assert (row.outcome, row.http_status, row.attempts) == (Outcome.INVALID_URL, 302, 1)
    assert row.error == ("after a redirect: the URL does not start with http:// or https://")
    assert step.feedback == HostFeedback()


# Waits before retries.


def waits(start: StartExchange, attempts: int, **settings: object) -> list[float]:
    steps = start(*[response(500)] * (attempts + 1), retries=attempts, **settings).steps()
    return [step.wait_s for step in steps[:-1]]


def test_the_wait_doubles_with_each_attempt_up_to_a_limit(
    start: StartExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random, "uniform", lambda _, most: most)
    assert waits(start, 7, backoff_s=3, backoff_max_s=100) == [3, 6, 12, 24, 48, 96, 100]


def test_waits_have_a_jitter_of_up_to_half(start: StartExchange) -> None:
    random.seed(1)
    all_waits = [waits(start, 2, backoff_s=8, backoff_max_s=12) for _ in range(300)]
    for least, most, column in ((4, 8, 0), (6, 12, 1)):
        spread = sorted(wait[column] for wait in all_waits)
        assert least <= spread[0] < least * 1.1
        assert most * 0.95 < spread[-1] <= most


def test_a_retry_waits_at_least_as_long_as_retry_after(
    start: StartExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random, "uniform", lambda _, most: most)
    run = start(
        response(503, retry_after="7"),
        response(503, retry_after="7"),
        image_response(),
        backoff_s=4,
    )
    first, second, _ = run.steps()
    assert (first.wait_s, second.wait_s) == (7, 8)
    assert first.feedback == second.feedback == HostFeedback(cooldown_s=7)


@pytest.fixture
def new_york(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Set a local time zone that is not UTC."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "America/New_York")
        time.tzset()
        yield
    time.tzset()


def http_date(in_s: float, zone: str) -> str:
    date = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=in_s)
    return f"{date:%a, %d %b %Y %H:%M:%S} {zone}"


@pytest.mark.usefixtures("new_york")
@pytest.mark.parametrize("zone", ["GMT", "-0000", "+0000"])
def test_a_retry_after_may_be_a_date(start: StartExchange, zone: str) -> None:
    step = start(
        response(429, retry_after=http_date(1000, zone)), retry_after_max_s=5000
    ).send_next(a_task())
    assert 900 < step.feedback.cooldown_s <= 1000
    assert step.wait_s == step.feedback.cooldown_s


def test_a_retry_after_date_may_be_in_another_time_zone(start: StartExchange) -> None:
    date = http_date(3600 + 1000, "+0100")
    step = start(response(429, retry_after=date), retry_after_max_s=5000).send_next(a_task())
    assert 900 < step.feedback.cooldown_s <= 1000


@pytest.mark.parametrize(
    ("value", "cooldown_s"),
    [
        ("7", 7),
        (" 7 ", 7),
        ("60", 60),
        ("61", 60),
        ("99999999999999999999", 60),
        ("Fri, 31 Dec 2100 23:59:59 GMT", 60),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 0),
        ("0", 0),
        ("-5", 0),
        ("2.5", 0),
        ("soon", 0),
        ("\u0663", 0),
        ("\u00b2", 0),
        ("", 0),
        ("9" * 5000, 60),
        ("-1.5", 0),
        ("1e9", 0),
        ("inf", 0),
        ("nan", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 60),
        ("Fri, 31 Dec 9999 23:59:59 -2359", 60),
        ("Fri, 31 Dec 9999 23:59:59 +9999", 0),
        ("Fri, 31 Dec 9999 23:59:59 -9999", 0),
        ("Fri, 31 Dec 9999 23:59:59 +99999999999999", 0),
        ("Sat, 01 Jan 0000 00:00:00 GMT", 0),
        ("Sat, 01 Jan 0001 00:00:00 +2359", 0),
        ("Fri, 31 Dec 99999 23:59:59 GMT", 0),
        ("Fri, 31 Feb 2100 25:61:61 GMT", 0),
        ("Fri, 31 Dec " + "9" * 5000 + " 23:59:59 GMT", 0),
        ("(" * 5000, 0),
        ("7\n7", 7),
        ("7\nsoon\n 9 ", 9),
    ],
)
def test_a_retry_after_is_capped_and_ignored_if_it_is_invalid(
    start: StartExchange, value: str, cooldown_s: float
) -> None:
    step = start(response(429, retry_after=value), retry_after_max_s=60).send_next(a_task())
    assert (step.feedback.cooldown_s, step.wait_s) == (cooldown_s, cooldown_s)
    assert (step.feedback.failure is None) == (cooldown_s > 0)


# Hosts that are down.


def test_a_host_that_is_down_is_not_requested(start: StartExchange) -> None:
    run = start()
    task = a_task(keys=("p-0", "p-1"))
    task.host_down = "the host kept failing"
    step = run.send_next(task)
    assert step.rows is not None
    assert [row.key for row in step.rows] == ["p-0", "p-1"]
    for row in step.rows:
        assert (row.outcome, row.error, row.attempts, row.http_status) == (
            Outcome.HOST_DOWN, "the host kept failing", 0, None,
        )  # fmt: skip
        assert row.elapsed_ms is None
        assert row.fetched_at is not None
    assert run.requested_urls == []


def test_a_task_whose_host_goes_down_keeps_the_error_of_its_last_attempt(
    start: StartExchange,
) -> None:
    run = start(response(500), redirect_to("/b.jpg"), response(503))
    task = a_task()
    for _ in range(3):
        run.send_next(task)
    task.host_down = "the host kept failing"
    row = run.row(task)
    assert (row.outcome, row.http_status, row.attempts) == (Outcome.HTTP_ERROR, 503, 2)
    assert row.error == "the server answered with status 503"


def test_a_task_that_ends_without_a_response_has_one_row_per_url_row() -> None:
    rows = failed_rows(a_task(keys=("p-0", "p-1")), Outcome.FAILED, "a bug")
    assert [(row.key, row.position, row.outcome, row.error) for row in rows] == [
        ("p-0", 0, Outcome.FAILED, "a bug"), ("p-1", 1, Outcome.FAILED, "a bug"),
    ]  # fmt: skip
    assert {row.elapsed_ms for row in rows} == {None}


# Refresh: conditional requests for stored images.

OLD = b"an older image"
ETAG, MODIFIED = '"v1"', "Fri, 02 Jan 2026 00:00:00 GMT"


def a_refresh(
    etag: str | None = ETAG,
    last_modified: str | None = MODIFIED,
    sha256: str = SHA256,
    keys: tuple[str, ...] = ("p-0", "p-1"),
) -> Task:
    task = a_task(keys=keys)
    task.previous_rows = tuple(
        raw_row(
            row,
            Outcome.OK,
            http_status=200,
            error="could not be refreshed (timeout): late",
            attempts=3,
            path=f"images/raw/zara/{sha256[:2]}/{sha256}.jpg",
            bytes=len(OLD),
            sha256=sha256,
            etag=etag,
            last_modified=last_modified,
            fetched_at=dt.datetime(2026, 1, 2, tzinfo=dt.UTC),
            elapsed_ms=77,
        )
        for row in task.rows
    )
    return task


def conditions(request: Request) -> dict[str, str]:
    return {name: value for name, value in request.headers.items() if name.startswith("If-")}


def test_only_a_refresh_sends_conditional_headers(start: StartExchange) -> None:
    run = start(response(404), response(304), image_response(), robots=True)
    run.send_next(a_refresh())
    run.send_next(a_task())
    robots_txt, refresh, plain = run.client.requests
    assert robots_txt.url == f"{SHOP}/robots.txt"
    assert conditions(refresh) == {"If-None-Match": ETAG, "If-Modified-Since": MODIFIED}
    assert conditions(robots_txt) == conditions(plain) == {}
    assert refresh.headers["User-Agent"] == plain.headers["User-Agent"] == "imgassets/0.2"


@pytest.mark.parametrize(
    ("etag", "last_modified", "sent"),
    [
        (ETAG, None, {"If-None-Match": ETAG}),
        (None, MODIFIED, {"If-Modified-Since": MODIFIED}),
        (None, None, {}),
        ("", "", {}),
        ('"a"\r\nX-Injected: b', "a\nb", {}),
        ('"\u00fc"', "m\u00e4rz", {}),
    ],
)
def test_conditional_headers_contain_only_printable_ascii(
    start: StartExchange, etag: str | None, last_modified: str | None, sent: dict[str, str]
) -> None:
    run = start(image_response())
    run.send_next(a_refresh(etag, last_modified))
    assert conditions(run.client.requests[0]) == sent


def test_an_image_that_did_not_change_keeps_its_row(start: StartExchange) -> None:
    task = a_refresh()
    started = dt.datetime.now(dt.UTC)
    run = start(response(500), response(304, etag='"other"'))
    rows = run.steps(task)[-1].rows
    assert rows is not None
    for row, previous in zip(rows, task.previous_rows, strict=True):
        assert (row.http_status, row.attempts, row.error) == (304, 2, None)
        assert row.fetched_at is not None
        assert row.fetched_at >= started
        assert row.elapsed_ms != previous.elapsed_ms
        assert previous == replace(
            row,
            http_status=200,
            attempts=3,
            error=previous.error,
            fetched_at=previous.fetched_at,
            elapsed_ms=77,
        )
    assert run.files == {}


def test_an_image_with_identical_bytes_is_not_written_again(start: StartExchange) -> None:
    run = start(image_response(etag='"v2"'))
    rows = run.send_next(a_refresh()).rows
    assert rows is not None
    assert [(row.outcome, row.error, row.http_status, row.attempts) for row in rows] == [
        (Outcome.OK, None, 200, 1)
    ] * 2
    assert [(row.path, row.sha256, row.etag) for row in rows] == [
        (path_of(JPEG), SHA256, '"v2"')
    ] * 2
    assert run.files == {}


def test_an_image_of_one_row_is_refreshed_conditionally(start: StartExchange) -> None:
    run = start(image_response())
    row = run.row(a_refresh(keys=("p-0",)))
    assert row.sha256 == SHA256
    assert conditions(run.client.requests[0])["If-None-Match"] == ETAG
    assert run.files == {}


def test_an_image_that_changed_is_written_for_all_its_rows(start: StartExchange) -> None:
    run = start(image_response(etag='"v2"'))
    rows = run.send_next(a_refresh(sha256=hashlib.sha256(OLD).hexdigest())).rows
    assert rows is not None
    assert [(row.sha256, row.bytes, row.etag) for row in rows] == [(SHA256, len(JPEG), '"v2"')] * 2
    assert run.files == stored(JPEG)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (response(404), "could not be refreshed (http_error): the server answered with status 404"),
        (response(200, b"<html>"), "could not be refreshed (not_an_image): an HTML page"),
        (FetchError(Outcome.TOO_LARGE, "too much", retryable=False),
         "could not be refreshed (too_large): too much"),
    ],
)  # fmt: skip
def test_a_failed_refresh_keeps_the_image_and_records_the_error(
    start: StartExchange, answer: Answer, error: str
) -> None:
    task = a_refresh()
    run = start(answer)
    rows = run.send_next(task).rows
    assert rows is not None
    assert [replace(row, elapsed_ms=77) for row in rows] == [
        replace(row, error=error, attempts=1) for row in task.previous_rows
    ]
    assert run.files == {}


def test_a_refresh_on_a_host_that_is_down_keeps_the_image(start: StartExchange) -> None:
    task = a_refresh()
    task.host_down = "it kept failing"
    error = "could not be refreshed (host_down): it kept failing"
    assert start().send_next(task).rows == [
        replace(row, error=error, attempts=0, elapsed_ms=None) for row in task.previous_rows
    ]


@pytest.mark.parametrize("status", [200, 304])
@pytest.mark.parametrize(
    ("header", "value"),
    [("x_robots_tag", "noai"), ("tdm_reservation", "1"), ("content_usage", "train-ai=n")],
)
def test_an_image_whose_server_opts_out_since_is_not_kept(
    start: StartExchange, status: int, header: str, value: str
) -> None:
    answer = response(status, JPEG if status == 200 else b"", **{header: value})
    run = start(response(404), answer, opt_outs=OPT_OUTS)
    step = run.steps(a_refresh())[-1]
    assert step.rows is not None
    for row in step.rows:
        assert (row.outcome, row.http_status, row.path) == (Outcome.DISALLOWED, status, None)
        assert "download.opt_outs" in str(row.error)
    assert step.feedback == HostFeedback()
    assert run.files == {}


@pytest.mark.parametrize(
    ("robots_txt", "tdm_file", "is_kept"),
    [
        (b"User-agent: *\nContent-Usage: train-ai=n\n", b"", False),
        (b"", b'[{"location": "/", "tdm-reservation": 1}]', False),
        # A crawler must not come again; what it has may still be used.
        (b"User-agent: *\nDisallow: /\n", b"", True),
    ],
)
def test_an_image_that_is_reserved_since_is_not_kept(
    start: StartExchange, robots_txt: bytes, tdm_file: bytes, is_kept: bool
) -> None:
    run = start(response(200, robots_txt), response(200, tdm_file), robots=True, opt_outs=OPT_OUTS)
    rows = run.steps(a_refresh())[-1].rows
    assert rows is not None
    assert {row.outcome for row in rows} == {Outcome.OK if is_kept else Outcome.DISALLOWED}
    assert all((row.path is not None) is is_kept and row.error for row in rows)


# Images that were taken down.


def test_an_image_that_was_taken_down_is_not_stored(start: StartExchange) -> None:
    run = start(image_response(), removed_sha256={SHA256})
    row = run.row()
    assert (row.outcome, row.path, row.sha256, row.bytes) == (Outcome.REMOVED, None, None, None)
    assert run.files == {}


def test_an_image_that_changed_to_one_that_was_taken_down_is_not_kept(start: StartExchange) -> None:
    run = start(image_response(), removed_sha256={SHA256})
    rows = run.send_next(a_refresh(sha256=hashlib.sha256(OLD).hexdigest())).rows
    assert rows is not None
    assert [(row.outcome, row.path) for row in rows] == [(Outcome.REMOVED, None)] * 2
    assert run.files == {}


# robots.txt.

SUCCESS = HostFeedback(succeeded=True)
DISALLOW_ALL = response(200, b"User-agent: *\nDisallow: /\n")
CRAWL_DELAY = response(200, b"User-agent: *\nCrawl-delay: 3\nDisallow: /private/\n")


def test_robots_txt_is_read_once_for_each_host(start: StartExchange) -> None:
    run = start(
        response(404),
        image_response(),
        image_response(),
        CRAWL_DELAY,
        image_response(),
        image_response(),
        robots=True,
    )
    urls = [A, f"{SHOP}/b.jpg", f"{CDN}/a.jpg", f"{CDN}/b.jpg"]
    steps = [run.send_next(a_task(url)) for url in urls]
    assert [only(step).outcome for step in steps] == [Outcome.OK] * 4
    assert run.requested_urls == [f"{SHOP}/robots.txt", *urls[:2], f"{CDN}/robots.txt", *urls[2:]]
    # Every step reports the crawl delay of its host.
    assert [step.feedback.interval_s for step in steps] == [0, 0, 3, 3]
    assert all(step.feedback.robots_known for step in steps)


@pytest.mark.parametrize(
    ("answer", "failure", "cooldown_s"),
    [
        (image_response(), None, 0),
        (response(200, b"<html>"), None, 0),
        (response(304), None, 0),
        (redirect_to("/b.jpg"), None, 0),
        (redirect_to("ftp://shop.example"), None, 0),
        (response(404), None, 0),
        (response(500), None, 0),
        (response(503), "the server answered with status 503", 0),
        (response(503, retry_after="9"), None, 9),
        (FetchError(Outcome.TOO_LARGE, "too much", retryable=False), None, 0),
        (FetchError(Outcome.TIMEOUT, "late", retryable=True), "late", 0),
    ],
)
@pytest.mark.parametrize("task", [a_task, a_refresh])
def test_a_crawl_delay_is_reported_with_every_response(
    start: StartExchange,
    task: Callable[[], Task],
    answer: Answer,
    failure: str | None,
    cooldown_s: float,
) -> None:
    for settings in ({}, {"retries": 0, "max_redirects": 0}):
        run = start(CRAWL_DELAY, answer, robots=True, **settings)
        feedback = run.send_next(task()).feedback
        assert (feedback.interval_s, feedback.failure) == (3, failure)
        assert (feedback.cooldown_s, feedback.robots_known) == (cooldown_s, True)


def test_a_port_has_its_own_robots_txt(start: StartExchange) -> None:
    run = start(response(404), image_response(), DISALLOW_ALL, robots=True)
    run.send_next(a_task())
    assert run.row(a_task(f"{SHOP}:8443/a.jpg")).outcome is Outcome.DISALLOWED
    assert run.requested_urls[2:] == [f"{SHOP}:8443/robots.txt"]


def test_a_url_that_robots_txt_disallows_is_neither_requested_nor_retried(
    start: StartExchange,
) -> None:
    run = start(CRAWL_DELAY, robots=True, user_agent="MyShop/2")
    step = run.send_next(a_task(f"{SHOP}/private/a.jpg"))
    row = only(step)
    assert (row.outcome, row.http_status, row.attempts) == (Outcome.DISALLOWED, None, 1)
    assert row.error == f"{SHOP}/robots.txt disallows this URL for MyShop/2 (download.robots)"
    assert step.feedback == HostFeedback(interval_s=3)
    assert run.requested_urls == [f"{SHOP}/robots.txt"]


def test_the_robots_txt_of_a_redirects_host_is_read_too(start: StartExchange) -> None:
    run = start(CRAWL_DELAY, redirect_to(f"{CDN}/a.jpg"), DISALLOW_ALL, robots=True)
    first, second = run.steps()
    assert first.feedback == HostFeedback(interval_s=3)
    row = only(second)
    assert (row.outcome, row.attempts) == (Outcome.DISALLOWED, 1)
    assert row.error == f"{CDN}/robots.txt disallows this URL for imgassets/0.2 (download.robots)"
    assert run.requested_urls == [f"{SHOP}/robots.txt", A, f"{CDN}/robots.txt"]


def test_a_redirect_within_the_host_is_checked_against_robots_txt(start: StartExchange) -> None:
    run = start(CRAWL_DELAY, redirect_to("/private/a.jpg"), robots=True)
    assert only(run.steps()[-1]).outcome is Outcome.DISALLOWED


@pytest.mark.parametrize(
    "answer",
    [response(404), response(403), response(200), redirect_to("ftp://shop.example/robots.txt"),
     response(302), response(304)],
)  # fmt: skip
def test_a_missing_robots_txt_allows_everything_and_is_read_once(
    start: StartExchange, answer: Response
) -> None:
    run = start(answer, image_response(), image_response(), robots=True)
    for _ in range(2):
        step = run.send_next(a_task())
        assert only(step).outcome is Outcome.OK
        assert step.feedback == SUCCESS
    assert run.requested_urls == [f"{SHOP}/robots.txt", A, A]


@pytest.mark.parametrize(
    ("answer", "outcome", "error", "feedback"),
    [
        (response(500), Outcome.HTTP_ERROR, "the server answered with status 500",
         HostFeedback(failure="the server answered with status 500")),
        (response(503), Outcome.HTTP_ERROR, "the server answered with status 503",
         HostFeedback(failure="the server answered with status 503")),
        (response(429, retry_after="9"), Outcome.HTTP_ERROR, "the server answered with status 429",
         HostFeedback(cooldown_s=9)),
        (FetchError(Outcome.TIMEOUT, "late", retryable=True), Outcome.TIMEOUT, "late",
         HostFeedback(failure="late")),
    ],
)  # fmt: skip
def test_nothing_is_requested_while_robots_txt_cannot_be_read(
    start: StartExchange, answer: Answer, outcome: Outcome, error: str, feedback: HostFeedback
) -> None:
    run = start(answer, answer, robots=True, retries=1)
    first, second = run.steps()
    assert (first.url, first.feedback) == (A, replace(feedback, robots_known=False))
    assert first.wait_s == feedback.cooldown_s
    row = only(second)
    assert not second.feedback.robots_known
    assert (row.outcome, row.attempts) == (outcome, 2)
    assert row.error == f"robots.txt cannot be read: {error}"
    assert row.http_status == (answer.status if isinstance(answer, Response) else None)
    assert run.requested_urls == [f"{SHOP}/robots.txt"] * 2


def test_a_failing_robots_txt_has_one_answer_for_all_urls_of_the_host(
    start: StartExchange,
) -> None:
    run = start(*[response(520)] * 3, response(404), image_response(), robots=True, retries=2)
    first, second, third = (a_task(f"{SHOP}/{n}.jpg") for n in range(3))
    assert run.send_next(first).rows is run.send_next(second).rows is None
    # The third failure is the answer for the host, whichever tasks have asked.
    error = "robots.txt cannot be read: the server answered with status 520"
    for task, attempts in ((third, 1), (first, 1), (second, 1), (a_task(), 0)):
        row = run.row(task)
        assert (row.outcome, row.http_status, row.error) == (Outcome.HTTP_ERROR, 520, error)
        assert row.attempts == attempts
        assert (row.elapsed_ms is None) == (not attempts)
    assert run.requested_urls == [f"{SHOP}/robots.txt"] * 3
    assert run.row(a_task(f"{CDN}/a.jpg")).outcome is Outcome.OK


def test_the_whole_host_waits_before_robots_txt_is_tried_again(
    start: StartExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random, "uniform", lambda _low, high: high)
    run = start(*[response(500)] * 3, robots=True, retries=3, backoff_s=2)
    steps = [run.send_next(a_task(f"{SHOP}/{n}.jpg")) for n in range(3)]
    assert [step.feedback.cooldown_s for step in steps] == [2, 4, 8]


@pytest.mark.parametrize("breaker_failures", [0, 30])
def test_the_circuit_breaker_ends_the_attempts_to_reach_robots_txt_unless_it_is_off(
    start: StartExchange, breaker_failures: int
) -> None:
    late = FetchError(Outcome.TIMEOUT, "late", retryable=True)
    settings = {"robots": True, "retries": 1, "breaker_failures": breaker_failures}
    run = start(*[late] * 6, **settings)
    for n in range(6):
        run.send_next(a_task(f"{SHOP}/{n}.jpg"))
    assert len(run.requested_urls) == (6 if breaker_failures else 2)


def test_requests_start_once_robots_txt_can_be_read(start: StartExchange) -> None:
    run = start(response(500), CRAWL_DELAY, image_response(), robots=True)
    first, second = run.steps()
    assert not first.feedback.robots_known
    assert second.feedback == replace(SUCCESS, interval_s=3)
    assert only(second).attempts == 2


def test_a_host_whose_robots_txt_is_blocked_is_not_requested(start: StartExchange) -> None:
    blocked = FetchError(Outcome.BLOCKED_ADDRESS, "10.0.0.1 is not allowed", retryable=False)
    run = start(blocked, robots=True)
    step = run.send_next(a_task())
    assert step.feedback == HostFeedback(robots_known=False)
    for row in (only(step), run.row()):
        assert row.outcome is Outcome.BLOCKED_ADDRESS
        assert row.error == "robots.txt cannot be read: 10.0.0.1 is not allowed"
    assert run.requested_urls == [f"{SHOP}/robots.txt"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_of_robots_txt_are_followed(start: StartExchange, status: int) -> None:
    run = start(
        redirect_to("/x/r.txt", status),
        redirect_to(f"{CDN}/y/r.txt"),
        redirect_to("z"),
        DISALLOW_ALL,
        robots=True,
    )
    assert run.row().outcome is Outcome.DISALLOWED
    assert run.requested_urls == [
        f"{SHOP}/robots.txt", f"{SHOP}/x/r.txt", f"{CDN}/y/r.txt", f"{CDN}/y/z",
    ]  # fmt: skip
    # The rules apply to the host that redirects, not to the one that stores the file.
    run = start(
        redirect_to(f"{CDN}/r.txt"),
        DISALLOW_ALL,
        response(404),
        image_response(),
        robots=True,
    )
    run.send_next(a_task())
    assert run.row(a_task(f"{CDN}/a.jpg")).outcome is Outcome.OK


def test_a_redirect_of_robots_txt_to_a_failing_server_is_retried(start: StartExchange) -> None:
    step = start(redirect_to("/r.txt"), response(503), robots=True).send_next(a_task())
    assert step.rows is None
    assert not step.feedback.robots_known


def test_at_most_five_redirects_of_robots_txt_are_followed(start: StartExchange) -> None:
    run = start(*[redirect_to("/r.txt")] * 5, DISALLOW_ALL, robots=True)
    assert run.row().outcome is Outcome.DISALLOWED
    run = start(*[redirect_to("/r.txt")] * 6, image_response(), robots=True)
    assert run.row().outcome is Outcome.OK
    assert len(run.requested_urls) == 7


TDM_FILE = "/.well-known/tdmrep.json"


def test_tdmrep_json_is_read_once_for_each_host_that_may_be_requested(start: StartExchange) -> None:
    rules = b'[{"location": "/*.png", "tdm-reservation": 1}]'
    run = start(
        CRAWL_DELAY,
        response(200, rules),
        redirect_to(f"{CDN}/a.png"),
        response(404),
        FetchError(Outcome.TIMEOUT, "late", retryable=True),
        image_response(),
        robots=True,
        opt_outs=OPT_OUTS,
    )
    first = run.send_next(a_task(f"{SHOP}/private/a.jpg"))
    # Until tdmrep.json is read, the host still gets one request at a time.
    assert first.feedback == HostFeedback(robots_known=False, interval_s=3)
    # Each read is a step of its own, so that the schedule can keep the host's interval.
    read, redirected, final = run.steps()
    assert (read.url, read.wait_s) == (A, 0)
    assert read.feedback == HostFeedback(interval_s=3, cooldown_s=3)
    assert redirected.feedback == HostFeedback(interval_s=3)
    # Whether a host is down that did not answer, the image shows.
    assert (only(final).outcome, only(final).attempts) == (Outcome.OK, 1)
    row = run.row(a_task(f"{SHOP}/a.png"))
    assert (row.outcome, row.http_status, row.attempts) == (Outcome.DISALLOWED, None, 1)
    assert row.error == (f"{SHOP}{TDM_FILE} reserves /*.png (download.opt_outs: tdm-reservation)")
    assert run.requested_urls == [
        f"{SHOP}/robots.txt", f"{SHOP}{TDM_FILE}", A,
        f"{CDN}/robots.txt", f"{CDN}{TDM_FILE}", f"{CDN}/a.png",
    ]  # fmt: skip
    private = run.send_next(a_task(f"{SHOP}/private/a.jpg"))
    assert private.feedback == HostFeedback(interval_s=3)


def test_tdmrep_json_is_not_requested_while_robots_txt_cannot_be_read(
    start: StartExchange,
) -> None:
    run = start(*[response(500)] * 2, robots=True, retries=1, opt_outs=OPT_OUTS)
    run.steps()
    assert run.requested_urls == [f"{SHOP}/robots.txt"] * 2


def test_robots_txt_is_not_requested_if_it_is_switched_off(start: StartExchange) -> None:
    run = start(redirect_to(f"{CDN}/a.jpg"), image_response(), robots=False)
    assert [step.feedback for step in run.steps()] == [HostFeedback(), SUCCESS]
    assert run.requested_urls == [A, f"{CDN}/a.jpg"]


def test_a_robots_txt_of_500_kib_is_read_even_if_images_are_limited_to_less(
    partition: Partition, server: Server
) -> None:
    partition.with_settings(robots=True, max_bytes=10_000, retries=0)
    rule = b"\nUser-agent: *\nDisallow: /\n"
    size = 500 * 1024
    url = server.add("/a.jpg", JPEG[:9000])
    server.add("/robots.txt", b"#" * (size - len(rule)) + rule)
    (row,) = partition.run(url)
    assert row.outcome is Outcome.DISALLOWED


@pytest.mark.parametrize("chunks", [False, True])
def test_of_a_larger_robots_txt_the_first_500_kib_are_read(
    partition: Partition, server: Server, chunks: bool
) -> None:
    partition.with_settings(robots=True, max_bytes=10_000, retries=0)
    first = b"User-agent: *\nDisallow: /private/\n"
    last = b"Disallow: /sho"
    padding = b"#" * (500 * 1024 - len(first) - len(last) - 1) + b"\n"
    body = first + padding + last + b"p/\nDisallow: /\n" + b"#" * 500_000
    server.add("/robots.txt", chunked(body) if chunks else body)
    paths = ("/a.jpg", "/shop/a.jpg", "/private/a.jpg")
    rows = partition.run(*(server.add(path, JPEG[:9000]) for path in paths))
    # The rule that is cut at 500 KiB does not apply, nor do later ones.
    assert [row.outcome for row in rows] == [Outcome.OK, Outcome.OK, Outcome.DISALLOWED]
    assert server.hits["/robots.txt"] == 1


@pytest.mark.parametrize("send", [False, True])
def test_an_endless_robots_txt_or_a_large_page_in_its_place_loses_no_image(
    partition: Partition, server: Server, send: bool
) -> None:
    partition.with_settings(robots=True, retries=0)
    page = b"<!DOCTYPE html>" + b"<p>Welcome to the shop: new!</p>\n" * 30_000
    server.add("/robots.txt", endless if send else page)
    (row,) = partition.run(server.add("/a.jpg", JPEG))
    assert row.outcome is Outcome.OK


# Headers, proxies and limits of requests.


def test_requests_have_the_limits_of_the_settings(start: StartExchange) -> None:
    run = start(
        response(404), image_response(), robots=True,
        connect_timeout_s=1, read_timeout_s=2, total_timeout_s=3, max_bytes=4000,
    )  # fmt: skip
    run.send_next(a_task())
    robots_txt, image = run.client.limits
    assert image == Limits(connect_s=1, read_s=2, total_s=3, max_bytes=4000)
    assert robots_txt == Limits(connect_s=1, read_s=2, total_s=3, max_bytes=512_000, truncate=True)


CREDENTIALS = {"auth": "bearer secret", "headers": {"Cookie": "session", "Referer": "r"}}


def credentials_of(
    headers: Mapping[str, str] | Message,
) -> tuple[str | None, str | None, str | None]:
    return headers.get("Authorization"), headers.get("Cookie"), headers.get("Referer")


WITH, WITHOUT = ("Bearer secret", "session", "r"), (None, None, "r")


@pytest.mark.parametrize(
    "other",
    [CDN, "http://shop.example", f"{SHOP}:8443", "https://www.shop.example", "https://example"],
)
def test_credentials_stay_with_the_origin_of_the_catalogues_url(
    start: StartExchange, other: str
) -> None:
    run = start(
        response(404),
        redirect_to(f"{other}/x"),
        response(404),
        redirect_to(f"{SHOP}/y"),
        image_response(),
        robots=True,
        **CREDENTIALS,
    )
    run.steps()
    assert [(request.url, credentials_of(request.headers)) for request in run.client.requests] == [
        (f"{SHOP}/robots.txt", WITH), (A, WITH), (f"{other}/robots.txt", WITHOUT),
        (f"{other}/x", WITHOUT), (f"{SHOP}/y", WITH),
    ]  # fmt: skip


def test_credentials_do_not_follow_a_redirect_of_robots_txt(start: StartExchange) -> None:
    run = start(
        redirect_to(f"{CDN}/r"),
        redirect_to(f"{SHOP}/r"),
        response(404),
        image_response(),
        robots=True,
        **CREDENTIALS,
    )
    run.send_next(a_task())
    assert [credentials_of(request.headers) for request in run.client.requests] == [
        WITH, WITHOUT, WITH, WITH,
    ]  # fmt: skip


def test_no_credentials_are_sent_for_the_robots_txt_of_a_redirects_host(
    start: StartExchange,
) -> None:
    # The CDN's robots.txt is requested for an image of the shop.
    run = start(
        response(404),
        redirect_to(f"{CDN}/a.jpg"),
        redirect_to("/r"),
        response(404),
        image_response(),
        robots=True,
        **CREDENTIALS,
    )
    run.steps()
    assert [credentials_of(request.headers) for request in run.client.requests[2:]] == [WITHOUT] * 3


def test_a_redirected_refresh_sends_conditional_headers_but_no_credentials(
    start: StartExchange,
) -> None:
    run = start(redirect_to(f"{CDN}/a.jpg"), response(304), **CREDENTIALS)
    run.steps(a_refresh())
    first, second = run.client.requests
    assert (credentials_of(first.headers), credentials_of(second.headers)) == (WITH, WITHOUT)
    assert conditions(first) == conditions(second) == {
        "If-None-Match": ETAG, "If-Modified-Since": MODIFIED,
    }  # fmt: skip


def test_another_server_receives_no_credentials(partition: Partition, server: Server) -> None:
    with running() as other:
        partition.with_settings(robots=True, **CREDENTIALS)
        server.add("/robots.txt", redirect(other.url("/shop-robots.txt")))
        other.add("/robots.txt", redirect("/cdn-robots.txt"))
        url = server.add("/a.jpg", redirect(other.add("/b.jpg", JPEG)))
        (row,) = partition.run(url)
        assert row.outcome is Outcome.OK
        assert set(other.requests) == {
            "/shop-robots.txt", "/robots.txt", "/cdn-robots.txt", "/b.jpg",
        }  # fmt: skip
        for requests in other.requests.values():
            assert [credentials_of(headers) for headers in requests] == [WITHOUT]
        for requests in server.requests.values():
            assert [credentials_of(headers) for headers in requests] == [WITH]


def test_the_proxy_is_chosen_by_the_scheme_of_each_request(
    start: StartExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "all_proxy", "no_proxy", "NO_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", "http://proxy.example:1")
    run = start(
        response(404),
        redirect_to("http://cdn.example/a.jpg"),
        response(404),
        image_response(),
        robots=True,
    )
    run.steps()
    assert [request.proxy for request in run.client.requests] == [
        "http://proxy.example:1", "http://proxy.example:1", None, None,
    ]  # fmt: skip


LOCAL = ["https://127.0.0.1", "https://localhost.:8443", "https://[::1]", "http://10.0.0.1:80"]


@pytest.mark.parametrize("host", LOCAL)
def test_no_redirect_reaches_local_addresses_through_a_proxy(
    start: StartExchange, host: str
) -> None:
    run = start(redirect_to(f"{host}/x"), proxy="http://proxy.example:1")
    row = only(run.steps()[-1])
    assert (row.outcome, row.attempts) == (Outcome.BLOCKED_ADDRESS, 1)
    assert "is not a public address; see download.allow_private_addresses" in str(row.error)
    assert str(urlsplit(host).hostname) in str(row.error)
    assert run.requested_urls == [A]


@pytest.mark.parametrize("host", LOCAL)
def test_local_addresses_may_be_requested_through_a_proxy_if_allowed(
    start: StartExchange, host: str
) -> None:
    run = start(image_response(), proxy="http://proxy.example:1", allow_private_addresses=True)
    assert run.row(a_task(f"{host}/x")).outcome is Outcome.OK
    assert [request.proxy for request in run.client.requests] == ["http://proxy.example:1"]


# Whole partitions with several threads.


def test_no_image_is_requested_before_the_robots_txt_of_its_host_is_read(
    partition: Partition, server: Server
) -> None:
    partition.with_settings(robots=True, threads=8)
    hits_before: dict[str, int] = {}

    def rules(handler: Handler) -> None:
        hits_before[str(handler.headers["Host"])] = server.hits[image(handler)]
        handler.reply(b"User-agent: *\nDisallow: /private\n")

    def image(handler: Handler) -> str:
        return "/b.jpg" if str(handler.headers["Host"]).startswith("localhost") else "/a.jpg"

    # Slow, to leave the other threads time to send requests.
    server.add("/robots.txt", slow(0.2, rules))
    server.add("/b.jpg", JPEG)
    server.add("/a.jpg", redirect(server.url("/b.jpg", host="localhost")))
    rows = partition.run(*(server.url(f"/a.jpg?{n}") for n in range(12)))
    assert {row.outcome for row in rows} == {Outcome.OK}
    assert server.hits["/robots.txt"] == 2
    assert list(hits_before.values()) == [0, 0]
    # Afterwards requests run in parallel.
    assert server.most_at_once > 1


def test_a_host_without_a_crawl_delay_is_not_slowed_down(
    partition: Partition, server: Server
) -> None:
    partition.with_settings(robots=True)
    server.add("/robots.txt", b"User-agent: *\nDisallow: /private\n")
    start = time.monotonic()
    rows = partition.run(*(server.add(f"/{n}.jpg", JPEG) for n in range(200)))
    assert {row.outcome for row in rows} == {Outcome.OK}
    # One request per second would take 200 s; without waits it is a fraction of a second.
    assert time.monotonic() - start < 100


def test_a_retry_waits_for_its_backoff(partition: Partition, server: Server) -> None:
    requested_at: list[float] = []

    def failing(handler: Handler) -> None:
        requested_at.append(time.monotonic())
        handler.reply(b"", 500)

    partition.with_settings(backoff_s=0.2, retries=3)
    partition.run(server.add("/a.jpg", failing))
    gaps = [later - earlier for earlier, later in pairwise(requested_at)]
    assert [gap >= least for gap, least in zip(gaps, (0.1, 0.2, 0.4), strict=True)] == [True] * 3
