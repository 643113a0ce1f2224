from __future__ import annotations

import hashlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from imgassets.errors import ModelError, StepError, StorageError, WorkerError
from imgassets.imaging import worker_pool
from imgassets.imaging.partition import JOURNAL, process_partition, remove_raw_images
from imgassets.launcher import programs
from imgassets.manifests import Outcome, ProcessedRow, RawRow, from_table
from imgassets.settings import RetailerSettings, merge_options
from imgassets.storage import Folder, read_table
from imgassets_tests.download.failing_storage import failing_removals, failing_writes, is_manifest
from imgassets_tests.imaging.user_steps import MARK

SETTINGS = RetailerSettings()


class Partition:
    """A raw partition on disk that can be processed."""

    def __init__(self, root: Path, model: Path) -> None:
        self.raw, self.folder = Folder(str(root / "raw")), Folder(str(root / "processed"))
        self.model = model
        self.rows: list[RawRow] = []
        self.lines: list[str] = []

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
            processes=2,
            log=log or self.lines.append,
        )

    def manifest(self) -> list[ProcessedRow]:
        return from_table(read_table(self.folder), ProcessedRow)


@pytest.fixture
def filled(tmp_path: Path, model: Path, photos: dict[str, bytes]) -> Partition:
    result = Partition(tmp_path, model)
    for name, data in photos.items():
        result.add(name, data)
    return result


def _modification_times(folder: Folder, rows: Sequence[ProcessedRow]) -> dict[str, int]:
    return {
        row.key: Path(folder.address, str(row.path)).stat().st_mtime_ns
        for row in rows
        if row.path is not None
    }


def test_every_raw_row_has_one_row_in_order_and_successful_ones_an_image(filled: Partition) -> None:
    filled.add("not-downloaded", None, Outcome.HTTP_ERROR)
    filled.add("broken", b"\xff\xd8\xff\xe0 no jpeg")
    filled.add("no-image", b"<html>not here</html>")
    filled.add("missing", b"x")
    (filled.raw / "images").remove("missing.jpg")
    rows = filled.run()
    assert [row.key for row in rows] == [raw.key for raw in filled.rows]
    assert filled.manifest() == rows
    outcomes = {row.key: row.outcome for row in rows}
    assert outcomes["not-downloaded"] == Outcome.NO_RAW
    assert outcomes["missing"] == Outcome.RAW_MISSING
    assert outcomes["broken"] == Outcome.CORRUPT
    assert outcomes["no-image"] == Outcome.NOT_AN_IMAGE
    for row in rows[:-4]:
        assert row.outcome == Outcome.OK
        assert row.path == f"images/{row.key}.jpg"
        data = filled.folder.read(row.path)
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (row.sha256, row.bytes)
    assert set((filled.folder / "images").sizes()) == {f"{row.key}.jpg" for row in rows[:-4]}
    assert (filled.folder / JOURNAL).sizes() == {}


def test_a_second_run_processes_no_image_again(filled: Partition) -> None:
    first = filled.run()
    times = _modification_times(filled.folder, first)
    assert filled.run() == first
    assert _modification_times(filled.folder, first) == times


def test_only_changed_and_missing_images_are_processed_again(
    filled: Partition, photos: dict[str, bytes]
) -> None:
    first = filled.run()
    times = _modification_times(filled.folder, first)
    data = photos["cutout_c"]
    (filled.raw / "images").write("astronaut.jpg", data)
    sha256 = hashlib.sha256(data).hexdigest()
    filled.rows[0] = replace(filled.rows[0], sha256=sha256)
    (filled.folder / "images").remove("cutout_a.jpg")
    second = filled.run()
    second_times = _modification_times(filled.folder, second)
    assert {key for key in second_times if second_times[key] != times[key]} == {
        "astronaut",
        "cutout_a",
    }
    assert second[0].raw_sha256 == sha256


