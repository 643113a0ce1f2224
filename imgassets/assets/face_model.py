"""`face_model`: the face detector's file, verified."""

from typing import Any

import dagster as dg

from imgassets.assets.showing import told_as_failure
from imgassets.folders import models_folder
from imgassets.resources import SettingsResource


@dg.asset(group_name="images", kinds={"onnx"})
def face_model(settings: SettingsResource) -> dg.MaterializeResult[Any]:
    """The face detector's file, from the installed package, a URL or a path.

    Its checksum is verified. `processed_images` sees to the file by itself; materialize this asset
    to fetch it before a long job, or to see which model is in use.
    """
    from imgassets.imaging.models import ModelError, ensure_model, model_sha256

    faces = settings.load().faces
    sha256 = model_sha256(faces)
    with told_as_failure(ModelError):
        path = ensure_model(faces, models_folder())
    return dg.MaterializeResult(
        data_version=dg.DataVersion(sha256),
        metadata={
            "model": faces.model,
            "source": faces.model_source,
            "file": dg.MetadataValue.path(str(path)),
            "sha256": sha256,
            "bytes": path.stat().st_size,
        },
    )
