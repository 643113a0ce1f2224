"""Tests of the steps of `processed_images`, run by Dagster with several shards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import dagster as dg
import numpy as np
import pytest

from imgassets.errors import StorageError
from imgassets.imaging import partition as imaging_partition
from imgassets.manifests import RawRow, to_table
from imgassets.storage import Storage
from imgassets_tests.project import project_defs
from imgassets_tests.rows import PARTITION, raw_row, saved

IMAGES = 12
STEPS = ["imgassets_tests.imaging.user_steps.record_and_wait"]
PLAN, LAST = "processed_images.plan_processing", "processed_images.process_images"
SHARDS = {f"processed_images.process_shard[shard_000{number}]" for number in range(2)}


def sharded_job() -> dg.JobDefinition:
    """The job of `processed_images` alone, for processes that Dagster starts."""
    selection = dg.AssetSelection.assets("processed_images").without_checks()
    job = dg.define_asset_job("sharded", selection, executor_def=dg.multi_or_in_process_executor)
    defs = dg.Definitions.merge(project_defs(), dg.Definitions(jobs=[job]))
    return defs.resolve_job_def("sharded")


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        instance.add_dynamic_partitions("retailer", [PARTITION.retailer])
        yield instance


@pytest.fixture
def record(tmp_path: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write the manifest of `raw_images`; the file has the numbers of the images once begun."""
    rows = []
    for number in range(IMAGES):
        pixels = np.full((16, 12, 3), (number, 0, 7), np.uint8)
        data = cv2.imencode(".png", pixels)[1].tobytes()
        rows.append(raw_row(number, **saved(data)))
        storage.write(str(rows[-1].path), data)
    storage.partition(*PARTITION).write_manifest("raw_images", to_table(rows, RawRow))
    path = tmp_path / "record.txt"
    path.touch()
    monkeypatch.setenv("IMGASSETS_TEST_RECORD", str(path))
    return path


def _run(
    instance: dg.DagsterInstance,
    storage: Storage,
    shard_size: int,
    executor: str = "in_process",
    **options: Any,
) -> tuple[dg.JobExecutionResult, dict[str, int]]:
    """Run the job; also returns the process id of each step that was executed."""
    date, retailer = PARTITION
    overrides = {
        # Dagster builds the definitions once, for all tests.
        "data_root": storage.root,
        "process": {"steps": STEPS, "processes": 1, "shard_size": shard_size},
    }
    with dg.execute_job(
        dg.reconstructable(sharded_job),
        instance,
        tags={
            "dagster/partition": PARTITION.key,
            "dagster/partition/date": date,
            "dagster/partition/retailer": retailer,
        },
        run_config={
            "execution": {"config": {executor: {}}},
            "resources": {"imgassets_settings": {"config": {"overrides": overrides}}},
        },
        **options,
    ) as result:
        events = (record.dagster_event for record in instance.all_logs(result.run_id))
        steps = {
            str(event.step_key): int(event.pid or 0)
            for event in events
            if event is not None and event.is_step_start
        }
        return result, steps


def _counts(record: Path) -> Counter[int]:
    return Counter(map(int, record.read_text().split()))


def test_an_ordinary_partition_has_no_step_for_shards(
    instance: dg.DagsterInstance, storage: Storage, record: Path
) -> None:
    result, steps = _run(instance, storage, IMAGES)
    assert result.success
    assert steps.keys() == {PLAN, LAST}
    assert _counts(record) == Counter(range(IMAGES))
    # Also if it is large, but its images are known.
    result, steps = _run(instance, storage, 5)
    assert result.success
    assert steps.keys() == {PLAN, LAST}
    assert _counts(record).total() == IMAGES
    assert storage.partition(*PARTITION).read_manifest("processed_images").num_rows == IMAGES


def test_a_run_that_failed_in_a_shard_is_retried_from_there(
    instance: dg.DagsterInstance, storage: Storage, record: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = imaging_partition.process_shard

    def fail_in_the_second(shard: imaging_partition.Shard, *args: Any, **options: Any) -> None:
        process(shard, *args, **options)
        if shard.name == "shard_0001":
            raise StorageError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(imaging_partition, "process_shard", fail_in_the_second)
        failed, steps = _run(instance, storage, IMAGES // 2, raise_on_error=False)
    assert not failed.success
    assert steps.keys() == {PLAN, *SHARDS}
    retry = dg.ReexecutionOptions.from_failure(failed.run_id, instance)
    result, steps = _run(instance, storage, IMAGES // 2, reexecution_options=retry)
    assert result.success
    assert steps.keys() == {"processed_images.process_shard[shard_0001]", LAST}
    assert _counts(record) == Counter(range(IMAGES))


@pytest.mark.slow
def test_an_executor_of_processes_gives_each_shard_its_own(
    instance: dg.DagsterInstance, storage: Storage, record: Path
) -> None:
    result, steps = _run(instance, storage, IMAGES // 2, "multiprocess")
    assert result.success
    assert steps.keys() == {PLAN, LAST, *SHARDS}
    assert len(set(steps.values())) == 4
    assert _counts(record) == Counter(range(IMAGES))
    assert storage.partition(*PARTITION).read_manifest("processed_images").num_rows == IMAGES
