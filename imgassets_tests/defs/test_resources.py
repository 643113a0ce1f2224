"""Tests of the resources in assets of imgassets and of users, and of loading the definitions."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from imgassets.configuration import load_settings
from imgassets.defs.partitions import Partition, only_partition, partition_of
from imgassets.defs.resources import MongoDBResource, SettingsResource
from imgassets.manifests import ProcessedRow, RawRow, to_table
from imgassets.settings import Settings
from imgassets.storage import Storage
from imgassets_tests.project import project_defs, project_scope
from imgassets_tests.rows import PARTITION, processed_row, raw_row

catalogue = project_scope().partitions
NEXT_DAY = Partition("2026-02-01", "zara")
_seen: list[Any] = []


@pytest.fixture(autouse=True)
def _clear_seen() -> Iterator[None]:
    _seen.clear()
    yield
    _seen.clear()


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("retailer", ["zara", "asos"])
        yield instance


@dg.asset(partitions_def=catalogue)
def seeing(context: dg.AssetExecutionContext, imgassets_settings: SettingsResource) -> None:
    """Records the partition, the settings and the storage that an asset receives."""
    options = imgassets_settings.load()
    _seen.append((partition_of(context), options, imgassets_settings.storage()))


@dg.asset(partitions_def=catalogue)
def mine(processed_images: pd.DataFrame) -> None:
    """A user's asset downstream of `processed_images`."""
    _seen.append(processed_images)


@dg.asset(partitions_def=catalogue)
def mine_of_raw(raw_images: pd.DataFrame) -> None:
    """A user's asset downstream of the graph asset `raw_images`."""
    _seen.append(raw_images)


@dg.asset(partitions_def=catalogue, io_manager_key="imgassets_manifests")
def returning() -> pd.DataFrame:
    """An asset that returns a value for the IO manager to write."""
    return pd.DataFrame({"key": ["a"]})


def _run(
    asset: str,
    instance: dg.DagsterInstance,
    *,
    partition: Partition = PARTITION,
    tags: dict[str, str] | None = None,
    overrides: dict[str, Any] | None = None,
) -> dg.ExecuteInProcessResult:
    defs = dg.Definitions.merge(
        project_defs(),
        dg.Definitions(
            assets=[seeing, mine, mine_of_raw, returning],
            jobs=[dg.define_asset_job("job", selection=[asset])],
        ),
    )
    config = {"resources": {"imgassets_settings": {"config": {"overrides": overrides or {}}}}}
    return defs.resolve_job_def("job").execute_in_process(
        instance=instance,
        partition_key=None if tags else partition.key,
        tags=tags,
        run_config=config,
        raise_on_error=False,
    )


def _failure(result: dg.ExecuteInProcessResult) -> str:
    (event,) = result.get_step_failure_events()
    data = event.step_failure_data
    if data.user_failure_data is not None:
        return str(data.user_failure_data.description)
    assert data.error is not None
    return data.error.to_string()


def test_overrides_of_the_launchpad_reach_assets(
    storage: Storage, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    overrides = {"download": {"threads": 8}, "data_root": f"{tmp_path}/elsewhere"}
    assert _run("seeing", instance, overrides=overrides).success
    ((partition, options, given),) = _seen
    assert partition == PARTITION
    assert options.download.threads == 8
    assert options.trim == load_settings().trim
    assert given == Storage(f"{tmp_path}/elsewhere")
    assert given != storage


def test_without_overrides_assets_have_the_settings_of_the_code_location(
    storage: Storage, instance: dg.DagsterInstance
) -> None:
    assert _run("seeing", instance).success
    assert _seen == [(PARTITION, load_settings(), storage)]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"download": {"threads": 0}}, "overrides: download.threads: got 0"),
        ({"downlaod": {}}, "overrides: downlaod: there is no such option"),
        ({"retailers": {"zara": {"trim": {"step": "x"}}}}, "retailers.zara.trim.step: got 'x'"),
    ],
)
def test_an_invalid_override_fails_the_run_and_is_named(
    storage: Storage, instance: dg.DagsterInstance, overrides: dict[str, Any], message: str
) -> None:
    assert not Path(storage.root).exists()
    result = _run("seeing", instance, overrides=overrides)
    assert not result.success
    assert message in _failure(result)
    assert _seen == []


