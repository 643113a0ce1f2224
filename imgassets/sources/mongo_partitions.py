"""Find the partition of a changed MongoDB document, for the change stream and the poll."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bson import DatetimeMS

from imgassets.sources.changes import MAX_DAYS_AHEAD
from imgassets.sources.listing import Anomaly, day_anomaly, retailer_slug, today
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
        source: The source, which has the field names and the expression for a document's date.
        start_date: First day that has a partition.
    """

    source: MongoSource
    start_date: dt.date

    @property
    def expressions(self) -> dict[str, Any]:
        """Aggregation expressions for a document's `retailer`, and its `day` or date anomaly."""
        return {
            "retailer": f"${self.source.settings.fields.retailer}",
            "day": {
                "$ifNull": [
                    {"$dateTrunc": {"date": self.source.date_expression, "unit": "day"}},
                    self.source.missing_or_invalid_date_expression,
                ]
            },
        }

    def resolve(self, values: Mapping[str, Any]) -> str | Unpartitioned:
        """Find the partition of a document.

        Args:
            values: The values of `expressions` for the document.

        Returns:
            The partition key, or the reason why the document has no partition.
        """
        retailer, day = values.get("retailer"), values["day"]
        slug = retailer_slug(retailer)
        if slug is None:
            return Unpartitioned(Anomaly.NO_RETAILER, f"the retailer is {retailer!r}")
        if isinstance(day, str):
            return Unpartitioned(Anomaly(day), self._date_detail(Anomaly(day)))
        if not isinstance(day, dt.datetime):
            # A date outside the range of Python's datetime, in milliseconds since 1970.
            in_future = isinstance(day, DatetimeMS) and int(day) > 0
            anomaly = Anomaly.IN_FUTURE if in_future else Anomaly.BEFORE_START_DATE
            return Unpartitioned(anomaly, f"the date is {day!r}")
        date = day.date()
        reason = day_anomaly(date, self.start_date)
        near = date <= today() + dt.timedelta(days=MAX_DAYS_AHEAD)
        if reason is None or (reason is Anomaly.IN_FUTURE and near):
            return f"{date.isoformat()}|{slug}"
        return Unpartitioned(reason, f"the date is {date}")

    def _date_detail(self, anomaly: Anomaly) -> str:
        """What is wrong with a document's date, without its value: `expressions` has none.

        The poll groups documents by `expressions`; with the value, each invalid date would be a
        group of its own.
        """
        field = self.source.settings.fields.date
        if anomaly is Anomaly.NO_DATE:
            return f"{field} is missing, and _id has no creation time; add the date to the document"
        return f"{field} is neither a date nor ISO 8601 text; correct it in the document"
