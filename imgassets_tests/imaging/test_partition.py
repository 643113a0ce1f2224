from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from imgassets.imaging import partition, pipeline
from imgassets.imaging.models import ModelError
from imgassets.imaging.partition import JOURNAL, Cancelled, process_partition
from imgassets.manifests import Outcome, ProcessedRow, RawRow, from_table
from imgassets.settings import RetailerSettings
from imgassets.storage import Folder, StorageError, read_table

SETTINGS = RetailerSettings()


class Partition:
    """A raw partition on disk, and running it."""

    def __init__(self, root: Path, model: Path) -> None:
        self.raw, self.folder = Folder(str(root / "raw")), Folder(str(root / "processed"))
        self.model = model
        self.rows: list[RawRow] = []
        self.lines: list[str] = []
        self.cancelled = threading.Event()

    def add(self, key: str, data: bytes | None, outcome: Outcome = Outcome.OK) -> None:
        path = None
        if data is not None:
            path = f"images/{key}.jpg"
            (self.raw / "images").write(f"{key}.jpg", data)
        self.rows.append(
            RawRow(
                key=key,
                url=f"http://shop/{key}",
                retailer="zara",
                date="2026-01-02",
                product_id="1",
                position=0,
                document_id="1",
                outcome=outcome,
                path=path,
                sha256=None if data is None else hashlib.sha256(data).hexdigest(),
            )
        )

    def run(
        self, settings: RetailerSettings = SETTINGS, log: Callable[[str], None] | None = None
    ) -> list[ProcessedRow]:
        return process_partition(
            self.rows,
            self.raw,
            self.folder,
            settings,
            self.model,
            threads=2,
            log=log or self.lines.append,
            cancelled=self.cancelled,
        )

    def manifest(self) -> list[ProcessedRow]:
        return from_table(read_table(self.folder), ProcessedRow)


@pytest.fixture
def filled(tmp_path: Path, model: Path, photos: dict[str, bytes]) -> Partition:
    result = Partition(tmp_path, model)
    for name, data in photos.items():
        result.add(name, data)
    return result


def _stamps(folder: Folder, rows: Sequence[ProcessedRow]) -> dict[str, int]:
    return {
        row.key: Path(folder.address, str(row.path)).stat().st_mtime_ns
        for row in rows
        if row.path is not None
    }


def test_every_raw_row_has_one_row_in_order_and_ok_ones_a_picture(filled: Partition) -> None:
    filled.add("not-loaded", None, Outcome.HTTP_ERROR)
    filled.add("broken", b"\xff\xd8\xff\xe0 no jpeg")
    filled.add("gone", b"x")
    (filled.raw / "images").remove("gone.jpg")
    rows = filled.run()
    assert [row.key for row in rows] == [raw.key for raw in filled.rows]
    assert filled.manifest() == rows
    outcomes = {row.key: row.outcome for row in rows}
    assert outcomes["not-loaded"] == Outcome.NO_RAW
    assert outcomes["gone"] == Outcome.RAW_MISSING
    assert outcomes["broken"] in (Outcome.CORRUPT, Outcome.NOT_AN_IMAGE)
    for row in rows[:-3]:
        assert row.outcome == Outcome.OK
        assert row.path == f"images/{row.key}.jpg"
        assert hashlib.sha256(filled.folder.read(row.path)).hexdigest() == row.sha256
    assert set((filled.folder / "images").sizes()) == {f"{row.key}.jpg" for row in rows[:-3]}
    assert (filled.folder / JOURNAL).sizes() == {}


def test_a_second_run_makes_no_picture_again(filled: Partition) -> None:
    first = filled.run()
    stamps = _stamps(filled.folder, first)
    assert filled.run() == first
    assert _stamps(filled.folder, first) == stamps


