"""Training of several folds: each fitted and predicted out-of-fold, all pooled at the end."""

from collections.abc import Sequence
from pathlib import Path

from nyuseg.config.schema import Config
from nyuseg.data.depth_check import sample_lines
from nyuseg.evaluation.oof import pool, write_oof
from nyuseg.evaluation.report import cv_table
from nyuseg.evaluation.validation import require_labels
from nyuseg.experiment.creation import create_experiment
from nyuseg.experiment.folder import Experiment
from nyuseg.models.device import environment, pick_device
from nyuseg.training.disk_space import require_space
from nyuseg.training.fold import FoldTrainer, training_ids


def train(config: Config, folds: list[int], root: Path, oof: Path, fresh: bool) -> None:
    """Train the folds that are not finished; pool and score once all of the experiment are.

    root: the data's folder; oof: that of all experiments; fresh: move an earlier run aside. Raises
    UserError for whatever is wrong, as far as possible before the first step.
    """
    device = pick_device()
    experiment = create_experiment(config, root, oof, fresh)
    facts = environment(device, config.compute.precision)
    print(f"{config.name}: {facts['device']}, {facts['precision']}, data {root}")
    if experiment.notice:
        print(f"!! {experiment.notice} !!")
    todo = [fold for fold in folds if not experiment.is_finished(fold)]
    check_folds(experiment, todo)
    require_space(experiment, todo)
    for fold in folds:
        if experiment.is_finished(fold):
            print(f"fold {fold}: already finished, skipped")
            continue
        with experiment.lock(fold):
            FoldTrainer(experiment, fold, device).run()
            write_oof(experiment, fold, device)
    unfinished = [k for k in range(config.folds.count) if not experiment.is_finished(k)]
    if unfinished:
        print(f"out-of-fold scores follow when fold {unfinished} is finished: {experiment.folder}")
        return
    print("\n" + cv_table(pool(experiment, device)))
    print(f"\nresult: {experiment.scores_path}")


def check_folds(experiment: Experiment, folds: Sequence[int]) -> None:
    """Raise UserError for what one of the folds lacks, before the first of them is trained.

    Prints what the depth looks like.
    """
    for fold in folds:
        training_ids(experiment, fold)
    require_labels(experiment, folds)
    if folds and "depth" in experiment.config.training_kinds:
        ids = experiment.table["image_id"].tolist()
        for line in sample_lines(experiment.input, "train", ids, experiment.config.data):
            print(line, flush=True)
