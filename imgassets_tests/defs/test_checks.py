"""Tests of the asset checks in Dagster: their partition, severity, metadata and images.

The tests write manifests and files, and run the checks on them. The logic of the checks is tested
in `imgassets_tests.checks`.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest
from PIL import Image

import imgassets.defs.assets.processed_images as processed_module
import imgassets.defs.checks as checks_module
from imgassets.checks import metrics
from imgassets.checks.outcome import CheckOutcome
from imgassets.configuration import load_settings
from imgassets.defs.checks import build_checks
from imgassets.folders import models_folder, project_root
from imgassets.imaging.faces import load_detector
from imgassets.imaging.models import ensure_model
from imgassets.manifests import Outcome, ProcessedRow, from_table
from imgassets.markdown import GALLERY_BYTES
from imgassets.settings import FaceSettings, SeveritySettings
from imgassets.storage import Storage
from imgassets_tests.partition_fixture import PartitionFixture
from imgassets_tests.project import project_defs, project_scope
from imgassets_tests.rows import PARTITION, processed_row, raw_row, saved, url_row

KEYS = {key.name: key for check in build_checks(project_scope()) for key in check.check_keys}
JOBS = [
    dg.define_asset_job(name, selection=dg.AssetSelection.checks(key)) for name, key in KEYS.items()
]
ALL_CHECKS = dg.define_asset_job("all_checks", selection=dg.AssetSelection.checks(*KEYS.values()))
JOB = dg.define_asset_job("from_urls", selection=["raw_images", "processed_images"])
BLOCKING = {
    "every_url_has_a_raw_row",
    "raw_files_match_rows",
    "every_url_has_a_processed_row",
    "processed_files_match_rows",
    "residual_faces",
}


def definitions() -> dg.Definitions:
    """The project's definitions with the current settings, and a job per check."""
    return dg.Definitions.merge(project_defs(), dg.Definitions(jobs=[*JOBS, ALL_CHECKS, JOB]))


@pytest.fixture
def defs(storage: Storage) -> dg.Definitions:
    assert storage
    return definitions()


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("retailer", [PARTITION.retailer])
        yield instance


class Partition(PartitionFixture):
    """A partition whose manifests and files a test writes, with its checks in Dagster."""

    def __init__(self, storage: Storage, instance: dg.DagsterInstance) -> None:
        super().__init__(storage)
        self._instance = instance

    def check(self, name: str, **overrides: Any) -> dg.AssetCheckEvaluation:
        """Run one check with settings overrides, as the launchpad passes them."""
        (evaluation,) = self.run(name, **overrides).get_asset_check_evaluations()
        return evaluation

    def run(self, job: str, **overrides: Any) -> dg.ExecuteInProcessResult:
        """Run a job of checks with settings overrides."""
        return (
            definitions()
            .resolve_job_def(job)
            .execute_in_process(
                instance=self._instance,
                # Dagster 1.13 accepts no partition_key if checks run without their asset.
                tags={
                    "dagster/partition": PARTITION.key,
                    "dagster/partition/date": PARTITION.date,
                    "dagster/partition/retailer": PARTITION.retailer,
                },
                run_config={
                    "resources": {"imgassets_settings": {"config": {"overrides": overrides}}}
                },
                raise_on_error=False,
            )
        )


@pytest.fixture
def partition(storage: Storage, instance: dg.DagsterInstance) -> Partition:
    return Partition(storage, instance)


def _image_file(shade: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((300, 200, 3), shade, np.uint8)).save(file, "JPEG")
    return file.getvalue()


def _failure(result: dg.ExecuteInProcessResult) -> str:
    """The error message of a step that failed because a check could not run."""
    (event,) = result.get_step_failure_events()
    failure = event.step_failure_data.user_failure_data
    assert failure is not None
    return str(failure.description)


def _gallery(check: dg.AssetCheckEvaluation) -> str:
    return str(check.metadata["images to look at"].value)


