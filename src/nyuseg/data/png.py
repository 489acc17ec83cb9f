"""PNG files as they are stored: numbers where OpenCV would give the colours they stand for."""

import struct
import zlib
from collections.abc import Iterator

import cv2
import numpy as np

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Offsets into the chunk IHDR, always the first (W3C PNG specification, 11.2.2).
_BITS, _COLOUR, _HEADER_END = 24, 25, 33
_GREY, _PALETTE = 0, 3


def decode(data: bytes) -> np.ndarray | None:
    """Decode a picture of any kind that OpenCV knows, as it is; None when that cannot be done."""
    values = np.frombuffer(data, np.uint8)
    return cv2.imdecode(values, cv2.IMREAD_UNCHANGED) if values.size else None


def decode_numbers(data: bytes) -> np.ndarray | None:
    """The same, but of a palette the indices, uint8 [H,W], and 1, 2 or 4 bits of grey unchanged.

    A palette's colours and its transparency are passed over.
    """
    is_png = data.startswith(SIGNATURE) and len(data) > _HEADER_END
    bits, colour = data[_BITS : _COLOUR + 1] if is_png else (8, _GREY)
    if bits >= 8 and colour != _PALETTE:
        return decode(data)
    pixels = decode(_as_grey(data))
    # OpenCV spreads what fewer than eight bits can hold over 0..255.
    return pixels if pixels is None else pixels // (255 // (2**bits - 1))


def _as_grey(data: bytes) -> bytes:
    """The same pixels under a header that calls them grey, without what describes colours."""
    header = data[12:_COLOUR] + bytes([_GREY]) + data[_COLOUR + 1 : _HEADER_END - 4]
    kept = b"".join(c for c in _chunks(data, _HEADER_END) if c[4:8] in (b"IDAT", b"IEND"))
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + kept


def _chunks(data: bytes, at: int) -> Iterator[bytes]:
    """The chunks from a position on: length of the data, type, data, checksum."""
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        yield data[at:end]
        at = end
