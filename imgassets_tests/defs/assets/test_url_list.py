"""Tests of the asset `url_list`, with the assets and checks that follow it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import dagster as dg

from imgassets.configuration import load_settings
from imgassets.defs.partitions import Partition
from imgassets.manifests import ProcessedRow, RawRow, UrlRow, from_table
from imgassets.storage import Storage, open_storage
from imgassets.takedown import url_sha256
from imgassets_tests.project import project_defs
from imgassets_tests.rows import PARTITION
from imgassets_tests.takedowns import take_down


def _list(csv: Path, partition: Partition = PARTITION) -> list[UrlRow]:
    """Materialize `url_list` with a CSV file as source; returns its rows."""
    job = dg.define_asset_job("job", selection=["url_list"])
    defs = dg.Definitions.merge(project_defs(), dg.Definitions(jobs=[job]))
    overrides = {"source": {"kind": "csv", "path": str(csv)}}
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("retailer", [partition.retailer])
        defs.resolve_job_def("job").execute_in_process(
            instance=instance,
            partition_key=partition.key,
            run_config={"resources": {"imgassets_settings": {"config": {"overrides": overrides}}}},
        )
    table = open_storage(load_settings()).partition(*partition).read_manifest("url_list")
    return from_table(table, UrlRow)


def test_urls_that_were_taken_down_are_replaced_by_their_checksum(
    tmp_path: Path, storage: Storage
) -> None:
    csv = tmp_path / "products.csv"
    urls = [f"http://shop/{name}.jpg" for name in ("keep", "secret", "of-product", "of-other")]
    products = ("a", "b", "c", "c")
    retailers = ("zara", "zara", "zara", "asos")
    lines = [
        f"{url},{retailer},{PARTITION.date},{product}"
        for url, retailer, product in zip(urls, retailers, products, strict=True)
    ]
    csv.write_text("\n".join(["url,retailer,date,product_id", *lines]))
    before = {row.product_id: row for row in _list(csv)}
    # Another spelling of the same URL.
    take_down(storage, url_sha256=[url_sha256("HTTP://SHOP/secret.jpg#large")])
    take_down(storage, retailer="zara", product_id="c")

    after = {row.product_id: row for row in _list(csv)}

    assert after == {
        "a": before["a"],
        "b": replace(before["b"], url=f"removed:{url_sha256(urls[1])}"),
        "c": replace(before["c"], url=f"removed:{url_sha256(urls[2])}"),
    }
    # Product c of another retailer has its URL still.
    (other,) = _list(csv, Partition(PARTITION.date, "asos"))
    assert other.url == urls[3]


def test_the_partition_of_a_retailer_that_left_the_source_is_green_and_empty(
    tmp_path: Path, storage: Storage
) -> None:
    csv = tmp_path / "products.csv"
    csv.write_text(f"url,retailer,date\nhttp://shop/1.jpg,other-shop,{PARTITION.date}\n")
    assets = {"url_list": UrlRow, "raw_images": RawRow, "processed_images": ProcessedRow}
    job = dg.define_asset_job("job", selection=[*assets])
    defs = dg.Definitions.merge(project_defs(), dg.Definitions(jobs=[job]))
    overrides = {"source": {"kind": "csv", "path": str(csv)}}
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("retailer", [PARTITION.retailer])
        result = defs.resolve_job_def("job").execute_in_process(
            instance=instance,
            partition_key=PARTITION.key,
            run_config={"resources": {"imgassets_settings": {"config": {"overrides": overrides}}}},
        )
    assert result.success
    for asset, row_class in assets.items():
        table = storage.partition(*PARTITION).read_manifest(asset)
        assert from_table(table, row_class) == []
    evaluations = result.get_asset_check_evaluations()
    assert {evaluation.check_name for evaluation in evaluations if not evaluation.passed} == set()
    assert {"download_success_rate", "trim_ratios"} <= {e.check_name for e in evaluations}
    (first, *_) = result.asset_materializations_for_node("url_list")
    note = str(first.metadata["note"].value)
    assert (
        f"no document of retailer '{PARTITION.retailer}'; retailers in the source: other-shop"
        in note
    )
