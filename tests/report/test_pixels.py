"""What a browser gets: exact arrays in a script, whatever a name holds."""

import base64
import json
import zlib

import cv2
import numpy as np
from tiny_data import random_frame

from nyuseg.report.pixels import (
    THUMB_SIZE,
    as_json,
    at_cells,
    image_file,
    likeliest_classes,
    script,
    thumbnail,
)


def unpacked(text: str) -> dict[str, np.ndarray]:
    """What static/pixels.js makes of a script, in Python."""
    entry = json.loads(text.removeprefix("call(").removesuffix(");\n"))
    raw, arrays = zlib.decompress(base64.b64decode(entry["data"])), {}
    for name, kind, shape in entry["layout"]:
        count = int(np.prod(shape))
        size = count * np.dtype(kind).itemsize
        values = np.frombuffer(raw[:size], np.uint8)
        if kind == "uint16":
            halves = values.reshape(2, *shape).astype(np.uint16)
            values = np.cumsum(halves[0] + 256 * halves[1], axis=-1, dtype=np.uint16)
        arrays[name], raw = values.reshape(shape), raw[size:]
    assert not raw
    return arrays


def test_arrays_come_back_bit_for_bit() -> None:
    frame = random_frame((7, 11))
    three = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    arrays = [("truth", frame["label"]), ("depth", frame["depth"]), ("three", three)]
    found = unpacked(script("call", {"file": "x"}, arrays))
    for name, array in arrays:
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


def test_names_cannot_leave_the_script_they_stand_in() -> None:
    hostile = "</script><script>alert(1)</script>\u2028<!--"
    text = as_json({"scene": hostile})
    assert "<" not in text and "\u2028" not in text and json.loads(text) == {"scene": hostile}


def test_the_likeliest_classes_in_per_cent() -> None:
    probabilities = np.zeros((13, 1, 2), np.float16)
    probabilities[[4, 9, 2], 0, 0] = 0.5, 0.3, 0.2
    probabilities[12, 0, 1] = 1
    classes, percent = likeliest_classes(probabilities)
    assert classes[:, 0, 0].tolist() == [4, 9, 2] and percent[:, 0, 0].tolist() == [50, 30, 20]
    assert classes[:, 0, 1].tolist() == [12, 0, 0] and percent[:, 0, 1].tolist() == [100, 0, 0]


def test_a_cell_is_read_at_its_middle() -> None:
    values = np.arange(8 * 12).reshape(8, 12)
    np.testing.assert_array_equal(at_cells(values, (2, 3)), values[2::4, 2::4])
    np.testing.assert_array_equal(at_cells(values, (8, 12)), values)


def test_pictures_keep_colours_and_shape() -> None:
    image = np.zeros((60, 40, 3), np.uint8)
    image[:] = (200, 30, 60)
    decoded = cv2.imdecode(np.frombuffer(image_file(image), np.uint8), cv2.IMREAD_COLOR)
    assert decoded.shape == image.shape
    assert np.abs(decoded[30, 20].astype(int) - [60, 30, 200]).max() < 12  # As BGR.
    small = thumbnail(image, np.zeros((60, 40), np.uint8))
    tall = cv2.imdecode(np.frombuffer(small, np.uint8), cv2.IMREAD_COLOR)
    assert tall.shape == (THUMB_SIZE[1], THUMB_SIZE[0], 3)
    assert tall[75, 5].max() < 20 < tall[75, 100].max()  # A border left and right.
