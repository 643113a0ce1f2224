"""One request at a time: what it carries, and what follows from its answer."""

from __future__ import annotations

import datetime as dt
import gzip
import hashlib
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from email.message import Message
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest

from imgassets.download import exchange as exchange_module
from imgassets.download.client import Limits, Request, Response
from imgassets.download.exchange import Exchange, Step, failed_rows, raw_row
from imgassets.download.schedule import HostFeedback, Task
from imgassets.download.urls import origin
from imgassets.errors import FetchAbortedError, FetchError, StorageError
from imgassets.manifests import Outcome, RawRow
from imgassets.settings import DownloadSettings
from imgassets.storage import Folder
from imgassets_tests.download.conftest import Partition, url_row
from imgassets_tests.download.images import image_bytes
from imgassets_tests.download.server import Handler, Server, answer, redirect, running, slow

JPEG = image_bytes()
SHA256 = hashlib.sha256(JPEG).hexdigest()
SHOP, CDN = "https://shop.example", "https://cdn.example"
A = f"{SHOP}/a.jpg"

Answer = Response | Exception


def response(status: int = 200, body: bytes = b"", /, **headers: str) -> Response:
    """An answer as engines give it; `retry_after="5"` is the header `retry-after`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status, named, body)


def found(**headers: str) -> Response:
    return response(200, JPEG, **headers)


def moved(location: str, status: int = 302) -> Response:
    return response(status, location=location)


@dataclass
class ScriptedClient:
    """Gives prepared answers, and remembers what it was asked for."""

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


class Talk:
    """An exchange with a client that has these answers."""

    def __init__(self, folder: Folder, answers: tuple[Answer, ...], **settings: object) -> None:
        self.folder = folder
        self.client = ScriptedClient(list(answers))
        settings = {"robots": False, "backoff_s": 0, "retries": 3} | settings
        self.settings = DownloadSettings.model_validate(settings)
        self._exchange = Exchange(self.client, self.settings, folder)

    def step(self, task: Task) -> Step:
        """One step; a further request is one of the same task, as the pool sees to it."""
        step = self._exchange.step(task)
        if step.rows is None:
            task.url, task.host = step.url, origin(step.url)
        return step

    def row(self, task: Task | None = None) -> RawRow:
        """The row of a task that one step ends."""
        rows = self.step(task or a_task()).rows
        assert rows is not None
        (row,) = rows
        return row

    def steps(self, task: Task | None = None) -> list[Step]:
        """All steps of a task."""
        task = task or a_task()
        steps = [self.step(task)]
        while steps[-1].rows is None:
            steps.append(self.step(task))
        return steps

    @property
    def asked(self) -> list[str]:
        return [request.url for request in self.client.requests]

    @property
    def files(self) -> dict[str, bytes]:
        images = self.folder / "images"
        return {name: images.read(name) for name in sorted(images.sizes())}


Start = Callable[..., Talk]


@pytest.fixture
def talk(tmp_path: Path) -> Start:
    folder = Folder(str(tmp_path / "raw_images"))
    return lambda *answers, **settings: Talk(folder, answers, **settings)


def a_task(url: str = A, keys: tuple[str, ...] = ("p-0",)) -> Task:
    rows = tuple(url_row(key, url, n) for n, key in enumerate(keys))
    return Task(rows, url, origin(url), first_url=url, first_host=origin(url))


def only(step: Step) -> RawRow:
    assert step.rows is not None
    (row,) = step.rows
    return row


# What a picture's row says, and what is kept.


def test_a_picture_is_kept_for_each_row_of_its_url(talk: Start) -> None:
    run = talk(found(etag='"1"', last_modified="Fri, 02 Jan 2026 00:00:00 GMT"))
    before = dt.datetime.now(dt.UTC)
    (step,) = run.steps(a_task(keys=("p-0", "p-1")))
    assert step.rows is not None
    assert run.files == {"p-0.jpg": JPEG, "p-1.jpg": JPEG}
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
            path=f"images/p-{position}.jpg",
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
def test_a_file_is_named_by_its_format(talk: Start, format_: str, extension: str) -> None:
    data = image_bytes(format_)
    run = talk(response(200, data))
    row = run.row()
    assert (row.path, row.format) == (f"images/p-0.{extension}", format_.lower())
    assert run.files == {f"p-0.{extension}": data}


@pytest.mark.parametrize("status", [200, 203, 206, 299])
def test_every_answer_of_success_is_looked_at(talk: Start, status: int) -> None:
    row = talk(response(status, JPEG)).row()
    assert (row.outcome, row.http_status) == (Outcome.OK, status)


def test_a_picture_that_cannot_be_written_is_an_error_of_the_storage(tmp_path: Path) -> None:
    (tmp_path / "raw_images").write_bytes(b"a file where a folder should be")
    run = Talk(Folder(str(tmp_path / "raw_images")), (found(),))
    with pytest.raises(StorageError):
        run.step(a_task())


def test_an_abort_is_passed_on(talk: Start) -> None:
    for settings in ({"robots": False}, {"robots": True}):
        with pytest.raises(FetchAbortedError):
            talk(FetchAbortedError(), **settings).step(a_task())


@pytest.mark.parametrize(
    ("answer", "settings", "outcome", "error"),
    [
        (response(200), {}, Outcome.EMPTY, "the server sent no bytes"),
        (response(204), {}, Outcome.EMPTY, "the server sent no bytes"),
        (response(200, b"<html>"), {}, Outcome.NOT_AN_IMAGE, "an HTML page"),
        (response(200, JPEG[:-9]), {}, Outcome.CORRUPT, "the JPEG file is truncated"),
        (found(), {"max_pixels": 5399}, Outcome.TOO_MANY_PIXELS,
         "60 x 90 pixels; allowed: 5399"),
        (found(), {"min_bytes": len(JPEG) + 1}, Outcome.TOO_SMALL,
         f"{len(JPEG)} bytes; wanted: at least {len(JPEG) + 1}"),
        (response(200, gzip.compress(JPEG), content_encoding="gzip"), {"max_bytes": 999},
         Outcome.TOO_LARGE, "more than 999 bytes after decompression"),
        (response(200, gzip.compress(JPEG)[:-9], content_encoding="gzip"), {}, Outcome.CORRUPT,
         "the compressed body is cut off"),
        (found(x_robots_tag="noindex, NoAI"), {}, Outcome.DISALLOWED,
         "its X-Robots-Tag says noai"),
        (response(304), {}, Outcome.HTTP_ERROR, "the server answered with status 304"),
        (response(404, retry_after="9"), {}, Outcome.HTTP_ERROR,
         "the server answered with status 404"),
    ],
)  # fmt: skip
def test_an_answer_without_a_picture_ends_the_task_with_its_reason(
    talk: Start, answer: Response, settings: dict[str, object], outcome: Outcome, error: str
) -> None:
    answer = replace(answer, headers={**answer.headers, "etag": '"1"', "last-modified": "then"})
    run = talk(answer, **settings)
    step = run.step(a_task())
    row = only(step)
    assert (row.outcome, row.error) == (outcome, error)
    assert (row.http_status, row.attempts) == (answer.status, 1)
    assert (row.etag, row.last_modified) == ('"1"', "then")
    assert (row.path, row.bytes, row.sha256, row.format, row.width) == (None,) * 5
    assert row.elapsed_ms is not None
    assert run.files == {}
    # The host has answered: nothing is wrong with it.
    assert step.signs == HostFeedback()


@pytest.mark.parametrize(
    ("answer", "settings"),
    [
        (found(), {"max_pixels": 5400, "min_bytes": len(JPEG), "max_bytes": len(JPEG)}),
        (response(200, gzip.compress(JPEG), content_encoding="gzip"), {"max_bytes": len(JPEG)}),
        (found(x_robots_tag="otherbot: noai"), {}),
        (found(x_robots_tag="noai"), {"robots_tag": False}),
    ],
)
def test_a_picture_at_the_limits_is_kept(
    talk: Start, answer: Response, settings: dict[str, object]
) -> None:
    run = talk(answer, **settings)
    assert run.row().outcome is Outcome.OK
    assert run.files == {"p-0.jpg": JPEG}


def test_the_bytes_that_count_are_those_of_the_picture(talk: Start) -> None:
    padded = JPEG + bytes(1000)
    packed = gzip.compress(padded)
    assert len(packed) < len(padded)
    run = talk(response(200, packed, content_encoding="gzip"), min_bytes=len(padded))
    row = run.row()
    assert (row.outcome, row.bytes) == (Outcome.OK, len(padded))
    assert row.sha256 == hashlib.sha256(padded).hexdigest()
    assert run.files == {"p-0.jpg": padded}


def test_an_x_robots_tag_may_name_the_user_agent(talk: Start) -> None:
    tag = "otherbot: all, myshop: noimageai"
    row = talk(found(x_robots_tag=tag), user_agent="MyShop/2").row()
    assert (row.outcome, row.error) == (Outcome.DISALLOWED, "its X-Robots-Tag says noimageai")
    assert talk(found(x_robots_tag=tag)).row().outcome is Outcome.OK


# Which failures are tried again, and what they say of the host.


@pytest.mark.parametrize("retry_after", [{}, {"retry_after": "5"}])
def test_these_and_no_other_statuses_are_tried_again(
    talk: Start, retry_after: dict[str, str]
) -> None:
    run = talk(*(response(status, **retry_after) for status in range(300, 1000)))
    again = set()
    for status in range(300, 1000):
        step = run.step(a_task())
        rest_s = 0.0
        if step.rows is None:
            again.add(status)
            rest_s = 5.0 if retry_after else 0
        else:
            assert (only(step).outcome, only(step).http_status) == (Outcome.HTTP_ERROR, status)
        assert step.signs.cooldown_s == step.wait_s == rest_s
    assert again == {408, 425, 429, *range(500, 600)}


def test_these_and_no_other_statuses_say_that_the_host_is_in_trouble(talk: Start) -> None:
    run = talk(*(response(status) for status in range(200, 1000)))
    trouble = {}
    for status in range(200, 1000):
        signs = run.step(a_task()).signs
        assert signs.robots_known
        if signs.failure is not None:
            trouble[status] = signs.failure
    assert trouble == {
        status: f"the server answered with status {status}" for status in (429, 502, 503, 504)
    }


def test_a_host_that_says_when_to_come_back_is_not_in_trouble(talk: Start) -> None:
    run = talk(response(503, retry_after="5"), response(503, retry_after="0"))
    assert run.step(a_task()).signs == HostFeedback(cooldown_s=5)
    failure = "the server answered with status 503"
    assert run.step(a_task()).signs == HostFeedback(failure=failure)


@pytest.mark.parametrize("retryable", [True, False])
@pytest.mark.parametrize(
    ("outcome", "trouble"),
    [
        (Outcome.TIMEOUT, True),
        (Outcome.CONNECTION_ERROR, True),
        (Outcome.TOO_LARGE, False),
        (Outcome.INVALID_URL, False),
        (Outcome.BLOCKED_ADDRESS, False),
    ],
)
def test_an_answer_that_does_not_come_is_tried_again_if_it_may_come_then(
    talk: Start, outcome: Outcome, trouble: bool, retryable: bool
) -> None:
    run = talk(FetchError(outcome, "no such luck", retryable=retryable), found())
    first, *later = run.steps()
    assert first.signs == HostFeedback(failure="no such luck" if trouble else None)
    if retryable:
        assert [only(step).outcome for step in later] == [Outcome.OK]
    else:
        row = only(first)
        assert later == []
        assert (row.outcome, row.error, row.http_status) == (outcome, "no such luck", None)
        assert (row.attempts, row.etag, row.last_modified) == (1, None, None)
        assert row.elapsed_ms is not None


@pytest.mark.parametrize("retries", [0, 1, 2, 5])
def test_a_failure_is_tried_again_as_often_as_the_settings_say(talk: Start, retries: int) -> None:
    run = talk(*[response(500)] * (retries + 1), retries=retries)
    steps = run.steps()
    assert len(steps) == retries + 1
    row = only(steps[-1])
    assert (row.outcome, row.http_status, row.attempts) == (Outcome.HTTP_ERROR, 500, retries + 1)
    assert run.asked == [A] * (retries + 1)


def test_a_row_tells_of_the_last_attempt(talk: Start) -> None:
    reset = FetchError(Outcome.CONNECTION_ERROR, "reset", retryable=True)
    row = only(talk(response(500), response(503), reset, retries=2).steps()[-1])
    assert (row.outcome, row.http_status, row.error, row.attempts) == (
        Outcome.CONNECTION_ERROR, None, "reset", 3,
    )  # fmt: skip


def test_the_time_of_a_row_counts_from_its_first_attempt(
    talk: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=50.0)
    monkeypatch.setattr(exchange_module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    run = talk(response(500), moved("/b.jpg"), found())
    task = a_task()
    for seconds in (1.25, 0.5, 0.0):
        step = run.step(task)
        clock.now += seconds
    assert only(step).elapsed_ms == 1750


# Attempts, redirects, and where they go.


def test_attempts_are_counted_across_redirects_and_every_one_starts_anew(talk: Start) -> None:
    run = talk(
        moved(f"{CDN}/x/1"), moved("2"), response(503),
        moved(f"{CDN}/y/1"), FetchError(Outcome.TIMEOUT, "late", retryable=True),
        response(500),
        moved(f"{CDN}/z"), found(),
    )  # fmt: skip
    task = a_task()
    counted = []
    for _ in range(7):
        assert run.step(task).rows is None
        counted.append((task.attempts, task.hops))
    row = run.row(task)
    assert run.asked == [A, f"{CDN}/x/1", f"{CDN}/x/2", A, f"{CDN}/y/1", A, A, f"{CDN}/z"]
    assert counted == [(1, 1), (1, 2), (1, 0), (2, 1), (2, 0), (3, 0), (4, 1)]
    assert (row.outcome, row.attempts, row.url) == (Outcome.OK, 4, A)


def test_a_failure_after_a_redirect_counts_as_one_attempt(talk: Start) -> None:
    run = talk(moved("/b.jpg"), response(500), moved("/b.jpg"), response(500), retries=1)
    row = only(run.steps()[-1])
    assert (row.outcome, row.attempts) == (Outcome.HTTP_ERROR, 2)


def test_a_retry_goes_to_the_first_url(talk: Start) -> None:
    step = talk(moved(f"{CDN}/b.jpg"), response(500), found()).steps()[1]
    assert (step.rows, step.url) == (None, A)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_followed_at_once(talk: Start, status: int) -> None:
    run = talk(moved("../b.jpg", status), found(), backoff_s=9)
    first, second = run.steps(a_task(f"{SHOP}/x/y/a.jpg"))
    assert first == Step(None, f"{SHOP}/x/b.jpg")
    assert only(second).outcome is Outcome.OK


@pytest.mark.parametrize("status", [300, 304, 305, 306, 309, 404])
def test_no_other_answer_is_followed(talk: Start, status: int) -> None:
    row = talk(moved("/b.jpg", status)).row()
    assert (row.outcome, row.http_status) == (Outcome.HTTP_ERROR, status)


def test_a_redirect_that_names_no_place_is_an_http_error(talk: Start) -> None:
    row = talk(response(302)).row()
    assert (row.outcome, row.http_status) == (Outcome.HTTP_ERROR, 302)


@pytest.mark.parametrize("allowed", [0, 1, 3])
def test_so_many_redirects_are_followed_and_no_more(talk: Start, allowed: int) -> None:
    chain = [moved(f"/{n}") for n in range(1, allowed + 1)]
    run = talk(*chain, found(), max_redirects=allowed)
    assert only(run.steps()[-1]).outcome is Outcome.OK
    run = talk(*chain, moved("/last"), max_redirects=allowed)
    step = run.steps()[-1]
    row = only(step)
    assert (row.outcome, row.http_status, row.attempts) == (Outcome.TOO_MANY_REDIRECTS, 302, 1)
    assert row.error == f"more than {allowed} redirects, the last to /last"
    assert step.signs == HostFeedback()
    assert len(run.asked) == allowed + 1


def test_every_attempt_has_its_redirects(talk: Start) -> None:
    run = talk(moved("/1"), response(500), moved("/1"), found(), max_redirects=1)
    assert only(run.steps()[-1]).outcome is Outcome.OK


def test_a_redirect_to_no_address_says_so(talk: Start) -> None:
    step = talk(moved("ftp://shop.example/a.jpg")).step(a_task())
    row = only(step)
    assert (row.outcome, row.http_status, row.attempts) == (Outcome.INVALID_URL, 302, 1)
    assert row.error == ("after a redirect: the address does not start with http:// or https://")
    assert step.signs == HostFeedback()


# Waits before further attempts.


def waits(talk: Start, attempts: int, **settings: object) -> list[float]:
    steps = talk(*[response(500)] * (attempts + 1), retries=attempts, **settings).steps()
    return [step.wait_s for step in steps[:-1]]


def test_the_wait_doubles_with_each_attempt_up_to_a_limit(
    talk: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random, "uniform", lambda _, most: most)
    assert waits(talk, 7, backoff_s=3, backoff_max_s=100) == [3, 6, 12, 24, 48, 96, 100]


def test_waits_are_spread_over_the_upper_half(talk: Start) -> None:
    random.seed(1)
    found = [waits(talk, 2, backoff_s=8, backoff_max_s=12) for _ in range(300)]
    for least, most, column in ((4, 8, 0), (6, 12, 1)):
        spread = sorted(wait[column] for wait in found)
        assert least <= spread[0] < least * 1.1
        assert most * 0.95 < spread[-1] <= most


def test_a_retry_waits_as_long_as_the_server_asks_or_longer(
    talk: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random, "uniform", lambda _, most: most)
    run = talk(response(503, retry_after="7"), response(503, retry_after="7"), found(), backoff_s=4)
    first, second, _ = run.steps()
    assert (first.wait_s, second.wait_s) == (7, 8)
    assert first.signs == second.signs == HostFeedback(cooldown_s=7)


@pytest.fixture
def new_york(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose local time is not UTC."""
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
def test_a_retry_after_may_be_a_date(talk: Start, zone: str) -> None:
    step = talk(response(429, retry_after=http_date(1000, zone)), retry_after_max_s=5000).step(
        a_task()
    )
    assert 900 < step.signs.cooldown_s <= 1000
    assert step.wait_s == step.signs.cooldown_s


