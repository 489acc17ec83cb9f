"""How much a split leaks: validation images that have a room-mate in training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from nyuseg.data.folds import fold_table, leak_notice
from nyuseg.data.frames import list_ids


def report(root: Path, count: int) -> str:
    """What both splits of a data folder into `count` folds leak, as text.

    Raises UserError as folds.fold_table.
    """
    tables = split_tables(root, list_ids(root, "train"), count)
    notice = leak_notice(tables["scene"])
    head = [f"!! {notice} !!", ""] if notice else []
    return "\n".join([*head, leak_table([leak_row(*part) for part in tables.items()])])


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


def leak_table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows of leak_row as text."""
    lines = [
        "Validation images with a room-mate in training:",
        f"{'folds':10}{'images':>8}{'scenes':>8}{'with one':>10}{'share':>8}  {'per fold':>16}",
    ]
    for row in rows:
        span = f"{row['low']:.1%} .. {row['high']:.1%}"
        lines.append(
            f"{row['split']:10}{row['images']:>8}{row['scenes']:>8}{row['mates']:>10}"
            f"{row['share']:>8.1%}  {span:>16}"
        )
    return "\n".join(lines)
