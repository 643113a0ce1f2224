"""Tests of how many requests a run sends to an object store."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import dagster as dg
import pytest

from imgassets import Settings, build_defs
from imgassets.storage import storage_at
from imgassets_tests.download.images import image_bytes
from imgassets_tests.download.server import Server, running
from imgassets_tests.object_store import ObjectStore

DAYS = ("2026-01-02", "2026-01-03")
FEW, MANY = 20, 60
Counts = Counter[tuple[str, str]]


def settings(folder: Path, server: Server, data_root: str, images: int) -> Settings:
    """Settings with two days that list the same URLs; checks and review look at few images."""
    lines = [
        f"{server.url(f'/{number}.jpg')},zara,{day}" for day in DAYS for number in range(images)
    ]
    (folder / f"{images}.csv").write_text("\n".join(["url,retailer,date", *lines]))
    return Settings.model_validate(
        {
            "data_root": data_root,
            "source": {"kind": "csv", "path": str(folder / f"{images}.csv")},
            "download": {"robots": False, "allow_private_addresses": True},
            "process": {"processes": 1},
            "review": {"max_pages": 0},
            "checks": {"files_sample": 5, "residual_sample": 5},
        }
    )


def count_runs(settings: Settings, s3_server: ObjectStore) -> list[Counts]:
    """The requests of the first run, of the same day again, and of the next day."""
    job = build_defs(settings).resolve_job_def("catalogue_job")
    counts = []
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("retailer", ["zara"])
        for day in (DAYS[0], DAYS[0], DAYS[1]):
            s3_server.requests.clear()
            key = dg.MultiPartitionKey({"date": day, "retailer": "zara"})
            assert job.execute_in_process(instance=instance, partition_key=key).success
            counts.append(s3_server.counts())
    return counts


@pytest.mark.slow
def test_an_image_takes_two_writes_and_a_read_and_none_when_there_is_nothing_to_do(
    tmp_path: Path, s3: str, s3_server: ObjectStore
) -> None:
    with running() as server:
        for number in range(MANY):
            server.add(f"/{number}.jpg", image_bytes(seed=number))
        few, many = (
            count_runs(
                settings(tmp_path, server, s3_server.create_bucket(f"{s3}-{n}"), n), s3_server
            )
            for n in (FEW, MANY)
        )
    added = MANY - FEW
    first, again, next_day = (
        {kind: number for kind, number in (more - less).items() if kind[0] != "journal"}
        for less, more in zip(few, many, strict=True)
    )
    assert first == {
        ("images/raw", "PUT"): added,
        ("images/raw", "GET"): added,
        ("images/processed", "PUT"): added,
    }
    assert again == next_day == {}
    for counts in (*few, *many):
        assert counts["images/raw", "HEAD"] == counts["images/processed", "HEAD"] == 0
    # Parts of journals are written every two seconds.
    assert all(counts["journal", "PUT"] <= 10 for counts in (*few, *many))
    assert storage_at(f"s3://{s3}-{MANY}/data").find("journal/raw_images") == {}