def test_a_date_may_be_that_of_another_zone(talk: Start) -> None:
    date = http_date(3600 + 1000, "+0100")
    step = talk(response(429, retry_after=date), retry_after_max_s=5000).step(a_task())
    assert 900 < step.signs.cooldown_s <= 1000


@pytest.mark.parametrize(
    ("value", "rest_s"),
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
    ],
)
def test_a_retry_after_counts_up_to_a_limit_where_it_makes_sense(
    talk: Start, value: str, rest_s: float
) -> None:
    step = talk(response(429, retry_after=value), retry_after_max_s=60).step(a_task())
    assert (step.signs.cooldown_s, step.wait_s) == (rest_s, rest_s)
    assert (step.signs.failure is None) == (rest_s > 0)


# A host that was given up.


def test_a_host_that_was_given_up_is_not_asked(talk: Start) -> None:
    run = talk()
    task = a_task(keys=("p-0", "p-1"))
    task.host_down = "the host kept failing"
    step = run.step(task)
    assert step.rows is not None
    assert [row.key for row in step.rows] == ["p-0", "p-1"]
    for row in step.rows:
        assert (row.outcome, row.error, row.attempts, row.http_status) == (
            Outcome.HOST_DOWN, "the host kept failing", 0, None,
        )  # fmt: skip
        assert row.elapsed_ms is None
        assert row.fetched_at is not None
    assert run.asked == []


