"""Tests of the main job as a user runs it: commands of imgassets and Dagster in subprocesses.

MongoDB, the HTTP server and the Dagster instance on disk are real; nothing is mocked.
"""

from __future__ import annotations

import base64
import datetime as dt
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import dagster as dg
import numpy as np
import pandas as pd
import PIL.Image
import pyarrow.parquet as pq
import pytest
import yaml
from bson import ObjectId
from pymongo.database import Database

from imgassets.demo.catalogue import Kind, documents, expected
from imgassets.demo.server import CatalogueServer
from imgassets.folders import project_root
from imgassets.imaging.faces import load_detector
from imgassets.imaging.models import ensure_model
from imgassets.settings import FaceSettings, Settings
from imgassets.storage import OP_VALUES

ALL = "url_list,face_model,raw_images,processed_images"
PARTITION = "2026-01-02|zara"
HOST_FILES = ("/robots.txt", "/.well-known/tdmrep.json")
FAILURES = {Kind.MISSING: "http_error", Kind.HTML: "not_an_image", Kind.TRUNCATED: "corrupt"}


@dataclass
class Project:
    """A user's deployment: settings, a DAGSTER_HOME, and a server with the sample catalogue."""

    folder: Path
    catalogue: Path
    server: CatalogueServer
    environment: dict[str, str]

    def run(self, *command: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command of the tests' Python environment, and assert its success or failure."""
        program = Path(sys.executable).with_name(command[0])
        done = subprocess.run(
            [program, *command[1:]],
            env=self.environment,
            cwd=project_root(),
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert (done.returncode == 0) is ok, done.stdout + done.stderr
        return done

    def materialize(self, select: str = ALL, partition: str = PARTITION, *, ok: bool = True) -> str:
        """Run `dagster asset materialize`; returns its output."""
        module = ("-m", "imgassets.definitions")
        command = ("dagster", "asset", "materialize", "--select", select, "--partition", partition)
        done = self.run(*command, *module, ok=ok)
        return done.stdout + done.stderr

    def configure(self, **sections: Any) -> None:
        """Add sections to the settings file."""
        file = Path(self.environment["IMGASSETS_CONFIG"])
        file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | sections))

    def last_events(self) -> list[dg.EventLogEntry]:
        """All events of the latest run."""
        with dg.DagsterInstance.from_config(self.environment["DAGSTER_HOME"]) as instance:
            (run,) = instance.get_runs(limit=1)
            return list(instance.all_logs(run.run_id))

    @property
    def data(self) -> Path:
        """The data root, to which the paths in manifests are relative."""
        return self.folder / "data"

    def manifest(self, asset: str, partition: str = PARTITION) -> pd.DataFrame:
        """The manifest of an asset's partition as a data frame."""
        return pd.read_parquet(self._manifest_file(asset, partition))

    def rows(self, asset: str, partition: str = PARTITION) -> list[dict[str, Any]]:
        """The manifest of an asset's partition as one dictionary per row."""
        table = pq.read_table(self._manifest_file(asset, partition))
        rows: list[dict[str, Any]] = table.to_pylist()
        return rows

    def _manifest_file(self, asset: str, partition: str) -> Path:
        date, retailer = partition.split("|")
        return self.data / "manifests" / asset / f"{retailer}.{date}.parquet"

    def image_files(self) -> dict[str, int]:
        """Modification time of each image file, by its path relative to the data root."""
        return {
            str(path.relative_to(self.data)): path.stat().st_mtime_ns
            for path in files_below(self.data / "images")
        }


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.fixture
def project(
    tmp_path: Path,
    mongodb_uri: str,
    mongo_database: Database[dict[str, Any]],
    catalogue_folder: Path,
) -> Iterator[Project]:
    config = tmp_path / "config.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "data_root": str(tmp_path / "data"),
                "source": {"database": mongo_database.name},
                "download": {"backoff_s": 0.01, "allow_private_addresses": True},
            }
        )
    )
    with CatalogueServer(catalogue_folder) as server:
        mongo_database["products"].insert_many(documents(server.url))
        yield Project(
            tmp_path,
            catalogue_folder,
            server,
            {
                **os.environ,
                "DAGSTER_HOME": str(tmp_path / "dagster_home"),
                "IMGASSETS_CONFIG": str(config),
                "MONGODB_URI": mongodb_uri,
            },
        )


