"""Read the records of a file: CSV, JSON Lines or Parquet.

A record is a mapping with the names of the file. Which of its fields are the URLs, the retailer,
the date and the product is decided in `table`.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from upath import UPath

from imgassets.errors import SourceError
from imgassets.folders import project_root
from imgassets.settings import SourceFields, SourceSettings
from imgassets.sources.images import path_heads
from imgassets.sources.listing import Anomaly
from imgassets.wording import counted

if TYPE_CHECKING:
    import pyarrow as pa

Record = Mapping[str, Any]

DEFAULT_PATHS: Mapping[str, tuple[str, ...]] = {
    "images": ("product_images", "url"),
    "retailer": ("product_retailer", "retailer"),
    "date": ("date", "scraped_at"),
    "product_id": ("product_id", "_id"),
}
"""Where a record has a field that `source.fields` does not set; the first that it has is used."""

_FIELDS = SourceFields()
_NAMES = {"csv": "CSV", "jsonl": "JSON Lines", "parquet": "Parquet"}
_DELIMITERS = ",;\t|"
# The line that tells Excel the delimiter.
_EXCEL_DELIMITER = re.compile(r'"?sep=(.)"?\s*$', re.I)
_BATCH_ROWS = 1_000
_GZIP_MAGIC = b"\x1f\x8b"
# Files in bzip2 and zstd; the others that are no text have a null byte near their start.
_BINARY_MAGICS = (b"BZh", b"\x28\xb5\x2f\xfd")
# The limit of the csv module (131,072) loses rows that also have a whole page in HTML. Without one,
# a quote that is not closed would read the rest of the file into memory.
_MAX_CELL = 1_000_000


@dataclass(frozen=True)
class InvalidLine:
    """A problem of a line, in place of its record or in addition to it.

    Attributes:
        anomaly: `INVALID_RECORD` (the line has no record) or `NOT_UTF_8`.
        name: Which line, for example `line 17`.
        detail: What is wrong with it.
    """

    anomaly: Anomaly
    name: str
    detail: str


Entries = Iterator[Record | InvalidLine]


def file_records(settings: SourceSettings) -> Callable[[], Entries]:
    """Make a function that reads the records of `source.path`, also of a file in gzip.

    - CSV: a header, or two columns without a header, `url,save_path`, where the last folder of the
      save path is the retailer.
    - JSON Lines: one object per line; or one JSON array of objects.
    - Parquet: only the columns that the settings name are read.

    If `source.fields.retailer` is not set and a record does not give its retailer, the name of the
    file without its extension is it.

    Args:
        settings: `kind`, `path`, and how the file is read.

    Returns:
        The function. It raises `SourceError` if the file cannot be read.
    """
    address = str(settings.path)
    stem = Path(address).name.removesuffix(".gz")
    default = {} if paths_of(settings, "retailer") else {"retailer": Path(stem).stem}
    read = {"csv": _read_csv, "jsonl": _read_json, "parquet": _read_parquet}[settings.kind]

    def records() -> Entries:
        path = UPath(address) if "://" in address else UPath(project_root() / address)
        try:
            with ExitStack() as stack:
                file: BinaryIO = stack.enter_context(path.open("rb"))
                if _starts_with(file, _GZIP_MAGIC):
                    # GzipFile is no BinaryIO to type checkers: a few attributes differ.
                    file = cast(BinaryIO, stack.enter_context(gzip.open(file)))
                for record in read(file, settings):
                    yield record if isinstance(record, InvalidLine) else {**default, **record}
        # In Parquet: a timestamp after the year 9999 (OverflowError), an unknown zone (KeyError).
        except (
            *(OSError, EOFError, zlib.error, ValueError),
            *(NotImplementedError, OverflowError, KeyError),
        ) as error:
            if isinstance(error, UnicodeError) and settings.kind != "parquet":
                raise SourceError(
                    f"source.path: {address} cannot be read: {error}; "
                    "set source.encoding to the encoding of the file"
                ) from None
            if isinstance(error, IsADirectoryError) or "*" in address:
                raise SourceError(
                    f"source.path: {address} is no file; name one file, or read several in a "
                    "function (source.kind: python)"
                ) from None
            reason = getattr(error, "strerror", None) or error
            raise SourceError(
                f"source.path: {address} cannot be read as {_NAMES[settings.kind]}: {reason}; "
                "correct the path, or source.kind, or write the file again"
            ) from None

    return records


def paths_of(settings: SourceSettings, field: str) -> tuple[str, ...] | None:
    """The paths that `source.fields` sets for a field of a record; None if it is not set.

    Args:
        settings: The settings.
        field: `images`, `retailer`, `date` or `product_id`.
    """
    value = getattr(settings.fields, field)
    if value == getattr(_FIELDS, field):
        return None
    return (value,) if isinstance(value, str) else value


def _read_csv(file: BinaryIO, settings: SourceSettings) -> Entries:
    problems: list[InvalidLine] = []
    lines = (
        part
        for line in _text_lines(file, settings, problems)
        # A line can also end with a carriage return.
        for part in ((line,) if line.find("\r", 0, -2) < 0 else io.StringIO(line, newline=""))
    )
    head: list[str] = []
    for line in lines:
        head.append(line)
        if line.strip():
            break
    else:
        return
    delimiter = settings.delimiter
    if named := _EXCEL_DELIMITER.match(head[-1]):
        delimiter = delimiter or named[1]
        head[-1:] = ["\n", next(lines, "")]  # an empty line, so that line numbers stay
    delimiter = delimiter or _sniff_delimiter(head[-1], settings)
    rows = _csv_rows(chain(head, lines), delimiter)
    start = next(rows, (0, [""]))
    if isinstance(start, InvalidLine):
        raise SourceError(f"source.path: the header of {settings.path} is broken: {start.detail}")
    first = start[1]
    header = [_column(cell, settings) for cell in first]
    images = frozenset(_names(settings, "images"))
    if _has_images(header, settings):
        _require_columns(header, settings)
    elif len(first) == 2 and "://" in first[0]:
        rows, header = chain([start], rows), []
    else:
        wanted = " and ".join(paths_of(settings, "images") or ("url",))
        raise SourceError(
            f"source.path: {settings.path} starts with {delimiter.join(first)[:100]!r}; it must "
            f"start with a header that has the column {wanted} (source.fields.images; the other "
            "columns: source.fields), or have two columns: url,save_path"
        )
    for row in rows:
        if isinstance(row, InvalidLine):
            yield row
        elif header:
            yield _csv_record(header, *row, images)
        else:
            cells = row[1]
            folder = PurePosixPath(cells[1].strip() if len(cells) > 1 else "").parent.name
            yield {"url": cells[0], **({"retailer": folder} if folder else {})}
        yield from problems
        problems.clear()


def _csv_record(
    header: list[str], number: int, cells: list[str], images: Collection[str]
) -> Record | InvalidLine:
    """The record of a row.

    Args:
        header: The names of the columns.
        number: Number of its line.
        cells: Its cells. Missing ones are empty.
        images: The names of columns with images. If there are several of one name, all are read; of
            other columns, the first that is not empty.
    """
    if any(cell.strip() for cell in cells[len(header) :]):
        detail = (
            f"{counted(len(cells), 'cell')}, but {counted(len(header), 'column')}: is a "
            "delimiter in a cell without quotes?"
        )
        return InvalidLine(Anomaly.INVALID_RECORD, f"line {number}", detail)
    record: dict[str, Any] = {}
    for name, cell in zip_longest(header, cells[: len(header)], fillvalue=""):
        if name in images and name in record:
            record[name] = [record[name], cell] if cell else record[name]
        elif not record.get(name):
            record[name] = cell
    return record


def _csv_rows(
    lines: Iterable[str], delimiter: str
) -> Iterator[tuple[int, list[str]] | InvalidLine]:
    """The rows that are not empty, with the numbers of their lines; and lines that are not CSV."""
    ended = False

    def watched() -> Iterator[str]:
        nonlocal ended
        yield from lines
        ended = True

    csv.field_size_limit(_MAX_CELL)
    reader = csv.reader(watched(), delimiter=delimiter, skipinitialspace=True)
    while True:
        start = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            end = reader.line_num
            name = f"line {start}" if start == end else f"lines {start} to {end}"
            yield InvalidLine(Anomaly.INVALID_RECORD, name, str(error))
            continue
        if ended:  # the reader asked for a further line to complete this row
            detail = "a quote is not closed, so the rest of the file is one cell"
            yield InvalidLine(Anomaly.INVALID_RECORD, f"line {start}", detail)
        elif delimiter == "\t" and reader.line_num > start and any("\t" in cell for cell in cells):
            # Files with tabs are often written without quotes, so that `"` is a character.
            detail = 'a cell starts with ", which joins these lines; put such cells in quotes'
            name = f"lines {start} to {reader.line_num}"
            yield InvalidLine(Anomaly.INVALID_RECORD, name, detail)
        elif cells:
            yield start, cells


def _sniff_delimiter(line: str, settings: SourceSettings) -> str:
    """The delimiter that gives the most columns that the settings name."""

    def score(delimiter: str) -> tuple[int, bool]:
        cells = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True))
        known = {name for field in DEFAULT_PATHS for name in _names(settings, field)}
        columns = {_column(cell, settings) for cell in cells}
        return len(known & columns), len(cells) == 2

    return max(_DELIMITERS, key=score)


def _column(cell: str, settings: SourceSettings) -> str:
    """The name of a column as in the settings, whatever its case and the space around it."""
    name = cell.strip().lower()
    known = (known for field in DEFAULT_PATHS for known in _names(settings, field))
    return next((path for path in known if path.lower() == name), name)


def _names(settings: SourceSettings, field: str) -> list[str]:
    """The names of columns that a field can be in."""
    paths = paths_of(settings, field) or DEFAULT_PATHS[field]
    return [name for path in paths for name in path_heads(path)]


def _has_images(columns: Iterable[str], settings: SourceSettings) -> bool:
    return not set(columns).isdisjoint(_names(settings, "images"))


def _require_columns(columns: list[str], settings: SourceSettings) -> None:
    """Raise an error if a column that `source.fields` sets and that is read is missing."""
    for field in DEFAULT_PATHS:
        if field == "retailer" and settings.retailer:
            continue
        for path in paths_of(settings, field) or ():
            if set(columns).isdisjoint(path_heads(path)):
                raise SourceError(
                    f"source.fields.{field}: {settings.path} has no column {path!r}; its columns: "
                    f"{', '.join(columns)[:500]}"
                )


def _read_json(file: BinaryIO, settings: SourceSettings) -> Entries:
    problems: list[InvalidLine] = []
    lines = _text_lines(file, settings, problems)
    started = False
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if line.strip() == "{":
            raise SourceError(
                f"source.path: an object in {settings.path} has several lines (line {number}); "
                "write one JSON object per line, or one array of objects"
            )
        if not started and line.lstrip().startswith("["):
            for index, entry in enumerate(json.loads(line + "".join(lines)), 1):
                yield _json_record(entry, f"record {index}")
        else:
            yield _json_line(line, number)
        started = True
        yield from problems
        problems.clear()


def _json_line(line: str, number: int) -> Record | InvalidLine:
    try:
        text = line.rstrip()
        value = json.loads(text[:-1] if text.endswith(",") else line)  # a line of an array
    except (ValueError, RecursionError) as error:
        # The decoder counts lines from this one.
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        detail = f"not JSON: {reason}: {line[:100]!r}"
        return InvalidLine(Anomaly.INVALID_RECORD, f"line {number}", detail)
    return _json_record(value, f"line {number}")


def _json_record(value: object, name: str) -> Record | InvalidLine:
    if isinstance(value, dict):
        return value
    return InvalidLine(Anomaly.INVALID_RECORD, name, f"not a JSON object: {str(value)[:100]!r}")


def _read_parquet(file: BinaryIO, settings: SourceSettings) -> Entries:
    import pyarrow as pa
    import pyarrow.parquet as pq

    parquet = pq.ParquetFile(file)
    stored = parquet.schema_arrow.names
    # As in CSV files, case does not matter, unless there is a column with the very name.
    columns = [name if (same := _column(name, settings)) in stored else same for name in stored]
    if not _has_images(columns, settings):
        images = " and ".join(paths_of(settings, "images") or ("url",))
        raise SourceError(
            f"source.path: {settings.path} has no column {images}; set source.fields.images to one "
            f"of its columns: {', '.join(stored)[:500]}"
        )
    _require_columns(columns, settings)
    known = {name for field in DEFAULT_PATHS for name in _names(settings, field)}
    wanted = {name: column for name, column in zip(stored, columns, strict=True) if column in known}
    batches = parquet.iter_batches(_BATCH_ROWS, columns=list(wanted), use_threads=False)
    for batch in batches:
        columns = [wanted[name] for name in batch.schema.names]
        texts = pa.RecordBatch.from_arrays([_as_text(column) for column in batch.columns], columns)
        yield from texts.to_pylist(maps_as_pydicts="lossy")


def _as_text(column: pa.Array) -> pa.Array:
    """A column with text in place of bytes, which Hive and Impala write for text."""
    import pyarrow as pa

    type_ = column.type
    if pa.types.is_binary(type_):
        type_ = pa.string()
    elif pa.types.is_list(type_) and pa.types.is_binary(type_.value_type):
        type_ = pa.list_(pa.string())
    try:
        return column.cast(type_)
    except pa.ArrowInvalid:
        return column  # bytes that are no text, such as those of a UUID


def _text_lines(
    file: BinaryIO, settings: SourceSettings, problems: list[InvalidLine]
) -> Iterator[str]:
    """The lines of a file as text, with their line breaks.

    Args:
        file: The file.
        settings: `path`, and `encoding`. None: UTF-8, or UTF-16 if the file starts with a
            byte-order mark; lines that are not UTF-8 are read as Windows-1252.
        problems: Receives the lines that are not UTF-8.

    Raises:
        SourceError: The file is no text.
    """
    encoding = settings.encoding
    if encoding is None and _starts_with(file, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        encoding = "utf-16"
    if encoding is not None:
        with io.TextIOWrapper(file, encoding, newline="\n") as text:
            yield text.readline().removeprefix("\ufeff")
            yield from text
        return
    for number, line in enumerate(file, 1):
        if number == 1 and (b"\0" in line or line.startswith(_BINARY_MAGICS)):
            raise SourceError(
                f"source.path: {settings.path} is no text; unpack it (only gzip is read), save a "
                "workbook as CSV, or set source.encoding, for example to utf-16-le"
            )
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            detail = f"{error}; read as Windows-1252; set source.encoding if that is wrong"
            problems.append(InvalidLine(Anomaly.NOT_UTF_8, f"line {number}", detail))
            yield line.decode("cp1252", "replace")


def _starts_with(file: BinaryIO, *prefixes: bytes) -> bool:
    """Whether a file starts with one of some prefixes of two bytes."""
    start = file.read(2)
    file.seek(0)
    return start in prefixes