def test_a_task_that_had_failed_before_keeps_the_reason_of_its_last_attempt(talk: Start) -> None:
    run = talk(response(500), moved("/b.jpg"), response(503))
    task = a_task()
    for _ in range(3):
        run.step(task)
    task.host_down = "the host kept failing"
    row = run.row(task)
    assert (row.outcome, row.http_status, row.attempts) == (Outcome.HTTP_ERROR, 503, 2)
    assert row.error == "the server answered with status 503"


def test_a_task_that_ends_without_an_answer_has_a_row_for_each_of_its_own() -> None:
    rows = failed_rows(a_task(keys=("p-0", "p-1")), Outcome.FAILED, "a bug")
    assert [(row.key, row.position, row.outcome, row.error) for row in rows] == [
        ("p-0", 0, Outcome.FAILED, "a bug"), ("p-1", 1, Outcome.FAILED, "a bug"),
    ]  # fmt: skip
    assert {row.elapsed_ms for row in rows} == {None}


# Refresh: pictures that are there are asked for a change only.

OLD = b"an older picture"
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
            path=f"images/{row.key}.jpg",
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


def test_a_refresh_asks_for_a_change_only_and_no_other_request_does(talk: Start) -> None:
    run = talk(response(404), response(304), found(), robots=True)
    run.step(a_refresh())
    run.step(a_task())
    robots_txt, refresh, plain = run.client.requests
    assert robots_txt.url == f"{SHOP}/robots.txt"
    assert conditions(refresh) == {"If-None-Match": ETAG, "If-Modified-Since": MODIFIED}
    assert conditions(robots_txt) == conditions(plain) == {}
    assert refresh.headers["User-Agent"] == plain.headers["User-Agent"] == "imgassets/0.1"


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
def test_only_plain_text_of_a_server_goes_back_to_it(
    talk: Start, etag: str | None, last_modified: str | None, sent: dict[str, str]
) -> None:
    run = talk(found())
    run.step(a_refresh(etag, last_modified))
    assert conditions(run.client.requests[0]) == sent


