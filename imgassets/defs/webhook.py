"""Builds the message about a failed run, and posts it to the webhook.

The message leaves your network, so it contains names only. A run's config, logs and tracebacks may
contain secrets: the message includes the description of a `dagster.Failure`, which is written for
users, and only the class of any other error. When messages are sent is in `sensors`.
"""

import os
from collections.abc import Sequence
from typing import Any

import dagster as dg

from imgassets.errors import WebhookError

WEBHOOK_VARIABLE = "IMGASSETS_WEBHOOK_URL"
TIMEOUT_S = 10
MAX_REASON_LENGTH = 500  # characters


def webhook_url() -> str | None:
    """The URL to post to from the environment, or `None` if it is not set."""
    return os.environ.get(WEBHOOK_VARIABLE, "").strip() or None


def failure_message(run: dg.DagsterRun, failures: Sequence[dg.DagsterEvent]) -> dict[str, Any]:
    """Build the JSON message about a failed run.

    Args:
        run: the run that failed.
        failures: the failure events of its steps.

    Returns:
        The message; Slack, Mattermost and similar services show its `text`.
    """
    partition = run.tags.get("dagster/partition")
    steps = {str(event.step_key): _reason(event) for event in failures}
    retried = run.tags.get("dagster/will_retry") == "true"
    what = f"{run.job_name} of {partition}" if partition else run.job_name
    lines = [
        f"imgassets: {what} failed" + ("; it is retried" if retried else ""),
        *(f"{step}: {reason}" for step, reason in steps.items()),
        f"run {run.run_id}",
    ]
    return {
        "text": "\n".join(lines),
        "job": run.job_name,
        "partition": partition,
        "run_id": run.run_id,
        "retried": retried,
        "steps": steps,
    }


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
