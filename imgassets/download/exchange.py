"""Send one request of a task and decide what follows: final rows, a redirect or a retry.

Not here: which URL is requested next, and when (`schedule`); moving bytes over the network
(`curl_client`, `requests_client`); checking whether the bytes are an image (`inspection`).
"""

from __future__ import annotations

import datetime as dt
import email.utils
import hashlib
import random
import time
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from urllib.parse import urlsplit

from imgassets.download import content_encoding, inspection, opt_outs, robots
from imgassets.download.addresses import is_local_name
from imgassets.download.client import Client, Limits, Request, Response, blocked_address_error
from imgassets.download.request_headers import request_headers
from imgassets.download.schedule import HostFeedback, Task
from imgassets.errors import (
    BodyTooLargeError,
    ContentEncodingError,
    DownloadError,
    FetchError,
    InvalidUrlError,
    UnreadableImageError,
)
from imgassets.manifests import FORMAT_EXTENSIONS, URL_FIELDS, Outcome, RawRow, UrlRow
from imgassets.settings import DownloadSettings
from imgassets.storage import Storage, raw_path
from imgassets.urls import origin, resolve

# RFC 9110 and RFC 6585: request timeout, too early, too many requests (Shopify also sends 430); and
# all server errors.
_RETRYABLE_STATUSES = frozenset({408, 425, 429, 430, *range(500, 600)})
# The host is overloaded; the URL itself may be fine.
_OVERLOADED_STATUSES = frozenset({429, 430, 502, 503, 504})
# The host refuses us, or asks for fewer requests.
_REFUSAL_STATUSES = frozenset({401, 403, 429, 430})
_REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})

_NO_FEEDBACK = HostFeedback()
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class NextAction:
    """Result of one request: the final rows of the task, or a further request.

    Attributes:
        rows: The final rows, one per URL row of the task; None if a further request is needed.
        url: The normalised URL of the further request.
        wait_s: Seconds to wait before the further request.
        feedback: What the request showed about its host.
    """

    rows: list[RawRow] | None
    url: str = ""
    wait_s: float = 0
    feedback: HostFeedback = _NO_FEEDBACK


@dataclass(frozen=True, slots=True)
class _Result:
    """Result of one attempt, as it is recorded in rows.

    Attributes:
        outcome: The outcome of the rows if there is no further attempt.
        error: The error message; None on success, and if the outcome says everything.
        response: The server's response; None if there was none.
        retryable: Whether a further attempt may succeed.
        feedback: What the attempt showed about the host.
    """

    outcome: Outcome
    error: str | None = None
    response: Response | None = None
    retryable: bool = False
    feedback: HostFeedback = _NO_FEEDBACK


class _RobotsError(DownloadError):
    """robots.txt or tdmrep.json forbids the URL, or robots.txt cannot be read."""

    def __init__(self, result: _Result) -> None:
        super().__init__(result.error)
        self.result = result