def test_a_picture_that_did_not_change_keeps_its_row(talk: Start) -> None:
    task = a_refresh()
    started = dt.datetime.now(dt.UTC)
    run = talk(response(500), response(304, etag='"other"'))
    rows = run.steps(task)[-1].rows
    assert rows is not None
    for row, before in zip(rows, task.previous_rows, strict=True):
        assert (row.http_status, row.attempts, row.error) == (304, 2, None)
        assert row.fetched_at is not None
        assert row.fetched_at >= started
        assert before == replace(
            row, http_status=200, attempts=3, error=before.error, fetched_at=before.fetched_at
        )
    assert run.files == {}


def test_a_picture_that_is_served_anew_but_is_the_same_is_not_written(talk: Start) -> None:
    run = talk(found(etag='"v2"'))
    rows = run.step(a_refresh()).rows
    assert rows is not None
    assert [(row.outcome, row.error, row.http_status, row.attempts) for row in rows] == [
        (Outcome.OK, None, 200, 1)
    ] * 2
    assert [(row.path, row.sha256, row.etag) for row in rows] == [
        ("images/p-0.jpg", SHA256, '"v2"'), ("images/p-1.jpg", SHA256, '"v2"'),
    ]  # fmt: skip
    assert run.files == {}


def test_a_picture_of_one_row_is_asked_for_a_change_as_well(talk: Start) -> None:
    run = talk(found())
    row = run.row(a_refresh(keys=("p-0",)))
    assert row.sha256 == SHA256
    assert conditions(run.client.requests[0])["If-None-Match"] == ETAG
    assert run.files == {}


