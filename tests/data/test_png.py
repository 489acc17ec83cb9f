"""Labels and images as hosts write them: palettes, few and many bits, alpha; always right."""

import io
import shutil
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import score
from nyuseg.data.frames import read_image, read_label, write_png
from nyuseg.data.integrity import full_check, quick_check
from nyuseg.submission.formats import PngWriter, read_masks
from nyuseg.utils.errors import UserError

HEIGHT, WIDTH = 5, 11  # An odd width: few bits leave a part of the last byte of a row.


def labels_of(bits: int) -> np.ndarray:
    """Random labels, uint8 [5,11], that fit into the bits; of eight or more some are void."""
    values = [*range(min(2**bits, 13)), *[255] * (bits >= 8)]
    return np.random.default_rng(bits).choice(values, (HEIGHT, WIDTH)).astype(np.uint8)


def stored_png(pixels: np.ndarray, bits: int, palette: bool, transparent: bool = False) -> bytes:
    """A PNG file of numbers, written by hand (W3C PNG specification, 11 and 7.2)."""
    text = ["".join(format(value, f"0{bits}b") for value in row) for row in pixels.tolist()]
    length = -(-pixels.shape[1] * bits // 8)
    rows = b"".join(b"\0" + int(t.ljust(8 * length, "0"), 2).to_bytes(length, "big") for t in text)
    # Colours that are not the indices, two of them alike.
    colours = bytes((7 * n + 100) % 251 for n in range(3 * 2 ** min(bits, 8)))
    header = struct.pack(">IIBBBBB", *pixels.shape[::-1], bits, 3 if palette else 0, 0, 0, 0)
    parts = [(b"IHDR", header), (b"gAMA", struct.pack(">I", 45455))]
    parts += [(b"PLTE", colours)] * palette
    parts += [(b"tRNS", b"\0\7" if palette else b"\0\1")] * transparent
    compressed = zlib.compress(rows)
    # Decoders must join the parts of the pixels.
    parts += [(b"IDAT", compressed[:9]), (b"IDAT", compressed[9:]), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )


KINDS = [
    *(
        (bits, palette, seen)
        for bits in (1, 2, 4, 8)
        for palette in (True, False)
        for seen in (0, 1)
    ),
    (16, False, 0),
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """One training frame whose label is still to be written."""
    rng = np.random.default_rng(3)
    write_png(tmp_path / "train/image/a.png", rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))
    write_png(tmp_path / "train/depth/a.png", rng.integers(1, 999, (HEIGHT, WIDTH), np.uint16))
    (tmp_path / "train/label").mkdir()
    return tmp_path


@pytest.mark.parametrize(("bits", "palette", "transparent"), KINDS)
def test_labels_are_the_stored_numbers(
    root: Path, bits: int, palette: bool, transparent: bool
) -> None:
    path, truth = root / "train/label/a.png", labels_of(bits)
    path.write_bytes(stored_png(truth, bits, palette, transparent))
    label = read_label(path)
    assert label.dtype == np.uint8
    np.testing.assert_array_equal(label, truth)
    assert full_check(root) == []


def test_a_palette_of_another_program(root: Path) -> None:
    truth = labels_of(8)
    image = Image.fromarray(truth, "P")
    image.putpalette(list(range(255, -1, -1)) * 3)
    image.save(root / "train/label/a.png", transparency=0, optimize=True)
    np.testing.assert_array_equal(read_label(root / "train/label/a.png"), truth)
    assert full_check(root) == []


@pytest.mark.parametrize(
    ("bits", "palette", "value"),
    [(4, True, 13), (8, True, 13), (16, False, 65535), (16, False, 269)],
)
def test_numbers_that_are_no_class_are_refused(
    root: Path, bits: int, palette: bool, value: int
) -> None:
    truth = labels_of(4).astype(np.uint16)
    truth[2, 3] = value
    path = root / "train/label/a.png"
    path.write_bytes(stored_png(truth, bits, palette))
    # As where 0 is void and the classes are 1 to 13.
    hint = "; if 0 is void there, take 1 from each and make 0 255" if value == 13 else ""
    with pytest.raises(UserError) as error:
        read_label(path)
    assert str(error.value) == f"{path}: labels outside 0..12 and 255: {value}{hint}"
    assert quick_check(root) == []
    assert [str(fault) for fault in full_check(root)] == [str(error.value)]


def test_a_damaged_palette_file_is_named(root: Path) -> None:
    path = root / "train/label/a.png"
    whole = stored_png(labels_of(8), 8, True)
    for length in (0, 20, 33, 40, len(whole) - 30):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"a\.png: (cannot be decoded|truncated)"):
            read_label(path)
        assert [fault.path for fault in full_check(root)] == [path]


