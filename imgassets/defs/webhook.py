"""Builds the messages about failed runs and checks, and posts them to the webhook.

A message leaves your network, so it contains names and numbers only. A run's config, logs and
tracebacks may contain secrets: the message includes the descriptions of a `dagster.Failure` and of
failed checks, which are written for users, and only the class of any other error. URLs in the
descriptions of checks are left out. When messages are sent is in `sensors`.
"""

import os
import re
from collections.abc import Sequence
from typing import Any

import dagster as dg

from imgassets.defs.failed_checks import FailedCheck
from imgassets.errors import WebhookError

WEBHOOK_VARIABLE = "IMGASSETS_WEBHOOK_URL"
TIMEOUT_S = 10
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
    return _URL.sub("(URL)", text)[:MAX_REASON_LENGTH]


def post(url: str, message: dict[str, Any]) -> None:
    """Post a message as JSON.

    Args:
        url: the URL of the webhook.
        message: the message, see `failure_message`.

    Raises:
        WebhookError: no answer within `TIMEOUT_S` seconds, or a status other than 2xx.
    """
    import requests

    try:
        answer = requests.post(url, json=message, timeout=TIMEOUT_S, allow_redirects=False)
    except (requests.RequestException, ValueError) as error:
        # ValueError: urllib3 raises it for invalid URLs. Both texts contain the URL, a secret.
        raise WebhookError(
            f"cannot reach the webhook in {WEBHOOK_VARIABLE} ({type(error).__name__}); "
            "notification not sent; see the run in the UI"
        ) from None
    if not 200 <= answer.status_code < 300:
        raise WebhookError(
            f"the webhook in {WEBHOOK_VARIABLE} answered with status {answer.status_code}; "
            "notification not sent; see the run in the UI"
        )


def _reason(event: dg.DagsterEvent) -> str:
    data = event.step_failure_data
    if data.user_failure_data is not None and data.user_failure_data.description:
        return data.user_failure_data.description[:MAX_REASON_LENGTH]
    error = data.error
    while error is not None and error.cause is not None:
        error = error.cause
    return error.cls_name or "failed" if error is not None else "failed"