def test_a_picture_that_changed_is_written_for_all_its_rows(talk: Start) -> None:
    run = talk(found(etag='"v2"'))
    rows = run.step(a_refresh(sha256=hashlib.sha256(OLD).hexdigest())).rows
    assert rows is not None
    assert [(row.sha256, row.bytes, row.etag) for row in rows] == [(SHA256, len(JPEG), '"v2"')] * 2
    assert run.files == {"p-0.jpg": JPEG, "p-1.jpg": JPEG}


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (response(404), "could not be refreshed (http_error): the server answered with status 404"),
        (response(200, b"<html>"), "could not be refreshed (not_an_image): an HTML page"),
        (FetchError(Outcome.TOO_LARGE, "too much", retryable=False),
         "could not be refreshed (too_large): too much"),
    ],
)  # fmt: skip
def test_a_refresh_that_fails_keeps_the_picture_and_says_why(
    talk: Start, answer: Answer, error: str
) -> None:
    task = a_refresh()
    run = talk(answer)
    assert run.step(task).rows == [replace(row, error=error) for row in task.previous_rows]
    assert run.files == {}


def test_a_refresh_at_a_host_that_was_given_up_keeps_the_picture(talk: Start) -> None:
    task = a_refresh()
    task.host_down = "it kept failing"
    error = "could not be refreshed (host_down): it kept failing"
    assert talk().step(task).rows == [replace(row, error=error) for row in task.previous_rows]


# robots.txt.

FORBIDS = response(200, b"User-agent: *\nDisallow: /\n")
DELAY = response(200, b"User-agent: *\nCrawl-delay: 3\nDisallow: /private/\n")


def test_robots_txt_is_read_once_for_each_host(talk: Start) -> None:
    run = talk(response(404), found(), found(), DELAY, found(), found(), robots=True)
    urls = [A, f"{SHOP}/b.jpg", f"{CDN}/a.jpg", f"{CDN}/b.jpg"]
    steps = [run.step(a_task(url)) for url in urls]
    assert [only(step).outcome for step in steps] == [Outcome.OK] * 4
    assert run.asked == [f"{SHOP}/robots.txt", *urls[:2], f"{CDN}/robots.txt", *urls[2:]]
    # What they ask for is passed on with every answer.
    assert [step.signs.interval_s for step in steps] == [0, 0, 3, 3]
    assert all(step.signs.robots_known for step in steps)


