"""Tests of imgassets as a library: `build_defs` and the component in a user's code location."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from imgassets import CatalogueComponent, Settings, build_defs
from imgassets.defs.resources import ManifestIOManager, MongoDBResource, SettingsResource
from imgassets.errors import SettingsError
from imgassets.folders import project_root
from imgassets.storage import storage_at

DAY = "2026-01-02"
SELECTED = ("url_list", "raw_images", "processed_images")


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def catalogue(folder: Path, name: str, urls: int) -> Settings:
    """Settings with a CSV file as source, whose URLs all fail with a connection error."""
    lines = [f"http://127.0.0.1:9/{n}.jpg,{name},{DAY}" for n in range(urls)]
    (folder / f"{name}.csv").write_text("\n".join(["url,retailer,date", *lines]))
    return Settings.model_validate(
        {
            "data_root": str(folder / f"data-{name}"),
            "source": {"kind": "csv", "path": str(folder / f"{name}.csv")},
            "download": {"retries": 0, "robots": False, "allow_private_addresses": True},
            "checks": {"fatal_success_rate": 0},
        }
    )


def run(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    job: str,
    retailer: str,
    config: dict[str, Any] | None = None,
) -> dg.ExecuteInProcessResult:
    return defs.resolve_job_def(job).execute_in_process(
        instance=instance,
        partition_key=dg.MultiPartitionKey({"date": DAY, "retailer": retailer}),
        run_config=config or {},
    )


def rows(folder: Path, name: str) -> int:
    return len(pd.read_parquet(folder / f"data-{name}/manifests/raw_images/{name}.{DAY}.parquet"))


class Theirs(dg.ConfigurableResource[Any]):
    """A resource of the user's code location."""

    word: str = "theirs"


@dg.asset(key=["theirs", "raw_images"])
def their_raw_images(settings: Theirs) -> dg.MaterializeResult[Any]:
    """An asset of the user with the same name as an asset of imgassets."""
    return dg.MaterializeResult(metadata={"word": settings.word})


