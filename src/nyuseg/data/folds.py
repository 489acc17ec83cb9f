"""Folds: a table image_id, scene, fold. By scene; made once, then only read."""

import hashlib
import warnings
from pathlib import Path

import pandas as pd

from nyuseg.utils.errors import UserError
from nyuseg.utils.files import require_id, write_text

# Tables of the data set that come with the library.
NYUV2 = Path(__file__).with_name("nyuv2")
NYUV2_FOLDS, NYUV2_SCENES = NYUV2 / "folds.csv", NYUV2 / "scenes.csv"


def read_scenes(root: Path, ids: list[str]) -> pd.DataFrame | None:
    """Scenes of the images: columns image_id, scene, scene_type, in the order of `ids`.

    From scenes.csv in the data folder; without one, the project's table serves when every id is a
    training image of NYUv2. None when the scenes are not known. Raises UserError for an id that
    the folder's table lacks, and for a stray one among NYUv2's.
    """
    own = root / "scenes.csv"
    if not own.exists():
        table = _read_table(NYUV2_SCENES, ["image_id", "split", "scene", "scene_type"])
        table = table[table["split"] == "train"].drop(columns="split").set_index("image_id")
        strange = sorted(set(ids) - set(table.index))
        if strange and len(strange) < len(ids) / 10:
            raise UserError(
                f"{root}: {strange[0]} is no training image of NYUv2, as the others are "
                f"({len(strange)} such); remove it, or add a scenes.csv"
            )
        return None if strange else table.loc[ids].reset_index()
    table = _read_table(own, ["image_id", "scene", "scene_type"]).set_index("image_id")
    missing = sorted(set(ids) - set(table.index))
    if missing:
        raise UserError(f"{own}: no row for image {missing[0]} ({len(missing)} in all)")
    return table.loc[ids].reset_index()


def fold_table(root: Path, ids: list[str], count: int, group: str) -> pd.DataFrame:
    """The fold of each training image: columns image_id, scene, fold, sorted by id.

    The committed table serves for the NYUv2 competition itself; any other folder's table follows
    from its ids and scenes alone. `group`: scene, or random, which ignores scenes and leaks.
    Raises UserError when there are fewer scenes (or images) than folds.
    """
    ids = sorted(ids)
    scenes = read_scenes(root, ids)
    if scenes is None:  # Nothing known: each image counts as a room of its own.
        scenes = pd.DataFrame({"image_id": ids, "scene": ids, "scene_type": "unknown"})
    groups = scenes["scene"].nunique() if group == "scene" else len(ids)
    if groups < count:
        what, fewer = "scenes" if group == "scene" else "images", f"folds.count={groups}"
        advice = fewer if groups > 1 else "folds.group=random" if len(ids) > 1 else ""
        raise UserError(
            f"{root}: {groups} {what if groups > 1 else what[:-1]} cannot fill {count} folds; "
            + (f"use --set {advice}" if advice else "there must be two or more")
        )
    by_scene = group == "scene"
    if by_scene and count == 5 and not (root / "scenes.csv").exists() and is_nyuv2(ids):
        return read_folds(NYUV2_FOLDS)
    # Here alone: scikit-learn takes a second to import.
    from nyuseg.data.fold_split import split_by_scene, split_random

    scenes["fold"] = split_by_scene(scenes, count) if by_scene else split_random(len(ids), count)
    return scenes[["image_id", "scene", "fold"]]


def read_folds(path: Path, group: str = "scene", count: int | None = None) -> pd.DataFrame:
    """Read a fold table and assert it: ids unique, folds 0..k-1, no scene in two folds.

    count: how many folds there must be, when that is known. Raises UserError with the file's name.
    With `group` random a scene may lie on two sides.
    """
    table = _read_table(path, ["image_id", "scene", "fold"])
    try:
        table["fold"] = table["fold"].astype(int)
    except (ValueError, OverflowError):
        raise UserError(f"{path}: column fold must hold whole numbers") from None
    present = sorted(table["fold"].unique())
    if len(present) < 2 or present != list(range(len(present))):
        raise UserError(f"{path}: folds must be numbered 0, 1, ... without a gap, two or more")
    if count is not None and len(present) != count:
        raise UserError(f"{path}: has {len(present)} folds, the configuration {count}")
    sides = table.groupby("scene")["fold"].nunique()
    if group == "scene" and (sides > 1).any():
        raise UserError(f"{path}: scene {sides.idxmax()} lies in {sides.max()} folds")
    return table


def write_folds(path: Path, table: pd.DataFrame) -> None:
    """Write a fold table as CSV, atomically."""
    write_text(path, table.to_csv(index=False))


def fold_hash(table: pd.DataFrame) -> str:
    """SHA-256 over image ids and folds, in the table's order."""
    rows = table[["image_id", "fold"]].to_csv(index=False)
    return hashlib.sha256(rows.encode()).hexdigest()


def leak_notice(table: pd.DataFrame) -> str | None:
    """One line that says why scores over this table are not to be believed; None when they are."""
    leaky = (table.groupby("scene")["fold"].nunique() > 1).any()
    if leaky:
        return "LEAKY: frames of one room lie on both sides of the folds"
    if table["scene"].is_unique and len(table) > 1 and (table["scene"] == table["image_id"]).all():
        return "scenes unknown: without a scenes.csv, frames of one room may lie on both sides"
    return None


def shorten_notice(notice: str | None) -> str:
    """A leak_notice in a word or two; empty for None."""
    return (notice or "").partition(":")[0].lower()


def is_nyuv2(ids: list[str]) -> bool:
    """Whether these are the ids of NYUv2's training images."""
    return NYUV2_FOLDS.exists() and set(ids) == set(read_folds(NYUV2_FOLDS)["image_id"])


def _read_table(path: Path, columns: list[str]) -> pd.DataFrame:
    try:
        with warnings.catch_warnings():
            # pandas would take the first column of rows that end in a comma for an index.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except ValueError as error:
        raise UserError(f"{path}: not a CSV table ({error})") from None
    except pd.errors.ParserWarning:
        raise UserError(f"{path}: a row has more columns than the first line") from None
    if not set(columns) <= set(table.columns):
        raise UserError(f"{path}: expected the columns {', '.join(columns)}")
    if table["image_id"].duplicated().any():
        raise UserError(
            f"{path}: image {table['image_id'][table['image_id'].duplicated()].iloc[0]} twice"
        )
    for image_id in table["image_id"]:
        require_id(image_id, path)
    return table[columns]
