"""Training of one fold, or of one network on all images."""

import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, NoReturn

import torch

from nyuseg.data.fold_names import Fold, fold_number
from nyuseg.data.folds import fold_hash
from nyuseg.dataloading.dataset import BatchSampler, EpochSampler, TrainingSet
from nyuseg.dataloading.inputs import training_inputs
from nyuseg.dataloading.loader import iterate, make_loader
from nyuseg.dataloading.seeds import mix_seed
from nyuseg.evaluation.checkpoint_scores import write_confusions
from nyuseg.evaluation.history import Epoch, read_seconds, write_metrics
from nyuseg.evaluation.means import Means, total_loss
from nyuseg.evaluation.optimism import half_sums
from nyuseg.evaluation.validation import Look, validate
from nyuseg.experiment.folder import Experiment
from nyuseg.experiment.training_data import training_frames, training_ids
from nyuseg.inference.ensemble import Ensemble, NotFiniteError
from nyuseg.inference.predictor import Predictor
from nyuseg.models.balance import balanced, class_offsets
from nyuseg.models.device import environment
from nyuseg.models.network import build_model
from nyuseg.models.release import release_weights
from nyuseg.models.team import ALONE, Team
from nyuseg.training.best_epoch import BestEpoch
from nyuseg.training.checkpoint import load_checkpoint, load_latest, save_latest
from nyuseg.training.epoch_log import EpochLog, Waiting
from nyuseg.training.full_fit import epochs_of
from nyuseg.training.losses import LossWatch
from nyuseg.training.optimization import TrainingStep
from nyuseg.training.schedule import learning_rate
from nyuseg.training.tensorboard import TensorBoard
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import remove_partial
from nyuseg.utils.progress import progress

# Steps between two looks at the loss on a GPU: a look waits for all that is queued there.
LOOK_EVERY = 20


