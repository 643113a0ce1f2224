"""Tests of `imgassets report`, `status` and `backfill` on a small data root with a CSV source."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner, Result

from imgassets.cli import cli
from imgassets.configuration import load_settings
from imgassets.imaging.worker_protocol import settings_hash
from imgassets.manifests import ProcessedRow, UrlRow, from_table, to_table
from imgassets.settings import section_hash
from imgassets.storage import Storage
from imgassets.wording import counted
from imgassets_tests.data_root import PARTITIONS, write_data_root
from imgassets_tests.project import project_defs

Command = Callable[..., Result]
DATE = "2026-01-02"
DOCUMENTS = {("zara", DATE): 4, ("zara", "2026-01-03"): 2, ("hm", DATE): 2, ("asos", DATE): 1}


@pytest.fixture
def imgassets(storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """A function that runs a command.

    Zara of 2 January is current, of 3 January outdated; half of hm's URLs failed; asos is missing.
    """
    write_data_root(storage)
    path = tmp_path / "urls.csv"
    lines = [
        f"http://a/{retailer}{number}.jpg,{retailer},{date}"
        for (retailer, date), documents in DOCUMENTS.items()
        for number in range(documents)
    ]
    path.write_text("\n".join(["url,retailer,date", *lines]))
    (tmp_path / "dagster_home").mkdir()
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster_home"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("IMGASSETS__SOURCE__KIND", "csv")
    monkeypatch.setenv("IMGASSETS__SOURCE__PATH", str(path))
    monkeypatch.setenv("IMGASSETS__CHECKS__MIN_SUCCESS_RATE", "0.6")
    load_settings.cache_clear()
    settings = load_settings()
    source_hash = section_hash(settings.source)
    for (retailer, date), listed in PARTITIONS.items():
        files = storage.partition(date, retailer)
        number = 1 if (retailer, date) == ("zara", "2026-01-03") else len(listed)
        urls = from_table(files.read_manifest("url_list"), UrlRow)
        files.write_manifest("url_list", to_table(urls, UrlRow, source_hash, number))
        made = from_table(files.read_manifest("processed_images"), ProcessedRow)
        hash_ = settings_hash(settings.for_retailer(retailer))
        files.write_manifest("processed_images", to_table(made, ProcessedRow, hash_))
    return lambda *arguments: CliRunner().invoke(cli, arguments)


def test_status_names_what_is_missing_failed_and_outdated_and_why(
    imgassets: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    since = ("--since", "2026-01-01", "--until", "2026-01-31")
    done = imgassets("status", *since, "--disk")
    assert done.exit_code == 1
    assert done.output.splitlines()[-3:] == [
        "2026-01-02|asos: no processed images",
        "2026-01-02|hm: success rate 50% (timeout 1)",
        "2026-01-03|zara: 2 documents in the source, 1 when it was made",
    ]
    # days, current, missing, failed, outdated
    (row,) = (line.split() for line in done.output.splitlines() if line.startswith(" zara"))
    assert row[:6] == ["zara", "2", "1", "0", "0", "1"]
    assert (
        imgassets("status", "--since", DATE, "--until", DATE, "--retailer", "zara").exit_code == 0
    )

    none = imgassets("status", "--until", "2026-01-01")
    assert none.exit_code == 0
    assert none.output == (
        "no partition from 2025-12-03 to 2026-01-01 has documents; "
        "--since and --until choose other days\n"
    )

    monkeypatch.setenv("IMGASSETS__RESIZE__SIZE", "[10, 10]")
    load_settings.cache_clear()
    done = imgassets("status", *since, "--retailer", "zara")
    assert "2026-01-02|zara: made with other settings of images" in done.output


def test_backfill_selects_only_partitions_with_documents_that_need_it(imgassets: Command) -> None:
    def selected(*options: str) -> list[str]:
        dates = ("--start", "2026-01-01", "--end", "2026-01-31")
        done = imgassets("backfill", *dates, "--dry-run", *options)
        assert done.exit_code == 0, done.output
        *lines, last = done.output.splitlines()
        assert last == f"{counted(len(lines), 'partition')}; nothing was launched"
        return [line.partition(":")[0] for line in lines]

    asos, hm, first, second = (
        f"{DATE}|asos",
        f"{DATE}|hm",
        f"{DATE}|zara",
        "2026-01-03|zara",
    )
    assert selected() == [asos, hm, first, second]
    assert selected("--retailer", "zara", "--retailer", "hm") == [hm, first, second]
    assert selected("--missing") == [asos]
    assert selected("--failed") == [hm]
    assert selected("--outdated") == [second]
    assert selected("--missing", "--failed") == [asos, hm]
    assert selected("--retailer", "zara", "--missing") == []


@pytest.mark.parametrize("command", ["status", "report", "backfill"])
def test_a_retailer_is_a_slug_a_name_or_an_alias_and_others_are_refused_with_near_ones(
    imgassets: Command, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("IMGASSETS__SOURCE__RETAILER_ALIASES", '{"Hennes & Mauritz": "hm"}')
    load_settings.cache_clear()
    days = {
        "status": ("--since", DATE, "--until", DATE),
        "report": ("--since", DATE, "--until", DATE),
        "backfill": ("--start", DATE, "--end", DATE, "--dry-run"),
    }[command]
    for name in ("hm", "HM", "Hennes & Mauritz"):
        done = imgassets(command, *days, "--retailer", name)
        assert "hm" in done.output, done.output
        assert "zara" not in done.output
    unknown = imgassets(command, *days, "--retailer", "Zaro")
    assert unknown.exit_code == 1
    assert unknown.output == "Error: there is no retailer 'Zaro'; there are: zara, asos, hm\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("backfill", "--start", "2026-02-01", "--end", DATE),
        ("backfill", "--start", "today"),  # it ends with yesterday
        ("backfill", "--start", "9000-01-01", "--end", "9999-12-31"),
        ("report", "--since", "9000-01-01"),
        ("status", "--since", "9000-01-01"),
    ],
)
def test_days_without_a_first_one_before_the_last_are_refused(
    imgassets: Command, arguments: tuple[str, ...]
) -> None:
    done = imgassets(*arguments)
    assert done.exit_code == 2
    assert "choose an earlier first or a later last day, up to today (UTC)" in done.output


def test_a_partition_with_a_run_that_has_not_ended_is_not_launched_again(
    imgassets: Command,
) -> None:
    dates = ("--start", DATE, "--end", DATE)
    with dg.DagsterInstance.get() as instance:
        for retailer, status in {
            "asos": dg.DagsterRunStatus.STARTING,
            "hm": dg.DagsterRunStatus.STARTED,
            "zara": dg.DagsterRunStatus.SUCCESS,
        }.items():
            instance.create_run_for_job(
                project_defs().resolve_job_def("catalogue_job"),
                tags={"dagster/partition/date": DATE, "dagster/partition/retailer": retailer},
                status=status,
            )
    assert imgassets("backfill", *dates, "--dry-run").output.splitlines() == [
        "left out: 2 partitions with a run that is queued or in progress",
        f"{DATE}|zara: current",
        "1 partition; nothing was launched",
    ]
    listed = imgassets("status", "--since", DATE, "--until", DATE).output
    assert f"{DATE}|asos: no processed images; a run is queued or in progress" in listed


@pytest.mark.slow
def test_backfill_queues_one_run_per_partition_and_registers_its_retailer(
    imgassets: Command,
) -> None:
    done = imgassets("backfill", "--start", DATE, "--end", DATE, "--missing")
    assert done.exit_code == 0, done.output
    assert done.output.splitlines() == [
        "queued 1 of 1 run",
        f"no daemon works on {os.environ['DAGSTER_HOME']}: the runs wait until one is started, "
        "with `dagster dev -w workspace.yaml` or as a service",
    ]
    with dg.DagsterInstance.get() as instance:
        (run,) = instance.get_runs()
        assert instance.get_dynamic_partitions("retailer") == ["asos"]
        backfill = instance.get_backfill(run.tags["dagster/backfill"])
    # The daemon retries crashed runs only of backfills that have not ended.
    assert backfill is not None
    assert backfill.status.value == "REQUESTED"
    assert run.job_name == "catalogue_job"
    assert run.tags["dagster/partition"] == f"{DATE}|asos"


def test_report_prints_days_and_names_the_culprits(imgassets: Command) -> None:
    done = imgassets("report", "--since", DATE, "--until", "2026-01-03")
    assert done.exit_code == 0, done.output
    assert "1 missing of 3 retailers with documents; 1 with problems" in done.output
    assert "1 of 3 retailers did not succeed on 2026-01-02: hm (success rate 50%" in done.output
    assert "although there are documents: asos" in done.output
    assert "no processed images are missing on 2026-01-03: 1 retailer with documents" in done.output
    only = imgassets("report", "--since", DATE, "--until", DATE, "--retailer", "hm").output
    assert "zara" not in only
    nothing = imgassets("report", "--since", "2026-01-20", "--until", "2026-01-20").output
    assert nothing == "2026-01-20: no documents, runs or images\n\n"


def test_a_dagster_home_that_does_not_exist_is_an_error_and_is_not_created(
    imgassets: Command, storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "typo"
    monkeypatch.setenv("DAGSTER_HOME", str(folder))
    for command in (
        ["status"],
        ["report", "--since", DATE, "--until", DATE],
        ["backfill", "--start", DATE],
        ["forget", "--retailer", "zara", "--reason", "x"],
    ):
        done = imgassets(*command)
        assert done.exit_code == 1
        assert done.output.startswith(f"Error: DAGSTER_HOME, {folder}, does not exist; set it to")
    assert not folder.exists()
    assert storage.find("removed") == {}


def test_reports_have_whole_names_in_a_narrow_pipe(
    imgassets: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    lines = imgassets("report", "--since", DATE, "--until", DATE).output.splitlines()
    (row,) = (line.split() for line in lines if line.startswith(" hm "))
    assert row[:4] == ["hm", "problem", "2", "50%"]
    assert "timeout 1" in " ".join(row)
    lines = imgassets("status", "--since", DATE, "--until", DATE).output.splitlines()
    assert ["asos", "1", "0", "1", "0", "0"] in [line.split() for line in lines]


@pytest.mark.parametrize("day", ["tomorrow", "2026-02-30", "1.2.2026"])
def test_a_day_that_is_none_is_one_message(imgassets: Command, day: str) -> None:
    done = imgassets("report", "--since", day)
    assert done.exit_code == 2
    assert f"'{day}' is no day; write today, yesterday or YYYY-MM-DD" in done.output
