"""The exceptions of imgassets: one tree, so that callers can catch at the level they need.

    ImgassetsError
    ├── SettingsError
    ├── StorageError
    ├── SourceError
    ├── DownloadError
    │   ├── FetchError
    │   ├── FetchAbortedError
    │   ├── InvalidUrlError
    │   ├── BodyTooLargeError
    │   └── ContentEncodingError
    ├── ImagingError
    │   ├── UnreadableImageError
    │   ├── StepError
    │   ├── ModelError
    │   └── WorkerError
    ├── SharedLimitsError
    ├── TakedownError
    ├── CheckError
    ├── WebhookError
    ├── EmbeddedMongoError
    └── CatalogueServerError

Each message says what is wrong, with the value, and what to do. An error of a single image does
not reach the caller: it becomes the outcome of the image's row.

The run launcher does not import the rest of the package; its `ForkServerError`, which it catches
itself, is in `launcher.client`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imgassets.manifests import Outcome


class ImgassetsError(Exception):
    """Base class of all exceptions that imgassets raises on purpose."""


class SettingsError(ImgassetsError):
    """A setting, its environment variable or an argument of a function is missing or invalid."""


class StorageError(ImgassetsError):
    """The data root cannot be read or written."""


class BrokenFileError(StorageError):
    """A file in the storage has content that cannot be read."""


class SourceError(ImgassetsError):
    """The source of product documents cannot be read, or has no such retailer."""


class DownloadError(ImgassetsError):
    """Base class of errors in the download of one URL."""


class FetchError(DownloadError):
    """The server sent no complete response.

    Attributes:
        outcome: The outcome of the URL's row if there is no further attempt.
        retryable: Whether a further attempt may succeed.
    """

    def __init__(self, outcome: Outcome, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.outcome = outcome
        self.retryable = retryable


class FetchAbortedError(DownloadError):
    """The client was aborted while the request was in flight."""


class InvalidUrlError(DownloadError):
    """The URL cannot be requested: not http or https, no host, or malformed."""


class BodyTooLargeError(DownloadError):
    """The decompressed response body is larger than `download.max_bytes`."""


class ContentEncodingError(DownloadError):
    """The response body is compressed, and the compressed data are truncated or damaged."""


class ImagingError(ImgassetsError):
    """Base class of errors in image processing."""


class UnreadableImageError(ImagingError):
    """The bytes are not a complete image in a supported format, or its size is outside the limits.

    Attributes:
        outcome: `EMPTY`, `NOT_AN_IMAGE`, `UNSUPPORTED_FORMAT`, `CORRUPT`, `TOO_MANY_PIXELS` or
            `TOO_SMALL`.
    """

    def __init__(self, outcome: Outcome, message: str) -> None:
        super().__init__(message)
        self.outcome = outcome


class StepError(ImagingError):
    """A user's processing step cannot be imported, or did not return an image."""


class ModelError(ImagingError):
    """The face detector's model file is missing, is not the expected file, or cannot be loaded."""


class WorkerError(ImagingError):
    """No imaging process can be started."""


class SharedLimitsError(ImgassetsError):
    """The Redis server of `download.shared_limits` does not answer."""


class TakedownError(ImgassetsError):
    """The selection of `imgassets forget` is not valid, or names an unknown retailer."""


class CheckError(ImgassetsError):
    """A check cannot run because its input is missing."""


class BackfillError(ImgassetsError):
    """A backfill cannot be launched."""


class WebhookError(ImgassetsError):
    """The message could not be posted. The text does not contain the webhook's URL, a secret."""


class EmbeddedMongoError(ImgassetsError):
    """The demo's embedded MongoDB cannot be started or used."""


class CatalogueServerError(ImgassetsError):
    """The demo's image server cannot be started or is not running."""
