"""The files of one fold, oof/<name>/fold_<k>/: what they are called and how much room they take."""

from pathlib import Path

from nyuseg.config.values import STRIDE
from nyuseg.data.classes import NUM_CLASSES
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import write_text

# A finished fold keeps its weights five times: AdamW's checkpoint holds them and two moments, the
# best and the release once each. An average of the weights adds one to each checkpoint.
KEPT = 5
# While it trains, the previous checkpoint and the one being written add three times each.
WORKING = 6
# An image's confusion matrices: two in the last and in the previous checkpoint, one in the best
# (int64), and four in the scores of the checkpoints (int32).
MATRICES = (5 * 8 + 4 * 4) * NUM_CLASSES**2


class FoldFiles:
    """Where each file of a fold lies. None of them need be there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Of training: all that resuming needs after the last epoch, and after the one before it;
        # one that could not be read; weights and scores of the best epoch.
        self.last = folder / "last.pt"
        self.previous = folder / "previous.pt"
        self.broken = folder / "last.pt.broken"
        self.best = folder / "best.pt"
        # For people: a row an epoch, the same as curves and for TensorBoard, what was printed.
        self.metrics = folder / "metrics.csv"
        self.progress = folder / "progress.png"
        self.tensorboard = folder / "tensorboard"
        self.log = folder / "train.log"
        # What is left of it: the weights that predict, their WeightsRecord, and how each kind of
        # checkpoint predicts each image.
        self.weights = folder / "weights.safetensors"
        self.weights_record = folder / "weights.json"
        self.checkpoint_scores = folder / "checkpoints.npz"
        # Out-of-fold: float16 [n,13,h,w] and [n,1,h,w], the ids of their n entries, and the
        # FoldRecord that marks the fold as finished.
        self.probabilities = folder / "oof_probs.npy"
        self.depth = folder / "oof_depth.npy"
        self.ids = folder / "oof_ids.txt"
        self.finished = folder / "fold.json"

    @property
    def newest(self) -> Path:
        """The checkpoint that a run goes on from, or names as the last good one."""
        return self.last if self.last.exists() else self.previous

    @property
    def is_begun(self) -> bool:
        """Whether something is there that the next run goes on from."""
        traces = (self.last, self.previous, self.broken, self.best, self.finished)
        return any(path.exists() for path in traces)

    @property
    def is_finished(self) -> bool:
        return self.finished.exists()

    def write_ids(self, ids: list[str]) -> None:
        """Write the ids of the out-of-fold entries, in their order."""
        write_text(self.ids, "".join(f"{image_id}\n" for image_id in ids))

    def read_ids(self) -> list[str]:
        """Ids in the order of the out-of-fold entries. Raises UserError without the file."""
        if not self.ids.exists():
            raise UserError(f"{self.ids}: no such file; train this fold again with --fresh")
        return self.ids.read_text(encoding="utf-8").split("\n")[:-1]

    def bytes_there(self) -> int:
        """Bytes of all files in the fold's folder."""
        return sum(path.stat().st_size for path in self.folder.glob("*"))


def fold_bytes(folds: int, weights: int, averages: int, images: int, size: tuple[int, int]) -> int:
    """Bytes that so many folds, trained one after another, take at most; see kept_bytes."""
    kept = kept_bytes(folds, weights, averages, images, size)
    return kept + working_bytes(weights, averages)


def kept_bytes(folds: int, weights: int, averages: int, images: int, size: tuple[int, int]) -> int:
    """Bytes that so many trained folds leave at most; masks included.

    weights: bytes of a network's; averages: how many averages of them are kept; images: held-out
    images of all folds together; size: height and width of the network's input.
    """
    height, width = size
    grid = (height // STRIDE) * (width // STRIDE) * 2  # float16
    # A mask compresses to a few kilobytes; a pixel a byte would be the worst.
    image = grid * (NUM_CLASSES + 1) + height * width // 8 + MATRICES
    return weights * (KEPT + averages) * folds + image * images


def working_bytes(weights: int, averages: int) -> int:
    """Bytes that a fold takes besides while it is trained."""
    return weights * (WORKING + 2 * averages)
