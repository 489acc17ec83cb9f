"""benchmarks/finals.py: which folds count, and what the table says of scores that are known."""

from pathlib import Path

import finals
import numpy as np
import pandas as pd
import pytest
from finals import Score, keep, paired, read_kept, recipe_text, table

from nyuseg.config.loading import load_config
from nyuseg.experiment.folder import Experiment

NAMES = ("nyuv2_small", "nyuv2_small_best")


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "kept" / "finals"
    monkeypatch.setattr(finals, "KEPT", path)
    return path


def rooms_of(fold: int, wrong: float) -> np.ndarray:
    """Rooms of two classes, fold + 1 of them: of the 1000 pixels of each a share is wrong."""
    found = np.zeros((fold + 1, 13, 13), np.int64)
    missed = round(1000 * wrong)
    found[:, :2, :2] = [[1000 - missed, missed], [missed, 1000 - missed]]
    return found


def score(name: str, fold: int, wrong: float, machine: str = "one", *changes: str) -> Score:
    """What is right in what the recipe does not predict with must not be taken for its score."""
    config = load_config(finals.CONFIGS / f"{name}.yaml", changes)
    kinds = dict.fromkeys(finals.KINDS, rooms_of(fold, 0))
    kinds |= {config.predict.checkpoint: rooms_of(fold, wrong)}
    rooms = [f"room_{fold}_{number}" for number in range(fold + 1)]
    return Score(rooms, kinds, 100 * (fold + 1), machine, recipe_text(config))


def test_a_fold_counts_where_one_machine_trained_all(kept: Path) -> None:
    for fold in (0, 1, 2, 4):
        keep(NAMES[0], fold, score(NAMES[0], fold, 0.2))
    for fold, machine in ((0, "other"), (2, "one"), (3, "one"), (4, "one")):
        keep(NAMES[1], fold, score(NAMES[1], fold, 0.1, machine))
    scores = read_kept(NAMES)
    assert len(scores) == 8
    assert paired(scores, NAMES) == {2: "one", 4: "one"}
    assert list(paired(scores, NAMES[:1])) == [0, 1, 2, 4]
    keep(NAMES[0], 0, score(NAMES[0], 0, 0.2, "other"))  # Beside what the one has kept of it.
    assert paired(read_kept(NAMES), NAMES) == {0: "other", 2: "one", 4: "one"}
    assert len(read_kept(NAMES)) == 9


def test_the_table_has_what_each_predicts_with_and_the_difference_over_rooms() -> None:
    for fold, wrong in ((1, 0.2), (3, 0.1)):
        keep(NAMES[0], fold, score(NAMES[0], fold, wrong))
        keep(NAMES[1], fold, score(NAMES[1], fold, wrong / 2))
    base, best = table(read_kept(NAMES), NAMES).to_dict("records")
    # Both classes have 1 - w pixels right of 1 + w.
    assert (base["fold 1"], base["fold 3"]) == pytest.approx((0.8 / 1.2, 0.9 / 1.1))
    assert best["fold 1"] == pytest.approx(0.9 / 1.1)
    pooled = [(2 * 0.2 + 4 * 0.1) / 6, (2 * 0.1 + 4 * 0.05) / 6]  # Two rooms and four.
    scores = [(1 - wrong) / (1 + wrong) for wrong in pooled]
    assert [base["pooled"], best["pooled"]] == pytest.approx(scores)
    assert best["difference"] == pytest.approx(scores[1] - scores[0])
    assert 0 < best["from"] < best["difference"] < best["to"]
    assert (base["difference"], base["cpu_seconds"]) == (0, 600)
    assert (base["checkpoint"], best["checkpoint"]) == ("last", "ema")


def test_a_recipe_that_was_changed_since_is_not_the_one_in_the_file() -> None:
    keep(NAMES[0], 0, score(NAMES[0], 0, 0.2))
    keep(NAMES[1], 0, score(NAMES[1], 0, 0.1, "one", "train.lovasz=0.25"))
    assert list(read_kept(NAMES)) == [(NAMES[0], 0, "one")]
    with pytest.raises(SystemExit, match="no fold on which one machine trained"):
        table(read_kept(NAMES), NAMES)
    # Where the weights lie, how it is called and what computes it are no part of it.
    same = ("model.encoder_weights=/a/file", "name=mine", "compute.accumulate=2")
    keep(NAMES[1], 0, score(NAMES[1], 0, 0.1, "one", *same))
    assert len(read_kept(NAMES)) == 2


def test_what_would_train_another_recipe_is_refused_before_it_starts() -> None:
    finals.require_recipes(NAMES, ["model.encoder_weights=/some/file", "compute.workers=0"])
    with pytest.raises(SystemExit, match=r"--set train.lr=0.1: nyuv2_small is then another recipe"):
        finals.require_recipes(NAMES, ["train.lr=0.1"])
    for change in ("model.encoder_weights=null", "name=other"):
        with pytest.raises(SystemExit, match=f"--set {change}: nyuv2_small is then another"):
            finals.require_recipes(NAMES, [change])


def test_an_epoch_that_was_chosen_by_the_score_is_no_final(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "lucky.yaml").write_text("name: lucky\npredict: {checkpoint: best}\n")
    monkeypatch.setattr(finals, "CONFIGS", tmp_path)
    with pytest.raises(SystemExit, match=r"lucky: predict.checkpoint=best: expected last or ema"):
        finals.require_recipes(["lucky"], [])


def test_a_score_is_the_sum_over_the_images_of_each_room(tmp_path: Path) -> None:
    rooms = ["kitchen", "attic", "kitchen", "attic", "hall"]
    table = pd.DataFrame({"image_id": list("abcde"), "scene": rooms, "fold": [1, 1, 1, 0, 1]})
    config = load_config(finals.CONFIGS / f"{NAMES[0]}.yaml")
    experiment = Experiment(tmp_path, config, table, tmp_path)
    last = np.arange(4 * 13 * 13).reshape(4, 13, 13)  # Of a, b, c and e.
    files = experiment.fold_files(1)
    files.folder.mkdir()
    np.savez(files.checkpoint_scores, last=last, best=last + 1)
    score = finals.read_score(experiment, 1, 9.5)
    assert (score.rooms, list(score.kinds), score.seconds) == (
        ["kitchen", "attic", "hall"],
        ["last"],
        9.5,
    )
    assert np.array_equal(score.kinds["last"], [last[0] + last[2], last[1], last[3]])
    assert score.machine == finals.machine() and score.recipe == recipe_text(config)


def test_a_folder_that_another_machine_began_is_refused(tmp_path: Path, monkeypatch) -> None:
    work = tmp_path / "new" / "work"
    finals.require_machine(work)
    finals.require_machine(work)
    here = finals.machine()
    assert "torch" in here
    monkeypatch.setattr(finals, "machine", lambda: "another")
    with pytest.raises(SystemExit) as refusal:
        finals.require_machine(work)
    assert str(refusal.value) == f"{work}: begun on {here}; give another --work"
