"""How much a split leaks: validation images that have a room-mate in training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from nyuseg.analysis.near_duplicates import BITS, duplicate_groups
from nyuseg.data.folds import fold_table, read_scenes
from nyuseg.data.frames import list_ids
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import write_text

LIMITS = (
    "Hashes find pictures that are nearly the same, not all pictures of a room: at the default\n"
    "distance they found none of 425 pairs of frames of one room (NYUv2 and demo). The share of\n"
    "images with a room-mate is most likely higher than this one."
)


def report(root: Path, count: int, distance: int, propose: Path | None) -> str:
    """What both splits of a data folder into `count` folds leak, as text.

    Without known scenes, near-duplicates within `distance` bits stand for them, and with a path
    `propose` they are written there as a scenes.csv. Raises UserError when scenes are known and
    one is proposed, when the file exists, and as folds.fold_table.
    """
    ids = list_ids(root, "train")
    if read_scenes(root, ids) is not None:
        if propose:
            raise UserError(f"{root}: its scenes are known; --propose is for data without them")
        rows = [leak_row(*part) for part in split_tables(root, ids, count).items()]
        return leak_table(rows, "scenes", "room-mate")
    if propose and propose.exists():
        raise UserError(f"{propose}: exists and will not be replaced; name another file")
    scenes = propose_scenes(root, ids, distance)
    if propose:
        write_text(propose, scenes.to_csv(index=False))
    return _duplicate_report(root, scenes, count, distance, propose)


def split_tables(root: Path, ids: list[str], count: int) -> dict[str, pd.DataFrame]:
    """The fold tables that training makes for either folds.group; see folds.fold_table."""
    return {group: fold_table(root, ids, count, group) for group in ("random", "scene")}


def has_mate(table: pd.DataFrame) -> pd.Series:
    """Whether each image of a fold table has one of its scene among its fold's training images."""
    return table.groupby("scene")["fold"].transform("nunique") > 1


def leak_row(name: str, table: pd.DataFrame) -> dict[str, Any]:
    """Counts and shares (0..1) of has_mate over all images, lowest and highest fold."""
    mates = has_mate(table)
    folds = mates.groupby(table["fold"]).mean()
    facts = {"split": name, "images": len(table), "scenes": table["scene"].nunique()}
    shares = {"share": mates.mean(), "low": folds.min(), "high": folds.max()}
    return {**facts, "mates": int(mates.sum()), **shares}


def leak_table(rows: Sequence[dict[str, Any]], groups: str, mate: str) -> str:
    """Rows of leak_row as text; `groups` and `mate` say what a scene stands for."""
    lines = [
        f"Validation images with a {mate} in training:",
        f"{'folds':10}{'images':>8}{groups:>8}{'with one':>10}{'share':>8}  {'per fold':>16}",
    ]
    for row in rows:
        span = f"{row['low']:.1%} .. {row['high']:.1%}"
        lines.append(
            f"{row['split']:10}{row['images']:>8}{row['scenes']:>8}{row['mates']:>10}"
            f"{row['share']:>8.1%}  {span:>16}"
        )
    return "\n".join(lines)


def propose_scenes(root: Path, ids: list[str], distance: int) -> pd.DataFrame:
    """A scenes.csv from near-duplicates: image_id, scene (the group's first id), scene_type.

    An image alone keeps its id as its scene, by which folds.leak_notice knows that nothing is known
    when all are.
    """
    groups = duplicate_groups(root, ids, distance)
    return pd.DataFrame({"image_id": ids, "scene": groups, "scene_type": "unknown"})


def _duplicate_report(
    root: Path, scenes: pd.DataFrame, count: int, distance: int, propose: Path | None
) -> str:
    ids, group_of = scenes["image_id"].tolist(), scenes.set_index("image_id")["scene"]
    tables = split_tables(root, ids, count)
    rows = [leak_row(k, t.assign(scene=t["image_id"].map(group_of))) for k, t in tables.items()]
    sizes = scenes["scene"].value_counts()
    found = (
        f"{(sizes > 1).sum()} groups of near-duplicates hold {sizes[sizes > 1].sum()} of "
        f"{len(ids)} images (hashes that differ in at most {distance} of {BITS} bits)"
    )
    hint = (
        f"Proposed scenes: {propose}. They are a start: look through the images, join what is of\n"
        f"one room, and copy the file to {root / 'scenes.csv'}; training then keeps each scene\n"
        "in one fold, and believes it."
    )
    return "\n".join(
        [
            f"!! scenes unknown: {root} has no scenes.csv, so folds by scene split image by image"
            " !!",
            found,
            LIMITS,
            "",
            leak_table(rows, "groups", "near-duplicate"),
            "",
            hint if propose else "--propose FILE writes the groups as a scenes.csv to begin with",
        ]
    )
