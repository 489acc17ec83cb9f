"""What people see of a fold while it trains: lines, train.log, progress.png, TensorBoard."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np

from nyuseg.evaluation.history import Epoch, number
from nyuseg.experiment.fold_files import FoldFiles
from nyuseg.experiment.folder import Experiment
from nyuseg.utils.files import write_bytes

Item = TypeVar("Item")
# The part of the time that drawing may take: short epochs are not all drawn. And the seconds that
# it takes, until that is known.
DRAWING, FIRST = 0.05, 1.0


class Waiting:
    """How long a loop has waited for its items."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def over(self, items: Iterable[Item]) -> Iterator[Item]:
        """Pass the items through."""
        source = iter(items)
        while True:
            begun = time.monotonic()
            try:
                item = next(source)
            except StopIteration:
                return
            finally:
                self.seconds += time.monotonic() - begun
            yield item


class EpochLog:
    """Tells of one fold, epoch by epoch. Nothing here changes what is trained."""

    def __init__(
        self,
        experiment: Experiment,
        files: FoldFiles,
        name: str,
        epochs: int,
        later: int,
        quiet: bool = False,
    ) -> None:
        """name: such as `fold 3`; epochs: how many it has; later: folds that this run still trains
        after it; quiet: say and write nothing, as another process does it."""
        self.quiet = quiet
        self.experiment, self.files, self.name = experiment, files, name
        self.epochs, self.later = epochs, later
        self.drawn, self.drawing = time.monotonic(), FIRST

    def line(self, text: str) -> None:
        """Print a line, and append it with the time to the fold's log."""
        if self.quiet:
            return
        print(text, flush=True)
        self.files.folder.mkdir(parents=True, exist_ok=True)
        with self.files.log.open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}\n")

    def epoch(
        self,
        history: Sequence[Epoch],
        seconds: Mapping[int, float],
        images: int,
        waited: float,
        best: int,
    ) -> None:
        """Tell of the last epoch of a history.

        seconds: of each epoch that is known; images: that it trained on; waited: seconds that it
        waited for them; best: the best epoch so far.
        """
        row = history[-1]
        took = seconds[row.epoch]
        scores = ""
        if row.valid_loss is not None:
            scores = f"  valid loss {number(row.valid_loss)}  mIoU {number(row.valid_miou)}"
            scores += f"  pixel acc {number(row.valid_pixel_accuracy)}"
        notice = self.experiment.short_notice
        self.line(
            f"{self.name} epoch {row.epoch:3d}/{self.epochs}"
            f"  loss {number(row.train_loss)} (depth {number(row.train_depth)}){scores}"
            f"  {took:.1f} s, {images / took:.1f} img/s, {waited / took:.0%} waiting for data"
            f"{self._left(row.epoch, seconds)}"
            + " *" * (best == row.epoch)
            + (f"  ({notice})" if notice else "")
        )
        self._draw(history, seconds)

    def _left(self, epoch: int, seconds: Mapping[int, float]) -> str:
        """How long the epochs that are left take, as long as those so far on average."""
        left = self.epochs - epoch + self.later * self.epochs
        if not left:
            return ""
        folds = f" for {self.later + 1} folds" if self.later else ""
        return f", {duration(left * float(np.mean(list(seconds.values()))))} left{folds}"

    def _draw(self, history: Sequence[Epoch], seconds: Mapping[int, float]) -> None:
        if self.quiet:
            return
        begun = time.monotonic()
        last = history[-1].epoch == self.epochs
        if not last and begun - self.drawn < self.drawing / DRAWING:
            return
        # matplotlib takes half a second to import: not before there is something to draw.
        from nyuseg.evaluation.learning_curves import learning_curves

        title = f"{self.experiment.config.name}, {self.name}, epoch {history[-1].epoch}"
        picture = learning_curves(f"{title} of {self.epochs}", self.epochs, history, seconds)
        write_bytes(self.files.progress, picture)
        self.drawn = time.monotonic()
        self.drawing = self.drawn - begun


def duration(seconds: float) -> str:
    """`45 s`, `12 min` or `3 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