class Exchange:
    """Requests URLs and stores images. Thread-safe."""

    def __init__(
        self,
        client: Client,
        settings: DownloadSettings,
        storage: Storage,
        *,
        removed_sha256: Collection[str],
    ) -> None:
        """Create an exchange.

        Args:
            client: Sends the requests.
            settings: Settings of the retailer.
            storage: Where images are stored.
            removed_sha256: SHA-256 of images that were taken down, and must not be stored.
        """
        self._client = client
        self._settings = settings
        self._storage = storage
        self._removed_sha256 = removed_sha256
        self._request_headers = request_headers(settings)
        self._limits = Limits(
            connect_s=settings.connect_timeout_s,
            read_s=settings.read_timeout_s,
            total_s=settings.total_timeout_s,
            max_bytes=settings.max_bytes,
        )
        self._file_limits = replace(self._limits, max_bytes=robots.MAX_BYTES, truncate=True)
        self._crawler = robots.product_token(settings.user_agent)
        # By host: its rules, or why its robots.txt cannot be read; and the failed attempts.
        self._rules: dict[str, robots.Rules] = {}
        self._unreadable: dict[str, _Result] = {}
        self._robots_attempts: Counter[str] = Counter()
        self._obeys_tdm = "tdm-reservation" in settings.opt_outs
        self._tdm_files: dict[str, opt_outs.TdmFile] = {}
        # Shops serve one placeholder at many URLs.
        self._written: set[str] = set()

    def send_next(self, task: Task) -> NextAction:
        """Send the next request of a task and handle its response.

        Args:
            task: A task taken from the schedule; its attempt and redirect counters are updated.

        Returns:
            The final rows of the task, or the request to send next.

        Raises:
            StorageError: The image cannot be written.
            FetchAbortedError: The client was aborted.
        """
        if task.host_down is not None:
            return NextAction(
                task.last_failure or failed_rows(task, Outcome.HOST_DOWN, task.host_down)
            )
        if (unreadable := self._unreadable.get(task.host)) is not None:
            return NextAction(task.last_failure or _result_rows(task, unreadable))
        if task.started is None:
            task.started = time.monotonic()
        if not task.redirects:
            task.attempts += 1
        try:
            feedback = self._check_permission(task)
            is_tdm_unknown = self._obeys_tdm and task.host not in self._tdm_files
            if is_tdm_unknown and self._read_tdm_file(task):
                return _after_file(task, feedback)
            response = self._fetch(
                task.url, task.host == task.first_host, self._limits, _conditional_headers(task)
            )
        except FetchError as error:
            return self._after_failure(task, _fetch_failure(error))
        except _RobotsError as error:
            return self._after_failure(task, error.result)
        return self._handle_response(task, response, feedback)

    def progress_note(self) -> str:
        """Return what a progress line says of hosts that ask for too long a delay; may be empty."""
        max_s = self._settings.crawl_delay_max_s
        # A copy, because other threads add hosts.
        delays = {host: rules.interval_s for host, rules in list(self._rules.items())}
        longer = [host for host, delay_s in delays.items() if delay_s > max_s]
        if not longer:
            return ""
        others = f" and {len(longer) - 1} more" if len(longer) > 1 else ""
        return (
            f"crawl-delay of {longer[0]}{others}: {max_s:g} s (download.crawl_delay_max_s) instead "
            f"of {delays[longer[0]]:g} s"
        )

    def _handle_response(
        self, task: Task, response: Response, feedback: HostFeedback
    ) -> NextAction:
        if response.status in _REDIRECT_STATUSES and "location" in response.headers:
            return self._follow_redirect(task, response, feedback)
        is_not_modified = response.status == 304 and bool(task.previous_rows)
        is_success = 200 <= response.status < 300
        if (is_success or is_not_modified) and (
            said := opt_outs.find_in_headers(
                response.headers, self._crawler, self._settings.opt_outs
            )
        ):
            result = _opted_out(task, said, response)
            return NextAction(_result_rows(task, result), feedback=feedback)
        if is_not_modified:
            rows = _not_modified_rows(task, response)
            return NextAction(rows, feedback=replace(feedback, succeeded=True))
        if is_success:
            image = self._read_image(task, response)
            if isinstance(image, _Result):
                return self._after_failure(task, image)
            rows = self._save_image(task, response, *image)
            # A stored image whose refresh failed keeps its outcome, and has an error.
            succeeded = rows[0].outcome is Outcome.OK and rows[0].error is None
            return NextAction(rows, feedback=replace(feedback, succeeded=succeeded))
        return self._after_failure(task, self._http_failure(response))

    def _fetch(
        self,
        url: str,
        with_credentials: bool,
        limits: Limits,
        conditions: Mapping[str, str] = _NO_HEADERS,
    ) -> Response:
        host = origin(url)
        proxy = self._request_headers.proxy_for(host)
        if proxy is not None and not self._settings.allow_private_addresses:
            name = str(urlsplit(host).hostname)
            if is_local_name(name):
                raise blocked_address_error(name)
        headers = (
            self._request_headers.headers
            if with_credentials
            else self._request_headers.public_headers
        )
        if conditions:
            from requests.structures import CaseInsensitiveDict

            headers = CaseInsensitiveDict({**headers, **conditions})
        return self._client.fetch(Request(url, headers, proxy), limits)

    def _check_permission(self, task: Task) -> HostFeedback:
        """Check that robots.txt, read on first use, and a known tdmrep.json permit the task's URL.

        The schedule lets only one thread at a time work on a host until both are known. A header
        could release an image that tdmrep.json reserves, but what is reserved is not requested.

        Raises:
            _RobotsError: One of them forbids the URL, or robots.txt cannot be read.
            FetchAbortedError: The client was aborted.
        """
        settings, host = self._settings, task.host
        feedback = HostFeedback()
        if settings.robots:
            rules = self._rules.get(host)
            if rules is None:
                rules = self._rules[host] = self._read_robots(task)
            known = HostFeedback(robots_known=not self._obeys_tdm or host in self._tdm_files)
            if not rules.allow(task.url):
                message = (
                    f"{host}/robots.txt disallows this URL for {settings.user_agent} "
                    "(download.robots)"
                )
                raise _RobotsError(_Result(Outcome.DISALLOWED, message, feedback=known))
            if "content-usage" in settings.opt_outs and rules.forbid_training(task.url):
                message = (
                    f"Content-Usage in {host}/robots.txt says that this URL is not for AI training "
                    "(download.opt_outs: content-usage)"
                )
                raise _RobotsError(replace(_opted_out(task, message), feedback=known))
            feedback = HostFeedback(interval_s=self._interval_s(rules))
        tdm_file = self._tdm_files.get(host)
        if tdm_file is not None and (location := tdm_file.reserved_by(task.url)) is not None:
            message = (
                f"{host}{opt_outs.TDM_FILE} reserves {location} "
                "(download.opt_outs: tdm-reservation)"
            )
            raise _RobotsError(_opted_out(task, message))
        return feedback

    def _interval_s(self, rules: robots.Rules) -> float:
        return min(rules.interval_s, self._settings.crawl_delay_max_s)

    def _read_robots(self, task: Task) -> robots.Rules:
        """Fetch and parse the robots.txt of the task's host.

        RFC 9309, 2.3.1: a missing robots.txt allows everything; while the server cannot deliver it,
        nothing is allowed.

        Raises:
            _RobotsError: It cannot be read.
            FetchAbortedError: The client was aborted.
        """
        try:
            response = self._fetch_file(task, "/robots.txt")
        except FetchError as error:
            raise self._robots_unreadable(task.host, _fetch_failure(error)) from error
        except InvalidUrlError:
            return robots.parse_robots_txt(b"", "")
        if response.status in _RETRYABLE_STATUSES:
            raise self._robots_unreadable(task.host, self._http_failure(response))
        text = _file_text(response)
        return robots.parse_robots_txt(text, self._settings.user_agent)

    def _read_tdm_file(self, task: Task) -> bool:
        """Fetch and parse the tdmrep.json of the task's host; return whether the server answered.

        There is one attempt: the protocol takes a failure as a file that does not exist.

        Raises:
            FetchAbortedError: The client was aborted.
        """
        self._tdm_files[task.host] = opt_outs.TdmFile()
        try:
            response = self._fetch_file(task, opt_outs.TDM_FILE)
        except (FetchError, InvalidUrlError):
            return False
        self._tdm_files[task.host] = opt_outs.parse_tdm_file(_file_text(response))
        return True

    def _fetch_file(self, task: Task, path: str) -> Response:
        """Fetch the first bytes of a file of the task's host that is about the host itself.

        Raises:
            FetchError: There is no response.
            InvalidUrlError: It redirects to an invalid URL.
            FetchAbortedError: The client was aborted.
        """
        url = f"{task.host}{path}"
        for _ in range(robots.MAX_REDIRECTS + 1):
            response = self._fetch(url, origin(url) == task.first_host, self._file_limits)
            if response.status not in _REDIRECT_STATUSES or "location" not in response.headers:
                break
            url = resolve(url, response.headers["location"])
        return response

    def _robots_unreadable(self, host: str, failure: _Result) -> _RobotsError:
        """Count a failed attempt to read the robots.txt of a host, whichever task made it.

        A status counts as a failure of the host, and is the final answer after `download.retries`
        further attempts. Without an answer it is the circuit breaker that ends the attempts.
        """
        settings = self._settings
        self._robots_attempts[host] += 1
        attempts = self._robots_attempts[host]
        result = replace(failure, error=f"robots.txt cannot be read: {failure.error}")
        counts = failure.response is not None or not settings.breaker_failures
        if not failure.retryable or (counts and attempts > settings.retries):
            feedback = HostFeedback(robots_known=False)
            result = replace(result, retryable=False, feedback=feedback)
            self._unreadable[host] = result
        else:
            # The whole host waits: another task would make the next attempt at once.
            cooldown_s = failure.feedback.cooldown_s
            feedback = HostFeedback(
                failure=None if cooldown_s else failure.error,
                cooldown_s=cooldown_s or self._backoff(attempts),
                robots_known=False,
            )
            result = replace(result, feedback=feedback)
        return _RobotsError(result)

    def _after_failure(self, task: Task, result: _Result) -> NextAction:
        rows = _result_rows(task, result)
        feedback = result.feedback
        if (rules := self._rules.get(task.host)) is not None:
            feedback = replace(feedback, interval_s=self._interval_s(rules))
        if not result.retryable or task.attempts > self._settings.retries:
            return NextAction(rows, feedback=feedback)
        task.redirects = 0
        task.last_failure = rows
        wait_s = max(self._backoff(task.attempts), feedback.cooldown_s)
        return NextAction(None, task.first_url, wait_s, feedback)

    def _follow_redirect(
        self, task: Task, response: Response, feedback: HostFeedback
    ) -> NextAction:
        allowed = self._settings.max_redirects
        location = response.headers["location"]
        if task.redirects >= allowed:
            message = (
                f"more than {allowed} redirects (download.max_redirects), the last to {location}"
            )
            result = _Result(Outcome.TOO_MANY_REDIRECTS, message, response)
            return NextAction(_result_rows(task, result), feedback=feedback)
        try:
            url = resolve(task.url, location)
        except InvalidUrlError as error:
            result = _Result(Outcome.INVALID_URL, f"after a redirect: {error}", response)
            return NextAction(_result_rows(task, result), feedback=feedback)
        task.redirects += 1
        return NextAction(None, url, feedback=feedback)

    def _read_image(
        self, task: Task, response: Response
    ) -> tuple[bytes, inspection.ImageInfo] | _Result:
        """Decompress and inspect the body of a successful response."""
        try:
            return self._inspect_body(response)
        except BodyTooLargeError as error:
            return _Result(Outcome.TOO_LARGE, str(error), response)
        except ContentEncodingError as error:
            return _corrupt(task, str(error), response)
        except UnreadableImageError as error:
            if error.outcome is Outcome.CORRUPT:
                return _corrupt(task, str(error), response)
            message = str(error)
            if task.redirects and error.outcome is Outcome.NOT_AN_IMAGE:
                message += f", after a redirect to {task.url}"
            return _Result(error.outcome, message, response)

    def _inspect_body(self, response: Response) -> tuple[bytes, inspection.ImageInfo]:
        """Return the decompressed body and what image it is.

        Raises:
            BodyTooLargeError: See `content_encoding.decompress`.
            ContentEncodingError: See `content_encoding.decompress`.
            UnreadableImageError: It is not an image that the settings allow.
        """
        settings = self._settings
        body = response.body
        if encoding := response.headers.get("content-encoding"):
            body = content_encoding.decompress(body, encoding, settings.max_bytes)
        try:
            info = inspection.inspect(body, settings.max_pixels)
        except UnreadableImageError as error:
            if not encoding or body is not response.body:
                raise
            message = f"{error} (Content-Encoding: {', '.join(encoding.splitlines())})"
            raise UnreadableImageError(error.outcome, message) from error
        if len(body) < settings.min_bytes:
            message = f"{len(body)} bytes; download.min_bytes is {settings.min_bytes}"
            raise UnreadableImageError(Outcome.TOO_SMALL, message)
        if info.width * info.height < settings.min_pixels:
            raise UnreadableImageError(
                Outcome.TOO_SMALL,
                f"{info.width} x {info.height} pixels, fewer than {settings.min_pixels:,} "
                "(download.min_pixels)",
            )
        return body, info

    def _save_image(
        self, task: Task, response: Response, body: bytes, info: inspection.ImageInfo
    ) -> list[RawRow]:
        sha256 = hashlib.sha256(body).hexdigest()
        if sha256 in self._removed_sha256:
            task.previous_rows = ()
            return _result_rows(task, _Result(Outcome.REMOVED, None, response))
        path = raw_path(task.rows[0].retailer, sha256, FORMAT_EXTENSIONS[info.format])
        rows = _result_rows(
            task,
            _Result(Outcome.OK, None, response),
            bytes=len(body),
            sha256=sha256,
            format=info.format,
            width=info.width,
            height=info.height,
            path=path,
        )
        is_stored = bool(task.previous_rows) and task.previous_rows[0].sha256 == sha256
        if not is_stored and path not in self._written:
            self._storage.write(path, body)
            self._written.add(path)
        return rows

    def _backoff(self, attempts: int) -> float:
        """Return the seconds before the next attempt: exponential, with 50-100 % jitter."""
        settings = self._settings
        wait_s = min(settings.backoff_s * 2.0 ** (attempts - 1), settings.backoff_max_s)
        return wait_s * random.uniform(0.5, 1)  # noqa: S311  (not security-relevant)

    def _http_failure(self, response: Response) -> _Result:
        message = f"the server answered with status {response.status}"
        retryable = response.status in _RETRYABLE_STATUSES
        cooldown_s = 0.0
        if retryable and (retry_after := response.headers.get("retry-after")):
            cooldown_s = min(_retry_after_s(retry_after), self._settings.retry_after_max_s)
        # Retry-After already limits the load, so this does not count as a failure for the circuit
        # breaker.
        overloaded = response.status in _OVERLOADED_STATUSES and not cooldown_s
        feedback = HostFeedback(
            failure=message if overloaded else None,
            cooldown_s=cooldown_s,
            refusal=message if response.status in _REFUSAL_STATUSES else None,
        )
        return _Result(Outcome.HTTP_ERROR, message, response, retryable, feedback)


