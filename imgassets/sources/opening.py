"""Which source the settings mean. Nothing else lives here."""

from __future__ import annotations

from collections.abc import Callable

from imgassets.settings import Settings
from imgassets.sources.listing import Source


def open_source(settings: Settings, mongodb_uri: Callable[[], str]) -> Source:
    """The source of product documents.

    Args:
        settings: names the source.
        mongodb_uri: gives the address of MongoDB; called only where the source is one.

    Raises:
        SourceError: the source does not exist.
    """
    match settings.source.kind:
        case "mongodb":
            from imgassets.sources.mongodb import MongoSource

            return MongoSource(mongodb_uri(), settings.source, settings.start_date)
        case "csv":
            from imgassets.sources.table import TableSource, csv_records

            return TableSource(csv_records(str(settings.source.csv_path)), settings.start_date)
        case "python":
            from imgassets.sources.table import TableSource, function_records

            return TableSource(function_records(str(settings.source.function)), settings.start_date)
