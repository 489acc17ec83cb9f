"""Blends: fitted on some rooms, judged on others, and only of what belongs together."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic import write_experiment, write_labels

import blend as script
from nyuseg.data.frames import frame_path, read_label
from nyuseg.ensembling import blend as fitting
from nyuseg.ensembling.blend import blend
from nyuseg.ensembling.candidates import (
    LabelledPixels,
    candidates,
    mixture_confusions,
    nested,
)
from nyuseg.ensembling.stored import StoredGrids
from nyuseg.evaluation.metrics import confusion_matrix, mean_iou
from nyuseg.evaluation.oof import image_confusions
from nyuseg.experiment.creation import create_experiment
from nyuseg.experiment.folder import open_experiment
from nyuseg.submission.writing import cv_scores
from nyuseg.utils.errors import UserError

SIZE, INPUT = (40, 56), (48, 64)  # Frames are scaled up and padded.


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels of 60 images in 25 rooms; experiments of several kinds below oof/."""
    work = tmp_path_factory.mktemp("lab")
    write_labels(work / "input", images=60, scenes=25, size=SIZE, seed=1)
    for name, skill, seed, size, good_at in (
        ("walls", 1.0, 1, INPUT, range(6)),
        ("things", 1.0, 2, INPUT, range(6, 13)),
        ("large", 1.1, 3, (64, 96), ()),
        ("broken", 0.0, 4, INPUT, ()),
    ):
        write_experiment(work / "input", work / "oof", name, skill, seed, size, good_at)
    return work


def members(lab: Path, *names: str) -> list:
    return [open_experiment(name, lab / "oof") for name in names]


def test_candidates_are_weights_and_equal_ones_come_first() -> None:
    for count in (2, 3, 4, 6, 9, 15):
        rows = candidates(count)
        assert rows[0] == pytest.approx(1 / count)
        assert (rows >= 0).all() and rows.sum(1) == pytest.approx(1)
        assert len(np.unique(rows.round(9), axis=0)) == len(rows) <= 450
        for alone in np.eye(count):
            assert (rows == alone).all(1).any()
            if count > 2:  # The mean of all others.
                assert np.isclose(rows, (1 - alone) / (count - 1)).all(1).any()


def test_candidates_are_scored_as_their_mixtures_would_be() -> None:
    generator = torch.Generator().manual_seed(3)
    values = torch.rand(3, 13, 5000, generator=generator).softmax(1).half()  # More than a block.
    truth = torch.randint(0, 13, (5000,), generator=generator).to(torch.uint8)
    weights = np.array([[0.2, 0.5, 0.3], [0, 0, 1]])
    found = mixture_confusions(LabelledPixels(values, truth), weights)
    for row, confusion in zip(weights, found, strict=True):
        mixed = np.einsum("m,mkn->kn", row, values.double().numpy())
        expected = confusion_matrix(truth.numpy(), mixed.argmax(0).astype(np.uint8))
        assert np.abs(confusion - expected).sum() <= 4  # Ties of float32.


def test_weights_of_a_fold_are_fitted_without_it() -> None:
    """Member 0 is right in folds 0 and 1, member 1 in fold 2."""
    sure = (0.9, 0.8)  # So that equal weights follow member 0.

    def sample(right: int, count: int) -> LabelledPixels:
        truth = torch.arange(count, dtype=torch.uint8) % 13
        values = torch.full((2, 13, count), 0.01)
        values[right, truth.long(), torch.arange(count)] = sure[right]
        values[1 - right, (truth.long() + 1) % 13, torch.arange(count)] = sure[1 - right]
        return LabelledPixels(values.half(), truth)

    per_fold, final, facts = nested([sample(0, 130), sample(0, 130), sample(1, 1300)])
    leaning = [weights[0] >= 0.5 for weights in per_fold]
    assert leaning == [False, False, True]
    assert final[1] > 0.5
    assert facts["optimism"] > 0.5


def test_different_members_gain_and_the_files_say_so(lab: Path) -> None:
    result = blend(members(lab, "walls", "things"), lab / "oof/both")
    assert result.method == "equal"
    assert [row.weight for row in result.members] == [0.5, 0.5]
    opened = open_experiment("both", lab / "oof")
    pooled = image_confusions(opened).sum(0)
    assert float(mean_iou(pooled)) == pytest.approx(result.miou["equal"], abs=1e-12)
    assert cv_scores(opened, [0, 1]).miou == pytest.approx(result.miou["equal"], abs=1e-12)
    best = max(
        float(mean_iou(image_confusions(one).sum(0))) for one in members(lab, "walls", "things")
    )
    assert result.gain.value == pytest.approx(result.miou["equal"] - best, abs=1e-9)
    assert result.gain.low > 0.02


def test_masks_are_those_of_the_mixed_probabilities(lab: Path) -> None:
    blend(members(lab, "walls", "things"), lab / "oof/both")
    opened = open_experiment("both", lab / "oof")
    stored = StoredGrids([part.experiment for part in opened.members])
    for image_id in opened.table["image_id"][:5]:
        grids = stored.read(image_id, SIZE)
        assert grids.shape == (2, 13, 12, 16)
        mask = stored.mask(grids, SIZE, (1, 1))
        assert np.array_equal(mask, read_label(opened.mask_path(image_id)))