@pytest.mark.slow
def test_documents_become_a_clean_dataset_and_every_url_has_one_row(project: Project) -> None:
    assert "4 new, 0 known before" in project.run("imgassets", "sync").stdout
    project.materialize()

    entries = {
        f"{project.server.url}{path}": entry
        for path, entry in expected().items()
        if entry.retailer.folder == "zara" and entry.date.isoformat() == "2026-01-02"
    }
    urls, raw, made = (
        project.rows(name) for name in ("url_list", "raw_images", "processed_images")
    )
    assert {row["url"].split("?")[0] for row in urls} == set(entries)
    assert len(urls) == len(entries) + 1  # one URL is listed by two products
    keys = [row["key"] for row in urls]
    assert len(set(keys)) == len(keys)
    assert [row["key"] for row in raw] == [row["key"] for row in made] == keys

    for row in raw:
        entry = entries[row["url"].split("?")[0]]
        if entry.kind is not Kind.IMAGE:
            assert row["outcome"] == FAILURES[entry.kind]
            assert row["path"] is None
            continue
        served = (project.catalogue / entry.path.lstrip("/")).read_bytes()
        assert row["outcome"] == "ok"
        assert (project.data / row["path"]).read_bytes() == served

    settings = Settings()
    detector = load_detector(ensure_model(settings.faces, project.folder), settings.faces)
    with_face = 0
    for row in made:
        entry = entries[row["url"].split("?")[0]]
        if entry.kind is not Kind.IMAGE:
            assert row["outcome"] == "no_raw"
            assert row["path"] is None
            continue
        assert row["outcome"] == "ok"
        image = cv2.imread(str(project.data / row["path"]))
        assert image is not None
        assert image.shape == (row["height"], row["width"], 3)
        assert max(image.shape[:2]) <= settings.resize.max_side
        assert 0 < row["trim_ratio"] <= 1
        if entry.scene == "printed face":
            assert row["face_rule"] == "printed"
            assert row["face_cut"] is None
            continue
        assert row["face_count"] == entry.has_face
        if entry.has_face:
            with_face += 1
            assert row["face_removed"]
            # At the cut, throat and collar may look like mouth and chin.
            found = detector.find(image.astype(np.uint8))
            assert [face for face in found if face.y >= 0] == []
    assert with_face == sum(entry.has_face for entry in entries.values())

    assert set(project.image_files()) == {row["path"] for row in raw + made} - {None}
    review = project.data / "review" / "retailer=zara" / "date=2026-01-02"
    assert (review / "contact_sheet.jpg").is_file()
    # Nothing else is left: no journal, no temporary file but what the ops passed to each other.
    left = {path.relative_to(project.data).as_posix() for path in files_below(project.data)}
    folders = ("images", "manifests", "review", OP_VALUES)
    assert [
        path for path in left if not path.startswith(tuple(f"{name}/" for name in folders))
    ] == []


@pytest.mark.slow
def test_a_second_run_downloads_only_what_failed(project: Project) -> None:
    project.run("imgassets", "sync")
    project.materialize()
    before = project.manifest("raw_images")
    project.server.requests.clear()
    project.materialize()
    requested = {f"{project.server.url}{path}" for path in project.server.requests}
    requested -= {f"{project.server.url}{path}" for path in HOST_FILES}
    failed = set(before.loc[before["outcome"] != "ok", "url"].str.split("?").str[0])
    assert requested == failed
    pd.testing.assert_frame_equal(
        before[before["outcome"] == "ok"],
        project.manifest("raw_images")[before["outcome"] == "ok"],
    )


@pytest.mark.slow
def test_a_second_day_with_the_same_catalogue_takes_over_all_images(
    project: Project, mongo_database: Database[dict[str, Any]]
) -> None:
    day, next_day = dt.datetime(2026, 1, 2, tzinfo=dt.UTC), "2026-01-09|zara"
    products = mongo_database["products"]
    of_day = {"$gte": day, "$lt": day + dt.timedelta(days=1)}
    for document in products.find({"product_retailer": "Zara", "scraped_at": of_day}):
        later = document["scraped_at"] + dt.timedelta(days=7)
        products.insert_one(document | {"_id": ObjectId(), "scraped_at": later})
    project.run("imgassets", "sync")
    project.materialize()
    files = project.image_files()
    before = project.manifest("processed_images")
    project.server.requests.clear()

    project.materialize(partition=next_day)

    failed = set(before.loc[before["outcome"] == "no_raw", "url"].str.split("?").str[0])
    requested = {f"{project.server.url}{path}" for path in project.server.requests}
    assert requested - {f"{project.server.url}{path}" for path in HOST_FILES} == failed
    assert project.image_files() == files
    for asset in ("raw_images", "processed_images"):
        first = project.manifest(asset).set_index(["url", "product_id", "position"])
        second = project.manifest(asset, next_day).set_index(["url", "product_id", "position"])
        assert len(first) == len(second)
        first, second = (frame[frame["outcome"] == "ok"].sort_index() for frame in (first, second))
        assert second["path"].tolist() == first["path"].tolist()
        assert set(second["reused_from"]) == {day.date()}
        assert second["sha256"].tolist() == first["sha256"].tolist()
        assert len(second) > 15
    assert _failed_checks(project.last_events()) == set()


