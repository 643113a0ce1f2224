"""The data contract with the engines that read it: the examples of `docs/data-contract.md` run.

Each example runs in a process of its own, as users run it: in a folder whose `.imgassets/data` is
the data root. So their threads, caches and warnings stay out of this process.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import uuid
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import pytest
import yaml
from pymongo import MongoClient

import imgassets
from imgassets.defs.metadata import columns_file
from imgassets.demo.catalogue import documents
from imgassets.demo.server import CatalogueServer
from imgassets.folders import project_root
from imgassets.manifest_reference import ROWS, columns, document, with_tables
from imgassets.manifests import (
    PROCESSED_IMAGES,
    RAW_IMAGES,
    SCHEMA_VERSION,
    URL_FIELDS,
    URL_LIST,
    Outcome,
)
from imgassets.storage import OP_VALUES, PROCESSED_FILES, RAW_FILES, Storage
from imgassets_tests.data_root import PARTITIONS, write_data_root

SCHEMAS = {
    "url_list": URL_LIST,
    "raw_images": RAW_IMAGES,
    "processed_images": PROCESSED_IMAGES,
}
MATERIALIZED = ("2026-01-02|nord-sol", "2026-01-03|nord-sol")
RETAILER, DATE = "zara", "2026-01-02"
"""The partition that the examples select."""
SPLIT_SLUG = "test-shop"
"""A slug that `datasets` takes for the split `test`."""
DATA_ROOT = Path(".imgassets", "data")
# Set by CI: without an engine or Java, the tests fail instead of being skipped.
ENGINES_REQUIRED = "IMGASSETS_TESTS_NEED_ENGINES"


@pytest.fixture(scope="module")
def project(
    tmp_path_factory: pytest.TempPathFactory, mongodb_uri: str, catalogue_folder: Path
) -> Path:
    """A folder with a data root: real runs of the demo's catalogue, and composed partitions.

    The composed ones have what the demo lacks: an image that rows share, an empty partition. Tests
    derive what they expect from the manifests, read one by one.
    """
    folder = tmp_path_factory.mktemp("engines")
    write_data_root(Storage(str(folder / DATA_ROOT)))
    _materialize(folder, mongodb_uri, catalogue_folder)
    return folder


def _materialize(folder: Path, mongodb_uri: str, catalogue_folder: Path) -> None:
    """Materialize partitions of the demo's catalogue into the data root."""
    database = f"test_{uuid.uuid4().hex}"
    config = {
        "data_root": str(folder / DATA_ROOT),
        "source": {"database": database},
        "download": {"backoff_s": 0.01, "allow_private_addresses": True},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(folder / "dagster_home"),
        "IMGASSETS_CONFIG": str(folder / "config.yaml"),
        "MONGODB_URI": mongodb_uri,
    }

    def call(*command: str) -> None:
        program = Path(sys.executable).with_name(command[0])
        subprocess.run(
            [program, *command[1:]], env=environment, cwd=project_root(), check=True, timeout=200
        )

    with (
        CatalogueServer(catalogue_folder) as server,
        MongoClient[dict[str, Any]](mongodb_uri) as client,
    ):
        client[database]["products"].insert_many(documents(server.url))
        call("imgassets", "sync")
        for partition in MATERIALIZED:
            assets = "url_list,face_model,raw_images,processed_images"
            options = ("--select", assets, "--partition", partition)
            call("dagster", "asset", "materialize", *options, "-m", "imgassets.definitions")
        client.drop_database(database)


