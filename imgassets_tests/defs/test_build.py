"""Tests of the project's definitions: groups, descriptions, owners and partitions."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import dagster as dg
import pytest

from imgassets.configuration import load_settings
from imgassets.folders import project_root
from imgassets.sources.listing import today
from imgassets_tests.project import project_defs

GROUPS = {
    "product_documents": "source",
    "url_list": "images",
    "face_model": "images",
    "raw_images": "images",
    "processed_images": "images",
    "daily_report": "reports",
    "retailer_report": "reports",
}


@pytest.fixture(autouse=True)
def _clear_settings_cache() -> Iterator[None]:
    load_settings.cache_clear()
    yield
    load_settings.cache_clear()


def specs() -> dict[str, dg.AssetSpec]:
    return {spec.key.to_user_string(): spec for spec in project_defs().resolve_all_asset_specs()}


def test_every_asset_has_a_group_kinds_and_a_description() -> None:
    found = specs()
    assert {name: spec.group_name for name, spec in found.items()} == GROUPS
    for spec in found.values():
        assert spec.kinds
        assert spec.description is not None
        assert len(spec.description) > 60
        assert not spec.owners


def test_every_sensor_schedule_and_job_has_a_description() -> None:
    defs = project_defs()
    found = [*(defs.sensors or ()), *(defs.schedules or ()), *(defs.jobs or ())]
    assert [each.name for each in found if len(each.description or "") < 30] == []


@pytest.mark.parametrize(
    ("data_root", "folder"),
    [
        ("s3://bucket/images/", "s3://bucket/images"),
        ("/mnt/images", "/mnt/images"),
        ("pictures", str(project_root() / "pictures")),
    ],
)
def test_an_asset_names_the_folder_of_its_manifests(
    monkeypatch: pytest.MonkeyPatch, data_root: str, folder: str
) -> None:
    monkeypatch.setenv("IMGASSETS__DATA_ROOT", data_root)
    uris = {name: spec.metadata.get("dagster/uri") for name, spec in specs().items()}
    for name in ("url_list", "raw_images", "processed_images"):
        assert uris[name] == f"{folder}/manifests/{name}"


def test_the_definition_of_an_asset_describes_its_columns() -> None:
    found = specs()
    for name in ("url_list", "raw_images", "processed_images"):
        # The page would show Dagster's own form before the images.
        assert "dagster/column_schema" not in found[name].metadata
        assert "| `document_id` | `string` | no | `_id` of the" in str(
            found[name].metadata["columns"].value
        )
    columns = str(found["raw_images"].metadata["columns"].value).splitlines()
    assert (
        "| `http_status` | `int32` | yes | HTTP status of the last response; null if there was no "
        "response. |"
    ) in columns


def test_every_check_has_a_description() -> None:
    checks = project_defs().resolve_asset_graph().asset_check_keys
    graph = project_defs().resolve_asset_graph()
    assert len(checks) == 12
    for key in checks:
        assert len(str(graph.get_check_spec(key).description)) > 40


def test_partitions_begin_with_the_start_date_and_end_with_today() -> None:
    # In a subprocess, because the definitions read the settings when they are imported.
    program = (
        "from imgassets.definitions import defs\n"
        "catalogue = defs.get_assets_def('url_list').partitions_def\n"
        "days = catalogue.get_partitions_def_for_dimension('date')\n"
        "print(days.get_first_partition_key(), days.get_last_partition_key())"
    )
    before = today()
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "IMGASSETS__START_DATE": "2025-06-30", "TZ": "Pacific/Kiritimati"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    first, last = done.stdout.split()
    assert first == "2025-06-30"
    assert last in {before.isoformat(), today().isoformat()}


def test_owners_in_the_settings_apply_to_every_asset(monkeypatch: pytest.MonkeyPatch) -> None:
    owners = ["team:data", "someone@example.com"]
    monkeypatch.setenv("IMGASSETS__OWNERS", '["team:data", "someone@example.com"]')
    assert {name: [*spec.owners] for name, spec in specs().items()} == dict.fromkeys(GROUPS, owners)
    # Jobs still resolve.
    assert project_defs().resolve_job_def("catalogue_job").name == "catalogue_job"
