"""Training of folds, each fitted and predicted out-of-fold, all pooled; then of networks on all."""

import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch

from nyuseg.config.schema import Config
from nyuseg.data.depth_check import sample_lines
from nyuseg.data.fold_names import FULL, Fold, is_full, uncovered
from nyuseg.evaluation.oof import pool, write_oof
from nyuseg.evaluation.tables import cv_table
from nyuseg.evaluation.validation import require_labels
from nyuseg.experiment.creation import create_experiment
from nyuseg.experiment.folder import Experiment, open_experiment
from nyuseg.experiment.training_data import training_ids
from nyuseg.models.device import environment, pick_device
from nyuseg.models.licences import licence_fault
from nyuseg.models.normalisation import normalisation_fault, resolve_normalisation
from nyuseg.models.release import check_release
from nyuseg.models.team import Team, join_team, team_device
from nyuseg.training.disk_space import require_space
from nyuseg.training.fold import FoldTrainer
from nyuseg.training.fold_process import Job
from nyuseg.training.full_fit import epochs_line, require_folds
from nyuseg.utils.errors import UserError

# Trains some folds, none of which is finished, on a device or several.
TrainEach = Callable[[Sequence[Job]], None]
Part = TypeVar("Part")


def train(
    configs: Sequence[Config],
    folds: list[Fold],
    root: Path,
    oof: Path,
    fresh: bool,
    train_each: TrainEach | None = None,
    at_once: int = 1,
    scored: bool = True,
) -> None:
    """Train the folds of experiments that are not finished; pool and score once all of one are.

    After them come networks on all images, which are in no score. configs: of one experiment or
    several, whose names differ; root: the data's folder; oof: that of all experiments; fresh: move
    an earlier run aside; train_each: other than one after the other in this process, and at_once,
    so many at a time; scored: whether to pool here. Raises UserError for whatever is wrong, as far
    as possible before the first step; what is wrong with one fold does not keep the others from
    being trained.
    """
    _require_sense(configs, folds, fresh)
    team = join_team()
    if team.size > 1:
        if train_each is not None:
            raise UserError(
                "--parallel and --ray: leave them out under torchrun, which trains one network by "
                "all"
            )
        for config in configs:
            _train_in_team(team, config, folds, root, oof, fresh)
        team.leave()
        return
    device = pick_device()
    resolved = [resolve_normalisation(config) for config in configs]
    experiments = [_begin(config, folds, root, oof, fresh, device) for config in resolved]
    _require_space(experiments, folds, at_once)
    if train_each is None:  # Each is scored before the next one begins.
        engine, named = partial(one_by_one, device=device), len(experiments) > 1
        parts = [[experiment] for experiment in experiments]
        labels = [experiment.config.name for experiment in experiments]
        _each(parts, labels, lambda part: _train_all(part, folds, engine, scored, named))
    else:
        _train_all(experiments, folds, train_each, scored, len(experiments) > 1)


def _require_sense(configs: Sequence[Config], folds: Sequence[Fold], fresh: bool) -> None:
    """Raise UserError for --fresh where it would move away more than is trained."""
    full = [fold for fold in folds if isinstance(fold, str)]
    if fresh and len(configs) > 1:
        raise UserError("--fresh: one configuration and seed at a time")
    if fresh and full and len(folds) - len(full) < configs[0].folds.count:
        raise UserError(f"--fresh begins all folds anew, too: use --fold all,{','.join(full)}")


def _train_all(
    experiments: Sequence[Experiment],
    folds: Sequence[Fold],
    train_each: TrainEach,
    scored: bool,
    named: bool,
) -> None:
    """Train what is left of experiments and score those that are whole, whatever the others do."""
    numbered = [fold for fold in folds if isinstance(fold, int)]
    full = [fold for fold in folds if isinstance(fold, str)]
    fault = None
    try:
        train_each(_unfinished(experiments, numbered, named))
    except UserError as error:
        fault = error
    for experiment in experiments if scored else ():
        fits = not (fault and _missing(experiment))
        if fits and (numbered or not experiment.scores_path.exists()):
            _score(experiment, pick_device())
    if fault:
        raise fault
    if full:
        for experiment in experiments:
            print(epochs_line(experiment))
        train_each(_unfinished(experiments, full, named))
        for experiment in experiments:
            print(
                f"{uncovered(full)}; predict with 'python src/infer.py --experiment "
                f"{experiment.config.name} --tta --fold {FULL}', or all,{FULL}"
            )


def _unfinished(experiments: Sequence[Experiment], folds: Sequence[Fold], named: bool) -> list[Job]:
    """What is left to train; a line about each fold that is not. named: see Job."""
    jobs = [Job(experiment, fold, named) for experiment in experiments for fold in folds]
    return [job for job in jobs if not job.is_finished()]