@pytest.fixture(scope="module")
def project_with_split_slug(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data root in which the slug of a retailer is a split for `datasets`."""
    folder = tmp_path_factory.mktemp("engines")
    partitions = {**PARTITIONS, (SPLIT_SLUG, DATE): {"a": "yellow"}}
    write_data_root(Storage(str(folder / DATA_ROOT)), partitions)
    return folder


def rows_of(project: Path, asset: str) -> list[dict[str, Any]]:
    """All rows of an asset, from its files one by one."""
    files = sorted((project / DATA_ROOT / "manifests" / asset).iterdir())
    return [row for file in files for row in pq.ParquetFile(file).read().to_pylist()]


def identity(row: dict[str, Any]) -> list[str]:
    return [row["retailer"], str(row["date"])[:10], row["key"]]


def blocks(heading: str, path: Path | None = None) -> list[str]:
    """The Python examples of a section of a document."""
    text = (path or document()).read_text("utf-8")
    (section,) = re.findall(rf"^#+ {heading}\n(.*?)(?=^#|\Z)", _mask(text), re.M | re.S)
    found = re.findall(r"^ *```python\n(.*?)^ *```", section, re.S | re.M)
    return [textwrap.dedent(block).replace("\0", "#") for block in found]


def _mask(text: str) -> str:
    """Replace `#` in code, so that comments are not headings."""
    return re.sub(
        r"^ *```.*?^ *```", lambda match: match[0].replace("#", "\0"), text, flags=re.M | re.S
    )


def run(project: Path, code: str) -> Any:
    """Run code in the project's folder; returns the value of its variable `report`."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(project_root()),
        "IMGASSETS__DATA_ROOT": str(project / DATA_ROOT),
        "HF_HOME": str(project / "huggingface"),
        "HF_HUB_OFFLINE": "1",
        "SPARK_LOCAL_IP": "127.0.0.1",
        "PYSPARK_SUBMIT_ARGS": (
            "--conf spark.ui.enabled=false --conf spark.sql.shuffle.partitions=1 pyspark-shell"
        ),
        "PYSPARK_PYTHON": sys.executable,
    }
    code += "\nimport json, pathlib\n"
    code += "pathlib.Path('report.json').write_text(json.dumps(report, default=str))\n"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((project / "report.json").read_text())


class Engine(NamedTuple):
    """How the results of an engine are converted to Python's types."""

    package: str
    rows: str
    """Expression for the rows of `it` as dictionaries."""
    types: str
    """Expression for names and types of the columns of `it`."""


ENGINES = {
    "pandas": Engine("pandas", "it.to_dict('records')", "it.dtypes.items()"),
    "PyArrow": Engine(
        "pyarrow",
        "getattr(it, 'to_table', lambda: it)().to_pylist()",
        "[(field.name, field.type) for field in it.schema]",
    ),
    "DuckDB": Engine(
        "duckdb",
        "[dict(zip(it.columns, row)) for row in it.fetchall()]",
        "zip(it.columns, it.types)",
    ),
    "Polars": Engine(
        "polars", "it.lazy().collect().to_dicts()", "it.lazy().collect_schema().items()"
    ),
    "Spark": Engine("pyspark", "[row.asDict() for row in it.collect()]", "it.dtypes"),
    "datasets": Engine(
        "datasets",
        "it.to_list() if hasattr(it, 'to_list') else it.to_dict('records')",
        "it.features.items()",
    ),
}

REPORT = """
def rows(it):
    return [
        [row["retailer"], str(row["date"])[:10], row["key"]] for row in ({engine.rows})
    ]
def types(it):
    return [[name, str(type_)] for name, type_ in {engine.types}]
report = dict(
    raw=rows(raw), made=rows(made), day=rows(day), both=rows(both),
    raw_types=types(raw), made_types=types(made),
)
"""


def _engine(name: str) -> Engine:
    """The engine, if this machine has it; otherwise the test is skipped."""
    engine = ENGINES[name]
    if find_spec(engine.package) is None:
        message = f"{engine.package} is not installed; run `make .venv/engines`"
    elif name == "Spark" and shutil.which("java") is None:
        message = "Java is not installed; run `apt-get install default-jre-headless`"
    else:
        return engine
    if os.environ.get(ENGINES_REQUIRED) == "1":
        pytest.fail(message)
    pytest.skip(message)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if name == "Spark" else []) for name in ENGINES],
)
def test_an_engine_opens_the_folders_filters_them_and_joins_them(project: Path, name: str) -> None:
    engine = _engine(name)
    report = run(project, "\n".join([blocks(name)[0], REPORT.format(engine=engine)]))

    raw, made = rows_of(project, "raw_images"), rows_of(project, "processed_images")
    for asset, rows in (("raw", raw), ("made", made)):
        assert sorted(report[asset]) == sorted(map(identity, rows))
    day = [identity(row) for row in made if identity(row)[:2] == [RETAILER, DATE]]
    assert sorted(report["day"]) == sorted(day)
    assert 0 < len(day) < len(made)
    assert sorted(report["both"]) == sorted(map(identity, raw))

    raw_types, made_types = (dict(report[f"{asset}_types"]) for asset in ("raw", "made"))
    assert list(raw_types) == RAW_IMAGES.names
    assert list(made_types) == PROCESSED_IMAGES.names
    for column in URL_FIELDS:
        assert raw_types[column] == made_types[column]