@pytest.mark.parametrize(
    ("answer", "failure", "rest_s"),
    [
        (found(), None, 0),
        (response(200, b"<html>"), None, 0),
        (response(304), None, 0),
        (moved("/b.jpg"), None, 0),
        (moved("ftp://shop.example"), None, 0),
        (response(404), None, 0),
        (response(500), None, 0),
        (response(503), "the server answered with status 503", 0),
        (response(503, retry_after="9"), None, 9),
        (FetchError(Outcome.TOO_LARGE, "too much", retryable=False), None, 0),
        (FetchError(Outcome.TIMEOUT, "late", retryable=True), "late", 0),
    ],
)
@pytest.mark.parametrize("task", [a_task, a_refresh])
def test_a_crawl_delay_is_passed_on_whatever_the_answer(
    talk: Start, task: Callable[[], Task], answer: Answer, failure: str | None, rest_s: float
) -> None:
    signs = HostFeedback(interval_s=3, failure=failure, cooldown_s=rest_s)
    assert talk(DELAY, answer, robots=True).step(task()).signs == signs
    assert talk(DELAY, answer, robots=True, retries=0, max_redirects=0).step(task()).signs == signs


def test_a_port_has_its_own_robots_txt(talk: Start) -> None:
    run = talk(response(404), found(), FORBIDS, robots=True)
    run.step(a_task())
    assert run.row(a_task(f"{SHOP}:8443/a.jpg")).outcome is Outcome.DISALLOWED
    assert run.asked[2:] == [f"{SHOP}:8443/robots.txt"]


def test_what_robots_txt_forbids_is_not_asked_for_and_not_tried_again(talk: Start) -> None:
    run = talk(DELAY, robots=True, user_agent="MyShop/2")
    step = run.step(a_task(f"{SHOP}/private/a.jpg"))
    row = only(step)
    assert (row.outcome, row.http_status, row.attempts) == (Outcome.DISALLOWED, None, 1)
    assert row.error == f"{SHOP}/robots.txt disallows it for MyShop/2"
    assert step.signs == HostFeedback(interval_s=3)
    assert run.asked == [f"{SHOP}/robots.txt"]


def test_the_host_of_a_redirect_is_asked_for_its_own_rules(talk: Start) -> None:
    run = talk(DELAY, moved(f"{CDN}/a.jpg"), FORBIDS, robots=True)
    first, second = run.steps()
    assert first.signs == HostFeedback(interval_s=3)
    row = only(second)
    assert (row.outcome, row.attempts) == (Outcome.DISALLOWED, 1)
    assert row.error == f"{CDN}/robots.txt disallows it for imgassets/0.1"
    assert run.asked == [f"{SHOP}/robots.txt", A, f"{CDN}/robots.txt"]


def test_a_redirect_on_the_own_host_is_checked_as_well(talk: Start) -> None:
    run = talk(DELAY, moved("/private/a.jpg"), robots=True)
    assert only(run.steps()[-1]).outcome is Outcome.DISALLOWED


@pytest.mark.parametrize(
    "answer",
    [response(404), response(403), response(200), moved("ftp://shop.example/robots.txt"),
     response(302), response(304)],
)  # fmt: skip
def test_no_robots_txt_allows_all_and_is_remembered(talk: Start, answer: Response) -> None:
    run = talk(answer, found(), found(), robots=True)
    for _ in range(2):
        step = run.step(a_task())
        assert only(step).outcome is Outcome.OK
        assert step.signs == HostFeedback()
    assert run.asked == [f"{SHOP}/robots.txt", A, A]


@pytest.mark.parametrize(
    ("answer", "outcome", "error", "signs"),
    [
        (response(500), Outcome.HTTP_ERROR, "the server answered with status 500", HostFeedback()),
        (response(503), Outcome.HTTP_ERROR, "the server answered with status 503",
         HostFeedback(failure="the server answered with status 503")),
        (response(429, retry_after="9"), Outcome.HTTP_ERROR, "the server answered with status 429",
         HostFeedback(cooldown_s=9)),
        (FetchError(Outcome.TIMEOUT, "late", retryable=True), Outcome.TIMEOUT, "late",
         HostFeedback(failure="late")),
    ],
)  # fmt: skip
def test_a_robots_txt_that_cannot_be_read_allows_nothing_yet(
    talk: Start, answer: Answer, outcome: Outcome, error: str, signs: HostFeedback
) -> None:
    run = talk(answer, answer, robots=True, retries=1)
    first, second = run.steps()
    assert (first.url, first.signs) == (A, replace(signs, robots_known=False))
    assert first.wait_s == signs.cooldown_s
    row = only(second)
    assert second.signs == replace(signs, robots_known=False)
    assert (row.outcome, row.attempts) == (outcome, 2)
    assert row.error == f"robots.txt cannot be read: {error}"
    assert row.http_status == (answer.status if isinstance(answer, Response) else None)
    assert run.asked == [f"{SHOP}/robots.txt"] * 2


def test_a_robots_txt_that_can_be_read_later_opens_the_host(talk: Start) -> None:
    run = talk(response(500), DELAY, found(), robots=True)
    first, second = run.steps()
    assert not first.signs.robots_known
    assert second.signs == HostFeedback(interval_s=3)
    assert only(second).attempts == 2


