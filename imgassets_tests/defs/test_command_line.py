"""Tests of the errors of `dagster asset materialize`, with Dagster's own command line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import dagster as dg
import pytest

from imgassets.configuration import load_settings
from imgassets.sources.listing import today

Refused = Callable[..., str]
SYNC = "; `imgassets sync` registers those of the source and lists their days"


@pytest.fixture
def refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Refused:
    """A function that runs `dagster asset materialize`; returns its error, which has one line."""
    (dagster,) = entry_points(group="console_scripts", name="dagster")
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv("IMGASSETS__START_DATE", "2026-01-01")
    load_settings.cache_clear()

    def run(*options: str) -> str:
        # The command imports the definitions, as a new process does.
        monkeypatch.delitem(sys.modules, "imgassets.definitions", raising=False)
        command = ["dagster", "asset", "materialize", "-m", "imgassets.definitions"]
        monkeypatch.setattr(sys, "argv", [*command, *options])
        with pytest.raises(SystemExit) as ended:
            dagster.load()()
        assert ended.value.code == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("Error: ")
        return line.removeprefix("Error: ")

    return run


@pytest.mark.filterwarnings("ignore:.*asset_materialize_command")
def test_a_refused_partition_ends_the_command_with_one_sentence(
    refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(key: str, select: str = "url_list") -> str:
        start = f"there is no partition {key!r}: "
        error = refused("--select", select, "--partition", key)
        assert error.startswith(start)
        return error.removeprefix(start)

    day = "2026-01-02"
    assert unknown(f"{day}|zara") == f"retailer 'zara' is not registered (registered: none){SYNC}"
    with dg.DagsterInstance.get() as instance:
        instance.add_dynamic_partitions("retailer", ["zara", "mango", "asos"])
    known = "retailer 'nobody' is not registered (registered: asos, mango, zara)"
    assert unknown(f"{day}|nobody") == known + SYNC
    assert unknown(f"{day}|zarra") == (f"retailer 'zarra' is not registered (similar: zara){SYNC}")
    early = "1999-01-01 is before start_date, 2026-01-01"
    assert unknown("1999-01-01|zara") == early
    assert unknown("1999-01-01|nobody") == f"{early} and {known}{SYNC}"
    assert unknown("9999-01-01|zara") == f"9999-01-01 is after today, {today()} (UTC)"
    form = "write date|retailer, for example '2026-01-01|zara'"
    for malformed in ("nobody|2026-01-01", day, "20260102|zara"):
        assert unknown(malformed, "url_list,raw_images") == form
    assert unknown("soon", "daily_report") == "write date, for example '2026-01-01'"
    assert unknown("1999-01-01", "daily_report") == early
    assert unknown("nobody", "retailer_report") == known + SYNC

    select = ("--select", "url_list")
    example = "add --partition '2026-01-01|zara'"
    assert refused(*select) == f"url_list has partitions; {example}"
    assert refused(*select, "--partition-range", f"{day}|zara...{day}|zara").startswith(
        "a run handles one partition, not a range; `imgassets backfill --start DAY"
    )
    whole = refused("--select", "face_model", "--partition", f"{day}|zara")
    assert whole.endswith("none of the assets are partitioned")
    assert refused("--select", "lists", "--partition", day).startswith("AssetKey(s) ['lists']")

    monkeypatch.delenv("DAGSTER_HOME")
    assert unknown(f"{day}|zara").startswith("DAGSTER_HOME is not set in this shell")