def file_names(project: Path, folder: str) -> set[str]:
    """Paths of the files in a folder, relative to the data root."""
    root = project / DATA_ROOT
    return {
        path.relative_to(root).as_posix() for path in (root / folder).rglob("*") if path.is_file()
    }


IMAGES = """
from datasets import Image
paths = images.cast_column("image", Image(decode=False))
report = dict(
    paths=[row["image"]["path"] for row in paths],
    sizes=[row["image"].size for row in images],
    columns=images.column_names,
)
"""


def assert_all_images(project: Path, report: dict[str, Any]) -> None:
    """Assert that a report names exactly the distinct `ok` images, which can be decoded."""
    made = [row for row in rows_of(project, "processed_images") if row["outcome"] == "ok"]
    paths = {str(project / DATA_ROOT / row["path"]) for row in made}
    assert sorted(report["paths"]) == sorted(paths)
    assert len(paths) < len(made)  # an image is shared
    assert set(map(tuple, report["sizes"])) == {(row["width"], row["height"]) for row in made}
    assert report["columns"] == ["image"]


def test_an_image_folder_has_exactly_the_distinct_images_without_labels(project: Path) -> None:
    _engine("datasets")
    assert_all_images(project, run(project, blocks("datasets")[0] + IMAGES))


def test_the_images_that_manifests_name_load_with_their_columns(project: Path) -> None:
    _engine("datasets")
    report = run(
        project,
        blocks("datasets")[1]
        + "report = [[row['address'].size, row['retailer']] for row in named]",
    )
    made = [row for row in rows_of(project, "processed_images") if row["outcome"] == "ok"]
    expected = {row["path"]: [[row["width"], row["height"]], row["retailer"]] for row in made}
    assert sorted(report) == sorted(expected.values())


def test_datasets_drops_other_retailers_if_a_slug_is_a_split(
    project_with_split_slug: Path,
) -> None:
    _engine("datasets")
    code = """
from datasets import load_dataset
manifests = load_dataset("parquet", data_dir=".imgassets/data/manifests/processed_images")
images = load_dataset("imagefolder", data_dir=".imgassets/data/images/processed", drop_labels=True)
report = [{name: len(split) for name, split in each.items()} for each in (manifests, images)]
"""
    # If this fails, `datasets` has changed for the better, and so can the document.
    assert run(project_with_split_slug, code) == [{"test": 1}, {"test": 1}]


def test_data_files_load_all_retailers_also_if_a_slug_is_a_split(
    project_with_split_slug: Path,
) -> None:
    _engine("datasets")
    (code,) = blocks("Slugs that `datasets` takes for splits")
    report = run(project_with_split_slug, code + IMAGES + "report['rows'] = made.to_list()")
    made = rows_of(project_with_split_slug, "processed_images")
    assert sorted(map(identity, report["rows"])) == sorted(map(identity, made))
    assert_all_images(project_with_split_slug, report)


def test_the_words_that_the_document_names_are_those_that_datasets_takes_for_splits(
    tmp_path: Path,
) -> None:
    _engine("datasets")
    code = (
        "from datasets.data_files import SPLIT_KEYWORDS\nreport = sum(SPLIT_KEYWORDS.values(), [])"
    )
    (line,) = re.findall(r"^\*\*With `data_dir`.*", document().read_text("utf-8"), re.M)
    words = line.partition("for example `test-shop`:** ")[2].partition(". ")[0]
    assert set(re.findall(r"`(\w+)`", words)) == set(run(tmp_path, code))


def test_the_example_of_read_manifest_prints_the_images_of_its_selection(project: Path) -> None:
    report = "report = [[i.product_id, i.address] for i in images.itertuples()]"
    (code,) = blocks("`read_manifest`")
    expected = [
        [row["product_id"], str(project / DATA_ROOT / row["path"])]
        for row in rows_of(project, "processed_images")
        if row["retailer"] == RETAILER and row["outcome"] == "ok"
    ]
    assert run(project, f"{code}\n{report}") == expected


