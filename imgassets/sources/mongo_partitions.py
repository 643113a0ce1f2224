"""Find the partition of a changed MongoDB document, for the change stream and the poll."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from imgassets.sources.changes import MAX_DAYS_AHEAD
from imgassets.sources.listing import Anomaly, day_anomaly, retailer_slug, today
from imgassets.sources.mongo_dates import date_detail
from imgassets.sources.mongodb import MongoSource


@dataclass(frozen=True)
class Unpartitioned:
    """Why a document has no partition.

    Attributes:
        anomaly: The anomaly of the document.
        detail: What is wrong, for messages.
    """

    anomaly: Anomaly
    detail: str


@dataclass(frozen=True)
class PartitionResolver:
    """Finds the partition of a document.

    Attributes:
        source: The source, which has the field names and decides the day of a document.
        start_date: First day that has a partition.
    """

    source: MongoSource
    start_date: dt.date

    @property
    def fields(self) -> dict[str, str]:
        """Paths of a document's `retailer`, `date` and `_id`, as aggregation expressions."""
        names = self.source.settings.fields
        return {"retailer": f"${names.retailer}", "date": f"${names.date}", "_id": "$_id"}

    @property
    def key(self) -> dict[str, Any]:
        """Expressions for `retailer` and `date` with few distinct values, to group documents."""
        return {"retailer": self.fields["retailer"], "date": self.source.day_key}

    def resolve(self, values: Mapping[str, Any]) -> str | Unpartitioned:
        """Find the partition of a document.

        Args:
            values: The values of `fields` or of `key` for the document.

        Returns:
            The partition key, or the reason why the document has no partition.
        """
        retailer, value = values.get("retailer"), values.get("date")
        slug = retailer_slug(retailer)
        if slug is None:
            return Unpartitioned(Anomaly.NO_RETAILER, f"the retailer is {retailer!r}")
        day = self.source.document_day(value, values.get("_id"))
        reason = day if isinstance(day, Anomaly) else day_anomaly(day, self.start_date)
        if isinstance(day, dt.date):
            near = day <= today() + dt.timedelta(days=MAX_DAYS_AHEAD)
            if reason is None or (reason is Anomaly.IN_FUTURE and near):
                return f"{day.isoformat()}|{slug}"
        assert reason is not None  # noqa: S101  (a day without a reason has a partition)
        return Unpartitioned(reason, date_detail(self.source.settings.fields.date, reason, value))
