"""The scores of each epoch of a fold, as metrics.csv and in words."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from nyuseg.utils.errors import UserError
from nyuseg.utils.files import write_text


@dataclass(frozen=True)
class Epoch:
    """What is known of an epoch (1, 2, ...); None where nothing counted, or was held out.

    lr: learning rate in the middle of the epoch. Losses are means, see losses and validation.
    skipped_steps: since the training began, of those that the loss scaler left out.
    """

    epoch: int
    lr: float
    train_loss: float | None
    train_segmentation: float | None
    train_depth: float | None
    valid_loss: float | None
    valid_segmentation: float | None
    valid_depth: float | None
    valid_miou: float | None
    valid_pixel_accuracy: float | None
    skipped_steps: int


COLUMNS = tuple(field.name for field in fields(Epoch))
SECONDS = "seconds"


def write_metrics(path: Path, history: Sequence[Epoch], seconds: Mapping[int, float]) -> None:
    """Write metrics.csv: one row an epoch, six significant digits; empty where nothing counted.

    seconds: how long an epoch took, by its number. They stand here alone: with them in the
    checkpoints, no two runs would write the same ones.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, SECONDS])
    for row in history:
        values = [*asdict(row).values(), seconds.get(row.epoch)]
        writer.writerow(["" if value is None else f"{value:.6g}" for value in values])
    write_text(path, text.getvalue())


def read_seconds(path: Path) -> dict[int, float]:
    """Seconds of each epoch that metrics.csv knows; empty without the file.

    Raises UserError, naming it, when it is not one that write_metrics wrote.
    """
    if not path.exists():
        return {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return {int(row["epoch"]): float(row[SECONDS]) for row in rows if row[SECONDS]}
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path}: lacks epochs and seconds; remove it") from None


def number(value: float | None, digits: int = 4) -> str:
    """A score or a loss as text; '-' where nothing counted."""
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"
