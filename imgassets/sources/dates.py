"""The day of a document, as every source, the survey, the sensor and the listing understand it.

`parse_day` is the definition. For MongoDB, which must find the documents of a day by an index,
`text_patterns`, `number_ranges` and the others give the spellings of a day: a value of the day
always matches one of them, while a value that matches one can still be of another day.

A text is refused if its day is ambiguous: `04/03/2026` is in March or in April. Libraries that
parse any text (dateutil, dateparser) guess in this case.
"""

from __future__ import annotations

import datetime as dt
import itertools
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from functools import lru_cache

DAY_SECONDS = 86_400

# Epoch seconds have 10 digits from September 2001 to 2286, milliseconds 13, microseconds (Spark) 16
# and nanoseconds (pandas) 19, up to 2262; other numbers are no dates. The first day is a whole one.
_FIRST_EPOCH = 11_575 * DAY_SECONDS
_MAX_INT = 2**63 - 1
EPOCHS = {
    unit: (_FIRST_EPOCH * unit, min(10**10 * unit, _MAX_INT)) for unit in (1, 10**3, 10**6, 10**9)
}
"""Bounds, from and before, of the numbers that are epochs, by units per second."""

WHITESPACE = " \t\r\n\v\f"
"""Characters that may be around a text."""

MAX_LENGTH = 100
"""Maximum length of a text; a longer one is no date."""

# Zones that RFC 2822 defines, in hours from UTC.
_ZONES = {"EST": -5, "EDT": -4, "CST": -6, "CDT": -5, "MST": -7, "MDT": -6, "PST": -8, "PDT": -7}

# The offset of Kiribati, +14:00, is the largest one.
_OFFSET = r"[+-](?:0\d|1[0-4])(?::?[0-5]\d)?"

CLOCK_PATTERN = (
    # The first two alternatives are common, and much faster than the last one.
    r"^(\d{4}-\d\d-\d\d|\d{8}|[^:]*?[^:\d\s](?:[^:]*?[^:\s])?)([Tt]|,?[ \t]+(?:at[ \t]+)?)"
    r"([01]?\d|2[0-3])(?::([0-5]\d)(?::[0-5]\d(?:[.,]\d+)?)?"
    # The basic form of ISO 8601: T101500; elsewhere, four digits can be a year.
    r"|(?<=[Tt]\d\d)(?:([0-5]\d)(?:[0-5]\d(?:[.,]\d+)?)?)?)"
    r"(?:[ \t]*([AaPp])\.?[Mm]\.?)?"
    rf"(?:[ \t]*(Z|z|UTC|GMT|(?:UTC|GMT)?{_OFFSET}|[ECMP][SD]T)"
    # The zone's name, as JavaScript, Java and Go write it after the offset.
    r"(?:[ \t]*\([^)]*\)|\[[^\]]*\]| UTC)?)?$"
)
"""A date with a time, for Python and MongoDB alike.

Groups: date, separator, hour, minute, minute, A or P, zone.
"""

UTC_ZONES = ("Z", "z", "UTC", "GMT", "+00:00", "-00:00", "+0000", "-0000", "+00")
"""Zones after which the day of a text is the written one."""

EPOCH_PATTERN = r"^\d{10}(?:(?:\d{3}){1,3}|\.\d+)?$"
"""Epoch seconds, with or without a fraction, or milli-, micro- or nanoseconds."""

ISO_PATTERN = r"^\d{4}-\d\d-\d\d"
"""The start of a text in `{"$date": ...}`."""

COMPACT_PATTERN = r"^\d{10}[0-5]\d[0-5]\d$"
"""A time such as `20260131235959`; the hour is not checked."""

