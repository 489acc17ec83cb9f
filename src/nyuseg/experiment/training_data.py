"""The training data of an experiment: where it is, whether it is still the same, how it is read."""

from contextlib import suppress
from pathlib import Path

from nyuseg.data.fingerprint import Facts, FilesRecord, describe_all, differences
from nyuseg.data.fold_names import Fold
from nyuseg.data.frame_cache import FrameCache, open_cache
from nyuseg.data.frames import (
    WITHOUT_DEPTH,
    FrameFolder,
    frame_files,
    require_depth,
    stored_kinds,
)
from nyuseg.experiment.folder import Experiment
from nyuseg.utils.errors import UserError

# A fingerprint.FilesRecord.
FILES = "files.json"


def training_frames(experiment: Experiment) -> FrameCache | FrameFolder:
    """The training frames, from the cache that the configuration names or from their files.

    Asked for before each fold and before its out-of-fold masks: raises UserError when the data has
    changed since the experiment was begun, and when it lacks depth that the configuration needs.
    """
    require_same_data(experiment)
    if "depth" in experiment.config.training_kinds:
        require_depth(experiment.input, "train", WITHOUT_DEPTH)
    if experiment.config.compute.cache is None:
        return FrameFolder(experiment.input, "train")
    ids = sorted(experiment.table["image_id"])
    known = known_files(experiment.folder)
    return open_cache(experiment.input, ids, cache_parent(experiment), known)


def require_input(experiment: Experiment, split: str = "train") -> None:
    """Raise UserError, which says what to type, when a split of the data is not where it was.

    A folder without images, such as one where no disk is mounted any more, holds none either.
    """
    if not (experiment.input / split / "image").is_dir():
        raise UserError(
            f"{experiment.input}: the {split} data of {experiment.config.name} is not there; run "
            f"the same command with --input DIR, the folder that holds {split}/ now"
        )


def require_same_data(experiment: Experiment) -> None:
    """Raise UserError, naming the first file, when the training data has changed since training.

    Cheap: a file whose size and time have not changed is not read. Of a blend, what each member
    was trained on counts, and the place where the blend looks for it.
    """
    require_input(experiment)
    paths = data_files(experiment)
    for member in (part.experiment for part in experiment.parts):
        known = known_files(member.folder)
        now = describe_all(paths, known)
        changed = differences(known, now)
        if changed:
            path = paths.get(changed[0], experiment.input / "train" / changed[0])
            raise UserError(
                f"{path}: changed since {member.config.name} was trained (in all {len(changed)}); "
                "bring it back, or train again with --fresh or under another name"
            )
        if now != known:
            with suppress(OSError):  # Only to be faster the next time.
                FilesRecord(files=now).write(member.folder / FILES)


def data_files(experiment: Experiment) -> dict[str, Path]:
    """The files of an experiment's training data where it is now, by keys of frames.frame_files."""
    kinds = stored_kinds(experiment.input, "train")
    return frame_files(experiment.input, experiment.table["image_id"], kinds)


def known_files(folder: Path) -> Facts:
    """What the training data of an experiment's folder was when it was begun; empty before."""
    path = folder / FILES
    return FilesRecord.read(path).files if path.exists() else {}


def cache_parent(experiment: Experiment) -> Path:
    """The folder that holds the frame caches of an experiment that has one."""
    wish = experiment.config.compute.cache
    return experiment.folder.parent / ".cache" if wish == "auto" else Path(str(wish))


def training_ids(experiment: Experiment, fold: Fold) -> list[str]:
    """Ids of a fold's training images. Raises UserError when they do not fill a batch."""
    ids, batch = experiment.ids(fold, held_out=False), experiment.config.train.batch_size
    if len(ids) < batch:
        advice = f"--set train.batch_size={len(ids)} or " if len(ids) > 1 else ""
        raise UserError(
            f"fold {fold}: {len(ids)} training images do not fill a batch of {batch}; use "
            f"{advice}more data"
        )
    return ids