def test_other_settings_replace_all_images(
    filled: Partition,
) -> None:
    filled.run()
    rows = filled.run(RetailerSettings.model_validate({"encode": {"format": "png"}}))
    assert set((filled.folder / "images").sizes()) == {f"{row.key}.png" for row in rows}


def _with_step(step: str) -> RetailerSettings:
    steps = [f"imgassets_tests.imaging.user_steps.{step}", "remove_face", "resize", "trim"]
    return RetailerSettings.model_validate({"process": {"steps": steps}})


def _marked(value: int = MARK) -> bytes:
    """An image that the steps of `user_steps` fail, crash or hang on."""
    pixels = np.full((200, 200, 3), (value, 20, 20), np.uint8)
    return cv2.imencode(".jpg", pixels)[1].tobytes()


def test_a_run_that_was_interrupted_is_continued(filled: Partition) -> None:
    filled.rows = [replace(raw, key=f"{n}-{raw.key}") for n in range(6) for raw in filled.rows]
    settings = _with_step("sleep_briefly")

    def interrupt_after_the_third(folder: Folder) -> None:
        while len((folder / "images").sizes()) < 3:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    watcher = threading.Thread(target=interrupt_after_the_third, args=(filled.folder,))
    watcher.start()
    with pytest.raises(KeyboardInterrupt):
        filled.run(settings)
    watcher.join()
    assert "manifest.parquet" not in filled.folder.sizes()
    done = (filled.folder / "images").sizes()
    assert 3 <= len(done) < len(filled.rows)
    rows = filled.run(settings)
    assert all(row.outcome == Outcome.OK for row in rows)
    kept = next(int(line.split()[0]) for line in filled.lines if "images kept" in line)
    # An image in each of the two workers may be written without its row being journaled.
    assert len(done) - 2 <= kept <= len(done)


