"""Asset checks: each passes when it should, and fails when it should.

They run in Dagster, against manifests and files that the tests write.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

import imgassets.assets.processed_images as processed_module
from imgassets.asset_checks import (
    CHECKS,
    download_success_rate,
    every_url_has_a_processed_row,
    every_url_has_a_raw_row,
    face_removal,
    residual_faces,
    trim_ratios,
)
from imgassets.definitions import build_defs
from imgassets.manifests import Outcome, ProcessedRow, RawRow, UrlRow, from_table, to_table
from imgassets.settings import load_settings, project_root
from imgassets.storage import IMAGES, Folder, Storage, read_table, write_table
from imgassets_tests.rows import PARTITION, processed_row, raw_row, url_row

JOBS = [
    dg.define_asset_job(check.check_key.name, selection=dg.AssetSelection.checks(check))
    for check in CHECKS
]
JOB = dg.define_asset_job("from_urls", selection=["raw_images", "processed_images"])


@pytest.fixture(scope="module")
def defs() -> dg.Definitions:
    return dg.Definitions.merge(build_defs(), dg.Definitions(jobs=[*JOBS, JOB]))


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("retailer", [PARTITION.retailer])
        yield instance


class Partition:
    """A partition whose manifests and files a test arranges, and its checks."""

    def __init__(
        self, storage: Storage, defs: dg.Definitions, instance: dg.DagsterInstance
    ) -> None:
        self._storage, self._defs, self._instance = storage, defs, instance

    def folder(self, asset: str) -> Folder:
        return self._storage.partition(asset, *PARTITION)

    def urls(self, rows: Sequence[UrlRow]) -> None:
        write_table(self.folder("url_list"), to_table(rows, UrlRow))

    def raw(self, rows: Sequence[RawRow]) -> None:
        write_table(self.folder("raw_images"), to_table(rows, RawRow))
        self._save("raw_images", rows)

    def processed(self, rows: Sequence[ProcessedRow]) -> None:
        write_table(self.folder("processed_images"), to_table(rows, ProcessedRow))
        self._save("processed_images", rows)

    def _save(self, asset: str, rows: Sequence[RawRow] | Sequence[ProcessedRow]) -> None:
        for row in rows:
            if row.path is not None:
                (self.folder(asset) / IMAGES).write(row.path.removeprefix(f"{IMAGES}/"), b"four")

    def check(self, check: dg.AssetChecksDefinition, **overrides: Any) -> dg.AssetCheckEvaluation:
        """Run one check; overrides are options as of the launchpad."""
        (evaluation,) = self._run(check, overrides).get_asset_check_evaluations()
        return evaluation

    def failure(self, check: dg.AssetChecksDefinition) -> str:
        """Run one check that cannot judge; what the page shows."""
        (event,) = self._run(check, {}).get_step_failure_events()
        failure = event.step_failure_data.user_failure_data
        assert failure is not None
        return str(failure.description)

    def _run(
        self, check: dg.AssetChecksDefinition, overrides: dict[str, Any]
    ) -> dg.ExecuteInProcessResult:
        return self._defs.resolve_job_def(check.check_key.name).execute_in_process(
            instance=self._instance,
            # Dagster 1.13 takes no partition_key where checks run without their asset.
            tags={
                "dagster/partition": PARTITION.key,
                "dagster/partition/date": PARTITION.date,
                "dagster/partition/retailer": PARTITION.retailer,
            },
            run_config={"resources": {"settings": {"config": {"overrides": overrides}}}},
            raise_on_error=False,
        )


@pytest.fixture
def partition(storage: Storage, defs: dg.Definitions, instance: dg.DagsterInstance) -> Partition:
    return Partition(storage, defs, instance)


def _markdown(value: dg.AssetCheckEvaluation, name: str) -> str:
    return str(value.metadata[name].value)


def test_a_raw_manifest_with_all_rows_and_files_passes(partition: Partition) -> None:
    failed = raw_row(1, outcome=Outcome.TIMEOUT, path=None, bytes=None)
    partition.urls([url_row(0), url_row(1)])
    partition.raw([raw_row(0), failed])

    check = partition.check(every_url_has_a_raw_row)

    assert check.passed
    assert check.description == "all 2 URLs are accounted for"
    assert (check.metadata["urls"].value, check.metadata["rows"].value) == (2, 2)
    assert check.partition == "2026-01-31|zara"
    assert check.blocking


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([raw_row(0)], "| picture-1 | has no row |"),
        ([raw_row(0), raw_row(1), raw_row(1)], "| picture-1 | has several rows |"),
        (
            [raw_row(0), raw_row(1), raw_row(2)],
            "| picture-2 | has a row, but is not in url_list |",
        ),
        (
            [raw_row(0), raw_row(1, bytes=5)],
            "| picture-1 | has a file of another size than its row says |",
        ),
        (
            [raw_row(0), raw_row(1, bytes=None)],
            "| picture-1 | has a file of another size than its row says |",
        ),
        ([raw_row(0), raw_row(1, path=None)], "| picture-1 | is ok, but its row names no file |"),
    ],
)
def test_a_raw_manifest_that_does_not_account_for_every_url_fails(
    partition: Partition, rows: list[RawRow], problem: str
) -> None:
    partition.urls([url_row(0), url_row(1)])
    partition.raw(rows)

    check = partition.check(every_url_has_a_raw_row)

    assert not check.passed
    assert check.severity is dg.AssetCheckSeverity.ERROR
    assert check.description == "1 problems with the rows of 2 URLs"
    assert _markdown(check, "problems").splitlines()[2:] == [problem]


def test_a_raw_file_that_is_gone_fails(partition: Partition) -> None:
    partition.urls([url_row(0), url_row(1)])
    partition.raw([raw_row(0), raw_row(1)])
    (partition.folder("raw_images") / IMAGES).remove("picture-0.jpeg")

    check = partition.check(every_url_has_a_raw_row)

    assert not check.passed
    assert _markdown(check, "problems").splitlines()[2:] == [
        "| picture-0 | is named by its row, but its file is gone |"
    ]


def test_a_processed_manifest_with_all_rows_and_files_passes(partition: Partition) -> None:
    partition.urls([url_row(0), url_row(1)])
    partition.processed([processed_row(0), processed_row(1, outcome=Outcome.NO_RAW, path=None)])

    check = partition.check(every_url_has_a_processed_row)

    assert check.passed
    assert check.description == "all 2 URLs are accounted for"
    assert check.blocking


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([processed_row(0)], "has no row"),
        ([processed_row(0), processed_row(1), processed_row(1)], "has several rows"),
        ([processed_row(0), processed_row(1, path=None)], "is ok, but its row names no file"),
    ],
)
def test_a_processed_manifest_that_does_not_account_for_every_url_fails(
    partition: Partition, rows: list[ProcessedRow], problem: str
) -> None:
    partition.urls([url_row(0), url_row(1)])
    partition.processed(rows)

    check = partition.check(every_url_has_a_processed_row)

    assert not check.passed
    assert check.severity is dg.AssetCheckSeverity.ERROR
    assert _markdown(check, "problems").splitlines()[2:] == [f"| picture-1 | {problem} |"]


def test_a_processed_file_that_is_gone_fails(partition: Partition) -> None:
    partition.urls([url_row(0)])
    partition.processed([processed_row(0)])
    (partition.folder("processed_images") / IMAGES).remove("picture-0.jpg")
    check = partition.check(every_url_has_a_processed_row)
    assert not check.passed
    assert "is named by its row, but its file is gone" in _markdown(check, "problems")


def test_every_check_passes_on_an_empty_partition(partition: Partition) -> None:
    partition.urls([])
    partition.raw([])
    partition.processed([])
    never_met = {"face_share": {"min": 1}, "trim_ratio_mean": {"min": 1}, "min_success_rate": 1}
    for check in CHECKS:
        assert partition.check(check, checks=never_met).passed, check.check_key


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: str(check.check_key.name))
def test_a_check_of_what_was_never_materialized_says_what_to_do(
    partition: Partition, check: dg.AssetChecksDefinition
) -> None:
    told = partition.failure(check)
    assert told.endswith("zara was never materialized; materialize it first")


def test_a_check_of_a_broken_manifest_names_the_file(partition: Partition) -> None:
    folder = partition.folder("raw_images")
    folder.write("manifest.parquet", b"broken")
    assert "retailer=zara/manifest.parquet is broken" in partition.failure(download_success_rate)


@pytest.mark.parametrize(("good", "passed"), [(9, True), (8, False)])
def test_the_success_rate_may_not_be_below_its_bound(
    partition: Partition, good: int, passed: bool
) -> None:
    partition.raw(
        [raw_row(number) for number in range(good)]
        + [raw_row(number, outcome=Outcome.HTTP_ERROR) for number in range(good, 10)]
    )

    check = partition.check(download_success_rate)

    assert check.passed is passed
    assert check.severity is dg.AssetCheckSeverity.WARN
    assert check.description == f"{good} of 10 URLs gave a picture; at least 90.0% should"
    assert check.metadata["success rate"].value == good / 10
    assert check.metadata["http_error"].value == 10 - good


@pytest.mark.parametrize(
    ("ratios", "told"),
    [
        ([0.5] * 20, None),
        ([0.15] * 20, "mean is 0.150; it should lie between 0.2 and 1"),
        ([0.01] * 2 + [0.9] * 18, "5th percentile is 0.010; it should lie between 0.05 and 1"),
    ],
    ids=["good", "mean", "hardest trims"],
)
def test_trims_that_keep_too_little_fail(
    partition: Partition, ratios: list[float], told: str | None
) -> None:
    rows = [processed_row(number, trim_ratio=ratio) for number, ratio in enumerate(ratios)]
    # Pictures that were not trimmed do not count.
    rows.append(processed_row(99, outcome=Outcome.TOO_CLOSE, path=None, trim_ratio=None))
    partition.processed(rows)

    check = partition.check(trim_ratios)

    assert check.passed is (told is None)
    assert check.severity is dg.AssetCheckSeverity.WARN
    assert check.description == (told or "mean 0.500, 5th percentile 0.500")
    assert check.metadata["trim ratio/mean"].value == pytest.approx(sum(ratios) / 20)
    assert check.metadata["pictures"].value == 20
    assert "| picture-0 |" in _markdown(check, "tightest")


def test_trims_that_keep_too_much_fail_where_there_is_such_a_bound(partition: Partition) -> None:
    partition.processed([processed_row(trim_ratio=1.0)])
    bounds = {"trim_ratio_mean": {"max": 0.95}, "trim_ratio_p05": {"max": 0.9}}
    check = partition.check(trim_ratios, checks=bounds)
    assert not check.passed
    assert check.description == (
        "mean is 1.000; it should lie between 0.2 and 0.95; "
        "5th percentile is 1.000; it should lie between 0.05 and 0.9"
    )


WITH_FACE = {"face_count": 2, "face_score": 0.9, "face_removed": True}
WITH_FACE_LEFT = WITH_FACE | {"face_removed": False}


def test_faces_that_were_all_removed_pass(partition: Partition) -> None:
    refused = processed_row(2, **WITH_FACE_LEFT, outcome=Outcome.TOO_CLOSE, path=None)
    not_looked_at = processed_row(3, outcome=Outcome.NO_RAW, path=None, face_count=None)
    partition.processed([processed_row(0), processed_row(1, **WITH_FACE), refused, not_looked_at])

    check = partition.check(face_removal)

    assert check.passed
    assert check.description == "2 of 3 pictures had a face, and none has it still"
    assert check.metadata["faces found"].value == 4
    assert check.metadata["share with a face"].value == pytest.approx(2 / 3)


@pytest.mark.parametrize("removed", [False, None])
def test_a_face_that_is_still_there_fails(partition: Partition, removed: bool | None) -> None:
    left = processed_row(1, **WITH_FACE_LEFT | {"face_removed": removed})
    partition.processed([processed_row(0, **WITH_FACE), left])

    check = partition.check(face_removal)

    assert not check.passed
    assert check.severity is dg.AssetCheckSeverity.ERROR
    assert check.description == "1 of 2 pictures with a face still have it"
    assert check.metadata["pictures that still have one"].value == 1
    assert _markdown(check, "still there").splitlines()[2:] == ["| picture-1 | 0.900 |"]


def test_faces_may_stay_where_the_settings_leave_them(partition: Partition) -> None:
    partition.processed([processed_row(0, **WITH_FACE_LEFT)])
    check = partition.check(face_removal, faces={"action": "none"})
    assert check.passed
    assert check.description == "1 of 1 pictures had a face, and faces are left as they are"


def test_a_second_look_that_finds_a_face_fails_and_blocks(partition: Partition) -> None:
    photos = project_root() / "imgassets" / "demo" / "photos"
    partition.processed([processed_row(0, **WITH_FACE), processed_row(1)])
    images = partition.folder("processed_images") / IMAGES
    images.write("picture-0.jpg", (photos / "cutout_c.jpg").read_bytes())
    images.write("picture-1.jpg", (photos / "cutout_no_head.jpg").read_bytes())

    check = partition.check(residual_faces)

    assert not check.passed
    assert check.blocking
    assert check.severity is dg.AssetCheckSeverity.ERROR
    assert str(check.description).startswith("1 of 2 pictures looked at again still show a face")
    assert _markdown(check, "pictures").splitlines()[2:] == ["| picture-0 |"]
    assert partition.check(residual_faces, checks={"max_residual_faces": 0.5}).passed


@pytest.mark.parametrize("bounds", [{"min": 0.6}, {"max": 0.4}])
def test_an_unexpected_share_of_faces_fails(partition: Partition, bounds: dict[str, float]) -> None:
    partition.processed([processed_row(0), processed_row(1, **WITH_FACE)])
    check = partition.check(face_removal, checks={"face_share": bounds})
    assert not check.passed
    assert "share of pictures with a face is 0.500; it should lie between" in str(check.description)


@pytest.mark.parametrize(("retailer", "passed"), [("zara", False), ("other", True)])
def test_bounds_hold_for_the_retailer_that_they_are_set_for(
    partition: Partition,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    retailer: str,
    passed: bool,
) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text(f"retailers: {{{retailer}: {{checks: {{min_success_rate: 1}}}}}}")
    monkeypatch.setenv("IMGASSETS_CONFIG", str(config))
    load_settings.cache_clear()
    rows = [raw_row(number) for number in range(19)]
    partition.raw([*rows, raw_row(19, outcome=Outcome.EMPTY, path=None, bytes=None)])

    assert partition.check(download_success_rate).passed is passed


def _materialize(defs: dg.Definitions, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    return defs.resolve_job_def("from_urls").execute_in_process(
        instance=instance, partition_key=PARTITION.key, raise_on_error=False
    )


def test_nothing_is_processed_where_the_raw_images_are_not_accounted_for(
    partition: Partition, defs: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    # No URL, so that nothing is fetched; and twice the same key, which no source gives.
    partition.urls([url_row(0, url="none"), url_row(0, url="none")])

    result = _materialize(defs, instance)

    checks = {check.check_name: check.passed for check in result.get_asset_check_evaluations()}
    assert not result.success
    assert checks["every_url_has_a_raw_row"] is False
    assert "every_url_has_a_processed_row" not in checks
    assert result.asset_materializations_for_node("processed_images") == []
    assert partition.folder("processed_images").sizes() == {}


def test_a_failed_warning_does_not_stop_the_run(
    partition: Partition,
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(processed_module, "models_folder", lambda: tmp_path / "models")
    partition.urls([url_row(0, url="none")])

    result = _materialize(defs, instance)

    checks = {check.check_name: check.passed for check in result.get_asset_check_evaluations()}
    assert result.success
    assert checks == {
        "every_url_has_a_raw_row": True,
        "download_success_rate": False,
        "every_url_has_a_processed_row": True,
        "trim_ratios": True,
        "face_removal": True,
        "residual_faces": True,
    }
    (row,) = from_table(read_table(partition.folder("processed_images")), ProcessedRow)
    assert row.outcome is Outcome.NO_RAW