def test_score_reads_a_palette_in_labels_and_in_masks(tmp_path: Path, capsys) -> None:
    """The host's labels have one palette, another program's masks have another: all is right."""
    truths = {f"{n}": labels_of(8) for n in range(3)}
    with PngWriter(tmp_path) as writer:
        for image_id, truth in truths.items():
            writer.add(image_id, np.where(truth == 255, 0, truth))
            path = tmp_path / "labels" / f"{image_id}.png"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(stored_png(truth, 8, True, True))
    score.main([str(tmp_path / "submission.zip"), str(tmp_path / "labels")])
    assert "1.0000" in capsys.readouterr().out.splitlines()[1]
    shutil.move(tmp_path / "labels", tmp_path / "mine")
    archive = shutil.make_archive(str(tmp_path / "mine"), "zip", tmp_path / "mine")
    masks = dict(read_masks(Path(archive), dict.fromkeys(truths, (HEIGHT, WIDTH))))
    for name, truth in truths.items():
        np.testing.assert_array_equal(masks[name], truth)


def test_a_picture_of_colours_is_no_label(root: Path) -> None:
    path = root / "train/label/a.png"
    path.write_bytes(cv2.imencode(".png", np.zeros((HEIGHT, WIDTH, 3), np.uint8))[1].tobytes())
    with pytest.raises(UserError, match="expected grey or palette labels, found 8-bit, 3 channels"):
        read_label(path)


def encoded(pixels: np.ndarray) -> bytes:
    """OpenCV's PNG file of RGB, RGBA or grey pixels."""
    ways = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}
    ordered = cv2.cvtColor(pixels, ways[pixels.shape[2]]) if pixels.ndim == 3 else pixels
    return cv2.imencode(".png", ordered)[1].tobytes()


def few_colours() -> np.ndarray:
    """An RGB image, uint8 [5,11,3], of 13 colours, as a palette can hold."""
    colours = np.random.default_rng(5).integers(0, 256, (256, 3), np.uint8)
    return colours[labels_of(8)]


def as_palette(image: np.ndarray, **options: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).quantize(256).save(buffer, "png", **options)
    return buffer.getvalue()


def with_alpha(image: np.ndarray, alpha: np.ndarray | int) -> np.ndarray:
    return np.dstack([image, np.broadcast_to(np.uint8(alpha), image.shape[:2])])


def grey_with_alpha(grey: np.ndarray, alpha: int) -> bytes:
    buffer = io.BytesIO()
    Image.merge("LA", [Image.fromarray(grey), Image.new("L", grey.shape[::-1], alpha)]).save(
        buffer, "png"
    )
    return buffer.getvalue()


def test_images_of_other_kinds_are_the_same_colours(root: Path) -> None:
    (root / "train/label/a.png").write_bytes(stored_png(labels_of(8), 8, False))
    image, grey = few_colours(), labels_of(8) * np.uint8(9)
    sixteen = labels_of(4)
    path = root / "train/image/a.png"
    for data, expected in (
        (encoded(image), image),
        (encoded(with_alpha(image, 255)), image),
        (as_palette(image), image),
        (encoded(grey), np.dstack([grey] * 3)),
        (grey_with_alpha(grey, 255), np.dstack([grey] * 3)),
        (stored_png(sixteen, 4, False), np.dstack([sixteen * np.uint8(17)] * 3)),
    ):
        path.write_bytes(data)
        np.testing.assert_array_equal(read_image(path), expected)
        assert full_check(root) == []


def test_a_transparent_image_is_a_fault(root: Path) -> None:
    (root / "train/label/a.png").write_bytes(stored_png(labels_of(8), 8, False))
    path, image = root / "train/image/a.png", few_colours()
    one_pixel = np.full((HEIGHT, WIDTH), 255, np.uint8)
    one_pixel[4, 10] = 254
    grey = grey_with_alpha(labels_of(8), 0)
    for data, count in ((encoded(with_alpha(image, one_pixel)), 1), (grey, HEIGHT * WIDTH)):
        path.write_bytes(data)
        what = f"transparent at {count} of its pixels; an image must be opaque"
        with pytest.raises(UserError, match=rf"a\.png: {what}"):
            read_image(path)
        assert [(fault.path, fault.what) for fault in full_check(root)] == [(path, what)]


def test_an_image_of_16_bits_is_a_fault(root: Path) -> None:
    path = root / "train/image/a.png"
    for pixels in (few_colours(), with_alpha(few_colours(), 255), labels_of(8)):
        path.write_bytes(encoded(pixels.astype(np.uint16) * np.uint16(257)))
        with pytest.raises(UserError, match=r"a\.png: expected an 8-bit RGB image, found 16-bit"):
            read_image(path)
        assert "expected 8-bit RGB, found 16-bit" in str(quick_check(root)[0])
