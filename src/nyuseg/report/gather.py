"""One pass over the out-of-fold predictions: what the report measures, and what a browser shows."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nyuseg.config.values import STRIDE
from nyuseg.data.classes import VOID
from nyuseg.data.frames import FrameFolder, read_label, stored_kinds
from nyuseg.dataloading.dataset import read_frame
from nyuseg.dataloading.letterbox import content_size
from nyuseg.ensembling.stored import StoredGrids
from nyuseg.evaluation.metrics import summarize
from nyuseg.experiment.folder import Experiment
from nyuseg.report.partitions import (
    BOUNDARY,
    DEPTH,
    REGION,
    boundary_distance,
    metres,
    part_confusions,
    region_share,
)
from nyuseg.report.pixels import at_cells, image_file, likeliest_classes, script, thumbnail
from nyuseg.utils.files import file_names, write_bytes, write_text
from nyuseg.utils.prefetch import in_order
from nyuseg.utils.progress import progress

THREADS = 2  # OpenCV, NumPy and zlib leave Python's lock to others.
BINS = 20  # Of the calibration, each 5 % wide.
SURE = 80  # Per cent from which on a wrong cell is a confident error.
PARTITIONS = (DEPTH, BOUNDARY, REGION)


class Measures:
    """Sums over the images of an experiment.

    parts: by a partition's title, int64 [parts,13,13]. calibration: of the cells with a label, by
    the probability of the likeliest class in BINS bins: their count, the right ones among them,
    the sum of the probabilities; float [3,BINS].
    """

    def __init__(self) -> None:
        self.parts = {
            one.title: np.zeros((len(one.all_names), 13, 13), np.int64) for one in PARTITIONS
        }
        self.calibration = np.zeros((3, BINS))

    def add(self, other: "Measures") -> None:
        """Add those of another image."""
        for title, counts in other.parts.items():
            self.parts[title] += counts
        self.calibration += other.calibration


class StoredPredictions:
    """What is on disk of an experiment's out-of-fold predictions."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        parts = experiment.parts
        self.grids = StoredGrids([part.experiment for part in parts])
        total = sum(part.weight for part in parts)
        self.weights = [part.weight / total for part in parts]
        self.folds = experiment.table.set_index("image_id")["fold"].to_dict()

    def mask(self, image_id: str) -> np.ndarray:
        """The predicted mask, uint8 [H,W]."""
        return read_label(self.experiment.mask_path(image_id))

    def probabilities(self, image_id: str, native: tuple[int, int]) -> np.ndarray:
        """Of the frame's part of the grid, without padding: float32 [13,h,w]."""
        grids = self.grids.read(image_id, native).numpy()
        height, width = (n // STRIDE for n in content_size(native, self.grids.size))
        return np.tensordot(self.weights, grids[..., :height, :width], 1).astype(np.float32)


@dataclass(frozen=True)
class Seen:
    """What is known of a frame: its row in the browser's list, and its measures by experiment."""

    row: dict[str, Any]
    measures: list[Measures]


class Gatherer:
    """Reads each frame once; writes what a browser shows of it below a folder, see write_frame.

    The file names are those of the masks.
    """

    def __init__(self, experiments: Sequence[Experiment], folder: Path) -> None:
        self.sources = [StoredPredictions(experiment) for experiment in experiments]
        base = experiments[0]
        self.data, self.folder = base.config.data, folder
        self.frames = FrameFolder(base.input, "train")
        self.kinds = [*stored_kinds(base.input, "train"), "label"]
        self.files = file_names(base.table["image_id"])
        self.scenes = base.table.set_index("image_id")["scene"].to_dict()

    def run(self) -> Iterator[Seen]:
        """Each frame, in the order of the first experiment's table."""
        ids = list(self.files)
        # Closed at once: left by a signal, its threads would go on writing.
        with closing(in_order(self._frame, ids, THREADS, 2 * THREADS)) as found:
            yield from progress(found, "report", len(ids))

    def _frame(self, image_id: str) -> Seen:
        frame = read_frame(self.frames, image_id, self.kinds, self.data)
        truth, depth, file = frame["label"], frame.get("depth"), self.files[image_id]
        parts = _parts(truth, depth)
        arrays: list[tuple[str, np.ndarray]] = [("truth", truth)]
        scores, measures, masks = [], [], []
        for number, source in enumerate(self.sources):
            mask = source.mask(image_id)
            probabilities = source.probabilities(image_id, truth.shape)
            classes, percent = likeliest_classes(probabilities)
            for name, array in (("mask", mask), ("classes", classes), ("percent", percent)):
                arrays.append((f"{name}{number}", array))
            cells = at_cells(truth, classes.shape[1:])
            measures.append(_measure(truth, mask, parts, cells, probabilities))
            confusion = measures[-1].parts[DEPTH.title].sum(0)  # As that of each partition.
            scores.append({"fold": int(source.folds[image_id]), **_scores(confusion)})
            sure = (cells != VOID) & (classes[0] != cells) & (percent[0] >= SURE)
            scores[-1]["sure"] = float(sure.mean())
            masks.append(mask)
        if depth is not None:
            arrays.append(("depth", at_cells(depth, cells.shape)))
        write_frame(self.folder, file, frame["image"], masks[0], arrays)
        row: dict[str, Any] = {
            "id": image_id,
            "file": file,
            "scene": str(self.scenes[image_id]),
            "scores": scores,
        }
        if len(masks) > 1:
            row["differing"] = float(np.mean(masks[0] != masks[1]))
        return Seen(row, measures)


def write_frame(
    folder: Path,
    file: str,
    image: np.ndarray,
    mask: np.ndarray,
    arrays: Sequence[tuple[str, np.ndarray]],
) -> None:
    """Write what a browser shows of a frame: frames/<file>.webp and .js, thumbs/<file>.webp.

    image: uint8 [H,W,3]; mask: uint8 [H,W], which colours the thumbnail; arrays: see pixels.script.
    """
    for name in ("frames", "thumbs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    write_bytes(folder / f"thumbs/{file}.webp", thumbnail(image, mask))
    write_bytes(folder / f"frames/{file}.webp", image_file(image))
    text = script("frameLoaded", {"file": file, "size": mask.shape}, arrays)
    write_text(folder / f"frames/{file}.js", text)


def _parts(truth: np.ndarray, depth: np.ndarray | None) -> dict[str, np.ndarray]:
    """Which part of each partition each pixel is in, by the partition's title."""
    values = {BOUNDARY: boundary_distance(truth), REGION: region_share(truth)}
    values[DEPTH] = metres(np.zeros(truth.shape) if depth is None else depth)
    return {one.title: one.parts(found) for one, found in values.items()}


def _measure(
    truth: np.ndarray,
    mask: np.ndarray,
    parts: dict[str, np.ndarray],
    cells: np.ndarray,
    probabilities: np.ndarray,
) -> Measures:
    """cells: the truth at the middle of each cell, [h,w]; probabilities: [13,h,w]."""
    found = Measures()
    for one in PARTITIONS:
        count = len(one.all_names)
        found.parts[one.title] = part_confusions(truth, mask, parts[one.title], count)
    valid = cells != VOID
    top = probabilities.max(0)[valid]
    right = (probabilities.argmax(0) == cells)[valid]
    bins = np.minimum((top * BINS).astype(int), BINS - 1)
    for place, weights in enumerate((None, right, top)):
        found.calibration[place] = np.bincount(bins, weights, BINS)
    return found


def _scores(confusion: np.ndarray) -> dict[str, Any]:
    """mIoU, pixel accuracy, and the confusions as [true class, predicted class, pixels]."""
    scores = summarize(confusion)
    pairs = [[int(t), int(p), int(confusion[t, p])] for t, p in np.argwhere(confusion)]
    return {"miou": scores["miou"], "accuracy": scores["pixel_accuracy"], "pairs": pairs}
