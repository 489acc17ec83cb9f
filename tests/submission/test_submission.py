"""Submissions: what was predicted is what a leaderboard decodes, in each format."""

import csv
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from manifests import make_manifest
from printed import read_table

from nyuseg.config.prediction import Submission
from nyuseg.data.frames import encode_png, write_png
from nyuseg.evaluation.leaderboard import score_submission, score_table
from nyuseg.submission.formats import (
    FILES,
    digest,
    make_writer,
    order_notice,
    parse_formats,
    read_masks,
    verify,
)
from nyuseg.utils.errors import UserError

Masks = dict[str, np.ndarray]
FORMATS = list(FILES)
DEFAULT = Submission()
ENCODINGS = [
    Submission(),
    Submission(order="row"),
    Submission(base=0, empty="-1"),
    Submission(order="row", base=0, empty="1 0"),
    Submission(empty="-"),
]


def random_masks(sizes: dict[str, tuple[int, int]]) -> Masks:
    """Masks of runs of all lengths; not all classes occur."""
    rng = np.random.default_rng(1)
    masks = {}
    for image_id, size in sizes.items():
        rough = rng.choice([0, 3, 11, 12], size).astype(np.uint8)
        masks[image_id] = np.where(rng.random(size) < 0.5, rough, np.sort(rough, 0))
    return masks


@pytest.fixture
def masks() -> Masks:
    """Three masks of one size, ids sorted; no mask is symmetric."""
    return random_masks({"000003": (9, 14), "000010": (9, 14), "000200": (9, 14)})


@pytest.fixture
def mixed() -> Masks:
    """Masks of different sizes, among them a transposed pair and a single pixel."""
    return random_masks({"000003": (9, 14), "000010": (14, 9), "000200": (1, 1), "900000": (1, 7)})


def write(folder: Path, name: str, masks: Masks, options: Submission = DEFAULT) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with make_writer(name, folder, len(masks), options) as writer:
        for image_id, mask in masks.items():
            writer.add(image_id, mask)
    return folder / FILES[name]


def sizes_of(masks: Masks) -> dict[str, tuple[int, int]]:
    return {image_id: mask.shape for image_id, mask in masks.items()}


def digests_of(masks: Masks) -> dict[str, bytes]:
    return {image_id: digest(mask) for image_id, mask in masks.items()}


def refused(path: Path, sizes: dict[str, tuple[int, int]], options: Submission = DEFAULT) -> str:
    """The message of the UserError that reading must raise; it names the file, in one line."""
    with pytest.raises(UserError) as error:
        list(read_masks(path, sizes, options))
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
    return str(error.value)


def write_labels(folder: Path, masks: Masks) -> Path:
    for image_id, mask in masks.items():
        write_png(folder / f"{image_id}.png", mask)
    return folder


def write_manifest(folder: Path, options: Submission, **more: object) -> None:
    make_manifest(encoding=options, **more).write(folder / "manifest.json")


# Round trips.


@pytest.mark.parametrize("name", FORMATS)
def test_round_trip(tmp_path: Path, masks: Masks, name: str) -> None:
    path = write(tmp_path, name, masks)
    found = list(read_masks(path, sizes_of(masks)))
    assert [image_id for image_id, _ in found] == sorted(masks)
    for image_id, mask in found:
        assert mask.dtype == np.uint8
        np.testing.assert_array_equal(mask, masks[image_id])
    verify(path, sizes_of(masks), digests_of(masks), DEFAULT)


@pytest.mark.parametrize("name", ["rle", "png"])
def test_images_of_different_sizes(tmp_path: Path, mixed: Masks, name: str) -> None:
    path = write(tmp_path, name, mixed)
    for image_id, mask in read_masks(path, sizes_of(mixed)):
        np.testing.assert_array_equal(mask, mixed[image_id])
    verify(path, sizes_of(mixed), digests_of(mixed), DEFAULT)


