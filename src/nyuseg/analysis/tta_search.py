"""Which test-time views are worth their time: measured on the out-of-fold images."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from threading import Lock
from time import perf_counter

import numpy as np
import torch
from torch import nn

from nyuseg.config.prediction import View
from nyuseg.config.schema import Config
from nyuseg.data.frames import frame_path, read_label
from nyuseg.dataloading.dataset import Source
from nyuseg.evaluation.bootstrap import difference
from nyuseg.evaluation.metrics import confusion_matrix, mean_iou
from nyuseg.evaluation.oof import check_pooling
from nyuseg.evaluation.tables import difference_text
from nyuseg.experiment.folder import Experiment
from nyuseg.experiment.records import ViewSearchRecord, ViewsRecord
from nyuseg.experiment.training_data import training_frames
from nyuseg.inference.ensemble import Answer, Ensemble, WeightedMean
from nyuseg.inference.predictor import Prediction, Predictor
from nyuseg.inference.probe import require_views
from nyuseg.models.release import load_release
from nyuseg.utils.errors import UserError
from nyuseg.utils.locks import only_writer
from nyuseg.utils.progress import progress


def candidate_sets(scales: Sequence[float]) -> list[list[View]]:
    """Every choice of scales besides 1, each without and with the mirror images of all."""
    sets = []
    for count in range(len(scales) + 1):
        for chosen in combinations(sorted(scales), count):
            plain = [View(scale=scale) for scale in (1, *chosen)]
            mirrored = [View(scale=view.scale, flip=True) for view in plain]
            sets += [plain, [view for pair in zip(plain, mirrored, strict=True) for view in pair]]
    return sets


def search(
    experiment: Experiment, scales: Sequence[float], device: torch.device
) -> ViewSearchRecord:
    """Score each set of views out-of-fold; writes tta.json beside cv.json and returns it.

    Each image is predicted by the network that did not train on it, in every view once. `rows` are
    sorted by cost, `advised` is the cheapest set that the best one does not beat beyond the
    interval, `nested` what the best set gains over the identity on rooms that did not choose it.
    Raises UserError for a blend, and when a fold is missing.
    """
    if experiment.members:
        raise UserError(f"{experiment.folder}: a blend; search the views of its members")
    check_pooling(experiment)
    source = training_frames(experiment)
    sets = candidate_sets(scales)
    require_views(experiment.config, sets[-1])
    confusions, seconds = _score(experiment, source, sets, device)
    scenes, folds = experiment.table["scene"], experiment.table["fold"].to_numpy()
    rows = [
        _row(views, found, confusions[0], scenes, seconds)
        for views, found in zip(sets, confusions, strict=True)
    ]
    best = int(np.argmax([row.miou for row in rows]))
    equal = [
        row
        for row, found in zip(rows, confusions, strict=True)
        if not difference(confusions[best], found, scenes).is_above
    ]
    result = ViewSearchRecord(
        experiment=experiment.config.name,
        notice=experiment.notice,
        rows=sorted(rows, key=lambda row: row.seconds),
        best=rows[best],
        advised=min(equal, key=lambda row: row.seconds),
        nested=difference(_nested(confusions, folds), confusions[0], scenes),
    )
    with only_writer(experiment.folder, wait=True):
        result.write(experiment.folder / "tta.json")
    return result


def _row(
    views: list[View],
    confusions: np.ndarray,
    identity: np.ndarray,
    scenes: Sequence[str],
    seconds: dict[str, float],
) -> ViewsRecord:
    return ViewsRecord(
        views=[view.name for view in views],
        miou=float(mean_iou(confusions.sum(0))),
        gain=difference(confusions, identity, scenes),
        seconds=sum(seconds[view.name] for view in views),
        setting=f"tta.views=[{', '.join(_flow(view) for view in views)}]",
    )


def _nested(confusions: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Each image's confusion matrix in the set that is best on the other folds: [n,13,13]."""
    chosen = np.empty_like(confusions[0])
    for fold in np.unique(folds):
        inside = folds == fold
        best = np.argmax(mean_iou(confusions[:, ~inside].sum(1)))
        chosen[inside] = confusions[best, inside]
    return chosen