@pytest.mark.slow
def test_processed_images_do_not_need_a_materialized_face_model(project: Project) -> None:
    project.run("imgassets", "sync")
    project.materialize("url_list,raw_images,processed_images")
    assert (project.manifest("processed_images")["outcome"] == "ok").sum() > 15


@pytest.mark.slow
def test_failures_have_one_message_and_lose_no_data(project: Project) -> None:
    project.run("imgassets", "sync")
    project.materialize("url_list")
    before = project.manifest("url_list")

    unreachable = project.environment | {"MONGODB_URI": "mongodb://scraper:s3cret@127.0.0.1:9/"}
    project.environment, reachable = unreachable, project.environment
    output = project.materialize("url_list", ok=False)
    assert "MongoDB at mongodb://127.0.0.1:9 cannot be reached" in output
    assert "s3cret" not in output
    project.environment = reachable

    output = project.materialize("raw_images", "2026-01-03|zara", ok=False)
    assert "url_list of 2026-01-03|zara was never materialized; materialize it first" in output

    project.materialize("url_list", "2026-01-05|zara")
    assert len(project.manifest("url_list", "2026-01-05|zara")) == 0
    project.materialize("raw_images,processed_images", "2026-01-05|zara")
    assert len(project.manifest("processed_images", "2026-01-05|zara")) == 0

    pd.testing.assert_frame_equal(before, project.manifest("url_list"))


ALL_FAIL = {
    "min_success_rate": 1,
    "max_duplicates": 0,
    "trim_ratio_mean": {"min": 0.99},
    "face_share": {"max": 0},
    "max_residual_faces": 0,
    "severity": {
        "every_url_has_a_raw_row": "warn",
        "raw_files_match_rows": "warn",
        "processed_files_match_rows": "warn",
        "residual_faces": "warn",
    },
}


def _damage_image(folder: Path) -> None:
    """Overwrite half of an image; its size stays, so that a second run keeps the file."""
    file = min(files_below(folder))
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2].ljust(len(data), b"\0"))


def _failed_checks(events: list[dg.EventLogEntry]) -> set[str]:
    found = [event.dagster_event for event in events if event.dagster_event]
    checks = [
        event.asset_check_evaluation_data
        for event in found
        if event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION
    ]
    assert len(checks) == 9
    return {check.check_name for check in checks if not check.passed}


def _inline_images(events: list[dg.EventLogEntry]) -> list[str]:
    text = "".join(dg.serialize_value(event) for event in events)
    return re.findall(r"data:image/[^)]*", text)


@pytest.mark.slow
def test_a_run_stores_at_most_44_kb_of_images_120_kb_of_text_and_no_detected_face(
    project: Project,
) -> None:
    project.run("imgassets", "sync")
    project.configure(checks=ALL_FAIL)
    detector = load_detector(ensure_model(FaceSettings(), project.folder), FaceSettings())

    project.materialize()
    first = project.last_events()
    assert _failed_checks(first) == {
        "download_success_rate",
        "duplicate_images",
        "trim_ratios",
        "face_removal",
    }
    # The second run keeps the damaged files, and finds them.
    for kind in ("raw", "processed"):
        _damage_image(project.data / "images" / kind)
    project.materialize()
    second = project.last_events()
    assert _failed_checks(second) == _failed_checks(first) | {
        "raw_files_match_rows",
        "processed_files_match_rows",
        "residual_faces",
    }

    for events in (first, second):
        images = _inline_images(events)
        assert len(images) > 8
        size = sum(map(len, images))
        assert 15_000 < size <= 50_000
        # Most of the rest are the beginnings and ends of steps and checks.
        assert sum(len(dg.serialize_value(event)) for event in events) - size <= 120_000
        for image in images:
            data = base64.b64decode(image.partition(",")[2], validate=True)
            pixels = np.asarray(PIL.Image.open(io.BytesIO(data)).convert("RGB"))
            assert detector.find(pixels[:, :, ::-1].copy()) == []


@pytest.mark.slow
def test_without_review_inline_a_run_stores_no_image(project: Project) -> None:
    project.run("imgassets", "sync")
    project.configure(checks=ALL_FAIL, review={"inline": False})
    project.materialize()
    events = project.last_events()
    assert len(_failed_checks(events)) == 4
    assert _inline_images(events) == []
    assert f"{project.data}/images/raw/zara/" in "".join(dg.serialize_value(e) for e in events)