def test_probabilities_at_pixels_are_those_of_the_mask(lab: Path) -> None:
    stored = StoredGrids(members(lab, "walls", "large"))
    image_id = open_experiment("walls", lab / "oof").table["image_id"][7]
    grids = stored.read(image_id, SIZE)
    assert stored.size == (64, 96) and grids.shape == (2, 13, 16, 24)
    pixels = np.array([0, 55, 56, 1000, 40 * 56 - 1])
    values = stored.at_pixels(grids, SIZE, pixels)
    for number in (0, 1):
        weights = np.eye(2)[number]
        mask = stored.mask(grids, SIZE, weights)
        assert values[number].argmax(0).tolist() == mask.ravel()[pixels].tolist()


def test_a_member_with_another_input_size_takes_part(lab: Path) -> None:
    result = blend(members(lab, "walls", "large"), lab / "oof/sizes")
    assert result.gain.low > 0
    assert open_experiment("sizes", lab / "oof").config.data.size == (64, 96)


def test_pixels_are_drawn_in_proportion_whatever_the_size_of_the_first_image(
    lab: Path, monkeypatch
) -> None:
    first, *_ = found = members(lab, "walls", "things")
    monkeypatch.setattr(fitting, "PIXELS", 6000)
    sizes = fitting.frame_sizes(first.input, "train", "label")
    tenfold = dict.fromkeys(list(sizes)[1:], (4 * SIZE[0], 5 * SIZE[1]))
    whole = sum(part.truth.numel() for part in fitting._draw(first, StoredGrids(found)))
    monkeypatch.setattr(fitting, "frame_sizes", lambda *_: {**sizes, **tenfold})
    part = sum(part.truth.numel() for part in fitting._draw(first, StoredGrids(found)))
    assert 0.5 * 6000 < whole < 6000 and part / whole == pytest.approx(60 / (1 + 59 * 20), 0.2)


def test_an_experiment_with_itself_gains_nothing(lab: Path) -> None:
    result = blend(members(lab, "walls", "walls"), lab / "oof/same")
    assert result.method == "equal"
    assert [row.weight for row in result.members] == [0.5, 0.5]
    assert abs(result.gain.value) < 1e-4 and result.optimism == 0


def test_a_broken_member_gets_no_weight(lab: Path) -> None:
    three = members(lab, "broken", "walls", "things")
    result = blend(three, lab / "oof/three")
    assert result.method == "fitted" and result.advantage.low > 0
    assert [row.experiment for row in result.left_out] == ["broken"]
    assert [row.experiment for row in result.members] == ["walls", "things"]
    assert result.gain.low > 0
    parts = open_experiment("three", lab / "oof").parts
    assert [part.experiment.config.name for part in parts] == ["walls", "things"]


def test_what_does_not_belong_together_is_refused_by_name(lab: Path, tmp_path: Path) -> None:
    shutil.copytree(lab / "oof", tmp_path / "oof")
    oof = tmp_path / "oof"
    write_experiment(lab / "input", oof, "leaky", 1.0, 5, INPUT, group="random")
    shutil.copytree(lab / "input", tmp_path / "other")
    label = frame_path(tmp_path / "other", "train", "label", "000003")
    shutil.copy(frame_path(tmp_path / "other", "train", "label", "000004"), label)
    write_experiment(tmp_path / "other", oof, "other", 1.0, 6, INPUT)
    blend([open_experiment(name, oof) for name in ("walls", "things")], oof / "both")
    (oof / "things/fold_3/fold.json").unlink()
    for names, message in (
        (["walls"], "two experiments or more"),
        (["walls", "leaky"], "oof/leaky: other folds than those of .*oof/walls"),
        (["walls", "other"], "oof/other: trained on other data than .*oof/walls"),
        (["walls", "both"], "oof/both: a blend itself; blend its members, walls things"),
        (["walls", "things"], "oof/things: fold 3 not finished"),
    ):
        with pytest.raises(UserError, match=message):
            blend([open_experiment(name, oof) for name in names], oof / "new")
        assert not (oof / "new").exists()
    with pytest.raises(UserError, match="oof/walls: exists and is no blend"):
        blend([open_experiment(name, oof) for name in ("walls", "large")], oof / "walls")
    with pytest.raises(UserError, match="oof/both: a blend; train under another name"):
        config = open_experiment("both", oof).config
        create_experiment(config, lab / "input", oof)


def test_too_few_probabilities_are_an_error(lab: Path, tmp_path: Path) -> None:
    shutil.copytree(lab / "oof", tmp_path / "oof")
    path = tmp_path / "oof/things/fold_2/oof_probs.npy"
    np.save(path, np.load(path)[:-1])
    pair = [open_experiment(name, tmp_path / "oof") for name in ("walls", "things")]
    with pytest.raises(UserError, match=r"fold_2/oof_probs\.npy: .* entries for .* images"):
        blend(pair, tmp_path / "oof/new")


def test_the_command_prints_what_it_chose(lab: Path, capsys) -> None:
    script.main(["walls", "things", "--oof", str(lab / "oof")])
    out = capsys.readouterr().out
    assert "used: equal weights, as fitted ones are not better beyond the interval" in out
    assert "gain over " in out and "result: " in out.splitlines()[-1]
    again = json.loads((lab / "oof/blend_walls_things/blend.json").read_text())
    script.main(["walls", "things", "--oof", str(lab / "oof")])  # The same, in the same place.
    assert json.loads((lab / "oof/blend_walls_things/blend.json").read_text()) == again
