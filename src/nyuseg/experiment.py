"""The folder of an experiment, oof/<name>/: what it holds and how it is opened."""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from nyuseg.config import Config, dump_config, is_free, override_config, parse_config
from nyuseg.errors import UserError
from nyuseg.files import read_json, remove_partial, write_json, write_text
from nyuseg.folds import fold_hash, fold_table, leak_notice, read_folds, write_folds
from nyuseg.frames import list_ids
from nyuseg.locks import only_writer


@dataclass(frozen=True)
class Experiment:
    """An opened experiment: its folder, configuration, fold table and the data it was made from."""

    folder: Path
    config: Config
    table: pd.DataFrame
    input: Path

    def fold_folder(self, fold: int) -> Path:
        return self.folder / f"fold_{fold}"

    def mask_path(self, image_id: str) -> Path:
        return self.folder / "masks" / f"{image_id}.png"

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
        remove_partial(folder)
        _write_description(experiment)
    return experiment


def _move_aside(experiment: Experiment) -> None:
    folder = experiment.folder
    aside = folder.with_name(f"{folder.name}.{time.strftime('%Y%m%d-%H%M%S')}")
    with ExitStack() as locks:  # Not under the feet of a process that trains one of its folds.
        for path in folder.glob("fold_*"):
            locks.enter_context(experiment.lock(int(path.name.removeprefix("fold_"))))
        folder.rename(aside)
    print(f"moved the earlier {folder} to {aside}")


def _write_description(experiment: Experiment) -> None:
    folder, table = experiment.folder, experiment.table
    if any(folder.glob("fold_*/last.pt")):  # Before that there is nothing to mix up.
        _require_same(open_experiment(folder.name, folder.parent), experiment)
    write_folds(folder / "folds.csv", table)
    root = str(experiment.input.resolve())
    facts = {"input": root, "folds": fold_hash(table), "notice": experiment.notice}
    write_json(folder / "experiment.json", facts)
    write_text(folder / "config.yaml", dump_config(experiment.config))


def open_experiment(name: str, oof: Path, overrides: Sequence[str] = ()) -> Experiment:
    """Open oof/<name> from its own files alone. Raises UserError when it is absent or broken.

    overrides: `a.b=c` changes of what may change after training, see config.is_free.
    """
    folder = oof / name
    path = folder / "config.yaml"
    if not path.exists():
        found = ", ".join(sorted(p.parent.name for p in oof.glob("*/config.yaml"))) or "none"
        raise UserError(f"{folder}: no such experiment (found: {found}); train it first")
    config = parse_config(yaml.safe_load(path.read_text()), str(path))
    config = override_config(config, overrides)
    facts = read_json(folder / "experiment.json")
    table = read_folds(folder / "folds.csv", config.folds.group)
    if fold_hash(table) != facts["folds"]:
        raise UserError(f"{folder / 'folds.csv'}: changed since training; restore it")
    return Experiment(folder, config, table, Path(facts["input"]))


def _require_same(before: Experiment, now: Experiment) -> None:
    old, new = _flatten(before.config.model_dump()), _flatten(now.config.model_dump())
    changed = [key for key in new if old[key] != new[key] and not is_free(key)]
    way_out = "use --set name=NEW_NAME for another experiment, or --fresh to start this one anew"
    if changed:
        shown = ", ".join(f"{key} was {old[key]}, now {new[key]}" for key in changed)
        raise UserError(f"{now.folder}: begun with another configuration ({shown}); {way_out}")
    if fold_hash(before.table) != fold_hash(now.table):
        raise UserError(
            f"{now.folder}: begun with other data ({before.input}, now {now.input}); {way_out}"
        )


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        deeper = isinstance(value, dict)
        flat |= _flatten(value, f"{prefix}{key}.") if deeper else {f"{prefix}{key}": value}
    return flat