def test_npy_of_different_sizes_names_the_other_formats(tmp_path: Path, mixed: Masks) -> None:
    with pytest.raises(UserError, match=r"000010 is 14x9, the first one 9x14.*--format rle,png"):
        write(tmp_path, "npy", mixed)


@pytest.mark.parametrize("options", ENCODINGS)
def test_each_encoding_verifies(tmp_path: Path, mixed: Masks, options: Submission) -> None:
    path = write(tmp_path, "rle", mixed, options)
    verify(path, sizes_of(mixed), digests_of(mixed), options)


def test_npy_is_what_numpy_loads(tmp_path: Path, masks: Masks) -> None:
    array = np.load(write(tmp_path, "npy", masks))
    assert array.dtype == np.uint8
    np.testing.assert_array_equal(array, np.stack(list(masks.values())))


def test_ids_that_count_otherwise_than_they_are_sorted_are_told() -> None:
    assert order_notice(["1", "10", "2"]) == (
        "submission.npy holds the images in the order of their names as text: 1, 10, 2, ..."
    )
    for ids in (["0001", "0002", "0010"], ["1", "2", "9"], ["a10", "a2"]):
        assert order_notice(ids) is None


def test_csv_is_what_a_leaderboard_expects(tmp_path: Path) -> None:
    mask = np.array([[1, 1, 2], [0, 1, 2]], np.uint8)
    lines = write(tmp_path, "rle", {"7": mask}, Submission(empty="-")).read_bytes().decode()
    assert lines.split("\n") == [
        "ImageId_ClassId,EncodedPixels",
        "7_0,2 1",
        "7_1,1 1 3 2",
        "7_2,5 2",
        *(f"7_{k},-" for k in range(3, 13)),
        "",
    ]


def test_ids_with_underscores(tmp_path: Path) -> None:
    masks = random_masks({"room_1": (3, 5), "room_1_0": (4, 2)})
    path = write(tmp_path, "rle", masks)
    verify(path, sizes_of(masks), digests_of(masks), DEFAULT)


def test_png_archive_is_reproducible(tmp_path: Path, masks: Masks, monkeypatch) -> None:
    first = write(tmp_path / "a", "png", masks)
    monkeypatch.setattr("time.time", lambda: 2e9)
    monkeypatch.setattr("time.localtime", lambda *_: (2033, 5, 18, 3, 33, 20, 2, 138, 0))
    second = write(tmp_path / "b", "png", masks)
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:
        assert archive.namelist() == [f"{image_id}.png" for image_id in masks]
        assert archive.testzip() is None


# What verify and read_masks catch.


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("pixel", [(0, 0), (8, 13), (3, 7)])
def test_verify_catches_one_changed_pixel(
    tmp_path: Path, masks: Masks, name: str, pixel: tuple[int, int]
) -> None:
    meant = digests_of(masks)
    masks["000010"][pixel] = 12 - masks["000010"][pixel]
    path = write(tmp_path, name, masks)
    with pytest.raises(UserError, match="image 000010 does not decode") as error:
        verify(path, sizes_of(masks), meant, DEFAULT)
    assert str(error.value).startswith(f"{path}: ")


@pytest.mark.parametrize("name", FORMATS)
def test_verify_catches_exchanged_images(tmp_path: Path, masks: Masks, name: str) -> None:
    meant = digests_of(masks)
    masks["000003"], masks["000200"] = masks["000200"], masks["000003"]
    with pytest.raises(UserError, match="image 000003 does not decode"):
        verify(write(tmp_path, name, masks), sizes_of(masks), meant, DEFAULT)


@pytest.mark.parametrize("other", [Submission(order="row"), Submission(base=0)])
def test_verify_catches_another_encoding(tmp_path: Path, masks: Masks, other: Submission) -> None:
    path = write(tmp_path, "rle", masks, other)
    with pytest.raises(UserError):
        verify(path, sizes_of(masks), digests_of(masks), DEFAULT)


