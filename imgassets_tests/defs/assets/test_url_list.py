"""Tests of the asset `url_list`, with the assets and checks that follow it."""

from __future__ import annotations

from pathlib import Path

import dagster as dg

from imgassets.manifests import ProcessedRow, RawRow, UrlRow, from_table
from imgassets.storage import Storage, read_table
from imgassets_tests.project import project_defs
from imgassets_tests.rows import PARTITION


def test_the_partition_of_a_retailer_that_left_the_source_is_green_and_empty(
    tmp_path: Path, storage: Storage
) -> None:
    csv = tmp_path / "products.csv"
    csv.write_text(f"url,retailer,date\nhttp://shop/1.jpg,other-shop,{PARTITION.date}\n")
    assets = {"url_list": UrlRow, "raw_images": RawRow, "processed_images": ProcessedRow}
    job = dg.define_asset_job("job", selection=[*assets])
    defs = dg.Definitions.merge(project_defs(), dg.Definitions(jobs=[job]))
    overrides = {"source": {"kind": "csv", "csv_path": str(csv)}}
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("retailer", [PARTITION.retailer])
        result = defs.resolve_job_def("job").execute_in_process(
            instance=instance,
            partition_key=PARTITION.key,
            run_config={"resources": {"imgassets_settings": {"config": {"overrides": overrides}}}},
        )
    assert result.success
    for asset, row_class in assets.items():
        table = read_table(storage.partition(asset, *PARTITION))
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
