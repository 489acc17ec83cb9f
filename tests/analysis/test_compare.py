"""Experiments side by side, against numbers counted by hand."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import jaccard_score
from synthetic import write_experiment, write_labels

import compare as script
from nyuseg.analysis import compare as module
from nyuseg.analysis.compare import REPORTED, compare, count_parameters, training_seconds
from nyuseg.data.classes import CLASS_NAMES
from nyuseg.data.fingerprint import FilesRecord, describe_all
from nyuseg.data.frames import frame_path, read_label, write_png
from nyuseg.ensembling.blend import blend
from nyuseg.evaluation.bootstrap import difference, draw
from nyuseg.evaluation.oof import image_confusions
from nyuseg.experiment.folder import open_experiment
from nyuseg.experiment.training_data import FILES, data_files
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import write_bytes, write_text

SIZE, INPUT = (40, 56), (48, 64)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Experiments below oof/: good, worse, leaky (other folds), both (a blend)."""
    work = tmp_path_factory.mktemp("compare")
    write_labels(work / "input", images=40, scenes=18, size=SIZE, seed=1)
    for name, skill, seed, group in (
        ("good", 1.3, 1, "scene"),
        ("worse", 1.0, 2, "scene"),
        ("leaky", 1.0, 3, "random"),
    ):
        write_experiment(work / "input", work / "oof", name, skill, seed, INPUT, group=group)
    blend(
        [open_experiment(name, work / "oof") for name in ("good", "worse")],
        work / "oof/both",
    )
    return work


def table(lab: Path, *names: str, out: Path) -> tuple[str, pd.DataFrame]:
    text = compare([open_experiment(name, lab / "oof") for name in names], out)
    return text, pd.read_csv(out / "table.csv")


