"""Tag runs with the names of their failed checks, and find failed checks of runs.

A run whose checks fail can succeed, so its status does not show them. The tag `FAILED_TAG` does:
one filter in the UI lists all such runs. The event log has the details.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
from filelock import FileLock

FAILED_TAG = "imgassets/failed_check"
"""Tag of runs: `true` if a check failed; `false` if none does since the run was retried."""
NAMES_TAG = "imgassets/failed_checks"
"""Tag of runs: the failed checks and their severities, for example `trim_ratios=warn`."""
_NONE = "none"


@dataclass(frozen=True)
class FailedCheck:
    """A check that failed in a run.

    Attributes:
        name: The name of the check.
        severity: `warn` or `error`.
        description: The description of its result, which is written for users.
    """

    name: str
    severity: str
    description: str


def failed_checks_of_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Severity, `warn` or `error`, of each failed check of a run, by name.

    Args:
        tags: The tags of the run.
    """
    names = tags.get(NAMES_TAG, _NONE)
    return {} if names == _NONE else dict(name.split("=") for name in names.split())


def tag_run(
    context: dg.AssetCheckExecutionContext, results: Iterable[tuple[str, dg.AssetCheckResult]]
) -> None:
    """Add the failed checks of a step to the tags of its run.

    Dagster copies the tags of a run to its retry, so checks that pass are removed from the tag.
    Steps that end at the same time wait for each other: Dagster writes all tags of a run at once,
    and the later step would remove those of the earlier one.

    Args:
        context: The context of the step.
        results: The name and the result of each check of the step.
    """
    run_id = context.run.run_id
    with FileLock(Path(tempfile.gettempdir()) / f"imgassets-{os.getuid()}.lock"):
        run = context.instance.get_run_by_id(run_id)  # with the tags that other steps have added
        before = {} if run is None else failed_checks_of_tags(run.tags)
        after = dict(before)
        for name, result in results:
            after.pop(name, None)
            if not result.passed:
                after[name] = result.severity.value.lower()
        if after != before:
            names = " ".join(f"{name}={severity}" for name, severity in sorted(after.items()))
            tags = {FAILED_TAG: "true" if after else "false", NAMES_TAG: names or _NONE}
            context.instance.add_run_tags(run_id, tags)


def find_failed_checks(instance: dg.DagsterInstance, run_id: str) -> list[FailedCheck]:
    """Find the checks that failed in a run, in the order of their names.

    Args:
        instance: The Dagster instance.
        run_id: The id of the run.
    """
    events = instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    latest = {}
    for event in events:
        if event.dagster_event is not None:
            evaluation = event.dagster_event.asset_check_evaluation_data
            latest[evaluation.asset_check_key] = evaluation
    return sorted(
        (
            FailedCheck(each.check_name, each.severity.value.lower(), each.description or "failed")
            for each in latest.values()
            if not each.passed
        ),
        key=lambda check: check.name,
    )