def test_each_check_has_a_severity_in_the_settings() -> None:
    others = {"drift", "every_retailer_delivers"}
    assert set(KEYS) | others == set(SeveritySettings.model_fields)


def test_a_check_that_passes_is_recorded_for_the_partition_with_its_metrics(
    partition: Partition,
) -> None:
    failed = raw_row(1, outcome=Outcome.TIMEOUT, path=None, bytes=None)
    partition.urls([url_row(0), url_row(1)])
    partition.raw([raw_row(0), failed])

    check = partition.check("every_url_has_a_raw_row")

    assert check.passed
    assert check.partition == "2026-01-31|zara"
    assert check.description == "2 URLs accounted for"
    assert {name: value.value for name, value in check.metadata.items()} == {
        "urls": 2,
        "rows": 2,
        "problems": 0,
    }


def test_all_checks_of_a_good_partition_pass_and_only_the_guards_are_blocking(
    partition: Partition,
) -> None:
    images = {f"image-{n}": _image_file(n) for n in range(30)}
    columns = {key: saved(data) for key, data in images.items()}
    partition.urls([url_row(n) for n in range(30)])
    partition.raw([raw_row(n, **columns[f"image-{n}"]) for n in range(30)], images)
    partition.processed(
        [processed_row(n, trim_ratio=0.5 + n / 100, **columns[f"image-{n}"]) for n in range(30)],
        images,
    )

    checks = partition.run("all_checks").get_asset_check_evaluations()

    assert {check.check_name for check in checks} == set(KEYS)
    assert [check.description for check in checks if not check.passed] == []
    assert {check.check_name for check in checks if check.blocking} == BLOCKING
    assert {check.partition for check in checks} == {"2026-01-31|zara"}
    numbers = {name: value.value for check in checks for name, value in check.metadata.items()}
    assert numbers["files read"] == 30
    assert numbers["share of copies"] == 0
    assert numbers["trim ratio/mean"] == pytest.approx(0.645)


# Changes to a good partition of two images that make each check fail.
FAILING: dict[str, dict[str, Any]] = {
    "every_url_has_a_raw_row": {"urls": 3},
    "raw_files_match_rows": {"raw_files": {"image-1": _image_file(9)}},
    "download_success_rate": {"checks": {"min_success_rate": 1}, "lost": 1},
    "duplicate_images": {"same": True},
    "every_url_has_a_processed_row": {"urls": 3},
    "processed_files_match_rows": {"made_files": {"image-1": _image_file(9)}},
    "trim_ratios": {"checks": {"trim_ratio_mean": {"min": 0.9}}},
    "face_removal": {"checks": {"face_share": {"min": 0.5}}},
    "residual_faces": {"made_files": {"image-1": b"broken"}},
}


def _write(partition: Partition, failing: dict[str, Any]) -> None:
    images = {f"image-{n}": _image_file(0 if failing.get("same") else 40 * n) for n in range(2)}
    columns = {key: saved(data) for key, data in images.items()}
    partition.urls([url_row(n) for n in range(failing.get("urls", 2))])
    raw = [raw_row(n, **columns[f"image-{n}"]) for n in range(2 - failing.get("lost", 0))]
    lost = [raw_row(1, outcome=Outcome.TIMEOUT, path=None)] * failing.get("lost", 0)
    partition.raw([*raw, *lost], images | failing.get("raw_files", {}))
    partition.processed(
        [processed_row(n, **columns[f"image-{n}"]) for n in range(2)],
        images | failing.get("made_files", {}),
    )