def test_an_invalid_override_is_a_failure_that_is_not_retried(storage: Storage) -> None:
    assert not Path(storage.root).exists()
    with pytest.raises(dg.Failure) as failure:
        SettingsResource(overrides={"data_root": ""}).load()
    assert failure.value.allow_retries is False


def test_an_asset_of_a_user_receives_a_manifest_as_a_data_frame(
    storage: Storage, instance: dg.DagsterInstance
) -> None:
    for partition, ratio in ((PARTITION, 0.25), (NEXT_DAY, 0.75)):
        rows = [processed_row(0, trim_ratio=ratio, face_box=[1, 2, 3, 4])]
        files = storage.partition(*partition)
        files.write_manifest("processed_images", to_table(rows, ProcessedRow))

    assert _run("mine", instance).success
    assert _run("mine", instance, partition=NEXT_DAY).success

    assert [frame["trim_ratio"].tolist() for frame in _seen] == [[0.25], [0.75]]
    assert list(_seen[0]["face_box"][0]) == [1, 2, 3, 4]
    assert _seen[0]["outcome"].tolist() == ["ok"]


def test_an_asset_of_a_user_receives_the_manifest_of_a_graph_asset(
    storage: Storage, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    elsewhere = Storage(f"{tmp_path}/elsewhere")
    assert elsewhere != storage
    rows = [raw_row(0), raw_row(1)]
    elsewhere.partition(*PARTITION).write_manifest("raw_images", to_table(rows, RawRow))
    overrides = {"data_root": elsewhere.root}
    assert _run("mine_of_raw", instance, overrides=overrides).success
    assert _seen[0]["key"].tolist() == ["image-0", "image-1"]


def test_a_missing_input_of_a_users_asset_is_a_failure_that_names_it(
    storage: Storage, instance: dg.DagsterInstance
) -> None:
    assert not Path(storage.root).exists()
    message = _failure(_run("mine", instance))
    assert "processed_images of 2026-01-31|zara was never materialized" in message


def test_a_broken_input_of_a_users_asset_is_a_failure_that_names_it(
    storage: Storage, instance: dg.DagsterInstance
) -> None:
    storage.write(storage.partition(*PARTITION).manifest("processed_images"), b"broken")
    message = _failure(_run("mine", instance))
    assert "processed_images/zara.2026-01-31.parquet is broken" in message
    assert "materialize its partition again" in message


def test_the_io_manager_rejects_a_returned_value(
    storage: Storage, instance: dg.DagsterInstance
) -> None:
    message = _failure(_run("returning", instance))
    assert "returning returned a DataFrame; write the manifest with imgassets.storage" in message
    assert not Path(storage.root).exists()


@pytest.mark.parametrize("asset", ["seeing", "url_list", "raw_images", "processed_images", "mine"])
def test_a_run_of_several_partitions_is_rejected(
    storage: Storage, instance: dg.DagsterInstance, asset: str
) -> None:
    tags = {
        "dagster/asset_partition_range_start": "2026-01-30|zara",
        "dagster/asset_partition_range_end": "2026-01-31|zara",
    }
    message = _failure(_run(asset, instance, tags=tags))
    assert "this run has 2 partitions, but a run handles exactly one: launch a backfill" in message
    assert _seen == []
    assert not Path(storage.root).exists()


@pytest.mark.parametrize("retailer", ["../../up", "Nike Kids", "a|b", "a\nb", ""])
def test_a_partition_that_a_user_added_with_a_name_that_is_no_slug_is_refused(
    retailer: str,
) -> None:
    """Its manifests could be written outside of their folder."""
    with pytest.raises(dg.Failure, match=r"is no slug .* so no document belongs to it: delete it"):
        only_partition([f"2026-01-02|{retailer}"])


@pytest.mark.parametrize("asset", ["raw_images", "processed_images"])
def test_a_missing_input_is_a_failure_that_names_what_to_materialize(
    storage: Storage, instance: dg.DagsterInstance, asset: str
) -> None:
    assert not Path(storage.root).exists()
    message = _failure(_run(asset, instance))
    assert message.endswith("of 2026-01-31|zara was never materialized; materialize it first")


def test_the_partition_key_has_the_date_first() -> None:
    assert str(PARTITION.key) == "2026-01-31|zara"


def test_the_address_of_mongodb_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MONGODB_URI", " mongodb://127.0.0.1:1/ ")
    assert MongoDBResource().address() == "mongodb://127.0.0.1:1/"


def test_a_csv_source_needs_no_mongodb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MONGODB_URI", raising=False)
    monkeypatch.setattr(MongoDBResource, "address", lambda _: pytest.fail("asked for MongoDB"))
    path = tmp_path / "urls.csv"
    path.write_text("url,retailer,date\nhttp://127.0.0.1/1.jpg,Zara,2026-01-31\n")
    settings = Settings.model_validate({"source": {"kind": "csv", "path": str(path)}})
    rows = MongoDBResource().source(settings).listing(*PARTITION).rows
    assert [row.url for row in rows] == ["http://127.0.0.1/1.jpg"]


LOADING = """
import os, sys

def watch(event, args):
    if event.startswith(("socket.connect", "socket.getaddrinfo", "os.mkdir")):
        print(event, args)
    # Dagster calls platform.architecture(), which runs the program `file`.
    if event == "subprocess.Popen" and args[0] != "file":
        print(event, args)
    if event == "open" and args[0] != os.devnull and args[2] & (os.O_WRONLY | os.O_RDWR):
        print(event, args)

sys.addaudithook(watch)
import imgassets.definitions
heavy = {"cv2", "numpy", "pandas", "PIL", "pyarrow", "pymongo", "requests", "s3fs", "upath"}
print("imported:", sorted(heavy & set(sys.modules)))
"""


def test_loading_the_definitions_has_no_heavy_imports_and_no_side_effects(tmp_path: Path) -> None:
    loaded = subprocess.run(
        # -B: do not write bytecode files, which the audit hook would report.
        [sys.executable, "-B", "-c", LOADING],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "MONGODB_URI": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert loaded.stdout == "imported: []\n"
    assert list(tmp_path.iterdir()) == []


# What the assets and checks import in a run that downloads, processes and draws nothing.
NOTHING_TO_DO = """
import sys
import imgassets.checks.context, imgassets.checks.duplicates, imgassets.checks.files
import imgassets.checks.metrics, imgassets.checks.residual_faces, imgassets.checks.rows
import imgassets.download.partition, imgassets.imaging.models, imgassets.imaging.partition
import imgassets.imaging.residual_sample, imgassets.review.pages, imgassets.takedown
heavy = {"cv2", "loky", "onnx", "onnxruntime", "pandas", "PIL", "pycurl", "requests"}
print("imported:", sorted(heavy & set(sys.modules)))
"""


def test_a_run_with_nothing_to_do_imports_nothing_that_requests_or_processes_images() -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", NOTHING_TO_DO],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert loaded.stdout == "imported: []\n"


def test_an_invalid_option_prevents_loading_the_definitions_and_is_named() -> None:
    loaded = subprocess.run(
        [sys.executable, "-B", "-c", "import imgassets.definitions"],
        env={**os.environ, "IMGASSETS__DOWNLOAD__THREADS": "0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert loaded.returncode == 1
    assert "SettingsError: environment: download.threads: got '0'" in loaded.stderr
