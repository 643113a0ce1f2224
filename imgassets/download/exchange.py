"""One request of one URL, and what follows from its answer: rows, a redirect, another attempt.

Here lives the judgement of answers. Which URL is next and when is in `schedule`; how bytes are
moved is in the engines; what the bytes are is in `inspection`.
"""

from __future__ import annotations

import datetime as dt
import email.utils
import hashlib
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from urllib.parse import urlsplit

from imgassets.download import content_encoding, inspection, robots
from imgassets.download.addresses import is_local_name
from imgassets.download.client import Client, Limits, Request, Response, blocked
from imgassets.download.request_headers import request_headers
from imgassets.download.schedule import HostFeedback, Task
from imgassets.download.urls import origin, resolved
from imgassets.errors import (
    BodyTooLargeError,
    ContentEncodingError,
    DownloadError,
    FetchError,
    InvalidUrlError,
    UnreadableImageError,
)
from imgassets.manifests import Outcome, RawRow, UrlRow
from imgassets.settings import DownloadSettings
from imgassets.storage import IMAGES, Folder

# RFC 9110 and RFC 6585: request timeout, too early, too many requests; and all of 500 to 599.
_RETRYABLE_STATUSES = frozenset({408, 425, 429, *range(500, 600)})
# Of these the host is tired, not the URL wrong: gateway errors, overload, too many requests.
_OVERLOADED_STATUSES = frozenset({429, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_URL_FIELDS = tuple(field.name for field in fields(UrlRow))


_NO_FEEDBACK = HostFeedback()
_NONE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Step:
    """What one request led to: the task's rows, or a further request of `url`."""

    rows: list[RawRow] | None
    url: str = ""
    wait_s: float = 0
    signs: HostFeedback = _NO_FEEDBACK


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What a row says of an answer, or of there being none."""

    outcome: Outcome
    error: str | None = None
    response: Response | None = None
    retryable: bool = False
    signs: HostFeedback = _NO_FEEDBACK


class _RefusedError(DownloadError):
    """The URL is not asked for."""

    def __init__(self, verdict: _Verdict) -> None:
        super().__init__(verdict.error)
        self.verdict = verdict


class Exchange:
    """Asks for URLs and keeps pictures; used by many threads at once."""

    def __init__(self, client: Client, settings: DownloadSettings, folder: Folder) -> None:
        self._client = client
        self._settings = settings
        self._images = folder / IMAGES
        self._request_headers = request_headers(settings)
        self._limits = Limits(
            connect_s=settings.connect_timeout_s,
            read_s=settings.read_timeout_s,
            total_s=settings.total_timeout_s,
            max_bytes=settings.max_bytes,
        )
        self._robots_limits = replace(self._limits, max_bytes=robots.MAX_BYTES)
        self._rules: dict[str, robots.Rules] = {}

    def step(self, task: Task) -> Step:
        """Send the task's next request, and judge its answer.

        Raises:
            StorageError: the picture cannot be written.
            FetchAbortedError: the client was told to stop.
        """
        if task.host_down is not None:
            return Step(task.last_failure or failed_rows(task, Outcome.HOST_DOWN, task.host_down))
        if task.started is None:
            task.started = time.monotonic()
        if not task.hops:
            task.attempts += 1
        try:
            signs = self._permitted(task)
            response = self._fetch(
                task.url, task.host == task.first_host, self._limits, _conditions(task)
            )
        except FetchError as error:
            return self._after_failure(task, _unanswered(error))
        except _RefusedError as error:
            return self._after_failure(task, error.verdict)
        return self._answered(task, response, signs)

    def _answered(self, task: Task, response: Response, signs: HostFeedback) -> Step:
        if response.status in _REDIRECTS and "location" in response.headers:
            return self._redirected(task, response, signs)
        if response.status == 304 and task.previous_rows:
            return Step(_unchanged(task, response), signs=signs)
        if 200 <= response.status < 300:
            return Step(self._judged(task, response), signs=signs)
        return self._after_failure(task, self._http_error(response))

    def _fetch(
        self, url: str, at_home: bool, limits: Limits, conditions: Mapping[str, str] = _NONE
    ) -> Response:
        who = self._request_headers
        host = origin(url)
        proxy = who.proxy_of(host)
        if proxy is not None and not self._settings.allow_private_addresses:
            name = str(urlsplit(host).hostname)
            if is_local_name(name):
                raise blocked(name)
        headers = who.headers if at_home else who.public_headers
        if conditions:
            headers = {**headers, **conditions}
        return self._client.fetch(Request(url, headers, proxy), limits)

    def _permitted(self, task: Task) -> HostFeedback:
        """Look whether robots.txt lets the task's URL be asked, reading it where it is unknown.

        The schedule sees to it that only one thread at a time is here with an unknown host.
        """
        if not self._settings.robots:
            return HostFeedback()
        rules = self._rules.get(task.host)
        if rules is None:
            rules = self._rules[task.host] = self._read_robots(task)
        if not rules.allow(task.url):
            message = f"{task.host}/robots.txt disallows it for {self._settings.user_agent}"
            raise _RefusedError(_Verdict(Outcome.DISALLOWED, message))
        return HostFeedback(interval_s=rules.interval_s)

    def _read_robots(self, task: Task) -> robots.Rules:
        """RFC 9309, 2.3.1: no such file allows all, a server in trouble allows nothing yet."""
        url = f"{task.host}/robots.txt"
        try:
            for _ in range(robots.MAX_REDIRECTS + 1):
                response = self._fetch(url, origin(url) == task.first_host, self._robots_limits)
                if response.status not in _REDIRECTS or "location" not in response.headers:
                    break
                url = resolved(url, response.headers["location"])
        except FetchError as error:
            found = _unanswered(error)
            message = f"robots.txt cannot be read: {error}"
            raise _RefusedError(
                replace(found, error=message, signs=replace(found.signs, robots_known=False))
            ) from error
        except InvalidUrlError:
            return robots.rules(b"", "")
        if response.status in _RETRYABLE_STATUSES:
            found = self._http_error(response)
            message = f"robots.txt cannot be read: {found.error}"
            raise _RefusedError(
                replace(found, error=message, signs=replace(found.signs, robots_known=False))
            )
        return robots.rules(response.body, self._settings.user_agent)

    def _after_failure(self, task: Task, verdict: _Verdict) -> Step:
        rows = _rows(task, verdict)
        signs = verdict.signs
        if (rules := self._rules.get(task.host)) is not None:
            signs = replace(signs, interval_s=rules.interval_s)
        if not verdict.retryable or task.attempts > self._settings.retries:
            return Step(rows, signs=signs)
        task.hops = 0
        task.last_failure = rows
        wait = max(self._backoff(task.attempts), signs.cooldown_s)
        return Step(None, task.first_url, wait, signs)

    def _redirected(self, task: Task, response: Response, signs: HostFeedback) -> Step:
        allowed = self._settings.max_redirects
        if task.hops >= allowed:
            message = f"more than {allowed} redirects, the last to {response.headers['location']}"
            verdict = _Verdict(Outcome.TOO_MANY_REDIRECTS, message, response)
            return Step(_rows(task, verdict), signs=signs)
        try:
            url = resolved(task.url, response.headers["location"])
        except InvalidUrlError as error:
            verdict = _Verdict(Outcome.INVALID_URL, f"after a redirect: {error}", response)
            return Step(_rows(task, verdict), signs=signs)
        task.hops += 1
        return Step(None, url, signs=signs)

    def _judged(self, task: Task, response: Response) -> list[RawRow]:
        settings = self._settings
        body = response.body
        tag = response.headers.get("x-robots-tag")
        if tag and settings.robots_tag and (rule := robots.opt_out(tag, settings.user_agent)):
            message = f"its X-Robots-Tag says {rule}"
            return _rows(task, _Verdict(Outcome.DISALLOWED, message, response))
        try:
            if encoding := response.headers.get("content-encoding"):
                body = content_encoding.decompressed(body, encoding, settings.max_bytes)
            picture = inspection.inspect(body, settings.max_pixels)
        except BodyTooLargeError as error:
            return _rows(task, _Verdict(Outcome.TOO_LARGE, str(error), response))
        except ContentEncodingError as error:
            return _rows(task, _Verdict(Outcome.CORRUPT, str(error), response))
        except UnreadableImageError as error:
            return _rows(task, _Verdict(error.outcome, str(error), response))
        if len(body) < settings.min_bytes:
            message = f"{len(body)} bytes; wanted: at least {settings.min_bytes}"
            return _rows(task, _Verdict(Outcome.TOO_SMALL, message, response))
        return self._saved(task, response, body, picture)

    def _saved(
        self, task: Task, response: Response, body: bytes, picture: inspection.ImageInfo
    ) -> list[RawRow]:
        extension = inspection.EXTENSIONS[picture.format]
        sha256 = hashlib.sha256(body).hexdigest()
        rows = _rows(
            task,
            _Verdict(Outcome.OK, None, response),
            bytes=len(body),
            sha256=sha256,
            format=picture.format,
            width=picture.width,
            height=picture.height,
            extension=extension,
        )
        if task.previous_rows and task.previous_rows[0].sha256 == sha256:
            return rows
        for row in rows:
            self._images.write(f"{row.key}.{extension}", body)
        return rows

    def _backoff(self, attempts: int) -> float:
        """Seconds before the next attempt: doubled each time, with jitter of up to a half."""
        settings = self._settings
        wait = min(settings.backoff_s * 2.0 ** (attempts - 1), settings.backoff_max_s)
        return wait * random.uniform(0.5, 1)  # noqa: S311  (no secret)

    def _http_error(self, response: Response) -> _Verdict:
        message = f"the server answered with status {response.status}"
        retryable = response.status in _RETRYABLE_STATUSES
        rest = 0.0
        if retryable and (asked := response.headers.get("retry-after")):
            rest = min(_seconds(asked), self._settings.retry_after_max_s)
        # A host that says when to come back is not in unknown trouble.
        tired = response.status in _OVERLOADED_STATUSES and not rest
        signs = HostFeedback(failure=message if tired else None, cooldown_s=rest)
        return _Verdict(Outcome.HTTP_ERROR, message, response, retryable, signs)


def failed_rows(task: Task, outcome: Outcome, error: str) -> list[RawRow]:
    """The rows of a task that ends without an answer."""
    return _rows(task, _Verdict(outcome, error))


def raw_row(row: UrlRow, outcome: Outcome, **values: object) -> RawRow:
    """A URL's row with what happened to it."""
    given = {name: getattr(row, name) for name in _URL_FIELDS}
    return RawRow(**given, outcome=outcome, **values)  # type: ignore[arg-type]


def _unanswered(error: FetchError) -> _Verdict:
    hosts = error.outcome in (Outcome.TIMEOUT, Outcome.CONNECTION_ERROR)
    signs = HostFeedback(failure=str(error) if hosts else None)
    return _Verdict(error.outcome, str(error), retryable=error.retryable, signs=signs)


def _conditions(task: Task) -> Mapping[str, str]:
    """What makes a request one for a change only (RFC 9110, 13.1)."""
    if not task.previous_rows:
        return _NONE
    known = task.previous_rows[0]
    asked = {"If-None-Match": known.etag, "If-Modified-Since": known.last_modified}
    # A server's value goes back into a header: nothing but plain text does.
    return {
        name: value
        for name, value in asked.items()
        if value and value.isascii() and value.isprintable()
    }


def _unchanged(task: Task, response: Response) -> list[RawRow]:
    now = dt.datetime.now(dt.UTC)
    found = {"http_status": response.status, "attempts": task.attempts, "fetched_at": now}
    return [replace(row, error=None, **found) for row in task.previous_rows]  # type: ignore[arg-type]


def _kept(task: Task, verdict: _Verdict) -> list[RawRow]:
    """A refresh that fails takes no picture away."""
    error = f"could not be refreshed ({verdict.outcome}): {verdict.error}"
    return [replace(row, error=error) for row in task.previous_rows]


def _seconds(retry_after: str) -> float:
    """What a Retry-After header asks for: seconds, or a date (RFC 9110, 10.2.3)."""
    text = retry_after.strip()
    if text.isascii() and text.isdecimal():
        return float(text)
    try:
        date = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return 0
    if date.tzinfo is None:
        date = date.replace(tzinfo=dt.UTC)
    return max((date - dt.datetime.now(dt.UTC)).total_seconds(), 0)


def _rows(
    task: Task, verdict: _Verdict, extension: str | None = None, **picture: object
) -> list[RawRow]:
    if task.previous_rows and verdict.outcome is not Outcome.OK:
        return _kept(task, verdict)
    now = dt.datetime.now(dt.UTC)
    headers = verdict.response.headers if verdict.response else {}
    elapsed = time.monotonic() - task.started if task.started is not None else None
    return [
        raw_row(
            row,
            verdict.outcome,
            http_status=verdict.response.status if verdict.response else None,
            error=verdict.error,
            attempts=task.attempts,
            path=f"{IMAGES}/{row.key}.{extension}" if extension else None,
            etag=headers.get("etag"),
            last_modified=headers.get("last-modified"),
            fetched_at=now,
            elapsed_ms=round(elapsed * 1000) if elapsed is not None else None,
            **picture,
        )
        for row in task.rows
    ]
