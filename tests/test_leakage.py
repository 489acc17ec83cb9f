"""The leak meter: shares, groups without scenes, twins; on tables and folders made by hand."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import ranking

import leakage as script
from nyuseg.analysis import twins
from nyuseg.analysis.leakage import has_mate, leak_row, leak_table, report, split_tables
from nyuseg.analysis.near_duplicates import duplicate_groups
from nyuseg.config.loading import dump_config, parse_config
from nyuseg.data.fingerprint import describe_all, digest
from nyuseg.data.folds import (
    NYUV2_FOLDS,
    fold_hash,
    fold_table,
    leak_notice,
    read_folds,
    split_random,
    write_folds,
)
from nyuseg.data.frames import frame_path, list_ids, read_label, write_png
from nyuseg.experiment import FILES, Experiment, data_files
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import read_json, write_json, write_text

SIX = [(24, 32)] * 6
ROOMS = ["attic", "attic", "bath", "bath", "cellar", "cellar"]


# Shares


def table(scenes: str, folds: str) -> pd.DataFrame:
    ids = [f"{i:06d}" for i in range(len(scenes))]
    return pd.DataFrame({"image_id": ids, "scene": list(scenes), "fold": list(map(int, folds))})


def test_a_mate_is_a_frame_of_the_scene_in_another_fold() -> None:
    #                    a: both sides; b: one fold; c: alone; d: two of three in one fold.
    mates = has_mate(table("aabbcddd", "01000112"))
    assert mates.tolist() == [True, True, False, False, False, True, True, True]


def test_share_counts_images_not_folds_and_not_scenes() -> None:
    row = leak_row("x", table("aabbcddd", "01000112"))
    assert (row["images"], row["scenes"], row["mates"]) == (8, 4, 5)
    assert row["share"] == 5 / 8
    assert (row["low"], row["high"]) == (1 / 4, 1)  # Fold 0: a of a, b, b, c.


def test_share_is_that_of_a_search_image_by_image() -> None:
    rng = np.random.default_rng(5)
    made = table("".join(rng.choice(list("abcdefghij"), 23)), "".join(rng.choice(list("012"), 23)))
    slow = [
        any(a.scene == b.scene and a.fold != b.fold for b in made.itertuples())
        for a in made.itertuples()
    ]
    assert 0 < sum(slow) < 23 and has_mate(made).tolist() == slow


def test_nyuv2_leaks_nine_images_in_ten_at_random_and_none_by_scene(tmp_path: Path) -> None:
    ids = read_folds(NYUV2_FOLDS)["image_id"].tolist()
    rows = {name: leak_row(name, t) for name, t in split_tables(tmp_path, ids, 5).items()}
    assert rows["random"]["images"] == 795 and rows["random"]["scenes"] == 249
    assert rows["random"]["share"] == pytest.approx(0.907, abs=0.0005)
    assert rows["scene"]["mates"] == rows["scene"]["high"] == 0


def test_table_says_what_was_counted() -> None:
    rows = [leak_row("random", table("aabbcddd", "01000112")), leak_row("scene", table("ab", "01"))]
    first, head, random, scene = leak_table(rows, "rooms", "twin").splitlines()
    assert "a twin in training" in first and "rooms" in head
    assert random.split() == ["random", "8", "4", "5", "62.5%", "25.0%", "..", "100.0%"]
    assert scene.split() == ["scene", "2", "2", "0", "0.0%", "0.0%", "..", "0.0%"]


# Near-duplicates


def picture(seed: int) -> np.ndarray:
    """A picture with structure at all scales, uint8 [60,80,3]; another one for each seed."""
    rng = np.random.default_rng(seed)
    parts = [
        cv2.resize(rng.normal(128, 50, (n, n + 1, 3)), (80, 60), interpolation=cv2.INTER_CUBIC)
        for n in (3, 7, 15)
    ]
    return np.clip(sum(parts) / 3 + rng.normal(0, 4, (60, 80, 3)), 0, 255).astype(np.uint8)


def shift(pixels: np.ndarray, columns: int) -> np.ndarray:
    matrix = np.float32([[1, 0, columns], [0, 1, 0]])
    return cv2.warpAffine(pixels, matrix, (80, 60), borderMode=cv2.BORDER_REFLECT)


def write_images(root: Path, images: list[np.ndarray]) -> list[str]:
    ids = [f"{900000 + 11 * i:06d}" for i in range(len(images))]
    for image_id, pixels in zip(ids, images, strict=True):
        write_png(frame_path(root, "train", "image", image_id), pixels)
    return ids


def groups_of(root: Path, images: list[np.ndarray], distance: int = 8) -> list[int]:
    """For each image, the position of the first of its group."""
    ids = write_images(root, images)
    return [ids.index(name) for name in duplicate_groups(root, ids, distance)]


def test_what_looks_the_same_is_of_one_group_wherever_it_stands(tmp_path: Path) -> None:
    one, other, third = picture(1), picture(2), picture(3)
    noise = np.random.default_rng(0).normal(0, 6, one.shape)
    noisy = np.clip(one + noise, 0, 255).astype(np.uint8)
    images = [other, one, third, shift(one, 1), (0.6 * one).astype(np.uint8), noisy, other[:, ::-1]]
    assert groups_of(tmp_path, images) == [0, 1, 2, 1, 1, 1, 6]


def test_a_pan_is_linked_frame_by_frame(tmp_path: Path) -> None:
    one = picture(2)
    ends = groups_of(tmp_path / "ends", [one, shift(one, 6)])
    whole = groups_of(tmp_path / "pan", [one, shift(one, 6), shift(one, 4), shift(one, 2)])
    assert ends == [0, 1] and whole == [0, 0, 0, 0]


def test_distance_zero_joins_equal_hashes_alone(tmp_path: Path) -> None:
    images = [picture(1), shift(picture(1), 2), picture(1)]
    assert groups_of(tmp_path, images, 0) == [0, 1, 0]


def test_black_frames_glue_no_rooms_together(tmp_path: Path) -> None:
    black = np.zeros((60, 80, 3), np.uint8)
    assert groups_of(tmp_path, [picture(1), black, picture(2), black]) == [0, 1, 2, 1]


def test_unreadable_image_is_named(tmp_path: Path) -> None:
    ids = write_images(tmp_path, [picture(1), picture(2)])
    frame_path(tmp_path, "train", "image", ids[1]).write_bytes(b"no picture")
    with pytest.raises(UserError, match=rf"{ids[1]}\.png: (truncated|cannot be decoded)"):
        duplicate_groups(tmp_path, ids)


@pytest.fixture
def unknown(tmp_path: Path) -> Path:
    """Eight images without scenes.csv: one thrice, one twice, three alone."""
    images = [picture(k) for k in (1, 2, 1, 3, 2, 4, 1, 5)]
    write_images(tmp_path / "data", images)
    return tmp_path / "data"


def test_proposed_scenes_are_taken_by_training(unknown: Path, tmp_path: Path) -> None:
    before = report(unknown, 3, 8, tmp_path / "out/proposed.csv")
    assert not (unknown / "scenes.csv").exists()
    (unknown / "scenes.csv").write_bytes((tmp_path / "out/proposed.csv").read_bytes())
    folds = fold_table(unknown, list_ids(unknown, "train"), 3, "scene")
    assert folds["scene"].tolist() == [folds["image_id"][i] for i in (0, 1, 0, 3, 1, 5, 0, 7)]
    assert not has_mate(folds).any() and leak_notice(folds) is None
    after = report(unknown, 3, 8, None)
    assert "scenes unknown" in before and "scenes unknown" not in after
    assert after.splitlines()[-1].split()[:4] == ["scene", "8", "5", "0"]


def test_report_without_scenes_warns_and_counts(unknown: Path) -> None:
    text = report(unknown, 3, 8, None)
    assert text.startswith("!! scenes unknown: ")
    assert "2 groups of near-duplicates hold 5 of 8 images" in text
    assert "not all pictures of a room" in text and "--propose FILE" in text
    expected = table("abacbdae", "".join(map(str, split_random(8, 3))))
    row = next(line for line in text.splitlines() if line.startswith("random")).split()
    assert row[1:4] == ["8", "5", str(has_mate(expected).sum())] and row[3] != "0"
    assert {path.name for path in unknown.iterdir()} == {"train"}


def test_images_that_are_all_different_stay_unknown(tmp_path: Path) -> None:
    write_images(tmp_path, [picture(k) for k in range(4)])
    report(tmp_path, 2, 8, tmp_path / "scenes.csv")
    folds = fold_table(tmp_path, list_ids(tmp_path, "train"), 2, "scene")
    assert "scenes unknown" in str(leak_notice(folds))


def test_nothing_is_proposed_over_known_scenes_or_an_existing_file(
    unknown: Path, tmp_path: Path, tiny_folder
) -> None:
    (tmp_path / "mine.csv").write_text("edited by hand")
    with pytest.raises(UserError, match=r"mine\.csv: exists"):
        report(unknown, 3, 8, tmp_path / "mine.csv")
    assert (tmp_path / "mine.csv").read_text() == "edited by hand"
    tiny_folder(tmp_path / "known", SIX, ROOMS)
    with pytest.raises(UserError, match="known: its scenes are known"):
        report(tmp_path / "known", 2, 8, tmp_path / "new.csv")


# Twins


def write_experiment(data: Path, oof: Path, values: dict, wrong: float, seed: int = 0) -> None:
    """An experiment that is pooled, by hand; a share `wrong` of its pixels is another class."""
    config = parse_config({"folds": {"count": 2}, **values}, "test")
    ids = list_ids(data, "train")
    folds = fold_table(data, ids, config.folds.count, config.folds.group)
    experiment = Experiment(oof / config.name, config, folds, data)
    files = describe_all(data_files(experiment), {})
    facts = {"input": str(data), "folds": fold_hash(folds), "data": digest(files)}
    write_json(experiment.folder / FILES, files)
    write_folds(experiment.folder / "folds.csv", folds)
    write_json(experiment.folder / "experiment.json", facts)
    write_json(experiment.folder / "cv.json", {})
    write_text(experiment.folder / "config.yaml", dump_config(config))
    rng = np.random.default_rng(seed)
    for image_id in ids:
        mask = read_label(frame_path(data, "train", "label", image_id)).copy()
        miss = rng.random(mask.shape) < wrong
        mask[miss] += 1
        mask[mask > 12] = 0
        write_png(experiment.mask_path(image_id), mask)


def by(group: str, name: str, **more) -> dict:
    return {"name": name, "folds": {"count": 2, "group": group}, **more}


@pytest.fixture
def data(tmp_path: Path, tiny_folder) -> Path:
    tiny_folder(tmp_path / "data", SIX, ROOMS)
    return tmp_path / "data"


def names(oof: Path) -> list[tuple[str, str]]:
    return [(a.config.name, b.config.name) for a, b in twins.find_twins(oof)]


def test_twins_differ_in_name_and_split_alone(data: Path, tmp_path: Path) -> None:
    oof = tmp_path / "oof"
    write_experiment(data, oof, by("scene", "a"), 0.4)
    write_experiment(data, oof, by("random", "b", train={"lr": 0.01}), 0.2)
    write_experiment(data, oof, by("random", "c", seed=43), 0.2)
    write_experiment(data, oof, {"name": "d", "folds": {"count": 3, "group": "random"}}, 0.2)
    write_experiment(data, oof, by("scene", "e"), 0.2)
    assert names(oof) == []
    write_experiment(data, oof, by("random", "z", train={"workers": 3}), 0.2)
    write_experiment(data, oof, by("scene", "f", train={"lr": 0.01}), 0.3)
    assert names(oof) == [("a", "z"), ("e", "z"), ("f", "b")]


def test_other_data_unfinished_and_moved_experiments_are_no_twins(
    data: Path, tmp_path: Path, tiny_folder
) -> None:
    oof = tmp_path / "oof"
    write_experiment(data, oof, by("scene", "a"), 0.4)
    write_experiment(data, oof, by("random", "b"), 0.2)
    (oof / "b/cv.json").unlink()
    write_experiment(data, oof, by("random", "c"), 0.2)
    (oof / "c").rename(oof / "c.20260101-000000")
    tiny_folder(tmp_path / "other", [*SIX[:5], (26, 32)], ROOMS)
    write_experiment(tmp_path / "other", oof, by("random", "d"), 0.2)
    assert names(oof) == []


def test_unknown_scenes_have_no_honest_twin(tmp_path: Path, tiny_folder) -> None:
    tiny_folder(tmp_path / "data", SIX)
    for group in ("scene", "random"):
        write_experiment(tmp_path / "data", tmp_path / "oof", by(group, group), 0.2)
    assert names(tmp_path / "oof") == []


def test_a_broken_experiment_is_named_and_left_out(data: Path, tmp_path: Path, capsys) -> None:
    for group, name in (("scene", "a"), ("random", "b"), ("random", "c")):
        write_experiment(data, tmp_path / "oof", by(group, name), 0.2)
    with (tmp_path / "oof/c/config.yaml").open("a") as file:
        file.write("strange: 1\n")
    assert names(tmp_path / "oof") == [("a", "b")]
    assert "c/config.yaml: strange" in capsys.readouterr().out


def test_optimism_is_random_minus_scene_image_by_image(data: Path, tmp_path: Path) -> None:
    write_experiment(data, tmp_path / "oof", by("scene", "a"), 0.4, seed=1)
    write_experiment(data, tmp_path / "oof", by("random", "b"), 0.2, seed=2)
    [pair] = twins.find_twins(tmp_path / "oof")
    row = twins.compare(pair, tmp_path, None)
    assert row.miou[0] < row.miou[1]
    assert row.optimism.value == pytest.approx(row.miou[1] - row.miou[0])
    assert 0 < row.optimism.low < row.optimism.value < row.optimism.high
    assert row.hidden == (None, None)


def test_rows_are_matched_by_id(data: Path, tmp_path: Path) -> None:
    write_experiment(data, tmp_path / "oof", by("scene", "a"), 0.4)
    write_experiment(data, tmp_path / "oof", by("random", "b"), 0.4)
    [(honest, leaky)] = twins.find_twins(tmp_path / "oof")
    turned = Experiment(leaky.folder, leaky.config, leaky.table[::-1], leaky.input)
    # The same masks: nothing differs in any draw, unless images are paired with others.
    optimism = twins.compare((honest, turned), tmp_path, None).optimism
    assert optimism.value == optimism.low == optimism.high == 0


def write_submission(folder: Path, labels: Path, wrong: int) -> None:
    """submission.npy of the labels, with so many upper rows given another class."""
    ids = sorted(path.stem for path in labels.glob("*.png"))
    masks = np.stack([read_label(labels / f"{i}.png") for i in ids]) % 13
    masks[:, :wrong] = (masks[:, :wrong] + 1) % 13
    folder.mkdir(parents=True)
    np.save(folder / "submission.npy", masks)


def test_hidden_scores_are_of_the_same_views(data: Path, tmp_path: Path) -> None:
    for group, name in (("scene", "a"), ("random", "b")):
        write_experiment(data, tmp_path / "oof", by(group, name), 0.2)
    labels, out = data / "train/label", tmp_path / "submissions"
    [pair] = twins.find_twins(tmp_path / "oof")
    assert twins.compare(pair, out, labels).hidden == (None, None)
    write_submission(out / "a_tta", labels, 0)
    write_submission(out / "b", labels, 3)
    assert twins.compare(pair, out, labels).hidden == (None, None)
    write_submission(out / "a", labels, 9)
    low, high = twins.compare(pair, out, labels).hidden
    assert 0 < low < high < 1
    write_submission(out / "b_tta", labels, 3)
    assert twins.compare(pair, out, labels).hidden == (1, high)
    assert twins.compare(pair, out, None).hidden == (None, None)


# The command


def test_command_prints_shares_and_a_row_for_each_twin(data: Path, tmp_path: Path, capsys) -> None:
    oof = tmp_path / "oof"
    config = write_config(tmp_path)
    given = ["--config", str(config), "--input", str(data), "--oof", str(oof)]
    script.main(given)
    assert "has a twin" in capsys.readouterr().out
    for group, name, wrong in (("scene", "a", 0.4), ("random", "b", 0.2), ("random", "c", 0.1)):
        write_experiment(data, oof, by(group, name), wrong)
    script.main(given)
    text = capsys.readouterr().out
    assert "a room-mate in training" in text
    rows = [line.split() for line in text.splitlines() if line.startswith("a ")]
    assert [row[:2] for row in rows] == [["a", "b"], ["a", "c"]]
    scene, random, optimism = (float(number) for number in rows[1][2:5])
    assert optimism == pytest.approx(random - scene, abs=2e-4) and optimism > 0
    assert rows[1][-2:] == ["-", "-"]


def write_config(folder: Path) -> Path:
    path = folder / "config.yaml"
    path.write_text("name: any\nfolds:\n  count: 2\n")
    return path


def test_command_refuses_a_distance_that_no_hash_has(data: Path) -> None:
    with pytest.raises(UserError, match=r"--distance 65: must be 0\.\.64"):
        script.main(["--input", str(data), "--distance", "65"])


def test_labels_are_not_changed_by_what_is_measured(data: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    write_experiment(data, tmp_path / "oof", by("scene", "a"), 0.2)
    script.main(["--input", str(data), "--oof", str(tmp_path / "oof"), "--set=folds.count=2"])
    assert before == {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    assert read_json(tmp_path / "oof/a/cv.json") == {}


# The benchmark


def test_ranking_is_of_ranks_and_each_split_has_its_own() -> None:
    columns = [("scene", "oof"), ("scene", "hidden"), ("random", "oof"), ("random", "hidden")]
    rows = [(0.1, 0.11, 0.5, 0.1), (0.2, 0.12, 0.3, 0.2), (0.9, 0.13, 0.4, 0.3)]
    made = pd.DataFrame(rows, index=list("abc"), columns=pd.MultiIndex.from_tuples(columns))
    lines = ranking.summary(made).splitlines()
    assert lines[2].split() == ["a", "0.1000", "0.5000", "0.1100", "0.1000"]
    assert lines[-2].split() == ["scene", "1.00", "+0.2800"]
    assert lines[-1].split() == ["random", "-0.50", "+0.2000"]
