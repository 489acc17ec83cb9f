"""Test predictions without a truth: how sure they are, and where the folds disagree."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nyuseg.config.values import STRIDE
from nyuseg.data.classes import CLASS_NAMES, NUM_CLASSES
from nyuseg.data.fold_names import parse_folds
from nyuseg.data.frames import FrameFolder, stored_kinds
from nyuseg.dataloading.dataset import read_frame
from nyuseg.dataloading.letterbox import content_size
from nyuseg.experiment.folder import Experiment
from nyuseg.inference.ensemble import Ensemble
from nyuseg.inference.grid import to_mask
from nyuseg.inference.loading import load_predictor
from nyuseg.inference.predictor import Prediction, Predictor
from nyuseg.report.charts import share_chart
from nyuseg.report.gather import write_frame
from nyuseg.report.pages import MARKER, Pages
from nyuseg.report.pixels import at_cells, likeliest_classes
from nyuseg.submission.manifest import Manifest
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import atomic_folder, file_names
from nyuseg.utils.locks import only_writer
from nyuseg.utils.progress import progress

FIRST = 12  # Images to look at first.
DOUBT = 60  # Per cent below which a cell counts as unsure.


def write_submission_report(
    name: str,
    experiment: Experiment,
    manifest: Manifest,
    root: Path,
    folder: Path,
    devices: torch.device | Sequence[torch.device],
) -> None:
    """Write the report of a submission, `name`, of the test images in root/test; see Submitted.

    Raises UserError as Submitted does, and without Plotly.
    """
    notices = [f"{experiment.config.name}: {experiment.notice}"] if experiment.notice else []
    pages = Pages([name], notices)
    submitted = Submitted(experiment, manifest, root, devices)
    pixels = np.array([manifest.class_pixels[name] for name in CLASS_NAMES])
    charts = [share_chart(pixels, _training_pixels(experiment))]
    with only_writer(folder), atomic_folder(folder, MARKER) as inside:
        rows = list(submitted.run(inside))
        context = {
            "images": len(rows),
            "networks": len(submitted.predictor.ensembles),
            "views": len(manifest.views),
            "sure": np.mean([row["scores"][0]["sure"] for row in rows]),
            "differing": np.mean([row["differing"] for row in rows]),
            "cv": manifest.cv.miou if manifest.cv else None,
            "first": sorted(rows, key=lambda row: -row["differing"])[:FIRST],
        }
        facts = {"truth": False, "networks": submitted.folds}
        pages.write(inside, "submission.html", context, charts, rows, **facts)


def _training_pixels(experiment: Experiment) -> np.ndarray | None:
    """Pixels of each class in the training labels, int64 [13]; None where they are not at hand."""
    frames, total = FrameFolder(experiment.input, "train"), np.zeros(256, np.int64)
    if not (experiment.input / "train").is_dir():
        return None
    for image_id in experiment.table["image_id"]:
        total += np.bincount(frames.read(image_id, ("label",))["label"].ravel(), minlength=256)
    return total[:NUM_CLASSES]


class Submitted:
    """Predicts the images of a submission once more, with each network that it averages alone."""

    def __init__(
        self,
        experiment: Experiment,
        manifest: Manifest,
        root: Path,
        devices: torch.device | Sequence[torch.device],
    ) -> None:
        """Raises UserError when the networks are not those that the submission was made of."""
        self.ids, self.data = manifest.ids, experiment.config.data
        self.frames, self.kinds = FrameFolder(root, "test"), stored_kinds(root, "test")
        self.files = file_names(manifest.ids)
        folds, tta = list(manifest.folds), len(manifest.views) > 1
        ensembles: list[Ensemble] = []
        for fold in parse_folds(",".join(folds), experiment.config.folds):
            predictor, hashes = load_predictor(experiment, [fold], devices, tta)
            if hashes[str(fold)] != manifest.folds[str(fold)]:
                raise UserError(
                    f"fold {fold} of {experiment.folder} was trained again since the submission "
                    "was written; run infer.py again"
                )
            if predictor.view_names != manifest.views:
                raise UserError(
                    f"the submission was made with the views {', '.join(manifest.views)}; give "
                    "them by --set tta.views=..., as to infer.py"
                )
            ensembles += predictor.ensembles
        self.folds, self.members = len(folds), len(ensembles) // len(folds)
        self.predictor = Predictor(ensembles, experiment.config)

    def run(self, folder: Path) -> Iterator[dict[str, Any]]:
        """The row of each image in the browser's list; writes below a folder what is shown."""
        with closing(self.predictor.predict_each(self.frames, self.ids)) as found:
            for each in progress(found, "report", len(self.ids)):
                yield self._frame(folder, each)

    def _frame(self, folder: Path, each: Sequence[Prediction]) -> dict[str, Any]:
        first = each[0]
        frame = read_frame(self.frames, first.id, self.kinds, self.data)
        grids = self._by_fold([one.probabilities.cpu() for one in each])
        mean = grids.mean(0)
        mask = to_mask(mean, first.size, first.input_size)
        cells = [n // STRIDE for n in content_size(first.size, first.input_size)]
        inside = (..., slice(cells[0]), slice(cells[1]))
        classes, percent = likeliest_classes(mean[inside].numpy())
        others = (grids[inside].argmax(1) != mean[inside].argmax(0)).sum(0)
        differing = others.to(torch.uint8).numpy()
        names = (("mask0", mask), ("classes0", classes), ("percent0", percent))
        arrays = [*names, ("differing", differing)]
        if "depth" in frame:
            arrays.append(("depth", at_cells(frame["depth"], differing.shape)))
        file = self.files[first.id]
        write_frame(folder, file, frame["image"], mask, arrays)
        pixels = np.bincount(mask.ravel(), minlength=NUM_CLASSES)
        scores = {
            "sure": float(percent[0].mean() / 100),
            "unsure": float((percent[0] < DOUBT).mean()),
            "pairs": [[-1, k, int(count)] for k, count in enumerate(pixels) if count],
        }
        row = {"id": first.id, "file": file, "scene": "", "scores": [scores]}
        return {**row, "differing": float(differing.mean() / self.folds)}

    def _by_fold(self, grids: Sequence[torch.Tensor]) -> torch.Tensor:
        """Each fold's probabilities, [folds,13,h,w]; of a blend its members' weighted mean."""
        weights = torch.tensor([one.weight for one in self.predictor.ensembles[: self.members]])
        members = torch.stack(list(grids)).view(self.folds, self.members, *grids[0].shape)
        return torch.einsum("m,fmchw->fchw", weights / weights.sum(), members)