def test_a_host_whose_robots_txt_cannot_be_fetched_at_all_is_not_asked(talk: Start) -> None:
    blocked = FetchError(Outcome.BLOCKED_ADDRESS, "10.0.0.1 is not allowed", retryable=False)
    step = talk(blocked, robots=True).step(a_task())
    row = only(step)
    assert (row.outcome, row.attempts) == (Outcome.BLOCKED_ADDRESS, 1)
    assert row.error == "robots.txt cannot be read: 10.0.0.1 is not allowed"
    assert step.signs == HostFeedback(robots_known=False)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_robots_txt_is_followed_through_redirects(talk: Start, status: int) -> None:
    run = talk(moved("/x/r.txt", status), moved(f"{CDN}/y/r.txt"), moved("z"), FORBIDS, robots=True)
    assert run.row().outcome is Outcome.DISALLOWED
    assert run.asked == [
        f"{SHOP}/robots.txt", f"{SHOP}/x/r.txt", f"{CDN}/y/r.txt", f"{CDN}/y/z",
    ]  # fmt: skip
    # They are the rules of the host that was asked, not of the one that has the file.
    run = talk(moved(f"{CDN}/r.txt"), FORBIDS, response(404), found(), robots=True)
    run.step(a_task())
    assert run.row(a_task(f"{CDN}/a.jpg")).outcome is Outcome.OK


def test_a_redirect_of_robots_txt_to_a_server_in_trouble_allows_nothing_yet(talk: Start) -> None:
    step = talk(moved("/r.txt"), response(503), robots=True).step(a_task())
    assert step.rows is None
    assert not step.signs.robots_known


def test_robots_txt_is_followed_through_five_redirects_and_no_more(talk: Start) -> None:
    run = talk(*[moved("/r.txt")] * 5, FORBIDS, robots=True)
    assert run.row().outcome is Outcome.DISALLOWED
    run = talk(*[moved("/r.txt")] * 6, found(), robots=True)
    assert run.row().outcome is Outcome.OK
    assert len(run.asked) == 7


def test_robots_txt_is_not_asked_for_where_it_does_not_count(talk: Start) -> None:
    run = talk(moved(f"{CDN}/a.jpg"), found(), robots=False)
    assert [step.signs for step in run.steps()] == [HostFeedback(), HostFeedback()]
    assert run.asked == [A, f"{CDN}/a.jpg"]


def test_a_robots_txt_of_500_kibibytes_is_read_whatever_a_picture_may_have(
    partition: Partition, server: Server
) -> None:
    partition.with_settings(robots=True, max_bytes=10_000, retries=0)
    rule = b"\nUser-agent: *\nDisallow: /\n"
    size = 500 * 1024
    url = server.add("/a.jpg", JPEG[:9000])
    server.add("/robots.txt", b"#" * (size - len(rule)) + rule)
    (row,) = partition.run(url)
    assert row.outcome is Outcome.DISALLOWED
    server.add("/robots.txt", b"#" * (size - len(rule) + 1) + rule)
    (row,) = partition.run(url)
    assert row.outcome is Outcome.TOO_LARGE
    assert str(row.error).startswith("robots.txt cannot be read: ")


# What requests carry, and within which limits.


def test_requests_have_the_limits_of_the_settings(talk: Start) -> None:
    run = talk(
        response(404), found(), robots=True,
        connect_timeout_s=1, read_timeout_s=2, total_timeout_s=3, max_bytes=4000,
    )  # fmt: skip
    run.step(a_task())
    robots_txt, image = run.client.limits
    assert image == Limits(connect_s=1, read_s=2, total_s=3, max_bytes=4000)
    assert robots_txt == Limits(connect_s=1, read_s=2, total_s=3, max_bytes=512_000)


CREDENTIALS = {"auth": "bearer secret", "headers": {"Cookie": "session", "Referer": "r"}}


def carried(headers: Mapping[str, str] | Message) -> tuple[str | None, str | None, str | None]:
    return headers.get("Authorization"), headers.get("Cookie"), headers.get("Referer")


WITH, WITHOUT = ("Bearer secret", "session", "r"), (None, None, "r")


@pytest.mark.parametrize(
    "other",
    [CDN, "http://shop.example", f"{SHOP}:8443", "https://www.shop.example", "https://example"],
)
def test_credentials_stay_with_the_origin_of_the_catalogues_url(talk: Start, other: str) -> None:
    run = talk(
        response(404), moved(f"{other}/x"), response(404), moved(f"{SHOP}/y"), found(),
        robots=True, **CREDENTIALS,
    )  # fmt: skip
    run.steps()
    assert [(request.url, carried(request.headers)) for request in run.client.requests] == [
        (f"{SHOP}/robots.txt", WITH), (A, WITH), (f"{other}/robots.txt", WITHOUT),
        (f"{other}/x", WITHOUT), (f"{SHOP}/y", WITH),
    ]  # fmt: skip


def test_credentials_do_not_follow_a_redirect_of_robots_txt(talk: Start) -> None:
    run = talk(moved(f"{CDN}/r"), moved(f"{SHOP}/r"), response(404), found(), robots=True,
               **CREDENTIALS)  # fmt: skip
    run.step(a_task())
    assert [carried(request.headers) for request in run.client.requests] == [
        WITH, WITHOUT, WITH, WITH,
    ]  # fmt: skip


