"""What the page says of the assets themselves, whatever partition is looked at."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import dagster as dg
import pytest

from imgassets.configuration import load_settings
from imgassets.sources.listing import today
from imgassets_tests.project import project_defs

GROUPS = {
    "product_documents": "source",
    "url_list": "images",
    "face_model": "images",
    "raw_images": "images",
    "processed_images": "images",
}


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    load_settings.cache_clear()
    yield
    load_settings.cache_clear()


def specs() -> dict[str, dg.AssetSpec]:
    return {spec.key.to_user_string(): spec for spec in project_defs().resolve_all_asset_specs()}


def test_every_asset_stands_in_a_group_and_says_what_it_is() -> None:
    found = specs()
    assert {name: spec.group_name for name, spec in found.items()} == GROUPS
    for spec in found.values():
        assert spec.kinds
        assert spec.description is not None
        assert len(spec.description) > 60
        assert not spec.owners


def test_every_check_says_what_must_hold() -> None:
    checks = project_defs().resolve_asset_graph().asset_check_keys
    graph = project_defs().resolve_asset_graph()
    assert len(checks) == 10
    for key in checks:
        assert len(str(graph.get_check_spec(key).description)) > 40


def test_partitions_begin_with_the_start_date_and_end_with_today() -> None:
    # In a process of its own: definitions read the settings when they are loaded.
    asked = (
        "from imgassets.definitions import defs\n"
        "catalogue = defs.get_assets_def('url_list').partitions_def\n"
        "days = catalogue.get_partitions_def_for_dimension('date')\n"
        "print(days.get_first_partition_key(), days.get_last_partition_key())"
    )
    before = today()
    done = subprocess.run(
        [sys.executable, "-c", asked],
        env={**os.environ, "IMGASSETS__START_DATE": "2025-06-30", "TZ": "Pacific/Kiritimati"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    first, last = done.stdout.split()
    assert first == "2025-06-30"
    assert last in {before.isoformat(), today().isoformat()}


def test_the_owners_of_the_settings_own_every_asset(monkeypatch: pytest.MonkeyPatch) -> None:
    owners = ["team:data", "someone@example.com"]
    monkeypatch.setenv("IMGASSETS__OWNERS", '["team:data", "someone@example.com"]')
    assert {name: [*spec.owners] for name, spec in specs().items()} == dict.fromkeys(GROUPS, owners)
    # What is built of changed assets is still whole.
    assert project_defs().resolve_job_def("catalogue_job").name == "catalogue_job"
