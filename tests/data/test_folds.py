"""Folds: what --fold means, and that no room lies on both sides."""

from pathlib import Path

import pandas as pd
import pytest

from nyuseg.data.fold_split import split_by_scene
from nyuseg.data.folds import (
    NYUV2_FOLDS,
    NYUV2_SCENES,
    fold_hash,
    fold_table,
    leak_notice,
    read_folds,
    read_scenes,
    write_folds,
)
from nyuseg.utils.errors import UserError

ROOMS = Path(__file__).resolve().parents[3] / "shared/data/rooms"


@pytest.fixture(scope="module")
def nyuv2() -> pd.DataFrame:
    """The committed fold table."""
    return read_folds(NYUV2_FOLDS)


@pytest.fixture(scope="module")
def nyuv2_train() -> pd.DataFrame:
    """The training rows of the committed scene table."""
    table = pd.read_csv(NYUV2_SCENES, dtype=str)
    return table[table["split"] == "train"].reset_index(drop=True)


@pytest.fixture
def seven_scenes(tmp_path: Path) -> list[str]:
    """29 ids in 7 scenes of uneven size, with a scenes.csv in tmp_path; no images are needed."""
    counts = {"attic": 9, "bath": 6, "cellar": 5, "den": 4, "entry": 2, "foyer": 2, "garage": 1}
    names = [scene for scene, n in counts.items() for _ in range(n)]
    ids = [f"{900000 + 37 * i % 1009:06d}" for i in range(len(names))]
    rows = [f"{i},{scene},{scene[0]}\n" for i, scene in zip(ids, names, strict=True)]
    (tmp_path / "scenes.csv").write_text("image_id,scene,scene_type\n" + "".join(rows))
    return ids


def write_table(path: Path, *rows: str, header: str = "image_id,scene,fold") -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_committed_folds_are_even_and_by_scene(nyuv2: pd.DataFrame) -> None:
    assert len(nyuv2) == nyuv2["image_id"].nunique() == 795
    assert nyuv2["fold"].value_counts().to_dict() == dict.fromkeys(range(5), 159)
    assert (nyuv2.groupby("scene")["fold"].nunique() == 1).all()
    assert leak_notice(nyuv2) is None


def test_committed_folds_are_of_the_training_images(
    nyuv2: pd.DataFrame, nyuv2_train: pd.DataFrame
) -> None:
    scenes = dict(zip(nyuv2_train["image_id"], nyuv2_train["scene"], strict=True))
    assert dict(zip(nyuv2["image_id"], nyuv2["scene"], strict=True)) == scenes


def test_committed_folds_are_what_the_code_makes(
    nyuv2: pd.DataFrame, nyuv2_train: pd.DataFrame
) -> None:
    made = dict(zip(nyuv2_train["image_id"], split_by_scene(nyuv2_train, 5), strict=True))
    assert made == dict(zip(nyuv2["image_id"], nyuv2["fold"], strict=True))


def test_competition_gets_the_committed_folds(tmp_path: Path, nyuv2: pd.DataFrame) -> None:
    ids = nyuv2["image_id"].tolist()
    table = fold_table(tmp_path, ids[::-1], 5, "scene")
    assert fold_hash(table) == fold_hash(nyuv2)


def test_shipped_scenes_serve_nyuv2_training_ids_only(
    tmp_path: Path, nyuv2_train: pd.DataFrame
) -> None:
    some = nyuv2_train.iloc[[700, 3, 42]]
    table = read_scenes(tmp_path, some["image_id"].tolist())
    assert table is not None
    assert table["image_id"].tolist() == some["image_id"].tolist()
    assert table["scene"].tolist() == some["scene"].tolist()
    test_image = "000000"
    assert test_image not in set(nyuv2_train["image_id"])
    assert read_scenes(tmp_path, [*some["image_id"], test_image]) is None


def test_own_scenes_win_over_the_shipped_ones(tmp_path: Path, nyuv2_train: pd.DataFrame) -> None:
    ids = nyuv2_train["image_id"].tolist()[:4]
    rows = [f"{i},mine_{n},x" for n, i in enumerate(ids)]
    write_table(tmp_path / "scenes.csv", *rows, header="image_id,scene,scene_type")
    table = read_scenes(tmp_path, ids)
    assert table is not None
    assert table["scene"].tolist() == ["mine_0", "mine_1", "mine_2", "mine_3"]


def test_scenes_stay_whole(tmp_path: Path, seven_scenes: list[str]) -> None:
    table = fold_table(tmp_path, seven_scenes, 3, "scene")
    assert table["image_id"].tolist() == sorted(seven_scenes)
    assert set(table["fold"]) == {0, 1, 2}
    assert (table.groupby("scene")["fold"].nunique() == 1).all()
    assert leak_notice(table) is None


def test_order_of_rows_does_not_matter(tmp_path: Path, seven_scenes: list[str]) -> None:
    before = fold_table(tmp_path, seven_scenes, 3, "scene")
    header, *rows = (tmp_path / "scenes.csv").read_text().splitlines()
    write_table(tmp_path / "scenes.csv", *rows[11:], *rows[:11][::-1], header=header)
    after = fold_table(tmp_path, seven_scenes[5:] + seven_scenes[:5], 3, "scene")
    pd.testing.assert_frame_equal(before, after)


def test_rows_of_other_images_do_not_matter(tmp_path: Path, seven_scenes: list[str]) -> None:
    before = fold_table(tmp_path, seven_scenes, 3, "scene")
    with (tmp_path / "scenes.csv").open("a") as file:
        file.write("000001,attic,a\n999999,harbour,h\n")
    pd.testing.assert_frame_equal(before, fold_table(tmp_path, seven_scenes, 3, "scene"))