def test_a_digest_knows_the_shape() -> None:
    assert digest(np.zeros((2, 6), np.uint8)) != digest(np.zeros((3, 4), np.uint8))
    mask = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert digest(mask) == digest(np.asfortranarray(mask))


@pytest.mark.parametrize("name", ["rle", "png"])
def test_missing_image(tmp_path: Path, masks: Masks, name: str) -> None:
    path = write(tmp_path, name, masks)
    sizes = sizes_of(masks) | {"000150": (9, 14), "000160": (9, 14)}
    assert "no mask for image 000150 (2 missing)" in refused(path, sizes)


@pytest.mark.parametrize("name", ["rle", "png"])
def test_extra_image(tmp_path: Path, masks: Masks, name: str) -> None:
    path = write(tmp_path, name, masks)
    sizes = sizes_of(masks)
    del sizes["000010"]
    assert "000010" in refused(path, sizes)


@pytest.mark.parametrize("change", [-1, 1])
def test_npy_of_another_length(tmp_path: Path, masks: Masks, change: int) -> None:
    path = write(tmp_path, "npy", masks)
    sizes = dict(list((sizes_of(masks) | {"999999": (9, 14)}).items())[: 3 + change])
    assert f"holds (3, 9, 14), expected [{3 + change}, H, W]" in refused(path, sizes)


@pytest.mark.parametrize("name", ["npy", "png"])
def test_mask_of_another_shape(tmp_path: Path, masks: Masks, name: str) -> None:
    path = write(tmp_path, name, masks)
    message = refused(path, sizes_of(masks) | {"000010": (14, 9)})
    assert "image 000010 is (9, 14), not (14, 9)" in message


def test_rle_of_a_larger_image(tmp_path: Path, masks: Masks) -> None:
    path = write(tmp_path, "rle", masks)
    message = refused(path, sizes_of(masks) | {"000010": (9, 13)})
    assert "image 000010: run" in message
    assert "outside the image" in message


def change_rows(path: Path, change: Callable[[list[list[str]]], list[list[str]]]) -> None:
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(change(rows))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: [*rows, *rows[1:14]], "image 000003 is there twice"),
        (lambda rows: [*rows[:5], rows[4], *rows[5:]], "rows of image '000003' are not classes"),
        (lambda rows: rows[:-1], "rows of image '000200' are not classes"),
        (lambda rows: [rows[0], rows[2], rows[1], *rows[3:]], "are not classes 0..12"),
        (lambda rows: rows[1:], "first line must be ImageId_ClassId,EncodedPixels"),
        (lambda rows: [["id", "rle"], *rows[1:]], "first line must be"),
        (lambda rows: [], "first line must be"),
        (lambda rows: rows[:1], "no mask for image 000003 (3 missing)"),
        (lambda rows: [*rows[:20], [rows[20][0], "5 five"], *rows[21:]], "image 000010: '5 five'"),
    ],
    ids=lambda value: "" if callable(value) else value.split()[-1],
)
def test_faulty_rows(tmp_path: Path, masks: Masks, change: Callable, words: str) -> None:
    path = write(tmp_path, "rle", masks)
    change_rows(path, change)
    assert words in refused(path, sizes_of(masks))


def test_blank_and_cut_off_cells_are_empty_classes(tmp_path: Path, masks: Masks) -> None:
    # A spreadsheet may drop the comma of a blank last cell.
    path = write(tmp_path, "rle", masks)
    change_rows(path, lambda rows: [row if row[1] else row[:1] for row in rows])
    verify(path, sizes_of(masks), digests_of(masks), DEFAULT)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_faulty_archive(tmp_path: Path, masks: Masks) -> None:
    path = write(tmp_path, "png", masks)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("000010.png", encode_png(masks["000003"]))
    assert "image 000010 is there twice" in refused(path, sizes_of(masks))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("000003.png", b"no picture")
    assert "000003.png cannot be decoded" in refused(path, sizes_of(masks))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("000003.png", encode_png(np.zeros((9, 14, 3), np.uint8)))
    assert "(9, 14, 3), not (9, 14)" in refused(path, sizes_of(masks))
    path.write_bytes(b"no archive")
    assert "zip" in refused(path, sizes_of(masks))


