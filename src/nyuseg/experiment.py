"""The folder of an experiment, oof/<name>/: what it holds and how it is opened."""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from nyuseg.config.loading import dump_config, is_free, load_config, override_config
from nyuseg.config.schema import Config
from nyuseg.data.fingerprint import Facts, describe_all, differences, digest
from nyuseg.data.folds import (
    fold_hash,
    fold_table,
    leak_notice,
    read_folds,
    short_notice,
    write_folds,
)
from nyuseg.data.frame_cache import FrameCache, known_facts, open_cache
from nyuseg.data.frames import (
    WITHOUT_DEPTH,
    FrameFolder,
    frame_files,
    list_ids,
    require_depth,
    stored_kinds,
)
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import file_names, read_json, remove_partial, write_json, write_text
from nyuseg.utils.locks import all_idle, only_writer

BLEND = "blend.json"
# What the training data held when the experiment was begun, see fingerprint.
FILES = "files.json"
PART_KEYS = ("experiment", "weight", "temperature", "weights")


@dataclass(frozen=True)
class Experiment:
    """An opened experiment: its folder, configuration, fold table and the data it was made from.

    members: of a blend, what it is made of; empty for an experiment that was trained.
    """

    folder: Path
    config: Config
    table: pd.DataFrame
    input: Path
    members: tuple["Part", ...] = ()

    @property
    def parts(self) -> tuple["Part", ...]:
        """What predicts: the members of a blend, or the experiment alone."""
        return self.members or (Part(self),)

    def fold_folder(self, fold: int) -> Path:
        return self.folder / f"fold_{fold}"

    def mask_path(self, image_id: str) -> Path:
        """Where the out-of-fold mask of an image lies; see files.file_names."""
        return self.folder / "masks" / f"{self._file_names[image_id]}.png"

    @cached_property
    def _file_names(self) -> dict[str, str]:
        return file_names(self.table["image_id"])

    def ids(self, fold: int, held_out: bool) -> list[str]:
        """Ids of a fold's validation images, or of its training images."""
        inside = self.table["fold"] == fold
        return self.table["image_id"][inside if held_out else ~inside].tolist()

    def is_finished(self, fold: int) -> bool:
        return (self.fold_folder(fold) / "fold.json").exists()

    def lock(self, fold: int) -> AbstractContextManager[None]:
        """The lock of a fold: who holds it may write. Raises UserError, naming the holder."""
        return only_writer(self.folder.with_name(f"{self.folder.name}.fold_{fold}"))

    @property
    def notice(self) -> str | None:
        """Why the scores of this experiment are not to be believed; None when they are."""
        return leak_notice(self.table)

    @property
    def tag(self) -> str:
        """The notice in a word or two, to stand beside each score; empty without one."""
        return short_notice(self.notice)


@dataclass(frozen=True)
class Part:
    """An experiment and its part in a weighted mean.

    temperature: see grid.sharpen. digests: hash of each fold's weights when they were blended.
    """

    experiment: Experiment
    weight: float = 1.0
    temperature: float = 1.0
    digests: dict[str, str] | None = None


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
        _write_description(experiment)
    return experiment


def _move_aside(experiment: Experiment) -> None:
    folder = experiment.folder
    aside = folder.with_name(f"{folder.name}.{time.strftime('%Y%m%d-%H%M%S')}")
    # Not under the feet of a process that trains one of its folds.
    with all_idle(folder.parent, f"{folder.name}.fold_*"):
        folder.rename(aside)
    print(f"moved the earlier {folder} to {aside}")


def _write_description(experiment: Experiment) -> None:
    folder, table, root = experiment.folder, experiment.table, experiment.input
    begun = _is_begun(experiment)
    known = _known_files(folder) or known_facts(root, cache_parent(experiment))
    files = describe_all(data_files(experiment), known)
    if begun:
        _require_same(open_experiment(folder.name, folder.parent), experiment, files)
    write_folds(folder / "folds.csv", table)
    write_json(folder / FILES, files)
    hashes = {"folds": fold_hash(table), "data": digest(files)}
    facts = {"input": str(root.resolve()), **hashes, "notice": experiment.notice}
    write_json(folder / "experiment.json", facts)
    write_text(folder / "config.yaml", dump_config(experiment.config))


