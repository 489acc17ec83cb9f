"""Networks on all images: what the folds must have shown before, and for how long they train."""

from collections.abc import Sequence
from statistics import median_high

from nyuseg.data.fold_names import FULL, Fold, fold_list, is_full
from nyuseg.experiment.folder import Experiment
from nyuseg.experiment.records import FoldRecord
from nyuseg.utils.errors import UserError


def require_folds(experiment: Experiment, before: Sequence[Fold] = ()) -> None:
    """Raise UserError, which says what to type, unless all folds are finished or in `before`."""
    folds = range(experiment.config.folds.count)
    missing = [k for k in folds if not experiment.is_finished(k) and k not in before]
    if missing:
        raise UserError(
            f"{experiment.folder}: --fold {FULL} trains for the epochs that the folds were scored "
            f"after, and fold {fold_list(missing)} is not finished; run --fold "
            f"{','.join(map(str, missing))} first, or --fold all,{FULL}"
        )


def epochs_of(experiment: Experiment, fold: Fold) -> int:
    """For how many epochs a network is trained: train.epochs, unless it is one on all images and
    the folds predict with their best epoch; then for the median of these.

    The learning rate still falls as if all epochs were to come: the best epochs of the folds came
    at that moment of that schedule. The median, as one fold's luck moves it least; between two the
    larger, as there are more images to learn. Raises UserError while a fold is missing.
    """
    config = experiment.config
    if not is_full(fold) or config.predict.checkpoint != "best":
        return config.train.epochs
    return median_high(_best_epochs(experiment))


def epochs_line(experiment: Experiment) -> str:
    """What epochs_of decides for the networks on all images, in a line."""
    config, epochs = experiment.config, epochs_of(experiment, FULL)
    if config.predict.checkpoint != "best":
        return f"{FULL}: {epochs} epochs and checkpoint '{config.predict.checkpoint}', as the folds"
    best = fold_list(sorted(_best_epochs(experiment)))
    return f"{FULL}: {epochs} of {config.train.epochs} epochs, median of the folds' best ({best})"


def _best_epochs(experiment: Experiment) -> list[int]:
    require_folds(experiment)
    folds = range(experiment.config.folds.count)
    records = [FoldRecord.read(experiment.fold_files(fold).finished) for fold in folds]
    return [record.best.epoch for record in records if record.best]