def pixels(lab: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Truth and prediction of all labelled pixels, image by image."""
    experiment, truth, guess = open_experiment(name, lab / "oof"), [], []
    for image_id in experiment.table["image_id"]:
        label = read_label(frame_path(lab / "input", "train", "label", image_id))
        truth.append(label[label != 255])
        guess.append(read_label(experiment.mask_path(image_id))[label != 255])
    return np.concatenate(truth), np.concatenate(guess)


def test_scores_are_those_of_the_masks(lab: Path, tmp_path: Path) -> None:
    text, csv = table(lab, "good", "worse", out=tmp_path / "out")
    for name in ("good", "worse"):
        rows = csv[csv["experiment"] == name]
        expected = jaccard_score(*pixels(lab, name), labels=range(13), average=None)
        assert list(rows["class"]) == [*CLASS_NAMES, "mIoU"]
        assert rows["iou"].to_numpy() == pytest.approx([*expected, expected.mean()])
    shown = next(line for line in text.splitlines() if line.startswith("mIoU")).split()[1:]
    assert shown == [f"{value:.4f}" for value in csv[csv["class"] == "mIoU"]["iou"]]
    assert (tmp_path / "out/table.txt").read_text() == text + "\n"


def test_differences_are_to_the_first_one(lab: Path, tmp_path: Path) -> None:
    _, csv = table(lab, "good", "worse", out=tmp_path / "out")
    a, b = (image_confusions(open_experiment(name, lab / "oof")) for name in ("good", "worse"))
    scenes = open_experiment("good", lab / "oof").table["scene"]
    expected = difference(b, a, scenes)
    row = csv[(csv["experiment"] == "worse") & (csv["class"] == "mIoU")].iloc[0]
    assert row["difference_value"] == pytest.approx(expected.value) and expected.value < 0
    assert (row["difference_low"], row["difference_high"]) == (expected.low, expected.high)
    wall = csv[csv["class"] == "wall"].set_index("experiment")
    gap = wall.loc["worse", "iou"] - wall.loc["good", "iou"]
    assert wall.loc["worse", "difference_value"] == pytest.approx(gap)
    assert np.isnan(wall.loc["good", "difference_value"])


def test_images_are_matched_by_id_under_other_folds(lab: Path, tmp_path: Path) -> None:
    """Only the intervals depend on the order; of the same masks they must not."""
    shutil.copytree(lab / "oof", tmp_path / "oof")
    twin = tmp_path / "oof/leaky"
    shutil.rmtree(twin / "masks")
    shutil.copytree(lab / "oof/good/masks", twin / "masks")
    shuffled = pd.read_csv(twin / "folds.csv", dtype=str)
    pair = [open_experiment(name, tmp_path / "oof") for name in ("good", "leaky")]
    reordered = pair[1].table.sample(frac=1, random_state=3).reset_index(drop=True)
    assert list(reordered["image_id"]) != list(shuffled["image_id"])
    object.__setattr__(pair[1], "table", reordered)
    text = compare(pair, tmp_path / "out")
    assert "+0.0000 [+0.0000..+0.0000]" in text
    assert "! leaky has other folds" in text and "!! leaky: LEAKY" in text
    assert text.split("P(better)")[1].splitlines()[2].endswith("leaky")  # Beside the score, too.


def test_a_blend_counts_with_all_its_members(lab: Path, tmp_path: Path) -> None:
    from safetensors.torch import save
    from torch import ones

    shutil.copytree(lab / "oof", tmp_path / "oof")
    for name, width in (("good", 5), ("worse", 7)):
        folder = tmp_path / "oof" / name
        tensors = {"a.weight": ones(3, width), "bn.running_mean": ones(100)}
        write_bytes(folder / "fold_0/weights.safetensors", save(tensors))
        for fold in range(5):
            rows = [f"{epoch},{0.7 * width}" for epoch in range(1, 31)]
            text = "\n".join(["epoch,seconds", *rows, ""])
            write_text(folder / f"fold_{fold}/metrics.csv", text)
    good, both = (open_experiment(name, tmp_path / "oof") for name in ("good", "both"))
    assert count_parameters(good) == 15
    assert training_seconds(good) == pytest.approx(5 * 30 * 3.5)
    text = compare([good, both], tmp_path / "out")
    hours = next(line for line in text.splitlines() if line.startswith("training, h")).split()[2:]
    assert hours == [f"{150 * 3.5 / 3600:.2f}", f"{150 * (3.5 + 4.9) / 3600:.2f}"]


def test_what_is_not_known_is_a_dash(lab: Path, tmp_path: Path) -> None:
    text, _ = table(lab, "good", "worse", out=tmp_path / "out")
    lines = {line[:16].strip(): line[16:].split() for line in text.splitlines()}
    assert lines["training, h"] == ["-", "-"]


def test_a_class_that_does_not_occur_is_a_dash(lab: Path, tmp_path: Path) -> None:
    shutil.copytree(lab / "oof", tmp_path / "oof")
    shutil.copytree(lab / "input", tmp_path / "input")
    places = [tmp_path / "oof/good/masks", tmp_path / "oof/worse/masks"]
    for path in (p for place in (*places, tmp_path / "input/train/label") for p in place.iterdir()):
        picture = cv2.imread(str(path), -1)
        picture[picture == 3] = 4
        cv2.imwrite(str(path), picture)
    pair = [open_experiment(name, tmp_path / "oof") for name in ("good", "worse")]
    for one in pair:
        object.__setattr__(one, "input", tmp_path / "input")
        facts = describe_all(data_files(one), {})  # As if trained on it.
        FilesRecord(files=facts).write(one.folder / FILES)
    text = compare(pair, tmp_path / "out")
    lines = {line[:16].strip(): line[16:].split() for line in text.splitlines()}
    assert lines[CLASS_NAMES[3]] == ["-", "-"] and "nan" not in text


def plotted(lab: Path, *names: str, out: Path) -> tuple[dict, str]:
    """What the plot of a comparison is asked to show: its series and its title."""
    asked = []

    def spy(rows, series, title, axis):
        asked.append((rows, series, title))
        return forest_plot(rows, series, title, axis)

    forest_plot = module.forest_plot
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "forest_plot", spy)
        table(lab, *names, out=out)
    ((rows, series, title),) = asked
    assert rows == [*CLASS_NAMES, "mIoU"] and all(len(found) == 14 for found in series.values())
    return series, title


def test_one_experiment_alone_has_a_table_and_a_plot_of_its_own(lab: Path, tmp_path: Path) -> None:
    text, csv = table(lab, "good", out=tmp_path / "out")
    assert len(csv) == 14 and "P(better)" in text
    series, _ = plotted(lab, "good", out=tmp_path / "again")
    assert [one.value for one in series["good"]] == pytest.approx(list(csv["iou"]))
    assert list(csv["iou_low"]) == pytest.approx([one.low for one in series["good"]])
    assert (csv["iou_low"] < csv["iou"]).all() and (csv["iou"] < csv["iou_high"]).all()


def test_the_interval_of_a_class_is_that_of_its_rooms(lab: Path, tmp_path: Path) -> None:
    """Counted by pixels, room by room, instead of by confusion matrices."""
    _, csv = table(lab, "good", out=tmp_path / "out")
    experiment, wall = open_experiment("good", lab / "oof"), CLASS_NAMES.index("wall")
    rooms: dict[str, np.ndarray] = {}
    for image_id, room in experiment.table[["image_id", "scene"]].to_numpy():
        label = read_label(frame_path(lab / "input", "train", "label", image_id))
        truth, guess = label == wall, (read_label(experiment.mask_path(image_id)) == wall)
        guess &= label != 255
        counted = np.array([(truth & guess).sum(), (truth | guess).sum()])
        rooms[room] = rooms.get(room, 0) + counted
    hits, union = (draw(len(rooms), 10_000, seed=0) @ np.stack(list(rooms.values()))).T
    low, high = np.percentile((hits / union)[union > 0], [2.5, 97.5])
    row = csv[csv["class"] == "wall"].iloc[0]
    assert (row["iou_low"], row["iou_high"]) == pytest.approx((low, high))


def test_the_plot_follows_the_data_and_names_what_is_leaky(lab: Path, tmp_path: Path) -> None:
    one, title = plotted(lab, "good", "worse", "leaky", out=tmp_path / "a")
    assert list(one) == ["worse", "leaky (leaky)"] and "good" in title and "leaky" not in title
    two, title = plotted(lab, "leaky", "worse", out=tmp_path / "b")
    assert "leaky (leaky)" in title and two["worse"] != one["worse"]
    plotted(lab, "leaky", "good", out=tmp_path / "c")
    pictures = [cv2.imread(str(tmp_path / name / "plot.png")) for name in "bc"]
    assert pictures[0].shape != pictures[1].shape or (pictures[0] != pictures[1]).any()


def test_each_column_of_a_leaky_experiment_says_so(lab: Path, tmp_path: Path) -> None:
    text, csv = table(lab, "good", "leaky", out=tmp_path / "out")
    heads = [line for line in text.splitlines() if line.split()[:1] in (["good"], ["leaky"])][:2]
    assert heads[0].split() == ["good", "leaky"] and heads[1].split() == ["leaky"]
    assert heads[1].index("leaky") == heads[0].index("leaky")  # Below its name.
    assert set(csv[csv["experiment"] == "leaky"]["notice"]) == {"leaky"}
    assert csv[csv["experiment"] == "good"]["notice"].isna().all()


def test_what_is_wrong_everywhere_scores_zero_not_nothing(lab: Path, tmp_path: Path) -> None:
    shutil.copytree(lab / "oof", tmp_path / "oof")
    one = open_experiment("worse", tmp_path / "oof")
    for image_id in one.table["image_id"]:
        label = read_label(frame_path(lab / "input", "train", "label", image_id))
        write_png(one.mask_path(image_id), ((label % 13 + 1) % 13).astype(np.uint8))
    lines = [line.split() for line in compare([one], tmp_path / "out").splitlines()]
    assert ["mIoU", "0.0000"] in lines and ["pixel", "accuracy", "0.0000"] in lines


def test_reported_rows_are_whole_and_stand_apart(lab: Path, tmp_path: Path) -> None:
    text, _ = table(lab, "good", out=tmp_path / "out")
    measured, reported = text.split("Reported by the author of Exp060 on NYUv2, not measured here")
    rows = pd.read_csv(REPORTED, dtype=str)
    assert rows["experiment"].is_unique and set(rows["folds"]) == {"80/20", "5"}
    assert float(rows.set_index("experiment")["leaderboard"]["Exp060"]) == 0.58623
    assert "Exp060" not in measured and "nan" not in reported
    for row in rows.itertuples():
        (line,) = (one for one in reported.splitlines() if one.split()[:1] == [row.experiment])
        shown = "-" if pd.isna(row.validation) else f"{float(row.validation):.4f}"
        assert line.split()[-3:] == [row.folds, shown, f"{float(row.leaderboard):.5f}"]


def test_what_cannot_be_compared_is_refused_by_name(lab: Path, tmp_path: Path) -> None:
    shutil.copytree(lab / "oof", tmp_path / "oof")
    write_labels(tmp_path / "more", images=41, scenes=18, size=SIZE, seed=1)
    write_experiment(tmp_path / "more", tmp_path / "oof", "more", 1.0, 5, INPUT)
    shutil.copytree(lab / "input", tmp_path / "other")
    label = frame_path(tmp_path / "other", "train", "label", "000003")
    shutil.copy(frame_path(tmp_path / "other", "train", "label", "000004"), label)
    write_experiment(tmp_path / "other", tmp_path / "oof", "other", 1.0, 6, INPUT)
    (tmp_path / "oof/worse/fold_2/fold.json").unlink()
    (tmp_path / "oof/leaky/fold_0/weights.safetensors").write_bytes(b"\x80\0\0half a header")
    for name, message in (
        ("more", "oof/more: other images than those of .*oof/good"),
        ("other", "oof/other: trained on other data than .*oof/good"),
        ("worse", "oof/worse: fold 2 not finished"),
        ("good", "oof/good: named twice"),
        ("leaky", "oof/leaky/fold_0/weights.safetensors: not whole weights"),
    ):
        pair = [open_experiment(one, tmp_path / "oof") for one in ("good", name)]
        with pytest.raises(UserError, match=message):
            compare(pair, tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_the_command_says_where_the_result_lies(lab: Path, capsys) -> None:
    script.main(["good", "worse", "--oof", str(lab / "oof")])
    out = capsys.readouterr().out
    folder = lab / "oof/.compare/good_vs_worse"
    assert out.splitlines()[-1].startswith(f"result: {folder}")
    assert "Reported by the author of Exp060 on NYUv2" in out and "Exp093" in out
    assert (folder / "plot.png").stat().st_size > 10_000