def failed_rows(task: Task, outcome: Outcome, error: str) -> list[RawRow]:
    """Return the final rows of a task that ends without a response.

    Args:
        task: The task that ends.
        outcome: The outcome of every row.
        error: The error message of every row.

    Returns:
        One row per URL row of the task.
    """
    return _result_rows(task, _Result(outcome, error))


def raw_row(row: UrlRow, outcome: Outcome, **values: object) -> RawRow:
    """Return the manifest row of a URL.

    Args:
        row: The row of `url_list`.
        outcome: What happened to the URL.
        **values: Further columns of `RawRow`.
    """
    url_values = {name: getattr(row, name) for name in URL_FIELDS}
    return RawRow(**url_values, outcome=outcome, **values)  # type: ignore[arg-type]


def _fetch_failure(error: FetchError) -> _Result:
    host_failed = error.outcome in (Outcome.TIMEOUT, Outcome.CONNECTION_ERROR)
    feedback = HostFeedback(failure=str(error) if host_failed else None)
    return _Result(error.outcome, str(error), retryable=error.retryable, feedback=feedback)


def _file_text(response: Response) -> bytes:
    """Return the decompressed start of a robots.txt or tdmrep.json."""
    encoding = response.headers.get("content-encoding", "")
    return content_encoding.decompress_start(response.body, encoding, robots.MAX_BYTES)


