"""Data versions: they change when content does, and only then; Dagster judges freshness by them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from imgassets.storage import Storage
from imgassets_tests.download.pictures import picture
from imgassets_tests.download.server import Server, answer, running
from imgassets_tests.project import project_defs
from imgassets_tests.rows import PARTITION

ASSETS = ("url_list", "raw_images", "processed_images")
JPEG = picture()
OTHER = picture(seed=1)


class Chain:
    """The three assets of one partition, fed by a CSV file and a server."""

    def __init__(self, folder: Path, server: Server, instance: dg.DagsterInstance) -> None:
        self.server = server
        self._csv = folder / "products.csv"
        self._instance = instance
        job = dg.define_asset_job("job", selection=[*ASSETS])
        defs = dg.Definitions.merge(project_defs(), dg.Definitions(jobs=[job]))
        self._job = defs.resolve_job_def("job")

    def list(self, *products_and_paths: tuple[str, str]) -> None:
        """Let the catalogue list these images: product and path."""
        lines = [
            f"{self.server.url(path)},{PARTITION.retailer},{PARTITION.date},{product}"
            for product, path in products_and_paths
        ]
        self._csv.write_text("\n".join(["url,retailer,date,product_id", *lines]))

    def run(self, *, refresh: bool = False, **options: Any) -> dict[str, str]:
        """Materialize all; returns their data versions."""
        overrides = {
            "source": {"kind": "csv", "csv_path": str(self._csv)},
            "download": {"allow_private_addresses": True, "retries": 0, "robots": False},
            **options,
        }
        result = self._job.execute_in_process(
            instance=self._instance,
            partition_key=PARTITION.key,
            run_config={
                "resources": {"imgassets_settings": {"config": {"overrides": overrides}}},
                "ops": {"raw_images": {"config": {"refresh": refresh}}},
            },
        )
        found = {
            event.asset_key.to_user_string(): event.step_materialization_data.materialization.tags
            for event in result.get_asset_materialization_events()
            if event.asset_key is not None and event.step_materialization_data.materialization.tags
        }
        return {asset: found[asset]["dagster/data_version"] for asset in ASSETS}


def changed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    return [asset for asset in ASSETS if before[asset] != after[asset]]


@pytest.fixture
def chain(tmp_path: Path, storage: Storage) -> Iterator[Chain]:
    assert storage
    with running() as server, dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("retailer", [PARTITION.retailer])
        server.add("/a.jpg", JPEG)
        chain = Chain(tmp_path, server, instance)
        chain.list(("p", "/a.jpg"), ("q", "/b.jpg"))
        yield chain


def test_a_run_that_finds_nothing_new_changes_no_version(chain: Chain) -> None:
    before = chain.run()
    # Another order of products gives the same rows, and another status the same outcome.
    chain.list(("q", "/b.jpg"), ("p", "/a.jpg"))
    chain.server.add("/b.jpg", answer(b"", 410))
    assert changed(before, chain.run(refresh=True)) == []


def test_an_image_whose_bytes_changed_changes_what_is_made_of_it(chain: Chain) -> None:
    before = chain.run()
    chain.server.add("/a.jpg", OTHER)
    assert changed(before, chain.run(refresh=True)) == ["raw_images", "processed_images"]


def test_an_outcome_that_changed_changes_the_version_as_far_as_it_matters(chain: Chain) -> None:
    missing = chain.run()
    chain.server.add("/b.jpg", b"<html>")
    broken = chain.run()
    assert changed(missing, broken) == ["raw_images"]  # either way there is nothing to process
    chain.server.add("/b.jpg", OTHER)
    assert changed(broken, chain.run()) == ["raw_images", "processed_images"]


def test_a_url_that_is_listed_under_another_product_changes_every_version(chain: Chain) -> None:
    before = chain.run()
    chain.list(("p", "/a.jpg"), ("r", "/b.jpg"))
    assert changed(before, chain.run()) == [*ASSETS]


def test_an_option_changes_the_version_of_what_depends_on_it(chain: Chain) -> None:
    before = chain.run()
    assert changed(before, chain.run(resize={"max_side": 40})) == ["processed_images"]