def test_credentials_do_not_come_back_for_the_robots_txt_of_another_hosts_redirect(
    talk: Start,
) -> None:
    # The cdn's robots.txt is read on behalf of the shop's picture.
    run = talk(response(404), moved(f"{CDN}/a.jpg"), moved("/r"), response(404), found(),
               robots=True, **CREDENTIALS)  # fmt: skip
    run.steps()
    assert [carried(request.headers) for request in run.client.requests[2:]] == [WITHOUT] * 3


def test_a_refresh_of_another_host_carries_its_conditions_but_no_credentials(talk: Start) -> None:
    run = talk(moved(f"{CDN}/a.jpg"), response(304), **CREDENTIALS)
    run.steps(a_refresh())
    first, second = run.client.requests
    assert (carried(first.headers), carried(second.headers)) == (WITH, WITHOUT)
    assert conditions(first) == conditions(second) == {
        "If-None-Match": ETAG, "If-Modified-Since": MODIFIED,
    }  # fmt: skip


def test_another_server_sees_no_credentials(partition: Partition, server: Server) -> None:
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
            assert [carried(headers) for headers in requests] == [WITHOUT]
        for requests in server.requests.values():
            assert [carried(headers) for headers in requests] == [WITH]


def test_requests_name_the_proxy_that_takes_them(
    talk: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "all_proxy", "no_proxy", "NO_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", "http://proxy.example:1")
    run = talk(response(404), moved("http://cdn.example/a.jpg"), response(404), found(),
               robots=True)  # fmt: skip
    run.steps()
    assert [request.proxy for request in run.client.requests] == [
        "http://proxy.example:1", "http://proxy.example:1", None, None,
    ]  # fmt: skip


LOCAL = ["https://127.0.0.1", "https://localhost.:8443", "https://[::1]", "http://10.0.0.1:80"]


@pytest.mark.parametrize("host", LOCAL)
def test_no_redirect_leads_through_a_proxy_into_its_own_network(talk: Start, host: str) -> None:
    run = talk(moved(f"{host}/x"), proxy="http://proxy.example:1")
    row = only(run.steps()[-1])
    assert (row.outcome, row.attempts) == (Outcome.BLOCKED_ADDRESS, 1)
    assert "is not on the open internet; see download.allow_private_addresses" in str(row.error)
    assert str(urlsplit(host).hostname) in str(row.error)
    assert run.asked == [A]


@pytest.mark.parametrize("host", LOCAL)
def test_a_proxy_may_be_asked_for_its_own_network_where_that_is_allowed(
    talk: Start, host: str
) -> None:
    run = talk(found(), proxy="http://proxy.example:1", allow_private_addresses=True)
    assert run.row(a_task(f"{host}/x")).outcome is Outcome.OK
    assert [request.proxy for request in run.client.requests] == ["http://proxy.example:1"]


# Whole partitions: what threads do together.


def test_no_thread_asks_for_an_image_before_the_robots_txt_of_its_host_is_read(
    partition: Partition, server: Server
) -> None:
    partition.with_settings(robots=True, threads=8)
    asked_before: dict[str, int] = {}

    def rules(handler: Handler) -> None:
        # Time enough for the other threads to come forward.
        slow(0.2, answer(b"User-agent: *\nDisallow: /private\n"))(handler)
        asked_before[str(handler.headers["Host"])] = server.hits[image(handler)]

    def image(handler: Handler) -> str:
        return "/b.jpg" if str(handler.headers["Host"]).startswith("localhost") else "/a.jpg"

    server.add("/robots.txt", rules)
    server.add("/b.jpg", JPEG)
    server.add("/a.jpg", redirect(server.url("/b.jpg", host="localhost")))
    rows = partition.run(*(server.url(f"/a.jpg?{n}") for n in range(12)))
    assert {row.outcome for row in rows} == {Outcome.OK}
    assert server.hits["/robots.txt"] == 2
    assert list(asked_before.values()) == [0, 0]
    # Then they go side by side.
    assert server.most_at_once > 1


def test_a_host_that_asks_for_nothing_is_not_slowed_down(
    partition: Partition, server: Server
) -> None:
    partition.with_settings(robots=True)
    server.add("/robots.txt", b"User-agent: *\nDisallow: /private\n")
    start = time.monotonic()
    rows = partition.run(*(server.add(f"/{n}.jpg", JPEG) for n in range(200)))
    assert {row.outcome for row in rows} == {Outcome.OK}
    # One request per second would take 200 s; without waits it is a fraction of a second.
    assert time.monotonic() - start < 100


def test_a_retry_comes_after_its_wait(partition: Partition, server: Server) -> None:
    at: list[float] = []

    def failing(handler: Handler) -> None:
        at.append(time.monotonic())
        handler.reply(b"", 500)

    partition.with_settings(backoff_s=0.2, retries=3)
    partition.run(server.add("/a.jpg", failing))
    gaps = [later - earlier for earlier, later in pairwise(at)]
    assert [gap >= least for gap, least in zip(gaps, (0.1, 0.2, 0.4), strict=True)] == [True] * 3
