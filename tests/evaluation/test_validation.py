"""Scores of training frames, image by image, at the size that each has on the disk."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nyuseg.config.loading import parse_config
from nyuseg.config.schema import Config
from nyuseg.data.depth import linear_depth
from nyuseg.data.frames import FrameFolder, frame_path, read_depth, read_label
from nyuseg.evaluation.metrics import confusion_matrix, summarize
from nyuseg.evaluation.validation import validate
from nyuseg.inference import predictor as predicting
from nyuseg.inference.ensemble import Ensemble
from nyuseg.inference.grid import from_grid, regrid
from nyuseg.inference.predictor import Predictor
from nyuseg.models.normalisation import resolve_normalisation

CPU = torch.device("cpu")
SIZES = [(32, 64), (20, 50), (41, 37), (64, 40), (9, 90)]


def configure(size: tuple[int, int], depth_head: bool) -> Config:
    values = {"data": {"size": size}, "model": {"depth_head": depth_head}}
    compute = {"precision": "fp32", "workers": 0, "predict_batch_size": 2}
    given = parse_config({"name": "x", **values, "compute": compute}, "test")
    return resolve_normalisation(given)


class Lopsided(nn.Module):
    """Logits depend on the pixel and on where it lies, so that no two images are answered alike."""

    def __init__(self, seed: int, depth_head: bool = False) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.mix = torch.randn(13, 4, generator=generator)
        self.depth_head = depth_head

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        cells = torch.nn.functional.avg_pool2d(image, 4)
        place = torch.linspace(0, 3, cells.shape[-1]) * torch.arange(13)[:, None, None] / 13
        logits = torch.einsum("kc,nchw->nkhw", self.mix, cells) + place
        depth = cells[:, 3:].sigmoid()
        return {"logits": logits, "depth": depth} if self.depth_head else {"logits": logits}


def test_each_image_is_counted_by_itself(tiny_folder, tmp_path: Path) -> None:
    ids = tiny_folder(tmp_path, SIZES)[::-1]
    source = FrameFolder(tmp_path, "train")
    predictor = Predictor([Ensemble([Lopsided(4)], configure((32, 64), False), CPU)])
    found = validate(predictor, source, ids)
    expected = [
        confusion_matrix(
            read_label(frame_path(tmp_path, "train", "label", prediction.id)), prediction.mask
        )
        for prediction in predictor.predict(source, ids)
    ]
    assert found["confusions"].shape == (5, 13, 13)
    assert (found["confusions"] == np.stack(expected)).all()
    assert (found["confusion"] == np.sum(expected, axis=0)).all()
    assert found["miou"] == summarize(np.sum(expected, axis=0))["miou"]
    assert found["depth"] is None


def test_experiments_of_different_input_sizes_are_scored_together(
    tiny_folder, tmp_path: Path
) -> None:
    """Predictions lie on the larger grid, whoever's configuration is the Predictor's."""
    ids, source = tiny_folder(tmp_path, SIZES), FrameFolder(tmp_path, "train")
    small, large = (48, 32), (64, 96)
    # The first one, whose configuration it is, has no depth head.
    one = Ensemble([Lopsided(4)], configure(small, False), CPU, weight=0.7)
    two = Ensemble([Lopsided(5, True)], configure(large, True), CPU, weight=0.3)
    found = validate(Predictor([one, two]), source, ids)
    alone = [Predictor([ensemble]).predict(source, ids) for ensemble in (one, two)]
    entropies, errors = [], []
    for number, (a, b) in enumerate(zip(*alone, strict=True)):
        grid = 0.7 * regrid(a.probabilities, a.size, small, large) + 0.3 * b.probabilities
        probabilities = from_grid(grid, a.size, large).numpy()
        label = read_label(frame_path(tmp_path, "train", "label", a.id))
        confusion = confusion_matrix(label, probabilities.argmax(0).astype(np.uint8))
        assert np.abs(found["confusions"][number] - confusion).sum() <= 2  # Ties of float32.
        y, x = np.nonzero(label != 255)
        entropies.append(-np.log(probabilities[label[y, x], y, x]).mean())
        truth = read_depth(frame_path(tmp_path, "train", "depth", a.id))
        off = np.abs(from_grid(b.depth, b.size, large)[0].numpy() - linear_depth(truth))
        errors.append(off[truth > 0].mean())
    assert found["segmentation"] == pytest.approx(np.mean(entropies), rel=1e-5)
    assert found["depth"] == pytest.approx(np.mean(errors), rel=1e-5)


def test_no_mask_is_made_to_be_scored(tiny_folder, tmp_path: Path, monkeypatch) -> None:
    ids = tiny_folder(tmp_path, SIZES)
    monkeypatch.setattr(predicting, "to_mask", lambda *_: pytest.fail("a mask was made"))
    predictor = Predictor([Ensemble([Lopsided(4)], configure((32, 64), False), CPU)])
    validate(predictor, FrameFolder(tmp_path, "train"), ids)
