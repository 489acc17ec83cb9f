"""What a PNG or JPEG file says of itself, and whether all of it is there; nothing is decoded.

PNG: W3C PNG specification, 5. JPEG: ITU-T T.81, annex B.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

PNG, JPEG = "PNG", "JPEG"
_SIGNATURES = {PNG: b"\x89PNG\r\n\x1a\n", JPEG: b"\xff\xd8\xff"}

# A PNG file's first 33 bytes: signature, then the chunk IHDR (11.2.2). Big endian: length, type,
# width, height, bit depth, colour type, three more, CRC.
_IHDR = struct.Struct(">8sI4sIIBB3xI")
_COLOURS = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGBA"}

# A JPEG file's markers: FF and a byte. Among coded pixels FF 00 is a plain FF and D0 to D7 only
# mark places to go on at; any number of FF may stand before a marker.
_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
_END, _ALONE = 0xD9, (0x01, 0xD8)  # The latter have no length and no data behind them.
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
# Behind them: length, bits, height, width, components.
_FRAME = struct.Struct(">HBHHB")
_COMPONENTS = {1: "grey", 3: "RGB", 4: "CMYK"}
_HEAD = 2**16


class Header(NamedTuple):
    """Format, size in pixels, and bits and colours such as '8-bit RGB'."""

    format: str
    width: int
    height: int
    pixels: str


def format_of(data: bytes) -> str:
    """PNG, JPEG or '' for what is neither, by the first bytes alone."""
    return next((name for name, first in _SIGNATURES.items() if data.startswith(first)), "")


def read_header(file: BinaryIO) -> Header | None:
    """The header of an open file, from as few bytes as will do; None when it is no picture."""
    data = file.read(_IHDR.size)
    if format_of(data) == JPEG:
        data += file.read(_HEAD)
        # Colour profiles and previews can lie in front.
        return _jpeg_header(data) or _jpeg_header(data + file.read())
    if format_of(data) != PNG or len(data) < _IHDR.size or data[12:16] != b"IHDR":
        return None
    _, _, _, width, height, bits, colour, _ = _IHDR.unpack(data)
    return Header(PNG, width, height, f"{bits}-bit {_COLOURS.get(colour, f'colour type {colour}')}")


def damage(data: bytes) -> str:
    """What is missing or altered in a PNG or JPEG file, '' when it is whole up to its end.

    Decoders return a partly decoded picture for some truncated files, without any error. Of a JPEG
    only the end can tell: it holds no checksums.
    """
    if format_of(data) == PNG:
        return _png_damage(data)
    if any(marker == _END for marker, _ in _jpeg_markers(data)):
        return ""
    return f"truncated: {len(data)} bytes without the end of a JPEG; copy it again"


def _png_damage(data: bytes) -> str:
    """Chunks are whole up to IEND when their lengths and checksums say so (5.3)."""
    at, kind = len(_SIGNATURES[PNG]), b""
    while kind != b"IEND":
        # A chunk is its data's length, 4 bytes of type, the data, 4 bytes of CRC.
        length = int.from_bytes(data[at : at + 4], "big")
        end = at + 8 + length
        if end + 4 > len(data):
            return f"truncated: {len(data)} bytes, at least {end + 4} expected; copy it again"
        if zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            return f"damaged near byte {at}; copy it again"
        at, kind = end + 4, data[at + 4 : at + 8]
    return ""


def _jpeg_markers(data: bytes) -> Iterator[tuple[int, int]]:
    """Each marker after the first, and where what belongs to it begins.

    What markers hold is skipped, so that the end of a small preview among them is not taken for
    the end of the picture.
    """
    at = 2
    while found := _MARKER.search(data, at):
        marker, at = found[1][0], found.end()
        yield marker, at
        if marker not in _ALONE:
            at += int.from_bytes(data[at : at + 2], "big")


def _jpeg_header(data: bytes) -> Header | None:
    for marker, at in _jpeg_markers(data):
        if marker in _FRAMES and len(data) >= at + _FRAME.size:
            _, bits, height, width, count = _FRAME.unpack_from(data, at)
            colours = _COMPONENTS.get(count, f"{count} components")
            return Header(JPEG, width, height, f"{bits}-bit {colours}")
    return None
