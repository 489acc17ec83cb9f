"""How an experiment is begun, and gone on with: only with the same configuration and data."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from nyuseg.config.loading import dump_config, is_free
from nyuseg.config.schema import Config
from nyuseg.data.fingerprint import Facts, FilesRecord, describe_all, differences, digest
from nyuseg.data.folds import fold_hash, fold_table, write_folds
from nyuseg.data.frame_cache import known_facts
from nyuseg.data.frames import list_ids
from nyuseg.experiment.fold_files import FoldFiles
from nyuseg.experiment.folder import BLEND, RECORD, Experiment, open_experiment
from nyuseg.experiment.records import ExperimentRecord
from nyuseg.experiment.training_data import FILES, cache_parent, data_files, known_files
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import remove_partial, write_text
from nyuseg.utils.locks import all_idle, only_writer


def create_experiment(config: Config, root: Path, oof: Path, fresh: bool = False) -> Experiment:
    """Open oof/<name> for training: make it, or go on with it when config and data are the same.

    fresh: move an existing folder aside (it is never deleted) and begin anew. Raises UserError
    when the folder belongs to another configuration or other data.
    """
    folder = oof / config.name
    table = fold_table(root, list_ids(root, "train"), config.folds.count, config.folds.group)
    experiment = Experiment(folder, config, table, root)
    with only_writer(folder, wait=True):
        if fresh and folder.exists():
            _move_aside(experiment)
        if (folder / BLEND).exists():
            raise UserError(f"{folder}: a blend; train under another name, --set name=NEW_NAME")
        remove_partial(folder)
        experiment = _with_its_folds(experiment)
        _write_description(experiment)
    return experiment


def _move_aside(experiment: Experiment) -> None:
    folder = experiment.folder
    aside = folder.with_name(f"{folder.name}.{time.strftime('%Y%m%d-%H%M%S')}")
    # Not under the feet of a process that trains one of its folds.
    with all_idle(folder.parent, f"{folder.name}.fold_*"):
        folder.rename(aside)
    print(f"moved the earlier {folder} to {aside}")


def _with_its_folds(experiment: Experiment) -> Experiment:
    """The same with the folds that it was begun with, whatever split another version of
    scikit-learn draws of the same rooms."""
    if not _is_begun(experiment):
        return experiment
    before = open_experiment(experiment.folder.name, experiment.folder.parent)
    rows = [one.table[["image_id", "scene"]].to_numpy().tolist() for one in (before, experiment)]
    same = rows[0] == rows[1] and before.config.folds == experiment.config.folds
    return replace(experiment, table=before.table) if same else experiment


def _write_description(experiment: Experiment) -> None:
    folder, table, root = experiment.folder, experiment.table, experiment.input
    begun = _is_begun(experiment)
    cached = experiment.config.compute.cache is not None
    known = known_files(folder)
    if not known and cached:
        known = known_facts(root, cache_parent(experiment))
    files = describe_all(data_files(experiment), known)
    if begun:
        _require_same(open_experiment(folder.name, folder.parent), experiment, files)
    write_folds(folder / "folds.csv", table)
    FilesRecord(files=files).write(folder / FILES)
    ExperimentRecord(
        input=str(root.resolve()),
        folds=fold_hash(table),
        data=digest(files),
        notice=experiment.notice,
    ).write(folder / RECORD)
    write_text(folder / "config.yaml", dump_config(experiment.config))


def _is_begun(experiment: Experiment) -> bool:
    """Whether a fold has left something, or is being trained: before, nothing can be mixed up."""
    folder = experiment.folder
    if any(FoldFiles(fold).is_begun for fold in folder.glob("fold_*")):
        return True
    try:
        with all_idle(folder.parent, f"{folder.name}.fold_*"):
            return False
    except UserError:
        return (folder / "config.yaml").exists()


def _require_same(before: Experiment, now: Experiment, files: Facts) -> None:
    old, new = flatten(before.config.model_dump()), flatten(now.config.model_dump())
    changed = [key for key in new if old[key] != new[key] and not is_free(key)]
    way_out = "use --set name=NEW_NAME for another experiment, or --fresh to start this one anew"
    if changed:
        shown = ", ".join(f"{key} was {old[key]}, now {new[key]}" for key in changed)
        raise UserError(f"{now.folder}: begun with another configuration ({shown}); {way_out}")
    changed = differences(known_files(before.folder), files)
    if fold_hash(before.table) != fold_hash(now.table) or changed:
        what = f"{changed[0]} differs, in all {len(changed)}" if changed else "the scenes differ"
        places = [str(one.input.resolve()) for one in (before, now)]
        moved = "" if places[0] == places[1] else f"; {places[0]}, now {places[1]}"
        raise UserError(f"{now.folder}: begun with other data ({what}{moved}); {way_out}")


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A configuration's values by dotted key, such as train.lr."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        deeper = isinstance(value, dict)
        flat |= flatten(value, f"{prefix}{key}.") if deeper else {f"{prefix}{key}": value}
    return flat