@pytest.mark.parametrize("name", FAILING)
def test_each_check_passes_on_a_good_partition_and_fails_on_a_bad_one(
    partition: Partition, name: str
) -> None:
    assert set(FAILING) == set(KEYS)
    _write(partition, {})
    assert partition.check(name).passed

    failing = FAILING[name]
    _write(partition, failing)
    check = partition.check(name, checks=failing.get("checks", {}))

    assert not check.passed
    assert check.severity.name.lower() == getattr(SeveritySettings(), name)
    assert check.blocking is (name in BLOCKING)
    shown = _gallery(check)
    assert "image-" in shown
    with_file = name not in {
        "every_url_has_a_raw_row",
        "every_url_has_a_processed_row",
        "download_success_rate",
        "residual_faces",
    }
    assert ("![](data:image/webp;base64," in shown) is with_file

    other = "warn" if check.severity is dg.AssetCheckSeverity.ERROR else "error"
    overrides = {**failing.get("checks", {}), "severity": {name: other}}
    assert partition.check(name, checks=overrides).severity.name.lower() == other


def test_a_failed_check_lists_the_images_with_the_reason(partition: Partition) -> None:
    _write(partition, {"raw_files": {"image-1": _image_file(9)[:-5]}})
    check = partition.check("raw_files_match_rows")
    (line,) = _gallery(check).splitlines()[2:]
    assert "image-1 | its file has" in line


def test_the_run_is_tagged_with_its_failed_checks(
    partition: Partition, instance: dg.DagsterInstance
) -> None:
    _write(partition, {"lost": 1})
    done = partition.run("all_checks", checks={"trim_ratio_mean": {"min": 0.9}})
    run = instance.get_run_by_id(done.run_id)
    assert run is not None
    assert run.tags["imgassets/failed_check"] == "true"
    failed = "download_success_rate=warn trim_ratios=warn"  # in two steps
    assert run.tags["imgassets/failed_checks"] == failed

    _write(partition, {})
    run = instance.get_run_by_id(partition.run("every_url_has_a_raw_row").run_id)
    assert run is not None
    assert "imgassets/failed_check" not in run.tags


@pytest.mark.parametrize("blocking", [True, False])
def test_severities_and_bounds_can_be_set_per_retailer(
    partition: Partition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blocking: bool
) -> None:
    name = "every_url_has_a_raw_row" if blocking else "download_success_rate"
    usual, other = ("error", "warn") if blocking else ("warn", "error")
    config = tmp_path / "mine.yaml"
    for retailer, severity in (("zara", other), ("other", usual)):
        config.write_text(
            f"retailers: {{{retailer}: "
            f"{{checks: {{min_success_rate: 0.4, severity: {{{name}: {other}}}}}}}}}"
        )
        monkeypatch.setenv("IMGASSETS_CONFIG", str(config))
        load_settings.cache_clear()
        _write(partition, {"urls": 3, "lost": 1})
        check = partition.check(name)
        assert check.severity.name.lower() == severity
        # Half of the URLs returned an image.
        assert check.passed is (not blocking and retailer == "zara")


def test_drift_has_its_own_severity(partition: Partition, storage: Storage) -> None:
    for day in range(1, 10):
        earlier = PartitionFixture(storage, PARTITION._replace(date=f"2026-01-2{day}"))
        earlier.processed([processed_row(n, trim_ratio=0.8) for n in range(30)])
    partition.processed([processed_row(n, trim_ratio=0.4) for n in range(30)])

    check = partition.check("trim_ratios", checks={"severity": {"trim_ratios": "error"}})

    assert not check.passed
    assert check.severity is dg.AssetCheckSeverity.WARN
    assert "the median of the previous 9 partitions is 0.800" in str(check.description)
    assert check.metadata["trim ratio/mean, recent median"].value == pytest.approx(0.8)
    assert "40.0% of the area kept" in _gallery(check)
    harmful = partition.check("trim_ratios", checks={"severity": {"drift": "error"}})
    assert harmful.severity is dg.AssetCheckSeverity.ERROR
    both = {"trim_ratio_mean": {"min": 0.5}, "severity": {"trim_ratios": "error"}}
    assert partition.check("trim_ratios", checks=both).severity is dg.AssetCheckSeverity.ERROR


