"""The best epoch of a fold so far, and its checkpoint."""

from pathlib import Path
from typing import Any

from nyuseg.training.checkpoint import load_checkpoint, save_checkpoint
from nyuseg.utils.errors import UserError


class BestEpoch:
    """What is known of the epoch with the highest validation mIoU, `facts`, and its weights' file.

    A network on all images is never scored and has none: epoch 0, and no file.
    """

    def __init__(self, path: Path, writes: bool = True) -> None:
        """writes: False where another process writes the file."""
        self.path, self.writes = path, writes
        self.facts: dict[str, Any] = {"miou": -1.0}

    @property
    def epoch(self) -> int:
        """Its number, 1, 2, ...; 0 before the first."""
        return int(self.facts.get("epoch", 0))

    def take(self, miou: float, score: dict[str, Any]) -> bool:
        """Look at the score of an epoch; returns whether it is the best now."""
        improved = miou > self.facts["miou"]
        if improved:
            self.facts = {"miou": miou, **score}
        return improved

    def save(self, weights: dict[str, Any]) -> None:
        """Write the weights of the best epoch and its facts."""
        if not self.writes:
            return
        save_checkpoint(self.path, {"model": weights, **self.facts})

    def restore(self, facts: dict[str, Any], epoch: int, weights: dict[str, Any]) -> None:
        """Make the best checkpoint and what is known of it agree, wherever the run was cut.

        facts: what the checkpoint that is gone on from knows; epoch, weights: its own. Cut between
        the last and the best, the best is an epoch behind: this epoch's weights are the best. Gone
        back to the previous one, it may be an epoch ahead: it stands for itself. Raises UserError
        when the file is neither.
        """
        self.facts = facts
        best = load_checkpoint(self.path) if self.path.exists() else {"epoch": 0}
        if best.get("epoch") == self.epoch:
            return
        if self.epoch == epoch:
            self.save(weights)
        elif best.get("epoch", 0) > epoch:
            self.facts = {key: value for key, value in best.items() if key != "model"}
        else:
            raise UserError(f"{self.path}: not the best epoch {self.epoch}; use --fresh")
