"""Builds the messages about failed runs and checks, and posts them to the webhook.

A message leaves your network, so it contains names and numbers only. A run's config, logs and
tracebacks may contain secrets: the message includes the descriptions of a `dagster.Failure` and of
failed checks, which are written for users, and only the class of any other error. URLs in the
descriptions of checks are left out. When messages are sent is in `sensors`.
"""

import json
import os
import re
import time
from collections.abc import Sequence
from typing import Any

import dagster as dg

from imgassets.defs.failed_checks import FailedCheck
from imgassets.errors import WebhookError

WEBHOOK_VARIABLE = "IMGASSETS_WEBHOOK_URL"
TIMEOUT_S = 8
"""Seconds for a message. Dagster posts up to 5 in a tick, and stops a tick after 60 s."""
PAUSES_S = (1, 2, 4)
"""Seconds before each further attempt."""
MAX_REASON_LENGTH = 500  # characters
_URL = re.compile(r"\b[a-z][a-z0-9+.-]*://\S+", re.IGNORECASE)


def webhook_url() -> str | None:
    """The URL to post to from the environment, or `None` if it is not set."""
    return os.environ.get(WEBHOOK_VARIABLE, "").strip() or None


def failure_message(
    run: dg.DagsterRun, failures: Sequence[dg.DagsterEvent], checks: Sequence[FailedCheck] = ()
) -> dict[str, Any]:
    """Build the JSON message about a failed run.

    Args:
        run: the run that failed.
        failures: the failure events of its steps.
        checks: its failed checks.

    Returns:
        The message; Slack, Mattermost and similar services show its `text`.
    """
    steps = {str(event.step_key): _reason(event) for event in failures}
    retried = run.tags.get("dagster/will_retry") == "true"
    message = _message(
        run, "failed" + ("; it is retried" if retried else ""), steps, _descriptions(checks)
    )
    return {**message, "retried": retried, "steps": steps}


def checks_message(run: dg.DagsterRun, checks: Sequence[FailedCheck]) -> dict[str, Any]:
    """Build the JSON message about the failed checks of a run that succeeded.

    Args:
        run: the run.
        checks: its failed checks.

    Returns:
        The message; see `failure_message`.
    """
    return _message(run, "succeeded, but checks failed", {}, _descriptions(checks))


def _message(
    run: dg.DagsterRun, what: str, steps: dict[str, str], checks: dict[str, str]
) -> dict[str, Any]:
    """The parts that all messages have.

    Args:
        run: the run.
        what: what happened to it.
        steps: reason by failed step.
        checks: description by failed check; those that the reason of a step repeats are in `checks`
            of the message, but not in its text.
    """
    partition = run.tags.get("dagster/partition")
    reasons = "\n".join(steps.values())
    lines = [
        f"imgassets: {run.job_name}{f' of {partition}' if partition else ''} {what}",
        *(f"{step}: {reason}" for step, reason in steps.items()),
        *(f"{name}: {text}" for name, text in checks.items() if text not in reasons),
        f"run {run.run_id}",
    ]
    return {
        "text": "\n".join(lines),
        "job": run.job_name,
        "partition": partition,
        "run_id": run.run_id,
        "checks": checks,
    }


def _descriptions(checks: Sequence[FailedCheck]) -> dict[str, str]:
    return {check.name: _without_urls(check.description) for check in checks}


def _without_urls(text: str) -> str:
    return _cut(_URL.sub("(URL)", text))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_REASON_LENGTH else f"{text[: MAX_REASON_LENGTH - 1]}…"


def post(url: str, message: dict[str, Any]) -> None:
    """Post a message as JSON.

    If the receiver cannot be connected to, or answers with status 429 or 5xx, the message is posted
    again after each of `PAUSES_S`. After a timeout it is not: the receiver may have it.

    Args:
        url: the URL of the webhook.
        message: the message, see `failure_message`.

    Raises:
        WebhookError: no answer within `TIMEOUT_S` seconds, or a status other than 2xx.
    """
    import pycurl  # type: ignore[import-untyped]

    deadline = time.monotonic() + TIMEOUT_S
    for pause in (*PAUSES_S, None):
        try:
            status = _status_of_post(url, json.dumps(message), deadline - time.monotonic())
            if 200 <= status < 300:
                return
            problem = f"the webhook in {WEBHOOK_VARIABLE} answered with status {status}"
            may_pass = status == 429 or status >= 500
        except pycurl.error as error:
            code = error.args[0]  # its text contains the host
            problem = f"cannot reach the webhook in {WEBHOOK_VARIABLE} (libcurl error {code})"
            if code == pycurl.E_OPERATION_TIMEDOUT:
                problem = f"the webhook in {WEBHOOK_VARIABLE} gave no answer in {TIMEOUT_S} s"
            may_pass = code in (pycurl.E_COULDNT_RESOLVE_HOST, pycurl.E_COULDNT_CONNECT)
        if not may_pass or pause is None or time.monotonic() + pause > deadline:
            break
        time.sleep(pause)
    raise WebhookError(f"{problem}; notification not sent; see the run in the UI")


def _status_of_post(url: str, body: str, timeout_s: float) -> int:
    """The status of the answer to a post.

    By libcurl, because its timeout is that of the whole exchange. With one per read, a receiver
    that sends a byte now and then would hold up the sensor's tick until Dagster stops it, and all
    messages of the tick would be posted again by the next one, and so on.
    """
    import pycurl

    from imgassets.download.client import ca_bundle

    curl = pycurl.Curl()
    try:
        curl.setopt(pycurl.URL, url.encode())
        curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        curl.setopt(pycurl.HTTPHEADER, ["Content-Type: application/json", "Expect:"])
        curl.setopt(pycurl.POSTFIELDS, body)
        curl.setopt(pycurl.TIMEOUT_MS, max(1, round(timeout_s * 1_000)))
        curl.setopt(pycurl.NOSIGNAL, 1)  # sensors run in threads
        curl.setopt(pycurl.CAINFO, ca_bundle())
        curl.setopt(pycurl.WRITEFUNCTION, lambda _: None)  # not to the standard output
        curl.perform()
        return int(curl.getinfo(pycurl.RESPONSE_CODE))
    finally:
        curl.close()


def _reason(event: dg.DagsterEvent) -> str:
    data = event.step_failure_data
    if data.user_failure_data is not None and data.user_failure_data.description:
        return _cut(data.user_failure_data.description)
    error = data.error
    while error is not None and error.cause is not None:
        error = error.cause
    return error.cls_name or "failed" if error is not None else "failed"