def test_faulty_array(tmp_path: Path, masks: Masks) -> None:
    path = tmp_path / "submission.npy"
    np.save(path, np.zeros((3, 9, 14, 1), np.uint8))
    assert "holds (3, 9, 14, 1)" in refused(path, sizes_of(masks))
    np.save(path, np.array([{"a": 1}]), allow_pickle=True)
    assert "not a NumPy array" in refused(path, sizes_of(masks))
    path.write_bytes(b"")
    assert "not a NumPy array" in refused(path, sizes_of(masks))


def test_other_files(tmp_path: Path, masks: Masks) -> None:
    assert "expected a .npy, .csv or .zip" in refused(tmp_path / "masks.tif", sizes_of(masks))
    assert "no such file" in refused(tmp_path / "absent.npy", sizes_of(masks))


def test_formats_are_parsed() -> None:
    assert parse_formats("npy, rle,png") == ["npy", "rle", "png"]
    for text in ("", "csv", "npy,", "npy;rle", "NPY"):
        with pytest.raises(UserError, match="is none of npy, rle, png"):
            parse_formats(text)


# Scores.


@pytest.mark.parametrize("name", FORMATS)
def test_perfect_submission_scores_one(tmp_path: Path, masks: Masks, name: str) -> None:
    labels = write_labels(tmp_path / "labels", masks)
    path = write(tmp_path / "sub", name, masks)
    for given in (path, path.parent):
        scores = score_submission(given, labels)
        assert (scores["miou"], scores["pixel_accuracy"]) == (1.0, 1.0)


@pytest.mark.parametrize("options", ENCODINGS)
def test_manifest_tells_the_encoding(tmp_path: Path, mixed: Masks, options: Submission) -> None:
    labels = write_labels(tmp_path / "labels", mixed)
    folder = write(tmp_path / "sub", "rle", mixed, options).parent
    write_manifest(folder, options)
    assert score_submission(folder, labels)["miou"] == 1.0


def test_a_manifest_of_something_else_is_named(tmp_path: Path, masks: Masks) -> None:
    labels = write_labels(tmp_path / "labels", masks)
    folder = write(tmp_path / "sub", "rle", masks, DEFAULT).parent
    (folder / "manifest.json").write_text('{"files": {}}')
    with pytest.raises(UserError, match=r"sub/manifest\.json: lacks .*; move it away"):
        score_submission(folder, labels)


def test_row_order_read_as_column_order_does_not_score_one(tmp_path: Path, masks: Masks) -> None:
    labels = write_labels(tmp_path / "labels", masks)
    folder = write(tmp_path / "sub", "rle", masks, Submission(order="row")).parent
    assert score_submission(folder, labels)["miou"] < 0.9  # No manifest: column order.


@pytest.mark.parametrize("name", ["rle", "png"])
def test_score_by_hand(tmp_path: Path, name: str) -> None:
    truth = {
        "a": np.array([[4, 4, 4, 255], [4, 9, 9, 255]], np.uint8),
        "b": np.array([[9], [9], [9]], np.uint8),
    }
    guess = {
        "a": np.array([[4, 4, 9, 0], [1, 9, 9, 9]], np.uint8),
        "b": np.array([[9], [9], [4]], np.uint8),
    }
    labels = write_labels(tmp_path / "labels", truth)
    scores = score_submission(write(tmp_path / "sub", name, guess), labels)
    # Class 4: 2 hits, missed 2, 1 too many. Class 9: 4 hits, missed 1, 1 too many; void is left
    # out, so class 0 does not occur. Class 1 is only predicted.
    expected = {1: 0, 4: 2 / 5, 9: 4 / 6}
    assert scores["class_iou"] == [
        pytest.approx(expected[k]) if k in expected else None for k in range(13)
    ]
    assert scores["miou"] == pytest.approx((0 + 2 / 5 + 4 / 6) / 3)
    assert scores["pixel_accuracy"] == pytest.approx(6 / 9)


