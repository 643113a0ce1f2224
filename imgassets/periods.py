"""The days of a partition: one day, a week or a month, named by its first day.

Every part that needs the partition of a day, or the days of a partition, uses these functions.
Days are in UTC. Weeks start on Monday (ISO 8601).
"""

from __future__ import annotations

import datetime as dt

from imgassets.settings import Period

MAX_DAYS = 31
"""Number of days of the longest partition."""


def first_day(day: dt.date, period: Period) -> dt.date:
    """The first day of the partition that contains a day.

    Args:
        day: Any day.
        period: `partitions.period`.
    """
    match period:
        case "day":
            return day
        case "week":
            return day - dt.timedelta(days=day.weekday())
        case "month":
            return day.replace(day=1)


def days_of(first: dt.date, period: Period) -> list[dt.date]:
    """The days of a partition, in ascending order.

    Args:
        first: The first day of the partition.
        period: `partitions.period`.
    """
    days = (first + dt.timedelta(days=number) for number in range(MAX_DAYS))
    return [day for day in days if first_day(day, period) == first]


def first_days(start: dt.date, end: dt.date, period: Period) -> list[dt.date]:
    """The first days of the partitions that contain the days of a range, in ascending order.

    Args:
        start: First day of the range.
        end: Last day of the range; there is no partition if it is before `start`.
        period: `partitions.period`.
    """
    days = (start + dt.timedelta(days=number) for number in range((end - start).days + 1))
    return list(dict.fromkeys(first_day(day, period) for day in days))


def last_first_days(last: dt.date, number: int, period: Period) -> list[dt.date]:
    """The first days of a number of partitions in a row, in ascending order.

    Args:
        last: A day of the last partition.
        number: The number of partitions.
        period: `partitions.period`.
    """
    found = [first_day(last, period)]
    while len(found) < number:
        found.append(first_day(found[-1] - dt.timedelta(days=1), period))
    return found[::-1]
