"""Find the documents of a day in MongoDB by an index; `dates` decides the day.

MongoDB does what is certain: it compares dates, and leaves out the parts of a value that do not
change its day, so that a million values become some hundreds.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from bson import Code, DatetimeMS, Decimal128, ObjectId, Regex, Timestamp

from imgassets.sources.dates import (
    CLOCK_PATTERN,
    COMPACT_PATTERN,
    DAY_SECONDS,
    EPOCH_PATTERN,
    EPOCHS,
    ISO_PATTERN,
    MAX_LENGTH,
    UTC_ZONES,
    WHITESPACE,
    epoch_texts,
    has_time,
    invalid_date_hint,
    number_ranges,
    object_ranges,
    parse_day,
    text_patterns,
)
from imgassets.sources.listing import Anomaly

# A timestamp has the seconds since 1970 as 32 bits.
_FIRST_TIMESTAMP = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_LAST_TIMESTAMP = dt.datetime(2106, 2, 7, tzinfo=dt.UTC)

_MOMENTS = ["date", "timestamp", "objectId"]
_MISSING = ["missing", "null", "undefined"]


def document_day(value: object, document_id: object, date_format: str | None) -> dt.date | Anomaly:
    """The day of a document.

    Args:
        value: The value of its date field, or of `day_key`.
        document_id: Its `_id`, whose creation time is the date if there is no value.
        date_format: `source.date_format`.

    Returns:
        The day in UTC, or the reason why there is none. Dates that Python cannot represent are at
        the end of its range.
    """
    if value is None:
        if isinstance(document_id, ObjectId):
            return document_id.generation_time.date()
        return Anomaly.NO_DATE
    if isinstance(value, list) and len(value) == 1 and not isinstance(value[0], list):
        value = value[0]
    if isinstance(value, ObjectId):
        value = value.generation_time
    if isinstance(value, Timestamp):
        value = value.as_datetime()
    if isinstance(value, DatetimeMS):
        return dt.date.max if int(value) > 0 else dt.date.min
    if isinstance(value, Decimal128):
        value = value.to_decimal()
    if isinstance(value, Code):  # to Python, JavaScript is a text
        return Anomaly.INVALID_DATE
    return parse_day(value, date_format) or Anomaly.INVALID_DATE


def date_detail(field: str, anomaly: Anomaly, value: object) -> str:
    """What is wrong with a document's date, and what to do.

    Args:
        field: Name of the date field.
        anomaly: Why the document has no partition.
        value: The value of the date field, or of `day_key`.
    """
    text = value.isoformat() if isinstance(value, dt.datetime) else repr(value)
    shown = f"{field} is {text[:80]}"
    match anomaly:
        case Anomaly.BEFORE_START_DATE:
            return f"{shown}; set start_date to an earlier day if you need it"
        case Anomaly.NO_DATE:
            return f"{shown}, and _id has no creation time; add the date to the document"
        case Anomaly.INVALID_DATE:
            return f"{shown}; {invalid_date_hint(value)}"
    return shown


def day_key(field: str, date_format: str | None) -> dict[str, Any]:
    """Expression for a value that has the day of a document's date field, and few distinct values.

    Args:
        field: Path of the date field.
        date_format: `source.date_format`.

    Returns:
        An aggregation expression, which is null for a document without a date, and the value itself
        if MongoDB cannot tell what its day depends on.
    """
    path = f"${field}"
    text = path if date_format is not None and has_time(date_format) else _text_key(path)
    return {
        "$switch": {
            "branches": [
                {"case": {"$in": [{"$type": path}, _MOMENTS]}, "then": _truncated(path)},
                {"case": {"$eq": [{"$type": path}, "string"]}, "then": text},
                {
                    "case": {"$in": [{"$type": path}, _MISSING]},
                    "then": {
                        "$cond": [
                            {"$eq": [{"$type": "$_id"}, "objectId"]},
                            _truncated({"$toDate": "$_id"}),
                            None,
                        ]
                    },
                },
                {"case": {"$isNumber": path}, "then": _number_key(path)},
                {"case": {"$eq": [{"$type": path}, "object"]}, "then": _object_key(path)},
            ],
            "default": path,
        }
    }


def dated(field: str, day: dt.date) -> list[dict[str, Any]]:
    """Filters for documents whose date field is a date, a number, a timestamp or an id of a day.

    Args:
        field: Path of the date field.
        day: Day in UTC.
    """
    start, end = _bounds(day)
    ids = (ObjectId.from_datetime(start), ObjectId.from_datetime(end))
    ranges: list[tuple[object, object]] = [(start, end), ids, *number_ranges(day)]
    if start >= _FIRST_TIMESTAMP and end <= _LAST_TIMESTAMP:
        ranges.append((Timestamp(start, 0), Timestamp(end, 0)))
    return [{field: {"$gte": low, "$lt": high}} for low, high in ranges]


def undated(field: str, day: dt.date) -> dict[str, Any]:
    """Filter for documents without a date whose ObjectId was created on a day."""
    start, end = _bounds(day)
    ids = {"$gte": ObjectId.from_datetime(start), "$lt": ObjectId.from_datetime(end)}
    return {"_id": ids, field: None}  # nothing if the field is `_id`


def spelled(field: str, day: dt.date, date_format: str | None) -> list[dict[str, Any]]:
    """Filters for the documents whose date field can be a text or an object of a day."""
    first, last = epoch_texts(day)
    patterns = [Regex(pattern) for pattern in text_patterns(day, date_format)]
    ranges: list[tuple[object, object]] = [
        (first, last),
        # Whitespace at the start, which is rare, hides what the text is.
        (WHITESPACE[1], "!"),
        *object_ranges(day),
    ]
    return [
        {field: {"$in": patterns}},
        *({field: {"$gte": low, "$lt": high}} for low, high in ranges),
    ]


def _bounds(day: dt.date) -> tuple[dt.datetime, dt.datetime]:
    start = dt.datetime.combine(day, dt.time(), dt.UTC)
    return start, start + dt.timedelta(days=1)


def _truncated(moment: object) -> dict[str, Any]:
    return {"$dateTrunc": {"date": moment, "unit": "day"}}


def _text_key(path: str) -> dict[str, Any]:
    """A text at midnight, or at the full hour if it has an offset in whole hours."""
    date, separator, hour, half, zone = (
        {"$arrayElemAt": ["$$clock.captures", index]} for index in (0, 1, 2, 5, 6)
    )
    whole_hours = {
        "$and": [
            {"$eq": [{"$ifNull": [half, None]}, None]},
            {"$regexMatch": {"input": zone, "regex": r"^[+-]\d\d:?00$"}},
        ]
    }
    number = {"$toLong": {"$substrCP": ["$$text", 0, 10]}}
    in_utc = {"$in": [{"$ifNull": [zone, "Z"]}, [*UTC_ZONES]]}
    clocked = {
        "$switch": {
            "branches": [
                {"case": in_utc, "then": {"$concat": [date, separator, "00:00"]}},
                {"case": whole_hours, "then": {"$concat": [date, separator, hour, ":00", zone]}},
            ],
            "default": path,
        }
    }
    without_clock = {
        "$switch": {
            "branches": [
                {
                    "case": {"$regexMatch": {"input": "$$text", "regex": EPOCH_PATTERN}},
                    "then": _rounded(number, DAY_SECONDS),
                },
                {
                    "case": {"$regexMatch": {"input": "$$text", "regex": COMPACT_PATTERN}},
                    "then": {"$concat": [{"$substrCP": ["$$text", 0, 10]}, "0000"]},
                },
            ],
            "default": path,
        }
    }
    key = {
        "$let": {
            "vars": {"clock": {"$regexFind": {"input": "$$text", "regex": CLOCK_PATTERN}}},
            "in": {"$cond": [{"$eq": ["$$clock", None]}, without_clock, clocked]},
        }
    }
    return {
        "$let": {
            "vars": {"text": {"$trim": {"input": path, "chars": WHITESPACE}}},
            "in": {"$cond": [{"$gt": [{"$strLenCP": path}, MAX_LENGTH]}, path, key]},
        }
    }


def _rounded(number: object, unit: int) -> dict[str, Any]:
    return {"$subtract": [number, {"$mod": [number, unit]}]}


def _number_key(path: str) -> dict[str, Any]:
    """A number that is an epoch at the start of its day."""

    def within(bounds: tuple[int, int]) -> dict[str, Any]:
        return {"$and": [{"$gte": [path, bounds[0]]}, {"$lt": [path, bounds[1]]}]}

    return {
        "$switch": {
            "branches": [
                {"case": within(bounds), "then": _rounded(path, DAY_SECONDS * unit)}
                for unit, bounds in EPOCHS.items()
            ],
            "default": path,
        }
    }


def _object_key(path: str) -> dict[str, Any]:
    """The object `{"$date": ...}` with a shortened value."""
    field = {"$getField": {"field": {"$literal": "$date"}, "input": path}}
    only_field = {"$eq": [{"$size": {"$objectToArray": path}}, 1]}
    iso = {
        "$and": [
            {"$eq": [{"$type": "$$inner"}, "string"]},
            {"$regexMatch": {"input": "$$inner", "regex": ISO_PATTERN}},
        ]
    }
    shortened = {
        "$switch": {
            "branches": [
                {"case": {"$isNumber": "$$inner"}, "then": _number_key("$$inner")},
                {"case": iso, "then": _text_key("$$inner")},
            ],
            "default": "$$inner",
        }
    }
    value = {"$setField": {"field": {"$literal": "$date"}, "input": {}, "value": shortened}}
    return {
        "$let": {
            "vars": {"inner": {"$cond": [only_field, {"$ifNull": [field, None]}, None]}},
            "in": {"$cond": [{"$eq": ["$$inner", None]}, path, value]},
        }
    }
