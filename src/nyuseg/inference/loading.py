"""The predictor of an experiment or a blend, from the release weights of its folds."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from nyuseg.data.fold_names import Fold, is_full
from nyuseg.data.folds import fold_hash
from nyuseg.experiment.folder import Experiment, Part
from nyuseg.experiment.records import WeightsRecord
from nyuseg.inference.ensemble import Ensemble
from nyuseg.inference.predictor import Predictor
from nyuseg.inference.probe import require_views
from nyuseg.models.release import check_release, open_release
from nyuseg.utils.errors import UserError
from nyuseg.utils.prefetch import in_order


def load_folds(
    experiment: Experiment, folds: Sequence[Fold], kept: bool = True
) -> tuple[list[nn.Module], dict[str, str]]:
    """Load the networks of some folds; returns them and the hash of each weight file, by fold.

    kept: otherwise they are only tried, one at a time, and none is returned. Raises UserError when
    a fold is missing or was validated on another fold table.
    """

    def check(fold: Fold) -> str:
        files = experiment.fold_files(fold)
        if not files.weights_record.exists():
            raise UserError(
                f"{files.folder}: fold {fold} is not trained; run 'python src/train_folds.py "
                f"--fold {fold}', or predict with the others through --fold"
            )
        record = check_release(files)
        if record.fold != fold or record.folds != fold_hash(experiment.table):
            raise UserError(f"{files.folder}: these weights were validated on another fold table")
        return record.sha256

    models, digests, config = [], {}, experiment.config
    # Hashing is what threads can do side by side, while this one builds networks.
    for fold, found in zip(folds, in_order(check, folds, threads=4, depth=4), strict=True):
        model = open_release(experiment.fold_files(fold), config.model, config.data)
        digests[str(fold)] = found
        if kept:
            models.append(model)
    return models, digests


def load_predictor(
    experiment: Experiment,
    folds: Sequence[Fold],
    device: torch.device | Sequence[torch.device],
    tta: bool,
) -> tuple[Predictor, dict[str, Any]]:
    """The Predictor of some folds of an experiment or a blend, and the hashes of the weights.

    Hashes by fold; of a blend, by fold and member. Raises UserError as load_folds does, and for a
    member that was trained again since it was blended.
    """
    ensembles, hashes = [], {}
    for part, models, digests in _load_parts(experiment, folds, tta):
        config = part.experiment.config
        ensembles.append(Ensemble(models, config, device, tta, part.weight))
        hashes[config.name] = digests
    return Predictor(ensembles, experiment.config), _by_fold(experiment, folds, hashes)


def check_predictor(experiment: Experiment, folds: Sequence[Fold], tta: bool) -> dict[str, Any]:
    """The hashes of load_predictor, which raises what it would; networks are tried, not kept."""
    parts = _load_parts(experiment, folds, tta, kept=False)
    hashes = {part.experiment.config.name: digests for part, _, digests in parts}
    return _by_fold(experiment, folds, hashes)


def _load_parts(
    experiment: Experiment, folds: Sequence[Fold], tta: bool, kept: bool = True
) -> Iterator[tuple[Part, list[nn.Module], dict[str, str]]]:
    for part in experiment.parts:
        member = part.experiment
        if tta:
            require_views(member.config, member.config.tta.views)
        models, digests = load_folds(member, folds, kept)
        if part.digests and _is_changed(member, part.digests, digests):
            raise _blended_before(experiment, member)
        yield part, models, digests


def _by_fold(
    experiment: Experiment, folds: Sequence[Fold], hashes: dict[str, dict[str, str]]
) -> dict[str, Any]:
    if not experiment.members:
        return next(iter(hashes.values()))
    return {str(fold): {name: one[str(fold)] for name, one in hashes.items()} for fold in folds}


def require_unchanged(experiment: Experiment) -> None:
    """Raise UserError when a member of a blend was trained again since it was blended."""
    for part in experiment.parts:
        digests = part.digests or {}
        records = {fold: part.experiment.fold_files(fold).weights_record for fold in digests}
        loaded = {fold: WeightsRecord.read(path).sha256 for fold, path in records.items()}
        if _is_changed(part.experiment, digests, loaded):
            raise _blended_before(experiment, part.experiment)


def _blended_before(experiment: Experiment, member: Experiment) -> UserError:
    return UserError(
        f"{experiment.folder}: {member.config.name} was trained again since it was blended; run "
        "src/blend.py again"
    )


def _is_changed(member: Experiment, blended: dict[str, str], loaded: dict[str, str]) -> bool:
    """Whether a member of a blend was trained again, by the digests of its weights.

    A blend was judged by folds: for networks on all images, which it does not know, all folds must
    be what they were.
    """
    if any(map(is_full, loaded)):
        records = {fold: member.fold_files(fold).weights_record for fold in blended}
        loaded = {fold: WeightsRecord.read(path).sha256 for fold, path in records.items()}
    return any(blended[fold] != digest for fold, digest in loaded.items())
