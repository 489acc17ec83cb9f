"""The leak meter: shares of images with a room-mate in training; the ranking of its benchmark."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import ranking
from printed import read_table

import leakage as script
from nyuseg.analysis.leakage import has_mate, leak_row, leak_table, report, split_tables
from nyuseg.data.folds import NYUV2_FOLDS, read_folds

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
    text = leak_table(rows)
    assert text.startswith("Validation images with a room-mate in training:")
    columns = ("images", "scenes", "with one", "share", "per fold", "")
    random = ("8", "4", "5", "62.5%", "25.0% .. 100.0%", "")
    scene = ("2", "2", "0", "0.0%", "0.0% .. 0.0%", "")
    printed = read_table(text, "folds")
    assert printed["random"] == dict(zip(columns, random, strict=True))
    assert printed["scene"] == dict(zip(columns, scene, strict=True))


# The command


def test_the_command_counts_both_splits_and_changes_nothing(tiny_folder, tmp_path, capsys) -> None:
    tiny_folder(tmp_path, [(24, 32)] * 6, list("aabbcc"))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    script.main(["--input", str(tmp_path), "--set=folds.count=3"])
    text = capsys.readouterr().out
    assert "a room-mate in training" in text
    row = read_table(text, "folds")["scene"]
    assert (row["images"], row["scenes"], row["with one"]) == ("6", "3", "0")
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_data_without_scenes_is_said_to_be_unknown(tiny_folder, tmp_path: Path) -> None:
    tiny_folder(tmp_path, [(24, 32)] * 6)
    assert report(tmp_path, 3).startswith("!! scenes unknown: ")


# The benchmark


def test_ranking_is_of_ranks_and_each_split_has_its_own() -> None:
    columns = [("scene", "oof"), ("scene", "hidden"), ("random", "oof"), ("random", "hidden")]
    rows = [(0.1, 0.11, 0.5, 0.1), (0.2, 0.12, 0.3, 0.2), (0.9, 0.13, 0.4, 0.3)]
    made = pd.DataFrame(rows, index=list("abc"), columns=pd.MultiIndex.from_tuples(columns))
    lines = ranking.summary(made).splitlines()
    assert lines[2].split() == ["a", "0.1000", "0.5000", "0.1100", "0.1000"]
    assert lines[-2].split() == ["scene", "1.00", "+0.2800"]
    assert lines[-1].split() == ["random", "-0.50", "+0.2000"]
