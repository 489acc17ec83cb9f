"""Run-length text against strings from elsewhere: a leaderboard decodes with its own code."""

import base64
import zlib

import numpy as np
import pytest
from pycocotools import mask as coco

from nyuseg.data.classes import NUM_CLASSES
from nyuseg.submission.rle import decode_mask, encode_mask
from nyuseg.utils.errors import UserError

# pycocotools 2.0 and NumPy 2 disagree about a keyword.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

V = 255
# Class 0 of the source of these strings means "none", which is void here.
MAP = np.array([[1, 1, 2], [V, 1, 2]], np.uint8)
RAGGED = np.array([[V, 5, 5, V], [V, 5, V, V], [5, V, V, 5], [5, V, 5, 5]], np.uint8)
SIZES = [(1, 1), (1, 9), (9, 1), (3, 5), (7, 4), (31, 17)]


def texts(**of_class: str) -> list[str]:
    """13 texts: `c5="1 16"` for class 5, '' for the others."""
    return [of_class.get(f"c{k}", "") for k in range(NUM_CLASSES)]


def random_mask(size: tuple[int, int], seed: int, classes: tuple[int, ...]) -> np.ndarray:
    """Random classes in short runs along both axes, so that runs of all lengths occur."""
    rng = np.random.default_rng(seed)
    small = rng.choice(classes, ((size[0] + 2) // 3, (size[1] + 1) // 2)).astype(np.uint8)
    mask = small.repeat(3, 0).repeat(2, 1)[: size[0], : size[1]].copy()
    noise = rng.random(size) < 0.2
    mask[noise] = rng.choice(classes, int(noise.sum()))
    return mask


def coco_decode(text: str, size: tuple[int, int]) -> np.ndarray:
    """Our column-major 0-based pairs through pycocotools, bool [H,W]."""
    numbers = [int(part) for part in text.split()]
    counts, end = [], 0
    for start, length in zip(numbers[::2], numbers[1::2], strict=True):
        counts += [start - end, length]
        end = start + length
    return coco.decode(coco_compress([*counts, size[0] * size[1] - end], size)).astype(bool)


def coco_compress(counts: list[int], size: tuple[int, int]) -> dict:
    return coco.frPyObjects({"size": list(size), "counts": counts}, *size)


@pytest.mark.parametrize(
    ("order", "base", "first", "second"),
    [
        ("column", 1, "1 1 3 2", "5 2"),
        ("row", 1, "1 2 5 1", "3 1 6 1"),
        ("column", 0, "0 1 2 2", "4 2"),
        ("row", 0, "0 2 4 1", "2 1 5 1"),
    ],
)
def test_golden_strings(order: str, base: int, first: str, second: str) -> None:
    expected = texts(c1=first, c2=second)
    assert encode_mask(MAP, order, base) == expected
    np.testing.assert_array_equal(decode_mask(expected, (2, 3), order, base), MAP)


@pytest.mark.parametrize(
    ("order", "text"), [("column", "3 4 9 1 12 1 15 2"), ("row", "2 2 6 1 9 1 12 2 15 2")]
)
def test_run_on_the_last_pixel_is_kept(order: str, text: str) -> None:
    assert encode_mask(RAGGED, order) == texts(c5=text)
    np.testing.assert_array_equal(decode_mask(texts(c5=text), (4, 4), order), RAGGED)


@pytest.mark.parametrize("size", [(4, 4), (480, 640)])
@pytest.mark.parametrize("order", ["column", "row"])
@pytest.mark.parametrize("base", [0, 1])
def test_full_mask_is_one_run(size: tuple[int, int], order: str, base: int) -> None:
    full = np.full(size, 12, np.uint8)
    expected = texts(c12=f"{base} {size[0] * size[1]}")
    assert encode_mask(full, order, base) == expected
    np.testing.assert_array_equal(decode_mask(expected, size, order, base), full)


def test_run_goes_on_in_the_next_column_or_row() -> None:
    mask = np.array([[0, 0, 3], [0, 3, 3], [3, 3, 3]], np.uint8)
    assert encode_mask(mask, "column") == texts(c0="1 2 4 1", c3="3 1 5 5")
    assert encode_mask(mask, "row") == texts(c0="1 2 4 1", c3="3 1 5 5")
    mask[2, 0] = 0  # Now column 0 runs on into column 1, and row 0 does not into row 1.
    assert encode_mask(mask, "column") == texts(c0="1 4", c3="5 5")
    assert encode_mask(mask, "row") == texts(c0="1 2 4 1 7 1", c3="3 1 5 2 8 2")


def test_void_is_never_encoded() -> None:
    assert encode_mask(np.full((3, 2), V, np.uint8)) == texts()
    mask = random_mask((13, 11), 4, (0, 7, V))
    lengths = [sum(map(int, text.split()[1::2])) for text in encode_mask(mask)]
    assert lengths == [(mask == k).sum() for k in range(NUM_CLASSES)]
    assert (decode_mask(encode_mask(mask), mask.shape)[mask == V] == V).all()


def test_mask_without_pixels_encodes_as_empty() -> None:
    assert encode_mask(np.zeros((0, 4), np.uint8), empty="-1") == ["-1"] * NUM_CLASSES


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("order", ["column", "row"])
@pytest.mark.parametrize("base", [0, 1])
def test_round_trip(size: tuple[int, int], order: str, base: int) -> None:
    for seed, classes in enumerate([(0, 1, 12, V), tuple(range(NUM_CLASSES)), (12, V), (0,)]):
        mask = random_mask(size, seed, classes)
        decoded = decode_mask(encode_mask(mask, order, base), size, order, base)
        assert decoded.dtype == np.uint8
        np.testing.assert_array_equal(decoded, mask)


@pytest.mark.parametrize("empty", ["", "-", "-1", "1 0"])
@pytest.mark.parametrize("base", [0, 1])
def test_empty_token_survives(empty: str, base: int) -> None:
    mask = random_mask((5, 8), 1, (0, 11, V))
    encoded = encode_mask(mask, base=base, empty=empty)
    assert [text == empty for text in encoded] == [k not in (0, 11) for k in range(NUM_CLASSES)]
    np.testing.assert_array_equal(decode_mask(encoded, (5, 8), base=base, empty=empty), mask)


@pytest.mark.parametrize("size", SIZES)
def test_pycocotools_reads_our_column_pairs(size: tuple[int, int]) -> None:
    mask = random_mask(size, 5, (0, 3, 12, V))
    for k, text in enumerate(encode_mask(mask, "column", 0)):
        np.testing.assert_array_equal(coco_decode(text, size), mask == k)


@pytest.mark.parametrize(
    ("mask", "k", "compressed"),
    [(MAP, 1, b"01111"), (MAP, 2, b"42"), (MAP, 3, b"6"), (RAGGED, 5, b"242M0001")],
)
def test_coco_strings_name_the_same_pixels(mask: np.ndarray, k: int, compressed: bytes) -> None:
    theirs = coco.decode({"size": list(mask.shape), "counts": compressed}).astype(bool)
    ours = coco_decode(encode_mask(mask, "column", 0)[k], mask.shape)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("published", "size", "area"),
    [
        ("eNqLi8xJM7BOTjS08DT2NfI38DfyM/Q3NMAJgJJ+RkBs7JecF5tnAADw+Q9I", (1600, 1118), 663),
        ("eNqLiYrLN7DNCjDMMIj0N/Iz9DcwBEIDfyN/QyA2AAsBRfxMPcKTA1MMADVADIo=", (1066, 1600), 583),
    ],
)
def test_published_masks_survive_our_pairs(
    published: str, size: tuple[int, int], area: int
) -> None:
    counts = zlib.decompress(base64.b64decode(published))
    inside = coco.decode({"size": list(size), "counts": counts}).astype(bool)
    encoded = encode_mask(np.where(inside, 8, V).astype(np.uint8), "column", 0)
    assert sum(map(int, encoded[8].split()[1::2])) == area
    np.testing.assert_array_equal(coco_decode(encoded[8], size), inside)
    np.testing.assert_array_equal(decode_mask(encoded, size, "column", 0) == 8, inside)


@pytest.mark.parametrize(
    ("text", "base", "words"),
    [
        ("0 1", 1, "outside"),
        ("-1 1", 0, "outside"),
        ("7 1", 1, "outside"),
        ("6 1", 0, "outside"),
        ("5 3", 1, "outside"),
        ("2 0", 1, "outside"),
        ("2 -1", 1, "outside"),
        ("1 2 2 1", 1, "overlaps"),
        ("1 2 3", 1, "pairs"),
        ("1", 1, "pairs"),
        ("-", 1, "pairs"),
        ("1 two", 1, "pairs"),
        ("1.0 2.0", 1, "pairs"),
        ("nan", 1, "pairs"),
    ],
)
def test_broken_text_is_refused(text: str, base: int, words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        decode_mask(texts(c4=text), (2, 3), base=base)
    assert "\n" not in str(error.value)


def test_two_classes_cannot_claim_one_pixel() -> None:
    with pytest.raises(UserError, match="run '3 2' of class 9 overlaps"):
        decode_mask(texts(c2="1 3", c9="3 2"), (2, 3))


def test_runs_that_touch_do_not_overlap() -> None:
    mask = decode_mask(texts(c2="1 3", c9="4 3"), (2, 3))
    np.testing.assert_array_equal(mask, [[2, 2, 9], [2, 9, 9]])


def test_a_token_means_empty_only_where_it_was_agreed() -> None:
    with pytest.raises(UserError, match="pairs"):
        decode_mask(["-1"] * NUM_CLASSES, (2, 3), empty="")
    with pytest.raises(UserError, match="pairs"):
        decode_mask(["-"] * NUM_CLASSES, (2, 3), empty="-1")
