"""Which test-time views are worth their time: measured on the out-of-fold images."""

from collections.abc import Iterator, Sequence
from itertools import combinations
from time import perf_counter
from typing import Any

import numpy as np
import torch

from nyuseg.config.sections import View
from nyuseg.data.frames import frame_path, read_label
from nyuseg.dataloading.dataset import PredictionSet
from nyuseg.dataloading.inputs import network_images
from nyuseg.dataloading.loader import collate
from nyuseg.evaluation.bootstrap import difference
from nyuseg.evaluation.metrics import confusion_matrix, mean_iou
from nyuseg.evaluation.oof import check_pooling
from nyuseg.evaluation.report import difference_text
from nyuseg.experiment.folder import Experiment
from nyuseg.experiment.records import Estimate
from nyuseg.experiment.training_data import require_same_data, training_frames
from nyuseg.inference.ensemble import Ensemble
from nyuseg.inference.grid import to_mask
from nyuseg.inference.probe import require_views
from nyuseg.models.release import load_release
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import write_json
from nyuseg.utils.locks import only_writer
from nyuseg.utils.progress import progress

# Searched by default, besides 1.
SCALES = (0.75, 1.25)


def candidate_sets(scales: Sequence[float]) -> list[list[View]]:
    """Every choice of scales besides 1, each without and with the mirror images of all."""
    sets = []
    for count in range(len(scales) + 1):
        for chosen in combinations(sorted(scales), count):
            plain = [View(scale=scale) for scale in (1, *chosen)]
            mirrored = [View(scale=view.scale, flip=True) for view in plain]
            sets += [plain, [view for pair in zip(plain, mirrored, strict=True) for view in pair]]
    return sets


def search(experiment: Experiment, scales: Sequence[float], device: torch.device) -> dict[str, Any]:
    """Score each set of views out-of-fold; writes tta.json beside cv.json and returns it.

    Each image is predicted by the network that did not train on it, in every view once. `rows` are
    sorted by cost, `advised` is the cheapest set that the best one does not beat beyond the
    interval, `nested` what the best set gains over the identity on rooms that did not choose it.
    Raises UserError for a blend, and when a fold is missing.
    """
    if experiment.members:
        raise UserError(f"{experiment.folder}: a blend; search the views of its members")
    check_pooling(experiment)
    require_same_data(experiment)
    sets = candidate_sets(scales)
    require_views(experiment.config, sets[-1])
    confusions, seconds = _score(experiment, sets, device)
    scenes, folds = experiment.table["scene"], experiment.table["fold"].to_numpy()
    rows = [
        _row(views, found, confusions[0], scenes, seconds)
        for views, found in zip(sets, confusions, strict=True)
    ]
    best = int(np.argmax([row["miou"] for row in rows]))
    equal = [
        row
        for row, found in zip(rows, confusions, strict=True)
        if not difference(confusions[best], found, scenes).is_above
    ]
    result = {
        "experiment": experiment.config.name,
        "notice": experiment.notice,
        "rows": sorted(rows, key=lambda row: row["seconds"]),
        "best": rows[best],
        "advised": min(equal, key=lambda row: row["seconds"]),
        "nested": difference(_nested(confusions, folds), confusions[0], scenes).model_dump(),
    }
    with only_writer(experiment.folder, wait=True):
        write_json(experiment.folder / "tta.json", result)
    return result


def _row(
    views: list[View],
    confusions: np.ndarray,
    identity: np.ndarray,
    scenes: Sequence[str],
    seconds: dict[str, float],
) -> dict[str, Any]:
    """What is known of a set: its mIoU, what it gains over the identity, seconds an image."""
    return {
        "views": [view.name for view in views],
        "miou": float(mean_iou(confusions.sum(0))),
        "gain": difference(confusions, identity, scenes).model_dump(),
        "seconds": sum(seconds[view.name] for view in views),
        "setting": f"tta.views=[{', '.join(_flow(view) for view in views)}]",
    }


