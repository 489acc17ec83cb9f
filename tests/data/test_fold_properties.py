"""Folds of any table: none empty, no room on two sides, the same whatever the order of rows."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nyuseg.data.fold_split import _deal_out, split_by_scene
from nyuseg.data.folds import fold_table, read_folds, write_folds
from nyuseg.experiment.folder import Experiment, open_experiment
from nyuseg.utils.errors import UserError

# Derandomized: the same tables in every run; no deadline: the machine may be busy.
STEADY = settings(derandomize=True, deadline=None, max_examples=60)


def table_of(scenes: list[tuple[int, str]]) -> pd.DataFrame:
    """Rows image_id, scene, scene_type for scenes given by their size and type."""
    rows = [(f"scene_{n:02d}", kind) for n, (size, kind) in enumerate(scenes) for _ in range(size)]
    table = pd.DataFrame(rows, columns=["scene", "scene_type"])
    # Ids out of step with the scenes, as in life.
    table.insert(0, "image_id", [f"{(i * 7919) % 99991:06d}" for i in range(len(rows))])
    return table.sort_values("image_id", ignore_index=True)


some_scenes = st.lists(
    st.tuples(st.integers(1, 30), st.sampled_from(["t0", "t1", "t2"])), min_size=2, max_size=12
)


@STEADY
@given(some_scenes, st.data())
def test_no_fold_is_empty_and_no_scene_is_on_two_sides(scenes, data) -> None:
    count = data.draw(st.integers(2, len(scenes)))
    table = table_of(scenes)
    folds = split_by_scene(table, count)
    sizes = np.bincount(folds, minlength=count)
    assert len(sizes) == count and sizes.min() > 0
    assert (pd.Series(folds).groupby(table["scene"]).nunique() == 1).all()
    assert (split_by_scene(table, count) == folds).all()


@STEADY
@given(some_scenes, st.data())
def test_scenes_dealt_out_by_size_fill_every_fold_evenly(scenes, data) -> None:
    """The way out where scikit-learn leaves folds empty, which random tables rarely reach."""
    count = data.draw(st.integers(2, len(scenes)))
    table = table_of(scenes)
    folds = _deal_out(table["scene"], count)
    sizes = np.bincount(folds, minlength=count)
    assert sizes.min() > 0
    assert sizes.max() - sizes.min() <= max(size for size, _ in scenes)
    assert (pd.Series(folds).groupby(table["scene"]).nunique() == 1).all()
    shuffled = table["scene"].sample(frac=1, random_state=3)
    assert (_deal_out(shuffled, count) == folds[shuffled.index]).all()


def test_the_scenes_that_left_a_fold_empty() -> None:
    table = table_of([(18, "t1"), (6, "t0"), (26, "t1"), (3, "t0")])
    assert sorted(np.bincount(split_by_scene(table, 4)).tolist()) == [3, 6, 18, 26]


@STEADY
@given(st.lists(st.integers(1, 40), min_size=2, max_size=9), st.randoms(use_true_random=False))
def test_the_order_of_ids_and_rows_changes_nothing(tmp_path_factory, sizes, random) -> None:
    root = tmp_path_factory.mktemp("scenes")
    table = table_of([(size, "t0") for size in sizes])
    ids = table["image_id"].tolist()
    expected = None
    for _ in range(2):
        shuffled = table.sample(frac=1, random_state=random.randrange(2**32))
        shuffled.to_csv(root / "scenes.csv", index=False)
        random.shuffle(ids)
        found = fold_table(root, ids, len(sizes), "scene")
        expected = found if expected is None else expected
        assert found.equals(expected) and found["fold"].nunique() == len(sizes)


@STEADY
@given(st.integers(2, 40), st.data())
def test_a_random_split_leaves_no_fold_empty(tmp_path_factory, images: int, data) -> None:
    count = data.draw(st.integers(2, images))
    root = tmp_path_factory.mktemp("plain")
    found = fold_table(root, [f"9{i:05d}" for i in range(images)], count, "random")
    sizes = np.bincount(found["fold"], minlength=count)
    assert sizes.min() > 0 and np.ptp(sizes) <= 1


@pytest.mark.parametrize(
    ("scenes", "advice"),
    [
        ("aabb", r"2 scenes cannot fill 3 folds; use --set folds\.count=2$"),
        ("aaaa", r"1 scene cannot fill 3 folds; use --set folds\.group=random$"),
        ("a", r"1 scene cannot fill 3 folds; there must be two or more$"),
    ],
)
def test_advice_that_works(tmp_path: Path, scenes: str, advice: str) -> None:
    ids = [f"90000{i}" for i in range(len(scenes))]
    rows = [f"{i},{scene},kind\n" for i, scene in zip(ids, scenes, strict=True)]
    (tmp_path / "scenes.csv").write_text("image_id,scene,scene_type\n" + "".join(rows))
    with pytest.raises(UserError, match=advice):
        fold_table(tmp_path, ids, 3, "scene")


@pytest.mark.parametrize("fold", ["99999999999999999999", "1.5", "", "1000000000"])
def test_fold_numbers_out_of_this_world_are_refused_at_once(tmp_path: Path, fold: str) -> None:
    path = tmp_path / "folds.csv"
    path.write_text(f"image_id,scene,fold\n1,a,0\n2,b,{fold}\n")
    with pytest.raises(UserError, match=r"folds\.csv: (column fold|folds must be numbered)"):
        read_folds(path)


def test_a_table_with_a_fold_less_than_the_configuration_is_refused(tmp_path: Path) -> None:
    from nyuseg.config.loading import dump_config, parse_config
    from nyuseg.data.folds import fold_hash
    from nyuseg.utils.files import write_json, write_text

    ids = [f"{i:06d}" for i in range(8)]
    table = pd.DataFrame({"image_id": ids, "scene": ids, "fold": [i % 4 for i in range(8)]})
    folder = tmp_path / "x"
    write_folds(folder / "folds.csv", table)
    write_text(folder / "config.yaml", dump_config(parse_config({"name": "x"}, "test")))
    facts = {"input": str(tmp_path), "folds": fold_hash(table), "data": "", "notice": None}
    write_json(folder / "experiment.json", facts)
    with pytest.raises(UserError, match=r"folds\.csv: has 4 folds, the configuration 5"):
        open_experiment("x", tmp_path)


@pytest.mark.slow
def test_a_fold_that_fills_no_batch_is_found_before_any_is_trained(tiny_folder, tmp_path) -> None:
    import train_folds
    from nyuseg.utils.files import PROJECT

    # Fold sizes 8 and 2: fold 0 trains on 2 images, fold 1 on 8, or the other way round.
    tiny_folder(tmp_path / "data", [(32, 48)] * 10, list("aaaaaaaabb"))
    settings_ = ["model.encoder=tu-test_resnet", "data.size=[32,48]", "folds.count=2"]
    for order in ("0,1", "1,0"):
        arguments = ["--fold", order, "--config", str(PROJECT / "configs/demo.yaml")]
        arguments += ["--input", str(tmp_path / "data"), "--oof", str(tmp_path / "oof")]
        with pytest.raises(UserError, match="2 training images do not fill a batch of 4"):
            train_folds.main([*arguments, *(f"--set={text}" for text in settings_)])
    assert not list((tmp_path / "oof/demo").glob("fold_*/*.pt"))
    assert isinstance(open_experiment("demo", tmp_path / "oof"), Experiment)