def test_definitions_merge_into_a_location_with_its_own_executor_resource_and_asset_names(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    ours = build_defs(catalogue(tmp_path, "zara", 2), key_prefix="fashion")
    theirs = dg.Definitions(
        assets=[their_raw_images],
        resources={"settings": Theirs()},
        executor=dg.in_process_executor,
        jobs=[dg.define_asset_job("their_job", selection=[their_raw_images])],
    )
    defs = dg.Definitions.merge(theirs, ours)
    dg.Definitions.validate_loadable(defs)
    instance.add_dynamic_partitions("fashion_retailer", ["zara"])

    result = run(defs, instance, "fashion_catalogue_job", "zara")
    assert result.success
    assert rows(tmp_path, "zara") == 2
    made = {event.asset_key for event in result.get_asset_materialization_events()}
    assert made == {dg.AssetKey(["fashion", asset]) for asset in ("face_model", *SELECTED)}
    assert len(result.get_asset_check_evaluations()) == 9

    own = defs.resolve_job_def("their_job").execute_in_process(instance=instance)
    (event,) = own.get_asset_materialization_events()
    assert event.materialization.metadata["word"].value == "theirs"


def test_two_catalogues_run_side_by_side_in_one_location(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    defs = dg.Definitions.merge(
        build_defs(catalogue(tmp_path, "zara", 2), key_prefix="eu"),
        build_defs(catalogue(tmp_path, "asos", 3), key_prefix=["us", "outlet"]),
    )
    dg.Definitions.validate_loadable(defs)
    instance.add_dynamic_partitions("eu_retailer", ["zara"])
    instance.add_dynamic_partitions("us_outlet_retailer", ["asos"])
    assert run(defs, instance, "eu_catalogue_job", "zara").success
    assert run(defs, instance, "us_outlet_catalogue_job", "asos").success
    assert (rows(tmp_path, "zara"), rows(tmp_path, "asos")) == (2, 3)
    # `__ASSET_JOB` is Dagster's implicit job.
    names = {job.name for job in defs.get_repository_def().get_all_jobs()} - {"__ASSET_JOB"}
    jobs = ("catalogue_job", "daily_report_job", "freshness_job", "retry_failed")
    assert names == {f"{prefix}_{job}" for prefix in ("eu", "us_outlet") for job in jobs}


def test_every_name_has_the_key_prefix() -> None:
    defs = build_defs(Settings(), key_prefix="eu")
    repository = defs.get_repository_def()
    named = [
        *(job.name for job in repository.get_all_jobs() if job.name != "__ASSET_JOB"),
        *(schedule.name for schedule in repository.schedule_defs),
        *(sensor.name for sensor in repository.sensor_defs),
        *(defs.resources or {}),
    ]
    assert len(named) == 14
    assert all(name.startswith("eu_") for name in named)
    assert {key.path[0] for key in repository.asset_graph.get_all_asset_keys()} == {"eu"}


def test_definitions_have_an_executor_only_if_one_is_given() -> None:
    assert build_defs(Settings()).executor is None
    given = build_defs(Settings(), executor=dg.in_process_executor)
    assert given.executor is dg.in_process_executor


def test_the_settings_name_the_executor(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    settings = catalogue(tmp_path, "zara", 1).model_copy(
        update={
            "executor": "dagster.in_process_executor",
            "executor_config": {"retries": {"disabled": {}}},
        }
    )
    instance.add_dynamic_partitions("retailer", ["zara"])
    defs = build_defs(settings)
    assert defs.executor is not None
    assert run(defs, instance, "catalogue_job", "zara").success
    given = build_defs(settings, executor=dg.multiprocess_executor)
    assert given.executor is dg.multiprocess_executor


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("dagster.fast_executor", "executor: dagster.fast_executor cannot be imported: .*install"),
        ("dagster.asset", "executor: dagster.asset is a function, not an executor; give the "),
    ],
)
def test_an_executor_that_does_not_exist_or_is_none_is_refused(path: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        build_defs(Settings(executor=path))


def test_what_ops_pass_to_each_other_is_in_the_data_root(
    tmp_path: Path, s3: str, instance: dg.DagsterInstance
) -> None:
    settings = catalogue(tmp_path, "zara", 2)
    settings = settings.model_copy(
        update={
            "data_root": f"s3://{s3}/data",
            "download": settings.download.model_copy(update={"shard_size": 1}),
        }
    )
    instance.add_dynamic_partitions("retailer", ["zara"])
    result = run(build_defs(settings), instance, "catalogue_job", "zara")
    assert result.success
    values = storage_at(settings.data_root).find(f"journal/temporary/values/{result.run_id}")
    steps = {path.split("/")[4].partition("[")[0] for path in values}
    assert steps == {"raw_images.download_images"}


def test_resources_that_depend_on_a_replaced_resource_are_rebuilt(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    elsewhere = SettingsResource(overrides={"data_root": str(tmp_path / "elsewhere")})
    seen: list[int] = []

    ours = build_defs(catalogue(tmp_path, "asos", 1), resources={"settings": elsewhere})
    partitions = ours.get_assets_def("raw_images").partitions_def

    @dg.asset(partitions_def=partitions)
    def downstream(raw_images: pd.DataFrame) -> None:
        seen.append(len(raw_images))

    defs = dg.Definitions.merge(
        ours,
        dg.Definitions(
            assets=[downstream], jobs=[dg.define_asset_job("both", ["raw_images", "downstream"])]
        ),
    )
    instance.add_dynamic_partitions("retailer", ["asos"])
    assert run(defs, instance, "catalogue_job", "asos").success
    # The downstream asset reads the manifest from the data root of the replaced settings.
    assert run(defs, instance, "both", "asos").success
    assert seen == [1]
    assert (tmp_path / "elsewhere").exists()
    assert not (tmp_path / "data-asos").exists()


def test_overrides_of_a_plain_settings_resource_apply_to_the_settings_of_the_definitions(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    mine = SettingsResource(overrides={"data_root": str(tmp_path / "data-zara")})
    settings = catalogue(tmp_path, "zara", 3).model_copy(update={"data_root": "/nowhere"})
    defs = build_defs(settings, resources={"settings": mine})
    instance.add_dynamic_partitions("retailer", ["zara"])
    assert run(defs, instance, "catalogue_job", "zara").success
    assert rows(tmp_path, "zara") == 3


def test_mongodb_and_the_io_manager_can_be_replaced() -> None:
    class TheirMongoDB(MongoDBResource):
        pass

    class TheirManifests(ManifestIOManager):
        pass

    mongodb = TheirMongoDB()
    manifests = TheirManifests(settings=SettingsResource())
    defs = build_defs(Settings(), resources={"mongodb": mongodb, "manifests": manifests})
    dg.Definitions.validate_loadable(defs)
    assert defs.resources is not None
    assert defs.resources["imgassets_mongodb"] is mongodb
    assert defs.resources["imgassets_manifests"] is manifests


def test_an_unknown_resource_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"unknown resource 'setings'; .* replaced: settings, "):
        build_defs(Settings(), resources={"setings": SettingsResource()})


def test_given_partitions_are_used(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    partitions = dg.MultiPartitionsDefinition(
        {
            "date": dg.DailyPartitionsDefinition(start_date="2025-01-01"),
            "retailer": dg.DynamicPartitionsDefinition(name="shops"),
        }
    )
    defs = build_defs(catalogue(tmp_path, "zara", 1), partitions=partitions)
    instance.add_dynamic_partitions("shops", ["zara"])
    assert run(defs, instance, "catalogue_job", "zara").success
    assert defs.get_assets_def("url_list").partitions_def is partitions


def test_partitions_with_other_dimensions_are_rejected() -> None:
    partitions = dg.MultiPartitionsDefinition(
        {
            "date": dg.DailyPartitionsDefinition(start_date="2025-01-01"),
            "shop": dg.DynamicPartitionsDefinition(name="shops"),
        }
    )
    with pytest.raises(ValueError, match="dimensions date \\(daily\\) and retailer"):
        build_defs(Settings(), partitions=partitions)


PROJECT = {
    "pyproject.toml": """
[project]
name = "shop"
version = "0.1"
[tool.dg]
directory_type = "project"
[tool.dg.project]
root_module = "shop"
""",
    "shop/__init__.py": "",
    "shop/definitions.py": """
from pathlib import Path
import dagster as dg

@dg.definitions
def defs():
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
""",
    "shop/defs/__init__.py": "",
    "shop/defs/catalogue/defs.yaml": """
type: imgassets.CatalogueComponent
attributes:
  key_prefix: fashion
  settings:
    source: {kind: csv, path: urls.csv}
""",
}


def dg_command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("dg"), *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.slow
def test_a_dg_project_loads_the_component_from_yaml(tmp_path: Path) -> None:
    for name, text in PROJECT.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert "CatalogueComponent" in dg_command(tmp_path, "list", "components").stdout
    checked = dg_command(tmp_path, "check", "defs")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    listed = dg_command(tmp_path, "list", "defs", "--json")
    found = json.loads(listed.stdout[listed.stdout.index("{") :])
    assert {asset["asset_key"] for asset in found["assets"]} == {
        f"fashion/{name}"
        for name in (
            "product_documents",
            "face_model",
            *SELECTED,
            "daily_report",
            "retailer_report",
        )
    }
    kinds = {asset["asset_key"]: asset["kinds"] for asset in found["assets"]}
    assert sorted(kinds["fashion/url_list"]) == ["csv", "parquet"]

    (tmp_path / "shop/defs/catalogue/defs.yaml").write_text(
        "type: imgassets.CatalogueComponent\nattributes: {setings: {}}\n"
    )
    wrong = dg_command(tmp_path, "check", "yaml")
    assert wrong.returncode != 0
    assert "setings" in wrong.stdout + wrong.stderr


@pytest.mark.slow
def test_dg_accepts_this_repository_as_a_project() -> None:
    checked = dg_command(project_root(), "check", "defs")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "catalogue_job" in dg_command(project_root(), "list", "defs").stdout


def test_an_invalid_option_of_the_component_is_named_in_the_error() -> None:
    component = CatalogueComponent(settings={"download": {"threads": 0}})
    with pytest.raises(SettingsError, match=r"settings: download\.threads: got 0"):
        component.build_defs(dg.ComponentTree.for_test().load_context)


IMPORT = """
import sys
import imgassets
print(sorted({"dagster", "cv2", "numpy", "pydantic"} & set(sys.modules)))
from imgassets import Settings
print(sorted({"dagster", "cv2"} & set(sys.modules)))
print(imgassets.__version__)
"""


def test_importing_the_package_imports_neither_dagster_nor_opencv() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True, timeout=120
    )
    lines = done.stdout.splitlines()
    assert lines[:2] == ["[]", "[]"]
    assert lines[2][0].isdigit()


def test_an_unknown_name_in_the_package_is_an_attribute_error() -> None:
    import imgassets

    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = imgassets.nothing
