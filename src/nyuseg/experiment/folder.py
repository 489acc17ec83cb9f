"""The folder of an experiment, oof/<name>/: what it holds and how it is opened."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from nyuseg.config.loading import load_config, override_config
from nyuseg.config.schema import Config
from nyuseg.data.fold_names import Fold
from nyuseg.data.folds import (
    fold_hash,
    leak_notice,
    read_folds,
    shorten_notice,
)
from nyuseg.experiment.fold_files import FoldFiles
from nyuseg.experiment.records import BlendRecord, ExperimentRecord
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import file_names
from nyuseg.utils.locks import only_writer

BLEND = "blend.json"
RECORD = "experiment.json"


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

    def fold_files(self, fold: Fold) -> FoldFiles:
        """Where the files of a fold, or of a network on all images, lie."""
        return FoldFiles(self.folder / f"fold_{fold}")

    @property
    def scores_path(self) -> Path:
        """Where its pooled out-of-fold scores lie, a records.CrossValidation."""
        return self.folder / "cv.json"

    def mask_path(self, image_id: str) -> Path:
        """Where the out-of-fold mask of an image lies; see files.file_names."""
        return self.folder / "masks" / f"{self._file_names[image_id]}.png"

    @cached_property
    def _file_names(self) -> dict[str, str]:
        return file_names(self.table["image_id"])

    def ids(self, fold: Fold, held_out: bool) -> list[str]:
        """Ids of a fold's validation images, or of its training images.

        A network on all images has none of the first and all of the second.
        """
        inside = self.table["fold"] == fold  # No row has the name of a network on all images.
        return self.table["image_id"][inside if held_out else ~inside].tolist()

    def is_finished(self, fold: Fold) -> bool:
        """Whether a fold is trained and predicted out-of-fold."""
        return self.fold_files(fold).is_finished

    def lock(self, fold: Fold) -> AbstractContextManager[None]:
        """The lock of a fold: who holds it may write. Raises UserError, naming the holder."""
        return only_writer(self.locked(fold))

    def locked(self, fold: Fold) -> Path:
        """What the lock of a fold is of, see locks.only_writer."""
        return self.folder.with_name(f"{self.folder.name}.fold_{fold}")

    @property
    def data_digest(self) -> str:
        """What its training data held: fingerprint.digest, from its record."""
        return ExperimentRecord.read(self.folder / RECORD).data

    @property
    def notice(self) -> str | None:
        """Why the scores of this experiment are not to be believed; None when they are."""
        return leak_notice(self.table)

    @property
    def short_notice(self) -> str:
        """The notice in a word or two, to stand beside each score; empty without one."""
        return shorten_notice(self.notice)


@dataclass(frozen=True)
class Part:
    """An experiment and its part in a weighted mean.

    digests: hash of each fold's weights when they were blended.
    """

    experiment: Experiment
    weight: float = 1.0
    digests: dict[str, str] | None = None


def open_experiment(
    name: str, oof: Path, overrides: Sequence[str] = (), root: Path | None = None
) -> Experiment:
    """Open oof/<name> from its own files alone. Raises UserError when it is absent or broken.

    overrides: `a.b=c` changes of what may change after training, see loading.is_free. root: where
    the data is now, when it is not where it was.
    """
    folder = oof / name
    path = folder / "config.yaml"
    if not path.exists():
        found = ", ".join(sorted(p.parent.name for p in oof.glob("*/config.yaml"))) or "none"
        raise UserError(f"{folder}: no such experiment (found: {found}); train it first")
    config = override_config(load_config(path), overrides)
    record = ExperimentRecord.read(folder / RECORD)
    table = read_folds(folder / "folds.csv", config.folds.group, config.folds.count)
    if fold_hash(table) != record.folds:
        raise UserError(f"{folder / 'folds.csv'}: changed since training; restore it")
    members = _read_members(folder, overrides, root) if (folder / BLEND).exists() else ()
    return Experiment(folder, config, table, root or Path(record.input), members)


def _read_members(folder: Path, overrides: Sequence[str], root: Path | None) -> tuple[Part, ...]:
    return tuple(
        Part(
            open_experiment(member.experiment, folder.parent, overrides, root),
            member.weight,
            member.weights,
        )
        for member in BlendRecord.read(folder / BLEND).members
    )