def test_the_examples_of_the_readme_run(project: Path) -> None:
    _engine("DuckDB")
    readme = project_root() / "README.md"
    code = "\n".join(blocks("What it does", readme))
    (query,) = re.findall(r"^```sql\n(.*?)^```", readme.read_text("utf-8"), re.M | re.S)
    code += f"\nimport duckdb\nreport = [len(raw), len(images), duckdb.sql({query!r}).fetchall()]"
    raw_rows, image_rows, counts = run(project, code)
    raw = rows_of(project, "raw_images")
    made = rows_of(project, "processed_images")
    assert raw_rows == len(raw)
    is_selected = [row["outcome"] == "ok" and row["retailer"] == RETAILER for row in made]
    assert image_rows == sum(is_selected)
    assert dict(counts) == Counter(row["outcome"] for row in raw)


def test_below_manifests_there_are_only_the_manifests_of_the_partitions(project: Path) -> None:
    materialized = [partition.split("|")[::-1] for partition in MATERIALIZED]
    partitions = {f"{retailer}.{date}.parquet" for retailer, date in [*PARTITIONS, *materialized]}
    assert file_names(project, "manifests") == {
        f"manifests/{asset}/{name}" for asset in SCHEMAS for name in partitions
    }


def test_each_image_file_is_named_by_a_row_and_no_temporary_file_is_left(project: Path) -> None:
    for folder, asset in ((RAW_FILES, "raw_images"), (PROCESSED_FILES, "processed_images")):
        named = {row["path"] for row in rows_of(project, asset) if row["outcome"] == "ok"}
        assert file_names(project, folder) == named
    left = file_names(project, "journal")
    assert [name for name in left if not name.startswith(f"{OP_VALUES}/")] == []


def test_the_data_root_has_what_the_contract_is_about(project: Path) -> None:
    raw, made = rows_of(project, "raw_images"), rows_of(project, "processed_images")
    files = [pq.ParquetFile(file) for file in project.rglob("*.parquet")]
    assert 0 in {file.metadata.num_rows for file in files}
    assert all(file.num_row_groups == 0 for file in files if file.metadata.num_rows == 0)
    assert {row["outcome"] for row in raw} - {"ok"}
    assert {row["outcome"] for row in made} - {"ok", "no_raw"}
    assert max(Counter(row["path"] for row in made if row["path"]).values()) > 1
    assert list(map(identity, raw)) == list(map(identity, made))
    assert list(map(identity, raw)) == list(map(identity, rows_of(project, "url_list")))


@pytest.mark.parametrize("asset", SCHEMAS)
def test_each_manifest_has_the_schema_and_the_metadata_of_the_contract(
    project: Path, asset: str
) -> None:
    for file in (project / DATA_ROOT / "manifests" / asset).iterdir():
        schema = pq.read_schema(file)
        assert schema.remove_metadata() == SCHEMAS[asset]
        metadata = schema.metadata
        assert metadata[b"imgassets.schema_version"] == str(SCHEMA_VERSION).encode()
        assert metadata[b"imgassets.version"] == imgassets.__version__.encode()
        assert re.fullmatch(rb"[0-9a-f]+", metadata[b"imgassets.settings_hash"])


def test_the_tables_in_the_document_are_up_to_date() -> None:
    text = document().read_text("utf-8")
    assert text == with_tables(text), (
        "run `python -m imgassets.manifest_reference` and commit docs/data-contract.md"
    )


@pytest.mark.parametrize("asset", [*ROWS])
def test_the_columns_that_the_ui_shows_are_up_to_date(asset: str) -> None:
    text = columns_file(asset).read_text("utf-8")
    assert text == columns(ROWS[asset]), (
        "run `python -m imgassets.manifest_reference` and commit imgassets/defs/columns"
    )
    names = [line.split("`")[1] for line in text.splitlines()[2:]]
    assert names == SCHEMAS[asset].names


def test_the_document_has_each_column_once_per_manifest_and_each_outcome() -> None:
    text = with_tables(document().read_text("utf-8"))
    described = re.findall(r"^\| `(\w+)` \| `.*` \| (?:yes|no) \| (?=\w|`)", text, re.M)
    others = [*RAW_IMAGES.names, *PROCESSED_IMAGES.names]
    expected = [*URL_FIELDS, *(name for name in others if name not in URL_FIELDS)]
    assert described == expected
    for outcome in Outcome:
        assert f"| `{outcome}` | {outcome.meaning} |" in text


def test_the_document_names_the_current_schema_version() -> None:
    assert f"the version of this document is {SCHEMA_VERSION} |" in document().read_text("utf-8")
