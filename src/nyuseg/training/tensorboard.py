"""TensorBoard's files of a fold; the only module that knows it, and optional."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from nyuseg.data.classes import CLASS_NAMES
from nyuseg.dataloading.dataset import Source
from nyuseg.evaluation.history import Epoch
from nyuseg.evaluation.validation import Look
from nyuseg.inference.predictor import Prediction
from nyuseg.submission.preview import preview_row
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import file_names

FRAMES = 4


class TensorBoard:
    """Writes scalars of each epoch, and pictures of a few held-out frames every few epochs."""

    def __init__(self, folder: Path, every: int, epoch: int) -> None:
        """every: epochs from one picture to the next; epoch: the last one that is kept: what an
        earlier run wrote of later ones is not shown. Raises UserError without the package."""
        if find_spec("tensorboard") is None:
            raise UserError(
                "compute.tensorboard: its package is missing; pip install -e '.[tensorboard]', or "
                "--set compute.tensorboard=null"
            )
        from torch.utils.tensorboard import SummaryWriter

        self.every = every
        self.writer = SummaryWriter(str(folder), purge_step=epoch + 1)

    def scalars(self, row: Epoch, seconds: float, class_iou: Sequence[float | None]) -> None:
        """Note the figures of an epoch, those that are known."""
        named = {
            "loss/training": row.train_loss,
            "loss/training_segmentation": row.train_segmentation,
            "loss/training_depth": row.train_depth,
            "loss/held_out": row.valid_loss,
            "loss/held_out_segmentation": row.valid_segmentation,
            "loss/held_out_depth": row.valid_depth,
            "score/miou": row.valid_miou,
            "score/pixel_accuracy": row.valid_pixel_accuracy,
            "training/learning_rate": row.lr,
            "training/seconds": seconds,
            **{f"iou/{name}": iou for name, iou in zip(CLASS_NAMES, class_iou, strict=False)},
        }
        for name, value in named.items():
            if value is not None and not np.isnan(value):
                self.writer.add_scalar(name, value, row.epoch)
        self.writer.flush()

    def viewer(self, epoch: int, source: Source, ids: Sequence[str]) -> Look | None:
        """What shows image, truth and prediction of a few of these frames, as validation goes by;
        None when it is not the epoch for it."""
        if epoch % self.every or not ids:
            return None
        names = file_names(ids)  # TensorBoard would give several ids one name.
        chosen = set(ids[:: -(-len(ids) // FRAMES)])

        def look(prediction: Prediction, label: np.ndarray) -> None:
            if prediction.id in chosen:
                image = source.read(prediction.id, ("image",))["image"]
                strip = preview_row(image, None, label, prediction.mask)
                title = f"image, truth, prediction/{names[prediction.id]}"
                self.writer.add_image(title, strip, epoch, dataformats="HWC")

        return look

    def close(self) -> None:
        """Write what is left."""
        self.writer.close()
