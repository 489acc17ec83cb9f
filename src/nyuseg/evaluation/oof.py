"""Out-of-fold predictions: written by each fold, pooled and re-scored from the files."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nyuseg.data.classes import CLASS_NAMES
from nyuseg.data.depth import DEPTH_MAX, DEPTH_MIN
from nyuseg.data.frames import FrameFolder, frame_path, read_label, write_png
from nyuseg.dataloading.dataset import read_frame
from nyuseg.evaluation.checkpoint_scores import over_last, read_confusions
from nyuseg.evaluation.metrics import confusion_matrix, summarize
from nyuseg.evaluation.optimism import optimism
from nyuseg.evaluation.tables import cv_table
from nyuseg.evaluation.validation import depth_error
from nyuseg.experiment.folder import Experiment
from nyuseg.experiment.records import (
    CheckpointScores,
    CrossValidation,
    FoldRecord,
    FoldScores,
)
from nyuseg.experiment.training_data import require_same_data, training_frames
from nyuseg.inference.ensemble import Ensemble
from nyuseg.inference.grid import from_grid
from nyuseg.inference.predictor import Predictor
from nyuseg.models.device import environment
from nyuseg.models.release import load_release
from nyuseg.utils.arrays import ArrayFile, map_array, read_entries
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import atomic_path, remove_partial, write_text
from nyuseg.utils.locks import only_writer
from nyuseg.utils.prefetch import in_order
from nyuseg.utils.progress import progress

THREADS = 4  # That decode masks and labels.


def write_oof(experiment: Experiment, fold: int, device: torch.device) -> None:
    """Predict the images that a fold did not train on, with its release weights, one view.

    Writes masks/<id>.png (uint8, native size), the probabilities and, with a depth head, the depth
    on the padded grid, their ids and, last of all, what marks the fold as finished: see FoldFiles.
    """
    config, files = experiment.config, experiment.fold_files(fold)
    model, record = load_release(files, config.model, config.data)
    ids = experiment.ids(fold, held_out=True)
    if record.valid_ids != ids:
        raise UserError(f"{files.weights_record}: validated on other images than fold {fold}")
    source = training_frames(experiment)
    predictor = Predictor([Ensemble([model], config, device)])
    remove_partial(files.folder)
    remove_partial(
        experiment.folder / "masks", {experiment.mask_path(image_id).name for image_id in ids}
    )
    with ExitStack() as stack:
        paths = {"probabilities": files.probabilities, "depth": files.depth}
        grids = {
            kind: stack.enter_context(_array_file(paths[kind], len(ids)))
            for kind in ("probabilities", "depth")[: 1 + config.model.depth_head]
        }
        predictions = predictor.predict(source, ids, masks=True)
        for prediction in progress(predictions, f"fold {fold} out-of-fold", len(ids)):
            write_png(experiment.mask_path(prediction.id), prediction.mask)
            for kind, file in grids.items():
                file.add(prediction.id, getattr(prediction, kind).cpu().numpy())
    files.write_ids(ids)
    record.of_fold.write(files.finished)


@contextmanager
def _array_file(path: Path, count: int) -> Iterator[ArrayFile]:
    """A float16 file that grows image by image and appears when it is whole."""
    with atomic_path(path) as temporary, ArrayFile(temporary, count, np.float16) as file:
        yield file


def pool(experiment: Experiment, device: torch.device) -> CrossValidation:
    """Score all out-of-fold masks from their files and write oof/<exp>/cv.json.

    One confusion matrix over all pixels that are not void. Raises UserError, naming it, for a
    missing fold, an image predicted twice or not at all, or a missing mask.
    """
    check_pooling(experiment)
    count = experiment.config.folds.count
    confusions, folds = image_confusions(experiment), experiment.table["fold"].to_numpy()
    depth_errors = [error for fold in range(count) for error in _depth_errors(experiment, fold)]
    metres = float(np.mean(depth_errors)) * (DEPTH_MAX - DEPTH_MIN) if depth_errors else None
    kinds, halves = read_confusions(experiment)
    result = CrossValidation(
        **common_scores(experiment, confusions),
        predicts=experiment.config.predict.checkpoint,
        depth_mae_m=metres,
        checkpoints={
            kind: CheckpointScores(
                **pooled_scores(found.sum(0)), over_last=over_last(kinds, kind, experiment)
            )
            for kind, found in kinds.items()
        },
        optimism=optimism(halves),
        folds=[
            _fold_scores(experiment, fold, confusions[folds == fold].sum(0))
            for fold in range(count)
        ],
        seed=experiment.config.seed,
        environment=environment(device, experiment.config.compute.precision),
    )
    with only_writer(experiment.folder, wait=True):
        remove_partial(experiment.folder)
        result.write(experiment.scores_path)
        write_text(experiment.folder / "report.txt", cv_table(result) + "\n")
    return result


def image_confusions(experiment: Experiment) -> np.ndarray:
    """Confusion matrix of each image's out-of-fold mask, from its file: int64 [n,13,13].

    In the order of the fold table. Raises UserError, naming it, for a file that is missing.
    """

    def confusion(image_id: str) -> np.ndarray:
        label = read_label(frame_path(experiment.input, "train", "label", image_id))
        return confusion_matrix(label, read_label(experiment.mask_path(image_id)))

    require_same_data(experiment)
    ids = experiment.table["image_id"]
    found = in_order(confusion, ids, THREADS, 2 * THREADS)
    return np.stack(list(progress(found, f"{experiment.config.name}: masks", len(ids))))


def check_pooling(experiment: Experiment) -> None:
    """Raise UserError unless every fold is finished and every image predicted exactly once."""
    count = experiment.config.folds.count
    missing = [str(fold) for fold in range(count) if not experiment.is_finished(fold)]
    if missing:
        raise UserError(
            f"{experiment.folder}: fold {', '.join(missing)} not finished; run "
            f"'python src/train_folds.py --fold {','.join(missing)}' with the same options"
        )
    seen = Counter(i for fold in range(count) for i in experiment.fold_files(fold).read_ids())
    twice = sorted(image_id for image_id, times in seen.items() if times > 1)
    wanted = set(experiment.table["image_id"])
    for what, ids in (
        ("predicted by two folds", twice),
        ("predicted by no fold", sorted(wanted - set(seen))),
        ("not in folds.csv", sorted(set(seen) - wanted)),
    ):
        if ids:
            raise UserError(f"{experiment.folder}: image {ids[0]} is {what} ({len(ids)} such)")


def common_scores(experiment: Experiment, confusions: np.ndarray) -> dict[str, Any]:
    """What records.CrossValidation says of an experiment and of a blend alike.

    confusions: int [n,13,13], of each image's out-of-fold mask.
    """
    pooled = confusions.sum(0)
    return {
        "experiment": experiment.config.name,
        "notice": experiment.notice,
        "images": len(experiment.table),
        **pooled_scores(pooled),
        "class_iou": dict(zip(CLASS_NAMES, summarize(pooled)["class_iou"], strict=True)),
    }


def pooled_scores(confusion: np.ndarray) -> dict[str, float | None]:
    """What records.Scores holds, of a confusion matrix int [13,13]."""
    scores = summarize(confusion)
    return {key: scores[key] for key in ("miou", "pixel_accuracy")}


def _fold_scores(experiment: Experiment, fold: int, confusion: np.ndarray) -> FoldScores:
    files = experiment.fold_files(fold)
    record = FoldRecord.read(files.finished)
    assert record.best and record.last  # As every fold has.
    best, last = (summarize(np.array(one.confusion)) for one in (record.best, record.last))
    return FoldScores(
        fold=fold,
        images=len(files.read_ids()),
        **pooled_scores(confusion),
        best_epoch=record.best.epoch,
        best_miou=best["miou"],
        last_miou=last["miou"],
        environment=record.environment,
    )


def _depth_errors(experiment: Experiment, fold: int) -> list[float]:
    """validation.depth_error of each image that has a depth; none without a depth head."""
    files = experiment.fold_files(fold)
    path = files.depth
    if not path.exists():
        return []
    errors = []
    ids = files.read_ids()
    if len(map_array(path)) != len(ids):
        raise UserError(f"{path}: {len(map_array(path))} depth maps for {len(ids)} images")
    source, data = FrameFolder(experiment.input, "train"), experiment.config.data
    for grid, image_id in zip(read_entries(path), ids, strict=True):
        truth = read_frame(source, image_id, ("depth",), data)["depth"]
        guess = from_grid(torch.from_numpy(grid.astype(np.float32)), truth.shape, data.size)
        error, has_depth = depth_error(guess[0], truth)
        errors += [float(error)] * bool(has_depth)
    return errors
