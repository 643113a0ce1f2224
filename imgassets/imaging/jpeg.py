"""Read the size of plain JPEG files, and rewrite those that have faults outside their pixels.

Browsers ignore such faults. libjpeg-turbo reports them (bytes between segments, a broken ICC
segment, ...) with the same kind of warning as missing pixels, and can only be told to accept all
warnings or none. So the file is written again without them, and then decoded as strictly as any
other.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

SIGNATURE = b"\xff\xd8\xff"
# ITU-T T.81, table B.1: frame headers are C0 to CF except DHT (C4), JPG (C8) and DAC (CC).
FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9
MARKERS_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
# Inside a scan, FF is followed by a stuffed zero, a restart marker or a fill byte.
NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")

_START_OF_IMAGE = 0xD8
_SEQUENTIAL_FRAMES = (0xC0, 0xC1, 0xC9)
_APP0, _APP1, _APP2, _APP14, _APP15, _COMMENT = 0xE0, 0xE1, 0xE2, 0xEE, 0xEF, 0xFE
# Baseline and progressive frames, Huffman and quantisation tables, restart interval.
_PLAIN = {0xC0, 0xC2, 0xC4, 0xDB, 0xDD, _APP0, _COMMENT}
_JFIF, _EXIF, _ICC, _ADOBE = b"JFIF\0", b"Exif\0\0", b"ICC_PROFILE\0", b"Adobe"
# libjpeg ignores shorter segments (APP0_DATA_LEN and APP14_DATA_LEN in jdmarker.c).
_JFIF_BYTES, _ADOBE_BYTES = 14, 12
# Zeros, fill bytes and text.
_HARMLESS = b"\0\xff\t\n\r" + bytes(range(0x20, 0x7F))
# libjpeg-turbo has read up to 8 bytes of what follows a scan when the scan ends (its bit buffer has
# 64 bits); it does not count them. The last bytes of the scan itself may look harmless, too.
_MAX_NOT_COUNTED = 12


@dataclass(frozen=True, slots=True)
class _Segment:
    """A marker, its parameters, and the compressed pixels behind them if it starts a scan."""

    marker: int
    content: bytes
    scan: bytes = b""

    def __bytes__(self) -> bytes:
        if self.marker in (_START_OF_IMAGE, END_OF_IMAGE):
            return bytes([0xFF, self.marker])
        length = (len(self.content) + 2).to_bytes(2)
        return bytes([0xFF, self.marker]) + length + self.content + self.scan


def plain_size(data: bytes) -> tuple[int, int] | None:
    """Read the size of a JPEG file that has nothing else to be read before it is decoded.

    Args:
        data: The whole file, which begins with `SIGNATURE`.

    Returns:
        Width and height in pixels. None if the file has metadata other than JFIF and comments
        (EXIF, ICC, Adobe, ...), components other than three of eight bits, or faulty headers.
    """
    size, position = None, 2
    while position + 4 <= len(data):
        fill, marker, length = struct.unpack_from(">BBH", data, position)
        if fill == 0xFF and marker == START_OF_SCAN:
            return size
        if fill != 0xFF or marker not in _PLAIN:
            return None
        if marker in FRAME_MARKERS:
            frame = data[position + 4 : position + 10]
            if size is not None or frame[:1] != b"\x08" or frame[5:] != b"\x03":
                return None
            size = int.from_bytes(frame[3:5]), int.from_bytes(frame[1:3])
        position += 2 + length
    return None


def without_faulty_metadata(data: bytes) -> bytes:
    """Rewrite a JPEG file without what libjpeg warns of though it does not concern the pixels.

    Bytes between segments, comments, unknown, short and incomplete metadata are left out; the
    parameters of sequential scans, an unknown colour transform and the version of JFIF are replaced
    with those that decoders assume. EXIF data and complete ICC profiles are kept.

    Args:
        data: The whole file, which begins with `SIGNATURE`.

    Returns:
        The rewritten file. It ends where the file ends if there is no end marker.
    """
    segments = list(_segments(data))
    frame = next((s for s in segments if s.marker in FRAME_MARKERS), None)
    if frame is None:
        return data
    metadata = [
        *(
            _with_known_version(s)
            for s in segments
            if s.marker == _APP0 and _is(s, _JFIF, _JFIF_BYTES)
        ),
        *(
            _with_known_transform(s, frame)
            for s in segments
            if s.marker == _APP14 and _is(s, _ADOBE, _ADOBE_BYTES)
        ),
        *[s for s in segments if s.marker == _APP1 and _is(s, _EXIF, 0)][:1],
        *_complete_profile(s for s in segments if s.marker == _APP2 and _is(s, _ICC, 14)),
    ]
    pixels = [
        _with_sequential_parameters(s, frame)
        for s in segments
        if not _APP0 <= s.marker <= _APP15 and s.marker != _COMMENT
    ]
    return SIGNATURE[:2] + b"".join(bytes(s) for s in metadata + pixels)


def without_padding(data: bytes, count: int, marker: int) -> bytes | None:
    """Remove zeros, fill bytes or text between a scan and the marker that follows it.

    Other bytes stay, because they are what a decoder leaves over from a damaged scan. So do zeros
    that reach far into the scan: they overwrite its end.

    Args:
        data: The whole file, rewritten by `without_faulty_metadata`.
        count: The number of bytes that libjpeg-turbo reports as left over.
        marker: Second byte of the marker before which it has left them over.

    Returns:
        The file without the longest such padding; None if there is none.
    """
    segments = list(_segments(data))
    paddings = {
        index: len(segment.scan) - len(segment.scan.rstrip(_HARMLESS))
        for index, (segment, following) in enumerate(pairwise(segments))
        if following.marker == marker
    }
    # Scans that have lost their padding already have shorter ones.
    longest = max(paddings, key=paddings.__getitem__, default=0)
    if not count <= paddings.get(longest, 0) <= count + _MAX_NOT_COUNTED:
        return None
    padded = segments[longest]
    segments[longest] = replace(padded, scan=padded.scan[: len(padded.scan) - count])
    return SIGNATURE[:2] + b"".join(bytes(s) for s in segments)


def _segments(data: bytes) -> Iterator[_Segment]:
    """The segments up to the end of the image or of the file, without what is between them."""
    pos = 2
    while (match := NEXT_MARKER.search(data, pos)) is not None:
        marker = data[match.start() + 1]
        pos = match.end()
        if marker == END_OF_IMAGE:
            yield _Segment(marker, b"")
            return
        if marker == _START_OF_IMAGE:  # a second one is an error, for browsers too
            yield _Segment(marker, b"")
        if marker in MARKERS_WITHOUT_LENGTH:
            continue
        length = max(int.from_bytes(data[pos : pos + 2]), 2)
        content = data[pos + 2 : pos + length]
        pos += length
        scan = b""
        if marker == START_OF_SCAN:
            end = NEXT_MARKER.search(data, pos)
            scan = data[pos : len(data) if end is None else end.start()]
            pos += len(scan)
        yield _Segment(marker, content, scan)


def _is(segment: _Segment, name: bytes, length: int) -> bool:
    return segment.content.startswith(name) and len(segment.content) >= length


def _with_known_version(jfif: _Segment) -> _Segment:
    """Replace the version: libjpeg warns of others than 1.x, but reads them alike."""
    return replace(jfif, content=_JFIF + b"\1\2" + jfif.content[7:])


def _with_known_transform(adobe: _Segment, frame: _Segment) -> _Segment:
    """Replace an unknown colour transform with the one that libjpeg assumes (jdapimin.c)."""
    assumed = {3: 1, 4: 2}.get(_components(frame))
    transform = adobe.content[11]
    if assumed is None or transform in (0, assumed):
        return adobe
    return replace(adobe, content=adobe.content[:11] + bytes([assumed]) + adobe.content[12:])


def _components(frame: _Segment) -> int:
    return frame.content[5] if len(frame.content) > 5 else 0


def _complete_profile(parts: Iterable[_Segment]) -> list[_Segment]:
    """The parts of the ICC profile in their order; none if one is missing (ICC.1, B.4)."""
    found: dict[int, _Segment] = {}
    count = 0
    for part in parts:
        number, total = part.content[12:14]
        count = count or total
        if total == count and 1 <= number <= count:
            found.setdefault(number, part)
    complete = [found[number] for number in sorted(found)] if len(found) == count else []
    return complete if any(len(part.content) > 14 for part in complete) else []


def _with_sequential_parameters(segment: _Segment, frame: _Segment) -> _Segment:
    """Set the spectral parameters of a sequential scan, which has no choice of them (B.2.3)."""
    if segment.marker != START_OF_SCAN or frame.marker not in _SEQUENTIAL_FRAMES:
        return segment
    if len(segment.content) < 3:
        return segment
    return replace(segment, content=segment.content[:-3] + b"\0\x3f\0")
