"""Find the partition of a changed MongoDB document, for the change stream and the poll."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from imgassets.sources.changes import MAX_DAYS_AHEAD
from imgassets.sources.listing import Anomaly, Unpartitioned, today
from imgassets.sources.mongo_dates import date_detail
from imgassets.sources.mongo_places import Place
from imgassets.sources.mongodb import MongoSource


@dataclass(frozen=True)
class PartitionResolver:
    """Finds the partition of a document.

    Attributes:
        source: The source, which has the field names and decides the day of a document.
    """

    source: MongoSource

    @property
    def fields(self) -> dict[str, str]:
        """Paths of a document's `retailer`, `date` and `_id`, as aggregation expressions.

        Without `retailer` if the documents' field is not read.
        """
        date = self.source.settings.fields.date
        return {**self.source.retailer_field, "date": f"${date}", "_id": "$_id"}

    @property
    def key(self) -> dict[str, Any]:
        """Expressions for `retailer` and `date` with few distinct values, to group documents."""
        return {**self.source.retailer_field, "date": self.source.day_key}

    def resolve(self, place: Place, values: Mapping[str, Any]) -> str | Unpartitioned:
        """Find the partition of a document.

        Args:
            place: The collection of the document.
            values: The values of `fields` or of `key` for the document.

        Returns:
            The partition key, or the reason why the document has no partition.
        """
        retailer = self.source.retailer_of(place, values.get("retailer"))
        if isinstance(retailer, Unpartitioned):
            return retailer
        value = values.get("date")
        day = self.source.document_day(value, values.get("_id"))
        reason = day if isinstance(day, Anomaly) else self.source.day_anomaly(day)
        if isinstance(day, dt.date):
            first = self.source.first_day(day)
            near = first <= today() + dt.timedelta(days=MAX_DAYS_AHEAD)
            if reason is None or (reason is Anomaly.IN_FUTURE and near):
                return f"{first.isoformat()}|{retailer.slug}"
        assert reason is not None  # noqa: S101  (a day without a reason has a partition)
        return Unpartitioned(reason, date_detail(self.source.settings.fields.date, reason, value))