def test_a_run_that_was_killed_is_continued(filled: Partition, tmp_path: Path) -> None:
    filled.rows = [replace(raw, key=f"{n}-{raw.key}") for n in range(20) for raw in filled.rows]
    (tmp_path / "partition.pickle").write_bytes(pickle.dumps((filled.rows, str(filled.model))))
    code = (
        "import pickle, sys; from pathlib import Path\n"
        "from imgassets.imaging import partition; from imgassets.storage import Folder\n"
        "from imgassets.settings import RetailerSettings\n"
        "partition._FLUSH_INTERVAL_S = 0.2\n"
        "root = sys.argv[1]; rows, model = pickle.load(open(root + '/partition.pickle', 'rb'))\n"
        "partition.process_partition(rows, Folder(root + '/raw'), Folder(root + '/processed'),\n"
        "    RetailerSettings(), Path(model), processes=2, log=print)\n"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    # The name of a file that is still being written begins with a dot.
    while all(name.startswith(".") for name in (filled.folder / JOURNAL).sizes()):
        assert run.poll() is None
        time.sleep(0.01)
    run.kill()
    # Its worker has the same standard error, and ends without output.
    assert run.communicate(timeout=20)[1] == b""
    assert "manifest.parquet" not in filled.folder.sizes()
    rows = filled.run()
    assert all(row.outcome == Outcome.OK for row in rows)
    assert any("images kept from an earlier run" in line for line in filled.lines)
    assert (filled.folder / JOURNAL).sizes() == {}


@pytest.fixture
def small(tmp_path: Path, model: Path, photos: dict[str, bytes]) -> Partition:
    """A partition of two images."""
    result = Partition(tmp_path, model)
    for name in ("cutout_a", "cutout_c"):
        result.add(name, photos[name])
    return result


def test_a_failed_write_of_the_manifest_loses_no_work_and_no_image(small: Partition) -> None:
    first = small.run()
    png = RetailerSettings.model_validate({"encode": {"format": "png"}})
    with failing_writes(is_manifest):
        small.run(png)
    # The manifest still lists the earlier images, and they still exist.
    assert small.manifest() == first
    stored = (small.folder / "images").sizes()
    assert set(stored) == {f"{row.key}.{kind}" for row in first for kind in ("jpg", "png")}
    small.lines.clear()
    rows = small.run(png)
    assert small.lines == ["2 images kept from an earlier run"]
    assert set((small.folder / "images").sizes()) == {str(row.path)[7:] for row in rows}
    assert small.manifest() == rows


def test_a_run_killed_while_it_removes_its_journal_loses_no_image(
    small: Partition, photos: dict[str, bytes]
) -> None:
    (small.raw / "images").remove("cutout_c.jpg")
    with failing_writes(is_manifest):
        small.run()  # the journal says that the raw file is missing
    (small.raw / "images").write("cutout_c.jpg", photos["cutout_c"])
    with failing_removals(1, newest_first=True):
        small.run()
    rows = small.manifest()
    assert [row.outcome for row in rows] == [Outcome.OK] * 2
    remove_raw_images(rows, small.rows, small.raw)
    assert small.run() == rows
    assert len((small.folder / "images").sizes()) == 2


def test_a_failing_image_does_not_stop_others_and_is_retried_by_the_next_run(
    filled: Partition,
) -> None:
    filled.add("marked", _marked())
    rows = filled.run(_with_step("fail_on_marked"))
    assert rows[-1].outcome == Outcome.FAILED
    assert rows[-1].error == "ZeroDivisionError: a bug"
    assert any("Traceback" in line and "marked" in line for line in filled.lines)
    assert all(row.outcome == Outcome.OK for row in rows[:-1])
    filled.lines.clear()
    filled.run(_with_step("fail_on_marked"))
    assert filled.lines[0] == "8 images kept from an earlier run"
    assert filled.lines[-1].startswith("processed_images: 9 of 9 done, 1 failed; ")


def test_images_that_crash_the_process_do_not_affect_others(filled: Partition) -> None:
    filled.rows = [replace(raw, key=f"{n}-{raw.key}") for n in range(2) for raw in filled.rows]
    for number in (0, 5, 11):
        filled.add(f"poison-{number}", _marked())
        filled.rows.insert(number, filled.rows.pop())
    rows = filled.run(_with_step("crash_on_marked"))
    assert [row.key for row in rows] == [raw.key for raw in filled.rows]
    crashed = {row.key for row in rows if row.outcome == Outcome.CRASHED}
    assert crashed == {"poison-0", "poison-5", "poison-11"}
    assert all(row.outcome == Outcome.OK for row in rows if row.key not in crashed)
    assert str(rows[0].error) == "the imaging process was killed by SIGSEGV on this image"
    assert filled.manifest() == rows


def test_a_crash_that_does_not_recur_loses_no_image(
    filled: Partition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMGASSETS_TEST_CRASHED", str(tmp_path / "crashed"))
    filled.add("marked", _marked())
    filled.rows.insert(2, filled.rows.pop())
    rows = filled.run(_with_step("crash_once"))
    assert (tmp_path / "crashed").exists()
    assert all(row.outcome == Outcome.OK for row in rows)
    assert any("was killed by SIGABRT on marked" in line for line in filled.lines)


def _with_timeout(step: str, seconds: float) -> RetailerSettings:
    return RetailerSettings.model_validate(
        merge_options(_with_step(step).model_dump(), {"process": {"timeout_s": seconds}})
    )


@pytest.mark.slow
def test_an_image_that_hangs_times_out_and_does_not_stop_others(
    filled: Partition,
) -> None:
    filled.add("hangs", _marked())
    filled.rows.insert(0, filled.rows.pop())
    rows = filled.run(_with_timeout("hang_on_marked", 4))
    assert [row.outcome for row in rows] == [Outcome.TIMEOUT] + [Outcome.OK] * (len(rows) - 1)
    assert rows[0].error == (
        "the imaging process took longer than 4 s (process.timeout_s) on this image"
    )
    assert rows[0].path is None
    assert filled.manifest() == rows
    # The next run retries it; another time limit does not process other images again.
    filled.lines.clear()
    again = filled.run(_with_timeout("hang_on_marked", 5))
    assert filled.lines[0] == f"{len(rows) - 1} images kept from an earlier run"
    assert again[0].outcome is Outcome.TIMEOUT
    assert again[1:] == rows[1:]


@pytest.mark.slow
def test_a_hang_that_does_not_recur_loses_no_image(
    filled: Partition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMGASSETS_TEST_HUNG", str(tmp_path / "hung"))
    filled.add("marked", _marked())
    rows = filled.run(_with_timeout("hang_once", 4))
    assert (tmp_path / "hung").exists()
    assert all(row.outcome == Outcome.OK for row in rows)
    assert any(
        "took longer than 4 s (process.timeout_s) on marked" in line for line in filled.lines
    )


def test_the_run_fails_if_no_worker_can_start(
    filled: Partition, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(WorkerError, match="exited with status 1 before it started on an image"):
        filled.run()


def test_a_worker_that_cannot_start_does_not_stop_the_others(
    filled: Partition, monkeypatch: pytest.MonkeyPatch
) -> None:
    interpreters = iter(["/bin/false"])

    def start(module: str) -> programs.Program:
        with monkeypatch.context() as broken:
            broken.setattr(sys, "executable", next(interpreters, sys.executable))
            return programs.start(module)

    monkeypatch.setattr(worker_pool, "start", start)
    rows = filled.run()
    assert all(row.outcome == Outcome.OK for row in rows)
    assert (
        "an imaging process exited with status 1 before it started on an image; 1 left"
        in filled.lines
    )


def test_a_step_that_cannot_be_imported_stops_the_run_before_any_image(filled: Partition) -> None:
    with pytest.raises(StepError, match="not_there cannot be imported"):
        filled.run(_with_step("not_there"))


def test_raw_files_are_removed_once_their_images_are_processed(filled: Partition) -> None:
    filled.add("broken", b"not an image")
    rows = filled.run()
    assert remove_raw_images(rows, filled.rows, filled.raw) == 8
    assert set((filled.raw / "images").sizes()) == {"broken.jpg"}
    assert filled.run() == rows
    # With other settings nothing can be processed again; the images stay as they are.
    other = filled.run(RetailerSettings.model_validate({"encode": {"format": "png"}}))
    assert [row.path for row in other] == [row.path for row in rows]
    assert len((filled.folder / "images").sizes()) == 8
    assert remove_raw_images(rows, filled.rows, filled.raw) == 0


def test_storage_that_cannot_be_written_stops_the_run_with_one_error(filled: Partition) -> None:
    Path(filled.folder.address).mkdir(parents=True)
    Path(filled.folder.address, "images").write_bytes(b"a file where the folder should be")
    with pytest.raises(StorageError, match=r"cannot list .*images: .*Not a directory"):
        filled.run()


def test_finished_work_is_kept_if_storage_fails_during_the_run(filled: Partition) -> None:
    filled.run()
    Path(filled.folder.address, "images", "portrait_c.jpg").unlink()
    # A folder with the name of the image cannot be replaced by a file.
    Path(filled.folder.address, "images", "portrait_c.jpg", "in the way").mkdir(parents=True)
    before = filled.manifest()
    with pytest.raises(StorageError, match=r"cannot write .*finished work is kept"):
        filled.run()
    assert filled.manifest() == before


def test_a_file_that_is_not_a_model_stops_the_run_before_any_image(
    filled: Partition, tmp_path: Path
) -> None:
    filled.model = tmp_path / "broken.onnx"
    filled.model.write_bytes(b"not a model")
    with pytest.raises(ModelError, match="cannot be loaded"):
        filled.run()
    assert (filled.folder / "images").sizes() == {}


def test_the_last_progress_line_counts_all_images(filled: Partition) -> None:
    filled.run()
    assert filled.lines[-1].startswith("processed_images: 8 of 8 done, 0 failed; ")


def test_a_partition_without_rows_gets_an_empty_manifest(tmp_path: Path, model: Path) -> None:
    empty = Partition(tmp_path, model)
    assert empty.run() == []
    assert empty.manifest() == []