_CLOCK = re.compile(CLOCK_PATTERN, re.ASCII)
# Text from C's `ctime` and Unix's `date` has the year after the time.
_YEAR_LAST = re.compile(
    r"^([A-Za-z]{3} [A-Za-z]{3} [ \d]\d) (\d\d:\d\d:\d\d(?: UTC| GMT)?) (\d{4})$"
)
_YEAR_FIRST = re.compile(r"^(\d{4})(?:([-/.])(\d\d?)\2(\d\d?)|(\d\d)(\d\d))$", re.ASCII)
_NAMED_MONTH = re.compile(
    r"^(?:([A-Za-z]{3,9}),?[ \t]+)?"
    r"(?:(\d\d?)(?:st|nd|rd|th)?[ \t/-]+([A-Za-z]{3,9})\.?[ \t,/-]+"
    r"|([A-Za-z]{3,9})\.?[ \t]+(\d\d?)(?:st|nd|rd|th)?,?[ \t]+)(\d{4})$",
    re.ASCII,
)
_MONTHS = (
    *("january", "february", "march", "april", "may", "june", "july"),
    *("august", "september", "october", "november", "december"),
)
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_MONTH_NUMBERS = {
    name: number for number, full in enumerate(_MONTHS, 1) for name in (full, full[:3])
} | {"sept": 9}
_WEEKDAY_NUMBERS = {
    name: number for number, full in enumerate(_WEEKDAYS) for name in (full, full[:3])
}


def parse_day(value: object, date_format: str | None = None) -> dt.date | None:
    """Parse a date value, and return its day in UTC.

    Args:
        value: A date, a datetime, a text, a number (seconds, milli-, micro- or nanoseconds since
            1970, or `20260131`), or `{"$date": ...}` as MongoDB's tools write it; or a list of one
            of these. A time without zone is in UTC.
        date_format: Format (`strptime`) that is tried first for texts; None for none.

    Returns:
        The day; None if the value is no date, or ambiguous.
    """
    try:
        return _day(value, date_format)
    except (ValueError, OverflowError):
        return None


def invalid_date_hint(value: object) -> str:
    """What to do about a value that is no date."""
    if isinstance(value, Mapping):
        names = ", ".join(str(name) for name in value)
        return f"name the field in it that is the date in source.fields.date: {names}"
    if isinstance(value, list | tuple) and len(value) > 1:
        return "a document has one date; name the field that is the date in source.fields.date"
    if isinstance(value, str) and re.match(r"^\s*\d{1,4}[-/. ]\d", value):
        return "if it is a date, name its format in source.date_format, for example '%d/%m/%Y'"
    return "write dates as ISO 8601, for example 2026-01-31T10:00:00Z, or set source.date_format"


def written_days(day: dt.date) -> list[dt.date]:
    """The days that texts of a day can name: with a UTC offset, also the day before or after."""
    return [day + dt.timedelta(days=shift) for shift in (-1, 0, 1)]


def text_patterns(day: dt.date, date_format: str | None = None) -> list[str]:
    """Regular expressions of the texts of a day, each with a literal prefix where it can have one.

    They leave out texts in epoch seconds (see `epoch_texts`) and whitespace before the text.
    """
    patterns: list[str] = []
    for written in written_days(day):
        # Only a text with an offset can be of a neighbour of the day that it names.
        zone = "" if written == day else r"(?=.*(?:[+-]\d\d|[ECMP][SD]T))"
        patterns += [pattern + zone for pattern in _spellings(written)]
        if date_format is not None:
            patterns += _format_spellings(written, date_format)
    return patterns


def epoch_texts(day: dt.date) -> tuple[str, str]:
    """Bounds, from and before, of the texts of a day that are epochs."""
    # Texts of milliseconds and smaller units are between those of the seconds.
    start = _epoch(day)
    return str(start), str(start + DAY_SECONDS)


def number_ranges(day: dt.date) -> list[tuple[int, int]]:
    """Bounds, from and before, of the numbers of a day."""
    start, compact = _epoch(day), int(day.strftime("%Y%m%d"))
    return [
        *(
            (start * unit, min((start + DAY_SECONDS) * unit, last))
            for unit, (_, last) in EPOCHS.items()
            if start * unit < last
        ),
        (compact, compact + 1),
        (compact * 10**6, (compact + 1) * 10**6),
    ]