def _nested(confusions: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Each image's confusion matrix in the set that is best on the other folds: [n,13,13]."""
    chosen = np.empty_like(confusions[0])
    for fold in np.unique(folds):
        inside = folds == fold
        best = np.argmax(mean_iou(confusions[:, ~inside].sum(1)))
        chosen[inside] = confusions[best, inside]
    return chosen


def _score(
    experiment: Experiment, sets: list[list[View]], device: torch.device
) -> tuple[np.ndarray, dict[str, float]]:
    """Confusion matrices of every set and image, [S,n,13,13], and seconds an image by view."""
    order = {image_id: index for index, image_id in enumerate(experiment.table["image_id"])}
    confusions = np.zeros((len(sets), len(order), 13, 13), np.int64)
    seconds: dict[str, list[float]] = {}
    answers = (
        answer
        for fold in range(experiment.config.folds.count)
        for answer in _fold_answers(experiment, fold, sets[-1], device, seconds)
    )
    for image_id, native, grids in progress(answers, "views", len(order)):
        label = read_label(frame_path(experiment.input, "train", "label", image_id))
        for number, views in enumerate(sets):
            mean = sum(grids[view.name] for view in views) / len(views)
            mask = to_mask(mean, native, experiment.config.data.size)
            confusions[number, order[image_id]] = confusion_matrix(label, mask)
    # The median: the first calls also choose algorithms.
    return confusions, {name: float(np.median(times)) for name, times in seconds.items()}


def _fold_answers(
    experiment: Experiment,
    fold: int,
    views: list[View],
    device: torch.device,
    seconds: dict[str, list[float]],
) -> Iterator[tuple[str, tuple[int, int], dict[str, torch.Tensor]]]:
    """Id, native size and, by view, probabilities [13,h,w] of a fold's held-out images."""
    config = experiment.config
    model, _ = load_release(experiment.fold_files(fold), config.model, config.data)
    ensembles = {}
    for view in views:
        alone = config.tta.model_copy(update={"views": (view,)})
        one = config.model_copy(update={"tta": alone})
        ensembles[view.name] = Ensemble([model], one, device, tta=True)
    ids = experiment.ids(fold, held_out=True)
    frames = PredictionSet(training_frames(experiment), ids, config.data)
    for index, image_id in enumerate(ids):
        batch = collate([frames[index]])
        images = network_images(batch, config.data, device)
        grids = {}
        for name, ensemble in ensembles.items():
            begun = perf_counter()
            grids[name] = ensemble(images)[0][0]
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.setdefault(name, []).append(perf_counter() - begun)
        yield image_id, tuple(batch["size"][0]), grids


def _short(names: list[str]) -> str:
    """['identity', 'scale_0.75_horizontal_flip'] to '1, 0.75 flip'."""
    shown = [name.replace("scale_", "").replace("_horizontal_flip", " flip") for name in names]
    return ", ".join({"identity": "1", "horizontal_flip": "1 flip"}.get(n, n) for n in shown)


def _flow(view: View) -> str:
    parts = [f"scale: {view.scale:g}"] * (view.scale != 1) + ["flip: true"] * view.flip
    return "{" + ", ".join(parts) + "}"


def view_table(result: dict[str, Any]) -> str:
    """What tta.json says, as text."""
    lines = [f"{'mIoU':>8}{'over identity, 95 %':>28}{'s/image':>9}  scales and flips"]
    for row in result["rows"]:
        gain, marks = difference_text(Estimate(**row["gain"])), " *" * (row == result["advised"])
        views = _short(row["views"]) + marks
        lines.append(f"{row['miou']:8.4f}{gain:>28}{row['seconds']:9.3f}  {views}")
    lines += [
        "",
        f"the best set gains {difference_text(Estimate(**result['nested']))}"
        " on rooms that did not choose it",
        "* the cheapest set that the best one does not beat beyond the interval:",
        f"  --set '{result['advised']['setting']}'",
    ]
    return "\n".join(lines)