def _after_file(task: Task, feedback: HostFeedback) -> NextAction:
    """Return the task to the schedule after a file of its host, so that the interval is kept."""
    if not task.redirects:
        task.attempts -= 1
    if not task.attempts:
        task.started = None
    return NextAction(None, task.url, feedback=replace(feedback, cooldown_s=feedback.interval_s))


def _opted_out(task: Task, said: str, response: Response | None = None) -> _Result:
    """Return the result of an opt-out, which also ends the use of an image that is stored."""
    task.previous_rows = ()
    return _Result(Outcome.DISALLOWED, said, response)


def _corrupt(task: Task, error: str, response: Response) -> _Result:
    """Return the result for a body that is not a complete image.

    Without a length, a connection that broke looks like the end of the body, so such a body gets
    one more attempt.
    """
    headers = response.headers
    may_be_cut = "content-length" not in headers and "transfer-encoding" not in headers
    retryable = may_be_cut and not task.may_be_cut
    task.may_be_cut |= may_be_cut
    return _Result(Outcome.CORRUPT, error, response, retryable)


def _conditional_headers(task: Task) -> Mapping[str, str]:
    """Return the headers that request the body only if it has changed (RFC 9110, 13.1)."""
    if not task.previous_rows:
        return _NO_HEADERS
    stored = task.previous_rows[0]
    headers = {"If-None-Match": stored.etag, "If-Modified-Since": stored.last_modified}
    # The values come from a server: printable ASCII only prevents header injection.
    return {
        name: value
        for name, value in headers.items()
        if value and value.isascii() and value.isprintable()
    }