def test_what_changed_is_made_again_and_nothing_else(
    filled: Partition, photos: dict[str, bytes]
) -> None:
    first = filled.run()
    stamps = _stamps(filled.folder, first)
    data = photos["cutout_c"]
    (filled.raw / "images").write("astronaut.jpg", data)
    sha256 = hashlib.sha256(data).hexdigest()
    filled.rows[0] = replace(filled.rows[0], sha256=sha256)
    (filled.folder / "images").remove("cutout_a.jpg")
    second = filled.run()
    again = _stamps(filled.folder, second)
    assert {key for key in again if again[key] != stamps[key]} == {"astronaut", "cutout_a"}
    assert second[0].raw_sha256 == sha256


def test_other_settings_make_all_pictures_again_and_leave_none_of_the_old(
    filled: Partition,
) -> None:
    filled.run()
    rows = filled.run(RetailerSettings.model_validate({"encode": {"format": "png"}}))
    assert set((filled.folder / "images").sizes()) == {f"{row.key}.png" for row in rows}


def test_a_run_that_was_cancelled_is_continued(
    filled: Partition, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = pipeline.process_picture

    def cancel_after_the_third(*args: object) -> object:
        made.append(1)
        if len(made) == 3:
            filled.cancelled.set()
        return real(*args)  # type: ignore[arg-type]

    made: list[int] = []
    monkeypatch.setattr(partition, "process_picture", cancel_after_the_third)
    with pytest.raises(Cancelled):
        filled.run()
    assert "manifest.parquet" not in filled.folder.sizes()
    done = len(made)
    assert 3 <= done < len(filled.rows)
    filled.cancelled.clear()
    rows = filled.run()
    assert len(made) == len(filled.rows)
    assert all(row.outcome == Outcome.OK for row in rows)


def test_one_failing_picture_stops_no_other_and_is_tried_again(
    filled: Partition, monkeypatch: pytest.MonkeyPatch, photos: dict[str, bytes]
) -> None:
    real = pipeline.process_picture

    def fail_on_one(data: bytes, *args: object) -> object:
        if data == photos["portrait_a"]:
            raise ZeroDivisionError("a bug")
        return real(data, *args)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(partition, "process_picture", fail_on_one)
        rows = {row.key: row for row in filled.run()}
    assert rows["portrait_a"].outcome == Outcome.FAILED
    assert rows["portrait_a"].error == "ZeroDivisionError: a bug"
    assert any("Traceback" in line and "portrait_a" in line for line in filled.lines)
    assert all(row.outcome == Outcome.OK for row in rows.values() if row.key != "portrait_a")
    assert all(row.outcome == Outcome.OK for row in filled.run())


def test_storage_that_cannot_be_written_stops_with_one_error(filled: Partition) -> None:
    Path(filled.folder.address).mkdir(parents=True)
    Path(filled.folder.address, "images").write_bytes(b"a file where the folder should be")
    with pytest.raises(StorageError, match=r"cannot list .*images: .*Not a directory"):
        filled.run()


def test_storage_that_fails_on_the_way_keeps_what_was_done(filled: Partition) -> None:
    filled.run()
    Path(filled.folder.address, "images", "portrait_c.jpg").unlink()
    # A folder in the place of the picture: it cannot be replaced by a file.
    Path(filled.folder.address, "images", "portrait_c.jpg", "in the way").mkdir(parents=True)
    before = filled.manifest()
    with pytest.raises(StorageError, match=r"cannot write .*what was done is kept"):
        filled.run()
    assert filled.manifest() == before


def test_a_file_that_is_no_model_stops_before_any_picture(
    filled: Partition, tmp_path: Path
) -> None:
    filled.model = tmp_path / "no.onnx"
    filled.model.write_bytes(b"no model")
    with pytest.raises(ModelError, match="cannot be loaded"):
        filled.run()
    assert (filled.folder / "images").sizes() == {}


def test_progress_ends_with_the_whole(filled: Partition) -> None:
    filled.run()
    assert filled.lines[-1].startswith("8 of 8 pictures processed, 0 without a result")


def test_a_partition_without_rows_gets_an_empty_manifest(tmp_path: Path, model: Path) -> None:
    empty = Partition(tmp_path, model)
    assert empty.run() == []
    assert empty.manifest() == []