def test_every_check_passes_on_an_empty_partition(partition: Partition) -> None:
    partition.urls([])
    partition.raw([])
    partition.processed([])
    unreachable = {"face_share": {"min": 1}, "trim_ratio_mean": {"min": 1}, "min_success_rate": 1}
    checks = partition.run("all_checks", checks=unreachable).get_asset_check_evaluations()
    assert len(checks) == len(KEYS)
    assert all(check.passed for check in checks)


@pytest.mark.parametrize("name", sorted(KEYS))
def test_a_check_of_an_asset_that_was_never_materialized_says_what_to_do(
    partition: Partition, name: str
) -> None:
    message = _failure(partition.run(name))
    assert message.endswith("zara was never materialized; materialize it first")


def test_a_check_that_cannot_run_does_not_prevent_the_others(
    partition: Partition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks_module, "models_folder", lambda: tmp_path)
    partition.processed([processed_row(0)])
    result = partition.run("all_checks", faces={"model_source": str(tmp_path / "none.onnx")})
    checks = {check.check_name: check.passed for check in result.get_asset_check_evaluations()}
    assert checks == {
        "processed_files_match_rows": True,
        "trim_ratios": True,
        "face_removal": True,
    }
    failures = [
        event.step_failure_data.user_failure_data for event in result.get_step_failure_events()
    ]
    descriptions = [str(one.description) for one in failures if one is not None]
    (of_processed,) = [text for text in descriptions if "none.onnx" in text]
    assert "url_list of 2026-01-31|zara was never materialized" in of_processed