def object_ranges(day: dt.date) -> list[tuple[dict[str, object], dict[str, object]]]:
    """Bounds, from and before, of the objects `{"$date": ...}` of a day, in BSON's order."""
    first, last = day - dt.timedelta(days=1), day + dt.timedelta(days=2)
    start, end = _epoch(day) * 1000, (_epoch(day) + DAY_SECONDS) * 1000
    return [
        ({"$date": first.isoformat()}, {"$date": last.isoformat()}),
        ({"$date": start}, {"$date": end}),
        ({"$date": {"$numberLong": str(start)}}, {"$date": {"$numberLong": str(end)}}),
    ]


def has_time(date_format: str) -> bool:
    """Whether a format names more than a day, so that its texts differ within a day."""
    return bool(re.search(r"%[^dmYybBaAjU%-]|:", date_format))


def _day(value: object, date_format: str | None) -> dt.date | None:
    day: dt.date | None = None
    match value:
        case dt.datetime():
            day = (value.astimezone(dt.UTC) if value.tzinfo else value).date()
        case dt.date():
            day = value
        case str() if len(value) <= MAX_LENGTH:
            day = _text_day(value.strip(WHITESPACE), date_format)
        case {"$date": inner, **rest} if not rest:
            day = _extended_json_day(inner)
        case bool():
            pass
        case [inner] if not isinstance(inner, list | tuple):
            day = _day(inner, date_format)  # as Scrapy's item loaders write it
        case Decimal():
            day = _day(float(value), date_format)
        case int() | float():
            # 20260131 is a day, 20260131235959 a time.
            digits = str(int(value)) if value == int(value) else ""
            day = _text_day(digits, None) if len(digits) in (8, 14) else _epoch_day(value)
    return day


def _extended_json_day(value: object) -> dt.date | None:
    match value:
        case {"$numberLong": str(digits), **rest} if not rest:
            return _epoch_day(int(digits)) if re.fullmatch(r"[1-9][0-9]{12}", digits) else None
        case str() if re.match(ISO_PATTERN, value, re.ASCII):
            return _text_day(value.strip(WHITESPACE), None)
        case int() | float() if EPOCHS[1000][0] <= value < EPOCHS[1000][1]:
            return _epoch_day(value)
    return None


def _text_day(text: str, date_format: str | None) -> dt.date | None:
    if date_format is not None and (found := _formatted(text, date_format)) is not None:
        return _day(found, None)
    if re.match(EPOCH_PATTERN, text, re.ASCII):
        return _epoch_day(int(text[:10]))
    if re.match(COMPACT_PATTERN, text, re.ASCII):
        text = f"{text[:8]}T{text[8:]}"
    if moved := _YEAR_LAST.match(text):
        text = f"{moved[1]} {moved[3]} {moved[2]}"
    clock = _CLOCK.match(text)
    date = clock[1] if clock else text
    written = _written_day(date, date_format)
    if written is None or clock is None:
        return written
    hour, minute, half, zone = int(clock[3]), int(clock[4] or clock[5] or 0), clock[6], clock[7]
    if half:
        hour = hour % 12 + (12 if half in "Pp" else 0)
    offset = _offset(zone)
    if not offset:
        return written
    return (dt.datetime.combine(written, dt.time(hour, minute)) - offset).date()


def _written_day(date: str, date_format: str | None) -> dt.date | None:
    """The day that a text without a time names."""
    if date_format is not None and (found := _formatted(date, date_format)) is not None:
        return found.date()
    if match := _YEAR_FIRST.match(date):
        return dt.date(int(match[1]), int(match[3] or match[5]), int(match[4] or match[6]))
    if match := _NAMED_MONTH.match(date):
        weekday, name = match[1], match[3] or match[4]
        # An index can find a few ways to write a name only.
        if any(word and not _usual_case(word) for word in (weekday, name)):
            return None
        day = dt.date(int(match[6]), _MONTH_NUMBERS.get(name.lower(), 0), int(match[2] or match[5]))
        right = weekday is None or _WEEKDAY_NUMBERS.get(weekday.lower()) == day.weekday()
        return day if right else None
    return None


