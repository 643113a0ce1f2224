"""imgassets with the job `catalogue_in_pods`, for partitions that are too large for one pod.

Each of its steps runs in a pod of its own. A pod takes 10 to 60 seconds to start, so use it for
giant partitions only. See docs/kubernetes.md.
"""

import dagster as dg
from dagster_k8s import k8s_job_executor

import imgassets.definitions

_ASSETS = ("url_list", "face_model", "raw_images", "processed_images")

catalogue_in_pods = dg.define_asset_job(
    "catalogue_in_pods",
    selection=dg.AssetSelection.assets(*_ASSETS),
    description="catalogue_job, with each step in a pod of its own, for giant partitions.",
    executor_def=k8s_job_executor.configured({"max_concurrent": 8}),
    # The pod of the run only starts those of the steps, which get the resources in values.yaml.
    tags={
        "dagster-k8s/config": {
            "container_config": {
                "resources": {
                    "requests": {"cpu": "250m", "memory": "512Mi"},
                    "limits": {"cpu": "1", "memory": "1Gi"},
                }
            }
        }
    },
)

defs = dg.Definitions.merge(imgassets.definitions.defs, dg.Definitions(jobs=[catalogue_in_pods]))