def data_files(experiment: Experiment) -> dict[str, Path]:
    """The files of an experiment's training data where it is now, by keys of frames.frame_files."""
    kinds = stored_kinds(experiment.input, "train")
    return frame_files(experiment.input, experiment.table["image_id"], kinds)


def _known_files(folder: Path) -> Facts:
    return read_json(folder / FILES) if (folder / FILES).exists() else {}


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
        known = _known_files(member.folder)
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
                write_json(member.folder / FILES, now)


def _is_begun(experiment: Experiment) -> bool:
    """Whether a fold has left something, or is being trained: before, nothing can be mixed up."""
    folder = experiment.folder
    if any(folder.glob("fold_*/*.pt*")) or any(folder.glob("fold_*/fold.json")):
        return True
    try:
        with all_idle(folder.parent, f"{folder.name}.fold_*"):
            return False
    except UserError:
        return (folder / "config.yaml").exists()


def open_experiment(
    name: str, oof: Path, overrides: Sequence[str] = (), root: Path | None = None
) -> Experiment:
    """Open oof/<name> from its own files alone. Raises UserError when it is absent or broken.

    overrides: `a.b=c` changes of what may change after training, see config.is_free. root: where
    the data is now, when it is not where it was.
    """
    folder = oof / name
    path = folder / "config.yaml"
    if not path.exists():
        found = ", ".join(sorted(p.parent.name for p in oof.glob("*/config.yaml"))) or "none"
        raise UserError(f"{folder}: no such experiment (found: {found}); train it first")
    config = override_config(load_config(path), overrides)
    facts = read_json(folder / "experiment.json", ("input", "folds", "data"))
    table = read_folds(folder / "folds.csv", config.folds.group, config.folds.count)
    if fold_hash(table) != facts["folds"]:
        raise UserError(f"{folder / 'folds.csv'}: changed since training; restore it")
    members = _read_members(folder, overrides, root) if (folder / BLEND).exists() else ()
    return Experiment(folder, config, table, root or Path(facts["input"]), members)


def _read_members(folder: Path, overrides: Sequence[str], root: Path | None) -> tuple[Part, ...]:
    path = folder / BLEND
    rows = read_json(path, ("members",))["members"]
    try:
        values = [[row[key] for key in PART_KEYS] for row in rows]
    except (TypeError, KeyError):
        raise UserError(f"{path}: not the members of a blend; run src/blend.py again") from None
    return tuple(
        Part(open_experiment(name, folder.parent, overrides, root), weight, temperature, digests)
        for name, weight, temperature, digests in values
    )


def read_oof_ids(experiment: Experiment, fold: int) -> list[str]:
    """Ids in the order of oof_probs.npy. Raises UserError when the file is missing."""
    path = experiment.fold_folder(fold) / "oof_ids.txt"
    if not path.exists():
        raise UserError(f"{path}: no such file; train fold {fold} again with --fresh")
    return path.read_text(encoding="utf-8").split("\n")[:-1]


def training_frames(experiment: Experiment) -> FrameCache | FrameFolder:
    """The training frames, from the cache that the configuration names or from their files.

    Asked for before each fold and before its out-of-fold masks: raises UserError when the data has
    changed since the experiment was begun, and when it lacks depth that the configuration needs.
    """
    require_same_data(experiment)
    if "depth" in experiment.config.training_kinds:
        require_depth(experiment.input, "train", WITHOUT_DEPTH)
    if experiment.config.train.cache is None:
        return FrameFolder(experiment.input, "train")
    ids = sorted(experiment.table["image_id"])
    known = _known_files(experiment.folder)
    return open_cache(experiment.input, ids, cache_parent(experiment), known)


def cache_parent(experiment: Experiment) -> Path:
    """The folder that holds the frame caches of an experiment that has one."""
    wish = experiment.config.train.cache
    return experiment.folder.parent / ".cache" if wish == "auto" else Path(str(wish))


def _require_same(before: Experiment, now: Experiment, files: Facts) -> None:
    old, new = flatten(before.config.model_dump()), flatten(now.config.model_dump())
    changed = [key for key in new if old[key] != new[key] and not is_free(key)]
    way_out = "use --set name=NEW_NAME for another experiment, or --fresh to start this one anew"
    if changed:
        shown = ", ".join(f"{key} was {old[key]}, now {new[key]}" for key in changed)
        raise UserError(f"{now.folder}: begun with another configuration ({shown}); {way_out}")
    changed = differences(_known_files(before.folder), files)
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
