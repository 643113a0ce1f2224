"""Tests of the commands `imgassets sync` and `imgassets doctor`, and of DAGSTER_HOME."""

from __future__ import annotations

import datetime as dt
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from pymongo.database import Database

from imgassets.folders import project_root

NOON = dt.datetime(2026, 1, 2, 12, tzinfo=dt.UTC)
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def imgassets(
    tmp_path: Path, mongodb_uri: str, mongo_database: Database[dict[str, Any]]
) -> Command:
    """A function that runs `imgassets` with given options and environment variables."""

    def run(
        *arguments: str, options: dict[str, Any] | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        usual = {
            "data_root": str(tmp_path / "data"),
            "source": {"database": mongo_database.name},
        }
        config = tmp_path / "config.yaml"
        config.write_text(yaml.safe_dump({**usual, **(options or {})}))
        environment = {
            **os.environ,
            "COLUMNS": "200",
            "DAGSTER_HOME": str(tmp_path / "dagster_home"),
            "IMGASSETS_CONFIG": str(config),
            "MONGODB_URI": mongodb_uri,
            **variables,
        }
        done = subprocess.run(
            [Path(sys.executable).with_name("imgassets"), *arguments],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert "Traceback" not in done.stdout + done.stderr
        return done

    return run


def insert(database: Database[dict[str, Any]], *names: object) -> None:
    database["products"].insert_many(
        [
            {"product_retailer": name, "product_images": ["http://a"], "scraped_at": NOON}
            for name in names
        ]
    )


def registered(tmp_path: Path) -> set[str]:
    with dg.DagsterInstance.from_config(str(tmp_path / "dagster_home")) as instance:
        return set(instance.get_dynamic_partitions("retailer"))


def test_sync_registers_new_retailers_and_keeps_those_without_documents(
    imgassets: Command, tmp_path: Path, mongo_database: Database[dict[str, Any]]
) -> None:
    insert(mongo_database, "Zara", "Nord & Sol")
    first = imgassets("sync")
    assert first.returncode == 0
    assert f"created DAGSTER_HOME, {tmp_path}/dagster_home\n" in first.stdout
    assert "2 new, 0 known before" in first.stdout
    assert registered(tmp_path) == {"zara", "nord-sol"}

    mongo_database["products"].delete_many({"product_retailer": "Zara"})
    insert(mongo_database, "Mango")
    second = imgassets("sync")
    assert "created" not in second.stdout
    assert "1 new, 1 known before" in second.stdout
    assert "registered, but not in the source: zara" in second.stdout
    assert registered(tmp_path) == {"zara", "nord-sol", "mango"}


def test_sync_of_a_source_without_documents_says_so(
    imgassets: Command, mongo_database: Database[dict[str, Any]], tmp_path: Path
) -> None:
    done = imgassets("sync")
    assert done.returncode == 0
    database = mongo_database.name
    assert done.stdout.splitlines() == [
        "the source has no document with a retailer; `imgassets doctor` says more",
        f"created DAGSTER_HOME, {tmp_path}/dagster_home",
        "0 new, 0 known before",
        f"source.collection names {database}.products, which does not exist; "
        f"collections of {database}: none",
    ]


def test_sync_prints_slugs_whole_in_a_narrow_pipe(
    imgassets: Command, mongo_database: Database[dict[str, Any]]
) -> None:
    name = "The Long Name Of A Shop That Sells Everything For Everyone"
    insert(mongo_database, name, "Zara")
    lines = imgassets("sync", COLUMNS="80").stdout.splitlines()
    (line,) = [line for line in lines if "everything" in line]
    assert name in line
    assert name.lower().replace(" ", "-") in line


def test_sync_names_the_first_broken_line_of_a_file(imgassets: Command, tmp_path: Path) -> None:
    line = '{"url": "http://a", "retailer": "Zara", "date": "2026-01-02"}\n'
    (tmp_path / "items.jl").write_text(line + '["[/bold]", broken\n')
    done = imgassets("sync", options={"source": {"kind": "jsonl", "path": f"{tmp_path}/items.jl"}})
    assert done.returncode == 0
    assert "1 line: invalid_record, for example line 2: not JSON: Expecting value" in done.stdout


def test_sync_registers_names_with_one_slug_as_one_retailer_and_notes_their_spellings(
    imgassets: Command, tmp_path: Path, mongo_database: Database[dict[str, Any]]
) -> None:
    insert(mongo_database, "Zara", "ZARA", "ZARA", "[b] Mango", None)
    done = imgassets("sync")
    assert done.returncode == 0
    assert "retailer zara is written in 2 ways: 'ZARA', 'Zara'\n" in done.stdout
    assert "1 document without a partition: no_retailer, for example " in done.stdout
    assert ": the retailer is None\n" in done.stdout
    assert "[b] Mango" in done.stdout
    assert registered(tmp_path) == {"b-mango", "zara"}
    assert (
        "ok source: retailer zara is written in 2 ways: 'ZARA', 'Zara'"
        in imgassets("doctor").stdout
    )


def test_a_port_that_is_taken_stops_the_ui_of_the_demo_with_one_sentence(
    imgassets: Command,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = imgassets("demo", "--ui", "--port", str(port))
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"Error: the UI cannot use port {port}: Address already in use; ")
    assert f"make ui PORT={port + 1}" in line


@pytest.mark.parametrize(("variables", "end"), [([], "demo --ui"), (["PORT=7"], "--port 7")])
def test_make_ui_passes_the_port_on(variables: list[str], end: str) -> None:
    command = [*["make", "--no-print-directory", "--dry-run", "--old-file=.venv/installed", "ui"]]
    outer = {"MAKEFLAGS", "MAKELEVEL", "VENV"}  # of `make test`, which runs this test
    done = subprocess.run(
        [*command, *variables],
        cwd=project_root(),
        env={name: value for name, value in os.environ.items() if name not in outer},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.rstrip().endswith(end)


@pytest.mark.parametrize("command", ["sync", "doctor"])
@pytest.mark.parametrize(
    ("options", "variables", "message"),
    [
        ({}, {"MONGODB_URI": "mongodb://u:s3cret@127.0.0.1:9"}, "cannot be reached"),
        ({}, {"MONGODB_URI": "mongo//nowhere"}, "MONGODB_URI is not a valid MongoDB address"),
        ({"download": {"threads": 0}}, {}, "config.yaml: download.threads: got 0; input should"),
        ({}, {"IMGASSETS_CONFIG": "absent.yaml"}, "absent.yaml, which cannot be read"),
        ({"source": {"kind": "csv", "path": "absent.csv"}}, {}, "absent.csv cannot be read"),
    ],
)
def test_a_user_error_is_one_message_and_exit_code_1(
    imgassets: Command,
    command: str,
    options: dict[str, Any],
    variables: dict[str, str],
    message: str,
) -> None:
    done = imgassets(command, options=options, **variables)
    assert done.returncode == 1
    assert message in done.stdout + done.stderr
    assert "s3cret" not in done.stdout + done.stderr


def test_doctor_reports_ok_for_a_correct_setup(
    imgassets: Command, mongo_database: Database[dict[str, Any]], tmp_path: Path
) -> None:
    insert(mongo_database, "Zara")
    mongo_database["products"].create_index({"product_retailer": 1, "scraped_at": 1, "_id": 1})
    home = tmp_path / "dagster_home"
    assert f"warning DAGSTER_HOME: {home} does not exist" in imgassets("doctor").stdout
    home.mkdir()
    done = imgassets("doctor")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "ok settings",
        "ok source",
        "ok partitions",
        "ok index",
        "ok images",
        "ok storage",
        "ok face model",
        "ok DAGSTER_HOME",
    ]
    assert "1 document, 1 retailer, 1 partition" in lines[1]
    assert lines[2].startswith("ok partitions: ")
    assert "URLs in 1 of 1 document, for example http://a" in lines[4]
    assert list((tmp_path / "data").iterdir()) == []


def test_doctor_warns_about_a_missing_index_and_a_path_without_images(
    imgassets: Command, mongo_database: Database[dict[str, Any]]
) -> None:
    insert(mongo_database, "Zara")
    fields = {"images": ["product_images", "pics"]}
    source = {"database": mongo_database.name, "fields": fields}
    done = imgassets("doctor", options={"source": source})
    assert done.returncode == 0
    for query in ("partition", "retailers", "survey"):
        assert f"warning index: missing for the {query} query, so " in done.stdout
    assert "warning images: source.fields.images: pics finds nothing in 1 document" in done.stdout
    assert "ok images: URLs in 1 of 1 document" in done.stdout
    command = (
        f'db.getSiblingDB("{mongo_database.name}").getCollection("products")'
        '.createIndex({"product_retailer": 1, "scraped_at": 1, "_id": 1})'
    )
    assert done.stdout.count(command) == 1


def test_doctor_prints_the_index_of_a_time_series_collection_and_is_content_with_it(
    imgassets: Command, mongo_database: Database[dict[str, Any]]
) -> None:
    mongo_database.create_collection("products", timeseries={"timeField": "scraped_at"})
    insert(mongo_database, "Zara")
    keys = {"product_retailer": 1, "scraped_at": 1, "_id": 1}
    lines = imgassets("doctor").stdout.splitlines()
    (missing, command) = (line for line in lines if line.startswith("warning index"))
    assert missing.startswith("warning index: missing for the partition query, so ")
    assert command.startswith("warning index: to create it, in mongosh: db.getSiblingDB(")
    assert command.endswith(f".createIndex({json.dumps(keys)})")

    mongo_database["products"].create_index(keys)
    assert "ok index: none is missing" in imgassets("doctor").stdout


def test_doctor_reports_unusable_storage_and_an_unusable_model(
    imgassets: Command, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("not a folder")
    options = {
        "data_root": str(tmp_path / "file" / "data"),
        "faces": {"model_source": str(tmp_path / "no.onnx")},
    }
    done = imgassets("doctor", options=options)
    assert done.returncode == 1
    assert f"error storage: cannot write {tmp_path}/file/data" in done.stdout
    assert "error face model: " in done.stdout
    assert "no.onnx" in done.stdout
    assert "warning source" in done.stdout  # the collection is empty


def test_doctor_names_the_options_of_the_source_if_no_document_has_a_partition(
    imgassets: Command, tmp_path: Path
) -> None:
    (tmp_path / "empty.csv").write_text("url\n")
    source = {"kind": "csv", "path": str(tmp_path / "empty.csv")}
    done = imgassets("doctor", options={"source": source})
    assert done.returncode == 0
    assert "empty.csv has no document that belongs to a partition; check the columns" in done.stdout
    assert "source.database" in imgassets("doctor").stdout
    assert "source.database" not in done.stdout


def test_dagster_home_is_created_with_dagster_yaml_if_the_variable_is_not_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from imgassets.defs.instance import prepare_dagster_home

    monkeypatch.setenv("DAGSTER_HOME", "")
    folder = prepare_dagster_home(tmp_path / "home")
    assert os.environ["DAGSTER_HOME"] == str(folder) == str(tmp_path / "home")
    expected = (project_root() / "dagster.yaml").read_text()
    assert (folder / "dagster.yaml").read_text() == expected

    (folder / "dagster.yaml").unlink()
    (folder / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    prepare_dagster_home()
    assert (folder / "dagster.yaml").read_text() == "telemetry: {enabled: false}\n"

    # The project folder was moved, together with the folder of the instance.
    (folder / "dagster.yaml").unlink()
    (folder / "dagster.yaml").symlink_to(tmp_path / "before the move" / "dagster.yaml")
    prepare_dagster_home()
    assert (folder / "dagster.yaml").read_text() == expected