def test_random_folds_leak_and_say_so(tmp_path: Path, seven_scenes: list[str]) -> None:
    table = fold_table(tmp_path, seven_scenes, 5, "random")
    assert table["fold"].value_counts().max() == 6  # 29 images: 6, 6, 6, 6, 5.
    assert "LEAKY" in str(leak_notice(table))


def test_unknown_scenes_are_announced(tmp_path: Path) -> None:
    ids = [f"{900000 + i:06d}" for i in range(7)]
    table = fold_table(tmp_path, ids, 3, "scene")
    assert set(table["fold"]) == {0, 1, 2}
    notice = str(leak_notice(table))
    assert "scenes unknown" in notice
    assert "scenes.csv" in notice


@pytest.mark.parametrize(("group", "words"), [("scene", "7 scenes"), ("random", "29 images")])
def test_more_folds_than_scenes(
    tmp_path: Path, seven_scenes: list[str], group: str, words: str
) -> None:
    count = int(words.split()[0])
    way_out = rf"{words} cannot fill {count + 1} folds; use --set folds\.count={count}$"
    with pytest.raises(UserError, match=way_out):
        fold_table(tmp_path, seven_scenes, count + 1, group)
    table = fold_table(tmp_path, seven_scenes, count, group)  # The way out works.
    assert set(table["fold"]) == set(range(count))


def test_image_without_a_scene_row(tmp_path: Path, seven_scenes: list[str]) -> None:
    with pytest.raises(UserError, match=r"scenes\.csv: no row for image 123456 \(2 in all\)"):
        fold_table(tmp_path, [*seven_scenes, "765432", "123456"], 3, "scene")


def test_table_survives_its_file(tmp_path: Path, seven_scenes: list[str]) -> None:
    table = fold_table(tmp_path, seven_scenes, 4, "scene")
    write_folds(tmp_path / "folds.csv", table)
    again = read_folds(tmp_path / "folds.csv")
    assert again.to_dict("list") == table.to_dict("list")
    assert fold_hash(again) == fold_hash(table)


def test_hash_follows_ids_and_folds(nyuv2: pd.DataFrame) -> None:
    moved, renamed = nyuv2.copy(), nyuv2.copy()
    moved.loc[5, "fold"] = (moved.loc[5, "fold"] + 1) % 5
    renamed.loc[5, "image_id"] = "999999"
    assert len({fold_hash(nyuv2), fold_hash(moved), fold_hash(renamed)}) == 3


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (("1,a,0", "2,b,2"), "without a gap"),
        (("1,a,1", "2,b,2"), "without a gap"),
        (("1,a,-1", "2,b,0"), "without a gap"),
        (("1,a,0", "2,b,1", "3,a,1"), "scene a lies in 2 folds"),
        (("1,a,0", "2,b,1", "1,a,0"), "image 1 twice"),
        (("1,a,0", "2,b,one"), "whole numbers"),
        (("1,a,0", "2,b,"), "whole numbers"),
        (("1,a,0", "2,b,0.5"), "whole numbers"),
    ],
)
def test_faults_of_a_fold_table(tmp_path: Path, rows: tuple[str, ...], words: str) -> None:
    path = write_table(tmp_path / "folds.csv", *rows)
    with pytest.raises(UserError, match=words) as error:
        read_folds(path)
    assert str(error.value).startswith(f"{path}: ")


def test_missing_column_and_missing_file(tmp_path: Path) -> None:
    path = write_table(tmp_path / "folds.csv", "1,a", header="image_id,scene")
    with pytest.raises(UserError, match=r"folds\.csv: expected the columns image_id, scene, fold"):
        read_folds(path)
    with pytest.raises(UserError, match=r"absent\.csv: no such file"):
        read_folds(tmp_path / "absent.csv")
    (tmp_path / "nothing.csv").write_text("")
    with pytest.raises(UserError, match=r"nothing\.csv: not a CSV table"):
        read_folds(tmp_path / "nothing.csv")


def test_random_table_may_split_a_scene(tmp_path: Path) -> None:
    path = write_table(tmp_path / "folds.csv", "1,a,0", "2,b,1", "3,a,1")
    assert read_folds(path, "random")["fold"].tolist() == [0, 1, 1]


def test_ids_keep_their_zeros(tmp_path: Path) -> None:
    path = write_table(tmp_path / "folds.csv", "000007,NA,0", "000010,null,1")
    table = read_folds(path)
    assert table["image_id"].tolist() == ["000007", "000010"]
    assert table["scene"].tolist() == ["NA", "null"]


def test_rooms_fill_five_folds() -> None:
    if not ROOMS.exists():
        pytest.skip(f"{ROOMS} is absent: it is checked data that may not be redistributed")
    ids = [path.stem for path in (ROOMS / "train/image").glob("*.png")]
    table = fold_table(ROOMS, ids, 5, "scene")
    assert set(table["fold"]) == set(range(5))
    assert (table.groupby("scene")["fold"].nunique() == 1).all()


def test_scene_types_too_rare_to_stratify_still_split(tmp_path: Path) -> None:
    ids = [f"{i:06d}" for i in range(4)]
    rows = "".join(f"{image_id},room_{image_id},kind_{image_id}\n" for image_id in ids)
    (tmp_path / "scenes.csv").write_text("image_id,scene,scene_type\n" + rows)
    assert fold_table(tmp_path, ids, 2, "scene")["fold"].value_counts().tolist() == [2, 2]


def test_one_stray_image_does_not_make_nyuv2_unknown(tmp_path: Path) -> None:
    ids = read_folds(NYUV2_FOLDS)["image_id"].tolist()
    with pytest.raises(UserError, match="000000 is no training image of NYUv2"):
        fold_table(tmp_path, [*ids, "000000"], 5, "scene")
