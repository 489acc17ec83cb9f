"""Training of one fold."""

import csv
import io
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from nyuseg.checkpoint import load_checkpoint, release_weights, save_checkpoint
from nyuseg.dataset import EpochSampler, PredictionSet, TrainingSet, make_loader, mix_seed
from nyuseg.device import autocast, autocast_dtype
from nyuseg.errors import UserError
from nyuseg.experiment import Experiment
from nyuseg.files import write_text
from nyuseg.folds import fold_hash
from nyuseg.losses import multitask_loss
from nyuseg.model import build_model
from nyuseg.predictor import Predictor
from nyuseg.progress import progress
from nyuseg.validate import validate

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
    "seconds",
)


def learning_rate(base: float, epoch: int, epochs: int) -> float:
    """Cosine annealing from `base` towards 0, stepped by epoch (0 .. epochs - 1), as torch's
    CosineAnnealingLR with T_max = epochs; a pure function, so a resumed run cannot jump."""
    return base * 0.5 * (1 + math.cos(math.pi * epoch / epochs))


class FoldTrainer:
    """Fits one fold: state that changes from epoch to epoch, and how it is kept.

    Writes into oof/<exp>/fold_k: last.pt after each epoch (all that resuming needs), best.pt when
    the validation mIoU rises, metrics.csv, and at the end the release weights.
    """

    def __init__(self, experiment: Experiment, fold: int, device: torch.device) -> None:
        self.experiment, self.fold, self.device = experiment, fold, device
        self.config = experiment.config
        self.folder = experiment.fold_folder(fold)
        self.epoch = 0
        self.best: dict[str, Any] = {"miou": -1.0}
        self.history: list[dict[str, Any]] = []
        self.train = TrainingSet(experiment.input, self._training_ids(), self.config, fold)
        held_out = experiment.ids(fold, held_out=True)
        self.valid = PredictionSet(experiment.input, "train", held_out, self.config.data)
        options = self.config.train
        self.sampler = EpochSampler(len(self.train), self.config.seed, fold)
        self.loader = make_loader(
            self.train,
            options.batch_size,
            options.workers,
            device,
            sampler=self.sampler,
            # BatchNorm in the pooled branch of DeepLabV3+ fails on a batch of one.
            drop_last=True,
        )
        self.resuming = (self.folder / "last.pt").exists()
        torch.manual_seed(mix_seed(self.config.seed, fold))
        self.model = build_model(self.config, pretrained=not self.resuming)
        self.model.to(device, memory_format=torch.channels_last)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), options.lr, weight_decay=options.weight_decay, fused=True
        )
        half = autocast_dtype(device, options.precision) == torch.float16
        self.scaler = torch.amp.GradScaler(device.type, enabled=half)
        if self.resuming:
            self._restore(load_checkpoint(self.folder / "last.pt"))

    def _training_ids(self) -> list[str]:
        ids, batch = self.experiment.ids(self.fold, held_out=False), self.config.train.batch_size
        if len(ids) < batch:
            raise UserError(
                f"fold {self.fold}: {len(ids)} training images do not fill a batch of {batch}; "
                f"use --set train.batch_size={max(2, len(ids))} or more data"
            )
        return ids

    def run(self) -> None:
        """Train the epochs that are left, then write the release weights."""
        if self.resuming:
            print(f"fold {self.fold}: going on after epoch {self.epoch}", flush=True)
        while self.epoch < self.config.train.epochs:
            self._one_epoch()
        chosen = self.config.predict.checkpoint
        state = load_checkpoint(self.folder / f"{chosen}.pt")
        facts = {
            "experiment": self.config.name,
            "fold": self.fold,
            "checkpoint": chosen,
            "epoch": state["epoch"],
            "folds": fold_hash(self.experiment.table),
            "valid_ids": self.valid.ids,
        }
        release_weights(self.folder, state["model"], facts)

    def _one_epoch(self) -> None:
        started = time.monotonic()
        options = self.config.train
        rate = learning_rate(options.lr, self.epoch, options.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        # Dropout draws from torch's stream: seeded by epoch, it survives an interruption.
        torch.manual_seed(mix_seed(self.config.seed, self.fold, self.epoch))
        self.sampler.epoch = self.epoch
        train = self._train_epoch()
        predictor = Predictor([self.model], self.config, self.device)
        valid = validate(predictor, self.valid)
        self.epoch += 1
        values = [self.epoch, rate, *train]
        values += [valid[key] for key in ("loss", "segmentation", "depth")]
        values += [valid["miou"] or 0.0, valid["pixel_accuracy"] or 0.0]
        values += [time.monotonic() - started]
        self.history.append(dict(zip(COLUMNS, values, strict=True)))
        self._keep(valid)
        self._print_epoch()

    def _train_epoch(self) -> list[float]:
        """One pass over the training images; returns the mean losses: total, parts."""
        self.model.train()
        sums = torch.zeros(3, device=self.device)
        for batch in self._batches():
            with autocast(self.device, self.config.train.precision):
                output = self.model(batch["image"])
            loss = multitask_loss(output, batch, self.config.train.depth_loss)
            self.optimizer.zero_grad(set_to_none=True)
            self.scaler.scale(loss["total"]).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
            sums += torch.stack([loss["total"], loss["segmentation"], loss["depth"]]).detach()
        means = (sums / len(self.loader)).tolist()
        if not all(map(math.isfinite, means)):
            raise UserError(
                f"fold {self.fold}, epoch {self.epoch + 1}: the loss is not finite; the last good "
                f"checkpoint is {self.folder / 'last.pt'}; lower train.lr or use "
                "--set train.precision=fp32"
            )
        return means

    def _batches(self) -> Iterator[dict[str, Any]]:
        title = f"fold {self.fold} epoch {self.epoch + 1}/{self.config.train.epochs}"
        for batch in progress(self.loader, title, len(self.loader), "batch"):
            for key in ("image", "label", "depth", "depth_valid"):
                batch[key] = batch[key].to(self.device, non_blocking=True)
            batch["image"] = batch["image"].contiguous(memory_format=torch.channels_last)
            yield batch

    def _keep(self, valid: dict[str, Any]) -> None:
        """Write what this epoch changed: best.pt first, so that last.pt never names a lost best."""
        score = {"epoch": self.epoch, "confusion": valid["confusion"].tolist()}
        miou = valid["miou"] or 0.0
        if miou > self.best["miou"]:
            self.best = {"miou": miou, **score}
            save_checkpoint(self.folder / "best.pt", {"model": self.model.state_dict(), **score})
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "best": self.best,
            "history": self.history,
            "folds": fold_hash(self.experiment.table),
            "train_ids": self.train.ids,
            "valid_ids": self.valid.ids,
            **score,
        }
        save_checkpoint(self.folder / "last.pt", state)
        write_metrics(self.folder / "metrics.csv", self.history)

    def _restore(self, state: dict[str, Any]) -> None:
        if state["folds"] != fold_hash(self.experiment.table):
            raise UserError(
                f"{self.folder / 'last.pt'}: trained on another fold table; use --fresh"
            )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.epoch, self.best, self.history = state["epoch"], state["best"], state["history"]

    def _print_epoch(self) -> None:
        row = self.history[-1]
        leaky = "  (leaky)" if self.experiment.notice else ""
        images = len(self.loader) * self.config.train.batch_size
        star = " *" if self.best["epoch"] == self.epoch else ""
        print(
            f"fold {self.fold} epoch {self.epoch:3d}/{self.config.train.epochs}"
            f"  loss {row['train_loss']:.4f} (depth {row['train_depth']:.4f})"
            f"  valid loss {row['valid_loss']:.4f}  mIoU {row['valid_miou']:.4f}"
            f"  pixel acc {row['valid_pixel_accuracy']:.4f}"
            f"  {images / row['seconds']:.1f} img/s{star}{leaky}",
            flush=True,
        )


def write_metrics(path: Path, history: list[dict[str, Any]]) -> None:
    """Write metrics.csv: one row an epoch, six significant digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in history:
        writer.writerow([row["epoch"], *(f"{row[name]:.6g}" for name in COLUMNS[1:])])
    write_text(path, text.getvalue())