class FoldTrainer:
    """Fits one fold: state that changes from epoch to epoch, and how it is kept.

    Writes what FoldFiles lists for training: the last checkpoint after each epoch and the best one
    when the validation mIoU rises, and at the end the scores of the checkpoints and the release
    weights. A network on all images has none held out: no scores, no best epoch.
    """

    def __init__(
        self,
        experiment: Experiment,
        fold: Fold,
        device: torch.device,
        later: int = 0,
        team: Team = ALONE,
    ) -> None:
        """later: how many folds this run still trains after it. team: processes that train it
        together; the first of them writes and prints."""
        self.team = team
        self.experiment, self.fold, self.device = experiment, fold, device
        self.config, self.number = experiment.config, fold_number(fold)
        self.files = experiment.fold_files(fold)
        self.epoch, self.epochs = 0, epochs_of(experiment, fold)
        name = f"fold {fold}"
        self.log = EpochLog(
            experiment, self.files, name, self.epochs, later, quiet=not team.is_first
        )
        self.waiting = Waiting()
        self.best = BestEpoch(self.files.best, writes=team.is_first)
        self.history: list[Epoch] = []
        # Of each epoch: its optimism.half_sums, and how long it took.
        self.halves: list[list[Any]] = []
        self.seconds = read_seconds(self.files.metrics)
        ids = training_ids(experiment, fold)
        self._make_network()  # Before frames are decoded: its weights may be missing.
        every = self.config.compute.tensorboard if team.is_first else None
        self.board = TensorBoard(self.files.tensorboard, every, self.epoch) if every else None
        self.source = team.one_first(lambda: training_frames(experiment))
        self.train = TrainingSet(self.source, ids, self.config, self.number)
        self.offsets = class_offsets(self.train.weights, self.config.predict.balance)
        self.valid_ids = experiment.ids(fold, held_out=True)
        self.scenes = experiment.table.set_index("image_id")["scene"][self.valid_ids]
        options = self.config.train
        self.sampler = EpochSampler(len(self.train), self.config.seed, self.number)
        place = options.batch_size, team.rank, team.size
        self.loader = make_loader(
            self.train,
            -(-options.batch_size // team.size),
            self.config.compute.workers,
            device,
            # Whole ones: BatchNorm in the pooled branch of DeepLabV3+ fails on a batch of one.
            batch_sampler=BatchSampler(self.sampler, *place),
        )

    def _make_network(self) -> None:
        """The network and what belongs to it, as they begin or as the last checkpoint has them."""
        if self.team.is_first:
            remove_partial(self.files.folder)
        # The first one moves a broken one aside.
        table = fold_hash(self.experiment.table)
        state = self.team.one_first(lambda: load_latest(self.files, table))
        torch.manual_seed(mix_seed(self.config.seed, self.number))
        network = self.config.model, self.config.data
        self.model = build_model(*network, pretrained=state is None)
        options = self.config.train, self.config.compute
        self.step = TrainingStep(self.model, *options, self.device, self.team)
        self.predictor = Predictor([Ensemble([self.model], self.config, self.device)])
        if state is not None:
            self._restore(state)

    def run(self) -> None:
        """Train the epochs that are left, then write the release weights."""
        weights = self.config.model.encoder_weights or "random"
        begun = f"going on after epoch {self.epoch}" if self.epoch else f"weights: {weights}"
        self.log.line(f"fold {self.fold}: encoder {self.config.model.encoder}, {begun}")
        while self.epoch < self.epochs:
            self._one_epoch()
        if self.board:
            self.board.close()
        self.team.wait()  # For the last checkpoint, which the others read, too.
        chosen = self.config.predict.checkpoint
        last = load_checkpoint(self.files.last)
        averages = last["averages"]["weights"] if "averages" in last else {}
        if self.valid_ids:
            self._write_confusions(last, averages)
        elif chosen == "best":
            chosen = "last"  # Of as many epochs as the best ones of the folds.
        if not self.team.is_first:
            return
        write_metrics(self.files.metrics, self.history, self.seconds)
        state = load_checkpoint(self.files.best) if chosen == "best" else last
        facts = {
            "experiment": self.config.name,
            "fold": self.fold,
            "checkpoint": chosen,
            "epoch": state["epoch"],
            "folds": fold_hash(self.experiment.table),
            "valid_ids": self.valid_ids,
            "best": _score(self.best.facts),
            "last": _score(last),
            "environment": environment(self.device, self.config.compute.precision),
        }
        release_weights(self.files, averages.get(chosen, state["model"]), facts, self.offsets)
        self.files.previous.unlink(missing_ok=True)

    def _write_confusions(self, last: dict[str, Any], averages: dict[str, Any]) -> None:
        """Keep how each checkpoint predicts each image; the averages do so only now."""
        states = {"best": self.best.facts, "last": last}
        found = {kind: state["confusions"].numpy() for kind, state in states.items()}
        for kind, weights in averages.items():
            self.model.load_state_dict(weights)
            valid = self._scores()
            found[kind] = valid["confusions"]
            self.log.line(f"fold {self.fold} {kind} of the weights:  mIoU {valid['miou']:.4f}")
        if self.team.is_first:
            write_confusions(self.files.checkpoint_scores, found, self.halves)

    def _one_epoch(self) -> None:
        started = time.monotonic()
        # Dropout draws from torch's stream: seeded by epoch, it survives an interruption.
        own = (self.team.rank,) if self.team.rank else ()
        torch.manual_seed(mix_seed(self.config.seed, self.number, self.epoch, *own))
        torch.empty((), dtype=torch.int64).random_()  # As a loader once did: scores stay.
        self.sampler.epoch = self.epoch
        train = self._train_epoch()
        frames = self.source, self.team.share(self.valid_ids)
        look = self.board.viewer(self.epoch + 1, *frames) if self.board else None
        try:
            valid = self._scores(look) if self.valid_ids else self._try_out()
        except NotFiniteError as error:  # The last step ruined the weights.
            self._stop(str(error))
        self.epoch += 1
        self.step.averages.after_epoch(self.epoch)
        self.history.append(self._row(train, valid))
        if valid:
            self.halves.append(half_sums(valid["confusions"], self.scenes).tolist())
        self.seconds[self.epoch] = time.monotonic() - started
        self._keep(valid)
        images = len(self.loader) * self.config.train.batch_size
        if self.board:
            class_iou = valid.get("class_iou", ())
            self.board.scalars(self.history[-1], self.seconds[self.epoch], class_iou)
        self.log.epoch(self.history, self.seconds, images, self.waiting.seconds, self.best.epoch)

    def _row(self, train: dict[str, float | None], valid: dict[str, Any]) -> Epoch:
        return Epoch(
            epoch=self.epoch,
            lr=learning_rate(self.config.train, self.epoch - 0.5),
            train_loss=train["loss"],
            train_segmentation=train["segmentation"],
            train_depth=train["depth"],
            valid_loss=valid.get("loss"),
            valid_segmentation=valid.get("segmentation"),
            valid_depth=valid.get("depth"),
            valid_miou=valid.get("miou"),
            valid_pixel_accuracy=valid.get("pixel_accuracy"),
            skipped_steps=self.epoch * len(self.loader) - self.step.taken(),
        )

    def _scores(self, look: Look | None = None) -> dict[str, Any]:
        self.model.eval()
        with balanced(self.model, self.offsets):
            return validate(self.predictor, self.source, self.valid_ids, look, self.team)

    def _try_out(self) -> dict[str, Any]:
        """Predict one image, which shows whether the answer is finite; it is scored on none."""
        self.model.eval()
        list(self.predictor.predict(self.source, self.train.ids[:1]))
        return {}

    def _train_epoch(self) -> dict[str, float | None]:
        """One pass over the training images; returns its mean losses: loss, segmentation, depth.

        Each over the batches that have it; None when none has.
        """
        self.model.train()
        means = Means(3, torch.float32, self.device)
        watch = LossWatch(self.device)
        for index, batch in enumerate(self._batches()):
            moment = self.epoch + (index + 0.5) / len(self.loader)
            self.step.set_rate(learning_rate(self.config.train, moment))
            losses = self.step(batch)
            means.add(losses, ~losses.isnan())
            watch.see(losses[0], batch["id"])
            self._stop_if(watch.bad_step(len(watch.ids) % LOOK_EVERY == 0), watch)
        self._stop_if(watch.bad_step(True), watch)
        total, segmentation, depth = means.read()
        if len(set(means.counts.tolist())) > 1:  # A batch's total lacks what the batch lacks.
            total = total_loss(segmentation, depth, self.config.train.depth_loss)
        return {"loss": total, "segmentation": segmentation, "depth": depth}

    def _stop_if(self, step: int | None, watch: LossWatch) -> None:
        if step is not None:
            images = ", ".join(watch.ids[step])
            other = " or those of another process" if self.team.size > 1 else ""
            self._stop(f"step {step + 1}: the loss is not finite, on images {images}{other}")

    def _stop(self, what: str) -> NoReturn:
        good = f"{self.files.newest} (epoch {self.epoch})" if self.epoch else "none yet"
        raise UserError(
            f"fold {self.fold}, epoch {self.epoch + 1}: {what}; last good checkpoint: {good}; "
            "try a lower train.lr or compute.precision=fp32"
        )

    def _batches(self) -> Iterator[dict[str, Any]]:
        title = f"fold {self.fold} epoch {self.epoch + 1}/{self.epochs}"
        self.waiting = Waiting()
        batches = self.waiting.over(iterate(self.loader))
        stop, quiet = self.team.stop_if_asked, not self.team.is_first
        for batch in progress(batches, title, len(self.loader), "batch", stop, quiet):
            yield training_inputs(batch, self.config.data, self.device)

    def _keep(self, valid: dict[str, Any]) -> None:
        """Write what this epoch changed; the best last: the last checkpoint can make it again."""
        score: dict[str, Any] = {"epoch": self.epoch}
        if valid:
            score["confusion"] = valid["confusion"].tolist()
            score["confusions"] = torch.from_numpy(valid["confusions"])
        improved = bool(valid) and self.best.take(valid["miou"], score)
        if not self.team.is_first:
            return
        state = {
            "model": self.model.state_dict(),
            **self.step.state_dict(),
            "best": self.best.facts,
            "history": [asdict(row) for row in self.history],
            "halves": self.halves,
            "folds": fold_hash(self.experiment.table),
            "train_ids": self.train.ids,
            "valid_ids": self.valid_ids,
            **score,
        }
        # Before the checkpoint: an epoch that is kept has its seconds, wherever the run is cut.
        write_metrics(self.files.metrics, self.history, self.seconds)
        save_latest(self.files, state)
        if improved:
            self.best.save(self.model.state_dict())

    def _restore(self, state: dict[str, Any]) -> None:
        try:
            self.model.load_state_dict(state["model"])
            self.step.load_state_dict(state)
            self.history = [Epoch(**row) for row in state["history"]]
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError):
            raise UserError(
                f"{self.files.newest}: belongs to another network; use --fresh"
            ) from None
        self.epoch, self.halves = state["epoch"], state["halves"]
        self.best.restore(state["best"], self.epoch, self.model.state_dict())


def _score(state: dict[str, Any]) -> dict[str, Any] | None:
    """What an EpochScore holds, of a checkpoint; None where nothing was scored."""
    return {key: state[key] for key in ("epoch", "confusion")} if "confusion" in state else None
