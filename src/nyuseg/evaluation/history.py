"""The scores of each epoch of a fold, as metrics.csv and in words."""

import csv
import io
from pathlib import Path
from typing import Any

from nyuseg.utils.files import write_text

COLUMNS = (
    "epoch",
    "lr",
    "train_loss",
    "train_segmentation",
    "train_depth",
    "valid_loss",
    "valid_segmentation",
    "valid_depth",
    "valid_miou",
    "valid_pixel_accuracy",
    "skipped_steps",
)


def write_metrics(path: Path, history: list[dict[str, Any]]) -> None:
    """Write metrics.csv: one row an epoch, six significant digits; empty where nothing counted."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in history:
        values = ["" if row[name] is None else f"{row[name]:.6g}" for name in COLUMNS[1:]]
        writer.writerow([row["epoch"], *values])
    write_text(path, text.getvalue())


def number(value: float | None, digits: int = 4) -> str:
    """A score or a loss as text; '-' where nothing counted."""
    return "-" if value is None else f"{value:.{digits}f}"
