"""Open the source that the settings select, and read MongoDB's address from the environment."""

from __future__ import annotations

import os
from collections.abc import Callable

from imgassets.errors import SourceError
from imgassets.settings import Settings
from imgassets.sources.listing import Source

MONGODB_VARIABLE = "MONGODB_URI"


def open_source(settings: Settings, mongodb_uri: Callable[[], str]) -> Source:
    """Open the source of product documents.

    Args:
        settings: Settings whose `source` section selects the source.
        mongodb_uri: Returns the address of MongoDB; called only if `source.kind` is `mongodb`.

    Raises:
        SourceError: The source cannot be opened.
    """
    period = settings.partitions.period
    match settings.source.kind:
        case "mongodb":
            from imgassets.sources.mongodb import MongoSource

            return MongoSource(mongodb_uri(), settings.source, settings.start_date, period)
        case "csv" | "jsonl" | "parquet":
            from imgassets.sources.files import file_records
            from imgassets.sources.table import TableSource

            lines = file_records(settings.source)
            return TableSource(lines, settings.source, settings.start_date, period)
        case "python":
            from imgassets.sources.table import TableSource, function_records

            records = function_records(str(settings.source.function))
            return TableSource(records, settings.source, settings.start_date, period)


def mongodb_address() -> str:
    """The address in `MONGODB_URI`. It contains a password, so it is not a setting.

    Raises:
        SourceError: The variable is not set.
    """
    address = os.environ.get(MONGODB_VARIABLE, "").strip()
    if not address:
        raise SourceError(
            f"{MONGODB_VARIABLE} is not set; set it to the address of your MongoDB, for example "
            "mongodb://user:password@host:27017/ (`imgassets db start` starts a local MongoDB to "
            "try imgassets out, and prints the address to export)"
        )
    return address