def _begin(
    config: Config, folds: list[Fold], root: Path, oof: Path, fresh: bool, device: torch.device
) -> Experiment:
    """The experiment, begun or gone on with, once all that its folds need was looked at."""
    experiment = create_experiment(config, root, oof, fresh)
    facts = environment(device, config.compute.precision)
    print(f"{config.name}: {facts['device']}, {facts['precision']}, data {root}")
    if experiment.notice:
        print(f"!! {experiment.notice} !!")
    for fault in (normalisation_fault(config), licence_fault(config.model)):
        if fault:
            print(f"warning: {fault}")
    todo = [fold for fold in folds if not experiment.is_finished(fold)]
    if any(map(is_full, todo)):
        require_folds(experiment, before=[fold for fold in folds if isinstance(fold, int)])
    check_folds(experiment, todo)
    return experiment


def _require_space(experiments: Sequence[Experiment], folds: Sequence[Fold], at_once: int) -> None:
    todo = [(one, [k for k in folds if not one.is_finished(k)]) for one in experiments]
    require_space(todo, at_once)


def _train_in_team(
    team: Team, config: Config, folds: list[Fold], root: Path, oof: Path, fresh: bool
) -> None:
    """Train folds one after the other, each by all processes that torchrun has started.

    The first process does what is done once, from the experiment's folder to the scores.
    """
    _require_parts(team, config)
    device = team_device()
    config = resolve_normalisation(config)
    if team.is_first:
        _require_space([_begin(config, folds, root, oof, fresh, device)], folds, 1)
    team.wait()
    experiment = open_experiment(config.name, oof, root=root)
    numbered = [fold for fold in folds if isinstance(fold, int)]
    for fold in folds:
        if not team.agree(team.is_first and Job(experiment, fold).is_finished()):
            with experiment.lock(fold) if team.is_first else nullcontext():
                FoldTrainer(experiment, fold, device, team=team).run()
                if team.is_first:
                    _finish(experiment, fold, device)
        if team.is_first and fold in numbered[-1:]:
            _score(experiment, device)
        team.wait()


def _require_parts(team: Team, config: Config) -> None:
    """Raise UserError unless a batch can be parted among the processes."""
    batch, parts = config.train.batch_size, config.compute.accumulate
    if team.size > batch:
        raise UserError(
            f"train.batch_size={batch}: too few images for {team.size} processes; start fewer by "
            "--nproc-per-node"
        )
    if parts > 1 and batch % (team.size * parts):
        raise UserError(
            f"compute.accumulate: train.batch_size={batch} cannot be {parts} equal parts on each "
            f"of {team.size} processes; they need less memory together, --set compute.accumulate=1"
        )


def one_by_one(jobs: Sequence[Job], device: torch.device) -> None:
    """Train folds one after the other, in this process; see TrainEach."""

    def train_one(place: int) -> None:
        experiment, fold = jobs[place].experiment, jobs[place].fold
        if jobs[place].named:
            print(f"{jobs[place].label}:")
        with experiment.lock(fold):
            if not jobs[place].is_finished():  # Since, by another process.
                FoldTrainer(experiment, fold, device, len(jobs) - place - 1).run()
                _finish(experiment, fold, device)

    _each(range(len(jobs)), [job.label for job in jobs], train_one)


def _each(parts: Sequence[Part], labels: Sequence[str], work: Callable[[Part], None]) -> None:
    """Do some work on each part, whatever is wrong with others. Raises the UserError of the only
    one, or one that names those that failed."""
    failed = []
    for part, label in zip(parts, labels, strict=True):
        try:
            work(part)
        except UserError as error:
            if len(parts) == 1:
                raise
            print(f"{label} failed: {error}", file=sys.stderr, flush=True)
            failed.append(label)
    require_all(failed, len(parts))


def require_all(failed: Sequence[str], count: int) -> None:
    """Raise UserError when some of so many folds or experiments, by their labels, have failed."""
    if failed:
        raise UserError(
            f"{', '.join(failed)} failed, {count - len(failed)} of {count} finished; what was "
            "wrong stands above, and the same command trains what is missing"
        )


def _finish(experiment: Experiment, fold: Fold, device: torch.device) -> None:
    """Predict what a trained fold has held out, and mark it as finished."""
    if isinstance(fold, int):
        write_oof(experiment, fold, device)
    else:
        files = experiment.fold_files(fold)
        check_release(files).of_fold.write(files.finished)


def _score(experiment: Experiment, device: torch.device) -> None:
    if missing := _missing(experiment):
        print(f"out-of-fold scores follow when fold {missing} is finished: {experiment.folder}")
        return
    print("\n" + cv_table(pool(experiment, device)))
    print(f"\nresult: {experiment.scores_path}")


def _missing(experiment: Experiment) -> list[int]:
    """Folds that the scores wait for."""
    return [k for k in range(experiment.config.folds.count) if not experiment.is_finished(k)]


def check_folds(experiment: Experiment, folds: Sequence[Fold]) -> None:
    """Raise UserError for what one of the folds lacks, before the first of them is trained.

    Prints what the depth looks like.
    """
    for fold in folds:
        training_ids(experiment, fold)
    require_labels(experiment, [fold for fold in folds if isinstance(fold, int)])
    if folds and "depth" in experiment.config.training_kinds:
        ids = experiment.table["image_id"].tolist()
        for line in sample_lines(experiment.input, "train", ids, experiment.config.data):
            print(line, flush=True)
