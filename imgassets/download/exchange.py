"""One request of one URL, and what follows from its answer: a row, a redirect, another attempt.

Here lives the judgement of answers. Which URL is next and when is in `schedule`; how bytes are
moved is in the engines; what the bytes are is in `inspection`.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import random
import time
from dataclasses import dataclass, fields
from urllib.parse import urlsplit

from imgassets.download import coding, inspection
from imgassets.download.addresses import is_local_name
from imgassets.download.client import Client, FetchError, Limits, Request, Response, blocked
from imgassets.download.identity import identity
from imgassets.download.schedule import Task
from imgassets.download.urls import InvalidUrlError, joined
from imgassets.manifests import Outcome, RawRow, UrlRow
from imgassets.settings import DownloadSettings
from imgassets.storage import IMAGES, Folder

# RFC 9110 and RFC 6585: request timeout, too early, too many requests; and all of 500 to 599.
_PASSING = frozenset({408, 425, 429, *range(500, 600)})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_URL_FIELDS = tuple(field.name for field in fields(UrlRow))


@dataclass(frozen=True, slots=True)
class Further:
    """The task needs another request."""

    url: str
    wait_s: float = 0


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What a row says of an answer, or of there being none."""

    outcome: Outcome
    error: str | None = None
    response: Response | None = None
    passing: bool = False


class Exchange:
    """Asks for URLs and keeps pictures; used by many threads at once."""

    def __init__(self, client: Client, settings: DownloadSettings, folder: Folder) -> None:
        self._client = client
        self._settings = settings
        self._images = folder / IMAGES
        self._identity = identity(settings)
        self._limits = Limits(
            connect_s=settings.connect_timeout_s,
            read_s=settings.read_timeout_s,
            total_s=settings.total_timeout_s,
            max_bytes=settings.max_bytes,
        )

    def step(self, task: Task) -> list[RawRow] | Further:
        """Send the task's next request: its rows where that ends it, else what comes next.

        Raises:
            StorageError: the picture cannot be written.
            AbortedError: the client was told to stop.
        """
        if task.started is None:
            task.started = time.monotonic()
        if not task.hops:
            task.attempts += 1
        try:
            response = self._fetch(task)
        except FetchError as error:
            verdict = _Verdict(error.outcome, str(error), passing=error.passing)
        else:
            if response.status in _REDIRECTS and "location" in response.headers:
                redirected = self._redirected(task, response)
                if isinstance(redirected, Further):
                    return redirected
                verdict = redirected
            elif 200 <= response.status < 300:
                return self._judged(task, response)
            else:
                verdict = _http_error(response)
        if verdict.passing and task.attempts <= self._settings.retries:
            task.hops = 0
            return Further(task.first_url, self._backoff(task.attempts))
        return _rows(task, verdict)

    def _fetch(self, task: Task) -> Response:
        who = self._identity
        proxy = who.proxy_of(task.host)
        if proxy is not None and not self._settings.allow_private_addresses:
            host = str(urlsplit(task.host).hostname)
            if is_local_name(host):
                raise blocked(host)
        headers = who.headers if task.host == task.first_host else who.public_headers
        return self._client.fetch(Request(task.url, headers, proxy), self._limits)

    def _redirected(self, task: Task, response: Response) -> Further | _Verdict:
        allowed = self._settings.max_redirects
        if task.hops >= allowed:
            message = f"more than {allowed} redirects, the last to {response.headers['location']}"
            return _Verdict(Outcome.TOO_MANY_REDIRECTS, message, response)
        try:
            url = joined(task.url, response.headers["location"])
        except InvalidUrlError as error:
            return _Verdict(Outcome.INVALID_URL, f"after a redirect: {error}", response)
        task.hops += 1
        return Further(url)

    def _judged(self, task: Task, response: Response) -> list[RawRow]:
        settings = self._settings
        body = response.body
        try:
            if encoding := response.headers.get("content-encoding"):
                body = coding.decoded(body, encoding, settings.max_bytes)
            picture = inspection.inspect(body, settings.max_pixels)
        except coding.TooLargeError as error:
            return _rows(task, _Verdict(Outcome.TOO_LARGE, str(error), response))
        except coding.BrokenCodingError as error:
            return _rows(task, _Verdict(Outcome.CORRUPT, str(error), response))
        except inspection.NotAPictureError as error:
            return _rows(task, _Verdict(error.outcome, str(error), response))
        if len(body) < settings.min_bytes:
            message = f"{len(body)} bytes; wanted: at least {settings.min_bytes}"
            return _rows(task, _Verdict(Outcome.TOO_SMALL, message, response))
        return self._saved(task, response, body, picture)

    def _saved(
        self, task: Task, response: Response, body: bytes, picture: inspection.Picture
    ) -> list[RawRow]:
        sha256 = hashlib.sha256(body).hexdigest()
        extension = inspection.EXTENSIONS[picture.format]
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
        for row in rows:
            self._images.write(f"{row.key}.{extension}", body)
        return rows

    def _backoff(self, attempts: int) -> float:
        """Seconds before the next attempt: doubled each time, with jitter of up to a half."""
        settings = self._settings
        wait = min(settings.backoff_s * 2.0 ** (attempts - 1), settings.backoff_max_s)
        return wait * random.uniform(0.5, 1)  # noqa: S311  (no secret)


def failed_rows(task: Task, outcome: Outcome, error: str) -> list[RawRow]:
    """The rows of a task that ends without an answer."""
    return _rows(task, _Verdict(outcome, error))


def raw_row(row: UrlRow, outcome: Outcome, **values: object) -> RawRow:
    """A URL's row with what happened to it."""
    given = {name: getattr(row, name) for name in _URL_FIELDS}
    return RawRow(**given, outcome=outcome, **values)  # type: ignore[arg-type]


def _http_error(response: Response) -> _Verdict:
    return _Verdict(
        Outcome.HTTP_ERROR,
        f"the server answered with status {response.status}",
        response,
        passing=response.status in _PASSING,
    )


def _rows(
    task: Task, verdict: _Verdict, extension: str | None = None, **picture: object
) -> list[RawRow]:
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
