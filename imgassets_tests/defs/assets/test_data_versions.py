"""Tests of data versions: they change if and only if the content of an asset changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from imgassets.storage import Storage
from imgassets_tests.download.images import image_bytes
from imgassets_tests.download.server import Server, answer, running
from imgassets_tests.project import project_defs
from imgassets_tests.rows import PARTITION

ASSETS = ("url_list", "raw_images", "processed_images")
JPEG = image_bytes()
OTHER = image_bytes(seed=1)


class Chain:
    """The three assets of one partition, with a CSV file as source and a local HTTP server."""

    def __init__(self, folder: Path, server: Server, instance: dg.DagsterInstance) -> None:
        self.server = server
        self._csv = folder / "products.csv"
        self._instance = instance
        job = dg.define_asset_job("job", selection=[*ASSETS])
        defs = dg.Definitions.merge(project_defs(), dg.Definitions(jobs=[job]))
        self._job = defs.resolve_job_def("job")

    def list(self, *products_and_paths: tuple[str, str]) -> None:
        """Write the CSV file.

        Args:
            products_and_paths: product id and path on the server, per image.
        """
        lines = [
            f"{self.server.url(path)},{PARTITION.retailer},{PARTITION.date},{product}"
            for product, path in products_and_paths
        ]
        self._csv.write_text("\n".join(["url,retailer,date,product_id", *lines]))

    def run(self, *, refresh: bool = False, **options: Any) -> dict[str, str]:
        """Materialize all three assets; returns their data versions by asset."""
        overrides = {
            "source": {"kind": "csv", "path": str(self._csv)},
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


def test_a_run_without_changes_keeps_all_versions(chain: Chain) -> None:
    before = chain.run()
    # Another order of products gives the same rows, another HTTP status the same outcome.
    chain.list(("q", "/b.jpg"), ("p", "/a.jpg"))
    chain.server.add("/b.jpg", answer(b"", 410))
    assert changed(before, chain.run(refresh=True)) == []


def test_changed_bytes_of_an_image_change_raw_and_processed_images(chain: Chain) -> None:
    before = chain.run()
    chain.server.add("/a.jpg", OTHER)
    assert changed(before, chain.run(refresh=True)) == ["raw_images", "processed_images"]


def test_a_changed_outcome_changes_only_the_versions_that_depend_on_it(chain: Chain) -> None:
    missing = chain.run()
    chain.server.add("/b.jpg", b"<html>")
    broken = chain.run()
    assert changed(missing, broken) == ["raw_images"]  # there is nothing to process in both cases
    chain.server.add("/b.jpg", OTHER)
    assert changed(broken, chain.run()) == ["raw_images", "processed_images"]


def test_listing_a_url_under_another_product_changes_all_versions(chain: Chain) -> None:
    before = chain.run()
    chain.list(("p", "/a.jpg"), ("r", "/b.jpg"))
    assert changed(before, chain.run()) == [*ASSETS]


def test_an_option_changes_only_the_versions_that_depend_on_it(chain: Chain) -> None:
    before = chain.run()
    assert changed(before, chain.run(resize={"max_side": 40})) == ["processed_images"]