def test_scoring_other_images_is_an_error(tmp_path: Path, masks: Masks) -> None:
    labels = write_labels(tmp_path / "labels", masks)
    path = write(tmp_path / "sub", "png", masks)
    (labels / "000010.png").unlink()
    with pytest.raises(UserError, match=r"submission\.zip: image 000010"):
        score_submission(path, labels)
    with pytest.raises(UserError, match="no PNG labels"):
        score_submission(path, tmp_path / "nowhere")
    (tmp_path / "hollow").mkdir()
    with pytest.raises(UserError, match=r"hollow: none of submission\.npy"):
        score_submission(tmp_path / "hollow", labels)


def test_class_ids_beyond_the_table_are_refused(tmp_path: Path, masks: Masks) -> None:
    labels = write_labels(tmp_path / "labels", masks)
    masks["000010"][2, 3] = 13
    path = write(tmp_path / "sub", "npy", masks)
    with pytest.raises(UserError, match=r"submission\.npy: image 000010: class ids must be below"):
        score_submission(path, labels)


def test_table_shows_each_submission_and_the_mean_of_folds(tmp_path: Path, masks: Masks) -> None:
    labels = write_labels(tmp_path / "labels", masks)
    scores = []
    for name, folds, wrong in (("x_fold0", ["0"], 0), ("x_fold1", ["1"], 63), ("x", ["0", "1"], 0)):
        guess = {image_id: mask.copy() for image_id, mask in masks.items()}
        guess["000003"].ravel()[:wrong] = (guess["000003"].ravel()[:wrong] + 1) % 13
        folder = write(tmp_path / name, "npy", guess).parent
        cv = {"miou": 0.4321, "pixel_accuracy": None}
        write_manifest(folder, DEFAULT, folds=dict.fromkeys(folds, "hash"), cv=cv)
        scores.append(score_submission(folder, labels))
    table = read_table(score_table(scores), "submission")
    assert {name: row["pixel acc"] for name, row in table.items()} == {
        "x_fold0": "1.0000",
        "x_fold1": f"{1 - 63 / 378:.4f}",
        "mean single fold": f"{1 - 63 / 378 / 2:.4f}",
        "x": "1.0000",
    }
    assert {row["OOF mIoU"] for row in table.values()} == {"0.4321"}


def test_folds_of_several_experiments_are_averaged_apart(tmp_path: Path, masks: Masks) -> None:
    labels = write_labels(tmp_path / "labels", masks)
    scores = []
    for name, fold, wrong in (("a", 0, 0), ("b", 0, 63), ("a", 1, 126), ("b", 1, 63)):
        guess = {image_id: mask.copy() for image_id, mask in masks.items()}
        guess["000003"].ravel()[:wrong] = (guess["000003"].ravel()[:wrong] + 1) % 13
        folder = write(tmp_path / f"{name}_fold{fold}", "npy", guess).parent
        write_manifest(folder, DEFAULT, folds={str(fold): "hash"}, experiment=name)
        scores.append(score_submission(folder, labels))
    table = read_table(score_table(scores), "submission")
    mean = f"{1 - 63 / 378:.4f}"
    assert {name: row["pixel acc"] for name, row in table.items()} == {
        "a, mean single fold": mean,
        "b, mean single fold": mean,
    }


def test_a_noisy_mask_is_not_too_long_for_a_field(tmp_path: Path) -> None:
    mask = np.random.default_rng(0).integers(0, 2, (600, 800)).astype(np.uint8)
    with make_writer("rle", tmp_path, 1, Submission()) as writer:
        writer.add("000001", mask)
    verify(
        tmp_path / "submission.csv", {"000001": (600, 800)}, {"000001": digest(mask)}, Submission()
    )