def test_a_bug_in_a_check_loses_no_result_of_the_others(
    partition: Partition, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> CheckOutcome:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(metrics, "trim_ratios", fail)
    partition.urls([url_row(0)])
    partition.processed([processed_row(0)])
    result = partition.run("all_checks")
    names = {check.check_name for check in result.get_asset_check_evaluations()}
    assert {"processed_files_match_rows", "face_removal"} <= names
    assert "trim_ratios" not in names
    errors = [event.step_failure_data.error for event in result.get_step_failure_events()]
    assert any(error and "a bug" in error.to_string() for error in errors)


def test_a_face_found_by_the_second_detection_fails_and_is_shown(partition: Partition) -> None:
    photos = project_root() / "imgassets" / "demo" / "photos"
    had_face = {"face_count": 2, "face_score": 0.9, "face_removed": True}
    partition.processed(
        [processed_row(0, **had_face), processed_row(1)],
        {
            "image-0": (photos / "cutout_c.jpg").read_bytes(),
            "image-1": (photos / "cutout_no_head.jpg").read_bytes(),
        },
    )

    check = partition.check("residual_faces")

    assert not check.passed
    assert check.severity is dg.AssetCheckSeverity.ERROR
    assert str(check.description).startswith("still a face in 1 of 2 images checked again")
    (line,) = _gallery(check).splitlines()[2:]
    assert line.startswith("| ![](data:image/webp;base64,")
    assert line.endswith("| image-0 | still shows a face |")
    assert partition.check("residual_faces", checks={"max_residual_faces": 0.5}).passed


def test_the_second_detection_needs_no_file_of_another_detector(partition: Partition) -> None:
    partition.processed([processed_row(0, bytes=len(PORTRAIT))], {"image-0": PORTRAIT})
    faces = {"model": "res10", "model_source": "missing.caffemodel"}
    check = partition.check("residual_faces", faces=faces)
    assert str(check.description).startswith("still a face in 1 of 1 image checked again")


def _materialize(defs: dg.Definitions, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    return defs.resolve_job_def("from_urls").execute_in_process(
        instance=instance, partition_key=PARTITION.key, raise_on_error=False
    )


def test_nothing_is_processed_if_the_raw_rows_check_fails(
    partition: Partition, defs: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    # Not a URL, so that nothing is downloaded; the same key twice, which no source produces.
    partition.urls([url_row(0, url="none"), url_row(0, url="none")])

    result = _materialize(defs, instance)

    checks = {check.check_name: check.passed for check in result.get_asset_check_evaluations()}
    assert not result.success
    assert checks["every_url_has_a_raw_row"] is False
    assert "every_url_has_a_processed_row" not in checks
    assert result.asset_materializations_for_node("processed_images") == []
    assert partition.storage.find("manifests/processed_images") == {}
    assert partition.storage.find("images") == {}


@pytest.mark.parametrize("fatal", [True, False])
def test_a_partition_without_an_image_fails_after_its_manifests_unless_the_setting_says_otherwise(
    partition: Partition,
    instance: dg.DagsterInstance,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fatal: bool,
) -> None:
    monkeypatch.setattr(processed_module, "models_folder", lambda: tmp_path / "models")
    if not fatal:
        monkeypatch.setenv("IMGASSETS__CHECKS__FATAL_SUCCESS_RATE", "0")
        load_settings.cache_clear()
    partition.urls([url_row(0, url="none")])

    result = _materialize(definitions(), instance)

    evaluations = {check.check_name: check for check in result.get_asset_check_evaluations()}
    passed = {name: check.passed for name, check in evaluations.items()}
    assert passed == {name: name != "download_success_rate" for name in KEYS}
    severity = evaluations["download_success_rate"].severity
    assert severity is getattr(dg.AssetCheckSeverity, "ERROR" if fatal else "WARN")
    (row,) = from_table(partition.files.read_manifest("processed_images"), ProcessedRow)
    assert row.outcome is Outcome.NO_RAW
    assert result.success is not fatal
    if fatal:
        assert _failure(result) == evaluations["download_success_rate"].description


def test_a_blocking_check_with_severity_warn_does_not_stop_the_run(
    partition: Partition, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMGASSETS__CHECKS__SEVERITY__EVERY_URL_HAS_A_RAW_ROW", "warn")
    load_settings.cache_clear()
    partition.urls([url_row(0, url="none"), url_row(0, url="none")])
    result = _materialize(definitions(), instance)
    assert len(result.asset_materializations_for_node("processed_images")) == 1


PORTRAIT = (project_root() / "imgassets" / "demo" / "photos" / "portrait_a.jpg").read_bytes()


def _faces_shown(check: dg.AssetCheckEvaluation) -> list[int]:
    """Number of faces in each thumbnail of a failed check, found by the default detector."""
    settings = FaceSettings()
    detector = load_detector(ensure_model(settings, models_folder()), settings)
    found = re.findall(r"data:image/webp;base64,([^)]+)", _gallery(check))
    images = [Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB") for data in found]
    return [len(detector.find(np.asarray(image)[:, :, ::-1].copy())) for image in images]


@pytest.mark.parametrize(("hide_faces", "faces"), [(True, 0), (False, 1)])
@pytest.mark.parametrize("processed", [True, False])
def test_faces_in_raw_images_are_pixelated_also_before_the_images_are_processed(
    partition: Partition, hide_faces: bool, faces: int, processed: bool
) -> None:
    rows = [raw_row(n, **saved(PORTRAIT)) for n in range(2)]
    partition.urls([url_row(n) for n in range(2)])
    partition.raw(rows, {row.key: PORTRAIT for row in rows})
    if processed:
        known = {
            "face_count": 1,
            "face_boxes": [[340, 93, 300, 329]],
            "raw_sha256": rows[0].sha256,
        }
        partition.processed([processed_row(n, **known) for n in range(2)])

    check = partition.check("duplicate_images", review={"hide_faces": hide_faces})

    assert not check.passed
    assert _faces_shown(check) == [faces]


def test_the_faces_of_the_manifest_are_pixelated_also_if_the_detector_finds_none(
    partition: Partition,
) -> None:
    rows = [raw_row(n, **saved(PORTRAIT)) for n in range(2)]
    partition.raw(rows, {row.key: PORTRAIT for row in rows})
    known = {"face_count": 1, "face_boxes": [[340, 93, 300, 329]], "raw_sha256": rows[0].sha256}
    partition.processed([processed_row(n, **known) for n in range(2)])
    blind = {"min_score": 1.0}
    check = partition.check("duplicate_images", faces=blind)
    assert _faces_shown(check) == [0]


def test_a_face_in_a_file_that_is_not_that_of_its_row_is_pixelated(partition: Partition) -> None:
    # The rows of the manifests know nothing about the face in the file that replaced the image.
    partition.processed([processed_row(0, bytes=len(PORTRAIT))], {"image-0": PORTRAIT})
    check = partition.check("processed_files_match_rows")
    assert not check.passed
    assert _faces_shown(check) == [0]


def test_a_face_that_was_kept_or_found_by_the_second_detection_is_pixelated(
    partition: Partition,
) -> None:
    width, height = Image.open(io.BytesIO(PORTRAIT)).size
    kept = {
        **saved(PORTRAIT),
        "face_count": 1,
        "face_boxes": [[340, 93, 300, 329]],
        "face_removed": False,
        "kept_box": [0, 0, width, height],
        "width": width,
        "height": height,
    }
    partition.processed([processed_row(0, **kept)], {"image-0": PORTRAIT})
    assert _faces_shown(partition.check("face_removal")) == [0]

    missed = {**saved(PORTRAIT), "face_count": 0}
    partition.processed([processed_row(0, **missed)], {"image-0": PORTRAIT})
    assert _faces_shown(partition.check("residual_faces")) == [0]
    # The check of the trim does not know that face, and shows it.
    tight = {"trim_ratio_mean": {"min": 0.9}}
    assert _faces_shown(partition.check("trim_ratios", checks=tight)) == [1]


def test_without_a_detector_a_raw_image_is_not_shown_but_its_file_is_named(
    partition: Partition, tmp_path: Path
) -> None:
    _write(partition, {"same": True})
    partition.storage.remove(partition.files.manifest("processed_images"))
    nowhere = {"model_source": str(tmp_path / "none.onnx")}
    shown = _gallery(partition.check("duplicate_images", faces=nowhere))
    row = raw_row(0, **saved(_image_file(0)))
    file = partition.storage.address(str(row.path))
    assert f"| not shown, because its faces are unknown: {file} | image-0 |" in shown
    # Without face detection, there is no detected face to hide.
    shown = _gallery(partition.check("duplicate_images", faces={"action": "none"}))
    assert "data:image/webp" in shown


def test_the_galleries_of_all_failed_checks_of_an_asset_share_its_bytes(
    partition: Partition,
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (30, 15, 15, 3), dtype=np.uint8)
    images = {}
    for number, pixels in enumerate(noise):
        file = io.BytesIO()
        Image.fromarray(pixels).resize((600, 900)).save(file, "JPEG")
        images[f"image-{number}"] = file.getvalue()
    partition.urls([url_row(n) for n in range(30)])
    # Each image has two rows, and another size than they say.
    partition.raw([raw_row(n, bytes=1, sha256=f"{n // 2:064}") for n in range(30)], images)
    rows = [processed_row(n, bytes=1, face_count=1, face_removed=False) for n in range(30)]
    partition.processed([*rows, rows[0]], images)
    checks = {"trim_ratio_mean": {"min": 0.9}}

    result = partition.run("all_checks", checks=checks)

    failed = [check for check in result.get_asset_check_evaluations() if not check.passed]
    assert {check.check_name for check in failed} >= {
        "raw_files_match_rows",
        "duplicate_images",
        "every_url_has_a_processed_row",
        "processed_files_match_rows",
        "trim_ratios",
        "face_removal",
    }
    for asset, max_bytes in GALLERY_BYTES.items():
        texts = [_gallery(check) for check in failed if check.asset_key.path[-1] == asset]
        inline = sum(len(image) for text in texts for image in re.findall(r"!\[.*?\)", text))
        assert max_bytes / 2 < inline <= max_bytes
        assert all("data:image" in text for text in texts)
