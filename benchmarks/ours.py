"""nyuseg in the benchmark: the same functions as plain.py, through the library's own code.

The only file of the benchmark that knows nyuseg's inner parts.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT / "src"))

from nyuseg.config.loading import load_config
from nyuseg.config.schema import Config
from nyuseg.data.folds import fold_hash
from nyuseg.dataloading.dataset import TrainingSet
from nyuseg.dataloading.inputs import training_inputs
from nyuseg.dataloading.loader import iterate, make_loader
from nyuseg.demo.data import write_demo
from nyuseg.experiment.creation import create_experiment
from nyuseg.experiment.folder import Experiment, open_experiment
from nyuseg.experiment.records import EpochScore
from nyuseg.experiment.training_data import training_frames
from nyuseg.inference.ensemble import Ensemble
from nyuseg.models.device import autocast_dtype, pick_device, pick_devices
from nyuseg.models.network import build_model
from nyuseg.models.release import release_weights
from nyuseg.submission import writing as inference
from nyuseg.submission.formats import FILES
from nyuseg.submission.rle import encode_mask
from nyuseg.training.fold import FoldTrainer
from nyuseg.utils.files import write_text

CPU = pick_device()
Size = tuple[int, int]


def prepare(data: Path, work: Path, encoders: list[str], size: Size) -> None:
    """Write what all sections need: the demo rooms, and five folds with each encoder."""
    write_data(data, size)
    for encoder in encoders:
        write_folds(data, work, encoder, size)


def write_data(data: Path, size: Size) -> None:
    """Write demo rooms of `size`, unless they are there: 20 training frames, 8 of test."""
    whole = data / "whole"
    if not whole.exists():
        # Five rooms, because five folds by scene need as many.
        write_demo(data, scenes=5, frames=4, test_scenes=2, size=size)
        write_text(whole, "")


def configure(encoder: str, size: Size, batch_size: int = 2) -> Config:
    """Exp060 with another encoder, size and batch, from random weights."""
    overrides = [
        f"name={encoder}-{size[0]}x{size[1]}-{batch_size}",
        f"model.encoder={encoder}",
        "model.encoder_weights=null",
        f"data.size=[{size[0]},{size[1]}]",
        f"train.batch_size={batch_size}",
    ]
    return load_config(PROJECT / "configs/exp060.yaml", overrides)


def training_step(
    data: Path, work: Path, encoder: str, size: Size, batch_size: int
) -> Callable[[], float]:
    """A function that takes one step of the optimizer on a batch and returns the loss.

    The batch is of integers, as the loader gives it: turning it into the network's input is part
    of the step.
    """
    config = configure(encoder, size, batch_size)
    trainer = FoldTrainer(create_experiment(config, data, work / "oof"), 0, CPU)
    trainer.model.train()
    batch = next(iter(trainer.loader))
    return lambda: float(trainer.step(training_inputs(batch, config.data, CPU))[0])


def sampler(data: Path, work: Path, encoder: str, size: Size) -> Callable[[int], None]:
    """A function that makes so many training samples, in batches ready for the network."""
    config = configure(encoder, size)
    experiment = create_experiment(config, data, work / "oof")
    ids = experiment.table["image_id"].tolist()
    frames = TrainingSet(training_frames(experiment), ids, config, fold=0)

    def make(count: int) -> None:
        keys = [(i // len(frames), i % len(frames)) for i in range(count)]
        for batch in iterate(make_loader(frames, 8, 0, CPU, sampler=keys)):
            training_inputs(batch, config.data, CPU)

    return make


def write_folds(
    data: Path,
    work: Path,
    encoder: str,
    size: Size,
    settle: Callable[[nn.Module], nn.Module] = lambda network: network,
) -> None:
    """Write an experiment with five finished folds, random weights, unless it is there.

    settle: what to do with each network before its weights are written.
    """
    config = configure(encoder, size)
    experiment = create_experiment(config, data, work / "oof")
    for fold in range(config.folds.count):
        files = experiment.fold_files(fold)
        if not files.weights_record.exists():
            torch.manual_seed(fold)
            weights = settle(_untrained(config)).state_dict()
            release_weights(files, weights, _facts(experiment, fold))


def _untrained(config: Config) -> nn.Module:
    return build_model(config.model, config.data, pretrained=False)


def _facts(experiment: Experiment, fold: int) -> dict[str, Any]:
    """What must stand beside release weights; scores of random weights mean nothing."""
    score = EpochScore(epoch=1, confusion=[])
    return {
        "experiment": experiment.config.name,
        "fold": fold,
        "checkpoint": "last",
        "epoch": 1,
        "folds": fold_hash(experiment.table),
        "valid_ids": experiment.ids(fold, held_out=True),
        "best": score,
        "last": score,
        "environment": {},
    }


def infer(data: Path, work: Path, encoder: str, size: Size) -> Path:
    """Predict data/test with five folds and a flipped view; returns the submission, a CSV file."""
    experiment = open_experiment(configure(encoder, size).name, work / "oof")
    folds = list(range(experiment.config.folds.count))
    folder = work / "submissions/five_folds"
    inference.infer(experiment, folds, True, data, folder, ["rle"], pick_devices())
    return folder / FILES["rle"]


def infer_all_formats(data: Path, work: Path, encoder: str, size: Size) -> None:
    """Predict data/test with one fold and one view, into every format of a submission."""
    experiment = open_experiment(configure(encoder, size).name, work / "oof")
    folder = work / "submissions/all_formats"
    inference.infer(experiment, [0], False, data, folder, list(FILES), pick_devices())


def encode(mask: np.ndarray) -> list[str]:
    """The 13 run-length texts of a mask, uint8 [H,W]."""
    return encode_mask(mask)


def matrix_dtype() -> str:
    """The dtype of our matrix products on this processor: bfloat16 or float32."""
    return str(autocast_dtype(CPU, "auto")).removeprefix("torch.")


def count_operations(encoder: str, size: Size) -> float:
    """Floating-point operations of a forward pass on one image.

    Counted without computing anything, on torch's `meta` device.
    """
    with torch.device("meta"):
        model = _untrained(configure(encoder, size))
        image = torch.empty(1, 4, *size)
    with FlopCounterMode(display=False) as counter:
        model.to("meta").eval()(image)  # smp makes the first filters elsewhere.
    return counter.get_total_flops()


def network_seconds(encoder: str, size: Size, repeats: int = 2) -> float:
    """Seconds that a network in an Ensemble takes for one view of one image, nothing else."""
    config = configure(encoder, size)
    ensemble = Ensemble([_untrained(config)], config, CPU, tta=True)
    images = torch.rand(2, config.data.channel_count, *size)
    ensemble(images)
    started = perf_counter()
    for _ in range(repeats):
        ensemble(images)
    return (perf_counter() - started) / (repeats * len(images) * ensemble.view_count)