def _formatted(text: str, date_format: str) -> dt.datetime | None:
    try:
        moment = dt.datetime.strptime(text, date_format)
    except ValueError:
        return None
    # `strptime` accepts more than an index can find, for example any case.
    known = any(pattern.match(text) for pattern in _compiled(moment.date(), date_format))
    return moment if known else None


@lru_cache(maxsize=4096)
def _compiled(day: dt.date, date_format: str) -> list[re.Pattern[str]]:
    return [re.compile(pattern, re.ASCII) for pattern in _format_spellings(day, date_format)]


def _epoch_day(number: float) -> dt.date | None:
    for unit, (first, end) in EPOCHS.items():
        if first <= number < end:
            return dt.date(1970, 1, 1) + dt.timedelta(days=int(number // (unit * DAY_SECONDS)))
    return None


def _offset(zone: str | None) -> dt.timedelta:
    if zone is None or zone in UTC_ZONES:
        return dt.timedelta()
    if zone in _ZONES:
        return dt.timedelta(hours=_ZONES[zone])
    digits = re.sub(r"[^0-9+-]", "", zone)
    size = dt.timedelta(hours=int(digits[1:3]), minutes=int(digits[3:] or 0))
    return -size if digits[0] == "-" else size


def _epoch(day: dt.date) -> int:
    return (day - dt.date(1970, 1, 1)).days * DAY_SECONDS


def _usual_case(word: str) -> bool:
    return word in _cases(word)


def _cases(word: str) -> tuple[str, str, str]:
    return word.capitalize(), word.lower(), word.upper()


def _numbers(number: int) -> tuple[str, ...]:
    """A day or month as texts, with and without a zero in front."""
    return tuple(dict.fromkeys((f"{number:02}", str(number))))


def _spellings(day: dt.date) -> Iterator[str]:
    """Regular expressions of the texts that name a day."""
    year, months, days = f"{day.year:04}", _numbers(day.month), _numbers(day.day)
    yield f"^{year}{day.month:02}{day.day:02}"
    for separator, month, number in itertools.product(("-", "/", r"\."), months, days):
        yield rf"^{year}{separator}{month}{separator}{number}(?!\d)"
    month = _MONTHS[day.month - 1][:3]
    rest = rf"(?=.*{year})"
    for name in _cases(month):
        yield rf"^{name}(?=[A-Za-z]*\.?\s+0?{day.day}\D){rest}"
    for number in days:
        yield rf"^{number}(?=\D{{1,6}}(?i:{month})){rest}"
    for name in _cases(_WEEKDAYS[day.weekday()][:3]):
        yield rf"^{name}(?=.*(?i:{month}))(?=.*\b0?{day.day}(?:st|nd|rd|th)?\b){rest}"


def _format_spellings(day: dt.date, date_format: str) -> list[str]:
    """Regular expressions of the texts of a format that name a day."""
    parts: list[tuple[str, ...]] = [("^",)]
    known = {
        "%Y": (f"{day.year:04}",),
        "%y": (f"{day.year % 100:02}",),
        "%m": _numbers(day.month),
        "%d": _numbers(day.day),
        "%b": _cases(_MONTHS[day.month - 1][:3]),
        "%B": _cases(_MONTHS[day.month - 1]),
        "%a": _cases(_WEEKDAYS[day.weekday()][:3]),
        "%A": _cases(_WEEKDAYS[day.weekday()]),
    }
    for part in re.split(r"(%.|\s+)", date_format):
        if part.startswith("%"):
            parts.append(known.get(part, (".*",)))
        else:
            parts.append((r"\s+",) if part.isspace() else (re.escape(part),))
    return ["".join(choice) for choice in itertools.product(*parts)]
