"""Which partition a changed document of MongoDB touches, however it was found."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bson import DatetimeMS

from imgassets.sources.changes import HELD_DAYS
from imgassets.sources.listing import Anomaly, day_anomaly, retailer_slug, today
from imgassets.sources.mongodb import MongoSource


@dataclass(frozen=True)
class PartitionResolver:
    """Finds partitions.

    Attributes:
        source: knows the day of a document.
        start_date: first day with a partition.
    """

    source: MongoSource
    start_date: dt.date

    @property
    def expressions(self) -> dict[str, Any]:
        """What MongoDB computes of a document: `retailer`, and `day` or the anomaly of its date."""
        fields = self.source.source.fields
        absent = {"$in": [{"$type": f"${fields.date}"}, ["missing", "null", "undefined"]]}
        return {
            "retailer": f"${fields.retailer}",
            "day": {
                "$ifNull": [
                    {"$dateTrunc": {"date": self.source.date_expression, "unit": "day"}},
                    {"$cond": [absent, Anomaly.NO_DATE, Anomaly.INVALID_DATE]},
                ]
            },
        }

    def partition(self, values: Mapping[str, Any]) -> str | tuple[Anomaly, str]:
        """The partition of a document, or why it has none, with what it has instead.

        Args:
            values: what MongoDB computed of `expressions`.
        """
        retailer, day = values.get("retailer"), values["day"]
        slug = retailer_slug(retailer)
        if slug is None:
            return Anomaly.NO_RETAILER, f"it is {retailer!r}"
        if isinstance(day, str):
            return Anomaly(day), "see its date"
        if not isinstance(day, dt.datetime):
            # A date that Python cannot hold, in milliseconds since 1970.
            ahead = isinstance(day, DatetimeMS) and int(day) > 0
            return (Anomaly.IN_FUTURE if ahead else Anomaly.BEFORE_START_DATE), f"it is {day!r}"
        date = day.date()
        anomaly = day_anomaly(date, self.start_date)
        held = date <= today() + dt.timedelta(days=HELD_DAYS)
        if anomaly is None or (anomaly is Anomaly.IN_FUTURE and held):
            return f"{date.isoformat()}|{slug}"
        return anomaly, f"it is dated {date}"