class TimedView(Ensemble):
    """One view of one network; `seconds` holds how long an image took, batch by batch.

    alone: held while it works, so that nothing else takes the cores from what is timed.
    """

    def __init__(
        self, model: nn.Module, config: Config, device: torch.device, view: View, alone: Lock
    ) -> None:
        super().__init__([model], config, device)
        self.views, self.alone = (view,), alone
        self.seconds: list[float] = []

    def __call__(self, images: torch.Tensor, replica: int = 0) -> Answer:
        with self.alone:
            begun = perf_counter()
            answer = super().__call__(images, replica)
            if images.device.type == "cuda":
                torch.cuda.synchronize(images.device)
            self.seconds.append((perf_counter() - begun) / len(images))
        return answer


def _score(
    experiment: Experiment, source: Source, sets: list[list[View]], device: torch.device
) -> tuple[np.ndarray, dict[str, float]]:
    """Confusion matrices of every set and image, [S,n,13,13], and seconds an image by view."""
    order = {image_id: index for index, image_id in enumerate(experiment.table["image_id"])}
    confusions = np.zeros((len(sets), len(order), 13, 13), np.int64)
    seconds: dict[str, list[float]] = {view.name: [] for view in sets[-1]}
    alone = Lock()
    answers = (
        answer
        for fold in range(experiment.config.folds.count)
        for answer in _fold_answers(experiment, fold, source, sets[-1], device, alone, seconds)
    )
    for by_view in progress(answers, "views", len(order)):
        first = by_view["identity"]
        label = read_label(frame_path(experiment.input, "train", "label", first.id))
        with alone:
            for number, views in enumerate(sets):
                mean = WeightedMean()
                for view in views:
                    mean.add(by_view[view.name].probabilities, view.weight)
                mask = replace(first, probabilities=mean.value()).mask
                confusions[number, order[first.id]] = confusion_matrix(label, mask)
    # The median: the first calls also choose algorithms.
    return confusions, {name: float(np.median(times)) for name, times in seconds.items()}


def _fold_answers(
    experiment: Experiment,
    fold: int,
    source: Source,
    views: list[View],
    device: torch.device,
    alone: Lock,
    seconds: dict[str, list[float]],
) -> Iterator[dict[str, Prediction]]:
    """By view, the predictions of a fold's held-out images; adds to the seconds of each view."""
    config = experiment.config
    model, _ = load_release(experiment.fold_files(fold), config.model, config.data)
    ensembles = [TimedView(model, config, device, view, alone) for view in views]
    names = [view.name for view in views]
    ids = experiment.ids(fold, held_out=True)
    for predictions in Predictor(ensembles).predict_each(source, ids):
        yield dict(zip(names, predictions, strict=True))
    for name, ensemble in zip(names, ensembles, strict=True):
        seconds[name] += ensemble.seconds


def _short(names: list[str]) -> str:
    """['identity', 'scale_0.75_horizontal_flip'] to '1, 0.75 flip'."""
    shown = [name.replace("scale_", "").replace("_horizontal_flip", " flip") for name in names]
    return ", ".join({"identity": "1", "horizontal_flip": "1 flip"}.get(n, n) for n in shown)


def _flow(view: View) -> str:
    parts = [f"scale: {view.scale:g}"] * (view.scale != 1) + ["flip: true"] * view.flip
    return "{" + ", ".join(parts) + "}"


def view_table(result: ViewSearchRecord) -> str:
    """What tta.json says, as text."""
    lines = [f"{'mIoU':>8}{'over identity, 95 %':>28}{'s/image':>9}  scales and flips"]
    for row in result.rows:
        gain, marks = difference_text(row.gain), " *" * (row == result.advised)
        lines.append(f"{row.miou:8.4f}{gain:>28}{row.seconds:9.3f}  {_short(row.views)}{marks}")
    lines += [
        "",
        f"the best set gains {difference_text(result.nested)} on rooms that did not choose it",
        "* the cheapest set that the best one does not beat beyond the interval:",
        f"  --set '{result.advised.setting}'",
    ]
    return "\n".join(lines)
