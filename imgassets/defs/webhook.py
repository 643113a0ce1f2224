"""The message on a failed run, and posting it.

Here lives what leaves the house: names, never values. A run's config, logs and tracebacks may hold
what nobody should read in a chat, so of an error only the sentence of a `dagster.Failure` is sent,
which was written to be read, and of any other its class. When messages are sent is in `sensors`.
"""

import os
from collections.abc import Sequence
from typing import Any

import dagster as dg

VARIABLE = "IMGASSETS_WEBHOOK_URL"
TIMEOUT_S = 10
MAX_SENTENCE = 500


class WebhookError(Exception):
    """The message could not be posted; says why, without the address, which is a secret."""


def webhook_url() -> str | None:
    """The address to post to, from the environment; none where there is none."""
    return os.environ.get(VARIABLE, "").strip() or None


def failure_message(run: dg.DagsterRun, failures: Sequence[dg.DagsterEvent]) -> dict[str, Any]:
    """The JSON that is posted; its `text` is what Slack, Mattermost and the like show.

    Args:
        run: the run that failed.
        failures: the failures of its steps.
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

    Raises:
        WebhookError: nobody answered in time, or the answer was no success.
    """
    import requests

    try:
        answer = requests.post(url, json=message, timeout=TIMEOUT_S, allow_redirects=False)
    except (requests.RequestException, ValueError) as error:
        # ValueError: what urllib3 raises for an address. Either's own text names it.
        raise WebhookError(
            f"the webhook in {VARIABLE} cannot be reached ({type(error).__name__}); "
            "the message is lost, the run is on the page"
        ) from None
    if not 200 <= answer.status_code < 300:
        raise WebhookError(
            f"the webhook in {VARIABLE} answered {answer.status_code}; "
            "the message is lost, the run is on the page"
        )


def _reason(event: dg.DagsterEvent) -> str:
    data = event.step_failure_data
    if data.user_failure_data is not None and data.user_failure_data.description:
        return data.user_failure_data.description[:MAX_SENTENCE]
    error = data.error
    while error is not None and error.cause is not None:
        error = error.cause
    return error.cls_name or "failed" if error is not None else "failed"
