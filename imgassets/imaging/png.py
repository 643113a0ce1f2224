"""Read the chunks of a PNG file as browsers do: critical chunks are checked, metadata is not.

A fault in an ancillary chunk (a wrong checksum, a wrong length, an unreadable text) makes the chunk
worthless, not the image. Decoding the pixels is in `decode`, their colours are in `colour`.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace

from imgassets.errors import UnreadableImageError
from imgassets.manifests import Outcome

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
"""Colour types (PNG specification, 11.2.1)."""

_CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}
_MAX_PROFILE_BYTES = 16 << 20  # the largest ICC profiles in use (CMYK with fine grids) have 4 MB
_INFLATED_AT_ONCE = 1 << 20  # bytes
# First column, first row, column step and row step of the seven passes of Adam7 (8.2).
_ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)


@dataclass(frozen=True, slots=True)
class Png:
    """The chunks of a PNG file.

    Attributes:
        width: Width in pixels.
        height: Height in pixels.
        depth: Bits per sample: 1, 2, 4, 8 or 16.
        colour_type: `GREY`, `RGB`, `PALETTE`, `GREY_ALPHA` or `RGBA`.
        interlaced: Whether the pixels are stored in the seven passes of Adam7.
        critical: All critical chunks by their type, whole, that is with length and checksum.
        ancillary: Contents of the ancillary chunks before the pixels with a correct checksum, by
            their type; of several chunks of a type, the first. Browsers ignore those behind.
    """

    width: int
    height: int
    depth: int
    colour_type: int
    interlaced: bool
    critical: dict[bytes, list[memoryview]]
    ancillary: dict[bytes, bytes]

    @property
    def pixel_bytes(self) -> int:
        """Size of the decompressed pixel data, in bytes (PNG specification, 7.2 and 8)."""
        if not self.interlaced:
            return self._pass_bytes(self.width, self.height)
        return sum(
            self._pass_bytes(-(-(self.width - x) // dx), -(-(self.height - y) // dy))
            for x, y, dx, dy in _ADAM7
        )

    def _pass_bytes(self, width: int, height: int) -> int:
        bits = self.depth * _CHANNELS[self.colour_type]
        # Each row begins with the number of its filter.
        return height * (1 + -(-width * bits // 8)) if width > 0 and height > 0 else 0

    @property
    def transparency(self) -> bytes | None:
        """The content of tRNS, or None if there is none that fits the colour type (11.3.1.1)."""
        content = self.ancillary.get(b"tRNS", b"")
        if self.colour_type == PALETTE:
            entries = (len(self.critical[b"PLTE"][0]) - 12) // 3
            return content[:entries] if 0 < len(content) <= 256 else None
        length = {GREY: 2, RGB: 6}.get(self.colour_type)
        return content if len(content) == length else None

    @property
    def profile(self) -> bytes | None:
        """The ICC profile of iCCP, decompressed, or None if there is none that can be read."""
        _name, _, rest = self.ancillary.get(b"iCCP", b"").partition(b"\0")
        stream = zlib.decompressobj()
        try:
            profile = stream.decompress(rest[1:], _MAX_PROFILE_BYTES)
        except zlib.error:
            return None
        return profile if profile and stream.eof else None

    def without_metadata(self, transparency: bytes | None) -> bytes:
        """Write the file with its critical chunks, a tRNS chunk and its EXIF data only.

        Args:
            transparency: Content of the tRNS chunk; None for none.

        Returns:
            The bytes of a PNG file.
        """
        before = self.critical[b"IHDR"] + self.critical.get(b"PLTE", [])
        exif = self.ancillary.get(b"eXIf", b"")
        # Pillow would also read EXIF data with the prefix that it has in JPEG files.
        is_exif = exif.startswith((b"II", b"MM"))
        extra = {b"tRNS": transparency, b"eXIf": exif if is_exif else None}
        chunks = [_chunk(kind, content) for kind, content in extra.items() if content is not None]
        after = self.critical[b"IDAT"] + self.critical[b"IEND"]
        return b"".join([SIGNATURE, *before, *chunks, *after])

    def has_all_pixels(self) -> bool:
        """Whether the compressed data holds all rows of all passes; takes time to decompress."""
        missing = self.pixel_bytes
        stream = zlib.decompressobj()
        for chunk in self.critical[b"IDAT"]:
            packed: bytes | memoryview = chunk[8:-4]
            while packed and missing > 0 and not stream.eof:
                missing -= len(stream.decompress(packed, _INFLATED_AT_ONCE))
                packed = stream.unconsumed_tail
        return missing <= 0

    def with_right_checksum(self) -> Png | None:
        """Correct the checksum at the end of the compressed pixel data, which browsers ignore.

        Each chunk has a checksum of its own.

        Returns:
            The file with the checksum of its pixels; None if the data is damaged or incomplete.
        """
        packed = b"".join(chunk[8:-4] for chunk in self.critical[b"IDAT"])
        stream = zlib.decompressobj(-zlib.MAX_WBITS)
        checksum, size, rest = 1, 0, packed[2:]
        try:
            while rest and not stream.eof:
                block = stream.decompress(rest, _INFLATED_AT_ONCE)
                checksum, size = zlib.adler32(block, checksum), size + len(block)
                rest = stream.unconsumed_tail
        except zlib.error:
            return None
        if not stream.eof or size < self.pixel_bytes:
            return None
        whole = packed[: len(packed) - len(stream.unused_data)] + checksum.to_bytes(4)
        pixels = [memoryview(_chunk(b"IDAT", whole))]
        return replace(self, critical={**self.critical, b"IDAT": pixels})


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return len(content).to_bytes(4) + kind + content + checksum.to_bytes(4)


def read(data: bytes) -> Png:
    """Read the chunks of a PNG file up to IEND (PNG specification, 5.3).

    Args:
        data: The whole file, which begins with `SIGNATURE`.

    Returns:
        The chunks; the pixel data is not decompressed.

    Raises:
        UnreadableImageError: The file is truncated, or a critical chunk is damaged, missing or
            unknown.
    """
    view = memoryview(data)
    critical: dict[bytes, list[memoryview]] = {}
    ancillary: dict[bytes, bytes] = {}
    pos = len(SIGNATURE)
    while b"IEND" not in critical:
        end = pos + 12 + int.from_bytes(data[pos : pos + 4])
        if end > len(data):
            raise _corrupt("the PNG file is truncated")
        kind = data[pos + 4 : pos + 8]
        intact = zlib.crc32(view[pos + 4 : end - 4]) == int.from_bytes(data[end - 4 : end])
        if not critical and (kind != b"IHDR" or end - pos != 12 + 13):
            raise _corrupt("the PNG file does not start with a header")
        if not kind[0] & 0x20:  # a capital letter: the chunk is critical (5.4)
            if not intact:
                raise _corrupt("a checksum in the PNG file is wrong")
            critical.setdefault(kind, []).append(view[pos:end])
        elif intact and b"IDAT" not in critical:
            ancillary.setdefault(kind, data[pos + 8 : end - 4])
        pos = end
    return _checked(critical, ancillary)


def _checked(critical: dict[bytes, list[memoryview]], ancillary: dict[bytes, bytes]) -> Png:
    header = bytes(critical[b"IHDR"][0][8:-4])
    if b"IDAT" not in critical:
        raise _corrupt("the PNG file contains no pixels")
    depth, colour_type, _compression, _filter, interlace = header[8:]
    if colour_type not in _CHANNELS:
        raise _corrupt(f"the PNG file has an unknown colour type, {colour_type}")
    if colour_type == PALETTE and b"PLTE" not in critical:
        raise _corrupt("the PNG file has no palette")
    unknown = critical.keys() - {b"IHDR", b"PLTE", b"IDAT", b"IEND"}
    if unknown:
        names = ", ".join(kind.decode("latin-1") for kind in sorted(unknown))
        raise _corrupt(f"the PNG file contains an unknown critical chunk ({names})")
    width, height = int.from_bytes(header[:4]), int.from_bytes(header[4:8])
    return Png(width, height, depth, colour_type, interlace != 0, critical, ancillary)


def _corrupt(reason: str) -> UnreadableImageError:
    return UnreadableImageError(Outcome.CORRUPT, reason)