def _not_modified_rows(task: Task, response: Response) -> list[RawRow]:
    now = dt.datetime.now(dt.UTC)
    values = {"http_status": response.status, "fetched_at": now, **_effort(task)}
    return [replace(row, error=None, **values) for row in task.previous_rows]  # type: ignore[arg-type]


def _failed_refresh_rows(task: Task, result: _Result) -> list[RawRow]:
    """Return the stored rows with the error: a failed refresh does not remove the image."""
    error = f"could not be refreshed ({result.outcome}): {result.error}"
    return [replace(row, error=error, **_effort(task)) for row in task.previous_rows]  # type: ignore[arg-type]


def _effort(task: Task) -> dict[str, int | None]:
    return {"attempts": task.attempts, "elapsed_ms": _elapsed_ms(task)}


def _elapsed_ms(task: Task) -> int | None:
    return None if task.started is None else round((time.monotonic() - task.started) * 1000)


def _retry_after_s(value: str) -> float:
    """Return the seconds that a Retry-After header requests, as number or date.

    RFC 9110, 10.2.3. A value that is neither counts as 0; of several values, separated by newlines,
    the longest wait counts.
    """
    text, *others = value.strip().split("\n")
    if others:
        return max(map(_retry_after_s, (text, *others)))
    if text.isascii() and text.isdecimal():
        return float(text)
    try:
        date = email.utils.parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return 0
    if date.tzinfo is None:
        date = date.replace(tzinfo=dt.UTC)
    return max((date - dt.datetime.now(dt.UTC)).total_seconds(), 0)


def _result_rows(task: Task, result: _Result, **image_columns: object) -> list[RawRow]:
    if task.previous_rows and result.outcome is not Outcome.OK:
        return _failed_refresh_rows(task, result)
    now = dt.datetime.now(dt.UTC)
    headers = result.response.headers if result.response else {}
    return [
        raw_row(
            row,
            result.outcome,
            http_status=result.response.status if result.response else None,
            error=result.error
            or (None if result.outcome is Outcome.OK else result.outcome.meaning),
            **_effort(task),
            etag=headers.get("etag"),
            last_modified=headers.get("last-modified"),
            fetched_at=now,
            **image_columns,
        )
        for row in task.rows
    ]
